"""Draw the terminal of the README: real output of attn, as SVG, through Rich. `python -m tests.pictures.terminal` writes `docs/images/`.

The picture brings its own dark background and uses the reader's monospace font, so that it reads alike on light and dark
pages and loads nothing from elsewhere.
"""

from __future__ import annotations

import html
import io
import os
import re
import shlex
import tempfile
from pathlib import Path
from unittest.mock import patch

from attncli.cli import main
from attncli.cli.environment import Environment
from tests.helpers import ROOT, draw_normal

IMAGES = ROOT / "docs" / "images"
PICTURES = {  # file in docs/images → the commands whose output it shows, one below the other
    "terminal.svg": (
        "attn compute six.json --causal --only weights",
        "attn compute long.csv --projection linear:dim=24 --seed 6 --heads 3 --causal --alibi --heat map",
    )
}
_COLUMNS = 104
_VARIABLES = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_LONG_TOKEN_COUNT = 28


class _Terminal(io.StringIO):
    """A stream that is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def run_in_terminal(command: str, folder: Path) -> str:
    """Run a command in this process, from a folder, and return what a terminal gets."""
    program, *words = shlex.split(command)
    assert program == "attn"
    stdout = _Terminal()
    environment = Environment(io.StringIO(), stdout, io.StringIO(), variables=_VARIABLES, columns=_COLUMNS)
    before = Path.cwd()
    os.chdir(folder)
    try:
        with patch.dict(os.environ, _VARIABLES):
            assert main(words, environment) == 0
    finally:
        os.chdir(before)
    return stdout.getvalue()


def write_inputs(folder: Path) -> None:
    """Write the files that the commands read."""
    sample = ROOT / "sample_inputs" / "journey_self_attention.json"
    (folder / "six.json").write_bytes(sample.read_bytes())
    rows = draw_normal(5, _LONG_TOKEN_COUNT, 16).round(3).tolist()
    lines = [",".join(map(str, [f"t{i}", *row])) for i, row in enumerate(rows)]
    header = ",".join(["token", *(f"d{i}" for i in range(16))])
    (folder / "long.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


def draw(name: str) -> str:
    """Draw one of `PICTURES`: a terminal window with its commands and their coloured output."""
    from rich.console import Console
    from rich.terminal_theme import TerminalTheme
    from rich.text import Text

    theme = TerminalTheme(
        (27, 31, 40),
        (216, 222, 233),
        [(59, 66, 82), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194), (216, 222, 233)],
        [(127, 138, 158), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194), (255, 255, 255)],
    )  # fmt: skip
    text = Text()
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        for command in PICTURES[name]:
            output = run_in_terminal(command, Path(folder))
            text.append("\n" if text else "").append("$ ", "green").append(f"{command}\n", "bold")
            text.append(Text.from_ansi(output.rstrip("\n"))).append("\n")
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    console.print(text, no_wrap=True, crop=False, highlight=False)
    drawn = console.export_svg(title="attn", theme=theme, unique_id="attn")
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)  # nothing is loaded from elsewhere
    return drawn.replace("Fira Code, monospace", _FONT)


def texts(drawn: str) -> list[str]:
    """The texts of a picture, line by line."""
    return [html.unescape(text) for text in re.findall(r"<text [^>]*>([^<]*)</text>", drawn)]


def write_pictures() -> None:
    """Draw all pictures into their files."""
    for name in PICTURES:
        (IMAGES / name).write_text(draw(name), encoding="utf-8")


if __name__ == "__main__":
    write_pictures()
