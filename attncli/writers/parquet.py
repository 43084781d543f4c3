"""Write Parquet and Feather with every digit: the vectors of one step as a row a token, anything else as tidy rows.

`write_parquet` and `write_feather` write one result; `write_table` whatever rows come, in the same memory however many there
are: a batch writes all of its results into one file by it. A table has those columns alone of which it holds something.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Collection, Iterator
from typing import IO, TYPE_CHECKING

import msgspec
import numpy as np

from attncli.output_formats import RenderOptions, output_format
from attncli.types import AXES, TOKEN_AXES, Attention, Json
from attncli.validation.fields import as_numpy
from attncli.writers.record import identify, to_record
from attncli.writers.tidy import TidyBlock, TokenColumn, label_rows, tidy_blocks

if TYPE_CHECKING:
    import polars as pl

METADATA_KEY = "attn"  # of the text that Parquet carries beside the table
_ROWS_PER_GROUP = 2**17


@output_format("parquet", ".parquet", is_binary=True, shape_options=("tidy",), is_table=True)
def write_parquet(attention: Attention, options: RenderOptions) -> bytes:
    """Write one result; its record without the steps is the file's metadata `attn`, as JSON."""
    return _write_result("parquet", attention, options)


@output_format("feather", ".feather", ".arrow", is_binary=True, shape_options=("tidy",), is_table=True)
def write_feather(attention: Attention, options: RenderOptions) -> bytes:
    """Write one result as an Arrow IPC file, which is Feather's second version; it has no place for the record."""
    return _write_result("feather", attention, options)


def _write_result(format_name: str, attention: Attention, options: RenderOptions) -> bytes:
    steps = {step.name for step in attention.steps}
    record = {name: value for name, value in to_record(attention, as_lists=True).items() if name not in steps}
    is_double = attention.dtype == "float64"
    file = io.BytesIO()
    vectors = None if options.tidy else _make_vector_frame(attention, is_double=is_double)
    if vectors is None:
        columns = find_result_columns(attention)
        rows = (frame.select(columns) for frame in make_frames(attention, is_double=is_double))
        write_table(format_name, file, rows, record, table_schema(columns, is_double=is_double))
    else:
        write_table(format_name, file, iter([vectors]), record, dict(vectors.schema))
    return file.getvalue()


def _make_vector_frame(attention: Attention, *, is_double: bool) -> pl.DataFrame | None:
    """Return a single step of vectors as a row a token, as inputs are: token, d0, d1, …; None where it is no such step."""
    import polars as pl

    if len(attention.steps) != 1 or attention.steps[0].axes[1:] != ("dim",):
        return None
    (step,) = attention.steps
    values = as_numpy(step.values)
    labels = label_rows(attention, step.axes[0], len(values))
    if labels is None:
        return None
    dims = attention.at.get("dim", range(values.shape[1]))
    names = [f"d{i}" for i in dims]
    numbers = pl.DataFrame(values, schema=dict.fromkeys(names, _value_type(is_double=is_double)), orient="row")
    return numbers.insert_column(0, pl.Series("token", labels, pl.String))


def _value_type(*, is_double: bool) -> type[pl.DataType]:
    """Return the type of values: float64, or float32, which holds what is narrower."""
    import polars as pl

    return pl.Float64 if is_double else pl.Float32


def table_schema(
    columns: Collection[str] | None = None, *, is_double: bool
) -> dict[str, pl.DataType | type[pl.DataType]]:
    """Return the columns of tidy rows in their order, with their types.

    Args:
        columns: those that there are; None: all that there can be.
        is_double: whether `value` is float64.
    """
    import polars as pl

    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        "source": pl.String,
        "line": pl.Int64,
        "id": pl.String,
        "step": pl.String,
        **dict.fromkeys(AXES, pl.Int32),
        "value": _value_type(is_double=is_double),
        **dict.fromkeys(TOKEN_AXES, pl.String),
    }
    return schema if columns is None else {name: kind for name, kind in schema.items() if name in columns}


def find_result_columns(attention: Attention) -> list[str]:
    """Return the columns of tidy rows of which a result holds something."""
    axes = {axis for step in attention.steps for axis in step.axes}
    tokens = {name for name, token_axes in TOKEN_AXES.items() if not axes.isdisjoint(token_axes)}
    found = {*identify(attention), "step", *axes, "value", *tokens}
    return list(table_schema(found, is_double=True))


def make_frames(attention: Attention, *, is_double: bool) -> Iterator[pl.DataFrame]:
    """Yield the rows of a result in blocks, with all columns that there can be; `value` is 1 or 0 for a step of booleans."""
    import polars as pl

    schema = table_schema(is_double=is_double)
    names = identify(attention)
    if "id" in names and not isinstance(names["id"], str):
        names["id"] = msgspec.json.encode(names["id"]).decode()
    for block in tidy_blocks(attention):
        cells = {name: _find_column(name, block, names) for name in schema}
        columns = [
            value.cast(schema[name]) if isinstance(value, pl.Series) else pl.lit(value, schema[name]).alias(name)
            for name, value in cells.items()
        ]
        yield pl.select(columns) if len(block) else pl.DataFrame(schema=schema)


def _find_column(name: str, block: TidyBlock, names: Json) -> object:
    """Return a column of a block as a series, or the one value that all of its rows have."""
    import polars as pl

    if name == "step":
        return block.step
    if name == "value":
        return pl.Series(name, block.values.astype(np.float64) if block.values.dtype.kind != "f" else block.values)
    if name in AXES:
        return pl.Series(name, block.indices[name]) if name in block.indices else None
    if name in TOKEN_AXES:
        found: TokenColumn | None = block.tokens.get(name)
        return None if found is None else pl.Series(name, found.labels, pl.String).gather(found.places)
    return names.get(name)


def write_table(
    format_name: str,
    file: IO[bytes],
    frames: Iterator[pl.DataFrame],
    record: Json,
    schema: dict[str, pl.DataType | type[pl.DataType]],
) -> None:
    """Write rows to a file as they come, in groups of rows; the same rows make the same bytes.

    Args:
        format_name: parquet or feather.
        file: open for writing.
        frames: blocks of rows.
        record: what stands beside the table, in Parquet.
        schema: the columns of every block, with their types.

    Raises:
        OSError: it cannot be written.
    """
    import polars as pl
    from polars.io.plugins import register_io_source

    table = register_io_source(lambda *_: frames, schema=schema)
    try:
        if format_name == "parquet":
            metadata = {METADATA_KEY: msgspec.json.encode(record).decode()}
            table.sink_parquet(file, metadata=metadata, row_group_size=_ROWS_PER_GROUP, engine="streaming")
        else:
            table.sink_ipc(file, compression="zstd", compat_level=pl.CompatLevel.oldest(), engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        found = re.search(r"(?:os error|Errno) (\d+)", str(error))  # which Polars tells in its text alone
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
