"""A result that was written, as JSON, NPZ or safetensors → the Attention it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attncli.errors import InputError, OptionError
from attncli.types import Attention, Json, Step


def read_result(path: str | Path, data: bytes | None = None) -> Attention:
    """A result file → the same steps, labels and choices. bfloat16 comes back as float32 of the same values.

    `data`: its JSON, where it was read already.

    Raises:
        OptionError: the suffix is none of .json, .npz, .safetensors.
        InputError: it cannot be read, or is no result.
    """
    import msgspec
    import numpy as np

    from attncli.readers import merge_fields, nest_fields, read_bytes
    from attncli.readers.npz import read_archive
    from attncli.readers.safetensors import read_tensors
    from attncli.types import Field, FieldKind
    from attncli.validation.fields import find_field, to_bfloat16, validate_array

    path = str(path)
    fields: Json
    if path.endswith(".json") or data is not None:
        try:
            fields = msgspec.json.decode(read_bytes(path) if data is None else data)
        except msgspec.DecodeError as error:
            raise InputError("bad-json", f"this is no JSON: {error}").add_location(file=path) from None
    elif path.endswith((".npz", ".safetensors")):
        arrays, rest, *_ = read_archive(read_bytes(path)) if path.endswith(".npz") else read_tensors(read_bytes(path))
        fields = merge_fields(nest_fields(arrays), rest)
    else:
        raise OptionError(
            "unknown-format",
            f"{path} is no result that can be read back",
            help="results are read from .json, .npz and .safetensors",
        )
    if not isinstance(fields, dict) or fields.get("schema") != "attn.result/1":
        raise InputError("not-a-result", 'this is no result: "schema" is not "attn.result/1"').add_location(file=path)

    dtype = fields["dtype"]

    def values(name: str) -> Any:
        held = fields[name]
        if isinstance(held, np.ndarray):
            return held
        kinds: dict[type, FieldKind] = {bool: "booleans", int: "integers"}
        kind = kinds.get(type(_first_leaf(held)), "floats")
        if kind == "integers" and name not in ("top_keys", "visible_keys"):
            kind = "floats"  # 1 stands for 1.0
        whole = validate_array(held, Field(name, kind, ("*",), finite=False))
        if kind != "floats":
            return whole
        return to_bfloat16(whole) if dtype == "bfloat16" else whole.astype(dtype)

    def labels(tokens: list[Any]) -> tuple[Any, ...]:
        return tuple(tuple(t) if isinstance(t, list) else t for t in tokens)

    return Attention(
        variant=fields["variant"],
        tokens=labels(fields["tokens"]),
        k_tokens=labels(fields["k_tokens"]),
        steps=tuple(
            Step(name, fields["formulas"][name], tuple(axes), values(name)) for name, axes in fields["axes"].items()
        ),
        warnings=tuple(fields["warnings"]),
        parameters={
            k: validate_array(v, find_field(f"parameters.{k}")).astype("float64" if dtype == "float64" else "float32")
            for k, v in fields.get("parameters", {}).items()
        },
        about=fields.get("about"),
        layout=fields["layout"],
        dtype=dtype,
        at={k: tuple(v) for k, v in fields.get("at", {}).items()},
    )


def _first_leaf(value: Any) -> Any:
    while isinstance(value, list) and value:
        value = value[0]
    return value
