"""The catalogue as text: names, formulas and what they do, for `attn list`. `render_catalogue` is the entry.

On a terminal long lines fold below where they begin; in a pipe each member is one line.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from attncli.output_formats import RenderOptions
from attncli.types import Json
from attncli.views.console import console_for

_LEADING_KEYS = ("formula", "command", "values")  # the first of these that a member has stands first


def render_catalogue(catalogue: dict[str, Json], render_options: RenderOptions, *, detail: bool) -> str:
    """Family by family; with `detail` every option, parameter and source."""
    out = io.StringIO()
    console = console_for(out, render_options)
    for i, (family, members) in enumerate(catalogue.items()):
        if i:
            console.print()
        console.print(Text(family, style="bold"))
        width = max(map(len, members))
        for name, member in members.items():
            lines = list(_member_lines(member, detail=detail))
            if render_options.width:
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
    """A member's formula or command, its summary, and with `detail` everything else that is known of it."""
    head = next((member[key] for key in _LEADING_KEYS if key in member), member["summary"])
    yield Text(head)
    if member["summary"] != head:
        yield Text(member["summary"], style="dim")
    if not detail:
        return
    for key, value in member.items():
        if key in (*_LEADING_KEYS, "summary"):
            continue
        label, items = (key.removesuffix("s"), value) if isinstance(value, list) else (key.replace("_", " "), [value])
        for item in items:
            yield Text(f"{label}: ", style="dim").append(item, "not dim")
