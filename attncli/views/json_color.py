"""JSON in colour, for a terminal."""

from __future__ import annotations

import io

from rich.highlighter import JSONHighlighter
from rich.text import Text

from attncli.output_formats import RenderOptions
from attncli.views.console import console_for


def colorize_json(text: str) -> str:
    """The same text with colours: keys, strings, numbers."""
    out = io.StringIO()
    coloured = Text(text, end="")
    JSONHighlighter().highlight(coloured)
    console_for(out, RenderOptions(color=True)).print(coloured, soft_wrap=True, end="")
    return out.getvalue()
