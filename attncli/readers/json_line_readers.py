"""Find the reader of a file whose first line tells its format: JSON lines of tokens, or of problems. Entry: `detect_reader`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from attncli.errors import AttnError
from attncli.readers.base import Reader, find_reader, load_reader
from attncli.readers.compression import read_first_line
from attncli.readers.files import open_input

_MAX_FIRST_LINE_BYTES = 2**22  # of JSON lines, in which a token and its vector stand


def detect_reader(path: str, format_name: str | None = None) -> Reader:
    """Return the reader of an input as `find_reader` does; of JSON lines in a file, by what the first line holds.

    Raises:
        OptionError, InputError: as `find_reader`.
    """
    reader = find_reader(path, format_name)
    if reader.find_format is None or path == "-":
        return reader
    first = b""
    with suppress(AttnError, OSError, ValueError):  # what cannot be read is said when it is read
        if Path(path).is_file():  # a pipe can be read once
            with open_input(path) as file:
                first = read_first_line(file, path, _MAX_FIRST_LINE_BYTES)
    return load_reader(reader.find_format(first))
