"""Rich tables: for a terminal elided to its width, for a pipe at their natural width with nothing left out."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from attncli.errors import join_names, printable
from attncli.output_formats import RenderOptions, output_format
from attncli.types import Attention
from attncli.views.console import console_for
from attncli.views.heat import SHADE_LEGEND, shade_colors, shade_glyph
from attncli.views.labelled import LabelledMatrix, StatisticColumn, labelled_matrices

_MAX_TERMINAL_ROWS = 40  # on a terminal, before the middle is left out
_COLUMN_GAP_SPACES = 3  # spaces between two columns
_MAX_LABEL_WIDTH = 18  # columns of the screen for one label on a terminal, and less on a narrow one


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
    """Items joined over as many lines as a terminal needs, never parted within one that fits."""
    lines: list[str] = []
    for item in items:
        if lines and (width is None or cell_len(lines[-1] + separator + item) <= width):
            lines[-1] += separator + item
        else:
            lines.append(item)
    return lines


def _print_matrix(console: Console, matrix: LabelledMatrix, render_options: RenderOptions) -> None:
    heading = Text(matrix.title, style="bold")
    if matrix.formula:
        heading.append(f"   {matrix.formula}", style="not bold")
    if matrix.remark:
        heading.append(f"   ({matrix.remark})", style="dim not bold")
    if matrix.name == "weights" and render_options.heat and not render_options.color:
        heading.append(f"   cells are shaded {SHADE_LEGEND}", style="dim not bold")
    console.print(heading, soft_wrap=not render_options.width)
    (columns, facts), rows = _visible_columns(matrix, render_options), _visible_rows(matrix, render_options)
    table = Table(
        box=box.SIMPLE_HEAD if render_options.has_unicode else box.ASCII2,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1),
        header_style="",
    )
    table.add_column(Text(matrix.corner_label, style="dim"), no_wrap=True)
    for c in columns:
        table.add_column(
            Text("…" if c is None else _shorten_label(matrix.column_labels[c], render_options)),
            justify="right",
            no_wrap=True,
        )
    for fact in facts:
        table.add_column(Text(fact.name, style="dim"), justify="right", no_wrap=True)
    heated = matrix.name == "weights" and render_options.heat
    for r in rows:
        if r is None:
            table.add_row("…", *("…" for _ in columns), *("…" for _ in facts))
            continue
        cells = [Text("…") if c is None else _styled_cell(matrix, r, c, render_options, heated) for c in columns]
        beside = [Text(fact.cells[r], style="dim") for fact in facts]
        table.add_row(Text(_shorten_label(matrix.row_labels[r], render_options)), *cells, *beside)
    console.print(table, soft_wrap=not render_options.width)
    left_out = [
        f"{len(all_of)} {what} ({sum(x is not None for x in some)} shown)"
        for what, all_of, some in (("columns", matrix.column_labels, columns), ("rows", matrix.row_labels, rows))
        if None in some
    ]
    if left_out:
        console.print(Text(f"{join_names(left_out)}; --full shows all, --at chooses", style="dim"))


def _styled_cell(matrix: LabelledMatrix, row: int, column: int, render_options: RenderOptions, shaded: bool) -> Text:
    text = matrix.cells[row][column]
    if not shaded:
        return Text(text, style="dim" if text in ("−∞", "·") else "")
    value = float(matrix.values[row, column])
    if render_options.color:
        back, front = shade_colors(value)
        return Text(text, style=Style(color=front, bgcolor=back))
    return Text(text + shade_glyph(value))


def _shorten_label(text: str, render_options: RenderOptions) -> str:
    """A label that fits; long ones are cut on a terminal only."""
    most = min(_MAX_LABEL_WIDTH, max(6, (render_options.width or 0) // 5 - 2))
    if not render_options.width or cell_len(text) <= most:
        return text
    cut = text
    while cell_len(cut) >= most:
        cut = cut[:-1]
    return cut + "…"


def _leading_and_trailing(length: int, max_shown: int) -> list[int | None]:
    """Indices of the first and last of n, with None for the gap between."""
    if length <= max_shown:
        return list(range(length))
    head = max(1, max_shown // 2)
    tail = max(1, max_shown - head)
    return [*range(head), None, *range(length - tail, length)]


def _visible_rows(matrix: LabelledMatrix, render_options: RenderOptions) -> list[int | None]:
    return _leading_and_trailing(
        len(matrix.row_labels), _MAX_TERMINAL_ROWS if render_options.width else len(matrix.row_labels)
    )


def _visible_columns(
    matrix: LabelledMatrix, render_options: RenderOptions
) -> tuple[list[int | None], tuple[StatisticColumn, ...]]:
    """As many of the first and last columns as stand on the terminal whole, with None for the gap between.

    The facts beside them go first where not even two columns would stand.
    """
    if not render_options.width:
        return list(range(len(matrix.column_labels))), matrix.statistics

    def widest_text(texts: Iterable[str]) -> int:
        return max(map(cell_len, texts), default=0)

    heat = 1 if render_options.heat and not render_options.color and matrix.name == "weights" else 0
    labels = widest_text([matrix.corner_label, *(_shorten_label(r, render_options) for r in matrix.row_labels)])
    needs = [
        _COLUMN_GAP_SPACES
        + max(cell_len(_shorten_label(name, render_options)), widest_text(row[c] for row in matrix.cells) + heat)
        for c, name in enumerate(matrix.column_labels)
    ]
    for facts in (matrix.statistics, ()):
        left = (
            render_options.width
            - labels
            - sum(_COLUMN_GAP_SPACES + widest_text([fact.name, *fact.cells]) for fact in facts)
        )
        for most in range(len(needs), 1, -1):
            chosen = _leading_and_trailing(len(needs), most)
            if sum(_COLUMN_GAP_SPACES + 1 if c is None else needs[c] for c in chosen) <= left:
                return chosen, facts
    return _leading_and_trailing(len(needs), 2), ()
