"""Split the text of a CSV, TSV or blank-separated file into rows of cells. Entry: `CsvRows`.

Separator, quotation marks, a line with counts (word2vec) and lines of comment (numpy.savetxt) are dealt with here; what a
column means is `csv_table`'s.
"""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Literal

from attncli.errors import InputError, Location
from attncli.readers.base import decode_text
from attncli.readers.csv_cells import COMMA_NUMBER, NUMBER, has_brackets, looks_like_number, looks_like_vector
from attncli.readers.csv_foreign_text import explain_foreign_text
from attncli.readers.parser_errors import translate_parser_errors
from attncli.readers.source import Source
from attncli.text import pluralize, printable, shorten

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}  # by their names in --separator
SEPARATOR_NAMES = {character: name for name, character in SEPARATORS.items()}
COUNT_LINE = re.compile(
    r"[ \t]*+(\d{1,18}+)[ \t]++(\d{1,18}+)[ \t]*+", re.ASCII
)  # of rows and of numbers in each: word2vec, fastText
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|])"?(?:\r\n|\r|\n)', re.IGNORECASE)  # of Excel
_COMMENT = re.compile(r"(?:#+|%+)[ \t]?(.*)")  # numpy.savetxt, MATLAB
_EXAMPLE_HINT = "write one row per token: cat,0.1,0.2"
_MAX_CELL_CHARACTERS = 2**31 - 1


def split_lines(text: str) -> list[str]:
    """Split a text at line ends: of Unix, of Windows and of old Macs, and at no other character."""
    return re.split(r"\r\n|\r|\n", text) if "\r" in text else text.split("\n")


def split_blanks(line: str) -> list[str]:
    """Split a line at its blanks and tabs; other white space may be a token."""
    return [cell for cell in line.replace("\t", " ").split(" ") if cell]


def detect_separator(lines: Sequence[str], separators: str = "\t;,| ") -> str:
    """Return the separator of the first lines: of several that they have, the one that separates numbers, or vectors."""
    unquoted = [re.sub('"[^"]*"', '""', line) for line in islice(filter(str.strip, lines), 2)]
    candidates = [s for s in separators if unquoted and all(s in line.strip() for line in unquoted)]
    if not candidates:  # a quoted cell may go on in the second line
        candidates = [s for line in unquoted for s in separators if s in line.strip() and s != " "]
    if len(candidates) > 1:
        for line in unquoted:
            for separator in candidates:
                pattern = COMMA_NUMBER if separator == ";" else NUMBER
                cells = _split_unquoted(line, separator)[1:]
                if cells and all(pattern.fullmatch(cell.strip()) for cell in cells):
                    has_gap = separator == " " and "\t" in candidates and any(map(_has_gap_between_tabs, unquoted))
                    return "\t" if has_gap else separator
        for separator in candidates[:-1]:
            if looks_like_vector(unquoted[-1].split(separator)[-1]):
                return separator
        for separator in "| ":  # between which decimal commas are named where they stand
            cells = _split_unquoted(unquoted[-1], separator)[1:]
            if separator in candidates and len(cells) > 1 and all(map(COMMA_NUMBER.fullmatch, cells)):
                return separator
    return candidates[0] if candidates else ","


def _has_gap_between_tabs(line: str) -> bool:
    """Whether a cell between tabs is empty: split at blanks, it would go unseen."""
    return not all(cell.strip() for cell in line.strip().split("\t"))


def _split_unquoted(line: str, separator: str) -> list[str]:
    return split_blanks(line) if separator == " " else line.split(separator)


class CsvRows:
    """The rows of one text, with the lines they stand in.

    Raises:
        InputError: the text is no UTF-8 or UTF-16, has no rows, or can be split in two ways.
    """

    def __init__(self, source: Source, separator: str | None) -> None:
        self.source = source
        self.remarks: list[str] = []  # what was found besides rows, for the note
        self.text = self._decode()
        if not self.text.strip():
            raise InputError("empty", "the file is empty", help=_EXAMPLE_HINT)
        self._refuse_foreign_text()
        self.comment_names: tuple[str, ...] = ()  # of columns, in a line of comment
        self.first_line = 1  # in which the rows begin, after a line with counts and lines of comment
        self.declared: tuple[int, int] | None = (
            None  # the numbers of rows and of numbers in each that a first line declares
        )
        said = _SEPARATOR_LINE.match(self.text)
        if said:
            self.first_line = 2
            self.remarks.append("line with the separator")
        self.separator = separator or (said[1] if said else self._detect_separator())
        self.row_lines = array("q")  # the line that each row starts in, from 1
        self._skip_comments()
        with translate_parser_errors("bad-csv", "this is not valid CSV"):
            self.rows = self._parse_blank_rows() if self.separator == " " else self._parse_rows()

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the file."""
        return split_lines(self.text)

    def _decode(self) -> str:
        """Decode UTF-8, or UTF-16 and UTF-32 where a byte order mark says so."""
        data = self.source.data
        marks = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
        encoding = next((name for mark, name in marks.items() if data.startswith(mark)), None)
        if encoding is None:
            return decode_text(data, format_name="CSV")
        with translate_parser_errors(
            "wrong-encoding", f"this begins as {encoding} does, but is not", "save it as UTF-8"
        ):
            text = bytes(data).decode(encoding)
        self.remarks.append(encoding)
        return decode_text(text.encode(), format_name="CSV")

    def _refuse_foreign_text(self) -> None:
        """Refuse JSON, matrices and tables as programs print them, and the like.

        Raises:
            InputError: it is one of them.
        """
        found = explain_foreign_text(self.text.strip(), self.source)
        if found:
            raise InputError("bad-csv", found[0], location=self.make_location(1, 1, ""), help=found[1])

    def _detect_separator(self) -> str:
        """Detect the separator from the first two lines that are rows or a header."""
        first = list(islice((line for line in self.iterate_lines() if line.strip()), 64))
        lines = [line for line in first if not self._is_comment(line)] or first
        if len(lines) > 1 and COUNT_LINE.fullmatch(lines[0]):
            lines = lines[1:]
        return detect_separator(lines[:2])

    def iterate_lines(self) -> Iterator[str]:
        """Yield the lines, without splitting more of the text than is asked for."""
        return (match[0] for match in re.finditer(r"[^\r\n]+", self.text))

    # ── lines before the rows ────────────────────────────────────────────────────────────────────
    def _is_comment(self, line: str) -> bool:
        """Whether a line begins as a comment does, and is no row of numbers: a token may be # or %, too."""
        comment = _COMMENT.fullmatch(line.strip())
        if comment is None:
            return False
        cells = re.split(r"[ \t,;]+", comment[1].strip())
        number_count = sum(NUMBER.fullmatch(cell) is not None for cell in cells)
        if not number_count:
            return True
        if re.fullmatch(r"[A-Za-z]\w*:[ \t].*", comment[1].strip(), re.ASCII):  # Octave's "# rows: 4"
            return True
        word_count = sum(re.match("[A-Za-z]", cell) is not None for cell in cells)
        return word_count > number_count and not looks_like_number(cells[-1])

    def _skip_comments(self) -> None:
        """Pass over lines of comment before the rows; the last of them may name the columns."""
        if self.text.lstrip("\r\n")[:1] not in ("#", "%"):
            return
        lines, first = self.lines, 0
        comments: list[str] = []
        while first < len(lines) and (not lines[first].strip() or self._is_comment(lines[first])):
            comments += [lines[first]] if lines[first].strip() else []
            first += 1
        if first == len(lines):
            return
        width = len(self._split_line(lines[first]))
        comment = _COMMENT.fullmatch(comments[-1].strip()) if comments else None
        names = self._split_line(comment[1]) if comment else []
        if len(names) == width and (width > 1 or len(comments) == 1):
            self.comment_names = tuple(name.strip() for name in names)
        if comments:
            self.remarks.append(pluralize(len(comments), "line") + " of comment")
            self.first_line = first + 1

    def _split_line(self, line: str) -> list[str]:
        return _split_unquoted(line, self.separator)

    # ── between commas, semicolons, tabs ─────────────────────────────────────────────────────────
    def _parse_rows(self) -> list[tuple[str, ...]]:
        """Parse the rows; a quotation mark that is a token is not taken for one that opens a cell.

        Raises:
            InputError: the text is no CSV, or can be read in two ways.
        """
        self._skip_tab_counts()
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
        broken = next((i for i, row in enumerate(rows) if any(_breaks_line(cell) for cell in row)), None)
        if broken is None:
            return rows
        line = self.row_lines[broken]
        holds_row = self.separator == "\t" and any(_breaks_line(cell) and "\t" in cell for cell in rows[broken])
        literal = self._parse_literally()
        if literal is None and not holds_row:
            self._parse_cells(csv.QUOTE_MINIMAL)  # the lines that rows start in
            return rows
        if literal is not None and self.separator == "\t":  # where vectors are written between tabs, nobody quotes
            return literal
        raise InputError(
            "two-readings",
            "there are quotation marks around a line break: a token that holds it, or tokens that are quotation marks?",
            location=self.make_location(line, 1, ""),
            help='a token that is a quotation mark is written """" in CSV, or " in TSV; a line break in a token may be written \\n',
        )

    def _skip_tab_counts(self) -> None:
        """Pass over a first line with counts, as word2vec and fastText write it, where tabs stand in the rows."""
        if self.separator != "\t" or self.first_line > 1:
            return
        first = list(islice(self.iterate_lines(), 2))
        counts = COUNT_LINE.fullmatch(first[0])
        if counts and len(first) == 2 and len(first[1].rstrip(" \t").split("\t")) == int(counts[2]) + 1 != 2:
            self.declared = int(counts[1]), int(counts[2])
            self.first_line = 2
            self.remarks.append("line with counts")

    def _parse_literally(self) -> list[tuple[str, ...]] | None:
        """Parse the rows with quotation marks like any other character; None where they are not equally long then."""
        try:
            rows = self._parse_cells(csv.QUOTE_NONE)
        except InputError:
            return None
        return rows if all(len(row) == len(rows[0]) for row in rows) and len(rows[0]) > 1 else None

    def _parse_cells(self, quoting: Literal[0, 3], escape: str | None = None) -> list[tuple[str, ...]]:
        del self.row_lines[:]
        text = self.text
        if self.first_line > 1:
            text = "\n".join(self.lines[self.first_line - 1 :])
        if self.declared:  # a tab at the end of each row is no cell
            text = re.sub(r"[ \t]+(?=\r?\n|\r|\Z)", "", text)
        parsed = csv.reader(
            io.StringIO(text, newline=""), delimiter=self.separator, strict=True, quoting=quoting, escapechar=escape
        )
        rows: list[tuple[str, ...]] = []
        offset = self.first_line - 1
        start, blank = 1, 0
        size_limit = csv.field_size_limit(_MAX_CELL_CHARACTERS)  # of the whole process
        try:
            for cells in parsed:
                if len(cells) <= 1 and not "".join(cells).strip():
                    blank = blank or start
                elif blank:
                    raise self._blank_line_error(blank + offset)
                else:
                    rows.append(tuple(cells))
                    self.row_lines.append(start + offset)
                start = parsed.line_num + 1
        except csv.Error as error:
            raise InputError(
                "bad-csv",
                f"this is not valid CSV: {error}",
                location=self.make_location(max(parsed.line_num, 1) + offset, 1, ""),
                help="close the quotation mark that was opened",
            ) from None
        finally:
            csv.field_size_limit(size_limit)
        if not rows:
            raise InputError("empty", "every row is empty", help=_EXAMPLE_HINT)
        if self.declared and self.declared[0] != len(rows):
            raise self._row_count_error(len(rows))
        return rows

    def _blank_line_error(self, line: int) -> InputError:
        return InputError(
            "blank-line",
            "there is a blank line between the rows",
            location=self.make_location(line, 1, ""),
            help="remove it; blank lines may only follow the last row",
        )

    def _row_count_error(self, count: int) -> InputError:
        assert self.declared
        return InputError(
            "count-mismatch",
            f"the first line says that {pluralize(self.declared[0], 'row')} follow, but there are {count}",
            location=self.make_location(1, 1, ""),
            help="was the copy cut short? To read the rows that are there, remove the first line: tail -n +2",
        )

    # ── between blanks ───────────────────────────────────────────────────────────────────────────
    def _parse_blank_rows(self) -> list[tuple[str, ...]]:
        """Parse rows between blanks and tabs: numbers, with or without a token before them, which may hold blanks.

        Raises:
            InputError: there are none, or it is unclear where the tokens end.
        """
        quoted = self._parse_quoted_blanks() if '"' in self.text else None
        if quoted is not None:
            return quoted
        del self.row_lines[:]
        lines, blank = self.lines, 0
        cells: list[list[str]] = []
        for number in range(self.first_line, len(lines) + 1):
            row = split_blanks(lines[number - 1])
            if not row:
                blank = blank or number
            elif blank and cells:
                raise self._blank_line_error(blank)
            else:
                blank = 0
                cells.append(row)
                self.row_lines.append(number)
        self._find_counts(cells)
        if self.declared:
            del cells[0], self.row_lines[0]
            self.remarks.append("line with counts")
            if self.declared[0] != len(cells):
                raise self._row_count_error(len(cells))
        return self._join_tokens(cells)

    def _find_counts(self, cells: list[list[str]]) -> None:
        """Find whether the first row counts the rows and the numbers in each.

        Raises:
            InputError: it may be a row as well.
        """
        if len(cells) < 2 or len(cells[0]) != 2 or not all(re.fullmatch("[0-9]{1,18}", cell) for cell in cells[0]):
            return
        row_count, dims = map(int, cells[0])
        rows = cells[1:]
        width = Counter(map(len, rows)).most_common(1)[0][0]
        is_row_too = dims in (1, 2) and all(len(row) == 2 for row in rows)
        if is_row_too and row_count == len(rows):
            if self.source.header is None:
                spell = self.source.spell_option
                raise InputError(
                    "unclear-header",
                    f"the first row may count {pluralize(row_count, 'row')} of {pluralize(dims, 'number')}, or be a row itself",
                    location=self.make_location(self.row_lines[0], 1, ""),
                    help=f"{spell('header', 'yes')} takes it for counts, {spell('header', 'no')} for a row",
                )
        elif not is_row_too and dims > 1:
            ends_in_numbers = all(_count_trailing_numbers(row) >= dims for row in rows)
            if width in (dims, dims + 1) or (row_count == len(rows) and ends_in_numbers):
                self.declared = row_count, dims

    def may_be_blank_separated(self, row: int) -> bool:
        """Whether tabs were detected as what separates the cells, and a row has blanks beside them."""
        is_detected = self.separator == "\t" and self.source.separator is None
        return is_detected and self.source.format != "tsv" and " " in self.lines[self.row_lines[row] - 1]

    def _parse_quoted_blanks(self) -> list[tuple[str, ...]] | None:
        """Parse rows whose quotation marks enclose cells, as R and pandas write them; None where they are tokens."""
        lines = [line for line in self.lines[self.first_line - 1 :] if line.strip()]
        if not any(re.match('"[^"]*"', line) for line in lines):
            return None
        try:
            rows = self._parse_cells(csv.QUOTE_MINIMAL, "\\" if '\\"' in self.text else None)
        except InputError:
            return None
        width = len(rows[-1])
        are_equal = all(len(row) == width for row in rows[1:]) and len(rows[0]) in (width, width - 1)
        all_quoted = all(line.startswith('"') for line in lines[1:] or lines)
        encloses_blank = any(" " in cell for row in rows for cell in row)
        is_quoted = are_equal and width > 1 and (all_quoted or encloses_blank) and len(rows) == len(lines)
        return rows if is_quoted else None

    def _join_tokens(self, cells: list[list[str]]) -> list[tuple[str, ...]]:
        """Join the cells before the numbers of each row to one token.

        Raises:
            InputError: it is unclear where a token ends.
        """
        widths = [len(row) for row in cells]
        counts = [_count_trailing_numbers(row) for row in cells]
        if self.declared:
            dims = self.declared[1]
            has_tokens = widths.count(dims) < len(widths)
            for i, count in enumerate(counts):
                if count < dims or (has_tokens and widths[i] == dims):
                    raise self.declared_row_error(i, cells[i], count)
        else:
            first = 1 if not counts[0] and len(cells) > 1 and widths[0] <= min(widths[1:]) else 0  # a header
            is_plain = len(set(widths[first:])) == 1 and max(counts[first:]) >= widths[-1] - 1
            dims = min(counts[first:])
            if is_plain or not dims or min(widths[first:]) == dims:
                return [tuple(row) for row in cells]
            for i in range(first, len(cells)):
                if counts[i] != dims and widths[i] > dims + 1:
                    raise self._unclear_token_error(i, cells[i], dims, len(cells) - first)
                if widths[i] > dims + 1 and looks_like_number(last := cells[i][-dims - 1]):
                    raise InputError(
                        "ragged-row",
                        f"{printable(shorten(last))!r} comes before the numbers of this row: is it the end of its token, or a mistyped number?",
                        location=self._locate_line(i),
                        help="write the number; or say how many numbers each row has in a first line, as word2vec does: "
                        f"{len(cells) - first} {dims}",
                    )
            if first and self._are_numbered(cells):
                raise InputError(
                    "two-readings",
                    "the rows begin with 0, 1, 2 …, which the header does not name: this is a table as pandas prints it",
                    location=self._locate_line(1),
                    help="remove the numbering: sed -E '2,$ s/^ *[0-9]+ +//'; or df.to_csv('FILE.csv', index=False)",
                )
            if first and widths[0] not in (dims, dims + 1):
                return [tuple(row) for row in cells]  # which is refused as ragged
            joined = self._join_tokens_of(cells[first:], dims, first)
            return [tuple(row) for row in cells[:first]] + joined
        return self._join_tokens_of(cells, dims, 0)

    @staticmethod
    def _are_numbered(cells: list[list[str]]) -> bool:
        """Whether the rows below a header count 0, 1, 2 …, and have one cell more than it."""
        width = len(cells[0]) + 1
        return all(len(row) == width and row[0] == str(i) for i, row in enumerate(cells[1:]))

    def _join_tokens_of(self, cells: list[list[str]], dims: int, first: int) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for i, row in enumerate(cells, first):
            count = len(row) - dims
            if count > 1:
                line = self.lines[self.row_lines[i] - 1]
                spans = [match.span() for match in islice(re.finditer(r"[^ \t]+", line), count)]
                rows.append((line[spans[0][0] : spans[-1][1]], *row[count:]))
            else:
                rows.append(tuple(row))
        return rows

    def declared_row_error(self, index: int, row: list[str], count: int) -> InputError:
        """Make the error for a row that has fewer numbers than the first line declares, or no token."""
        assert self.declared
        dims = self.declared[1]
        message = f"this row ends in {pluralize(count, 'number')}, but the first line declares {dims}"
        if count >= dims:
            message = "this row has no token, but others have"
        return InputError("ragged-row", message, location=self._locate_line(index))

    def _locate_line(self, index: int) -> Location:
        """Return the place of a whole row between blanks."""
        line = self.row_lines[index]
        return self.make_location(line, 1, "", len(self.lines[line - 1].rstrip()))

    def _unclear_token_error(self, index: int, row: list[str], dims: int, count: int) -> InputError:
        shorter = printable(shorten(" ".join(row[: len(row) - dims])))
        return InputError(
            "ragged-row",
            f"it is unclear where the token of this row ends: other rows end in {pluralize(dims, 'number')}, so it would be {shorter!r}",
            location=self._locate_line(index),
            help=f"mend the row that is too long or too short; or say how many numbers each row has in a first line, as word2vec does: {count} {dims}",
        )

    # ── places ───────────────────────────────────────────────────────────────────────────────────
    def make_location(self, line: int, column: int, label: str, width: int = 1) -> Location:
        """Make the place of an error, with the lines around it."""
        shown_lines = range(max(1, line - 2), min(len(self.lines), line + 1) + 1)
        return Location(
            line=line,
            column=column,
            source_lines=tuple((number, self.lines[number - 1]) for number in shown_lines),
            caret_label=label,
            caret_width=width,
        )

    def cell_error(self, code: str, message: str, row: int, column: int, label: str = "", help: str = "") -> InputError:
        """Make an error at a cell; one beyond the end of its row is missing."""
        line = self.lines[self.row_lines[row] - 1]
        spans = self._cell_spans(line, len(self.rows[row]))
        if column >= len(self.rows[row]):  # the cell is missing
            start, end = len(line), len(line) + 1
        else:
            start, end = spans[column] if column < len(spans) else (0, spans[0][1])
        location = self.make_location(self.row_lines[row], start + 1, label, max(1, end - start))
        return InputError(code, message, location=location, help=help)

    def _cell_spans(self, line: str, count: int) -> list[tuple[int, int]]:
        """Return where the cells of a line start and end."""
        if self.separator == " " and '"' not in line:
            spans = [match.span() for match in re.finditer(r"[^ \t]+", line)]
            split = max(len(spans) - count, 0)  # blanks in the token
            return [(spans[0][0], spans[split][1]), *spans[split + 1 :]]
        starts, is_quoted = [0], False  # of cells, in the line
        for i, character in enumerate(line):
            is_quoted ^= character == '"'
            if character == self.separator and not is_quoted:
                starts.append(i + 1)
        return [*zip(starts, [start - 1 for start in starts[1:]], strict=False), (starts[-1], len(line))]


def _count_trailing_numbers(row: list[str]) -> int:
    """Count the numbers that a row ends in."""
    count = 0
    for cell in reversed(row):
        if not NUMBER.fullmatch(cell):
            break
        count += 1
    return count


def _breaks_line(cell: str) -> bool:
    """Whether a cell holds a line break, and is no vector: NumPy breaks the lines of long ones."""
    return ("\n" in cell or "\r" in cell) and not (has_brackets(cell) and looks_like_vector(cell))
