"""Figures in tables: a matrix with or without labels, or tidy rows; Parquet and Arrow are read as the CSV of their rows."""

from __future__ import annotations

import csv
import functools
import io
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from attncli.check.figures import (
    Figures,
    StepFigures,
    is_number,
    parse_index,
    parse_written_number,
    require_known_step,
    step_figures_from_texts,
)
from attncli.errors import InputError, Location
from attncli.readers.long_tables import is_result
from attncli.text import join_names, pluralize, printable, shorten, suggestion
from attncli.types import AXES, NONFINITE_SPELLINGS, TOKEN_AXES

_NAME_COLUMNS = ("source", "line", "id")  # of tidy rows: which input they are of
_FRACTION = re.compile(r"[+-]?[0-9]+ */ *[0-9]+")
_CACHED_TEXTS = 4096  # of cells, since many are the same
_VALUE_WORDS: dict[str, float] = {
    "true": 1.0,
    "false": 0.0,
    "nan": np.nan,
    "inf": np.inf,
    "-inf": -np.inf,
    **{word.lower(): float(word) for word in NONFINITE_SPELLINGS},
}


def figures_from_parquet(path: str, data: bytes) -> Figures:
    """Read the columns of a Parquet file as a table."""
    return _figures_from_frame(path, data, "parquet")


def figures_from_arrow(path: str, data: bytes) -> Figures:
    """Read the columns of an Arrow file as a table."""
    return _figures_from_frame(path, data, "arrow")


def _figures_from_frame(path: str, data: bytes, format_name: str) -> Figures:
    """Read a table of Parquet or Arrow as the CSV of the same rows, in which numbers are written out in full."""
    from attncli.readers.arrow import read_frame

    frame = read_frame(data, format_name)
    try:
        text = frame.write_csv()
    except Exception as error:  # whatever the library raises, the columns are of another kind
        message = f"its columns are not a matrix of figures: {shorten(str(error).partition(chr(10))[0])}"
        raise InputError("no-figures", message, help="use a column of numbers for each key, and one of names") from None
    return figures_from_csv(path, text, ",")


def figures_from_csv(path: str, text: str, separator: str) -> Figures:
    """Read the tidy rows or the matrix that attn writes, or a bare matrix of numbers."""
    from attncli.readers.csv_rows import detect_separator, split_lines

    table = _parse_table(text, separator or detect_separator(split_lines(text), "\t;,"))
    if not table.rows:
        raise InputError("empty", "the file is empty")
    if is_result(table.stripped(0)):
        table = _leave_out_names(table)
    first = table.stripped(0)
    if first[0] == "step" and first[_tidy_value_column(first)] == "value":
        return Figures(path, "text", _step_figures_from_tidy_rows(table))
    if first[-1] == "value" and len(first) > 1 and all(name in AXES for name in first[:-1]):
        message = f"the header {join_names(first)} does not name the step of the values"
        hint = f"put a column step in front: step,{','.join(first)}"
        raise InputError("bad-row", message, location=Location(line=table.lines[0]), help=hint)
    return Figures(path, "text", (_step_figures_from_matrix(table),), is_layout_known=False)


def _leave_out_names(table: _Table) -> _Table:
    """Leave out the columns of tidy rows that say which input they are of; all must be of one.

    Raises:
        InputError: they are of several inputs.
    """
    header = table.stripped(0)
    names = [column for column, name in enumerate(header) if name in _NAME_COLUMNS]
    if not names:
        return table
    for i, row in enumerate(table.rows[1:], 1):
        if len(row) == len(header) and any(row[c] != table.rows[1][c] for c in names):
            column = next(c for c in names if row[c] != table.rows[1][c])
            texts = join_names([repr(printable(shorten(table.rows[k][column]))) for k in (1, i)])
            raise InputError(
                "no-figures",
                f"the rows are of several inputs: {header[column]} is {texts}",
                location=Location(line=table.lines[i]),
                help=f"keep the rows of one: those whose {header[column]} is {printable(shorten(table.rows[1][column]))}",
            )
    kept = [column for column in range(len(header)) if column not in names]
    rows = [tuple(row[c] for c in kept) if len(row) == len(header) else row for row in table.rows]
    return _Table(rows, table.lines)


def _tidy_value_column(header: Sequence[str]) -> int:
    """Return where the value of tidy rows stands: last, or before the tokens."""
    token_count = next((i for i, name in enumerate(reversed(header)) if name not in TOKEN_AXES), 0)
    return len(header) - 1 - token_count


@dataclass(frozen=True)
class _Table:
    """The rows of a table that hold something: their cells as they are written, and the line that each starts in."""

    rows: list[tuple[str, ...]]
    lines: array[int]

    def stripped(self, i: int) -> list[str]:
        """Return the cells of a row without the spaces around them."""
        return [cell.strip() for cell in self.rows[i]]


def _parse_table(text: str, separator: str) -> _Table:
    """Parse the rows of a table.

    Raises:
        InputError: it is no CSV.
    """
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a label may be as long as the file
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    table = _Table([], array("q"))
    start = 1
    try:
        for cells in reader:
            if any(cell and not cell.isspace() for cell in cells):
                table.rows.append(tuple(cells))
                table.lines.append(start)
            start = reader.line_num + 1
    except Exception as error:  # whatever the parser raises, the file is bad
        raise InputError(
            "bad-csv",
            f"this is not valid CSV: {shorten(str(error))}",
            location=Location(line=max(reader.line_num, 1)),
            help="close the quotation mark that was opened",
        ) from None
    return table


def _step_figures_from_matrix(table: _Table) -> StepFigures:
    """Make figures of a matrix of numbers, with the labels of its rows and columns where it has them.

    Raises:
        InputError: rows are not equally long, a cell is no number, or there are not as many names as columns.
    """
    header = table.stripped(0)
    names_labels = header[0] in ("token", "", *AXES)
    has_header = _is_header(table, names_labels)
    body = table.rows[has_header:]
    if not body:
        names = join_names([repr(printable(shorten(cell))) for cell in header], max_names=4)
        message = f"there are no rows below the first, which is taken for a header: {names}"
        raise InputError("no-figures", message, help="figures are decimal numbers: 0.3333")
    has_labels = (has_header and names_labels and len(body[0]) == len(header)) or any(
        not _is_value(row[0].strip()) for row in body
    )
    skipped = int(has_labels)
    widths = {len(row) - skipped for row in body}
    if len(widths) != 1 or 0 in widths:
        raise InputError(
            "ragged",
            f"the rows have {join_names(sorted(widths), 'or')} figures",
            help="all rows must have the same length",
        )
    width = widths.pop()
    texts = [cell.strip() for row in body for cell in row[skipped:]]
    for i, text in enumerate(texts):
        if not _is_value(text):
            location = Location(line=table.lines[has_header + i // width], column=i % width + 1 + skipped)
            hint = "fractions are not read: write decimal numbers, 0.3333" if _FRACTION.fullmatch(text) else ""
            message = f"{printable(shorten(text))!r} is where a number should be"
            raise InputError("not-a-number", message, location=location, help=hint)
    column_labels: tuple[str, ...] | None = None
    row_axis = ""
    if has_header:
        has_corner = has_labels and (names_labels or len(header) == width + 1)
        if len(header) != width + has_corner:
            message = f"the header has {pluralize(len(header) - has_corner, 'name')}, but the rows have {width} figures"
            raise InputError("ragged", message, help="give a name for each column, or leave the header out")
        column_labels = table.rows[0][has_corner:]
        row_axis = header[0] if has_corner and header[0] in AXES else ""
    return replace(
        _step_figures_from_cells(None, texts, (len(body), width)),
        row_labels=tuple(row[0] for row in body) if has_labels else None,
        column_labels=column_labels,
        row_axis=row_axis,
    )


def _is_header(table: _Table, names_labels: bool) -> bool:
    """Tell whether the first row of a table is a header: a row of figures in which one is mistyped is none."""
    first = table.stripped(0)
    others = first[1:] or first
    if all(map(_is_value, others)) and (first[0] == "" or _is_value(first[0])):
        # pandas writes an empty cell, and then the numbers of the columns
        return first[0] == "" and _is_column_numbering(others) and all(row[0].strip() for row in table.rows[1:])
    if any(map(_FRACTION.fullmatch, others)):
        return False
    if names_labels or len(table.rows) == 1:
        return True
    return not any(map(_is_value, others)) or _is_column_numbering(others)


def _is_column_numbering(header: Sequence[str]) -> bool:
    """Tell whether a header numbers its columns, from 0 or from 1, in any order."""
    numbers = sorted(index for text in header if (index := parse_index(text)) is not None)
    return numbers in (list(range(first, first + len(header))) for first in (0, 1))


@functools.lru_cache(_CACHED_TEXTS)
def _is_value(text: str) -> bool:
    return is_number(text) or text.lower() in _VALUE_WORDS


def _step_figures_from_cells(step: str | None, texts: Sequence[str], shape: tuple[int, ...]) -> StepFigures:
    """Make figures of the cells of a table.

    Raises:
        InputError: some are booleans and some numbers, or a number is larger than a float64 can hold.
    """
    boolean_count = sum(text.lower() in ("true", "false") for text in texts)
    if boolean_count == len(texts):
        return StepFigures(step, np.array([text.lower() == "true" for text in texts]).reshape(shape))
    if boolean_count:
        message = "it mixes true and false with numbers"
        raise InputError("wrong-type", message, help="use only numbers, or only true and false")
    values = np.fromiter(map(_parse_value, texts), np.float64, len(texts))
    return step_figures_from_texts(step, values.reshape(shape), texts)


def _parse_value(text: str) -> float:
    word = _VALUE_WORDS.get(text.lower())
    return parse_written_number(text).value if word is None else word


def _step_figures_from_tidy_rows(table: _Table) -> tuple[StepFigures, ...]:
    """Make figures of tidy rows, one figure each: step, batch, head, query, key, …, value, and tokens where they are said.

    Raises:
        InputError: a column is no axis or stands twice, or a row is no step, indices and value.
    """
    header = table.stripped(0)
    value_column = _tidy_value_column(header)
    axes, token_columns = tuple(header[1:value_column]), tuple(header[value_column + 1 :])
    for i, name in enumerate((*axes, *token_columns)):
        if name not in AXES and name not in token_columns:
            message = f"there is no axis called {printable(shorten(name))!r}"
            raise InputError("unknown-axis", message, help=suggestion(name, AXES))
        if name in (*axes, *token_columns)[:i]:
            raise InputError("two-sources", f"the column {name} occurs twice", help="remove one of them")
    cells: dict[str, array[int]] = {}  # step → the indices of all its figures, −1 where one is not said
    texts: dict[str, list[str]] = {}
    tokens: dict[str, list[list[str]]] = {}
    for i in range(1, len(table.rows)):
        row = table.stripped(i)
        indices, value = row[1:value_column], "".join(row[value_column : value_column + 1])
        if len(row) != len(header) or not _is_value(value) or not all(map(_is_index, indices)):
            raise _bad_row_error(row, header, table.lines[i])
        if row[0] not in texts:
            require_known_step(row[0])
            cells[row[0]], texts[row[0]], tokens[row[0]] = array("q"), [], [[] for _ in token_columns]
        if axes:
            cells[row[0]].extend([_parse_known_index(index, table.lines[i]) if index else -1 for index in indices])
        texts[row[0]].append(value)
        for found, token in zip(tokens[row[0]], row[value_column + 1 :], strict=True):
            found.append(token)
    if not texts:
        raise InputError("no-figures", "there are no rows below the header")
    return tuple(
        replace(
            _step_figures_from_cells(step, values, (len(values),)),
            cells=np.array(cells[step], np.int64).reshape(len(values), len(axes)),
            cell_axes=axes,
            cell_tokens={name: tuple(found) for name, found in zip(token_columns, tokens[step], strict=True)},
        )
        for step, values in texts.items()
    )


def _bad_row_error(row: Sequence[str], header: Sequence[str], line: int) -> InputError:
    """Make the error of a tidy row that is no step, indices and value: what of it is not."""
    if len(row) != len(header):
        message = f"this row has {pluralize(len(row), 'cell')}, but the header {len(header)}"
        return InputError("bad-row", message, location=Location(line=line), help=f"write {','.join(header)}")
    column = next((i for i, text in enumerate(row[1:-1], 1) if not _is_index(text)), len(row) - 1)
    location = Location(line=line, column=column + 1)
    name = printable(shorten(row[column]))
    if column == len(row) - 1:
        return InputError("bad-row", f"{name!r} is where a number should be", location=location)
    return InputError(
        "bad-row",
        f"{name!r} is not an index of the axis {header[column]}",
        location=location,
        help="write the number of the token, counted from 0; only the rows and columns of a matrix have names",
    )


def _is_index(text: str) -> bool:
    return not text or (text.isascii() and text.isdecimal())


def _parse_known_index(text: str, line: int) -> int:
    index = parse_index(text)
    if index is None:
        raise InputError("out-of-range", f"no axis has an index {shorten(text, 40)}", location=Location(line=line))
    return index
