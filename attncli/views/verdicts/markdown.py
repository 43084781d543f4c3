"""A verdict as pipe tables and sentences in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attncli.output_formats import RenderOptions
from attncli.text import printable
from attncli.verdict import FolderVerdict, Verdict
from attncli.views.text import escape_markdown
from attncli.views.verdicts.gap_marks import format_gap_mark
from attncli.views.verdicts.rows import claimed_steps, step_mark_text, step_rows
from attncli.views.verdicts.sentences import count_right_problems, describe_verdict

_NUMBER_COLUMNS = ("max Δ", "max rel", "in ulp", "mine", "reference")  # which stand at the right of their column


def verdict_markdown(verdict: Verdict, render_options: RenderOptions) -> str:
    """Render a verdict as a pipe table and sentences in Markdown."""
    texts = describe_verdict(verdict)
    lines = [
        escape_markdown(texts.heading),
        "",
        *map(escape_markdown, texts.rules),
        "",
        *(_markdown_gap_table(verdict) if verdict.gap_marks else _markdown_step_table(verdict)),
        "",
        *(f"* {escape_markdown(sentence)}" for sentence in texts.sentences),
    ]
    if verdict.is_complete:
        lines += ["", f"**{escape_markdown(texts.conclusion)}**"]
    return "\n".join(lines) + "\n"


def _pipe_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_gap_table(verdict: Verdict) -> Iterator[str]:
    columns = [0, 1, 2, 3, 4] if verdict.is_revealed else [0, 1, 2, 4]
    yield _pipe_row(("gap", "figure", "written", "right is", "")[i] for i in columns)
    yield _pipe_row(("---", "---", "---:", "---:", "---")[i] for i in columns)
    for mark in verdict.gap_marks:
        cells = format_gap_mark(mark)
        yield _pipe_row(escape_markdown(cells[i]) for i in columns)


def _markdown_step_table(verdict: Verdict) -> Iterator[str]:
    head, *rows = step_rows(verdict)
    yield _pipe_row(head)
    yield _pipe_row("---:" if name in _NUMBER_COLUMNS else "---" for name in head)
    for cells in rows:
        yield _pipe_row(map(escape_markdown, cells))


def folder_markdown(folder_verdict: FolderVerdict, render_options: RenderOptions) -> str:
    """Render a folder as a pipe table in Markdown, a problem a row."""
    steps = claimed_steps(folder_verdict)
    lines = [f"| problem | verdict | {' | '.join(steps)} |", f"|---|---{'|:---:' * len(steps)}|"]
    for problem in folder_verdict.problems:
        marks = [step_mark_text(problem.comparisons.get(step)) for step in steps]
        if problem.verdict:
            outcome: str = problem.verdict.verdict
        else:
            outcome = f"error: {escape_markdown(printable(problem.error))}"
        lines.append(f"| {escape_markdown(printable(problem.name))} | {outcome} | {' | '.join(marks)} |")
    return "\n".join([*lines, "", f"**{count_right_problems(folder_verdict)}**"]) + "\n"
