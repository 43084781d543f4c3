"""Where the wrong figures of a claim are: by axis, as a share of what is there, and as a small map. `locate_errors` is the entry.

Nothing is computed again and nothing searched for, so it costs the same whatever the variant.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from attncli.check.claim_grid import ClaimGrid, make_claim_grid
from attncli.check.comparison import Comparison
from attncli.check.index_sets import axis_noun, describe_indices
from attncli.check.row_patterns import describe_wrong_rows
from attncli.types import NumpyArray
from attncli.verdict import AxisRegion, ErrorMap, ErrorRegion

_MAX_MAP_HEADS = 128  # of all batch items
_MAX_MAP_ROWS = 16  # of queries
_MAX_MAP_COLUMNS = 64
_MIN_MAP_CELLS = 8
_HEAD_AXES = ("batch", "head", "kv_head")


def locate_errors(comparison: Comparison, claim_index: int) -> ErrorRegion:
    """Find out where the wrong figures of a claim are, and what the rows that hold them look like.

    Args:
        comparison: of all claims.
        claim_index: a claim with a wrong figure.
    """
    claim = comparison.task.claims[claim_index]
    grid = make_claim_grid(comparison, claim_index)
    if grid is None:
        is_wrong = ~comparison.cell_comparisons[claim_index].is_right
        return _make_region(is_wrong, claim.axes, claim.index)
    region = _make_region(grid.is_wrong, grid.axes, np.ix_(*grid.indices))
    observations = describe_wrong_rows(comparison, grid)
    return replace(region, observations=tuple(observations), error_map=_draw_map(grid))


def _make_region(is_wrong: NumpyArray, axes: tuple[str, ...], index: tuple[NumpyArray, ...]) -> ErrorRegion:
    """Describe the indices of wrong figures on each axis.

    Args:
        is_wrong: of each figure.
        axes: of the step.
        index: of each figure on each axis, or the sides of an open mesh.
    """
    regions: list[AxisRegion] = []
    is_inside = np.ones(is_wrong.shape, bool)
    for axis, side in zip(axes, index, strict=True):
        indices, is_in, is_in_by_cell = _wrong_indices(is_wrong, side)
        is_inside &= is_in_by_cell
        wrong = tuple(map(int, indices[is_in]))
        regions.append(AxisRegion(axis, wrong, len(indices), describe_indices(is_in, indices, axis)))
    return ErrorRegion(tuple(regions), float(is_wrong.sum() / is_inside.sum()))


def _wrong_indices(is_wrong: NumpyArray, index: NumpyArray) -> tuple[NumpyArray, NumpyArray, NumpyArray]:
    """Find the claimed indices of one axis, which of them have a wrong figure, and of each figure whether its index has.

    Args:
        is_wrong: of each figure.
        index: of each figure on the axis, or one side of an open mesh.
    """
    indices, position = np.unique(index, return_inverse=True)
    position = position.reshape(index.shape)
    if index.size == is_wrong.size:
        wrong_positions = position.reshape(is_wrong.shape)[is_wrong]
    else:  # an open mesh: all but one of the lengths are 1
        others = tuple(i for i, n in enumerate(index.shape) if n == 1)
        wrong_positions = position.ravel()[is_wrong.any(axis=others)]
    is_in = np.zeros(len(indices), bool)
    is_in[wrong_positions] = True
    return indices, is_in, np.broadcast_to(is_in[position], is_wrong.shape)


class _Bins(NamedTuple):
    """The indices of an axis in bins of equal size."""

    starts: NumpyArray
    ends: NumpyArray


def _make_bins(length: int, max_count: int) -> _Bins:
    size = 1
    while -(-length // size) > max_count:
        size *= 2
    starts = np.arange(0, length, size)
    return _Bins(starts, np.minimum(starts + size, length))


def _draw_map(grid: ClaimGrid) -> ErrorMap | None:
    """Draw heads against queries, or queries against keys or dims; None where the words say as much."""
    is_wrong, axes, labels = grid.is_wrong, grid.axes, grid.indices
    if not axes or is_wrong.all():
        return None
    heads = [i for i, axis in enumerate(axes) if axis in _HEAD_AXES and is_wrong.shape[i] > 1]
    others = [i for i, axis in enumerate(axes) if axis not in _HEAD_AXES]
    if not others:
        return None
    row_labels: list[str]
    if heads:
        column = others[0]
        shares = is_wrong.mean(axis=tuple(i for i in range(len(axes)) if i not in (*heads, column)))
        shares = shares.reshape(-1, is_wrong.shape[column])
        names = np.meshgrid(*(labels[i] for i in heads), indexing="ij")
        row_labels = [" · ".join(map(str, each)) for each in zip(*(name.ravel() for name in names), strict=True)]
        row_axis = " · ".join(axis_noun(axes[i]) for i in heads)
        if len(row_labels) > _MAX_MAP_HEADS:  # those with errors first, in order
            chosen = sorted(np.argsort(-shares.max(axis=1), kind="stable")[:_MAX_MAP_HEADS])
            shares, row_labels = shares[chosen], [row_labels[i] for i in chosen]
    elif len(others) > 1:
        row, column = others[-2:]
        shares = is_wrong.mean(axis=tuple(i for i in range(len(axes)) if i not in (row, column)))
        bins = _make_bins(shares.shape[0], _MAX_MAP_ROWS)
        shares = _average_bins(shares, bins)
        row_axis = axis_noun(axes[row])
        row_labels = [
            str(labels[row][a]) if b == a + 1 else f"{labels[row][a]}–{labels[row][b - 1]}"
            for a, b in zip(*bins, strict=True)
        ]
    else:
        return None
    bins = _make_bins(shares.shape[1], _MAX_MAP_COLUMNS)
    shares = _average_bins(shares.T, bins).T
    if shares.size < _MIN_MAP_CELLS or (shares == shares.flat[0]).all():
        return None
    return ErrorMap(
        row_axis=row_axis,
        column_axis=axis_noun(axes[column]),
        row_labels=tuple(row_labels),
        column_ends=tuple(int(labels[column][end - 1]) + 1 for end in bins.ends),
        shares=tuple(tuple(float(x) for x in row) for row in shares),
    )


def _average_bins(shares: NumpyArray, bins: _Bins) -> NumpyArray:
    """Average rows within bins: (n, m) → (bins, m)."""
    return np.stack([shares[a:b].mean(axis=0) for a, b in zip(*bins, strict=True)])
