"""Which keys a query can reach at all, before any score is made: spans of columns, from what masks declare.

A span holds every key that the query may see, and perhaps others: positions need not be sorted, and `not` says nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attncli.expression import Expression
from attncli.registry import Part
from attncli.types import Grid

Spans = tuple[np.ndarray, np.ndarray]  # (b, n) each: the first key, and one past the last; empty where they meet


def spans(at: Grid, mask: Expression | None) -> Spans | None:
    """The span of each query, from mask and lengths; None where every query may reach every key."""
    found = _of(mask, at) if mask else None
    if at.lengths is not None:
        padded = np.zeros((1, at.q_idx.shape[2]), np.int64), at.lengths[:, 0, 0] + np.zeros_like(at.q_idx[0, 0, :, 0])
        found = padded if found is None else _both(found, padded)
    return found


def _of(expr: Expression, at: Grid) -> Spans | None:
    if expr.part:
        return _declared(expr.part, at)
    found = [_of(term, at) for term in expr.terms]
    if expr.word == "not" or (expr.word == "or" and None in found):
        return None
    there = [span for span in found if span is not None]
    out = there[0] if there else None
    for span in there[1:]:
        assert out is not None
        out = _both(out, span) if expr.word == "and" else _either(out, span)
    return out


def _both(one: Spans, other: Spans) -> Spans:
    return np.maximum(one[0], other[0]), np.minimum(one[1], other[1])


def _either(one: Spans, other: Spans) -> Spans:
    """The span around both; an empty one adds nothing."""
    none, far = one[0] >= one[1], np.iinfo(np.int64).max
    void = other[0] >= other[1]
    first = np.minimum(np.where(none, far, one[0]), np.where(void, far, other[0]))
    return first, np.maximum(np.where(none, 0, one[1]), np.where(void, 0, other[1]))


def _declared(part: Part, at: Grid) -> Spans | None:
    """The keys whose field is between the bounds that the mask declares: from the first that is not too low to the last
    that is not too high, wherever the others lie."""
    reach = part.member.facts.get("reach")
    if reach is None:
        return None
    field, low, high = reach(at, part)  # (b, 1, n, 1) each, or None
    held = getattr(at, field)[:, 0, 0]  # (b, m)
    rising = np.maximum.accumulate(held, -1)  # (b, m)
    falling = np.minimum.accumulate(held[:, ::-1], -1)[:, ::-1]  # (b, m): the least from there on
    n = at.q_idx.shape[2]

    def places(bound: Any, held: np.ndarray, side: Any, otherwise: int) -> np.ndarray:  # (b, n)
        if bound is None:
            return np.full((1, n), otherwise)
        bound = np.broadcast_to(bound[:, 0, :, 0], (len(bound), n))  # (b, n)
        items = range(max(len(bound), len(held)))  # either may be the same for all of a batch
        return np.stack([np.searchsorted(held[i % len(held)], bound[i % len(bound)], side) for i in items])

    return places(low, rising, "left", 0), places(high, falling, "right", held.shape[1])
