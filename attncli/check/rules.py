"""The rules exact, digits, close and flash: when a figure is right, and how far off each figure is.

`choose_rule` chooses a claim's rule, `compare_cells` applies it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attncli.check import figure_precision
from attncli.check.claims import Claim
from attncli.check.figures import kind_of_step, parse_written_number
from attncli.step_names import GRADIENT_NAMES
from attncli.types import NumpyArray
from attncli.verdict import Rule

_TOLERANCES = {  # rtol and atol
    "float64": 1e-9,
    "float32": 1e-5,
    "float16": 2e-3,
    "bfloat16": 1.6e-2,
}
_UNCERTAIN_ULP = 4  # by so many units in the last place the reference itself may be off
_EXACT_BITS = 16  # after the point, that sums and products of decimals do not end within
_MAX_SHORT_DIGITS = 5  # significant digits, of which float32 holds all: it may only decide how the last one is rounded
_SHARE_OF_LAST_DIGIT = 0.25  # by which it may then be off


def choose_rule(claim: Claim, rule_name: str | None, rtol: float | None, atol: float | None) -> Rule:
    """Choose the rule that the command line names, or the one that suits the figures; with the reason."""
    figures = claim.step_figures
    dtype = "float64" if figures.dtype == "text" else figures.dtype
    if kind_of_step(claim.step) != "floats":
        return Rule("exact", "they are booleans or integers")
    # a worksheet is filled in by hand; other short figures may as well be printed by a program
    digits_dtype = "float32" if figures.dtype in ("text", "float32") and not figures.gap_numbers else "float64"
    if rule_name == "digits":
        return Rule("digits", "--rule digits", digits_dtype)
    if rule_name == "flash":
        return flash_rule(claim.step, dtype if dtype != "float64" else "float32", "--rule flash")
    if rule_name is None and figures.gap_numbers and (rtol is not None or atol is not None):
        return Rule("digits", "from the command line", digits_dtype, rtol or 0.0, atol or 0.0)
    if rtol is not None or atol is not None:
        return Rule("close", "from the command line", dtype, rtol or 0.0, atol or 0.0)
    if rule_name is None and (figures.rtol is not None or figures.atol is not None):
        return Rule("close", "rtol and atol in expected", dtype, figures.rtol or 0.0, figures.atol or 0.0)
    if rule_name is None and figures.expected_decimals is not None:
        return Rule("digits", "decimals in expected", "float32")
    if rule_name is None and figures.dtype == "text":
        return Rule("digits", "they are written with few digits", digits_dtype)
    if rule_name is None and dtype in ("float16", "bfloat16"):
        return flash_rule(claim.step, dtype)
    return close_rule(dtype, "" if rule_name is None else "--rule close")


def flash_rule(step: str, dtype: str, reason: str = "") -> Rule:
    """Make the rule flash for figures of a dtype."""
    return Rule("flash", reason or f"they are {dtype}", dtype, factor=flash_factor(step))


def flash_factor(step: str) -> int:
    """Return how many times the error of plain attention is allowed: FlashAttention's tests allow gradients three times it."""
    return 3 if step in GRADIENT_NAMES else 2


def close_rule(dtype: str, reason: str = "") -> Rule:
    """Make the rule close for figures of a dtype, with its usual tolerances."""
    tolerance = _TOLERANCES[dtype]
    return Rule("close", reason or f"they are {dtype}", dtype, tolerance, tolerance, atol_is_relative=True)


def written_decimals(claim: Claim, rule: Rule) -> NumpyArray | None:
    """Return how many decimals each figure was printed with, or rounded to; None where nothing of it was left out.

    Tolerances that somebody gives are kept as they are, whatever was printed.
    """
    if rule.name == "digits" and claim.step_figures.expected_decimals is not None:
        return np.full(claim.values.shape, int(claim.step_figures.expected_decimals))
    if rule.name == "exact" or (rule.name == "close" and not rule.atol_is_relative):
        return None
    if claim.decimals is not None or rule.name != "digits":
        return claim.decimals
    as_printed = np.float32 if rule.dtype == "float32" else np.float64
    texts = [str(as_printed(x)) if np.isfinite(x) else "" for x in claim.values.ravel()]
    decimals = [parse_written_number(text).decimals if text else 0 for text in texts]
    return np.array(decimals, int).reshape(claim.values.shape)


@dataclass(frozen=True)
class CellComparison:
    """Figures compared with a reference, cell by cell."""

    is_right: NumpyArray
    error: NumpyArray  # |Δ|; ∞ where either is not finite and they are not the same
    tolerance: NumpyArray


def compare_cells(
    rule: Rule, actual: NumpyArray, reference: NumpyArray, decimals: NumpyArray | None, largest_figure: float
) -> CellComparison:
    """Compare each figure with the reference, by the rule.

    Args:
        rule: with its allowed error, if it is flash.
        actual: the figures; a fraction where the reference is whole is wrong under every rule.
        reference: what they should be, in the same shape.
        decimals: how many each figure was written with; the rule digits needs them.
        largest_figure: the largest finite figure of the reference's whole step.
    """
    if actual.dtype.kind in "biu" and reference.dtype.kind in "biu":
        error = np.abs(actual.astype(np.float64) - reference)
        return CellComparison(actual == reference, error, np.zeros(actual.shape))
    actual, reference = actual.astype(np.float64), reference.astype(np.float64)
    with np.errstate(all="ignore"):
        is_finite = np.isfinite(actual) & np.isfinite(reference)
        is_same = (actual == reference) | (np.isnan(actual) & np.isnan(reference))
        error = np.where(is_finite, np.abs(actual - reference), np.where(is_same, 0.0, np.inf))
        tolerance = _tolerance(rule, actual, reference, decimals, largest_figure)
        tolerance = np.where(np.isfinite(tolerance), tolerance, 0.0)
        is_right = np.where(is_finite, error <= tolerance, is_same)
    return CellComparison(is_right, error, tolerance)


def _tolerance(
    rule: Rule, actual: NumpyArray, reference: NumpyArray, decimals: NumpyArray | None, largest_figure: float
) -> NumpyArray:
    """Return the error that the rule allows each figure: of arithmetic, and of printing."""
    unit = np.zeros(actual.shape) if decimals is None else 10.0 ** -decimals.astype(np.float64)
    if rule.name == "digits":
        assert decimals is not None
        own_error = _UNCERTAIN_ULP * (np.spacing(np.abs(reference)) + np.spacing(largest_figure))
        arithmetic = _float32_error(rule, actual, reference, decimals, largest_figure)
        by_digits = _printing_error(actual, reference, decimals, own_error, arithmetic, rule.dtype == "float32")
        own_tolerance: NumpyArray = (rule.atol or 0.0) + (rule.rtol or 0.0) * np.abs(reference)  # of a worksheet
        return np.maximum(by_digits, own_tolerance)
    left_out = np.where(np.abs(actual) < np.abs(reference), unit, unit / 2)  # cut off, or rounded
    if rule.name == "flash":
        flash: NumpyArray = left_out + (rule.allowed_error or 0.0)
        return flash
    atol = (rule.atol or 0.0) * (largest_figure if rule.atol_is_relative else 1.0)
    tolerance: NumpyArray = atol + (rule.rtol or 0.0) * np.abs(reference)
    return left_out + np.maximum(tolerance, rule.allowed_error or 0.0)


def _float32_error(
    rule: Rule, actual: NumpyArray, reference: NumpyArray, decimals: NumpyArray, largest_figure: float
) -> NumpyArray:
    """Return by how much a float32 program may be off before it prints: nothing where figures are not taken for one's."""
    if rule.dtype != "float32":
        return np.zeros(actual.shape)
    error: NumpyArray = _TOLERANCES["float32"] * (np.abs(reference) + largest_figure)
    if figure_precision.count_digits(actual, decimals) <= _MAX_SHORT_DIGITS:
        error = np.minimum(error, _SHARE_OF_LAST_DIGIT * 10.0 ** -decimals.astype(np.float64))
    return np.maximum(error, rule.allowed_error or 0.0)


def _printing_error(
    actual: NumpyArray,
    reference: NumpyArray,
    decimals: NumpyArray,
    own_error: NumpyArray,
    arithmetic: NumpyArray,
    is_program: bool,
) -> NumpyArray:
    """Return by how much a figure may be off if it is the reference rounded to its digits, or cut off after them.

    Args:
        actual: the figures.
        reference: what is printed.
        decimals: how many each figure is written with.
        own_error: by how much the reference itself may be off.
        arithmetic: by how much the figure may be off before it is printed.
        is_program: the figures may be a program's, which cuts off what it has, and not what is right.
    """
    unit = 10.0 ** -decimals.astype(np.float64)
    slack = np.maximum(unit * 1e-9, own_error)
    rounded = unit / 2 + slack + arithmetic
    cut_off = unit + own_error + arithmetic
    may_be_cut = (np.abs(actual) < np.abs(reference)) & ((actual == 0) | (np.sign(actual) == np.sign(reference)))
    # 1.8609999999999998 is cut off to 1.8609, and may have come out as 1.861; but 2 is never cut off to 1
    from_edge = np.abs(reference - round_to_decimals(reference, decimals))
    is_on_edge = (from_edge == 0) & (unit > 4 * slack)
    if is_program and actual.size > 1 and (may_be_cut & is_on_edge).any():
        error = np.abs(actual - reference)
        is_cut_throughout = (error <= np.where(may_be_cut, cut_off, own_error + arithmetic)).all()
        is_cut_for_sure = (may_be_cut & ~is_on_edge & (error > rounded)).any()
        is_inexact = ((from_edge > 0) & (from_edge <= own_error)).any()  # others of the same step are next to an edge
        ends_in_nine = np.rint(np.abs(actual) / unit) % 10 == 9
        if is_cut_throughout:
            is_on_edge &= ~(ends_in_nine | is_cut_for_sure | is_inexact | _is_cut_in_binary(actual, reference, unit))
            is_on_edge &= ~_is_cut_by_chance(may_be_cut, is_on_edge, reference)
    max_cut = np.where(is_on_edge, unit - slack, cut_off)
    return np.where(may_be_cut, np.maximum(max_cut, rounded), rounded)


def _is_cut_by_chance(may_be_cut: NumpyArray, is_on_edge: NumpyArray, reference: NumpyArray) -> NumpyArray:
    """Tell which figures a program may cut off one lower since it adds up in another order: 12.35 may come out as 12.349999999999998.

    What binary numbers hold exactly comes out in any order; and of the others not most come out lower.
    """
    is_inexact = is_on_edge & (np.ldexp(reference, _EXACT_BITS) % 1 != 0)
    is_lower = is_inexact & may_be_cut
    is_chance = is_lower.sum() <= max(1, is_inexact.sum() / 2)
    return is_lower if is_chance else np.zeros(reference.shape, bool)


def _is_cut_in_binary(actual: NumpyArray, reference: NumpyArray, unit: NumpyArray) -> NumpyArray:
    """Tell which figures a program cuts off one lower: 1.15 · 100 is a little less than 115, 8.6522 in float32 than 8.6522."""
    found = np.zeros(actual.shape, bool)
    for dtype, product_dtype in (("float64", "float64"), ("float32", "float32"), ("float32", "float64")):
        factor: NumpyArray = np.rint(1 / unit).astype(product_dtype)
        product: NumpyArray = reference.astype(dtype).astype(product_dtype) * factor
        found |= np.abs(np.trunc(product) / factor - actual) < unit / 2
    return found


def largest_finite(values: NumpyArray) -> float:
    """Return the largest finite magnitude of a step's figures; 1 for booleans and integers."""
    if values.dtype.kind in "biu":
        return 1.0
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def unit_in_last_place(dtype: str, x: float) -> float:
    """Return one unit in the last place of a dtype, at x."""
    return float(figure_precision.spacing(dtype, np.array(x)))


def round_to_decimals(values: NumpyArray, decimals: NumpyArray) -> NumpyArray:
    """Round figures to so many decimals each; what is not finite stays."""
    with np.errstate(all="ignore"):
        factor = 10.0 ** decimals.astype(np.float64)
        rounded = np.rint(values * factor) / factor
    return np.where(np.isfinite(rounded), rounded, values)
