"""Heat maps: a panel for each head, on one scale, with a colour bar. Entry: `HeatMaps`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from attncli.types import NumpyArray
from attncli.views.figures.labels import Header, column_labels, row_labels, widest
from attncli.views.figures.page import Page
from attncli.views.figures.panels import Band, Panel
from attncli.views.figures.scales import ColorScale, choose_scale
from attncli.views.figures.theme import LABEL_SIZE, LINE_HEIGHT, NUMBER_SIZE, Theme, text_color_on

_PANEL_TITLE = LABEL_SIZE * LINE_HEIGHT + 3
_AXIS_NAME = LABEL_SIZE * LINE_HEIGHT
_TICK = 5.0  # between a label and its axes
_GAP = 10.0  # between two panels, and before the colour bar
_BAR_WIDTH, _BAR_LABELS, _LONGEST_BAR = 9.0, 40.0, 260.0
_NUMBER_PADDING = 5.0
_MAX_NUMBERED_CELLS = 1024
_LEAST_RULED_CELL = 9.0  # between smaller ones, lines would hide them
_MAX_ASPECT = 3.0  # of a panel whose cells are square
_LEAST_PANEL, _LARGEST_PANEL = 110.0, 330.0  # where no width is asked for
_LEAST_GRID_PANEL, _LARGEST_GRID_PANEL = 84.0, 160.0
_NATURAL_LABEL = 110.0  # of rows, where no width is asked for
_LEAST_CELL = 12.0  # of a panel, however narrow the figure
_MAX_LABEL_SHARE = 0.28  # of the width, for the labels of rows
_MAX_SLANTED_LABEL = 90.0
_SMALL_CELL, _MAX_CELL = 14.0, 40.0


def choose_column_count(panel_count: int) -> int:
    """Return how many panels stand side by side: the grid is a little wider than high, and no row is nearly empty."""
    if panel_count <= 4:
        return panel_count
    count = math.ceil(math.sqrt(panel_count))
    return next((n for n in (count, count + 1) if panel_count % n == 0), count)


@dataclass
class HeatMaps:
    """The heat maps of one band. `lay_out` decides their sizes, `draw` draws them."""

    band: Band
    theme: Theme
    colormap: str | None = None
    scale: ColorScale | None = None  # None: it is chosen by this band alone
    column_count: int = field(init=False)

    def __post_init__(self) -> None:
        """Choose the scale, and how many panels stand side by side."""
        self.column_count = choose_column_count(len(self.band.panels))
        if self.scale is None and not self.band.is_boolean:
            self.scale = choose_scale(self.band.step, [p.values for p in self.band.panels], self.theme, self.colormap)

    # ── sizes ────────────────────────────────────────────────────────────────────────────────────
    @property
    def _shape(self) -> tuple[int, int]:
        rows, columns = self.band.panels[0].values.shape
        return rows, columns

    @property
    def _row_names(self) -> tuple[str, ...]:
        return self.band.panels[0].row_labels

    @property
    def _column_names(self) -> tuple[str, ...]:
        return self.band.panels[0].column_labels

    @property
    def _bar_extent(self) -> float:
        return 0.0 if self.scale is None else _GAP + _BAR_WIDTH + _BAR_LABELS

    @property
    def header(self) -> Header:
        """What stands above it."""
        return Header(self.band.title, self.band.formula)

    def natural_width(self) -> float:
        """Return the width at which its cells are neither small nor large."""
        labels = self._label_width(_NATURAL_LABEL) + _TICK + _AXIS_NAME
        return labels + self.column_count * self._natural_panel() + self._beside_panels

    def _natural_panel(self) -> float:
        """Return the width of a panel whose cells are neither small nor large."""
        rows, columns = self._shape
        cell = _SMALL_CELL
        if rows * columns <= _MAX_NUMBERED_CELLS and columns <= 12:
            cell = min(_MAX_CELL, max(_SMALL_CELL, self._number_width() + _NUMBER_PADDING))
        is_single = len(self.band.panels) == 1
        least = _LEAST_PANEL if is_single else _LEAST_GRID_PANEL
        largest = _LARGEST_PANEL if is_single else _LARGEST_GRID_PANEL
        return min(max(columns * cell, min(rows, _MAX_ASPECT * columns) * cell * 0.6, least), largest)

    def _label_width(self, at_most: float) -> float:
        """Return how wide the labels of the rows are, or shall be."""
        return min(widest(self._row_names), at_most)

    @property
    def _beside_panels(self) -> float:
        """What the gaps between panels and the colour bar take of the width."""
        return (self.column_count - 1) * _GAP + self._bar_extent

    def _number_width(self) -> float:
        texts = [text for panel in self.band.panels[:4] for row in panel.texts for text in row]
        return widest(texts, NUMBER_SIZE)

    def lay_out(self, width: float, *, is_fixed: bool) -> float:
        """Decide every size for a width, which panels fill if it is fixed, and return the height."""
        rows, columns = self._shape
        self.width = width
        label_width = self._label_width(_MAX_LABEL_SHARE * width)
        self._size_panels(label_width, is_fixed=is_fixed)
        self.rows = row_labels(self._row_names, self.panel_height / rows, label_width)
        self._size_panels(self.rows.extent, is_fixed=is_fixed)  # the labels that have room may be narrower than others
        self.columns = column_labels(self._column_names, self.panel_width / columns, _MAX_SLANTED_LABEL)
        self.row_count = math.ceil(len(self.band.panels) / self.column_count)
        self.panel_pitch = self.panel_height + _GAP + (_PANEL_TITLE if self.band.has_titles else 0)
        labels_below = _TICK + self.columns.extent + 2 + _AXIS_NAME
        return self.header.height(width) + self.row_count * self.panel_pitch - _GAP + labels_below

    def _size_panels(self, label_width: float, *, is_fixed: bool) -> None:
        """Decide the size of a panel beside labels of a width."""
        rows, columns = self._shape
        self.left = label_width + _TICK + _AXIS_NAME
        self.panel_width = max((self.width - self.left - self._beside_panels) / self.column_count, _LEAST_CELL)
        if not is_fixed:
            self.panel_width = min(self.panel_width, self._natural_panel())
        aspect = rows / columns
        self.panel_height = self.panel_width * min(max(aspect, 1 / _MAX_ASPECT), _MAX_ASPECT / 2)
        if aspect < 1 / _MAX_ASPECT:
            self.panel_height = max(min(self.panel_width / _MAX_ASPECT, 22.0 * rows), self.panel_width * aspect)

    def _panel_titles(self) -> list[str]:
        """Return the titles of the panels: `head 12`, or `12` where that has no room."""
        titles = [panel.title for panel in self.band.panels]
        has_room = widest(titles) + 4 <= self.panel_width + _GAP
        return titles if has_room else [title.rpartition(" ")[2] for title in titles]

    # ── drawing ──────────────────────────────────────────────────────────────────────────────────
    def legend(self) -> list[tuple[str, str, str]]:
        """Return what the cells without a colour of the scale mean, as (colour, glyph, meaning)."""
        if self.band.is_boolean:
            return [(self.theme.bar, "", "visible key"), (self.theme.hidden, "", "hidden key")]
        return [entry for panel in self.band.panels for entry in panel.find_legend(self.theme)]

    def draw(self, page: Page, left: float, top: float) -> None:
        """Draw all panels and the colour bar."""
        page.write_header(left, top, self.header, self.width)
        top += self.header.height(self.width)
        first_top = top + (_PANEL_TITLE if self.band.has_titles else 0)
        image = None
        for i, (panel, title) in enumerate(zip(self.band.panels, self._panel_titles(), strict=True)):
            row, column = divmod(i, self.column_count)
            panel_left = left + self.left + column * (self.panel_width + _GAP)
            panel_top = first_top + row * self.panel_pitch
            axes = page.add_axes(panel_left, panel_top, self.panel_width, self.panel_height)
            if title:
                axes.set_title(title, size=LABEL_SIZE, color=page.theme.text_color, pad=3, y=1.0)
            image = self._draw_panel(axes, panel)
            has_labels_below = i + self.column_count >= len(self.band.panels)
            self._label(page, axes, has_rows=column == 0, has_columns=has_labels_below)
        if self.scale is not None and image is not None:
            bar_left = left + self.left + self.column_count * (self.panel_width + _GAP)
            grid_height = (self.row_count - 1) * self.panel_pitch + self.panel_height
            self._draw_bar(page, image, bar_left, first_top, min(grid_height, max(self.panel_height, _LONGEST_BAR)))

    def _draw_panel(self, axes: Axes, panel: Panel) -> AxesImage:
        rows, columns = panel.values.shape
        if self.scale is None:
            colors = ListedColormap([self.theme.hidden, self.theme.bar])
            image = axes.imshow(panel.values, aspect="auto", cmap=colors, vmin=0, vmax=1, interpolation="nearest")
        else:
            values = np.ma.masked_array(panel.values, panel.blank) if panel.blank.any() else panel.values
            image = axes.imshow(values, aspect="auto", cmap=self.scale.colormap, norm=self.scale.norm)
            self._draw_marks(axes, panel)
        if min(self.panel_width / columns, self.panel_height / rows) >= _LEAST_RULED_CELL:
            color = self.theme.ground
            axes.hlines(np.arange(1, rows) - 0.5, -0.5, columns - 0.5, color=color, linewidth=0.5)
            axes.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, color=color, linewidth=0.5)
        self._write_numbers(axes, panel)
        return image

    def _draw_marks(self, axes: Axes, panel: Panel) -> None:
        """Colour the cells that have no number on the scale, but for the hidden ones, which have that of missing data."""
        marks = [mark for mark in panel.find_marks(self.theme) if mark[0] != self.theme.hidden]
        if not marks:
            return
        kinds = np.full(panel.values.shape, np.nan, np.float32)
        for kind, (_, _, cells) in enumerate(marks):
            kinds[cells] = kind
        colors = ListedColormap([color for color, _, _ in marks])
        axes.imshow(kinds, aspect="auto", cmap=colors, vmin=-0.5, vmax=len(marks) - 0.5, interpolation="nearest")

    def _has_room_for_numbers(self, panel: Panel) -> bool:
        rows, columns = panel.values.shape
        if rows * columns > _MAX_NUMBERED_CELLS or self.panel_height / rows < NUMBER_SIZE + 2:
            return False
        return bool(self._number_width() + 3 <= self.panel_width / columns)

    def _write_numbers(self, axes: Axes, panel: Panel) -> None:
        """Write the number of each cell in it, where all have room."""
        if not self._has_room_for_numbers(panel) or self.band.is_boolean:
            return
        colors = self._cell_colors(panel)
        for i, row in enumerate(panel.texts):
            for j, text in enumerate(row):
                is_hidden = panel.hidden is not None and panel.hidden[i, j]
                text_color = self.theme.faint_text_color if is_hidden else text_color_on(tuple(colors[i, j, :3]))
                axes.text(j, i, text, size=NUMBER_SIZE, color=text_color, ha="center", va="center_baseline")

    def _cell_colors(self, panel: Panel) -> NumpyArray:
        """Return the colour that each cell is filled with: (row, column, 4)."""
        assert self.scale is not None
        with np.errstate(invalid="ignore"):
            colors = self.scale.colors_of(np.where(panel.blank, 0.0, panel.values))
        for color, _, cells in panel.find_marks(self.theme):
            colors[cells] = to_rgba(color)
        return colors

    def _label(self, page: Page, axes: Axes, *, has_rows: bool, has_columns: bool) -> None:
        row_axis, column_axis = (*self.band.axes, "")[:2]
        if has_rows:
            page.label_rows(axes, self.rows)
            axes.set_ylabel(_axis_name(row_axis), size=LABEL_SIZE, color=page.theme.faint_text_color)
            axes.yaxis.set_label_coords(-(self.left - LABEL_SIZE * 0.7) / self.panel_width, 0.5)
        else:
            axes.set_yticks([])
        if has_columns:
            page.label_columns(axes, self.columns)
            axes.set_xlabel(_axis_name(column_axis), size=LABEL_SIZE, color=page.theme.faint_text_color)
            below = _TICK + self.columns.extent + 2 + _AXIS_NAME / 2
            axes.xaxis.set_label_coords(0.5, -below / self.panel_height)
            axes.xaxis.label.set_verticalalignment("center")
        else:
            axes.set_xticks([])

    def _draw_bar(self, page: Page, image: AxesImage, left: float, top: float, height: float) -> None:
        axes = page.add_axes(left, top, _BAR_WIDTH, height)
        bar = page.figure.colorbar(image, cax=axes)
        bar.outline.set_visible(False)
        axes.tick_params(
            length=2.5, width=0.6, color=page.theme.frame, labelcolor=page.theme.text_color, labelsize=NUMBER_SIZE
        )
        if height < 60:
            axes.yaxis.set_major_locator(MaxNLocator(2))
        if self.scale and self.scale.note:
            axes.set_title(
                self.scale.note, size=NUMBER_SIZE, color=page.theme.faint_text_color, loc="left", pad=7, y=1.0
            )


def _axis_name(axis: str) -> str:
    return axis.replace("_", " ")


def share_scale(bands: Sequence[HeatMaps]) -> None:
    """Give the bands of one step one scale."""
    panels = [panel.values for heat_maps in bands for panel in heat_maps.band.panels]
    if bands and not bands[0].band.is_boolean:
        scale = choose_scale(bands[0].band.step, panels, bands[0].theme, bands[0].colormap)
        for heat_maps in bands:
            heat_maps.scale = scale
