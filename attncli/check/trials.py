"""Trying out computations on one problem: changed plans, and the figures that they give at the claimed steps.

Faults, alternatives and the search compute with `Trials`; the first run loads torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np

from attncli.arrays import as_numpy
from attncli.check.claims import Claim, step_shape
from attncli.errors import AttnError
from attncli.parts.projections import PROJECTION_PARAMETERS
from attncli.plan import Plan, finish_plan, outline_plan
from attncli.plan.gradients import with_gradients
from attncli.plan.schedule import MAX_DENSE_SCORES, with_whole_rows
from attncli.types import Array, Attention, Json, NumpyArray, Problem
from attncli.variant import Variant

T = TypeVar("T")
StepArrays = dict[str, NumpyArray]  # values by step, on all the step's axes

_EQUIVALENT_STEPS = (  # if a variant lacks a step, the last one before it in its group takes its place
    ("q", "normed_q", "positioned_q"),
    ("k", "normed_k", "positioned_k"),
    ("weights", "dropout_weights", "mixed_weights"),
    ("head_context", "normed_context"),
    ("context", "output"),
)
_PROJECTION_PARAMETERS = {parameter.name for parameter in PROJECTION_PARAMETERS}


class Trials:
    """The plan of a problem and the claims on it; every computation that is tried runs here, in float64."""

    def __init__(self, plan: Plan, top: int | None, claims: Sequence[Claim] = ()) -> None:
        self.plan = plan
        self.top = top
        self.claims = claims
        self.trial_count = 0
        self.reference: StepArrays = {}  # of the claimed steps, where it has been computed
        self.solved_numbers: dict[str, float] = {}  # by the names of the hypotheses that they are of
        self.is_confirming = False  # what a sample has shown is computed, whether or not these queries show it

    def confirming(self, plan: Plan | None = None) -> Trials:
        """Return trials of the same queries, of this plan or another, on which what is found elsewhere is confirmed."""
        trials = Trials(plan or self.plan, self.top, self.claims)
        trials.reference, trials.solved_numbers = self.reference, self.solved_numbers
        trials.is_confirming = True
        return trials

    @property
    def claimed_steps(self) -> frozenset[str]:
        return self.plan.keep

    # ── changed plans ────────────────────────────────────────────────────────────────────────────
    def replan(
        self, problem: Problem | None = None, variant: Variant | None = None, keep: Collection[str] | None = None
    ) -> Plan:
        """Make a plan for a changed problem or variant that keeps the claimed steps, or their equivalents.

        Raises:
            AttnError: problem and variant do not go together.
            ValueError: some queries are computed, and the changed problem has others.
        """
        plan = outline_plan(problem or self.plan.problem, variant or self.plan.variant, (), top=self.top)
        queries = self.plan.computed_queries
        if queries is not None:
            if plan.size.queries != self.plan.size.queries:
                raise ValueError("the changed problem has other queries")
            plan = dataclasses.replace(plan, computed_queries=queries, shared=None)
        plan = finish_edited_plan(plan)
        gradients = self.plan.gradients
        if gradients is not None:
            plan = with_gradients(plan, gradients.upstream_step, gradients.upstream, gradients.backward)
        steps = self.claimed_steps if keep is None else keep
        equivalents = (self.equivalent_step(step, plan.steps) for step in steps)
        return dataclasses.replace(plan, keep=frozenset(step for step in equivalents if step))

    def with_choices(self, **choices: object) -> Plan:
        """Make a plan of the same problem with other choices."""
        return self.replan(variant=self.plan.variant.replace(**choices))

    def with_fields(self, **fields: Array) -> Plan:
        """Make a plan of the same variant on a problem with other fields."""
        return self.replan(dataclasses.replace(self.plan.problem, **fields))

    def with_qkv(self, **arrays: Array) -> Plan | None:
        """Make the projected plan with some of q, k and v replaced, heads side by side; None where there is no such plan."""
        base = self.projected_plan
        if base is None:
            return None
        return self.replan(dataclasses.replace(base.problem, **arrays), base.variant)

    @cached_property
    def projected_plan(self) -> Plan | None:
        """The plan of the same problem with its projected q, k and v as inputs, heads side by side; None where that is refused."""
        try:
            return self._make_projected_plan()
        except AttnError:
            return None

    def _make_projected_plan(self) -> Plan:
        plan, problem = self.plan, self.plan.problem
        letters = ("q", "k", "v") if plan.shapes.c is not None else ("q", "k")
        result = run_projections(plan, letters)
        projection = plan.variant.projection
        has_output = projection.traits.is_drawn or "w_o" in {x.name for x in projection.member.parameters}
        dropped = _PROJECTION_PARAMETERS - ({"w_o", "b_o"} if has_output else set())
        parameters = {**problem.parameters, **result.parameters}
        variant = plan.variant.replace(projection=None, align=None)
        if plan.variant.position.traits.acts_on == "embeddings":
            variant = variant.replace(position=Variant().position)
        if plan.shapes.has_head_axis:
            variant = variant.replace(heads=plan.shapes.heads, kv_heads=plan.shapes.kv_heads)
        arrays: Json = {x: merge_heads(plan, np.asarray(result[x].values, np.float64)) for x in letters}
        projected = dataclasses.replace(
            problem,
            embeddings=None,
            memory=None,
            layout=None,
            k_tokens=None,
            parameters={name: x for name, x in parameters.items() if name not in dropped},
            positions=plan.q_pos,
            k_positions=plan.k_pos if plan.q_pos is not None else None,
            **arrays,
        )
        return self.replan(projected, variant)

    # ── runs ─────────────────────────────────────────────────────────────────────────────────────
    def run_plan(self, plan: Plan, *, is_trial: bool = True) -> Attention:
        """Run a plan, and count it if it is a trial."""
        self.trial_count += is_trial
        return _run_plan(plan)

    def compute_steps(self, plan: Plan) -> StepArrays:
        """Run a plan and collect its steps."""
        return self.collect_steps(plan, self.run_plan(plan))

    def collect_steps(self, plan: Plan, result: Attention) -> StepArrays:
        """Collect the claimed steps of a result, and those that its plan keeps, on all their axes; floats in float64."""
        kept = {step.name: step for step in result.steps}
        arrays = {}
        for name in self.claimed_steps | plan.keep:
            step = kept.get(self.equivalent_step(name, kept) or "")
            if step is None:
                continue
            values = as_numpy(step.values)
            if name == "mask" and name in plan.steps:
                expanded = tuple(slice(None) if axis in step.axes else None for axis in plan.steps["mask"])
                values = np.broadcast_to(values[expanded], step_shape(plan, "mask"))
            arrays[name] = values if values.dtype.kind in "biu" else values.astype(np.float64)
        return arrays

    def equivalent_step(self, step: str, available_steps: Collection[str]) -> str | None:
        """Find the step itself among those available, or the last one before it in its group."""
        if step in available_steps:
            return step
        order = list(self.plan.steps)
        if step not in order:
            return None
        group: tuple[str, ...] = next((group for group in _EQUIVALENT_STEPS if step in group), ())
        if not group and step.rpartition("_")[2] in ("scores", "2", "3"):
            group = tuple(s for s in order if s.rstrip("0123456789_").endswith("scores"))
        before = [s for s in order[: order.index(step)] if s in group and s in available_steps]
        return before[-1] if before else None


def finish_edited_plan(outline: Plan) -> Plan:
    """Give an outline a schedule that any edit of it survives: PyTorch's kernel would not know of the edit."""
    schedule = "dense" if outline.score_count <= MAX_DENSE_SCORES else "tiled"
    finished = finish_plan(dataclasses.replace(outline, variant=outline.variant.replace(schedule=schedule)))
    return (
        with_whole_rows(finished) if finished.keys_per_block else finished
    )  # what replaces a part may read whole rows


def finish_unedited_plan(plan: Plan) -> Plan:
    """Give a large plan that nothing has edited the fastest schedule that keeps its steps; a small one is dense."""
    if plan.schedule != "tiled":
        return plan
    if plan.gradients is not None:
        names = plan.gradients.axes.keys()
        steps = {name: axes for name, axes in plan.steps.items() if name not in names}
        finished = finish_unedited_plan(dataclasses.replace(plan, steps=steps, keep=plan.keep - names, gradients=None))
        return dataclasses.replace(finished, steps=plan.steps, keep=plan.keep, gradients=plan.gradients)
    schedule = "tiled" if "schedule" in plan.variant.explicit else None
    outline = dataclasses.replace(
        plan, variant=plan.variant.replace(schedule=schedule), schedule="", tile_size=0, keys_per_block=0, shared=None
    )
    return finish_plan(outline)


def at_queries(plan: Plan, queries: NumpyArray) -> Plan:
    """Make the plan that computes some of the queries of another, all at once.

    Args:
        plan: with any schedule.
        queries: ascending indices.
    """
    variant = plan.variant.replace(schedule="dense")
    return dataclasses.replace(
        plan, computed_queries=queries, variant=variant, schedule="dense", tile_size=0, keys_per_block=0, shared=None
    )


def run_projections(plan: Plan, steps: Collection[str]) -> Attention:
    """Compute steps that come before the scores, of all queries, and no scores.

    Args:
        plan: of the problem.
        steps: names of such steps.
    """
    from attncli.core.attention import run_plan  # loads torch

    whole = dataclasses.replace(plan, keep=frozenset(steps), computed_queries=None, shared=None)
    return run_plan(dataclasses.replace(whole, schedule="tiled", tile_size=1), tile_executor=lambda *_: iter(()))


def _run_plan(plan: Plan) -> Attention:
    if plan.gradients is not None and plan.keep & plan.gradients.axes.keys():
        from attncli.core.gradient_steps import run_plan_with_gradient_steps  # loads torch

        return run_plan_with_gradient_steps(plan)
    from attncli.core.attention import run_plan

    return run_plan(plan)


def merge_heads(plan: Plan, x: NumpyArray) -> NumpyArray:
    """Put heads side by side, where a plan has heads: (…, h, t, d) → (…, t, h·d)"""
    return x.swapaxes(-2, -3).reshape(*x.shape[:-3], x.shape[-2], -1) if plan.shapes.has_head_axis else x


def compute_or_none(compute: Callable[[], T]) -> T | None:
    """Compute something that may be impossible on this problem: None where it is refused, or where shapes do not meet.

    Shapes that do not meet are torch's RuntimeError or numpy's ValueError: q and k exchanged where there are more keys
    than queries. Any other exception is a defect of whatever is tried, and is not caught.
    """
    try:
        with np.errstate(all="ignore"):
            return compute()
    except (AttnError, RuntimeError, ValueError):
        return None
