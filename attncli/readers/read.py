"""Read a problem from a file: find its reader, parse the bytes, replace fields, validate. Entries: `read`, `parse_problem`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attncli.errors import InputError, OptionError
from attncli.readers.base import Reader, Source, read_source
from attncli.readers.json_lines import detect_reader
from attncli.readers.with_field import replace_field
from attncli.types import Problem


def read(
    path: str | Path,
    format: str | None = None,
    *,
    replacing: Sequence[str] = (),
    state_dict: str | None = None,
    token_column: str | None = None,
    columns: str | None = None,
    drop: str | None = None,
    header: str | None = None,
) -> Problem:
    """Read a problem from a file, and validate it.

    Args:
        path: the file, or `-` for standard input.
        format: the name of its format, where the suffix does not say it.
        replacing: `name=path` pairs; each takes one field from another file (`--with`).
        state_dict: `file:prefix`; the learned arrays of one layer of a checkpoint (`--from-state-dict`).
        token_column: for CSV, which column holds the tokens: its name, its number from 0, or `none`.
        columns: for CSV, which columns are dimensions: names or numbers, separated by commas.
        drop: for CSV, which columns are left out.
        header: for CSV, whether the first row is one: yes or no.

    Raises:
        OptionError: the format is not known, or `replacing` or `state_dict` is misspelt.
        InputError: the file cannot be read or makes no sense; with its place.
    """
    path = str(path)
    reader = detect_reader(path, format)
    if reader.is_stream:
        hint = (
            "attn compute reads it line by line; if each line is a token with its vector, --input-format ndjson-tokens"
        )
        raise OptionError("many-problems", f"{path} holds a problem a line", help=hint)
    display_name = "<stdin>" if path == "-" else path
    try:
        data = read_source(path, reader)
    except InputError as error:
        raise error.add_location(file=display_name) from None
    return parse_problem(
        data,
        display_name,
        reader,
        replacing=replacing,
        state_dict=state_dict,
        token_column=token_column,
        columns=columns,
        drop=drop,
        header=header,
    )


def parse_problem(
    data: object,
    name: str,
    reader: Reader,
    *,
    line: int | None = None,
    replacing: Sequence[str] = (),
    state_dict: str | None = None,
    token_column: str | None = None,
    columns: str | None = None,
    drop: str | None = None,
    header: str | None = None,
) -> Problem:
    """Parse the bytes of a file as a problem, and validate it; keywords are those of `read`, and the line that it is.

    Raises:
        OptionError: `replacing` or `state_dict` is misspelt.
        InputError: they make no sense; with the place.
    """
    from attncli.validation import validate

    try:
        try:
            problem = reader.read(Source(name, data, reader.name, token_column, columns, drop, header))
        except InputError:
            from attncli.readers.foreign import check_not_foreign

            check_not_foreign(data, name, reader.name)  # then that is what is wrong with it
            raise
        if state_dict is not None:
            from attncli.readers.state_dict import add_layer

            problem = add_layer(problem, state_dict)
        for pair in replacing:
            problem = replace_field(problem, pair)
        return validate(problem, name, line)
    except RecursionError:
        message = "lists or objects are nested deeper than anything a problem holds"
        raise InputError("too-deep", message).add_location(file=name) from None
    except InputError as error:
        raise error.add_location(file=name) from None
