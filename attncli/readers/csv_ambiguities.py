"""Refuse tables of text whose numbers may be read in another way: decimal commas, numbers within tokens, rows for columns.

Entry: `check_readings`. Each check holds of all rows or of none, so that the first rows of a large file tell enough.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attncli.errors import InputError
from attncli.readers.csv_cells import NUMBER
from attncli.readers.csv_table_protocol import TableReading
from attncli.text import printable, shorten

_DIMENSION_LABEL = re.compile(
    r"(?:d|dims?|dimension|f|feat|feature|v|var|col|column|emb|embedding|component|factor|latent|pc)[ _.-]?(\d{1,18})",
    re.IGNORECASE | re.ASCII,
)
_DIMENSION_NAMES = frozenset({"d", "dim", "dims", "dimension", "feature", "component", "pc"})
_GROUPED_BY_POINT = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}", re.ASCII)
_SHORT_INTEGER = re.compile(r"[+-]?\d{1,3}", re.ASCII)
_TO_POINTS = r"sed -E 's/([0-9]),([0-9])/\1.\2/g'"
_WITHOUT_GROUPS = r"sed -E 's/([0-9])\.([0-9]{3})/\1\2/g'"
_TRANSPOSE = 'python -c "import csv, sys; csv.writer(sys.stdout).writerows(zip(*csv.reader(sys.stdin, delimiter=SEPARATOR)))" < FILE > NEW.csv'


def check_readings(table: TableReading, tokens: int | None, dimensions: Sequence[int]) -> None:
    """Check that the columns which were found can be read in one way.

    Args:
        table: its rows.
        tokens: the column of the tokens.
        dimensions: the columns of the numbers.

    Raises:
        InputError: there is another way; both are spelled.
    """
    if tokens is not None and table.source.token_column is None:
        _check_tokens(table, tokens, dimensions)
        _check_orientation(table, tokens, dimensions)
    if table.source.columns:
        return
    if table.separator == ";":
        _check_decimal_marks(table, dimensions)
    elif table.separator == ",":
        _check_no_decimal_commas(table, dimensions)


def _check_tokens(table: TableReading, tokens: int, dimensions: Sequence[int]) -> None:
    """Check that no token ends in a number that belongs to the vector, and that none is in single quotation marks."""
    labels = [row[tokens] for row in table.body]
    first = printable(shorten(labels[0]))
    takes_all = (
        f"{table.source.spell_option('token-column', table.name_columns([tokens]))} takes the tokens as they are"
    )
    if all(len(label) > 1 and label[0] == label[-1] == "'" for label in labels):
        raise table.text_rows.cell_error(
            "two-readings",
            f"{first!r}: are single quotation marks part of the tokens?",
            table.first,
            tokens,
            help=f"""no: write double ones, sed "s/'/\\"/g"; yes: {takes_all}""",
        )
    ends = [_find_number_at_end(label) for label in labels]
    if not all(number for _, number in ends):
        return
    are_fractions = any(re.search("[.eE]", number) for _, number in ends)
    are_after_marks = all(mark in "\t;,|" for mark, _ in ends)
    if table.separator == " " and (table.source.separator or not are_after_marks):
        return
    may_be_decimal = (
        len(dimensions) == 1
        and all(row[dimensions[0]].strip().isdigit() for row in table.body)
        and table.separator == ","
    )
    if are_fractions or are_after_marks or may_be_decimal:
        separator = table.separator
        raise table.text_rows.cell_error(
            "unclear-tokens",
            f"every token ends in a number, as in {first!r}: is that part of the vector?",
            table.first,
            tokens,
            help=f"yes: put the same separator everywhere, as in cat{separator}0.1{separator}0.2; no: {takes_all}",
        )


def _find_number_at_end(label: str) -> tuple[str, str]:
    """Return what stands before the number at the end of a label, a blank or a colon, and the number; neither where there is none."""
    text = label.rstrip()
    start = max(map(text.rfind, " \t:=;,|"))
    is_number = start > 0 and NUMBER.fullmatch(text[start + 1 :])
    return (text[start], text[start + 1 :]) if is_number else ("", "")


def _check_orientation(table: TableReading, tokens: int, dimensions: Sequence[int]) -> None:
    """Check that the rows are not the dimensions, and the columns the tokens."""
    if not table.header or len(table.body) < 2:
        return
    numbers = [_DIMENSION_LABEL.fullmatch(row[tokens].strip()) for row in table.body]
    counted = [int(number[1]) for number in numbers if number]
    names = [table.header[c] for c in dimensions]
    are_dimensions = counted in (list(range(len(table.body))), list(range(1, len(table.body) + 1)))
    are_dimensions |= table.header[tokens].lower() in _DIMENSION_NAMES
    if are_dimensions and not any(re.search(r"\d", name) for name in names):
        raise transposed_error(
            table, tokens, f"the rows are called {table.body[0][tokens].strip()!r}, {table.body[1][tokens].strip()!r} …"
        )


def transposed_error(table: TableReading, column: int, message: str) -> InputError:
    """The error for a table in which each row may be a dimension."""
    spell = table.source.spell_option
    command = _TRANSPOSE.replace("SEPARATOR", repr(table.separator))
    return table.text_rows.cell_error(
        "two-readings",
        f"{message}: is each row a dimension, and each column a token?",
        table.first,
        column,
        help=f"yes: {command}; no: {spell('token-column', table.name_columns([column]))} makes them the tokens",
    )


def is_column_of_dimension_numbers(table: TableReading, column: int) -> bool:
    """Whether a column is called as dimensions are, and counts them."""
    if not table.header or table.header[column].lower() not in _DIMENSION_NAMES or len(table.body) < 2:
        return False
    cells = (row[column].strip() for row in table.body)
    first = 1 if table.body[0][column].strip() == "1" else 0
    return all(cell == str(i) for i, cell in enumerate(cells, first))


def _check_decimal_marks(table: TableReading, dimensions: Sequence[int]) -> None:
    """Check that a point between semicolons is no mark of thousands."""
    cells = [(i, c, row[c].strip()) for i, row in enumerate(table.body, table.first) for c in dimensions]
    points = [place for place in cells if "." in place[2] and table.holds_number(place[2])]
    if not points or not all(_GROUPED_BY_POINT.fullmatch(cell) for _, _, cell in points):
        return
    row, column, cell = points[0]
    comma = next((cell for _, _, cell in cells if "," in cell), "")
    if comma:
        message = f"{cell!r} has a point, and {comma!r} a comma: does each begin the fraction?"
    elif len(points) < len(cells) and all("." in cell or _SHORT_INTEGER.fullmatch(cell) for _, _, cell in cells):
        message = f"{cell!r} is beside whole numbers: does its point separate thousands?"
    else:
        return
    columns = table.source.spell_option("columns", table.name_columns(dimensions))
    other = f"yes: {_TO_POINTS}" if comma else f"no: {columns}"
    raise table.text_rows.cell_error(
        "two-readings", message, row, column, help=f"{other}; the point separates thousands: {_WITHOUT_GROUPS}"
    )


def _check_no_decimal_commas(table: TableReading, dimensions: Sequence[int]) -> None:
    """Check that no decimal comma has made two cells of one: the,2,0409,-2,5557."""
    if len(dimensions) % 2 or table.header:
        return
    if any(re.search("[.eE]", row[c]) for row in table.body for c in dimensions):
        return
    ends = [row[c].strip() for row in table.body for c in dimensions[1::2]]
    starts = [row[c].strip() for row in table.body for c in dimensions[::2]]
    if not all(cell.isdigit() for cell in ends):
        return
    has_zeros = any(len(cell) > 1 and cell.startswith("0") for cell in ends) or "-0" in starts
    are_digits_then_decimals = (
        len(dimensions) > 2
        and all(re.fullmatch(r"[+-]?\d", cell) for cell in starts)
        and max(map(len, ends)) > 1
        and 2 * sum(cell.endswith("0") for cell in ends) < len(ends)
    )
    if not (has_zeros or are_digits_then_decimals):
        return
    row = table.body[0]
    pair = shorten(f"{row[dimensions[0]].strip()},{row[dimensions[1]].strip()}")
    columns = table.source.spell_option("columns", table.name_columns(dimensions))
    raise table.text_rows.cell_error(
        "two-readings",
        f"{pair} may be two numbers, or one with a decimal comma",
        table.first,
        dimensions[0],
        help=rf"one: sed -E 's/([0-9]),([0-9]+)(,|$)/\1.\2\3/g'; two: {columns}",
    )
