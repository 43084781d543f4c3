"""Read safetensors: tensors under the dotted names of a problem's fields, and the rest as JSON in the metadata `attn`.

Entries: `read_safetensors`; `read_tensors` for tensors that are no problem; `parse_header` and `make_array` for some of them. The library is not used, since arrays share the
memory that the file was read into here, and bfloat16 is read without torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from attncli.errors import InputError, Location
from attncli.framework_arrays import find_layers
from attncli.readers.base import check_duplicate_keys, decode_metadata, make_problem, merge_fields, nest_fields, reader
from attncli.readers.parser_errors import translate_parser_errors
from attncli.readers.source import Source
from attncli.text import join_names, shorten
from attncli.types import INPUT_NAMES, SAFETENSORS_DTYPES, Json, NumpyArray, Problem


@reader("safetensors", ".safetensors", shares_memory=True)
def read_safetensors(source: Source) -> Problem:
    """Read tensors by name."""
    arrays, metadata, _ = read_tensors(source.data)
    if not any(name.partition(".")[0] in INPUT_NAMES for name in (*arrays, *metadata)):
        _check_no_checkpoint(arrays, source.name)
        matrices = [name for name, array in arrays.items() if array.ndim in (2, 3)]
        if matrices and not metadata:
            raise _unnamed_error(matrices, source.name)
    return make_problem(merge_fields(nest_fields(arrays), metadata))


def _check_no_checkpoint(names: Iterable[str], path: str) -> None:
    """Check that tensors are not those of a whole model.

    Raises:
        InputError: they are; with the option that takes a layer of it.
    """
    layer = next(find_layers(names), None)
    if layer is not None:
        raise InputError(
            "not-a-problem",
            "these are the learned arrays of a model, not vectors of tokens",
            help=f"one layer of them is taken for the vectors of INPUT: attn compute INPUT --from-state-dict {path}:{shorten(layer)}",
        )


def _unnamed_error(names: Sequence[str], path: str) -> InputError:
    """Make the error for a file of matrices that are called otherwise than the fields of a problem."""
    from attncli.readers.foreign_formats import spell_path

    name = next((one for one in names if re.search("embed|wte|tok", one)), names[0])
    command = (
        "import sys; from safetensors.numpy import load_file, save_file; "
        f"save_file({{'embeddings': load_file(sys.argv[1])[{shorten(name)!r}]}}, sys.argv[2])"
    )
    held = join_names([repr(shorten(one)) for one in names], max_names=8)
    old, new = spell_path(path), spell_path(path, ".named.safetensors")
    return InputError(
        "unknown-field",
        f"the file holds {held}, and no field of a problem has that name",
        location=Location(path=shorten(name)),
        help=f'{"name it" if len(names) == 1 else f"if {shorten(name)!r} holds the vectors, name it"}: python -c "{command}" {old} {new}',
    )


def read_tensors(data: bytes | memoryview) -> tuple[Json, Json, dict[str, str]]:
    """Read the tensors by name, the JSON beside them, and the dtype of each tensor as the file spells it: F32.

    bfloat16, which numpy lacks, becomes float32. The other arrays share the memory of `data`, bytes or a memoryview.

    Raises:
        InputError: it is no safetensors file, or holds a dtype that is not read.
    """

    with translate_parser_errors("bad-file", "this is not a complete safetensors file", "was the copy cut short?"):
        start = 8 + int.from_bytes(data[:8], "little")
        if len(data) < 8 or start > len(data):
            raise ValueError(f"a header of {start - 8:,} bytes is declared, but the file has {len(data):,}")
        header = parse_header(bytes(data[8:start]), len(data))
        metadata = decode_metadata(header.metadata["attn"]) if "attn" in header.metadata else {}
        arrays: Json = {tensor.name: make_array(tensor, data, tensor.start) for tensor in header.tensors}
        return arrays, metadata, {tensor.name: tensor.dtype for tensor in header.tensors}


class Tensor(NamedTuple):
    """One tensor of a file, as the header declares it."""

    name: str
    dtype: str
    shape: list[int]
    start: int  # of its bytes, in the file
    end: int


class Header(NamedTuple):
    """What a file declares."""

    metadata: dict[str, str]
    tensors: list[Tensor]


def make_array(tensor: Tensor, data: bytes | bytearray | memoryview, offset: int = 0) -> NumpyArray:
    """Make the array of a tensor, whose bytes begin at an offset of `data`; bfloat16 becomes float32.

    Raises:
        InputError: its dtype is not read.
    """
    import numpy as np

    if tensor.dtype not in SAFETENSORS_DTYPES:
        raise InputError(
            "wrong-type",
            f"{shorten(tensor.name)} is {shorten(tensor.dtype)}, which is not read",
            location=Location(path=shorten(tensor.name)),
            help="save it as float32",
        )
    dtype, count = SAFETENSORS_DTYPES[tensor.dtype], math.prod(tensor.shape)
    array: NumpyArray = np.frombuffer(data, dtype, count, offset) if count else np.empty(0, dtype)
    array = array.reshape(tensor.shape)
    if tensor.dtype == "BF16":  # the upper half of a float32
        array = (array.astype("<u4") << 16).view("<f4")
    return array


def parse_header(text: bytes, file_size: int) -> Header:
    """Parse the header of a file, and check that all it declares fits the file's size in bytes.

    Raises:
        ValueError, TypeError, KeyError: it does not.
    """
    import msgspec
    import numpy as np

    start = 8 + len(text)
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
            or start + last > file_size
        ):
            raise ValueError(f"{shorten(name)} does not lie in the file as declared")
        if dtype in SAFETENSORS_DTYPES:
            size = math.prod(shape) * np.dtype(SAFETENSORS_DTYPES[dtype]).itemsize
            if last - first != size:
                raise ValueError(f"{shorten(name)} declares {size:,} bytes, but has {last - first:,}")
        tensors.append(Tensor(name, str(dtype), shape, start + first, start + last))
        end = last
    if start + end != file_size:
        raise ValueError(f"{file_size - start - end:,} bytes belong to no tensor")
    return Header(metadata, tensors)
