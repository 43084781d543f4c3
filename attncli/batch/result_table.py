"""All results of a batch in one table: each input's rows in a file of their own first, then all of them, in the order of the inputs.

So any process may compute an input, and whatever is written appears whole or not at all. Entries: `write_rows` and `merge_rows`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attncli import __version__
from attncli.atomic_file import atomic_write
from attncli.types import Attention, Json

if TYPE_CHECKING:
    import polars as pl

TABLE_SCHEMA_ID = "attn.table/1"
ROWS_FORMAT = "parquet"  # of the files that are merged
_ROWS_AT_ONCE = 2**17
_MAX_NAMED_RESULTS = 100_000  # in the list of variants; of more only the variants are listed


def write_rows(path: Path, results: Iterable[Attention]) -> int:
    """Write the rows of one input's results into a file, and beside it what they are; return the file's size.

    The rows have all columns that there can be, since what is in the last result is not known before the first is written.

    Raises:
        CannotError: they cannot be written.
    """
    from attncli.writers.parquet import find_result_columns, make_frames, table_schema, write_table

    names_by_variant: dict[str, list[str]] = {}
    columns: set[str] = set()

    def frames() -> Iterator[pl.DataFrame]:
        for attention in results:
            name = attention.source if attention.line is None else f"{attention.source}:{attention.line}"
            names_by_variant.setdefault(json.dumps(attention.variant), []).append(name)
            columns.update(find_result_columns(attention))
            yield from make_frames(attention, is_double=True)

    with atomic_write(path, durable=False) as file:
        write_table(ROWS_FORMAT, file, frames(), {}, table_schema(is_double=True))
    with atomic_write(_contents_path(path), durable=False) as file:
        file.write(json.dumps({"variants": names_by_variant, "columns": sorted(columns)}).encode())
    return path.stat().st_size


def merge_rows(path: Path, format_name: str, row_files: Sequence[Path]) -> None:
    """Write the rows of some files, one after the other, as one table, with those columns alone of which some hold something.

    A table of many is not in memory at any time.

    Raises:
        CannotError: it cannot be written.
    """
    from attncli.writers.parquet import table_schema, write_table

    contents = [json.loads(_contents_path(row_file).read_bytes()) for row_file in row_files]
    schema = table_schema({name for content in contents for name in content["columns"]}, is_double=True)
    variants = _list_variants([content["variants"] for content in contents])
    record = {"schema": TABLE_SCHEMA_ID, "attn_version": __version__, "variants": variants}
    target = path if path.exists() and not path.is_file() else path.resolve()  # what a link points to is replaced
    with atomic_write(target, str(path)) as file:
        write_table(format_name, file, _read_frames(row_files, list(schema)), record, schema)


def _read_frames(row_files: Sequence[Path], columns: list[str]) -> Iterator[pl.DataFrame]:
    import polars as pl

    for path in row_files:
        rows = pl.scan_parquet(path).select(columns)
        row_count = rows.select(pl.len()).collect().item()
        for start in range(0, row_count, _ROWS_AT_ONCE):
            yield rows.slice(start, _ROWS_AT_ONCE).collect()
        with suppress(OSError):
            path.unlink()  # room for the table that is being written


def _list_variants(variants_of_files: Sequence[dict[str, list[str]]]) -> list[Json]:
    """Return every variant once; where there are several, with the names of the results that are of it."""
    names_by_variant: dict[str, list[str]] = {}
    for names_by_variant_of_file in variants_of_files:
        for variant, names in names_by_variant_of_file.items():
            names_by_variant.setdefault(variant, []).extend(names)
    are_named = len(names_by_variant) > 1 and sum(map(len, names_by_variant.values())) <= _MAX_NAMED_RESULTS
    return [
        {"variant": json.loads(variant), **({"results": names} if are_named else {})}
        for variant, names in names_by_variant.items()
    ]


def _contents_path(path: Path) -> Path:
    """Where it stands of which variants the rows of a file are, and of which columns they hold something."""
    return path.with_suffix(".contents.json")
