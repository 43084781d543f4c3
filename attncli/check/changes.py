"""Everything one change away from a plan, and the same change made again on other queries."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from attncli.check.alternatives import Alternative, one_choice_alternatives
from attncli.check.faults import Hypothesis, fault_hypotheses
from attncli.check.trial_results import TrialResult
from attncli.check.trials import Trials, compute_or_none
from attncli.plan import Plan


def rebuild_fault(name: str, trials: Trials) -> tuple[Hypothesis, Trials] | None:
    """Return the fault of a name on other queries; None where it does not apply to them."""
    found = next((hypothesis for hypothesis in fault_hypotheses(trials) if hypothesis.name == name), None)
    return None if found is None else (found, trials)


def rebuild_choice(alternative: Alternative, trials: Trials) -> tuple[Hypothesis, Trials]:
    """Return another choice on other queries."""
    return choice_hypothesis(trials, alternative), trials


def rebuild_two_choices(first: Alternative, second: Alternative, trials: Trials) -> tuple[Hypothesis, Trials]:
    """Return two other choices on other queries."""
    return two_choices_hypothesis(trials, first, second), trials


def rebuild_fault_on(name: str, base: TrialResult, trials: Trials) -> tuple[Hypothesis, Trials] | None:
    """Return a fault on top of another change, on other queries; None where one of them does not apply."""
    found = base.rebuild(trials) if base.rebuild else None
    plan = None if found is None else compute_or_none(found[0].compute)
    return rebuild_fault(name, trials.confirming(plan)) if isinstance(plan, Plan) else None


def choice_hypothesis(trials: Trials, alternative: Alternative) -> Hypothesis:
    """Make the hypothesis that a choice was made otherwise."""
    compute = partial(trials.with_choices, **{alternative.choice_name: alternative.value})
    return Hypothesis(alternative.option_text, alternative.description, compute, alternative.implausibility)


def two_choices_hypothesis(trials: Trials, first: Alternative, second: Alternative) -> Hypothesis:
    """Make the hypothesis that two choices were made otherwise."""
    return Hypothesis(
        f"{first.option_text} {second.option_text}",
        f"{first.description} and {second.description}",
        partial(trials.with_choices, **{first.choice_name: first.value, second.choice_name: second.value}),
        first.implausibility + second.implausibility,
    )


def single_changes(trials: Trials) -> Iterator[tuple[Hypothesis, Alternative | None]]:
    """Yield everything one change away: faults, then choices, each with its alternative."""
    for hypothesis in fault_hypotheses(trials):
        yield hypothesis, None
    for alternative in one_choice_alternatives(trials.plan):
        yield choice_hypothesis(trials, alternative), alternative
