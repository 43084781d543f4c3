"""The rows of a verdict's table of steps, and the marks of its steps."""

from __future__ import annotations

from collections.abc import Iterator

from attncli.verdict import FolderVerdict, StepComparison, Verdict
from attncli.views.verdicts.gap_marks import CHECK_MARKS
from attncli.views.verdicts.numbers import format_error, format_shape, format_ulp_error, format_worst_figures


def is_step_right(comparison: StepComparison) -> bool | None:
    """Return whether a step is right; None if it is otherwise, and not wrong."""
    return None if comparison.cause == "otherwise" else comparison.is_right


def describe_step_outcome(comparison: StepComparison) -> str:
    """Return `right`, `wrong`, or `otherwise`."""
    return {True: "right", False: "wrong", None: "otherwise"}[is_step_right(comparison)]


def step_mark_text(comparison: StepComparison | None) -> str:
    """Return the mark of a step, with how many of its figures are wrong."""
    if comparison is None:
        return CHECK_MARKS[None]
    if comparison.cause == "otherwise":
        return CHECK_MARKS[None]
    mark = CHECK_MARKS[comparison.is_right]
    return mark if comparison.is_right else f"{mark} {comparison.wrong_count}/{comparison.figure_count}"


def claimed_steps(folder_verdict: FolderVerdict) -> list[str]:
    """Return every step that some problem claims, in order of computation."""
    order: list[str] = []
    for problem in folder_verdict.problems:
        position = 0
        for step in problem.verdict.step_order if problem.verdict else ():
            if step not in order:
                order.insert(position, step)
            position = order.index(step) + 1
    claimed = {step for problem in folder_verdict.problems for step in problem.comparisons}
    return [step for step in order if step in claimed]


def step_rows(verdict: Verdict) -> Iterator[tuple[str, ...]]:
    """Yield the heads of the columns of the table of steps, then its rows; of a concealed verdict the marks alone."""
    if not verdict.is_revealed:
        yield "step", "shape", ""
        for comparison in verdict.steps:
            yield comparison.step, format_shape(comparison), step_mark_text(comparison)
        return
    yield "step", "shape", "max Δ", "max rel", "in ulp", "at", "mine", "reference", ""
    for comparison in verdict.steps:
        yield (
            comparison.step,
            format_shape(comparison),
            format_error(comparison.max_abs_error),
            format_error(comparison.max_rel_error),
            format_ulp_error(comparison.max_ulp_error),
            comparison.worst_cell_text,
            *format_worst_figures(comparison),
            CHECK_MARKS[is_step_right(comparison)],
        )
