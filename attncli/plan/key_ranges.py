"""Find which keys each query can reach, before any score is made, from what masks declare. Entry: `find_key_ranges`.

A range holds every key that the query may see, and perhaps others: positions need not be sorted, and of a mask under
`not` nothing is known.
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from attncli.mask_expression import MaskExpression
from attncli.parts.traits import MaskTraits
from attncli.registry import Part
from attncli.types import Array, Grid, NumpyArray

KeyRange = tuple[NumpyArray, NumpyArray]  # (b, n) each: the first key, and one past the last; empty where equal
KeyRanges = tuple[KeyRange, ...]  # each query reaches the keys of all of them
_MAX_KEY_RANGES = 4  # more of them are replaced by one around them all


def find_key_ranges(grid: Grid, mask: MaskExpression | None) -> KeyRanges | None:
    """Return the ranges of each query, from mask and lengths; None where every query may reach every key."""
    ranges = _expression_ranges(mask, grid) if mask else None
    if grid.lengths is None:
        return ranges
    first = np.zeros((1, grid.q_idx.shape[2]), np.int64)  # (1, n)
    last = grid.lengths[:, 0, 0] + np.zeros_like(grid.q_idx[0, 0, :, 0])  # (b, n)
    unpadded = ((first, last),)
    return unpadded if ranges is None else _intersect_ranges(ranges, unpadded)


def _expression_ranges(expr: MaskExpression, grid: Grid) -> KeyRanges | None:
    if expr.part:
        return _declared_ranges(expr.part, grid)
    if expr.kind == "not":
        return None
    of_operands = [_expression_ranges(operand, grid) for operand in expr.operands]
    bounded = [ranges for ranges in of_operands if ranges is not None]
    if expr.kind == "and":
        return functools.reduce(_intersect_ranges, bounded) if bounded else None
    if len(bounded) < len(of_operands):
        return None
    return _merge_ranges([key_range for ranges in bounded for key_range in ranges])


def _intersect_ranges(left: KeyRanges, right: KeyRanges) -> KeyRanges:
    """Return the keys that both reach: each range of the one intersected with each of the other."""
    return _merge_ranges([(np.maximum(a[0], b[0]), np.minimum(a[1], b[1])) for a in left for b in right])


def _merge_ranges(ranges: list[KeyRange]) -> KeyRanges:
    """Return the ranges in which some query reaches a key; of many, one around them all."""
    filled = [(first, last) for first, last in ranges if (first < last).any()] or ranges[:1]
    return tuple(filled) if len(filled) <= _MAX_KEY_RANGES else (functools.reduce(_enclosing_range, filled),)


def _enclosing_range(left: KeyRange, right: KeyRange) -> KeyRange:
    """Return the range around both, query by query; an empty one adds nothing."""
    left_is_empty, right_is_empty = left[0] >= left[1], right[0] >= right[1]
    infinity = np.iinfo(np.int64).max
    first = np.minimum(np.where(left_is_empty, infinity, left[0]), np.where(right_is_empty, infinity, right[0]))
    last = np.maximum(np.where(left_is_empty, 0, left[1]), np.where(right_is_empty, 0, right[1]))
    return first, last


def _declared_ranges(part: Part[MaskTraits], grid: Grid) -> KeyRanges | None:
    """Return the ranges that a mask declares of itself; None: it may see every key."""
    reachable_keys = part.traits.reachable_keys
    if reachable_keys is None:
        return None
    grid = grid.for_masks
    return _merge_ranges([_range_between(grid, *bounds) for bounds in reachable_keys(grid, part)])


def _range_between(grid: Grid, field: str, low: Array | None, high: Array | None) -> KeyRange:
    """Return the keys whose field lies between two bounds, (b, 1, n, 1) each or None.

    The range goes from the first key that is not too low to the last that is not too high; others may lie between.
    """
    values = getattr(grid, field)[:, 0, 0]  # (b, m)
    rising = np.maximum.accumulate(values, -1)  # (b, m): the greatest up to there
    falling = np.minimum.accumulate(values[:, ::-1], -1)[:, ::-1]  # (b, m): the least from there on
    n = grid.q_idx.shape[2]

    def find_columns(
        bound: Array | None, sorted_values: NumpyArray, side: Literal["left", "right"], default: int
    ) -> NumpyArray:  # (b, n)
        if bound is None:
            return np.full((1, n), default)
        bound = np.broadcast_to(bound[:, 0, :, 0], (len(bound), n))  # (b, n)
        item_count = max(len(bound), len(sorted_values))  # either may be the same for all of a batch
        of_items = (
            np.searchsorted(sorted_values[i % len(sorted_values)], bound[i % len(bound)], side)
            for i in range(item_count)
        )
        return np.stack([*of_items])

    return find_columns(low, rising, "left", 0), find_columns(high, falling, "right", values.shape[1])
