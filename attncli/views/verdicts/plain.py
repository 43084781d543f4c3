"""A verdict as one fact a line, each with its name."""

from __future__ import annotations

from attncli.output_formats import RenderOptions
from attncli.text import printable
from attncli.verdict import FolderVerdict, GapMark, StepComparison, Verdict
from attncli.views.verdicts.gap_marks import format_gap_mark
from attncli.views.verdicts.numbers import format_error, format_shape, format_ulp_error, format_worst_figures
from attncli.views.verdicts.rows import describe_step_outcome
from attncli.views.verdicts.sentences import (
    cause_lines,
    conclusion_line,
    count_right_problems,
    diagnosis_lines,
    region_lines,
    rule_lines,
    sensitivity_lines,
)


def verdict_plain(verdict: Verdict, render_options: RenderOptions) -> str:
    """Render a verdict as one fact a line, each with its name."""
    lines = [
        f"verdict: {verdict.verdict}",
        f"figures: {printable(verdict.figures_name)}",
        f"input: {printable(verdict.problem_name)}",
        *(f"rule: {line}" for line in rule_lines(verdict)),
        *(_plain_step_line(step) if verdict.is_revealed else _plain_mark_line(step) for step in verdict.steps),
        *map(_plain_gap_line, verdict.gap_marks),
        *(f"cause: {line}" for line in cause_lines(verdict)),
        *(f"where: {line.strip()}" for line in (region_lines(verdict) if verdict.is_revealed else ())),
    ]
    if not verdict.is_complete:
        return "\n".join(lines) + "\n"
    lines += [
        *(f"diagnosis: {printable(line.strip())}" for line in diagnosis_lines(verdict)),
        *(f"near: {d.names[0]}  max_abs={format_error(d.max_abs_error)}" for d in verdict.nearest_candidates),
        *(f"power: {line}" for _, line in sensitivity_lines(verdict)),
        conclusion_line(verdict),
    ]
    return "\n".join(lines) + "\n"


def _plain_step_line(comparison: StepComparison) -> str:
    actual, reference = format_worst_figures(comparison)
    facts = (
        f"{comparison.step} {format_shape(comparison)}: {describe_step_outcome(comparison)}",
        f"max_abs={format_error(comparison.max_abs_error)}",
        f"max_rel={format_error(comparison.max_rel_error)}",
        f"ulp={format_ulp_error(comparison.max_ulp_error)}",
        f"at={comparison.worst_cell_text}",
        f"mine={actual}",
        f"reference={reference}",
    )
    return "  ".join(facts)


def _plain_mark_line(comparison: StepComparison) -> str:
    return f"{comparison.step} {format_shape(comparison)}: {describe_step_outcome(comparison)}"


def _plain_gap_line(mark: GapMark) -> str:
    gap, figure, written, right, _ = format_gap_mark(mark)
    word = {True: "right", False: "wrong", None: "open"}[mark.is_right]
    line = f"gap {gap} {figure}: {word}  written={written}"
    return f"{line}  right={right}" if right else line


def folder_plain(folder_verdict: FolderVerdict, render_options: RenderOptions) -> str:
    """Render a folder as one problem a line."""
    lines = []
    for problem in folder_verdict.problems:
        if problem.verdict is None:
            lines.append(f"{printable(problem.name)}: error  {printable(problem.error)}")
            continue
        steps = "  ".join(
            f"{c.step}={'right' if c.is_right else f'wrong ({c.wrong_count} of {c.figure_count})'}"
            for c in problem.verdict.steps
        )
        lines.append(f"{printable(problem.name)}: {problem.verdict.verdict}  {steps}")
    return "\n".join([*lines, count_right_problems(folder_verdict)]) + "\n"
