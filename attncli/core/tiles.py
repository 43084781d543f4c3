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

ItemKeyRanges = list[tuple[NumpyArray, ...]]  # (n,) each: the first key and one past the last, for a few stretches
Slice: TypeAlias = "slice[Any, Any, Any]"
KeySlices = tuple[Slice, ...]  # in order, and apart from each other
ProgressCallback = Callable[[float], None]  # told how much of the work is done, 0 … 1
FULL_SLICE: Slice = slice(None)
_MIN_SKIPPED_KEYS = 64  # keys between two stretches that are computed rather than put side by side without them
_MIN_TILE_SCORES = 2**16  # cells that cost less than the calls they are computed by
_LARGEST_REUSED_BLOCK_BYTES = (
    2**25 - 2**13
)  # bytes: the largest block whose return makes glibc reuse memory of that size, not hand it back


class Tile(NamedTuple):
    """Some query rows, of some batch items and heads, and the keys that they can reach."""

    batch: Slice = FULL_SLICE
    heads: Slice = FULL_SLICE
    rows: Slice = FULL_SLICE
    keys: KeySlices = (FULL_SLICE,)

    @property
    def key_count(self) -> int:
        """How many keys that are."""
        return sum(keys.stop - keys.start for keys in self.keys)

    def select(self, x: Tensor, has_key_axis: bool = True) -> Tensor:
        """Its part of an array that broadcasts to (b, h, n, m), or to (b, h, n, ·) if it has no columns."""
        one = has_key_axis and len(self.keys) == 1
        cuts = (self.batch, self.heads, self.rows, self.keys[0] if one else FULL_SLICE)
        x = x[tuple(cut if n > 1 else FULL_SLICE for cut, n in zip(cuts, x.shape, strict=True))]
        return select_keys(x, self.keys, -1) if has_key_axis and not one and x.shape[-1] > 1 else x

    def select_kv(self, x: Tensor) -> Tensor:
        """Its part of (b, h, m, ·)"""
        return select_keys(x[self.batch, self.heads], self.keys, 2)


def select_keys(x: Tensor, keys: KeySlices, axis: int) -> Tensor:
    """Some keys of an array, side by side; a view of it where they are one stretch."""
    parts = [x[(*(FULL_SLICE,) * (axis % x.ndim), part)] for part in keys]
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


def iter_tiles(plan: Plan) -> Iterator[Tile]:
    """The tiles of a plan, in the order of the grid."""
    if not plan.tile_size:
        yield Tile()
        return
    torch.empty(
        _LARGEST_REUSED_BLOCK_BYTES, dtype=torch.uint8
    )  # made and given back: from now on tiles reuse each other's memory
    b, h, n, m = plan.size.batch or 1, plan.shapes.heads, plan.axis_length("scores", "query"), plan.size.keys
    reach = plan.find_key_ranges()
    together = h if not plan.variant.head_mixing.is_none else max(1, min(h, plan.tile_size // (n * m)))
    for i in range(b):
        ranges: ItemKeyRanges | None = (
            None if reach is None else [tuple(end[i % len(end)] for end in span) for span in reach]
        )
        for first in range(0, h, together):
            for rows, keys in _split_rows(
                n, m, plan.tile_size // together, ranges, equal_blocks=plan.schedule == "fused"
            ):
                yield Tile(slice(i, i + 1), slice(first, first + together), rows, keys)


def _split_rows(
    n: int, m: int, max_scores: int, ranges: ItemKeyRanges | None, *, equal_blocks: bool
) -> Iterator[tuple[Slice, KeySlices]]:
    """Rows in blocks of at most `max_scores` cells; unless `equal_blocks`, fewer where the rows of a block reach for different keys."""
    bend = ranges is not None and not equal_blocks
    row, take = 0, 256 if bend else max(1, max_scores // m)
    while row < n:
        rows = slice(row, min(n, row + take))
        keys, own = _reachable_keys(ranges, rows) if ranges is not None else ((slice(0, m),), 0)
        width = Tile(keys=keys).key_count
        size = (rows.stop - row) * width
        if bend and take > 1 and size > min(max_scores, max(2 * own, _MIN_TILE_SCORES)):
            take = max(1, min(take // 2, max_scores // width))
            continue
        yield rows, keys
        row, take = rows.stop, 2 * take if bend else take


def _reachable_keys(ranges: ItemKeyRanges, rows: Slice) -> tuple[KeySlices, int]:
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
        before = stretches.pop() if stretches and start - stretches[-1][1] < _MIN_SKIPPED_KEYS else (start, stop)
        stretches.append((before[0], max(before[1], stop)))
    if not stretches:
        return (slice(0, 1),), 0  # a row has at least one key, if none that it sees
    return tuple(slice(first, last) for first, last in stretches), own


def assemble_tiles(
    plan: Plan, results: Iterator[tuple[Tile, Tensor | None]], progress: ProgressCallback | None = None
) -> Tensor | None:
    """What the tiles make of v, put together: (b, h', n, c)"""
    b, h, n = plan.size.batch or 1, plan.shapes.heads, plan.axis_length("scores", "query")
    whole: Tensor | None = None
    done = 0
    for tile, z in results:
        if tile == Tile():
            return z
        if z is not None:
            if whole is None:
                whole = z.new_empty((b, plan.shapes.mixed_heads, n, z.shape[-1]))
            tile.select(whole, has_key_axis=False)[:] = z
        done += math.prod(len(range(size)[cut]) for size, cut in zip((b, h, n), tile[:3], strict=True))
        if progress:
            progress(min(1.0, done / (b * h * n)))
    return whole


class DropoutStream:
    """Booleans drawn over the whole grid in its order, handed out tile by tile: a seed is one pattern, however it is run."""

    def __init__(self, draw: Callable[[tuple[int, ...]], Tensor], generator: torch.Generator, plan: Plan) -> None:
        self.draw, self.generator, self.plan = draw, generator, plan
        self.n, self.m = plan.size.queries, plan.size.keys
        self.rows_drawn = 0  # how many rows have been drawn, counted through batch and heads
        self.checkpoints = {0: generator.get_state()}  # the generator where the rows of each head begin

    def tile_mask(self, tile: Tile) -> Tensor:
        """Its part: (b, h, n, m)"""
        b, h = self.plan.size.batch or 1, self.plan.shapes.heads
        if tile == Tile() and self.plan.computed_queries is None:
            return self.draw((b, h, self.n, self.m))
        rows = (np.arange(self.n) if self.plan.computed_queries is None else self.plan.computed_queries)[
            tile.rows
        ]  # (n,)
        order = np.argsort(rows, kind="stable")
        runs = np.split(order, np.flatnonzero(np.diff(rows[order]) != 1) + 1)  # rows that follow each other
        items, heads = range(b)[tile.batch], range(h)[tile.heads]
        out = torch.empty(len(items), len(heads), len(rows), self.m, dtype=torch.bool)  # (b, h, n, m)
        for i, item in enumerate(items):
            for j, head in enumerate(heads):
                for run in runs:
                    self._seek_row((item * h + head) * self.n + int(rows[run[0]]))
                    out[i, j, run] = self._draw_rows(len(run))
        return select_keys(out, tile.keys, -1)

    def resume_from(self, checkpoints: dict[int, Tensor]) -> None:
        """Go on from where streams of the same draws have been, and let others go on from where this one will be."""
        checkpoints.update(self.checkpoints)
        self.checkpoints = checkpoints

    def checkpoint(self) -> None:
        """Remember where it is."""
        self.checkpoints[self.rows_drawn] = self.generator.get_state()

    def _seek_row(self, row: int) -> None:
        nearest = max(begin for begin in [*self.checkpoints] if begin <= row)
        if row < self.rows_drawn or self.rows_drawn < nearest:
            self.rows_drawn = nearest
            self.generator.set_state(self.checkpoints[nearest])
        while self.rows_drawn < row:
            self._draw_rows(min(row - self.rows_drawn, self.n - self.rows_drawn % self.n, max(1, 2**20 // self.m)))

    def _draw_rows(self, count: int) -> Tensor:
        """The next so many rows, of one head: (·, m)"""
        drawn = self.draw((count, self.m))
        self.rows_drawn += count
        if self.rows_drawn % self.n == 0:
            self.checkpoint()
        return drawn
