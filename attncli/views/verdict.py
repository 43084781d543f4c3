"""Showing a verdict to people: which steps are right, how far off the others are and where, and what they are instead.

`VERDICT_VIEWS` and `FOLDER_VIEWS` hold a function for each format: a verdict, or a folder of them → text.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from attncli.output_formats import RenderOptions
from attncli.text import join_names, pluralize, printable, to_ascii
from attncli.verdict import FolderVerdict, GapMark, StepComparison, Verdict
from attncli.views.console import console_for
from attncli.views.error_map import error_map_lines
from attncli.views.gap_marks import CHECK_MARKS, MAX_SHOWN_DECIMALS, format_gap_mark, format_number, rounding_lines
from attncli.views.table_style import wrap_items
from attncli.views.text import escape_markdown

_MAX_DIAGNOSES = 3  # that are written as sentences; of the others only names
_MAX_EQUIVALENT_NAMES = 4  # of what gives the same figures
_MIN_WIDE_TABLE_WIDTH = 100  # columns of a terminal on which a table of steps has all its columns
_NUMBER_COLUMNS = ("max Δ", "max rel", "in ulp", "mine", "reference")  # which stand at the right of their column
_CHECK_STYLES = {True: "green", False: "red", None: "yellow"}
_VERDICT_WORDS = {
    "right": "right",
    "wrong": "wrong",
    "otherwise": "not wrong, but otherwise",
    "too-loose": "too loose: wrong work would not be noticed",
    "unanswered": "not complete",
}


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────
def _format_error(x: float) -> str:
    """Format an error: short, and 0 only where it is 0."""
    if not math.isfinite(x):
        return "∞" if x > 0 else "NaN"
    if x == 0:
        return "0"
    if 1e-3 <= x < 100:
        return f"{x:.2g}"
    return f"{x:.0f}" if 100 <= x < 1e4 else f"{x:.1e}"


def _format_ulp_error(x: float) -> str:
    """Format an error in units in the last place; how many there are beyond a million says nothing."""
    return "> 1e6" if x > 1e6 else _format_error(x)


def _format_worst_figures(comparison: StepComparison) -> tuple[str, str]:
    """Format the claimed figure and the reference at the worst cell, with as many digits as it takes to see them differ."""
    actual, reference = comparison.actual, comparison.reference
    if isinstance(actual, bool) or isinstance(reference, bool):
        return ("yes" if actual else "no"), ("yes" if reference else "no")
    if comparison.rule.name == "exact":
        return str(actual), str(reference)
    if comparison.decimals is not None:
        decimals = min(max(comparison.decimals, 0), MAX_SHOWN_DECIMALS)
        return format_number(actual, decimals), format_number(reference, decimals + 2)
    difference = abs(actual - reference)
    decimals = 6
    if math.isfinite(difference) and difference:
        decimals = min(MAX_SHOWN_DECIMALS, max(6, 1 - math.floor(math.log10(difference))))
    return format_number(actual, decimals), format_number(reference, decimals)


def _format_shape(comparison: StepComparison) -> str:
    """Format a shape: 3×4."""
    return "×".join(map(str, comparison.shape)) or "1"


# ── sentences ────────────────────────────────────────────────────────────────────────────────────
def _headline_parts(verdict: Verdict) -> list[str]:
    """Return what was compared with what, and the variant's summary."""
    figures, problem = printable(verdict.figures_name), printable(verdict.problem_name)
    first = figures if verdict.figures_name == verdict.problem_name else f"{figures} against {problem}"
    return [first, *map(printable, verdict.summary)]


def _rule_lines(verdict: Verdict) -> Iterator[str]:
    """Yield each rule that was used, and why."""
    steps_by_rule: dict[str, list[str]] = {}
    for comparison in verdict.steps:
        steps_by_rule.setdefault(f"{comparison.rule} ({comparison.rule.reason})", []).append(comparison.step)
    for rule, steps in steps_by_rule.items():
        yield rule if len(steps_by_rule) == 1 else f"{join_names(dict.fromkeys(steps))}: {rule}"


def _allowed_error_lines(verdict: Verdict) -> Iterator[str]:
    """Yield the error that flash allows each step."""
    for comparison in verdict.steps:
        rule = comparison.rule
        if rule.allowed_error is not None and rule.plain_error is not None:
            plain = f"plain {rule.dtype} is off by {_format_error(rule.plain_error)}"
            yield f"{comparison.step}: {plain}, so {_format_error(rule.allowed_error)} is allowed"


def _cause_lines(verdict: Verdict) -> Iterator[str]:
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
    line = f"{first.step} is the first step that is wrong"
    if first.figure_count > 1:
        if first.wrong_count == first.figure_count:
            line += f", all {first.figure_count} of its figures"
        else:
            line += f", {first.wrong_count} of {first.figure_count} figures"
    right_before = [
        comparison.step for comparison in verdict.steps[: verdict.steps.index(first)] if comparison.is_right
    ]
    if right_before:
        line += f"; {join_names(right_before)} before it {'is' if len(right_before) == 1 else 'are'} right"
    yield line
    for comparison in wrong[1:]:
        if comparison.cause:
            yield f"{comparison.step}: {comparison.cause_text}"
        else:
            yield f"{comparison.step} is wrong too, and may follow from it"


def _region_lines(verdict: Verdict) -> Iterator[str]:
    """Say where each wrong step is wrong, and below it what the wrong rows look like; nothing of a single figure."""
    for comparison in verdict.steps:
        region = comparison.region
        if region is None or not comparison.is_wrong or comparison.figure_count == 1 or not comparison.axes:
            continue
        if region.is_everywhere and not region.observations:
            continue
        yield f"{comparison.step}: wrong {region.words}"
        yield from (f"    {observation}" for observation in region.observations)


def _sensitivity_lines(verdict: Verdict) -> Iterator[tuple[bool | None, str]]:
    """Say whether wrong work would be noticed by these figures, each line with its mark; nothing where they did tell."""
    if verdict.verdict == "wrong":
        return
    caught = [check for check in verdict.sensitivity_checks if check.caught]
    if caught:
        names = (f"{check.name} (off by {_format_error(check.max_error or 0)})" for check in caught)
        yield True, f"noticed: {' · '.join(names)}"
    for check in verdict.sensitivity_checks:
        if check.caught is False:
            error = _format_error(check.max_error or 0)
            yield False, f"not noticed: {check.name} (off by {error} at most, which the rule allows)"
    names_by_reason: dict[str, list[str]] = {}
    for check in verdict.sensitivity_checks:
        if check.caught is None:
            names_by_reason.setdefault(check.reason, []).append(check.name)
    for reason, untold in names_by_reason.items():
        yield None, f"not checked: {join_names(untold)} ({reason})"


def _diagnosis_lines(verdict: Verdict) -> Iterator[str]:
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


def _check_of(comparison: StepComparison) -> bool | None:
    """Return whether a step is right; None if it is otherwise, and not wrong."""
    return None if comparison.cause == "otherwise" else comparison.is_right


def _word_of(comparison: StepComparison) -> str:
    return {True: "right", False: "wrong", None: "otherwise"}[_check_of(comparison)]


@dataclass(frozen=True)
class VerdictTexts:
    """What a verdict says in words, beside its table."""

    heading: str
    rules: tuple[str, ...]
    sentences: tuple[str, ...]
    conclusion: str


def _searched_sentences(verdict: Verdict) -> Iterator[str]:
    """Yield what a search found, and whether wrong work would be noticed."""
    yield from (printable(line.strip()) for line in _diagnosis_lines(verdict))
    yield from (f"near: {d.names[0]}, max Δ {_format_error(d.max_abs_error)}" for d in verdict.nearest_candidates)
    yield from (line for _, line in _sensitivity_lines(verdict))


def describe_verdict(verdict: Verdict) -> VerdictTexts:
    """Say a verdict in words."""
    return VerdictTexts(
        heading=" · ".join(_headline_parts(verdict)),
        rules=(*_rule_lines(verdict), *_allowed_error_lines(verdict)),
        sentences=(
            *_cause_lines(verdict),
            *(line.strip() for line in (_region_lines(verdict) if verdict.is_revealed else ())),
            *(_searched_sentences(verdict) if verdict.is_complete else ()),
        ),
        conclusion=conclusion_line(verdict),
    )


def count_right_problems(folder_verdict: FolderVerdict) -> str:
    """Say how many problems are right: `2 of 3 problems right`."""
    return f"{folder_verdict.right_count} of {pluralize(len(folder_verdict.problems), 'problem')} right"


# ── a terminal, or a pipe ────────────────────────────────────────────────────────────────────────
class _Printer:
    """Prints lines and tables in the width and the characters that there are."""

    def __init__(self, render_options: RenderOptions) -> None:
        self.width = render_options.width
        self.has_unicode = render_options.has_unicode
        self.text = io.StringIO()
        self.console = console_for(self.text, render_options)

    def displayable(self, text: str) -> str:
        return text if self.has_unicode else to_ascii(text)

    def cell(self, text: str, style: str = "") -> Text:
        """Make a cell of a table."""
        return Text(self.displayable(text), style=style)

    def print_blank_line(self) -> None:
        self.console.print()

    def print_headline(self, parts: Sequence[str]) -> None:
        for line in wrap_items(parts, " · ", self.width):
            self.console.print(self.cell(line, "bold"), soft_wrap=True)

    def print_line(self, line: str, style: str = "") -> None:
        """Print a sentence, folded on a terminal below where it begins."""
        line = self.displayable(line)
        margin = len(line) - len(line.lstrip(" –✓✗-"))
        if self.width and cell_len(line) > self.width and margin:
            self.console.print(Padding(Text(line.lstrip(), style=style), (0, 0, 0, margin - 2)))
        else:
            self.console.print(Text(line, style=style), soft_wrap=not self.width)

    def make_table(self) -> Table:
        return Table(
            box=box.SIMPLE_HEAD if self.has_unicode else box.ASCII2,
            pad_edge=False,
            show_edge=False,
            padding=(0, 1),
            header_style="",
        )

    def print_table(self, table: Table) -> None:
        self.console.print(table, soft_wrap=not self.width)

    def get_text(self) -> str:
        """Return all that was printed, without the spaces that fill a table's last column."""
        return "".join(line.rstrip() + "\n" for line in self.text.getvalue().splitlines())


def verdict_table(verdict: Verdict, render_options: RenderOptions) -> str:
    """Render a verdict as tables and sentences, for a terminal or a pipe; of one not complete, what comes before the search."""
    printer = _Printer(render_options)
    printer.print_headline(_headline_parts(verdict))
    for line in (*_rule_lines(verdict), *_allowed_error_lines(verdict)):
        printer.print_line(line, "dim")
    printer.print_blank_line()
    printer.print_table(_gap_table(printer, verdict) if verdict.gap_marks else _step_table(printer, verdict))
    _print_section(printer, ((line, "") for line in _cause_lines(verdict)))
    if verdict.is_revealed:
        _print_section(printer, ((line, "") for line in _region_lines(verdict)))
        for comparison in verdict.steps:
            if comparison.is_wrong and comparison.region and comparison.region.error_map and comparison.wrong_count > 1:
                printer.print_blank_line()
                for line in error_map_lines(comparison.step, comparison.region.error_map):
                    printer.print_line(line, "dim")
    if not verdict.is_complete:
        return printer.get_text()
    diagnosis_lines = map(printable, _diagnosis_lines(verdict))
    _print_section(printer, ((line, "" if line.startswith(" ") else "bold") for line in diagnosis_lines))
    name_width = max((cell_len(diagnosis.names[0]) for diagnosis in verdict.nearest_candidates), default=0)
    for diagnosis in verdict.nearest_candidates:
        name = diagnosis.names[0] + " " * (name_width - cell_len(diagnosis.names[0]))
        printer.print_line(f"    {name}   max |Δ| {_format_error(diagnosis.max_abs_error)}", "dim")
    sensitivity_lines = list(_sensitivity_lines(verdict))
    if sensitivity_lines:
        printer.print_blank_line()
        printer.print_line("would wrong work be noticed?")
        for caught, line in sensitivity_lines:
            printer.print_line(f"  {CHECK_MARKS[caught]} {line}", _CHECK_STYLES[caught] if caught is False else "dim")
    printer.print_blank_line()
    printer.print_line(conclusion_line(verdict), f"bold {_CHECK_STYLES[verdict.verdict in ('right', 'otherwise')]}")
    return printer.get_text()


def _print_section(printer: _Printer, styled_lines: Iterable[tuple[str, str]]) -> None:
    """Print lines below a blank one, if there are any."""
    for i, (line, style) in enumerate(styled_lines):
        if i == 0:
            printer.print_blank_line()
        printer.print_line(line, style)


def _step_table(printer: _Printer, verdict: Verdict) -> Table:
    if not verdict.is_revealed:
        return _marks_table(printer, verdict)
    is_wide = not printer.width or printer.width >= _MIN_WIDE_TABLE_WIDTH
    table = printer.make_table()
    table.add_column(Text("step", style="dim"), no_wrap=True)
    table.add_column(Text("shape", style="dim"), no_wrap=True)
    table.add_column(printer.cell("max |Δ|", "dim"), justify="right", no_wrap=True)
    if is_wide:
        table.add_column(Text("max rel", style="dim"), justify="right", no_wrap=True)
        table.add_column(Text("in ulp", style="dim"), justify="right", no_wrap=True)
    table.add_column(Text("at", style="dim"), overflow="ellipsis", no_wrap=True)
    table.add_column(Text("mine", style="dim"), justify="right", no_wrap=True)
    table.add_column(Text("reference", style="dim"), justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for comparison in verdict.steps:
        cells = [comparison.step, _format_shape(comparison), _format_error(comparison.max_abs_error)]
        if is_wide:
            cells += [_format_error(comparison.max_rel_error), _format_ulp_error(comparison.max_ulp_error)]
        cells += [comparison.worst_cell_text, *_format_worst_figures(comparison)]
        is_right = _check_of(comparison)
        table.add_row(*map(printer.cell, cells), printer.cell(CHECK_MARKS[is_right], _CHECK_STYLES[is_right]))
    return table


def _marks_table(printer: _Printer, verdict: Verdict) -> Table:
    """Make the table of steps without what says how far off they are."""
    table = printer.make_table()
    table.add_column(Text("step", style="dim"), no_wrap=True)
    table.add_column(Text("shape", style="dim"), no_wrap=True)
    table.add_column("", no_wrap=True)
    for comparison in verdict.steps:
        table.add_row(
            printer.cell(comparison.step), printer.cell(_format_shape(comparison)), _step_mark(printer, comparison)
        )
    return table


def _gap_table(printer: _Printer, verdict: Verdict) -> Table:
    table = printer.make_table()
    table.add_column(Text("gap", style="dim"), no_wrap=True)
    table.add_column(Text("figure", style="dim"), no_wrap=True)
    table.add_column(Text("written", style="dim"), justify="right", no_wrap=True)
    if verdict.is_revealed:
        table.add_column(Text("right is", style="dim"), justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for gap_mark in verdict.gap_marks:
        *cells, mark = format_gap_mark(gap_mark)
        cells = cells if verdict.is_revealed else cells[:-1]
        table.add_row(*map(printer.cell, cells), printer.cell(mark, _CHECK_STYLES[gap_mark.is_right]))
    return table


def folder_table(folder_verdict: FolderVerdict, render_options: RenderOptions) -> str:
    """Render a folder as a table of problems and steps, with the errors of files below it."""
    printer = _Printer(render_options)
    steps = claimed_steps(folder_verdict)
    name_width = max(cell_len(printable(problem.name)) for problem in folder_verdict.problems)
    needed_width = name_width + 14 + sum(len(step) + 3 for step in steps)
    has_step_columns = not printer.width or needed_width <= printer.width
    table = printer.make_table()
    table.add_column(Text("problem", style="dim"), overflow="ellipsis", no_wrap=True)
    table.add_column(Text("verdict", style="dim"), no_wrap=True)
    if has_step_columns:
        for step in steps:
            table.add_column(Text(step, style="dim"), justify="center", no_wrap=True, overflow="fold")
    else:
        table.add_column(Text("steps", style="dim"), overflow="fold")
    for problem in folder_verdict.problems:
        comparisons = problem.comparisons
        if has_step_columns:
            marks = [_step_mark(printer, comparisons.get(step)) for step in steps]
        else:
            labelled = (Text(f"{c.step} ").append(_step_mark(printer, c)) for c in comparisons.values())
            marks = [Text("  ").join(labelled)]
        outcome = problem.verdict.verdict if problem.verdict else "error"
        name = printer.cell(printable(problem.name))
        table.add_row(name, Text(outcome, style=_CHECK_STYLES[outcome == "right"]), *marks)
    printer.print_table(table)
    printer.print_blank_line()
    for problem in folder_verdict.problems:
        if problem.verdict is None:
            printer.print_line(printable(f"{problem.name}: {problem.error}"), "red")
    word = {"too-loose": "too loose"}.get(folder_verdict.verdict, folder_verdict.verdict)
    printer.print_line(
        f"{word}: {count_right_problems(folder_verdict)}", f"bold {_CHECK_STYLES[folder_verdict.is_right]}"
    )
    return printer.get_text()


def _step_mark(printer: _Printer, comparison: StepComparison | None) -> Text:
    """Make the mark of a step in a table of problems, with how many of its figures are wrong."""
    return printer.cell(step_mark_text(comparison), _CHECK_STYLES[comparison.is_right] if comparison else "dim")


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


# ── a line each ──────────────────────────────────────────────────────────────────────────────────
def verdict_plain(verdict: Verdict, render_options: RenderOptions) -> str:
    """Render a verdict as one fact a line, each with its name."""
    lines = [
        f"verdict: {verdict.verdict}",
        f"figures: {printable(verdict.figures_name)}",
        f"input: {printable(verdict.problem_name)}",
        *(f"rule: {line}" for line in _rule_lines(verdict)),
        *(_plain_step_line(step) if verdict.is_revealed else _plain_mark_line(step) for step in verdict.steps),
        *map(_plain_gap_line, verdict.gap_marks),
        *(f"cause: {line}" for line in _cause_lines(verdict)),
        *(f"where: {line.strip()}" for line in (_region_lines(verdict) if verdict.is_revealed else ())),
    ]
    if not verdict.is_complete:
        return "\n".join(lines) + "\n"
    lines += [
        *(f"diagnosis: {printable(line.strip())}" for line in _diagnosis_lines(verdict)),
        *(f"near: {d.names[0]}  max_abs={_format_error(d.max_abs_error)}" for d in verdict.nearest_candidates),
        *(f"power: {line}" for _, line in _sensitivity_lines(verdict)),
        conclusion_line(verdict),
    ]
    return "\n".join(lines) + "\n"


def _plain_step_line(comparison: StepComparison) -> str:
    actual, reference = _format_worst_figures(comparison)
    facts = (
        f"{comparison.step} {_format_shape(comparison)}: {_word_of(comparison)}",
        f"max_abs={_format_error(comparison.max_abs_error)}",
        f"max_rel={_format_error(comparison.max_rel_error)}",
        f"ulp={_format_ulp_error(comparison.max_ulp_error)}",
        f"at={comparison.worst_cell_text}",
        f"mine={actual}",
        f"reference={reference}",
    )
    return "  ".join(facts)


def _plain_mark_line(comparison: StepComparison) -> str:
    return f"{comparison.step} {_format_shape(comparison)}: {_word_of(comparison)}"


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


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────
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


def step_rows(verdict: Verdict) -> Iterator[tuple[str, ...]]:
    """Yield the heads of the columns of the table of steps, then its rows; of a concealed verdict the marks alone."""
    if not verdict.is_revealed:
        yield "step", "shape", ""
        for comparison in verdict.steps:
            yield comparison.step, _format_shape(comparison), step_mark_text(comparison)
        return
    yield "step", "shape", "max Δ", "max rel", "in ulp", "at", "mine", "reference", ""
    for comparison in verdict.steps:
        yield (
            comparison.step,
            _format_shape(comparison),
            _format_error(comparison.max_abs_error),
            _format_error(comparison.max_rel_error),
            _format_ulp_error(comparison.max_ulp_error),
            comparison.worst_cell_text,
            *_format_worst_figures(comparison),
            CHECK_MARKS[_check_of(comparison)],
        )


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


VERDICT_VIEWS: Mapping[str, Callable[[Verdict, RenderOptions], str]] = {
    "table": verdict_table,
    "plain": verdict_plain,
    "markdown": verdict_markdown,
}
FOLDER_VIEWS: Mapping[str, Callable[[FolderVerdict, RenderOptions], str]] = {
    "table": folder_table,
    "plain": folder_plain,
    "markdown": folder_markdown,
}
