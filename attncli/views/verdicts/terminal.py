"""A verdict as tables and sentences for a terminal or a pipe."""

from __future__ import annotations

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from attncli.output_formats import RenderOptions
from attncli.text import printable
from attncli.verdict import FolderVerdict, StepComparison, Verdict
from attncli.views.verdicts.error_map import error_map_lines
from attncli.views.verdicts.gap_marks import CHECK_MARKS, format_gap_mark
from attncli.views.verdicts.numbers import format_error, format_shape, format_ulp_error, format_worst_figures
from attncli.views.verdicts.printer import CHECK_STYLES, Printer
from attncli.views.verdicts.rows import claimed_steps, is_step_right, step_mark_text
from attncli.views.verdicts.sentences import (
    allowed_error_lines,
    cause_lines,
    conclusion_line,
    count_right_problems,
    diagnosis_lines,
    headline_parts,
    region_lines,
    rule_lines,
    sensitivity_lines,
)

_MIN_WIDE_TABLE_WIDTH = 100  # columns of a terminal on which a table of steps has all its columns


def verdict_table(verdict: Verdict, render_options: RenderOptions) -> str:
    """Render a verdict as tables and sentences, for a terminal or a pipe; of one not complete, what comes before the search."""
    printer = Printer(render_options)
    printer.print_headline(headline_parts(verdict))
    for line in (*rule_lines(verdict), *allowed_error_lines(verdict)):
        printer.print_line(line, "dim")
    printer.print_blank_line()
    printer.print_table(_gap_table(printer, verdict) if verdict.gap_marks else _step_table(printer, verdict))
    printer.print_section((line, "") for line in cause_lines(verdict))
    if verdict.is_revealed:
        printer.print_section((line, "") for line in region_lines(verdict))
        for comparison in verdict.steps:
            if comparison.is_wrong and comparison.region and comparison.region.error_map and comparison.wrong_count > 1:
                printer.print_blank_line()
                for line in error_map_lines(comparison.step, comparison.region.error_map):
                    printer.print_line(line, "dim")
    if not verdict.is_complete:
        return printer.get_text()
    diagnoses = map(printable, diagnosis_lines(verdict))
    printer.print_section((line, "" if line.startswith(" ") else "bold") for line in diagnoses)
    name_width = max((cell_len(diagnosis.names[0]) for diagnosis in verdict.nearest_candidates), default=0)
    for diagnosis in verdict.nearest_candidates:
        name = diagnosis.names[0] + " " * (name_width - cell_len(diagnosis.names[0]))
        printer.print_line(f"    {name}   max |Δ| {format_error(diagnosis.max_abs_error)}", "dim")
    sensitivities = list(sensitivity_lines(verdict))
    if sensitivities:
        printer.print_blank_line()
        printer.print_line("would wrong work be noticed?")
        for caught, line in sensitivities:
            printer.print_line(f"  {CHECK_MARKS[caught]} {line}", CHECK_STYLES[caught] if caught is False else "dim")
    printer.print_blank_line()
    printer.print_line(conclusion_line(verdict), f"bold {CHECK_STYLES[verdict.verdict in ('right', 'otherwise')]}")
    return printer.get_text()


def _step_table(printer: Printer, verdict: Verdict) -> Table:
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
        cells = [comparison.step, format_shape(comparison), format_error(comparison.max_abs_error)]
        if is_wide:
            cells += [format_error(comparison.max_rel_error), format_ulp_error(comparison.max_ulp_error)]
        cells += [comparison.worst_cell_text, *format_worst_figures(comparison)]
        is_right = is_step_right(comparison)
        table.add_row(*map(printer.cell, cells), printer.cell(CHECK_MARKS[is_right], CHECK_STYLES[is_right]))
    return table


def _marks_table(printer: Printer, verdict: Verdict) -> Table:
    """Make the table of steps without what says how far off they are."""
    table = printer.make_table()
    table.add_column(Text("step", style="dim"), no_wrap=True)
    table.add_column(Text("shape", style="dim"), no_wrap=True)
    table.add_column("", no_wrap=True)
    for comparison in verdict.steps:
        table.add_row(
            printer.cell(comparison.step), printer.cell(format_shape(comparison)), _step_mark(printer, comparison)
        )
    return table


def _gap_table(printer: Printer, verdict: Verdict) -> Table:
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
        table.add_row(*map(printer.cell, cells), printer.cell(mark, CHECK_STYLES[gap_mark.is_right]))
    return table


def folder_table(folder_verdict: FolderVerdict, render_options: RenderOptions) -> str:
    """Render a folder as a table of problems and steps, with the errors of files below it."""
    printer = Printer(render_options)
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
        table.add_row(name, Text(outcome, style=CHECK_STYLES[outcome == "right"]), *marks)
    printer.print_table(table)
    printer.print_blank_line()
    for problem in folder_verdict.problems:
        if problem.verdict is None:
            printer.print_line(printable(f"{problem.name}: {problem.error}"), "red")
    word = {"too-loose": "too loose"}.get(folder_verdict.verdict, folder_verdict.verdict)
    printer.print_line(
        f"{word}: {count_right_problems(folder_verdict)}", f"bold {CHECK_STYLES[folder_verdict.is_right]}"
    )
    return printer.get_text()


def _step_mark(printer: Printer, comparison: StepComparison | None) -> Text:
    """Make the mark of a step in a table of problems, with how many of its figures are wrong."""
    return printer.cell(step_mark_text(comparison), CHECK_STYLES[comparison.is_right] if comparison else "dim")
