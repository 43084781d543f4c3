"""The pixels of a map: `find_pixels` makes them of numbers, `choose_map_look` says how a console draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from rich.style import Style
from rich.text import Text

from attncli.types import NumpyArray
from attncli.views.heat import fill_styles
from attncli.views.heat_scale import Scale, find_levels
from attncli.views.labelled_matrices import LabelledMatrix

# What a pixel is where it is no level of a number.
HIDDEN, DROPPED, INFINITE, NAN = -1, -2, -3, -4
KIND_NAMES = {HIDDEN: "hidden key", DROPPED: "dropped", INFINITE: "infinite", NAN: "NaN"}


# ── of numbers ───────────────────────────────────────────────────────────────────────────────────
def find_pixels(matrix: LabelledMatrix, scale: Scale, level_count: int, block: int) -> NumpyArray:
    """Return the pixels of a matrix: the level of a number, or one of the kinds above.

    Args:
        matrix: of floats, or of yes and no, where no is hidden.
        scale: what the levels stand for.
        level_count: how many there are.
        block: a pixel stands for a square of so many by so many: for the strongest number there, unless one is NaN.
    """
    values = matrix.values
    shares = scale.shares(values)
    levels = find_levels(shares, level_count, is_signed=scale.is_signed)
    pixels = np.where(np.isnan(values), NAN, np.where(np.isinf(values), INFINITE, levels)).astype(np.int16)
    hidden = ~values if values.dtype == bool else None
    if matrix.marks:
        hidden = matrix.marks.find_hidden_cells(0, len(values))
        dropped = matrix.marks.find_dropped_cells(0, len(values))
        if dropped is not None:
            pixels[dropped] = DROPPED
    if hidden is not None:
        pixels[hidden] = HIDDEN
    return pixels if block == 1 else _reduce_blocks(pixels, block, middle=level_count // 2 if scale.is_signed else 0)


def _reduce_blocks(pixels: NumpyArray, block: int, middle: int) -> NumpyArray:
    """Reduce squares of pixels to the one of each that counts most; `middle` is the level of 0."""
    row_count, column_count = (-(-length // block) for length in pixels.shape)
    padded = np.full((row_count * block, column_count * block), HIDDEN, pixels.dtype)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    squares = padded.reshape(row_count, block, column_count, block).swapaxes(1, 2).reshape(row_count, column_count, -1)
    # NaN before any number, and numbers before what is infinite, dropped or hidden, in this order.
    rank = np.select(
        [squares >= 0, squares == NAN], [np.abs(squares - middle) - NAN, np.iinfo(np.int16).max], default=-squares
    )
    return np.take_along_axis(squares, rank.argmax(-1)[..., None], -1)[..., 0]


# ── on a console ─────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class MapLook:
    """How a console draws pixels: two in a character by colours, or one by a glyph. A hidden one is the ground."""

    colors: tuple[str, ...] = ()  # of the levels
    kind_colors: tuple[str, ...] = ()  # dropped, infinite, NaN
    glyphs: str = ""  # of the levels
    kind_glyphs: str = ""  # hidden, dropped, infinite, NaN

    @property
    def level_count(self) -> int:
        """How many levels of numbers it tells apart."""
        return len(self.colors) or len(self.glyphs)

    @property
    def rows_per_line(self) -> int:
        """How many rows of pixels a line holds."""
        return 2 if self.colors else 1

    def color(self, pixel: int) -> str | None:
        """Return the colour of a pixel; None: it has none."""
        if pixel >= 0:
            return self.colors[pixel]
        return None if pixel == HIDDEN else self.kind_colors[DROPPED - pixel]

    def glyph(self, pixel: int) -> str:
        """Return the glyph of a pixel."""
        return self.glyphs[pixel] if pixel >= 0 else self.kind_glyphs[HIDDEN - pixel]

    def draw_pair(self, upper: int, lower: int) -> tuple[str, str | Style]:
        """Return the character of two pixels, one above the other, and its style."""
        return _draw_pair(self.color(upper), self.color(lower))

    def kind_legend(self, kind: int) -> Text:
        """`██ NaN`: how a pixel that is no number looks."""
        text = Text()
        if (
            kind == HIDDEN and self.colors
        ):  # beside a coloured pixel in one character a hidden one has no room for its dot
            text.append("· or no colour:", "dim")
        elif not self.colors:
            text.append(self.glyph(kind), "dim")
        else:
            text.append("██", self.color(kind) or "")
        return text.append(f" {KIND_NAMES[kind]}", "dim")

    def level_legend(self, scale: Scale) -> Text:
        """`shaded 0 ░▒▓█ 1`: the levels, where a number cannot stand upon its colour."""
        legend = Text().append("shaded ", "dim")
        if not self.colors:
            legend.append(f"{scale.spell(-1 if scale.is_signed else 0)} ", "dim").append(self.glyphs.strip())
            return legend.append(f" {scale.spell(1)} {scale.unit}", "dim")
        for level, color in enumerate(self.colors):
            share = level / (self.level_count - 1)
            legend.append("██", color).append(f" {scale.spell(2 * share - 1 if scale.is_signed else share)} ", "dim")
        return legend.append(scale.unit, "dim")


@cache
def _draw_pair(upper: str | None, lower: str | None) -> tuple[str, str | Style]:
    if upper is None:
        return ("·", "dim") if lower is None else ("▄", Style(color=lower))
    if lower is None:
        return "▀", Style(color=upper)
    return (" ", Style(bgcolor=upper)) if lower == upper else ("▀", Style(color=upper, bgcolor=lower))


def choose_map_look(color_system: str | None, *, has_unicode: bool, is_signed: bool) -> MapLook:
    """Choose how a console draws pixels.

    Args:
        color_system: as Rich names it; None: no colours.
        has_unicode: whether it can show more than ASCII.
        is_signed: levels go from the largest negative number to the largest positive one.
    """
    if not has_unicode:
        return MapLook(glyphs="%=- :*#" if is_signed else " :+*#", kind_glyphs=".-!?")
    if color_system in ("truecolor", "256"):
        fills = fill_styles(color_system, is_signed=is_signed)
        # Grey, orange and magenta are in neither map.
        kinds = (244, 208, 201)
        return MapLook(tuple(fill.bgcolor.name for fill in fills if fill.bgcolor), _indexed(kinds))
    if color_system == "standard":  # in order on the usual palettes; 16 colours have no even ones
        return (
            MapLook(_indexed((14, 4, 0, 1, 11)), _indexed((8, 15, 13)))
            if is_signed
            else MapLook(_indexed((0, 5, 6, 10, 11)), _indexed((8, 12, 9)))
        )
    return MapLook(glyphs="≡=- ░▒█" if is_signed else " ░▒▓█", kind_glyphs="·–∞?")


def _indexed(indices: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"color({index})" for index in indices)
