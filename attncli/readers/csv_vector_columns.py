"""A table whose rows have a whole vector in one cell. Entries: `find_vector_column`, `parse_vectors`."""

from __future__ import annotations

import re
from collections.abc import Collection

from attncli.errors import InputError
from attncli.readers.columns import OTHER_NAMES
from attncli.readers.csv_cells import COMMA_NUMBER, has_brackets, is_one_number_in_brackets, looks_like_vector
from attncli.readers.csv_table_protocol import TableReading
from attncli.readers.csv_vector_cells import parse_vector
from attncli.text import join_names, pluralize, shorten
from attncli.types import NumpyArray

_GROUPED_BY_BLANKS = re.compile(r"[+-]?[1-9]\d{0,2}(?: \d{3})+", re.ASCII)


def find_vector_column(table: TableReading, dropped: Collection[int], named: Collection[int]) -> int | None:
    """Return the number of the column each cell of which holds a whole vector, if there is one.

    Args:
        table: its rows.
        dropped: the columns that are left out.
        named: those that are chosen; empty: none is.

    Raises:
        InputError: there are several, or numbers stand beside it that may be a vector as well.
    """
    if table.source.field_kind == "booleans":
        return None
    width = len(table.body[0])
    found = [
        c
        for c in range(width)
        if c not in dropped
        and (not named or c in named)
        and (width <= 2 or has_brackets(table.body[0][c]) or c in named)
        and not table.is_requested_token_column(c)
        and _is_vector_column(table, c)
    ]
    if not found:
        return None
    if len(found) > 1:
        cell = table.body[0][found[0]].strip()
        if table.separator == ";" and not has_brackets(cell):
            raise table.text_rows.cell_error(
                "two-readings",
                "there are semicolons between lists of numbers: rows of a matrix, or vectors of several columns?",
                table.first,
                found[1],
                help="put each row on a line of its own: tr ';' '\\n'",
            )
        spelled = " or ".join(table.source.spell_option("columns", table.name_columns([c])) for c in found)
        raise table.text_rows.cell_error(
            "unclear-columns", f"{len(found)} columns hold vectors", 0, found[1], help=f"{spelled} says which"
        )
    column = found[0]
    if table.first and table.source.header is None and is_one_number_in_brackets(table.header[column]):
        raise table.unclear_header_error("the first row holds one number in brackets, above vectors: is it a header?")
    numbers = [c for c in range(width) if c != column and c not in dropped and _is_other_vector(table, c)]
    if numbers and not named:
        spell = table.source.spell_option
        raise table.text_rows.cell_error(
            "unclear-columns",
            f"column {table.name_columns([column])} holds vectors, but there are numbers beside it: are they part of them?",
            0,
            numbers[0],
            help=f"{spell('columns', table.name_columns([column]))} takes the vectors alone, {table.spell_drop(column)} leaves them out",
        )
    return column


def _is_vector_column(table: TableReading, column: int) -> bool:
    """Whether each cell of a column holds a vector; or more than half, in brackets, so that the others are slips."""
    if not looks_like_vector(table.body[0][column]):
        return False
    cells = [row[column] for row in table.body]
    count = sum(map(looks_like_vector, cells))
    return count == len(cells) or (has_brackets(cells[0]) and 2 * count > len(cells))


def _is_other_vector(table: TableReading, column: int) -> bool:
    """Whether a column beside a vector holds numbers under a name that a dimension may have."""
    if table.header and table.header[column].lower() in OTHER_NAMES:
        return False
    return not table.is_requested_token_column(column) and all(table.holds_number(row[column]) for row in table.body)


def parse_vectors(table: TableReading, column: int) -> NumpyArray:
    """Parse the vectors of a column: (n, d).

    Raises:
        InputError: a cell holds none, they differ in length, or they can be read in two ways.
    """
    import numpy as np

    vectors: list[list[float]] = []
    for i, row in enumerate(table.body, table.first):
        try:
            vectors.append(parse_vector(row[column]))
        except InputError as error:
            raise table.text_rows.cell_error(error.code, error.message, i, column, help=error.help) from None
        if len(vectors[-1]) != len(vectors[0]):
            message = f"this vector has {pluralize(len(vectors[-1]), 'number')}, but the first has {len(vectors[0])}"
            raise table.text_rows.cell_error("ragged-row", message, i, column)
    if all(COMMA_NUMBER.fullmatch(row[column].strip()) and "," in row[column] for row in table.body):
        cell = shorten(table.body[0][column].strip())
        raise table.text_rows.cell_error(
            "two-readings",
            f"{cell!r} may be two numbers, or one with a decimal comma",
            table.first,
            column,
            help=f"two numbers: put brackets around each vector, [{cell}]; one: write a point, {cell.replace(',', '.')}",
        )
    if all(_GROUPED_BY_BLANKS.fullmatch(row[column].strip()) for row in table.body):
        cell = shorten(table.body[0][column].strip())
        raise table.text_rows.cell_error(
            "two-readings",
            f"{cell!r} may be several numbers, or one with blanks between thousands",
            table.first,
            column,
            help=f"several: put brackets around each vector, [{cell}]; one: write {''.join(cell.split())}",
        )
    array = np.array(vectors, np.float64)
    if not np.isfinite(array).all():
        row_index = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        message = "this vector holds a number too large for float64"
        raise table.text_rows.cell_error("not-finite", message, table.first + row_index, column)
    return array


def describe_vector_column(table: TableReading, column: int, tokens: int | None) -> list[str]:
    """Say which column the vectors are from, and which are left out beside it and that of the tokens."""
    names = [repr(shorten(name)) for name in table.header] or list(map(str, range(len(table.body[0]))))
    others = [names[c] for c in range(len(names)) if c not in (column, tokens)]
    remarks = [f"vectors from column {names[column]}"]
    return [*remarks, f"left out: {join_names(others, max_names=8)}"] if others else remarks
