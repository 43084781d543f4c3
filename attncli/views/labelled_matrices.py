"""A step as labelled matrices, one for each batch item and head, whose cells are made when they are asked for. Entry: `SlicedStep`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from attncli.text import to_ascii
from attncli.types import Attention, NumpyArray, Step
from attncli.validation.fields import as_numpy
from attncli.views.cell_formats import (
    DROPPED,
    HIDDEN,
    CellFormat,
    KeyFormat,
    choose_number_format,
    finite_range,
    index_and_token,
    rows_at_once,
    sum_rows,
)

# Steps that are shown beside the weights, if both are kept.
ROW_STATISTICS = ("max_score", "log_sum_exp", "entropy", "visible_keys", "sink_weights")
STATISTIC_MEANINGS: Mapping[str, str] = {
    "max_score": "the largest score",
    "log_sum_exp": "ln Σ e^score",
    "entropy": "how spread the weights are, in bits",
    "visible_keys": "how many keys are not hidden",
    "sink_weights": "what the sink got",
}
WEIGHT_STEPS = ("weights", "mixed_weights", "dropout_weights")


@dataclass(frozen=True)
class StatisticColumn:
    """One column beside a matrix: a statistic of each row."""

    name: str
    values: NumpyArray  # (row,)
    cell_format: CellFormat


@dataclass(frozen=True)
class CellMarks:
    """Which cells of a matrix show a mark in place of their number: those of hidden keys, and of weights that were dropped.

    Only a number that says nothing more is replaced: the weight 0 or the score −∞.
    """

    values: NumpyArray  # (row, column)
    find_hidden: Callable[[int, int], NumpyArray] | None = None  # rows from first up to last → booleans (row, column)
    is_dropout: bool = False  # these are weights after dropout
    weights: NumpyArray | None = None  # those before it, where they are known

    def find_hidden_cells(self, first: int, last: int) -> NumpyArray | None:
        """Return which cells of the rows from first up to last are of hidden keys: booleans; None: none is known to be."""
        if self.find_hidden is None:
            return None
        values = self.values[first:last]
        hidden: NumpyArray = self.find_hidden(first, first + len(values)) & ((values == 0) | (values == -np.inf))
        return hidden

    def find_dropped_cells(self, first: int, last: int) -> NumpyArray | None:
        """Return which cells of the rows from first up to last are of dropped weights, likewise."""
        if not self.is_dropout:
            return None
        is_dropped: NumpyArray = self.values[first:last] == 0
        hidden = self.find_hidden_cells(first, last)
        if hidden is not None:
            is_dropped &= ~hidden
        return is_dropped if self.weights is None else is_dropped & (self.weights[first:last] != 0)

    def apply(self, texts: list[str], first: int, last: int) -> None:
        """Put the marks in place of the texts of the rows from first up to last."""
        for mark, cells in (
            (HIDDEN, self.find_hidden_cells(first, last)),
            (DROPPED, self.find_dropped_cells(first, last)),
        ):
            if cells is not None:
                for i in np.flatnonzero(cells).tolist():
                    texts[i] = mark


@dataclass(frozen=True)
class LabelledMatrix:
    """One table: a step, or one head's slice of it. Its cells are made when they are asked for, some rows at a time."""

    name: str
    slice_label: str  # batch 0 · head 1
    formula: str
    remarks: tuple[str, ...]  # such as “unnormalised”
    corner_label: str  # query ╲ key
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    values: NumpyArray  # (row, column)
    cell_format: CellFormat
    find_range: Callable[[], tuple[float, float]]  # the smallest and the largest finite number of the whole step
    statistics: tuple[StatisticColumn, ...] = ()
    marks: CellMarks | None = None  # None: every cell has its number
    is_ascii: bool = False  # every symbol is spelled in ASCII

    def with_ascii_symbols(self) -> LabelledMatrix:
        """Spell every symbol in ASCII, so that columns stay aligned on a console that has no more."""
        return replace(
            self,
            slice_label=to_ascii(self.slice_label),
            formula=to_ascii(self.formula),
            remarks=tuple(map(to_ascii, self.remarks)),
            corner_label=to_ascii(self.corner_label),
            row_labels=tuple(map(to_ascii, self.row_labels)),
            column_labels=tuple(map(to_ascii, self.column_labels)),
            statistics=tuple(replace(column, name=to_ascii(column.name)) for column in self.statistics),
            is_ascii=True,
        )

    @property
    def title(self) -> str:
        """`weights · head 1`"""
        return f"{self.name} · {self.slice_label}" if self.slice_label else self.name

    @property
    def remark(self) -> str:
        """All remarks as one text: `every row sums to 1; · = hidden key`"""
        return "; ".join(self.remarks)

    @property
    def statistics_legend(self) -> list[str]:
        """What the names of the statistics beside the matrix mean."""
        names = [column.name for column in self.statistics if column.name in STATISTIC_MEANINGS]
        texts = [f"{name}: {STATISTIC_MEANINGS[name]}" for name in names]
        return list(map(to_ascii, texts)) if self.is_ascii else texts

    @property
    def cell_labels(self) -> tuple[str, ...]:
        """What stands above each cell of a row: the labels of the columns, then the names of the statistics."""
        return (*self.column_labels, *(column.name for column in self.statistics))

    def format_rows(self, first: int, last: int) -> list[list[str]]:
        """The cells of the rows from first up to last: those of the columns, then those of the statistics."""
        column_count = len(self.column_labels)
        texts = self.cell_format.format(self.values[first:last])
        if self.marks:
            self.marks.apply(texts, first, last)
        statistics = [column.cell_format.format(column.values[first:last]) for column in self.statistics]
        rows = [
            [*texts[r * column_count : (r + 1) * column_count], *(column[r] for column in statistics)]
            for r in range(min(last, len(self.row_labels)) - first)
        ]
        return [list(map(to_ascii, row)) for row in rows] if self.is_ascii else rows

    def pages(self) -> Iterator[tuple[int, list[list[str]]]]:
        """All rows, so many at a time that what is held stays small: the index of the first of them, and their cells."""
        if len(self.row_labels) <= rows_at_once(len(self.cell_labels)):
            yield 0, self._only_page
            return
        count = rows_at_once(len(self.cell_labels))
        for first in range(0, len(self.row_labels), count):
            yield first, self.format_rows(first, first + count)

    @cached_property
    def _only_page(self) -> list[list[str]]:
        """The cells of a matrix that is one page: they are asked for twice, for the widths of the columns and to be written."""
        return self.format_rows(0, len(self.row_labels))


class SlicedStep:
    """One step of a result, cut along batch and head: `matrix` makes the table of one slice."""

    def __init__(self, attention: Attention, step: Step, precision: int) -> None:
        """Prepare a step; nothing is formatted yet.

        Args:
            attention: the result.
            step: one of its steps.
            precision: digits after the point.
        """
        self.attention = attention
        self.step = step
        self.precision = precision
        self.values: NumpyArray = as_numpy(step.values)
        self.matrix_axes = step.axes[-1:] if step.axes[-1] == "query" else step.axes[-2:]
        self.slice_axes = step.axes[: -len(self.matrix_axes)]

    def length(self, axis: str) -> int:
        """Return how long one of its axes is."""
        return self.values.shape[self.step.axes.index(axis)]

    @property
    def row_count(self) -> int:
        """How many rows its tables have."""
        return self.length(self.matrix_axes[0])

    @cached_property
    def _cell_format(self) -> CellFormat:
        return choose_number_format(self.values, self.precision)

    @cached_property
    def _range(self) -> tuple[float, float]:
        return finite_range(self.values)

    @cached_property
    def _sums(self) -> NumpyArray | None:
        """The sum of each row, where that says something."""
        has_sums = self.step.name in WEIGHT_STEPS and "key" not in self.attention.at
        return sum_rows(self.values) if has_sums else None

    @cached_property
    def _statistic_steps(self) -> list[Step]:
        """The statistics that stand beside the weights."""
        steps = self.attention.steps if self.step.name == "weights" else ()
        return [step for step in steps if step.name in ROW_STATISTICS]

    @cached_property
    def _remarks(self) -> tuple[str, ...]:
        """What a reader should know of the step."""
        name, sums, remarks = self.step.name, self._sums, []
        if "key" not in self.attention.at:
            if name == "scores":
                remarks.append("unnormalised")
            if name == "weights" and sums is not None and sums.size and np.allclose(sums, 1, atol=1e-3):
                remarks.append("every row sums to 1")
        if self._has_hidden_keys:
            remarks.append(f"{HIDDEN} = hidden key" + (", −∞" if name.endswith("scores") else ""))
        if name == "dropout_weights":
            remarks.append(f"{DROPPED} = dropped" + ("" if "weights" in self.attention else ", or a weight of 0"))
        return tuple(remarks)

    @property
    def _has_hidden_keys(self) -> bool:
        hidden_keys = self.attention.hidden_keys
        return hidden_keys is not None and hidden_keys.is_marked(self.step.name)

    def matrix(self, index: tuple[int, ...], remarks: Sequence[str] = ()) -> LabelledMatrix:
        """Return the table of one slice.

        Args:
            index: on the axes `slice_axes`.
            remarks: of this slice, besides those of the step.
        """
        attention, step = self.attention, self.step
        row_axis, column_axis = (*self.matrix_axes, "")[:2]
        indices = dict(zip(self.slice_axes, index, strict=True))
        batch_item = indices.get("batch")
        values = self.values[index] if column_axis else self.values[index][:, None]  # (row, column)
        statistics = {"Σ": self._sums[index]} if self._sums is not None else {}
        statistics |= {statistic.name: as_numpy(statistic.values)[index] for statistic in self._statistic_steps}
        return LabelledMatrix(
            name=step.name,
            slice_label=_slice_label(attention, indices),
            formula=step.formula,
            remarks=(*self._remarks, *remarks),
            corner_label=f"{row_axis} ╲ {column_axis}" if column_axis else row_axis,
            row_labels=_axis_labels(attention, row_axis, values.shape[0], batch_item),
            column_labels=(
                _axis_labels(attention, column_axis, values.shape[1], batch_item) if column_axis else (step.name,)
            ),
            values=values,
            cell_format=_key_format(attention, batch_item) if step.name == "top_keys" else self._cell_format,
            find_range=lambda: self._range,
            statistics=tuple(
                StatisticColumn(name, column, choose_number_format(column, self.precision))
                for name, column in statistics.items()
            ),
            marks=self._marks(index, indices, values),
        )

    def _marks(self, index: tuple[int, ...], indices: Mapping[str, int], values: NumpyArray) -> CellMarks | None:
        is_dropout = self.step.name == "dropout_weights"
        if not self._has_hidden_keys and not is_dropout:
            return None
        weights = (
            as_numpy(self.attention["weights"].values)[index] if is_dropout and "weights" in self.attention else None
        )
        return CellMarks(values, self._hidden_finder(indices) if self._has_hidden_keys else None, is_dropout, weights)

    def _hidden_finder(self, indices: Mapping[str, int]) -> Callable[[int, int], NumpyArray]:
        """Return what finds the hidden keys of some rows; rows and columns are looked up as before some were selected."""
        at, hidden_keys = self.attention.at, self.attention.hidden_keys
        assert hidden_keys is not None
        batch, head = (
            at[axis][indices[axis]] if axis in at and axis in indices else indices.get(axis, 0)
            for axis in ("batch", "head")
        )
        queries = at.get("query", range(self.length("query")))

        def find(first: int, last: int) -> NumpyArray:
            hidden: NumpyArray = hidden_keys.find(self.step.name, batch, head, queries[first:last])
            return hidden[:, list(at["key"])] if "key" in at else hidden

        return find


def _slice_label(attention: Attention, indices: Mapping[str, int]) -> str:
    """`batch 0 · head 1`, counted as before some were selected."""
    labels = []
    for axis, i in indices.items():
        original_index = attention.at[axis][i] if axis in attention.at else i
        labels.append(f"{axis.replace('_', ' ')} {original_index}")
    return " · ".join(labels)


def _key_format(attention: Attention, batch_item: int | None) -> KeyFormat:
    """How indices of keys are written; the token of a key that was not selected is not known."""
    tokens = attention.k_tokens if batch_item is None else attention.k_tokens[batch_item]
    selected_keys = attention.at.get("key", range(len(tokens)))
    return KeyFormat(dict(zip(selected_keys, tokens, strict=True)))


def _axis_labels(attention: Attention, axis: str, length: int, batch_item: int | None) -> tuple[str, ...]:
    """The index and token of each query or key, the index of anything else, and ranks counted from 1."""
    tokens = {"query": attention.tokens, "key": attention.k_tokens, "new_key": attention.k_tokens}.get(axis)
    indices = attention.at.get(axis, range(length))
    if tokens is None:
        return tuple(str(i + 1 if axis == "rank" else i) for i in indices)
    if tokens and isinstance(tokens[0], tuple):
        tokens = tokens[batch_item or 0]
    if axis == "new_key" and not {"key", "new_key"} & {*attention.at}:  # the last of the keys
        tokens = tokens[-length:]
    elif axis == "new_key":  # the token of one that was not selected as a key is not known
        selected_keys = attention.at.get("key", range(len(tokens)))
        known_tokens = dict(zip(selected_keys, tokens, strict=True))
        tokens = tuple(known_tokens.get(attention.past_length + i, i) for i in indices)
    return tuple(index_and_token(i, token) for i, token in zip(indices, tokens, strict=True))
