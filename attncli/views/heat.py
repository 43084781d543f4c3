"""Weights as shades: a colour behind the number, or a glyph beside it. The number is always printed as well."""

from __future__ import annotations

SHADE_LEGEND = "0 ░▒▓█ 1"
# Viridis (Smith and van der Walt, matplotlib 1.5; CC0) at nine equal steps.
_VIRIDIS_COLORS = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")


def shade_colors(weight: float) -> tuple[str, str]:
    """The colours (behind, of the digits) for a weight from 0 to 1; beyond these the ends of the scale."""
    if weight != weight:
        return "#000000", "#ffffff"
    step = round(min(max(weight, 0.0), 1.0) * (len(_VIRIDIS_COLORS) - 1))
    return _VIRIDIS_COLORS[step], "#ffffff" if step < 4 else "#000000"


def shade_glyph(weight: float) -> str:
    """The glyph, one of five, for a weight from 0 to 1."""
    if weight != weight:
        return "?"
    return " ░▒▓█"[min(4, max(0, round(weight * 4)))]
