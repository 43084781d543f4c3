"""A page of worked lines as text: for a terminal, as plain text, Markdown, LaTeX or JSON; whole, or with gaps to fill in."""

from __future__ import annotations

import ast
import dataclasses
import io
import math
import operator
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.cells import cell_len
from rich.text import Text

from attncli.derivation import DERIVED, Equation, EquationSide, Number, Vector
from attncli.errors import to_ascii
from attncli.output_formats import RenderOptions
from attncli.views.console import console_for
from attncli.views.explain import ExplanationPage, Section
from attncli.views.text import escape_latex, escape_markdown

GAP_TEXT = "____"
ROUNDED_MARK = "†"
_ROUNDED_NOTE = (
    f"{ROUNDED_MARK} the printed terms are rounded; the result comes from all digits, so its last digit can differ."
)
_GAPS_NOTE = "which cell each one is; fill them in, and attn check INPUT --figures SHEET marks them"
_MIN_INPUT_DIGITS = 4  # digits that what came in keeps, however few are asked for
_MAX_VECTOR_ENTRIES = 10  # entries of a vector before its middle is left out


@dataclass(frozen=True)
class Worksheet:
    """What is left blank, and whether the key is printed."""

    blank_steps: frozenset[str] = frozenset()
    show_answers: bool = False

    def __contains__(self, step: str) -> bool:
        return step in self.blank_steps


@dataclass
class NumberFormatter:
    """Writes numbers: so many digits after the point, exact ones without zeros at their end; and counts the gaps."""

    precision: int
    worksheet: Worksheet
    full: bool = False
    exact_tolerance: float = 1e-12  # how near to its rounded text a number counts as that text, relatively
    gap_numbers: dict[tuple[str, tuple[int, ...]], int] = field(default_factory=dict)
    gap_values: list[float] = field(default_factory=list)
    conceals_working: bool = False  # results on the way would give a gap away

    def format_number(self, value: float, min_digits: int = 0, *, fixed_digits: bool = False) -> str:
        """A number with as many digits as it needs, at least so many after the point, and at most the precision."""
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
        size = abs(value)
        if size >= 1e9 or (0 < size < 0.5 * 10.0**-self.precision and not fixed_digits):
            short = (f"{value:.{digits}e}" for digits in range(self.precision + 1))
            return next(
                (t for t in short if abs(float(t) - value) <= self.exact_tolerance * size),
                f"{value:.{self.precision}e}",
            )
        for digits in range(min_digits, self.precision + 1):
            text = f"{value:.{digits}f}"
            if abs(float(text) - value) <= self.exact_tolerance * size:
                break
        else:
            text = f"{value:.{self.precision}f}"
        return text if text.strip("-0.") else text.lstrip("-")

    def digits_needed(self, numbers: Sequence[Number]) -> int:
        """How many digits after the point all of them need."""
        texts = [self.format_number(n.value) for n in numbers]
        return max((len(t.partition(".")[2]) for t in texts if "e" not in t), default=0)

    def format_cell(self, number: Number, min_digits: int = 0, *, fixed_digits: bool = False) -> str:
        """A number, or the gap that stands for it."""
        if number.step in self.worksheet:
            first = (number.step, number.cell_index) not in self.gap_numbers
            mark = f"⟨{self.gap_numbers.setdefault((number.step, number.cell_index), len(self.gap_numbers) + 1)}⟩"
            if first:
                self.gap_values.append(number.value)
            return mark + (
                self.format_number(number.value, min_digits, fixed_digits=fixed_digits)
                if self.worksheet.show_answers
                else GAP_TEXT
                if first
                else ""
            )
        if number.step == DERIVED and self.conceals_working and not self.worksheet.show_answers:
            return GAP_TEXT
        if not number.step and self.precision < _MIN_INPUT_DIGITS:
            return dataclasses.replace(self, precision=_MIN_INPUT_DIGITS).format_number(
                number.value, fixed_digits=fixed_digits
            )
        return self.format_number(number.value, min_digits, fixed_digits=fixed_digits)

    def format_vector(self, vector: Vector) -> list[str]:
        """All entries alike; the middle of a long one is left out."""
        shown: list[Number | None] = list(vector)
        if len(vector) > _MAX_VECTOR_ENTRIES and not self.full:
            shown = [*vector[: _MAX_VECTOR_ENTRIES - 3], None, *vector[-2:]]
        tiny = 0.5 * 10.0**-self.precision
        least = (
            self.precision
            if any(0 < abs(x.value) < tiny for x in vector) and any(abs(x.value) >= tiny for x in vector)
            else self.digits_needed(vector)
        )
        return ["…" if x is None else self.format_cell(x, least, fixed_digits=bool(least)) for x in shown]

    def begin_section(self, section: Section) -> None:
        """Whether the section works with what an earlier one left blank."""
        self.conceals_working = bool(section.used_steps & self.worksheet.blank_steps)


def _is_negative(number: Number) -> bool:
    return number.value < 0


@dataclass(frozen=True)
class RenderedLine:
    """One written line."""

    label: str
    sides: tuple[str, ...]
    remark: str = ""
    is_rounded: bool = False
    is_text_only: bool = False  # no numbers: what stands for lines that were left out


def equation_text(rendered_line: RenderedLine) -> str:
    """A line without its label; of a sum the result alone, which stands below what was added."""
    return " = ".join(filter(None, rendered_line.sides))


def render_lines(section: Section, formatter: NumberFormatter) -> list[RenderedLine]:
    """The lines of a section, written; the numbers of one column of results alike."""
    formatter.begin_section(section)
    ends = [line.sides[-1][0] for line in section.lines if len(line.sides) > 1 and len(line.sides[-1]) == 1]
    least = formatter.digits_needed([n for n in ends if isinstance(n, Number)])
    widths = _vector_widths(section.lines, formatter)
    rows: list[RenderedLine] = []
    for line in section.lines:
        rows.append(_render_line(line, formatter, least, widths, [r for r in rows if len(r.sides) == len(line.sides)]))
    return rows


def _vector_widths(lines: Sequence[Equation], formatter: NumberFormatter) -> dict[tuple[int, int], int]:
    """The widest entry of the vectors that stand below each other."""
    ahead = NumberFormatter(
        formatter.precision,
        formatter.worksheet,
        formatter.full,
        formatter.exact_tolerance,
        dict(formatter.gap_numbers),
        [],
        formatter.conceals_working,
    )
    widths: dict[tuple[int, int], int] = {}
    for line in lines:
        for i, expr in enumerate(line.sides):
            for v in (item for item in expr if isinstance(item, Vector)):
                longest = max(map(cell_len, ahead.format_vector(v)), default=0)
                widths[len(line.sides), i] = max(widths.get((len(line.sides), i), 0), longest)
    return widths


def _render_line(
    line: Equation,
    formatter: NumberFormatter,
    min_digits: int,
    widths: dict[tuple[int, int], int],
    lines_above: Sequence[RenderedLine],
) -> RenderedLine:
    cells = []
    for i, expr in enumerate(line.sides):
        last = i == len(line.sides) - 1
        cells.append(
            render_expression(expr, formatter, min_digits if last and i else 0, widths.get((len(line.sides), i), 0))
        )
    words = all(isinstance(item, str) for expr in line.sides for item in expr)
    return RenderedLine(
        line.label, tuple(cells), line.remark, not is_consistent(cells, formatter.precision, lines_above), words
    )


def render_expression(
    expression: EquationSide, formatter: NumberFormatter, min_digits: int = 0, entry_width: int = 0
) -> str:
    """One side of an equation."""
    out = ""
    for item in expression:
        if isinstance(item, str):
            out += item
        elif isinstance(item, Vector):
            out += f"[{' '.join(text.rjust(entry_width) for text in formatter.format_vector(item))}]"
        else:
            text = formatter.format_cell(item, min_digits)
            inside = out.rstrip() and out.rstrip()[-1] in "+−·×/^"
            out += f"({text})" if inside and _is_negative(item) and text[0] in "-−" else text
    return out


# ── does it come out? ────────────────────────────────────────────────────────────────────────────
_GAP_MARK_PATTERN = re.compile(r"⟨\d+⟩")
_PYTHON_SYMBOLS = {
    "·": "*",
    "×": "*",
    "÷": "/",
    "−∞": "(-INF)",
    "∞": "INF",
    "−": "-",
    "^": "**",
    "²": "**2",
    "√": "sqrt",
    "NaN": "NAN",
}
_PRINTED_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sqrt": np.sqrt, "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "max": np.maximum, "ln": np.log,
}  # fmt: skip
_PRINTED_CONSTANTS = {"e": math.e, "INF": math.inf, "NAN": math.nan}
_BINARY_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow,
}  # fmt: skip


def is_consistent(sides: Sequence[str], precision: int, lines_above: Sequence[RenderedLine] = ()) -> bool:
    """Whether what is printed, worked with a calculator, gives the printed result; true where it cannot be worked.

    A line without a left side is the sum of the lines above it.
    """
    if not sides[0]:
        terms = [evaluate_printed(row.sides[-1]) for row in lines_above]
        found = [None if any(t is None for t in terms) or not terms else sum(terms), evaluate_printed(sides[-1])]
    else:
        found = [evaluate_printed(cell) for cell in sides]
    for left, right, text in zip(found, found[1:], sides[1:], strict=False):
        if left is not None and right is not None and np.shape(left) == np.shape(right):
            with np.errstate(all="ignore"):
                if not np.all((np.abs(left - right) <= _rounding_tolerance(text, precision)) | ~np.isfinite(right)):
                    return False
    return True


def _rounding_tolerance(text: str, precision: int) -> Any:
    """Half a unit of the last digit of each printed number; of one with fewer digits, which is exact, next to nothing."""
    numbers = [t for t in text.strip("[]").split() if t != "…"] if text.startswith("[") else [text]
    return (
        np.array([_number_tolerance(t, precision) for t in numbers])
        if text.startswith("[")
        else _number_tolerance(text, precision)
    )


def _number_tolerance(text: str, precision: int) -> float:
    found = re.search(r"(?:\.(\d+))?(?:e([-+]\d+))?\)?$", text)
    digits, power = (found[1] or "", found[2]) if found else ("", None)
    return 0.5000001 * 10.0 ** (int(power or 0) - len(digits)) if power or len(digits) >= precision else 1e-9


def evaluate_printed(text: str) -> Any:
    """The value of printed arithmetic: a number or a vector; None where it is no arithmetic."""
    text = _GAP_MARK_PATTERN.sub("", text)
    if GAP_TEXT in text or "mod" in text:
        return None
    text = re.sub(r"(\d+) more: ", "", text)
    text = re.sub(r"\[([^\]]*)\]", lambda m: "[" + ",".join(x for x in m[1].split() if x != "…") + "]", text)
    text = re.sub(r"ln (\S+?)(?=[ ,)]|$)", r"ln(\1)", text)
    text = re.sub(r"\|([^|]*)\|", r"absolute(\1)", text)
    for mark, word in _PYTHON_SYMBOLS.items():
        text = text.replace(mark, word)
    try:
        with np.errstate(all="ignore"):
            return _evaluate_node(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, TypeError):
        return None


def _evaluate_node(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return np.float64(node.value)
    if isinstance(node, ast.Name) and node.id in _PRINTED_CONSTANTS:
        return np.float64(_PRINTED_CONSTANTS[node.id])
    if isinstance(node, ast.List):
        return np.array([_evaluate_node(x) for x in node.elts])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate_node(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY_OPERATORS:
        return _BINARY_OPERATORS[type(node.op)](_evaluate_node(node.left), _evaluate_node(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        function = np.abs if node.func.id == "absolute" else _PRINTED_FUNCTIONS.get(node.func.id)
        if function:
            return function(*map(_evaluate_node, node.args))
    raise ValueError(ast.dump(node))


# ── text ─────────────────────────────────────────────────────────────────────────────────────────
StyledFragment = tuple[str, str]  # text, style


@dataclass(frozen=True)
class RenderedPage:
    """What every format writes: a section a time, then what stands below."""

    explanation: ExplanationPage
    formatter: NumberFormatter
    sections: tuple[tuple[str, Section, list[RenderedLine]], ...]
    dtype: str

    @property
    def footer_lines(self) -> list[str]:
        """Where the query looks, and what rounding did; of a worksheet only the latter."""
        out = [] if self.formatter.worksheet.blank_steps else [self.explanation.closing]
        half = f" Each result is rounded to {self.dtype}." if self.dtype in ("float16", "bfloat16") else ""
        return out + (
            [_ROUNDED_NOTE + half] if any(row.is_rounded for _, _, rows in self.sections for row in rows) else []
        )

    def gap_lines(self) -> list[str]:
        """`⟨1⟩ to ⟨3⟩: weights[1][0:3]`: which cell each gap stands for."""
        runs: list[list[tuple[str, tuple[int, ...]]]] = []
        for step, where in self.formatter.gap_numbers:
            last = runs[-1][-1] if runs else ("", ())
            if (step, where[:-1]) == (last[0], last[1][:-1]) and where[-1] == last[1][-1] + 1:
                runs[-1].append((step, where))
            else:
                runs.append([(step, where)])
        out, n = [], 1
        for run in runs:
            step, where = run[0]
            path = "".join(f"[{i}]" for i in where[:-1])
            if len(run) == 1:
                out.append(f"⟨{n}⟩: {step}{path}[{where[-1]}]")
            else:
                out.append(f"⟨{n}⟩ to ⟨{n + len(run) - 1}⟩: {step}{path}[{where[-1]}:{where[-1] + len(run)}]")
            n += len(run)
        return out


def render_page(
    explanation: ExplanationPage, render_options: RenderOptions, worksheet: Worksheet, dtype: str, *, full: bool
) -> RenderedPage:
    """The board, written by one pen in order."""
    pen = NumberFormatter(
        render_options.precision, worksheet, full, 2e-7 if dtype == "float32" else 1e-12
    )  # 0.3 as float32 is 0.30000001192…
    sections, n = [], 0
    for section in explanation.sections:
        n += not (section.is_idle or section.is_heading)
        sections.append(
            ("" if section.is_idle or section.is_heading else _circled_number(n), section, render_lines(section, pen))
        )
    return RenderedPage(explanation, pen, tuple(sections), dtype)


def _circled_number(number: int) -> str:
    return "①②③④⑤⑥⑦⑧⑨⑩"[number - 1] if number <= 10 else f"({number})"  # fonts that know ⑪ are few


def _layout_section(
    section: Section, rendered_lines: list[RenderedLine], width: int | None
) -> Iterator[list[StyledFragment]]:
    """The lines of a section, those of one kind aligned with each other."""
    labels = max((cell_len(r.label) for r in rendered_lines), default=0)
    room = None if width is None else max(width - _LEFT_MARGIN_WIDTH - labels - 3, 20)
    block: list[RenderedLine] = []
    for row in [*rendered_lines, None]:
        if block and (row is None or len(row.sides) != len(block[0].sides)):
            yield from _layout_block(block, labels, room)
            block = []
        if row is not None:
            block.append(row)


_LEFT_MARGIN_WIDTH = 5
_MAX_ALIGNED_WIDTH = 60  # what is wider does not push the others' equal signs away


def _layout_block(
    rendered_lines: list[RenderedLine], label_width: int, available_width: int | None
) -> Iterator[list[StyledFragment]]:
    """Equal signs and results below each other, where they fit; folded where they do not."""
    columns = len(rendered_lines[0].sides)
    placed = [r.sides for r in rendered_lines]
    short = [p for p in placed if cell_len(p[0]) <= _MAX_ALIGNED_WIDTH]
    usual = short if 2 * len(short) > len(placed) else placed
    widths = [max(cell_len(p[c]) for p in usual) for c in range(columns)]
    fits = available_width is None or sum(widths) + 3 * (columns - 1) + 2 <= available_width
    for row, cells in zip(rendered_lines, placed, strict=True):
        aligned = fits and cells in usual
        text = ""
        for c, cell in enumerate(cells):
            pad = " " * (widths[c] - cell_len(cell)) if aligned else ""
            number = 0 < c == columns - 1 and not cell.startswith("[")
            text += (" = " if c and (aligned or text) else "") + (pad + cell if number else cell + pad)
        text = text.rstrip() + (f" {ROUNDED_MARK}" if row.is_rounded else "")
        remark = f"   {row.remark}" if row.remark else ""
        pieces = [text]
        if available_width is not None and cell_len(text + remark) > available_width:
            pieces = _fold_text(text.strip(), available_width)
            pieces += _fold_text(row.remark, available_width) if row.remark else []
            remark = ""
        for n, piece in enumerate(pieces):
            label = row.label if n == 0 else ""
            yield [
                (" " * _LEFT_MARGIN_WIDTH + label + " " * (label_width - cell_len(label)) + "   ", "cyan"),
                (piece, ""),
                (remark, "dim"),
            ]


def _idle_text(section: Section, rendered_lines: list[RenderedLine]) -> str:
    """A grey line."""
    return section.title or " ".join(map(equation_text, rendered_lines))


def _fold_text(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def render_text(page: RenderedPage, render_options: RenderOptions) -> str:
    """For people: on a terminal with colours, folded to its width."""
    out = io.StringIO()
    console = console_for(out, render_options)

    def write(*fragments: StyledFragment) -> None:
        text = Text()
        for piece, style in fragments:
            text.append(piece if render_options.has_unicode else _page_in_ascii(piece), style=style or None)
        console.print(text, soft_wrap=True)

    def write_folded(text: str, style: str, indent: str = "") -> None:
        for line in textwrap.wrap(text, render_options.width or 10**6, subsequent_indent=indent):
            write((line, style))

    write_folded(page.explanation.title, "bold")
    write_folded(page.explanation.summary, "dim")
    for number, section, rows in page.sections:
        write(("", ""))
        if section.is_heading:
            write((f"── {section.title} ──", "bold"))
            continue
        if section.is_idle:
            write_folded(f"  – {_idle_text(section, rows)}", "dim", "    ")
            continue
        head = [(f"{number} {section.title}", "bold"), (f"   {section.formula}" if section.formula else "", "")]
        remark = f"   ({section.remark})" if section.remark else ""
        length = sum(cell_len(t) for t, _ in head) + cell_len(remark)
        if render_options.width and length > render_options.width:
            write(head[0])
            write_folded(" " * _LEFT_MARGIN_WIDTH + section.formula, "", " " * _LEFT_MARGIN_WIDTH)
            write_folded(" " * _LEFT_MARGIN_WIDTH + remark.strip(), "dim", " " * _LEFT_MARGIN_WIDTH)
        else:
            write(*head, (remark, "dim"))
        for fragments in _layout_section(section, rows, render_options.width):
            write(*fragments)
    write(("", ""))
    for line in page.footer_lines:
        write_folded(line, "bold" if line == page.explanation.closing else "dim")
    if page.formatter.gap_numbers:
        write(("Gaps", "bold"), (f"   {_GAPS_NOTE}", "dim"))
        for line in page.gap_lines():
            write((line, ""))
    return out.getvalue()


def _page_in_ascii(text: str) -> str:
    """A page without symbols; 2·3 becomes 2*3, not 2.3."""
    return to_ascii(re.sub(r"(?<=\S)·(?=\S)", "*", text))


def render_markdown(page: RenderedPage, render_options: RenderOptions) -> str:
    """A heading a section; the working in a code block, where every character stands as it is."""
    parts = [f"# {escape_markdown(page.explanation.title)}", "", escape_markdown(page.explanation.summary)]
    for number, section, rows in page.sections:
        if section.is_heading:
            parts += ["", f"# {escape_markdown(section.title)}"]
            continue
        if section.is_idle:
            parts += ["", f"*{escape_markdown(_idle_text(section, rows))}*"]
            continue
        remark = f" ({section.remark})" if section.remark else ""
        parts += ["", f"## {number} {escape_markdown(section.title)}", "", escape_markdown(section.formula + remark)]
        lines = ["".join(t for t, _ in line)[5:].rstrip() for line in _layout_section(section, rows, None)]
        if lines:
            parts += ["", "```text", *(line.replace("```", "'''") for line in lines), "```"]
    for line in page.footer_lines:
        parts += ["", escape_markdown(line)]
    if page.formatter.gap_numbers:
        parts += ["", "## Gaps", "", _GAPS_NOTE, "", "```text", *page.gap_lines(), "```"]
    return "\n".join(parts) + "\n"


_LATEX_MATH_SYMBOLS = {
    "·": r" \cdot ", "×": r" \times ", "−": "-", "∞": r"\infty ", "√": r"\surd", "²": "^{2}", "…": r"\dots ", "†": r"^{\dagger}", "_": r"\_",
    "⟨": r"\langle ", "⟩": r"\rangle ",
}  # fmt: skip
_LATEX_FUNCTIONS = ("tanh", "ln", "sin", "cos", "max")


def _latex_arithmetic(arithmetic: str) -> str:
    """Printed arithmetic in LaTeX's mathematics."""
    text = arithmetic.replace(GAP_TEXT, "\x00")
    text = re.sub(r"\[([^\]]*)\]", lambda m: r"\begin{pmatrix}" + " & ".join(m[1].split()) + r"\end{pmatrix}", text)
    text = re.sub(r"e\^\(", r"\\exp(", text)
    text = re.sub(r"\^(\(?-?[\d.]+\)?)", r"^{\1}", text)
    text = re.sub(r"\d+ more: ", lambda m: rf"\text{{{m[0]}}}", text)
    text = re.sub(rf"\b({'|'.join(_LATEX_FUNCTIONS)})\b", lambda m: "\\" + m[1], text)
    text = "".join(_LATEX_MATH_SYMBOLS.get(c, c) for c in text)
    return text.replace("\x00", r"\underline{\hspace{3em}}")


def render_latex(page: RenderedPage, render_options: RenderOptions) -> str:
    """A paragraph a section, its working in align*; needs amsmath."""
    wide = max(
        (len(v) for _, s, _ in page.sections for x in s.lines for e in x.sides for v in e if isinstance(v, Vector)),
        default=0,
    )
    parts = [
        "% \\usepackage{amsmath}",
        *([rf"\setcounter{{MaxMatrixCols}}{{{wide}}}"] if page.formatter.full and wide > 10 else []),
        rf"\section*{{{escape_latex(page.explanation.title)}}}",
        "",
        escape_latex(page.explanation.summary),
    ]
    for _, section, rows in page.sections:
        if section.is_heading:
            parts += ["", rf"\subsection*{{{escape_latex(section.title)}}}"]
            continue
        if section.is_idle:
            parts += ["", rf"\textit{{{escape_latex(_idle_text(section, rows))}}}"]
            continue
        parts += ["", rf"\paragraph{{{escape_latex(section.title)}}} {escape_latex(section.formula)}"]
        if section.remark:
            parts.append(f"({escape_latex(section.remark)})")
        if rows:
            lines = []
            for row in rows:
                remark = rf" \quad \text{{{escape_latex(row.remark)}}}" if row.remark else ""
                dagger = r"^{\dagger}" if row.is_rounded else ""
                body = (
                    " = ".join(map(_latex_arithmetic, filter(None, row.sides)))
                    if not row.is_text_only
                    else rf"\text{{{escape_latex(row.sides[0])}}}"
                )
                lines.append(rf"  \text{{{escape_latex(row.label)}}} &\quad {body}{dagger}{remark}")
            parts += [r"\begin{align*}", " \\\\\n".join(lines), r"\end{align*}"]
    parts += ["", *(escape_latex(line).replace(ROUNDED_MARK, r"$^{\dagger}$") for line in page.footer_lines)]
    if page.formatter.gap_numbers:
        parts += ["", r"\begin{verbatim}", *page.gap_lines(), r"\end{verbatim}"]
    return "\n".join(parts) + "\n"


def render_json(page: RenderedPage, render_options: RenderOptions) -> str:
    """The page as one record: schema attn.explain/1."""
    import msgspec

    gaps = [
        {
            "gap": n,
            "step": step,
            "index": list(where),
            **({"value": _json_number(x)} if page.formatter.worksheet.show_answers else {}),
        }
        for ((step, where), n), x in zip(page.formatter.gap_numbers.items(), page.formatter.gap_values, strict=True)
    ]
    record = {
        "schema": "attn.explain/1",
        "title": page.explanation.title,
        "summary": page.explanation.summary,
        "sections": [
            {
                "title": section.title,
                "formula": section.formula,
                "remark": section.remark,
                "idle": section.is_idle,
                "heading": section.is_heading,
                "lines": [
                    {"label": r.label, "text": equation_text(r), "remark": r.remark, "rounded": r.is_rounded}
                    for r in rows
                ],
            }
            for _, section, rows in page.sections
        ],
        "closing": "" if page.formatter.worksheet.blank_steps else page.explanation.closing,
        **({"gaps": gaps} if gaps else {}),
    }
    return msgspec.json.encode(record).decode() + "\n"


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


RENDERERS: dict[str, Callable[[RenderedPage, RenderOptions], str]] = {
    "table": render_text,
    "plain": render_text,
    "markdown": render_markdown,
    "latex": render_latex,
    "json": render_json,
}
