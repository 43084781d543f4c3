"""Judging a tolerance by itself: which wrong answers to a problem it would pass, and what would tell them from right ones.

    prepare_judgement     problem × variant × tolerance → task: everything that can be refused is refused, without torch
    judge_tolerance_task  task → judgement: the reference, wrong answers, and plain attention in narrow dtypes

A large problem is judged on some of its queries, at equal distances: the tolerance is of a test, and no figures are claimed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from attncli.check.figures import kind_of_step
from attncli.check.rules import largest_finite
from attncli.check.sensitivity import are_nearly_equal
from attncli.check.task import with_numpy_arrays
from attncli.check.trials import StepArrays, Trials, at_queries, compute_or_none, finish_edited_plan
from attncli.check.wrong_answers import wrong_answers
from attncli.errors import OptionError
from attncli.plan import Plan, outline_plan
from attncli.plan.steps import resolve_keep
from attncli.tolerance import Deviation, RightAnswer, Tolerance, ToleranceJudgement, WrongAnswer, sort_by_difficulty
from attncli.types import NumpyArray, Problem
from attncli.variant import Variant

_DTYPES = ("float32", "bfloat16", "float16")
_MAX_SCORES = 1 << 20  # of the queries that are computed, but of no fewer than so many
_MIN_QUERIES = 8
_STEPS_OF_ANSWERS = ("output", "context", "weights")  # the first that there is, is what a kernel is tested by


@dataclass(frozen=True)
class ToleranceTask:
    """A plan that computes the queries and the step by which a tolerance is judged: nothing is left to refuse."""

    plan: Plan
    step: str
    tolerance: Tolerance


def prepare_judgement(
    problem: Problem,
    variant: Variant,
    tolerance: Tolerance,
    *,
    step: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> ToleranceTask:
    """Plan the reference, and choose the step and the queries that are judged; this loads no torch.

    Args:
        problem: a valid one.
        variant: of it.
        tolerance: the one that is judged.
        step: the step that a test compares; the last one, unless it is given.
        settings: the choices that settings made, and where.

    Raises:
        OptionError: no variant has such a step, or it does not hold floats.
        InputError: this variant does not have it.
    """
    in_float64 = variant.replace(dtype="float64", device="cpu", schedule=None)
    plan = finish_edited_plan(outline_plan(with_numpy_arrays(problem), in_float64, (), top=None))
    if step in ("all", ""):
        raise OptionError("bad-option", "--step takes one step", help="leave --step out for the last one")
    if step is None:
        step = next(name for name in _STEPS_OF_ANSWERS if name in plan.steps)
    elif kind_of_step(step) != "floats":
        hint = "leave --step out for the last step"
        raise OptionError("bad-option", f"{step} must be exactly right: no tolerance applies to it", help=hint)
    keep = resolve_keep([step], plan.steps, None)
    return ToleranceTask(dataclasses.replace(plan, keep=keep, settings=settings or {}), step, tolerance)


def _choose_queries(plan: Plan) -> NumpyArray | None:
    """Choose queries at equal distances, from the first to the last; None for all of them."""
    scores_of_query = (plan.size.batch or 1) * plan.shapes.heads * plan.size.keys
    count = max(_MAX_SCORES // scores_of_query, _MIN_QUERIES)
    if count >= plan.size.queries:
        return None
    return np.unique(np.linspace(0, plan.size.queries - 1, count).round().astype(int))


@np.errstate(all="ignore")  # what is not finite is measured, and nothing to warn of
def judge_tolerance_task(task: ToleranceTask) -> ToleranceJudgement:
    """Compute the reference, wrong answers and right ones, and measure how far they are from it; this loads torch."""
    queries = _choose_queries(task.plan)
    plan = at_queries(task.plan, np.arange(task.plan.size.queries) if queries is None else queries)
    trials = Trials(plan, None)
    if plan.problem.q is not None and (
        laid_out := trials.projected_plan
    ):  # in the layout and dtype of all that is computed
        plan, trials = laid_out, Trials(laid_out, None)
    result = trials.run_plan(plan, is_trial=False)
    reference = trials.collect_steps(plan, result)
    values = reference[task.step]
    return ToleranceJudgement(
        problem_name=task.plan.problem.source or "the problem",
        tolerance=task.tolerance,
        step=task.step,
        figure_count=int(values.size),
        query_count=task.plan.size.queries,
        sampled_queries=0 if queries is None else len(queries),
        variant=result.variant,
        summary=task.plan.summary,
        wrong_answers=sort_by_difficulty(tuple(_measure_wrong_answers(task, trials, reference))),
        right_answers=tuple(_measure_right_answers(task, trials, values)),
        warnings=(*task.plan.warnings, *(w for w in result.warnings if w not in plan.warnings)),
        settings=task.plan.settings,
    )


def _measure_wrong_answers(task: ToleranceTask, trials: Trials, reference: StepArrays) -> Iterator[WrongAnswer]:
    """Yield the wrong answers; of those that give the same figures, the first."""
    values = reference[task.step]
    largest, seen = largest_finite(values), set[bytes]()
    for wrong in wrong_answers(trials, reference):
        figures = compute_or_none(wrong.compute)
        wrong_values = None if figures is None else figures.get(task.step)
        if wrong_values is None or wrong_values.shape != values.shape:
            continue
        if are_nearly_equal(wrong_values, values, largest).all():
            yield WrongAnswer(wrong.name, None)
            continue
        key = np.round(np.asarray(wrong_values / (largest or 1.0)), 10).tobytes()
        if key not in seen:
            seen.add(key)
            yield WrongAnswer(wrong.name, _measure_deviation(task, trials.plan, wrong_values, values))


def _measure_right_answers(task: ToleranceTask, trials: Trials, values: NumpyArray) -> Iterator[RightAnswer]:
    for dtype in _DTYPES:
        plan = compute_or_none(lambda dtype=dtype: trials.with_choices(dtype=dtype))  # type: ignore[misc]  # a bound default
        steps = None if plan is None else compute_or_none(lambda plan=plan: trials.compute_steps(plan))  # type: ignore[misc]
        figures = None if steps is None else steps.get(task.step)
        if figures is not None and figures.shape == values.shape:
            yield RightAnswer(dtype, _measure_deviation(task, trials.plan, figures, values))


# ── measures ─────────────────────────────────────────────────────────────────────────────────────
def _measure_deviation(task: ToleranceTask, plan: Plan, values: NumpyArray, reference: NumpyArray) -> Deviation:
    """Measure how far figures are from the reference, by each measure."""
    is_same = are_nearly_equal(values, reference, largest_finite(reference))
    difference = np.where(is_same, 0.0, values - reference)
    difference = np.where(np.isfinite(difference), difference, np.inf)
    size = np.where(np.isfinite(reference), np.abs(reference), 0.0)
    allowed = task.tolerance.atol + task.tolerance.rtol * size
    error = np.abs(difference)
    factors = np.where(error == 0, 0.0, np.where(allowed > 0, error / allowed, np.inf))
    rows, row_sizes = (_split_rows(plan, task.step, x) for x in (error, size))
    return Deviation(
        within=float((error <= allowed).mean()),
        max_abs=float(error.max()),
        rms=_ratio(_norm(error), _norm(size)),
        worst_row=max(map(_ratio, _norms(rows), _norms(row_sizes))),
        cosine_distance=_cosine_distance(values, reference),
        relative_l1=_ratio(float(error.sum()), float(size.sum())),
        passing_factor=_share_quantile(factors, task.tolerance.matched),
    )


def _split_rows(plan: Plan, step: str, x: NumpyArray) -> NumpyArray:
    """Return a step with a row for each query and head: (rows, figures)"""
    axes = plan.steps[step]
    if axes[-1] not in ("dim", "key"):
        return x.reshape(-1, 1)
    if step == "context" and plan.shapes.has_head_axis:
        x = x.reshape(*x.shape[:-1], plan.shapes.mixed_heads, -1)
    return x.reshape(-1, x.shape[-1])


def _norm(x: NumpyArray) -> float:
    return float(_norms(x.reshape(1, -1))[0])


def _norms(rows: NumpyArray) -> NumpyArray:
    norms: NumpyArray = np.sqrt((rows**2).sum(-1))
    return norms


def _ratio(part: float, whole: float) -> float:
    """Divide; 0 where there is nothing, ∞ where there should be nothing."""
    if not part:
        return 0.0
    return float(part / whole) if whole else math.inf


def _cosine_distance(values: NumpyArray, reference: NumpyArray) -> float:
    """Return 1 − the cosine of the angle between all figures and the reference: 1 of zeros, ∞ of what is not finite."""
    is_known = np.isfinite(reference)
    a, b = values[is_known], reference[is_known]
    if not np.isfinite(a).all():
        return math.inf
    length = _norm(a) * _norm(b)
    if not length:
        return 0.0 if _norm(a) == _norm(b) else 1.0
    direction_a, direction_b = a / _norm(a), b / _norm(b)
    return float(((direction_a - direction_b) ** 2).sum() / 2)  # 1 − a·b, with all of its digits


def _share_quantile(factors: NumpyArray, share: float) -> float:
    """Return the least number that so large a share of the factors does not exceed."""
    count = math.ceil(share * factors.size - 1e-9)
    return float(np.partition(factors.ravel(), count - 1)[count - 1]) if count else 0.0
