"""The input of a reader: `Source`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from attncli.types import FIELDS


@dataclass(frozen=True)
class Source:
    """The input of a reader: the bytes, and what the user said about them."""

    name: str  # for messages
    data: Any  # bytes; for a reader that `shares_memory`, a memoryview if they come from a file
    format: str = ""
    token_column: str | None = None  # a name, a place from 0, or none
    columns: str | None = None  # those that are dimensions: names or places, separated by commas
    drop: str | None = None  # those that are left out
    header: str | None = None  # yes or no
    separator: str | None = None  # comma, semicolon, tab, pipe or space
    ones: str | None = None  # visible or hidden: what 1 means in a mask
    field: str = ""  # the one field that the file is read for, where it is not the input itself
    assignment: str = ""  # the NAME=PATH of --with that names it
    is_value: bool = False  # `data` is a value of Python's own, such as a data frame or a list

    @property
    def field_kind(self) -> str:
        """The kind of values that the field is declared to hold; floats, where any may be."""
        return FIELDS[self.field].kind if self.field in FIELDS else "floats"

    @property
    def may_be_nonfinite(self) -> bool:
        """Whether the field may hold infinities and NaN."""
        return self.field in FIELDS and not FIELDS[self.field].finite

    def requested_columns(self, option: str) -> str:
        """What an option that names columns says of this file; nothing where it is not given."""
        return {"token-column": self.token_column, "columns": self.columns, "drop": self.drop}[option] or ""

    def spell_option(self, name: str, value: str) -> str:
        """Spell an option that says how this file is read, as it stands on the command line; of a value, as a keyword."""
        if self.is_value:
            return f"{name.replace('-', '_')}={value!r}"
        if self.assignment:
            return f"--with {self.assignment}:{name}={value}"
        return f"--{name} {value}"

    def spell_format(self, name: str) -> str:
        """Spell the option that says the format of this file, as it stands on the command line."""
        return self.spell_option("format" if self.assignment else "input-format", name)
