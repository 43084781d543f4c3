"""What a verdict says in sentences: which step is wrong first, where, what the figures are instead, whether wrong work would be noticed.

`describe_verdict` gathers them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from attncli.text import join_names, pluralize, printable
from attncli.verdict import FolderVerdict, Verdict
from attncli.views.verdicts.gap_marks import rounding_lines
from attncli.views.verdicts.numbers import format_error

_MAX_DIAGNOSES = 3  # that are written as sentences; of the others only names
_MAX_EQUIVALENT_NAMES = 4  # of what gives the same figures
_VERDICT_WORDS = {
    "right": "right",
    "wrong": "wrong",
    "otherwise": "not wrong, but otherwise",
    "too-loose": "too loose: wrong work would not be noticed",
    "unanswered": "not complete",
}


def headline_parts(verdict: Verdict) -> list[str]:
    """Return what was compared with what, and the variant's summary."""
    figures, problem = printable(verdict.figures_name), printable(verdict.problem_name)
    first = figures if verdict.figures_name == verdict.problem_name else f"{figures} against {problem}"
    return [first, *map(printable, verdict.summary)]


def rule_lines(verdict: Verdict) -> Iterator[str]:
    """Yield each rule that was used, and why."""
    steps_by_rule: dict[str, list[str]] = {}
    for comparison in verdict.steps:
        steps_by_rule.setdefault(f"{comparison.rule} ({comparison.rule.reason})", []).append(comparison.step)
    for rule, steps in steps_by_rule.items():
        yield rule if len(steps_by_rule) == 1 else f"{join_names(dict.fromkeys(steps))}: {rule}"


def allowed_error_lines(verdict: Verdict) -> Iterator[str]:
    """Yield the error that flash allows each step."""
    for comparison in verdict.steps:
        rule = comparison.rule
        if rule.allowed_error is not None and rule.plain_error is not None:
            plain = f"plain {rule.dtype} is off by {format_error(rule.plain_error)}"
            yield f"{comparison.step}: {plain}, so {format_error(rule.allowed_error)} is allowed"


def cause_lines(verdict: Verdict) -> Iterator[str]:
    """Say which step is wrong first, and which of the others follow from it; of a worksheet, what rounding explains."""
    if verdict.gap_marks:
        yield from rounding_lines(verdict)
        return
    for comparison in verdict.steps:
        if comparison.cause == "otherwise":
            yield f"{comparison.step}: {comparison.cause_text}"
    wrong = [comparison for comparison in verdict.steps if comparison.is_wrong]
    if not wrong:
        return
    first = wrong[0]
    has_order = not first.is_gradient  # gradients are not computed one from the other
    line = f"{first.step} is the first step that is wrong" if has_order else f"{first.step} is wrong"
    if first.figure_count > 1:
        if first.wrong_count == first.figure_count:
            line += f", all {first.figure_count} of its figures"
        else:
            line += f", {first.wrong_count} of {first.figure_count} figures"
    others = verdict.steps[: verdict.steps.index(first)] if has_order else verdict.steps
    right = [comparison.step for comparison in others if comparison.is_right]
    if right:
        place = " before it" if has_order else ""
        line += f"; {join_names(right)}{place} {'is' if len(right) == 1 else 'are'} right"
    yield line
    for comparison in wrong[1:]:
        if comparison.cause:
            yield f"{comparison.step}: {comparison.cause_text}"
        elif not has_order:
            yield f"{comparison.step} is wrong too, {comparison.wrong_count} of {comparison.figure_count} figures"
        else:
            yield f"{comparison.step} is wrong too, and may follow from it"


def region_lines(verdict: Verdict) -> Iterator[str]:
    """Say where each wrong step is wrong, and below it what the wrong rows look like; nothing of a single figure."""
    for comparison in verdict.steps:
        region = comparison.region
        if region is None or not comparison.is_wrong or comparison.figure_count == 1 or not comparison.axes:
            continue
        if region.is_everywhere and not region.observations:
            continue
        yield f"{comparison.step}: wrong {region.words}"
        yield from (f"    {observation}" for observation in region.observations)


def sensitivity_lines(verdict: Verdict) -> Iterator[tuple[bool | None, str]]:
    """Say whether wrong work would be noticed by these figures, each line with its mark; nothing where they did tell."""
    if verdict.verdict == "wrong":
        return
    caught = [check for check in verdict.sensitivity_checks if check.caught]
    if caught:
        names = (f"{check.name} (off by {format_error(check.max_error or 0)})" for check in caught)
        yield True, f"noticed: {' · '.join(names)}"
    for check in verdict.sensitivity_checks:
        if check.caught is False:
            error = format_error(check.max_error or 0)
            yield False, f"not noticed: {check.name} (off by {error} at most, which the rule allows)"
    names_by_reason: dict[str, list[str]] = {}
    for check in verdict.sensitivity_checks:
        if check.caught is None:
            names_by_reason.setdefault(check.reason, []).append(check.name)
    for reason, untold in names_by_reason.items():
        yield None, f"not checked: {join_names(untold)} ({reason})"


def diagnosis_lines(verdict: Verdict) -> Iterator[str]:
    """Say what the figures are instead; lines that belong to the one before are indented."""
    for observation in verdict.observations:
        yield f"{observation}, but the reference has other figures there"
    for diagnosis in verdict.identified[:_MAX_DIAGNOSES]:
        yield diagnosis.sentence
        if others := _other_names_plainest_first(diagnosis.names):
            yield f"    the same figures come from: {join_names(others, 'and', max_names=_MAX_EQUIVALENT_NAMES)}"
    if len(verdict.identified) > _MAX_DIAGNOSES:
        names = join_names((diagnosis.names[0] for diagnosis in verdict.identified[_MAX_DIAGNOSES:]), max_names=8)
        yield f"    these figures cannot distinguish it from: {names}"
    if any(diagnosis.is_match for diagnosis in verdict.nearest_candidates):
        fitting = "these fit" if len(verdict.nearest_candidates) > 1 else "this fits"
        yield f"{fitting}, but with so few figures it may be chance:"
    elif verdict.observations and not verdict.identified:
        return
    elif verdict.verdict == "wrong" and verdict.trial_count and not verdict.identified:
        tried = f"{verdict.trial_count:,} computations"
        if verdict.sampled_queries:
            tried += f" of {pluralize(verdict.sampled_queries, 'query', 'queries')}"
        if verdict.left_out_count:
            what = pluralize(verdict.left_out_count, "less likely change", "less likely changes or pairs of changes")
            tried += f", without {what}"
        line = f"nothing that was tried gives these figures ({tried})"
        yield f"{line}; these take off most of the error:" if verdict.nearest_candidates else line
    if verdict.equivalent_choices:
        yield f"the same figures would come from: {join_names(verdict.equivalent_choices, max_names=12)}"


def _other_names_plainest_first(names: Sequence[str]) -> list[str]:
    """Order the names after the first: names of a new kind, then those that differ from an earlier one by numbers alone."""
    kinds = {_without_numbers(names[0])}
    new_kinds: list[str] = []
    repeated_kinds: list[str] = []
    for name in names[1:]:
        kind = _without_numbers(name)
        (repeated_kinds if kind in kinds else new_kinds).append(name)
        kinds.add(kind)
    return new_kinds + repeated_kinds


def _without_numbers(name: str) -> str:
    return re.sub(r"[\d.,−-]+", "", name)


def conclusion_line(verdict: Verdict) -> str:
    """Sum up the verdict in one line."""
    word, marks = _VERDICT_WORDS[verdict.verdict], verdict.gap_marks
    if marks:
        answered = [mark for mark in marks if mark.is_right is not None]
        right_count = sum(mark.is_right is True for mark in answered)
        open_count = len(marks) - len(answered)
        line = f"{word}: {len(answered)} of {len(marks)} answered, {right_count} right"
        return f"{line}, {open_count} left open" if open_count else line
    figure_count = sum(comparison.figure_count for comparison in verdict.steps)
    if verdict.verdict == "wrong":
        wrong_count = sum(comparison.wrong_count for comparison in verdict.steps if comparison.is_wrong)
        steps = dict.fromkeys(comparison.step for comparison in verdict.steps if comparison.is_wrong)
        return f"wrong: {wrong_count} of {pluralize(figure_count, 'figure')}, in {join_names(steps)}"
    if verdict.verdict == "otherwise":
        steps = dict.fromkeys(comparison.step for comparison in verdict.steps if not comparison.is_right)
        return f"{word}: {join_names(steps)}"
    if verdict.verdict == "too-loose":
        return word
    if any(comparison.is_right_to_float32 for comparison in verdict.steps):
        word = "right to float32"
    return f"{word}: all of {pluralize(figure_count, 'figure')}"


@dataclass(frozen=True)
class VerdictTexts:
    """What a verdict says in words, beside its table."""

    heading: str
    rules: tuple[str, ...]
    sentences: tuple[str, ...]
    conclusion: str


def _searched_sentences(verdict: Verdict) -> Iterator[str]:
    """Yield what a search found, and whether wrong work would be noticed."""
    yield from (printable(line.strip()) for line in diagnosis_lines(verdict))
    yield from (f"near: {d.names[0]}, max Δ {format_error(d.max_abs_error)}" for d in verdict.nearest_candidates)
    yield from (line for _, line in sensitivity_lines(verdict))


def describe_verdict(verdict: Verdict) -> VerdictTexts:
    """Say a verdict in words."""
    return VerdictTexts(
        heading=" · ".join(headline_parts(verdict)),
        rules=(*rule_lines(verdict), *allowed_error_lines(verdict)),
        sentences=(
            *cause_lines(verdict),
            *(line.strip() for line in (region_lines(verdict) if verdict.is_revealed else ())),
            *(_searched_sentences(verdict) if verdict.is_complete else ()),
        ),
        conclusion=conclusion_line(verdict),
    )


def count_right_problems(folder_verdict: FolderVerdict) -> str:
    """Say how many problems are right: `2 of 3 problems right`."""
    return f"{folder_verdict.right_count} of {pluralize(len(folder_verdict.problems), 'problem')} right"
