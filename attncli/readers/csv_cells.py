"""Recognise what a cell of a text file holds: a number, a truth value, a vector, a slip for one of them. Entries: `NUMBER`, `parse_vector`."""

from __future__ import annotations

import re

from attncli.errors import InputError
from attncli.text import printable, shorten

# Each character can match in one way only, so that a cell of a million digits takes no time squared.
NUMBER = re.compile(r"[+-]?(\d++(\.\d*+)?|\.\d++)([eE][+-]?\d++)?", re.ASCII)
COMMA_NUMBER = re.compile(r"[+-]?(\d++([.,]\d*+)?|[.,]\d++)([eE][+-]?\d++)?", re.ASCII)  # with decimal commas
_NONFINITE = r"|[+-]?(?i:inf|infinity)|[+-]?(?i:nan)"
NUMBER_OR_NONFINITE = re.compile(NUMBER.pattern + _NONFINITE, re.ASCII)
COMMA_NUMBER_OR_NONFINITE = re.compile(COMMA_NUMBER.pattern + _NONFINITE, re.ASCII)
TRUTH_VALUE = re.compile(r"(?i:true|false)")
NUMBER_OR_TRUTH_VALUE = re.compile(NUMBER.pattern + "|" + TRUTH_VALUE.pattern, re.ASCII)
_FORTRAN_NUMBER = re.compile(r"[+-]?(\d++(\.\d*+)?|\.\d++)[dD][+-]?\d++", re.ASCII)

# A list, tuple or set of numbers as Python, JSON, NumPy, PyTorch and PostgreSQL write it.
_VECTOR = re.compile(
    r"(?:(?:\w++\.)?(?:array|tensor)\(\s*+)?[\[({]([^\[\](){}]*+)[\])}](?:\s*+,\s*+dtype=[\w.]++\s*+)?\)?", re.ASCII
)
_NUMPY_SCALAR = re.compile(r"\b(?:np|numpy)\.(?:float|int)\d++\(([^()]*+)\)", re.ASCII)


def looks_like_vector(cell: str) -> bool:
    """Whether a cell holds several numbers, NaN among them, with commas or blanks between; brackets may stand around slips, too."""
    bracketed, parts = _find_parts(cell)
    if bracketed:
        return len(parts) > 1 and bool(parts[0]) and looks_like_number(parts[0])
    return len(parts) > 1 and all(map(NUMBER_OR_NONFINITE.fullmatch, parts))


def resembles_vector(cell: str) -> bool:
    """Whether a cell holds several numbers, or slips for them with commas between: no name of a column."""
    _, parts = _find_parts(cell)
    has_slips = "," in cell and len(parts) > 1 and any(parts) and all(map(looks_like_number, parts))
    return has_slips or looks_like_vector(cell)


def has_brackets(cell: str) -> bool:
    """Whether brackets stand around what a cell holds."""
    return cell.rstrip().endswith(("]", ")", "}"))


def is_one_number_in_brackets(cell: str) -> bool:
    """Whether a cell holds one number between brackets: a vector of one dimension, or the name of a column."""
    bracketed, parts = _find_parts(cell)
    return bracketed and len(parts) == 1 and looks_like_number(parts[0])


def parse_vector(cell: str) -> list[float]:
    """Parse the numbers of a vector that stands in one cell.

    Raises:
        InputError: it holds something else, or NumPy has left numbers out.
    """
    _, parts = _find_parts(cell)
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


def _find_parts(cell: str) -> tuple[bool, list[str]]:
    """Return whether brackets stand around what a cell holds, and what stands between its commas or blanks."""
    text = _NUMPY_SCALAR.sub(r"\1", cell.strip()) if "(" in cell else cell.strip()
    bracketed = _VECTOR.fullmatch(text)
    inner = bracketed[1] if bracketed else text
    parts = [part.strip() for part in inner.split(",")] if "," in inner else inner.split()
    if bracketed and len(parts) > 1 and not parts[-1]:  # (0.5,)
        parts.pop()
    return bracketed is not None, parts


def looks_like_number(cell: str) -> bool:
    """Whether a cell is empty, nan, 1_0, ٣ or the like: a slip for a number rather than a word."""
    text = cell.strip().lower()
    return (
        not text
        or text.lstrip("+-") in ("nan", "inf", "infinity", "na", "null", "none")
        or _FORTRAN_NUMBER.fullmatch(text) is not None
        or (re.fullmatch(r"[\d_.,e+-]++", text) is not None and re.search(r"\d", text) is not None)
    )


def explain_non_number(cell: str, number_pattern: re.Pattern[str]) -> tuple[str, str, str]:
    """Return code, sentence and way out for a cell that is no finite number."""
    if not cell:
        return "empty-cell", "a value is missing", "write the number; an empty cell is never read as 0"
    if number_pattern.fullmatch(cell):
        return "not-finite", f"{shorten(cell)} is larger than a float64 can hold", ""
    if cell.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return "not-finite", f"{cell} is not allowed here", "embeddings must be finite"
    if _FORTRAN_NUMBER.fullmatch(cell):
        hint = r"write e for Fortran's D: sed -E 's/([0-9.])[dD]([-+]?[0-9])/\1e\2/g'"
    elif cell[0] in "[({":
        hint = 'a vector in one cell stands between quotation marks: "[0.1, 0.2]"'
    elif ";" in cell:
        hint = "put each row on a line of its own: tr ';' '\\n'"
    else:
        hints = {"_": "write digits without underscores", ",": "write a decimal point, or separate columns with ;"}
        hint = next((hint for character, hint in hints.items() if character in cell), "")
    return "not-a-number", f"{printable(shorten(cell))!r} is not a number", hint
