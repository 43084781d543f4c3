"""Draw the documentation's pictures: real output of attn, as SVG, through Rich.

`python -m tests.docs` writes `docs/assets/*.svg`. The pictures bring their own dark background and use
the reader's monospace font, so that they read alike on light and dark pages and load nothing from elsewhere.
"""

from __future__ import annotations

import html
import io
import re

PICTURES = {  # file in docs/assets → the command whose output it shows
    "compute.svg": "attn compute sample_inputs/journey_self_attention.json --causal --only weights,context --heat on"
}
TERMINAL = "TERM=xterm-256color COLORTERM=truecolor"
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def svg(command: str, output: str) -> str:
    """A terminal window with a command and its coloured output."""
    from rich.console import Console
    from rich.terminal_theme import TerminalTheme
    from rich.text import Text

    theme = TerminalTheme(
        (27, 31, 40),
        (216, 222, 233),
        [(59, 66, 82), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194), (216, 222, 233)],
        [(127, 138, 158), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194), (255, 255, 255)],
    )  # fmt: skip
    text = Text.assemble(("$ ", "green"), (command, "bold"), "\n", Text.from_ansi(output.rstrip("\n")))
    width = max(line.cell_len for line in text.split("\n"))
    console = Console(record=True, width=width + 1, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    console.print(text, no_wrap=True, crop=False, highlight=False)
    drawn = console.export_svg(title="attn", theme=theme, unique_id="attn")
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)  # nothing is loaded from elsewhere
    return drawn.replace("Fira Code, monospace", _FONT)


def texts(drawn: str) -> list[str]:
    """The texts of a picture, line by line."""
    return [html.unescape(text) for text in re.findall(r"<text [^>]*>([^<]*)</text>", drawn)]
