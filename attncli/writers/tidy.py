"""Lay a result out as tidy rows, one for each number: its step, its indices, its value, and the tokens of its query and key.

Entries: `tidy_blocks`, which gives them in blocks, so that no more than one is in memory; `label_rows` for one axis.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from attncli.types import TOKEN_AXES, Attention, NumpyArray, Step
from attncli.validation.fields import as_numpy

_MAX_BLOCK_ROWS = 2**17


@dataclass(frozen=True)
class TokenColumn:
    """The tokens of one column of a block: `labels[places[i]]` is that of row i."""

    labels: tuple[str, ...]
    places: NumpyArray  # (row,)


@dataclass(frozen=True)
class TidyBlock:
    """Rows of one step, in the order of its values."""

    step: str
    indices: Mapping[str, NumpyArray]  # axis → (row,), counted as before some were selected
    values: NumpyArray  # (row,)
    tokens: Mapping[str, TokenColumn]  # by column, where the step has an axis of tokens

    def __len__(self) -> int:
        return len(self.values)


def tidy_blocks(attention: Attention, max_rows: int = _MAX_BLOCK_ROWS) -> Iterator[TidyBlock]:
    """Yield the rows of every step, in order."""
    labels = {
        axis: _flat_labels(attention, axis) for axes in TOKEN_AXES.values() for axis in axes
    }  # once, not per block
    for step in attention.steps:
        values = as_numpy(step.values)
        for start in range(0, values.size, max_rows):
            yield _make_block(attention, step, values, labels, start, min(start + max_rows, values.size))


def label_rows(attention: Attention, axis: str, length: int) -> list[str] | None:
    """Return the tokens of an axis of a result that is no batch; None where it has none, or a selection has left too little."""
    labels = _flat_labels(attention, axis)
    if axis not in itertools.chain(*TOKEN_AXES.values()) or len(_label_items(attention, axis)) > 1:
        return None
    found = _find_tokens(attention, axis, labels, {axis: np.arange(length)}, length)
    return None if found is None else [found.labels[place] for place in found.places]


def _make_block(
    attention: Attention, step: Step, values: NumpyArray, labels: Mapping[str, tuple[str, ...]], start: int, stop: int
) -> TidyBlock:
    """Return the rows start … stop − 1 of a step."""
    places = dict(zip(step.axes, np.unravel_index(np.arange(start, stop), values.shape), strict=True))
    indices = {
        axis: np.array(attention.at[axis])[place] if axis in attention.at else place for axis, place in places.items()
    }
    tokens = {
        column: found
        for column, axes in TOKEN_AXES.items()
        for axis in axes
        if axis in places
        and (found := _find_tokens(attention, axis, labels[axis], places, values.shape[step.axes.index(axis)]))
    }
    return TidyBlock(step.name, indices, values.reshape(-1)[start:stop], tokens)


def _find_tokens(
    attention: Attention, axis: str, labels: tuple[str, ...], places: Mapping[str, NumpyArray], length: int
) -> TokenColumn | None:
    """Return the tokens of an axis; None where a selection has left too little to tell them."""
    place = places[axis]
    items = _label_items(attention, axis)
    if axis == "new_key":  # the last of the keys
        if {"key", "new_key"} & set(attention.at):
            return None
        place = place + len(items[0]) - length
    if len(items) > 1 and "batch" in places:
        place = place + places["batch"] * len(items[0])
    return TokenColumn(labels, place)


def _label_items(attention: Attention, axis: str) -> tuple[tuple[object, ...], ...]:
    """The labels of an axis of tokens, for each item of a batch; of what is no batch, as of one item."""
    labels = attention.tokens if axis == "query" else attention.k_tokens
    return labels if labels and isinstance(labels[0], tuple) else (labels,)


def _flat_labels(attention: Attention, axis: str) -> tuple[str, ...]:
    """The labels of an axis of tokens, item after item."""
    return tuple(str(label) for item in _label_items(attention, axis) for label in item)
