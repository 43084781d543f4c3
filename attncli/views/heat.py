"""Weights as shades: a colour behind the number, or a glyph after it. The number is always printed as well.

`choose_shading` is the entry: the shading that a console can show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from rich.style import Style

_MAX_KEYS_OF_ONE_SCALE = 16  # with more keys, weights are small, and are shaded by their share of the row's largest
_WHITE, _BLACK = "#ffffff", "#000000"
# Viridis (Smith and van der Walt, matplotlib 1.5; CC0) at nine equal steps, each with the ink that has more contrast on it.
_TRUE_COLORS = (
    ("#440154", _WHITE), ("#472d7b", _WHITE), ("#3b528b", _WHITE), ("#2c728e", _WHITE), ("#21918c", _BLACK),
    ("#28ae80", _BLACK), ("#5ec962", _BLACK), ("#addc30", _BLACK), ("#fde725", _BLACK),
)  # fmt: skip
# The same in the palette of 256 colours, by indices that no theme changes: Rich's nearest ones grow darker on the way.
_INDEXED_COLORS = tuple(
    (f"color({index})", "color(231)" if step < 4 else "color(16)")
    for step, index in enumerate((53, 55, 25, 27, 30, 36, 41, 148, 226))
)
_BLOCKS = " ▁▂▃▄▅▆▇█"
_SHADES = " ░▒▓█"


@dataclass(frozen=True)
class Shading:
    """How weights are shaded: by colours behind them, or by a glyph after them; from the smallest to the largest."""

    colors: tuple[tuple[str, str], ...] = ()  # behind, and of the digits
    glyphs: str = ""
    glyph_style: str = ""

    @property
    def glyph_width(self) -> int:
        """How many columns a glyph takes; 0: there is none."""
        return 1 if self.glyphs else 0

    @cached_property
    def styles(self) -> tuple[Style, ...]:
        """The style of each level."""
        return tuple(Style(color=ink, bgcolor=background) for background, ink in self.colors)

    def level(self, share: float) -> int | None:
        """Return the level of a share of the largest, from 0 to 1; beyond these the ends; None: it is no number."""
        if math.isnan(share):
            return None
        return round(min(max(share, 0.0), 1.0) * ((len(self.colors) or len(self.glyphs)) - 1))


def choose_shading(color_system: str | None, *, has_unicode: bool) -> Shading:
    """Choose how weights are shaded on a console.

    With 16 colours no fill is readable whatever the terminal's theme, so that a glyph is shown.

    Args:
        color_system: as Rich names it; None: no colours.
        has_unicode: whether it can show more than ASCII.
    """
    if color_system == "truecolor":
        return Shading(_TRUE_COLORS)
    if color_system == "256":
        return Shading(_INDEXED_COLORS)
    if color_system == "standard" and has_unicode:
        return Shading(glyphs=_BLOCKS, glyph_style="cyan")
    return Shading(glyphs=_SHADES)


def is_scaled_by_row(key_count: int) -> bool:
    """Return whether weights of so many keys are shaded by their share of the row's largest, not by themselves."""
    return key_count > _MAX_KEYS_OF_ONE_SCALE


def shares_of_largest(weights: list[float]) -> list[float]:
    """Return the weights of one row by what they are shaded by."""
    largest = max((weight for weight in weights if math.isfinite(weight)), default=0.0)
    if not is_scaled_by_row(len(weights)) or largest <= 0:
        return weights
    return [weight / largest for weight in weights]
