"""A result in a pipe or a file: tables at their natural width with nothing left out, piece by piece. Entry: `print_whole_tables`."""

from __future__ import annotations

from collections.abc import Iterator

from attncli.views.labelled_matrices import LabelledMatrix
from attncli.views.table_lines import TableLines
from attncli.views.table_order import ResultTables
from attncli.views.table_style import TableStyle, widest


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
    """One table at its natural width, nothing left out, a page of rows at a time."""
    lines = TableLines(
        style,
        matrix.corner_label,
        matrix.cell_labels,
        style.column_widths(matrix, matrix.cell_labels),
        row_label_width=widest([matrix.corner_label, *matrix.row_labels]),
        statistic_count=len(matrix.statistics),
        is_narrow=matrix.cell_format.is_narrow,
    )
    yield lines.head()
    has_no_style = style.is_colorless and style.find_heat(matrix) is None
    for first, rows in matrix.pages():
        labels = matrix.row_labels[first : first + len(rows)]
        if has_no_style:
            yield lines.plain_rows(labels, rows)
        else:
            yield lines.rows(labels, style.style_rows(matrix, first, rows))
