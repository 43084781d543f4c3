"""What trials of a search give, and which of them may be one of two changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from attncli.check.alternatives import Alternative
from attncli.check.faults import Hypothesis
from attncli.check.trials import Trials
from attncli.types import NumpyArray

# trials of a problem → a change of it, and the trials that it is computed with
RebuildHypothesis: TypeAlias = Callable[[Trials], tuple[Hypothesis, Trials] | None]


@dataclass(frozen=True)
class TrialResult:
    """A computation that was tried, and how its figures compare with the claims."""

    names: tuple[str, ...]
    description: str
    implausibility: int
    is_fault: bool
    is_match: bool
    evidence_digits: float  # by which it is nearer to the figures than the reference is, over all wrong figures
    max_error: float
    max_relative_error: float  # the same as a share of each step's largest figure
    residual: float  # Σ error², over the wrong claims, of such shares
    explained_steps: tuple[str, ...]  # wrong steps that it gives
    figures_key: bytes  # equal for computations that give the same figures
    differs_from_reference: bool  # somewhere in the claimed cells
    breaks_right_claims: bool  # a claim that is right would be wrong
    claimed_cells: tuple[NumpyArray, ...]  # its figures, if it matches: they tell it from other matches
    hypothesis: Hypothesis
    approximate: bool  # it does not match, and need not: its errors go in the same directions
    rebuild: RebuildHypothesis | None = None  # the same on other queries
    is_near: bool = False  # it matches, or takes off most of the error and breaks nothing that is right


@dataclass(frozen=True)
class SingleTrial:
    """A trial of one change; without an alternative the change is a fault."""

    result: TrialResult
    alternative: Alternative | None


def is_real_match(result: TrialResult) -> bool:
    """Tell whether a computation gives the figures, and the reference does not."""
    return result.is_match and result.differs_from_reference


def pairable_choices(singles: Sequence[SingleTrial]) -> list[tuple[TrialResult, Alternative]]:
    """Return the choices that may be one of two changes: one for each set of figures, and likely ones that change nothing."""
    changing: dict[bytes, tuple[TrialResult, Alternative]] = {}
    silent: list[tuple[TrialResult, Alternative]] = []
    for single in sorted(singles, key=lambda single: single.result.implausibility):
        result, alternative = single.result, single.alternative
        if alternative is None:
            continue
        if not result.differs_from_reference:
            if result.implausibility == 1:
                silent.append((result, alternative))
        elif not result.breaks_right_claims:
            changing.setdefault(result.figures_key, (result, alternative))
    return [*changing.values(), *silent]


def pairable_faults(singles: Sequence[SingleTrial]) -> list[TrialResult]:
    """Return the faults that may be one of two changes: one for each set of figures."""
    faults = [
        single.result
        for single in singles
        if single.alternative is None
        and single.result.differs_from_reference
        and not single.result.breaks_right_claims
        and single.result.implausibility < 3
    ]
    return list({result.figures_key: result for result in reversed(faults)}.values())[::-1]
