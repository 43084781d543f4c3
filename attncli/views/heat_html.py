"""Shades in HTML: `find_html_heat` gives each cell of a table its colours, as the text of a `style` attribute.

Nothing else is needed: no script, no style sheet, no class, and no ground of our own, which would be wrong in a dark notebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape

from attncli.output_formats import Normalize
from attncli.views.cell_formats import DROPPED, HIDDEN
from attncli.views.heat_colors import BLACK, WHITE, shade_colors
from attncli.views.heat_scale import Scale, find_levels, find_scale
from attncli.views.labelled_matrices import WEIGHT_STEPS, LabelledMatrix

_FAINT = "opacity:0.55"  # of a mark in place of a number, on a light page and on a dark one
_DIM_CELLS = (HIDDEN, DROPPED, "−∞")


@dataclass(frozen=True)
class HtmlHeat:
    """How the numbers of one matrix are shaded in HTML."""

    matrix: LabelledMatrix
    scale: Scale

    def cell_styles(self, row: int, texts: Sequence[str]) -> list[str]:
        """Return the style of each cell of a row, statistics too: both colours, or none for what is no number of the matrix.

        Args:
            row: which.
            texts: of its cells, as `LabelledMatrix.format_rows` writes them.
        """
        fills = _fill_styles(self.scale.is_signed)
        shares = self.scale.shares(self.matrix.values[row : row + 1])
        levels = find_levels(shares, len(fills), is_signed=self.scale.is_signed)[0].tolist()
        levels += [-1] * (len(texts) - len(levels))
        return [
            _FAINT if text in _DIM_CELLS else fills[level] if level >= 0 else ""
            for text, level in zip(texts, levels, strict=True)
        ]

    def legend(self) -> str:
        """Return the scale as a run of cells with its numbers."""
        fills = _fill_styles(self.scale.is_signed)
        cells = "".join(
            f'<span style="{fills[round(place * (len(fills) - 1))]};padding:0 0.5em">{escape(number)}</span>'
            for place, number in self.scale.legend()
        )
        return f"shaded {cells} {escape(self.scale.unit)}"


def find_html_heat(matrix: LabelledMatrix, normalize: Normalize | None = None) -> HtmlHeat | None:
    """Return how the numbers of a matrix are shaded; None: they are not, as those of any step but the weights.

    Args:
        matrix: the table.
        normalize: as in `choose_scale`.
    """
    scale = find_scale(matrix, normalize) if matrix.name in WEIGHT_STEPS else None
    return HtmlHeat(matrix, scale) if scale else None


@cache
def _fill_styles(is_signed: bool) -> tuple[str, ...]:
    """The style of each level, from the smallest number to the largest."""
    text_colors = {BLACK: "#000", WHITE: "#fff"}
    colors = shade_colors(is_signed=is_signed)
    return tuple(f"background:{color.hexadecimal};color:{text_colors[color.text_color]}" for color in colors)
