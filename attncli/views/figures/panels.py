"""What a figure shows of a result: `Panel` is one matrix or row of it, `make_bands` gathers those that stand together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from attncli.types import Attention, NumpyArray
from attncli.views.figures.labels import spell_label
from attncli.views.figures.theme import Theme
from attncli.views.labelled_matrices import LabelledMatrix, SlicedStep

DROPPED_GLYPH = "×"  # the – of tables would be taken for a minus beside a bar


@dataclass(frozen=True)
class Panel:
    """One head's slice of a step, and which of its cells have no number to be coloured by."""

    matrix: LabelledMatrix
    title: str  # head 1

    @property
    def values(self) -> NumpyArray:
        return self.matrix.values

    @cached_property
    def hidden(self) -> NumpyArray | None:
        """Which cells are of hidden keys: booleans (row, column); None: it is not known that any is."""
        marks = self.matrix.marks
        return marks.find_hidden_cells(0, len(self.values)) if marks else None

    @cached_property
    def dropped(self) -> NumpyArray | None:
        """Which cells are of dropped weights, likewise."""
        marks = self.matrix.marks
        return marks.find_dropped_cells(0, len(self.values)) if marks else None

    @cached_property
    def blank(self) -> NumpyArray:
        """Which cells have no number to be coloured by: hidden, dropped, or not finite."""
        blank = ~np.isfinite(self.values) if self.values.dtype.kind == "f" else np.zeros(self.values.shape, bool)
        for some in (self.hidden, self.dropped):
            if some is not None:
                blank |= some
        return blank

    def find_marks(self, theme: Theme) -> list[tuple[str, str, NumpyArray]]:
        """Return the kinds of cells without a colour that there are, as (colour, meaning, which cells)."""
        kinds: list[tuple[str, str, NumpyArray | None]] = [
            (theme.hidden, "hidden key", self.hidden),
            (theme.dropped, "dropped", self.dropped),
        ]
        if self.values.dtype.kind == "f" and not np.isfinite(self.values).all():
            shown = np.ones(self.values.shape, bool) if self.hidden is None else ~self.hidden
            kinds += [
                (theme.nan, "NaN", np.isnan(self.values) & shown),
                (theme.minus_infinity, "−∞", (self.values == -np.inf) & shown),
                (theme.infinity, "∞", (self.values == np.inf) & shown),
            ]
        return [(color, meaning, cells) for color, meaning, cells in kinds if cells is not None and cells.any()]

    def find_legend(self, theme: Theme) -> list[tuple[str, str, str]]:
        """Return the same kinds for a legend, as (colour, glyph, meaning)."""
        marks = self.find_marks(theme)
        return [(color, DROPPED_GLYPH if meaning == "dropped" else "", meaning) for color, meaning, _ in marks]

    @cached_property
    def texts(self) -> list[list[str]]:
        """The text of each cell: its number as tables have it, or its mark."""
        column_count = len(self.matrix.column_labels)
        rows = self.matrix.format_rows(0, len(self.values))
        texts = [[text.replace("-", "−") for text in row[:column_count]] for row in rows]
        if self.dropped is not None:
            for i, j in np.argwhere(self.dropped).tolist():
                texts[i][j] = DROPPED_GLYPH
        return texts

    @cached_property
    def row_labels(self) -> tuple[str, ...]:
        """The labels of the rows, as they are drawn."""
        return tuple(map(spell_label, self.matrix.row_labels))

    @cached_property
    def column_labels(self) -> tuple[str, ...]:
        """The labels of the columns, as they are drawn."""
        return tuple(map(spell_label, self.matrix.column_labels))


@dataclass(frozen=True)
class Band:
    """The panels of one step and one batch item: they share their labels and their scale."""

    step: str
    item: str  # batch 1; empty: there is no batch
    formula: str
    panels: tuple[Panel, ...]
    axes: tuple[str, ...]  # of each panel: ("query", "key"), or ("query",)

    @property
    def title(self) -> str:
        """`weights · batch 1`"""
        return f"{self.step} · {self.item}" if self.item else self.step

    @property
    def has_titles(self) -> bool:
        """Whether its panels have titles: those of heads."""
        return any(panel.title for panel in self.panels)

    @property
    def is_boolean(self) -> bool:
        return bool(self.panels[0].values.dtype == bool)


def make_bands(attention: Attention, steps: Sequence[str], precision: int) -> list[Band]:
    """Gather the panels of some steps, batch item by batch item.

    Args:
        attention: the result.
        steps: names of its steps.
        precision: digits after the point, where cells have room for their numbers.
    """
    bands: list[Band] = []
    for step in attention:
        if step.name not in steps:
            continue
        sliced = SlicedStep(attention, step, precision)
        lengths = [sliced.length(axis) for axis in sliced.slice_axes]
        panels: dict[str, list[Panel]] = {}  # by batch item
        for index in np.ndindex(*lengths):
            matrix = sliced.matrix(index)
            parts = matrix.slice_label.split(" · ") if matrix.slice_label else []
            item = parts.pop(0) if "batch" in sliced.slice_axes else ""
            panels.setdefault(item, []).append(Panel(matrix, " · ".join(parts)))
        bands += (Band(step.name, item, step.formula, tuple(p), sliced.matrix_axes) for item, p in panels.items())
    return bands
