"""Reaching the verdict on a task: claims are compared, causes traced, sensitivity checked, wrong figures searched for.

`check_prepared` takes a prepared task; `check` prepares it too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Unpack

import numpy as np

from attncli.check.causes import trace_causes
from attncli.check.claims import describe_cell
from attncli.check.comparison import Comparison
from attncli.check.equivalents import find_equivalents
from attncli.check.figures import Figures
from attncli.check.regions import locate_errors
from attncli.check.search import ProgressCallback, Search
from attncli.check.sensitivity import check_sensitivity
from attncli.check.task import CheckOptions, CheckTask, prepare
from attncli.types import Problem
from attncli.validation import validate
from attncli.variant import Variant
from attncli.verdict import GapMark, Outcome, SensitivityCheck, StepComparison, StepDifference, Verdict

_MIN_SCORES_FOR_THREADS = 1 << 16


def check(
    problem: Problem,
    variant: Variant | None,
    figures: Figures,
    *,
    identify: bool | None = None,
    **options: Unpack[CheckOptions],
) -> Verdict:
    """Check figures against a problem: `prepare`, then `check_prepared`.

    Args:
        problem: it is validated first.
        variant: None takes the choices in the problem.
        figures: what is claimed.
        identify: as in `check_prepared`.
        options: as in `prepare`.

    Raises:
        AttnError: the problem is not valid, or the figures do not go with it.
    """
    problem = validate(problem)
    return check_prepared(
        prepare(problem, variant or Variant(**problem.variant), figures, **options), identify=identify
    )


def check_prepared(
    task: CheckTask,
    *,
    identify: bool | None = None,
    progress: ProgressCallback | None = None,
    keep_differences: bool = False,
) -> Verdict:
    """Reach the verdict on a task: `judge`, then `search_changes`; this loads torch.

    Args:
        task: claims and their plan.
        identify: search what the figures are instead: on a difference (None), always, or never.
        progress: told how far the search is.
        keep_differences: keep each claimed figure's difference from the reference, too.
    """
    return search_changes(judge(task, identify=identify, keep_differences=keep_differences), progress)


@dataclass(frozen=True)
class Judgement:
    """A verdict before anything is searched for, and what is searched."""

    verdict: Verdict
    comparison: Comparison
    should_search: bool


@np.errstate(all="ignore")
def search_changes(judgement: Judgement, progress: ProgressCallback | None = None) -> Verdict:
    """Complete a verdict by what the figures are instead, if that is to be searched."""
    if not judgement.should_search:
        return judgement.verdict
    with _one_thread_if_small(judgement.comparison.sample.score_count):
        found = Search(judgement.comparison).find_changes(progress)
    return dataclasses.replace(
        judgement.verdict,
        identified=found.identified,
        nearest_candidates=found.nearest_candidates,
        equivalent_choices=found.equivalent_choices,
        trial_count=found.trial_count,
        left_out_count=found.left_out_count,
        sampled_queries=found.sampled_queries,
        is_complete=True,
    )


@np.errstate(all="ignore")  # what is not finite is compared, and nothing to warn of
def judge(task: CheckTask, *, identify: bool | None = None, keep_differences: bool = False) -> Judgement:
    """Compare all claims of a task, and say where they are wrong; this loads torch. Arguments are those of `check_prepared`."""
    comparison = Comparison(task)
    equivalents = find_equivalents(comparison)
    summaries = [_summarize_step(comparison, n) for n in range(len(task.claims))]
    steps = trace_causes(comparison, summaries, equivalents)
    sensitivity_checks = check_sensitivity(comparison) if task.claims else ()
    gap_marks = tuple(sorted(_mark_gaps(comparison), key=lambda mark: mark.gap_number))
    wrong_marks = [mark for mark in gap_marks if mark.is_right is False]
    is_rounding = bool(wrong_marks) and all(mark.units_off is not None for mark in wrong_marks)
    is_wrong = any(step.is_wrong for step in steps)
    should_search = is_wrong and not is_rounding if identify is None else identify
    result = comparison.result
    verdict = Verdict(
        verdict=_choose_outcome(steps, task, sensitivity_checks),
        problem_name=task.plan.problem.source or "the problem",
        figures_name=task.figures.name,
        variant=result.variant,
        settings=task.plan.settings,
        summary=task.plan.summary,
        steps=steps,
        sensitivity_checks=sensitivity_checks,
        gap_marks=gap_marks,
        step_order=tuple(task.plan.steps),
        observations=tuple(
            f"all of your {task.claims[n].step} are {value}" for n, value in comparison.constant_claims.items()
        ),
        notes=task.figures.notes,
        differences=tuple(_step_differences(comparison)) if keep_differences else (),
        warnings=(*task.warnings, *(w for w in result.warnings if w not in task.warnings)),
    )
    should_search = bool(task.claims and should_search)
    return Judgement(dataclasses.replace(verdict, is_complete=not should_search), comparison, should_search)


def _step_differences(comparison: Comparison) -> Iterator[StepDifference]:
    for claim, cells in zip(comparison.task.claims, comparison.cell_comparisons, strict=True):
        difference = claim.values.astype(np.float64) - comparison.reference_cells(claim)
        yield StepDifference(claim.step, difference, ~cells.is_right)


def _summarize_step(comparison: Comparison, claim_index: int) -> StepComparison:
    """Summarize a claim, and where it is wrong; a worksheet's marks say that already."""
    summary = comparison.summarize(claim_index)
    if summary.is_right or comparison.task.claims[claim_index].step_figures.gap_numbers:
        return summary
    return dataclasses.replace(summary, region=locate_errors(comparison, claim_index))


def _choose_outcome(
    steps: Sequence[StepComparison], task: CheckTask, sensitivity_checks: Iterable[SensitivityCheck]
) -> Outcome:
    if any(step.is_wrong for step in steps):
        return "wrong"
    if task.open_gaps:
        return "unanswered"
    if any(check.caught is False for check in sensitivity_checks):
        return "too-loose"
    return "right" if all(step.is_right for step in steps) else "otherwise"


def _mark_gaps(comparison: Comparison) -> Iterator[GapMark]:
    """Mark every gap of a worksheet, filled in or left open."""
    plan = comparison.task.plan
    for claim, cells in zip(comparison.task.claims, comparison.cell_comparisons, strict=True):
        for i, gap in enumerate(claim.step_figures.gap_numbers):
            yield GapMark(
                gap_number=gap,
                step=claim.step,
                cell_text=describe_cell(plan, claim.cell_at((i,))),
                is_right=bool(cells.is_right[i]),
                written_text=claim.step_figures.gap_texts[i],
                reference=comparison.reference_cells(claim)[i].item(),
                value=float(claim.values[i]),
                decimals=None if claim.step_figures.decimals is None else int(claim.step_figures.decimals[i]),
            )
    for claim in comparison.task.open_gaps:
        for i, gap in enumerate(claim.step_figures.gap_numbers):
            yield GapMark(
                gap_number=gap,
                step=claim.step,
                cell_text=describe_cell(plan, claim.cell_at((i,))),
                is_right=None,
                reference=comparison.reference_cells(claim)[i].item(),
            )


@contextmanager
def _one_thread_if_small(score_count: int) -> Iterator[None]:
    """Compute on one thread while the arrays are so small that sharing them costs more than computing."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1 if score_count < _MIN_SCORES_FOR_THREADS else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
