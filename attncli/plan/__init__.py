"""A variant meets a problem: everything that can be refused or foreseen before torch is loaded.

`make_plan` answers what will be computed: which steps, on which axes, with which positions, heads and seeds; and
raises where problem and variant do not go together. The core follows the plan and asks nothing again.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from attncli.errors import InputError, OptionError, input_error, join_names
from attncli.mask_expression import MaskExpression
from attncli.parts.projections import ProjectionSizes
from attncli.plan.chain import Link, build_chain
from attncli.plan.head_shapes import HeadShapes, choose_projection, projection_sizes, resolve_head_shapes
from attncli.plan.key_ranges import KeyRanges, find_key_ranges
from attncli.plan.schedule import MAX_TILE_SCORES, choose_schedule, matrix_steps
from attncli.plan.steps import resolve_keep, step_axes, unused_fields
from attncli.plan.summary import summarize_plan, token_labels
from attncli.plan.visibility import (
    compute_visibility,
    effective_mask,
    grid_arrays,
    resolve_positions,
    to_4d,
    to_key_axis,
    to_query_axis,
)
from attncli.registry import AnyPart
from attncli.types import PLAIN_NAMES, Array, Grid, Labels, NumpyArray, Problem
from attncli.validation import ProblemSize, problem_size, validate
from attncli.validation.fields import as_numpy, is_tensor
from attncli.variant import Variant


@dataclass(eq=False)
class SharedPlan:
    """What the plans of problems alike (of the same shapes and variant, met again and again) need find but once."""

    finished_plan: Plan | None = None  # without its problem
    grid: object = None  # where the scores sit, as the core has it


@dataclass(frozen=True)
class Plan:
    """What will be computed, decided before anything is."""

    problem: Problem
    variant: Variant  # with everything settled that the problem decides
    size: ProblemSize
    shapes: HeadShapes
    chain: tuple[Link, ...]
    mask: MaskExpression | None  # None: every query sees every key
    is_masked: bool  # some key may be hidden: by mask, lengths or a bias of −∞
    steps: Mapping[str, tuple[str, ...]]  # every step this variant has on this problem, with its axes
    keep: frozenset[str]
    top: int
    q_pos: NumpyArray | None  # (b, n) or (n,); None: nothing reads positions, and they cannot be known
    k_pos: NumpyArray  # (b, m) or (m,)
    tokens: Labels
    k_tokens: Labels
    warnings: tuple[str, ...]
    summary: tuple[str, ...]
    is_first_look: bool = False  # nobody said which steps to keep
    schedule: Literal["", "dense", "tiled", "fused"] = ""  # once it is settled
    tile_size: int = 0  # how many cells a tile may have; 0: one tile holds everything
    computed_queries: NumpyArray | None = None  # the queries that are computed; None: all
    shared: SharedPlan | None = field(default=None, repr=False, compare=False)  # what it shares with plans of its like

    def make_grid(self) -> Grid:
        """Where the scores sit, in numpy arrays that broadcast to (b, h, n, m); n: the queries that are computed."""
        p, size = self.problem, self.size
        at = Grid(
            q_pos=to_query_axis(np.zeros(1, np.int64) if self.q_pos is None else self.q_pos),
            k_pos=to_key_axis(self.k_pos),
            q_idx=to_query_axis(np.arange(size.past, size.past + size.queries)),
            k_idx=to_key_axis(np.arange(size.keys)),
            q_seg=to_query_axis(p.segments),
            k_seg=to_key_axis(p.segments if p.k_segments is None else p.k_segments),
            lengths=None if p.lengths is None else p.lengths[:, None, None, None],
            key_count=size.keys,
            max_length=max(size.past + size.queries, size.keys),
            head_count=self.shapes.heads,
            head_idx=np.arange(self.shapes.heads)[:, None, None][None],
            problem_mask=to_4d(p.mask),
            bias=to_4d(p.bias),
        )
        if self.computed_queries is None:
            return at
        per_query = {name: x for name, x in grid_arrays(at).items() if x.shape[2] > 1}
        return replace(at, **{name: x[:, :, self.computed_queries] for name, x in per_query.items()})

    def find_key_ranges(self) -> KeyRanges | None:
        """For each query the keys that are computed, in a few spans; None: all of them."""
        v = self.variant
        counts_keys = v.normalizer.traits.is_key_count_dependent
        all_count = counts_keys is not None and counts_keys(v.normalizer)
        if not self.is_masked or matrix_steps(self) or all_count or v.empty_rows != "zero":  # these need every key
            return None
        return find_key_ranges(self.make_grid(), self.mask)

    def with_schedule(self, schedule: Literal["dense", "tiled", "fused"]) -> Plan:
        """Return the plan with another schedule, which its variant names."""
        return replace(self, schedule=schedule, variant=self.variant.replace(schedule=schedule))

    def axis_length(self, step: str, axis: str) -> int:
        """How long an axis of a step will be."""
        if step == "positioned_embeddings" and axis == "dim":
            return self.projection_sizes().d
        if axis in ("dim", "head", "kv_head"):
            return self.shapes.axis_length(step, axis)
        if axis == "key":
            return self.size.new_keys if step in ("k", "v") else self.size.keys
        lengths = {
            "batch": self.size.batch or 1,
            "query": self.size.queries if self.computed_queries is None else len(self.computed_queries),
            "new_key": self.size.new_keys,
            "rank": self.top,
        }
        return lengths[axis]

    def projection_sizes(self) -> ProjectionSizes:
        """What a projection must know of the problem."""
        return projection_sizes(self.problem, self.shapes.heads, self.shapes.kv_heads)


def make_plan(
    problem: Problem, variant: Variant | None = None, keep: Collection[str] | None = None, *, top: int | None = None
) -> Plan:
    """Problem and variant → plan. `keep` names steps; None keeps every step, "shown" those of a first look.

    Raises:
        InputError: problem and variant do not go together, or a step is asked for that this variant lacks.
        OptionError: a step is asked for that no variant has.
        CannotError: it does not fit in memory.
    """
    return finish_plan(outline_plan(problem, variant, keep, top=top))


def outline_plan(
    problem: Problem, variant: Variant | None = None, keep: Collection[str] | None = None, *, top: int | None = None
) -> Plan:
    """The plan but for its schedule, which `choose_schedule` finds once it is known which queries are wanted."""
    p = validate(problem)
    v = variant if variant is not None else Variant(**p.variant)
    alike = _cache_key(p, v, keep, top)
    if alike is not None and alike in _OUTLINE_CACHE:
        made, _ = _OUTLINE_CACHE[alike]
        tokens, k_tokens = token_labels(p, made.size)
        return replace(made, problem=p, tokens=tokens, k_tokens=k_tokens)  # the problem's own arrays are not remembered
    made = _build_outline(p, v, keep, top)
    if alike is not None and made.variant.seed == v.seed:  # one that was drawn is not drawn again
        while len(_OUTLINE_CACHE) >= _OUTLINE_CACHE_SIZE:
            _OUTLINE_CACHE.pop(next(iter(_OUTLINE_CACHE)))
        _OUTLINE_CACHE[alike] = replace(without_data(made), shared=SharedPlan()), v
    return made


def without_data(plan: Plan) -> Plan:
    """Without what is one problem's own."""
    return replace(plan, problem=Problem(), tokens=(), k_tokens=())


_OUTLINE_CACHE: dict[tuple[object, ...], tuple[Plan, Variant]] = {}  # outlines of problems that are met again and again
_OUTLINE_CACHE_SIZE = 64


def _cache_key(
    problem: Problem, variant: Variant, keep: Collection[str] | None, top: int | None
) -> tuple[object, ...] | None:
    """What the outline of a plain problem depends on: shapes and dtypes, not values. None: it may depend on more.

    The variant is known by its identity, and held beside the outline, so that no other can take its place.
    """
    if any(value is not None and name not in PLAIN_NAMES for name, value in vars(problem).items()):
        return None
    named = [("embeddings", problem.embeddings), *problem.parameters.items()]
    if any(is_tensor(x) for _, x in named):
        return None
    shapes = tuple((name, x.shape, x.dtype) for name, x in named)
    asked = keep if keep is None or isinstance(keep, str) else tuple(keep)
    return id(variant), problem.tokens is None, problem.w_layout, asked, top, shapes


def _build_outline(problem: Problem, variant: Variant, keep: Collection[str] | None, top: int | None) -> Plan:
    """The outline, worked out."""
    size = problem_size(problem)
    _check_required_choices(problem, variant, size)
    variant = variant.replace(projection=choose_projection(problem, variant))
    shapes = resolve_head_shapes(problem, variant, size)
    mask = effective_mask(problem, variant)
    masked = mask is not None or problem.lengths is not None or _has_minus_infinity(problem.bias)
    chain = build_chain(problem, variant, shapes.d, masked)
    q_pos, k_pos = resolve_positions(problem, variant, size, mask)
    variant = variant.replace(
        mask=mask or variant.mask, seed=_choose_seed(problem, variant), dtype=_choose_dtype(problem, variant)
    )
    if shapes.has_head_axis:
        variant = variant.replace(heads=shapes.heads, kv_heads=shapes.kv_heads)
    steps = step_axes(problem, variant, size, shapes, chain, top)
    tokens, k_tokens = token_labels(problem, size)
    return Plan(
        problem=problem,
        variant=variant,
        size=size,
        shapes=shapes,
        chain=chain,
        mask=mask,
        is_masked=masked,
        steps=steps,
        keep=resolve_keep(keep, steps, top),
        top=min(top or 0, size.keys),
        q_pos=q_pos,
        k_pos=k_pos,
        tokens=tokens,
        k_tokens=k_tokens,
        warnings=tuple(
            f"unused-field: {name} is not used by this variant"
            for name in unused_fields(problem, variant, size, shapes, mask)
        ),
        summary=summarize_plan(problem, variant, size, shapes, chain, masked),
        is_first_look=keep is not None and (keep == "shown" or list(keep) == ["shown"]),
    )


def describe_rows(marked: NumpyArray, plan: Plan) -> str:
    """Which queries see no key, in words ("queries 0 and 2 see"); empty where all see one. blind: (b, h, n) booleans."""
    if not marked.any():
        return ""
    names = np.arange(plan.size.queries) if plan.computed_queries is None else plan.computed_queries
    if (marked == marked[:1, :1]).all():  # the same in every batch item and head: name the queries alone
        queries = names[marked[0, 0]][:9].tolist()
        more = int(marked[0, 0].sum())
        return f"query {queries[0]} sees" if more == 1 else f"queries {_join_first_eight(queries, more)} see"
    said = []
    for b, h, i in np.argwhere(marked)[:9].tolist():
        where = [f"batch {b}"] * (plan.size.batch is not None) + [f"head {h}"] * plan.shapes.has_head_axis
        said.append(" ".join([*where, f"query {names[i]}"]))
    return f"{_join_first_eight(said, int(marked.sum()))} {'sees' if len(said) == 1 else 'see'}"


def _join_first_eight(names: Collection[object], count: int) -> str:
    """The first eight of n names."""
    return join_names(names) if count <= 8 else f"{', '.join(map(str, [*names][:8]))} and {count - 8} more"


def finish_plan(plan: Plan, selection: Mapping[str, tuple[int, ...]] | None = None, *, streamed: bool = False) -> Plan:
    """The plan with its schedule, computing of a long run only the queries that `selection` names."""
    known = plan.shared.finished_plan if plan.shared else None
    if known is not None and not selection:
        return replace(known, problem=plan.problem, tokens=plan.tokens, k_tokens=plan.k_tokens)
    made = choose_schedule(plan, selection, streamed=streamed)
    _check_empty_rows(made)
    if plan.shared and not selection and made.schedule == "dense":  # a long run depends on more: what memory there is
        plan.shared.finished_plan = without_data(made)
    return made


def _check_empty_rows(plan: Plan) -> None:
    """Every query sees a key, where `--empty-rows error` asks for it.

    Raises:
        InputError: some do not.
    """
    if plan.variant.empty_rows != "error" or not plan.is_masked:
        return
    at = plan.make_grid()
    held: dict[str, Array] = {name: as_numpy(x) for name, x in grid_arrays(at).items()}
    n, step = plan.axis_length("scores", "query"), max(1, MAX_TILE_SCORES // plan.size.keys)
    blind = np.zeros((plan.size.batch or 1, plan.shapes.heads, n), bool)
    for first in range(0, n, step):
        some = slice(first, first + step)
        cut = {name: x[:, :, some] for name, x in held.items() if x.shape[2] > 1}
        blind[:, :, some] = ~compute_visibility(replace(at, **(held | cut)), plan.mask).any(-1)
    if said := describe_rows(blind, plan):
        way = "--empty-rows zero|nan|uniform says what their weights shall be"
        raise InputError("empty-rows", f"{said} no key, and empty_rows is error", help=way)


def _has_minus_infinity(bias: Array) -> bool:
    return bias is not None and bool((bias == float("-inf")).any())


def _choose_seed(problem: Problem, variant: Variant) -> int | None:
    """The seed of what is drawn without a seed of its own; drawn itself where nobody said one."""
    drawn: list[AnyPart] = []
    if variant.projection.traits.is_drawn:
        drawn.append(variant.projection)
    if not variant.dropout.is_none and problem.dropout_mask is None:
        drawn.append(variant.dropout)
    if variant.seed is None and any(not part.is_set("seed") for part in drawn):
        return secrets.randbelow(2**31)
    return None if variant.seed is None else int(variant.seed)


def _choose_dtype(problem: Problem, variant: Variant) -> str:
    """float64 for text; of arrays the widest there is, at least float32; float32 where a device has no float64."""
    if variant.device == "mps" and variant.dtype == "float64":
        raise OptionError("bad-option", "mps has no float64", help="--dtype float32, or --device cpu")
    if variant.dtype:
        return str(variant.dtype)
    held = [
        problem.embeddings,
        problem.q,
        problem.k,
        problem.v,
        *(problem.memory or {}).values(),
        *(problem.past or {}).values(),
        *problem.parameters.values(),
    ]
    names = {str(a.dtype).removeprefix("torch.") for a in held if hasattr(a, "dtype")}
    wide = bool(names - {"float32", "float16", "bfloat16"})
    return "float64" if wide and variant.device != "mps" else "float32"


def _check_required_choices(problem: Problem, variant: Variant, size: ProblemSize) -> None:
    """What a named variant cannot know is there."""
    windowed = any(part.traits.is_window for part in variant.mask.iter_parts())
    ways = {
        "heads": (variant.heads or size.heads, "add --heads H; the width is split into so many"),
        "kv_heads": (variant.kv_heads or size.kv_heads, "add --kv-heads G; it divides the number of heads"),
        "memory": (
            problem.memory is not None or problem.q is not None,
            "give memory in the file, or --with memory=FILE",
        ),
        "window": (windowed, "add --window LEFT,RIGHT, as in --window 2,0"),
    }
    for ask in variant.required_choices:
        there, way = ways[ask]
        if not there:
            raise input_error("missing-choice", f"the variant {variant.name!r} cannot know its {ask}", help=way)
