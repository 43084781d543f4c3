"""The classes of a verdict: what was claimed, how far it is from the reference, what it is instead. Nothing here computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from attncli.types import Json, NumpyArray

Outcome = Literal["right", "otherwise", "wrong", "too-loose", "unanswered"]  # otherwise: in what nothing after it sees
Cause = Literal["", "first", "follows", "independent", "otherwise"]
_MIN_DECIMALS_OF_ROUNDING = 3  # digits after the point from which on a small error can come from rounding on the way
_MAX_DECIMALS_OF_ROUNDING = 17  # of a float64 no more say anything
_MAX_UNITS_OF_ROUNDING = 9.5  # of the last digit
CHECK_SCHEMA_ID = "attn.check/1"
_NEARLY_ALL = 0.99  # a few wrong figures among many are right by chance
_AXIS_NOUNS = {"batch": "batch item", "kv_head": "kv head", "new_key": "new key"}


@dataclass(frozen=True)
class Rule:
    """The rule by which figures are right, its numbers, and why it was chosen."""

    name: Literal["digits", "close", "flash", "exact"]
    reason: str = ""
    dtype: str = "float64"  # of the figures; under flash, of the plain attention they are compared with
    rtol: float | None = None
    atol: float | None = None
    atol_is_relative: bool = False  # atol is a share of the step's largest figure
    allowed_error: float | None = None  # flash: the error allowed
    plain_error: float | None = None  # flash: the error of plain attention in that dtype
    factor: int = 2  # flash: how many times that error is allowed

    def __str__(self) -> str:
        if self.name == "digits":
            within = f", or off by at most rtol {self.rtol:g}, atol {self.atol:g}" if self.rtol or self.atol else ""
            return f"digits: right if rounded or truncated to the digits written{within}"
        if self.name == "exact":
            return "exact: booleans and integers must be equal"
        if self.name == "flash":
            return f"flash: error ≤ {self.factor} × that of plain {self.dtype} and 2 units in the last place"
        text = f"close: rtol {self.rtol:g}, atol {self.atol:g}"
        return f"{text} of the step's largest" if self.atol_is_relative else text


@dataclass(frozen=True)
class AxisRegion:
    """At which indices of one axis figures are wrong."""

    axis: str
    wrong: tuple[int, ...]  # indices with a wrong figure, ascending
    claimed_count: int  # how many indices were claimed
    words: str  # queries 128 to 511; empty: all of them

    @property
    def first_multiple(self) -> int | None:
        """The largest power of two that the first wrong index is a multiple of; None where that is index 0."""
        return (self.wrong[0] & -self.wrong[0]) or None


@dataclass(frozen=True)
class ErrorMap:
    """How much is wrong where: the share of wrong figures by index, or by ranges of indices, of two axes."""

    row_axis: str  # "batch · head" where both are rows; empty: there is one row
    column_axis: str
    row_labels: tuple[str, ...]
    column_ends: tuple[int, ...]  # the index behind the last of each column
    shares: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ErrorRegion:
    """Where the wrong figures of a step are and what they look like; nothing of it is searched for."""

    axes: tuple[AxisRegion, ...]
    share: float  # of the figures at these indices, how many are wrong
    observations: tuple[str, ...] = ()  # what the wrong rows look like
    error_map: ErrorMap | None = None  # where it shows more than the words do

    @property
    def is_everywhere(self) -> bool:
        """Whether every claimed figure is wrong."""
        return self.share == 1 and not any(axis.words for axis in self.axes)

    @property
    def words(self) -> str:
        """In head 7, in queries 128 to 511; 83 % of the figures there."""
        restricted = [f"in {axis.words}" for axis in self.axes if axis.words]
        is_all = self.share >= _NEARLY_ALL
        share = f"{self.share:.0%}" if self.share >= 1 - _NEARLY_ALL else f"{self.share:.2%}"
        if not restricted:
            names = [_AXIS_NOUNS.get(axis.axis, axis.axis) for axis in self.axes if axis.claimed_count > 1]
            everywhere = f"in every {' and '.join(filter(None, (', '.join(names[:-1]), names[-1])))}" if names else ""
            return everywhere if is_all or not everywhere else f"{everywhere}, {share} of the figures"
        return ", ".join(restricted) + ("" if is_all else f"; {share} of the figures there")


@dataclass(frozen=True)
class FigureTable:
    """Claimed figures as a table, each beside the reference."""

    title: str  # which batch item and head; empty: there is one
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    figures: tuple[tuple[str, ...], ...]  # as they were claimed
    reference: tuple[tuple[str, ...], ...]  # with two digits more
    is_right: tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class StepComparison:
    """One claimed step compared with the reference."""

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
    tolerance: float  # at the worst cell
    worst_cell: Mapping[str, int]  # where the error is largest
    worst_cell_text: str  # the same in words: sat → cat
    actual: float | bool  # the figure there
    reference: float | bool
    cause: Cause = ""  # of a wrong step, as far as it is known
    cause_step: str = ""  # the earlier step from which it follows, or not
    difference: str = ""  # of a step that is otherwise, and not wrong: in what
    decimals: int | None = None  # that the figure there was written with
    region: ErrorRegion | None = None  # of a wrong step
    is_gradient: bool = False  # which is computed from all steps and a loss, not from an earlier gradient
    is_right_to_float32: bool = False  # right only as what a program printed that computes in float32
    make_tables: Callable[[], Iterator[FigureTable]] | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> Mapping[str, object]:
        """Leave out what makes tables, which another process does not have."""
        return {**self.__dict__, "make_tables": None}

    @property
    def is_wrong(self) -> bool:
        """Whether some figure is not right, and not merely otherwise."""
        return not self.is_right and self.cause != "otherwise"

    @property
    def cause_text(self) -> str:
        """The cause in words, about the claimant's own figures."""
        if self.cause == "follows":
            return f"follows from your {self.cause_step}"
        if self.cause == "independent":
            return f"wrong by itself, even from your {self.cause_step}"
        if self.cause == "otherwise":
            return f"not wrong, but otherwise: {self.difference}"
        return self.cause


@dataclass(frozen=True)
class SensitivityCheck:
    """Whether the claimed figures could tell one wrong computation from the right one, by the same rules."""

    name: str  # uniform weights
    caught: bool | None  # None: no claimed figure differs
    max_error: float | None = None  # its largest error on the claimed steps
    worst_step: str = ""  # where that is
    reason: str = ""  # why nothing can tell


@dataclass(frozen=True)
class Diagnosis:
    """What the figures are instead: computations that give the same figures, the simplest first."""

    names: tuple[str, ...]
    sentence: str
    explained_steps: tuple[str, ...]  # wrong steps that it gives
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
    reference: object = None  # None: not revealed
    value: float | None = None  # of what was written
    decimals: int | None = None  # digits after the point of what was written

    @property
    def units_off(self) -> int | None:
        """By how many units of its last digit an answer is wrong, where rounding on the way can be the reason; else None."""
        if self.is_right is not False or self.value is None or not isinstance(self.reference, float):
            return None
        if self.decimals is None or not _MIN_DECIMALS_OF_ROUNDING <= self.decimals <= _MAX_DECIMALS_OF_ROUNDING:
            return None
        units = abs(self.value - self.reference) * 10.0**self.decimals
        return round(units) if units < _MAX_UNITS_OF_ROUNDING else None


@dataclass(frozen=True)
class StepDifference:
    """The figures of one claimed step beside the reference, in the shape of what was claimed."""

    step: str
    difference: NumpyArray  # mine − reference
    is_wrong: NumpyArray


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
    left_out_count: int = 0  # how many changes were not, because others are likelier
    sampled_queries: int = 0  # of how many queries they were tried; 0: of all
    gap_marks: tuple[GapMark, ...] = ()
    observations: tuple[str, ...] = ()  # what wrong figures show without a search: all of your weights are 0
    step_order: tuple[str, ...] = ()  # every step of the variant, in order of computation
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    is_revealed: bool = True  # whether figures of the reference may be shown
    differences: tuple[StepDifference, ...] = ()  # where they were asked for
    is_complete: bool = True  # whether what is to be searched for has been
    settings: Mapping[str, str] = field(
        default_factory=dict
    )  # what settings chose of variant and rule → where they were set

    def hide_answers(self) -> Verdict:
        """Return the marks alone: no figure of the reference, and nothing that says how far off an answer is."""
        return replace(
            self,
            gap_marks=tuple(replace(mark, reference=None) for mark in self.gap_marks),
            sensitivity_checks=(),
            identified=(),
            nearest_candidates=(),
            equivalent_choices=(),
            observations=(),
            differences=(),
            steps=tuple(replace(step, region=None) for step in self.steps),
            trial_count=0,
            sampled_queries=0,
            is_revealed=False,
        )

    @property
    def first_wrong_step(self) -> str | None:
        return next((step.step for step in self.steps if step.is_wrong), None)

    def to_record(self) -> Json:
        """Everything as plain values: the schema attn.check/1; of a concealed verdict the marks alone."""
        if not self.is_revealed:
            return self._marks_record()
        return {
            "schema": CHECK_SCHEMA_ID,
            "verdict": self.verdict,
            "input": self.problem_name,
            "figures": self.figures_name,
            "variant": dict(self.variant),
            **self._settings_record,
            "steps": [_step_record(step) for step in self.steps],
            "first_wrong": self.first_wrong_step,
            "power": [
                {
                    "wrong": check.name,
                    "caught": check.caught,
                    "max_abs": check.max_error,
                    "step": check.worst_step or None,
                    "why": check.reason or None,
                }
                for check in self.sensitivity_checks
            ],
            "identified": [_diagnosis_record(diagnosis) for diagnosis in self.identified],
            "nearest": [_diagnosis_record(diagnosis) for diagnosis in self.nearest_candidates],
            "alike": list(self.equivalent_choices),
            "plain": list(self.observations),
            "searched": self.trial_count,
            "left_out": self.left_out_count,
            "sampled": self.sampled_queries or None,
            **({"answers": [_gap_record(mark) for mark in self.gap_marks]} if self.gap_marks else {}),
            "warnings": list(self.warnings),
        }

    @property
    def _settings_record(self) -> Json:
        return {"settings": dict(self.settings)} if self.settings else {}

    def _marks_record(self) -> Json:
        """What a concealed verdict says: which steps and which gaps are right."""
        steps = [
            {
                "step": step.step,
                "axes": list(step.axes),
                "shape": list(step.shape),
                "of": step.figure_count,
                "wrong": step.wrong_count,
                "right": step.is_right,
            }
            for step in self.steps
        ]
        answers = [{k: v for k, v in _gap_record(mark).items() if k != "reference"} for mark in self.gap_marks]
        return {
            "schema": CHECK_SCHEMA_ID,
            "verdict": self.verdict,
            "input": self.problem_name,
            "figures": self.figures_name,
            "revealed": False,
            "variant": dict(self.variant),
            **self._settings_record,
            "steps": steps,
            "first_wrong": self.first_wrong_step,
            **({"answers": answers} if answers else {}),
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
        "factor": rule.factor if rule.name == "flash" else None,
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
        "cause": comparison.cause_text or None,
        **({"region": _region_record(comparison.region)} if comparison.region else {}),
    }


def _region_record(region: ErrorRegion) -> Json:
    error_map = region.error_map
    return {
        "axes": {
            axis.axis: {
                "wrong": _to_ranges(axis.wrong),
                "count": len(axis.wrong),
                "of": axis.claimed_count,
                "first": axis.wrong[0],
                "multiple_of": axis.first_multiple,
            }
            for axis in region.axes
        },
        "share": region.share,
        "where": region.words,
        "says": list(region.observations),
        "map": error_map
        and {
            "rows": error_map.row_axis or None,
            "row_labels": list(error_map.row_labels),
            "columns": error_map.column_axis,
            "column_ends": list(error_map.column_ends),
            "shares": [list(row) for row in error_map.shares],
        },
    }


def _to_ranges(indices: Iterable[int]) -> list[list[int]]:
    """Ascending indices as ranges whose end is excluded: 3, 4, 5, 9 → [3, 6], [9, 10]."""
    ranges: list[list[int]] = []
    for index in indices:
        if ranges and ranges[-1][1] == index:
            ranges[-1][1] = index + 1
        else:
            ranges.append([index, index + 1])
    return ranges


@dataclass(frozen=True)
class ProblemVerdict:
    """One problem of a folder: its verdict, or the error that it has instead."""

    name: str
    verdict: Verdict | None = None
    error: str = ""  # its code and its message

    @property
    def comparisons(self) -> Mapping[str, StepComparison]:
        """The comparison of each claimed step, by its name."""
        return {step.step: step for step in self.verdict.steps} if self.verdict else {}

    def to_record(self) -> Json:
        """The problem's verdict or error as plain values."""
        if self.verdict:
            return self.verdict.to_record()
        return {"input": self.name, "verdict": "error", "error": self.error}


@dataclass(frozen=True)
class FolderVerdict:
    """The verdicts of all problems in a folder that say what they expect."""

    folder: str
    problems: tuple[ProblemVerdict, ...]

    def hide_answers(self) -> FolderVerdict:
        """Return the marks alone, of each problem."""
        concealed = (
            replace(problem, verdict=problem.verdict and problem.verdict.hide_answers()) for problem in self.problems
        )
        return replace(self, problems=tuple(concealed))

    @property
    def right_count(self) -> int:
        return sum(
            problem.verdict is not None and problem.verdict.verdict in ("right", "otherwise")
            for problem in self.problems
        )

    @property
    def is_right(self) -> bool:
        return self.right_count == len(self.problems)

    @property
    def verdict(self) -> Literal["right", "wrong", "too-loose"]:
        """Too loose if nothing is wrong, and all that is not right is too loose."""
        if self.is_right:
            return "right"
        outcomes = {problem.verdict.verdict if problem.verdict else "error" for problem in self.problems}
        return "too-loose" if outcomes <= {"right", "otherwise", "too-loose"} else "wrong"

    def to_record(self) -> Json:
        """One record for the folder, with a verdict or an error for each problem in it."""
        return {
            "schema": CHECK_SCHEMA_ID,
            "verdict": self.verdict,
            "input": self.folder,
            "of": len(self.problems),
            "right": self.right_count,
            "problems": [problem.to_record() for problem in self.problems],
        }
