"""A result on a terminal: tables cut to its width, and to a page that can be read. Entry: `print_fitted_tables`.

Of many rows, columns, heads and batch items the first and last are shown, and of weights the rows and columns that hold the
largest. Narrow tables of two heads stand side by side.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from attncli.text import join_names
from attncli.views.labelled_matrices import WEIGHT_STEPS, LabelledMatrix
from attncli.views.shown_indices import (
    count_shown,
    leading_and_trailing,
    leading_trailing_and_strongest,
    rank_by_strength,
)
from attncli.views.table_lines import TableLines
from attncli.views.table_order import ResultTables, Slice
from attncli.views.table_style import StyledCell, TableStyle, widest

_PAGE_LINES = 150  # lines of a page that may be long: what is shown of rows, heads and items is chosen for them
_LINES_BESIDE_ROWS = 4  # of a table: a blank one, the heading, labels, a rule
_COLUMN_GAP_SPACES = 3  # spaces between two columns
_MAX_LABEL_WIDTH = 18  # characters of one label on a terminal, fewer on a narrow one
_MIN_PAIR_WIDTH = 120  # columns of a terminal on which tables of two heads stand side by side
_PAIR_GAP = 4  # columns between them
# One of so many rows or columns that are shown of many is there for its large weights, not as one of the first or last.
_ROWS_PER_STRONGEST, _COLUMNS_PER_STRONGEST = 5, 3


class _Extent(NamedTuple):
    """At most so many are shown."""

    items: int
    heads: int
    rows: int


_EXTENTS = (  # from the most to the least; the first that fits a page is taken
    _Extent(4, 4, 40),
    _Extent(2, 4, 40),
    _Extent(2, 4, 20),
    _Extent(2, 2, 20),
    _Extent(2, 2, 10),
    _Extent(1, 2, 10),
    _Extent(1, 1, 10),
    _Extent(1, 1, 5),
)
_SHORT_TABLES = _Extent(2, 4, 12)  # no more than these are shown whole, however many lines that takes


def print_fitted_tables(tables: ResultTables, style: TableStyle, width: int) -> Iterator[None]:
    """Print the tables, and yield after each of them.

    Args:
        tables: of the result.
        style: and the console that they are printed on.
        width: of the terminal.
    """
    items = [item for item in range(tables.item_count) if tables.equal_item(item) is None]
    extent = _choose_extent(tables, len(items))
    shown_items = [items[i] for i in leading_and_trailing(len(items), extent.items) if i is not None]
    shown_heads = [head for head in leading_and_trailing(len(tables.heads), extent.heads) if head is not None]
    left_out = [
        *count_shown("batch items", len(items), len(shown_items)),
        *count_shown("heads", len(tables.heads), len(shown_heads)),
    ]
    if left_out:
        style.print_note([f"{join_names(left_out)}; --full shows all, --at chooses"])
    page = _Page(style, width, extent.rows)
    runs = [
        list(run) for _, run in groupby(tables.slices(shown_items, shown_heads), key=lambda one: (one.item, one.head))
    ]
    while runs:
        run = runs.pop(0)
        other = runs[0] if runs and _may_be_paired(run[0], runs[0][0]) else []
        matrices, other_matrices = (list(map(page.make_matrix, some)) for some in (run, other))
        if page.has_room_for_both(matrices, other_matrices):
            runs.pop(0)
            for pair in zip(matrices, other_matrices, strict=True):
                page.print_pair(*pair)
                yield
            continue
        for matrix in matrices:
            page.print(matrix)
            yield
    for item in shown_items:
        equal = [tables.item_label(i) for i in range(tables.item_count) if tables.equal_item(i) == item]
        if equal:
            style.console.print()
            style.print_note([f"{join_names(equal)}: every number is equal to that of {tables.item_label(item)}"])


# ── how much is shown ────────────────────────────────────────────────────────────────────────────
def _choose_extent(tables: ResultTables, item_count: int) -> _Extent:
    """Choose how many items, heads and rows are shown, so that they fit a page; of short tables two heads at least."""
    is_short = all(step.row_count <= _SHORT_TABLES.rows for step in tables.steps)
    if is_short and item_count <= _SHORT_TABLES.items and len(tables.heads) <= _SHORT_TABLES.heads:
        return _SHORT_TABLES
    extents: tuple[_Extent, ...] = _EXTENTS
    if is_short:
        extents = tuple(_Extent(one.items, max(2, one.heads), _SHORT_TABLES.rows) for one in _EXTENTS)
    fitting = (extent for extent in extents if _count_lines(tables, item_count, extent) <= _PAGE_LINES)
    return next(fitting, extents[-1])


def _count_lines(tables: ResultTables, item_count: int, extent: _Extent) -> int:
    """Estimate the lines of a page."""
    lines = 0
    for step in tables.steps:
        count = 1
        for axis in step.slice_axes:
            count *= min(extent.items, item_count) if axis == "batch" else min(extent.heads, step.length(axis))
        gap_count = 1 + (extent.rows // _ROWS_PER_STRONGEST if step.step.name in WEIGHT_STEPS else 0)
        rows = min(step.row_count, extent.rows + gap_count + 1)  # the gaps between them, and what was left out
        lines += count * (rows + _LINES_BESIDE_ROWS)
    return lines


# ── two heads side by side ───────────────────────────────────────────────────────────────────────
def _may_be_paired(one: Slice, other: Slice) -> bool:
    """Whether two tables are of two heads of one batch item."""
    return one.head is not None and other.head is not None and one.item == other.item


@dataclass(frozen=True)
class _FittedTable:
    """One table, cut to a width."""

    matrix: LabelledMatrix
    lines: list[str]
    width: int  # of the lines, with the colour behind their last cells
    left_out: list[str]  # what is not shown of it
    shows_statistics: bool
    is_ranked: bool  # what is shown was chosen by its weights, too


class _Page:
    """Prints tables, and beneath them what was left out, once where it is the same again and again."""

    def __init__(self, style: TableStyle, width: int, max_rows: int) -> None:
        self.style = style
        self.width = width
        self.max_rows = max_rows
        self._told_left_out: list[str] = []
        self._told_statistics: list[str] = []

    def make_matrix(self, one: Slice) -> LabelledMatrix:
        """Return the table of a slice, spelled as the console can show it."""
        return one.matrix() if self.style.has_unicode else one.matrix().with_ascii_symbols()

    def has_room_for_both(self, matrices: Sequence[LabelledMatrix], others: Sequence[LabelledMatrix]) -> bool:
        """Whether the tables of two heads are of the same steps, and fit whole side by side."""
        names, other_names = ([matrix.name for matrix in some] for some in (matrices, others))
        if self.width < _MIN_PAIR_WIDTH or names != other_names:
            return False
        return all(self._fits_whole(matrix, self._half_width) for matrix in (*matrices, *others))

    def print(self, matrix: LabelledMatrix) -> None:
        """Print one table."""
        fitted = self._fit(matrix, self.width)
        self.style.console.print()
        self.style.print_heading(matrix)
        self._print_statistics_legend(fitted)
        self._print_lines(fitted.lines, fitted.width)
        self._print_left_out(fitted)

    def print_pair(self, first: LabelledMatrix, second: LabelledMatrix) -> None:
        """Print two tables that fit whole side by side, below one heading."""
        fitted = [self._fit(matrix, self._half_width) for matrix in (first, second)]
        self.style.console.print()
        self.style.print_heading(first, f"{first.title} and {second.slice_label.rpartition(' · ')[2]}")
        self._print_statistics_legend(fitted[0])
        left, right = fitted
        lines = [
            line + " " * (left.width + _PAIR_GAP - Text.from_ansi(line).cell_len) + other
            for line, other in zip(left.lines, right.lines, strict=True)
        ]
        self._print_lines(lines, left.width + _PAIR_GAP + right.width)
        self._print_left_out(left)

    def _print_lines(self, lines: list[str], width: int) -> None:
        """Print lines with their codes; on a terminal where not even two columns have room, they are cut."""
        console = self.style.console
        if width <= self.width:
            console.file.writelines(f"{line}\n" for line in lines)
        else:
            for line in lines:
                console.print(Text.from_ansi(line), no_wrap=True, overflow="ellipsis")

    @property
    def _half_width(self) -> int:
        return (self.width - _PAIR_GAP) // 2

    def _fits_whole(self, matrix: LabelledMatrix, width: int) -> bool:
        """Whether no column and no statistic of a table is left out at a width."""
        available = self._available_width(matrix, width)
        columns, statistics = _choose_columns(matrix, available, self._column_widths(matrix, width), ())
        return None not in columns and len(statistics) == len(matrix.statistics)

    def _column_widths(self, matrix: LabelledMatrix, width: int) -> list[int]:
        return self.style.column_widths(matrix, _cut_labels(matrix, width))

    def _available_width(self, matrix: LabelledMatrix, width: int) -> int:
        """What a table of a width has for its columns and statistics, beside the labels of its rows."""
        row_labels = [_shorten_label(label, width) for label in matrix.row_labels]
        return width - widest([matrix.corner_label, *row_labels]) - self.style.overhang(matrix)

    def _print_statistics_legend(self, fitted: _FittedTable) -> None:
        legend = fitted.matrix.statistics_legend if fitted.shows_statistics else []
        if legend and legend != self._told_statistics:
            self.style.print_note(legend)
            self._told_statistics = legend

    def _print_left_out(self, fitted: _FittedTable) -> None:
        if fitted.left_out and fitted.left_out != self._told_left_out:
            strongest = ", those with the largest weights among them" if fitted.is_ranked else ""
            self.style.print_note([f"{join_names(fitted.left_out)}{strongest}; --full shows all, --at chooses"])
        self._told_left_out = fitted.left_out

    def _fit(self, matrix: LabelledMatrix, width: int) -> _FittedTable:
        """Cut one table to a width, and to the rows of the page."""
        labels, widths = _cut_labels(matrix, width), self._column_widths(matrix, width)
        is_ranked = matrix.name in WEIGHT_STEPS and matrix.values.size > 0
        row_ranking = rank_by_strength(matrix.values.max(axis=1)) if is_ranked else ()
        rows = leading_trailing_and_strongest(len(matrix.row_labels), self.max_rows, row_ranking, _ROWS_PER_STRONGEST)
        shown_values = matrix.values[[r for r in rows if r is not None]] if is_ranked else None
        ranking = () if shown_values is None else rank_by_strength(shown_values.max(axis=0))
        columns, statistics = _choose_columns(matrix, self._available_width(matrix, width), widths, ranking)
        row_labels = ["…" if r is None else _shorten_label(matrix.row_labels[r], width) for r in rows]
        shown = [*columns, *statistics]
        lines = TableLines(
            self.style,
            matrix.corner_label,
            ["…" if c is None else labels[c] for c in shown],
            [1 if c is None else widths[c] for c in shown],
            row_label_width=widest([matrix.corner_label, *row_labels]),
            statistic_count=len(statistics),
            is_narrow=matrix.cell_format.is_narrow,
        )
        gap_row = [StyledCell("…")] * len(shown)
        cell_rows = []
        for r in rows:
            if r is None:
                cell_rows.append(gap_row)
                continue
            [cells] = self.style.style_rows(matrix, r, matrix.format_rows(r, r + 1))
            cell_rows.append([StyledCell("…") if c is None else cells[c] for c in shown])
        left_out = [
            *count_shown("columns", len(matrix.column_labels), sum(c is not None for c in columns)),
            *count_shown("rows", len(matrix.row_labels), sum(r is not None for r in rows)),
        ]
        text = lines.head() + lines.rows(row_labels, cell_rows)
        return _FittedTable(
            matrix,
            text.removesuffix("\n").split("\n"),
            lines.width + self.style.overhang(matrix),
            left_out,
            shows_statistics=len(statistics) == len(matrix.statistics),
            is_ranked=is_ranked,
        )


def _choose_columns(
    matrix: LabelledMatrix, available_width: int, widths: Sequence[int], ranking: Sequence[int]
) -> tuple[list[int | None], list[int]]:
    """Choose as many of the first, last and strongest columns as fit a width, with None for each gap, and the statistics.

    Both are indices among the cells of a row. Statistics are left out first, where not even two columns would fit beside
    them.

    Args:
        matrix: the table.
        available_width: for columns and statistics.
        widths: that the columns and statistics need.
        ranking: the columns from the strongest to the weakest, where some are stronger.
    """
    column_count = len(matrix.column_labels)

    def choose(max_shown: int) -> list[int | None]:
        return leading_trailing_and_strongest(column_count, max_shown, ranking, _COLUMNS_PER_STRONGEST)

    def needed_width(max_shown: int) -> int:
        """The width of so many columns: the more, the wider."""
        return sum(_COLUMN_GAP_SPACES + (1 if c is None else widths[c]) for c in choose(max_shown))

    for statistics in (list(range(column_count, len(widths))), list[int]()):
        available = available_width - sum(_COLUMN_GAP_SPACES + widths[c] for c in statistics)
        fitting = bisect_right(range(2, column_count + 1), available, key=needed_width)
        if fitting:
            return choose(fitting + 1), statistics
    return choose(2), []


def _cut_labels(matrix: LabelledMatrix, width: int) -> list[str]:
    """The labels of all columns, cut to what a terminal has room for, and the names of the statistics."""
    labels = [_shorten_label(label, width) for label in matrix.column_labels]
    return labels + [column.name for column in matrix.statistics]


def _shorten_label(text: str, width: int) -> str:
    """Cut a long label on a terminal."""
    max_width = min(_MAX_LABEL_WIDTH, max(6, width // 5 - 2))
    if cell_len(text) <= max_width:
        return text
    while cell_len(text) >= max_width:
        text = text[:-1]
    return text + "…"
