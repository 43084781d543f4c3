"""What the checks and hints of text tables know of a table while it is read: `TableReading`, which `csv_table.CsvTable` is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from attncli.errors import InputError
from attncli.readers.csv_rows import CsvRows
from attncli.readers.source import Source


class TableReading(Protocol):
    """The rows of one file, with its header."""

    source: Source
    text_rows: CsvRows
    separator: str
    number_pattern: re.Pattern[str]  # of the numbers in it
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    body: list[tuple[str, ...]]  # the rows below the header
    first: int  # index of the first of them
    token_column_index: int | None  # once it is found

    def holds_number(self, cell: str) -> bool:
        """Whether a cell holds a number as this file writes them."""

    def name_columns(self, columns: Sequence[int]) -> str:
        """Name columns as options take them."""

    def spell_drop(self, *columns: int) -> str:
        """Spell the option that leaves columns out."""

    def is_requested_token_column(self, column: int) -> bool:
        """Whether an option names the column as that of the tokens."""

    def unclear_header_error(self, message: str) -> InputError:
        """Return the error that asks whether there is a header."""
