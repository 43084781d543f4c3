"""Parse a vector that stands in one cell, as Python, JSON, NumPy, PyTorch and PostgreSQL write it. Entry: `parse_vector`."""

from __future__ import annotations

from attncli.errors import InputError
from attncli.readers.csv_cells import NUMBER, find_parts
from attncli.readers.csv_non_numbers import explain_non_number


def parse_vector(cell: str) -> list[float]:
    """Parse the numbers of a vector that stands in one cell.

    Raises:
        InputError: it holds something else, or NumPy has left numbers out.
    """
    _, parts = find_parts(cell)
    text = cell.strip()
    if "..." in parts or "…" in parts:
        raise InputError(
            "truncated",
            "numbers are left out of this vector: it holds ...",
            help="NumPy shortens what it prints: write lists, as in df['embedding'] = df['embedding'].map(list)",
        )
    if text[:1] in ("[", "(", "{") and text[1:].lstrip()[:1] in ("[", "(", "{"):
        raise InputError("not-a-number", "there are lists within the list: a cell holds one vector")
    for part in parts:
        if not NUMBER.fullmatch(part):
            code, message, hint = explain_non_number(part, NUMBER)
            raise InputError(code, message, help=hint)
    values = [float(part) for part in parts]
    if not values:
        raise InputError("empty-cell", "this vector holds no number")
    return values
