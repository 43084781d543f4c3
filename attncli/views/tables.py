"""A result as Rich tables: cut to the width of a terminal, or at their natural width with nothing left out."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from operator import add

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
from attncli.views.labelled import LabelledMatrix, labelled_matrices

_MAX_TERMINAL_ROWS = 40  # rows on a terminal before the middle is left out
_COLUMN_GAP_SPACES = 3  # spaces between two columns
_MAX_LABEL_WIDTH = 18  # characters of one label on a terminal, fewer on a narrow one


@output_format("table", ".txt")
def write_table(attention: Attention, render_options: RenderOptions) -> Iterator[str]:
    """Every step that was kept, as tables, piece by piece."""
    out = io.StringIO()
    console = console_for(out, render_options)
    for line in wrap_items([printable(s) for s in attention.summary], " · ", render_options.width):
        console.print(Text(line, style="bold"), soft_wrap=True)
    console.print(
        Text("rows = query (looks), columns = key (is looked at)", style="dim"), soft_wrap=not render_options.width
    )
    for labelled in labelled_matrices(attention, render_options.precision):
        matrix = labelled if render_options.has_unicode else labelled.with_ascii_symbols()
        console.print()
        _print_heading(console, matrix, render_options)
        if render_options.width:
            _print_fitted_matrix(console, matrix, render_options)
        yield _take_text(out)
        if not render_options.width:
            yield from _format_whole_matrix(console, matrix, render_options)
    yield _take_text(out)


def _take_text(out: io.StringIO) -> str:
    """What was printed since it was last taken."""
    text = out.getvalue()
    out.seek(0)
    out.truncate()
    return text


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


def _print_fitted_matrix(console: Console, matrix: LabelledMatrix, render_options: RenderOptions) -> None:
    """One table, cut to the width of a terminal, with a line below it that says what was left out."""
    columns, statistics = _visible_columns(matrix, render_options)
    rows = _visible_rows(matrix)
    table = Table(box=_choose_box(render_options), pad_edge=False, show_edge=False, padding=(0, 1), header_style="")
    table.add_column(Text(matrix.corner_label, style="dim"), no_wrap=True)
    for c in columns:
        label = "…" if c is None else _shorten_label(matrix.column_labels[c], render_options)
        table.add_column(Text(label), justify="right", no_wrap=True)
    for c in statistics:
        table.add_column(Text(matrix.cell_labels[c], style="dim"), justify="right", no_wrap=True)
    for r in rows:
        if r is None:
            table.add_row("…", *("…" for _ in columns), *("…" for _ in statistics))
            continue
        row_label = Text(_shorten_label(matrix.row_labels[r], render_options))
        [[texts, styles]] = _styled_rows(matrix, r, matrix.format_rows(r, r + 1), render_options)
        cells = [Text("…") if c is None else Text(texts[c], style=styles[c]) for c in (*columns, *statistics)]
        table.add_row(row_label, *cells)
    console.print(table)
    counts = [_shown_count("columns", columns, matrix.column_labels), _shown_count("rows", rows, matrix.row_labels)]
    left_out = list(filter(None, counts))
    if left_out:
        console.print(Text(f"{join_names(left_out)}; --full shows all, --at chooses", style="dim"))


def _format_whole_matrix(console: Console, matrix: LabelledMatrix, render_options: RenderOptions) -> Iterator[str]:
    """One table at its natural width, nothing left out, a page of rows at a time.

    Its lines are those of a Rich table, which would take a hundred times as long: it measures, wraps and cuts each cell.
    """
    frame = _choose_box(render_options)
    label_width = _widest([matrix.corner_label, *matrix.row_labels])
    widths = _column_widths(matrix, matrix.cell_labels, render_options)
    statistics_from = len(matrix.column_labels)
    divider = f" {frame.head_vertical} "
    paint = _painter(console)

    def join_cells(label: str, cells: Iterable[str]) -> str:
        return divider.join((label, *cells)) + "\n"

    head_styles = ["" if c < statistics_from else "dim" for c in range(len(widths))]
    head_cells = map(_pad_left, matrix.cell_labels, widths)
    head = join_cells(paint(_pad_right(matrix.corner_label, label_width), "dim"), map(paint, head_cells, head_styles))
    padded_widths = [label_width + 1, *(width + 2 for width in widths[:-1]), *(width + 1 for width in widths[-1:])]
    yield head + frame.get_row(padded_widths, "head", edge=False) + "\n"
    is_plain = not render_options.color and not _is_shaded(matrix, render_options)
    pad = str.rjust if is_plain and matrix.cell_format.is_narrow else _pad_left
    for first, rows in matrix.pages():
        labels = [_pad_right(label, label_width) for label in matrix.row_labels[first : first + len(rows)]]
        if is_plain:
            lines = [join_cells(label, map(pad, cells, widths)) for label, cells in zip(labels, rows, strict=True)]
        else:
            styled_rows = _styled_rows(matrix, first, rows, render_options)
            lines = [
                join_cells(label, map(paint, map(pad, cells, widths), styles))
                for label, (cells, styles) in zip(labels, styled_rows, strict=True)
            ]
        yield "".join(lines)


def _choose_box(render_options: RenderOptions) -> box.Box:
    """The lines between the cells of a table."""
    return box.SIMPLE_HEAD if render_options.has_unicode else box.ASCII2


def _pad_right(text: str, width: int) -> str:
    """Fill a text up to so many columns of a terminal, as a label is."""
    return text + " " * (width - cell_len(text))


def _pad_left(text: str, width: int) -> str:
    """Put a text at the right of so many columns of a terminal; spaces at its own end would move it from there."""
    text = text.rstrip()
    return " " * (width - cell_len(text)) + text


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


def _shown_count(noun: str, shown: Sequence[int | None], labels: Sequence[str]) -> str:
    """`300 rows (40 shown)`; empty if all are."""
    if None not in shown:
        return ""
    return f"{len(labels)} {noun} ({sum(index is not None for index in shown)} shown)"


def _styled_rows(
    matrix: LabelledMatrix, first: int, rows: list[list[str]], render_options: RenderOptions
) -> Iterator[tuple[list[str], list[str | Style]]]:
    """The cells of rows, from the first of so many, each with its style; weights are shaded by their size."""
    column_count = len(matrix.column_labels)
    statistic_styles: list[str | Style] = ["dim"] * len(matrix.statistics)
    for r, cells in enumerate(rows, first):
        if not _is_shaded(matrix, render_options):
            styles: list[str | Style] = ["dim" if text in ("−∞", "·") else "" for text in cells[:column_count]]
            yield cells, styles + statistic_styles
        elif render_options.color:
            yield cells, [*map(_shade_style, matrix.values[r].tolist()), *statistic_styles]
        else:
            shaded = map(add, cells, map(shade_glyph, matrix.values[r].tolist()))
            yield [*shaded, *cells[column_count:]], ["" for _ in cells]


def _shade_style(weight: float) -> Style:
    """The colours of a weight, and of the digits on it."""
    background, foreground = shade_colors(weight)
    return Style(color=foreground, bgcolor=background)


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


def _visible_rows(matrix: LabelledMatrix) -> list[int | None]:
    """The rows that a terminal shows, with None for a gap."""
    return _leading_and_trailing(len(matrix.row_labels), _MAX_TERMINAL_ROWS)


def _visible_columns(matrix: LabelledMatrix, render_options: RenderOptions) -> tuple[list[int | None], list[int]]:
    """As many of the first and last columns as fit the terminal, with None for the gap between, and the statistics.

    Both are indices among the cells of a row. Statistics are left out first, where not even two columns would fit beside
    them.
    """
    column_count = len(matrix.column_labels)
    row_labels = [_shorten_label(label, render_options) for label in matrix.row_labels]
    label_width = _widest([matrix.corner_label, *row_labels])
    labels = [_shorten_label(label, render_options) for label in matrix.column_labels]
    labels += [column.name for column in matrix.statistics]
    widths = [_COLUMN_GAP_SPACES + width for width in _column_widths(matrix, labels, render_options)]

    def needed_width(max_shown: int) -> int:
        """The width of so many columns: the more, the wider."""
        shown = _leading_and_trailing(column_count, max_shown)
        return sum(_COLUMN_GAP_SPACES + 1 if c is None else widths[c] for c in shown)

    for statistics in (list(range(column_count, len(widths))), list[int]()):
        available = (render_options.width or 0) - label_width - sum(widths[c] for c in statistics)
        fitting = bisect_right(range(2, column_count + 1), available, key=needed_width)
        if fitting:
            return _leading_and_trailing(column_count, fitting + 1), statistics
    return _leading_and_trailing(column_count, 2), []


def _column_widths(matrix: LabelledMatrix, labels: Sequence[str], render_options: RenderOptions) -> list[int]:
    """The width that each column needs, of the matrix and of its statistics, below labels that may have been shortened."""
    measure = len if matrix.cell_format.is_narrow else cell_len
    widths = [0] * len(labels)
    for _, rows in matrix.pages():
        widths = [
            max(width, *map(measure, cells)) for width, cells in zip(widths, zip(*rows, strict=True), strict=True)
        ]
    if _is_shaded(matrix, render_options) and not render_options.color:
        column_count = len(matrix.column_labels)
        widths = [width + 1 if c < column_count else width for c, width in enumerate(widths)]  # for the glyph
    return [max(width, cell_len(label)) for width, label in zip(widths, labels, strict=True)]


def _widest(texts: Iterable[str]) -> int:
    """The width of the widest text on a terminal."""
    return max(map(cell_len, texts), default=0)
