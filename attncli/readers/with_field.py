"""Take one field of a problem from another file, for `--with NAME=PATH`. Entries: `replace_field`, `parse_assignment`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from attncli.errors import AttnError, InputError, OptionError
from attncli.readers.base import FORMAT_MODULES, Reader, parse_source, read_source, refuse_table_options
from attncli.readers.json_line_readers import detect_reader
from attncli.readers.source import Source
from attncli.text import join_names, pluralize, shorten, suggestion
from attncli.types import NESTED_FIELDS, Array, Json, Problem


class Assignment(NamedTuple):
    """The NAME=PATH of a `--with`, and how the file is read."""

    name: str
    path: str
    options: Mapping[str, str]  # by the names in `_OPTIONS`

    def spell(self, path: str) -> str:
        """Spell it with another path."""
        options = ",".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.name}={path}:{options}" if options else f"{self.name}={path}"


# What may be said of one file behind its path, and the values that it may have.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "format": tuple(FORMAT_MODULES),
    "header": ("yes", "no"),
    "separator": ("comma", "semicolon", "tab", "pipe", "space"),
    "token-column": (),
    "columns": (),
    "drop": (),
    "ones": ("visible", "hidden"),
}
_OPTIONS_OF_TABLES = ("header", "separator", "token-column", "columns", "drop")
_TABLES_OF_TEXT = ("csv", "tsv", "txt")  # they read what 1 means themselves
_OPTION_NAMES = "|".join(_OPTIONS)
_OPTIONS_START = re.compile(rf":(?=(?:{_OPTION_NAMES})=)")
_NEXT_OPTION = re.compile(rf",(?=(?:{_OPTION_NAMES})=)")


def parse_assignment(pair: str) -> Assignment:
    """Parse `name=path`, or `name=path:option=value,option=value`: a field, the file it is taken from, how that is read.

    Raises:
        OptionError: it is no `name=path`, there is no field of that name, what follows is no file, or an option has no
            such value.
    """
    from attncli.framework_arrays import FRAMEWORK_ARRAYS
    from attncli.validation.fields import find_field, known_parameters

    name, equals, path = pair.partition("=")
    if not equals or not name or not path:
        raise OptionError("bad-option", f"--with takes NAME=PATH, not {pair!r}", help="--with parameters.w_q=w_q.csv")
    if name not in ("memory", "past"):
        try:
            find_field(name)
        except AttnError as error:
            is_parameter = name in known_parameters() or name in FRAMEWORK_ARRAYS
            hint = (
                f"learned arrays go under parameters: --with parameters.{name}={path}" if is_parameter else error.help
            )
            raise OptionError(error.code, error.message, help=hint) from None
    path, *rest = _OPTIONS_START.split(path, maxsplit=1)
    options: dict[str, str] = {}
    for text in _NEXT_OPTION.split(rest[0]) if rest else ():
        option, _, value = text.partition("=")
        if option in options or (_OPTIONS[option] and value not in _OPTIONS[option]):
            allowed = join_names(_OPTIONS[option], "or") or "one value"
            raise OptionError("bad-option", f"--with {name}: {option} must be {allowed}, not {shorten(value)!r}")
        options[option] = value
    if path == "-":
        raise OptionError("bad-option", "only INPUT can be read from standard input", help=f"--with {name}=FILE")
    if "://" in path:
        raise OptionError("bad-option", "--with takes a file, not an address", help=f"--with {name}=FILE")
    if "ones" in options and name not in ("mask", "dropout_mask"):
        raise OptionError("bad-option", f"ones is for masks, and {name} is not a mask")
    return Assignment(name, path, options)


def replace_field(problem: Problem, pair: str, header: str | None = None) -> Problem:
    """Return the problem with one field replaced by what `name=path` names.

    Args:
        problem: the problem.
        pair: what `parse_assignment` takes.
        header: what is said of the header of all files; no holds for this one, too, where nothing is said of it.

    Raises:
        OptionError: it is no `name=path`, or there is no field of that name.
        InputError: the file cannot be read, or has nothing that the field could be.
    """
    assignment = parse_assignment(pair)
    name, path, options = assignment
    reader = detect_reader(path, options.get("format"))
    refuse_table_options(
        reader, path, (f"--with {name}: {option}" for option in options if option in _OPTIONS_OF_TABLES)
    )
    try:
        source = Source(
            path,
            read_source(path, reader),
            reader.name,
            token_column=options.get("token-column"),
            columns=options.get("columns"),
            drop=options.get("drop"),
            header=options.get("header", "no" if header == "no" else None),
            separator=options.get("separator"),
            ones=options.get("ones"),
            field=name,
            assignment=pair,
        )
        other = parse_source(reader, source)
        value = _drop_unit_axis(_find_value(other, assignment), name, reader)
        if "ones" in options and reader.name not in _TABLES_OF_TEXT:
            value = _read_ones(value, options["ones"])
        value = _validate_value(name, value)
    except AttnError as error:
        raise error.add_location(file=path) from None
    group, dot, inner = name.partition(".")
    if dot:
        present = getattr(problem, group)
        value = {**(present if isinstance(present, Mapping) else {}), inner: value}
    replaced: Json = {group: value}
    if name == "k" and other.tokens is not None and problem.k_tokens is None:
        replaced["k_tokens"] = other.tokens  # the labels of the keys
    return dataclasses.replace(problem, **replaced, notes=(*problem.notes, *other.notes))


def assign_name_of_array(problem: Problem, reader: Reader, replacing: Sequence[str]) -> Problem:
    """Return the problem with the one array that its file holds as q, where k is taken from another file."""
    names = {pair.partition("=")[0] for pair in replacing}
    if "k" not in names or "q" in names or not reader.holds_one_array or problem.embeddings is None:
        return problem
    return dataclasses.replace(problem, q=problem.embeddings, embeddings=None)


def _read_ones(value: Array, ones: str) -> Array:
    """Return a mask of booleans, or of 1 and 0, as whether each key is visible, where 1 is a key that is visible or hidden."""
    import numpy as np

    array = np.asarray(value)
    if array.dtype.kind in "iuf" and np.isin(array, (0, 1)).all():
        array = array == 1
    if array.dtype.kind != "b":  # which is refused
        return value
    return ~array if ones == "hidden" else array


def _drop_unit_axis(value: Array, name: str, reader: Reader) -> Array:
    """Return the one row or column of a matrix as a vector, for a field that holds one."""
    from attncli.validation.fields import find_field

    if not (reader.holds_one_array and reader.is_text) or name in NESTED_FIELDS or getattr(value, "ndim", 0) != 2:
        return value
    is_vector = 2 not in find_field(name).ranks or find_field(name).kind == "integers"
    return value.ravel() if is_vector and 1 in value.shape else value


def read_single_array(path: str) -> Array:
    """Read the one array of numbers that a file holds.

    Raises:
        OptionError: no format has the suffix.
        InputError: the file cannot be read, or holds something else.
    """
    from attncli.validation.fields import validate_field

    reader = detect_reader(path)
    try:
        array = parse_source(reader, Source(path, read_source(path, reader), reader.name)).embeddings
        if array is None:
            raise InputError("missing-field", "it has no array without a name", help="a matrix: .npy, .csv or .json")
        return validate_field("embeddings", array)
    except AttnError as error:
        raise error.add_location(file=path) from None


def _validate_value(name: str, value: object) -> object:
    """Validate a value by itself, so that an error names its own file."""
    from attncli.validation.fields import validate_field

    if name not in NESTED_FIELDS:
        return validate_field(name, value)
    if isinstance(value, dict):
        return {key: validate_field(f"{name}.{key}", inner) for key, inner in value.items()}
    return value


def _find_value(other: Problem, assignment: Assignment) -> object:
    """Return what another file holds for a field: the field itself, or the file's one array.

    Raises:
        InputError: it holds neither, or the array is the vectors of tokens where a learned matrix should be.
    """
    name = assignment.name
    if name == "memory" and other.memory is None and other.embeddings is not None:
        memory = {"tokens": other.tokens, "embeddings": other.embeddings}
        return {key: value for key, value in memory.items() if value is not None}
    group, _, inner = name.partition(".")
    value = getattr(other, group)
    if inner:
        value = value.get(inner) if isinstance(value, Mapping) else None
    if value is not None and not (isinstance(value, dict) and not value):
        return value
    if other.embeddings is not None:
        is_labelled = other.tokens is not None and "token-column" not in assignment.options
        if group == "parameters" and is_labelled:
            raise InputError(
                "missing-field",
                f"there is no {name} in it: it holds the vectors of {pluralize(len(other.tokens or ()), 'token')}, which are not {inner}",
                help=f"a file with only the numbers is read as {inner}; for a table, drop=COLUMN after its path leaves the labels out: "
                f"--with {name}=FILE:drop=0",
            )
        return other.embeddings
    present = [field.name for field in dataclasses.fields(other) if not _is_blank(getattr(other, field.name))]
    raise InputError("missing-field", f"it has no {name}, and no array without a name", help=suggestion(group, present))


def _is_blank(value: object) -> bool:
    """Whether a field holds nothing, as by default."""
    return value is None or value is False or (isinstance(value, str | tuple | Mapping) and not value)
