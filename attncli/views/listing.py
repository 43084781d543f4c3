"""The catalogue as text: names, formulas, what they do."""

from __future__ import annotations

import io
from typing import Any

from rich.text import Text

from attncli.formats import Look
from attncli.views.console import console_for


def listing(catalogue: dict[str, dict[str, Any]], look: Look, *, detail: bool) -> str:
    """Family by family; with `detail` every option, parameter and source."""
    out = io.StringIO()
    console = console_for(out, look)
    for i, (family, members) in enumerate(catalogue.items()):
        if i:
            console.print()
        console.print(Text(family, style="bold"))
        width = max(map(len, members))
        for name, said in members.items():
            head = said.get("formula") or said.get("command") or said.get("values") or said["summary"]
            line = Text("  ").append(f"{name:<{width}}", style="cyan").append(f"  {head}")
            if not detail and not said.get("command") and said["summary"] != head:
                line.append("  " + said["summary"], style="dim")
            console.print(line, soft_wrap=not look.width)
            if detail:
                for key, value in said.items():
                    if key in ("formula", "command", "values") or value == head:
                        continue
                    for item in value if isinstance(value, list) else [value]:
                        tag = (
                            "" if key == "summary" else f"{key.removesuffix('s') if isinstance(value, list) else key}: "
                        )
                        console.print(
                            Text(" " * (width + 4) + tag, style="dim").append(item, style="not dim"),
                            soft_wrap=not look.width,
                        )
    return out.getvalue()
