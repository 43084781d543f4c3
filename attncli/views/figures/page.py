"""The sheet that a figure is drawn on: lengths in points from its upper left corner. Entry: `Page`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from attncli.views.figures.labels import SLANT, Header, ShownLabels, fit_text, text_width
from attncli.views.figures.theme import HEADER_SIZE, LABEL_SIZE, LINE_HEIGHT, NUMBER_SIZE, Theme

POINTS_PER_INCH = 72.0


class Page:
    """A figure whose parts are placed by hand, so that nothing is laid out twice."""

    def __init__(self, width: float, height: float, dpi: int, theme: Theme) -> None:
        """Make an empty page of a width and a height."""
        size = (width / POINTS_PER_INCH, height / POINTS_PER_INCH)
        self.figure = Figure(figsize=size, dpi=dpi, facecolor=theme.ground)
        FigureCanvasAgg(self.figure)
        self.width = width
        self.height = height
        self.theme = theme

    def add_axes(self, left: float, top: float, width: float, height: float, **properties: Any) -> Axes:
        """Add axes in a rectangle; properties are those of matplotlib."""
        place = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(place, facecolor=self.theme.ground, **properties)
        for spine in axes.spines.values():
            spine.set_color(self.theme.frame)
            spine.set_linewidth(0.6)
        axes.tick_params(
            length=2.5, width=0.6, color=self.theme.frame, labelcolor=self.theme.text_color, labelsize=LABEL_SIZE
        )
        return axes

    def write_line(self, left: float, top: float, text: str, size: float, **properties: Any) -> None:
        """Write a line of text below `top`, with properties of matplotlib; it is never mathematics."""
        properties = {"color": self.theme.text_color, "va": "top"} | properties
        self.figure.text(left / self.width, 1 - top / self.height, text, size=size, **properties)

    def write_header(self, left: float, top: float, header: Header, width: float) -> None:
        """Write the header of a band."""
        color = self.theme.faint_text_color
        self.write_line(left, top, fit_text(header.name, width, HEADER_SIZE, "bold"), HEADER_SIZE, weight="bold")
        lines = header.formula_lines(width)
        for i, line in enumerate(lines, start=1):
            self.write_line(left, top + i * HEADER_SIZE * LINE_HEIGHT, line, HEADER_SIZE, color=color)
        if header.formula and not lines:
            self.write_line(left + header.formula_indent, top, header.formula, HEADER_SIZE, color=color)

    def draw_legend(self, left: float, top: float, entries: Iterable[tuple[str, str, str]]) -> None:
        """Draw a row of colours with their meanings, each as (colour, glyph in it, meaning)."""
        side = NUMBER_SIZE + 1
        for color, glyph, meaning in entries:
            place = (left / self.width, 1 - (top + side) / self.height)
            patch = Rectangle(
                place,
                side / self.width,
                side / self.height,
                facecolor=color,
                edgecolor=self.theme.frame,
                linewidth=0.6,
                transform=self.figure.transFigure,
                label=meaning,
            )
            self.figure.add_artist(patch)
            if glyph:
                self.write_line(left + side / 2, top + side / 2, glyph, 6, ha="center", va="center_baseline")
            self.write_line(left + side + 3, top + side / 2, meaning, NUMBER_SIZE, va="center_baseline")
            left += side + 3 + text_width(meaning, NUMBER_SIZE) + 12

    def label_rows(self, axes: Axes, labels: ShownLabels) -> None:
        """Put labels beside the rows of axes."""
        axes.set_yticks(labels.places, labels.texts)

    def label_columns(self, axes: Axes, labels: ShownLabels) -> None:
        """Put labels below the columns of axes."""
        axes.set_xticks(labels.places, labels.texts)
        for label in axes.get_xticklabels() if labels.is_slanted else ():
            label.set(rotation=SLANT, ha="right", rotation_mode="anchor")
