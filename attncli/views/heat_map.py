"""Maps of matrices: a pixel for each number, two pixels in a character where there are colours. Entry: `print_heat_maps`.

Several heads stand beside each other. Where a terminal is too narrow a pixel stands for a square of numbers, and shows the
strongest of them: a mean would hide the one key that a query looks at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby, product

import numpy as np
from rich.cells import cell_len
from rich.text import Text

from attncli.output_formats import RenderOptions
from attncli.text import join_names
from attncli.views.heat import Heat
from attncli.views.heat_scale import Scale, find_scale
from attncli.views.labelled_matrices import LabelledMatrix, SlicedStep
from attncli.views.map_pixels import HIDDEN, choose_map_look, find_pixels
from attncli.views.shown_indices import count_shown, leading_and_trailing
from attncli.views.table_order import ResultTables
from attncli.views.table_style import TableStyle, heat_legend, pad_right

_PAGE_LINES = 150  # lines of a page of maps: what is shown of heads and items is chosen for them
_LINES_BESIDE_ROWS = 3  # of a map: its title, the indices of the columns, a blank one
_MAP_GAP = "   "  # between two maps
_LEAST_PIXELS = 32  # columns of a map below which heads are left out rather than more numbers put into a pixel
_LINES_PER_TICK = 4
_LEAST_COLUMNS_PER_TICK = 8


def is_drawable(step: SlicedStep) -> bool:
    """Return whether a map can show a step: it is a matrix of floats, or of yes and no."""
    return len(step.matrix_axes) == 2 and step.values.dtype.kind in "fb" and step.values.size > 0


def print_heat_maps(
    tables: ResultTables, steps: Sequence[SlicedStep], style: TableStyle, render_options: RenderOptions
) -> Iterator[None]:
    """Print a map of each matrix, step by step, and yield after each row of maps.

    Args:
        tables: of the result.
        steps: those that are drawn.
        style: and the console that maps are printed on.
        render_options: width and scale.
    """
    for step in steps:
        yield from _StepMaps(tables, step, style, render_options).print()


class _StepMaps:
    """The maps of one step."""

    def __init__(
        self, tables: ResultTables, step: SlicedStep, style: TableStyle, render_options: RenderOptions
    ) -> None:
        self.tables = tables
        self.step = step
        self.style = style
        self.width = render_options.width
        row_count, column_count = (step.length(axis) for axis in step.matrix_axes)
        first = self._matrix((0,) * len(step.slice_axes))
        self.formula = first.formula
        scale = find_scale(first, render_options.normalize)
        self.has_scale = scale is not None  # yes and no have none
        self.scale = scale or Scale(1.0)
        self.look = choose_map_look(style.color_system, has_unicode=style.has_unicode, is_signed=self.scale.is_signed)
        self.margin = 1 + max(len(_index_of(label)) for label in first.row_labels)
        at = tables.attention.at
        largest = [f"{axis} {max(at.get(axis, range(step.length(axis))))}" for axis in step.slice_axes]
        self._title_width = len(" · ".join(largest))
        self._shape = row_count, column_count
        self.block = self._choose_block()
        self.kinds: set[int] = set()  # of pixels that are no number

    def print(self) -> Iterator[None]:
        """Print heading, legend and maps, and what was left out."""
        console = self.style.console
        console.print()
        parts = [Text(self.step.step.name, style="bold"), Text(self.formula)]
        self.style.print_parts(parts, _MAP_GAP)
        if self.has_scale:
            self.style.print_scale(self._legend())
        if self.block > 1:
            what = "furthest from 0" if self.scale.is_signed else "largest"
            self.style.print_note([f"each pixel is the {what} of {self.block} × {self.block} numbers"])
        shown, left_out = self._choose()
        if left_out:
            self.style.print_note([f"{join_names(left_out)}; --full shows all, --at chooses"])
        for start in range(0, len(shown), self._maps_per_row):
            maps = [list(self._draw(self._matrix(index))) for index in shown[start : start + self._maps_per_row]]
            console.file.writelines(_MAP_GAP.join(lines).rstrip(" ") + "\n" for lines in zip(*maps, strict=True))
            yield
        if self.kinds:
            self.style.print_parts([self.look.kind_legend(kind) for kind in sorted(self.kinds, reverse=True)], _MAP_GAP)
        yield

    def _legend(self) -> list[Text]:
        shading = self.style.shading
        if self.look.colors and shading.fills:  # numbers can stand upon their colours
            return heat_legend(Heat(shading, self.scale))
        return [self.look.level_legend(self.scale)]

    # ── which maps ───────────────────────────────────────────────────────────────────────────────
    def _choose_block(self) -> int:
        """Choose the smallest squares by which all maps fit a page, unless too few pixels were left; then those that fit its width."""
        if self.width is None:
            return 1
        column_count = self._shape[1]
        narrowest = max(1, -(-column_count // max(1, self.width - self.margin)))
        map_count = math.prod(map(self.step.length, self.step.slice_axes))
        for block in range(narrowest, max(narrowest, column_count // _LEAST_PIXELS) + 1):
            self.block = block
            if self._maps_per_page >= map_count:
                return block
        return narrowest

    @property
    def _map_columns(self) -> int:
        return -(-self._shape[1] // self.block)

    @property
    def _map_width(self) -> int:
        return max(self.margin + self._map_columns, self._title_width)

    @property
    def _maps_per_row(self) -> int:
        if self.width is None:
            return 1
        return max(1, (self.width + len(_MAP_GAP)) // (self._map_width + len(_MAP_GAP)))

    @property
    def _maps_per_page(self) -> int:
        line_count = -(-self._shape[0] // (self.block * self.look.rows_per_line)) + _LINES_BESIDE_ROWS
        return max(1, _PAGE_LINES // line_count) * self._maps_per_row

    def _choose(self) -> tuple[list[tuple[int, ...]], list[str]]:
        """Choose the maps that fit a page, by their indices on the axes of batch and heads, and say what is left out."""
        room = self._maps_per_page
        choices: list[list[int]] = []
        left_out: list[str] = []
        for axis in reversed(self.step.slice_axes):
            indices = [i for i in range(self.step.length(axis)) if axis != "batch" or self.tables.equal_item(i) is None]
            count = len(indices) if self.width is None else min(len(indices), max(1, room))
            choices.insert(0, [indices[i] for i in leading_and_trailing(len(indices), count) if i is not None])
            noun = "batch items" if axis == "batch" else f"{axis.replace('_', ' ')}s"
            left_out[:0] = count_shown(noun, len(indices), count)
            room //= count
        return list(product(*choices)), left_out

    def _matrix(self, index: tuple[int, ...]) -> LabelledMatrix:
        matrix = self.step.matrix(index)
        return matrix if self.style.has_unicode else matrix.with_ascii_symbols()

    # ── one map ──────────────────────────────────────────────────────────────────────────────────
    def _draw(self, matrix: LabelledMatrix) -> Iterator[str]:
        """The lines of one map, each as wide as all maps of the step; after title and indices the pixels, then a blank line."""
        if matrix.slice_label:
            yield self._fill(self.style.paint(matrix.slice_label, "bold"), cell_len(matrix.slice_label))
        indices = " " * self.margin + _tick_line([_index_of(label) for label in matrix.column_labels[:: self.block]])
        yield self._fill(self.style.paint(indices, "dim"), len(indices))
        pixels = find_pixels(matrix, self.scale, self.look.level_count, self.block)
        self.kinds.update(np.unique(pixels[pixels < 0]).tolist())
        rows: list[list[int]] = pixels.tolist()
        rows_per_line = self.look.rows_per_line
        for line, first in enumerate(range(0, len(rows), rows_per_line)):
            label = _index_of(matrix.row_labels[first * self.block]) if line % _LINES_PER_TICK == 0 else ""
            margin = self.style.paint(f"{label:>{self.margin - 1}} ", "dim")
            drawn = (
                self._draw_pairs(rows[first], *rows[first + 1 : first + 2])
                if rows_per_line == 2
                else self._draw_row(rows[first])
            )
            yield self._fill(margin + drawn, self.margin + self._map_columns)
        yield " " * self._map_width

    def _fill(self, text: str, width: int) -> str:
        """Fill a line of a map, which is so wide."""
        return text + " " * (self._map_width - width)

    def _draw_row(self, row: list[int]) -> str:
        return "".join(map(self.look.glyph, row))

    def _draw_pairs(self, upper: list[int], lower: list[int] | None = None) -> str:
        """Two rows of pixels in one line; below the last row of an odd count is the ground."""
        parts = []
        for pair, run in groupby(zip(upper, lower or [HIDDEN] * len(upper), strict=True)):
            character, style = self.look.draw_pair(*pair)
            parts.append(self.style.paint(character * sum(1 for _ in run), style))
        return "".join(parts)


def _index_of(label: str) -> str:
    """The index of a label, which begins with it: `1 shiny`."""
    return label.partition(" ")[0]


def _tick_line(indices: Sequence[str]) -> str:
    """Indices above the columns that they are of, as many as stay apart."""
    step = max(_LEAST_COLUMNS_PER_TICK, 4 * -(-(max(map(len, indices)) + 2) // 4))
    line = "".join(pad_right(index, step) for index in indices[::step])
    return line[: len(indices)].rstrip()
