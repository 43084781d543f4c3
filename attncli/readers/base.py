"""Register input formats, find the one of a file, and hold what their readers share. Entries: `reader`, `find_reader`.

A reader is `@reader("csv", ".csv")` over a function (Source) → Problem, and stands in `FORMAT_MODULES`. It may raise
InputError with what it knows of the place; the file is added by `read`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePath
from typing import Any

from attncli.errors import InputError, OptionError
from attncli.text import join_names, suggestion
from attncli.types import INPUT_NAMES, NESTED_FIELDS, Json, Problem


@dataclass(frozen=True)
class Source:
    """The input of a reader: the bytes, and what the user said about them."""

    name: str  # for messages
    data: Any  # bytes, or a large file mapped into memory, whose slices are bytes
    format: str = ""
    token_column: str | None = None  # a name, a number from 0, or none
    header: str | None = None  # yes or no
    path: str = ""  # of the file, where it is mapped


@dataclass(frozen=True)
class Reader:
    """One input format."""

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Source], Problem]
    is_stream: bool = False  # it holds a problem a line: see `read_json_lines`
    can_map: bool = False  # its arrays may stay in the file until they are used


READERS: dict[str, Reader] = {}
# Format name → its suffixes, and the module that registers it; only that module is imported when the format is read.
FORMAT_MODULES: dict[str, tuple[tuple[str, ...], str]] = {
    "csv": ((".csv",), "attncli.readers.csv"),
    "tsv": ((".tsv", ".tab"), "attncli.readers.csv"),
    "json": ((".json",), "attncli.readers.json"),
    "ndjson": ((".ndjson", ".jsonl"), "attncli.readers.json"),
    "npy": ((".npy",), "attncli.readers.npz"),
    "npz": ((".npz",), "attncli.readers.npz"),
    "safetensors": ((".safetensors",), "attncli.readers.safetensors"),
}


def reader(
    name: str, *suffixes: str, is_stream: bool = False, can_map: bool = False
) -> Callable[[Callable[[Source], Problem]], Callable[[Source], Problem]]:
    """Register a format under its name and suffixes."""

    def register(function: Callable[[Source], Problem]) -> Callable[[Source], Problem]:
        READERS[name] = Reader(name, suffixes, function, is_stream, can_map)
        return function

    return register


def load_reader(name: str) -> Reader:
    """Return the reader of a format, by its name in `FORMAT_MODULES`."""
    if name not in READERS:
        _, module = FORMAT_MODULES[name]
        import_module(module)
    return READERS[name]


def load_readers() -> Mapping[str, Reader]:
    """Return every reader, by the name of its format."""
    return {name: load_reader(name) for name in FORMAT_MODULES}


def find_reader(path: str, format_name: str | None = None) -> Reader:
    """Return the reader of a format, or of a path's suffix where no format is named.

    Raises:
        OptionError: there is no such format, or no format has the suffix.
    """
    if format_name is not None:
        if format_name not in FORMAT_MODULES:
            raise OptionError(
                "unknown-format",
                f"no input format is called {format_name!r}",
                help=suggestion(format_name, FORMAT_MODULES),
            )
        return load_reader(format_name)
    suffix = PurePath(path).suffix.lower()
    for name, (suffixes, _) in FORMAT_MODULES.items():
        if suffix in suffixes:
            return load_reader(name)
    if path == "-":
        message = "standard input has no suffix"
    else:
        message = f"the suffix {suffix!r} says no format" if suffix else f"{path} has no suffix"
    hint = f"add --input-format {join_names(FORMAT_MODULES, 'or')}"
    raise OptionError("unknown-format", f"{message}, so its format is not known", help=hint)


# ── what readers share ───────────────────────────────────────────────────────────────────────────
def decode_text(data: bytes, *, format_name: str) -> str:
    """Decode the text of a file, which must be UTF-8; a byte order mark may stand before it.

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
        raise InputError(
            "wrong-encoding",
            f"{format_name} is UTF-8, but byte {error.start} is 0x{data[error.start]:02x}",
            help="save it as UTF-8, or convert it: iconv -f LATIN1 -t UTF-8",
        ).add_location(line=line) from None
    if "\0" in text:
        raise InputError(
            "wrong-encoding",
            f"this is no text: it holds a NUL at character {text.index(chr(0))}",
            help="name its format with --input-format, or save it as UTF-8",
        )
    return text


def nest_fields(flat: Json) -> Json:
    """Turn dotted names into objects in objects: `parameters.w_q` → {"parameters": {"w_q": …}}.

    Raises:
        InputError: a name stands both for an array and for an object.
    """
    nested: Json = {}
    for name, value in flat.items():
        *groups, last = name.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise InputError("unknown-field", f"{name}: {group} is an array, and holds no fields")
        inner[last] = value
    return nested


def merge_fields(target: Json, added: Json) -> Json:
    """Merge nested objects into others; a key of both must hold an object in both.

    Raises:
        InputError: it does not.
    """
    for key, value in added.items():
        if key not in target:
            target[key] = value
        elif isinstance(target[key], dict) and isinstance(value, dict):
            merge_fields(target[key], value)
        else:
            raise InputError("two-sources", f"{key} stands twice: as an array and in the JSON beside the arrays")
    return target


def make_problem(fields: Json) -> Problem:
    """Make a problem of fields by name, which is yet to be validated.

    Raises:
        InputError: a name that no field has; the nearest is offered.
    """
    from attncli.validation.fields import find_field

    if str(fields.get("schema", "")).startswith("attn.result"):
        raise InputError(
            "not-a-problem", "this is a result, not a problem", help="a problem holds embeddings, or q, k and v"
        )
    for name in fields:
        if name not in NESTED_FIELDS:
            find_field(name)
    for name in fields:
        if name not in INPUT_NAMES:
            raise InputError("unknown-field", f"a problem has no field {name!r}", help=suggestion(name, INPUT_NAMES))
    return Problem(**fields)
