"""Read CSV and TSV, a row for each token. Entries: `read_csv`, `read_tsv`.

Separator, header and token column are detected and reported in the problem's notes; where they are unclear, the file is
refused. The standard library parses the text, and Polars that of large files; this module decides what a row of numbers
with a label means. The result of Polars is used only where it finds nothing wrong: then both read the same.
"""

from __future__ import annotations

import csv
import io
import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Literal

from attncli.errors import InputError, Location
from attncli.readers.base import Source, decode_text, make_problem, reader, translate_parser_errors
from attncli.readers.columns import TOKEN_NAMES, differs_from_rest, find_column, spell_column, unlike_columns
from attncli.text import join_names, pluralize, printable, shorten
from attncli.types import NumpyArray, Problem

# Each character can match in one way only, so that a cell of a million digits takes no time squared.
_NUMBER_PATTERN = re.compile(r"[+-]?(\d++(\.\d*+)?|\.\d++)([eE][+-]?\d++)?", re.ASCII)
_COMMA_NUMBER_PATTERN = re.compile(r"[+-]?(\d++([.,]\d*+)?|[.,]\d++)([eE][+-]?\d++)?", re.ASCII)


@reader("csv", ".csv")
def read_csv(source: Source) -> Problem:
    """Read rows that are separated by a comma, semicolon or tab, whichever the first line has."""
    return _read_with_polars(source, None) or _Table(source, None).parse_problem()


@reader("tsv", ".tsv", ".tab")
def read_tsv(source: Source) -> Problem:
    """Read rows that are separated by tabs."""
    return _read_with_polars(source, "\t") or _Table(source, "\t").parse_problem()


_POLARS_MIN_BYTES = 2**20  # for so many bytes Polars is worth loading
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # which some programs put before UTF-8
_MAX_CELL_CHARACTERS = 2**31 - 1
_SNIFF_BYTES = 2**16  # bytes from which separator, header and token column are detected


def _read_with_polars(source: Source, separator: str | None) -> Problem | None:
    """Read a large file with Polars.

    None where the standard library must read it, since it is small, has quotes, or something is wrong with it.
    """
    data = source.data
    if len(data) < _POLARS_MIN_BYTES or b'"' in data or b"\0" in data:
        return None
    data = data.removeprefix(_BYTE_ORDER_MARK)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if data.endswith(b"\n\n"):
        data = data.rstrip(b"\n")
    head = data[: data.rfind(b"\n", 0, _SNIFF_BYTES) + 1]
    if not head or b"\r" in data:
        return None
    import numpy as np
    import polars

    try:
        table = _Table(replace(source, data=head), separator)
        if len(table.rows) < 2:  # two rows tell whether there is a header, as they do in a small file
            return None
        width, column = len(table.rows[0]), table.find_token_column()
        if (table.separator == ";" and b"," in data) or not table.is_token_column_certain(column):
            return None
        dimensions = table.find_dimensions(column)
        names = [f"column {i}" for i in range(width)]
        schema = {name: polars.Float64 if i in dimensions else polars.String for i, name in enumerate(names)}
        frame = polars.read_csv(  # of the bytes: Polars has rules of its own for names of files
            data,
            has_header=False,
            skip_rows=len(table.header) > 0,
            separator=table.separator,
            quote_char=None,
            schema=schema,
        )
        numeric = [names[i] for i in dimensions]
        vectors = frame.select(numeric).to_numpy(order="c")
    except (Exception, polars.exceptions.PanicException):  # whatever it is, the standard library says where
        return None
    has_gaps = any(frame.null_count().row(0)) or not numeric  # an empty cell, a short row or a blank line
    if has_gaps or not np.isfinite([vectors.min(), vectors.max()]).all():
        return None
    return table.to_problem(vectors, None if column is None else frame[names[column]].to_list(), column)


def _first_lines(text: str) -> list[str]:
    """Return the first two lines that are not blank."""
    lines = (match.group() for match in re.finditer(r"[^\r\n]+", text))
    return list(islice(filter(str.strip, lines), 2))


def detect_separator(lines: Sequence[str]) -> str:
    """Return the separator that the first line has: tab, semicolon or comma; of several, the one that separates numbers."""
    unquoted = [re.sub('"[^"]*"', "", line) for line in islice(filter(str.strip, lines), 2)]
    candidates = [separator for separator in "\t;," if unquoted and separator in unquoted[0]]
    if len(candidates) > 1:
        for line in unquoted:
            for separator in candidates:
                number_pattern = _COMMA_NUMBER_PATTERN if separator == ";" else _NUMBER_PATTERN
                cells = line.split(separator)[1:]
                if cells and all(number_pattern.fullmatch(cell.strip()) for cell in cells):
                    return separator
    return candidates[0] if candidates else ","


class _Table:
    """The rows of one file, with its separator and header. Entry: `parse_problem`.

    Raises:
        InputError: the text is no CSV, has no rows, or it is unclear whether it has a header.
    """

    def __init__(self, source: Source, separator: str | None) -> None:
        self.source = source
        self.text = decode_text(source.data, format_name="CSV")
        if not self.text.strip():
            raise InputError("empty", "the file is empty", help="a row a token: cat,0.1,0.2")
        self.separator = separator or detect_separator(_first_lines(self.text))
        self.number_pattern = _COMMA_NUMBER_PATTERN if self.separator == ";" else _NUMBER_PATTERN
        self.row_lines = array("q")  # the line that each row starts in, from 1
        with translate_parser_errors("bad-csv", "this is no CSV"):
            self.rows = self._parse_rows()  # the cells of each row, the header's too
        self.header = self._detect_header()
        self.first = 1 if self.header else 0  # index of the first row that is a token's
        self.body = self.rows[self.first :]
        if not self.body:
            raise InputError(
                "empty",
                "there is a header, but no row below it",
                location=Location(line=1),
                help="a row a token: cat,0.1,0.2",
            )

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the file, for errors."""
        return re.split(r"\r\n|\r|\n", self.text)

    def parse_problem(self) -> Problem:
        """Parse every cell, and return the problem.

        Raises:
            InputError: a cell is no finite number, rows differ in length, or the token column is unclear.
        """
        import numpy as np

        column = self.find_token_column()
        numeric = self.find_dimensions(column)
        if not numeric:
            raise self._cell_error(
                "not-a-number",
                "there are no numbers beside the tokens",
                self.first,
                0,
                help="separate columns with a comma, a semicolon or a tab",
            )
        cells = ((row, c) for row in range(self.first, len(self.rows)) for c in numeric)
        count = len(self.body) * len(numeric)
        vectors = np.fromiter((self._parse_cell(row, c) for row, c in cells), np.float64, count).reshape(
            len(self.body), -1
        )
        return self.to_problem(vectors, None if column is None else [row[column] for row in self.body], column)

    def to_problem(self, vectors: NumpyArray, tokens: list[str] | None, column: int | None) -> Problem:
        """Return the problem, with a note on what was detected.

        Args:
            vectors: (n, d)
            tokens: their labels, if there is a token column.
            column: the token column.
        """
        n, d = vectors.shape
        if column is None:
            token_column = "no token column"
        else:
            token_column = f"token column {shorten(self.header[column])!r}" if self.header else f"token column {column}"
        header = "header row" if self.header else "no header"
        separator = {"\t": "tab", ";": "semicolon", ",": "comma"}[self.separator]
        size = f"{pluralize(n, 'token')} × {pluralize(d, 'dim')}"
        note = f"{self.source.name}: {size}, {header}, {token_column}, separator {separator}"
        problem = make_problem({"embeddings": vectors} if tokens is None else {"embeddings": vectors, "tokens": tokens})
        return replace(problem, notes=(note,))

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────
    def _parse_rows(self) -> list[tuple[str, ...]]:
        """Parse the rows; a quotation mark that is a token is not taken for one that opens a cell.

        Raises:
            InputError: the text is no CSV, or can be read in two ways.
        """
        try:
            rows = self._parse_cells(csv.QUOTE_MINIMAL)
        except InputError as error:
            if self.separator != "\t" or error.code != "bad-csv":
                raise
            literal = self._parse_literally()
            if literal is None:
                raise
            return literal
        if '"' not in self.text:
            return rows
        broken = next((i for i, row in enumerate(rows) if any("\n" in cell or "\r" in cell for cell in row)), None)
        if broken is None:
            return rows
        line = self.row_lines[broken]
        literal = self._parse_literally()
        if literal is None:
            self._parse_cells(csv.QUOTE_MINIMAL)  # the lines that rows start in
            return rows
        if self.separator == "\t":  # where vectors are written between tabs, nobody quotes
            return literal
        raise InputError(
            "two-readings",
            "quotation marks stand around a line break: a token that holds it, or tokens that are quotation marks?",
            location=self._make_location(line, 1, ""),
            help='a token that is a quotation mark is written """" in CSV, or " in TSV; a line break in a token may be written \\n',
        )

    def _parse_literally(self) -> list[tuple[str, ...]] | None:
        """Parse the rows with quotation marks like any other character; None where they are not equally long then."""
        try:
            rows = self._parse_cells(csv.QUOTE_NONE)
        except InputError:
            return None
        return rows if all(len(row) == len(rows[0]) for row in rows) and len(rows[0]) > 1 else None

    def _parse_cells(self, quoting: Literal[0, 3]) -> list[tuple[str, ...]]:
        del self.row_lines[:]
        parsed = csv.reader(io.StringIO(self.text, newline=""), delimiter=self.separator, strict=True, quoting=quoting)
        rows: list[tuple[str, ...]] = []
        start, blank = 1, 0
        size_limit = csv.field_size_limit(_MAX_CELL_CHARACTERS)  # of the whole process
        try:
            for cells in parsed:
                if len(cells) <= 1 and not "".join(cells).strip():
                    blank = blank or start
                elif blank:
                    raise InputError(
                        "blank-line",
                        "a blank line stands between the rows",
                        location=self._make_location(blank, 1, ""),
                        help="take it out; blank lines may only follow the last row",
                    )
                else:
                    rows.append(tuple(cells))
                    self.row_lines.append(start)
                start = parsed.line_num + 1
        except csv.Error as error:
            raise InputError(
                "bad-csv",
                f"this is no CSV: {error}",
                location=self._make_location(max(parsed.line_num, 1), 1, ""),
                help="a quote that opens must close",
            ) from None
        finally:
            csv.field_size_limit(size_limit)
        if not rows:
            raise InputError("empty", "no row holds anything", help="a row a token: cat,0.1,0.2")
        return rows

    def _detect_header(self) -> tuple[str, ...]:
        """Return the names of the columns, or nothing where the first row is a token's.

        Raises:
            InputError: it may be either.
        """
        names = tuple(cell.strip() for cell in self.rows[0])
        token_column = self.source.token_column
        names_a_column = token_column not in (None, "none") and not re.fullmatch("[0-9]+", str(token_column))
        if self.source.header == "yes" or (self.source.header is None and names_a_column):
            return names
        if self.source.header == "no":
            return ()
        rest = names[1:] or names  # without what may be the token column
        cells = names if names[0] else rest
        has_words_only = not any(self._is_number(cell) or self._looks_like_number(cell) for cell in cells)
        if has_words_only and (len(self.rows) > 1 or len(names) > 1):
            return names
        if len(self.rows) > 1 and all(self._is_number(cell) for cell in rest):
            numberings = [list(map(str, range(len(row)))) for row in (names, rest) if len(row) > 1]
            if list(names) in numberings or list(rest) in numberings:
                raise self._cell_error(
                    "unclear-header",
                    "the first row counts 0, 1, 2 …: is it a header, or a token's vector?",
                    0,
                    0,
                    help="--header yes or --header no says which",
                )
            if len(names) > 1 and names[0].lower() in TOKEN_NAMES:
                raise self._cell_error(
                    "unclear-header",
                    f"the first row starts with {shorten(names[0])!r} and goes on with numbers: is it a header?",
                    0,
                    0,
                    help="--header yes or --header no says which",
                )
        return ()

    def is_token_column_certain(self, column: int | None) -> bool:
        """Whether these rows alone show that a column holds tokens: one of its cells is no number, nor a slip for one."""
        if column is None or self.source.token_column is not None:
            return True
        return not all(self._is_number(row[column]) or self._looks_like_number(row[column]) for row in self.body)

    def find_token_column(self) -> int | None:
        """Return the number of the column that holds the tokens, if any.

        Raises:
            InputError: the rows are not equally long, or it is unclear.
        """
        width = len(self.rows[0])
        for row, cells in enumerate(self.rows):
            if len(cells) != width:
                raise self._ragged_row_error(row, width)
        requested = self.source.token_column
        if requested == "none":
            return None
        if requested is not None:
            return self._find_column(requested)
        if self.source.columns or self.source.drop:
            named = [name.strip() for name in f"{self.source.columns or ''},{self.source.drop or ''}".split(",")]
            if 0 in {self._find_column(name) for name in named if name}:
                return None  # the first column is said to be something else
        column = [row[0].strip() for row in self.body]
        are_numbers = [self._is_number(cell) for cell in column]
        if all(are_numbers):
            if self.header and width > 1 and differs_from_rest(self.header):
                raise self._cell_error(
                    "unclear-tokens",
                    f"column {shorten(self.header[0])!r} holds numbers under a name unlike the others: tokens, or a dimension?",
                    0,
                    0,
                    help=f"--token-column {self._spell_column(0)} makes them the tokens, --drop {self._spell_column(0)} leaves them out, "
                    f"--columns {self._spell_column(0)},… names the dimensions",
                )
            return None
        if any(are_numbers) and all(self._is_number(cell) or self._looks_like_number(cell) for cell in column):
            row = self.first + are_numbers.index(False)
            if self.header and self.header[0].lower() in TOKEN_NAMES and column[row - self.first]:
                raise self._cell_error(
                    "unclear-tokens",
                    f"column {shorten(self.header[0])!r} holds numbers and {printable(shorten(column[row - self.first]))!r}: tokens, or a slip for a number?",
                    row,
                    0,
                    help=f"--token-column {self._spell_column(0)} makes them the tokens",
                )
            self._parse_cell(row, 0)  # raises, and says why
        return 0

    def _spell_column(self, column: int) -> str:
        """Return what names a column in an option: its name, or its number if that has none or looks like a number."""
        return spell_column(self.header, column)

    def _find_column(self, requested: str) -> int:
        """Return the number of a column; a number is always a place, whatever the columns are called.

        Raises:
            InputError: there is no such column, or two of that name.
        """
        return find_column(requested, self.header, len(self.rows[0]))

    def find_dimensions(self, token_column: int | None) -> list[int]:
        """Return the numbers of the columns that are dimensions: those that were named, or all that nothing speaks against.

        Raises:
            InputError: a column that was named does not exist, or one is called otherwise than dimensions are.
        """
        if self.source.columns:
            return [self._find_column(name.strip()) for name in self.source.columns.split(",")]
        dropped = {self._find_column(name.strip()) for name in (self.source.drop or "").split(",") if name.strip()}
        dimensions = [c for c in range(len(self.rows[0])) if c != token_column and c not in dropped]
        unlike = unlike_columns(self.header, dimensions) if self.header else []
        if unlike:
            names = join_names([f"{shorten(self.header[c])!r}" for c in unlike])
            spelled = ",".join(self._spell_column(c) for c in unlike)
            others = ",".join(self._spell_column(c) for c in dimensions)
            raise self._cell_error(
                "unclear-columns",
                f"column {names} {'is' if len(unlike) == 1 else 'are'} called otherwise than dimensions are: part of the vector?",
                0,
                unlike[0],
                help=f"--drop {shorten(spelled)} leaves {'it' if len(unlike) == 1 else 'them'} out; --columns {shorten(others)} takes all",
            )
        return dimensions

    # ── cells ────────────────────────────────────────────────────────────────────────────────────
    def _is_number(self, cell: str) -> bool:
        return self.number_pattern.fullmatch(cell.strip()) is not None

    @staticmethod
    def _looks_like_number(cell: str) -> bool:
        """Whether a cell is empty, nan, 1_0, ٣ or the like: a slip for a number rather than a word."""
        text = cell.strip().lower()
        return (
            not text
            or text.lstrip("+-") in ("nan", "inf", "infinity", "na", "null", "none")
            or (re.fullmatch(r"[\d_.,e+-]++", text) is not None and re.search(r"\d", text) is not None)
        )

    def _parse_cell(self, row: int, column: int) -> float:
        cell = self.rows[row][column].strip()
        if self.number_pattern.fullmatch(cell):
            value = float(cell.replace(",", "."))
            if math.isfinite(value):
                return value
        code, message, hint = self._explain_non_number(cell)
        raise self._cell_error(code, message, row, column, help=hint)

    def _explain_non_number(self, cell: str) -> tuple[str, str, str]:
        """Return code, sentence and way out for a cell that is no finite number."""
        if not cell:
            return "empty-cell", "a value is missing", "write the number; an empty cell is never read as 0"
        if self._is_number(cell):
            return "not-finite", f"{shorten(cell)} is larger than a float64 can hold", ""
        if cell.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            return "not-finite", f"{cell} is no finite number", "embeddings are finite"
        hints = {"_": "write digits without underscores", ",": "write a decimal point, or separate columns with ;"}
        hint = next((hint for character, hint in hints.items() if character in cell), "")
        return "not-a-number", f"{printable(shorten(cell))!r} is no number", hint

    def _ragged_row_error(self, row: int, width: int) -> InputError:
        cells = self.rows[row]
        has = len(cells)
        if self._is_number(cells[0]):
            subject, label_count = f"line {self.row_lines[row]}", 0
        else:
            subject, label_count = f'row for "{printable(shorten(cells[0]))}"', 1
        if not self.header:
            others = f"line {self.row_lines[0]} has"
        elif len(self.body[0]) == width:
            others = f"the header and line {self.row_lines[self.first]} have"
        else:
            others = "the header has"
        message = f"{subject} has {pluralize(has - label_count, 'value')}, but {others} {width - label_count}"
        ragged_count = sum(len(other) != width for other in self.body)
        if ragged_count > 1:
            message += f" ({ragged_count} of {len(self.body)} rows are affected)"
        if has < width:
            name = f" ({shorten(self.header[has])})" if self.header else ""
            caret_label = f"value {has - label_count + 1}{name} is missing"
            hint = "add the missing value; short rows are never padded"
        else:
            caret_label, hint = "one value too many", "take out what is too much; long rows are never cut"
        return self._cell_error("ragged-row", message, row, min(has, width), caret_label, hint)

    # ── places ───────────────────────────────────────────────────────────────────────────────────
    def _make_location(self, line: int, column: int, label: str, width: int = 1) -> Location:
        shown_lines = range(max(1, line - 2), min(len(self.lines), line + 1) + 1)
        return Location(
            line=line,
            column=column,
            source_lines=tuple((number, self.lines[number - 1]) for number in shown_lines),
            caret_label=label,
            caret_width=width,
        )

    def _cell_error(
        self, code: str, message: str, row: int, column: int, label: str = "", help: str = ""
    ) -> InputError:
        line = self.lines[self.row_lines[row] - 1]
        starts, is_quoted = [0], False  # of cells, in the line
        for i, character in enumerate(line):
            is_quoted ^= character == '"'
            if character == self.separator and not is_quoted:
                starts.append(i + 1)
        if column >= len(self.rows[row]):  # the cell is missing
            start, width = len(line), 1
        else:
            start = starts[column] if column < len(starts) else 0
            end = starts[column + 1] - 1 if column + 1 < len(starts) else len(line)
            width = max(1, end - start)
        return InputError(
            code, message, location=self._make_location(self.row_lines[row], start + 1, label, width), help=help
        )
