"""Lists of names, as `@list.txt` and `failed.txt` are: a name a line, and after a tab anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

from attncli.errors import InputError
from attncli.readers import open_input


def read_name_list(path: str) -> Iterator[str]:
    """Read the names in a list; `-` is standard input. Blank lines are passed over.

    A name is taken byte for byte: blanks around it, a # before it, or bytes that are no UTF-8 are part of it. Only a name
    in the quotes of JSON is decoded.

    Raises:
        InputError: the list cannot be read, or holds a NUL, which no name does.
    """
    with open_input(path) as file:
        try:
            data = file.read()
        except OSError as error:
            raise InputError("cannot-read", f"the list {path} cannot be read: {error.strerror or error}") from None
    if b"\0" in data:
        raise InputError("wrong-encoding", f"the list {path} is not UTF-8", help="write one name per line, in UTF-8")
    for line in data.decode("utf-8", "surrogateescape").removeprefix("\ufeff").split("\n"):
        name = line.removesuffix("\r").partition("\t")[0]
        if name.strip() and (unquoted := _unquote_name(name)):
            yield unquoted


def _unquote_name(name: str) -> str:
    """Decode a name in the quotes of JSON; any other is itself."""
    if len(name) > 1 and name[0] == name[-1] == '"':
        with suppress(ValueError, RecursionError):
            return str(json.loads(name))
    return name


def quote_name(name: str) -> str:
    """Write a name for a list: in the quotes of JSON where it would be cut, passed over or taken for another."""
    is_misread = any(c in name for c in "\0\n\r\t") or name.startswith(('"', "\ufeff")) or not name.strip()
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, which only JSON can spell
        is_misread = True
    return json.dumps(name) if is_misread else name
