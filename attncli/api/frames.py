"""Data frames as Polars frames, whichever library made them. Entry: `find_frame`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

from attncli.errors import InputError
from attncli.text import shorten

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped,unused-ignore]
    import polars
    from polars._typing import ArrowStreamExportable

    from attncli.arrays import NumpyArray

    _Column: TypeAlias = Sequence[object] | NumpyArray

_INDEX_NAME = "__index_level_0__"  # as pandas calls an index without a name in Parquet


def find_frame(value: object) -> polars.DataFrame | None:
    """Return a table of pandas, Polars, PyArrow, DuckDB or a structured array of NumPy as a Polars frame; None where it is none.

    Raises:
        InputError: it is one that is not read.
    """
    library = type(value).__module__.partition(".")[0]
    if library == "polars":
        return _of_polars(value)
    if library == "pandas":
        return _of_pandas(value)
    if _is_structured(value):
        return _make_frame({name: value[name] for name in value.dtype.names or ()})
    return _of_arrow(value) if _is_arrow_table(value) else None


def _is_structured(value: object) -> TypeGuard[NumpyArray]:
    """Whether a value is an array of records, as `numpy.genfromtxt(names=True)` returns it."""
    return bool(getattr(getattr(value, "dtype", None), "names", None)) and getattr(value, "ndim", 0) == 1


def _is_arrow_table(value: object) -> TypeGuard[ArrowStreamExportable]:
    return hasattr(value, "__arrow_c_stream__") and (hasattr(value, "columns") or not hasattr(value, "__array__"))


def _make_frame(columns: Mapping[str, _Column]) -> polars.DataFrame:
    import polars

    try:
        return polars.DataFrame([polars.Series(name, values, strict=False) for name, values in columns.items()])
    except Exception as error:  # Polars has many for values that are no column
        raise _not_read_error(error) from None


def _of_arrow(value: ArrowStreamExportable) -> polars.DataFrame:
    import polars

    try:
        return polars.DataFrame(value)
    except Exception as error:
        raise _not_read_error(error) from None


def _not_read_error(error: Exception) -> InputError:
    reason = shorten(str(error).partition("\n")[0])
    hint = "columns of numbers, one column of texts for the tokens; or give the numbers alone: frame[['d0', 'd1']].to_numpy()"
    return InputError("wrong-type", f"this table cannot be read: {reason}", help=hint)


def _of_polars(value: object) -> polars.DataFrame | None:
    import polars

    if isinstance(value, polars.LazyFrame):
        raise InputError("wrong-type", "a LazyFrame has no rows yet", help="frame.collect()")
    if isinstance(value, polars.Series):
        if value.dtype.is_numeric():  # an array (T,), as that of NumPy
            return None
        return polars.DataFrame([value.rename(value.name or "embedding")])
    return value if isinstance(value, polars.DataFrame) else None


def _of_pandas(value: object) -> polars.DataFrame | None:
    """Return a frame of pandas with its index, where that holds texts: they are tokens."""
    import pandas

    if isinstance(value, pandas.Series):
        if pandas.api.types.is_numeric_dtype(value.dtype):  # an array (T,), as that of NumPy
            return None
        value = value.to_frame(value.name if value.name is not None else "embedding")
    if not isinstance(value, pandas.DataFrame):
        return None
    names = list(map(str, value.columns))
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        message = f"two columns of the frame are called {shorten(twice)!r}"
        raise InputError("two-sources", message, help="rename one of them: frame.columns = […]")
    if isinstance(value.index, pandas.MultiIndex):
        message = "the frame has an index of several levels"
        raise InputError("wrong-type", message, help="frame.reset_index() makes columns of them")
    columns: dict[str, _Column] = {}
    if not pandas.api.types.is_integer_dtype(value.index.dtype):
        index_name = "index" if value.index.name is None else str(value.index.name)
        columns[_INDEX_NAME if index_name in names else index_name] = [str(label) for label in value.index]
    for i, name in enumerate(names):
        columns[name] = _column_of_pandas(value.iloc[:, i])
    return _make_frame(columns)


def _column_of_pandas(column: pandas.Series) -> _Column:
    """Return one column as an array of numbers or booleans, or a list of what else it holds, None for what is missing."""
    import pandas

    dtype = column.dtype
    if getattr(dtype, "kind", "O") in "iufb" and hasattr(dtype, "itemsize") and not column.isna().any():
        return column.to_numpy()
    return [
        item.tolist()
        if hasattr(item, "tolist")
        else None
        if item is None or item is pandas.NA or item != item
        else item
        for item in column
    ]
