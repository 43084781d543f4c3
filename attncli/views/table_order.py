"""The order in which the tables of a result stand: batch item by batch item, and of each head all steps together.

`ResultTables` is the entry of every view; `labelled_matrices` gives all tables, in order.

A step of no batch or no head stands once, before or after the heads, as it is computed. A kv head stands with the first
head that reads it, and what several heads become together with the last of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from attncli.plan.head_shapes import kv_head_of
from attncli.types import Attention
from attncli.views.labelled_matrices import ROW_STATISTICS, LabelledMatrix, SlicedStep

_HEAD_AXES = ("head", "kv_head")


@dataclass(frozen=True)
class Slice:
    """One table that there is: a step, and an index on its axes of batch and head. `matrix` makes it."""

    step: SlicedStep
    index: tuple[int, ...]
    item: int  # which batch item it is of, counted as they stand
    head: int | None  # which of the result's heads it stands with, likewise; None: with none
    remarks: tuple[str, ...] = ()

    def matrix(self) -> LabelledMatrix:
        """Return the table."""
        return self.step.matrix(self.index, self.remarks)


class ResultTables:
    """All tables of a result, and how they are grouped."""

    def __init__(self, attention: Attention, precision: int) -> None:
        """Prepare the tables; none is made yet.

        Args:
            attention: the result.
            precision: digits after the point.
        """
        self.attention = attention
        beside_weights = ROW_STATISTICS if "weights" in attention else ()
        self.steps = [SlicedStep(attention, step, precision) for step in attention if step.name not in beside_weights]
        self.item_count = max((step.length("batch") for step in self.steps if "batch" in step.slice_axes), default=1)

    @cached_property
    def _grouping_axis(self) -> str:
        """The axis by which tables are grouped: of heads, or else of kv heads."""
        return next((axis for axis in _HEAD_AXES for step in self.steps if axis in step.slice_axes), "")

    @cached_property
    def heads(self) -> tuple[int, ...]:
        """The heads by which tables are grouped, counted as before some were selected; none: no step has heads."""
        axis = self._grouping_axis
        lengths = [step.length(axis) for step in self.steps if axis in step.slice_axes]
        return tuple(self.attention.at.get(axis, range(max(lengths)))) if lengths else ()

    def slices(self, items: Sequence[int] | None = None, heads: Sequence[int] | None = None) -> Iterator[Slice]:
        """Yield the tables in order, those of all batch items and heads or of some.

        Args:
            items: which batch items, counted as they stand.
            heads: which heads, likewise.
        """
        items = range(self.item_count) if items is None else items
        heads = range(len(self.heads)) if heads is None else heads
        before, with_heads, after = self._groups
        placed = [(step, self._place_by_head(step, heads)) for step in with_heads]
        for item in items:
            is_first = item == items[0]
            equal_item = self.equal_item(item)
            remarks = () if equal_item is None else (f"equal to {self.item_label(equal_item)}",)
            tables: list[tuple[SlicedStep, int | None, tuple[int, ...]]] = [
                *((step, None, ()) for step in before),
                *((step, head, (i,)) for head in heads for step, place in placed for i in place.get(head, ())),
                *((step, None, ()) for step in after),
            ]
            for step, head, head_index in tables:
                if "batch" in step.slice_axes:
                    yield Slice(step, (item, *head_index), item, head, remarks)
                elif is_first:
                    yield Slice(step, head_index, item, head)

    @cached_property
    def _groups(self) -> tuple[list[SlicedStep], list[SlicedStep], list[SlicedStep]]:
        """The steps that stand before the heads, with each head, and after them."""
        with_heads = [step for step in self.steps if _head_axis(step)]
        last = self.steps.index(with_heads[-1]) if with_heads else len(self.steps)
        without = [step for step in self.steps[:last] if not _head_axis(step)]
        return without, with_heads, [step for step in self.steps[last:] if not _head_axis(step)]

    def _place_by_head(self, step: SlicedStep, heads: Sequence[int]) -> dict[int, list[int]]:
        """Return which indices on a step's axis of heads stand with each of the heads that are shown."""
        axis, variant = _head_axis(step), self.attention.variant
        length, is_kv = step.length(axis), axis != self._grouping_axis
        if not is_kv and length == len(self.heads):
            return {head: [head] for head in heads}
        total = int(variant.get("kv_heads") or length) if is_kv and axis in self.attention.at else length
        head_count = int(variant.get("heads") or len(self.heads))
        kv_map = str(variant.get("kv_map") or "interleave") if is_kv else "interleave"
        read = [kv_head_of(head, head_count, total, kv_map) for head in self.heads]
        place_of: dict[int, int] = {}  # what is read → the head that it stands with
        for head in reversed(heads) if is_kv else heads:
            place_of[read[head]] = head
        places: dict[int, list[int]] = {}
        for i, original in enumerate(self.attention.at.get(axis, range(length))):
            if original in place_of or original not in read:
                places.setdefault(place_of.get(original, heads[0]), []).append(i)
        return places

    # ── batch items ──────────────────────────────────────────────────────────────────────────────
    def item_label(self, item: int) -> str:
        """`batch 0`, counted as before some were selected."""
        return f"batch {self.attention.at['batch'][item] if 'batch' in self.attention.at else item}"

    def equal_item(self, item: int) -> int | None:
        """Return the first batch item whose tables are all the same as those of another; None: there is none before it."""
        return self._equal_items.get(item)

    @cached_property
    def _equal_items(self) -> dict[int, int]:
        """Batch items that are equal to an earlier one, and to which."""
        if self.item_count == 1:
            return {}
        first_of: dict[bytes, int] = {}
        equal = {}
        for item in range(self.item_count):
            digest = hashlib.blake2b(repr(self._labels_of_item(item)).encode())
            for step in self.steps:
                if "batch" in step.slice_axes:
                    digest.update(np.ascontiguousarray(step.values[item]).tobytes())
            first = first_of.setdefault(digest.digest(), item)
            if first != item:
                equal[item] = first
        return equal

    def _labels_of_item(self, item: int) -> list[object]:
        labels = (self.attention.tokens, self.attention.k_tokens)
        return [own[item] if own and isinstance(own[0], tuple) else () for own in labels]


def labelled_matrices(attention: Attention, precision: int) -> Iterator[LabelledMatrix]:
    """Every table of a result, in order."""
    for one in ResultTables(attention, precision).slices():
        yield one.matrix()


def _head_axis(step: SlicedStep) -> str:
    """The axis of heads along which a step is cut; empty: none."""
    return next((axis for axis in _HEAD_AXES if axis in step.slice_axes), "")
