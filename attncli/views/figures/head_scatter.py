"""One head against another: a point for each query and key, its place given by the two heads. Entry: `HeadScatter`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.patheffects import Normal, Stroke

from attncli.views.figures.labels import Header
from attncli.views.figures.page import Page
from attncli.views.figures.panels import Band
from attncli.views.figures.theme import LABEL_SIZE, LINE_HEIGHT, NUMBER_SIZE, Theme

_AXIS_NAME = LABEL_SIZE * LINE_HEIGHT
_LEFT = 46.0
_BELOW = NUMBER_SIZE * LINE_HEIGHT + 6 + _AXIS_NAME
_NATURAL_SIDE, _LARGEST_SIDE = 260.0, 420.0
_NAMED_POINTS = 3  # those furthest from the diagonal; a name that would lie on another is left out
_MAX_OUTLINED_POINTS = 2000


@dataclass
class HeadScatter:
    """The points of one band of two panels. `lay_out` decides the sizes, `draw` draws them."""

    band: Band
    theme: Theme

    @property
    def header(self) -> Header:
        """What stands above it."""
        return Header(f"{self.band.title} · {self.band.panels[0].title} against {self.band.panels[1].title}", "")

    def natural_width(self) -> float:
        """Return the width at which it is easy to read."""
        return _LEFT + _NATURAL_SIDE + 8

    def lay_out(self, width: float, *, is_fixed: bool) -> float:
        """Decide every size for a width, which the axes fill if it is fixed, and return the height."""
        self.page_width = width
        self.side = max(min(width - _LEFT - 8, _LARGEST_SIDE if is_fixed else _NATURAL_SIDE), 40.0)
        return self.header.height(width) + self.side + _BELOW

    def legend(self) -> list[tuple[str, str, str]]:
        """Return what colours mean: there is one."""
        return []

    def draw(self, page: Page, left: float, top: float) -> None:
        """Draw the points that both heads have a number for, and the line on which heads agree."""
        first, second = self.band.panels
        page.write_header(left, top, self.header, self.page_width)
        axes = page.add_axes(left + _LEFT, top + self.header.height(self.page_width), self.side, self.side)
        is_shown = ~(first.blank | second.blank)
        x, y = first.values[is_shown].astype(np.float64), second.values[is_shown].astype(np.float64)
        low, high = min(x.min(initial=0), y.min(initial=0)), max(x.max(initial=0), y.max(initial=0))
        low, high = (low, high) if low < high else (0.0, 1.0)
        margin = 0.04 * (high - low)
        axes.axline((low, low), (high, high), color=page.theme.frame, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        is_outlined = len(x) <= _MAX_OUTLINED_POINTS
        axes.scatter(
            x,
            y,
            s=18 if is_outlined else 3,
            facecolor=self.theme.bar,
            edgecolor=self.theme.ground if is_outlined else "none",
            linewidth=0.5,
            alpha=0.75,
        )
        axes.set_xlim(low - margin, high + margin)
        axes.set_ylim(low - margin, high + margin)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=NUMBER_SIZE)
        axes.set_xlabel(f"{self.band.step} · {first.title}", size=LABEL_SIZE, color=page.theme.faint_text_color)
        axes.set_ylabel(f"{self.band.step} · {second.title}", size=LABEL_SIZE, color=page.theme.faint_text_color)
        axes.xaxis.set_label_coords(0.5, -(NUMBER_SIZE * LINE_HEIGHT + 6 + _AXIS_NAME / 2) / self.side)
        axes.yaxis.set_label_coords(-(_LEFT - LABEL_SIZE * 0.7) / self.side, 0.5)
        axes.xaxis.label.set_verticalalignment("center")
        furthest = np.argsort(-np.abs(x - y), kind="stable")[:_NAMED_POINTS]
        queries, keys = np.nonzero(is_shown)
        line = NUMBER_SIZE * LINE_HEIGHT * (high - low + 2 * margin) / self.side  # as high as a name
        named: list[tuple[bool, float]] = []  # the side and the height of each
        for i in furthest.tolist():
            query, key = first.row_labels[queries[i]], first.column_labels[keys[i]]
            is_right = bool(x[i] > (low + high) / 2)
            if any(is_right == side and abs(y[i] - height) < line for side, height in named):
                continue
            named.append((is_right, float(y[i])))
            axes.annotate(
                f"{query} → {key}",
                (x[i], y[i]),
                xytext=(-5 if is_right else 5, 0),
                textcoords="offset points",
                size=NUMBER_SIZE,
                color=page.theme.text_color,
                ha="right" if is_right else "left",
                va="center_baseline",
                path_effects=[Stroke(linewidth=2.5, foreground=self.theme.ground), Normal()],  # other points lie below
            )
