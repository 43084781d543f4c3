"""Printing a verdict's lines and tables in the width and the characters that there are: `Printer`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from attncli.output_formats import RenderOptions
from attncli.text import to_ascii
from attncli.views.console import console_for
from attncli.views.table_style import wrap_items

CHECK_STYLES = {True: "green", False: "red", None: "yellow"}


class Printer:
    """Prints lines and tables in the width and the characters that there are."""

    def __init__(self, render_options: RenderOptions) -> None:
        self.width = render_options.width
        self.has_unicode = render_options.has_unicode
        self.text = io.StringIO()
        self.console = console_for(self.text, render_options)

    def displayable(self, text: str) -> str:
        return text if self.has_unicode else to_ascii(text)

    def cell(self, text: str, style: str = "") -> Text:
        """Make a cell of a table."""
        return Text(self.displayable(text), style=style)

    def print_blank_line(self) -> None:
        self.console.print()

    def print_headline(self, parts: Sequence[str]) -> None:
        for line in wrap_items(parts, " · ", self.width):
            self.console.print(self.cell(line, "bold"), soft_wrap=True)

    def print_line(self, line: str, style: str = "") -> None:
        """Print a sentence, folded on a terminal below where it begins."""
        line = self.displayable(line)
        margin = len(line) - len(line.lstrip(" –✓✗-"))
        if self.width and cell_len(line) > self.width and margin:
            self.console.print(Padding(Text(line.lstrip(), style=style), (0, 0, 0, margin - 2)))
        else:
            self.console.print(Text(line, style=style), soft_wrap=not self.width)

    def make_table(self) -> Table:
        return Table(
            box=box.SIMPLE_HEAD if self.has_unicode else box.ASCII2,
            pad_edge=False,
            show_edge=False,
            padding=(0, 1),
            header_style="",
        )

    def print_table(self, table: Table) -> None:
        self.console.print(table, soft_wrap=not self.width)

    def get_text(self) -> str:
        """Return all that was printed, without the spaces that fill a table's last column."""
        return "".join(line.rstrip() + "\n" for line in self.text.getvalue().splitlines())

    def print_section(self, styled_lines: Iterable[tuple[str, str]]) -> None:
        """Print lines below a blank one, if there are any."""
        for i, (line, style) in enumerate(styled_lines):
            if i == 0:
                self.print_blank_line()
            self.print_line(line, style)
