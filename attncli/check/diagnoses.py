"""Sentences of the matches that a search has found, and of what is near."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from attncli.check import rules
from attncli.check.comparison import Comparison
from attncli.check.trial_results import TrialResult
from attncli.text import join_names
from attncli.verdict import Diagnosis

_MAX_NEAREST_CANDIDATES = 5
_ERROR_DECIMALS = 11  # of errors as shares of the largest figure, to which two ways of computing the same are equal


def make_diagnoses(comparison: Comparison, matches: list[TrialResult]) -> tuple[Diagnosis, ...]:
    """Turn matches into diagnoses, the simplest first; matches that the figures cannot tell apart share one."""
    matches = sorted(
        matches, key=lambda r: (r.implausibility, not r.is_fault, round(r.max_relative_error, _ERROR_DECIMALS))
    )
    groups: list[list[TrialResult]] = []
    for match in matches:
        group = next((group for group in groups if _are_indistinguishable(comparison, group[0], match)), None)
        if group is None:
            groups.append([match])
        else:
            group.append(match)
    return tuple(_make_diagnosis(comparison, group) for group in groups)


def _are_indistinguishable(comparison: Comparison, match: TrialResult, other: TrialResult) -> bool:
    """Tell whether the claimed figures cannot tell two computations apart."""
    if match.figures_key == other.figures_key:
        return True
    for n, (values, other_values) in enumerate(zip(match.claimed_cells, other.claimed_cells, strict=True)):
        cells = rules.compare_cells(
            comparison.rules[n], values, other_values, comparison.decimals[n], rules.largest_finite(other_values)
        )
        if not cells.is_right.all():
            return False
    return True


def _make_diagnosis(comparison: Comparison, group: Sequence[TrialResult], *, is_match: bool = True) -> Diagnosis:
    """Make one diagnosis of results that give the same figures, with the sentence of the first."""
    first = group[0]
    steps = join_names(first.explained_steps or [claim.step for claim in comparison.task.claims])
    verb = "are" if (steps.endswith("s") and steps != "dbias") or " and " in steps else "is"
    if not is_match:
        verb += " like"
    named = [result for result in group if not result.hypothesis.is_solved] or group
    return Diagnosis(
        tuple(dict.fromkeys(name for result in named for name in result.names)),
        f"your {steps} {verb} the reference {first.description}",
        first.explained_steps,
        first.max_error,
        is_match,
    )


def find_nearest_candidates(comparison: Comparison, results: Sequence[TrialResult]) -> tuple[Diagnosis, ...]:
    """Find the few results that match, if by chance; or else those that take off most of the error."""
    near = [r for r in results if r.is_near and r.differs_from_reference]
    if any(r.is_match for r in near):
        near = [r for r in near if r.is_match]
    groups: dict[bytes, list[TrialResult]] = {}
    for result in sorted(near, key=lambda r: (r.max_relative_error, r.implausibility)):
        groups.setdefault(result.figures_key, []).append(result)
    nearest = itertools.islice(groups.values(), _MAX_NEAREST_CANDIDATES)
    return tuple(_make_diagnosis(comparison, group, is_match=group[0].is_match) for group in nearest)
