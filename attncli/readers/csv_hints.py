"""Say the way out of a row or a cell of a text file that cannot be read. Entries: `explain_cell`, `explain_labels_alone`, `explain_ragged_row`."""

from __future__ import annotations

import re

from attncli.readers.csv_non_numbers import DOUBLE_QUOTES, explain_non_number
from attncli.readers.csv_rows import SEPARATORS
from attncli.readers.csv_table_protocol import TableReading
from attncli.text import shorten

_TO_POINTS = r"sed -E 's/([0-9]),([0-9])/\1.\2/g'"
_WITHOUT_FIRST_LINE = "if line 1 is a title, remove it: tail -n +2"
_COMMENT_START = re.compile("#|%|//|--")


def explain_labels_alone(table: TableReading) -> str:
    """Return the way out of rows without a number: another separator where each row has as many of it, or labels beside vectors."""
    for name, character in SEPARATORS.items():
        counts = {sum(cell.count(character) for cell in row) for row in table.body}
        if character != table.separator and len(counts) == 1 and counts != {0}:
            return f"every row holds a {name}: {table.source.spell_option('separator', name)}"
    return "separate columns with a comma, a semicolon, a tab or spaces; labels alone go beside vectors: --with tokens=FILE"


def explain_cell(table: TableReading, row: int, column: int) -> tuple[str, str, str]:
    """Return code, sentence and way out for a cell that is no finite number."""
    cell = table.rows[row][column].strip()
    code, message, hint = explain_non_number(cell, table.number_pattern)
    cells = [other.strip() for other in table.rows[row]]
    line = table.text_rows.row_lines[row]
    if (
        cell
        and row == 0
        and not table.header
        and any(not other for other in cells)
        and not any(map(table.holds_number, cells))
    ):
        return (
            code,
            message,
            f"if line 1 is a header, name every column in it, or leave those out at its end: {_spell_empty_columns(table)}",
        )
    if not cell and row == 0 and not table.header and cells[0] and not any(cells[1:]):
        return code, message, _WITHOUT_FIRST_LINE
    if not cell and not any(cells):
        return code, "the row is empty", f"remove it: sed {line}d; blank lines may stand at the end"
    if not cell:
        empty = find_empty_columns(table)
        hint = describe_empty_columns(table, empty) if column in empty else hint
        if table.text_rows.may_be_blank_separated(row):
            hint += f"; if several tabs and blanks separate as one, {table.source.spell_option('separator', 'space')}"
        return code, message, hint
    if code != "not-a-number":
        return code, message, hint
    others = [c for c in range(len(cells)) if c != table.token_column_index]
    if not hint and row == table.first and table.header and _is_unlike_next_row(table, others):
        return code, message, f"if line {line} is a second line of header, remove it: sed {line}d"
    words = sum(not table.holds_number(other[column]) for other in table.body)
    if 2 * words > len(table.body):
        name = table.name_columns([column])
        takes = f"{table.source.spell_option('token-column', name)} makes it the tokens"
        leaves = f"{table.spell_drop(column)} leaves it out"
        if not hint:
            return (
                code,
                message,
                f"the column holds {'words' if words == len(table.body) else 'mostly words'}: {takes}, {leaves}",
            )
    if table.separator in "\t| " and hint.startswith("write a decimal point"):
        hint = f"write decimal points: {_TO_POINTS}"
    return code, message, hint


def _is_unlike_next_row(table: TableReading, columns: list[int]) -> bool:
    """Whether none of some columns holds a number in the first row below the header, and one does in the next."""
    return len(table.body) > 1 and [any(table.holds_number(row[c]) for c in columns) for row in table.body[:2]] == [
        False,
        True,
    ]


def find_empty_columns(table: TableReading) -> list[int]:
    """Return the columns that are empty in all rows."""
    return [c for c in range(len(table.body[0])) if not any(row[c].strip() for row in table.body)]


def describe_empty_columns(table: TableReading, columns: list[int]) -> str:
    """Return the option that leaves empty columns out."""
    subject, them = ("the column is", "it") if len(columns) == 1 else (f"{len(columns)} columns are", "them")
    return f"{subject} empty throughout: {table.spell_drop(*columns)} leaves {them} out"


def _spell_empty_columns(table: TableReading) -> str:
    empty = find_empty_columns(table)
    return table.spell_drop(*empty) if empty else "none may be empty"


def explain_ragged_row(table: TableReading, row: int, width: int) -> str:
    """Return the way out of a row that has more or fewer cells than the first."""
    cells, separator = table.rows[row], table.separator
    has = len(cells)
    widths = {len(other) for other in table.rows[1:]}
    if _COMMENT_START.match(cells[0].strip()) and has < width:
        return "comment lines may only come before the rows; remove the others: grep -v '^#'"
    if cells[0].startswith("'[") or any(cell.startswith(("'[", " '[")) for cell in cells):
        return f"write double quotation marks: {DOUBLE_QUOTES}"
    if any(cell.strip().startswith("[") for cell in cells) and separator == " ":
        return "remove the brackets: tr -d '[]'"
    if has == width + 1 and widths == {has} and all(not other[-1].strip() for other in table.rows[1:]):
        return f"the rows end in a separator, which the header does not: sed -E 's/{shorten(separator)}\\r?$//'"
    if row == 1 and len(widths) == 1 and has > width and len(table.rows[0]) <= has - 1 and len(table.rows) > 2:
        return f"{_WITHOUT_FIRST_LINE}; if it is a header, name every column in it"
    if has < width:
        return "add the missing value; short rows are never padded"
    if has == width + 1 and cells[:2] == ("", ""):
        return f'a token that is the separator stands between quotation marks: "{separator}"'
    return "remove the extra values; long rows are never cut"
