"""Find which keys are hidden from a query, a few rows at a time, for whoever shows a result. Entry: `PlannedHiddenKeys`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from attncli.plan.plan import Plan
from attncli.plan.visibility import compute_visibility, grid_arrays
from attncli.types import Array, Grid, NumpyArray
from attncli.validation.fields import as_numpy


@dataclass(frozen=True)
class PlannedHiddenKeys:
    """What the mask, lengths and bias of a plan hide. Indices are those of the problem, whatever was selected of it."""

    plan: Plan

    def is_marked(self, step: str) -> bool:
        """Return whether a hidden key has no number of its own in a step: from the mask on."""
        return step in self._marked_steps

    def find(self, step: str, batch: int, head: int, queries: Sequence[int]) -> NumpyArray:
        """Return which keys are hidden in a step from queries of one batch item and head: booleans (query, key)."""
        mixing = self.plan.variant.head_mixing
        mix_visible = mixing.traits.mix_visible if step == "mixed_weights" else None
        chosen = ([batch], None if mix_visible else [head], list(queries), None)

        def select(x: Array) -> NumpyArray:
            values: NumpyArray = as_numpy(x)
            for axis, indices in enumerate(chosen):
                if indices is not None and values.shape[axis] > 1:
                    values = values.take(indices, axis)
            return values

        selected: dict[str, Array] = {name: select(x) for name, x in grid_arrays(self._grid).items()}
        visible = compute_visibility(replace(self._grid, **selected), self.plan.mask)  # broadcasts to (1, h or 1, n, m)
        if mix_visible:
            mixed: Array = mix_visible(visible, mixing)
            visible = mixed[:, [head if mixed.shape[1] > 1 else 0]]
        hidden: NumpyArray = ~np.broadcast_to(visible, (1, 1, len(queries), self.plan.size.keys))[0, 0]
        return hidden

    @cached_property
    def _grid(self) -> Grid:
        """Where all scores sit, those of queries that are not computed too."""
        return replace(self.plan, computed_queries=None).make_grid()

    @cached_property
    def _marked_steps(self) -> frozenset[str]:
        names = list(self.plan.steps)
        after_mask = names[names.index("masked_scores") :] if "masked_scores" in names else []
        return frozenset(name for name in after_mask if self.plan.steps[name][-2:] == ("query", "key"))
