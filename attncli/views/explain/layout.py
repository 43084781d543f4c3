"""The lines of a section below each other: labels, equal signs and results aligned, folded where they are too wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.cells import cell_len

from attncli.views.explain.lines import PrintedLine
from attncli.views.explain.rendered_page import ROUNDED_MARK

StyledFragment = tuple[str, str]  # text, style
LEFT_MARGIN_WIDTH = 5
_LABEL_GAP = 3  # between a label and its equation
_MIN_EQUATION_WIDTH = 20  # on however narrow a terminal
_MAX_ALIGNED_WIDTH = 60  # what is wider does not push the others' equal signs away


def layout_lines(lines: Sequence[PrintedLine], width: int | None) -> Iterator[list[StyledFragment]]:
    """The lines of a section for a terminal so wide, those with equally many sides aligned with each other."""
    label_width = max((cell_len(line.label) for line in lines), default=0)
    available = None
    if width is not None:
        available = max(width - LEFT_MARGIN_WIDTH - label_width - _LABEL_GAP, _MIN_EQUATION_WIDTH)
    for _, block in groupby(lines, key=lambda line: len(line.sides)):
        yield from _layout_block(list(block), label_width, available)


def _layout_block(
    lines: Sequence[PrintedLine], label_width: int, available_width: int | None
) -> Iterator[list[StyledFragment]]:
    """Equal signs and results below each other, where they fit; folded where they do not."""
    widths, aligned_sides = _column_widths([line.sides for line in lines])
    fits = available_width is None or sum(widths) + 3 * (len(widths) - 1) + 2 <= available_width
    for line in lines:
        is_aligned = fits and line.sides in aligned_sides
        text = (_aligned_equation(line.sides, widths) if is_aligned else line.equation).rstrip()
        text += f" {ROUNDED_MARK}" if line.is_rounded else ""
        remark = f"   {line.remark}" if line.remark else ""
        pieces = [text]
        if available_width is not None and cell_len(text + remark) > available_width:
            pieces = _fold_text(text.strip(), available_width) + _fold_text(line.remark, available_width)
            remark = ""
        for n, piece in enumerate(pieces):
            label = line.label if n == 0 else ""
            padding = " " * (label_width - cell_len(label) + _LABEL_GAP)
            yield [(" " * LEFT_MARGIN_WIDTH + label + padding, "cyan"), (piece, ""), (remark, "dim")]


def _column_widths(rows: Sequence[tuple[str, ...]]) -> tuple[list[int], Sequence[tuple[str, ...]]]:
    """The width of each column of sides, and the rows that are aligned: those that begin short, if they are most."""
    short = [sides for sides in rows if cell_len(sides[0]) <= _MAX_ALIGNED_WIDTH]
    aligned = short if 2 * len(short) > len(rows) else rows
    return [max(map(cell_len, column)) for column in zip(*aligned, strict=True)], aligned


def _aligned_equation(sides: tuple[str, ...], widths: Sequence[int]) -> str:
    """Sides padded to the widths of their columns; results that are numbers stand at the right of theirs."""
    cells = []
    for i, (side, width) in enumerate(zip(sides, widths, strict=True)):
        padding = " " * (width - cell_len(side))
        is_number = 0 < i == len(sides) - 1 and not side.startswith("[")
        cells.append(padding + side if is_number else side + padding)
    return " = ".join(cells)


def _fold_text(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
