"""A result as labelled matrices, one for each step, batch item and head. `labelled_matrices` is the entry of every view."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from attncli.text import printable, to_ascii
from attncli.types import Attention, NumpyArray, Step
from attncli.validation.fields import as_numpy

# Steps that are shown beside the weights, if both are kept.
ROW_STATISTICS = ("max_score", "log_sum_exp", "entropy", "visible_keys", "sink_weights")
_MAX_PLAIN_NUMBER = 1e9  # a step with a larger one is written with exponents: all would be digits before the point


@dataclass(frozen=True)
class StatisticColumn:
    """One column beside a matrix: a statistic of each row."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class LabelledMatrix:
    """One table: a step, or one head's slice of it."""

    name: str
    slice_label: str  # batch 0 · head 1
    formula: str
    remark: str  # such as “unnormalised”
    corner_label: str  # query ╲ key
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    values: NumpyArray  # (row, column)
    cells: tuple[tuple[str, ...], ...]
    statistics: tuple[StatisticColumn, ...] = field(default_factory=tuple)

    def with_ascii_symbols(self) -> LabelledMatrix:
        """Spell every symbol in ASCII, so that columns stay aligned on a console that has no more."""
        return replace(
            self,
            slice_label=to_ascii(self.slice_label),
            formula=to_ascii(self.formula),
            corner_label=to_ascii(self.corner_label),
            row_labels=tuple(map(to_ascii, self.row_labels)),
            column_labels=tuple(map(to_ascii, self.column_labels)),
            cells=tuple(tuple(map(to_ascii, row)) for row in self.cells),
            statistics=tuple(
                StatisticColumn(to_ascii(column.name), tuple(map(to_ascii, column.cells))) for column in self.statistics
            ),
        )

    @property
    def title(self) -> str:
        """`weights · head 1`"""
        return f"{self.name} · {self.slice_label}" if self.slice_label else self.name


def index_and_token(index: int, token: object) -> str:
    """`1 shiny`: the index and the token, or the index alone where it is the token as well."""
    text = printable(str(token))
    return text if text == str(index) else f"{index} {text}"


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
    format_cell = cell_formatter(values, precision)
    for index in np.ndindex(values.shape[: -len(matrix_axes)]):
        indices = dict(zip(step.axes, index, strict=False))
        batch_item = indices.get("batch")
        matrix = values[index] if column_axis else values[index][:, None]  # (row, column)
        if step.name == "top_keys":
            cells = _top_key_cells(attention, matrix, batch_item)
        else:
            cells = tuple(tuple(map(format_cell, row)) for row in matrix)
        yield LabelledMatrix(
            name=step.name,
            slice_label=_slice_label(attention, indices),
            formula=step.formula,
            remark=_step_remark(step, values) if "key" not in attention.at else "",
            corner_label=f"{row_axis} ╲ {column_axis}" if column_axis else row_axis,
            row_labels=_axis_labels(attention, row_axis, matrix.shape[0], batch_item),
            column_labels=(
                _axis_labels(attention, column_axis, matrix.shape[1], batch_item) if column_axis else (step.name,)
            ),
            values=matrix,
            cells=cells,
            statistics=_statistic_columns(attention, step, matrix, index, statistic_steps, precision),
        )


def _slice_label(attention: Attention, indices: Mapping[str, int]) -> str:
    """`batch 0 · head 1`, counted as before some were selected."""
    labels = []
    for axis, i in indices.items():
        original_index = attention.at[axis][i] if axis in attention.at else i
        labels.append(f"{axis.replace('_', ' ')} {original_index}")
    return " · ".join(labels)


def _top_key_cells(
    attention: Attention, key_indices: NumpyArray, batch_item: int | None
) -> tuple[tuple[str, ...], ...]:
    """Indices of keys with their tokens; the token of a key that was not selected is not known."""
    tokens = attention.k_tokens if batch_item is None else attention.k_tokens[batch_item]
    selected_keys = attention.at.get("key", range(len(tokens)))
    known_tokens = dict(zip(selected_keys, tokens, strict=True))
    return tuple(tuple(index_and_token(j, known_tokens.get(j, j)) for j in row) for row in key_indices.tolist())


def _statistic_columns(
    attention: Attention,
    step: Step,
    matrix_values: NumpyArray,
    slice_index: tuple[int, ...],
    statistic_steps: Sequence[Step],
    precision: int,
) -> tuple[StatisticColumn, ...]:
    """The sum of each row of weights, and the statistics that were kept."""
    columns = []
    if step.name in ("weights", "dropout_weights", "mixed_weights") and "key" not in attention.at:
        sums = matrix_values.astype(np.float64).sum(-1)
        columns.append(StatisticColumn("Σ", tuple(map(cell_formatter(sums, precision), sums))))
    for statistic in statistic_steps:
        values = as_numpy(statistic.values)[slice_index]
        columns.append(StatisticColumn(statistic.name, tuple(map(cell_formatter(values, precision), values))))
    return tuple(columns)


def _step_remark(step: Step, values: NumpyArray) -> str:
    if step.name == "scores":
        return "unnormalised"
    if step.name == "weights" and values.size and np.allclose(values.astype(np.float64).sum(-1), 1, atol=1e-3):
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


def cell_formatter(values: NumpyArray, precision: int) -> Callable[[float], str]:
    """How the numbers of one step are written: all alike, with so many digits after the point."""
    if values.dtype == bool:
        return lambda value: "yes" if value else "·"
    if values.dtype.kind in "iu":
        return str
    sizes = np.abs(values[np.isfinite(values)], dtype=np.float64)
    largest = sizes.max(initial=0)
    would_print_zero = 0 < largest < 10.0 ** -(precision + 1)  # every number would be 0.0000
    style = "e" if largest >= _MAX_PLAIN_NUMBER or would_print_zero else "f"

    def format_cell(value: float) -> str:
        if not np.isfinite(value):
            return "NaN" if np.isnan(value) else "∞" if value > 0 else "−∞"
        text = f"{float(value):.{precision}{style}}"
        return text[1:] if text.startswith("-") and not text.strip("-0.e+") else text  # no −0.0000

    return format_cell
