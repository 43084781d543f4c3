"""Recording intermediate tensors, and writing a part's equations with numbers.

A part declares `derivation=` beside its formula: a function (RowDerivation) → equations. Their numbers are those that
were computed: cells of the steps before and after it, and what the part handed to `record_intermediate` on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias, TypeVar

if TYPE_CHECKING:
    from attncli.arrays import ArrayOrTensor

Values = TypeVar("Values", bound="ArrayOrTensor | None")


# ── recording ────────────────────────────────────────────────────────────────────────────────────
class Intermediate(NamedTuple):
    """A tensor that a part computes on its way to a step."""

    values: ArrayOrTensor
    axes: str  # a letter an axis: b batch, h head, n row (a query, or a token), m key, i o of W; others are a vector's
    is_input: bool  # read, drawn or made of such alone, not of a step: a worksheet may show it


_intermediates: ContextVar[dict[str, Intermediate] | None] = ContextVar("intermediates", default=None)


def record_intermediate(name: str, values: Values, axes: str = "bhnm", *, is_input: bool = False) -> Values:
    """Record an intermediate while `recording_intermediates` lasts; return the values in any case."""
    recorded = _intermediates.get()
    if recorded is not None and values is not None:
        recorded[name] = Intermediate(values, axes, is_input)
    return values


def is_recording() -> bool:
    """Whether intermediates are recorded, so that they must be computed."""
    return _intermediates.get() is not None


@contextmanager
def recording_intermediates() -> Iterator[None]:
    """Record intermediates while the context lasts; `pop_intermediates` returns them."""
    token = _intermediates.set({})
    try:
        yield
    finally:
        _intermediates.reset(token)


def pop_intermediates() -> dict[str, Intermediate]:
    """Return what was recorded since the last call, and forget it."""
    recorded = _intermediates.get()
    if not recorded:
        return {}
    _intermediates.set({})
    return recorded


# ── writing ──────────────────────────────────────────────────────────────────────────────────────
class Number(NamedTuple):
    """A number on the page, and the cell of a step that it comes from; inputs have no step."""

    value: float
    step: str = ""
    cell_index: tuple[int, ...] = ()


DERIVED = "~"  # stands for the step of derived numbers: results on the way, which are no cell of a step


class Vector(tuple[Number, ...]):
    """A vector on the page."""


_EMPTY_VECTOR = Vector()
# An intermediate at one cell: a number, a vector, or rows of them. Which, the part knows that recorded it and that reads it.
IntermediateNumbers: TypeAlias = Any
GetIntermediate: TypeAlias = Callable[[str], IntermediateNumbers]
EquationSide = Sequence["str | Number | Vector"]


class Equation(NamedTuple):
    """One line: `label  side = side = side   remark`. An empty first side stands for the sum of the lines above."""

    label: str
    sides: tuple[EquationSide, ...]
    remark: str = ""


@dataclass(frozen=True)
class KeyCell:
    """One key of a query's row: its score or weight before and after this step; `cell["name"]` is an intermediate."""

    label: str
    index: int
    value_before: Number
    value_after: Number
    get_intermediate: GetIntermediate = field(repr=False)
    k: Vector = _EMPTY_VECTOR
    query_position: int | None = None
    key_position: int | None = None
    is_hidden: bool = False

    def __getitem__(self, name: str) -> IntermediateNumbers:
        """Return an intermediate of the step at this key."""
        return self.get_intermediate(name)


def _no_intermediate(name: str) -> NoReturn:
    raise KeyError(name)


@dataclass(frozen=True)
class RowDerivation:
    """What a part may write with: one query's row of one step; `row["name"]` is an intermediate."""

    shown_cells: tuple[KeyCell, ...] = ()  # the keys that are worked out
    all_cells: tuple[KeyCell, ...] = ()  # all keys, and the sink where there is one
    get_intermediate: GetIntermediate = field(repr=False, default=_no_intermediate)
    q: Vector = _EMPTY_VECTOR  # the query, or the vector before this step
    output_vector: Vector = _EMPTY_VECTOR  # the vector after this step
    first_column: int = 0  # where this head's columns begin among those of all heads
    part: Any = None  # the part that writes: of whichever family, and one that derives has one
    link_value: float = math.nan  # the value of a link of the chain
    label: str = ""  # what the vector is called: q, k, v, x or output
    max_terms: int = 8  # terms of a sum before its middle is left out

    def __getitem__(self, name: str) -> IntermediateNumbers:
        """Return an intermediate of the step for this query: a number, or numbers along whatever axes are left."""
        return self.get_intermediate(name)

    def get(self, name: str, default: Number | None = None) -> IntermediateNumbers:
        """Return an intermediate, or the default where the part recorded none of this name."""
        try:
            return self.get_intermediate(name)
        except KeyError:
            return default

    def __contains__(self, name: str) -> bool:
        """Return whether the part recorded such an intermediate."""
        return self.get(name) is not None

    @property
    def unhidden_cells(self) -> tuple[KeyCell, ...]:
        """The keys that are worked out and not hidden."""
        return tuple(c for c in self.shown_cells if not c.is_hidden)

    def write_sum(self, terms: Sequence[EquationSide], values: Sequence[float]) -> EquationSide:
        """Write term + term + …; of a long sum the middle is given by its value."""
        if not terms:
            return ["0"]
        if len(terms) <= self.max_terms:
            return _join_terms(terms)
        leading_count = 3  # terms written before the middle; one follows it
        middle = derived_number(sum(values[leading_count:-1]))
        return [
            *_join_terms(terms[:leading_count]),
            " + (",
            f"{len(terms) - leading_count - 1} more: ",
            middle,
            ") + ",
            *terms[-1],
        ]

    def write_dot_product(self, a: Iterable[Number], b: Iterable[Number], between: str = "·") -> EquationSide:
        """Write a₁·b₁ + a₂·b₂ + …"""
        pairs = list(zip(a, b, strict=True))
        return self.write_sum([[x, between, y] for x, y in pairs], [x.value * y.value for x, y in pairs])

    def write_sum_over_keys(
        self, write_term: Callable[[KeyCell], EquationSide], term_value: Callable[[KeyCell], float]
    ) -> EquationSide:
        """Write the sum over every key that is not hidden; the terms of those not worked out are given by their sum."""
        shown = {c.index for c in self.shown_cells}
        visible = [c for c in self.all_cells if not c.is_hidden]
        written = visible
        if len(visible) > self.max_terms:
            written = [c for c in visible if c.index in shown][: self.max_terms]
        terms: list[EquationSide] = [write_term(c) for c in written]
        written_indices = {c.index for c in written}
        left_out = [term_value(c) for c in visible if c.index not in written_indices]
        if left_out:
            terms.append([f"({len(left_out)} more: ", derived_number(sum(left_out)), ")"])
        return _join_terms(terms)

    def equation_per_key(self, write_sides: Callable[[KeyCell], Sequence[EquationSide]]) -> Iterator[Equation]:
        """Write an equation for each key worked out that is not hidden, ending in its value after the step."""
        for c in self.unhidden_cells:
            yield Equation(c.label, (*write_sides(c), [c.value_after]))


Derivation = Callable[[RowDerivation], Iterable[Equation]]


def derive_per_key(write_sides: Callable[[RowDerivation, KeyCell], Sequence[EquationSide]]) -> Derivation:
    """The derivation of a part that works key by key, each by itself."""
    return lambda row: row.equation_per_key(lambda cell: write_sides(row, cell))


def derived_number(x: float) -> Number:
    """A number that is a result on the way."""
    return Number(x, DERIVED)


def _join_terms(terms: Iterable[EquationSide]) -> list[str | Number | Vector]:
    side: list[str | Number | Vector] = []
    for term in terms:
        side += [" + ", *term] if side else term
    return side


def scale_vector(factor: Number, vector: Iterable[Number]) -> Vector:
    """A number times a vector, entry by entry."""
    return Vector(derived_number(factor.value * x.value) for x in vector)
