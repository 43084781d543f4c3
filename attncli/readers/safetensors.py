"""Read safetensors: tensors under the dotted names of a problem's fields, and the rest as JSON in the metadata `attn`.

Entries: `read_safetensors`; `read_tensors` for tensors that are no problem. The library is not used, since arrays share the
memory that the file was read into here, and bfloat16 is read without torch.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from attncli.errors import InputError, Location
from attncli.readers.base import (
    Source,
    check_duplicate_keys,
    decode_metadata,
    make_problem,
    merge_fields,
    nest_fields,
    reader,
    translate_parser_errors,
)
from attncli.text import shorten
from attncli.types import SAFETENSORS_DTYPES, Json, Problem


@reader("safetensors", ".safetensors", shares_memory=True)
def read_safetensors(source: Source) -> Problem:
    """Read tensors by name."""
    arrays, metadata, _ = read_tensors(source.data)
    return make_problem(merge_fields(nest_fields(arrays), metadata))


def read_tensors(data: Any) -> tuple[Json, Json, set[str]]:
    """Read the tensors by name, the JSON beside them, and the dtypes that occur.

    bfloat16, which numpy lacks, becomes float32. The other arrays share the memory of `data`, bytes or a memoryview.

    Raises:
        InputError: it is no safetensors file, or holds a dtype that is not read.
    """
    import numpy as np

    with translate_parser_errors("bad-file", "this is no whole safetensors file", "was the copy cut short?"):
        header = _read_header(data)
        metadata = decode_metadata(header.metadata["attn"]) if "attn" in header.metadata else {}
        arrays: Json = {}
        for tensor in header.tensors:
            if tensor.dtype not in SAFETENSORS_DTYPES:
                raise InputError(
                    "wrong-type",
                    f"{shorten(tensor.name)} is {shorten(tensor.dtype)}, which is not read",
                    location=Location(path=shorten(tensor.name)),
                    help="save it as float32",
                )
            dtype, count = SAFETENSORS_DTYPES[tensor.dtype], math.prod(tensor.shape)
            array = np.frombuffer(data, dtype, count, tensor.start) if count else np.empty(0, dtype)
            array = array.reshape(tensor.shape)
            if tensor.dtype == "BF16":  # the upper half of a float32
                array = (array.astype("<u4") << 16).view("<f4")
            arrays[tensor.name] = array
        return arrays, metadata, {tensor.dtype for tensor in header.tensors}


class _Tensor(NamedTuple):
    """One tensor of a file, as the header declares it."""

    name: str
    dtype: str
    shape: list[int]
    start: int  # of its bytes, in the file


class _Header(NamedTuple):
    metadata: dict[str, str]
    tensors: list[_Tensor]


def _read_header(data: Any) -> _Header:
    """Read the header, and check that all it declares fits the file.

    Raises:
        ValueError, TypeError, KeyError: it does not.
    """
    import msgspec
    import numpy as np

    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or start > len(data):
        raise ValueError(f"a header of {start - 8:,} bytes is declared, and the file has {len(data):,}")
    text = bytes(data[8:start])
    declared = msgspec.json.decode(text, type=dict[str, Json])
    check_duplicate_keys(text)
    metadata = msgspec.convert(declared.pop("__metadata__", {}), dict[str, str])
    tensors, end = [], 0
    for name, tensor in sorted(declared.items(), key=lambda item: item[1]["data_offsets"]):
        shape, (first, last), dtype = tensor["shape"], tensor["data_offsets"], tensor["dtype"]
        if (
            not all(type(n) is int and n >= 0 for n in (*shape, first, last))
            or first != end
            or last < first
            or start + last > len(data)
        ):
            raise ValueError(f"{shorten(name)} does not lie in the file as declared")
        if dtype in SAFETENSORS_DTYPES:
            size = math.prod(shape) * np.dtype(SAFETENSORS_DTYPES[dtype]).itemsize
            if last - first != size:
                raise ValueError(f"{shorten(name)} declares {size:,} bytes, and has {last - first:,}")
        tensors.append(_Tensor(name, str(dtype), shape, start + first))
        end = last
    if start + end != len(data):
        raise ValueError(f"{len(data) - start - end:,} bytes belong to no tensor")
    return _Header(metadata, tensors)
