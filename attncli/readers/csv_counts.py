"""Refuse tables of text whose numbers may count something: tokens, rows, or the dimensions of a long table.

Entries: `check_counts`, `make_stacked_frame_error`.
"""

from __future__ import annotations

from collections.abc import Sequence

from attncli.errors import InputError
from attncli.readers.columns import are_alike
from attncli.readers.csv_table_protocol import TableReading
from attncli.readers.long_tables import LongTable

_FIELDS_OF_TOKENS = ("", "embeddings", "q", "k", "v", "memory")  # whose rows are tokens
_MAX_COUNT_DIGITS = 18
_MIN_RATIO = 10  # of the largest count to all other numbers, where these are whole as well


def check_counts(table: TableReading, tokens: int | None, dimensions: Sequence[int]) -> None:
    """Check that no column holds counts or a numbering beside the vectors, and that no row holds one number of a vector.

    Args:
        table: its rows.
        tokens: the column of the tokens.
        dimensions: those that nothing else speaks against.

    Raises:
        InputError: one does, or may; every reading is spelled.
    """
    if table.text_rows.declared or len(table.body) < 2 or table.source.field not in _FIELDS_OF_TOKENS:
        return
    if table.header and are_alike([table.header[c] for c in dimensions]):
        return
    if not table.header:
        _check_is_not_long(table, tokens, dimensions)
    if len(dimensions) < 3:
        return
    for column in dimensions if table.header else (dimensions[0], dimensions[-1]):
        cells = [row[column].strip() for row in table.body]
        others = [row[c].strip() for row in table.body for c in dimensions if c != column]
        if not all(map(_may_be_count, cells)) or not all(map(table.holds_number, others)):
            continue
        are_fractions = not any(cell.lstrip("+-").isdigit() for cell in others)
        is_numbering = _counts_up(cells) and (are_fractions or (column == dimensions[0] and not table.header))
        has_large = max(map(len, cells)) > 1 or len(cells) > 2
        is_far_larger = not table.header and _are_far_larger(cells, others)
        if is_numbering or is_far_larger or (are_fractions and has_large):
            reason = "all others hold fractions" if are_fractions else "all others smaller ones"
            if is_numbering and not are_fractions:
                reason = f"counts {cells[0]}, {cells[1]}, {cells[2]} …"
            raise _counts_error(table, column, tokens, dimensions, reason)


def _may_be_count(cell: str) -> bool:
    """Whether a cell is a whole number, of no more digits than a count has."""
    return cell.isascii() and cell.isdigit() and len(cell) <= _MAX_COUNT_DIGITS


def _counts_up(cells: Sequence[str]) -> bool:
    """Whether cells count the rows from 0 or 1; of two rows that is nothing unusual."""
    return (
        len(cells) > 2 and cells[0] in ("0", "1") and all(cell == str(i) for i, cell in enumerate(cells, int(cells[0])))
    )


def _are_far_larger(cells: Sequence[str], others: Sequence[str]) -> bool:
    """Whether counts, from 1 on, are of another size than whole numbers beside them."""
    if not all(cell.lstrip("+-").isdigit() and len(cell) < 5 for cell in others):
        return False
    return min(map(int, cells)) > 0 and max(map(int, cells)) >= _MIN_RATIO * max(
        1, *(abs(int(cell)) for cell in others)
    )


def _counts_error(
    table: TableReading, column: int, tokens: int | None, dimensions: Sequence[int], reason: str
) -> Exception:
    spell = table.source.spell_option
    ways = [f"{table.spell_drop(column)} leaves it out"]
    if tokens is None and column == dimensions[0]:
        ways.append(f"{spell('token-column', table.name_columns([column]))} makes them the tokens")
    ways.append(f"{spell('columns', table.name_columns(dimensions))} takes all")
    verb = reason if reason.startswith("counts") else f"holds whole numbers, and {reason}"
    return table.text_rows.cell_error(
        "unclear-columns", f"column {column} {verb}: part of the vector?", table.first, column, help="; ".join(ways)
    )


def _check_is_not_long(table: TableReading, tokens: int | None, dimensions: Sequence[int]) -> None:
    """Check that the rows of a file without a header do not count the dimensions of one token after the other: the,0,0.5.

    Raises:
        InputError: they do.
    """
    keys, counted = (tokens, dimensions) if tokens is not None else (dimensions[0], dimensions[1:])
    if keys is None or len(counted) != 2:
        return
    cells = [row[counted[0]].strip() for row in table.body]
    width = max(map(int, cells)) - int(cells[0]) + 1 if all(map(_may_be_count, cells)) else 0
    if width < 2 or len(cells) % width or len(cells) == width or cells[0] not in ("0", "1"):
        return
    labels = [row[keys] for row in table.body]
    for first in range(0, len(cells), width):
        numbers = range(int(cells[0]), int(cells[0]) + width)
        if cells[first : first + width] != list(map(str, numbers)) or len({*labels[first : first + width]}) > 1:
            return
    long = LongTable((f"c{keys}",), f"c{counted[0]}", f"c{counted[1]}")
    raise table.text_rows.cell_error(
        "two-readings",
        f"column {counted[0]} counts {cells[0]}, {cells[1]} … for each of column {keys}: does each row hold one number of a vector, or {len(dimensions)} dimensions?",
        table.first,
        counted[0],
        help=long.spell_readings(
            table.source,
            table.separator,
            header=[f"c{c}" for c in range(len(table.body[0]))],
            dimensions=table.source.spell_option("columns", table.name_columns(dimensions)),
        ),
    )


def make_stacked_frame_error(table: TableReading) -> InputError:
    """Make the error of a table whose header is that of pandas' `stack`, which may hold one number of a vector a row."""
    *keys, dimension, value = header = [f"c{c}" for c in range(len(table.header))]
    places = [len(keys), len(keys) + 1]
    hint = LongTable(tuple(keys), dimension, value).spell_readings(
        table.source,
        table.separator,
        header=header,
        skip_rows=1,
        dimensions=table.source.spell_option("columns", table.name_columns(places)),
    )
    message = (
        f"columns {places[0]} and {places[1]}: does each row hold one number of a vector, or are they two dimensions?"
    )
    return table.text_rows.cell_error("two-readings", message, 0, places[0], help=hint)
