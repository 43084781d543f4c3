"""Ask about long ("tidy") tables, in which each row holds one number of a vector. Entries: `find_long_table`,
`is_stacked_frame`, and `make_result_error` for those that attn writes itself.

`token,dim,value` says in rows what `token,d0,d1` says in columns. Its names may be those of two dimensions as well, so
both readings are spelled.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from attncli.errors import InputError
from attncli.readers.source import Source
from attncli.types import AXES

_DIMENSION_NAMES = frozenset({
    "dim", "dims", "dim_id", "dim_index", "dimension", "dimensions", "component", "components", "feature", "features",
    "feature_id", "variable", "variables", "column", "columns", "col", "axis", "coordinate", "channel",
})  # fmt: skip
_VALUE_NAMES = frozenset({
    "value", "values", "val", "vals", "weight", "weights", "number", "score", "entry",
})  # fmt: skip
_MAX_KEYS = 3  # columns that say whose number it is: a document, a position, a token
_READ_FRAME = {
    "parquet": "polars.read_parquet(sys.argv[1])",
    "arrow": "polars.read_ipc(sys.argv[1])",
    "ndjson-tokens": "polars.read_ndjson(sys.argv[1])",
    "json": "polars.DataFrame(json.loads(pathlib.Path(sys.argv[1]).read_bytes()))",
}


@dataclass(frozen=True)
class LongTable:
    """A table of which each row may hold one number."""

    keys: tuple[str, ...]  # the names of the columns that say whose number it is
    dimension: str
    value: str

    @property
    def message(self) -> str:
        """The question which reading it is."""
        return f"columns {self.dimension!r} and {self.value!r}: does each row hold one number of a vector, or are they two dimensions?"

    def spell_readings(
        self,
        source: Source,
        separator: str = ",",
        *,
        header: Sequence[str] = (),
        skip_rows: int = 0,
        dimensions: str = "",
    ) -> str:
        """Spell both readings: the command that makes a row a token, and the option that takes both as dimensions.

        Args:
            source: the file.
            separator: of its columns, if it is a text.
            header: names for the columns of a text that has none, or none that tell them apart.
            skip_rows: how many rows of the text come before the first token's, then.
            dimensions: the option that takes the columns as they stand; without it, that of the two by their names.
        """
        from attncli.readers.foreign_formats import spell_path

        keys = [key if re.fullmatch(r"[\w .:-]*", key) else "KEY" for key in self.keys]
        pivot = f".pivot('{self.dimension}', index={keys}, values='{self.value}')"
        dimensions = dimensions or source.spell_option("columns", f"{self.dimension},{self.value}")
        if source.is_value:
            return f"one number a row: polars.DataFrame(x){pivot}; two dimensions: {dimensions}"
        comma = ", decimal_comma=True" if separator == ";" else ""
        skipped = f", skip_rows={skip_rows}" if skip_rows else ""
        names = f", has_header=False{skipped}, new_columns={[*header]}" if header else ""
        read_text = f"polars.read_csv(sys.argv[1], separator={separator!r}{comma}, infer_schema_length=None{names})"
        frame = _READ_FRAME.get(source.format, read_text)
        modules = "json, pathlib, polars, sys" if "json." in frame else "polars, sys"
        code = f"import {modules}; {frame}{pivot}.write_parquet(sys.argv[2])"
        paths = f"{spell_path(source.name)} {spell_path(source.name, '.parquet')}"
        return f'one number a row: python -c "{code}" {paths}; two dimensions: {dimensions}'


def find_long_table(names: Sequence[str]) -> LongTable | None:
    """Return the long table that columns of these names may be; None where they are no such names.

    Args:
        names: of all columns that are read.
    """
    lowered = [name.lower() for name in names]
    dimensions = [name for name, low in zip(names, lowered, strict=True) if low in _DIMENSION_NAMES]
    values = [name for name, low in zip(names, lowered, strict=True) if low in _VALUE_NAMES]
    if len(dimensions) != 1 or len(values) != 1:
        return None
    keys = tuple(name for name in names if name not in (dimensions[0], values[0]))
    if len(keys) != len(names) - 2 or not 1 <= len(keys) <= _MAX_KEYS:
        return None
    are_dimensions = any(re.fullmatch(r"\D*\d+", key) and key.lower() not in _DIMENSION_NAMES for key in keys)
    return None if are_dimensions else LongTable(keys, dimensions[0], values[0])


def is_stacked_frame(names: Sequence[str]) -> bool:
    """Tell whether columns have the names that pandas' `stack` leaves: none for the dimensions, 0 for the numbers."""
    return (
        3 <= len(names) <= _MAX_KEYS + 2 and names[-1] == "0" and re.fullmatch(r"(level_\d+)?", names[-2]) is not None
    )


def is_result(names: Sequence[str]) -> bool:
    """Tell whether columns of these names are the tidy rows that attn writes of a result."""
    return {"step", "value"} <= {*names} and not {*AXES}.isdisjoint(names)


def make_result_error(suffix: str) -> InputError:
    """Make the error of tidy rows of a result that are given as an input.

    Args:
        suffix: of a file in which vectors would be read.
    """
    return InputError(
        "not-a-problem",
        "these are the steps of a result of attn, and no vectors of tokens",
        help=f"compute its input again; --only context -o NEW{suffix} writes vectors alone, which are read",
    )
