"""Read a problem from a file: find its reader, parse the bytes, replace fields, validate.

Entries: `read`, `parse_problem`; `find_input` where it matters first whether the input is a stream of problems.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from attncli.errors import InputError, OptionError
from attncli.readers.base import Reader, load_reader, parse_source, read_source, refuse_table_options
from attncli.readers.files import open_input, read_bytes, read_error
from attncli.readers.json_line_readers import detect_reader
from attncli.readers.source import Source
from attncli.readers.with_field import assign_name_of_array, replace_field
from attncli.types import Problem

if TYPE_CHECKING:
    from attncli.readers.compression import ArrivingLines
    from attncli.request import ReaderKeywords, TableKeywords


@dataclass(frozen=True)
class InputFile:
    """A file, or standard input, whose reader is known."""

    path: str
    reader: Reader
    data: bytes | None = None  # its bytes, where they told the reader
    note: str = ""  # what they were recognised as

    @property
    def display_name(self) -> str:
        """Its name for messages."""
        return "<stdin>" if self.path == "-" else self.path

    def read_lines(self) -> ArrivingLines:
        """Return its lines as they come in, unpacked if they are packed; they raise InputError where it cannot be read."""
        from attncli.readers.compression import ArrivingLines

        return ArrivingLines(self._unpack_lines())

    def _unpack_lines(self) -> Iterator[list[bytes]]:
        from attncli.readers.compression import unpack_lines

        if self.data is not None:
            yield from unpack_lines(io.BufferedReader(io.BytesIO(self.data)), self.display_name)
            return
        with open_input(self.path) as file:
            try:
                yield from unpack_lines(file, self.display_name)
            except OSError as error:
                raise read_error(self.path, error) from None


def find_input(path: str, format: str | None = None) -> InputFile:
    """Find the reader of a file by its suffix, and that of standard input by what it holds, where no format is named.

    Whether JSON lines are problems or tokens, their first line tells.

    Raises:
        OptionError: the format is not known.
        InputError: it is a folder; or standard input cannot be read, or holds nothing.
    """
    if path != "-" or format is not None:
        return InputFile(path, detect_reader(path, format))
    from attncli.readers.compression import unpack
    from attncli.readers.format_detection import FORMAT_TITLES, detect_format

    try:
        data = read_bytes(path)
        unpacked, packing = (data, "") if data.startswith(b"PK\x03\x04") else unpack(data, "<stdin>")
        name = detect_format(unpacked)
    except InputError as error:
        raise error.add_location(file="<stdin>") from None
    reader = load_reader(name)
    if packing and not reader.is_text:
        hint = f"unpack it first: {'gunzip' if packing == 'gzip' else 'zstd -d'} < FILE | attn compute -"
        raise OptionError("unknown-format", f"{name} is not read packed by {packing}; only text is", help=hint)
    title = FORMAT_TITLES.get(name, name)
    note = f"standard input: recognised as {title}{f' packed by {packing}' if packing else ''}"
    return InputFile(path, reader, unpacked, note)


def read(path: str | Path | InputFile, format: str | None = None, **keywords: Unpack[ReaderKeywords]) -> Problem:
    """Read a problem from a file, and validate it.

    Args:
        path: the file, or `-` for standard input; or one whose reader has been found.
        format: the name of its format, where the suffix does not say it.
        keywords: how it is read, as in `ReadOptions`.

    Raises:
        OptionError: the format is not known, or `replacing` or `state_dict` is misspelt.
        InputError: the file cannot be read or makes no sense; with its place.
    """
    input_file = path if isinstance(path, InputFile) else find_input(str(path), format)
    reader, display_name = input_file.reader, input_file.display_name
    data: bytes | memoryview | None = input_file.data
    if reader.is_stream:
        hint = (
            "attn compute reads it line by line; if each line is a token with its vector, --input-format ndjson-tokens"
        )
        raise OptionError("many-problems", f"{input_file.path} holds one problem per line", help=hint)
    chosen = {
        "columns": keywords.get("columns"),
        "drop": keywords.get("drop"),
        "token-column": keywords.get("token_column"),
    }
    spelled = [f"--{name}" for name, value in chosen.items() if value is not None]
    refuse_table_options(reader, display_name, spelled)
    if data is None:
        try:
            data = read_source(input_file.path, reader)
        except InputError as error:
            raise error.add_location(file=display_name) from None
    elif reader.shares_memory:
        data = memoryview(bytearray(data))
    problem = parse_problem(data, display_name, reader, **keywords)
    # Of JSON, a table says in a note how it was read; a problem and a bare matrix have nothing to say.
    refuse_table_options(reader, display_name, spelled, is_table=reader.name != "json" or bool(problem.notes))
    return replace(problem, notes=(input_file.note, *problem.notes)) if input_file.note else problem


def parse_problem(
    data: object,
    name: str,
    reader: Reader,
    *,
    line: int | None = None,
    replacing: tuple[str, ...] = (),
    state_dict: str | None = None,
    **keywords: Unpack[TableKeywords],
) -> Problem:
    """Parse the bytes of a file as a problem, and validate it; keywords are those of `read`, and the line that it is.

    Raises:
        OptionError: `replacing` or `state_dict` is misspelt.
        InputError: they make no sense; with the place.
    """
    from attncli.validation import validate

    try:
        source = Source(name, data, reader.name, **keywords)
        problem = assign_name_of_array(parse_source(reader, source), reader, replacing)
        if state_dict is not None:
            from attncli.readers.state_dict import add_layer

            problem = add_layer(problem, state_dict)
        for pair in replacing:
            problem = replace_field(problem, pair, keywords.get("header"))
        return validate(problem, name, line)
    except RecursionError:
        message = "lists or objects are nested deeper than anything a problem holds"
        raise InputError("too-deep", message).add_location(file=name) from None
    except InputError as error:
        raise error.add_location(file=name) from None
