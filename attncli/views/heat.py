"""Numbers as shades: `choose_scale` says what the shades of a step stand for, `choose_shading` how a console shows them.

A shade is a colour behind the number, or a glyph after it. In a table the number is always printed as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from rich.style import Style

from attncli.output_formats import Normalize
from attncli.types import NumpyArray
from attncli.views.heat_colors import BLUE_WHITE_RED_INDICES, VIRIDIS_INDICES, indexed_color, shade_colors

_MAX_KEYS_OF_ONE_SCALE = 16  # with more keys, weights are small, and are shaded by their share of the row's largest
_ROUNDING = 1e-3  # weights of few digits may exceed 1 by so much
WEIGHT_STEPS = ("weights", "mixed_weights", "dropout_weights")
_AMOUNTS = (
    *WEIGHT_STEPS,
    "top_weights",
    "sink_weights",
    "entropy",
)  # from 0 upwards, unless a variant makes them negative

_BLOCKS = " ▁▂▃▄▅▆▇█"
_SHADES = " ░▒▓█"


@dataclass(frozen=True)
class Scale:
    """What shades stand for: numbers from 0, or from −`largest`, to `largest`; or shares of the largest of each row."""

    largest: float  # in the whole step; where numbers are shaded by row, the size of one row's
    is_signed: bool = False  # there are negative numbers
    is_by_row: bool = False

    @property
    def unit(self) -> str:
        """What the numbers of `spell` are of."""
        return "% of the row's largest" if self.is_by_row else "in every row"

    def spell(self, share: float) -> str:
        """Return the number that a share stands for, in few digits; the share in percent where rows differ."""
        if self.is_by_row:
            return f"{100 * share:.0f}"
        number = share * self.largest
        return f"{number:.2f}" if 0.1 <= abs(number) < 10 or not number else f"{number:.3g}"

    def shares(self, values: NumpyArray) -> NumpyArray:
        """Return numbers as shares of the largest, from 0 or −1 to 1; NaN where one is not finite.

        Args:
            values: whole rows: (row, column).
        """
        finite = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
        if not self.is_by_row:
            return finite / self.largest
        largest = np.fmax.reduce(np.abs(finite), axis=-1, keepdims=True, initial=0.0)
        return finite / np.where(largest > 0, largest, 1.0)


def choose_scale(
    step_name: str, value_range: tuple[float, float], column_count: int, normalize: Normalize | None
) -> Scale:
    """Choose what the shades of a step stand for.

    Args:
        step_name: weights go from 0 to 1; scores and vectors have a sign, whether or not a negative one is there.
        value_range: the smallest and the largest finite number of the step.
        column_count: how many numbers a row has.
        normalize: one scale for the whole step, or one for each row; None: by row for many weights.
    """
    smallest, largest = value_range
    is_weights = step_name in WEIGHT_STEPS
    is_signed = step_name not in _AMOUNTS or smallest < 0
    is_by_row = normalize == "row" or (
        normalize is None and is_weights and not is_signed and column_count > _MAX_KEYS_OF_ONE_SCALE
    )
    if is_by_row or (is_weights and not is_signed and largest <= 1 + _ROUNDING):
        return Scale(1.0, is_signed, is_by_row)
    return Scale(max(-smallest, largest) or 1.0, is_signed)


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


def find_levels(shares: NumpyArray, count: int, *, is_signed: bool = False) -> NumpyArray:
    """Return which of so many levels each share has: integers; −1 where it is NaN.

    Args:
        shares: from 0 to 1, or from −1 to 1; what is beyond has the level of that end.
        count: of levels.
        is_signed: the level in the middle is 0.
    """
    from_zero = (np.clip(shares, -1, 1) + 1) / 2 if is_signed else np.clip(shares, 0, 1)
    levels = np.rint(from_zero * (count - 1))
    return np.where(np.isnan(levels), -1, levels).astype(np.int64)


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


def fill_styles(color_system: str, *, is_signed: bool) -> tuple[Style, ...]:
    """Return the styles of cells from the smallest number to the largest, on a console of at least 256 colours."""
    if color_system == "truecolor":
        return tuple(
            Style(color=color.ink.hexadecimal, bgcolor=color.hexadecimal) for color in shade_colors(is_signed=is_signed)
        )
    # Rich's nearest ones grow darker on the way.
    indices = BLUE_WHITE_RED_INDICES if is_signed else VIRIDIS_INDICES
    return tuple(
        Style(color="color(16)" if indexed_color(i).ink.luminance == 0 else "color(231)", bgcolor=f"color({i})")
        for i in indices
    )
