"""Write Parquet and Feather: a result as a table of tidy rows, one for each number, with every digit.

`write_parquet` and `write_feather` write one result; `write_table` whatever rows come, in the same memory however many there
are: a batch writes all of its results into one file by it. The columns are the same in every table.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

import msgspec
import numpy as np

from attncli.output_formats import RenderOptions, output_format
from attncli.types import AXES, TOKEN_AXES, Attention, Json
from attncli.writers.record import identify, to_record
from attncli.writers.tidy import TidyBlock, TokenColumn, tidy_blocks

if TYPE_CHECKING:
    import polars as pl

METADATA_KEY = "attn"  # of the text that Parquet carries beside the table
_ROWS_PER_GROUP = 2**17


@output_format("parquet", ".parquet", is_binary=True, shape_options=("tidy",), is_table=True)
def write_parquet(attention: Attention, options: RenderOptions) -> bytes:
    """Write one result; its record without the steps is the file's metadata `attn`, as JSON."""
    return _write_result("parquet", attention)


@output_format("feather", ".feather", ".arrow", is_binary=True, shape_options=("tidy",), is_table=True)
def write_feather(attention: Attention, options: RenderOptions) -> bytes:
    """Write one result as an Arrow IPC file, which is Feather's second version; it has no place for the record."""
    return _write_result("feather", attention)


def _write_result(format_name: str, attention: Attention) -> bytes:
    steps = {step.name for step in attention.steps}
    record = {name: value for name, value in to_record(attention, as_lists=True).items() if name not in steps}
    is_double = attention.dtype == "float64"
    file = io.BytesIO()
    write_table(format_name, file, make_frames(attention, is_double=is_double), record, is_double=is_double)
    return file.getvalue()


def table_schema(*, is_double: bool) -> dict[str, type[pl.DataType]]:
    """Return the columns of every table, with their types: `value` is float64, or float32, which holds what is narrower."""
    import polars as pl

    return {
        "source": pl.String,
        "line": pl.Int64,
        "id": pl.String,
        "step": pl.String,
        **dict.fromkeys(AXES, pl.Int32),
        "value": pl.Float64 if is_double else pl.Float32,
        **dict.fromkeys(TOKEN_AXES, pl.String),
    }


def make_frames(attention: Attention, *, is_double: bool) -> Iterator[pl.DataFrame]:
    """Yield the rows of a result in blocks; `value` is 1 or 0 for a step of booleans."""
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
    format_name: str, file: IO[bytes], frames: Iterator[pl.DataFrame], record: Json, *, is_double: bool = True
) -> None:
    """Write rows to a file as they come, in groups of rows; the same rows make the same bytes.

    Args:
        format_name: parquet or feather.
        file: open for writing.
        frames: blocks of rows, with the columns of `table_schema`.
        record: what stands beside the table, in Parquet.
        is_double: whether `value` is float64.

    Raises:
        OSError: it cannot be written.
    """
    import polars as pl
    from polars.io.plugins import register_io_source

    table = register_io_source(lambda *_: frames, schema=table_schema(is_double=is_double))
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
