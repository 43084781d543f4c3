"""Heads and widths: whether what the problem holds and what the variant says can be multiplied at all."""

from __future__ import annotations

from dataclasses import dataclass

from attncli.errors import InputError, counted, listed, wrong
from attncli.gate import Extent
from attncli.gate.arrays import shape_of
from attncli.parts.projections import LEARNED, Sizes, projection, widths
from attncli.registry import Part
from attncli.types import Problem
from attncli.variant import Variant


@dataclass(frozen=True)
class Shapes:
    """Heads, and the width of what one head works on."""

    heads: int
    kv_heads: int
    headed: bool  # heads are named, or q, k, v came in heads: the head axis stands in results
    d: int  # of a query and a key of one head
    c: int | None  # of a value of one head; None without values
    out: int | None  # of the output; None without W_o

    def width(self, step: str) -> int:
        """How long the dim axis of a step is."""
        if step in ("q", "k", "present_k"):
            return self.d
        c = self.c or 0
        return self.out or 0 if step == "output" else c * self.heads if step == "context" else c


def shapes_of(p: Problem, v: Variant, size: Extent) -> Shapes:
    """Every shape held against every other.

    Raises:
        InputError: two of them cannot be multiplied, or heads do not divide a width.
    """
    heads, kv_heads, headed = _heads(p, v, size)
    return Shapes(heads, kv_heads, headed, *_widths(p, v, size, heads, kv_heads))


def _heads(p: Problem, v: Variant, size: Extent) -> tuple[int, int, bool]:
    """(query heads, kv heads, whether heads are named)."""
    for name, held, asked in (("heads", size.heads, v["heads"]), ("kv_heads", size.kv_heads, v["kv_heads"])):
        if held is not None and asked not in (None, held):
            raise wrong(
                "heads-mismatch",
                f"{name} is {asked}, but {'q' if name == 'heads' else 'k'} comes in {held} heads",
                "q" if name == "heads" else "k",
            )
    named = size.heads is not None or v["heads"] is not None
    heads = size.heads or v["heads"] or 1
    kv_heads = size.kv_heads or v["kv_heads"] or heads
    if not named and v["kv_heads"] not in (None, 1):
        raise wrong(
            "missing-heads",
            f"kv_heads is {kv_heads}, but how many query heads share them is not said",
            help=f"add --heads {2 * kv_heads} (a multiple of {kv_heads})",
        )
    if heads % kv_heads:
        divisors = listed([n for n in range(1, heads + 1) if heads % n == 0], "or")
        raise wrong(
            "heads-mismatch",
            f"{heads} query heads cannot share {kv_heads} kv heads equally",
            help=f"{heads} heads, {kv_heads} kv heads: {divisors}",
        )
    if p.past:
        cached = shape_of(p.past["k"])[1]
        if cached != kv_heads:
            raise wrong("heads-mismatch", f"past.k has {cached} heads, but there are {kv_heads} kv heads", "past.k")
    return heads, kv_heads, named


def projected_by(p: Problem, v: Variant) -> Part:
    """Where q, k, v come from when nobody said: from the file where it has them."""
    learned = {parameter.name for parameter in LEARNED} & set(p.parameters)
    chosen: Part | None = v["projection"]
    if chosen is None:
        return projection.parse("given" if learned else "identity")
    if chosen.name == "given" and not learned:
        raise wrong(
            "missing-parameters",
            "projection is given, but the file has none of w_q, w_k, w_v, w_o",
            "parameters",
            help="add them, or draw them: --projection linear:dim=…",
        )
    if p.q is not None and chosen.member.facts.get("drawn"):
        raise wrong(
            "already-projected",
            f"projection is {chosen.name}, but q, k and v are already projected",
            "q",
            help="give embeddings, or leave the projection out",
        )
    return chosen


def sizes_of(p: Problem, heads: int, kv_heads: int) -> Sizes:
    """What a projection must know of the problem."""
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
    return wrong(
        "heads-mismatch",
        f"{name} has {counted(columns, 'column')}, which {heads} heads do not divide",
        help=f"{counted(columns, 'column')}, {heads} heads: {divisors}",
    )


def _widths(p: Problem, v: Variant, size: Extent, heads: int, kv_heads: int) -> tuple[int, int | None, int | None]:
    """(width of one head of q and k, of v, of the output), after every shape has been held against every other."""
    sizes = sizes_of(p, heads, kv_heads)
    shapes = _parameter_shapes(p, v, sizes)
    given = v["projection"].name == "given"
    made_of = {
        "w_q": (sizes.d, "the embeddings"),
        "w_k": (sizes.e, "the memory" if p.memory else "the embeddings"),
        "w_v": (sizes.e, "the memory" if p.memory else "the embeddings"),
    }
    for name, (d_in, whose) in made_of.items():
        if name in shapes and shapes[name][0] != d_in:
            turn = ' (with "w_layout": "out-in" it would be)' if shapes[name][1] == d_in and not sizes.out_in else ""
            raise wrong(
                "shape-mismatch",
                f"{name} takes {shapes[name][0]} columns, but {whose} have {d_in}",
                f"parameters.{name}",
                help=f"w is ({'d_out, d_in' if sizes.out_in else 'd_in, d_out'}): here ({d_in}, …){turn}",
            )
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
            raise wrong(
                "shape-mismatch",
                f"b_{name} has shape {shape_of(p.parameters[f'b_{name}'])}, but {name} has {total} columns",
                f"parameters.b_{name}",
            )
        if total is not None and total % n:
            raise _indivisible(name, total, n)
    d, d_k = (columns["q"] or 0) // heads, (columns["k"] or 0) // kv_heads
    if d != d_k:
        why = (
            f"fewer kv heads need w_k and w_v of {d * kv_heads} columns"
            if kv_heads < heads and "w_k" not in shapes
            else "q·k needs them equal"
        )
        raise wrong(
            "shape-mismatch",
            f"a query has {columns['q']} columns in {heads} heads ({d} each), a key {columns['k']} in {kv_heads} ({d_k} each)",
            help=why,
        )
    d_v = None if columns["v"] is None else columns["v"] // kv_heads
    for name, width in (("k", d), ("v", d_v)):
        if p.past and name in p.past and shape_of(p.past[name])[3] != width:
            raise wrong(
                "shape-mismatch",
                f"past.{name} is {shape_of(p.past[name])[3]} wide, but {name} of one head {width}",
                f"past.{name}",
            )
    for name in ("mask", "bias", "dropout_mask"):
        value = getattr(p, name)
        if value is not None and value.ndim >= 3 and shape_of(value)[-3] not in (1, heads):
            raise wrong(
                "shape-mismatch",
                f"{name} has shape {shape_of(value)}, but there {'is 1 head' if heads == 1 else f'are {heads} heads'}",
                name,
                help="its axes are (B, H, Tq, Tk); say --heads, or drop the axis",
            )
    if "w_o" not in shapes or d_v is None:
        return d, d_v, None
    if shapes["w_o"][0] != heads * d_v:
        raise wrong(
            "shape-mismatch",
            f"w_o takes {shapes['w_o'][0]} columns, but the context has {heads * d_v}",
            "parameters.w_o",
        )
    if given and "b_o" in p.parameters and shape_of(p.parameters["b_o"]) != (shapes["w_o"][1],):
        raise wrong(
            "shape-mismatch",
            f"b_o has shape {shape_of(p.parameters['b_o'])}, but w_o makes {shapes['w_o'][1]} columns",
            "parameters.b_o",
        )
    return d, d_v, shapes["w_o"][1]
