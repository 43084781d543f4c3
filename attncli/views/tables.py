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

from attncli.errors import listed, printable
from attncli.output_formats import Look, output_format
from attncli.types import Attention
from attncli.views.console import console_for
from attncli.views.heat import LEGEND, glyph, shade
from attncli.views.labelled import Column, Matrix, matrices

_MOST_ROWS = 40  # on a terminal, before the middle is left out
_GAP = 3  # spaces between two columns
_LONGEST = 18  # columns of the screen for one label on a terminal, and less on a narrow one


@output_format("table", ".txt")
def write_table(attention: Attention, look: Look) -> str:
    """Every step that was kept, as tables."""
    out = io.StringIO()
    console = console_for(out, look)
    for line in wrapped([printable(s) for s in attention.summary], " · ", look.width):
        console.print(Text(line, style="bold"), soft_wrap=True)
    console.print(Text("rows = query (looks), columns = key (is looked at)", style="dim"), soft_wrap=not look.width)
    for matrix in matrices(attention, look.precision):
        console.print()
        _show(console, matrix if look.unicode else matrix.in_ascii(), look)
    return out.getvalue()


def wrapped(items: Sequence[str], between: str, width: int | None) -> list[str]:
    """Items joined over as many lines as a terminal needs, never parted within one that fits."""
    lines: list[str] = []
    for item in items:
        if lines and (width is None or cell_len(lines[-1] + between + item) <= width):
            lines[-1] += between + item
        else:
            lines.append(item)
    return lines


def _show(console: Console, matrix: Matrix, look: Look) -> None:
    heading = Text(matrix.title, style="bold")
    if matrix.formula:
        heading.append(f"   {matrix.formula}", style="not bold")
    if matrix.remark:
        heading.append(f"   ({matrix.remark})", style="dim not bold")
    if matrix.name == "weights" and look.heat and not look.color:
        heading.append(f"   cells are shaded {LEGEND}", style="dim not bold")
    console.print(heading, soft_wrap=not look.width)
    (columns, facts), rows = _visible_columns(matrix, look), _visible_rows(matrix, look)
    table = Table(
        box=box.SIMPLE_HEAD if look.unicode else box.ASCII2,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1),
        header_style="",
    )
    table.add_column(Text(matrix.corner, style="dim"), no_wrap=True)
    for c in columns:
        table.add_column(Text("…" if c is None else _short(matrix.columns[c], look)), justify="right", no_wrap=True)
    for fact in facts:
        table.add_column(Text(fact.name, style="dim"), justify="right", no_wrap=True)
    heated = matrix.name == "weights" and look.heat
    for r in rows:
        if r is None:
            table.add_row("…", *("…" for _ in columns), *("…" for _ in facts))
            continue
        cells = [Text("…") if c is None else _cell(matrix, r, c, look, heated) for c in columns]
        beside = [Text(fact.cells[r], style="dim") for fact in facts]
        table.add_row(Text(_short(matrix.rows[r], look)), *cells, *beside)
    console.print(table, soft_wrap=not look.width)
    left_out = [
        f"{len(all_of)} {what} ({sum(x is not None for x in some)} shown)"
        for what, all_of, some in (("columns", matrix.columns, columns), ("rows", matrix.rows, rows))
        if None in some
    ]
    if left_out:
        console.print(Text(f"{listed(left_out)}; --full shows all, --at chooses", style="dim"))


def _cell(matrix: Matrix, r: int, c: int, look: Look, heated: bool) -> Text:
    text = matrix.cells[r][c]
    if not heated:
        return Text(text, style="dim" if text in ("−∞", "·") else "")
    value = float(matrix.values[r, c])
    if look.color:
        back, front = shade(value)
        return Text(text, style=Style(color=front, bgcolor=back))
    return Text(text + glyph(value))


def _short(text: str, look: Look) -> str:
    """A label that fits; long ones are cut on a terminal only."""
    most = min(_LONGEST, max(6, (look.width or 0) // 5 - 2))
    if not look.width or cell_len(text) <= most:
        return text
    cut = text
    while cell_len(cut) >= most:
        cut = cut[:-1]
    return cut + "…"


def _ends(n: int, most: int) -> list[int | None]:
    """Indices of the first and last of n, with None for the gap between."""
    if n <= most:
        return list(range(n))
    head = max(1, most // 2)
    tail = max(1, most - head)
    return [*range(head), None, *range(n - tail, n)]


def _visible_rows(matrix: Matrix, look: Look) -> list[int | None]:
    return _ends(len(matrix.rows), _MOST_ROWS if look.width else len(matrix.rows))


def _visible_columns(matrix: Matrix, look: Look) -> tuple[list[int | None], tuple[Column, ...]]:
    """As many of the first and last columns as stand on the terminal whole, with None for the gap between.

    The facts beside them go first where not even two columns would stand.
    """
    if not look.width:
        return list(range(len(matrix.columns))), matrix.facts

    def widest(texts: Iterable[str]) -> int:
        return max(map(cell_len, texts), default=0)

    heat = 1 if look.heat and not look.color and matrix.name == "weights" else 0
    labels = widest([matrix.corner, *(_short(r, look) for r in matrix.rows)])
    needs = [
        _GAP + max(cell_len(_short(name, look)), widest(row[c] for row in matrix.cells) + heat)
        for c, name in enumerate(matrix.columns)
    ]
    for facts in (matrix.facts, ()):
        left = look.width - labels - sum(_GAP + widest([fact.name, *fact.cells]) for fact in facts)
        for most in range(len(needs), 1, -1):
            chosen = _ends(len(needs), most)
            if sum(_GAP + 1 if c is None else needs[c] for c in chosen) <= left:
                return chosen, facts
    return _ends(len(needs), 2), ()
