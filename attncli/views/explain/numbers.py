"""How numbers are printed on a page: with as many digits as they need, or as a gap. `NumberFormatter` is the entry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from attncli.derivation import DERIVED, Number, Vector
from attncli.views.explain.page import Section
from attncli.views.explain.worksheet import StepCell, Worksheet

GAP_TEXT = "____"
_MIN_INPUT_DIGITS = 4  # digits after the point that what came in keeps, however few are asked for
_MAX_VECTOR_ENTRIES = 10  # entries of a vector before its middle is left out
_NONFINITE_VALUES = {"NaN": math.nan, "∞": math.inf, "−∞": -math.inf}


@dataclass(frozen=True)
class PrintedNumber:
    """A number as it stands on the page: `0.25`, `⟨3⟩____`, `⟨3⟩0.25` with the answers, or `⟨3⟩` where it stands again."""

    text: str
    digits: str  # the text without the mark of a gap; empty if the number is blank

    @property
    def value(self) -> float | None:
        """The value that a reader takes it for; None if it is blank."""
        if not self.digits:
            return None
        return _NONFINITE_VALUES[self.digits] if self.digits in _NONFINITE_VALUES else float(self.digits)

    @property
    def decimals(self) -> int:
        """How many digits stand after the point."""
        return len(self.digits.partition("e")[0].partition(".")[2])

    @property
    def exponent(self) -> int:
        """The power of ten that is printed behind an `e`; 0 without one."""
        return int(self.digits.partition("e")[2] or 0)


@dataclass
class NumberFormatter:
    """Prints numbers with so many digits after the point, exact ones without zeros at their end; and counts the gaps."""

    precision: int
    worksheet: Worksheet
    full: bool = False
    exact_tolerance: float = 1e-12  # the relative error below which a rounded number counts as exact
    gap_numbers: dict[StepCell, int] = field(default_factory=dict)
    gap_values: list[float] = field(default_factory=list)
    conceals_working: bool = False  # results on the way are blank too, since they would give a gap away
    kept_digits: dict[Number, int] = field(
        default_factory=dict
    )  # of the results of a section, wherever they stand in it

    def begin_section(self, section: Section) -> None:
        """Conceal the working of a section that works with what an earlier one left blank."""
        self.conceals_working = bool(section.used_steps & self.worksheet.blank_steps)

    def keep_digits(self, results: Sequence[Number], digits: int) -> None:
        """Print the results of a section with as many digits where they stand in its other lines: 1.0000, and not 1."""
        self.kept_digits = {number: digits for number in results if number.step}

    def format_number(
        self, value: float, min_digits: int = 0, *, fixed_digits: bool = False, precision: int | None = None
    ) -> str:
        """A number with as many digits after the point as it needs, from `min_digits` to the precision.

        A very small or very large one is written with an exponent; a small one is not if its digits are fixed.
        """
        precision = self.precision if precision is None else precision
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
        size = abs(value)
        if size >= 1e9 or (0 < size < 0.5 * 10.0**-precision and not fixed_digits):
            return self._shortest_exact(value, 0, precision, "e")
        text = self._shortest_exact(value, min_digits, precision, "f")
        return text if text.strip("-0.") else text.lstrip("-")  # no −0.0000

    def _shortest_exact(self, value: float, min_digits: int, max_digits: int, notation: Literal["e", "f"]) -> str:
        """The value with the fewest digits that say it exactly, or with the most where none do."""
        longest = f"{value:.{max_digits}{notation}}"
        tolerance = self.exact_tolerance * abs(value)
        if abs(float(longest) - value) > tolerance:  # then fewer digits do not say it either
            return longest
        texts = (f"{value:.{digits}{notation}}" for digits in range(min_digits, max_digits))
        return next((text for text in texts if abs(float(text) - value) <= tolerance), longest)

    def decimals_needed(self, numbers: Sequence[Number]) -> int:
        """How many digits after the point all of these numbers need."""
        texts = [self.format_number(number.value) for number in numbers]
        return max((len(text.partition(".")[2]) for text in texts if "e" not in text), default=0)

    def print_number(self, number: Number, min_digits: int = 0, *, fixed_digits: bool = False) -> PrintedNumber:
        """A number, or the gap that stands for it."""
        min_digits = max(min_digits, self.kept_digits.get(number, 0))
        if number.step in self.worksheet:
            return self._print_gap(number, min_digits, fixed_digits)
        if number.step == DERIVED and self.conceals_working and not self.worksheet.show_answers:
            return PrintedNumber(GAP_TEXT, "")
        if not number.step and self.precision < _MIN_INPUT_DIGITS:
            text = self.format_number(number.value, fixed_digits=fixed_digits, precision=_MIN_INPUT_DIGITS)
        else:
            text = self.format_number(number.value, min_digits, fixed_digits=fixed_digits)
        return PrintedNumber(text, text)

    def _print_gap(self, number: Number, min_digits: int, fixed_digits: bool) -> PrintedNumber:
        """The gap of a cell: numbered, and blank the first time; where the cell stands again, its number alone."""
        cell = (number.step, number.cell_index)
        is_first = cell not in self.gap_numbers
        mark = f"⟨{self.gap_numbers.setdefault(cell, len(self.gap_numbers) + 1)}⟩"
        if is_first:
            self.gap_values.append(number.value)
        if self.worksheet.show_answers:
            digits = self.format_number(number.value, min_digits, fixed_digits=fixed_digits)
            return PrintedNumber(mark + digits, digits)
        return PrintedNumber(mark + GAP_TEXT if is_first else mark, "")

    def print_vector(self, vector: Vector) -> list[PrintedNumber | None]:
        """Every entry with equally many digits; None stands for the middle of a long vector, which is left out."""
        shown: list[Number | None] = list(vector)
        if len(vector) > _MAX_VECTOR_ENTRIES and not self.full:
            shown = [*vector[: _MAX_VECTOR_ENTRIES - 3], None, *vector[-2:]]
        smallest_printed = 0.5 * 10.0**-self.precision
        sizes = [abs(number.value) for number in vector]
        is_mixed = any(0 < size < smallest_printed for size in sizes) and any(
            size >= smallest_printed for size in sizes
        )
        digits = self.precision if is_mixed else self.decimals_needed(vector)
        return [x if x is None else self.print_number(x, digits, fixed_digits=bool(digits)) for x in shown]
