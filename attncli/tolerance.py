"""The classes of a judged tolerance: which wrong answers it would pass, and what would tell them apart. Nothing here computes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from attncli.types import Json

TOLERANCE_SCHEMA_ID = "attn.tolerance/1"
_SHOWN_DIGITS = 2  # of a tolerance that is proposed; the others are cut off, so that it is not looser


@dataclass(frozen=True)
class Tolerance:
    """A figure is right if |Δ| ≤ atol + rtol·|reference|; so many of the figures must be."""

    rtol: float = 0.0
    atol: float = 0.0
    matched: float = 1.0  # the share of the figures that must be right

    def __str__(self) -> str:
        terms = [f"{self.atol:g}"] if self.atol or not self.rtol else []
        terms += [f"{self.rtol:g}·|reference|"] if self.rtol else []
        share = "every figure" if self.matched == 1 else f"{100 * self.matched:.6g} % of the figures"
        return f"|Δ| ≤ {' + '.join(terms)}, for {share}"

    def times(self, factor: float) -> Tolerance:
        """Return the tolerance with rtol and atol multiplied by a factor, cut off after two digits."""
        return Tolerance(_cut_off(self.rtol * factor), _cut_off(self.atol * factor), self.matched)


def _cut_off(x: float) -> float:
    if not x or not math.isfinite(x):
        return x
    unit = 10.0 ** (math.floor(math.log10(x)) + 1 - _SHOWN_DIGITS)
    return float(f"{math.floor(x / unit * (1 - 1e-9)) * unit:.{_SHOWN_DIGITS}g}")


@dataclass(frozen=True)
class Measure:
    """A way to say by one number how far figures are from the reference."""

    name: Literal["max_abs", "rms", "worst_row", "cosine_distance", "relative_l1"]
    label: str
    formula: str
    power: int = 1  # it grows with this power of the error

    @property
    def allowed_multiple(self) -> float:
        """By what the measure of plain attention is multiplied to get a bound: 2 times the error."""
        return float(2**self.power)


MEASURES = (
    Measure("max_abs", "max |Δ|", "max |Δ|"),
    Measure("rms", "rms", "√(Σ Δ² / Σ reference²)"),
    Measure("worst_row", "worst row", "the same of each query and head, the largest of them"),
    Measure("cosine_distance", "1 − cosine", "1 − the cosine of the angle between all figures and the reference", 2),
    Measure("relative_l1", "relative L1", "Σ |Δ| / Σ |reference|"),
)


@dataclass(frozen=True)
class Deviation:
    """How far the figures of one computation are from the reference."""

    within: float  # the share of them that the tolerance accepts
    max_abs: float
    rms: float
    worst_row: float
    cosine_distance: float
    relative_l1: float
    passing_factor: float  # by which rtol and atol are multiplied to just accept them

    def measured(self, measure: Measure) -> float:
        """Return what a measure gives."""
        value: float = getattr(self, measure.name)
        return value


@dataclass(frozen=True)
class WrongAnswer:
    """What a wrong computation gives."""

    name: str
    deviation: Deviation | None  # None: it gives the right figures here

    @property
    def passes(self) -> bool | None:
        """Whether the tolerance accepts it; None where it gives the right figures."""
        return None if self.deviation is None else self.deviation.passing_factor <= 1


@dataclass(frozen=True)
class RightAnswer:
    """What plain attention in some dtype gives: as far off as right work may be."""

    dtype: str
    deviation: Deviation


@dataclass(frozen=True)
class Bound:
    """A bound on a measure, twice the error of plain attention in a dtype, and the wrong answers beyond it."""

    dtype: str
    measure: Measure
    largest: float
    noticed: tuple[str, ...]


@dataclass(frozen=True)
class ToleranceJudgement:
    """The answer to: would this tolerance notice wrong work on this problem?"""

    problem_name: str
    tolerance: Tolerance
    step: str
    figure_count: int  # that were compared
    query_count: int
    sampled_queries: int  # of how many queries; 0: of all
    variant: Json
    summary: tuple[str, ...]
    wrong_answers: tuple[WrongAnswer, ...]  # the hardest to notice first
    right_answers: tuple[RightAnswer, ...]
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)  # the choices that settings made → where they were set

    @property
    def telling(self) -> tuple[WrongAnswer, ...]:
        """The wrong answers that give other figures than the reference."""
        return tuple(answer for answer in self.wrong_answers if answer.deviation is not None)

    @property
    def passed(self) -> tuple[str, ...]:
        """The names of the wrong answers that the tolerance accepts, the hardest to notice first."""
        return tuple(answer.name for answer in self.wrong_answers if answer.passes)

    @property
    def is_tight(self) -> bool:
        """Whether every wrong answer would be noticed."""
        return bool(self.telling) and not self.passed

    @property
    def verdict(self) -> Literal["tight-enough", "too-loose"]:
        return "tight-enough" if self.is_tight else "too-loose"

    @property
    def unnoticeable(self) -> tuple[str, ...]:
        """Names of the wrong answers that change fewer figures than may be wrong, so that no rtol and atol notices them."""
        return tuple(x.name for x in self.telling if x.deviation and not x.deviation.passing_factor > 0)

    @property
    def loosest_factor(self) -> float | None:
        """By what rtol and atol are multiplied to just miss the wrong answer that is hardest to notice; None: there is no such."""
        factors = [x.deviation.passing_factor for x in self.telling if x.deviation]
        positive = [factor for factor in factors if 0 < factor < math.inf]
        return min(positive, default=None)

    @property
    def loosest(self) -> Tolerance | None:
        """The loosest tolerance, in this proportion of rtol to atol, that notices all that can be noticed."""
        factor = self.loosest_factor
        return None if factor is None else self.tolerance.times(factor)

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """For each dtype and measure the bound, and what it notices."""
        return tuple(self._bound(right, measure) for right in self.right_answers for measure in MEASURES)

    def _bound(self, right: RightAnswer, measure: Measure) -> Bound:
        largest = measure.allowed_multiple * right.deviation.measured(measure)
        beyond = (x.name for x in self.telling if x.deviation and not x.deviation.measured(measure) <= largest)
        return Bound(right.dtype, measure, largest, tuple(beyond))

    def best_bound(self, dtype: str) -> Bound | None:
        """Return the bound that notices most in a dtype; of several, the first measure's."""
        bounds = [bound for bound in self.bounds if bound.dtype == dtype and math.isfinite(bound.largest)]
        return max(bounds, key=lambda bound: len(bound.noticed), default=None)

    def to_record(self) -> Json:
        """Everything as plain values: the schema attn.tolerance/1."""
        loosest = self.loosest
        return {
            "schema": TOLERANCE_SCHEMA_ID,
            "verdict": self.verdict,
            "input": self.problem_name,
            "tolerance": _tolerance_record(self.tolerance),
            "step": self.step,
            "of": self.figure_count,
            "sampled": self.sampled_queries or None,
            "variant": dict(self.variant),
            **({"settings": dict(self.settings)} if self.settings else {}),
            "passed": list(self.passed),
            "wrong_answers": [
                {"name": x.name, "passes": x.passes, **_deviation_record(x.deviation)} for x in self.wrong_answers
            ],
            "right_answers": [{"dtype": x.dtype, **_deviation_record(x.deviation)} for x in self.right_answers],
            "loosest": loosest and _tolerance_record(loosest),
            "unnoticeable": list(self.unnoticeable),
            "bounds": [
                {"dtype": x.dtype, "measure": x.measure.name, "bound": x.largest, "noticed": list(x.noticed)}
                for x in self.bounds
            ],
            "warnings": list(self.warnings),
        }


def _tolerance_record(tolerance: Tolerance) -> Json:
    return {"rtol": tolerance.rtol, "atol": tolerance.atol, "matched": tolerance.matched}


def _deviation_record(deviation: Deviation | None) -> Json:
    if deviation is None:
        return {}
    measures: Json = {measure.name: deviation.measured(measure) for measure in MEASURES}
    return {"within": deviation.within, **measures, "factor": deviation.passing_factor}


def sort_by_difficulty(answers: Sequence[WrongAnswer]) -> tuple[WrongAnswer, ...]:
    """Put the wrong answers that are hardest to notice first, and last those that give the right figures."""

    def difficulty(answer: WrongAnswer) -> float:
        return math.inf if answer.deviation is None else answer.deviation.passing_factor

    return tuple(sorted(answers, key=lambda answer: (answer.deviation is None, difficulty(answer))))
