"""Tracing causes: which wrong step comes first, and whether later wrong steps follow from the figures of an earlier one.

`trace_causes` is the entry; it resumes the computation at an earlier step, with the figures that are claimed there.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from attncli.check import rules
from attncli.check.claims import Claim, step_shape, to_step_array
from attncli.check.comparison import Comparison
from attncli.check.plan_edits import unregistered_part, with_chain, with_part
from attncli.check.sensitivity import STEPS_OF_VALUES
from attncli.check.trials import StepArrays, Trials, compute_or_none, merge_heads
from attncli.parts.traits import MixingTraits, NormalizerTraits, ScoreTraits
from attncli.plan import Plan
from attncli.step_names import GRADIENT_NAMES
from attncli.types import NumpyArray, Tensor
from attncli.verdict import Cause, StepComparison

_LETTER_PATTERN = re.compile(r"(?:normed_|positioned_|present_|w_|b_)?([qkv])")
_SHIFT_DRAWS = 12


def trace_causes(
    comparison: Comparison, step_comparisons: Sequence[StepComparison], equivalents: Mapping[int, str]
) -> tuple[StepComparison, ...]:
    """Fill in the cause of every wrong step: it is the first, or it does or does not follow from an earlier one.

    A step that is otherwise, and not wrong, is told as such.
    """
    wrong = [n for n, step in enumerate(step_comparisons) if not step.is_right and n not in equivalents]
    traced = list(step_comparisons)
    for n, difference in equivalents.items():
        traced[n] = dataclasses.replace(step_comparisons[n], cause="otherwise", difference=difference)
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
        if order.index(earlier_step) >= order.index(later.step) or not can_change(earlier_step, later.step):
            continue
        follows = _follows_from(comparison.sample, earlier_index, claim_index)
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
        return resume_steps(comparison, earlier.step, values).get(later.step)

    shape = step_shape(comparison.task.plan, earlier.step)
    resumed = compute_later_step(to_step_array(earlier, shape))
    if resumed is None or resumed.shape != comparison.reference[later.step].shape:
        return None
    cells = comparison.compare(later_index, resumed, largest_figure=rules.largest_finite(resumed))
    if cells.is_right.all():
        return True
    units = comparison.units_in_last_place(earlier_index)
    shift = _largest_shift(comparison, earlier, units, resumed, later, compute_later_step)
    return bool(shift is not None and (cells.error <= cells.tolerance + shift).all())


def can_change(earlier: str, later: str) -> bool:
    """Tell whether a step is computed from an earlier one: q, k and v never are from each other, nor scores from v.

    Gradients are computed from all steps and from a loss: they are not resumed from any.
    """
    if later in GRADIENT_NAMES:
        return False
    own, other = _vector_of_step(earlier), _vector_of_step(later)
    if other:
        return not own or own == other
    return own != "v" or later in STEPS_OF_VALUES


def _vector_of_step(step: str) -> str:
    """Return which of q, k and v a step belongs to; "" if it belongs to none alone: positioned_q, w_q, present_k."""
    found = _LETTER_PATTERN.fullmatch(step)
    return found[1] if found else ""


def _largest_shift(
    comparison: Comparison,
    earlier: Claim,
    units: NumpyArray,
    resumed: NumpyArray,
    later: Claim,
    compute_later_step: Callable[[NumpyArray], NumpyArray | None],
) -> NumpyArray | None:
    """Bound how far what was left out of the earlier figures, at most one unit of each, moves each later figure.

    The figures are moved at random. From how far that moves a later figure comes Σ u·|∂|, which is at most √n times
    the root of Σ u²·∂², where n figures of a row or a column count.
    """
    shape = step_shape(comparison.task.plan, earlier.step)
    values, reach = to_step_array(earlier, shape), to_step_array(dataclasses.replace(earlier, values=units), shape)
    random = np.random.default_rng(0)
    squares = np.zeros(later.values.shape)
    for _ in range(_SHIFT_DRAWS):
        moved = compute_later_step(values + reach * random.choice((-1.0, 1.0), shape))
        if moved is None:
            return None
        with np.errstate(all="ignore"):
            squares += np.abs(moved - resumed)[later.index] ** 2
    count = max(shape[-2:], default=1)
    shift: NumpyArray = np.sqrt(count * squares / _SHIFT_DRAWS)
    return np.where(np.isfinite(shift), shift, np.inf)


def resume_steps(comparison: Comparison, step: str, values: NumpyArray) -> StepArrays:
    """Compute the claimed steps from these values of a step, on all its axes; nothing where it cannot be resumed there."""

    def compute() -> StepArrays:
        plan = resume_from_step(comparison.trials, step, values)
        return comparison.trials.compute_steps(plan) if plan else {}

    return compute_or_none(compute) or {}


def _insert_into_all_queries(trials: Trials, step: str, values: NumpyArray) -> NumpyArray:
    """Put the q of the queries that are computed, heads side by side, among those of all queries; k and v are whole."""
    queries, base = trials.plan.computed_queries, trials.projected_plan
    if step != "q" or queries is None or base is None:
        return values
    whole = np.array(base.problem.q)
    whole[..., queries, :] = values
    return whole


def resume_from_step(trials: Trials, step: str, values: NumpyArray) -> Plan | None:
    """Make a plan in which a step has these values, on all its axes; None where it cannot be resumed there."""
    plan = trials.plan
    if step in ("q", "k", "v") and trials.projected_plan:
        return trials.with_qkv(**{step: _insert_into_all_queries(trials, step, merge_heads(plan, values))})
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
