"""Register input formats, find the one of a file, and hold what their readers share. Entries: `reader`, `find_reader`.

A reader is `@reader("csv", ".csv")` over a function (Source) → Problem, and stands in `FORMAT_MODULES`. It may raise
InputError with what it knows of the place; the file is added by `read`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path, PurePath

from attncli.errors import InputError, Location, OptionError
from attncli.readers.compression import (
    explain_other_packing,
    explain_unpacking,
    packed_suffix,
    strip_packed_suffix,
    unpack,
)
from attncli.readers.files import read_bytes, read_error, read_into_memory
from attncli.readers.parser_errors import translate_parser_errors
from attncli.readers.source import Source
from attncli.text import join_names, shorten, suggestion
from attncli.types import INPUT_NAMES, NESTED_FIELDS, Json, Problem


@dataclass(frozen=True)
class Reader:
    """One input format."""

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Source], Problem]
    is_stream: bool = False  # it holds a problem a line: see `read_json_lines`
    shares_memory: bool = False  # its arrays are the very bytes that were read
    find_format: Callable[[bytes], str] | None = None  # of a stream: the name of its format, by the first line
    is_text: bool = False  # files of it may be compressed
    holds_one_array: bool = False  # a matrix without a name


READERS: dict[str, Reader] = {}
# Format name → its suffixes, and the module that registers it; only that module is imported when the format is read.
FORMAT_MODULES: dict[str, tuple[tuple[str, ...], str]] = {
    "csv": ((".csv",), "attncli.readers.csv"),
    "tsv": ((".tsv", ".tab"), "attncli.readers.csv"),
    "txt": ((".txt", ".vec", ".glove"), "attncli.readers.csv"),
    "json": ((".json",), "attncli.readers.json"),
    "ndjson": ((".ndjson", ".jsonl"), "attncli.readers.json"),
    "ndjson-tokens": ((), "attncli.readers.json"),
    "npy": ((".npy",), "attncli.readers.npz"),
    "npz": ((".npz",), "attncli.readers.npz"),
    "safetensors": ((".safetensors",), "attncli.readers.safetensors"),
    "parquet": ((".parquet", ".pq"), "attncli.readers.arrow"),
    "arrow": ((".arrow", ".feather", ".ipc", ".arrows"), "attncli.readers.arrow"),
}


def reader(
    name: str,
    *suffixes: str,
    is_stream: bool = False,
    shares_memory: bool = False,
    find_format: Callable[[bytes], str] | None = None,
    is_text: bool = False,
    holds_one_array: bool = False,
) -> Callable[[Callable[[Source], Problem]], Callable[[Source], Problem]]:
    """Register a format under its name and suffixes."""

    def register(function: Callable[[Source], Problem]) -> Callable[[Source], Problem]:
        READERS[name] = Reader(
            name, suffixes, function, is_stream, shares_memory, find_format, is_text, holds_one_array
        )
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
        InputError: it is a folder, or a file of another program.
    """
    if format_name is not None:
        if format_name not in FORMAT_MODULES:
            raise OptionError(
                "unknown-format",
                f"no input format is called {format_name!r}",
                help=suggestion(format_name, FORMAT_MODULES),
            )
        return load_reader(format_name)
    inner_path, packing = strip_packed_suffix(path), packed_suffix(path)
    suffix = _suffix_of(inner_path)
    name = _format_of_suffix(suffix)
    if name is not None:
        reader = load_reader(name)
        if packing and not reader.is_text:
            raise OptionError(
                "unknown-format",
                f"{shorten(path)}: {name} is not read from a {packing} file; only text is",
                help=explain_unpacking(path),
            )
        return reader
    from attncli.readers.foreign_formats import foreign_suffix_error

    if (foreign := foreign_suffix_error(inner_path)) is not None:
        if packing:
            foreign.help = f"{explain_unpacking(path)}; then {foreign.help}"
        raise foreign.add_location(file=path)
    is_folder, is_missing = False, False
    with suppress(OSError, ValueError):  # nothing can have that name
        is_folder, is_missing = Path(path).is_dir(), path != "-" and "://" not in path and not Path(path).exists()
    if is_missing:
        raise read_error(path, FileNotFoundError())
    if is_folder:
        raise InputError(
            "not-a-file",
            f"{path} is a folder",
            help="name one file in it, or give the folder to attn batch or attn check",
        )
    other_packing = explain_other_packing(path)
    if other_packing:
        raise OptionError(
            "unknown-format", f"attn cannot unpack files packed by {other_packing[0]}", help=other_packing[1]
        )
    if path == "-":
        message = "standard input has no suffix"
    elif packing:
        message = f"{packing} is how {shorten(path)} is packed, but not what it holds"
    else:
        message = f"the suffix {suffix!r} is not that of a format" if suffix else f"{path} has no suffix"
    hint = f"add --input-format {join_names(FORMAT_MODULES, 'or')}"
    raise OptionError("unknown-format", f"{message}, so its format is not known", help=hint)


def _suffix_of(path: str) -> str:
    """Return the suffix of a path, in lower case; as `PurePath` finds it, in less time for one that is known."""
    name = path.rpartition("/")[2]
    dot = name.rfind(".")
    suffix = name[dot:].lower() if dot > 0 else ""
    return suffix if _format_of_suffix(suffix) else PurePath(path).suffix.lower()


@lru_cache(maxsize=256)
def _format_of_suffix(suffix: str) -> str | None:
    """Return the name of the format that has a suffix; None: there is none."""
    return next((name for name, (suffixes, _) in FORMAT_MODULES.items() if suffix in suffixes), None)


NAMED_SUFFIXES = (".txt",)  # of files that are inputs only where they are named: most others are notes


def is_input_name(path: str, *, with_streams: bool = True) -> bool:
    """Whether a file that is found in a folder is an input, by its suffix; a stream of problems is one if it is said."""
    suffix = _suffix_of(strip_packed_suffix(path))
    if suffix in NAMED_SUFFIXES:
        return False
    name = _format_of_suffix(suffix)
    if name is None:
        return False
    reader = load_reader(name)
    return (with_streams or not reader.is_stream) and (reader.is_text or not packed_suffix(path))


_FORMATS_OF_ARRAYS = ("npy", "npz", "safetensors")  # they have no columns to choose


def refuse_table_options(reader: Reader, path: str, options: Iterable[str], *, is_table: bool = True) -> None:
    """Refuse options that choose columns, as they are spelled, for a file of arrays, which would not heed them.

    Args:
        is_table: whether a format that may hold a table does so here.

    Raises:
        OptionError: there are some.
    """
    option = next(iter(options), None)
    if option is not None and (reader.name in _FORMATS_OF_ARRAYS or not is_table):
        message = f"{option} is about the columns of a table, but {shorten(path)} holds arrays ({reader.name})"
        raise OptionError("bad-option", message, help="leave it out; NumPy chooses columns of an array: x[:, 1:]")


def parse_source(reader: Reader, source: Source) -> Problem:
    """Read a problem from the bytes of a source, unpacked if they are packed.

    Raises:
        InputError: they make no sense, are packed in a way that is not read, or are of another program.
        CannotError: they do not fit in memory, or a package is missing.
    """
    packing = ""
    try:
        if reader.is_text and not reader.is_stream:  # a stream is unpacked before it is split into lines
            data, packing = unpack(source.data, source.name)
            source = replace(source, data=data) if packing else source
        problem = reader.read(source)
    except InputError:
        from attncli.readers.foreign_formats import check_not_foreign

        check_not_foreign(source)  # then that is what is wrong with it
        raise
    if packing and not packed_suffix(source.name):
        problem = replace(problem, notes=(*problem.notes, f"{source.name}: packed by {packing}"))
    return problem


def read_source(path: str, reader: Reader) -> bytes | memoryview:
    """Return the bytes of a file, or of standard input for `-`, in the memory that a reader wants them in.

    Raises:
        InputError, CannotError: as `read_bytes`.
    """
    return read_into_memory(path) if reader.shares_memory else read_bytes(path)


# ── what readers share ───────────────────────────────────────────────────────────────────────────
_BYTE_ORDER_MARKS = {  # the longer ones first: that of UTF-32 begins with that of UTF-16
    b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip


def decode_text(data: bytes, *, format_name: str) -> str:
    """Decode the text of a file, which must be UTF-8; a byte order mark may stand before it.

    Raises:
        InputError: it is not UTF-8; with the line, and the encoding it looks like.
    """
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            raise InputError(
                "wrong-encoding",
                f"{format_name} is UTF-8, but this file is {encoding}",
                help=f"save it as UTF-8, or convert it: iconv -f {encoding} -t UTF-8",
            )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            "wrong-encoding",
            f"{format_name} is UTF-8, but byte {error.start} is 0x{data[error.start]:02x}",
            help="save it as UTF-8, or convert it: iconv -f MACINTOSH -t UTF-8"
            if b"\r" in data and b"\n" not in data
            else "save it as UTF-8, or convert it (Cyrillic is often CP1251, Central European CP1250): iconv -f CP1252 -t UTF-8",
        ).add_location(line=line) from None
    if "\0" in text:
        raise InputError(
            "wrong-encoding",
            f"this is not text: it holds a NUL at character {text.index(chr(0))}",
            help="name its format with --input-format, or save it as UTF-8",
        )
    return text


def nest_fields(flat: Json) -> Json:
    """Turn dotted names into objects in objects: `parameters.w_q` → {"parameters": {"w_q": …}}.

    Raises:
        InputError: a name stands both for an array and for an object, or has more dots than any field.
    """
    nested: Json = {}
    for name, value in flat.items():
        is_parameter = name.startswith("parameters.")  # whose own names may have dots: q_proj.weight
        *groups, last = name.split(".", 1 if is_parameter else _MAX_GROUPS + 1)
        if len(groups) > _MAX_GROUPS:
            raise InputError("unknown-field", f"a problem has no field {shorten(name)!r}")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise InputError("unknown-field", f"{shorten(name)}: {shorten(group)} is an array, and holds no fields")
        if last in inner:
            raise InputError("two-sources", f"{shorten(name)} is an array, and fields within it are arrays too")
        inner[last] = value
    return nested


_MAX_GROUPS = 2  # within each other, as in `expected.weights.values`


def decode_metadata(text: str | bytes) -> Json:
    """Decode the JSON that stands under `attn` beside arrays.

    Raises:
        InputError: it is no JSON object, or an object in it has a key twice.
    """
    import msgspec

    with translate_parser_errors("bad-json", "the text beside the arrays is not valid JSON", path="attn"):
        metadata = msgspec.json.decode(text)
    if not isinstance(metadata, dict):
        raise InputError("bad-json", "the text beside the arrays is not an object", location=Location(path="attn"))
    check_duplicate_keys(text, "attn")
    return metadata


def check_duplicate_keys(text: str | bytes, path: str = "") -> None:
    """Check that no object of a JSON text, which is known to be one, has a key twice; in time linear in its length.

    Raises:
        InputError: one has.
    """
    import json

    def check_object(pairs: list[tuple[str, object]]) -> None:
        if len(dict(pairs)) == len(pairs):
            return
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InputError(
                    "two-sources",
                    f"{shorten(key)!r} occurs twice in one object",
                    location=Location(path=path),
                    help="remove one of them",
                )
            seen.add(key)

    with translate_parser_errors(
        "bad-json", "this is not valid JSON", path=path
    ):  # of numbers only the length is taken
        json.loads(text, object_pairs_hook=check_object, parse_int=len, parse_float=len, strict=False)


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
            raise InputError(
                "two-sources", f"{shorten(key)} stands twice: as an array and in the JSON beside the arrays"
            )
    return target


def is_bare_record(fields: Json) -> bool:
    """Whether these are the fields of a result that was written with `--bare`: every result has warnings, and no problem has."""
    return "warnings" in fields and "schema" not in fields


def bare_record_error(code: str) -> InputError:
    """The error of a record that was written with `--bare`, where more is needed."""
    message = "this result was written with --bare, which leaves out what is needed to read it"
    return InputError(code, message, help="write it again without --bare")


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
            raise InputError(
                "unknown-field", f"a problem has no field {shorten(name)!r}", help=suggestion(name, INPUT_NAMES)
            )
    return Problem(**fields)
