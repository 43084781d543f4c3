"""Checking that the figures could fail: a few plainly wrong computations, compared by the rules of the claims.

`check_sensitivity` is the entry; `plainly_wrong_computations` yields them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from attncli.check import rules
from attncli.check.comparison import Comparison
from attncli.check.plan_edits import equal_weights, with_normalizer
from attncli.check.trials import StepArrays, Trials, compute_or_none
from attncli.step_names import GRADIENT_NAMES
from attncli.text import join_names
from attncli.types import Json, NumpyArray
from attncli.verdict import SensitivityCheck

_MIN_RELATIVE_DIFFERENCE = 1e-9  # of the largest figure; no ordinary tolerance tells smaller differences
STEPS_OF_VALUES = ("v", "present_v", "head_context", "normed_context", "context", "output")


class WrongComputation(NamedTuple):
    """A computation that is plainly wrong."""

    name: str
    first_changed_step: str  # "": it may change any
    compute: Callable[[], StepArrays | None]


def check_sensitivity(comparison: Comparison) -> tuple[SensitivityCheck, ...]:
    """Find out whether the claimed figures would have told each wrong computation from the right one."""
    checks = []
    sample = comparison.sample
    for wrong in plainly_wrong_computations(sample.trials, sample.reference):
        figures = compute_or_none(wrong.compute)
        if figures is None:
            continue
        check = _check_one(sample, wrong, figures)
        if not check.caught and sample is not comparison and _may_differ(comparison, wrong.first_changed_step):
            check = _check_all_queries(comparison, wrong.name) or check
        checks.append(check)
    return tuple(checks)


def _check_all_queries(comparison: Comparison, name: str) -> SensitivityCheck | None:
    """Check what a sample of the queries did not tell, block by block, until one tells; None where none can be computed."""
    found: SensitivityCheck | None = None
    for block in comparison.iter_blocks():
        wrong = next((w for w in plainly_wrong_computations(block.trials, block.reference) if w.name == name), None)
        figures = None if wrong is None else compute_or_none(wrong.compute)
        if wrong is None or figures is None:
            return None
        check = _check_one(block, wrong, figures)
        if check.caught:
            return check
        if found is None or (check.max_error or 0.0) > (found.max_error or 0.0):
            found = check
    return found


def _check_one(comparison: Comparison, wrong: WrongComputation, figures: StepArrays) -> SensitivityCheck:
    """Compare the figures of one wrong computation by the rule of each claim, written with as many digits as the claim."""
    is_caught, differs, max_error, worst_step = False, False, 0.0, ""
    for n, claim in enumerate(comparison.task.claims):
        reference = comparison.reference[claim.step]
        wrong_step = figures.get(claim.step)
        if wrong_step is None or wrong_step.shape != reference.shape:
            continue
        cells, reference_cells = wrong_step[claim.index], reference[claim.index]
        decimals, largest_figure = comparison.decimals[n], comparison.largest_figures[claim.step]
        written = cells if decimals is None else rules.round_to_decimals(cells, decimals)
        if not are_nearly_equal(cells, reference_cells, largest_figure).all():
            differs = True
            all_digits = None if decimals is None else decimals + 12
            error = rules.compare_cells(comparison.rules[n], cells, reference_cells, all_digits, largest_figure).error
            largest_error = float(np.where(np.isfinite(error), error, np.inf).max(initial=0.0))
            if largest_error > max_error:
                max_error, worst_step = largest_error, claim.step
        if not comparison.compare(n, reference, written).is_right.all():
            is_caught = True
    if not differs:
        return SensitivityCheck(wrong.name, None, reason=_why_undetectable(comparison, wrong.first_changed_step))
    return SensitivityCheck(wrong.name, is_caught, max_error, worst_step)


# ── computations that are plainly wrong ──────────────────────────────────────────────────────────
def plainly_wrong_computations(trials: Trials, reference: StepArrays) -> Iterator[WrongComputation]:
    """Yield uniform weights, shuffled values, no scale and another head's figures, as far as the problem has such things."""
    plan = trials.plan
    yield WrongComputation(
        "uniform weights", "weights", lambda: trials.compute_steps(with_normalizer(plan, equal_weights))
    )
    if plan.shapes.c is not None:
        yield WrongComputation("shuffled values", "v", lambda: _shuffle_values(trials))
    if any(link.is_scale for link in plan.chain):
        yield WrongComputation(
            "no scale", "scaled_scores", lambda: trials.compute_steps(trials.with_choices(scale="none"))
        )
    if plan.shapes.has_head_axis and plan.shapes.heads > 1:
        yield WrongComputation("another head's figures", "", lambda: _shift_heads(trials, reference))


def _shuffle_values(trials: Trials) -> StepArrays | None:
    """Give every key its neighbour's value."""
    base = trials.projected_plan
    if base is None:
        return None
    arrays: Json = {"v": np.roll(np.asarray(base.problem.v), 1, axis=-2)}
    past = base.problem.past
    if past and "v" in past:
        arrays["past"] = {**past, "v": np.roll(np.asarray(past["v"], np.float64), 1, axis=-2)}
    plan = trials.with_qkv(**arrays)
    return trials.compute_steps(plan) if plan else None


def _shift_heads(trials: Trials, reference: StepArrays) -> StepArrays:
    """Put each head's figures in the place of the next one's."""
    shifted = {}
    for step, values in reference.items():
        axes = trials.plan.steps.get(step, ())
        head_axis = next((i for i, axis in enumerate(axes) if axis in ("head", "kv_head")), None)
        if head_axis is not None:
            shifted[step] = np.roll(values, 1, axis=head_axis)
        elif step == "context":
            heads = trials.plan.shapes.mixed_heads
            split = values.reshape(*values.shape[:-1], heads, -1)  # (…, n, h, c)
            shifted[step] = np.roll(split, 1, axis=-2).reshape(values.shape)
    return shifted


# ── what cannot be told ──────────────────────────────────────────────────────────────────────────
def are_nearly_equal(values: NumpyArray, reference: NumpyArray, largest_figure: float) -> NumpyArray:
    """Tell which figures are too near each other for any ordinary tolerance."""
    values, reference = values.astype(np.float64), reference.astype(np.float64)
    with np.errstate(all="ignore"):
        is_near: NumpyArray = (
            (np.abs(values - reference) <= _MIN_RELATIVE_DIFFERENCE * max(largest_figure, 1e-300))
            | (values == reference)
            | (np.isnan(values) & np.isnan(reference))
        )
    return is_near


def _why_undetectable(comparison: Comparison, first_changed_step: str) -> str:
    """Say why no claimed figure tells a wrong computation from the right one."""
    claimed = list(dict.fromkeys(claim.step for claim in comparison.task.claims))
    if not _may_differ(comparison, first_changed_step):
        return f"only {join_names(claimed)} {'were' if len(claimed) > 1 or claimed[0].endswith('s') else 'was'} given"
    if comparison.task.plan.size.keys == 1:
        return "there is only one key"
    return "it gives the right figures here"


def _may_differ(comparison: Comparison, first_changed_step: str) -> bool:
    """Tell whether some claimed step can change with one."""
    order = list(comparison.task.plan.steps)
    return any(_depends_on(claim.step, first_changed_step, order) for claim in comparison.task.claims)


def _depends_on(step: str, earlier: str, step_order: Sequence[str]) -> bool:
    """Tell whether a step can change with an earlier one: v changes only the context, though other steps come after it."""
    if not earlier:
        return True
    if step in GRADIENT_NAMES:
        return earlier != "v" or step != "dv"
    if earlier not in step_order or step_order.index(step) < step_order.index(earlier):
        return False
    return earlier != "v" or step in STEPS_OF_VALUES
