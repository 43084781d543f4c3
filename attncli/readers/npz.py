"""NPZ and NPY: arrays under the dotted names of a problem's fields; the rest as JSON in the text array `attn`."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import TYPE_CHECKING

from attncli.errors import InputError, Location
from attncli.readers import Source, make_problem, merge_fields, nest_fields, reader
from attncli.types import Json, NumpyArray

if TYPE_CHECKING:
    from attncli.types import Problem


@reader("npy", ".npy")
def read_npy(source: Source) -> Problem:
    """One array: the embeddings."""
    return make_problem({"embeddings": read_npy_array(source.data, "embeddings")})


@reader("npz", ".npz")
def read_npz(source: Source) -> Problem:
    """Arrays by name."""
    arrays, rest = read_archive(source.data)
    return make_problem(merge_fields(nest_fields(arrays), rest))


def read_archive(data: bytes) -> tuple[Json, Json]:
    """The arrays of an NPZ archive, and the JSON beside them.

    Raises:
        InputError: it is no NPZ, or holds what is no array.
    """
    arrays: Json = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as members:
            for info in members.infolist():
                name = info.filename.removesuffix(".npy")
                if name in arrays:
                    raise InputError("two-sources", f"{name} stands twice in the archive", location=Location(path=name))
                with members.open(info) as member:
                    _check_npy_header(member.read(1 << 16), info.file_size, name)
                arrays[name] = read_npy_array(members.read(info), name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise InputError("bad-file", f"this is no whole NPZ archive: {error}", help="was the copy cut short?") from None
    return arrays, pop_metadata(arrays)


def pop_metadata(arrays: Json) -> Json:
    """What is not an array: JSON, taken out of the text array `attn`; other text arrays become lists."""
    import msgspec
    import numpy as np

    out: Json = {}
    for name in list(arrays):
        if arrays[name].dtype.kind not in "US":
            continue
        text = arrays.pop(name)
        if name != "attn":
            out[name] = np.char.decode(text, "utf-8").tolist() if text.dtype.kind == "S" else text.tolist()
            continue
        try:
            rest = msgspec.json.decode(str(text[()]))
        except (msgspec.DecodeError, RecursionError) as error:
            raise InputError(
                "bad-json", f"the text beside the arrays is no JSON: {error}", location=Location(path="attn")
            ) from None
        if not isinstance(rest, dict):
            raise InputError("bad-json", "the text beside the arrays is no object", location=Location(path="attn"))
        out |= rest
    return out


def _check_npy_header(first_bytes: bytes, size: int, name: str) -> None:
    """Hold what the header declares against the bytes that are there, before anything of that size is made."""
    import numpy as np

    file = io.BytesIO(first_bytes)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except Exception as error:  # numpy evaluates the header as Python text: whatever that raises, the file is bad
        raise InputError(
            "bad-file", f"{name} is no NPY array: {str(error).splitlines()[0]}", location=Location(path=name)
        ) from None
    if dtype.hasobject:
        raise InputError(
            "pickled",
            f"{name} holds pickled objects, which are never loaded",
            location=Location(path=name),
            help="save arrays of numbers",
        )
    if not all(type(n) is int for n in shape):
        raise InputError("bad-file", f"{name} declares shape {shape}", location=Location(path=name))
    need, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if need > there or min(shape, default=0) < 0:
        raise InputError(
            "truncated",
            f"{name} declares shape {shape}, {need:,} bytes, but {max(there, 0):,} are there",
            location=Location(path=name),
            help="was the copy cut short?",
        )


def read_npy_array(data: bytes, name: str) -> NumpyArray:
    """Read the bytes of one NPY file as an array.

    Raises:
        InputError: it is no NPY array, is cut short, or holds Python objects.
    """
    import numpy as np

    _check_npy_header(data[: 1 << 16], len(data), name)
    try:
        return np.asarray(np.lib.format.read_array(io.BytesIO(data), allow_pickle=False))
    except (ValueError, EOFError, MemoryError) as error:
        raise InputError(
            "bad-file", f"{name} cannot be read: {str(error).splitlines()[0]}", location=Location(path=name)
        ) from None
