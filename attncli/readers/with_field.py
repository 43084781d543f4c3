"""`--with NAME=PATH`: one field of a problem from another file."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from attncli.errors import AttnError, InputError, OptionError, suggestion

if TYPE_CHECKING:
    from attncli.types import Problem


def split_name_and_path(pair: str) -> tuple[str, str]:
    """`name=path` → the field, and the file it is taken from.

    Raises:
        OptionError: it is no `name=path`, there is no field of that name, or its file is none.
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
    """The problem with one field replaced by what `name=path` names.

    Raises:
        OptionError: no `name=path`, or no field of that name.
        InputError: the file cannot be read, or has nothing that the field could be.
    """
    from attncli.readers import Source, find_reader, read_bytes

    name, path = split_name_and_path(pair)
    one = find_reader(path)
    try:
        found = one.read(Source(path, read_bytes(path, one.can_map), one.name))
        value = _validate_value(name, _find_value(found, name))
    except AttnError as error:
        raise error.add_location(file=path) from None
    group, dot, inner = name.partition(".")
    if dot:
        value = {**(getattr(problem, group) or {}), inner: value}
    return dataclasses.replace(problem, **{group: value}, notes=(*problem.notes, *found.notes))


def read_single_array(path: str) -> Any:
    """The one array of numbers that a file holds.

    Raises:
        OptionError: the suffix says no format.
        InputError: the file cannot be read, or holds something else.
    """
    from attncli.readers import Source, find_reader, read_bytes
    from attncli.validation.fields import validate_field

    one = find_reader(path)
    try:
        held = one.read(Source(path, read_bytes(path), one.name)).embeddings
        if held is None:
            raise InputError(
                "missing-field", "there is no array without a name in it", help="a matrix: .npy, .csv or .json"
            )
        return validate_field("embeddings", held)
    except AttnError as error:
        raise error.add_location(file=path) from None


def _validate_value(name: str, value: Any) -> Any:
    """The value through the gate by itself, so that what is wrong with it is said of its own file."""
    from attncli.types import NESTED_FIELDS
    from attncli.validation.fields import validate_field

    if name in NESTED_FIELDS and isinstance(value, dict):
        return {key: validate_field(f"{name}.{key}", inner) for key, inner in value.items()}
    return value if name in NESTED_FIELDS else validate_field(name, value)


def _find_value(found: Problem, name: str) -> Any:
    """What another file holds for a field: the field itself, or the file's one array."""
    if name == "memory" and found.memory is None and found.embeddings is not None:
        return {k: v for k, v in (("tokens", found.tokens), ("embeddings", found.embeddings)) if v is not None}
    group, _, inner = name.partition(".")
    held = getattr(found, group)
    held = held.get(inner) if inner and held else held
    if held is not None and not (isinstance(held, dict) and not held):
        return held
    if found.embeddings is not None:
        return found.embeddings
    there = [f.name for f in dataclasses.fields(found) if _is_present(getattr(found, f.name))]
    raise InputError(
        "missing-field", f"there is no {name} in it, and no array without a name", help=suggestion(group, there)
    )


def _is_present(value: Any) -> bool:
    """Whether a field holds anything."""
    return value is not None and (hasattr(value, "shape") or value not in ({}, (), "", False))
