"""How a part works its line with numbers, as on a board: what it writes, and the finer steps it notes when asked.

A part says `derivation=` beside its formula: a function (Work) → lines. The numbers in them are those that were
computed: cells of the steps before and after it, and what the part itself handed to `finer` on its way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple


# ── noting ───────────────────────────────────────────────────────────────────────────────────────
class Finer(NamedTuple):
    """A tensor that a part made on its way to a step."""

    values: Any
    axes: str  # a letter an axis: b batch, h head, n row (a query, or a token), m key, i o of W; others are a vector's
    given: bool  # it came in (a matrix, a gain), so that a worksheet may show it


_notebook: ContextVar[dict[str, Finer] | None] = ContextVar("notebook", default=None)


def finer(name: str, values: Any, axes: str = "bhnm", *, given: bool = False) -> Any:
    """Note a finer step if someone explains; hand it back in any case."""
    found = _notebook.get()
    if found is not None and values is not None:
        found[name] = Finer(values, axes, given)
    return values


def explaining() -> bool:
    """Whether finer steps are noted, so that they must be made."""
    return _notebook.get() is not None


@contextmanager
def noting() -> Iterator[None]:
    """While it lasts, finer steps are noted; `take` hands them out."""
    token = _notebook.set({})
    try:
        yield
    finally:
        _notebook.reset(token)


def take() -> dict[str, Finer]:
    """What was noted since it was last taken."""
    found = _notebook.get()
    if not found:
        return {}
    _notebook.set({})
    return found


# ── writing ──────────────────────────────────────────────────────────────────────────────────────
class Num(NamedTuple):
    """A number on the page, and the cell of the step it is; without a step it came in."""

    value: float
    step: str = ""
    where: tuple[int, ...] = ()


WORKING = "~"  # the step of numbers that are no step's: results on the way


class Vec(tuple[Num, ...]):
    """Numbers side by side."""


_NOTHING = Vec()
Expr = Sequence["str | Num | Vec"]


class Line(NamedTuple):
    """`label  expr = expr = expr   remark`"""

    label: str
    exprs: tuple[Expr, ...]
    remark: str = ""


@dataclass(frozen=True)
class Cell:
    """One key before the query: its score as it comes in and as it goes out of this step."""

    label: str
    index: int
    before: Num
    after: Num
    pick: Callable[[str], Any] = field(repr=False)
    k: Vec = _NOTHING
    i: int | None = None  # positions of query and key
    j: int | None = None
    hidden: bool = False
    why: str = ""  # what hides it

    def __call__(self, name: str) -> Any:
        """A finer step at this key."""
        return self.pick(name)


@dataclass(frozen=True)
class Work:
    """What a part may write with: one query's row of one step."""

    cells: tuple[Cell, ...]  # those shown
    every: tuple[Cell, ...]  # all keys, and the sink where there is one
    pick: Callable[[str], Any] = field(repr=False)
    q: Vec = _NOTHING  # the query, or the vector before this step
    out: Vec = _NOTHING  # the vector after it
    first: int = 0  # where this head's columns begin among all heads'
    part: Any = None
    value: float = math.nan  # of a link
    label: str = ""
    most: int = 8  # terms of a sum before its middle is left out

    def __call__(self, name: str) -> Any:
        """A finer step of this query: a number, or numbers along what axes are left."""
        return self.pick(name)

    def __contains__(self, name: str) -> bool:
        """Whether the part noted such a finer step."""
        try:
            self.pick(name)
        except KeyError:
            return False
        return True

    @property
    def seen(self) -> tuple[Cell, ...]:
        """Those shown that are not hidden."""
        return tuple(c for c in self.cells if not c.hidden)

    def sum(self, terms: Sequence[Expr], values: Sequence[float]) -> Expr:
        """term + term + … ; the middle of a long one stands as the sum it has."""
        if not terms:
            return ["0"]
        n = len(terms)
        if n <= self.most:
            return _joined(terms)
        head, tail = 3, 1
        middle = Num(sum(values[head : n - tail]), WORKING)
        return [*_joined(terms[:head]), " + (", f"{n - head - tail} more: ", middle, ") + ", *terms[-1]]

    def products(self, a: Iterable[Num], b: Iterable[Num], between: str = "·") -> Expr:
        """a₁·b₁ + a₂·b₂ + …"""
        pairs = list(zip(a, b, strict=True))
        return self.sum([[x, between, y] for x, y in pairs], [x.value * y.value for x, y in pairs])

    def added(self, term: Callable[[Cell], Expr], value: Callable[[Cell], float]) -> Expr:
        """The sum over every key that is not hidden, those shown written out."""
        shown = {c.index for c in self.cells}
        seen = [c for c in self.every if not c.hidden]
        first = seen if len(seen) <= self.most else [c for c in seen if c.index in shown][: self.most]
        terms: list[Expr] = [term(c) for c in first]
        written = {c.index for c in first}
        rest = [value(c) for c in seen if c.index not in written]
        if rest:
            terms.append([f"({len(rest)} more: ", Num(sum(rest), WORKING), ")"])
        return _joined(terms)

    def each(self, write: Callable[[Cell], Sequence[Expr]]) -> Iterator[Line]:
        """A line for each key shown that is not hidden, ending in what it becomes."""
        for c in self.seen:
            yield Line(c.label, (*write(c), [c.after]))


Worked = Callable[[Work], Iterable[Line]]


def per_key(write: Callable[[Work, Cell], Sequence[Expr]]) -> Worked:
    """A part that works key by key, each by itself."""
    return lambda w: w.each(lambda c: write(w, c))


def working(x: float) -> Num:
    """A result on the way."""
    return Num(x, WORKING)


def _joined(terms: Iterable[Expr]) -> list[str | Num | Vec]:
    out: list[str | Num | Vec] = []
    for term in terms:
        out += [" + ", *term] if out else term
    return out


def scaled(factor: Num, vector: Iterable[Num]) -> Vec:
    """A number times a vector."""
    return Vec(working(factor.value * x.value) for x in vector)
