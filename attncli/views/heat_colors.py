"""The colours that shade numbers, on every ground that we draw on: `shade_colors` from the smallest to the largest."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import NamedTuple

_STEPS_BETWEEN = 8  # colours from one anchor to the next


class Rgb(NamedTuple):
    """A colour of sRGB, each part from 0 to 255."""

    red: int
    green: int
    blue: int

    @property
    def hexadecimal(self) -> str:
        """`#21918c`"""
        return f"#{self.red:02x}{self.green:02x}{self.blue:02x}"

    @property
    def luminance(self) -> float:
        """The relative luminance, from 0 to 1 (WCAG 2.2)."""
        parts = (part / 255 for part in self)
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    @property
    def text_color(self) -> Rgb:
        """Black or white, whichever has more contrast on this colour: always at least 4.58."""
        return BLACK if (self.luminance + 0.05) ** 2 >= 1.05 * 0.05 else WHITE


BLACK, WHITE = Rgb(0, 0, 0), Rgb(255, 255, 255)


def _parse_colors(text: str) -> tuple[Rgb, ...]:
    return tuple(Rgb(*bytes.fromhex(word)) for word in text.split())


# Viridis (Smith and van der Walt, matplotlib 1.5; CC0): even steps to the eye, in order for the colour-blind and in grey.
_VIRIDIS = _parse_colors("440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725")
# RdBu of ColorBrewer (Cynthia Brewer), reversed: blue is negative, white 0, red positive.
_BLUE_WHITE_RED = _parse_colors("053061 2a71b2 6bacd1 c2ddec f7f6f6 fbccb4 e48066 ba2832 67001f")
# The nearest of these in the palette of 256 colours, by indices that no theme changes, and so that each is lighter than the last.
VIRIDIS_INDICES = (53, 55, 25, 27, 30, 36, 41, 148, 226)
BLUE_WHITE_RED_INDICES = (18, 25, 74, 153, 255, 223, 209, 124, 52)


@cache
def shade_colors(*, is_signed: bool) -> tuple[Rgb, ...]:
    """Return the colours from the smallest number to the largest; an odd count, so that 0 has the one in the middle.

    Args:
        is_signed: they go from the largest negative number by 0 to the largest positive one, not from 0.
    """
    anchors = _BLUE_WHITE_RED if is_signed else _VIRIDIS
    between = [
        Rgb(*(round(a + (b - a) * i / _STEPS_BETWEEN) for a, b in zip(one, other, strict=True)))
        for one, other in pairwise(anchors)
        for i in range(_STEPS_BETWEEN)
    ]
    return (*between, anchors[-1])


def indexed_color(index: int) -> Rgb:
    """Return what an index from 16 to 255 of the palette of 256 colours is on every terminal."""
    if index >= 232:
        grey = 8 + 10 * (index - 232)
        return Rgb(grey, grey, grey)
    levels = (0, 95, 135, 175, 215, 255)
    place = index - 16
    return Rgb(levels[place // 36], levels[place // 6 % 6], levels[place % 6])
