"""Take one field of a problem from another file, for `--with NAME=PATH`. Entry: `replace_field`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from attncli.errors import AttnError, InputError, OptionError
from attncli.readers.base import Source, read_source
from attncli.readers.json_lines import detect_reader
from attncli.text import suggestion
from attncli.types import NESTED_FIELDS, Problem


def split_name_and_path(pair: str) -> tuple[str, str]:
    """Split `name=path` into the field's name and the file it is taken from.

    Raises:
        OptionError: it is no `name=path`, there is no field of that name, or what follows is no file.
    """
    from attncli.validation.fields import find_field

    name, equals, path = pair.partition("=")
    if not equals or not name or not path:
        raise OptionError("bad-option", f"--with takes NAME=PATH, not {pair!r}", help="--with parameters.w_q=w_q.csv")
    if name not in ("memory", "past"):
        try:
            find_field(name)
        except AttnError as error:
            raise OptionError(error.code, error.message, help=error.help) from None
    if path == "-":
        raise OptionError("bad-option", "standard input is for INPUT alone", help=f"--with {name}=FILE")
    if "://" in path:
        raise OptionError("bad-option", "--with takes a file, and no address", help=f"--with {name}=FILE")
    return name, path


def replace_field(problem: Problem, pair: str) -> Problem:
    """Return the problem with one field replaced by what `name=path` names.

    Raises:
        OptionError: it is no `name=path`, or there is no field of that name.
        InputError: the file cannot be read, or has nothing that the field could be.
    """
    name, path = split_name_and_path(pair)
    reader = detect_reader(path)
    try:
        other = reader.read(Source(path, read_source(path, reader), reader.name))
        value = _validate_value(name, _find_value(other, name))
    except AttnError as error:
        raise error.add_location(file=path) from None
    group, dot, inner = name.partition(".")
    if dot:
        present = getattr(problem, group)
        value = {**(present if isinstance(present, Mapping) else {}), inner: value}
    return dataclasses.replace(problem, **{group: value}, notes=(*problem.notes, *other.notes))


def read_single_array(path: str) -> Any:
    """Read the one array of numbers that a file holds.

    Raises:
        OptionError: no format has the suffix.
        InputError: the file cannot be read, or holds something else.
    """
    from attncli.validation.fields import validate_field

    reader = detect_reader(path)
    try:
        array = reader.read(Source(path, read_source(path, reader), reader.name)).embeddings
        if array is None:
            raise InputError(
                "missing-field", "there is no array without a name in it", help="a matrix: .npy, .csv or .json"
            )
        return validate_field("embeddings", array)
    except AttnError as error:
        raise error.add_location(file=path) from None


def _validate_value(name: str, value: Any) -> Any:
    """Validate a value by itself, so that an error names its own file."""
    from attncli.validation.fields import validate_field

    if name not in NESTED_FIELDS:
        return validate_field(name, value)
    if isinstance(value, dict):
        return {key: validate_field(f"{name}.{key}", inner) for key, inner in value.items()}
    return value


def _find_value(other: Problem, name: str) -> Any:
    """Return what another file holds for a field: the field itself, or the file's one array.

    Raises:
        InputError: it holds neither.
    """
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
        return other.embeddings
    present = [field.name for field in dataclasses.fields(other) if not _is_blank(getattr(other, field.name))]
    raise InputError(
        "missing-field", f"there is no {name} in it, and no array without a name", help=suggestion(group, present)
    )


def _is_blank(value: object) -> bool:
    """Whether a field holds nothing, as by default."""
    return value is None or value is False or (isinstance(value, str | tuple | Mapping) and not value)
