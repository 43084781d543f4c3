"""The nouns of a verdict: what was claimed, how far it is from the reference, what it is instead. Nothing here computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from attncli.types import Json

Outcome = Literal["right", "wrong", "too-loose", "unanswered"]
CHECK_SCHEMA_ID = "attn.check/1"


@dataclass(frozen=True)
class Rule:
    """When a figure is right: by which rule, with which numbers, and why this one."""

    name: Literal["digits", "close", "flash", "exact"]
    reason: str = ""
    dtype: str = "float64"  # of the figures; under flash, of the plain attention they are held against
    rtol: float | None = None
    atol: float | None = None
    atol_is_relative: bool = False  # atol is a share of the step's largest figure
    allowed_error: float | None = None  # flash: the error allowed
    plain_error: float | None = None  # flash: the error of plain attention in that dtype

    def __str__(self) -> str:
        if self.name == "digits":
            return "digits: rounded or truncated to what is written"
        if self.name == "exact":
            return "exact: booleans and integers are the same"
        if self.name == "flash":
            return f"flash: error ≤ 2 × that of plain {self.dtype}, and 2 units in the last place"
        of = " of the step's largest" * self.atol_is_relative
        return f"close: rtol {self.rtol:g}, atol {self.atol:g}{of}"


@dataclass(frozen=True)
class StepComparison:
    """One claimed step against the reference."""

    step: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]  # of what was claimed
    rule: Rule
    is_right: bool
    figure_count: int  # how many figures were claimed
    wrong_count: int  # how many of them are not right
    max_abs_error: float
    max_rel_error: float
    max_ulp_error: float  # in units in the last place: of the step's largest in its dtype, or of what is written
    tolerance: float  # at that place
    worst_cell: Mapping[str, int]  # where the error is largest
    worst_cell_text: str  # the same in words: sat → cat
    actual: float | bool
    reference: float | bool
    cause: str = ""  # a step that is wrong: first, follows, itself
    decimals: int | None = None  # decimals that were written there


@dataclass(frozen=True)
class SensitivityCheck:
    """One wrong computation held to the same rule: could these figures tell it from the right one?"""

    name: str  # uniform weights
    caught: bool | None  # None: nothing here can tell
    max_error: float | None = None  # its largest error on the claimed steps
    worst_step: str = ""  # where that is
    reason: str = ""  # why nothing can tell


@dataclass(frozen=True)
class Diagnosis:
    """What the figures are instead: things that give the same figures, the simplest first."""

    names: tuple[str, ...]
    sentence: str
    explained_steps: tuple[str, ...]  # wrong ones that it gives
    max_abs_error: float
    is_match: bool = True  # within the rule; otherwise merely near


@dataclass(frozen=True)
class GapMark:
    """One gap of a worksheet."""

    gap_number: int
    step: str
    cell_text: str
    is_right: bool | None  # None: left open
    written_text: str = ""
    reference: object = None


@dataclass(frozen=True)
class Verdict:
    """The answer to: are these figures right?"""

    verdict: Outcome
    problem_name: str
    figures_name: str
    variant: Json
    summary: tuple[str, ...]
    steps: tuple[StepComparison, ...]
    sensitivity_checks: tuple[SensitivityCheck, ...] = ()
    identified: tuple[Diagnosis, ...] = ()
    nearest_candidates: tuple[Diagnosis, ...] = ()  # where nothing gives these figures
    equivalent_choices: tuple[str, ...] = ()  # other choices that give the right figures too
    trial_count: int = 0  # how many computations were tried
    gap_marks: tuple[GapMark, ...] = ()
    observations: tuple[str, ...] = ()  # what is seen of wrong figures without a search: all of your weights are 0
    step_order: tuple[str, ...] = ()  # every step of the variant, in order of computation
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def first_wrong_step(self) -> str | None:
        return next((f.step for f in self.steps if not f.is_right), None)

    def to_record(self) -> Json:
        """Everything for programs, as plain values; see the README."""
        return {
            "schema": CHECK_SCHEMA_ID,
            "verdict": self.verdict,
            "input": self.problem_name,
            "figures": self.figures_name,
            "variant": dict(self.variant),
            "steps": [_step_record(f) for f in self.steps],
            "first_wrong": self.first_wrong_step,
            "power": [
                {
                    "wrong": p.name,
                    "caught": p.caught,
                    "max_abs": p.max_error,
                    "step": p.worst_step or None,
                    "why": p.reason or None,
                }
                for p in self.sensitivity_checks
            ],
            "identified": [_diagnosis_record(s) for s in self.identified],
            "nearest": [_diagnosis_record(s) for s in self.nearest_candidates],
            "alike": list(self.equivalent_choices),
            "plain": list(self.observations),
            "searched": self.trial_count,
            **({"answers": [_gap_record(a) for a in self.gap_marks]} if self.gap_marks else {}),
            "warnings": list(self.warnings),
        }


def _diagnosis_record(diagnosis: Diagnosis) -> Json:
    return {
        "names": list(diagnosis.names),
        "says": diagnosis.sentence,
        "steps": list(diagnosis.explained_steps),
        "max_abs": diagnosis.max_abs_error,
    }


def _gap_record(mark: GapMark) -> Json:
    return {
        "gap": mark.gap_number,
        "step": mark.step,
        "where": mark.cell_text,
        "right": mark.is_right,
        "written": mark.written_text,
        "reference": mark.reference,
    }


def _rule_record(rule: Rule) -> Json:
    values = {
        "name": rule.name,
        "why": rule.reason,
        "dtype": rule.dtype,
        "rtol": rule.rtol,
        "atol": rule.atol,
        "bound": rule.allowed_error,
        "plain": rule.plain_error,
    }
    return {key: value for key, value in values.items() if value is not None and value != ""}


def _step_record(comparison: StepComparison) -> Json:
    rule = _rule_record(comparison.rule)
    if comparison.rule.atol_is_relative:
        rule["atol_of"] = "the step's largest"
    return {
        "step": comparison.step,
        "axes": list(comparison.axes),
        "shape": list(comparison.shape),
        "rule": rule,
        "tolerance": comparison.tolerance,
        "max_abs": comparison.max_abs_error,
        "max_rel": comparison.max_rel_error,
        "ulp": comparison.max_ulp_error,
        "at": dict(comparison.worst_cell),
        "where": comparison.worst_cell_text,
        "mine": comparison.actual,
        "reference": comparison.reference,
        "of": comparison.figure_count,
        "wrong": comparison.wrong_count,
        "right": comparison.is_right,
        "cause": comparison.cause or None,
    }


@dataclass(frozen=True)
class FolderVerdict:
    """Many problems at once: each with its verdict, or with why it has none."""

    folder: str
    rows: tuple[tuple[str, Verdict | None, str], ...] = field(default=())  # name, verdict, what is wrong with the file

    @property
    def right_count(self) -> int:
        return sum(v is not None and v.verdict == "right" for _, v, _ in self.rows)

    def to_record(self) -> Json:
        """One record for the folder, a verdict or an error for each problem in it."""
        return {
            "schema": CHECK_SCHEMA_ID,
            "verdict": "right" if self.right_count == len(self.rows) else "wrong",
            "input": self.folder,
            "of": len(self.rows),
            "right": self.right_count,
            "problems": [
                v.to_record() if v else {"input": name, "verdict": "error", "error": why} for name, v, why in self.rows
            ],
        }
