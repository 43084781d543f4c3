"""A judged tolerance as text: which wrong answers it would pass, and what would tell them. Entry: `TOLERANCE_VIEWS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from attncli.output_formats import RenderOptions
from attncli.text import join_names, pluralize, printable
from attncli.tolerance import MEASURES, Deviation, Tolerance, ToleranceJudgement
from attncli.views.text import escape_markdown
from attncli.views.verdicts.gap_marks import CHECK_MARKS
from attncli.views.verdicts.numbers import format_error
from attncli.views.verdicts.printer import CHECK_STYLES, Printer

_MIN_WIDE_TABLE_WIDTH = 110  # columns of a terminal on which all measures have a column
_NARROW_MEASURES = 2
_MAX_NAMES = 6  # of wrong answers in a sentence
_HEADS = ("within", *(measure.label for measure in MEASURES))


# ── words ────────────────────────────────────────────────────────────────────────────────────────
def _tolerance_line(judgement: ToleranceJudgement) -> str:
    figures = pluralize(judgement.figure_count, "figure")
    queries = ""
    if judgement.sampled_queries:
        queries = f", of {judgement.sampled_queries} of {judgement.query_count:,} queries"
    return f"tolerance: {judgement.tolerance}; judged by {judgement.step} ({figures}{queries})"


def _sentences(judgement: ToleranceJudgement) -> Iterator[str]:
    """Yield what cannot be told, and what would tell the rest."""
    same = [answer.name for answer in judgement.wrong_answers if answer.passes is None]
    if same:
        yield f"the right figures, on this problem: {join_names(same, max_names=_MAX_NAMES)}"
    refused = [right for right in judgement.right_answers if right.deviation.passing_factor > 1]
    if refused:
        times = max(right.deviation.passing_factor for right in refused)
        names = join_names(right.dtype for right in refused)
        yield f"right work in {names} would be refused, being off by up to {format_error(times)} times the tolerance"
    if hidden := judgement.unnoticeable:
        changed = "it changes" if len(hidden) == 1 else "they change"
        share = f"{100 * (1 - judgement.tolerance.matched):.3g} %"
        listed = join_names(hidden, max_names=_MAX_NAMES)
        yield f"no rtol and atol would notice {listed}: {changed} no more than the {share} of the figures that may be wrong"
    if judgement.loosest is not None:
        which = "the others" if judgement.unnoticeable else f"all {len(judgement.telling)} wrong answers"
        yield f"the loosest that notices {which}: {_spell_options(judgement.loosest)}; {_kept_by(judgement)}"


def _spell_options(tolerance: Tolerance) -> str:
    options = [f"--rtol {tolerance.rtol:g}"] if tolerance.rtol else []
    options += [f"--atol {tolerance.atol:g}"] if tolerance.atol else []
    options += [f"--matched {tolerance.matched:g}"] if tolerance.matched != 1 else []
    return " ".join(options)


def _kept_by(judgement: ToleranceJudgement) -> str:
    """Say in which dtypes right work keeps the loosest tolerance."""
    factor = judgement.loosest_factor or 0.0
    kept = [x.dtype for x in judgement.right_answers if x.deviation.passing_factor < factor]
    refused = [x.dtype for x in judgement.right_answers if x.dtype not in kept]
    if not refused:
        return f"right work keeps it in {join_names(kept)}"
    if not kept:
        return f"it refuses right work in {join_names(refused)}"
    return f"right work keeps it in {join_names(kept)}, not in {join_names(refused)}"


def _conclusion(judgement: ToleranceJudgement) -> str:
    count, passed = len(judgement.telling), len(judgement.passed)
    if not count:
        return "too loose: every wrong answer gives the right figures on this problem"
    if passed:
        return f"too loose: {passed} of {pluralize(count, 'wrong answer')} would pass"
    return f"tight enough: all {count} wrong answers would be noticed"


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────
def _deviation_cells(deviation: Deviation) -> list[str]:
    return [_format_share(deviation.within), *(format_error(deviation.measured(measure)) for measure in MEASURES)]


def _format_share(share: float) -> str:
    """Format a share as a percentage that is 100 % only where nothing is missing."""
    text = f"{100 * share:.0f} %"
    if text == "100 %" and share < 1:
        return "> 99 %"
    return "< 1 %" if text == "0 %" and share > 0 else text


def _answer_rows(judgement: ToleranceJudgement) -> Iterator[tuple[str, list[str], bool | None]]:
    """Yield the rows of the table of answers: the name, the cells, and whether the tolerance does right."""
    for answer in judgement.telling:
        if answer.deviation is not None:
            yield answer.name, _deviation_cells(answer.deviation), not answer.passes
    for right in judgement.right_answers:
        yield f"right, in {right.dtype}", _deviation_cells(right.deviation), right.deviation.passing_factor <= 1


def _bound_rows(judgement: ToleranceJudgement) -> Iterator[list[str]]:
    """Yield the rows of the table of bounds: the dtype, and what twice its error notices by each measure."""
    for right in judgement.right_answers:
        bounds = [bound for bound in judgement.bounds if bound.dtype == right.dtype]
        cells = [f"{len(bound.noticed)} (> {format_error(bound.largest)})" for bound in bounds]
        yield [right.dtype, *cells]


def _bounds_line(judgement: ToleranceJudgement) -> str:
    count = pluralize(len(judgement.telling), "wrong answer")
    return f"of {count}, so many are off by more than twice as much as right work in a dtype:"


# ── formats ──────────────────────────────────────────────────────────────────────────────────────
def tolerance_table(judgement: ToleranceJudgement, render_options: RenderOptions) -> str:
    """Render a judged tolerance as tables and sentences, for a terminal or a pipe."""
    printer = Printer(render_options)
    printer.print_headline([printable(judgement.problem_name), *map(printable, judgement.summary)])
    printer.print_line(_tolerance_line(judgement), "dim")
    printer.print_blank_line()
    is_wide = not printer.width or printer.width >= _MIN_WIDE_TABLE_WIDTH
    heads = _HEADS if is_wide else _HEADS[: 1 + _NARROW_MEASURES]
    table = _make_table(printer, "wrong answer", heads)
    table.add_column("", no_wrap=True)
    for name, cells, is_noticed in _answer_rows(judgement):
        mark = printer.cell(CHECK_MARKS[is_noticed], CHECK_STYLES[is_noticed])
        table.add_row(printer.cell(name), *map(printer.cell, cells[: len(heads)]), mark)
    printer.print_table(table)
    printer.print_section((line, "") for line in _sentences(judgement))
    if judgement.telling and judgement.right_answers:
        printer.print_section([(_bounds_line(judgement), "")])
        printer.print_blank_line()
        bounds = _make_table(printer, "dtype", heads[1:])
        for cells in _bound_rows(judgement):
            bounds.add_row(*map(printer.cell, cells[: len(heads)]))
        printer.print_table(bounds)
    printer.print_blank_line()
    printer.print_line(_conclusion(judgement), f"bold {CHECK_STYLES[judgement.is_tight]}")
    return printer.get_text()


def _make_table(printer: Printer, first: str, heads: Sequence[str]) -> Table:
    table = printer.make_table()
    table.add_column(Text(first, style="dim"), overflow="ellipsis", no_wrap=True)
    for head in heads:
        table.add_column(printer.cell(head, "dim"), justify="right", no_wrap=True)
    return table


def tolerance_plain(judgement: ToleranceJudgement, render_options: RenderOptions) -> str:
    """Render a judged tolerance as one fact a line, each with its name."""
    lines = [f"verdict: {judgement.verdict}", f"input: {printable(judgement.problem_name)}", _tolerance_line(judgement)]
    for name, cells, is_noticed in _answer_rows(judgement):
        facts = "  ".join(f"{head}={cell}" for head, cell in zip(_HEADS, cells, strict=True))
        is_right = name.startswith("right, in ")
        word = ("accepted" if is_noticed else "refused") if is_right else ("noticed" if is_noticed else "not noticed")
        lines.append(f"{name}: {word}  {facts}")
    lines += _sentences(judgement)
    for dtype, *cells in _bound_rows(judgement):
        facts = "  ".join(f"{head}={cell}" for head, cell in zip(_HEADS[1:], cells, strict=True))
        lines.append(f"off by more than twice right work in {dtype}: {facts}")
    return "\n".join([*lines, _conclusion(judgement)]) + "\n"


def tolerance_markdown(judgement: ToleranceJudgement, render_options: RenderOptions) -> str:
    """Render a judged tolerance as pipe tables and sentences in Markdown."""
    heading = " · ".join([printable(judgement.problem_name), *map(printable, judgement.summary)])
    lines = [escape_markdown(heading), "", escape_markdown(_tolerance_line(judgement)), ""]
    lines += _pipe_table(
        ["wrong answer", *_HEADS, ""],
        [[name, *cells, CHECK_MARKS[is_noticed]] for name, cells, is_noticed in _answer_rows(judgement)],
    )
    lines += ["", *(f"* {escape_markdown(sentence)}" for sentence in _sentences(judgement))]
    if judgement.telling and judgement.right_answers:
        lines += ["", escape_markdown(_bounds_line(judgement)), ""]
        lines += _pipe_table(["dtype", *_HEADS[1:]], list(_bound_rows(judgement)))
    return "\n".join([*lines, "", f"**{escape_markdown(_conclusion(judgement))}**"]) + "\n"


def _pipe_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    def pipe_row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(escape_markdown, cells))} |"

    yield pipe_row(heads)
    yield f"| --- | {' | '.join('---:' for _ in heads[1:])} |"
    yield from map(pipe_row, rows)


TOLERANCE_VIEWS: Mapping[str, Callable[[ToleranceJudgement, RenderOptions], str]] = {
    "table": tolerance_table,
    "plain": tolerance_plain,
    "markdown": tolerance_markdown,
}
