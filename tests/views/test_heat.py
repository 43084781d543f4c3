"""Shades of weights: readable and in order, whatever a terminal can show."""

from __future__ import annotations

import math

import pytest
from rich.color import Color
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME

from attncli.views.heat import Shading, choose_shading, shares_of_largest


def luminance(color: Color) -> float:
    """Relative luminance (WCAG 2.2)."""
    linear = [x / 255 / 12.92 if x / 255 <= 0.04045 else ((x / 255 + 0.055) / 1.055) ** 2.4 for x in rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def rgb(color: Color) -> tuple[int, int, int]:
    """Of an index from 16 on: the cube of six levels, which no theme changes."""
    if color.number is None:
        return tuple(color.get_truecolor(DEFAULT_TERMINAL_THEME))
    assert 16 <= color.number <= 231
    place = color.number - 16
    return tuple((0, 95, 135, 175, 215, 255)[place // 6**i % 6] for i in (2, 1, 0))


def styles(color_system: str) -> tuple[Style, ...]:
    return choose_shading(color_system, has_unicode=True).styles


@pytest.mark.parametrize("color_system", ["truecolor", "256"])
def test_digits_are_readable_on_every_colour(color_system):
    for style in styles(color_system):
        darker, lighter = sorted((luminance(style.color), luminance(style.bgcolor)))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5


@pytest.mark.parametrize("color_system", ["truecolor", "256"])
def test_nine_colours_grow_lighter(color_system):
    backgrounds = [luminance(style.bgcolor) for style in styles(color_system)]

    assert len(backgrounds) == 9
    assert backgrounds == sorted(set(backgrounds))


@pytest.mark.parametrize(
    ("color_system", "has_unicode", "glyphs"),
    [("standard", True, " ▁▂▃▄▅▆▇█"), ("standard", False, " ░▒▓█"), (None, True, " ░▒▓█"), ("windows", True, " ░▒▓█")],
)
def test_a_console_of_few_colours_shows_glyphs(color_system, has_unicode, glyphs):
    shading = choose_shading(color_system, has_unicode=has_unicode)

    assert (shading.glyphs, shading.styles) == (glyphs, ())


@pytest.mark.parametrize(
    ("share", "level"),
    [(0.0, 0), (0.06, 0), (0.07, 1), (0.5, 4), (0.93, 7), (0.94, 8), (1.0, 8), (-3.0, 0), (7.0, 8), (math.inf, 8), (math.nan, None)],
)  # fmt: skip
def test_the_level_of_a_weight(share, level):
    assert Shading(glyphs=" ▁▂▃▄▅▆▇█").level(share) == level


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([0.25, 0.5], [0.25, 0.5]),
        ([0.01] * 15 + [0.02], [0.01] * 15 + [0.02]),
        ([0.01] * 16 + [0.04], [0.25] * 16 + [1.0]),
        ([0.0] * 17, [0.0] * 17),
        ([math.inf] + [0.02] * 16, [math.inf] + [1.0] * 16),
    ],
)
def test_many_keys_are_shaded_by_the_share_of_the_largest(weights, shares):
    assert shares_of_largest(weights) == shares
