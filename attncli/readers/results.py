"""Read results that were written as JSON, NPZ or safetensors. Entry: `read_result`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attncli.errors import InputError, OptionError
from attncli.readers.base import merge_fields, nest_fields
from attncli.readers.files import read_bytes
from attncli.types import Array, Attention, Field, FieldKind, Json, Labels, Step

_INTEGER_STEPS = ("top_keys", "visible_keys")  # in the others 1 stands for 1.0


def read_result(path: str | Path, data: bytes | None = None) -> Attention:
    """Read a result file as the attention that it was: the same steps, labels and choices.

    bfloat16 comes back as float32 of the same values.

    Args:
        path: the file.
        data: its JSON, where it has been read already.

    Raises:
        OptionError: the suffix is none of .json, .npz, .safetensors.
        InputError: it cannot be read, or is no result.
    """
    from attncli.validation.fields import find_field, validate_array

    path = str(path)
    fields = _read_fields(path, data)
    if not isinstance(fields, dict) or fields.get("schema") != "attn.result/1":
        raise InputError("not-a-result", 'this is no result: "schema" is not "attn.result/1"').add_location(file=path)
    dtype = fields["dtype"]
    parameters = {
        name: validate_array(values, find_field(f"parameters.{name}"))
        for name, values in fields.get("parameters", {}).items()
    }
    parameters_dtype = "float64" if dtype == "float64" else "float32"
    return Attention(
        variant=fields["variant"],
        tokens=_to_labels(fields["tokens"]),
        k_tokens=_to_labels(fields["k_tokens"]),
        steps=tuple(
            Step(name, fields["formulas"][name], tuple(axes), _step_values(name, fields[name], dtype))
            for name, axes in fields["axes"].items()
        ),
        warnings=tuple(fields["warnings"]),
        parameters={name: values.astype(parameters_dtype) for name, values in parameters.items()},
        about=fields.get("about"),
        layout=fields["layout"],
        dtype=dtype,
        at={axis: tuple(indices) for axis, indices in fields.get("at", {}).items()},
    )


def _read_fields(path: str, data: bytes | None) -> Json:
    """Read the record of a result by the suffix of its file."""
    import msgspec

    from attncli.readers.npz import read_archive
    from attncli.readers.safetensors import read_tensors

    if path.endswith(".json") or data is not None:
        try:
            record: Json = msgspec.json.decode(read_bytes(path) if data is None else data)
        except msgspec.DecodeError as error:
            raise InputError("bad-json", f"this is no JSON: {error}").add_location(file=path) from None
        return record
    if path.endswith(".npz"):
        arrays, metadata = read_archive(read_bytes(path))
    elif path.endswith(".safetensors"):
        arrays, metadata, _ = read_tensors(read_bytes(path))
    else:
        raise OptionError(
            "unknown-format",
            f"{path} is no result that can be read back",
            help="results are read from .json, .npz and .safetensors",
        )
    return merge_fields(nest_fields(arrays), metadata)


def _step_values(name: str, values: Any, dtype: str) -> Array:
    """Return the values of a step as an array of the dtype it was computed with."""
    import numpy as np

    from attncli.validation.fields import to_bfloat16, validate_array

    if isinstance(values, np.ndarray):
        return values
    kinds: dict[type, FieldKind] = {bool: "booleans", int: "integers"}
    kind = kinds.get(type(_first_leaf(values)), "floats")
    if kind == "integers" and name not in _INTEGER_STEPS:
        kind = "floats"
    array = validate_array(values, Field(name, kind, ("*",), finite=False))
    if kind != "floats":
        return array
    return to_bfloat16(array) if dtype == "bfloat16" else array.astype(dtype)


def _to_labels(tokens: list[object]) -> Labels:
    """Turn the lists of a file into labels: a tuple, or of a batch a tuple of tuples."""
    return tuple(tuple(token) if isinstance(token, list) else token for token in tokens)


def _first_leaf(values: object) -> object:
    while isinstance(values, list) and values:
        values = values[0]
    return values
