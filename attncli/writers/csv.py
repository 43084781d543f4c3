"""Write CSV and TSV, with every digit: one matrix as a matrix; anything else, and with `tidy` that too, as tidy rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from attncli.output_formats import RenderOptions, output_format
from attncli.text import printable
from attncli.types import AXES, TOKEN_AXES, Attention, NumpyArray, Step
from attncli.validation.fields import as_numpy
from attncli.writers.tidy import tidy_blocks

RowWriter = Callable[[Iterable[object]], object]  # as the method writerow of csv.writer
_TIDY_COLUMNS = ("batch", "head", "query", "key")  # of every file; other axes where a step has them


@output_format("csv", ".csv", console_errors="utf-8", shape_options=("tidy",))
def write_csv(attention: Attention, options: RenderOptions) -> str:
    """Write values separated by commas."""
    return _format_table(attention, ",", options)


@output_format("tsv", ".tsv", console_errors="utf-8", shape_options=("tidy",))
def write_tsv(attention: Attention, options: RenderOptions) -> str:
    """Write values separated by tabs."""
    return _format_table(attention, "\t", options)


def _format_table(attention: Attention, separator: str, options: RenderOptions) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    step = attention.steps[0] if len(attention.steps) == 1 else None
    format_label = printable if options.is_terminal else str  # there a token's escape sequences would act
    if step is not None and len(step.axes) == 2 and step.axes[0] != "batch" and not options.tidy:
        _write_matrix(writer.writerow, attention, step, format_label)
    else:
        _write_tidy_rows(writer.writerows, attention, format_label)
    return text.getvalue()


def _format_cells(values: NumpyArray) -> list[str]:
    """Return for each value the shortest text that reads back to it."""
    if values.dtype == np.bool_:
        return ["true" if value else "false" for value in values.tolist()]
    if values.dtype == np.float64:
        return list(map(repr, values.tolist()))
    return list(map(str, values))


def _write_matrix(write_row: RowWriter, attention: Attention, step: Step, format_label: Callable[[str], str]) -> None:
    """Write a step of two axes as a matrix, with labels of rows and columns."""

    def labels(axis: str, n: int) -> list[str]:
        if axis in ("query", "key"):
            tokens = attention.tokens if axis == "query" else attention.k_tokens
            return [format_label(str(token)) for token in tokens]
        prefix = "d" if axis == "dim" else f"{axis} "
        return [f"{prefix}{i}" for i in attention.at.get(axis, range(n))]

    values = as_numpy(step.values)
    row_axis, column_axis = step.axes
    corner = "token" if row_axis in ("query", "key") else row_axis
    write_row([corner, *labels(column_axis, values.shape[1])])
    for label, row in zip(labels(row_axis, values.shape[0]), values, strict=True):
        write_row([label, *_format_cells(row)])


def _write_tidy_rows(
    write_rows: Callable[[Iterable[Iterable[object]]], object], attention: Attention, format_label: Callable[[str], str]
) -> None:
    """Write a row for each number: its step, its index on every axis, its value, and the tokens of its query and key.

    The tokens stand last, so that whoever takes columns by their places still finds the others.
    """
    present = {axis for step in attention.steps for axis in step.axes}
    axes = [axis for axis in AXES if axis in present or axis in _TIDY_COLUMNS]
    write_rows([["step", *axes, "value", *TOKEN_AXES]])
    for block in tidy_blocks(attention):
        empty = [""] * len(block)
        columns: list[Sequence[object]] = [[block.step] * len(block)]
        columns += [block.indices[axis].tolist() if axis in block.indices else empty for axis in axes]
        columns.append(_format_cells(block.values))
        for name in TOKEN_AXES:
            if (found := block.tokens.get(name)) is None:
                columns.append(empty)
            else:
                labels = [format_label(label) for label in found.labels]
                columns.append([labels[place] for place in found.places.tolist()])
        write_rows(zip(*columns, strict=True))
