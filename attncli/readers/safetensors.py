"""safetensors: tensors under the dotted names of a problem's fields; the rest as JSON in the metadata `attn`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from attncli.errors import InputError, Location
from attncli.readers import Source, make_problem, merge_fields, nest_fields, reader
from attncli.types import Json

if TYPE_CHECKING:
    from attncli.types import Problem

_NUMPY_DTYPES = {
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
    "BF16": "<u2",
}
_DTYPE_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "I16": 2, "U16": 2, "BF16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # fmt: skip


@reader("safetensors", ".safetensors", can_map=True)
def read_safetensors(source: Source) -> Problem:
    """Tensors by name."""
    arrays, rest, _ = read_tensors(source.data)
    return make_problem(merge_fields(nest_fields(arrays), rest))


def read_tensors(data: Any) -> tuple[Json, Json, set[str]]:
    """The tensors, widened where numpy lacks their type; the JSON beside them; and the types there were.

    Raises:
        InputError: it is no safetensors file, or holds a type that is not read.
    """
    import msgspec
    import numpy as np

    try:
        start, metadata, held = _read_header(data)
        rest = msgspec.json.decode(metadata.get("attn", "{}"))
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            "bad-file", f"this is no whole safetensors file: {error}", help="was the copy cut short?"
        ) from None
    if not isinstance(rest, dict):
        raise InputError("bad-json", "the text beside the tensors is no object", location=Location(path="attn"))
    out: Json = {}
    for name, dtype, shape, first in held:
        if dtype not in _NUMPY_DTYPES:
            raise InputError(
                "wrong-type",
                f"{name} is {dtype}, which is not read",
                location=Location(path=name),
                help="save it as float32",
            )
        count = math.prod(shape)
        array = (
            np.frombuffer(data, _NUMPY_DTYPES[dtype], count, start + first)
            if count
            else np.empty(0, _NUMPY_DTYPES[dtype])
        )
        array = array.reshape(shape)
        out[name] = (array.astype("<u4") << 16).view("<f4") if dtype == "BF16" else array  # the upper half of a float32
    return out, rest, {dtype for _, dtype, _, _ in held}


def _read_header(data: Any) -> tuple[int, Any, list[tuple[str, str, list[int], int]]]:
    """Where the tensors begin, the metadata, and each tensor's name, type, shape and place, all of which must fit the file.

    Raises:
        ValueError, TypeError, KeyError: they do not.
    """
    import msgspec

    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or start > len(data):
        raise ValueError(f"a header of {start - 8:,} bytes is declared, and the file has {len(data):,}")
    declared = msgspec.json.decode(data[8:start], type=dict[str, Json])
    metadata = declared.pop("__metadata__", {})
    held, end = [], 0
    for name, tensor in sorted(declared.items(), key=lambda item: item[1]["data_offsets"]):
        shape, (first, last) = tensor["shape"], tensor["data_offsets"]
        size = math.prod(shape) * _DTYPE_BYTES.get(tensor["dtype"], 1)
        if (
            not all(type(n) is int and n >= 0 for n in shape)
            or first != end
            or last < first
            or start + last > len(data)
        ):
            raise ValueError(f"{name} does not lie in the file as declared")
        if tensor["dtype"] in _DTYPE_BYTES and last - first != size:
            raise ValueError(f"{name} declares {size:,} bytes, and has {last - first:,}")
        held.append((name, str(tensor["dtype"]), shape, first))
        end = last
    if start + end != len(data):
        raise ValueError(f"{len(data) - start - end:,} bytes belong to no tensor")
    return start, metadata, held
