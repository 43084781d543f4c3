"""The steps of a result, read cell by cell. `StepValues` is shared by every section of a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from attncli.derivation import DERIVED, GetIntermediate, IntermediateNumbers, Number, Vector
from attncli.plan import Plan
from attncli.text import printable
from attncli.types import Array, Attention
from attncli.validation.fields import as_numpy
from attncli.views.explain.page import ExplanationScope

_INDEXED_AXES = "bhnm1"  # axes of an intermediate that one cell is picked from; others are a vector's


class StepValues:
    """The steps of a result that kept every step, by cell."""

    def __init__(self, plan: Plan, attention: Attention, focus: ExplanationScope) -> None:
        self.plan, self.attention, self.focus = plan, attention, focus
        self.steps = {step.name: step for step in attention.steps}
        self.values = {name: as_numpy(step.values) for name, step in self.steps.items()}
        self.max_terms = focus.max_entry_terms
        # Where a plan computes this query alone, its row is the only one.
        self.query_row = focus.query if plan.computed_queries is None else 0

    @cached_property
    def score_steps(self) -> list[str]:
        """The steps from the raw score to what the normaliser sees."""
        return ["scores", *(link.step for link in self.plan.chain)]

    def number_at(self, step_name: str, **indices: int) -> Number:
        """One cell of a step."""
        index = tuple(indices[axis] for axis in self.steps[step_name].axes)
        return Number(float(self.values[step_name][index]), step_name, self._index_in_whole_step(step_name, index))

    def vector_at(self, step_name: str, **indices: int) -> Vector:
        """The cells of a step along its last axis."""
        index = tuple(indices[axis] for axis in self.steps[step_name].axes[:-1])
        row, row_index = self.values[step_name][index], self._index_in_whole_step(step_name, index)
        return Vector(Number(float(x), step_name, (*row_index, i)) for i, x in enumerate(row))

    def _index_in_whole_step(self, step_name: str, index: tuple[int, ...]) -> tuple[int, ...]:
        """The index of a cell in the step of all queries, even if this query alone is computed."""
        if self.plan.computed_queries is None:
            return index
        axes = zip(self.steps[step_name].axes, index, strict=False)
        return tuple(self.focus.query if axis == "query" else i for axis, i in axes)

    def intermediate_at(self, step_name: str, intermediate_name: str, **indices: int) -> IntermediateNumbers:
        """An intermediate of a step: a number, a vector, or rows of them, whatever axes are left.

        Raises:
            KeyError: the step recorded no such intermediate.
        """
        values, axes, is_input = self.steps[step_name].intermediates[intermediate_name]
        lengths = zip(axes, values.shape, strict=True)
        index = tuple(_index_along_axis(axis, length, indices) for axis, length in lengths)
        return _to_numbers(values[index], "" if is_input else DERIVED)

    def intermediates_at(self, step_name: str, **indices: int) -> GetIntermediate:
        """The intermediates of a step, by name."""
        return lambda name: self.intermediate_at(step_name, name, **indices)

    @cached_property
    def token_counts(self) -> Counter[str]:
        """How often each token stands among the keys."""
        return Counter(self.token("key", j) for j in range(self.plan.size.keys))

    def token_label(self, axis: str, index: int) -> str:
        """`1 “cat”`, or the index alone where it is the token as well."""
        token = self.token(axis, index)
        return str(index) if token == str(index) else f"{index} “{token}”"

    def token(self, axis: str, index: int) -> str:
        """The token of a query or key, safe to print."""
        tokens = self.attention.tokens if axis == "query" else self.attention.k_tokens
        tokens = tokens[self.focus.batch] if self.plan.size.batch is not None else tokens
        return printable(str(tokens[index]))


def _index_along_axis(axis: str, length: int, indices: Mapping[str, int]) -> int | slice[None]:
    if axis not in _INDEXED_AXES:
        return slice(None)
    return 0 if length == 1 else indices.get(axis, slice(None))


def _to_numbers(values: Array, step: str) -> IntermediateNumbers:
    """An array as a number, a vector or rows of them, marked with the step they are of."""
    if np.ndim(values) == 0:
        return Number(float(values), step)
    return Vector(_to_numbers(entry, step) for entry in values)
