"""A result on a terminal: tables cut to its width, and to a page that can be read. Entry: `print_fitted_tables`.

Of many rows, columns, heads and batch items the first and last are shown. Narrow tables of two heads stand side by side.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from attncli.text import join_names
from attncli.views.arrangement import ResultTables, Slice
from attncli.views.labelled import LabelledMatrix
from attncli.views.table_style import StyledCell, TableStyle, pad_left, widest

_PAGE_LINES = 150  # lines of a page that may be long: what is shown of rows, heads and items is chosen for them
_LINES_BESIDE_ROWS = 4  # of a table: a blank one, the heading, labels, a rule
_COLUMN_GAP_SPACES = 3  # spaces between two columns
_MAX_LABEL_WIDTH = 18  # characters of one label on a terminal, fewer on a narrow one
_MIN_PAIR_WIDTH = 120  # columns of a terminal on which tables of two heads stand side by side
_PAIR_GAP = 4  # columns between them


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
    shown_items = [items[i] for i in _leading_and_trailing(len(items), extent.items) if i is not None]
    shown_heads = [head for head in _leading_and_trailing(len(tables.heads), extent.heads) if head is not None]
    left_out = [
        *_count_shown("batch items", len(items), len(shown_items)),
        *_count_shown("heads", len(tables.heads), len(shown_heads)),
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
        rows = min(step.row_count, extent.rows + 2)  # a gap between them, and what was left out
        lines += count * (rows + _LINES_BESIDE_ROWS)
    return lines


def _leading_and_trailing(length: int, max_shown: int) -> list[int | None]:
    """Indices of the first and last of so many, with None for the gap between."""
    if length <= max_shown:
        return list(range(length))
    leading_count = max(1, max_shown // 2)
    trailing_count = max_shown - leading_count
    return [*range(leading_count), None, *range(length - trailing_count, length)]


def _count_shown(noun: str, count: int, shown: int) -> list[str]:
    """`300 rows (40 shown)`; nothing if all are."""
    return [f"{count} {noun} ({shown} shown)"] if shown < count else []


# ── two heads side by side ───────────────────────────────────────────────────────────────────────
def _may_be_paired(one: Slice, other: Slice) -> bool:
    """Whether two tables are of two heads of one batch item."""
    return one.head is not None and other.head is not None and one.item == other.item


@dataclass(frozen=True)
class _FittedTable:
    """One table, cut to a width."""

    matrix: LabelledMatrix
    table: Table
    left_out: list[str]  # what is not shown of it
    shows_statistics: bool


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
        self.style.console.print(fitted.table)
        self._print_left_out(fitted)

    def print_pair(self, first: LabelledMatrix, second: LabelledMatrix) -> None:
        """Print two tables that fit whole side by side, below one heading."""
        fitted = [self._fit(matrix, self._half_width) for matrix in (first, second)]
        self.style.console.print()
        self.style.print_heading(first, f"{first.title} and {second.slice_label.rpartition(' · ')[2]}")
        self._print_statistics_legend(fitted[0])
        grid = Table.grid(padding=(0, _PAIR_GAP, 0, 0))
        grid.add_row(*(one.table for one in fitted))
        self.style.console.print(grid)
        self._print_left_out(fitted[0])

    @property
    def _half_width(self) -> int:
        return (self.width - _PAIR_GAP) // 2

    def _fits_whole(self, matrix: LabelledMatrix, width: int) -> bool:
        """Whether no column and no statistic of a table is left out at a width."""
        columns, statistics = _choose_columns(matrix, width, self._column_widths(matrix, width))
        return None not in columns and len(statistics) == len(matrix.statistics)

    def _column_widths(self, matrix: LabelledMatrix, width: int) -> list[int]:
        return self.style.column_widths(matrix, _cut_labels(matrix, width))

    def _print_statistics_legend(self, fitted: _FittedTable) -> None:
        legend = fitted.matrix.statistics_legend if fitted.shows_statistics else []
        if legend and legend != self._told_statistics:
            self.style.print_note(legend)
            self._told_statistics = legend

    def _print_left_out(self, fitted: _FittedTable) -> None:
        if fitted.left_out and fitted.left_out != self._told_left_out:
            self.style.print_note([f"{join_names(fitted.left_out)}; --full shows all, --at chooses"])
        self._told_left_out = fitted.left_out

    def _fit(self, matrix: LabelledMatrix, width: int) -> _FittedTable:
        """Cut one table to a width, and to the rows of the page."""
        labels, widths = _cut_labels(matrix, width), self._column_widths(matrix, width)
        columns, statistics = _choose_columns(matrix, width, widths)
        rows = _leading_and_trailing(len(matrix.row_labels), self.max_rows)
        shading = self.style.shading(matrix)
        glyph_style = shading.glyph_style if shading else ""
        table = Table(box=self.style.box, pad_edge=False, show_edge=False, padding=(0, 1), header_style="")
        table.add_column(Text(matrix.corner_label, style="dim"), no_wrap=True)
        for c in columns:
            table.add_column(Text("…" if c is None else labels[c]), justify="right", no_wrap=True)
        for c in statistics:
            table.add_column(Text(labels[c], style="dim"), justify="right", no_wrap=True)
        for r in rows:
            if r is None:
                table.add_row("…", *("…" for _ in columns), *("…" for _ in statistics))
                continue
            [cells] = self.style.style_rows(matrix, r, matrix.format_rows(r, r + 1))
            texts = [
                Text("…") if c is None else _cell_text(cells[c], widths[c], glyph_style)
                for c in (*columns, *statistics)
            ]
            table.add_row(Text(_shorten_label(matrix.row_labels[r], width)), *texts)
        left_out = [
            *_count_shown("columns", len(matrix.column_labels), sum(c is not None for c in columns)),
            *_count_shown("rows", len(matrix.row_labels), sum(r is not None for r in rows)),
        ]
        return _FittedTable(matrix, table, left_out, len(statistics) == len(matrix.statistics))


def _choose_columns(matrix: LabelledMatrix, width: int, widths: Sequence[int]) -> tuple[list[int | None], list[int]]:
    """Choose as many of the first and last columns as fit a width, with None for the gap between, and the statistics.

    Both are indices among the cells of a row. Statistics are left out first, where not even two columns would fit beside
    them.

    Args:
        matrix: the table.
        width: that it may have.
        widths: that the columns and statistics need.
    """
    column_count = len(matrix.column_labels)
    row_labels = [_shorten_label(label, width) for label in matrix.row_labels]
    label_width = widest([matrix.corner_label, *row_labels])

    def needed_width(max_shown: int) -> int:
        """The width of so many columns: the more, the wider."""
        shown = _leading_and_trailing(column_count, max_shown)
        return sum(_COLUMN_GAP_SPACES + (1 if c is None else widths[c]) for c in shown)

    for statistics in (list(range(column_count, len(widths))), list[int]()):
        available = width - label_width - sum(_COLUMN_GAP_SPACES + widths[c] for c in statistics)
        fitting = bisect_right(range(2, column_count + 1), available, key=needed_width)
        if fitting:
            return _leading_and_trailing(column_count, fitting + 1), statistics
    return _leading_and_trailing(column_count, 2), []


def _cell_text(cell: StyledCell, width: int, glyph_style: str) -> Text:
    """One cell for Rich, which would drop a space at the end of what it puts at the right, and with it a blank glyph."""
    if not cell.glyph:
        return Text(cell.text, style=cell.style)
    text = Text(pad_left(cell.text, width - len(cell.glyph)), style=cell.style, justify="left")
    return text.append(cell.glyph, glyph_style)


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
