"""A verdict as an HTML document: what it says, and every claimed figure in its matrix, the wrong ones marked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attncli.text import pluralize, printable
from attncli.verdict import FigureTable, FolderVerdict, StepComparison, Verdict
from attncli.views.pages.document import element, escape_html, fill_template
from attncli.views.verdicts.gap_marks import CHECK_MARKS, format_gap_mark
from attncli.views.verdicts.rows import claimed_steps, step_mark_text, step_rows
from attncli.views.verdicts.sentences import count_right_problems, describe_verdict


def verdict_html(verdict: Verdict) -> str:
    """Write a report of one problem."""
    texts = describe_verdict(verdict)
    return _document(texts.conclusion, _verdict_elements(verdict, "h1"))


def folder_html(folder_verdict: FolderVerdict) -> str:
    """Write a report of a folder: a table of its problems, then each of them."""
    steps = claimed_steps(folder_verdict)
    rows: list[tuple[str, ...]] = [("problem", "verdict", *steps)]
    for problem in folder_verdict.problems:
        outcome: str = problem.verdict.verdict if problem.verdict else f"error: {printable(problem.error)}"
        marks = (step_mark_text(problem.comparisons.get(step)) for step in steps)
        rows.append((printable(problem.name), outcome, *marks))
    title = count_right_problems(folder_verdict)
    pieces = [element("h1", title), *_table(rows, "steps")]
    for problem in folder_verdict.problems:
        if problem.verdict:
            pieces += ["<section>", *_verdict_elements(problem.verdict, "h2"), "</section>"]
    return _document(title, pieces)


def _document(title: str, pieces: Iterable[str]) -> str:
    return fill_template(title, '<main class="board">\n' + "\n".join(pieces) + "\n</main>")


def _verdict_elements(verdict: Verdict, heading: str) -> Iterator[str]:
    texts = describe_verdict(verdict)
    yield element(heading, texts.conclusion)
    yield element("p", texts.heading, 'class="quiet"')
    yield from (element("p", rule, 'class="quiet"') for rule in texts.rules)
    if verdict.gap_marks:
        columns = [0, 1, 2, 3, 4] if verdict.is_revealed else [0, 1, 2, 4]
        rows = [("gap", "figure", "written", "right is", ""), *map(format_gap_mark, verdict.gap_marks)]
        yield from _table([tuple(row[i] for i in columns) for row in rows], "steps")
    else:
        yield from _table(list(step_rows(verdict)), "steps")
    if texts.sentences:
        yield f"<ul>{''.join(element('li', sentence) for sentence in texts.sentences)}</ul>"
    for comparison in verdict.steps:
        yield from _figure_elements(comparison, is_revealed=verdict.is_revealed)


def _figure_elements(comparison: StepComparison, *, is_revealed: bool) -> Iterator[str]:
    """Every figure of a step in its matrix."""
    tables = list(comparison.make_tables()) if comparison.make_tables else []
    count = comparison.wrong_count
    verdict = f"{pluralize(count, 'figure')} of {comparison.figure_count} wrong" if count else "right"
    yield element("h2", f"{CHECK_MARKS[comparison.is_right]} {comparison.step}: {verdict}")
    if not tables and comparison.figure_count:
        yield element("p", f"There are too many figures to show each of them. The worst: {comparison.worst_cell_text}.")
    for table in tables:
        if table.title:
            yield element("h3", table.title)
        yield from _marked_table(table, is_revealed=is_revealed)


def _marked_table(table: FigureTable, *, is_revealed: bool) -> Iterator[str]:
    head = "".join(f'<th scope="col"><bdi>{escape_html(label)}</bdi></th>' for label in table.column_labels)
    yield f'<div class="scroll"><table class="numbers"><thead><tr><td></td>{head}</tr></thead><tbody>'
    for label, figures, reference, right in zip(
        table.row_labels, table.figures, table.reference, table.is_right, strict=True
    ):
        cells = (
            f"<td>{escape_html(mine)}</td>"
            if is_right
            else f'<td class="wrong">✗ {escape_html(mine)}{_right_figure(theirs) if is_revealed else ""}</td>'
            for mine, theirs, is_right in zip(figures, reference, right, strict=True)
        )
        yield f'<tr><th scope="row"><bdi>{escape_html(label)}</bdi></th>{"".join(cells)}</tr>'
    yield "</tbody></table></div>"


def _right_figure(text: str) -> str:
    return f'<br><span class="quiet">right: {escape_html(text)}</span>'


def _table(rows: list[tuple[str, ...]], name: str) -> Iterator[str]:
    """A table whose first row holds the heads of its columns."""
    yield f'<div class="scroll"><table class="{name}"><thead><tr>'
    yield "".join(element("th", text, 'scope="col"') for text in rows[0])
    yield "</tr></thead><tbody>"
    for row in rows[1:]:
        yield f"<tr>{''.join(element('td', text) for text in row)}</tr>"
    yield "</tbody></table></div>"
