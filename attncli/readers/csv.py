"""CSV and TSV: a row a token. Separator, header and token column are found, said aloud, and refused where unclear.

The parsing itself is the standard library's, and that of Polars where a file is large; what is here is what a row of
numbers with a label means. Polars is only believed where it has nothing to find wrong: then both read the same.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from attncli.errors import InputError, Location, pluralize, printable, suggestion
from attncli.readers import Source, decode_text, make_problem, reader
from attncli.types import NumpyArray

if TYPE_CHECKING:
    from attncli.types import Problem

_NUMBER_PATTERN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COMMA_NUMBER_PATTERN = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?", re.ASCII)
_TOKEN_COLUMN_NAMES = frozenset(
    {
        "",
        "#",
        "token",
        "tokens",
        "word",
        "words",
        "text",
        "label",
        "labels",
        "name",
        "id",
        "index",
        "idx",
        "pos",
        "position",
    }
)


@dataclass(frozen=True)
class _Row:
    line: int  # the line it starts in, from 1
    cells: tuple[str, ...]


@reader("csv", ".csv", can_map=True)
def read_csv(source: Source) -> Problem:
    """Separated by a comma, semicolon or tab, whichever the first line has."""
    return _read_with_polars(source, None) or _Table(source, None).parse_problem()


@reader("tsv", ".tsv", ".tab", can_map=True)
def read_tsv(source: Source) -> Problem:
    """Separated by tabs."""
    return _read_with_polars(source, "\t") or _Table(source, "\t").parse_problem()


_POLARS_MIN_BYTES = 2**20  # bytes that are worth loading Polars for
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # which some programs put before UTF-8
_SNIFF_BYTES = 2**16  # bytes by which separator, header and token column are told


def _read_with_polars(source: Source, separator: str | None) -> Problem | None:
    """A large file by Polars; None where the standard library must read it: it is small, or quoted, or something is wrong."""
    data = source.data
    if len(data) < _POLARS_MIN_BYTES or data.find(b'"') >= 0 or data.find(b"\0") >= 0:
        return None
    clean = data[:3] != _BYTE_ORDER_MARK and data[-2:] != b"\n\n" and data.find(b"\r") < 0
    if not clean:
        data = data[:].removeprefix(_BYTE_ORDER_MARK).replace(b"\r\n", b"\n").rstrip(b"\n")
    head = data[: data.rfind(b"\n", 0, _SNIFF_BYTES) + 1]
    if not head or (not clean and b"\r" in data):
        return None
    import numpy as np
    import polars

    try:
        table = _Table(replace(source, data=head), separator)
        width, column = len(table.rows[0].cells), table.find_token_column()
        if (table.separator == ";" and data.find(b",") >= 0) or not table.is_token_column_certain(column):
            return None
        names = [f"column {i}" for i in range(width)]
        kinds = {name: polars.String if i == column else polars.Float64 for i, name in enumerate(names)}
        frame = polars.read_csv(
            source.path if clean and source.path else data[:],
            has_header=False,
            skip_rows=len(table.header) > 0,
            separator=table.separator,
            quote_char=None,
            schema=kinds,
            glob=False,
        )
        numeric = [name for i, name in enumerate(names) if i != column]
        vectors = frame.select(numeric).to_numpy(order="c")
    except (InputError, polars.exceptions.PolarsError, ValueError):
        return None
    short = any(frame.null_count().row(0)) or not numeric  # an empty cell, a short row or a blank line
    if short or not np.isfinite([vectors.min(), vectors.max()]).all():
        return None
    return table.to_problem(vectors, None if column is None else frame[names[column]].to_list())


def detect_separator(lines: Sequence[str]) -> str:
    """Tab, semicolon or comma, as the first line has them; where it has several, the one that parts numbers."""
    filled = [re.sub('"[^"]*"', "", line) for line in lines if line.strip()]
    there = [s for s in "\t;," if filled and s in filled[0]]
    for line in filled[:2] if len(there) > 1 else ():
        for s in there:
            cells = line.split(s)[1:]
            if cells and all(
                (_COMMA_NUMBER_PATTERN if s == ";" else _NUMBER_PATTERN).fullmatch(cell.strip()) for cell in cells
            ):
                return s
    return there[0] if there else ","


class _Table:
    """One file on its way from text to labelled vectors."""

    def __init__(self, source: Source, separator: str | None) -> None:
        self.source = source
        self.text = decode_text(source.data[:], format_name="CSV")
        self.lines = re.split(r"\r\n|\r|\n", self.text)
        if not self.text.strip():
            raise InputError("empty", "the file is empty", help="a row a token: cat,0.1,0.2")
        self.separator = separator or detect_separator(self.lines)
        self.number_pattern = _COMMA_NUMBER_PATTERN if self.separator == ";" else _NUMBER_PATTERN
        self.rows = self._parse_rows()
        self.header = self._detect_header()
        self.body = self.rows[1:] if self.header else self.rows
        if not self.body:
            raise InputError(
                "empty",
                "there is a header, but no row below it",
                location=Location(line=1),
                help="a row a token: cat,0.1,0.2",
            )

    def parse_problem(self) -> Problem:
        import numpy as np

        width = len(self.rows[0].cells)
        column = self.find_token_column()
        numeric = [c for c in range(width) if c != column]
        if not numeric:
            raise self._cell_error(
                "not-a-number",
                "there are no numbers beside the tokens",
                self.body[0],
                0,
                help="separate columns with a comma, a semicolon or a tab",
            )
        vectors = np.array([[self._parse_cell(row, c) for c in numeric] for row in self.body])
        return self.to_problem(vectors, None if column is None else [row.cells[column] for row in self.body])

    def to_problem(self, vectors: NumpyArray, tokens: list[str] | None) -> Problem:
        """The problem, and what was found out on the way to it."""
        column, (n, d) = self.find_token_column(), vectors.shape
        fields = {"embeddings": vectors} | ({} if tokens is None else {"tokens": tokens})
        said = (
            "no token column"
            if column is None
            else f"token column {self.header[column]!r}"
            if self.header
            else f"token column {column}"
        )
        separator = {"\t": "tab", ";": "semicolon", ",": "comma"}[self.separator]
        found = f"{pluralize(n, 'token')} × {pluralize(d, 'dim')}, {'header row' if self.header else 'no header'}, {said}, separator {separator}"
        made = make_problem(fields)
        return type(made)(**{**vars(made), "notes": (f"{self.source.name}: {found}",)})

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────
    def _parse_rows(self) -> list[_Row]:
        parsed = csv.reader(io.StringIO(self.text, newline=""), delimiter=self.separator, strict=True)
        rows: list[_Row] = []
        start, blank = 1, 0
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
                    rows.append(_Row(start, tuple(cells)))
                start = parsed.line_num + 1
        except csv.Error as error:
            raise InputError(
                "bad-csv",
                f"this is no CSV: {error}",
                location=self._make_location(max(parsed.line_num, 1), 1, ""),
                help="a quote that opens must close",
            ) from None
        if not rows:
            raise InputError("empty", "no row holds anything", help="a row a token: cat,0.1,0.2")
        return rows

    def _detect_header(self) -> tuple[str, ...]:
        """The names of the columns, or nothing where the first row is a token's."""
        first = self.rows[0]
        names = tuple(cell.strip() for cell in first.cells)
        said = self.source.header
        if said == "yes" or (
            said is None
            and self.source.token_column not in (None, "none")
            and not str(self.source.token_column).isdigit()
        ):
            return names
        if said == "no":
            return ()
        beside = names[1:] or names
        worded = not any(
            self._is_number(cell) or self._looks_like_number(cell)
            for cell in {*beside, *(names[:1] if names[0] else ())}
        )
        if worded and (len(self.rows) > 1 or len(names) > 1):
            return names
        if len(self.rows) > 1 and all(self._is_number(cell) for cell in beside):
            counts = [list(map(str, range(len(row)))) for row in (names, beside) if len(row) > 1]
            if list(names) in counts or list(beside) in counts:
                raise self._cell_error(
                    "unclear-header",
                    "the first row counts 0, 1, 2 …: is it a header, or a token's vector?",
                    first,
                    0,
                    help="--header yes or --header no says which",
                )
            if len(names) > 1 and names[0].lower() in _TOKEN_COLUMN_NAMES:
                raise self._cell_error(
                    "unclear-header",
                    f"the first row starts with {names[0]!r} and goes on with numbers: is it a header?",
                    first,
                    0,
                    help="--header yes or --header no says which",
                )
        return ()

    def is_token_column_certain(self, column: int | None) -> bool:
        """Whether these rows alone tell that a column holds tokens: one of its cells is no number, nor a slip for one."""
        if column is None or self.source.token_column is not None:
            return True
        return not all(
            self._is_number(row.cells[column]) or self._looks_like_number(row.cells[column]) for row in self.body
        )

    def find_token_column(self) -> int | None:
        """The column that holds the tokens, if any.

        Raises:
            InputError: the rows are not equally long, or it is unclear.
        """
        width = len(self.rows[0].cells)
        for row in self.body:
            if len(row.cells) != width:
                raise self._ragged_row_error(row, width)
        said = self.source.token_column
        if said == "none":
            return None
        if said is not None and said in self.header:
            return self.header.index(said)
        if said is not None:
            if not said.isdigit() or int(said) >= width:
                raise InputError(
                    "no-such-column",
                    f"there is no column {said!r}",
                    help=suggestion(said, self.header)
                    if self.header
                    else f"there are {width} columns, 0 … {width - 1}",
                )
            return int(said)
        column = [row.cells[0].strip() for row in self.body]
        numbers = [self._is_number(cell) for cell in column]
        if all(numbers):
            if self.header and width > 1 and self._differs_from_rest(self.header):
                raise self._cell_error(
                    "unclear-tokens",
                    f"column {self.header[0]!r} holds numbers under a name unlike the others: tokens, or a dimension?",
                    self.rows[0],
                    0,
                    help=f"--token-column {self.header[0] or 0} or --token-column none says which",
                )
            return None
        if any(numbers) and all(n or self._looks_like_number(cell) for n, cell in zip(numbers, column, strict=True)):
            self._parse_cell(self.body[numbers.index(False)], 0)  # refuses it, and says why
        return 0

    @staticmethod
    def _differs_from_rest(names: Sequence[str]) -> bool:
        """Whether the first of some column names is of another kind than the rest: id, d0, d1, d2."""
        stems = {re.sub(r"\d+$", "", name) for name in names[1:]}
        counted = len(names) > 2 and len(stems) == 1 and all(name[-1:].isdigit() for name in names[1:])
        return names[0].lower() in _TOKEN_COLUMN_NAMES or (counted and re.sub(r"\d+$", "", names[0]) not in stems)

    # ── cells ────────────────────────────────────────────────────────────────────────────────────
    def _is_number(self, cell: str) -> bool:
        return self.number_pattern.fullmatch(cell.strip()) is not None

    @staticmethod
    def _looks_like_number(cell: str) -> bool:
        """Empty, nan, 1_0, ٣: what a slip for a number looks like, rather than a word."""
        text = cell.strip().lower()
        return (
            not text
            or text.lstrip("+-") in ("nan", "inf", "infinity", "na", "null", "none")
            or re.fullmatch(r"[+-]?[\d_.,eE+-]*\d[\d_.,eE+-]*", text) is not None
        )

    def _parse_cell(self, row: _Row, column: int) -> float:
        cell = row.cells[column].strip()
        value = float(cell.replace(",", ".")) if self._is_number(cell) else None
        if value is not None and abs(value) != float("inf"):
            return value
        code, message, help = self._explain_non_number(cell)
        raise self._cell_error(code, message, row, column, help=help)

    def _explain_non_number(self, cell: str) -> tuple[str, str, str]:
        """(code, sentence, way out) for a cell that is no finite number."""
        if not cell:
            return "empty-cell", "a value is missing", "write the number; an empty cell is never read as 0"
        if self._is_number(cell):
            return "not-finite", f"{cell} is larger than a float64 can hold", ""
        if cell.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            return "not-finite", f"{cell} is no finite number", "embeddings are finite"
        ways = {"_": "write digits without underscores", ",": "write a decimal point, or separate columns with ;"}
        return "not-a-number", f"{printable(cell)!r} is no number", next((w for c, w in ways.items() if c in cell), "")

    def _ragged_row_error(self, row: _Row, width: int) -> InputError:
        has, first = len(row.cells), self.rows[0]
        label = f'row for "{printable(row.cells[0])}"' if not self._is_number(row.cells[0]) else f"line {row.line}"
        labelled = 1 if not self._is_number(row.cells[0]) else 0
        others = (
            "the header" + (f" and line {self.body[0].line}" if len(self.body[0].cells) == width else "")
            if self.header
            else f"line {first.line}"
        )
        bad = sum(len(r.cells) != width for r in self.body)
        message = f"{label} has {pluralize(has - labelled, 'value')}, but {others} {'have' if ' and ' in others else 'has'} {width - labelled}"
        name = f" ({self.header[has]})" if self.header and has < width else ""
        what = f"value {has - labelled + 1}{name} is missing" if has < width else "one value too many"
        more = f" ({bad} of {len(self.body)} rows are affected)" if bad > 1 else ""
        help = (
            "add the missing value; short rows are never padded"
            if has < width
            else "take out what is too much; long rows are never cut"
        )
        return self._cell_error("ragged-row", message + more, row, min(has, width), what, help)

    # ── places ───────────────────────────────────────────────────────────────────────────────────
    def _make_location(self, line: int, column: int, label: str, width: int = 1) -> Location:
        around = range(max(1, line - 2), min(len(self.lines), line + 1) + 1)
        return Location(
            line=line,
            column=column,
            source_lines=tuple((n, self.lines[n - 1]) for n in around),
            caret_label=label,
            caret_width=width,
        )

    def _cell_error(
        self, code: str, message: str, row: _Row, column: int, label: str = "", help: str = ""
    ) -> InputError:
        text = self.lines[row.line - 1]
        starts, quoted = [0], False
        for i, c in enumerate(text):
            quoted ^= c == '"'
            if c == self.separator and not quoted:
                starts.append(i + 1)
        if column >= len(row.cells):  # what should stand here is not there
            spot, width = len(text), 1
        else:
            spot = starts[column] if column < len(starts) else 0
            end = starts[column + 1] - 1 if column + 1 < len(starts) else len(text)
            width = max(1, end - spot)
        return InputError(code, message, location=self._make_location(row.line, spot + 1, label, width), help=help)
