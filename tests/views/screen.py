"""What a terminal shows of text with escape codes: `read_screen`, as characters with their colours."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from rich.text import Text

# How each terminal says what it can show.
TERMINALS = {
    "truecolor": {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
    "256": {"TERM": "xterm-256color", "COLORTERM": ""},
    "16": {"TERM": "xterm", "COLORTERM": ""},
}


class Glyph(NamedTuple):
    """One character: its colour and that behind it, as (red, green, blue); an index below 16 is the theme's; None: the default."""

    character: str
    ink: object
    ground: object
    is_dim: bool


@cache
def read_screen(text: str) -> list[list[Glyph]]:
    """The lines of a text, character by character."""
    return [_read_line(line) for line in text.removesuffix("\n").split("\n")]


def _read_line(line: str) -> list[Glyph]:
    decoded = Text.from_ansi(line)
    glyphs = []
    for i, character in enumerate(decoded.plain):
        styles = [span.style for span in decoded.spans if span.start <= i < span.end]
        inks = [_color(style.color) for style in styles if _color(style.color) is not None]
        grounds = [_color(style.bgcolor) for style in styles if _color(style.bgcolor) is not None]
        is_dim = any(style.dim for style in styles)
        glyphs.append(Glyph(character, inks[-1] if inks else None, grounds[-1] if grounds else None, is_dim))
    return glyphs


def _color(color) -> object:
    """The colour that every terminal shows, or the index that its theme decides."""
    if color is None or color.is_default:
        return None
    if color.triplet is not None:
        return tuple(color.triplet)
    if color.number < 16:
        return color.number
    if color.number >= 232:
        return (8 + 10 * (color.number - 232),) * 3
    place = color.number - 16
    return tuple((0, 95, 135, 175, 215, 255)[place // 6**i % 6] for i in (2, 1, 0))


def luminance(rgb: tuple[int, int, int]) -> float:
    """Relative luminance (WCAG 2.2)."""
    linear = [x / 255 / 12.92 if x / 255 <= 0.04045 else ((x / 255 + 0.055) / 1.055) ** 2.4 for x in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def lightness(rgb: tuple[int, int, int]) -> float:
    """L* of CIE 1976, from 0 to 100."""
    y = luminance(rgb)
    return 116 * (y ** (1 / 3) if y > 0.008856 else 7.787 * y + 16 / 116) - 16
