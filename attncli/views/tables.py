"""A result as Rich tables: cut to the width of a terminal, or at their natural width with nothing left out."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from attncli.output_formats import RenderOptions, output_format
from attncli.text import join_names, printable
from attncli.types import Attention
from attncli.views.console import console_for
from attncli.views.heat import SHADE_LEGEND, shade_colors, shade_glyph
from attncli.views.labelled import LabelledMatrix, StatisticColumn, labelled_matrices

_MAX_TERMINAL_ROWS = 40  # rows on a terminal before the middle is left out
_COLUMN_GAP_SPACES = 3  # spaces between two columns
_MAX_LABEL_WIDTH = 18  # characters of one label on a terminal, fewer on a narrow one


@output_format("table", ".txt")
def write_table(attention: Attention, render_options: RenderOptions) -> str:
    """Every step that was kept, as tables."""
    out = io.StringIO()
    console = console_for(out, render_options)
    for line in wrap_items([printable(s) for s in attention.summary], " · ", render_options.width):
        console.print(Text(line, style="bold"), soft_wrap=True)
    console.print(
        Text("rows = query (looks), columns = key (is looked at)", style="dim"), soft_wrap=not render_options.width
    )
    for matrix in labelled_matrices(attention, render_options.precision):
        console.print()
        _print_matrix(console, matrix if render_options.has_unicode else matrix.with_ascii_symbols(), render_options)
    return out.getvalue()


def wrap_items(items: Sequence[str], separator: str, width: int | None) -> list[str]:
    """Join items into as many lines as a terminal needs; an item that fits a line is not split."""
    lines: list[str] = []
    for item in items:
        if lines and (width is None or cell_len(lines[-1] + separator + item) <= width):
            lines[-1] += separator + item
        else:
            lines.append(item)
    return lines


def _print_heading(console: Console, matrix: LabelledMatrix, render_options: RenderOptions) -> None:
    """What the table below holds: step, formula, remark."""
    heading = Text(matrix.title, style="bold")
    if matrix.formula:
        heading.append(f"   {matrix.formula}", style="not bold")
    if matrix.remark:
        heading.append(f"   ({matrix.remark})", style="dim not bold")
    if _is_shaded(matrix, render_options) and not render_options.color:
        heading.append(f"   cells are shaded {SHADE_LEGEND}", style="dim not bold")
    console.print(heading, soft_wrap=not render_options.width)


def _is_shaded(matrix: LabelledMatrix, render_options: RenderOptions) -> bool:
    """Whether the cells have a colour behind them, or a glyph beside them: only weights have."""
    return matrix.name == "weights" and render_options.heat


def _print_matrix(console: Console, matrix: LabelledMatrix, render_options: RenderOptions) -> None:
    """One table, with a line below it that says what was left out."""
    _print_heading(console, matrix, render_options)
    columns, statistics = _visible_columns(matrix, render_options)
    rows = _visible_rows(matrix, render_options)
    table = Table(
        box=box.SIMPLE_HEAD if render_options.has_unicode else box.ASCII2,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1),
        header_style="",
    )
    table.add_column(Text(matrix.corner_label, style="dim"), no_wrap=True)
    for c in columns:
        label = "…" if c is None else _shorten_label(matrix.column_labels[c], render_options)
        table.add_column(Text(label), justify="right", no_wrap=True)
    for statistic in statistics:
        table.add_column(Text(statistic.name, style="dim"), justify="right", no_wrap=True)
    for r in rows:
        if r is None:
            table.add_row("…", *("…" for _ in columns), *("…" for _ in statistics))
            continue
        row_label = Text(_shorten_label(matrix.row_labels[r], render_options))
        cells = [Text("…") if c is None else _styled_cell(matrix, r, c, render_options) for c in columns]
        table.add_row(row_label, *cells, *(Text(statistic.cells[r], style="dim") for statistic in statistics))
    console.print(table, soft_wrap=not render_options.width)
    counts = [_shown_count("columns", columns, matrix.column_labels), _shown_count("rows", rows, matrix.row_labels)]
    left_out = list(filter(None, counts))
    if left_out:
        console.print(Text(f"{join_names(left_out)}; --full shows all, --at chooses", style="dim"))


def _shown_count(noun: str, shown: Sequence[int | None], labels: Sequence[str]) -> str:
    """`300 rows (40 shown)`; empty if all are."""
    if None not in shown:
        return ""
    return f"{len(labels)} {noun} ({sum(index is not None for index in shown)} shown)"


def _styled_cell(matrix: LabelledMatrix, row: int, column: int, render_options: RenderOptions) -> Text:
    """A number, shaded by its size if it is a weight."""
    text = matrix.cells[row][column]
    if not _is_shaded(matrix, render_options):
        return Text(text, style="dim" if text in ("−∞", "·") else "")
    value = float(matrix.values[row, column])
    if render_options.color:
        background, foreground = shade_colors(value)
        return Text(text, style=Style(color=foreground, bgcolor=background))
    return Text(text + shade_glyph(value))


def _shorten_label(text: str, render_options: RenderOptions) -> str:
    """Cut a long label on a terminal; elsewhere it stays whole."""
    max_width = min(_MAX_LABEL_WIDTH, max(6, (render_options.width or 0) // 5 - 2))
    if not render_options.width or cell_len(text) <= max_width:
        return text
    while cell_len(text) >= max_width:
        text = text[:-1]
    return text + "…"


def _leading_and_trailing(length: int, max_shown: int) -> list[int | None]:
    """Indices of the first and last of so many, with None for the gap between."""
    if length <= max_shown:
        return list(range(length))
    leading_count = max(1, max_shown // 2)
    trailing_count = max(1, max_shown - leading_count)
    return [*range(leading_count), None, *range(length - trailing_count, length)]


def _visible_rows(matrix: LabelledMatrix, render_options: RenderOptions) -> list[int | None]:
    """The rows that are shown, with None for a gap."""
    row_count = len(matrix.row_labels)
    return _leading_and_trailing(row_count, _MAX_TERMINAL_ROWS if render_options.width else row_count)


def _visible_columns(
    matrix: LabelledMatrix, render_options: RenderOptions
) -> tuple[list[int | None], tuple[StatisticColumn, ...]]:
    """As many of the first and last columns as fit the terminal, with None for the gap between, and the statistics.

    Statistics are left out first, where not even two columns would fit beside them.
    """
    column_count = len(matrix.column_labels)
    if not render_options.width:
        return list(range(column_count)), matrix.statistics
    row_labels = [_shorten_label(label, render_options) for label in matrix.row_labels]
    label_width = _widest([matrix.corner_label, *row_labels])
    glyph_width = 1 if _is_shaded(matrix, render_options) and not render_options.color else 0
    column_widths = []
    for c, label in enumerate(matrix.column_labels):
        cell_width = _widest(row[c] for row in matrix.cells) + glyph_width
        label_cells = cell_len(_shorten_label(label, render_options))
        column_widths.append(_COLUMN_GAP_SPACES + max(label_cells, cell_width))
    for statistics in (matrix.statistics, ()):
        statistic_widths = [_COLUMN_GAP_SPACES + _widest([column.name, *column.cells]) for column in statistics]
        available = render_options.width - label_width - sum(statistic_widths)
        for max_shown in range(column_count, 1, -1):
            shown = _leading_and_trailing(column_count, max_shown)
            if sum(_COLUMN_GAP_SPACES + 1 if c is None else column_widths[c] for c in shown) <= available:
                return shown, statistics
    return _leading_and_trailing(column_count, 2), ()


def _widest(texts: Iterable[str]) -> int:
    """The width of the widest text on a terminal."""
    return max(map(cell_len, texts), default=0)
