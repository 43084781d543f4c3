"""Sets of indices in words: runs, blocks of a power of two, every n-th. `describe_indices` is the entry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attncli.text import join_names
from attncli.types import NumpyArray

_PLURALS = {"query": "queries", "batch": "batch items"}  # of the others: with an s
_SINGULARS = {"batch": "batch item", "kv_head": "kv head", "new_key": "new key"}
_MIN_POWER = 4  # a multiple of 2 says nothing
_MAX_RUNS = 4  # that are listed
_MIN_PERIODS = 3  # repetitions from which on a pattern is one


def axis_noun(axis: str, count: int = 1) -> str:
    """What the indices of an axis are called: head, heads."""
    singular = _SINGULARS.get(axis, axis)
    return singular if count == 1 else _PLURALS.get(axis, f"{singular}s")


@dataclass(frozen=True)
class Run:
    """Indices that follow each other."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"

    @property
    def words(self) -> str:
        """The run where nothing else is listed beside it: 0 and 1, 0 to 2."""
        return f"{self.first} and {self.last}" if self.last == self.first + 1 else str(self)


def find_runs(is_in: NumpyArray, indices: NumpyArray) -> list[Run]:
    """Find the runs of the indices that are in a set: is_in (n), indices (n)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_in, [False]]).astype(np.int8)))
    return [Run(int(indices[a]), int(indices[b - 1])) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def power_of_two_of(index: int) -> int:
    """The largest power of two that an index is a multiple of; 0 for index 0, which is a multiple of all."""
    return index & -index


def describe_indices(is_in: NumpyArray, indices: NumpyArray, axis: str) -> str:
    """Describe which indices of an axis are in a set: `queries 128 to 511 (128 is a multiple of 128)`.

    Args:
        is_in: of each index, (n).
        indices: ascending, (n).
        axis: its name.

    Returns:
        The words; empty where all of them are in the set.
    """
    if is_in.all():
        return ""
    count = int(is_in.sum())
    runs, gaps = find_runs(is_in, indices), find_runs(~is_in, indices)
    if len(runs) == 1:
        return f"{axis_noun(axis, count)} {runs[0].words}{_describe_block(runs[0], indices)}"
    if len(gaps) == 1 and count > 2:
        return f"all {axis_noun(axis, 2)} but {gaps[0].words}{_describe_block(gaps[0], indices)}"
    periodic = _describe_period(is_in, indices, axis)
    if periodic:
        return periodic
    if len(runs) <= _MAX_RUNS:
        return f"{axis_noun(axis, count)} {join_names(runs)}"
    return f"{count} of {len(indices)} {axis_noun(axis, 2)}: {join_names(runs, max_names=_MAX_RUNS)}"


def _describe_block(run: Run, indices: NumpyArray) -> str:
    """Say that a run begins or ends at a multiple of a power of two, as blocks of a kernel do."""
    length = run.last - run.first + 1
    if length == 1:
        return ""
    ends_inside = run.last != indices[-1]
    if ends_inside and length >= _MIN_POWER and power_of_two_of(length) == length and run.first % length == 0:
        return f" (a block of {length})"
    edge = run.first or (run.last + 1 if ends_inside else 0)
    power = power_of_two_of(edge)
    return f" ({edge} is a multiple of {power})" if power >= _MIN_POWER else ""


def _describe_period(is_in: NumpyArray, indices: NumpyArray, axis: str) -> str:
    """Describe a set that repeats: `every 4th query, from 3 on`; empty where it does not."""
    n = len(is_in)
    for period in range(2, n // _MIN_PERIODS + 1):
        if not (is_in[period:] == is_in[:-period]).all():
            continue
        pattern = np.flatnonzero(is_in[:period])
        noun = axis_noun(axis)
        if len(pattern) == 1:
            return f"every {_ordinal(period)} {noun}, from {int(indices[pattern[0]])} on"
        runs = find_runs(is_in[:period], np.arange(period))
        return f"{join_names(runs)} of every {period} {axis_noun(axis, 2)}"
    return ""


def _ordinal(n: int) -> str:
    """2nd, 3rd, 4th."""
    suffix = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"
