"""How much it says that a hypothesis gives the claimed figures: digits by which they are nearer than the reference's."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from attncli.check import rules
from attncli.check.comparison import Comparison
from attncli.check.faults import Hypothesis
from attncli.check.trials import StepArrays
from attncli.types import NumpyArray

# of the reference's own error, of what is near but does not give the figures: on the whole, and where it is largest
_MAX_LIKENESS_ERROR_SHARE, _MAX_LARGEST_ERROR_SHARE = 0.25, 0.4
_NONFINITE_PATTERN_DIGITS = 6.0  # digits of evidence, for NaN and ∞ in exactly the claimed cells
_EXTREME_DIGITS = 0.35  # of evidence that a figure is worth which is 0, 1 or NaN: many computations give that
_MIN_ROUNDING_SHARE = 1e-12  # of the largest figure: so much two ways of computing the same differ by
_MAX_DEVIATIONS = 6  # standard deviations of a sum of squares, by which that of a cause may exceed the least
_RESIDUAL_RATIOS = 1.25, 4.0  # of the residual of a cause to the least: of so many figures, and of so few
_MIN_SCALE = 1e-300  # an error is divided by this where the largest figure is 0


@dataclass
class Evidence:
    """What the comparison of one hypothesis with every claim adds up to."""

    is_match: bool = True
    breaks_right_claims: bool = False
    differs_from_reference: bool = False
    gained_digits: float = 0.0
    max_error: float = 0.0
    max_relative_error: float = 0.0
    breaks_right_cells: bool = False  # of claims that are wrong elsewhere
    has_unexplained_cells: bool = False  # NaN or ∞ on one side only
    residual: float = 0.0  # Σ error², over the wrong claims, as a share of each step's largest figure
    residual_before: float = 0.0  # the same of the reference
    max_error_before: float = 0.0  # the reference's largest, as such a share
    explained_steps: list[str] = dataclasses.field(default_factory=list)
    claimed_cells: list[NumpyArray] = dataclasses.field(default_factory=list)

    def add_claim(self, comparison: Comparison, claim_index: int, step_values: NumpyArray, *, is_sampled: bool) -> None:
        """Compare a hypothesis's values of a step with one claim, and add up what that tells."""
        claim, before = comparison.task.claims[claim_index], comparison.cell_comparisons[claim_index]
        scale = max(comparison.largest_figures[claim.step], _MIN_SCALE)
        values, reference = step_values[claim.index], comparison.reference_cells(claim)
        largest_figure = rules.largest_finite(step_values)
        if is_sampled:  # others may be larger
            largest_figure = max(largest_figure, comparison.largest_figures[claim.step])
        cells = comparison.compare(claim_index, step_values, largest_figure=largest_figure)
        is_right = bool(cells.is_right.all())
        self.claimed_cells.append(values)
        self.differs_from_reference |= _differ_beyond_noise(values, reference, scale)
        self.is_match &= is_right
        if claim_index in comparison.wrong_claims:
            if is_right:
                self.explained_steps.append(claim.step)
            repaired = ~before.is_right & cells.is_right
            self.gained_digits += _count_gained_digits(
                before.error, claim.values, cells.tolerance, repaired, (values == claim.values) & (values == 0)
            )
            if (
                claim_index not in comparison.constant_claims
                and _have_same_nonfinite_cells(claim.values, values)
                and not _have_same_nonfinite_cells(claim.values, reference)
            ):
                self.gained_digits += _NONFINITE_PATTERN_DIGITS
            self.breaks_right_cells |= bool((before.is_right & ~cells.is_right).any())
            self.has_unexplained_cells |= bool((~cells.is_right & ~np.isfinite(cells.error)).any())
            compared = np.isfinite(before.error) & np.isfinite(cells.error)
            with np.errstate(all="ignore"):
                self.residual += float((cells.error[compared] ** 2).sum() / scale**2)
                self.residual_before += float((before.error[compared] ** 2).sum() / scale**2)
            self.max_error_before = max(self.max_error_before, float(before.error.max(initial=0.0)) / scale)
        else:
            self.breaks_right_claims |= not is_right
        error = float(cells.error.max(initial=0.0))
        self.max_error = max(self.max_error, error)
        self.max_relative_error = max(self.max_relative_error, error / scale)

    @property
    def takes_off_most(self) -> bool:
        """Whether most of the error is gone, on the whole and where it is largest, and nothing that was right is wrong."""
        is_smaller = self.residual <= _MAX_LIKENESS_ERROR_SHARE**2 * self.residual_before
        is_smaller &= self.max_relative_error < _MAX_LARGEST_ERROR_SHARE * self.max_error_before
        return is_smaller and not (self.breaks_right_claims or self.breaks_right_cells or self.has_unexplained_cells)

    @property
    def shrinks_error(self) -> bool:
        """Whether the error is smaller than the reference's, on the whole and where it is largest."""
        if not math.isfinite(self.max_error_before):
            return self.residual <= self.residual_before
        return self.residual < self.residual_before and self.max_relative_error < self.max_error_before


def largest_residual_of_cause(comparison: Comparison, nearest: float) -> float:
    """Return how large `Evidence.residual` of a cause may be: as large as the nearest computation's, but for chance.

    Args:
        comparison: with the wrong claims.
        nearest: the residual of the nearest computation that gives the figures; what rounding the figures leaves counts, if
            that is more.
    """
    figure_count, rounding = 0, 0.0
    for n in comparison.wrong_claims:
        scale = max(comparison.largest_figures[comparison.task.claims[n].step], _MIN_SCALE)
        with np.errstate(all="ignore"):
            units = comparison.units_in_last_place(n) / scale
        units = np.maximum(units[np.isfinite(units)], _MIN_ROUNDING_SHARE)
        figure_count += units.size
        rounding += float((units**2).sum()) / 12
    by_chance = _MAX_DEVIATIONS * math.sqrt(2 / max(figure_count, 1))
    least, most = _RESIDUAL_RATIOS
    return min(max(1 + by_chance, least), most) * max(nearest, rounding)


def _differ_beyond_noise(values: NumpyArray, reference: NumpyArray, scale: float) -> bool:
    """Tell whether figures differ from the reference by more than rounding errors of float64."""
    with np.errstate(all="ignore"):
        is_same = (values == reference) | ((values != values) & (reference != reference))
        is_same |= np.abs(values.astype(np.float64) - reference) <= _MIN_ROUNDING_SHARE * scale
    return not is_same.all()


def key_of_figures(comparison: Comparison, figures: StepArrays) -> bytes:
    """Return what is equal of computations that give the same figures at the claimed cells."""
    parts = []
    for claim in comparison.task.claims:
        if claim.step in figures:
            scale = max(comparison.largest_figures[claim.step], _MIN_SCALE)
            parts.append(np.ascontiguousarray(_drop_last_digits(figures[claim.step][claim.index], scale)).tobytes())
    return b"".join(parts)


def _drop_last_digits(values: NumpyArray, scale: float) -> NumpyArray:
    """Round figures so far that two ways of computing the same give equal figures."""
    if values.dtype.kind in "biu":
        return values
    with np.errstate(all="ignore"):
        rounded: NumpyArray = np.round(values / scale, 11) + 0.0
    return rounded


def is_within_own_rounding(comparison: Comparison, hypothesis: Hypothesis, figures: StepArrays) -> bool:
    """Tell whether the error that is left is no larger than the change that the hypothesis's own rounding makes.

    What is rounded to so many decimals has no more of them.
    """
    for claim in comparison.task.claims:
        values = figures[claim.step][claim.index].astype(np.float64)
        if hypothesis.decimals is not None:
            has_more, claim_has_more = (_has_more_decimals(x, hypothesis.decimals) for x in (values, claim.values))
            if claim_has_more and not has_more:
                return False
        with np.errstate(all="ignore"):
            moved, left = np.abs(values - comparison.reference_cells(claim)), np.abs(values - claim.values)
        is_finite = np.isfinite(moved) & np.isfinite(left)
        if not is_finite.any():
            continue
        slack = 1e-9 * comparison.largest_figures[claim.step]
        if float(left[is_finite].max()) > 2 * float(moved[is_finite].max()) + slack:
            return False
    return True


def _has_more_decimals(values: NumpyArray, decimals: int) -> bool:
    """Tell whether some figure has more decimals than so many."""
    finite = values[np.isfinite(values)].astype(np.float64)
    return bool((np.abs(finite - np.round(finite, decimals)) > 1e-9 * np.maximum(np.abs(finite), 1.0)).any())


def _have_same_nonfinite_cells(values: NumpyArray, other: NumpyArray) -> bool:
    """Tell whether the same cells are NaN, ∞ and −∞, and some are."""
    if values.dtype.kind != "f" or other.dtype.kind != "f" or np.isfinite(values).all():
        return False
    return all(np.array_equal(is_kind(values), is_kind(other)) for is_kind in (np.isnan, np.isposinf, np.isneginf))


def _count_gained_digits(
    error_before: NumpyArray,
    values: NumpyArray,
    tolerance: NumpyArray,
    repaired: NumpyArray,
    are_zero: NumpyArray | bool = False,
) -> float:
    """Count the digits by which figures are nearer than before, over the cells that were wrong and are right.

    Args:
        error_before: of the reference.
        values: the claimed figures.
        tolerance: what the rule allows.
        repaired: which figures were wrong and are right.
        are_zero: which are computed as 0, and not merely small.
    """
    # the error is not finite where a number stands in the place of NaN or ∞: the number's size counts
    error = np.where(np.isfinite(error_before), error_before, np.abs(values.astype(np.float64)))
    with np.errstate(all="ignore"):
        gain = np.log10(np.maximum(error, 1e-300) / np.maximum(tolerance, 1e-15 * np.maximum(error, 1e-300)))
    is_extreme = ((np.abs(values) <= tolerance) & ~np.asarray(are_zero)) | (
        np.abs(np.abs(values) - 1.0) <= tolerance
    )  # all of the weight, or none
    gain = np.where(np.isfinite(error), np.clip(gain, 0, np.where(is_extreme, _EXTREME_DIGITS, 15)), _EXTREME_DIGITS)
    return float(gain[repaired].sum())
