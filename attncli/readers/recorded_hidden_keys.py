"""Find which keys are hidden in a result that was read back, by the steps that it holds. Entry: `RecordedHiddenKeys`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from attncli.types import Attention, NumpyArray

if TYPE_CHECKING:
    from attncli.types import Step

_WEIGHTS = ("weights", "dropout_weights", "mixed_weights")


@dataclass(frozen=True)
class RecordedHiddenKeys:
    """What the mask of a result hides; or else its masked scores, where the score before the mask was not −∞ itself."""

    attention: Attention  # as it was read, before anything was selected of it

    @property
    def is_known(self) -> bool:
        """Whether the result holds a step that says which keys are hidden."""
        return "mask" in self.attention or "masked_scores" in self.attention

    def is_marked(self, step: str) -> bool:
        """Return whether a hidden key has no number of its own in a step: from the mask on."""
        names = [one.name for one in self.attention]
        after_mask = names[names.index("masked_scores") :] if "masked_scores" in names else [*_WEIGHTS]
        return step in after_mask and self.attention[step].axes[-2:] == ("query", "key")

    def find(self, step: str, batch: int, head: int, queries: Sequence[int]) -> NumpyArray:
        """Return which keys are hidden in a step from queries of one batch item and head: booleans (query, key)."""
        import numpy as np

        hidden: NumpyArray
        hidden, source = self._hidden
        is_mixed = step == "mixed_weights"  # of several heads: hidden is what is hidden in all of them
        for axis, index in (("batch", batch), ("head", head)):
            if axis in source.axes:
                place = self._places(axis).index(index) if axis != "head" or not is_mixed else None
                hidden = np.asarray(hidden.all(0) if place is None else hidden[place])
        if "query" in source.axes:
            rows = self._places("query")
            hidden = hidden[[rows.index(query) for query in queries]]
        hidden = np.broadcast_to(hidden, (len(queries), len(self._places("key"))))
        if "key" not in self.attention.at:
            return hidden
        whole = np.zeros((len(queries), max(self.attention.at["key"]) + 1), bool)
        whole[:, list(self.attention.at["key"])] = hidden
        return whole

    @cached_property
    def _hidden(self) -> tuple[NumpyArray, Step]:
        """Which keys are hidden, on the axes of a step."""
        import numpy as np

        if "mask" in self.attention:
            mask = self.attention["mask"]
            return np.logical_not(mask.values), mask
        names = [step.name for step in self.attention]
        masked = self.attention["masked_scores"]
        hidden: NumpyArray = np.asarray(masked.values) == -np.inf
        before = names[: names.index("masked_scores")]
        if before and self.attention[before[-1]].axes == masked.axes:
            hidden &= np.asarray(self.attention[before[-1]].values) != -np.inf
        return hidden, masked

    def _places(self, axis: str) -> Sequence[int]:
        """The indices of the problem on an axis, as they stand in the result."""
        if axis in self.attention.at:
            return self.attention.at[axis]
        lengths = (s.values.shape[s.axes.index(axis)] for s in self.attention if axis in s.axes)
        return range(max(lengths))
