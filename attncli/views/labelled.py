"""A result cut into labelled matrices, one for each step and each batch item and head: what every view lays out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from attncli.errors import printable, to_ascii
from attncli.types import Attention, NumpyArray, Step
from attncli.validation.fields import as_numpy

ROW_STATISTICS = (
    "max_score",
    "log_sum_exp",
    "entropy",
    "visible_keys",
    "sink_weights",
)  # shown beside the weights, if kept


@dataclass(frozen=True)
class StatisticColumn:
    """One column beside a matrix: a fact of each row."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class LabelledMatrix:
    """One table: a step, or one head's slice of it."""

    name: str
    slice_label: str  # batch 0 · head 1
    formula: str
    remark: str  # what to know while reading it
    corner_label: str  # query ╲ key
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    values: NumpyArray  # (row, column)
    cells: tuple[tuple[str, ...], ...]
    statistics: tuple[StatisticColumn, ...] = field(default_factory=tuple)

    def with_ascii_symbols(self) -> LabelledMatrix:
        """The same with every symbol spelled in ASCII, so that columns stay in line on a console without them."""
        return replace(
            self,
            slice_label=to_ascii(self.slice_label),
            formula=to_ascii(self.formula),
            corner_label=to_ascii(self.corner_label),
            row_labels=tuple(map(to_ascii, self.row_labels)),
            column_labels=tuple(map(to_ascii, self.column_labels)),
            cells=tuple(tuple(map(to_ascii, row)) for row in self.cells),
            statistics=tuple(
                StatisticColumn(to_ascii(fact.name), tuple(map(to_ascii, fact.cells))) for fact in self.statistics
            ),
        )

    @property
    def title(self) -> str:
        return f"{self.name} · {self.slice_label}" if self.slice_label else self.name


def index_and_token(index: int, token: object) -> str:
    """`1 shiny`: the index, and the token beside it where it says more."""
    text = printable(str(token))
    return text if text == str(index) else f"{index} {text}"


def labelled_matrices(attention: Attention, precision: int) -> Iterator[LabelledMatrix]:
    """Every step of a result in order, cut along batch and head."""
    names = [step.name for step in attention.steps]
    beside = [step for step in attention.steps if step.name in ROW_STATISTICS and "weights" in names]
    for step in attention.steps:
        if step not in beside:
            yield from _step_matrices(attention, step, beside if step.name == "weights" else [], precision)


def _step_matrices(
    attention: Attention, step: Step, statistic_steps: list[Step], precision: int
) -> Iterator[LabelledMatrix]:
    values = as_numpy(step.values)
    tail = 1 if step.axes[-1] == "query" else 2
    write = cell_formatter(values, precision)
    for index in np.ndindex(values.shape[:-tail]):
        at = dict(zip(step.axes, index, strict=False))
        original = {
            axis: attention.at.get(axis, range(i + 1))[i] if axis in attention.at else i for axis, i in at.items()
        }
        inner = values[index] if tail == 2 else values[index][:, None]
        row_axis, column_axis = (*step.axes[-tail:], "")[:2]
        item = at.get("batch")
        cells = tuple(tuple(map(write, row)) for row in inner)
        if step.name == "top_keys":
            item_tokens = attention.k_tokens[item] if item is not None else attention.k_tokens
            known = dict(
                enumerate(item_tokens)
                if "key" not in attention.at
                else zip(attention.at["key"], item_tokens, strict=True)
            )
            cells = tuple(tuple(index_and_token(k, known.get(k, k)) for k in row) for row in inner.tolist())
        yield LabelledMatrix(
            name=step.name,
            slice_label=" · ".join(f"{axis.replace('_', ' ')} {i}" for axis, i in original.items()),
            formula=step.formula,
            remark=_step_remark(step, values) if "key" not in attention.at else "",
            corner_label=f"{row_axis} ╲ {column_axis}" if column_axis else row_axis,
            row_labels=_axis_labels(attention, row_axis, inner.shape[0], item),
            column_labels=_axis_labels(attention, column_axis, inner.shape[1], item) if column_axis else (step.name,),
            values=inner,
            cells=cells,
            statistics=_statistic_columns(attention, step, inner, index, statistic_steps, precision),
        )


def _statistic_columns(
    attention: Attention,
    step: Step,
    matrix_values: NumpyArray,
    slice_index: tuple[int, ...],
    statistic_steps: list[Step],
    precision: int,
) -> tuple[StatisticColumn, ...]:
    facts = []
    if step.name in ("weights", "dropout_weights", "mixed_weights") and "key" not in attention.at:
        sums = matrix_values.astype(np.float64).sum(-1)
        facts.append(StatisticColumn("Σ", tuple(map(cell_formatter(sums, precision), sums))))
    for other in statistic_steps:
        column = as_numpy(other.values)[slice_index]
        facts.append(StatisticColumn(other.name, tuple(map(cell_formatter(column, precision), column))))
    return tuple(facts)


def _step_remark(step: Step, values: NumpyArray) -> str:
    if step.name == "scores":
        return "unnormalised"
    if step.name == "weights" and values.size and np.allclose(values.astype(np.float64).sum(-1), 1, atol=1e-3):
        return "every row sums to 1"
    return ""


def _axis_labels(attention: Attention, axis: str, length: int, batch_item: int | None) -> tuple[str, ...]:
    tokens = {"query": attention.tokens, "key": attention.k_tokens}.get(axis)
    indices = attention.at.get(axis, range(length))
    if axis == "new_key":  # the last of the keys
        tokens = attention.k_tokens
        tokens = tuple(t[-length:] for t in tokens) if tokens and isinstance(tokens[0], tuple) else tokens[-length:]
    if tokens is None:
        return tuple(str(i + (axis == "rank")) for i in indices)
    own = tokens[batch_item or 0] if tokens and isinstance(tokens[0], tuple) else tokens
    return tuple(index_and_token(i, t) for i, t in zip(indices, own, strict=True))


def cell_formatter(values: NumpyArray, precision: int) -> Any:
    """How the numbers of one step are written: all alike, with so many digits after the point."""
    if values.dtype == bool:
        return lambda x: "yes" if x else "·"
    if values.dtype.kind in "iu":
        return str
    size = np.abs(values[np.isfinite(values)], dtype=np.float64)
    largest = size.max(initial=0)
    style = (
        "e" if largest >= 1e9 or 0 < largest < 10.0 ** -(precision + 1) else "f"
    )  # all would be digits before the point, or 0.0000

    def format_cell(value: float) -> str:
        if not np.isfinite(value):
            return "NaN" if np.isnan(value) else "∞" if value > 0 else "−∞"
        text = f"{float(value):.{precision}{style}}"
        return text[1:] if text.startswith("-") and not text.strip("-0.e+") else text  # no −0.0000

    return format_cell
