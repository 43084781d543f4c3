"""Errors, figures and shapes as a verdict prints them."""

from __future__ import annotations

import math

from attncli.verdict import StepComparison
from attncli.views.verdicts.gap_marks import MAX_SHOWN_DECIMALS, format_number


def format_error(x: float) -> str:
    """Format an error: short, and 0 only where it is 0."""
    if not math.isfinite(x):
        return "∞" if x > 0 else "NaN"
    if x == 0:
        return "0"
    if 1e-3 <= x < 100:
        return f"{x:.2g}"
    return f"{x:.0f}" if 100 <= x < 1e4 else f"{x:.1e}"


def format_ulp_error(x: float) -> str:
    """Format an error in units in the last place; how many there are beyond a million says nothing."""
    return "> 1e6" if x > 1e6 else format_error(x)


def format_worst_figures(comparison: StepComparison) -> tuple[str, str]:
    """Format the claimed figure and the reference at the worst cell, with as many digits as it takes to see them differ."""
    actual, reference = comparison.actual, comparison.reference
    if isinstance(actual, bool) or isinstance(reference, bool):
        return ("yes" if actual else "no"), ("yes" if reference else "no")
    if comparison.rule.name == "exact":
        return str(actual), str(reference)
    if comparison.decimals is not None:
        decimals = min(max(comparison.decimals, 0), MAX_SHOWN_DECIMALS)
        return format_number(actual, decimals), format_number(reference, decimals + 2)
    difference = abs(actual - reference)
    decimals = 6
    if math.isfinite(difference) and difference:
        decimals = min(MAX_SHOWN_DECIMALS, max(6, 1 - math.floor(math.log10(difference))))
    return format_number(actual, decimals), format_number(reference, decimals)


def format_shape(comparison: StepComparison) -> str:
    """Format a shape: 3×4."""
    return "×".join(map(str, comparison.shape)) or "1"
