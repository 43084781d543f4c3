"""A result cut into labelled matrices, one for each step and each batch item and head: what every view lays out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from attncli.errors import in_ascii, printable
from attncli.types import Attention, NumpyArray, Step
from attncli.validation.fields import as_numpy

ROW_FACTS = ("max_score", "log_sum_exp", "entropy", "visible_keys", "sink_weights")  # shown beside the weights, if kept


@dataclass(frozen=True)
class Column:
    """One column beside a matrix: a fact of each row."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Matrix:
    """One table: a step, or one head's slice of it."""

    name: str
    where: str  # batch 0 · head 1
    formula: str
    remark: str  # what to know while reading it
    corner: str  # query ╲ key
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: NumpyArray  # (row, column)
    cells: tuple[tuple[str, ...], ...]
    facts: tuple[Column, ...] = field(default_factory=tuple)

    def in_ascii(self) -> Matrix:
        """The same with every symbol spelled in ASCII, so that columns stay in line on a console without them."""
        return replace(
            self,
            where=in_ascii(self.where),
            formula=in_ascii(self.formula),
            corner=in_ascii(self.corner),
            rows=tuple(map(in_ascii, self.rows)),
            columns=tuple(map(in_ascii, self.columns)),
            cells=tuple(tuple(map(in_ascii, row)) for row in self.cells),
            facts=tuple(Column(in_ascii(fact.name), tuple(map(in_ascii, fact.cells))) for fact in self.facts),
        )

    @property
    def title(self) -> str:
        return f"{self.name} · {self.where}" if self.where else self.name


def label(index: int, token: object) -> str:
    """`1 shiny`: the index, and the token beside it where it says more."""
    text = printable(str(token))
    return text if text == str(index) else f"{index} {text}"


def matrices(attention: Attention, precision: int) -> Iterator[Matrix]:
    """Every step of a result in order, cut along batch and head."""
    names = [step.name for step in attention.steps]
    beside = [step for step in attention.steps if step.name in ROW_FACTS and "weights" in names]
    for step in attention.steps:
        if step not in beside:
            yield from _slices(attention, step, beside if step.name == "weights" else [], precision)


def _slices(attention: Attention, step: Step, beside: list[Step], precision: int) -> Iterator[Matrix]:
    values = as_numpy(step.values)
    tail = 1 if step.axes[-1] == "query" else 2
    write = cell_writer(values, precision)
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
            cells = tuple(tuple(label(k, known.get(k, k)) for k in row) for row in inner.tolist())
        yield Matrix(
            name=step.name,
            where=" · ".join(f"{axis.replace('_', ' ')} {i}" for axis, i in original.items()),
            formula=step.formula,
            remark=_remark(step, values) if "key" not in attention.at else "",
            corner=f"{row_axis} ╲ {column_axis}" if column_axis else row_axis,
            rows=_labels(attention, row_axis, inner.shape[0], item),
            columns=_labels(attention, column_axis, inner.shape[1], item) if column_axis else (step.name,),
            values=inner,
            cells=cells,
            facts=_facts(attention, step, inner, index, beside, precision),
        )


def _facts(
    attention: Attention, step: Step, inner: NumpyArray, index: tuple[int, ...], beside: list[Step], precision: int
) -> tuple[Column, ...]:
    facts = []
    if step.name in ("weights", "dropout_weights", "mixed_weights") and "key" not in attention.at:
        sums = inner.astype(np.float64).sum(-1)
        facts.append(Column("Σ", tuple(map(cell_writer(sums, precision), sums))))
    for other in beside:
        column = as_numpy(other.values)[index]
        facts.append(Column(other.name, tuple(map(cell_writer(column, precision), column))))
    return tuple(facts)


def _remark(step: Step, values: NumpyArray) -> str:
    if step.name == "scores":
        return "unnormalised"
    if step.name == "weights" and values.size and np.allclose(values.astype(np.float64).sum(-1), 1, atol=1e-3):
        return "every row sums to 1"
    return ""


def _labels(attention: Attention, axis: str, n: int, item: int | None) -> tuple[str, ...]:
    tokens = {"query": attention.tokens, "key": attention.k_tokens}.get(axis)
    indices = attention.at.get(axis, range(n))
    if axis == "new_key":  # the last of the keys
        tokens = attention.k_tokens
        tokens = tuple(t[-n:] for t in tokens) if tokens and isinstance(tokens[0], tuple) else tokens[-n:]
    if tokens is None:
        return tuple(str(i + (axis == "rank")) for i in indices)
    own = tokens[item or 0] if tokens and isinstance(tokens[0], tuple) else tokens
    return tuple(label(i, t) for i, t in zip(indices, own, strict=True))


def cell_writer(values: NumpyArray, precision: int) -> Any:
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

    def write(x: float) -> str:
        if not np.isfinite(x):
            return "NaN" if np.isnan(x) else "∞" if x > 0 else "−∞"
        text = f"{float(x):.{precision}{style}}"
        return text[1:] if text.startswith("-") and not text.strip("-0.e+") else text  # no −0.0000

    return write
