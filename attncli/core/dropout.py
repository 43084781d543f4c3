"""Which weights survive dropout, tile by tile: drawn over the whole grid, so that one seed is one pattern however it is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attncli.core.tiles import WHOLE_GRID, Tile, select_keys
from attncli.derivation import record_intermediate
from attncli.parts.traits import DropoutTraits
from attncli.plan import Plan
from attncli.registry import Part

_MAX_SCORES_PER_SKIP = 2**20  # scores drawn at a time on the way to a row


def apply_dropout(source: DropoutSource | None, dropout: Part[DropoutTraits], w: Tensor, tile: Tile) -> Tensor:
    """Drop weights and rescale the survivors: (b, h, n, m) → (b, h, n, m); unchanged where nothing is dropped."""
    if source is None or dropout.traits.drop is None:
        return w
    kept = source.tile_mask(tile).to(w.device).expand(w.shape)  # (b, h, n, m)
    return dropout.traits.drop(w, record_intermediate("kept", kept, is_input=True), dropout)


def make_dropout_source(plan: Plan, mask: Tensor | None, generator: torch.Generator | None) -> DropoutSource | None:
    """Return where survivors come from: the problem's mask, (b, h, n, m) or 1 where an axis is absent, or the generator.

    None: nothing is dropped.
    """
    dropout, queries = plan.variant.dropout, plan.computed_queries
    if dropout.is_none:
        return None
    if mask is not None:
        return GivenDropoutMask(mask if queries is None or mask.shape[2] == 1 else mask[:, :, queries])
    assert generator is not None  # the plan has drawn a seed
    return DropoutStream(lambda shape: dropout(shape, generator), generator, plan)


@dataclass(frozen=True)
class GivenDropoutMask:
    """A dropout mask that came with the problem."""

    kept: Tensor

    def tile_mask(self, tile: Tile) -> Tensor:
        """Return the survivors of a tile; the array broadcasts to (b, h, n, m)."""
        return tile.select(self.kept)


class DropoutStream:
    """Booleans drawn over the whole (b, h, n, m) grid in its order, and handed out tile by tile."""

    def __init__(self, draw: Callable[[tuple[int, ...]], Tensor], generator: torch.Generator, plan: Plan) -> None:
        self.draw, self.generator, self.plan = draw, generator, plan
        self.n, self.m = plan.size.queries, plan.size.keys
        self.rows_drawn = 0  # how many rows have been drawn, counted through batch and heads
        self.checkpoints = {0: generator.get_state()}  # row → the generator's state before it is drawn

    def tile_mask(self, tile: Tile) -> Tensor:
        """Return the survivors of a tile: (b, h, n, m)."""
        b, h = self.plan.size.batch or 1, self.plan.shapes.heads
        queries = self.plan.computed_queries
        if tile == WHOLE_GRID and queries is None:
            return self.draw((b, h, self.n, self.m))
        rows = (np.arange(self.n) if queries is None else queries)[tile.rows]  # (n,)
        order = np.argsort(rows, kind="stable")
        runs = np.split(order, np.flatnonzero(np.diff(rows[order]) != 1) + 1)  # rows that follow each other
        items, heads = range(b)[tile.batch], range(h)[tile.heads]
        kept = torch.empty(len(items), len(heads), len(rows), self.m, dtype=torch.bool)  # (b, h, n, m)
        for i, item in enumerate(items):
            for j, head in enumerate(heads):
                for run in runs:
                    self._seek_row((item * h + head) * self.n + int(rows[run[0]]))
                    kept[i, j, run] = self._draw_rows(len(run))
        return select_keys(kept, tile.keys, -1)

    def resume_from(self, checkpoints: dict[int, Tensor]) -> None:
        """Share the generator's checkpoints with other streams of the same seed, both ways."""
        checkpoints.update(self.checkpoints)
        self.checkpoints = checkpoints

    def checkpoint(self) -> None:
        """Remember the generator's state before the next row."""
        self.checkpoints[self.rows_drawn] = self.generator.get_state()

    def _seek_row(self, row: int) -> None:
        """Bring the generator to where a row begins, from the nearest checkpoint before it."""
        nearest = max(start for start in [*self.checkpoints] if start <= row)
        if row < self.rows_drawn or self.rows_drawn < nearest:
            self.rows_drawn = nearest
            self.generator.set_state(self.checkpoints[nearest])
        while self.rows_drawn < row:
            rows_left_of_head = self.n - self.rows_drawn % self.n
            self._draw_rows(min(row - self.rows_drawn, rows_left_of_head, max(1, _MAX_SCORES_PER_SKIP // self.m)))

    def _draw_rows(self, count: int) -> Tensor:
        """Draw the next `count` rows, all of one head: (count, m)."""
        kept = self.draw((count, self.m))
        self.rows_drawn += count
        if self.rows_drawn % self.n == 0:
            self.checkpoint()
        return kept


DropoutSource = DropoutStream | GivenDropoutMask
