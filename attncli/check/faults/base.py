"""`Hypothesis`, which faults yield, `fault`, which registers a fault, and `fault_hypotheses`, which asks them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from attncli.check.trials import StepArrays, Trials
from attncli.plan import Plan


@dataclass
class Hypothesis:
    """A wrong computation that would explain the figures; `compute` may complete the description by what it finds."""

    name: str
    description: str
    compute: Callable[[], Plan | StepArrays | None]
    implausibility: int = 1  # how far-fetched: of several that fit, the lowest is named first
    approximate: bool = False  # it need not give each figure: errors in the same directions are enough
    unchanged_steps: tuple[str, ...] = ()  # steps that stay as the reference has them, whatever its plan gives
    evidence_cost: float = 0.0  # digits of evidence that making it from the figures has used up
    explains_constant: bool = False  # it may give figures that are all equal
    decimals: int | None = None  # that it leaves of what it rounds
    is_rounding: bool = False  # rounding is looked for where nothing else matches
    mixes_queries: bool = False  # a query's figures come from other queries, too: no sample of them shows it
    is_of_reference: bool = False  # made of the reference's figures: nothing is computed again
    is_backward: bool = False  # the way forward is right, and gradients alone are wrong
    is_solved: bool = False  # its number is solved for: beside a cause with a name of its own it says nothing more
    combinable: bool = False  # common enough that other faults are tried on top of it


Fault = Callable[[Trials], Iterator[Hypothesis]]
FAULTS: list[Fault] = []


def fault(function: Fault) -> Fault:
    """Register a fault: a function (Trials) → hypotheses."""
    FAULTS.append(function)
    return function


def fault_hypotheses(trials: Trials) -> Iterator[Hypothesis]:
    """Yield the hypotheses of every fault that this problem could show."""
    for find_hypotheses in FAULTS:
        yield from find_hypotheses(trials)
