"""CSV and TSV: one matrix as a matrix, anything more as tidy rows. Numbers in full."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from attncli.errors import printable
from attncli.output_formats import RenderOptions, output_format
from attncli.types import AXES, Attention, Step
from attncli.validation.fields import as_numpy

_TIDY_COLUMNS = ("batch", "head", "query", "key")  # columns that are always there; others where a step has them


@output_format("csv", ".csv", console_errors="utf-8")
def write_csv(attention: Attention, options: RenderOptions) -> str:
    """Separated by commas."""
    return _format_table(attention, ",", options)


@output_format("tsv", ".tsv", console_errors="utf-8")
def write_tsv(attention: Attention, options: RenderOptions) -> str:
    """Separated by tabs."""
    return _format_table(attention, "\t", options)


def _format_table(attention: Attention, separator: str, options: RenderOptions) -> str:
    out = io.StringIO()
    rows = csv.writer(out, delimiter=separator, lineterminator="\n")
    one = attention.steps[0] if len(attention.steps) == 1 else None
    if one is not None and len(one.axes) == 2 and one.axes[0] != "batch":
        _write_matrix(rows, attention, one, printable if options.is_terminal else str)
    else:
        _write_tidy_rows(rows, attention)
    return out.getvalue()


def _format_cell(value: Any) -> str:
    """The shortest text that reads back to the same value."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return repr(value.item()) if isinstance(value, np.float64) else str(value)


def _write_matrix(rows: Any, attention: Attention, step: Step, format_label: Callable[[str], str]) -> None:
    def labels(axis: str, n: int) -> list[str]:
        if axis in ("query", "key"):
            tokens = attention.tokens if axis == "query" else attention.k_tokens
            return [format_label(str(t)) for t in tokens]  # on a terminal a token's escape sequences would act
        prefix = "d" if axis == "dim" else f"{axis} "
        return [f"{prefix}{i}" for i in attention.at.get(axis, range(n))]

    values = as_numpy(step.values)
    rows.writerow(
        ["token" if step.axes[0] in ("query", "key") else step.axes[0], *labels(step.axes[1], values.shape[1])]
    )
    for label, row in zip(labels(step.axes[0], values.shape[0]), values, strict=True):
        rows.writerow([label, *map(_format_cell, row)])


def _write_tidy_rows(rows: Any, attention: Attention) -> None:
    present = {axis for step in attention.steps for axis in step.axes}
    columns = [axis for axis in AXES if axis in present or axis in _TIDY_COLUMNS]
    rows.writerow(["step", *columns, "value"])
    for step in attention.steps:
        values = as_numpy(step.values)
        for index in np.ndindex(values.shape):
            at = {
                axis: attention.at.get(axis, range(n))[i]
                for axis, n, i in zip(step.axes, values.shape, index, strict=True)
            }
            rows.writerow([step.name, *(at.get(axis, "") for axis in columns), _format_cell(values[index])])
