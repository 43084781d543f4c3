"""What a fault yields, and the list that faults register in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from attncli.check.trials import Bench
from attncli.plan import Plan
from attncli.types import NumpyArray

Figures = dict[str, NumpyArray]


@dataclass(frozen=True)
class Suspicion:
    """Something that figures may be instead."""

    name: str
    says: str
    compute: Callable[[], Plan | Figures | None]
    rank: int = 1  # how far-fetched: of several that fit, the lowest is named first
    kin: bool = False  # it need not give each figure: rounding errors that go the same way are enough
    same: tuple[str, ...] = ()  # steps that it leaves as they are, whatever its rewriting did to them
    cost: float = 0.0  # digits of the figures that it was made from
    flat: bool = False  # its mark is figures that are all alike
    rounds: bool = False  # rounding, looked for where nothing else fits
    base: bool = False  # common enough that other faults are tried on top of it


Fault = Callable[[Bench], Iterator[Suspicion]]
FAULTS: list[Fault] = []


def fault(function: Fault) -> Fault:
    """Register a fault."""
    FAULTS.append(function)
    return function
