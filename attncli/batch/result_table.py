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
    """Write the rows of one input's results into a file, and beside it the variants they are of; return the file's size.

    Raises:
        CannotError: they cannot be written.
    """
    from attncli.writers.parquet import make_frames, write_table

    names_by_variant: dict[str, list[str]] = {}

    def frames() -> Iterator[pl.DataFrame]:
        for attention in results:
            name = attention.source if attention.line is None else f"{attention.source}:{attention.line}"
            names_by_variant.setdefault(json.dumps(attention.variant), []).append(name)
            yield from make_frames(attention, is_double=True)

    with atomic_write(path, durable=False) as file:
        write_table(ROWS_FORMAT, file, frames(), {})
    with atomic_write(_variants_path(path), durable=False) as file:
        file.write(json.dumps(names_by_variant).encode())
    return path.stat().st_size


def merge_rows(path: Path, format_name: str, row_files: Sequence[Path]) -> None:
    """Write the rows of some files, one after the other, as one table; a table of many is not in memory at any time.

    Raises:
        CannotError: it cannot be written.
    """
    from attncli.writers.parquet import write_table

    record = {"schema": TABLE_SCHEMA_ID, "attn_version": __version__, "variants": _list_variants(row_files)}
    target = path if path.exists() and not path.is_file() else path.resolve()  # what a link points to is replaced
    with atomic_write(target, str(path)) as file:
        write_table(format_name, file, _read_frames(row_files), record)


def _read_frames(row_files: Sequence[Path]) -> Iterator[pl.DataFrame]:
    import polars as pl

    for path in row_files:
        rows = pl.scan_parquet(path)
        row_count = rows.select(pl.len()).collect().item()
        for start in range(0, row_count, _ROWS_AT_ONCE):
            yield rows.slice(start, _ROWS_AT_ONCE).collect()
        with suppress(OSError):
            path.unlink()  # room for the table that is being written


def _list_variants(row_files: Sequence[Path]) -> list[Json]:
    """Return every variant once; where there are several, with the names of the results that are of it."""
    names_by_variant: dict[str, list[str]] = {}
    for path in row_files:
        for variant, names in json.loads(_variants_path(path).read_bytes()).items():
            names_by_variant.setdefault(variant, []).extend(names)
    are_named = len(names_by_variant) > 1 and sum(map(len, names_by_variant.values())) <= _MAX_NAMED_RESULTS
    return [
        {"variant": json.loads(variant), **({"results": names} if are_named else {})}
        for variant, names in names_by_variant.items()
    ]


def _variants_path(path: Path) -> Path:
    return path.with_suffix(".variants.json")
