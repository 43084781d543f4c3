"""safetensors: tensors under the dotted names of a problem's fields; the rest as JSON in the metadata `attn`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attncli.errors import InputError, Place
from attncli.readers import Source, merged, nested, problem, reader

if TYPE_CHECKING:
    from attncli.types import Problem

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "BOOL": "?",
}


@reader("safetensors", ".safetensors")
def read_safetensors(source: Source) -> Problem:
    """Tensors by name."""
    arrays, rest, _ = tensors(source.data)
    return problem(merged(nested(arrays), rest))


def tensors(data: bytes) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    """The tensors, widened where numpy lacks their type; the JSON beside them; and the types there were.

    Raises:
        InputError: it is no safetensors file, or holds a type that is not read.
    """
    import msgspec
    import numpy as np
    from safetensors import SafetensorError, deserialize

    try:
        held = deserialize(data)
        header = msgspec.json.decode(data[8 : 8 + int.from_bytes(data[:8], "little")])
        rest = msgspec.json.decode((header.get("__metadata__") or {}).get("attn", "{}"))
    except (SafetensorError, msgspec.DecodeError, RecursionError) as error:
        raise InputError(
            "bad-file", f"this is no whole safetensors file: {error}", help="was the copy cut short?"
        ) from None
    if not isinstance(rest, dict):
        raise InputError("bad-json", "the text beside the tensors is no object", place=Place(path="attn"))
    out: dict[str, Any] = {}
    for name, tensor in held:
        if tensor["dtype"] == "BF16":  # the upper half of a float32
            wide = np.frombuffer(tensor["data"], "<u2").astype("<u4") << 16
            out[name] = wide.view("<f4").reshape(tensor["shape"])
        elif tensor["dtype"] in _DTYPES:
            out[name] = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        else:
            raise InputError(
                "wrong-type",
                f"{name} is {tensor['dtype']}, which is not read",
                place=Place(path=name),
                help="save it as float32",
            )
    return out, rest, {tensor["dtype"] for _, tensor in held}
