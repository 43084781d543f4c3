"""Read NPZ and NPY: arrays under the dotted names of a problem's fields, and the rest as JSON in the text array `attn`.

Entries: `read_npy`, `read_npz`; `read_archive` and `read_npy_array` for arrays that are no problem.
"""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from typing import IO, NamedTuple

from attncli.errors import CannotError, InputError, Location
from attncli.readers.base import (
    Source,
    decode_metadata,
    make_problem,
    merge_fields,
    nest_fields,
    reader,
    translate_parser_errors,
)
from attncli.text import pluralize, shorten
from attncli.types import Json, NumpyArray, Problem

_MAX_ARRAYS = 1000  # in one archive; a problem has some fifty
_UNPACKED_BYTES = 2**24  # to which every archive may unpack, however small it is
_UNPACKED_PER_BYTE = 16  # and for each byte of the archive as many more
_BYTES_PER_ROW = 48  # that a row counts more where it is compressed, since a token has a label and a position
_LARGE_BYTES = 2**26  # the size from which what is unpacked is held against the memory that is free
_HEADER_BYTES = 2**16  # of an NPY file, in which numpy's header of at most 10,000 characters lies


@reader("npy", ".npy", holds_one_array=True)
def read_npy(source: Source) -> Problem:
    """Read one array: the embeddings."""
    return make_problem({"embeddings": read_npy_array(source.data, "embeddings")})


@reader("npz", ".npz")
def read_npz(source: Source) -> Problem:
    """Read arrays by name."""
    arrays, metadata = read_archive(source.data)
    return make_problem(merge_fields(nest_fields(arrays), metadata))


def read_archive(data: bytes) -> tuple[Json, Json]:
    """Return the arrays of an NPZ archive by name, and what else it holds: the JSON under `attn`, and texts as lists.

    Raises:
        InputError: it is no NPZ, holds what is no array, or unpacks to far more than its size.
        CannotError: what it unpacks to does not fit in memory.
    """
    arrays: Json = {}
    with (
        translate_parser_errors("bad-file", "this is no whole NPZ archive", "was the copy cut short?"),
        zipfile.ZipFile(io.BytesIO(data)) as members,
    ):
        headers = _read_headers(members)
        _check_unpacked_size(headers, len(data))
        for name, (info, header) in headers.items():
            with members.open(info) as member:
                arrays[name] = _read_array(member, name, header)
                member.read(1)  # at its end the check sum is compared
        return arrays, _pop_metadata(arrays)


def read_npy_array(data: bytes, name: str) -> NumpyArray:
    """Read the bytes of one NPY file as an array.

    Raises:
        InputError: it is no NPY array, is cut short, or holds Python objects.
    """
    with translate_parser_errors("bad-file", f"{name} cannot be read", path=name):
        header = _read_header(data[:_HEADER_BYTES], len(data), name)
        return _read_array(io.BytesIO(data), name, header)


# ── headers ──────────────────────────────────────────────────────────────────────────────────────
class _Header(NamedTuple):
    """What an NPY file declares."""

    array_bytes: int
    rows: int  # vectors, of tokens perhaps
    bytes_as_read: int  # of the array or the list that a problem holds in its place


def _read_headers(members: zipfile.ZipFile) -> dict[str, tuple[zipfile.ZipInfo, _Header]]:
    """Read the header of every array in an archive, by its name, and unpack no more than that.

    Raises:
        InputError: a name stands twice, there are too many, or one is no array or not compressed as numpy does.
    """
    infos = members.infolist()
    if len(infos) > _MAX_ARRAYS:
        raise InputError("bad-file", f"the archive holds {len(infos):,} arrays, more than any problem has")
    headers: dict[str, tuple[zipfile.ZipInfo, _Header]] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name in headers:
            raise InputError(
                "two-sources", f"{shorten(name)} stands twice in the archive", location=Location(path=shorten(name))
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(
                "bad-file",
                f"{shorten(name)} is compressed by a method that numpy does not use",  # a few bytes unpack at once to gigabytes
                location=Location(path=shorten(name)),
                help="save it by numpy.savez or numpy.savez_compressed",
            )
        with members.open(info) as member:
            header = _read_header(member.read(_HEADER_BYTES), info.file_size, shorten(name))
        if info.compress_type != zipfile.ZIP_STORED:
            header = header._replace(bytes_as_read=header.bytes_as_read + _BYTES_PER_ROW * header.rows)
        headers[name] = info, header
    return headers


def _check_unpacked_size(headers: dict[str, tuple[zipfile.ZipInfo, _Header]], archive_bytes: int) -> None:
    """Check that what an archive unpacks to is no more than a multiple of its size, and fits in the memory that is free.

    Raises:
        InputError, CannotError: it is, or does not.
    """
    from attncli.plan.memory import available_memory_bytes

    unpacked = sum(header.bytes_as_read for _, header in headers.values())
    if unpacked > _UNPACKED_BYTES + _UNPACKED_PER_BYTE * archive_bytes:
        largest = max(headers, key=lambda name: headers[name][1].bytes_as_read)
        raise InputError(
            "too-compressed",
            f"{archive_bytes:,} bytes would take {unpacked:,} in memory, more than 16 MiB and 16 times as many",
            location=Location(path=largest),
            help="save it without compression: numpy.savez, not savez_compressed",
        )
    available = available_memory_bytes() if unpacked > _LARGE_BYTES else None
    if available is not None and unpacked > available:
        raise CannotError(
            "out-of-memory",
            f"the arrays take {unpacked / 2**30:,.1f} GiB, and {available / 2**30:,.1f} are free",
            help="save fewer arrays in one file, or read it where there is more memory",
        )


def _read_header(first_bytes: bytes, size: int, name: str) -> _Header:
    """Read the header of an NPY file, and check that the file has the bytes which it declares, before an array is made.

    Raises:
        InputError: it has not, is no NPY array, or holds Python objects.
    """
    import numpy as np

    file = io.BytesIO(first_bytes)
    # numpy evaluates the header as Python text, and warns of some that it reads.
    with translate_parser_errors("bad-file", f"{name} is no NPY array", path=name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise InputError(
            "pickled",
            f"{name} holds pickled objects, which are never loaded",
            location=Location(path=name),
            help="save arrays of numbers",
        )
    if not all(type(n) is int and n >= 0 for n in shape):
        raise InputError("bad-file", f"{name} declares shape {shape}", location=Location(path=name))
    declared, available = math.prod(shape) * dtype.itemsize, size - file.tell()
    if declared > available:
        raise InputError(
            "truncated",
            f"{name} declares shape {shape}, {declared:,} bytes, but {max(available, 0):,} are there",
            location=Location(path=name),
            help="was the copy cut short?",
        )
    if declared < available:
        raise InputError(
            "bad-file",
            f"{name} declares shape {shape}, and {pluralize(available - declared, 'byte')} more follow",
            location=Location(path=name),
            help="one file holds one array: save each by numpy.save, or all of them by numpy.savez",
        )
    if dtype.kind in "US":  # a text of Python takes 50 bytes and more
        return _Header(declared, 0, 16 * max(declared, math.prod(shape)))
    return _Header(
        declared, math.prod(shape[:-1]), math.prod(shape) * max(dtype.itemsize, _MIN_ITEM_BYTES.get(dtype.kind, 1))
    )


_MIN_ITEM_BYTES = {"i": 8, "u": 8, "f": 4}  # of numbers once they are computed with, by the kind of their dtype


# ── arrays ───────────────────────────────────────────────────────────────────────────────────────
def _read_array(file: IO[bytes], name: str, header: _Header) -> NumpyArray:
    """Read an array whose header has been checked.

    Raises:
        InputError: numpy cannot read it.
    """
    import numpy as np

    with translate_parser_errors("bad-file", f"{name} cannot be read", path=name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = np.asarray(np.lib.format.read_array(file, allow_pickle=False))
        if array.nbytes != header.array_bytes:
            raise ValueError("its header has changed while it was read")
        return array


def _pop_metadata(arrays: Json) -> Json:
    """Take the text arrays out of an archive and return them: `attn` holds JSON, the others become lists of labels.

    Raises:
        InputError: the text in `attn` is no JSON object, or holds what is an array too.
    """
    texts = {name: _to_texts(arrays.pop(name), name) for name in list(arrays) if arrays[name].dtype.kind in "US"}
    text = texts.pop("attn", None)
    if text is None:
        metadata: Json = {}
    elif isinstance(text, str):
        metadata = decode_metadata(text)
    else:
        raise InputError(
            "bad-json", "attn is an array of texts, where one text belongs", location=Location(path="attn")
        )
    return merge_fields(nest_fields(texts), metadata)


def _to_texts(array: NumpyArray, name: str) -> object:
    """Turn an array of texts into lists of them; one without axes into its text."""
    import numpy as np

    with translate_parser_errors("wrong-encoding", f"{name} holds what is no text", path=name):
        return np.char.decode(array, "utf-8").tolist() if array.dtype.kind == "S" else array.tolist()
