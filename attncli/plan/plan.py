"""The plan itself: what will be computed, on which axes and how. `attncli.plan.build` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from attncli.mask_expression import MaskExpression
from attncli.output_formats import StepShape
from attncli.parts.projections import ProjectionSizes
from attncli.plan.chain import Link
from attncli.plan.head_shapes import HeadShapes, projection_sizes
from attncli.plan.key_ranges import KeyRanges, find_key_ranges
from attncli.plan.token_labels import token_labels
from attncli.plan.visibility import grid_arrays, mask_batch_heads, to_4d, to_key_axis, to_query_axis
from attncli.registry import AnyPart
from attncli.types import PARAMETER_STEPS, Grid, Labels, NumpyArray, Problem
from attncli.validation import ProblemSize
from attncli.validation.fields import is_tensor
from attncli.variant import Variant

if TYPE_CHECKING:
    from attncli.plan.gradient_request import GradientRequest


@dataclass(eq=False)
class SharedPlan:
    """What plans of equal shapes and variant find once and share, as in a stream of JSON lines."""

    finished_plan: Plan | None = None  # without its problem
    grid: object = None  # the grid of the scores, as the core has it
    step_shapes: dict[str, StepShape] = field(default_factory=dict)  # of the steps that were kept
    is_stackable: bool | None = None  # whether many of them may be computed in one call; None: nobody has asked


# What decides where the scores sit, and which shapes the steps have.
_SHARED_FIELDS = ("size", "shapes", "variant", "mask", "steps", "top", "q_pos", "k_pos", "q_order", "k_order")


@dataclass(frozen=True)
class Plan:
    """What will be computed, decided before anything is.

    `size` counts tokens, `shapes` heads and widths; `steps` and `keep` say what can be had and what is returned;
    `chain` and `mask` are the computation from scores to weights; `schedule` and what follows it say how it is run.
    """

    problem: Problem
    variant: Variant  # with everything settled that the problem decides
    size: ProblemSize
    shapes: HeadShapes
    chain: tuple[Link, ...]
    mask: MaskExpression | None  # None: every query sees every key
    is_masked: bool  # some key may be hidden: by mask, lengths or a bias of −∞
    steps: Mapping[str, tuple[str, ...]]  # every step that this variant has on this problem, with its axes
    keep: frozenset[str]  # the steps that are returned
    top: int  # how many of the largest weights of each query are returned
    q_pos: NumpyArray | None  # (b, n) or (n,); None: nothing reads positions, and they cannot be known
    k_pos: NumpyArray  # (b, m) or (m,)
    warnings: tuple[str, ...]  # "code: sentence"
    summary: tuple[str, ...]  # what will be computed, in words
    is_first_look: bool = False  # the user has not said which steps to keep
    schedule: Literal["", "dense", "tiled", "fused"] = ""  # "" in an outline
    tile_size: int = 0  # how many scores a tile may have; 0: one tile holds everything
    keys_per_block: int = 0  # how many keys of a tile are computed at once, and merged with the next; 0: whole rows
    computed_queries: NumpyArray | None = None  # indices of the queries that are computed; None: all
    q_order: NumpyArray | None = None  # (n,): where queries stand in the sequence, under `mask_by=index`
    k_order: NumpyArray | None = None  # (m,)
    settings: Mapping[str, str] = field(default_factory=dict)  # the choices that settings made → where they were set
    gradients: GradientRequest | None = None  # which gradients are among the steps, and of what
    shared: SharedPlan | None = field(default=None, repr=False, compare=False)

    @cached_property
    def _token_labels(self) -> tuple[Labels, Labels]:
        """Labels of queries and keys, made when they are asked for: they take more memory than the numbers of a narrow file."""
        return token_labels(self.problem, self.size)

    @property
    def tokens(self) -> Labels:
        """The labels of the queries; for a batch, a tuple of labels per item."""
        return self._token_labels[0]

    @property
    def k_tokens(self) -> Labels:
        """The labels of the keys; for a batch, a tuple of labels per item."""
        return self._token_labels[1]

    @property
    def score_count(self) -> int:
        """How many scores are computed: b · h · n · m."""
        return (self.size.batch or 1) * self.shapes.heads * self.axis_length("scores", "query") * self.size.keys

    @property
    def matrix_steps(self) -> list[str]:
        """The steps kept that have a number for each query and key."""
        return [name for name, axes in self.steps.items() if name in self.keep and axes[-2:] == ("query", "key")]

    @property
    def summed_weights(self) -> str:
        """The step whose weights the values are multiplied by: the last of those that this variant has."""
        return next(step for step in ("mixed_weights", "dropout_weights", "weights") if step in self.steps)

    @property
    def item_size(self) -> int:
        """Bytes of a number while it is computed with: half precision is widened."""
        return 8 if self.variant.dtype == "float64" else 4

    @property
    def draws_from_seed(self) -> bool:
        """Whether something is drawn that has no seed of its own, so that the variant's seed counts."""
        return draws_from_seed(self.problem, self.variant)

    @property
    def requires_grad(self) -> bool:
        """Whether a tensor came in that requires its gradient."""
        problem = self.problem
        arrays = (problem.embeddings, problem.q, problem.k, problem.v, problem.bias)
        groups = (problem.memory or {}, problem.past or {}, problem.parameters)
        arrays += tuple(x for group in groups for x in group.values())
        return any(is_tensor(x) and x.requires_grad for x in arrays)

    def make_grid(self) -> Grid:
        """Return where the scores sit, as numpy arrays that broadcast to (b, h, n, m); n: the queries that are computed."""
        problem, size = self.problem, self.size
        grid = Grid(
            q_pos=to_query_axis(np.zeros(1, np.int64) if self.q_pos is None else self.q_pos),
            k_pos=to_key_axis(self.k_pos),
            q_idx=to_query_axis(np.arange(size.past, size.past + size.queries)),
            k_idx=to_key_axis(np.arange(size.keys)),
            q_seg=to_query_axis(problem.segments),
            k_seg=to_key_axis(problem.segments if problem.k_segments is None else problem.k_segments),
            lengths=None if problem.lengths is None else problem.lengths[:, None, None, None],
            key_count=size.keys,
            max_length=max(size.past + size.queries, size.keys),
            head_count=self.shapes.heads,
            head_idx=np.arange(self.shapes.heads)[:, None, None][None],
            problem_mask=to_4d(problem.mask),
            bias=to_4d(problem.bias),
            q_order=to_query_axis(self.q_order),
            k_order=to_key_axis(self.k_order),
        )
        if self.computed_queries is None:
            return grid
        per_query = {name: x for name, x in grid_arrays(grid).items() if x.shape[2] > 1}
        return replace(grid, **{name: x[:, :, self.computed_queries] for name, x in per_query.items()})

    def present_axes(self, name: str) -> tuple[str, ...]:
        """Return the axes that a step has on this problem; a mask has only the trailing ones that it needs."""
        axes = self.steps[name]
        if name != "mask":
            return axes
        lengths = dict(zip(("batch", "head"), mask_batch_heads(self.make_grid(), self.mask), strict=True))
        is_needed = [lengths.get(axis, 2) > 1 for axis in axes]
        return axes[is_needed.index(True) :]

    def find_step_shape(self, name: str) -> StepShape:
        """Return the axes that a step has on this problem, and their lengths; plans of equal shapes find them once."""
        known = self._known_step_shapes
        if name not in known:
            axes = self.present_axes(name)
            known[name] = StepShape(name, axes, tuple(self.axis_length(name, axis) for axis in axes))
        return known[name]

    @cached_property
    def _known_step_shapes(self) -> dict[str, StepShape]:
        return self.shared.step_shapes if self.shared is not None and self.is_as_shared else {}

    @cached_property
    def is_as_shared(self) -> bool:
        """Whether nothing has changed that plans of equal shapes share since the first of them was finished."""
        finished_plan = self.shared.finished_plan if self.shared else None
        if finished_plan is None or self.computed_queries is not None:
            return False
        return all(getattr(self, name) is getattr(finished_plan, name) for name in _SHARED_FIELDS)

    def find_key_ranges(self) -> KeyRanges | None:
        """Find the keys that are computed for each query, as a few ranges; None: all keys."""
        normalizer = self.variant.normalizer
        depends_on_key_count = normalizer.traits.is_key_count_dependent
        needs_every_key = (
            bool(self.matrix_steps)
            or self.variant.empty_rows != "zero"
            or (depends_on_key_count is not None and depends_on_key_count(normalizer))
        )
        if not self.is_masked or needs_every_key:
            return None
        return find_key_ranges(self.make_grid(), self.mask)

    def with_schedule(self, schedule: Literal["dense", "tiled", "fused"]) -> Plan:
        """Return the plan with another schedule, which its variant names."""
        return replace(self, schedule=schedule, variant=self.variant.replace(schedule=schedule))

    def with_problem(self, problem: Problem) -> Plan:
        """Return the plan of another problem of equal shapes; as `replace`, without the time that takes."""
        plan = object.__new__(Plan)
        plan.__dict__.update({name: self.__dict__[name] for name in _FIELD_NAMES} | {"problem": problem})
        return plan

    def without_data(self) -> Plan:
        """Return the plan without its problem's arrays and labels, for problems of equal shapes to share."""
        return self.with_problem(Problem())

    def axis_length(self, step: str, axis: str) -> int:
        """Return how long an axis of a step will be; a gradient is as long as that of which it is."""
        if self.gradients is not None and step in self.gradients.axes:
            lengths = self.gradients.lengths.get(step)
            return self.axis_length(step[1:], axis) if lengths is None else lengths[axis]
        if step == "positioned_embeddings" and axis == "dim":
            return self.projection_sizes().d
        if step in PARAMETER_STEPS:
            return self.shapes.parameters[step][PARAMETER_STEPS[step].index(axis)]
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

    @property
    def parameter_formula(self) -> str:
        """Where the projection's arrays come from."""
        projection = self.variant.projection
        return str(projection.formula) if projection.traits.is_drawn else "as given"

    def projection_sizes(self) -> ProjectionSizes:
        """Return what a projection must know of the problem."""
        return projection_sizes(self.problem, self.shapes.heads, self.shapes.kv_heads)


_FIELD_NAMES = tuple(item.name for item in fields(Plan))


def draws_from_seed(problem: Problem, variant: Variant) -> bool:
    """Return whether a variant draws something for a problem that has no seed of its own."""
    drawn_parts: list[AnyPart] = []
    if variant.projection.traits.is_drawn:
        drawn_parts.append(variant.projection)
    if not variant.dropout.is_none and problem.dropout_mask is None:
        drawn_parts.append(variant.dropout)
    return any(not part.is_set("seed") for part in drawn_parts)
