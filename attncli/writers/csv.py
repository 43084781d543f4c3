"""Write CSV and TSV, with every digit: one matrix as a matrix; anything else, and with `tidy` that too, as tidy rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat

import msgspec
import numpy as np

from attncli.output_formats import RenderOptions, output_format
from attncli.text import printable
from attncli.types import AXES, TOKEN_AXES, Attention, NumpyArray, Step
from attncli.validation.fields import as_numpy
from attncli.writers.tidy import TidyBlock, TokenColumn, tidy_blocks

_TIDY_COLUMNS = ("batch", "head", "query", "key")  # of every file; other axes where a step has them


_MATRIX_NUMBERS_AT_ONCE = 2**16


@output_format("csv", ".csv", console_errors="utf-8", shape_options=("tidy",))
def write_csv(attention: Attention, options: RenderOptions) -> Iterator[str]:
    """Write values separated by commas, piece by piece."""
    return _format_result(attention, ",", options)


@output_format("tsv", ".tsv", console_errors="utf-8", shape_options=("tidy",))
def write_tsv(attention: Attention, options: RenderOptions) -> Iterator[str]:
    """Write values separated by tabs, piece by piece."""
    return _format_result(attention, "\t", options)


def _format_result(attention: Attention, separator: str, options: RenderOptions) -> Iterator[str]:
    def quote_label(label: object) -> str:
        """A label as a cell; on a terminal its escape sequences would act."""
        return _quote_cell(printable(str(label)) if options.is_terminal else str(label), separator)

    step = attention.steps[0] if len(attention.steps) == 1 else None
    if step is not None and len(step.axes) == 2 and step.axes[0] != "batch" and not options.tidy:
        return _format_matrix(attention, step, separator, quote_label)
    return _format_tidy_rows(attention, separator, quote_label)


def _quote_cell(text: str, separator: str) -> str:
    """A text as a cell, in quotes where it needs them."""
    line = io.StringIO()
    csv.writer(line, delimiter=separator, lineterminator="\n").writerow([text, ""])  # alone, an empty one is quoted
    return line.getvalue()[:-2]


def _format_cells(values: NumpyArray) -> list[str]:
    """Return for each value, in the order of rows, the shortest text that reads back to it."""
    if values.dtype == np.bool_:
        return ["true" if value else "false" for value in values.ravel().tolist()]
    if values.dtype == np.float64:
        return _format_doubles(values.ravel())
    return list(map(str, values.ravel()))


def _format_doubles(values: NumpyArray) -> list[str]:
    """Return what `repr` does of each number, in a fifth of the time.

    Encoding JSON finds the same digits, many numbers at once, and writes only other exponents.
    """
    if not values.size:
        return []
    texts = msgspec.json.encode(values.tolist()).decode().strip("[]").split(",")
    sizes = np.abs(values)
    has_other_spelling = ~(((sizes >= 1e-4) & (sizes < 1e16)) | (sizes == 0))  # of exponents, and of what is not finite
    for i in np.flatnonzero(has_other_spelling).tolist():
        texts[i] = repr(values[i].item())
    return texts


def _format_matrix(
    attention: Attention, step: Step, separator: str, quote_label: Callable[[object], str]
) -> Iterator[str]:
    """Write a step of two axes as a matrix, with labels of rows and columns."""

    def labels(axis: str, n: int) -> list[str]:
        if axis in ("query", "key"):
            tokens = attention.tokens if axis == "query" else attention.k_tokens
            return [quote_label(token) for token in tokens]
        prefix = "d" if axis == "dim" else f"{axis} "
        return [f"{prefix}{i}" for i in attention.at.get(axis, range(n))]

    values = as_numpy(step.values)
    row_count, column_count = values.shape
    row_axis, column_axis = step.axes
    corner = "token" if row_axis in ("query", "key") else row_axis
    yield separator.join([corner, *labels(column_axis, column_count)]) + "\n"
    row_labels = labels(row_axis, row_count)
    rows_at_once = max(1, _MATRIX_NUMBERS_AT_ONCE // max(1, column_count))
    for first in range(0, row_count, rows_at_once):
        some_labels = row_labels[first : first + rows_at_once]
        cells = iter(_format_cells(values[first : first + rows_at_once]))
        rows = zip(some_labels, *[cells] * column_count, strict=True)
        yield "".join(f"{separator.join(row)}\n" for row in rows)


def _format_tidy_rows(attention: Attention, separator: str, quote_label: Callable[[object], str]) -> Iterator[str]:
    """Write a row for each number: its step, its index on every axis, its value, and the tokens of its query and key.

    The tokens stand last, so that whoever takes columns by their places still finds the others.
    """
    present = {axis for step in attention.steps for axis in step.axes}
    axes = [axis for axis in AXES if axis in present or axis in _TIDY_COLUMNS]
    yield separator.join(["step", *axes, "value", *TOKEN_AXES]) + "\n"
    for block in tidy_blocks(attention):
        columns: list[Sequence[str] | str] = [block.step]  # a text alone: the same in every row
        columns += [_format_indices(block.indices[axis]) if axis in block.indices else "" for axis in axes]
        columns.append(_format_cells(block.values))
        columns += [_format_tokens(block, name, quote_label) for name in TOKEN_AXES]
        yield "\n".join(map(separator.join, zip(*_join_constants(columns, separator), strict=False))) + "\n"


def _join_constants(columns: Sequence[Sequence[str] | str], separator: str) -> Iterator[Iterable[str]]:
    """Neighbouring columns that are the same in every row, as one."""
    constant: list[str] = []
    for column in [*columns, None]:
        if isinstance(column, str):
            constant.append(column)
            continue
        if constant:
            yield repeat(separator.join(constant))
            constant = []
        if column is not None:
            yield column


def _format_indices(indices: NumpyArray) -> list[str]:
    """The text of each index: of those that repeat, once."""
    numbers = indices.tolist()
    texts = {number: str(number) for number in set(numbers)}
    return list(map(texts.__getitem__, numbers))


def _format_tokens(block: TidyBlock, name: str, quote_label: Callable[[object], str]) -> list[str] | str:
    """The token of each row, in one of the columns of tokens; empty where the step has none."""
    found: TokenColumn | None = block.tokens.get(name)
    if found is None:
        return ""
    places = found.places.tolist()
    texts = {place: quote_label(found.labels[place]) for place in set(places)}
    return list(map(texts.__getitem__, places))
