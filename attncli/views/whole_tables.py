"""A result in a pipe or a file: tables at their natural width with nothing left out, piece by piece. Entry: `print_whole_tables`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache

from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from attncli.views.arrangement import ResultTables
from attncli.views.labelled import LabelledMatrix
from attncli.views.table_style import StyledCell, TableStyle, pad_left, widest


def print_whole_tables(tables: ResultTables, style: TableStyle, *, has_unicode: bool) -> Iterator[str]:
    """Print the headings of the tables, and yield their lines: after each heading an empty text, so that it is taken first.

    Args:
        tables: of the result.
        style: and the console that headings are printed on.
        has_unicode: whether the console can show more than ASCII.
    """
    told_statistics: list[str] = []
    for one in tables.slices():
        matrix = one.matrix() if has_unicode else one.matrix().with_ascii_symbols()
        style.console.print()
        style.print_heading(matrix)
        if matrix.statistics_legend != told_statistics and matrix.statistics_legend:
            told_statistics = matrix.statistics_legend
            style.print_note(told_statistics)
        yield ""
        yield from _format_whole_matrix(matrix, style)


def _format_whole_matrix(matrix: LabelledMatrix, style: TableStyle) -> Iterator[str]:
    """One table at its natural width, nothing left out, a page of rows at a time.

    Its lines are those of a Rich table, which would take a hundred times as long: it measures, wraps and cuts each cell.
    """
    frame = style.box
    label_width = widest([matrix.corner_label, *matrix.row_labels])
    widths = style.column_widths(matrix, matrix.cell_labels)
    statistics_from = len(matrix.column_labels)
    divider = f" {frame.head_vertical} "
    paint = _painter(style.console)

    def join_cells(label: str, cells: Iterable[str]) -> str:
        return divider.join((label, *cells)) + "\n"

    head_styles = ["" if c < statistics_from else "dim" for c in range(len(widths))]
    head_cells = map(pad_left, matrix.cell_labels, widths)
    head = join_cells(paint(_pad_right(matrix.corner_label, label_width), "dim"), map(paint, head_cells, head_styles))
    padded_widths = [label_width + 1, *(width + 2 for width in widths[:-1]), *(width + 1 for width in widths[-1:])]
    yield head + frame.get_row(padded_widths, "head", edge=False) + "\n"
    shading = style.shading(matrix)
    glyph_style = shading.glyph_style if shading else ""
    pad = str.rjust if matrix.cell_format.is_narrow else pad_left

    def format_cell(cell: StyledCell, width: int) -> str:
        text = paint(pad_left(cell.text, width - len(cell.glyph)), cell.style)
        return text + paint(cell.glyph, glyph_style) if cell.glyph else text

    for first, rows in matrix.pages():
        labels = [_pad_right(label, label_width) for label in matrix.row_labels[first : first + len(rows)]]
        if style.is_colorless and not shading:
            lines = [join_cells(label, map(pad, cells, widths)) for label, cells in zip(labels, rows, strict=True)]
        else:
            styled_rows = style.style_rows(matrix, first, rows)
            lines = [
                join_cells(label, map(format_cell, cells, widths))
                for label, cells in zip(labels, styled_rows, strict=True)
            ]
        yield "".join(lines)


def _pad_right(text: str, width: int) -> str:
    """Fill a text up to so many columns of a terminal, as a label is."""
    return text + " " * (width - cell_len(text))


def _painter(console: Console) -> Callable[[str, str | Style], str]:
    """A function that puts the codes of a style around a text, as the console does."""

    @cache
    def codes(style: str | Style) -> tuple[str, str]:
        with console.capture() as capture:
            console.print(Text("x", style=style), end="")
        before, _, after = capture.get().partition("x")
        return before, after

    def paint(text: str, style: str | Style) -> str:
        before, after = codes(style)
        return f"{before}{text}{after}"

    return paint
