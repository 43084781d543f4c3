"""How a part works its line with numbers, as on a board: what it writes, and the finer steps it notes when asked.

A part says `derivation=` beside its formula: a function (RowDerivation) → lines. The numbers in them are those that were
computed: cells of the steps before and after it, and what the part itself handed to `record_intermediate` on its way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple


# ── noting ───────────────────────────────────────────────────────────────────────────────────────
class Intermediate(NamedTuple):
    """A tensor that a part made on its way to a step."""

    values: Any
    axes: str  # a letter an axis: b batch, h head, n row (a query, or a token), m key, i o of W; others are a vector's
    is_input: bool  # it came in (a matrix, a gain), so that a worksheet may show it


_intermediates: ContextVar[dict[str, Intermediate] | None] = ContextVar("intermediates", default=None)


def record_intermediate(name: str, values: Any, axes: str = "bhnm", *, is_input: bool = False) -> Any:
    """Note a finer step if someone explains; hand it back in any case."""
    found = _intermediates.get()
    if found is not None and values is not None:
        found[name] = Intermediate(values, axes, is_input)
    return values


def is_recording() -> bool:
    """Whether finer steps are noted, so that they must be made."""
    return _intermediates.get() is not None


@contextmanager
def recording_intermediates() -> Iterator[None]:
    """While it lasts, finer steps are noted; `pop_intermediates` hands them out."""
    token = _intermediates.set({})
    try:
        yield
    finally:
        _intermediates.reset(token)


def pop_intermediates() -> dict[str, Intermediate]:
    """What was noted since it was last taken."""
    found = _intermediates.get()
    if not found:
        return {}
    _intermediates.set({})
    return found


# ── writing ──────────────────────────────────────────────────────────────────────────────────────
class Number(NamedTuple):
    """A number on the page, and the cell of the step it is; without a step it came in."""

    value: float
    step: str = ""
    cell_index: tuple[int, ...] = ()


DERIVED = "~"  # the step of numbers that are no step's: results on the way


class Vector(tuple[Number, ...]):
    """Numbers side by side."""


_EMPTY_VECTOR = Vector()
EquationSide = Sequence["str | Number | Vector"]


class Equation(NamedTuple):
    """`label  expr = expr = expr   remark`"""

    label: str
    sides: tuple[EquationSide, ...]
    remark: str = ""


@dataclass(frozen=True)
class KeyCell:
    """One key before the query: its score as it comes in and as it goes out of this step."""

    label: str
    index: int
    before: Number
    after: Number
    get_intermediate: Callable[[str], Any] = field(repr=False)
    k: Vector = _EMPTY_VECTOR
    query_position: int | None = None  # positions of query and key
    key_position: int | None = None
    is_hidden: bool = False
    why_hidden: str = ""  # what hides it

    def __call__(self, name: str) -> Any:
        """A finer step at this key."""
        return self.get_intermediate(name)


@dataclass(frozen=True)
class RowDerivation:
    """What a part may write with: one query's row of one step."""

    shown_cells: tuple[KeyCell, ...]  # those shown
    all_cells: tuple[KeyCell, ...]  # all keys, and the sink where there is one
    get_intermediate: Callable[[str], Any] = field(repr=False)
    q: Vector = _EMPTY_VECTOR  # the query, or the vector before this step
    output_vector: Vector = _EMPTY_VECTOR  # the vector after it
    first_column: int = 0  # where this head's columns begin among all heads'
    part: Any = None
    link_value: float = math.nan  # of a link
    label: str = ""
    max_terms: int = 8  # terms of a sum before its middle is left out

    def __call__(self, name: str) -> Any:
        """A finer step of this query: a number, or numbers along what axes are left."""
        return self.get_intermediate(name)

    def __contains__(self, name: str) -> bool:
        """Whether the part noted such a finer step."""
        try:
            self.get_intermediate(name)
        except KeyError:
            return False
        return True

    @property
    def unhidden_cells(self) -> tuple[KeyCell, ...]:
        """Those shown that are not hidden."""
        return tuple(c for c in self.shown_cells if not c.is_hidden)

    def write_sum(self, terms: Sequence[EquationSide], values: Sequence[float]) -> EquationSide:
        """term + term + … ; the middle of a long one stands as the sum it has."""
        if not terms:
            return ["0"]
        n = len(terms)
        if n <= self.max_terms:
            return _join_terms(terms)
        head, tail = 3, 1
        middle = Number(sum(values[head : n - tail]), DERIVED)
        return [*_join_terms(terms[:head]), " + (", f"{n - head - tail} more: ", middle, ") + ", *terms[-1]]

    def write_dot_product(self, a: Iterable[Number], b: Iterable[Number], between: str = "·") -> EquationSide:
        """a₁·b₁ + a₂·b₂ + …"""
        pairs = list(zip(a, b, strict=True))
        return self.write_sum([[x, between, y] for x, y in pairs], [x.value * y.value for x, y in pairs])

    def write_sum_over_keys(
        self, write_term: Callable[[KeyCell], EquationSide], term_value: Callable[[KeyCell], float]
    ) -> EquationSide:
        """The sum over every key that is not hidden, those shown written out."""
        shown = {c.index for c in self.shown_cells}
        seen = [c for c in self.all_cells if not c.is_hidden]
        first = seen if len(seen) <= self.max_terms else [c for c in seen if c.index in shown][: self.max_terms]
        terms: list[EquationSide] = [write_term(c) for c in first]
        written = {c.index for c in first}
        rest = [term_value(c) for c in seen if c.index not in written]
        if rest:
            terms.append([f"({len(rest)} more: ", Number(sum(rest), DERIVED), ")"])
        return _join_terms(terms)

    def equation_per_key(self, write_sides: Callable[[KeyCell], Sequence[EquationSide]]) -> Iterator[Equation]:
        """A line for each key shown that is not hidden, ending in what it becomes."""
        for c in self.unhidden_cells:
            yield Equation(c.label, (*write_sides(c), [c.after]))


Derivation = Callable[[RowDerivation], Iterable[Equation]]


def derive_per_key(write_sides: Callable[[RowDerivation, KeyCell], Sequence[EquationSide]]) -> Derivation:
    """A part that works key by key, each by itself."""
    return lambda w: w.equation_per_key(lambda c: write_sides(w, c))


def derived_number(x: float) -> Number:
    """A result on the way."""
    return Number(x, DERIVED)


def _join_terms(terms: Iterable[EquationSide]) -> list[str | Number | Vector]:
    out: list[str | Number | Vector] = []
    for term in terms:
        out += [" + ", *term] if out else term
    return out


def scale_vector(factor: Number, vector: Iterable[Number]) -> Vector:
    """A number times a vector."""
    return Vector(derived_number(factor.value * x.value) for x in vector)
