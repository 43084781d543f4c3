"""Which rows meet which keys: the grid of scores in tiles of query rows × the keys that those rows can reach.

A tile holds every key that its rows may see; where the normaliser declares how rows are merged, its keys come in blocks.
Equal bands of rows are one tile. A dense run is one tile that holds everything. Entries: `iter_tiles` and `assemble_tiles`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from attncli.core.bands import BandGroup, ItemKeyRanges, KeySlices, Slice, find_bands, reachable_keys
from attncli.plan import Plan

ProgressCallback = Callable[[float], None]  # called with the share of the work that is done, 0 … 1
FULL_SLICE: Slice = slice(None)
_MIN_TILE_SCORES = 2**16  # fewer scores cost less than the calls that compute them
_LARGEST_REUSED_BLOCK_BYTES = 2**25 - 2**13  # the largest block that glibc reuses once one of its size has been freed


class Tile(NamedTuple):
    """Some query rows of some batch items and heads, and the keys that they can reach.

    The rows of one item may be equal bands, which stand in the place of the batch: (1, h, n, ·) is then (bands, h, rows of
    a band, ·), and the keys are those of the first band.
    """

    batch: Slice = FULL_SLICE
    heads: Slice = FULL_SLICE
    rows: Slice = FULL_SLICE
    keys: KeySlices = (FULL_SLICE,)
    bands: int = 1
    shifts: tuple[int, ...] = ()  # by how many keys each of the slices is further on in the next band

    @property
    def key_count(self) -> int:
        """How many keys the tile has."""
        return sum(keys.stop - keys.start for keys in self.keys)

    @property
    def row_count(self) -> int:
        """How many query rows the tile has."""
        return int(self.rows.stop - self.rows.start)

    def split_keys(self, keys_per_block: int) -> Iterator[Tile]:
        """Yield the tile's blocks of keys: the same rows, and at most so many of the keys, in order."""
        block: list[Slice] = []
        shifts: list[int] = []
        room = keys_per_block
        for i, keys in enumerate(self.keys):
            start = keys.start
            while start < keys.stop:
                stop = min(keys.stop, start + room)
                block.append(slice(start, stop))
                shifts += self.shifts[i : i + 1]
                room -= stop - start
                start = stop
                if not room:
                    yield self._replace(keys=tuple(block), shifts=tuple(shifts))
                    block, shifts, room = [], [], keys_per_block
        if block:
            yield self._replace(keys=tuple(block), shifts=tuple(shifts))

    def split_rows(self, rows_per_part: int) -> Iterator[Tile]:
        """Yield the rows of a tile without bands in parts."""
        for start in range(self.rows.start, self.rows.stop, rows_per_part):
            yield self._replace(rows=slice(start, min(start + rows_per_part, self.rows.stop)))

    def key_indices(self, device: torch.device) -> Tensor:
        """Return which keys a tile without bands has, (m,)."""
        return torch.cat([torch.arange(keys.start, keys.stop, device=device) for keys in self.keys])

    def select(self, x: Tensor, has_key_axis: bool = True) -> Tensor:
        """Select the tile's part of an array that broadcasts to (b, h, n, m), or to (b, h, n, ·) without a key axis."""
        if self == WHOLE_GRID:
            return x
        is_one_slice = has_key_axis and len(self.keys) == 1 and self.bands == 1
        slices = (self.batch, self.heads, self.rows, self.keys[0] if is_one_slice else FULL_SLICE)
        x = x[tuple(part if length > 1 else FULL_SLICE for part, length in zip(slices, x.shape, strict=True))]
        has_keys = has_key_axis and not is_one_slice and x.shape[-1] > 1
        if self.bands == 1:
            return select_keys(x, self.keys, -1) if has_keys else x
        if x.shape[2] == 1:
            return self._select_band_keys(x[0]).movedim(-2, 0) if has_keys else x  # (bands or 1, h, 1, m or 1)
        x = self.split_bands(x)  # (bands, h, n, m)
        if not has_keys:
            return x
        return self._select_band_keys(x).diagonal(dim1=0, dim2=-2).movedim(-1, 0)  # (bands, h, n, m)

    def select_kv(self, x: Tensor) -> Tensor:
        """Select the tile's part of keys or values, (b, h, m, ·)."""
        if self == WHOLE_GRID:
            return x
        x = x[self.batch, self.heads]
        if self.bands == 1:
            return select_keys(x, self.keys, 2)
        return self._select_band_keys(x[0].mT).movedim(-2, 0).mT  # (bands, h, m, ·), from (h, ·, m)

    def _select_band_keys(self, x: Tensor) -> Tensor:
        """Select the keys of every band on the last axis: (…, all m) → (…, bands, m)."""
        parts = []
        for keys, shift in zip(self.keys, self.shifts, strict=True):
            width, moved = keys.stop - keys.start, shift * (self.bands - 1)
            part = x[..., keys.start : keys.stop + moved]
            parts.append(
                part.unfold(-1, width, shift) if shift else part[..., None, :].expand(*x.shape[:-1], self.bands, width)
            )
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def split_bands(self, x: Tensor) -> Tensor:
        """Bring rows of all bands, (1, h, n, ·), to (bands, h, rows of a band, ·), a view; without bands they stay."""
        return x if self.bands == 1 else x[0].unflatten(1, (self.bands, -1)).movedim(1, 0)

    def join_bands(self, x: Tensor) -> Tensor:
        """Bring what was computed of bands, (bands, h, rows of a band, …), to (1, h, n, …)."""
        return x if self.bands == 1 else x.movedim(0, 1).flatten(1, 2)[None]


class KeysValues(NamedTuple):
    """Keys and values: of all tokens, or of a tile."""

    k: Tensor  # (b, h, m, d)
    v: Tensor | None  # (b, h', m, c)
    nonfinite: Tensor | None  # where v holds NaN or ∞, (b, h', m, c); None: nowhere

    def select(self, tile: Tile) -> KeysValues:
        """Select those of a tile."""
        return KeysValues(*(None if x is None else tile.select_kv(x) for x in self))  # type: ignore[arg-type]


WHOLE_GRID = Tile()  # of a dense run, and of what a kernel computes


def select_keys(x: Tensor, keys: KeySlices, axis: int) -> Tensor:
    """Select keys along an axis and put them side by side; one slice is a view."""
    parts = [x[(*(FULL_SLICE,) * (axis % x.ndim), part)] for part in keys]
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


def iter_tiles(plan: Plan) -> Iterator[Tile]:
    """Yield the tiles of a plan, in the order of the grid."""
    if not plan.tile_size:
        yield WHOLE_GRID
        return
    torch.empty(_LARGEST_REUSED_BLOCK_BYTES, dtype=torch.uint8)  # once freed, tiles reuse each other's memory
    b, h, n, m = plan.size.batch or 1, plan.shapes.heads, plan.axis_length("scores", "query"), plan.size.keys
    heads_are_mixed = not plan.variant.head_mixing.is_none
    keys_at_once = min(m, plan.keys_per_block or m)
    heads_per_tile = h if heads_are_mixed else max(1, min(h, plan.tile_size // (n * keys_at_once)))
    max_scores, key_ranges = plan.tile_size // heads_per_tile, plan.find_key_ranges()
    has_bands = (
        plan.schedule != "fused" and plan.variant.dropout.is_none and not plan.keep & {"top_keys", "top_weights"}
    )
    for i in range(b):
        ranges: ItemKeyRanges | None = None
        if key_ranges is not None:
            ranges = [tuple(bound[i % len(bound)] for bound in key_range) for key_range in key_ranges]
        groups = find_bands(n, m, ranges) if ranges is not None and has_bands else None
        for head in range(0, h, heads_per_tile):
            tile = Tile(slice(i, i + 1), slice(head, head + heads_per_tile), slice(0, n))
            if groups is not None and ranges is not None:
                yield from _split_bands(tile, groups, max_scores, ranges, keys_at_once=keys_at_once)
                continue
            for rows, keys in _split_rows(
                n, m, max_scores, ranges, equal_blocks=plan.schedule == "fused", keys_at_once=keys_at_once
            ):
                yield tile._replace(rows=rows, keys=keys)


def _split_bands(
    tile: Tile, groups: list[BandGroup], max_scores: int, ranges: ItemKeyRanges, *, keys_at_once: int
) -> Iterator[Tile]:
    """Yield tiles of equal bands; rows between them are divided as where there are no bands."""
    for group in groups:
        band_rows = (group.rows.stop - group.rows.start) // group.band_count
        band_keys = Tile(keys=group.keys).key_count
        bands_at_once = max_scores // (band_rows * min(band_keys, keys_at_once))
        if group.is_wasteful or not bands_at_once:
            own_ranges: ItemKeyRanges = [(first[group.rows], last[group.rows]) for first, last in ranges]
            row_count = group.rows.stop - group.rows.start
            for rows, keys in _split_rows(
                row_count, keys_at_once, max_scores, own_ranges, equal_blocks=False, keys_at_once=keys_at_once
            ):
                first = group.rows.start
                yield tile._replace(rows=slice(first + rows.start, first + rows.stop), keys=keys)
            continue
        for band in range(0, group.band_count, bands_at_once):
            count = min(bands_at_once, group.band_count - band)
            first = group.rows.start + band * band_rows
            keys = tuple(
                slice(part.start + band * shift, part.stop + band * shift)
                for part, shift in zip(group.keys, group.shifts, strict=True)
            )
            yield tile._replace(
                rows=slice(first, first + count * band_rows), keys=keys, bands=count, shifts=group.shifts
            )


def _split_rows(
    n: int,
    m: int,
    max_scores: int,
    ranges: ItemKeyRanges | None,
    *,
    equal_blocks: bool,
    keys_at_once: int | None = None,
) -> Iterator[tuple[Slice, KeySlices]]:
    """Yield blocks of rows, at most `max_scores` each; unless `equal_blocks`, fewer rows where they reach different keys.

    Only `keys_at_once` of a row's scores count, where its keys come in blocks.
    """
    adapts = ranges is not None and not equal_blocks
    keys_at_once = keys_at_once or m
    row, row_count = 0, 256 if adapts else max(1, max_scores // min(m, keys_at_once))
    while row < n:
        rows = slice(row, min(n, row + row_count))
        keys, reachable_scores = reachable_keys(ranges, rows) if ranges is not None else ((slice(0, m),), 0)
        key_count = Tile(keys=keys).key_count
        rows_here, max_rows = rows.stop - row, max(1, max_scores // min(key_count, keys_at_once))
        is_too_much = rows_here > max_rows or rows_here * key_count > max(2 * reachable_scores, _MIN_TILE_SCORES)
        if adapts and row_count > 1 and is_too_much:
            row_count = max(1, min(row_count // 2, max_rows))
            continue
        yield rows, keys
        row, row_count = rows.stop, 2 * row_count if adapts else row_count


def assemble_tiles(
    plan: Plan, results: Iterator[tuple[Tile, Tensor | None]], progress: ProgressCallback | None = None
) -> Tensor | None:
    """Put the weighted sums of tiles together: (b, h', n, c)."""
    b, h, n = plan.size.batch or 1, plan.shapes.heads, plan.axis_length("scores", "query")
    whole: Tensor | None = None
    rows_done = 0
    for tile, z in results:
        if tile == WHOLE_GRID:
            return z
        if z is not None:
            if whole is None:
                whole = z.new_empty((b, plan.shapes.mixed_heads, n, z.shape[-1]))
            tile.select(whole, has_key_axis=False)[:] = z
        rows_done += math.prod(len(range(length)[part]) for length, part in zip((b, h, n), tile[:3], strict=True))
        if progress:
            progress(min(1.0, rows_done / (b * h * n)))
    return whole
