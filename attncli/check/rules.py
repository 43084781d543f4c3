"""When a figure is right: digits, close, flash; and how far each is off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attncli.check.claims import Claim
from attncli.types import NumpyArray
from attncli.verdict import Rule

RULE_NAMES = ("digits", "close", "flash")
_TOLERANCES = {"float64": 1e-9, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
MANTISSA_BITS = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}
_MIN_EXPONENTS = {"float64": -1022, "float32": -126, "float16": -14, "bfloat16": -126}


def choose_rule(claim: Claim, rule_name: str | None, rtol: float | None, atol: float | None) -> Rule:
    """The rule that was said, or that goes with what the figures are; with the reason."""
    given = claim.step_figures
    dtype = "float64" if given.dtype == "text" else given.dtype
    if claim.values.dtype.kind in "biu":
        return Rule("exact", "they are booleans or integers")
    if rule_name == "digits":
        return Rule("digits", "--rule digits", dtype)
    if rule_name == "flash":
        return Rule("flash", "--rule flash", dtype if dtype != "float64" else "float32")
    if rtol is not None or atol is not None:
        return Rule("close", "as the command line says", dtype, rtol or 0.0, atol or 0.0)
    if rule_name is None and (given.rtol is not None or given.atol is not None):
        return Rule("close", "expected says rtol and atol", dtype, given.rtol or 0.0, given.atol or 0.0)
    if rule_name is None and given.expected_decimals is not None:
        return Rule("digits", "expected says decimals", dtype)
    if rule_name is None and given.dtype == "text":
        return Rule("digits", "they are written with few digits", dtype)
    if rule_name is None and dtype in ("float16", "bfloat16"):
        return Rule("flash", f"they are {dtype}", dtype)
    near = _TOLERANCES[dtype]
    return Rule(
        "close", f"they are {dtype}" if rule_name is None else "--rule close", dtype, near, near, atol_is_relative=True
    )


def written_decimals(claim: Claim, rule: Rule) -> NumpyArray | None:
    """How many decimals each figure was written with, where digits are what counts."""
    if rule.name != "digits":
        return None
    if claim.step_figures.expected_decimals is not None:
        return np.full(claim.values.shape, int(claim.step_figures.expected_decimals))
    if claim.decimals is not None:
        return claim.decimals
    from attncli.check.figures import parse_written_number

    flat = [parse_written_number(repr(float(x)))[1] if np.isfinite(x) else 0 for x in claim.values.ravel()]
    return np.array(flat, int).reshape(claim.values.shape)


@dataclass(frozen=True)
class CellComparison:
    """Figures held against a reference, cell by cell."""

    is_right: NumpyArray
    error: NumpyArray  # |Δ|; ∞ where one is not finite and the other is not the same
    tolerance: NumpyArray


def compare_cells(
    rule: Rule, actual: NumpyArray, reference: NumpyArray, decimals: NumpyArray | None, largest_figure: float
) -> CellComparison:
    """Each figure against the reference, by the rule. `largest`: of the reference's whole step, finite ones."""
    if actual.dtype.kind in "biu" and reference.dtype.kind in "biu":
        same = actual == reference
        return CellComparison(same, np.abs(actual.astype(np.float64) - reference), np.zeros(actual.shape))
    actual, reference = actual.astype(np.float64), reference.astype(np.float64)
    with np.errstate(all="ignore"):
        strange = ~(np.isfinite(actual) & np.isfinite(reference))
        same = (actual == reference) | (np.isnan(actual) & np.isnan(reference))
        error = np.where(strange, np.where(same, 0.0, np.inf), np.abs(actual - reference))
        if rule.name == "digits":
            assert decimals is not None
            unit = 10.0 ** -decimals.astype(np.float64)
            slack = np.maximum(unit * 1e-9, 4 * np.spacing(np.abs(reference)))
            short = np.abs(actual) < np.abs(reference)  # it may be cut off
            cut = short & ((actual == 0) | (np.sign(actual) == np.sign(reference)))
            tolerance = np.where(cut, unit - slack, unit / 2 + slack)
        elif rule.name == "flash":
            tolerance = np.full(actual.shape, rule.allowed_error or 0.0)
        else:
            base = (rule.atol or 0.0) * (largest_figure if rule.atol_is_relative else 1.0)
            tolerance = base + (rule.rtol or 0.0) * np.abs(reference)
        tolerance = np.where(np.isfinite(tolerance), tolerance, 0.0)
        ok = np.where(strange, same, error <= tolerance)
    return CellComparison(ok, error, tolerance)


def largest_finite(values: NumpyArray) -> float:
    """The largest finite figure of a step."""
    if values.dtype.kind in "biu":
        return 1.0
    size = np.abs(values[np.isfinite(values)])
    return float(size.max(initial=0.0))


def unit_in_last_place(dtype: str, x: float) -> float:
    """One unit in the last place of a dtype, at x."""
    exponent = max(np.frexp(abs(x))[1] - 1, _MIN_EXPONENTS[dtype]) if x and np.isfinite(x) else _MIN_EXPONENTS[dtype]
    return float(2.0 ** (float(exponent) - MANTISSA_BITS[dtype]))


def round_to_decimals(values: NumpyArray, decimals: NumpyArray) -> NumpyArray:
    """Figures as they would have been written with so many decimals."""
    with np.errstate(all="ignore"):
        factor = 10.0 ** decimals.astype(np.float64)
        made = np.rint(values * factor) / factor
    return np.where(np.isfinite(made), made, values)
