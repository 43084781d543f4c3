"""Read Parquet and Arrow (Feather): a row a token, its vector in columns of numbers or in one column of lists.

Entries: `read_parquet`, `read_arrow`; `read_frame` for tables that are no problem. Polars decodes the bytes that were read;
it is never given a name of a file. What a file unpacks to is looked at before.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from attncli.arrays import has_finite_sum
from attncli.errors import InputError, Location
from attncli.readers.arrow_sizes import count_arrow_bytes, count_parquet_bytes
from attncli.readers.base import make_problem, reader
from attncli.readers.columns import (
    COLUMN_WORDS,
    TEXT_NAMES,
    VECTOR_NAMES,
    Column,
    ColumnChoice,
    ColumnKind,
    choose_columns,
    spell_column,
)
from attncli.readers.parser_errors import translate_parser_errors
from attncli.readers.source import Source
from attncli.readers.unpacked_size import check_unpacked_size
from attncli.text import join_names, quote_name, shorten
from attncli.types import Json, NumpyArray, Problem

if TYPE_CHECKING:
    import polars

_FEATHER_1 = b"FEA1"  # what the first version of Feather begins with
_MAX_COLUMNS = 100_000
_BYTES = "bytes"  # what a column of them is described as


@reader("parquet", ".parquet", ".pq", holds_one_array=True)
def read_parquet(source: Source) -> Problem:
    """Read a Parquet file."""
    return _read_problem(source)


@reader("arrow", ".arrow", ".feather", ".ipc", ".arrows", holds_one_array=True)
def read_arrow(source: Source) -> Problem:
    """Read an Arrow file, which Feather is too, or an Arrow stream."""
    return _read_problem(source)


def read_frame(data: bytes, format_name: str) -> polars.DataFrame:
    """Read all columns as a Polars frame.

    Raises:
        InputError: it is no such file, or unpacks to far more than its size.
        CannotError: what it unpacks to does not fit in memory.
    """
    schema = _read_schema(data, format_name)
    return _read_columns(data, format_name, list(schema), is_all=True)


def _read_problem(source: Source) -> Problem:
    """Read the columns that are tokens and vectors as a problem."""
    schema = _read_schema(source.data, source.format)

    def read_columns(names: list[str]) -> polars.DataFrame:
        return _read_columns(source.data, source.format, names, is_all=len(names) == len(schema))

    return _make_problem(schema, read_columns, source)


def make_problem_of_frame(frame: polars.DataFrame, source: Source) -> Problem:
    """Make a problem of a Polars frame: of its columns, those that are tokens and vectors.

    Raises:
        InputError: it is unclear which they are, or a number is missing.
    """
    return _make_problem(dict(frame.schema), lambda _: frame, source)


def _make_problem(
    schema: Mapping[str, polars.DataType], read_columns: Callable[[list[str]], polars.DataFrame], source: Source
) -> Problem:
    """Make a problem of columns, of which only those that are wanted are read."""
    columns = [_describe_column(name, dtype) for name, dtype in schema.items()]
    choice = _choose_columns(columns, source)
    names = [columns[c].name for c in choice.dimensions]
    token_name = None if choice.tokens is None else columns[choice.tokens].name
    frame = read_columns(list(dict.fromkeys([*names, *([] if token_name is None else [token_name])])))
    if not frame.height:
        raise InputError("empty", "there are columns, but no row", help="write one row per token")
    vectors = _vectors_from_column(frame[names[0]]) if choice.is_vector else _vectors_from_columns(frame, names)
    fields: Json = {"embeddings": vectors}
    if token_name is not None:
        fields["tokens"] = _labels_from_column(frame[token_name], source)
    n, d = vectors.shape
    note = f"{source.name}: {choice.describe_choice(columns, n, d, COLUMN_WORDS)}"
    return replace(make_problem(fields), notes=(note,))


def _choose_columns(columns: list[Column], source: Source) -> ColumnChoice:
    """Decide which columns are read; a vector that stands as a text, and a token that stands as bytes, can be converted.

    Raises:
        InputError: it is unclear, or one of these must be converted first.
    """
    try:
        choice = choose_columns(columns, source)
    except InputError as error:
        texts = [column.name for column in columns if column.kind == "texts" and column.name.lower() in VECTOR_NAMES]
        if error.code == "not-a-number" and texts:
            error.help = f"if {quote_name(texts[0])} holds lists as texts: {_convert(texts[0], 'str.json_decode(p.List(p.Float64))', source)}"
        raise
    names = [columns[c].name for c in choice.left_out if columns[c].description == _BYTES]
    tokens = [name for name in names if name.lower() in TEXT_NAMES]
    if choice.tokens is None and source.token_column is None and tokens:
        spelled = spell_column(
            [column.name for column in columns], [column.name for column in columns].index(tokens[0])
        )
        raise InputError(
            "unclear-tokens",
            f"column {quote_name(tokens[0])} holds bytes, not texts: are they the tokens?",
            help=f"yes: {_convert(tokens[0], 'cast(p.String)', source)}; no: {source.spell_option('drop', spelled)}",
        )
    return choice


def _convert(name: str, method: str, source: Source) -> str:
    """Return the command that converts a column by a method of Polars."""
    kind = "parquet" if source.format == "parquet" else "ipc"
    code = f"import sys, polars as p; p.read_{kind}(sys.argv[1]).with_columns(p.col('{name}').{method}).write_{kind}(sys.argv[2])"
    return f'python -c "{code}" FILE NEW.{source.format}'


# ── the file ─────────────────────────────────────────────────────────────────────────────────────
_MAGIC = {"parquet": (b"PAR1",), "arrow": (b"ARROW1", b"\xff\xff\xff\xff")}
_TITLES = {"parquet": "Parquet", "arrow": "Arrow"}


@contextmanager
def _translate_errors(format_name: str) -> Iterator[None]:
    """Turn whatever Polars raises over a file, its panics too, into that file's error."""
    statement = f"this is not a complete {_TITLES[format_name]} file"
    with translate_parser_errors("bad-file", statement, "was the copy cut short?"):
        import polars

        try:
            with _silence_panics():
                yield
        except polars.exceptions.PanicException as error:  # it is no Exception
            raise ValueError(str(error)) from None


@contextmanager
def _silence_panics() -> Iterator[None]:
    """Keep what Rust writes about a panic off standard error, which is ours: the panic is raised as well."""
    saved = None
    with suppress(OSError):
        saved = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
    try:
        yield
    finally:
        if saved is not None:
            os.dup2(saved, 2)
            os.close(saved)


def _read_schema(data: bytes, format_name: str) -> dict[str, polars.DataType]:
    """Read the names and types of the columns.

    Raises:
        InputError: it is no such file, or has columns of one name, or none.
    """
    if data[:4] == _FEATHER_1:
        raise InputError(
            "foreign-format",
            "Feather version 1 is not read",
            help="write it again: pyarrow.feather.write_feather(pyarrow.feather.read_table('OLD.feather'), 'NEW.feather')",
        )
    if not data:
        raise InputError("empty", "the file is empty", help="write one row per token")
    if not data.startswith(_MAGIC[format_name]):
        raise InputError(
            "bad-file",
            f"this is not a {_TITLES[format_name]} file: it begins differently",
            help="name its format with --input-format",
        )
    with _translate_errors(format_name):
        import polars

        if format_name == "parquet":
            schema = polars.read_parquet_schema(io.BytesIO(data))
        elif data.startswith(b"ARROW1"):
            schema = polars.read_ipc_schema(io.BytesIO(data))
        else:
            check_unpacked_size(count_arrow_bytes(data), len(data), _unpacked_help(data))
            schema = polars.read_ipc_stream(io.BytesIO(data)).schema
        if len(schema) > _MAX_COLUMNS:
            raise ValueError(f"it has {len(schema):,} columns")
        return dict(schema)


def _unpacked_help(data: bytes) -> str:
    """Return the way out of a file that unpacks to far more than its size."""
    function = "parquet" if data.startswith(b"PAR1") else "ipc" if data.startswith(b"ARROW1") else "ipc_stream"
    return f"write it without compression: polars.read_{function}('FILE').write_ipc('NEW.arrow')"


def _read_columns(data: bytes, format_name: str, names: list[str], *, is_all: bool) -> polars.DataFrame:
    """Read some columns, or all, as a Polars frame, after a look at what they unpack to.

    Raises:
        InputError, CannotError: as `read_frame`.
    """
    with _translate_errors(format_name):
        import polars

        file = io.BytesIO(data)
        columns = None if is_all else names  # to name them all takes a while
        if format_name == "parquet":
            sizes = count_parquet_bytes(data, set(names))
            check_unpacked_size(
                sum(sizes.values()), len(data), _unpacked_help(data), shorten(max(sizes, key=lambda n: sizes[n]))
            )
            return polars.read_parquet(file, columns=columns, use_statistics=False)
        check_unpacked_size(count_arrow_bytes(data), len(data), _unpacked_help(data))
        if data.startswith(b"ARROW1"):
            return polars.read_ipc(file, columns=columns)
        return polars.read_ipc_stream(file, columns=columns)


# ── columns ──────────────────────────────────────────────────────────────────────────────────────
def _describe_column(name: str, dtype: polars.DataType) -> Column:
    """Describe a column by its type."""
    import polars

    inner = getattr(dtype, "inner", None)
    kind: ColumnKind = "other"
    if dtype.is_integer():
        kind = "integers"
    elif dtype.is_numeric():
        kind = "numbers"
    elif isinstance(dtype, polars.String | polars.Categorical | polars.Enum):
        kind = "texts"
    elif inner is not None and inner.is_numeric() and len(getattr(dtype, "shape", (0,))) == 1:
        kind = "vectors"
    return Column(name, kind, "" if kind != "other" else _describe_dtype(dtype))


def _describe_dtype(dtype: polars.DataType) -> str:
    """Describe in words what a column holds that is neither numbers, texts nor vectors."""
    import polars

    if isinstance(dtype, polars.Struct):
        names = join_names([shorten(field.name) for field in dtype.fields], max_names=4)
        return f"structs of {names} (frame.unnest makes columns of them)"
    if isinstance(dtype, polars.List | polars.Array):
        return "lists that are not vectors of numbers"
    words = {polars.Boolean: "booleans", polars.Binary: _BYTES, polars.Null: "nothing but nulls"}
    return next((text for kind, text in words.items() if isinstance(dtype, kind)), f"values of type {dtype}")


def _float_type(dtypes: Iterable[polars.DataType]) -> type[polars.DataType]:
    """Return the type that columns of numbers are read as: float32 where none has more."""
    import polars

    return polars.Float32 if all(dtype in (polars.Float32, polars.Float16) for dtype in dtypes) else polars.Float64


def _vectors_from_columns(frame: polars.DataFrame, names: list[str]) -> NumpyArray:
    """Return columns of numbers as an array (n, d).

    Raises:
        InputError: a number is missing or not finite; with its row and column.
    """
    with _translate_conversion():
        kept = set(names)
        numbers = frame.drop([name for name in frame.columns if name not in kept])
        numbers = numbers if numbers.columns == names else frame.select(names)
        columns = numbers.get_columns()
        gaps = [column for column in columns if column.null_count()]
    if gaps:
        raise _missing_error(gaps[0].name, _first_row(gaps[0].is_null()))
    with _translate_conversion():
        dtypes = {column.dtype for column in columns}
        dtype = _float_type(dtypes)
        vectors: NumpyArray = (numbers if dtypes == {dtype} else numbers.cast(dtype)).to_numpy(order="c")
    _check_finite(vectors, lambda column: names[column])
    return vectors


def _vectors_from_column(column: polars.Series) -> NumpyArray:
    """Return a column of lists of numbers as an array (n, d).

    Raises:
        InputError: a list or a number is missing, lists are not equally long, or a number is not finite; with its row.
    """
    import polars

    name = column.name
    with _translate_conversion():
        if column.null_count():
            raise _missing_error(name, _first_row(column.is_null()))
        if isinstance(column.dtype, polars.Array):
            width = column.dtype.size
            lengths = None
        else:
            lengths = column.list.len()
            width = lengths[0]
    if lengths is not None and (lengths != width).any():
        row = _first_row(lengths != width)
        raise InputError(
            "ragged",
            f"row {row} has {lengths[row]} numbers in {quote_name(name)}, but row 0 has {width}",
            location=Location(path=f"{shorten(name)}[{row}]"),
            help="all vectors must have the same length; short ones are never padded",
        )
    if not width:
        raise InputError(
            "empty", f"the vectors in {quote_name(name)} have no numbers", location=Location(path=shorten(name))
        )
    with _translate_conversion():
        numbers = column.explode()
        if numbers.null_count():
            raise _missing_error(name, _first_row(numbers.is_null()) // width)
        flat: NumpyArray = numbers.cast(_float_type([numbers.dtype])).to_numpy()
        vectors = flat.reshape(-1, width)
    _check_finite(vectors, lambda _: name)
    return vectors


@contextmanager
def _translate_conversion() -> Iterator[None]:
    """Turn what Polars raises over the values of a column into the file's error."""
    with translate_parser_errors("bad-file", "its columns cannot be read"):
        import polars

        try:
            with _silence_panics():
                yield
        except polars.exceptions.PanicException as error:
            raise ValueError(str(error)) from None


def _labels_from_column(column: polars.Series, source: Source) -> list[str]:
    """Return a column of texts, or of whole numbers, as labels.

    Raises:
        InputError: one is missing, or they are far longer than the file.
    """
    import polars

    with _translate_conversion():
        if column.null_count():
            raise _missing_error(column.name, _first_row(column.is_null()))
        texts = column.cast(polars.String)
        if isinstance(source.data, bytes | memoryview):  # a file, which may unpack to anything
            _check_label_size(column.name, texts, source)
        labels: list[str] = texts.to_list()
    return labels


def _check_label_size(name: str, texts: polars.Series, source: Source) -> None:
    """Check that labels are not far longer than the file that they are from.

    Raises:
        InputError: they are.
    """
    import polars

    with _translate_conversion():
        size = int(texts.str.len_bytes().cast(polars.UInt64).sum()) + 50 * len(texts)
        way_out = f"leave the labels out: {source.spell_option('drop', shorten(name))}"
        check_unpacked_size(size, len(source.data), way_out, shorten(name))


def _check_finite(vectors: NumpyArray, column_name: Callable[[int], str]) -> None:
    """Check that all numbers are finite.

    Raises:
        InputError: one is not; with its row and column.
    """
    import numpy as np

    if has_finite_sum(vectors) or np.isfinite(vectors).all():
        return
    row, column = (int(i) for i in np.argwhere(~np.isfinite(vectors))[0])
    name = column_name(column)
    raise InputError(
        "not-finite",
        f"{quote_name(name)} holds {float(vectors[row, column])} in row {row}; embeddings are finite",
        location=Location(path=f"{shorten(name)}[{row}]"),
    )


def _missing_error(name: str, row: int) -> InputError:
    return InputError(
        "empty-cell",
        f"{quote_name(name)} has no value in row {row}",
        location=Location(path=f"{shorten(name)}[{row}]"),
        help="write the number; a null is never read as 0",
    )


def _first_row(booleans: polars.Series) -> int:
    return booleans.arg_max() or 0
