"""Equations as printed lines: numbers with their digits, aligned vectors, and the mark of what rounding moved.

`print_lines` is the entry; every format lays out what it returns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from attncli.derivation import Equation, EquationSide, Number, Vector
from attncli.views.explain.arithmetic import PrintedItem, PrintedSide, Value, is_consistent
from attncli.views.explain.numbers import NumberFormatter, PrintedNumber
from attncli.views.explain.page import Section

_OPERATOR_ENDINGS = "+−·×/^"  # a negative number that follows one of these stands in brackets


@dataclass(frozen=True)
class PrintedLine:
    """One equation, printed."""

    label: str
    sides: tuple[str, ...]
    remark: str = ""
    is_rounded: bool = False  # its printed numbers do not give its printed result
    is_text_only: bool = False  # no numbers: it stands for lines that were left out
    result: Value | None = None  # the value of its last side

    @property
    def equation(self) -> str:
        """The line without its label; of a sum the result alone, which stands below what was added."""
        return " = ".join(filter(None, self.sides))


def print_lines(section: Section, formatter: NumberFormatter) -> list[PrintedLine]:
    """The lines of a section; the results of one column have equally many digits."""
    formatter.begin_section(section)
    results = [line.sides[-1][0] for line in section.lines if len(line.sides) > 1 and len(line.sides[-1]) == 1]
    numbers = [item for item in results if isinstance(item, Number)]
    digits = formatter.decimals_needed(numbers)
    formatter.keep_digits(numbers, digits)
    widths = _entry_widths(section.lines, formatter)
    printed: list[PrintedLine] = []
    for line in section.lines:
        terms_above = [above.result for above in printed if len(above.sides) == len(line.sides)]
        printed.append(_print_line(line, formatter, digits, widths, terms_above))
    return printed


def _entry_widths(lines: Sequence[Equation], formatter: NumberFormatter) -> dict[tuple[int, int], int]:
    """The widest entry of vectors that stand below each other: by the number of sides of a line, and which side it is."""
    trial = dataclasses.replace(formatter, gap_numbers=dict(formatter.gap_numbers), gap_values=[])
    widths: dict[tuple[int, int], int] = {}
    for line in lines:
        for i, side in enumerate(line.sides):
            for vector in (item for item in side if isinstance(item, Vector)):
                width = max(map(cell_len, _entry_texts(trial.print_vector(vector))), default=0)
                widths[len(line.sides), i] = max(widths.get((len(line.sides), i), 0), width)
    return widths


def _print_line(
    line: Equation,
    formatter: NumberFormatter,
    result_digits: int,
    widths: dict[tuple[int, int], int],
    terms_above: Sequence[Value | None],
) -> PrintedLine:
    count = len(line.sides)
    sides = []
    for i, side in enumerate(line.sides):
        is_result = 0 < i == count - 1
        sides.append(print_side(side, formatter, result_digits if is_result else 0, widths.get((count, i), 0)))
    return PrintedLine(
        line.label,
        tuple(side.text for side in sides),
        line.remark,
        is_rounded=not is_consistent(sides, formatter.precision, terms_above),
        is_text_only=all(isinstance(item, str) for side in line.sides for item in side),
        result=sides[-1].value,
    )


def print_side(
    side: EquationSide, formatter: NumberFormatter, min_digits: int = 0, entry_width: int = 0
) -> PrintedSide:
    """One side of an equation; negative numbers stand in brackets where an operator comes before them."""
    text, items = "", list[PrintedItem]()
    for item in side:
        if isinstance(item, str):
            text += item
            items.append(item)
        elif isinstance(item, Vector):
            entries = formatter.print_vector(item)
            text += f"[{' '.join(entry.rjust(entry_width) for entry in _entry_texts(entries))}]"
            items.append(tuple(entry for entry in entries if entry is not None))
        else:
            number = formatter.print_number(item, min_digits)
            if text.rstrip().endswith(tuple(_OPERATOR_ENDINGS)) and item.value < 0 and number.text[0] in "-−":
                text += f"({number.text})"
                items += ["(", number, ")"]
            else:
                text += number.text
                items.append(number)
    return PrintedSide(text, tuple(items))


def _entry_texts(entries: Sequence[PrintedNumber | None]) -> list[str]:
    return ["…" if entry is None else entry.text for entry in entries]
