"""Numbers as shades on a console: `choose_shading` says how it shows them, `Heat` what each number of a matrix gets.

A shade is a colour behind the number, or a glyph after it. In a table the number is always printed as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from rich.style import Style

from attncli.types import NumpyArray
from attncli.views.heat_colors import BLUE_WHITE_RED_INDICES, VIRIDIS_INDICES, indexed_color, shade_colors
from attncli.views.heat_scale import Scale, find_levels

_BLOCKS = " ▁▂▃▄▅▆▇█"
_SHADES = " ░▒▓█"


@dataclass(frozen=True)
class Shading:
    """How a console shows shades: by colours behind numbers, or by a glyph after them; from the smallest to the largest."""

    fills: tuple[Style, ...] = ()  # from 0
    signed_fills: tuple[Style, ...] = ()  # from the largest negative number; the one in the middle is 0
    glyphs: str = ""  # of the size, whatever the sign
    glyph_style: str = ""


@dataclass(frozen=True)
class Heat:
    """How the numbers of one matrix are shaded."""

    shading: Shading
    scale: Scale

    @cached_property
    def fills(self) -> tuple[Style, ...]:
        """The style of each level; none: there are glyphs."""
        return self.shading.signed_fills if self.scale.is_signed else self.shading.fills

    def levels(self, values: NumpyArray) -> list[list[int]]:
        """Return the level of each number of some rows: the index of its fill, or of its glyph; −1: it is not finite."""
        shares = self.scale.shares(values)
        if self.fills:
            return find_levels(shares, len(self.fills), is_signed=self.scale.is_signed).tolist()
        return find_levels(np.abs(shares), len(self.shading.glyphs)).tolist()


def choose_shading(color_system: str | None, *, has_unicode: bool) -> Shading:
    """Choose how numbers are shaded on a console.

    With 16 colours no fill is readable whatever the terminal's theme, so that a glyph is shown.

    Args:
        color_system: as Rich names it; None: no colours.
        has_unicode: whether it can show more than ASCII.
    """
    if color_system in ("truecolor", "256"):
        return Shading(fill_styles(color_system, is_signed=False), fill_styles(color_system, is_signed=True))
    if color_system == "standard" and has_unicode:
        return Shading(glyphs=_BLOCKS, glyph_style="cyan")
    return Shading(glyphs=_SHADES)


@cache
def fill_styles(color_system: str, *, is_signed: bool) -> tuple[Style, ...]:
    """Return the styles of cells from the smallest number to the largest, on a console of at least 256 colours."""
    if color_system == "truecolor":
        return tuple(
            Style(color=color.text_color.hexadecimal, bgcolor=color.hexadecimal)
            for color in shade_colors(is_signed=is_signed)
        )
    # Rich's nearest ones grow darker on the way.
    indices = BLUE_WHITE_RED_INDICES if is_signed else VIRIDIS_INDICES
    return tuple(
        Style(color="color(16)" if indexed_color(i).text_color.luminance == 0 else "color(231)", bgcolor=f"color({i})")
        for i in indices
    )
