"""A variant meets a problem: everything that can be refused or foreseen before torch is loaded.

`plan` answers what will be computed: which steps, on which axes, with which positions, heads and seeds; and
raises where problem and variant do not go together. The core follows the plan and asks nothing again.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attncli import expression
from attncli.errors import InputError, OptionError, Place, listed, nearest
from attncli.expression import Expression
from attncli.gate import STEP_NAMES, Extent, admit, as_numpy, extent, path_of, shape_of
from attncli.parts.links import link
from attncli.parts.masks import mask
from attncli.parts.projections import LEARNED, Sizes, widths
from attncli.registry import Part, spelled
from attncli.types import BASE_STEPS, SHOWN, Grid, Problem
from attncli.variant import Variant

ROW_STATISTICS = ("max_score", "log_sum_exp", "entropy", "visible_keys")
TOP = ("top_keys", "top_weights")


@dataclass(frozen=True)
class Link:
    """One link of the chain that does something: its part, bound to its value, and the step it leaves."""

    name: str
    step: str
    formula: str
    part: Part


@dataclass(frozen=True)
class Plan:
    """What will be computed, decided before anything is."""

    problem: Problem
    variant: Variant  # with everything settled that the problem decides
    size: Extent
    heads: int
    kv_heads: int
    headed: bool  # heads are named, or q, k, v came in heads: the head axis stands in results
    widths: Mapping[str, int]  # how long the dim axis of each step that has one is
    chain: tuple[Link, ...]
    mask: Expression | None  # None: every query sees every key
    masked: bool  # some key may be hidden: by mask, lengths or a bias of −∞
    steps: Mapping[str, tuple[str, ...]]  # every step this variant has on this problem, with its axes
    keep: frozenset[str]
    top: int
    q_pos: np.ndarray | None  # (b, n) or (n,); None: nothing reads positions, and they cannot be known
    k_pos: np.ndarray | None
    dtype: str
    tokens: tuple[Any, ...]
    k_tokens: tuple[Any, ...]
    warnings: tuple[str, ...]
    summary: tuple[str, ...]

    def grid(self) -> Grid:
        """Where the scores sit, in numpy arrays that broadcast to (b, h, n, m)."""
        p, size = self.problem, self.size
        nothing = np.zeros(1, np.int64)
        return Grid(
            q_pos=_rows(nothing if self.q_pos is None else self.q_pos),
            k_pos=_columns(nothing if self.k_pos is None else self.k_pos),
            q_idx=_rows(np.arange(size.past, size.past + size.queries)),
            k_idx=_columns(np.arange(size.keys)),
            q_seg=_rows(p.segments),
            k_seg=_columns(p.segments if p.k_segments is None else p.k_segments),
            lengths=None if p.lengths is None else p.lengths[:, None, None, None],
            given=_full_rank(p.mask),
            bias=_full_rank(p.bias),
        )

    def length(self, step: str, axis: str) -> int:
        """How long an axis of a step will be."""
        size = self.size
        fixed = {"batch": size.batch or 1, "head": self.heads, "kv_head": self.kv_heads, "query": size.queries, "new_key": size.new_keys, "rank": self.top}
        if axis == "key":
            return size.new_keys if step in ("k", "v") else size.keys
        return self.widths[step] if axis == "dim" else fixed[axis]

    def sizes(self) -> Sizes:
        return _sizes(self.problem, self.heads, self.kv_heads)


def _rows(x: Any) -> Any:
    """(n,) or (b, n) → (b, 1, n, 1)"""
    return x if x is None else x.reshape(-1, 1, x.shape[-1], 1)


def _columns(x: Any) -> Any:
    """(m,) or (b, m) → (b, 1, 1, m)"""
    return x if x is None else x.reshape(-1, 1, 1, x.shape[-1])


def _full_rank(x: Any) -> Any:
    """(…, n, m) → (b, h, n, m), with 1 where an axis is absent"""
    return x if x is None else x.reshape((1,) * (4 - x.ndim) + shape_of(x))


def visible(at: Grid, mask: Expression | None) -> Any:
    """What mask, lengths and bias together let through: booleans that broadcast to (b, h, n, m)."""
    seen = at.k_idx >= 0 if mask is None else mask(at)
    if at.lengths is not None:
        seen = seen & (at.k_idx < at.lengths)
    if at.bias is not None:
        seen = seen & (at.bias > float("-inf"))
    return seen


def plan(problem: Problem, variant: Variant | None = None, keep: Collection[str] | None = None, *, top: int | None = None) -> Plan:
    """Problem and variant → plan. `keep` names steps; None keeps every step, "shown" those of a first look.

    Raises:
        InputError: problem and variant do not go together, or a step is asked for that this variant lacks.
        OptionError: a step is asked for that no variant has.
    """
    p = admit(problem)
    chosen = variant if variant is not None else Variant(**p.variant)
    size = extent(p)
    heads, kv_heads, headed = _heads(p, chosen, size)
    chosen = chosen.but(projection=_projection(p, chosen))
    d, d_v, d_out = _widths(p, chosen, size, heads, kv_heads)
    expr = _mask(p, chosen)
    hidden = p.bias is not None and bool((p.bias == float("-inf")).any())
    masked = expr is not None or p.lengths is not None or hidden
    chain = _chain(p, chosen, d, masked)
    q_pos, k_pos = _positions(p, chosen, size, expr)
    chosen = chosen.but(mask=expr or chosen["mask"], seed=_seed(p, chosen), dtype=_dtype(p, chosen))
    if headed:
        chosen = chosen.but(heads=heads, kv_heads=kv_heads)
    _preset(p, chosen, headed)
    steps = _steps(p, size, chosen, chain, headed, masked, d_v is not None, d_out is not None, top)
    tokens, k_tokens = _labels(p, size)
    out = Plan(
        problem=p,
        variant=chosen,
        size=size,
        heads=heads,
        kv_heads=kv_heads,
        headed=headed,
        widths={"q": d, "k": d, "present_k": d, **dict.fromkeys(("v", "present_v", "head_context"), d_v or 0), "context": heads * (d_v or 0), "output": d_out or 0},
        chain=chain,
        mask=expr,
        masked=masked,
        steps=steps,
        keep=_keep(keep, steps, top),
        top=min(top or 0, size.keys),
        q_pos=q_pos,
        k_pos=k_pos,
        dtype=chosen["dtype"],
        tokens=tokens,
        k_tokens=k_tokens,
        warnings=tuple(f"unused-field: {name} is not used by this variant" for name in _unused(p, chosen, chain, expr, d_out is not None)),
        summary=_summary(p, chosen, size, chain, heads, kv_heads, headed, masked),
    )
    if chosen["empty_rows"] == "error" and masked:
        at = out.grid()
        at = at if at.bias is None else replace(at, bias=as_numpy(at.bias))
        rows = blind_rows(np.broadcast_to(visible(at, expr), (size.batch or 1, heads, size.queries, size.keys)), out)
        if rows:
            raise InputError("empty-rows", f"{rows} no key, and empty_rows is error", help="--empty-rows zero|nan|uniform says what their weights shall be")
    return out


def blind_rows(seen: Any, plan: Plan) -> str:
    """Which queries see no key, in words; empty where all see one. seen: (b, h, n, m) booleans."""
    blind = ~seen.any(-1)
    if not bool(blind.any()):
        return ""
    if bool((blind == blind[:1, :1]).all()):  # the same in every batch item and head: name the queries alone
        rows = [str(int(i)) for i in np.argwhere(np.asarray(blind[0, 0]))[:, 0]]
        return f"quer{'y' if len(rows) == 1 else 'ies'} {listed(rows, most=8)} see{'s' if len(rows) == 1 else ''}"
    names = []
    for b, h, i in np.argwhere(np.asarray(blind)).tolist():
        where = [f"batch {b}"] * (plan.size.batch is not None) + [f"head {h}"] * plan.headed
        names.append(f"{' '.join(where)} query {i}".strip())
    return f"{listed(names, most=8)} see"


# ── what the problem decides ─────────────────────────────────────────────────────────────────────
def _wrong(code: str, message: str, path: str = "", help: str = "") -> InputError:
    return InputError(code, message, place=Place(path=path_of(path) if path else ""), help=help)


def _heads(p: Problem, v: Variant, size: Extent) -> tuple[int, int, bool]:
    """(query heads, kv heads, whether heads are named)."""
    for name, held, asked in (("heads", size.heads, v["heads"]), ("kv_heads", size.kv_heads, v["kv_heads"])):
        if held is not None and asked not in (None, held):
            raise _wrong("heads-mismatch", f"{name} is {asked}, but {'q' if name == 'heads' else 'k'} comes in {held} heads", "q" if name == "heads" else "k")
    named = size.heads is not None or v["heads"] is not None
    heads = size.heads or v["heads"] or 1
    kv_heads = size.kv_heads or v["kv_heads"] or heads
    if not named and v["kv_heads"] not in (None, 1):
        raise _wrong("missing-heads", f"kv_heads is {kv_heads}, but how many query heads share them is not said", help=f"add --heads {2 * kv_heads} (a multiple of {kv_heads})")
    if heads % kv_heads:
        divisors = listed([n for n in range(1, heads + 1) if heads % n == 0], "or")
        raise _wrong("heads-mismatch", f"{heads} query heads cannot share {kv_heads} kv heads equally", help=f"{heads} heads, {kv_heads} kv heads: {divisors}")
    if p.past:
        cached = shape_of(p.past["k"])[1]
        if cached != kv_heads:
            raise _wrong("heads-mismatch", f"past.k has {cached} heads, but there are {kv_heads} kv heads", "past.k")
    return heads, kv_heads, named


def _projection(p: Problem, v: Variant) -> Part:
    """Where q, k, v come from when nobody said: from the file where it has them."""
    learned = {parameter.name for parameter in LEARNED} & set(p.parameters)
    chosen: Part | None = v["projection"]
    family = Variant(projection="given")["projection"], Variant(projection="identity")["projection"]
    if chosen is None:
        return family[0] if learned else family[1]
    if chosen.name == "given" and not learned:
        raise _wrong("missing-parameters", "projection is given, but the file has none of w_q, w_k, w_v, w_o", "parameters", help="add them, or draw them: --projection linear:dim=…")
    if p.q is not None and chosen.member.facts.get("drawn"):
        raise _wrong("already-projected", f"projection is {chosen.name}, but q, k and v are already projected", "q", help="give embeddings, or leave the projection out")
    return chosen


def _sizes(p: Problem, heads: int, kv_heads: int) -> Sizes:
    x = p.q if p.embeddings is None else p.embeddings
    y = p.k if p.embeddings is None else p.memory["embeddings"] if p.memory else x
    return Sizes(shape_of(x)[-1], shape_of(y)[-1], heads, kv_heads, p.w_layout == "out-in")


def _parameter_shapes(p: Problem, v: Variant, sizes: Sizes) -> dict[str, tuple[int, int]]:
    """(d_in, d_out) of the matrices this variant applies: those of the file, or those that will be drawn."""
    part: Part = v["projection"]
    if part.member.facts.get("drawn"):
        drawn = widths(sizes, part.get("dim"), part.get("v-dim"))
        for letter, n in (("q", sizes.heads), ("v", sizes.heads)):
            d_out = (part.get("v-dim") or part.get("dim") or sizes.d) if letter == "v" else drawn["q"][1]
            if d_out % n:
                raise _indivisible(letter, d_out, n)
        return {f"w_{x}": drawn[x] for x in ("qkvo" if part.get("out") == "yes" else "qkv")}
    if part.name != "given":
        return {}
    found = {}
    for name in ("w_q", "w_k", "w_v", "w_o"):
        if name in p.parameters and (p.q is None or name == "w_o"):
            rows, columns = shape_of(p.parameters[name])
            found[name] = (columns, rows) if sizes.out_in else (rows, columns)
    return found


def _indivisible(name: str, columns: int, heads: int) -> InputError:
    divisors = listed([n for n in range(1, columns + 1) if columns % n == 0], "or")
    return _wrong("heads-mismatch", f"{name} has {columns} columns, which {heads} heads do not divide", help=f"{columns} columns, {heads} heads: {divisors}")


def _widths(p: Problem, v: Variant, size: Extent, heads: int, kv_heads: int) -> tuple[int, int | None, int | None]:
    """(width of one head of q and k, of v, of the output), after every shape has been held against every other."""
    sizes = _sizes(p, heads, kv_heads)
    shapes = _parameter_shapes(p, v, sizes)
    given = v["projection"].name == "given"
    made_of = {"w_q": (sizes.d, "the embeddings"), "w_k": (sizes.e, "the memory" if p.memory else "the embeddings"), "w_v": (sizes.e, "the memory" if p.memory else "the embeddings")}
    for name, (d_in, whose) in made_of.items():
        if name in shapes and shapes[name][0] != d_in:
            turn = ' (with "w_layout": "out-in" it would be)' if shapes[name][1] == d_in and not sizes.out_in else ""
            raise _wrong("shape-mismatch", f"{name} takes {shapes[name][0]} columns, but {whose} have {d_in}", f"parameters.{name}", help=f"w is ({'d_out, d_in' if sizes.out_in else 'd_in, d_out'}): here ({d_in}, …){turn}")
    columns: dict[str, int | None] = {}
    for name in ("q", "k", "v"):
        n = heads if name == "q" else kv_heads
        if p.q is not None:
            value = getattr(p, name)
            total = None if value is None else shape_of(value)[-1] * (n if size.heads is not None else 1)
        else:
            total = shapes.get(f"w_{name}", (0, sizes.d if name == "q" else sizes.e))[1]
        columns[name] = total
        if given and p.q is None and f"b_{name}" in p.parameters and shape_of(p.parameters[f"b_{name}"]) != (total,):
            raise _wrong("shape-mismatch", f"b_{name} has shape {shape_of(p.parameters[f'b_{name}'])}, but {name} has {total} columns", f"parameters.b_{name}")
        if total is not None and total % n:
            raise _indivisible(name, total, n)
    assert columns["q"] is not None and columns["k"] is not None
    d, d_k = columns["q"] // heads, columns["k"] // kv_heads
    if d != d_k:
        why = f"fewer kv heads need w_k and w_v of {d * kv_heads} columns" if kv_heads < heads and "w_k" not in shapes else "q·k needs them equal"
        raise _wrong("shape-mismatch", f"a query has {columns['q']} columns in {heads} heads ({d} each), a key {columns['k']} in {kv_heads} ({d_k} each)", help=why)
    d_v = None if columns["v"] is None else columns["v"] // kv_heads
    for name, width in (("k", d), ("v", d_v)):
        if p.past and name in p.past and shape_of(p.past[name])[3] != width:
            raise _wrong("shape-mismatch", f"past.{name} is {shape_of(p.past[name])[3]} wide, but {name} of one head {width}", f"past.{name}")
    for name in ("mask", "bias", "dropout_mask"):
        value = getattr(p, name)
        if value is not None and value.ndim >= 3 and shape_of(value)[-3] not in (1, heads):
            raise _wrong("shape-mismatch", f"{name} has shape {shape_of(value)}, but there {'is 1 head' if heads == 1 else f'are {heads} heads'}", name, help="its axes are (B, H, Tq, Tk); say --heads, or drop the axis")
    if "w_o" not in shapes or d_v is None:
        return d, d_v, None
    if shapes["w_o"][0] != heads * d_v:
        raise _wrong("shape-mismatch", f"w_o takes {shapes['w_o'][0]} columns, but the context has {heads * d_v}", "parameters.w_o")
    if given and "b_o" in p.parameters and shape_of(p.parameters["b_o"]) != (shapes["w_o"][1],):
        raise _wrong("shape-mismatch", f"b_o has shape {shape_of(p.parameters['b_o'])}, but w_o makes {shapes['w_o'][1]} columns", "parameters.b_o")
    return d, d_v, shapes["w_o"][1]


def _mask(p: Problem, v: Variant) -> Expression | None:
    """The expression as it will run: the file's mask is and-ed in unless it is named."""
    expr: Expression = v["mask"]
    names = {part.name for part in expr.parts()}
    if "given" in names and p.mask is None:
        raise _wrong("missing-field", "mask names `given`, but the file has no mask", "mask")
    if p.mask is not None and "given" not in names:
        expr = expression.both(expr, expression.parse("given", mask))
    if "document" in names and p.segments is None:
        raise _wrong("missing-field", "mask names `document`, but the file has no segments", "segments", help='add "segments": the document of each token, as in [0, 0, 1]')
    keys = p.segments if p.k_segments is None else p.k_segments
    if "document" in names and shape_of(keys)[-1] != extent(p).keys:
        raise _wrong("missing-field", f"mask names `document`, but the {extent(p).keys} keys have no segments", "k_segments", help="add k_segments, one for each key, past and new")
    return None if str(expr) == "full" else expr


class _Watch:
    """A grid of one cell that remembers which of its fields a mask looked at."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.seen.add(name)
        return np.zeros((1, 1, 1, 1), bool if name == "given" else np.int64)


def reads(expr: Expression | None) -> set[str]:
    """Which fields of the grid the masks of an expression look at: found by letting them look."""
    watch = _Watch()
    for part in expr.parts() if expr else ():
        part(watch)
    return watch.seen


def _chain(p: Problem, v: Variant, width: int, masked: bool) -> tuple[Link, ...]:
    """The links that do something, in order, each bound to its value."""
    at_hand = {"bias": p.bias is not None, "visible": masked}
    used: dict[str, tuple[Part, str]] = {}
    for member in link:
        if "reads" in member.facts:
            if at_hand[member.facts["reads"]]:
                used[member.name] = Part(member), member.formula
            continue
        value = v[member.name.replace("-", "_")]
        why = ""
        if value == "auto":
            factor = v["score"].member.facts.get("scale", lambda _: 1)(width)
            value, why = factor, f" = s / √{width}" if factor != 1 else ""
        if value in ("none", member.facts.get("neutral")):
            continue
        option = member.options[0].name
        used[member.name] = Part(member, ((option, value),)), member.formula.format(**{option: spelled(value)}) + why
    for name in used:
        if name not in v["chain"]:
            raise _wrong("left-out", f"the chain {','.join(v['chain'])} leaves out {name}, which this problem needs", help=f"add {name} to --chain where it should stand" + (", or say --scale none" if name == "scale" else ""))
    out: list[Link] = []
    for name in v["chain"]:
        if name in used:
            part, formula = used[name]
            again = sum(done.name == name for done in out)
            out.append(Link(name, part.member.facts["step"] + (f"_{again + 1}" if again else ""), formula, part))
    return tuple(out)


def _positions(p: Problem, v: Variant, size: Extent, expr: Expression | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Positions of queries and keys (DESIGN §3.1): given, or counted from the past, or by --align."""
    self_attention = p.memory is None and size.queries == size.new_keys
    q, k = p.positions, p.k_positions
    counted = np.arange(size.keys)
    if q is None and k is not None and self_attention:
        q = k[..., size.past :]
    if k is None and q is not None and self_attention:
        past = np.broadcast_to(np.arange(size.past), (*shape_of(q)[:-1], size.past))
        k = np.concatenate([past, np.asarray(q)], -1)
    k = counted if k is None else k
    if q is not None:
        return q, k
    if p.past is not None or size.queries == size.new_keys:
        return np.arange(size.past, size.past + size.queries), k
    if v["align"] == "top-left" and p.k_positions is None:
        return np.arange(size.queries), k
    if v["align"] == "bottom-right" and p.k_positions is None:
        return np.arange(size.queries) + size.keys - size.queries, k
    readers = [str(part) for part in expr.parts() if reads(part_alone(part)) & {"q_pos"}] if expr else []
    if not readers:
        return None, k
    if p.k_positions is not None:
        raise _wrong("missing-positions", f"{listed(readers)} needs positions, and only those of the keys are given", "positions", help="add positions, one for each query")
    raise _wrong(
        "align-needed",
        f"{size.queries} queries meet {size.keys} keys, and {listed(readers)} must know which stand side by side",
        help="--align top-left: the first query beside the first key, as in PyTorch SDPA; --align bottom-right: the last beside the last, as in FlashAttention; or give positions",
    )


def part_alone(part: Part) -> Expression:
    return Expression("part", part)


def _seed(p: Problem, v: Variant) -> int | None:
    """The seed of what is drawn without a seed of its own; drawn itself where nobody said one."""
    drawn = []
    if v["projection"].member.facts.get("drawn"):
        drawn.append(v["projection"])
    if v["dropout"].name != "none" and p.dropout_mask is None:
        drawn.append(v["dropout"])
    if v["seed"] is None and any(not part.given("seed") for part in drawn):
        return secrets.randbelow(2**31)
    return int(v["seed"]) if v["seed"] is not None else None


def _dtype(p: Problem, v: Variant) -> str:
    """float64 for text; of arrays the widest there is, at least float32; an accelerator without float64 gets float32."""
    if v["device"] == "mps" and v["dtype"] == "float64":
        raise OptionError("bad-option", "mps has no float64", help="--dtype float32, or --device cpu")
    if v["dtype"]:
        return str(v["dtype"])
    held = [p.embeddings, p.q, p.k, p.v, *(p.memory or {}).values(), *(p.past or {}).values(), *p.parameters.values()]
    names = {str(a.dtype).removeprefix("torch.") for a in held if hasattr(a, "dtype")}
    wide = bool(names - {"float32", "float16", "bfloat16"})
    return "float64" if wide and v["device"] != "mps" else "float32"


def _preset(p: Problem, v: Variant, headed: bool) -> None:
    """What a named variant asks for is there."""
    ways = {
        "heads": (headed, "add --heads H; the width is split into so many"),
        "kv_heads": (v["kv_heads"] is not None, "add --kv-heads G; it divides the number of heads"),
        "memory": (p.memory is not None or p.q is not None, "give memory in the file, or --with memory=FILE"),
        "window": (any(part.name == "window" for part in v["mask"].parts()), "add --window LEFT,RIGHT, as in --window 2,0"),
    }
    for ask in v.asks:
        there, way = ways[ask]
        if not there:
            raise _wrong("missing-choice", f"the variant {v.name!r} cannot know its {ask}", help=way)


def _steps(p: Problem, size: Extent, v: Variant, chain: tuple[Link, ...], headed: bool, masked: bool, valued: bool, out: bool, top: int | None) -> dict[str, tuple[str, ...]]:
    """Every step that will exist, in order of computation, with its axes."""
    there = {
        **dict.fromkeys(("q", "k", "scores", "weights"), True),
        "v": valued,
        "present_k": p.past is not None,
        "present_v": p.past is not None and valued,
        **dict.fromkeys(ROW_STATISTICS, True),
        "dropout_weights": v["dropout"].name != "none",
        **dict.fromkeys(TOP, top is not None),
        "head_context": valued and headed,
        "context": valued,
        "output": valued and out,
    }
    names: list[str] = []
    for name in BASE_STEPS:
        if name == "mask":
            for done in chain:
                names += ["mask", done.step] if done.step == "masked_scores" else [done.step]
        elif there[name]:
            names.append(name)
    scores = BASE_STEPS["scores"]
    return {name: _axes(BASE_STEPS.get(name, scores), p, size, headed, name) for name in names}


def _axes(axes: tuple[str, ...], p: Problem, size: Extent, headed: bool, name: str) -> tuple[str, ...]:
    if name.startswith("present"):
        return axes
    absent = {"batch"} if size.batch is None else set()
    if not headed:
        absent |= {"head", "kv_head"}
    kept = (a for a in axes if a not in absent)
    return tuple(kept) if p.past is not None else tuple("key" if a == "new_key" else a for a in kept)


def shown(steps: Collection[str], top: int | None) -> list[str]:
    """The steps of a first look: those of `SHOWN` that exist, repeated links too."""
    wanted = {*SHOWN, *(TOP if top else ())}
    return [s for s in steps if s in wanted or s.rpartition("_")[0] in wanted and s[-1].isdigit()]


def _keep(keep: Collection[str] | None, steps: Mapping[str, tuple[str, ...]], top: int | None) -> frozenset[str]:
    if keep is None:
        return frozenset(steps)
    kept: set[str] = set()
    for name in [keep] if isinstance(keep, str) else keep:
        if name == "all":
            kept |= set(steps)
        elif name == "shown":
            kept |= set(shown(steps, top))
        else:
            check_step(name)
            if name not in steps:
                if name in TOP:
                    raise OptionError("missing-option", f"{name} needs to know how many: --top N", help="--top 3 keeps the three largest weights of each query")
                raise _wrong("absent-step", f"this variant has no step {name!r}", help=f"it has {listed(steps)}")
            kept.add(name)
    return frozenset(kept)


def check_step(name: str) -> None:
    """The name of a step that some variant has.

    Raises:
        OptionError: there is none; the nearest name is offered.
    """
    base, _, again = name.rpartition("_")
    if name not in STEP_NAMES and not (base in STEP_NAMES and again.isdigit()):
        raise OptionError("unknown-step", f"no step is called {name!r}", help=nearest(name, [*STEP_NAMES, "all"]))


def _unused(p: Problem, v: Variant, chain: tuple[Link, ...], expr: Expression | None, out: bool) -> Iterator[str]:
    looked = reads(expr)
    applied = {x.name for x in v["projection"].member.parameters}
    if p.q is not None:
        applied &= {"w_o", "b_o"}
    if not out:
        applied -= {"w_o", "b_o"}
    yield from (f"parameters.{name}" for name in p.parameters if name not in applied)
    used = {
        "k_tokens": p.q is not None,
        "layout": p.q is not None,
        "w_layout": bool(p.parameters) or bool(v["projection"].member.facts.get("drawn")),
        "positions": "q_pos" in looked,
        "k_positions": "k_pos" in looked,
        "segments": "q_seg" in looked,
        "k_segments": "k_seg" in looked,
        "dropout_mask": v["dropout"].name != "none",
    }
    yield from (name for name, there in used.items() if getattr(p, name) is not None and not there)


def _labels(p: Problem, size: Extent) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Labels of queries and keys: the file's, or their numbers; a batch has one list an item."""
    tokens = p.tokens if p.tokens is not None else tuple(map(str, range(size.queries)))
    if p.q is not None:
        new = p.k_tokens if p.k_tokens is not None else p.tokens if size.queries == size.new_keys else None
    else:
        new = p.memory.get("tokens") if p.memory else p.tokens
    past = (p.past or {}).get("tokens")
    batched = size.batch is not None

    def per_item(labels: tuple[Any, ...]) -> tuple[Any, ...]:
        nested = bool(labels) and isinstance(labels[0], tuple)
        return labels if nested == batched else (labels,) * (size.batch or 1) if batched else labels[0]

    def counted(first: int, n: int) -> tuple[Any, ...]:
        return per_item(tuple(map(str, range(first, first + n))))

    if new is not None and len(new[0] if isinstance(new[0], tuple) else new) == size.keys:
        return per_item(tokens), per_item(new)
    old = counted(0, size.past) if past is None else per_item(past)
    fresh = counted(size.past, size.new_keys) if new is None else per_item(new)
    keys = tuple(a + b for a, b in zip(old, fresh, strict=True)) if batched else old + fresh
    return per_item(tokens), keys


def _summary(p: Problem, v: Variant, size: Extent, chain: tuple[Link, ...], heads: int, kv_heads: int, headed: bool, masked: bool) -> tuple[str, ...]:
    """What will be computed, in words, for the head of a page."""
    cross = p.memory is not None
    what = v.name or ("cross-attention" if cross else "attention of given q and k" if p.q is not None else "self-attention")
    counts = f"{size.queries} token{'s' * (size.queries != 1)}" if size.queries == size.keys and not cross else f"{size.queries} queries × {size.keys} keys"
    sizes = _sizes(p, heads, kv_heads)
    out = [what, ("" if size.batch is None else f"{size.batch} × ") + f"{counts}" + (f" × {sizes.d} dims" if p.embeddings is not None else "")]
    if headed:
        out.append(f"{heads} head{'s' * (heads != 1)}" + (f", {kv_heads} kv" if kv_heads != heads else ""))
    if p.q is None:
        projection = v["projection"]
        out.append(("k = v = memory, q = x" if cross else "q = k = v = x") if projection.name == "identity" else f"projection {projection}")
    out.append(f"score {v['score']}")
    scale = next((done for done in chain if done.name == "scale"), None)
    out.append("no scale" if scale is None else f"scale {scale.part.get('factor'):.6g}" + (f" = 1/√d_k = 1/√{scale.formula.rpartition('√')[2]}" if "√" in scale.formula else ""))
    out += [f"{done.name} {spelled(done.part.options[0][1])}" for done in chain if done.name != "scale" and done.part.options]
    out.append(f"mask {v['mask']}" if str(v["mask"]) != "full" else "mask by lengths or bias" if masked else "no mask")
    if v["normalizer"].name != "softmax":
        out.append(str(v["normalizer"]))
    if v["dropout"].name != "none":
        out.append(str(v["dropout"]))
    if v["seed"] is not None:
        out.append(f"seed {v['seed']}")
    return (*out, str(v["dtype"]))

