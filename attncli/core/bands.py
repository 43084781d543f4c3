"""Which keys rows reach together, and equal bands: blocks of as many rows that reach as many keys, each further on by its rows.

A window has them nearly everywhere, and so have chunks; together they are computed as one batched product. Keys that stay
the same from band to band, such as those of global tokens, may be among them. Entries: `reachable_keys` and `find_bands`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from attncli.types import NumpyArray

ItemKeyRanges = list[tuple[NumpyArray, ...]]  # a few ranges of keys of each query: first key, last + 1; (n,) each
Slice: TypeAlias = "slice[Any, Any, Any]"  # its bounds are integers, but for those that select everything
KeySlices = tuple[Slice, ...]  # in order, without overlap
_MIN_SKIPPED_KEYS = 64  # fewer keys between two slices are computed rather than left out
_ROWS_PER_BAND = (32, 64, 128, 256, 512)  # of which the one is taken that computes the fewest scores
_SCORES_PER_BAND = 1000  # scores in whose time a band is begun
_SCORES_PER_TILE = 2**16  # scores in whose time a tile is begun
_MAX_REACHED_SHARE = 8  # a row reaches at most one in so many keys, or there are no bands
_MAX_WASTE = 2.5  # times the scores that are reached; rows of bands that compute more are divided in another way


class BandGroup(NamedTuple):
    """Bands that follow each other."""

    rows: Slice  # of all of them
    band_count: int
    keys: KeySlices  # of the first band
    shifts: tuple[int, ...]  # by how many keys each of these slices is further on in the next band
    is_wasteful: bool  # few of the scores are reached


class _Hulls(NamedTuple):
    """The keys that the rows of each band reach in each range: the first, and one past the last; (ranges, bands) each."""

    rows_per_band: int
    start: NumpyArray
    stop: NumpyArray

    def find_runs(self) -> list[tuple[int, int]]:
        """Return the runs of bands, first and one past the last, that reach keys by one pattern."""
        shift = np.diff(self.start, axis=1)  # (ranges, bands − 1)
        is_even = (shift == np.diff(self.stop, axis=1)) & ((shift == 0) | (shift == self.rows_per_band))
        continues = is_even.all(0)
        continues[1:] &= (shift[:, 1:] == shift[:, :-1]).all(0) | ~continues[:-1]
        # a run begins where the one before it ends, at the band after which the pattern changes
        ends = [*(np.flatnonzero(~continues) + 1).tolist(), self.start.shape[1]]
        return list(zip([0, *ends[:-1]], ends, strict=True))


def reachable_keys(ranges: ItemKeyRanges, rows: Slice) -> tuple[KeySlices, int]:
    """Return the keys that some rows reach together, and about how many scores they reach, each by itself."""
    hulls: list[tuple[int, int]] = []
    reachable_scores = 0
    for first, last in ((first[rows], last[rows]) for first, last in ranges):
        is_filled = first < last
        if is_filled.any():
            hulls.append((int(first[is_filled].min()), int(last[is_filled].max())))
            reachable_scores += int((last - first)[is_filled].sum())
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(hulls):
        is_near = bool(merged) and start - merged[-1][1] < _MIN_SKIPPED_KEYS
        before = merged.pop() if is_near else (start, stop)
        merged.append((before[0], max(before[1], stop)))
    if not merged:
        return (slice(0, 1),), 0  # a row has at least one key, even if it sees none
    return tuple(slice(start, stop) for start, stop in merged), reachable_scores


def find_bands(n: int, m: int, ranges: ItemKeyRanges) -> list[BandGroup] | None:
    """Return groups of bands, and of what lies between them, for all n rows; None where rows reach too many of the m keys."""
    reached = sum(int((last - first).clip(min=0).sum()) for first, last in ranges)
    if reached * _MAX_REACHED_SHARE > n * m:
        return None
    hulls = min((_find_hulls(n, rows, ranges) for rows in _ROWS_PER_BAND if rows <= n), key=_count_scores, default=None)
    return None if hulls is None else [*_iter_groups(n, ranges, hulls)]


def _find_hulls(n: int, rows_per_band: int, ranges: ItemKeyRanges) -> _Hulls:
    starts = np.arange(0, n, rows_per_band)
    bounds = []
    for first, last in ranges:
        is_filled = first < last
        low = np.minimum.reduceat(np.where(is_filled, first, np.iinfo(np.int64).max), starts)
        high = np.maximum.reduceat(np.where(is_filled, last, 0), starts)
        bounds.append((np.where(low < high, low, 0), high))
    return _Hulls(rows_per_band, np.stack([low for low, _ in bounds]), np.stack([high for _, high in bounds]))


def _count_scores(hulls: _Hulls) -> int:
    """About how many scores the bands compute, with what it takes to begin them."""
    scores = hulls.rows_per_band * int((hulls.stop - hulls.start).sum())
    return scores + _SCORES_PER_BAND * hulls.start.shape[1] + _SCORES_PER_TILE * len(hulls.find_runs())


def _iter_groups(n: int, ranges: ItemKeyRanges, hulls: _Hulls) -> Iterator[BandGroup]:
    """Yield groups in order; one whose bands do not have their slices of keys in common is halved."""
    size = hulls.rows_per_band
    runs = hulls.find_runs()[::-1]
    while runs:
        first, end = runs.pop()
        rows = slice(first * size, min(n, end * size))
        if rows.stop - rows.start < (end - first) * size and end - first > 1:
            runs += [(end - 1, end), (first, end - 1)]  # the last band is shorter
            continue
        first_rows = slice(rows.start, min(n, rows.start + size))
        keys, reached = reachable_keys(ranges, first_rows)
        last_keys, _ = reachable_keys(ranges, slice(max(rows.start, rows.stop - size), rows.stop))
        distance = rows.stop - size - rows.start
        moves = [after.start - before.start for before, after in zip(keys, last_keys, strict=False)]
        lengths = [[part.stop - part.start for part in parts] for parts in (keys, last_keys)]
        if end - first > 1 and (lengths[0] != lengths[1] or not {*moves} <= {0, distance}):
            middle = (first + end) // 2
            runs += [(middle, end), (first, middle)]
            continue
        scores = (first_rows.stop - first_rows.start) * sum(lengths[0])
        yield BandGroup(
            rows, end - first, keys, tuple(size if move else 0 for move in moves), scores > _MAX_WASTE * reached
        )
