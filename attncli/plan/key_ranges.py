"""Which keys a query can reach at all, before any score is made: spans of columns, from what masks declare.

A span holds every key that the query may see, and perhaps others: positions need not be sorted, and `not` says nothing.
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from attncli.mask_expression import MaskExpression
from attncli.parts.traits import MaskTraits
from attncli.registry import Part
from attncli.types import Array, Grid, NumpyArray

KeyRange = tuple[NumpyArray, NumpyArray]  # (b, n) each: the first key, and one past the last; empty where they meet
KeyRanges = tuple[KeyRange, ...]  # each query reaches the keys of all of them
_MAX_KEY_RANGES = 4  # beyond so many, one around them all


def find_key_ranges(grid: Grid, mask: MaskExpression | None) -> KeyRanges | None:
    """The spans of each query, from mask and lengths; None where every query may reach every key."""
    found = _expression_ranges(mask, grid) if mask else None
    if grid.lengths is not None:
        padded = (
            np.zeros((1, grid.q_idx.shape[2]), np.int64),
            grid.lengths[:, 0, 0] + np.zeros_like(grid.q_idx[0, 0, :, 0]),
        )
        found = (padded,) if found is None else _intersect_ranges(found, (padded,))
    return found


def _expression_ranges(expr: MaskExpression, grid: Grid) -> KeyRanges | None:
    if expr.part:
        return _declared_ranges(expr.part, grid)
    found = [_expression_ranges(term, grid) for term in expr.operands]
    if expr.kind == "not" or (expr.kind == "or" and None in found):
        return None
    there = [spans for spans in found if spans is not None]
    if expr.kind == "or":
        return _merge_ranges([span for spans in there for span in spans])
    return functools.reduce(_intersect_ranges, there) if there else None


def _intersect_ranges(one: KeyRanges, other: KeyRanges) -> KeyRanges:
    """Where both reach: a span of the one and a span of the other, each with each."""
    return _merge_ranges([(np.maximum(a[0], b[0]), np.minimum(a[1], b[1])) for a in one for b in other])


def _merge_ranges(ranges: list[KeyRange]) -> KeyRanges:
    """Those in which some query reaches something; around them all, if they are many."""
    there = [span for span in ranges if (span[0] < span[1]).any()] or ranges[:1]
    return tuple(there) if len(there) <= _MAX_KEY_RANGES else (functools.reduce(_hull, there),)


def _hull(one: KeyRange, other: KeyRange) -> KeyRange:
    """The span around both; an empty one adds nothing."""
    none, far = one[0] >= one[1], np.iinfo(np.int64).max
    void = other[0] >= other[1]
    first = np.minimum(np.where(none, far, one[0]), np.where(void, far, other[0]))
    return first, np.maximum(np.where(none, 0, one[1]), np.where(void, 0, other[1]))


def _declared_ranges(part: Part[MaskTraits], grid: Grid) -> KeyRanges | None:
    """What the mask declares of itself."""
    reachable = part.traits.reachable_keys
    return (
        None
        if reachable is None
        else _merge_ranges([_range_between(grid, *bounds) for bounds in reachable(grid, part)])
    )


def _range_between(grid: Grid, field: str, low: Array | None, high: Array | None) -> KeyRange:
    """The keys whose field is between two bounds, (b, 1, n, 1) each or None: from the first that is not too low to the last
    that is not too high, wherever the others lie."""
    held = getattr(grid, field)[:, 0, 0]  # (b, m)
    rising = np.maximum.accumulate(held, -1)  # (b, m)
    falling = np.minimum.accumulate(held[:, ::-1], -1)[:, ::-1]  # (b, m): the least from there on
    n = grid.q_idx.shape[2]

    def find_columns(
        bound: Array | None, values: NumpyArray, side: Literal["left", "right"], default: int
    ) -> NumpyArray:  # (b, n)
        if bound is None:
            return np.full((1, n), default)
        bound = np.broadcast_to(bound[:, 0, :, 0], (len(bound), n))  # (b, n)
        items = range(max(len(bound), len(values)))  # either may be the same for all of a batch
        return np.stack([np.searchsorted(values[i % len(values)], bound[i % len(bound)], side) for i in items])

    return find_columns(low, rising, "left", 0), find_columns(high, falling, "right", held.shape[1])
