"""A result as Rich tables: cut to the width of a terminal, or at their natural width with nothing left out."""

from __future__ import annotations

from collections.abc import Iterator

from attncli.output_formats import RenderOptions, output_format
from attncli.types import Attention


@output_format("table", ".txt", shape_options=("heat", "normalize"))
def write_table(attention: Attention, render_options: RenderOptions) -> Iterator[str]:
    """Every step that was kept, as tables, piece by piece."""
    # Here, not above: a command looks this format up before it reads its input, and most inputs that are refused are refused then.
    import io
    from dataclasses import replace

    from rich.text import Text

    from attncli.text import printable
    from attncli.views.console import console_for
    from attncli.views.pipe_tables import print_whole_tables
    from attncli.views.table_order import ResultTables
    from attncli.views.table_style import TableStyle, wrap_items
    from attncli.views.terminal_tables import print_fitted_tables

    out = io.StringIO()

    def take_text() -> str:
        """What was printed since it was last taken."""
        text = out.getvalue()
        out.seek(0)
        out.truncate()
        return text

    style = TableStyle(console_for(out, render_options), render_options)
    for line in wrap_items([printable(s) for s in attention.summary], " · ", render_options.width):
        style.console.print(Text(line, style="bold"), soft_wrap=True)
    style.print_note(["rows = query (looks), columns = key (is looked at)"])
    tables = ResultTables(attention, render_options.precision)
    if render_options.heat == "map":
        from attncli.views.heat_map import is_drawable, print_heat_maps

        drawn = [step for step in tables.steps if is_drawable(step)]
        for _ in print_heat_maps(tables, drawn, style, render_options):
            yield take_text()
        names = {step.step.name for step in drawn}
        others = tuple(step.step for step in tables.steps if step.step.name not in names)
        if not others:
            return
        tables = ResultTables(replace(attention, steps=others), render_options.precision)
    if render_options.width:
        for _ in print_fitted_tables(tables, style, render_options.width):
            yield take_text()
    else:
        for lines in print_whole_tables(tables, style, has_unicode=render_options.has_unicode):
            yield take_text() + lines
    yield take_text()
