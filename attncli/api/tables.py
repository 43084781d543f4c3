"""Results as data frames and labelled arrays: of pandas, Polars and xarray, each where it is installed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import product
from types import ModuleType
from typing import TYPE_CHECKING

from attncli.arrays import as_numpy
from attncli.errors import CannotError, OptionError
from attncli.text import join_names
from attncli.types import Attention, Labels, Step

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped,unused-ignore]
    import polars
    import xarray  # type: ignore[import-not-found,unused-ignore]

_TOKEN_AXES = ("query", "key", "new_key")


def _require(library: str, function: str) -> ModuleType:
    """Import a library that is not among the dependencies.

    Raises:
        CannotError: it is not installed.
    """
    try:
        return import_module(library)
    except ImportError:
        message = f"{function} needs {library}, which is not installed"
        raise CannotError("missing-extra", message, help=f"pip install {library}") from None


def make_polars_frame(attention: Attention, step: str | None) -> polars.DataFrame:
    """Return a row for each number of one step, or of all: step, indices on every axis there is, value, tokens."""
    import polars

    from attncli.writers.parquet import find_result_columns, make_frames

    chosen = attention if step is None else dataclasses.replace(attention, steps=(attention[step],))
    frame = polars.concat(list(make_frames(chosen, is_double=attention.dtype == "float64")))
    return frame.select(find_result_columns(chosen))


def make_pandas_frame(attention: Attention, step: str | None) -> pandas.DataFrame:
    """Return one step with its rows and columns labelled, or every number of all steps in a row of its own."""
    library = _require("pandas", "to_pandas")
    if step is None:
        frame = make_polars_frame(attention, None)
        columns = {
            name: frame[name].to_list() if frame[name].null_count() else frame[name].to_numpy()
            for name in frame.columns
        }
        return library.DataFrame(columns)
    one = attention[step]
    values = as_numpy(one.values)
    *row_axes, column_axis = one.axes if len(one.axes) > 1 else (*one.axes, "")
    width = values.shape[-1] if column_axis else 1
    labels = _common_labels(attention, column_axis, width) if column_axis else [step]
    rows = list(_row_labels(attention, one, tuple(row_axes), values.shape[: len(row_axes)]))
    index = (
        library.MultiIndex.from_tuples(rows, names=row_axes)
        if len(row_axes) > 1
        else library.Index([r[0] for r in rows], name=row_axes[0])
    )
    column_index = library.Index(labels, name=column_axis or None)
    return library.DataFrame(values.reshape(-1, width), index=index, columns=column_index)


def make_data_array(attention: Attention, step: str | None) -> xarray.DataArray:
    """Return one step with its axes by name; coordinates are the indices, and beside them the tokens.

    Raises:
        OptionError: no step is named, and there are several.
        CannotError: xarray is not installed.
    """
    if step is None:
        names = [one.name for one in attention]
        if len(names) != 1:
            example = "weights" if "weights" in names else names[-1]
            message = f"a DataArray holds one step, and the result holds {join_names(names)}"
            raise OptionError("bad-option", message, help=f"result.to_xarray({example!r})")
        step = names[0]
    library = _require("xarray", "to_xarray")
    one = attention[step]
    values = as_numpy(one.values)
    coordinates: dict[str, object] = {}
    for axis, n in zip(one.axes, values.shape, strict=True):
        coordinates[axis] = list(attention.at.get(axis, range(n)))
        if axis in _TOKEN_AXES:
            items = _item_labels(attention, axis, n)
            has_batch = "batch" in one.axes and len(items) > 1
            coordinates[f"{axis}_token"] = (
                (("batch", axis), [list(x) for x in items]) if has_batch else (axis, list(items[0]))
            )
    attributes = {"formula": str(one.formula)}
    return library.DataArray(values, dims=one.axes, coords=coordinates, name=step, attrs=attributes)


# ── labels ───────────────────────────────────────────────────────────────────────────────────────
def _item_labels(attention: Attention, axis: str, length: int) -> Labels:
    """Return the labels of an axis for each batch item: tokens, or else indices."""
    tokens = attention.tokens if axis == "query" else attention.k_tokens if axis in _TOKEN_AXES else ()
    items = tokens if tokens and isinstance(tokens[0], tuple) else (tokens,)
    is_partial = axis == "new_key" and bool({"key", "new_key"} & {*attention.at})
    if not tokens or len(items[0]) < length or is_partial:
        return (tuple(attention.at.get(axis, range(length))),)
    return tuple(item[len(item) - length :] for item in items)  # new keys are the last


def _common_labels(attention: Attention, axis: str, length: int) -> Sequence[object]:
    """Return the labels of an axis that all batch items share; indices where they differ."""
    items = _item_labels(attention, axis, length)
    return items[0] if len(set(items)) == 1 else tuple(attention.at.get(axis, range(length)))


def _row_labels(
    attention: Attention, step: Step, axes: tuple[str, ...], shape: tuple[int, ...]
) -> Iterator[tuple[object, ...]]:
    """Yield the labels of each row: on every axis but the last."""
    labels = {axis: _item_labels(attention, axis, n) for axis, n in zip(axes, shape, strict=True)}
    for place in product(*map(range, shape)):
        item = place[axes.index("batch")] if "batch" in axes else 0
        yield tuple(labels[axis][item if len(labels[axis]) > 1 else 0][i] for axis, i in zip(axes, place, strict=True))
