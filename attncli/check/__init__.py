"""Are these figures right? Claims held against the reference, step by step; whether that could fail; what they are instead.

    prepare   problem × variant × figures → task: everything that can be refused is refused, without torch
    settle    task → verdict

The reference is the problem computed in float64 from its inputs as stored. Faults are small rewrites of the problem, the
variant or the plan; the algebra knows nothing of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attncli.check import rules
from attncli.check.claims import Claim, claims_of, full_shape, named, printed, top_of, where
from attncli.check.figures import Figures
from attncli.check.trials import Bench
from attncli.plan import Plan
from attncli.plan import plan as make_plan
from attncli.types import Problem
from attncli.variant import Variant
from attncli.verdict import Answer, Finding, Rule, Verdict

Progress = Callable[[float, str], None]  # (share done, what is being done)


@dataclass(frozen=True)
class Task:
    """Claims that go with a plan, each with its rule: nothing left to refuse."""

    plan: Plan
    figures: Figures
    claims: tuple[Claim, ...]
    rules: tuple[Rule, ...]
    top: int | None
    missing: tuple[Claim, ...] = ()
    warnings: tuple[str, ...] = ()


def prepare(
    problem: Problem,
    variant: Variant,
    figures: Figures,
    *,
    step: str | None = None,
    layout: str | None = None,
    rule: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> Task:
    """Everything before torch: which cells are claimed, and by which rule they are judged.

    Raises:
        OptionError: a figure's step is not known, or is none.
        InputError: the figures do not go with the problem.
    """
    problem = _plain(problem)
    figures, given = named(figures, step)
    given = printed(given)
    top = top_of((*given, *figures.missing))
    drawn = variant.seed is None
    plan = make_plan(problem, variant.but(dtype="float64", device="cpu", schedule="dense"), (), top=top)
    claims = claims_of(figures, given, plan, layout)
    missing = (
        claims_of(dataclasses.replace(figures, missing=()), figures.missing, plan, None) if figures.missing else ()
    )
    keep = {c.step for c in (*claims, *missing)}
    warnings = []
    if drawn and plan.variant.seed is not None:
        warnings.append(
            "drawn-seed: parameters are drawn and no seed is said, so that no figures can be right: --seed N"
        )
    plan = dataclasses.replace(plan, keep=frozenset(keep))
    chosen = tuple(rules.rule_for(c, rule, rtol, atol) for c in claims)
    return Task(plan, figures, claims, chosen, top, missing, (*plan.warnings, *warnings))


def _plain(problem: Problem) -> Problem:
    """The same values in numpy, where tensors came in."""
    from attncli.validation.fields import as_numpy, is_tensor

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(inner) for key, inner in value.items()}
        if not is_tensor(value):
            return value
        array = as_numpy(value)
        return array.astype("float32") if array.dtype == "float16" else array

    named = {field.name: getattr(problem, field.name) for field in dataclasses.fields(problem)}
    return dataclasses.replace(
        problem, **{name: plain(x) for name, x in named.items() if name not in ("variant", "about")}
    )


def settle(task: Task, *, identify: bool | None = None, progress: Progress | None = None) -> Verdict:
    """The verdict on a task; this loads torch.

    Args:
        task: claims and their plan.
        identify: search what the figures are instead: on a difference (None), always, or never.
        progress: told how far the search is.
    """
    from attncli.check.comparison import Court

    return Court(task, progress).verdict(identify)


def check(
    problem: Problem, variant: Variant | None, figures: Figures, *, identify: bool | None = None, **options: Any
) -> Verdict:
    """Figures held against a problem: `prepare`, then `settle`."""
    from attncli.validation import admit

    problem = admit(problem)
    return settle(prepare(problem, variant or Variant(**problem.variant), figures, **options), identify=identify)


__all__ = [
    "Answer",
    "Bench",
    "Figures",
    "Finding",
    "Task",
    "Verdict",
    "check",
    "full_shape",
    "prepare",
    "settle",
    "where",
]
