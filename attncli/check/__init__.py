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
from attncli.check.claims import (
    Claim,
    apply_common_dtype,
    assign_steps,
    describe_cell,
    largest_claimed_rank,
    make_claims,
    step_shape,
)
from attncli.check.figures import Figures
from attncli.check.trials import Trials
from attncli.plan import Plan, make_plan
from attncli.types import Problem
from attncli.variant import Variant
from attncli.verdict import GapMark, Rule, StepComparison, Verdict

SearchProgressCallback = Callable[[float, str], None]  # (share done, what is being done)


@dataclass(frozen=True)
class CheckTask:
    """Claims that go with a plan, each with its rule: nothing left to refuse."""

    plan: Plan
    figures: Figures
    claims: tuple[Claim, ...]
    rules: tuple[Rule, ...]
    top: int | None
    open_gaps: tuple[Claim, ...] = ()
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
) -> CheckTask:
    """Everything before torch: which cells are claimed, and by which rule they are judged.

    Raises:
        OptionError: a figure's step is not known, or is none.
        InputError: the figures do not go with the problem.
    """
    problem = _with_numpy_arrays(problem)
    figures, given = assign_steps(figures, step)
    given = apply_common_dtype(given)
    top = largest_claimed_rank((*given, *figures.open_gaps))
    drawn = variant.seed is None
    plan = make_plan(problem, variant.replace(dtype="float64", device="cpu", schedule="dense"), (), top=top)
    claims = make_claims(figures, given, plan, layout)
    missing = (
        make_claims(dataclasses.replace(figures, open_gaps=()), figures.open_gaps, plan, None)
        if figures.open_gaps
        else ()
    )
    keep = {c.step for c in (*claims, *missing)}
    warnings = []
    if drawn and plan.variant.seed is not None:
        warnings.append(
            "drawn-seed: parameters are drawn and no seed is said, so that no figures can be right: --seed N"
        )
    plan = dataclasses.replace(plan, keep=frozenset(keep))
    chosen = tuple(rules.choose_rule(c, rule, rtol, atol) for c in claims)
    return CheckTask(plan, figures, claims, chosen, top, missing, (*plan.warnings, *warnings))


def _with_numpy_arrays(problem: Problem) -> Problem:
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


def settle(task: CheckTask, *, identify: bool | None = None, progress: SearchProgressCallback | None = None) -> Verdict:
    """The verdict on a task; this loads torch.

    Args:
        task: claims and their plan.
        identify: search what the figures are instead: on a difference (None), always, or never.
        progress: told how far the search is.
    """
    from attncli.check.comparison import Comparison

    return Comparison(task, progress).make_verdict(identify)


def check(
    problem: Problem, variant: Variant | None, figures: Figures, *, identify: bool | None = None, **options: Any
) -> Verdict:
    """Figures held against a problem: `prepare`, then `settle`."""
    from attncli.validation import validate

    problem = validate(problem)
    return settle(prepare(problem, variant or Variant(**problem.variant), figures, **options), identify=identify)


__all__ = [
    "CheckTask",
    "Figures",
    "GapMark",
    "StepComparison",
    "Trials",
    "Verdict",
    "check",
    "describe_cell",
    "prepare",
    "settle",
    "step_shape",
]
