"""Numbers of each query, such as the entropy: a line for each head. Entry: `QueryLines`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from attncli.views.figures.labels import Header, column_labels, widest
from attncli.views.figures.page import Page
from attncli.views.figures.panels import Band
from attncli.views.figures.theme import LABEL_SIZE, LINE_HEIGHT, NUMBER_SIZE, Theme
from attncli.views.labelled_matrices import STATISTIC_MEANINGS

_AXIS_NAME = LABEL_SIZE * LINE_HEIGHT
_HEIGHT = 150.0  # of the axes
_NUMBERS = 44.0  # left of them
_NATURAL_PITCH = 26.0  # from one query to the next
_MAX_MARKED = 64  # queries, each with a dot
_MAX_SLANTED_LABEL = 90.0
_MAX_NAMED = 12  # heads, each with its name; of more, only some have it


@dataclass
class QueryLines:
    """The lines of one band. `lay_out` decides the sizes, `draw` draws them."""

    band: Band
    theme: Theme
    colormap: str | None = None

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(panel.title for panel in self.band.panels)

    @property
    def _right(self) -> float:
        return widest(self._names, LABEL_SIZE) + 12 if any(self._names) else 6.0

    @property
    def header(self) -> Header:
        """What stands above it."""
        return Header(self.band.title, self.band.formula)

    def natural_width(self) -> float:
        """Return the width at which its queries are neither near nor far."""
        return min(max(self.band.panels[0].values.shape[0] * _NATURAL_PITCH, 180.0), 380.0) + _NUMBERS + self._right

    def lay_out(self, width: float, *, is_fixed: bool) -> float:
        """Decide every size for a width, which the axes fill if it is fixed, and return the height."""
        self.page_width = width
        self.width = max(width - _NUMBERS - self._right, 40.0)
        labels = self.band.panels[0].row_labels
        self.columns = column_labels(labels, self.width / len(labels), _MAX_SLANTED_LABEL)
        return self.header.height(width) + _HEIGHT + 5 + self.columns.extent + 2 + _AXIS_NAME

    def legend(self) -> list[tuple[str, str, str]]:
        """Return what colours mean: nothing that does not stand beside the lines."""
        return []

    def draw(self, page: Page, left: float, top: float) -> None:
        """Draw all lines into one pair of axes; a query whose number is not finite has none."""
        page.write_header(left, top, self.header, self.page_width)
        top += self.header.height(self.page_width)
        axes = page.add_axes(left + _NUMBERS, top, self.width, _HEIGHT)
        colors = self._colors()
        count = self.band.panels[0].values.shape[0]
        marker = "o" if count <= _MAX_MARKED else ""
        for panel, color in zip(self.band.panels, colors, strict=True):
            numbers = panel.values[:, 0].astype(np.float64)
            axes.plot(
                np.arange(count),
                np.where(np.isfinite(numbers), numbers, np.nan),
                color=color,
                marker=marker,
                markersize=3.5,
                linewidth=1.1,
                label=panel.title or self.band.step,
            )
        axes.set_xlim(-0.5, count - 0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=page.theme.frame, alpha=0.3, linewidth=0.5)
        axes.set_axisbelow(True)
        page.label_columns(axes, self.columns)
        axes.set_xlabel(self.band.axes[0].replace("_", " "), size=LABEL_SIZE, color=page.theme.faint_text_color)
        axes.xaxis.set_label_coords(0.5, -(5 + self.columns.extent + 2 + _AXIS_NAME / 2) / _HEIGHT)
        axes.xaxis.label.set_verticalalignment("center")
        unit = STATISTIC_MEANINGS.get(self.band.step, self.band.step)
        axes.set_ylabel(unit, size=LABEL_SIZE, color=page.theme.faint_text_color)
        axes.yaxis.set_label_coords(-(_NUMBERS - LABEL_SIZE * 0.7) / self.width, 0.5)
        axes.tick_params(axis="y", labelsize=NUMBER_SIZE)
        self._name_lines(page, colors, left + _NUMBERS + self.width + 8, top)

    def _colors(self) -> list[str]:
        count = len(self.band.panels)
        if self.colormap is None and count <= len(self.theme.series):
            return list(self.theme.series[:count])
        colors = colormaps[self.colormap or "viridis"](np.linspace(0.15, 0.9, count))
        return [to_hex(color) for color in colors]

    def _name_lines(self, page: Page, colors: list[str], left: float, top: float) -> None:
        """Write the names of the heads in their colours; of many, every so many."""
        stride = -(-len(colors) // _MAX_NAMED)
        shown = [i for i, name in enumerate(self._names) if name][::stride]
        for place, i in enumerate(shown):
            page.write_line(left, top + place * LABEL_SIZE * LINE_HEIGHT, self._names[i], LABEL_SIZE, color=colors[i])
