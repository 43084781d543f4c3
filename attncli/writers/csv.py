"""Write CSV and TSV, with every digit: one matrix as a matrix, anything else as tidy rows, one a number."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable

import numpy as np

from attncli.output_formats import RenderOptions, output_format
from attncli.text import printable
from attncli.types import AXES, Attention, Step
from attncli.validation.fields import as_numpy

RowWriter = Callable[[Iterable[object]], object]  # as the method writerow of csv.writer
_TIDY_COLUMNS = ("batch", "head", "query", "key")  # of every file; other axes where a step has them


@output_format("csv", ".csv", console_errors="utf-8")
def write_csv(attention: Attention, options: RenderOptions) -> str:
    """Write values separated by commas."""
    return _format_table(attention, ",", options)


@output_format("tsv", ".tsv", console_errors="utf-8")
def write_tsv(attention: Attention, options: RenderOptions) -> str:
    """Write values separated by tabs."""
    return _format_table(attention, "\t", options)


def _format_table(attention: Attention, separator: str, options: RenderOptions) -> str:
    text = io.StringIO()
    write_row = csv.writer(text, delimiter=separator, lineterminator="\n").writerow
    step = attention.steps[0] if len(attention.steps) == 1 else None
    if step is not None and len(step.axes) == 2 and step.axes[0] != "batch":
        _write_matrix(write_row, attention, step, printable if options.is_terminal else str)
    else:
        _write_tidy_rows(write_row, attention)
    return text.getvalue()


def _format_cell(value: object) -> str:
    """Return the shortest text that reads back to the same value."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return repr(value.item()) if isinstance(value, np.float64) else str(value)


def _write_matrix(write_row: RowWriter, attention: Attention, step: Step, format_label: Callable[[str], str]) -> None:
    """Write a step of two axes as a matrix, with labels of rows and columns."""

    def labels(axis: str, n: int) -> list[str]:
        if axis in ("query", "key"):
            tokens = attention.tokens if axis == "query" else attention.k_tokens
            return [format_label(str(token)) for token in tokens]  # on a terminal a token's escape sequences would act
        prefix = "d" if axis == "dim" else f"{axis} "
        return [f"{prefix}{i}" for i in attention.at.get(axis, range(n))]

    values = as_numpy(step.values)
    row_axis, column_axis = step.axes
    corner = "token" if row_axis in ("query", "key") else row_axis
    write_row([corner, *labels(column_axis, values.shape[1])])
    for label, row in zip(labels(row_axis, values.shape[0]), values, strict=True):
        write_row([label, *map(_format_cell, row)])


def _write_tidy_rows(write_row: RowWriter, attention: Attention) -> None:
    """Write a row for each number: its step, its index on every axis, its value."""
    present = {axis for step in attention.steps for axis in step.axes}
    columns = [axis for axis in AXES if axis in present or axis in _TIDY_COLUMNS]
    write_row(["step", *columns, "value"])
    for step in attention.steps:
        values = as_numpy(step.values)
        for index in np.ndindex(values.shape):
            cell = {
                axis: attention.at.get(axis, range(n))[i]
                for axis, n, i in zip(step.axes, values.shape, index, strict=True)
            }
            write_row([step.name, *(cell.get(axis, "") for axis in columns), _format_cell(values[index])])
