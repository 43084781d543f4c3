"""Which rows meet which columns: the grid in tiles of query rows × the span of keys that those rows can reach.

A tile holds every key that its rows may see, so that each normaliser works on whole rows and nothing is computed twice.
Dense is one tile that holds everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from attncli.plan import Plan
from attncli.types import NumpyArray

Ranges = list[tuple[NumpyArray, ...]]  # (n,) each: the first key and one past the last, for a few stretches
Slice: TypeAlias = "slice[Any, Any, Any]"
Keys = tuple[Slice, ...]  # in order, and apart from each other
Progress = Callable[[float], None]  # told how much of the work is done, 0 … 1
ALL: Slice = slice(None)
_NEAR = 64  # keys between two stretches that are computed rather than put side by side without them
_SMALL = 2**16  # cells that cost less than the calls they are computed by
_KEPT = 2**25 - 2**13  # bytes: the largest block whose return makes glibc reuse memory of that size, not hand it back


class Tile(NamedTuple):
    """Some query rows, of some batch items and heads, and the keys that they can reach."""

    batch: Slice = ALL
    heads: Slice = ALL
    rows: Slice = ALL
    keys: Keys = (ALL,)

    @property
    def width(self) -> int:
        """How many keys that are."""
        return sum(keys.stop - keys.start for keys in self.keys)

    def of(self, x: Tensor, columns: bool = True) -> Tensor:
        """Its part of an array that broadcasts to (b, h, n, m), or to (b, h, n, ·) if it has no columns."""
        one = columns and len(self.keys) == 1
        cuts = (self.batch, self.heads, self.rows, self.keys[0] if one else ALL)
        x = x[tuple(cut if n > 1 else ALL for cut, n in zip(cuts, x.shape, strict=True))]
        return taken(x, self.keys, -1) if columns and not one and x.shape[-1] > 1 else x

    def of_keys(self, x: Tensor) -> Tensor:
        """Its part of (b, h, m, ·)"""
        return taken(x[self.batch, self.heads], self.keys, 2)


def taken(x: Tensor, keys: Keys, axis: int) -> Tensor:
    """Some keys of an array, side by side; a view of it where they are one stretch."""
    parts = [x[(*(ALL,) * (axis % x.ndim), part)] for part in keys]
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


def tiles(plan: Plan) -> Iterator[Tile]:
    """The tiles of a plan, in the order of the grid."""
    if not plan.tile:
        yield Tile()
        return
    torch.empty(_KEPT, dtype=torch.uint8)  # made and given back: from now on tiles reuse each other's memory
    b, h, n, m = plan.size.batch or 1, plan.shapes.heads, plan.length("scores", "query"), plan.size.keys
    reach = plan.spans()
    together = h if not plan.variant.head_mixing.is_none else max(1, min(h, plan.tile // (n * m)))
    for i in range(b):
        ranges: Ranges | None = None if reach is None else [tuple(end[i % len(end)] for end in span) for span in reach]
        for first in range(0, h, together):
            for rows, keys in _cut(n, m, plan.tile // together, ranges, even=plan.schedule == "fused"):
                yield Tile(slice(i, i + 1), slice(first, first + together), rows, keys)


def _cut(n: int, m: int, most: int, ranges: Ranges | None, *, even: bool) -> Iterator[tuple[Slice, Keys]]:
    """Rows in blocks of at most `most` cells; unless `even`, fewer where the rows of a block reach for different keys."""
    bend = ranges is not None and not even
    row, take = 0, 256 if bend else max(1, most // m)
    while row < n:
        rows = slice(row, min(n, row + take))
        keys, own = _reached(ranges, rows) if ranges is not None else ((slice(0, m),), 0)
        width = Tile(keys=keys).width
        size = (rows.stop - row) * width
        if bend and take > 1 and size > min(most, max(2 * own, _SMALL)):
            take = max(1, min(take // 2, most // width))
            continue
        yield rows, keys
        row, take = rows.stop, 2 * take if bend else take


def _reached(ranges: Ranges, rows: Slice) -> tuple[Keys, int]:
    """The keys that some rows reach together, and about how many cells they reach, each by itself."""
    hulls: list[tuple[int, int]] = []
    own = 0
    for first, last in ((first[rows], last[rows]) for first, last in ranges):
        some = first < last
        if some.any():
            hulls.append((int(first[some].min()), int(last[some].max())))
            own += int((last - first)[some].sum())
    stretches: list[tuple[int, int]] = []
    for start, stop in sorted(hulls):
        before = stretches.pop() if stretches and start - stretches[-1][1] < _NEAR else (start, stop)
        stretches.append((before[0], max(before[1], stop)))
    if not stretches:
        return (slice(0, 1),), 0  # a row has at least one key, if none that it sees
    return tuple(slice(first, last) for first, last in stretches), own


def joined(plan: Plan, parts: Iterator[tuple[Tile, Tensor | None]], progress: Progress | None = None) -> Tensor | None:
    """What the tiles make of v, put together: (b, h', n, c)"""
    b, h, n = plan.size.batch or 1, plan.shapes.heads, plan.length("scores", "query")
    whole: Tensor | None = None
    done = 0
    for tile, z in parts:
        if tile == Tile():
            return z
        if z is not None:
            if whole is None:
                whole = z.new_empty((b, plan.shapes.mixed_heads, n, z.shape[-1]))
            tile.of(whole, columns=False)[:] = z
        done += math.prod(len(range(size)[cut]) for size, cut in zip((b, h, n), tile[:3], strict=True))
        if progress:
            progress(min(1.0, done / (b * h * n)))
    return whole


class Stream:
    """Booleans drawn over the whole grid in its order, handed out tile by tile: a seed is one pattern, however it is run."""

    def __init__(self, draw: Callable[[tuple[int, ...]], Tensor], generator: torch.Generator, plan: Plan) -> None:
        self.draw, self.generator, self.plan = draw, generator, plan
        self.n, self.m = plan.size.queries, plan.size.keys
        self.row = 0  # how many rows have been drawn, counted through batch and heads
        self.begins = {0: generator.get_state()}  # the generator where the rows of each head begin

    def of(self, tile: Tile) -> Tensor:
        """Its part: (b, h, n, m)"""
        b, h = self.plan.size.batch or 1, self.plan.shapes.heads
        if tile == Tile() and self.plan.rows is None:
            return self.draw((b, h, self.n, self.m))
        rows = (np.arange(self.n) if self.plan.rows is None else self.plan.rows)[tile.rows]  # (n,)
        order = np.argsort(rows, kind="stable")
        runs = np.split(order, np.flatnonzero(np.diff(rows[order]) != 1) + 1)  # rows that follow each other
        items, heads = range(b)[tile.batch], range(h)[tile.heads]
        out = torch.empty(len(items), len(heads), len(rows), self.m, dtype=torch.bool)  # (b, h, n, m)
        for i, item in enumerate(items):
            for j, head in enumerate(heads):
                for run in runs:
                    self._seek((item * h + head) * self.n + int(rows[run[0]]))
                    out[i, j, run] = self._rows(len(run))
        return taken(out, tile.keys, -1)

    def resume(self, begins: dict[int, Tensor]) -> None:
        """Go on from where streams of the same draws have been, and let others go on from where this one will be."""
        begins.update(self.begins)
        self.begins = begins

    def mark(self) -> None:
        """Remember where it is."""
        self.begins[self.row] = self.generator.get_state()

    def _seek(self, row: int) -> None:
        nearest = max(begin for begin in [*self.begins] if begin <= row)
        if row < self.row or self.row < nearest:
            self.row = nearest
            self.generator.set_state(self.begins[nearest])
        while self.row < row:
            self._rows(min(row - self.row, self.n - self.row % self.n, max(1, 2**20 // self.m)))

    def _rows(self, count: int) -> Tensor:
        """The next so many rows, of one head: (·, m)"""
        drawn = self.draw((count, self.m))
        self.row += count
        if self.row % self.n == 0:
            self.mark()
        return drawn
