"""Tracing causes: which wrong step comes first, and whether later wrong steps follow from the figures of an earlier one.

`trace_causes` is the entry; it resumes the computation at an earlier step, with the figures that are claimed there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from attncli.check import rules
from attncli.check.claims import step_shape, to_step_array
from attncli.check.comparison import Comparison
from attncli.check.plan_edits import unregistered_part, with_chain, with_part
from attncli.check.trials import Trials, merge_heads, or_none
from attncli.parts.traits import MixingTraits, NormalizerTraits, ScoreTraits
from attncli.plan import Plan
from attncli.types import NumpyArray, Tensor
from attncli.verdict import Cause, StepComparison


def trace_causes(comparison: Comparison, step_comparisons: Sequence[StepComparison]) -> tuple[StepComparison, ...]:
    """Fill in the cause of every wrong step: it is the first, or it does or does not follow from an earlier one."""
    wrong = [n for n, step in enumerate(step_comparisons) if not step.is_right]
    traced = list(step_comparisons)
    for n in wrong[:1]:
        traced[n] = dataclasses.replace(step_comparisons[n], cause="first")
    for n in wrong[1:]:
        traced[n] = _trace_cause(comparison, step_comparisons, n)
    return tuple(traced)


def _trace_cause(
    comparison: Comparison, step_comparisons: Sequence[StepComparison], claim_index: int
) -> StepComparison:
    """Find out whether a wrong step follows from the nearest earlier one from which it can be computed."""
    order = list(comparison.task.plan.steps)
    later = step_comparisons[claim_index]
    for earlier_index in reversed(range(claim_index)):
        earlier_step = step_comparisons[earlier_index].step
        if order.index(earlier_step) >= order.index(later.step):
            continue
        follows = _follows_from(comparison, earlier_index, claim_index)
        if follows is not None:
            cause: Cause = "follows" if follows else "independent"
            return dataclasses.replace(later, cause=cause, cause_step=earlier_step)
    return later


def _follows_from(comparison: Comparison, earlier_index: int, later_index: int) -> bool | None:
    """Tell whether the figures of the earlier claim lead to those of the later one; None where that cannot be computed."""
    earlier, later = comparison.task.claims[earlier_index], comparison.task.claims[later_index]
    if not earlier.is_whole_step:
        return None

    def compute_later_step(values: NumpyArray) -> NumpyArray | None:
        plan = resume_from_step(comparison.trials, earlier.step, values)
        return comparison.trials.compute_steps(plan).get(later.step) if plan else None

    shape = step_shape(comparison.task.plan, earlier.step)
    resumed = or_none(lambda: compute_later_step(to_step_array(earlier, shape)))
    if resumed is None or resumed.shape != comparison.reference[later.step].shape:
        return None
    cells = comparison.compare(later_index, resumed, largest_figure=rules.largest_finite(resumed))
    if cells.is_right.all():
        return True
    decimals = comparison.decimals[earlier_index]
    if decimals is None:
        return False
    # The earlier figures are rounded: how far does rounding alone, done to the reference, move the later step?
    rounded = comparison.reference[earlier.step].copy()
    rounded[earlier.index] = rules.round_to_decimals(comparison.reference_cells(earlier), decimals)
    moved = or_none(lambda: compute_later_step(rounded))
    if moved is None:
        return False
    with np.errstate(all="ignore"):
        shift = np.abs(moved - comparison.reference[later.step])[later.index]
    max_shift = float(shift[np.isfinite(shift)].max(initial=0.0))
    return bool((cells.error <= cells.tolerance + 3 * max_shift).all())


def resume_from_step(trials: Trials, step: str, values: NumpyArray) -> Plan | None:
    """Make a plan in which a step has these values, on all its axes; None where it cannot be resumed there."""
    plan = trials.plan
    if step in ("q", "k", "v") and trials.projected_plan:
        return trials.with_qkv(**{step: merge_heads(plan, values)})
    import torch

    tensor = torch.as_tensor(np.ascontiguousarray(values, np.float64))
    if "batch" not in plan.steps[step]:
        tensor = tensor[None]
    if not plan.shapes.has_head_axis and "dim" not in plan.steps[step]:
        tensor = tensor[:, None]  # (b, h, n, m)

    def get_values(*_: object, **__: object) -> Tensor:
        return tensor

    if step == "scores":
        return with_part(plan, "score", unregistered_part("score", "given-scores", get_values, ScoreTraits()))
    if step in {link.step for link in plan.chain}:
        links = [dataclasses.replace(link, run=get_values) if link.step == step else link for link in plan.chain]
        return with_chain(plan, links)
    if step == "weights":
        if not plan.variant.sink.is_none:
            return None
        normalizer = unregistered_part("normalizer", "given-weights", get_values, NormalizerTraits())
        return with_part(plan, "normalizer", normalizer)
    if step in ("head_context", "context"):
        if step == "context":
            tensor = tensor.unflatten(-1, (plan.shapes.mixed_heads, -1)).transpose(1, 2)  # (b, h, n, c)
        elif not plan.shapes.has_head_axis:
            tensor = tensor[:, None]
        mixing = plan.variant.head_mixing
        if mixing.traits.transform_context:
            return None
        traits = MixingTraits(transform_context=get_values)
        return with_part(
            plan, "head_mixing", unregistered_part("head-mixing", "given-context", mixing.member.function, traits)
        )
    return None
