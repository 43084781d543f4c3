"""A result as labelled matrices, one for each step, batch item and head. `labelled_matrices` is the entry of every view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from attncli.text import to_ascii
from attncli.types import Attention, NumpyArray, Step
from attncli.validation.fields import as_numpy
from attncli.views.cells import CellFormat, KeyFormat, choose_number_format, index_and_token, rows_at_once, sum_rows

# Steps that are shown beside the weights, if both are kept.
ROW_STATISTICS = ("max_score", "log_sum_exp", "entropy", "visible_keys", "sink_weights")
_STEPS_WITH_SUMS = ("weights", "dropout_weights", "mixed_weights")


@dataclass(frozen=True)
class StatisticColumn:
    """One column beside a matrix: a statistic of each row."""

    name: str
    values: NumpyArray  # (row,)
    cell_format: CellFormat


@dataclass(frozen=True)
class LabelledMatrix:
    """One table: a step, or one head's slice of it. Its cells are made when they are asked for, some rows at a time."""

    name: str
    slice_label: str  # batch 0 · head 1
    formula: str
    remark: str  # such as “unnormalised”
    corner_label: str  # query ╲ key
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    values: NumpyArray  # (row, column)
    cell_format: CellFormat
    statistics: tuple[StatisticColumn, ...] = ()
    is_ascii: bool = False  # every symbol is spelled in ASCII

    def with_ascii_symbols(self) -> LabelledMatrix:
        """Spell every symbol in ASCII, so that columns stay aligned on a console that has no more."""
        return replace(
            self,
            slice_label=to_ascii(self.slice_label),
            formula=to_ascii(self.formula),
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
    def cell_labels(self) -> tuple[str, ...]:
        """What stands above each cell of a row: the labels of the columns, then the names of the statistics."""
        return (*self.column_labels, *(column.name for column in self.statistics))

    def format_rows(self, first: int, last: int) -> list[list[str]]:
        """The cells of the rows from first up to last: those of the columns, then those of the statistics."""
        column_count = len(self.column_labels)
        texts = self.cell_format.format(self.values[first:last])
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


def labelled_matrices(attention: Attention, precision: int) -> Iterator[LabelledMatrix]:
    """Every step of a result in order, cut along batch and head."""
    statistic_steps: list[Step] = []
    if "weights" in attention:
        statistic_steps = [step for step in attention.steps if step.name in ROW_STATISTICS]
    for step in attention.steps:
        if step.name == "weights":
            yield from _step_matrices(attention, step, statistic_steps, precision)
        elif step not in statistic_steps:
            yield from _step_matrices(attention, step, [], precision)


def _step_matrices(
    attention: Attention, step: Step, statistic_steps: Sequence[Step], precision: int
) -> Iterator[LabelledMatrix]:
    """One step, a matrix for each batch item and head."""
    values = as_numpy(step.values)
    matrix_axes = step.axes[-1:] if step.axes[-1] == "query" else step.axes[-2:]
    row_axis, column_axis = (*matrix_axes, "")[:2]
    number_format = choose_number_format(values, precision)
    sums = sum_rows(values) if step.name in _STEPS_WITH_SUMS and "key" not in attention.at else None
    remark = _step_remark(step, sums) if "key" not in attention.at else ""
    for index in np.ndindex(values.shape[: -len(matrix_axes)]):
        indices = dict(zip(step.axes, index, strict=False))
        batch_item = indices.get("batch")
        matrix = values[index] if column_axis else values[index][:, None]  # (row, column)
        statistics = {"Σ": sums[index]} if sums is not None else {}
        statistics |= {statistic.name: as_numpy(statistic.values)[index] for statistic in statistic_steps}
        yield LabelledMatrix(
            name=step.name,
            slice_label=_slice_label(attention, indices),
            formula=step.formula,
            remark=remark,
            corner_label=f"{row_axis} ╲ {column_axis}" if column_axis else row_axis,
            row_labels=_axis_labels(attention, row_axis, matrix.shape[0], batch_item),
            column_labels=(
                _axis_labels(attention, column_axis, matrix.shape[1], batch_item) if column_axis else (step.name,)
            ),
            values=matrix,
            cell_format=_key_format(attention, batch_item) if step.name == "top_keys" else number_format,
            statistics=tuple(
                StatisticColumn(name, column, choose_number_format(column, precision))
                for name, column in statistics.items()
            ),
        )


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


def _step_remark(step: Step, sums: NumpyArray | None) -> str:
    """What a reader should know of a step, by the sums of its rows."""
    if step.name == "scores":
        return "unnormalised"
    if step.name == "weights" and sums is not None and sums.size and np.allclose(sums, 1, atol=1e-3):
        return "every row sums to 1"
    return ""


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
