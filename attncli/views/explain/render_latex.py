"""A page in LaTeX: a paragraph a section, its lines in align*; needs amsmath."""

from __future__ import annotations

import re

from attncli.derivation import Vector
from attncli.output_formats import RenderOptions
from attncli.symbols import LATEX_IN_EQUATIONS
from attncli.views.explain.lines import PrintedLine
from attncli.views.explain.numbers import GAP_TEXT
from attncli.views.explain.rendered_page import ROUNDED_MARK, RenderedPage, RenderedSection
from attncli.views.text import escape_latex

_LATEX_FUNCTIONS = ("tanh", "ln", "sin", "cos", "max")
_GAP_STAND_IN = "\x00"  # while symbols are replaced, which it must not be
_MAX_MATRIX_COLUMNS = 10  # of amsmath, unless MaxMatrixCols says more
_EQUATION_SPELLINGS = LATEX_IN_EQUATIONS | {"_": r"\_"}
_DAGGER = LATEX_IN_EQUATIONS[ROUNDED_MARK]


def render_latex(page: RenderedPage, render_options: RenderOptions) -> str:
    """The page in LaTeX."""
    lines = ["% \\usepackage{amsmath}"]
    widest = _longest_vector(page)
    if page.formatter.full and widest > _MAX_MATRIX_COLUMNS:
        lines.append(rf"\setcounter{{MaxMatrixCols}}{{{widest}}}")
    lines += [rf"\section*{{{escape_latex(page.explanation.title)}}}", "", escape_latex(page.explanation.summary)]
    for section in page.sections:
        lines += ["", *_section_lines(section)]
    lines += ["", *(escape_latex(line).replace(ROUNDED_MARK, f"${_DAGGER}$") for line in page.footer_lines)]
    if page.gap_lines:
        lines += ["", r"\begin{verbatim}", *page.gap_lines, r"\end{verbatim}"]
    return "\n".join(lines) + "\n"


def _longest_vector(page: RenderedPage) -> int:
    equations = (line for rendered in page.sections for line in rendered.section.lines)
    items = (item for equation in equations for side in equation.sides for item in side)
    return max((len(item) for item in items if isinstance(item, Vector)), default=0)


def _section_lines(rendered: RenderedSection) -> list[str]:
    section = rendered.section
    if section.is_heading:
        return [rf"\subsection*{{{escape_latex(section.title)}}}"]
    if section.is_idle:
        return [rf"\textit{{{escape_latex(rendered.idle_text)}}}"]
    lines = [rf"\paragraph{{{escape_latex(section.title)}}} {escape_latex(section.formula)}"]
    if section.remark:
        lines.append(f"({escape_latex(section.remark)})")
    if rendered.lines:
        lines += [r"\begin{align*}", " \\\\\n".join(map(_align_row, rendered.lines)), r"\end{align*}"]
    return lines


def _align_row(line: PrintedLine) -> str:
    """One line of align*: its label, the equation, and its remark."""
    if line.is_text_only:
        equation = rf"\text{{{escape_latex(line.sides[0])}}}"
    else:
        equation = " = ".join(map(_latex_arithmetic, filter(None, line.sides)))
    dagger = _DAGGER if line.is_rounded else ""
    remark = rf" \quad \text{{{escape_latex(line.remark)}}}" if line.remark else ""
    return rf"  \text{{{escape_latex(line.label)}}} &\quad {equation}{dagger}{remark}"


def _latex_arithmetic(arithmetic: str) -> str:
    """Printed arithmetic in LaTeX's mathematics."""
    text = arithmetic.replace(GAP_TEXT, _GAP_STAND_IN)
    text = re.sub(r"\[([^\]]*)\]", lambda m: r"\begin{pmatrix}" + " & ".join(m[1].split()) + r"\end{pmatrix}", text)
    text = re.sub(r"e\^\(", r"\\exp(", text)
    text = re.sub(r"\^(\(?-?[\d.]+\)?)", r"^{\1}", text)
    text = re.sub(r"\d+ more: ", lambda m: rf"\text{{{m[0]}}}", text)
    text = re.sub(rf"\b({'|'.join(_LATEX_FUNCTIONS)})\b", lambda m: "\\" + m[1], text)
    text = "".join(_EQUATION_SPELLINGS.get(c, c) for c in text)
    return text.replace(_GAP_STAND_IN, r"\underline{\hspace{3em}}")
