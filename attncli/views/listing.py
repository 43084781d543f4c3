"""The catalogue as text: names, formulas, what they do. On a terminal beside each other, in a pipe a member a line."""

from __future__ import annotations

import io
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from attncli.output_formats import RenderOptions
from attncli.types import Json
from attncli.views.console import console_for

_LEADING_KEYS = ("formula", "command", "values")  # what stands first, whichever a member has


def render_catalogue(catalogue: dict[str, Json], render_options: RenderOptions, *, detail: bool) -> str:
    """Family by family; with `detail` every option, parameter and source."""
    out = io.StringIO()
    console = console_for(out, render_options)
    for i, (family, members) in enumerate(catalogue.items()):
        if i:
            console.print()
        console.print(Text(family, style="bold"))
        width = max(map(len, members))
        for name, said in members.items():
            lines = list(_member_lines(said, detail=detail))
            if render_options.width:  # long lines fold below where they begin
                table = Table.grid(padding=(0, 2, 0, 0))
                table.add_column(width=width + 2, no_wrap=True)
                table.add_column(overflow="fold")
                table.add_row(Text(f"  {name}", style="cyan"), Text("\n").join(lines))
                console.print(table)
            elif detail:
                for n, line in enumerate(lines):
                    console.print(Text(f"  {name if n == 0 else '':<{width}}  ").append(line), soft_wrap=True)
            else:
                console.print(Text(f"  {name:<{width}}  ").append(Text("  ").join(lines)), soft_wrap=True)
    return out.getvalue()


def _member_lines(member: Json, *, detail: bool) -> Iterator[Text]:
    head = next((member[key] for key in _LEADING_KEYS if key in member), member["summary"])
    yield Text(head)
    if member["summary"] != head:
        yield Text(member["summary"], style="dim")
    for key, value in member.items():
        if not detail or key in (*_LEADING_KEYS, "summary"):
            continue
        for item in value if isinstance(value, list) else [value]:
            yield Text(f"{key.removesuffix('s') if isinstance(value, list) else key}: ", style="dim").append(
                item, "not dim"
            )
