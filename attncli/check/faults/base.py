"""What a fault yields, and the list that faults register in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from attncli.check.trials import Trials
from attncli.plan import Plan
from attncli.types import NumpyArray

StepArrays = dict[str, NumpyArray]


@dataclass(frozen=True)
class Hypothesis:
    """Something that figures may be instead."""

    name: str
    description: str
    compute: Callable[[], Plan | StepArrays | None]
    implausibility: int = 1  # how far-fetched: of several that fit, the lowest is named first
    approximate: bool = False  # it need not give each figure: rounding errors that go the same way are enough
    unchanged_steps: tuple[str, ...] = ()  # steps that it leaves as they are, whatever its rewriting did to them
    evidence_cost: float = 0.0  # digits of the figures that it was made from
    explains_constant: bool = False  # its mark is figures that are all alike
    is_rounding: bool = False  # rounding, looked for where nothing else fits
    combinable: bool = False  # common enough that other faults are tried on top of it


Fault = Callable[[Trials], Iterator[Hypothesis]]
FAULTS: list[Fault] = []


def fault(function: Fault) -> Fault:
    """Register a fault."""
    FAULTS.append(function)
    return function
