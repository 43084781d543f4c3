"""Bytes → Problem: the only way in. One file a format; whatever it hands over passes the one gate.

A reader is `@reader("csv", ".csv")` over a function (Source) → Problem; it may raise InputError with what it
knows of the place, and `read` adds the file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path, PurePath
from pkgutil import iter_modules
from typing import IO, TYPE_CHECKING, Any

from attncli.errors import InputError, OptionError, join_names, shorten, suggestion
from attncli.types import Json

if TYPE_CHECKING:
    from attncli.types import Problem


@dataclass(frozen=True)
class Source:
    """What a reader is handed: the bytes, and what the user said about them."""

    name: str
    data: Any  # bytes, or a large file mapped into memory, whose slices are bytes
    format: str = ""
    token_column: str | None = None  # a name, a number from 0, or none
    header: str | None = None  # yes or no
    path: str = ""  # of the file that is mapped


@dataclass(frozen=True)
class Reader:
    """One input format."""

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Source], Problem]
    is_stream: bool = False  # many problems, a line each: see `read_json_lines`
    can_map: bool = False  # its arrays may stay in the file until they are used


READERS: dict[str, Reader] = {}


def reader(
    name: str, *suffixes: str, is_stream: bool = False, can_map: bool = False
) -> Callable[[Callable[[Source], Problem]], Callable[[Source], Problem]]:
    """Register a format under its name and suffixes."""

    def register(function: Callable[[Source], Problem]) -> Callable[[Source], Problem]:
        READERS[name] = Reader(name, suffixes, function, is_stream, can_map)
        return function

    return register


@cache
def load_readers() -> Mapping[str, Reader]:
    """Every input format: each module of this package registers its own."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return READERS


def find_reader(path: str, format_name: str | None = None) -> Reader:
    """The reader for a path, by what was said or by its suffix.

    Raises:
        OptionError: no such format, or the suffix says none.
    """
    known = load_readers()
    if format_name is not None:
        if format_name not in known:
            raise OptionError(
                "unknown-format", f"no input format is called {format_name!r}", help=suggestion(format_name, known)
            )
        return known[format_name]
    suffix = PurePath(path).suffix.lower()
    for one in known.values():
        if suffix in one.suffixes:
            return one
    what = (
        "standard input has no suffix"
        if path == "-"
        else f"the suffix {suffix!r} says no format"
        if suffix
        else f"{path} has no suffix"
    )
    raise OptionError(
        "unknown-format", f"{what}, so its format is not known", help=f"add --input-format {join_names(known, 'or')}"
    )


_MMAP_MIN_BYTES = 2**20  # bytes of a file that is mapped rather than read


def read_bytes(path: str, may_map: bool = False) -> Any:
    """All bytes of a file, or of standard input for `-`. `mapped`: a large file is not read, but mapped, and may be written on.

    Raises:
        InputError: it cannot be read.
    """
    with open_input(path) as file:
        try:
            if may_map and path != "-" and Path(path).is_file() and Path(path).stat().st_size >= _MMAP_MIN_BYTES:
                import mmap

                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            return file.read()
        except OSError as error:
            raise read_error(path, error) from None
        except MemoryError:
            raise InputError("cannot-read", f"{path} is larger than memory") from None


def read_lines(path: str) -> Iterator[bytes]:
    """A file, or standard input for `-`, line by line as it comes in."""
    with open_input(path) as file:
        while True:
            try:
                line = file.readline()
            except OSError as error:
                raise read_error(path, error) from None
            if not line:
                return
            yield line


@contextmanager
def open_input(path: str, display_name: str = "") -> Iterator[IO[bytes]]:
    """A file, or standard input for `-`, open for reading. `said`: what to call it in messages.

    Raises:
        InputError: it cannot be opened.
    """
    if path == "-":
        if sys.stdin is None:
            raise InputError("cannot-read", "standard input is closed")
        yield sys.stdin.buffer
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115  closed below
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise read_error(path, error, display_name) from None
    with file:
        yield file


def read_error(path: str, error: Exception, display_name: str = "") -> InputError:
    """What to say where the system does not let a file be read."""
    name = shorten(display_name or path)
    if isinstance(error, FileNotFoundError):
        names: list[str] = []
        with suppress(OSError):
            names = [entry.name for entry in os.scandir(Path(path).parent) if entry.is_file()]
        close = suggestion(Path(path).name, names) if names else ""
        return InputError("no-such-file", f"there is no file {name}", help=close if close.startswith("did") else "")
    if isinstance(error, IsADirectoryError):
        return InputError("not-a-file", f"{name} is a folder", help="name one file in it")
    return InputError("cannot-read", f"{name} cannot be read: {getattr(error, 'strerror', None) or error}")


def read(
    path: str | Path,
    format: str | None = None,
    *,
    replacing: Sequence[str] = (),
    token_column: str | None = None,
    header: str | None = None,
) -> Problem:
    """A file → an admitted Problem.

    Args:
        path: the file, or `-` for standard input.
        format: what its suffix does not say.
        replacing: `name=path` pairs; each takes one field from another file (`--with`).
        token_column: for CSV, which column holds the tokens: its name, its number from 0, or `none`.
        header: for CSV, whether the first row is one: yes or no.

    Raises:
        OptionError: the format is not known, or `replacing` is misspelt.
        InputError: the file cannot be read or makes no sense; with its place.
    """
    path = str(path)
    one = find_reader(path, format)
    if one.is_stream:
        raise OptionError("many-problems", f"{path} holds a problem a line", help="attn compute reads it line by line")
    shown = "<stdin>" if path == "-" else path
    try:
        data = read_bytes(path, one.can_map)
    except InputError as error:
        raise error.add_location(file=shown) from None
    return parse_problem(data, shown, one, replacing=replacing, token_column=token_column, header=header)


def parse_problem(
    data: object,
    name: str,
    reader: Reader,
    *,
    replacing: Sequence[str] = (),
    token_column: str | None = None,
    header: str | None = None,
) -> Problem:
    """The bytes of a file → an admitted Problem, as `read`.

    Raises:
        InputError: they make no sense; with the place.
    """
    from attncli.readers.with_field import replace_field
    from attncli.validation import validate

    try:
        path = "" if type(data) is bytes else name  # of what is mapped
        raw = reader.read(Source(name, data, reader.name, token_column, header, path))
        for pair in replacing:
            raw = replace_field(raw, pair)
        return validate(raw, name)
    except InputError as error:
        raise error.add_location(file=name) from None


def decode_text(data: bytes, *, format_name: str) -> str:
    """Bytes → text, which must be UTF-8 (a byte order mark may stand before it).

    Raises:
        InputError: it is not UTF-8; with the line, and the encoding it looks like.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(
            "wrong-encoding",
            f"{format_name} is UTF-8, but this file is UTF-16",
            help="save it as UTF-8, or convert it: iconv -f UTF-16 -t UTF-8",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wrong = InputError(
            "wrong-encoding",
            f"{format_name} is UTF-8, but byte {error.start} is 0x{data[error.start]:02x}",
            help="save it as UTF-8, or convert it: iconv -f LATIN1 -t UTF-8",
        )
        raise wrong.add_location(line=line) from None
    if "\0" in text:
        raise InputError(
            "wrong-encoding",
            f"this is no text: it holds a NUL at character {text.index(chr(0))}",
            help="name its format with --input-format, or save it as UTF-8",
        )
    return text


def nest_fields(flat: Json) -> Json:
    """Dotted names → objects in objects: `parameters.w_q` → {"parameters": {"w_q": …}}."""
    out: Json = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        inner = out
        for key in path:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise InputError("unknown-field", f"{name}: {key} is an array, and holds no fields")
        inner[last] = value
    return out


def merge_fields(target: Json, added: Json) -> Json:
    """Two nests of objects as one; what both hold must be objects."""
    for key, value in added.items():
        if key in target and not (isinstance(target[key], dict) and isinstance(value, Mapping)):
            raise InputError("two-sources", f"{key} stands twice: as an array and in the JSON beside the arrays")
        target[key] = merge_fields(target[key], value) if key in target else value
    return target


def make_problem(fields: Json) -> Problem:
    """Fields by name → a Problem that has yet to pass the gate.

    Raises:
        InputError: a name that no field has; the nearest is offered.
    """
    from attncli.types import Problem
    from attncli.validation.fields import find_field

    if str(fields.get("schema", "")).startswith("attn.result"):
        raise InputError(
            "not-a-problem", "this is a result, not a problem", help="a problem holds embeddings, or q, k and v"
        )
    for name in fields:
        if name not in ("memory", "past", "parameters"):
            find_field(name)
    for name in fields:
        if name not in _problem_field_names():
            raise InputError(
                "unknown-field", f"a problem has no field {name!r}", help=suggestion(name, _problem_field_names())
            )
    return Problem(**fields)


@cache
def _problem_field_names() -> frozenset[str]:
    """What a problem may hold by its own name."""
    from attncli.types import INPUT_NAMES

    return INPUT_NAMES
