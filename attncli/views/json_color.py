"""JSON in colour for a terminal: `colorize_json`."""

from __future__ import annotations

import io

from rich.highlighter import JSONHighlighter
from rich.text import Text

from attncli.output_formats import RenderOptions
from attncli.views.console import console_for


def colorize_json(text: str) -> str:
    """Add colours to keys, strings and numbers; the text stays."""
    out = io.StringIO()
    colored_text = Text(text, end="")
    JSONHighlighter().highlight(colored_text)
    console_for(out, RenderOptions(color=True)).print(colored_text, soft_wrap=True, end="")
    return out.getvalue()
