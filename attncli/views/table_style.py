"""How tables look, on a terminal and off it: headings, the style of each cell, the width of each column. Entry: `TableStyle`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from attncli.output_formats import RenderOptions
from attncli.text import to_ascii
from attncli.views.cells import DROPPED, HIDDEN
from attncli.views.heat import Shading, choose_shading, is_scaled_by_row, shares_of_largest
from attncli.views.labelled import LabelledMatrix

_HEADING_GAP = "   "
_DIM_CELLS = {spelling for text in ("−∞", HIDDEN, DROPPED) for spelling in (text, to_ascii(text))}


class StyledCell(NamedTuple):
    """The text of a cell, and what shades it."""

    text: str
    style: str | Style = ""
    glyph: str = ""  # after the text


class TableStyle:
    """How the tables of one page look on its console."""

    def __init__(self, console: Console, render_options: RenderOptions) -> None:
        """Choose it by what the console can show.

        Args:
            console: what tables are printed on.
            render_options: width, colour and heat.
        """
        self.console = console
        self.width = render_options.width
        self.has_unicode = render_options.has_unicode
        self.box = box.SIMPLE_HEAD if render_options.has_unicode else box.ASCII2
        self.is_colorless = not render_options.color
        color_system = console.color_system if render_options.color else None
        self._shading = choose_shading(color_system, has_unicode=self.has_unicode) if render_options.heat else None

    def shading(self, matrix: LabelledMatrix) -> Shading | None:
        """Return how the cells of a matrix are shaded: only weights are."""
        return self._shading if matrix.name == "weights" else None

    # ── above a table ────────────────────────────────────────────────────────────────────────────
    def print_heading(self, matrix: LabelledMatrix, title: str = "") -> None:
        """Print what the table below holds: step, formula, remark, the scale of the shades.

        Args:
            matrix: the table.
            title: in place of its own, where it stands for several.
        """
        parts = [Text(title or matrix.title, style="bold")]
        if matrix.formula:
            parts.append(Text(matrix.formula))
        if matrix.remark:
            parts.append(Text(f"({matrix.remark})", style="dim"))
        shading = self.shading(matrix)
        if shading:
            parts.append(_shading_legend(shading, len(matrix.column_labels)))
        self.print_parts(parts, _HEADING_GAP)

    def print_parts(self, parts: Sequence[Text], gap: str) -> None:
        """Print parts side by side, in as many lines as a terminal needs; a part that fits a line is not split."""
        lines: list[Text] = []
        for part in parts:
            if lines and (self.width is None or lines[-1].cell_len + len(gap) + part.cell_len <= self.width):
                lines[-1] = Text.assemble(lines[-1], gap, part)
            else:
                lines.append(part)
        for line in lines:
            self.console.print(line, soft_wrap=not self.width)

    def print_note(self, items: Sequence[str], separator: str = " · ") -> None:
        """Print what is said beside tables, dimmed."""
        for line in wrap_items(items, separator, self.width):
            self.console.print(Text(line, style="dim"), soft_wrap=not self.width)

    # ── cells ────────────────────────────────────────────────────────────────────────────────────
    def style_rows(self, matrix: LabelledMatrix, first: int, rows: list[list[str]]) -> Iterator[list[StyledCell]]:
        """Yield the cells of rows, from the first of so many, each with its style; weights are shaded by their size."""
        column_count = len(matrix.column_labels)
        shading = self.shading(matrix)
        for r, texts in enumerate(rows, first):
            shares = shares_of_largest(matrix.values[r].tolist()) if shading else [0.0] * column_count
            cells = [_style_cell(text, share, shading) for text, share in zip(texts, shares, strict=False)]
            yield [*cells, *(StyledCell(text, "dim") for text in texts[column_count:])]

    def column_widths(self, matrix: LabelledMatrix, labels: Sequence[str]) -> list[int]:
        """Return the width that each column needs, statistics too, below labels that may have been shortened."""
        measure = len if matrix.cell_format.is_narrow else cell_len
        widths = [0] * len(labels)
        for _, rows in matrix.pages():
            widths = [
                max(width, *map(measure, cells)) for width, cells in zip(widths, zip(*rows, strict=True), strict=True)
            ]
        shading = self.shading(matrix)
        if shading:
            column_count = len(matrix.column_labels)
            widths = [width + shading.glyph_width if c < column_count else width for c, width in enumerate(widths)]
        return [max(width, cell_len(label)) for width, label in zip(widths, labels, strict=True)]


def _style_cell(text: str, share: float, shading: Shading | None) -> StyledCell:
    """Style one cell; a mark in place of a number is never shaded."""
    if text in _DIM_CELLS:
        return StyledCell(text, "dim", " " * shading.glyph_width if shading else "")
    if not shading:
        return StyledCell(text)
    level = shading.level(share)
    if shading.glyphs:
        return StyledCell(text, "", " " if level is None else shading.glyphs[level])
    return StyledCell(text, "" if level is None else shading.styles[level])


def _shading_legend(shading: Shading, key_count: int) -> Text:
    """`shaded 0 ░▒▓█ 1`: the scale, in the colours or glyphs of the cells."""
    legend = Text("shaded 0 ", style="dim")
    if shading.glyphs:
        legend.append(shading.glyphs.strip(), Style.parse(f"{shading.glyph_style} not dim"))
    for style in shading.styles:
        legend.append("  ", Style(bgcolor=style.bgcolor, dim=False))
    return legend.append(" the row's largest" if is_scaled_by_row(key_count) else " 1")


def wrap_items(items: Sequence[str], separator: str, width: int | None) -> list[str]:
    """Join items into as many lines as a terminal needs; an item that fits a line is not split."""
    lines: list[str] = []
    for item in items:
        if lines and (width is None or cell_len(lines[-1] + separator + item) <= width):
            lines[-1] += separator + item
        else:
            lines.append(item)
    return lines


def widest(texts: Iterable[str]) -> int:
    """The width of the widest text on a terminal."""
    return max(map(cell_len, texts), default=0)


def pad_left(text: str, width: int) -> str:
    """Put a text at the right of so many columns of a terminal; spaces at its own end would move it from there."""
    text = text.rstrip()
    return " " * (width - cell_len(text)) + text
