"""Write a problem, so that it is read back as it is: JSON, NPZ or safetensors. Entry: `write_problem`.

Arrays keep their dtype, under the dotted names of the fields; what is no array is JSON beside them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import PurePath

import msgspec
import numpy as np

from attncli.errors import OptionError
from attncli.text import escape_json_controls, join_names
from attncli.types import INPUT_NAMES, Json, NumpyArray, Problem
from attncli.writers.record import to_json_numbers
from attncli.writers.safetensors import pack_tensors


def problem_fields(problem: Problem) -> Json:
    """Return the fields that a problem has, by name, with their arrays."""
    fields = {name: getattr(problem, name) for name in Problem.__dataclass_fields__ if name in INPUT_NAMES}
    return {name: value for name, value in fields.items() if not _is_empty(value)}


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, Mapping | str) and not value)


def _split_arrays(fields: Json) -> tuple[dict[str, NumpyArray], Json]:
    """Return the arrays by dotted name, and the rest, nested as it is."""
    arrays: dict[str, NumpyArray] = {}

    def split(value: object, name: str) -> object:
        if isinstance(value, np.ndarray):
            arrays[name] = value
            return None
        if isinstance(value, Mapping):
            parts = {key: split(one, f"{name}.{key}") for key, one in value.items()}
            return {key: one for key, one in parts.items() if one is not None} or None
        return value

    rest: Json = {}
    for name, value in fields.items():
        if (one := split(value, name)) is not None:
            rest[name] = one
    return arrays, rest


def _write_json(fields: Json) -> bytes:
    def spell(value: object) -> object:
        if isinstance(value, np.ndarray):
            return to_json_numbers(value, str(value.dtype))
        if isinstance(value, Mapping):
            return {key: spell(one) for key, one in value.items()}
        return value

    return (escape_json_controls(msgspec.json.encode(spell(fields)).decode()) + "\n").encode()


def _write_npz(fields: Json) -> bytes:
    arrays, rest = _split_arrays(fields)
    file = io.BytesIO()
    np.savez(file, attn=np.array(msgspec.json.encode(rest).decode()), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _write_safetensors(fields: Json) -> bytes:
    arrays, rest = _split_arrays(fields)
    return b"".join(pack_tensors(arrays, msgspec.json.encode(rest).decode()))


_WRITERS: Mapping[str, Callable[[Json], bytes]] = {
    "safetensors": _write_safetensors,
    "npz": _write_npz,
    "json": _write_json,
}
PROBLEM_FORMATS = tuple(_WRITERS)


def choose_problem_format(path: str, format: str | None) -> str:
    """Return the format of a file by `--format`, or by its suffix.

    Raises:
        OptionError: problems are not written in that format.
    """
    name = format if format is not None else PurePath(path).suffix.lower().removeprefix(".")
    if name not in _WRITERS:
        said = f"--format {format}" if format is not None else f"the suffix of {path}"
        raise OptionError(
            "unknown-format",
            f"{said} is not a format that problems are written in",
            help=f"problems are written as {join_names(PROBLEM_FORMATS, 'or')}: -o layer.safetensors",
        )
    return name


def write_problem(problem: Problem, format: str) -> bytes:
    """Return the file of a problem, in one of `PROBLEM_FORMATS`; JSON is one line."""
    return _WRITERS[format](problem_fields(problem))
