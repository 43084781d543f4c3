"""How tables look, on a terminal and off it: headings, the style of each cell, the width of each column. Entry: `TableStyle`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import COLOR_SYSTEMS, Console
from rich.style import Style
from rich.text import Text

from attncli.output_formats import RenderOptions
from attncli.text import to_ascii
from attncli.views.cell_formats import DROPPED, HIDDEN
from attncli.views.heat import Heat, Shading, choose_shading
from attncli.views.heat_scale import find_scale
from attncli.views.labelled_matrices import WEIGHT_STEPS, LabelledMatrix

_HEADING_GAP = "   "
_DIM_CELLS = {spelling for text in ("−∞", HIDDEN, DROPPED) for spelling in (text, to_ascii(text))}
_NO_CODES = ("", "")


class StyledCell(NamedTuple):
    """The text of a cell, and what shades it."""

    text: str
    style: str | Style = ""
    glyph: str = ""  # after the text, one column, with its own codes
    is_filled: bool = False  # the style is a colour behind the whole cell, as far as its neighbours


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
        self.color_system = console.color_system if render_options.color else None
        self._render_options = render_options
        self._codes: dict[str | Style, tuple[str, str]] = {"": _NO_CODES}
        self._told_scale = ""

    @cached_property
    def shading(self) -> Shading:
        """How shades are shown."""
        return choose_shading(self.color_system, has_unicode=self.has_unicode)

    def find_heat(self, matrix: LabelledMatrix) -> Heat | None:
        """Return how the numbers of a matrix are shaded; None: they are not."""
        options = self._render_options
        if options.heat == "off" or (options.heat == "weights" and matrix.name not in WEIGHT_STEPS):
            return None
        scale = find_scale(matrix, options.normalize)
        return Heat(self.shading, scale) if scale else None

    def overhang(self, matrix: LabelledMatrix) -> int:
        """Return by how many columns the colour behind the last cell of a row reaches beyond its text."""
        heat = self.find_heat(matrix)
        return 1 if heat and heat.fills else 0

    def codes(self, style: str | Style) -> tuple[str, str]:
        """Return the codes before and after a text in a style."""
        codes = self._codes.get(style)
        if codes is None:
            parsed = style if isinstance(style, Style) else Style.parse(style)
            system = COLOR_SYSTEMS[self.color_system] if self.color_system else None
            before, _, after = parsed.render("x", color_system=system).partition("x")
            codes = self._codes[style] = (before, after)
        return codes

    def paint(self, text: str, style: str | Style) -> str:
        """Put the codes of a style around a text."""
        before, after = self.codes(style)
        return f"{before}{text}{after}"

    # ── above a table ────────────────────────────────────────────────────────────────────────────
    def print_heading(self, matrix: LabelledMatrix, title: str = "") -> None:
        """Print what the table below holds: step, formula, remark; and the scale of the shades where it is another than before.

        Args:
            matrix: the table.
            title: in place of its own, where it stands for several.
        """
        parts = [Text(title or matrix.title, style="bold")]
        if matrix.formula:
            parts.append(Text(matrix.formula))
        if matrix.remark:
            parts.append(Text(f"({matrix.remark})", style="dim"))
        self.print_parts(parts, _HEADING_GAP)
        heat = self.find_heat(matrix)
        if heat:
            self.print_scale(heat_legend(heat))

    def print_scale(self, parts: Sequence[Text]) -> None:
        """Print a legend, unless it was the last that was printed."""
        told = "".join(part.plain for part in parts)
        if told != self._told_scale:
            self.print_parts(parts, _HEADING_GAP)
        self._told_scale = told

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
        """Yield the cells of rows, from the first of so many, each with its style; those of the heat are shaded."""
        column_count = len(matrix.column_labels)
        heat = self.find_heat(matrix)
        blank = "" if heat is None or heat.fills else " "
        # By level, and at the end what stands for −1: a number that is not finite.
        shades = [*self._level_cells(heat), ("", blank, False)] if heat else [("", "", False)]
        row_levels = (
            heat.levels(matrix.values[first : first + len(rows)]) if heat else [[-1] * column_count] * len(rows)
        )
        for texts, levels in zip(rows, row_levels, strict=True):
            cells = [
                StyledCell(text, "dim", blank) if text in _DIM_CELLS else StyledCell(text, *shades[level])
                for text, level in zip(texts, levels, strict=False)
            ]
            yield [*cells, *(StyledCell(text, "dim") for text in texts[column_count:])]

    def _level_cells(self, heat: Heat) -> list[tuple[str | Style, str, bool]]:
        """Style, glyph and whether it is filled, of a cell of each level."""
        if heat.fills:
            return [(fill, "", True) for fill in heat.fills]
        shading = heat.shading
        return [
            ("", glyph if glyph == " " else self.paint(glyph, shading.glyph_style), False) for glyph in shading.glyphs
        ]

    def column_widths(self, matrix: LabelledMatrix, labels: Sequence[str]) -> list[int]:
        """Return the width that each column needs, statistics too, below labels that may have been shortened."""
        measure = len if matrix.cell_format.is_narrow else cell_len
        widths = [0] * len(labels)
        for _, rows in matrix.pages():
            widths = [
                max(width, *map(measure, cells)) for width, cells in zip(widths, zip(*rows, strict=True), strict=True)
            ]
        heat = self.find_heat(matrix)
        if heat and not heat.fills:
            column_count = len(matrix.column_labels)
            widths = [width + 1 if c < column_count else width for c, width in enumerate(widths)]
        return [max(width, cell_len(label)) for width, label in zip(widths, labels, strict=True)]


def heat_legend(heat: Heat) -> list[Text]:
    """`shaded 0 ░▒▓█ 1`, and what that is of: the scale, in the colours or glyphs of the cells."""
    scale = heat.scale
    legend = Text("shaded ", style="dim")
    if not heat.fills:
        legend.append("by size, 0 " if scale.is_signed else "0 ")
        legend.append(heat.shading.glyphs.strip(), Style.parse(f"{heat.shading.glyph_style} not dim"))
        return [legend.append(f" {scale.spell(1)} {scale.unit}")]
    for place, number in scale.legend():
        fill = heat.fills[round(place * (len(heat.fills) - 1))]
        legend.append(f" {number} ", Style.combine([Style(dim=False), fill]))
    return [legend.append(f" {scale.unit}")]


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


def pad_right(text: str, width: int) -> str:
    """Fill a text up to so many columns of a terminal, as a label is."""
    return text + " " * (width - cell_len(text))
