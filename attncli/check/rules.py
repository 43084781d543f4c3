"""The rules exact, digits, close and flash: when a figure is right, and how far off each figure is.

`choose_rule` chooses a claim's rule, `compare_cells` applies it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attncli.check.claims import Claim
from attncli.check.figures import kind_of_step, parse_written_number
from attncli.types import NumpyArray
from attncli.verdict import Rule

_TOLERANCES = {  # rtol and atol
    "float64": 1e-9,
    "float32": 1e-5,
    "float16": 2e-3,
    "bfloat16": 1.6e-2,
}
_UNCERTAIN_ULP = 4  # by so many units in the last place the reference itself may be off
MANTISSA_BITS = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}
_MIN_EXPONENTS = {"float64": -1022, "float32": -126, "float16": -14, "bfloat16": -126}


def choose_rule(claim: Claim, rule_name: str | None, rtol: float | None, atol: float | None) -> Rule:
    """Choose the rule that the command line names, or the one that suits the figures; with the reason."""
    figures = claim.step_figures
    dtype = "float64" if figures.dtype == "text" else figures.dtype
    if kind_of_step(claim.step) != "floats":
        return Rule("exact", "they are booleans or integers")
    if rule_name == "digits":
        return Rule("digits", "--rule digits", dtype)
    if rule_name == "flash":
        return Rule("flash", "--rule flash", dtype if dtype != "float64" else "float32")
    if rule_name is None and figures.gap_numbers and (rtol is not None or atol is not None):
        return Rule("digits", "from the command line", dtype, rtol or 0.0, atol or 0.0)
    if rtol is not None or atol is not None:
        return Rule("close", "from the command line", dtype, rtol or 0.0, atol or 0.0)
    if rule_name is None and (figures.rtol is not None or figures.atol is not None):
        return Rule("close", "rtol and atol in expected", dtype, figures.rtol or 0.0, figures.atol or 0.0)
    if rule_name is None and figures.expected_decimals is not None:
        return Rule("digits", "decimals in expected", dtype)
    if rule_name is None and figures.dtype == "text":
        return Rule("digits", "they are written with few digits", dtype)
    if rule_name is None and dtype in ("float16", "bfloat16"):
        return Rule("flash", f"they are {dtype}", dtype)
    tolerance = _TOLERANCES[dtype]
    reason = f"they are {dtype}" if rule_name is None else "--rule close"
    return Rule("close", reason, dtype, tolerance, tolerance, atol_is_relative=True)


def written_decimals(claim: Claim, rule: Rule) -> NumpyArray | None:
    """Return how many decimals each figure was written with, under the rule digits; None under the others."""
    if rule.name != "digits":
        return None
    if claim.step_figures.expected_decimals is not None:
        return np.full(claim.values.shape, int(claim.step_figures.expected_decimals))
    if claim.decimals is not None:
        return claim.decimals
    decimals = [parse_written_number(repr(float(x))).decimals if np.isfinite(x) else 0 for x in claim.values.ravel()]
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
    """Return the error that the rule allows each figure."""
    if rule.name == "digits":
        assert decimals is not None
        unit = 10.0 ** -decimals.astype(np.float64)
        own_error = _UNCERTAIN_ULP * np.spacing(np.abs(reference))
        slack = np.maximum(unit * 1e-9, own_error)
        may_be_truncated = np.abs(actual) < np.abs(reference)
        may_be_truncated &= (actual == 0) | (np.sign(actual) == np.sign(reference))
        # 1.8609999999999998 is cut off to 1.8609, and may have come out as 1.861; but 2 is never cut off to 1
        has_written_digits = reference == round_to_decimals(reference, decimals)
        max_cut = np.where(has_written_digits, unit - slack, unit + own_error)
        by_digits = np.where(may_be_truncated, max_cut, unit / 2 + slack)
        own_tolerance: NumpyArray = (rule.atol or 0.0) + (rule.rtol or 0.0) * np.abs(reference)  # of a worksheet
        return np.maximum(by_digits, own_tolerance)
    if rule.name == "flash":
        return np.full(actual.shape, rule.allowed_error or 0.0)
    atol = (rule.atol or 0.0) * (largest_figure if rule.atol_is_relative else 1.0)
    tolerance: NumpyArray = atol + (rule.rtol or 0.0) * np.abs(reference)
    return tolerance


def largest_finite(values: NumpyArray) -> float:
    """Return the largest finite magnitude of a step's figures; 1 for booleans and integers."""
    if values.dtype.kind in "biu":
        return 1.0
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def unit_in_last_place(dtype: str, x: float) -> float:
    """Return one unit in the last place of a dtype, at x."""
    exponent = _MIN_EXPONENTS[dtype]
    if x and np.isfinite(x):
        exponent = max(int(np.frexp(abs(x))[1]) - 1, exponent)
    return float(2.0 ** (float(exponent) - MANTISSA_BITS[dtype]))


def round_to_decimals(values: NumpyArray, decimals: NumpyArray) -> NumpyArray:
    """Round figures to so many decimals each; what is not finite stays."""
    with np.errstate(all="ignore"):
        factor = 10.0 ** decimals.astype(np.float64)
        rounded = np.rint(values * factor) / factor
    return np.where(np.isfinite(rounded), rounded, values)
