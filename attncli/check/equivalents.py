"""Figures that differ from the reference in what the rest of the computation does not see: not wrong, but otherwise.

`find_equivalents` is the entry. Softmax does not see a constant added to a row, and q·k neither a factor that is divided
out again nor an order of the columns that q and k share; a sink may take its share after the weights were made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from attncli.check import rules
from attncli.check.causes import can_change, resume_steps
from attncli.check.claims import Claim, step_shape
from attncli.check.comparison import Comparison
from attncli.check.plan_edits import visible_cells
from attncli.check.trials import compute_or_none
from attncli.types import NumpyArray
from attncli.variant import Variant

_MIN_FITTED_FIGURES = 3  # besides those from which a factor or a constant is read
_MAX_COLUMN_PAIRS = 1 << 25  # of figures of two columns that are compared to find their order
_Q_OR_K = re.compile(r"(?:normed_|positioned_|present_)?([qk])")


def find_equivalents(comparison: Comparison) -> Mapping[int, str]:
    """Say of each wrong claim how it is otherwise and not wrong; nothing where it is wrong, or may be.

    A claim is otherwise only if every later one that is computed from it is right, or otherwise in a way that goes with it.
    """
    wrong = sorted(comparison.wrong_claims)
    if not wrong or any(comparison.task.claims[n].step_figures.gap_numbers for n in wrong):
        return {}
    found = dict(_columns_in_another_order(comparison, wrong))
    for n in reversed(wrong):
        if n not in found and (sentence := _explain_claim(comparison, n, found)):
            found[n] = sentence
    return {n: found[n] for n in wrong if n in found and _are_later_claims_right(comparison, n, found)}


def _explain_claim(comparison: Comparison, n: int, found: Mapping[int, str]) -> str:
    """Say how a wrong claim is otherwise, if it is."""
    claim = comparison.task.claims[n]
    if not _are_later_claims_right(comparison, n, found):
        return ""
    if (
        claim.axes
        and claim.axes[-1] == "key"
        and _softmax_follows(comparison, claim)
        and _has_row_constants(comparison, n)
    ):
        return "each row differs from the reference by a constant, which the softmax does not see"
    has_factor = claim.step.endswith("scores") or _Q_OR_K.fullmatch(claim.step)
    if has_factor and (factor := _common_factor(comparison, n)):
        return f"the reference × {factor:.6g}, a factor that is cancelled elsewhere, since what follows is right"
    return _before_the_sink(comparison, n)


# ── what proves it ───────────────────────────────────────────────────────────────────────────────
def _later_claims(comparison: Comparison, n: int) -> Iterator[int]:
    """Yield the claims of later steps that are computed from one."""
    claims, order = comparison.task.claims, list(comparison.task.plan.steps)
    for other, claim in enumerate(claims):
        is_later = order.index(claim.step) > order.index(claims[n].step)
        if is_later and can_change(claims[n].step, claim.step):
            yield other


def _are_later_claims_right(comparison: Comparison, n: int, found: Mapping[int, str]) -> bool:
    return all(other not in comparison.wrong_claims or other in found for other in _later_claims(comparison, n))


def _is_proved(comparison: Comparison, n: int, step_values: NumpyArray) -> bool:
    """Tell whether a later claim is right that would be wrong if it came of this step with these values.

    A sample of the queries will do: a wrong figure there is one.
    """
    sample, claims = comparison.sample, comparison.task.claims
    if sample is not comparison:
        step_values = sample.part_of_step(claims[n].step, step_values)
    for other in _later_claims(comparison, n):
        if other in comparison.wrong_claims:
            continue
        later = resume_steps(sample, claims[n].step, step_values).get(claims[other].step)
        if later is None or later.shape != sample.reference[claims[other].step].shape:
            return True
        if not sample.compare(other, later).is_right.all():
            return True
    return False


def _fits(comparison: Comparison, n: int, step_values: NumpyArray) -> bool:
    """Tell whether a claim is right by its rule, if the step had these values."""
    largest_figure = rules.largest_finite(step_values)
    return bool(comparison.compare(n, step_values, largest_figure=largest_figure).is_right.all())


# ── a factor ─────────────────────────────────────────────────────────────────────────────────────
def _common_factor(comparison: Comparison, n: int) -> float | None:
    """Return the one factor between a claim and the reference; None where there is none."""
    values, reference = _as_float64(comparison, n)
    is_finite = np.isfinite(values) & np.isfinite(reference)
    x, y = reference[is_finite], values[is_finite]
    if np.count_nonzero(x) <= _MIN_FITTED_FIGURES or not (x @ x):
        return None
    factor = float(x @ y / (x @ x))
    step_values = comparison.reference[comparison.task.claims[n].step] * factor
    return factor if factor and _fits(comparison, n, step_values) and _is_proved(comparison, n, step_values) else None


def _as_float64(comparison: Comparison, n: int) -> tuple[NumpyArray, NumpyArray]:
    claim = comparison.task.claims[n]
    return claim.values.astype(np.float64), comparison.reference_cells(claim).astype(np.float64)


# ── a constant in each row ───────────────────────────────────────────────────────────────────────
def _softmax_follows(comparison: Comparison, claim: Claim) -> bool:
    """Tell whether nothing but what keeps a row's constant stands between a step and a softmax over all that is there."""
    plan = comparison.task.plan
    names = [link.step for link in plan.chain]
    if claim.step != "scores" and claim.step not in names:
        return False
    later = plan.chain[names.index(claim.step) + 1 :] if claim.step in names else plan.chain
    keeps_constants = all(link.is_mask or link.is_scale or link.name in ("bias", "position") for link in later)
    variant = plan.variant
    return keeps_constants and variant.normalizer.name == "softmax" and variant.sink.is_none


def _has_row_constants(comparison: Comparison, n: int) -> bool:
    """Tell whether each row of a claim is the reference's and a constant."""
    values, reference = _as_float64(comparison, n)
    if comparison.task.claims[n].step_figures.cells is not None:
        return False  # single cells: there are no rows
    claim = comparison.task.claims[n]
    is_visible = _visible_cells(comparison, claim)
    is_seen = np.isfinite(values) & np.isfinite(reference) & is_visible
    rows = is_seen.sum(-1, keepdims=True)
    if int(np.maximum(rows - 1, 0).sum()) < _MIN_FITTED_FIGURES:
        return False
    constants = np.where(is_seen, values - reference, 0.0).sum(-1, keepdims=True) / np.maximum(rows, 1)
    step_values = comparison.reference[claim.step].astype(np.float64).copy()
    hidden = values if _is_hidden_later(comparison, claim) else reference
    step_values[claim.index] = np.where(is_seen, reference + constants, np.where(is_visible, reference, hidden))
    return _fits(comparison, n, step_values)


def _is_hidden_later(comparison: Comparison, claim: Claim) -> bool:
    """Tell whether the mask comes after a step, so that its figures of hidden keys do not matter."""
    chain = comparison.task.plan.chain
    names = [link.step for link in chain]
    later = chain[names.index(claim.step) + 1 :] if claim.step in names else chain
    return any(link.is_mask for link in later)


def _visible_cells(comparison: Comparison, claim: Claim) -> NumpyArray:
    """Tell which figures of a claim belong to keys that their queries see: the mask hides the others later."""
    plan = comparison.task.plan
    if not plan.is_masked:
        return np.ones(claim.values.shape, bool)
    visible = visible_cells(plan).numpy()  # (b|1, h|1, n, m)
    shape = step_shape(plan, claim.step)
    dropped = tuple(i for i, axis in enumerate(("batch", "head", "query", "key")) if axis not in claim.axes)
    kept: NumpyArray = np.broadcast_to(visible.any(dropped), shape)[claim.index]
    return kept


# ── columns in another order ─────────────────────────────────────────────────────────────────────
def _columns_in_another_order(comparison: Comparison, wrong: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Yield claims of q and k whose columns are the reference's in one order, the same in both."""
    orders: dict[str, tuple[int, tuple[int, ...]]] = {}
    for n in wrong:
        step = comparison.task.claims[n].step
        if _Q_OR_K.fullmatch(step) and (order := _column_order(comparison, n)):
            orders[step] = (n, order)
    for step, (n, order) in orders.items():
        other = step[:-1] + ("k" if step.endswith("q") else "q")
        in_order = comparison.reference[step][..., list(order)]
        if (other in orders and orders[other][1] == order) or (
            other not in orders and _is_proved(comparison, n, in_order)
        ):
            alike = "k has them in it, too" if step.endswith("q") else "q has them in it, too"
            yield n, f"the columns are the reference's in the order {_spell_order(order)}, and {alike}: q·k is the same"


def _spell_order(order: Sequence[int]) -> str:
    shown = ", ".join(map(str, order[:8]))
    return f"{shown}, …" if len(order) > 8 else shown


def _column_order(comparison: Comparison, n: int) -> tuple[int, ...]:
    """Return which column of the reference each column of a claim is, if they are all there in another order."""
    claim = comparison.task.claims[n]
    if not claim.is_whole_step or claim.values.ndim < 2:
        return ()
    values, reference = (x.reshape(-1, x.shape[-1]) for x in _as_float64(comparison, n))
    if values.shape[1] * values.size > _MAX_COLUMN_PAIRS or len(values) < 2:
        return ()
    with np.errstate(all="ignore"):
        off = np.abs(values[:, :, None] - reference[:, None, :]).max(0)  # (own column, column)
    order = tuple(int(i) for i in off.argmin(-1))
    if sorted(order) != list(range(len(order))) or list(order) == sorted(order):
        return ()
    return order if _fits(comparison, n, comparison.reference[claim.step][..., list(order)]) else ()


# ── a sink ───────────────────────────────────────────────────────────────────────────────────────
def _before_the_sink(comparison: Comparison, n: int) -> str:
    """Say that weights, or their logarithm of a sum, are those without the sink, which takes its share of the context."""
    plan, claim = comparison.task.plan, comparison.task.claims[n]
    if plan.variant.sink.is_none or claim.step not in ("weights", "log_sum_exp", "exponentials"):
        return ""
    trials = comparison.trials
    without_sink = compute_or_none(lambda: trials.compute_steps(trials.with_choices(sink=Variant().sink)))
    step_values = (without_sink or {}).get(claim.step)
    if step_values is None or step_values.shape != comparison.reference[claim.step].shape:
        return ""
    if not (_fits(comparison, n, step_values) and _is_proved(comparison, n, step_values)):
        return ""
    return "the sink takes its share afterwards: context · sigmoid(log_sum_exp − sink) is the same"
