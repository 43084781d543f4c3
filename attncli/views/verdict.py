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

from attncli.errors import counted, in_ascii, listed, printable
from attncli.output_formats import Look
from attncli.verdict import Answer, Finding, Matrix, Verdict
from attncli.views.console import console_for
from attncli.views.tables import wrapped
from attncli.views.text import markdown

_NAMES = 4  # of what gives the same figures
_MARK = {True: "✓", False: "✗", None: "–"}
_STYLE = {True: "green", False: "red", None: "yellow"}
_SAYS = {
    "right": "right",
    "wrong": "wrong",
    "too-loose": "too loose: figures that are plainly wrong would pass too",
    "unanswered": "not complete",
}


# ── what is said, in words ───────────────────────────────────────────────────────────────────────
def small(x: float) -> str:
    """An error: short, and 0 only where it is 0."""
    if not math.isfinite(x):
        return "∞" if x > 0 else "NaN"
    return "0" if x == 0 else f"{x:.2g}" if 1e-3 <= x < 100 else f"{x:.0f}" if 100 <= x < 1e4 else f"{x:.1e}"


def units(x: float) -> str:
    """An error in units in the last place; how many there are beyond a million says nothing."""
    return "> 1e6" if x > 1e6 else small(x)


def figures(f: Finding) -> tuple[str, str]:
    """Mine and the reference, with as many digits as it takes to see them differ."""
    if isinstance(f.mine, bool) or isinstance(f.reference, bool):
        return ("yes" if f.mine else "no"), ("yes" if f.reference else "no")
    if f.rule.name == "exact":
        return str(f.mine), str(f.reference)
    if f.digits is not None:
        mine = f"{f.mine:.{max(f.digits, 0)}f}"
        return number(f.mine, mine), number(f.reference, f"{f.reference:.{max(f.digits, 0) + 2}f}")
    gap = abs(f.mine - f.reference)
    decimals = 6 if not (math.isfinite(gap) and gap) else min(17, max(6, 1 - math.floor(math.log10(gap))))
    return number(f.mine, f"{f.mine:.{decimals}f}"), number(f.reference, f"{f.reference:.{decimals}f}")


def number(x: float, text: str) -> str:
    """A number as text; what is not finite by its sign."""
    if not math.isfinite(x):
        return "NaN" if math.isnan(x) else "∞" if x > 0 else "−∞"
    return f"{x:.6e}" if abs(x) >= 1e9 else text


def headline(v: Verdict) -> list[str]:
    """What was held against what."""
    mine = printable(v.figures)
    what = [f"{mine} against {printable(v.input)}" if v.figures != v.input else mine]
    return what + [printable(s) for s in v.summary]


def ruled(v: Verdict) -> Iterator[str]:
    """Each rule that was used, and why."""
    said: dict[str, list[str]] = {}
    for f in v.steps:
        said.setdefault(f"{f.rule} ({f.rule.why})", []).append(f.step)
    for rule, steps in said.items():
        yield rule if len(said) == 1 else f"{listed(dict.fromkeys(steps))}: {rule}"


def bounds(v: Verdict) -> Iterator[str]:
    """What flash allows each step."""
    for f in v.steps:
        if f.rule.bound is not None and f.rule.plain is not None:
            what = f"plain {f.rule.dtype} is off by {small(f.rule.plain)}"
            yield f"{f.step}: {what}, so {small(f.rule.bound)} is allowed"


def causes(v: Verdict) -> Iterator[str]:
    """Which step is wrong first, and which of the others follow."""
    wrong = [f for f in v.steps if not f.right]
    if not wrong:
        return
    first = wrong[0]
    before = [f.step for f in v.steps if f.right and v.steps.index(f) < v.steps.index(first)]
    so_far = f"; {listed(before)} before it {'is' if len(before) == 1 else 'are'} right" if before else ""
    how_many = f"all {first.of}" if first.wrong == first.of else f"{first.wrong} of {first.of}"
    n = "" if first.of == 1 else f", {how_many} of its figures" if first.wrong == first.of else f", {how_many} figures"
    yield f"{first.step} is the first step that is wrong{n}{so_far}"
    for f in wrong[1:]:
        yield f"{f.step}: {f.cause}" if f.cause else f"{f.step} is wrong too, and may follow from it"


def powers(v: Verdict) -> Iterator[tuple[bool | None, str]]:
    """Whether these figures could tell right from wrong."""
    if not v.power or v.verdict == "wrong":  # they did tell
        return
    caught = [p for p in v.power if p.caught]
    if caught:
        yield (
            True,
            "told from the right figures: " + " · ".join(f"{p.name} (off by {small(p.error or 0)})" for p in caught),
        )
    for p in v.power:
        if p.caught is False:
            yield False, f"{p.name} would pass: off by {small(p.error or 0)} at most, and that is within the rule"
    blind: dict[str, list[str]] = {}
    for p in v.power:
        if p.caught is None:
            blind.setdefault(p.why, []).append(p.name)
    for why, names in blind.items():
        yield None, f"cannot tell here: {listed(names)}: {why}"


def diagnosis(v: Verdict) -> Iterator[str]:
    """What the figures are instead, in sentences."""
    for line in v.plain:
        yield f"{line}, where the reference has different figures"
    for s in v.identified[:3]:
        yield s.says
        if others := plainest(s.names):
            yield f"    the same figures: {listed(others, 'and', most=_NAMES)}"
    if len(v.identified) > 3:
        more = listed((s.names[0] for s in v.identified[3:]), most=8)
        yield f"    these figures cannot tell it from: {more}"
    if any(s.match for s in v.nearest):
        yield "fits, but so few figures cannot tell it from chance:"
    elif v.plain and not v.identified:
        return
    elif v.verdict == "wrong" and v.searched and not v.identified:
        nearest = "; the nearest:" * bool(v.nearest)
        yield f"nothing that was tried ({v.searched:,} computations) gives these figures{nearest}"
    if v.alike:
        yield f"the same figures would come from: {listed(v.alike, most=12)}"


def plainest(names: tuple[str, ...]) -> list[str]:
    """The names beside the first: one of those that differ by a number alone stands before the others of its kind."""
    kinds = {re.sub(r"[\d.,−-]+", "", names[0])}
    first: list[str] = []
    again: list[str] = []
    for name in names[1:]:
        kind = re.sub(r"[\d.,−-]+", "", name)
        (again if kind in kinds else first).append(name)
        kinds.add(kind)
    return first + again


def conclusion(v: Verdict) -> str:
    """The verdict in one line."""
    of = sum(f.of for f in v.steps)
    wrong = sum(f.wrong for f in v.steps)
    if v.answers:
        given = [a for a in v.answers if a.right is not None]
        right = sum(a.right is True for a in given)
        open_ = len(v.answers) - len(given)
        left = f", {open_} left open" if open_ else ""
        return f"{_SAYS[v.verdict]}: {len(given)} of {len(v.answers)} answered, {right} right{left}"
    if v.verdict == "wrong":
        steps = [f.step for f in v.steps if not f.right]
        return f"wrong: {wrong} of {counted(of, 'figure')}, in {listed(dict.fromkeys(steps))}"
    return f"{_SAYS[v.verdict]}" if v.verdict == "too-loose" else f"right: all of {counted(of, 'figure')}"


def shape(f: Finding) -> str:
    """3 × 4, as 3×4."""
    return "×".join(map(str, f.shape)) or "1"


def answer(a: Answer) -> tuple[str, str, str, str, str]:
    """gap, where, written, right, mark"""
    right = (
        ""
        if a.right is True
        else number(a.reference, f"{a.reference:.{_decimals(a.written)}f}")
        if isinstance(a.reference, float)
        else str(a.reference)
    )
    return f"⟨{a.gap}⟩", f"{a.step}, {a.where}", printable(a.written) or "____", right, _MARK[a.right]


def _decimals(written: str) -> int:
    _, dot, fraction = written.replace(",", ".").partition(".")
    return len(fraction) + 1 if dot and fraction.isdigit() else 4


# ── a terminal, or a pipe ────────────────────────────────────────────────────────────────────────
def verdict_table(v: Verdict, look: Look) -> str:
    """Tables and sentences."""
    out = io.StringIO()
    console = console_for(out, look)
    plain = (lambda t: t) if look.unicode else in_ascii
    for line in wrapped(headline(v), " · ", look.width):
        console.print(Text(plain(line), style="bold"), soft_wrap=True)
    for line in (*ruled(v), *bounds(v)):
        _line(console, plain(line), look, style="dim")
    console.print()
    console.print(_answers(v, look, plain) if v.answers else _findings(v, look, plain), soft_wrap=not look.width)
    said = list(causes(v)) if not v.answers else []
    if said:
        console.print()
    for line in said:
        _line(console, plain(line), look)
    said = list(diagnosis(v))
    if said:
        console.print()
        for line in said:
            _line(console, plain(printable(line)), look, style="bold" if not line.startswith(" ") else "")
    if v.nearest:
        width = max(cell_len(s.names[0]) for s in v.nearest)
        for s in v.nearest:
            name = s.names[0] + " " * (width - cell_len(s.names[0]))
            _line(console, plain(f"    {name}   max |Δ| {small(s.max_abs)}"), look, style="dim")
    told = list(powers(v))
    if told:
        console.print()
        _line(console, "could these figures tell right from wrong?", look)
        for ok, line in told:
            _line(console, plain(f"  {_MARK[ok]} {line}"), look, style=_STYLE[ok] if ok is False else "dim")
    console.print()
    _line(console, plain(conclusion(v)), look, style=f"bold {_STYLE[v.verdict == 'right']}")
    return _trimmed(out)


def _trimmed(out: io.StringIO) -> str:
    """Without the spaces that fill a table's last column."""
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def _line(console: Console, text: str, look: Look, style: str = "") -> None:
    """A sentence, folded on a terminal below where it begins."""
    margin = len(text) - len(text.lstrip(" –✓✗-"))
    if look.width and cell_len(text) > look.width and margin:
        console.print(Padding(Text(text.lstrip(), style=style), (0, 0, 0, margin - 2)))
    else:
        console.print(Text(text, style=style), soft_wrap=not look.width)


def _frame(look: Look) -> Table:
    return Table(
        box=box.SIMPLE_HEAD if look.unicode else box.ASCII2,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1),
        header_style="",
    )


def _findings(v: Verdict, look: Look, plain: Callable[[str], str]) -> Table:
    table = _frame(look)
    wide = not look.width or look.width >= 100
    beside = ["max rel", "in ulp"] if wide else []
    table.add_column(Text("step", style="dim"), no_wrap=True)
    table.add_column(Text("shape", style="dim"), no_wrap=True)
    table.add_column(Text(plain("max |Δ|"), style="dim"), justify="right", no_wrap=True)
    for name in beside:
        table.add_column(Text(name, style="dim"), justify="right", no_wrap=True)
    table.add_column(Text("at", style="dim"), overflow="ellipsis", no_wrap=True)
    table.add_column(Text("mine", style="dim"), justify="right", no_wrap=True)
    table.add_column(Text("reference", style="dim"), justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for f in v.steps:
        mine, ref = figures(f)
        cells = [
            f.step,
            shape(f),
            small(f.max_abs),
            *([small(f.max_rel), units(f.ulp)] if beside else []),
            f.where,
            mine,
            ref,
        ]
        table.add_row(*(Text(plain(c)) for c in cells), Text(plain(_MARK[f.right]), style=_STYLE[f.right]))
    return table


def _answers(v: Verdict, look: Look, plain: Callable[[str], str]) -> Table:
    table = _frame(look)
    for name, side in (("gap", "left"), ("figure", "left"), ("written", "right"), ("right is", "right"), ("", "left")):
        table.add_column(Text(name, style="dim"), justify=side, no_wrap=True)  # type: ignore[arg-type]
    for a in v.answers:
        *cells, mark = answer(a)
        table.add_row(*(Text(plain(c)) for c in cells), Text(plain(mark), style=_STYLE[a.right]))
    return table


# ── a line each, and Markdown ────────────────────────────────────────────────────────────────────
def verdict_plain(v: Verdict, look: Look) -> str:
    """One fact a line, each saying what it is."""
    lines = [f"verdict: {v.verdict}", f"figures: {printable(v.figures)}", f"input: {printable(v.input)}"]
    lines += [f"rule: {line}" for line in ruled(v)]
    for f in v.steps:
        mine, ref = figures(f)
        lines.append(
            f"{f.step} {shape(f)}: {'right' if f.right else 'wrong'}  max_abs={small(f.max_abs)}  max_rel={small(f.max_rel)}  "
            f"ulp={units(f.ulp)}  at={f.where}  mine={mine}  reference={ref}"
        )
    for a in v.answers:
        gap, at, written, right, _ = answer(a)
        word = {True: "right", False: "wrong", None: "open"}[a.right]
        lines.append(f"gap {gap} {at}: {word}  written={written}" + (f"  right={right}" if right else ""))
    lines += [f"cause: {line}" for line in (() if v.answers else causes(v))]
    lines += [f"diagnosis: {printable(line.strip())}" for line in diagnosis(v)]
    lines += [f"near: {s.names[0]}  max_abs={small(s.max_abs)}" for s in v.nearest]
    lines += [f"power: {line}" for _, line in powers(v)]
    return "\n".join([*lines, conclusion(v)]) + "\n"


def verdict_markdown(v: Verdict, look: Look) -> str:
    """Headings, a pipe table and sentences."""

    def pipes(*cells: str) -> str:
        return f"| {' | '.join(cells)} |"

    parts = [" · ".join(map(markdown, headline(v))), "", *(markdown(line) for line in (*ruled(v), *bounds(v))), ""]
    if v.answers:
        parts += [pipes("gap", "figure", "written", "right is", ""), pipes("---", "---", "---:", "---:", "---")]
        parts += [pipes(*map(markdown, answer(a))) for a in v.answers]
    else:
        names = ("step", "shape", "max Δ", "max rel", "in ulp", "at", "mine", "reference", "")
        parts += [pipes(*names), pipes("---", "---", "---:", "---:", "---:", "---", "---:", "---:", "---")]
        for f in v.steps:
            cells = (
                f.step,
                shape(f),
                small(f.max_abs),
                small(f.max_rel),
                units(f.ulp),
                f.where,
                *figures(f),
                _MARK[f.right],
            )
            parts.append(pipes(*map(markdown, cells)))
    said = [*(() if v.answers else causes(v)), *(printable(line.strip()) for line in diagnosis(v))]
    said += [f"near: {s.names[0]}, max Δ {small(s.max_abs)}" for s in v.nearest] + [line for _, line in powers(v)]
    parts += ["", *(f"* {markdown(line)}" for line in said)]
    return "\n".join([*parts, "", f"**{markdown(conclusion(v))}**"]) + "\n"


# ── a folder ─────────────────────────────────────────────────────────────────────────────────────
def matrix_table(m: Matrix, look: Look) -> str:
    """Problem × steps; what is wrong with a file stands below."""
    out = io.StringIO()
    console = console_for(out, look)
    plain = (lambda t: t) if look.unicode else in_ascii
    steps = columns(m)
    longest = max(cell_len(printable(name)) for name, _, _ in m.rows)
    fits = not look.width or longest + 14 + sum(len(s) + 3 for s in steps) <= look.width
    table = _frame(look)
    table.add_column(Text("problem", style="dim"), overflow="ellipsis", no_wrap=True)
    table.add_column(Text("verdict", style="dim"), no_wrap=True)
    for step in steps if fits else ("steps",):
        table.add_column(Text(step, style="dim"), justify="center" if fits else "left", no_wrap=fits, overflow="fold")
    for name, v, _ in m.rows:
        found = {f.step: f for f in v.steps} if v else {}
        verdict = v.verdict if v else "error"
        if fits:
            cells = [_count(found.get(step), plain) for step in steps]
        else:
            cells = [Text("  ").join(Text(f"{f.step} ").append(_count(f, plain)) for f in found.values())]
        style = _STYLE[verdict == "right"]
        table.add_row(Text(plain(printable(name))), Text(verdict, style=style), *cells)
    console.print(table, soft_wrap=not look.width)
    console.print()
    for name, v, why in m.rows:
        if v is None:
            _line(console, plain(printable(f"{name}: {why}")), look, style="red")
    ok = m.right == len(m.rows)
    _line(
        console,
        f"{'right' if ok else 'wrong'}: {m.right} of {counted(len(m.rows), 'problem')} right",
        look,
        f"bold {_STYLE[ok]}",
    )
    return _trimmed(out)


def columns(m: Matrix) -> list[str]:
    """Every step that some problem claims, in order of computation."""
    order: list[str] = []
    for _, v, _ in m.rows:
        at = 0
        for step in v.order if v else ():
            if step not in order:
                order.insert(at, step)
            at = order.index(step) + 1
    claimed = {f.step for _, v, _ in m.rows if v for f in v.steps}
    return [step for step in order if step in claimed]


def _count(f: Finding | None, plain: Callable[[str], str]) -> Text:
    if f is None:
        return Text(plain(_MARK[None]), style="dim")
    return Text(plain(_MARK[f.right] + ("" if f.right else f" {f.wrong}/{f.of}")), style=_STYLE[f.right])


def matrix_plain(m: Matrix, look: Look) -> str:
    """A problem a line."""
    lines = []
    for name, v, why in m.rows:
        if v is None:
            lines.append(f"{printable(name)}: error  {printable(why)}")
        else:
            steps = "  ".join(f"{f.step}={'right' if f.right else f'wrong ({f.wrong} of {f.of})'}" for f in v.steps)
            lines.append(f"{printable(name)}: {v.verdict}  {steps}")
    return "\n".join([*lines, f"{m.right} of {counted(len(m.rows), 'problem')} right"]) + "\n"


def matrix_markdown(m: Matrix, look: Look) -> str:
    """A pipe table."""
    steps = columns(m)
    lines = [f"| problem | verdict | {' | '.join(steps)} |", f"|---|---{'|:---:' * len(steps)}|"]
    for name, v, why in m.rows:
        found = {f.step: f for f in v.steps} if v else {}
        cells = [_count(found.get(step), str).plain for step in steps]
        verdict = v.verdict if v else f"error: {markdown(printable(why))}"
        lines.append(f"| {markdown(printable(name))} | {verdict} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"**{m.right} of {counted(len(m.rows), 'problem')} right**"]) + "\n"
