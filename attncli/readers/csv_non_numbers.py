"""Explain a cell of a text file that should hold a number and does not. Entry: `explain_non_number`."""

from __future__ import annotations

import re
import unicodedata

from attncli.readers.csv_cells import COMMA_NUMBER, FORTRAN_NUMBER, NUMBER
from attncli.text import printable, shorten

_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d"
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:[.,'’_\s]\d{3})+(?:[.,]\d*)?")
_UNITS = r"[%‰$€£¥]"
DOUBLE_QUOTES = r"""sed "s/'/\"/g" """.strip()
_NORMALIZE = "python -c \"import sys, unicodedata; sys.stdout.write(unicodedata.normalize('NFKC', sys.stdin.read()))\" < FILE > NEW.csv"
# What a cell looks like → how to write it. The first that matches a whole cell is said.
_SLIPS: tuple[tuple[re.Pattern[str], str], ...] = (
    (FORTRAN_NUMBER, r"write e for Fortran's D: sed -E 's/([0-9.])[dD]([-+]?[0-9])/\1e\2/g'"),
    (re.compile(r"\(\$?[\d.,]+\)"), "parentheses are not a sign: write a minus before the number"),
    (re.compile(r"\(?[\d.,eE+-]+[ij]\)?"), "complex numbers are not read: save their real part, x.real"),
    (re.compile(rf"[+-]?{_UNITS}\s?[\d.,+-]+|[\d.,+-]+\s?{_UNITS}"), "write the number alone, without its unit"),
    (re.compile(r"'[^']*'|'\[.*|.*\]'", re.DOTALL), f"write double quotation marks: {DOUBLE_QUOTES}"),
    (re.compile(r"#(?:DIV/0!|N/A|NAME\?|NULL!|NUM!|REF!|VALUE!|WERT!|NV|ZAHL!|#+)"), "mend the formula in the spreadsheet, or widen its column, and export it again"),
    (re.compile(r"\\N|(?i:na|n/a|null|none|nil|missing)|[-?.]"), "write the number; a missing one is never read as 0"),
    (re.compile(r"\d+:[\d.eE+-]+"), "these are pairs of LIBSVM: sklearn.datasets.load_svmlight_file reads them, numpy.save('FILE.npy', x.toarray()) writes them"),
    (re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fFlL]"), "write the number without the letter behind it"),
    (re.compile(r"[+-]?0[xX][\da-fA-F.]+(?:[pP][+-]?\d+)?"), "write the number in decimals"),
    (re.compile(r"\{.*:.*\}", re.DOTALL), "a vector in one cell is a list of numbers: \"[0.1, 0.2]\""),
)  # fmt: skip


def explain_non_number(cell: str, number_pattern: re.Pattern[str]) -> tuple[str, str, str]:
    """Return code, sentence and way out for a cell that is no finite number."""
    if not cell:
        return "empty-cell", "a value is missing", "write the number; an empty cell is never read as 0"
    if number_pattern.fullmatch(cell):
        return "not-finite", f"{shorten(cell)} is larger than a float64 can hold", ""
    if cell.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return "not-finite", f"{cell} is not allowed here", "embeddings must be finite"
    return "not-a-number", f"{printable(shorten(cell))!r} is not a number", _find_hint(cell[:1000], number_pattern)


def _find_hint(cell: str, number_pattern: re.Pattern[str]) -> str:
    for pattern, hint in _SLIPS:
        if pattern.fullmatch(cell):
            return hint
    if cell[0] in "[({" or cell[-1] in "])}":
        return 'a vector in one cell is written in quotation marks: "[0.1, 0.2]"'
    if COMMA_NUMBER.fullmatch(cell) and number_pattern is NUMBER:
        return "write a decimal point, or separate columns with ;"
    if _GROUPED.fullmatch(cell) and "_" not in cell:
        return "write the number without marks between thousands, and with a decimal point"
    dash = next((character for character in cell if character in _DASHES), "")
    if dash and number_pattern.fullmatch(cell.replace(dash, "-")):
        return f"use the ASCII minus: sed 's/{dash}/-/g'"
    normal = unicodedata.normalize("NFKC", cell)
    if normal != cell and number_pattern.fullmatch(normal):
        return f"use ASCII digits: {_NORMALIZE}"
    if ";" in cell:
        return "put each row on a line of its own: tr ';' '\\n'"
    hints = {"_": "write digits without underscores", ",": "write a decimal point, or separate columns with ;"}
    return next((hint for character, hint in hints.items() if character in cell), "")
