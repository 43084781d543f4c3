"""Recognise what a cell of a text file holds: a number, a truth value, a vector, a slip for one of them. Entries: `NUMBER`, `looks_like_number`, `looks_like_vector`."""

from __future__ import annotations

import re

# Each character can match in one way only, so that a cell of a million digits takes no time squared.
NUMBER = re.compile(r"[+-]?(\d++(\.\d*+)?|\.\d++)([eE][+-]?\d++)?", re.ASCII)
COMMA_NUMBER = re.compile(r"[+-]?(\d++([.,]\d*+)?|[.,]\d++)([eE][+-]?\d++)?", re.ASCII)  # with decimal commas
_NONFINITE = r"|[+-]?(?i:inf|infinity)|[+-]?(?i:nan)"
NUMBER_OR_NONFINITE = re.compile(NUMBER.pattern + _NONFINITE, re.ASCII)
COMMA_NUMBER_OR_NONFINITE = re.compile(COMMA_NUMBER.pattern + _NONFINITE, re.ASCII)
TRUTH_VALUE = re.compile(r"(?i:true|false)")
NUMBER_OR_TRUTH_VALUE = re.compile(NUMBER.pattern + "|" + TRUTH_VALUE.pattern, re.ASCII)
FORTRAN_NUMBER = re.compile(r"[+-]?(\d++(\.\d*+)?|\.\d++)[dD][+-]?\d++", re.ASCII)

_LIKE_NUMBER = re.compile(  # with minus signs beyond ASCII, and what stands between thousands
    r"[\d_.,e+'’\u00a0\u2009\u202f\u2010-\u2015\u2212-]++"
)

# A list, tuple or set of numbers as Python, JSON, NumPy, PyTorch and PostgreSQL write it.
_VECTOR = re.compile(
    r"(?:(?:\w++\.)?(?:array|tensor)\(\s*+)?[\[({]([^\[\](){}]*+)[\])}](?:\s*+,\s*+dtype=[\w.]++\s*+)?\)?", re.ASCII
)
_NUMPY_SCALAR = re.compile(r"\b(?:np|numpy)\.(?:float|int)\d++\(([^()]*+)\)", re.ASCII)


def looks_like_vector(cell: str) -> bool:
    """Whether a cell holds several numbers, NaN among them, with commas or blanks between; brackets may stand around slips, too."""
    bracketed, parts = find_parts(cell)
    if bracketed:
        return len(parts) > 1 and bool(parts[0]) and looks_like_number(parts[0])
    return len(parts) > 1 and all(map(NUMBER_OR_NONFINITE.fullmatch, parts))


def resembles_vector(cell: str) -> bool:
    """Whether a cell holds several numbers, or slips for them with commas between: no name of a column."""
    _, parts = find_parts(cell)
    has_slips = "," in cell and len(parts) > 1 and any(parts) and all(map(looks_like_number, parts))
    return has_slips or looks_like_vector(cell)


def has_brackets(cell: str) -> bool:
    """Whether brackets stand around what a cell holds."""
    return cell.rstrip().rstrip("'\"").endswith(("]", ")", "}"))


def is_one_number_in_brackets(cell: str) -> bool:
    """Whether a cell holds one number between brackets: a vector of one dimension, or the name of a column."""
    bracketed, parts = find_parts(cell)
    return bracketed and len(parts) == 1 and looks_like_number(parts[0])


def find_parts(cell: str) -> tuple[bool, list[str]]:
    """Return whether brackets stand around what a cell holds, and what stands between its commas or blanks."""
    text = _NUMPY_SCALAR.sub(r"\1", cell.strip()) if "(" in cell else cell.strip()
    if text[:1] in ("'", '"') and text[-1:] == text[:1] and text[1:2] in ("[", "(", "{"):  # quoted twice
        text = text[1:-1]
    bracketed = _VECTOR.fullmatch(text)
    inner = bracketed[1] if bracketed else text
    # Other white space stands between thousands, or is a token.
    parts = [part.strip() for part in inner.split(",")] if "," in inner else re.findall(r"[^ \t\r\n]+", inner)
    if bracketed and len(parts) > 1 and not parts[-1]:  # (0.5,)
        parts.pop()
    return bracketed is not None, parts


def looks_like_number(cell: str) -> bool:
    """Whether a cell is empty, nan, 1_0, ٣ or the like: a slip for a number rather than a word."""
    text = cell.strip().lower()
    return (
        not text
        or text.lstrip("+-") in ("nan", "inf", "infinity", "na", "null", "none", "\\n")
        or FORTRAN_NUMBER.fullmatch(text) is not None
        or (_LIKE_NUMBER.fullmatch(text) is not None and re.search(r"\d", text) is not None)
    )
