"""Decide what the columns of a CSV mean (header, tokens, dimensions, vectors) and parse their cells. Entry: `CsvTable`.

Where it is unclear, the file is refused, and the error names the option that decides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from attncli.errors import InputError, Location
from attncli.readers.base import make_problem, nest_fields
from attncli.readers.columns import (
    TOKEN_NAMES,
    ColumnOption,
    differs_from_rest,
    find_columns,
    spell_columns,
    unlike_columns,
)
from attncli.readers.csv_ambiguities import check_readings, is_column_of_dimension_numbers, transposed_error
from attncli.readers.csv_cells import (
    COMMA_NUMBER,
    COMMA_NUMBER_OR_NONFINITE,
    NUMBER,
    NUMBER_OR_NONFINITE,
    NUMBER_OR_TRUTH_VALUE,
    TRUTH_VALUE,
    looks_like_number,
    resembles_vector,
)
from attncli.readers.csv_counts import check_counts, make_stacked_frame_error
from attncli.readers.csv_hints import (
    describe_empty_columns,
    explain_cell,
    explain_labels_alone,
    explain_ragged_row,
    find_empty_columns,
)
from attncli.readers.csv_rows import SEPARATOR_NAMES, CsvRows
from attncli.readers.csv_vector_columns import describe_vector_column, find_vector_column, parse_vectors
from attncli.readers.long_tables import find_long_table, is_result, is_stacked_frame, make_result_error
from attncli.readers.source import Source
from attncli.text import join_names, pluralize, printable, shorten
from attncli.types import NumpyArray, Problem

_LABEL_COLUMN_NAMES = frozenset({"token", "tokens", "word", "words", "text", "label", "labels", "name"})
_WITHOUT_FIRST_LINE = "if line 1 is no row, take it out: tail -n +2"
_NUMBERED_NAME = re.compile(r"([A-Za-z]_?)\d+", re.ASCII)


class CsvTable:
    """The rows of one file, with its header. Entry: `parse_problem`.

    Raises:
        InputError: the text is no CSV, has no rows, or it is unclear whether it has a header.
    """

    def __init__(self, source: Source, separator: str | None) -> None:
        self.source = source
        self.text_rows = CsvRows(source, separator)
        self.separator, self.rows = self.text_rows.separator, self.text_rows.rows
        has_commas = self.separator == ";"
        if source.field_kind == "booleans":
            self.number_pattern = NUMBER_OR_TRUTH_VALUE
        elif source.may_be_nonfinite:
            self.number_pattern = COMMA_NUMBER_OR_NONFINITE if has_commas else NUMBER_OR_NONFINITE
        else:
            self.number_pattern = COMMA_NUMBER if has_commas else NUMBER
        self.header = self._detect_header()
        is_first_row = bool(self.header) and self.header is not self.text_rows.comment_names
        self.token_column_index: int | None = None  # once it is found
        self.first = 1 if is_first_row else 0  # index of the first row that is a token's
        self.body = self.rows[self.first :]
        if not self.body:
            raise InputError(
                "empty",
                "there is a header, but no row below it",
                location=Location(line=1),
                help="write one row per token: cat,0.1,0.2",
            )

    def parse_problem(self) -> Problem:
        """Parse every cell, and return the problem.

        Raises:
            InputError: a cell is no finite number, rows differ in length, or the token column is unclear.
        """
        import numpy as np

        self.check_widths()
        vector_column = self.find_vector_column()
        if vector_column is not None:
            tokens = self._find_label_column([vector_column])
            labels = None if tokens is None else [row[tokens] for row in self.body]
            remarks = describe_vector_column(self, vector_column, tokens)
            return self.to_problem(parse_vectors(self, vector_column), labels, tokens, remarks)
        column = self.token_column_index = self.find_token_column()
        numeric = self.find_dimensions(column)
        if not numeric:
            raise self._cell_error(
                "not-a-number", "there are no numbers beside the tokens", self.first, 0, help=explain_labels_alone(self)
            )
        if self.source.field_kind == "booleans":
            return self._to_problem_of_field(self._parse_booleans(numeric), column)
        check_readings(self, column, numeric)
        cells = ((row, c) for row in range(self.first, len(self.rows)) for c in numeric)
        count = len(self.body) * len(numeric)
        vectors = np.fromiter((self._parse_cell(row, c) for row, c in cells), np.float64, count).reshape(
            len(self.body), -1
        )
        return self.to_problem(vectors, None if column is None else [row[column] for row in self.body], column)

    def find_vector_column(self) -> int | None:
        """Return the number of the column each cell of which holds a whole vector, if there is one; errors are its."""
        return find_vector_column(self, self._find_columns("drop"), self._find_columns("columns"))

    def to_problem(
        self, vectors: NumpyArray, tokens: list[str] | None, column: int | None, remarks: Sequence[str] = ()
    ) -> Problem:
        """Return the problem, with a note on what was detected.

        Args:
            vectors: (n, d)
            tokens: their labels, if there is a token column.
            column: the token column.
            remarks: what else the note says.
        """
        n, d = vectors.shape
        is_of_tokens = self.source.field in ("", "memory")
        size = f"{pluralize(n, 'token')} × {pluralize(d, 'dim')}" if is_of_tokens else f"{n} × {d}"
        problem = make_problem({"embeddings": vectors} if tokens is None else {"embeddings": vectors, "tokens": tokens})
        return replace(problem, notes=(self._write_note(size, column, remarks),))

    def _to_problem_of_field(self, values: Any, column: int | None) -> Problem:
        """Return a problem that holds the one field which the file is read for."""
        size = " × ".join(map(str, getattr(values, "shape", (len(values),))))
        problem = make_problem(nest_fields({self.source.field: values}))
        return replace(problem, notes=(self._write_note(size, column),))

    def _write_note(self, size: str, column: int | None, remarks: Sequence[str] = ()) -> str:
        """Write what was detected."""
        if column is None:
            token_column = "no token column"
        else:
            token_column = f"token column {shorten(self.header[column])!r}" if self.header else f"token column {column}"
        header = "header row" if self.header else "no header"
        separator = f"separator {SEPARATOR_NAMES[self.separator]}"
        found = [size, header, token_column, *remarks, separator, *self.text_rows.remarks]
        return f"{self.source.name}: {', '.join(found)}"

    # ── header ───────────────────────────────────────────────────────────────────────────────────
    def _detect_header(self) -> tuple[str, ...]:
        """Return the names of the columns, or nothing where the first row is a token's.

        Raises:
            InputError: it may be either.
        """
        is_between_blanks = self.separator == " "  # where other white space may be a token
        names = tuple(cell if is_between_blanks else cell.strip() for cell in self.rows[0])
        if self.text_rows.declared:
            return ()  # the line with counts is what others call the header
        if self.text_rows.comment_names and self.source.header != "yes":
            return self.text_rows.comment_names
        if self.source.header == "yes" or (self.source.header is None and self._is_name_requested()):
            return self._complete_names(names)
        if self.source.header == "no":
            return ()
        rest = names[1:] or names  # without what may be the token column
        cells = self._strip_empty_ends(names if names[0] else rest)
        has_name = not all(map(_NUMBERED_NAME.fullmatch, rest))  # beside norm, e1 is one; alone it is a slip for 1e1
        doubtful = [cell for cell in cells if not (has_name and _NUMBERED_NAME.fullmatch(cell))]
        has_words_only = not any(self.holds_number(cell) or looks_like_number(cell) for cell in doubtful)
        is_word_first = not (self.holds_number(names[0]) or looks_like_number(names[0]))
        has_words_only |= _are_numbered_names(names) or (is_word_first and _are_numbered_names(rest))
        if has_words_only and not any(map(resembles_vector, cells)) and (len(self.rows) > 1 or len(names) > 1):
            return self._complete_names(names)
        if len(self.rows) > 1 and is_stacked_frame(names):
            return names
        if len(self.rows) > 1 and all(self.holds_number(cell) for cell in rest):
            numberings = [list(map(str, range(len(row)))) for row in (names, rest) if len(row) > 1]
            counts_after_token = list(rest) in numberings and not self.holds_number(names[0])
            if list(names) in numberings or counts_after_token:
                raise self.unclear_header_error("the first row counts 0, 1, 2 …: is it a header, or a token's vector?")
            if len(names) > 1 and names[0].lower() in TOKEN_NAMES:
                first = shorten(names[0])
                raise self.unclear_header_error(
                    f"the first row starts with {first!r} and goes on with numbers: is it a header?"
                )
        numbers = [cell for cell in names if cell.isdigit()]
        labels = [cell for cell in names if not cell.isdigit()]
        counts_words_too = labels and len(numbers) > 1 and numbers == list(map(str, range(len(numbers))))
        if counts_words_too and len(self.rows) > 1 and not any(map(self.holds_number, labels)):
            raise self.unclear_header_error(
                f"the first row has {pluralize(len(labels), 'cell')} without a number, and counts 0, 1, 2 …: is it a header?"
            )
        counted = rest if is_word_first else names
        if (
            len(counted) > 1
            and len(self.rows) > 2
            and _count_by_one(counted)
            and self._are_fractions_below(len(names) - len(counted))
        ):
            raise self.unclear_header_error(
                f"the first row counts {counted[0]}, {counted[1]} …, and there are fractions below: is it a header?"
            )
        return ()

    def _are_fractions_below(self, first: int) -> bool:
        """Whether each column from one on holds a fraction below the first row."""
        columns = [[row[c].strip() for row in self.rows[1:] if c < len(row)] for c in range(first, len(self.rows[0]))]
        return all(
            any(re.search(r"[.,]\d*[1-9]", cell) and self.holds_number(cell) for cell in cells) for cells in columns
        )

    def _is_name_requested(self) -> bool:
        """Whether an option calls a column by a name, so that there is a header."""
        tokens = self.source.token_column
        is_place = tokens in (None, "none") or re.fullmatch(r"(?:place:)?[0-9]+", str(tokens))
        return not is_place or "name:" in f"{self.source.columns},{self.source.drop}"

    def _strip_empty_ends(self, cells: tuple[str, ...]) -> tuple[str, ...]:
        """Return the first cells of a row without those at its end that are empty in every row; one word alone is a title."""
        end = len(cells)
        offset = len(self.rows[0]) - end
        while (
            end
            and not cells[end - 1]
            and not any("".join(row[end - 1 + offset : end + offset]).strip() for row in self.rows)
        ):
            end -= 1
        return cells[:end] if end > 1 else cells

    def _complete_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of all columns: R leaves out that of the first, which holds the names of its rows."""
        width = len(names) + 1
        is_longer = len(self.rows) > 1 and all(len(row) == width for row in self.rows[1:])
        if is_longer and any(row[-1].strip() for row in self.rows[1:]):
            self.text_rows.remarks.append("the first column has no name")
            return ("", *names)
        return names

    def unclear_header_error(self, message: str) -> InputError:
        spell = self.source.spell_option
        hint = f"{spell('header', 'yes')} or {spell('header', 'no')} says which"
        return self._cell_error("unclear-header", message, 0, 0, help=hint)

    # ── columns ──────────────────────────────────────────────────────────────────────────────────
    def check_widths(self) -> None:
        """Check that all rows have as many cells as the first.

        Raises:
            InputError: they have not.
        """
        width = len(self.header or self.rows[0])
        for row in range(self.first, len(self.rows)):
            if len(self.rows[row]) != width:
                raise self._ragged_row_error(row, width)

    def is_token_column_certain(self, column: int | None) -> bool:
        """Whether these rows alone show that a column holds tokens: one of its cells is no number, nor a slip for one."""
        if self.source.token_column is not None:
            return True
        if self.source.columns:  # columns that are not named may hold words below
            named = {*self._find_columns("columns"), *self._find_columns("drop")}
            other_count = len(self.body[0]) - len(named)
            if other_count > 1 or (other_count and column is None):
                return False
        return column is None or not all(
            self.holds_number(row[column]) or looks_like_number(row[column]) for row in self.body
        )

    def find_token_column(self) -> int | None:
        """Return the number of the column that holds the tokens, if any.

        Raises:
            InputError: it is unclear.
        """
        self._check_is_not_long()
        requested = self.source.token_column
        if requested == "none":
            return None
        if requested is not None:
            return self._find_columns("token-column")[0]
        if self.source.columns:
            return self._find_label_column(self._find_columns("columns"))
        dropped = self._find_columns("drop")
        declared = self.text_rows.declared
        if declared and len(self.body[0]) == declared[1] + 1 and not dropped:
            return 0
        kept = [c for c in range(len(self.body[0])) if c not in dropped]
        if not kept:
            return None
        first = kept[0]
        column = [row[first].strip() for row in self.body]
        are_numbers = [self.holds_number(cell) for cell in column]
        if all(are_numbers):
            if len(kept) > 1 and is_column_of_dimension_numbers(self, first):
                raise transposed_error(self, first, f"column {self.header[first]!r} counts {column[0]}, {column[1]} …")
            if self.header and len(kept) > 1 and differs_from_rest([self.header[c] for c in kept]):
                spell, name = self.source.spell_option, self.name_columns([first])
                numbers = [c for c in kept if any(self.holds_number(row[c]) for row in self.body)]
                raise self._cell_error(
                    "unclear-tokens",
                    f"column {shorten(self.header[first])!r} holds numbers under a name unlike the others: tokens, or a dimension?",
                    0,
                    first,
                    help=f"{spell('token-column', name)} makes them the tokens, {self.spell_drop(first)} leaves them out, "
                    f"{spell('columns', self.name_columns(numbers))} takes all as dimensions",
                )
            return None
        if len(column) > 2 and are_numbers.count(False) == 1 and not self.header and not looks_like_number(column[0]):
            raise self._cell_error(
                "unclear-tokens",
                f"column {first} holds {printable(shorten(column[0]))!r} and numbers: tokens, or is the first line no row?",
                self.first,
                first,
                help=f"{self.source.spell_option('token-column', self.name_columns([first]))} makes them the tokens; {_WITHOUT_FIRST_LINE}",
            )
        if any(are_numbers) and all(self.holds_number(cell) or looks_like_number(cell) for cell in column):
            row = self.first + are_numbers.index(False)
            cell = self.rows[row][first].strip()
            if self.header and self.header[first].lower() in TOKEN_NAMES and cell:
                raise self._cell_error(
                    "unclear-tokens",
                    f"column {shorten(self.header[first])!r} holds numbers and {printable(shorten(cell))!r}: tokens, or a mistyped number?",
                    row,
                    first,
                    help=f"{self.source.spell_option('token-column', self.name_columns([first]))} makes them the tokens",
                )
            self._parse_cell(row, first)  # raises, and says why
        return first

    def _check_is_not_long(self) -> None:
        """Check that no row holds one number of a vector.

        Raises:
            InputError: by the names of the columns it may.
        """
        if is_result(self.header) and not self.source.columns:
            error = make_result_error(".csv")
            raise self._cell_error(error.code, error.message, 0, self.header.index("step"), help=error.help)
        dropped = self._find_columns("drop")
        if is_stacked_frame(self.header) and not self.source.columns and not dropped:
            raise make_stacked_frame_error(self)
        long = find_long_table([name for c, name in enumerate(self.header) if c not in dropped])
        if long and not self.source.columns and self.source.field_kind != "booleans":
            raise self._cell_error(
                "two-readings",
                long.message,
                0,
                self.header.index(long.dimension),
                help=long.spell_readings(self.source, self.separator),
            )

    def spell_drop(self, *columns: int) -> str:
        """Spell the option that leaves columns out, beside those that are left out already."""
        dropped = self._find_columns("drop")
        return self.source.spell_option(
            "drop", self.name_columns([*dropped, *(c for c in columns if c not in dropped)])
        )

    def name_columns(self, columns: Sequence[int]) -> str:
        """Name columns as options take them: by names, or by places where there are none or they cannot be typed."""
        return spell_columns(self.header, columns)

    def find_dimensions(self, token_column: int | None) -> list[int]:
        """Return the numbers of the columns that are dimensions: those that were named, or all that nothing speaks against.

        Raises:
            InputError: a column that was named does not exist, or one is called otherwise than dimensions are.
        """
        if self.source.columns:
            return self._find_columns("columns")
        dropped = self._find_columns("drop")
        dimensions = [c for c in range(len(self.body[0])) if c != token_column and c not in dropped]
        empty = sorted({*find_empty_columns(self)} & {*dimensions}) if self.header else []
        if empty and not any(self.header[c] for c in empty):
            raise self._cell_error(
                "empty-cell", "a value is missing", self.first, empty[0], help=describe_empty_columns(self, empty)
            )
        unlike = unlike_columns(self.header, dimensions) if self.header else []
        if unlike:
            words = [c for c in unlike if not any(self.holds_number(row[c]) for row in self.body)]
            if words:
                raise self._texts_error(words, dimensions, token_column)
            names = join_names([f"{shorten(self.header[c])!r}" for c in unlike])
            spell = self.source.spell_option
            raise self._cell_error(
                "unclear-columns",
                f"column {names} {'has a name' if len(unlike) == 1 else 'have names'} unlike the dimensions: part of the vector?",
                0,
                unlike[0],
                help=f"{self.spell_drop(*unlike)} leaves {'it' if len(unlike) == 1 else 'them'} out; {spell('columns', self.name_columns(dimensions))} takes all",
            )
        check_counts(self, token_column, dimensions)
        return dimensions

    def _texts_error(self, words: Sequence[int], dimensions: Sequence[int], token_column: int | None) -> InputError:
        """The error for columns of texts among those that are left as dimensions."""
        spell = self.source.spell_option
        numbers = self.name_columns([c for c in dimensions if c not in words])
        if self.source.token_column is not None or token_column is None:
            message = f"{'column' if len(words) == 1 else 'columns'} {self._join_columns(words)} {'holds' if len(words) == 1 else 'hold'} texts"
            leaves = f"{self.spell_drop(*words)} leaves {'it' if len(words) == 1 else 'them'} out"
            if self.source.token_column is None:
                makes = [spell("token-column", self.name_columns([c])) for c in words]
                leaves = f"{join_names(makes, 'or', max_names=4)} makes {'it' if len(words) == 1 else 'one of them'} the tokens; {leaves}"
            takes = f"; {spell('columns', numbers)} takes the numbers alone" if numbers else ""
            return self._cell_error("unclear-columns", message, 0, words[0], help=leaves + takes)
        texts = [token_column, *words]
        ways = [
            f"{spell('token-column', self.name_columns([c]))} {self.spell_drop(*(other for other in texts if other != c))}"
            for c in texts
        ]
        message = f"columns {self._join_columns(texts)} hold texts: which are the tokens?"
        return self._cell_error(
            "unclear-tokens", message, 0, words[0], help=f"choose one: {join_names(ways, 'or', max_names=4)}"
        )

    def _join_columns(self, columns: Sequence[int]) -> str:
        return join_names([f"{shorten(self.header[c])!r}" for c in columns], max_names=8)

    def _find_columns(self, option: ColumnOption) -> list[int]:
        """Return the numbers of the columns that an option names.

        Raises:
            InputError: there is no such column, two are called so, or a number may be its name or its place.
        """
        return find_columns(self.source, option, self.header, len(self.body[0]))

    def is_requested_token_column(self, column: int) -> bool:
        """Whether an option names the column as that of the tokens."""
        is_named = self.source.token_column not in (None, "none")
        return is_named and self._find_columns("token-column") == [column]

    def _find_label_column(self, dimensions: Sequence[int]) -> int | None:
        """Return the column of the tokens beside columns that are vectors, if there is one.

        Raises:
            InputError: several columns hold words.
        """
        requested = self.source.token_column
        if requested is not None:
            return None if requested == "none" else self._find_columns("token-column")[0]
        used = {*dimensions, *self._find_columns("drop")}
        words = [
            c
            for c in range(len(self.body[0]))
            if c not in used and not all(self.holds_number(row[c]) for row in self.body)
        ]
        named = [c for c in words if self.header and self.header[c].lower() in _LABEL_COLUMN_NAMES]
        if len(named) == 1 or len(words) <= 1:
            return next(iter(named or words), None)
        spelled = " or ".join(self.source.spell_option("token-column", self.name_columns([c])) for c in words)
        message = (
            f"columns {join_names([self.name_columns([c]) for c in words], 'and')} hold words: which are the tokens?"
        )
        raise self._cell_error("unclear-tokens", message, 0, words[0], help=f"{shorten(spelled, 200)} says which")

    # ── cells ────────────────────────────────────────────────────────────────────────────────────
    def holds_number(self, cell: str) -> bool:
        """Whether a cell holds a number as this file writes them."""
        return self.number_pattern.fullmatch(cell.strip()) is not None

    def _parse_cell(self, row: int, column: int) -> float:
        cell = self.rows[row][column].strip()
        if self.number_pattern.fullmatch(cell):
            value = float(cell.replace(",", "."))
            if math.isfinite(value) or (self.source.may_be_nonfinite and cell.lstrip("+-")[0] in "iInN"):
                return value
        code, message, hint = explain_cell(self, row, column)
        raise self._cell_error(code, message, row, column, help=hint)

    def _parse_booleans(self, columns: Sequence[int]) -> NumpyArray:
        """Parse truth values, written true and false, or 1 and 0 where it is said what 1 means.

        Raises:
            InputError: there are other values, or it is not said what 1 means.
        """
        import numpy as np

        flags = np.empty((len(self.body), len(columns)), bool)
        first_number: tuple[int, int] | None = None
        word_count = 0
        for i, row in enumerate(self.body):
            for j, c in enumerate(columns):
                cell = row[c].strip()
                if TRUTH_VALUE.fullmatch(cell):
                    flags[i, j] = cell.lower() == "true"
                    word_count += 1
                    continue
                value = float(cell) if NUMBER.fullmatch(cell) else None
                if value not in (0.0, 1.0):
                    code = "not-a-number" if value is None else "numeric-mask"
                    message = f"{printable(shorten(cell))!r} is neither true nor false"
                    hint = f"write true or false; to add numbers to the scores, --with bias={self.source.name}"
                    raise self._cell_error(code, message, self.first + i, c, help=hint)
                flags[i, j] = value == 1
                first_number = first_number or (self.first + i, c)
        if first_number and word_count:
            raise self._cell_error(
                "numeric-mask",
                "true and false are mixed with 1 and 0",
                *first_number,
                help="write true or false throughout",
            )
        if first_number and self.source.ones is None:
            spell = self.source.spell_option
            raise self._cell_error(
                "numeric-mask",
                "is 1 a key that is visible, or one that is hidden? Libraries differ",
                *first_number,
                help=f"{spell('ones', 'visible')} as in Hugging Face's attention_mask, {spell('ones', 'hidden')} as in nn.MultiheadAttention; "
                f"--with bias={self.source.name} adds the numbers to the scores",
            )
        if self.source.ones:
            self.text_rows.remarks.append(f"{'1' if first_number else 'true'} is {self.source.ones}")
        return ~flags if self.source.ones == "hidden" else flags

    def _ragged_row_error(self, row: int, width: int) -> InputError:
        cells = self.rows[row]
        has = len(cells)
        if self.holds_number(cells[0]):
            subject, label_count = f"line {self.text_rows.row_lines[row]}", 0
        else:
            subject, label_count = f'row for "{printable(shorten(cells[0]))}"', 1
        if not self.first:
            others = f"line {self.text_rows.row_lines[0]} has"
        elif len(self.body[0]) == width:
            others = f"the header and line {self.text_rows.row_lines[self.first]} have"
        else:
            others = "the header has"
        message = f"{subject} has {pluralize(has - label_count, 'value')}, but {others} {width - label_count}"
        ragged_count = sum(len(other) != width for other in self.body)
        if ragged_count > 1:
            message += f" ({ragged_count} of {len(self.body)} rows are affected)"
        if has < width:
            name = f" ({shorten(self.header[has])})" if self.header else ""
            caret_label = f"value {has - label_count + 1}{name} is missing"
        else:
            caret_label = "one value too many"
        hint = explain_ragged_row(self, row, width)
        return self._cell_error("ragged-row", message, row, min(has, width), caret_label, hint)

    def _cell_error(
        self, code: str, message: str, row: int, column: int, label: str = "", help: str = ""
    ) -> InputError:
        return self.text_rows.cell_error(code, message, row, column, label, help)


def _count_by_one(cells: Sequence[str]) -> bool:
    """Whether cells are whole numbers that count up by 1, such as 1, 2, 3 or 2019.0, 2020.0."""
    if not all(re.fullmatch(r"\d{1,9}(?:\.0*)?", cell, re.ASCII) for cell in cells):
        return False
    numbers = [int(float(cell)) for cell in cells]
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _are_numbered_names(cells: Sequence[str]) -> bool:
    """Whether cells are names such as e0, e1, e2: one stem of letters, each with a number of its own."""
    matches = [_NUMBERED_NAME.fullmatch(cell) for cell in cells]
    stems = {match.group(1) for match in matches if match}
    return all(matches) and len(stems) == 1 and len({*cells}) == len(cells) > 1
