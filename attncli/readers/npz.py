"""Read NPZ and NPY: arrays under the dotted names of a problem's fields, and the rest as JSON in the text array `attn`.

Entries: `read_npy`, `read_npz`; `read_archive` and `read_npy_array` for arrays that are no problem.
"""

from __future__ import annotations

import io
import math
import re
import sys
import warnings
import zipfile
from typing import IO, Any, NamedTuple

from attncli.errors import InputError, Location
from attncli.readers.base import decode_metadata, make_problem, merge_fields, nest_fields, reader
from attncli.readers.parser_errors import translate_parser_errors
from attncli.readers.source import Source
from attncli.readers.unpacked_size import check_unpacked_size
from attncli.text import join_names, pluralize, shorten
from attncli.types import INPUT_NAMES, Json, NumpyArray, Problem

_MAX_ARRAYS = 1000  # in one archive; a problem has some fifty
_BYTES_PER_ROW = 48  # that a row counts more where it is compressed, since a token has a label and a position
_HEADER_BYTES = 2**16  # of an NPY file, in which numpy's header of at most 10,000 characters lies


@reader("npy", ".npy", holds_one_array=True)
def read_npy(source: Source) -> Problem:
    """Read one array: the embeddings."""
    array = read_npy_array(source.data, "embeddings")
    kind = "texts" if array.dtype.kind in "US" else "complex numbers" if array.dtype.kind == "c" else ""
    if kind and not source.field:
        from attncli.readers.foreign_formats import spell_path

        old, new = spell_path(source.name), spell_path(source.name, ".npy")
        code = "import sys, numpy; a = numpy.load(sys.argv[1]); numpy.save(sys.argv[2], numpy.concatenate([a.real, a.imag], -1))"
        raise InputError(
            "wrong-type",
            f"the array holds {kind}, not vectors of real numbers",
            location=Location(path="embeddings"),
            help=f"labels go beside vectors: attn compute VECTORS --with tokens={old}"
            if kind == "texts"
            else f'real and imaginary parts side by side: python -c "{code}" {old} {new}',
        )
    return make_problem({"embeddings": array})


@reader("npz", ".npz")
def read_npz(source: Source) -> Problem:
    """Read arrays by name."""
    arrays, metadata = read_archive(source.data)
    fields = merge_fields(nest_fields(arrays), metadata)
    return make_problem(fields if fields.keys() & {*INPUT_NAMES, "schema"} else _name_arrays(fields, source.name))


def _name_arrays(fields: Json, path: str) -> Json:
    """Return the arrays of an archive that names none as a problem does: those of `numpy.savez(file, x, words)` by their kind.

    Raises:
        InputError: it is not clear which they are, or they have names of their own; with the command that names them.
    """
    matrices = [name for name, value in fields.items() if getattr(value, "ndim", 0) in (2, 3)]
    texts = [name for name, value in fields.items() if isinstance(value, list)]
    is_clear = len(matrices) == 1 and len(texts) <= 1
    if (
        is_clear
        and len(fields) == len(matrices) + len(texts)
        and all(re.fullmatch(r"arr_\d+", name) for name in fields)
    ):
        return {"embeddings": fields[matrices[0]]} | ({"tokens": fields[texts[0]]} if texts else {})
    if not fields:
        raise InputError("empty", "the archive holds no arrays", help="numpy.savez('x.npz', embeddings=x)")
    chosen = {"embeddings": matrices[0] if matrices else next(iter(fields))} | (
        {"tokens": texts[0]} if is_clear and texts else {}
    )
    pairs = ", ".join(f"{field}=a[{shorten(name)!r}]" for field, name in chosen.items())
    from attncli.readers.foreign_formats import spell_path

    old, new = spell_path(path), spell_path(path, ".named.npz")
    raise InputError(
        "unknown-field",
        f"the archive holds {join_names(map(shorten, fields), max_names=8)}, and no field of a problem has that name",
        help=f'name them: python -c "import sys, numpy; a = numpy.load(sys.argv[1]); numpy.savez(sys.argv[2], {pairs})" {old} {new}',
    )


def read_archive(data: bytes) -> tuple[Json, Json]:
    """Return the arrays of an NPZ archive by name, and what else it holds: the JSON under `attn`, and texts as lists.

    Raises:
        InputError: it is no NPZ, holds what is no array, or unpacks to far more than its size.
        CannotError: what it unpacks to does not fit in memory.
    """
    arrays: Json = {}
    with (
        translate_parser_errors("bad-file", "this is not a complete NPZ archive", "was the copy cut short?"),
        zipfile.ZipFile(io.BytesIO(data)) as members,
    ):
        headers = _read_headers(members)
        if headers:
            sizes = {name: header.bytes_as_read for name, (_, header) in headers.items()}
            hint = "save it without compression: numpy.savez, not savez_compressed"
            check_unpacked_size(sum(sizes.values()), len(data), hint, max(sizes, key=lambda name: sizes[name]))
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
                "two-sources", f"{shorten(name)} occurs twice in the archive", location=Location(path=shorten(name))
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(
                "bad-file",
                f"{shorten(name)} is compressed by a method that numpy does not use",  # a few bytes unpack at once to gigabytes
                location=Location(path=shorten(name)),
                help="save it by numpy.savez or numpy.savez_compressed",
            )
        with members.open(info) as member:
            header = _read_header(member.read(_HEADER_BYTES), info.file_size, shorten(name), is_member=True)
        if info.compress_type != zipfile.ZIP_STORED:
            header = header._replace(bytes_as_read=header.bytes_as_read + _BYTES_PER_ROW * header.rows)
        headers[name] = info, header
    return headers


def _read_header(first_bytes: bytes, size: int, name: str, *, is_member: bool = False) -> _Header:
    """Read the header of an NPY file, and check that the file has the bytes which it declares, before an array is made.

    Raises:
        InputError: it has not, is no NPY array, or holds Python objects.
    """
    import numpy as np

    file = io.BytesIO(first_bytes)
    # numpy evaluates the header as Python text, and warns of some that it reads.
    with translate_parser_errors("bad-file", f"{name} is not an NPY array", path=name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise InputError(
            "pickled",
            f"{name} holds pickled objects, which are never loaded",
            location=Location(path=name),
            help=_PICKLED_NPZ_HELP if is_member else _PICKLED_NPY_HELP,
        )
    if dtype.names:
        raise InputError(
            "wrong-type",
            f"{name} holds records with the fields {join_names(map(shorten, dtype.names), max_names=8)}, not numbers",
            location=Location(path=name),
            help=_explain_records(dtype),
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


_PICKLED_CAUTION = "loading it runs whatever code is in it, so only a file that you trust: python -c"
_PICKLED_NPZ_HELP = (
    f'{_PICKLED_CAUTION} "import sys, numpy; a = numpy.load(sys.argv[1], allow_pickle=True); '
    'numpy.savez(sys.argv[2], **{k: a[k].astype(str) if a[k].dtype == object else a[k] for k in a})" FILE NEW.npz'
)
_PICKLED_NPY_HELP = (
    f'{_PICKLED_CAUTION} "import sys, numpy; a = numpy.load(sys.argv[1], allow_pickle=True); '
    'numpy.save(sys.argv[2], numpy.array(a.tolist(), float))" FILE NEW.npy'
)
_MIN_ITEM_BYTES = {"i": 8, "u": 8, "f": 4}  # of numbers once they are computed with, by the kind of their dtype


# ── arrays ───────────────────────────────────────────────────────────────────────────────────────
def _explain_records(dtype: Any) -> str:
    """Return the command that makes a matrix of the numbers of records, with their texts as tokens where one field holds texts."""
    texts = [name for name in dtype.names if dtype[name].kind == "U"]
    tokens = f", tokens=a[{texts[0]!r}]" if len(texts) == 1 and re.fullmatch(r"[\w .-]{1,60}", texts[0]) else ""
    stack = "numpy.stack([a[n] for n in a.dtype.names if a.dtype[n].kind in 'fiu'], -1)"
    code = f"import sys, numpy; a = numpy.load(sys.argv[1]); numpy.savez(sys.argv[2], embeddings={stack}{tokens})"
    return f'make a matrix of the numbers: python -c "{code}" FILE NEW.npz'


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
    """Turn an array of texts into lists of them; one without axes into its text.

    Raises:
        InputError: the bytes are no UTF-8, or a number stands for no character; numpy would make a text of it that Python
            cannot work with.
    """
    import numpy as np

    with translate_parser_errors("wrong-encoding", f"{name} holds something that is not text", path=name):
        if array.dtype.kind == "S":
            return np.char.decode(array, "utf-8").tolist()
        codes = np.frombuffer(array.tobytes(), np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if codes.max(initial=0) > sys.maxunicode:
            raise ValueError(f"there is no character {codes.max():#x}")
        return array.tolist()
