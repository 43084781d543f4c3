"""A verdict for people: which steps are right, how far off the others are and where, and what they are instead."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from attncli.errors import join_names, pluralize, printable, to_ascii
from attncli.output_formats import RenderOptions
from attncli.verdict import FolderVerdict, GapMark, StepComparison, Verdict
from attncli.views.console import console_for
from attncli.views.tables import wrap_items
from attncli.views.text import escape_markdown

_MAX_EQUIVALENT_NAMES = 4  # of what gives the same figures
_CHECK_MARKS = {True: "✓", False: "✗", None: "–"}
_CHECK_STYLES = {True: "green", False: "red", None: "yellow"}
_VERDICT_WORDS = {
    "right": "right",
    "wrong": "wrong",
    "too-loose": "too loose: figures that are plainly wrong would pass too",
    "unanswered": "not complete",
}


# ── what is said, in words ───────────────────────────────────────────────────────────────────────
def format_error(x: float) -> str:
    """An error: short, and 0 only where it is 0."""
    if not math.isfinite(x):
        return "∞" if x > 0 else "NaN"
    return "0" if x == 0 else f"{x:.2g}" if 1e-3 <= x < 100 else f"{x:.0f}" if 100 <= x < 1e4 else f"{x:.1e}"


def format_ulp_error(x: float) -> str:
    """An error in units in the last place; how many there are beyond a million says nothing."""
    return "> 1e6" if x > 1e6 else format_error(x)


def format_worst_figures(comparison: StepComparison) -> tuple[str, str]:
    """Mine and the reference, with as many digits as it takes to see them differ."""
    if isinstance(comparison.actual, bool) or isinstance(comparison.reference, bool):
        return ("yes" if comparison.actual else "no"), ("yes" if comparison.reference else "no")
    if comparison.rule.name == "exact":
        return str(comparison.actual), str(comparison.reference)
    if comparison.decimals is not None:
        mine = f"{comparison.actual:.{max(comparison.decimals, 0)}f}"
        return format_number(comparison.actual, mine), format_number(
            comparison.reference, f"{comparison.reference:.{max(comparison.decimals, 0) + 2}f}"
        )
    gap = abs(comparison.actual - comparison.reference)
    decimals = 6 if not (math.isfinite(gap) and gap) else min(17, max(6, 1 - math.floor(math.log10(gap))))
    return format_number(comparison.actual, f"{comparison.actual:.{decimals}f}"), format_number(
        comparison.reference, f"{comparison.reference:.{decimals}f}"
    )


def format_number(x: float, text: str) -> str:
    """A number as text; what is not finite by its sign."""
    if not math.isfinite(x):
        return "NaN" if math.isnan(x) else "∞" if x > 0 else "−∞"
    return f"{x:.6e}" if abs(x) >= 1e9 else text


def headline_parts(verdict: Verdict) -> list[str]:
    """What was held against what."""
    mine = printable(verdict.figures_name)
    what = [
        f"{mine} against {printable(verdict.problem_name)}" if verdict.figures_name != verdict.problem_name else mine
    ]
    return what + [printable(s) for s in verdict.summary]


def rule_lines(verdict: Verdict) -> Iterator[str]:
    """Each rule that was used, and why."""
    said: dict[str, list[str]] = {}
    for f in verdict.steps:
        said.setdefault(f"{f.rule} ({f.rule.reason})", []).append(f.step)
    for rule, steps in said.items():
        yield rule if len(said) == 1 else f"{join_names(dict.fromkeys(steps))}: {rule}"


def allowed_error_lines(verdict: Verdict) -> Iterator[str]:
    """What flash allows each step."""
    for f in verdict.steps:
        if f.rule.allowed_error is not None and f.rule.plain_error is not None:
            what = f"plain {f.rule.dtype} is off by {format_error(f.rule.plain_error)}"
            yield f"{f.step}: {what}, so {format_error(f.rule.allowed_error)} is allowed"


def cause_lines(verdict: Verdict) -> Iterator[str]:
    """Which step is wrong first, and which of the others follow."""
    wrong = [f for f in verdict.steps if not f.is_right]
    if not wrong:
        return
    first = wrong[0]
    before = [f.step for f in verdict.steps if f.is_right and verdict.steps.index(f) < verdict.steps.index(first)]
    so_far = f"; {join_names(before)} before it {'is' if len(before) == 1 else 'are'} right" if before else ""
    how_many = (
        f"all {first.figure_count}"
        if first.wrong_count == first.figure_count
        else f"{first.wrong_count} of {first.figure_count}"
    )
    n = (
        ""
        if first.figure_count == 1
        else f", {how_many} of its figures"
        if first.wrong_count == first.figure_count
        else f", {how_many} figures"
    )
    yield f"{first.step} is the first step that is wrong{n}{so_far}"
    for f in wrong[1:]:
        yield f"{f.step}: {f.cause}" if f.cause else f"{f.step} is wrong too, and may follow from it"


def sensitivity_lines(verdict: Verdict) -> Iterator[tuple[bool | None, str]]:
    """Whether these figures could tell right from wrong."""
    if not verdict.sensitivity_checks or verdict.verdict == "wrong":  # they did tell
        return
    caught = [p for p in verdict.sensitivity_checks if p.caught]
    if caught:
        yield (
            True,
            "told from the right figures: "
            + " · ".join(f"{p.name} (off by {format_error(p.max_error or 0)})" for p in caught),
        )
    for p in verdict.sensitivity_checks:
        if p.caught is False:
            yield (
                False,
                f"{p.name} would pass: off by {format_error(p.max_error or 0)} at most, and that is within the rule",
            )
    blind: dict[str, list[str]] = {}
    for p in verdict.sensitivity_checks:
        if p.caught is None:
            blind.setdefault(p.reason, []).append(p.name)
    for why, names in blind.items():
        yield None, f"cannot tell here: {join_names(names)}: {why}"


def diagnosis_lines(verdict: Verdict) -> Iterator[str]:
    """What the figures are instead, in sentences."""
    for line in verdict.observations:
        yield f"{line}, where the reference has different figures"
    for s in verdict.identified[:3]:
        yield s.sentence
        if others := other_names_plainest_first(s.names):
            yield f"    the same figures: {join_names(others, 'and', max_names=_MAX_EQUIVALENT_NAMES)}"
    if len(verdict.identified) > 3:
        more = join_names((s.names[0] for s in verdict.identified[3:]), max_names=8)
        yield f"    these figures cannot tell it from: {more}"
    if any(s.is_match for s in verdict.nearest_candidates):
        yield "fits, but so few figures cannot tell it from chance:"
    elif verdict.observations and not verdict.identified:
        return
    elif verdict.verdict == "wrong" and verdict.trial_count and not verdict.identified:
        nearest = "; the nearest:" * bool(verdict.nearest_candidates)
        yield f"nothing that was tried ({verdict.trial_count:,} computations) gives these figures{nearest}"
    if verdict.equivalent_choices:
        yield f"the same figures would come from: {join_names(verdict.equivalent_choices, max_names=12)}"


def other_names_plainest_first(names: tuple[str, ...]) -> list[str]:
    """The names beside the first: one of those that differ by a number alone stands before the others of its kind."""
    kinds = {re.sub(r"[\d.,−-]+", "", names[0])}
    first: list[str] = []
    again: list[str] = []
    for name in names[1:]:
        kind = re.sub(r"[\d.,−-]+", "", name)
        (again if kind in kinds else first).append(name)
        kinds.add(kind)
    return first + again


def conclusion_line(verdict: Verdict) -> str:
    """The verdict in one line."""
    of = sum(f.figure_count for f in verdict.steps)
    wrong = sum(f.wrong_count for f in verdict.steps)
    if verdict.gap_marks:
        given = [a for a in verdict.gap_marks if a.is_right is not None]
        right = sum(a.is_right is True for a in given)
        open_ = len(verdict.gap_marks) - len(given)
        left = f", {open_} left open" if open_ else ""
        return (
            f"{_VERDICT_WORDS[verdict.verdict]}: {len(given)} of {len(verdict.gap_marks)} answered, {right} right{left}"
        )
    if verdict.verdict == "wrong":
        steps = [f.step for f in verdict.steps if not f.is_right]
        return f"wrong: {wrong} of {pluralize(of, 'figure')}, in {join_names(dict.fromkeys(steps))}"
    return (
        f"{_VERDICT_WORDS[verdict.verdict]}"
        if verdict.verdict == "too-loose"
        else f"right: all of {pluralize(of, 'figure')}"
    )


def format_shape(comparison: StepComparison) -> str:
    """3 × 4, as 3×4."""
    return "×".join(map(str, comparison.shape)) or "1"


def format_gap_mark(mark: GapMark) -> tuple[str, str, str, str, str]:
    """gap, where, written, right, mark"""
    right = (
        ""
        if mark.is_right is True
        else format_number(mark.reference, f"{mark.reference:.{_reference_decimals(mark.written_text)}f}")
        if isinstance(mark.reference, float)
        else str(mark.reference)
    )
    return (
        f"⟨{mark.gap_number}⟩",
        f"{mark.step}, {mark.cell_text}",
        printable(mark.written_text) or "____",
        right,
        _CHECK_MARKS[mark.is_right],
    )


def _reference_decimals(written: str) -> int:
    _, dot, fraction = written.replace(",", ".").partition(".")
    return len(fraction) + 1 if dot and fraction.isdigit() else 4


# ── a terminal, or a pipe ────────────────────────────────────────────────────────────────────────
def verdict_table(verdict: Verdict, render_options: RenderOptions) -> str:
    """Tables and sentences."""
    out = io.StringIO()
    console = console_for(out, render_options)
    plain = (lambda t: t) if render_options.has_unicode else to_ascii
    for line in wrap_items(headline_parts(verdict), " · ", render_options.width):
        console.print(Text(plain(line), style="bold"), soft_wrap=True)
    for line in (*rule_lines(verdict), *allowed_error_lines(verdict)):
        _print_line(console, plain(line), render_options, style="dim")
    console.print()
    console.print(
        _gap_table(verdict, render_options, plain)
        if verdict.gap_marks
        else _step_table(verdict, render_options, plain),
        soft_wrap=not render_options.width,
    )
    said = list(cause_lines(verdict)) if not verdict.gap_marks else []
    if said:
        console.print()
    for line in said:
        _print_line(console, plain(line), render_options)
    said = list(diagnosis_lines(verdict))
    if said:
        console.print()
        for line in said:
            _print_line(
                console, plain(printable(line)), render_options, style="bold" if not line.startswith(" ") else ""
            )
    if verdict.nearest_candidates:
        width = max(cell_len(s.names[0]) for s in verdict.nearest_candidates)
        for s in verdict.nearest_candidates:
            name = s.names[0] + " " * (width - cell_len(s.names[0]))
            _print_line(
                console, plain(f"    {name}   max |Δ| {format_error(s.max_abs_error)}"), render_options, style="dim"
            )
    told = list(sensitivity_lines(verdict))
    if told:
        console.print()
        _print_line(console, "could these figures tell right from wrong?", render_options)
        for ok, line in told:
            _print_line(
                console,
                plain(f"  {_CHECK_MARKS[ok]} {line}"),
                render_options,
                style=_CHECK_STYLES[ok] if ok is False else "dim",
            )
    console.print()
    _print_line(
        console,
        plain(conclusion_line(verdict)),
        render_options,
        style=f"bold {_CHECK_STYLES[verdict.verdict == 'right']}",
    )
    return _strip_line_ends(out)


def _strip_line_ends(out: io.StringIO) -> str:
    """Without the spaces that fill a table's last column."""
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def _print_line(console: Console, text: str, render_options: RenderOptions, style: str = "") -> None:
    """A sentence, folded on a terminal below where it begins."""
    margin = len(text) - len(text.lstrip(" –✓✗-"))
    if render_options.width and cell_len(text) > render_options.width and margin:
        console.print(Padding(Text(text.lstrip(), style=style), (0, 0, 0, margin - 2)))
    else:
        console.print(Text(text, style=style), soft_wrap=not render_options.width)


def _empty_table(render_options: RenderOptions) -> Table:
    return Table(
        box=box.SIMPLE_HEAD if render_options.has_unicode else box.ASCII2,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1),
        header_style="",
    )


def _step_table(verdict: Verdict, render_options: RenderOptions, to_displayable: Callable[[str], str]) -> Table:
    table = _empty_table(render_options)
    wide = not render_options.width or render_options.width >= 100
    beside = ["max rel", "in ulp"] if wide else []
    table.add_column(Text("step", style="dim"), no_wrap=True)
    table.add_column(Text("shape", style="dim"), no_wrap=True)
    table.add_column(Text(to_displayable("max |Δ|"), style="dim"), justify="right", no_wrap=True)
    for name in beside:
        table.add_column(Text(name, style="dim"), justify="right", no_wrap=True)
    table.add_column(Text("at", style="dim"), overflow="ellipsis", no_wrap=True)
    table.add_column(Text("mine", style="dim"), justify="right", no_wrap=True)
    table.add_column(Text("reference", style="dim"), justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for f in verdict.steps:
        mine, ref = format_worst_figures(f)
        cells = [
            f.step,
            format_shape(f),
            format_error(f.max_abs_error),
            *([format_error(f.max_rel_error), format_ulp_error(f.max_ulp_error)] if beside else []),
            f.worst_cell_text,
            mine,
            ref,
        ]
        table.add_row(
            *(Text(to_displayable(c)) for c in cells),
            Text(to_displayable(_CHECK_MARKS[f.is_right]), style=_CHECK_STYLES[f.is_right]),
        )
    return table


def _gap_table(verdict: Verdict, render_options: RenderOptions, to_displayable: Callable[[str], str]) -> Table:
    table = _empty_table(render_options)
    for name, side in (("gap", "left"), ("figure", "left"), ("written", "right"), ("right is", "right"), ("", "left")):
        table.add_column(Text(name, style="dim"), justify=side, no_wrap=True)  # type: ignore[arg-type]
    for a in verdict.gap_marks:
        *cells, mark = format_gap_mark(a)
        table.add_row(
            *(Text(to_displayable(c)) for c in cells), Text(to_displayable(mark), style=_CHECK_STYLES[a.is_right])
        )
    return table


# ── a line each, and Markdown ────────────────────────────────────────────────────────────────────
def verdict_plain(verdict: Verdict, render_options: RenderOptions) -> str:
    """One fact a line, each saying what it is."""
    lines = [
        f"verdict: {verdict.verdict}",
        f"figures: {printable(verdict.figures_name)}",
        f"input: {printable(verdict.problem_name)}",
    ]
    lines += [f"rule: {line}" for line in rule_lines(verdict)]
    for f in verdict.steps:
        mine, ref = format_worst_figures(f)
        lines.append(
            f"{f.step} {format_shape(f)}: {'right' if f.is_right else 'wrong'}  max_abs={format_error(f.max_abs_error)}  max_rel={format_error(f.max_rel_error)}  "
            f"ulp={format_ulp_error(f.max_ulp_error)}  at={f.worst_cell_text}  mine={mine}  reference={ref}"
        )
    for a in verdict.gap_marks:
        gap, at, written, right, _ = format_gap_mark(a)
        word = {True: "right", False: "wrong", None: "open"}[a.is_right]
        lines.append(f"gap {gap} {at}: {word}  written={written}" + (f"  right={right}" if right else ""))
    lines += [f"cause: {line}" for line in (() if verdict.gap_marks else cause_lines(verdict))]
    lines += [f"diagnosis: {printable(line.strip())}" for line in diagnosis_lines(verdict)]
    lines += [f"near: {s.names[0]}  max_abs={format_error(s.max_abs_error)}" for s in verdict.nearest_candidates]
    lines += [f"power: {line}" for _, line in sensitivity_lines(verdict)]
    return "\n".join([*lines, conclusion_line(verdict)]) + "\n"


def verdict_markdown(verdict: Verdict, render_options: RenderOptions) -> str:
    """Headings, a pipe table and sentences."""

    def pipes(*cells: str) -> str:
        return f"| {' | '.join(cells)} |"

    parts = [
        " · ".join(map(escape_markdown, headline_parts(verdict))),
        "",
        *(escape_markdown(line) for line in (*rule_lines(verdict), *allowed_error_lines(verdict))),
        "",
    ]
    if verdict.gap_marks:
        parts += [pipes("gap", "figure", "written", "right is", ""), pipes("---", "---", "---:", "---:", "---")]
        parts += [pipes(*map(escape_markdown, format_gap_mark(a))) for a in verdict.gap_marks]
    else:
        names = ("step", "shape", "max Δ", "max rel", "in ulp", "at", "mine", "reference", "")
        parts += [pipes(*names), pipes("---", "---", "---:", "---:", "---:", "---", "---:", "---:", "---")]
        for f in verdict.steps:
            cells = (
                f.step,
                format_shape(f),
                format_error(f.max_abs_error),
                format_error(f.max_rel_error),
                format_ulp_error(f.max_ulp_error),
                f.worst_cell_text,
                *format_worst_figures(f),
                _CHECK_MARKS[f.is_right],
            )
            parts.append(pipes(*map(escape_markdown, cells)))
    said = [
        *(() if verdict.gap_marks else cause_lines(verdict)),
        *(printable(line.strip()) for line in diagnosis_lines(verdict)),
    ]
    said += [f"near: {s.names[0]}, max Δ {format_error(s.max_abs_error)}" for s in verdict.nearest_candidates] + [
        line for _, line in sensitivity_lines(verdict)
    ]
    parts += ["", *(f"* {escape_markdown(line)}" for line in said)]
    return "\n".join([*parts, "", f"**{escape_markdown(conclusion_line(verdict))}**"]) + "\n"


# ── a folder ─────────────────────────────────────────────────────────────────────────────────────
def folder_table(folder_verdict: FolderVerdict, render_options: RenderOptions) -> str:
    """Problem × steps; what is wrong with a file stands below."""
    out = io.StringIO()
    console = console_for(out, render_options)
    plain = (lambda t: t) if render_options.has_unicode else to_ascii
    steps = claimed_steps(folder_verdict)
    longest = max(cell_len(printable(name)) for name, _, _ in folder_verdict.rows)
    fits = not render_options.width or longest + 14 + sum(len(s) + 3 for s in steps) <= render_options.width
    table = _empty_table(render_options)
    table.add_column(Text("problem", style="dim"), overflow="ellipsis", no_wrap=True)
    table.add_column(Text("verdict", style="dim"), no_wrap=True)
    for step in steps if fits else ("steps",):
        table.add_column(Text(step, style="dim"), justify="center" if fits else "left", no_wrap=fits, overflow="fold")
    for name, v, _ in folder_verdict.rows:
        found = {f.step: f for f in v.steps} if v else {}
        verdict = v.verdict if v else "error"
        if fits:
            cells = [_step_mark(found.get(step), plain) for step in steps]
        else:
            cells = [Text("  ").join(Text(f"{f.step} ").append(_step_mark(f, plain)) for f in found.values())]
        style = _CHECK_STYLES[verdict == "right"]
        table.add_row(Text(plain(printable(name))), Text(verdict, style=style), *cells)
    console.print(table, soft_wrap=not render_options.width)
    console.print()
    for name, v, why in folder_verdict.rows:
        if v is None:
            _print_line(console, plain(printable(f"{name}: {why}")), render_options, style="red")
    ok = folder_verdict.right_count == len(folder_verdict.rows)
    _print_line(
        console,
        f"{'right' if ok else 'wrong'}: {folder_verdict.right_count} of {pluralize(len(folder_verdict.rows), 'problem')} right",
        render_options,
        f"bold {_CHECK_STYLES[ok]}",
    )
    return _strip_line_ends(out)


def claimed_steps(folder_verdict: FolderVerdict) -> list[str]:
    """Every step that some problem claims, in order of computation."""
    order: list[str] = []
    for _, v, _ in folder_verdict.rows:
        at = 0
        for step in v.step_order if v else ():
            if step not in order:
                order.insert(at, step)
            at = order.index(step) + 1
    claimed = {f.step for _, v, _ in folder_verdict.rows if v for f in v.steps}
    return [step for step in order if step in claimed]


def _step_mark(comparison: StepComparison | None, to_displayable: Callable[[str], str]) -> Text:
    if comparison is None:
        return Text(to_displayable(_CHECK_MARKS[None]), style="dim")
    return Text(
        to_displayable(
            _CHECK_MARKS[comparison.is_right]
            + ("" if comparison.is_right else f" {comparison.wrong_count}/{comparison.figure_count}")
        ),
        style=_CHECK_STYLES[comparison.is_right],
    )


def folder_plain(folder_verdict: FolderVerdict, render_options: RenderOptions) -> str:
    """A problem a line."""
    lines = []
    for name, v, why in folder_verdict.rows:
        if v is None:
            lines.append(f"{printable(name)}: error  {printable(why)}")
        else:
            steps = "  ".join(
                f"{f.step}={'right' if f.is_right else f'wrong ({f.wrong_count} of {f.figure_count})'}" for f in v.steps
            )
            lines.append(f"{printable(name)}: {v.verdict}  {steps}")
    return (
        "\n".join([*lines, f"{folder_verdict.right_count} of {pluralize(len(folder_verdict.rows), 'problem')} right"])
        + "\n"
    )


def folder_markdown(folder_verdict: FolderVerdict, render_options: RenderOptions) -> str:
    """A pipe table."""
    steps = claimed_steps(folder_verdict)
    lines = [f"| problem | verdict | {' | '.join(steps)} |", f"|---|---{'|:---:' * len(steps)}|"]
    for name, v, why in folder_verdict.rows:
        found = {f.step: f for f in v.steps} if v else {}
        cells = [_step_mark(found.get(step), str).plain for step in steps]
        verdict = v.verdict if v else f"error: {escape_markdown(printable(why))}"
        lines.append(f"| {escape_markdown(printable(name))} | {verdict} | {' | '.join(cells)} |")
    return (
        "\n".join(
            [*lines, "", f"**{folder_verdict.right_count} of {pluralize(len(folder_verdict.rows), 'problem')} right**"]
        )
        + "\n"
    )
