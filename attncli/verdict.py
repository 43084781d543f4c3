"""The nouns of a verdict: what was claimed, how far it is from the reference, what it is instead. Nothing here computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from attncli.types import Json

Outcome = Literal["right", "wrong", "too-loose", "unanswered"]
SCHEMA = "attn.check/1"


@dataclass(frozen=True)
class Rule:
    """When a figure is right: by which rule, with which numbers, and why this one."""

    name: Literal["digits", "close", "flash", "exact"]
    why: str = ""
    dtype: str = "float64"  # of the figures; under flash, of the plain attention they are held against
    rtol: float | None = None
    atol: float | None = None
    relative: bool = False  # atol is a share of the step's largest figure
    bound: float | None = None  # flash: the error allowed
    plain: float | None = None  # flash: the error of plain attention in that dtype

    def __str__(self) -> str:
        if self.name == "digits":
            return "digits: rounded or truncated to what is written"
        if self.name == "exact":
            return "exact: booleans and integers are the same"
        if self.name == "flash":
            return f"flash: error ≤ 2 × that of plain {self.dtype}, and 2 units in the last place"
        of = " of the step's largest" * self.relative
        return f"close: rtol {self.rtol:g}, atol {self.atol:g}{of}"


@dataclass(frozen=True)
class Finding:
    """One claimed step against the reference."""

    step: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]  # of what was claimed
    rule: Rule
    right: bool
    of: int  # how many figures were claimed
    wrong: int  # how many of them are not right
    max_abs: float
    max_rel: float
    ulp: float  # in units in the last place: of the step's largest in its dtype, or of what is written
    tolerance: float  # at that place
    at: Mapping[str, int]  # where the error is largest
    where: str  # the same in words: sat → cat
    mine: float | bool
    reference: float | bool
    cause: str = ""  # a step that is wrong: first, follows, itself
    digits: int | None = None  # decimals that were written there


@dataclass(frozen=True)
class Power:
    """One wrong computation held to the same rule: could these figures tell it from the right one?"""

    name: str  # uniform weights
    caught: bool | None  # None: nothing here can tell
    error: float | None = None  # its largest error on the claimed steps
    step: str = ""  # where that is
    why: str = ""  # why nothing can tell


@dataclass(frozen=True)
class Suspect:
    """What the figures are instead: things that give the same figures, the simplest first."""

    names: tuple[str, ...]
    says: str
    steps: tuple[str, ...]  # wrong ones that it gives
    max_abs: float
    match: bool = True  # within the rule; otherwise merely near


@dataclass(frozen=True)
class Answer:
    """One gap of a worksheet."""

    gap: int
    step: str
    where: str
    right: bool | None  # None: left open
    written: str = ""
    reference: object = None


@dataclass(frozen=True)
class Verdict:
    """The answer to: are these figures right?"""

    verdict: Outcome
    input: str
    figures: str
    variant: Json
    summary: tuple[str, ...]
    steps: tuple[Finding, ...]
    power: tuple[Power, ...] = ()
    identified: tuple[Suspect, ...] = ()
    nearest: tuple[Suspect, ...] = ()  # where nothing gives these figures
    alike: tuple[str, ...] = ()  # other choices that give the right figures too
    searched: int = 0  # how many computations were tried
    answers: tuple[Answer, ...] = ()
    plain: tuple[str, ...] = ()  # what is seen of wrong figures without a search: all of your weights are 0
    order: tuple[str, ...] = ()  # every step of the variant, in order of computation
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def first_wrong(self) -> str | None:
        return next((f.step for f in self.steps if not f.right), None)

    def record(self) -> Json:
        """Everything for programs, as plain values; see the README."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "input": self.input,
            "figures": self.figures,
            "variant": dict(self.variant),
            "steps": [_step(f) for f in self.steps],
            "first_wrong": self.first_wrong,
            "power": [
                {"wrong": p.name, "caught": p.caught, "max_abs": p.error, "step": p.step or None, "why": p.why or None}
                for p in self.power
            ],
            "identified": [_suspect(s) for s in self.identified],
            "nearest": [_suspect(s) for s in self.nearest],
            "alike": list(self.alike),
            "plain": list(self.plain),
            "searched": self.searched,
            **({"answers": [vars(a) for a in self.answers]} if self.answers else {}),
            "warnings": list(self.warnings),
        }


def _suspect(s: Suspect) -> Json:
    return {"names": list(s.names), "says": s.says, "steps": list(s.steps), "max_abs": s.max_abs}


def _step(f: Finding) -> Json:
    rule = {k: v for k, v in vars(f.rule).items() if v is not None and v != "" and k != "relative"}
    if f.rule.relative:
        rule["atol_of"] = "the step's largest"
    return {
        "step": f.step,
        "axes": list(f.axes),
        "shape": list(f.shape),
        "rule": rule,
        "tolerance": f.tolerance,
        "max_abs": f.max_abs,
        "max_rel": f.max_rel,
        "ulp": f.ulp,
        "at": dict(f.at),
        "where": f.where,
        "mine": f.mine,
        "reference": f.reference,
        "of": f.of,
        "wrong": f.wrong,
        "right": f.right,
        "cause": f.cause or None,
    }


@dataclass(frozen=True)
class Matrix:
    """Many problems at once: each with its verdict, or with why it has none."""

    folder: str
    rows: tuple[tuple[str, Verdict | None, str], ...] = field(default=())  # name, verdict, what is wrong with the file

    @property
    def right(self) -> int:
        return sum(v is not None and v.verdict == "right" for _, v, _ in self.rows)

    def record(self) -> Json:
        """One record for the folder, a verdict or an error for each problem in it."""
        return {
            "schema": SCHEMA,
            "verdict": "right" if self.right == len(self.rows) else "wrong",
            "input": self.folder,
            "of": len(self.rows),
            "right": self.right,
            "problems": [
                v.record() if v else {"input": name, "verdict": "error", "error": why} for name, v, why in self.rows
            ],
        }
