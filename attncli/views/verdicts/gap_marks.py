"""The marks of a worksheet in words: each gap with its answer, and which answers rounding explains."""

from __future__ import annotations

import math
from collections.abc import Iterator

from attncli.text import join_names, printable, shorten
from attncli.verdict import GapMark, Verdict

CHECK_MARKS = {True: "✓", False: "✗", None: "–"}
MAX_SHOWN_DECIMALS = 17  # float64 has no more digits
_MAX_UNITS_OF_SMALL_ATOL = 4  # of the last digit, that 5 of them accept whatever was rounded
_ORDINALS = ("", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")


def format_number(x: float, decimals: int) -> str:
    """Format a number with so many decimals; a large one as a power of ten, what is not finite by its sign."""
    if not math.isfinite(x):
        return "NaN" if math.isnan(x) else "∞" if x > 0 else "−∞"
    return f"{x:.6e}" if abs(x) >= 1e9 else f"{x:.{decimals}f}"


def format_gap_mark(mark: GapMark) -> tuple[str, str, str, str, str]:
    """Format a gap's number, its figure, what was written, what is right unless that is, and the mark."""
    if mark.is_right or mark.reference is None:
        right = ""
    elif isinstance(mark.reference, float):
        right = format_number(mark.reference, _reference_decimals(mark.written_text))
    else:
        right = str(mark.reference)
    return (
        f"⟨{mark.gap_number}⟩",
        f"{mark.step}, {mark.cell_text}",
        printable(shorten(mark.written_text, 40)) or "____",
        right,
        CHECK_MARKS[mark.is_right],
    )


def _reference_decimals(written_text: str) -> int:
    """Return how many decimals the reference has beside a written figure: one more, or 4."""
    _, point, fraction = written_text.replace(",", ".").partition(".")
    return min(len(fraction) + 1, MAX_SHOWN_DECIMALS) if point and fraction.isdigit() else 4


def rounding_lines(verdict: Verdict) -> Iterator[str]:
    """Say which answers of a worksheet are wrong by so little that rounding on the way can be the reason, and what accepts them."""
    gaps: dict[tuple[int, int], list[str]] = {}
    for mark in verdict.gap_marks:
        if mark.units_off is not None and mark.decimals is not None and mark.decimals > 0:  # a digit after the point
            gaps.setdefault((mark.decimals, mark.units_off), []).append(f"⟨{mark.gap_number}⟩")
    for (decimals, units), names in sorted(gaps.items()):
        digit = _ORDINALS[decimals] if decimals < len(_ORDINALS) else f"{decimals}th"
        atol = (
            f"{5 * 10.0**-decimals:.{decimals}f}"
            if units <= _MAX_UNITS_OF_SMALL_ATOL
            else f"{10.0 ** (1 - decimals):g}"
        )
        off = f"off by {units} in the {digit} digit after the point, as when rounded numbers are worked with"
        yield f"{join_names(names)}: {off}; --atol {atol} accepts it"
