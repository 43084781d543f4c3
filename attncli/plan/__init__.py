"""A variant meets a problem: everything that can be refused or foreseen before torch is loaded.

`plan` answers what will be computed: which steps, on which axes, with which positions, heads and seeds; and
raises where problem and variant do not go together. The core follows the plan and asks nothing again.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from attncli.errors import InputError, OptionError, listed, wrong
from attncli.mask_expression import Expression
from attncli.parts.projections import Sizes
from attncli.plan.chain import Link, chain_of
from attncli.plan.head_shapes import Shapes, projected_by, shapes_of, sizes_of
from attncli.plan.key_ranges import Spans, spans
from attncli.plan.schedule import TILE, matrices, settle
from attncli.plan.steps import kept, steps_of, unused
from attncli.plan.summary import labels, summary
from attncli.plan.visibility import arrays, columns, full_rank, masks, positions, rows, visible
from attncli.registry import AnyPart
from attncli.types import PLAIN_NAMES, Array, Grid, Labels, NumpyArray, Problem
from attncli.validation import Extent, admit, extent
from attncli.validation.fields import as_numpy, is_tensor
from attncli.variant import Variant


@dataclass(eq=False)
class Alike:
    """What the plans of problems alike (of the same shapes and variant, met again and again) need find but once."""

    settled: Plan | None = None  # without its problem
    places: object = None  # where the scores sit, as the core has it


@dataclass(frozen=True)
class Plan:
    """What will be computed, decided before anything is."""

    problem: Problem
    variant: Variant  # with everything settled that the problem decides
    size: Extent
    shapes: Shapes
    chain: tuple[Link, ...]
    mask: Expression | None  # None: every query sees every key
    masked: bool  # some key may be hidden: by mask, lengths or a bias of −∞
    steps: Mapping[str, tuple[str, ...]]  # every step this variant has on this problem, with its axes
    keep: frozenset[str]
    top: int
    q_pos: NumpyArray | None  # (b, n) or (n,); None: nothing reads positions, and they cannot be known
    k_pos: NumpyArray  # (b, m) or (m,)
    tokens: Labels
    k_tokens: Labels
    warnings: tuple[str, ...]
    summary: tuple[str, ...]
    first_look: bool = False  # nobody said which steps to keep
    schedule: Literal["", "dense", "tiled", "fused"] = ""  # once it is settled
    tile: int = 0  # how many cells a tile may have; 0: one tile holds everything
    rows: NumpyArray | None = None  # the queries that are computed; None: all
    alike: Alike | None = field(default=None, repr=False, compare=False)  # what it shares with plans of its like

    def grid(self) -> Grid:
        """Where the scores sit, in numpy arrays that broadcast to (b, h, n, m); n: the queries that are computed."""
        p, size = self.problem, self.size
        at = Grid(
            q_pos=rows(np.zeros(1, np.int64) if self.q_pos is None else self.q_pos),
            k_pos=columns(self.k_pos),
            q_idx=rows(np.arange(size.past, size.past + size.queries)),
            k_idx=columns(np.arange(size.keys)),
            q_seg=rows(p.segments),
            k_seg=columns(p.segments if p.k_segments is None else p.k_segments),
            lengths=None if p.lengths is None else p.lengths[:, None, None, None],
            keys=size.keys,
            longest=max(size.past + size.queries, size.keys),
            heads=self.shapes.heads,
            head=np.arange(self.shapes.heads)[:, None, None][None],
            given=full_rank(p.mask),
            bias=full_rank(p.bias),
        )
        if self.rows is None:
            return at
        per_query = {name: x for name, x in arrays(at).items() if x.shape[2] > 1}
        return replace(at, **{name: x[:, :, self.rows] for name, x in per_query.items()})

    def spans(self) -> Spans | None:
        """For each query the keys that are computed, in a few spans; None: all of them."""
        v = self.variant
        counts_keys = v.normalizer.traits.is_key_count_dependent
        all_count = counts_keys is not None and counts_keys(v.normalizer)
        if not self.masked or matrices(self) or all_count or v.empty_rows != "zero":  # these need every key
            return None
        return spans(self.grid(), self.mask)

    def length(self, step: str, axis: str) -> int:
        """How long an axis of a step will be."""
        if step == "positioned_embeddings" and axis == "dim":
            return self.sizes().d
        if axis in ("dim", "head", "kv_head"):
            return self.shapes.count(step, axis)
        if axis == "key":
            return self.size.new_keys if step in ("k", "v") else self.size.keys
        lengths = {
            "batch": self.size.batch or 1,
            "query": self.size.queries if self.rows is None else len(self.rows),
            "new_key": self.size.new_keys,
            "rank": self.top,
        }
        return lengths[axis]

    def sizes(self) -> Sizes:
        """What a projection must know of the problem."""
        return sizes_of(self.problem, self.shapes.heads, self.shapes.kv_heads)


def plan(
    problem: Problem, variant: Variant | None = None, keep: Collection[str] | None = None, *, top: int | None = None
) -> Plan:
    """Problem and variant → plan. `keep` names steps; None keeps every step, "shown" those of a first look.

    Raises:
        InputError: problem and variant do not go together, or a step is asked for that this variant lacks.
        OptionError: a step is asked for that no variant has.
        CannotError: it does not fit in memory.
    """
    return settled(outline(problem, variant, keep, top=top))


def outline(
    problem: Problem, variant: Variant | None = None, keep: Collection[str] | None = None, *, top: int | None = None
) -> Plan:
    """The plan but for its schedule, which `settle` finds once it is known which queries are wanted."""
    p = admit(problem)
    v = variant if variant is not None else Variant(**p.variant)
    alike = _alike(p, v, keep, top)
    if alike is not None and alike in _REMEMBERED:
        made, _ = _REMEMBERED[alike]
        tokens, k_tokens = labels(p, made.size)
        return replace(made, problem=p, tokens=tokens, k_tokens=k_tokens)  # the problem's own arrays are not remembered
    made = _outlined(p, v, keep, top)
    if alike is not None and made.variant.seed == v.seed:  # one that was drawn is not drawn again
        while len(_REMEMBERED) >= _MOST:
            _REMEMBERED.pop(next(iter(_REMEMBERED)))
        _REMEMBERED[alike] = replace(_bare(made), alike=Alike()), v
    return made


def _bare(plan: Plan) -> Plan:
    """Without what is one problem's own."""
    return replace(plan, problem=Problem(), tokens=(), k_tokens=())


_REMEMBERED: dict[tuple[object, ...], tuple[Plan, Variant]] = {}  # outlines of problems that are met again and again
_MOST = 64


def _alike(p: Problem, v: Variant, keep: Collection[str] | None, top: int | None) -> tuple[object, ...] | None:
    """What the outline of a plain problem depends on: shapes and dtypes, not values. None: it may depend on more.

    The variant is known by its identity, and held beside the outline, so that no other can take its place.
    """
    if any(value is not None and name not in PLAIN_NAMES for name, value in vars(p).items()):
        return None
    named = [("embeddings", p.embeddings), *p.parameters.items()]
    if any(is_tensor(x) for _, x in named):
        return None
    shapes = tuple((name, x.shape, x.dtype) for name, x in named)
    asked = keep if keep is None or isinstance(keep, str) else tuple(keep)
    return id(v), p.tokens is None, p.w_layout, asked, top, shapes


def _outlined(p: Problem, v: Variant, keep: Collection[str] | None, top: int | None) -> Plan:
    """The outline, worked out."""
    size = extent(p)
    _check_asks(p, v, size)
    v = v.but(projection=projected_by(p, v))
    shapes = shapes_of(p, v, size)
    mask = masks(p, v)
    masked = mask is not None or p.lengths is not None or _hides(p.bias)
    chain = chain_of(p, v, shapes.d, masked)
    q_pos, k_pos = positions(p, v, size, mask)
    v = v.but(mask=mask or v.mask, seed=_seed(p, v), dtype=_dtype(p, v))
    if shapes.headed:
        v = v.but(heads=shapes.heads, kv_heads=shapes.kv_heads)
    steps = steps_of(p, v, size, shapes, chain, top)
    tokens, k_tokens = labels(p, size)
    return Plan(
        problem=p,
        variant=v,
        size=size,
        shapes=shapes,
        chain=chain,
        mask=mask,
        masked=masked,
        steps=steps,
        keep=kept(keep, steps, top),
        top=min(top or 0, size.keys),
        q_pos=q_pos,
        k_pos=k_pos,
        tokens=tokens,
        k_tokens=k_tokens,
        warnings=tuple(
            f"unused-field: {name} is not used by this variant" for name in unused(p, v, size, shapes, mask)
        ),
        summary=summary(p, v, size, shapes, chain, masked),
        first_look=keep is not None and (keep == "shown" or list(keep) == ["shown"]),
    )


def blind_rows(blind: NumpyArray, plan: Plan) -> str:
    """Which queries see no key, in words ("queries 0 and 2 see"); empty where all see one. blind: (b, h, n) booleans."""
    if not blind.any():
        return ""
    names = np.arange(plan.size.queries) if plan.rows is None else plan.rows
    if (blind == blind[:1, :1]).all():  # the same in every batch item and head: name the queries alone
        queries = names[blind[0, 0]][:9].tolist()
        more = int(blind[0, 0].sum())
        return f"query {queries[0]} sees" if more == 1 else f"queries {_some(queries, more)} see"
    said = []
    for b, h, i in np.argwhere(blind)[:9].tolist():
        where = [f"batch {b}"] * (plan.size.batch is not None) + [f"head {h}"] * plan.shapes.headed
        said.append(" ".join([*where, f"query {names[i]}"]))
    return f"{_some(said, int(blind.sum()))} {'sees' if len(said) == 1 else 'see'}"


def _some(names: Collection[object], n: int) -> str:
    """The first eight of n names."""
    return listed(names) if n <= 8 else f"{', '.join(map(str, [*names][:8]))} and {n - 8} more"


def settled(plan: Plan, at: Mapping[str, tuple[int, ...]] | None = None, *, streamed: bool = False) -> Plan:
    """The plan with its schedule, computing of a long run only the queries that `at` names."""
    known = plan.alike.settled if plan.alike else None
    if known is not None and not at:
        return replace(known, problem=plan.problem, tokens=plan.tokens, k_tokens=plan.k_tokens)
    made = settle(plan, at, streamed=streamed)
    _check_rows(made)
    if plan.alike and not at and made.schedule == "dense":  # a long run depends on more: what memory there is
        plan.alike.settled = _bare(made)
    return made


def _check_rows(plan: Plan) -> None:
    """Every query sees a key, where `--empty-rows error` asks for it.

    Raises:
        InputError: some do not.
    """
    if plan.variant.empty_rows != "error" or not plan.masked:
        return
    at = plan.grid()
    held: dict[str, Array] = {name: as_numpy(x) for name, x in arrays(at).items()}
    n, step = plan.length("scores", "query"), max(1, TILE // plan.size.keys)
    blind = np.zeros((plan.size.batch or 1, plan.shapes.heads, n), bool)
    for first in range(0, n, step):
        some = slice(first, first + step)
        cut = {name: x[:, :, some] for name, x in held.items() if x.shape[2] > 1}
        blind[:, :, some] = ~visible(replace(at, **(held | cut)), plan.mask).any(-1)
    if said := blind_rows(blind, plan):
        way = "--empty-rows zero|nan|uniform says what their weights shall be"
        raise InputError("empty-rows", f"{said} no key, and empty_rows is error", help=way)


def _hides(bias: Array) -> bool:
    return bias is not None and bool((bias == float("-inf")).any())


def _seed(p: Problem, v: Variant) -> int | None:
    """The seed of what is drawn without a seed of its own; drawn itself where nobody said one."""
    drawn: list[AnyPart] = []
    if v.projection.traits.is_drawn:
        drawn.append(v.projection)
    if not v.dropout.is_none and p.dropout_mask is None:
        drawn.append(v.dropout)
    if v.seed is None and any(not part.given("seed") for part in drawn):
        return secrets.randbelow(2**31)
    return None if v.seed is None else int(v.seed)


def _dtype(p: Problem, v: Variant) -> str:
    """float64 for text; of arrays the widest there is, at least float32; float32 where a device has no float64."""
    if v.device == "mps" and v.dtype == "float64":
        raise OptionError("bad-option", "mps has no float64", help="--dtype float32, or --device cpu")
    if v.dtype:
        return str(v.dtype)
    held = [p.embeddings, p.q, p.k, p.v, *(p.memory or {}).values(), *(p.past or {}).values(), *p.parameters.values()]
    names = {str(a.dtype).removeprefix("torch.") for a in held if hasattr(a, "dtype")}
    wide = bool(names - {"float32", "float16", "bfloat16"})
    return "float64" if wide and v.device != "mps" else "float32"


def _check_asks(p: Problem, v: Variant, size: Extent) -> None:
    """What a named variant cannot know is there."""
    windowed = any(part.traits.is_window for part in v.mask.parts())
    ways = {
        "heads": (v.heads or size.heads, "add --heads H; the width is split into so many"),
        "kv_heads": (v.kv_heads or size.kv_heads, "add --kv-heads G; it divides the number of heads"),
        "memory": (p.memory is not None or p.q is not None, "give memory in the file, or --with memory=FILE"),
        "window": (windowed, "add --window LEFT,RIGHT, as in --window 2,0"),
    }
    for ask in v.asks:
        there, way = ways[ask]
        if not there:
            raise wrong("missing-choice", f"the variant {v.name!r} cannot know its {ask}", help=way)
