"""Which keys a query can reach at all, before any score is made: spans of columns, from what masks declare.

A span holds every key that the query may see, and perhaps others: positions need not be sorted, and `not` says nothing.
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from attncli.mask_expression import Expression
from attncli.parts.traits import MaskTraits
from attncli.registry import Part
from attncli.types import Array, Grid, NumpyArray

Span = tuple[NumpyArray, NumpyArray]  # (b, n) each: the first key, and one past the last; empty where they meet
Spans = tuple[Span, ...]  # each query reaches the keys of all of them
_MOST = 4  # beyond so many, one around them all


def spans(at: Grid, mask: Expression | None) -> Spans | None:
    """The spans of each query, from mask and lengths; None where every query may reach every key."""
    found = _of(mask, at) if mask else None
    if at.lengths is not None:
        padded = np.zeros((1, at.q_idx.shape[2]), np.int64), at.lengths[:, 0, 0] + np.zeros_like(at.q_idx[0, 0, :, 0])
        found = (padded,) if found is None else _both(found, (padded,))
    return found


def _of(expr: Expression, at: Grid) -> Spans | None:
    if expr.part:
        return _declared(expr.part, at)
    found = [_of(term, at) for term in expr.terms]
    if expr.word == "not" or (expr.word == "or" and None in found):
        return None
    there = [spans for spans in found if spans is not None]
    if expr.word == "or":
        return _few([span for spans in there for span in spans])
    return functools.reduce(_both, there) if there else None


def _both(one: Spans, other: Spans) -> Spans:
    """Where both reach: a span of the one and a span of the other, each with each."""
    return _few([(np.maximum(a[0], b[0]), np.minimum(a[1], b[1])) for a in one for b in other])


def _few(spans: list[Span]) -> Spans:
    """Those in which some query reaches something; around them all, if they are many."""
    there = [span for span in spans if (span[0] < span[1]).any()] or spans[:1]
    return tuple(there) if len(there) <= _MOST else (functools.reduce(_around, there),)


def _around(one: Span, other: Span) -> Span:
    """The span around both; an empty one adds nothing."""
    none, far = one[0] >= one[1], np.iinfo(np.int64).max
    void = other[0] >= other[1]
    first = np.minimum(np.where(none, far, one[0]), np.where(void, far, other[0]))
    return first, np.maximum(np.where(none, 0, one[1]), np.where(void, 0, other[1]))


def _declared(part: Part[MaskTraits], at: Grid) -> Spans | None:
    """What the mask declares of itself."""
    reachable = part.traits.reachable_keys
    return None if reachable is None else _few([_span(at, *bounds) for bounds in reachable(at, part)])


def _span(at: Grid, field: str, low: Array | None, high: Array | None) -> Span:
    """The keys whose field is between two bounds, (b, 1, n, 1) each or None: from the first that is not too low to the last
    that is not too high, wherever the others lie."""
    held = getattr(at, field)[:, 0, 0]  # (b, m)
    rising = np.maximum.accumulate(held, -1)  # (b, m)
    falling = np.minimum.accumulate(held[:, ::-1], -1)[:, ::-1]  # (b, m): the least from there on
    n = at.q_idx.shape[2]

    def places(
        bound: Array | None, held: NumpyArray, side: Literal["left", "right"], otherwise: int
    ) -> NumpyArray:  # (b, n)
        if bound is None:
            return np.full((1, n), otherwise)
        bound = np.broadcast_to(bound[:, 0, :, 0], (len(bound), n))  # (b, n)
        items = range(max(len(bound), len(held)))  # either may be the same for all of a batch
        return np.stack([np.searchsorted(held[i % len(held)], bound[i % len(bound)], side) for i in items])

    return places(low, rising, "left", 0), places(high, falling, "right", held.shape[1])
