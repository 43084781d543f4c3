"""Read NPZ and NPY: arrays under the dotted names of a problem's fields, and the rest as JSON in the text array `attn`.

Entries: `read_npy`, `read_npz`; `read_archive` and `read_npy_array` for arrays that are no problem.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib

from attncli.errors import InputError, Location
from attncli.readers.base import Source, make_problem, merge_fields, nest_fields, reader
from attncli.types import Json, NumpyArray, Problem


@reader("npy", ".npy")
def read_npy(source: Source) -> Problem:
    """Read one array: the embeddings."""
    return make_problem({"embeddings": read_npy_array(source.data, "embeddings")})


@reader("npz", ".npz")
def read_npz(source: Source) -> Problem:
    """Read arrays by name."""
    arrays, metadata = read_archive(source.data)
    return make_problem(merge_fields(nest_fields(arrays), metadata))


def read_archive(data: bytes) -> tuple[Json, Json]:
    """Return the arrays of an NPZ archive by name, and the JSON beside them.

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
    """Take the text arrays out of an archive and return them: `attn` holds JSON, the others become lists of labels.

    Raises:
        InputError: the text in `attn` is no JSON object.
    """
    import msgspec
    import numpy as np

    metadata: Json = {}
    for name in list(arrays):
        if arrays[name].dtype.kind not in "US":
            continue
        text = arrays.pop(name)
        if name != "attn":
            metadata[name] = np.char.decode(text, "utf-8").tolist() if text.dtype.kind == "S" else text.tolist()
            continue
        try:
            rest = msgspec.json.decode(str(text[()]))
        except (msgspec.DecodeError, RecursionError) as error:
            raise InputError(
                "bad-json", f"the text beside the arrays is no JSON: {error}", location=Location(path="attn")
            ) from None
        if not isinstance(rest, dict):
            raise InputError("bad-json", "the text beside the arrays is no object", location=Location(path="attn"))
        metadata |= rest
    return metadata


def _check_npy_header(first_bytes: bytes, size: int, name: str) -> None:
    """Check that a file has the bytes which its header declares, before an array of that size is made.

    Raises:
        InputError: it has not, is no NPY array, or holds Python objects.
    """
    import numpy as np

    file = io.BytesIO(first_bytes)
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
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
    declared, available = math.prod(shape) * dtype.itemsize, size - file.tell()
    if declared > available or min(shape, default=0) < 0:
        raise InputError(
            "truncated",
            f"{name} declares shape {shape}, {declared:,} bytes, but {max(available, 0):,} are there",
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
