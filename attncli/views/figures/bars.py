"""Where one query looks: a bar for each key, a panel for each head. Entry: `KeyBars`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from attncli.types import NumpyArray
from attncli.views.figures.heat_maps import choose_column_count
from attncli.views.figures.labels import Header, column_labels, row_labels, widest
from attncli.views.figures.page import Page
from attncli.views.figures.panels import Band, Panel
from attncli.views.figures.theme import LABEL_SIZE, LINE_HEIGHT, NUMBER_SIZE, Theme

_PANEL_TITLE = LABEL_SIZE * LINE_HEIGHT + 3
_AXIS_NAME = LABEL_SIZE * LINE_HEIGHT
_TICK = 5.0
_GAP = 14.0
_NUMBERS_BELOW = NUMBER_SIZE * LINE_HEIGHT + _TICK
_MAX_LYING_KEYS = 40  # with more, bars stand side by side, across the width
_KEY_PITCH = 13.0
_LEAST_PANEL, _LARGEST_NATURAL_PANEL = 20.0, 260.0  # the second, where no width is asked for
_STANDING_HEIGHT, _STANDING_LEFT = 96.0, 36.0
_MAX_SLANTED_LABEL = 90.0


@dataclass
class KeyBars:
    """The bars of one band: the step's numbers of one query. `lay_out` decides the sizes, `draw` draws them."""

    band: Band
    theme: Theme

    @property
    def _keys(self) -> tuple[str, ...]:
        return self.band.panels[0].column_labels

    @property
    def _is_lying(self) -> bool:
        return len(self._keys) <= _MAX_LYING_KEYS

    @property
    def _column_count(self) -> int:
        return min(choose_column_count(len(self.band.panels)), 4) if self._is_lying else 1

    def _number_width(self) -> float:
        return widest([text for panel in self.band.panels for text in panel.texts[0]], NUMBER_SIZE)

    @property
    def header(self) -> Header:
        """What stands above it."""
        return Header(f"{self.band.title} of query {self.band.panels[0].row_labels[0]}", self.band.formula)

    def natural_width(self) -> float:
        """Return the width at which its bars are neither short nor long."""
        if not self._is_lying:
            return 440.0
        panel = 190.0 if self._column_count == 1 else 120.0
        labels = min(widest(self._keys), 110.0) + _TICK + _AXIS_NAME
        return labels + self._column_count * (panel + _GAP)

    def lay_out(self, width: float, *, is_fixed: bool) -> float:
        """Decide every size for a width, which the axes fill if it is fixed, and return the height."""
        self.page_width = width
        count = self._column_count
        row_count = math.ceil(len(self.band.panels) / count)
        if self._is_lying:
            label_width = min(widest(self._keys), 0.3 * width)
            self.left = label_width + _TICK + _AXIS_NAME
            self.panel_width = max((width - self.left - count * _GAP + _GAP) / count, _LEAST_PANEL)
            if not is_fixed:
                self.panel_width = min(self.panel_width, _LARGEST_NATURAL_PANEL)
            self.panel_height = _KEY_PITCH * len(self._keys) + 4
            self.labels = row_labels(self._keys, _KEY_PITCH, label_width)
            between, below = _NUMBERS_BELOW, _NUMBERS_BELOW + _AXIS_NAME
        else:
            self.left, self.panel_width, self.panel_height = _STANDING_LEFT, width - _STANDING_LEFT, _STANDING_HEIGHT
            self.labels = column_labels(self._keys, self.panel_width / len(self._keys), _MAX_SLANTED_LABEL)
            between, below = 0.0, _TICK + self.labels.extent + 2 + _AXIS_NAME
        self.pitch = self.panel_height + _GAP + between + (_PANEL_TITLE if self.band.has_titles else 0)
        return self.header.height(width) + row_count * self.pitch - _GAP - between + below

    def legend(self) -> list[tuple[str, str, str]]:
        """Return what is marked where there are no bars: hidden keys by a shade, and dropped weights."""
        entries = [entry for panel in self.band.panels for entry in panel.find_legend(self.theme)]
        return [entry for entry in entries if entry[2] in ("hidden key", "dropped")]

    def draw(self, page: Page, left: float, top: float) -> None:
        """Draw all panels; they share the scale of their bars."""
        page.write_header(left, top, self.header, self.page_width)
        top += self.header.height(self.page_width) + (_PANEL_TITLE if self.band.has_titles else 0)
        low, high = self._limits()
        for i, panel in enumerate(self.band.panels):
            row, column = divmod(i, self._column_count)
            axes = page.add_axes(
                left + self.left + column * (self.panel_width + _GAP),
                top + row * self.pitch,
                self.panel_width,
                self.panel_height,
            )
            if panel.title:
                axes.set_title(panel.title, size=LABEL_SIZE, color=page.theme.text_color, pad=3, y=1.0)
            draw = self._draw_lying if self._is_lying else self._draw_standing
            draw(page, axes, panel, (low, high))
            axes.spines[["top", "right"]].set_visible(False)
            if self._is_lying and column:
                axes.set_yticks([])
            is_last = i + self._column_count >= len(self.band.panels)
            self._name_axes(page, axes, has_rows=column == 0, has_columns=is_last)

    def _limits(self) -> tuple[float, float]:
        """Return the ends of the scale: 0, and the least and largest bars on either side of it."""
        numbers = np.concatenate([_finite(panel) for panel in self.band.panels])
        low, high = float(numbers.min(initial=0)), float(numbers.max(initial=0))
        return (low, high) if low < high else (0.0, 1.0)

    def _draw_lying(self, page: Page, axes: Axes, panel: Panel, limits: tuple[float, float]) -> None:
        numbers = _finite(panel)
        places = np.arange(len(numbers))
        axes.barh(places, numbers, height=0.72, color=self._colors(numbers))
        self._shade_hidden(axes.axhspan, panel)
        low, high = limits
        # Numbers stand at the ends of the bars: the scale leaves room for them.
        room = (self._number_width() + 6) / self.panel_width
        spread = (high - low) / max(1 - room * (2 if low < 0 else 1), 0.2)
        axes.set_xlim(low - room * spread if low < 0 else 0, high + room * spread)
        for place, number, text in zip(places, numbers, panel.texts[0], strict=True):
            is_negative = number < 0
            axes.annotate(
                text,
                (number, place),
                xytext=(-3 if is_negative else 3, 0),
                textcoords="offset points",
                size=NUMBER_SIZE,
                color=page.theme.text_color,
                ha="right" if is_negative else "left",
                va="center_baseline",
            )
        axes.set_ylim(len(numbers) - 0.4, -0.6)
        page.label_rows(axes, self.labels)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=NUMBER_SIZE)
        axes.locator_params(axis="x", nbins=4 if self.panel_width < 140 else 6)
        if low < 0:
            axes.axvline(0, color=page.theme.frame, linewidth=0.6)

    def _draw_standing(self, page: Page, axes: Axes, panel: Panel, limits: tuple[float, float]) -> None:
        numbers = _finite(panel)
        axes.bar(np.arange(len(numbers)), numbers, width=0.9, color=self._colors(numbers), linewidth=0)
        self._shade_hidden(axes.axvspan, panel)
        low, high = limits
        spread = high - low
        axes.set_ylim(low - 0.05 * spread if low < 0 else 0, high + 0.05 * spread)
        axes.set_xlim(-0.5, len(numbers) - 0.5)
        axes.tick_params(axis="y", labelsize=NUMBER_SIZE)
        page.label_columns(axes, self.labels)

    def _colors(self, numbers: NumpyArray) -> list[str]:
        return [self.theme.bar if number >= 0 else self.theme.negative_bar for number in numbers.tolist()]

    def _shade_hidden(self, shade: object, panel: Panel) -> None:
        """Shade the places of hidden keys, run by run."""
        if panel.hidden is None:
            return
        edges = np.flatnonzero(np.diff(np.concatenate([[False], panel.hidden[0], [False]]).astype(np.int8)))
        for first, last in edges.reshape(-1, 2).tolist():
            shade(first - 0.5, last - 0.5, color=self.theme.hidden, linewidth=0, zorder=0)  # type: ignore[operator]

    def _name_axes(self, page: Page, axes: Axes, *, has_rows: bool, has_columns: bool) -> None:
        color = page.theme.faint_text_color
        if self._is_lying and has_rows:
            axes.set_ylabel("key", size=LABEL_SIZE, color=color)
            axes.yaxis.set_label_coords(-(self.left - LABEL_SIZE * 0.7) / self.panel_width, 0.5)
        if not self._is_lying and not has_columns:
            axes.set_xticks([])
        if has_columns:
            name = self.band.step if self._is_lying else "key"
            below = _NUMBERS_BELOW if self._is_lying else _TICK + self.labels.extent + 2
            axes.set_xlabel(name, size=LABEL_SIZE, color=color)
            axes.xaxis.set_label_coords(0.5, -(below + _AXIS_NAME / 2) / self.panel_height)
            axes.xaxis.label.set_verticalalignment("center")


def _finite(panel: Panel) -> NumpyArray:
    """Return the numbers of the one query; 0 where there is no bar."""
    numbers: NumpyArray = np.where(panel.blank[0], 0.0, panel.values[0].astype(np.float64))
    return numbers
