"""The catalogue as text: names, formulas, what they do. On a terminal beside each other, in a pipe a member a line."""

from __future__ import annotations

import io
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from attncli.output_formats import Look
from attncli.types import Json
from attncli.views.console import console_for

_HEAD = ("formula", "command", "values")  # what stands first, whichever a member has


def listing(catalogue: dict[str, Json], look: Look, *, detail: bool) -> str:
    """Family by family; with `detail` every option, parameter and source."""
    out = io.StringIO()
    console = console_for(out, look)
    for i, (family, members) in enumerate(catalogue.items()):
        if i:
            console.print()
        console.print(Text(family, style="bold"))
        width = max(map(len, members))
        for name, said in members.items():
            lines = list(_lines(said, detail=detail))
            if look.width:  # long lines fold below where they begin
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


def _lines(said: Json, *, detail: bool) -> Iterator[Text]:
    head = next((said[key] for key in _HEAD if key in said), said["summary"])
    yield Text(head)
    if said["summary"] != head:
        yield Text(said["summary"], style="dim")
    for key, value in said.items():
        if not detail or key in (*_HEAD, "summary"):
            continue
        for item in value if isinstance(value, list) else [value]:
            yield Text(f"{key.removesuffix('s') if isinstance(value, list) else key}: ", style="dim").append(
                item, "not dim"
            )
