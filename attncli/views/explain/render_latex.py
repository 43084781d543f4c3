"""A page in LaTeX: a paragraph a section, its lines in align*; needs amsmath. `--standalone` makes a document of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len

from attncli.derivation import Vector
from attncli.output_formats import RenderOptions
from attncli.views.explain.lines import PrintedLine
from attncli.views.explain.numbers import GAP_TEXT
from attncli.views.explain.rendered_page import GAPS_NOTE, RenderedPage, RenderedSection
from attncli.views.latex import PACKAGES_NOTE, escape_latex, formula_in_latex, latex_document, unknown_characters_note
from attncli.views.latex_mathematics import typeset_mathematics

_DAGGER = r"{}^{\dagger}"
_MAX_MATRIX_COLUMNS = 10  # of amsmath, unless MaxMatrixCols says more
_MAX_ROW_WIDTH = 70  # characters that stand on one row of a page of 16 cm, the label included
_TERM = re.compile(r"(?= [+−] )")  # before a sign with spaces around it, where a long sum may be broken
_FORMULA_SYMBOLS = frozenset("Σ^²·×/√")
_VECTOR = re.compile(r"\[([^\]]*)\]")


def render_latex(page: RenderedPage, render_options: RenderOptions) -> str:
    """The page in LaTeX, alone or as a document."""
    body = "\n".join(_page_lines(page)) + "\n"
    if render_options.standalone:
        return "".join(latex_document([body], [body]))
    return "\n".join([PACKAGES_NOTE, *unknown_characters_note(body), body])


def _page_lines(page: RenderedPage) -> Iterator[str]:
    widest = _widest_matrix(page)
    if widest > _MAX_MATRIX_COLUMNS:
        yield rf"\setcounter{{MaxMatrixCols}}{{{widest}}}"
    yield from (rf"\section*{{{escape_latex(page.explanation.title)}}}", "", escape_latex(page.explanation.summary))
    for section in page.sections:
        yield ""
        yield from _section_lines(section, page.explanation.tokens)
    for line in page.footer_lines:
        yield from ("", escape_latex(line))
    if page.gap_lines:
        yield from ("", r"\paragraph{Gaps} " + escape_latex(GAPS_NOTE) + ":", r"\begin{itemize}")
        yield from (rf"\item {escape_latex(line)}" for line in page.gap_lines)
        yield r"\end{itemize}"


def _widest_matrix(page: RenderedPage) -> int:
    """How many entries the longest vector has that stands on one row."""
    equations = (line for rendered in page.sections for line in rendered.section.lines)
    items = (item for equation in equations for side in equation.sides for item in side)
    longest = max((len(item) for item in items if isinstance(item, Vector)), default=0)
    return min(longest, _MAX_ROW_WIDTH // 2)


def _section_lines(rendered: RenderedSection, tokens: frozenset[str]) -> Iterator[str]:
    section = rendered.section
    if section.is_heading:
        yield rf"\subsection*{{{escape_latex(section.title)}}}"
        return
    if section.is_idle:
        yield rf"\textit{{{escape_latex(rendered.idle_text)}}}"
        return
    number = rf"\textcircled{{\small {rendered.position}}} " if rendered.position else ""
    formula = formula_in_latex(section.formula).replace("$", r"$\displaystyle ", 1)
    yield rf"\paragraph{{{number}{escape_latex(section.title)}}} {formula}".rstrip()
    if section.remark:
        yield f"({escape_latex(section.remark)})"
    if section.why:
        yield from ("", rf"\emph{{{escape_latex(section.why)}}}")
    if rendered.lines:
        label_width = max(cell_len(line.label) for line in rendered.lines)
        rows = (row for line in rendered.lines for row in _align_rows(line, label_width, tokens))
        yield from (r"\begin{align*}", " \\\\\n".join(rows), r"\end{align*}")


def _align_rows(line: PrintedLine, label_width: int, tokens: frozenset[str]) -> Iterator[str]:
    """One line of the page in rows of align*: its label, the equation, and its remark; a wide one is broken."""
    available = max(_MAX_ROW_WIDTH - label_width, _MAX_ROW_WIDTH // 2)
    label = rf"  \text{{{_label_in_latex(line.label, tokens)}}} &\quad "
    for row in _fill_rows(list(_breakable_pieces(line)), available):
        yield label + ("{-}" + row[1:] if row.startswith("-") else row)  # after & a minus would be set as an operator
        label = r"  &\quad\quad {}"


def _label_in_latex(label: str, tokens: frozenset[str]) -> str:
    """A label as text; as a formula if it is one, which a label with a token in it is not."""
    is_formula = not _FORMULA_SYMBOLS.isdisjoint(label) and not any(token in label for token in tokens)
    return formula_in_latex(label) if is_formula else escape_latex(label)


def _fill_rows(pieces: list[tuple[str, int]], available: int) -> Iterator[str]:
    """Pieces of LaTeX with their widths, so many on a row as have room."""
    row, width = "", 0
    for latex, piece_width in pieces:
        if row and width + piece_width > available:
            yield row
            row, width = "", 0
        row += (" " if row else "") + latex
        width += piece_width
    yield row


def _breakable_pieces(line: PrintedLine) -> Iterator[tuple[str, int]]:
    """What a line consists of, each with its width in characters: between any two of them a row may end."""
    dagger = _DAGGER if line.is_rounded else ""
    if line.is_text_only:
        yield rf"\text{{{escape_latex(line.sides[0])}}}", cell_len(line.sides[0])
    else:
        sides = [side for side in line.sides if side]
        for i, side in enumerate(sides):
            pieces = [piece for term in _terms_of(side) for piece in _typeset_term(term)]
            for n, (latex, width) in enumerate(pieces):
                equals = "= " if i and not n else ""
                is_last = i == len(sides) - 1 and n == len(pieces) - 1
                yield equals + latex + (dagger if is_last else ""), width + len(equals)
    if line.remark:
        yield rf"\quad \text{{{escape_latex(line.remark)}}}", cell_len(line.remark) + 2


def _terms_of(side: str) -> Iterator[str]:
    """The terms of a sum that is not in brackets, each but the first with its sign."""
    term = ""
    for part in _TERM.split(side):
        if term and _is_complete(term):
            yield term
            term = ""
        term += part
    yield term


def _is_complete(text: str) -> bool:
    """Whether every bracket is closed, and no bar is open."""
    return all(text.count(left) == text.count(right) for left, right in ("()", "[]")) and text.count("|") % 2 == 0


def _width_of(text: str) -> int:
    """About how many characters wide a text is when it is set; a blank is longer than its underscores."""
    return len(text) + 4 * text.count(GAP_TEXT)


def _typeset_term(term: str) -> list[tuple[str, int]]:
    """A term in LaTeX; a vector that is wider than a row is set as a list, which can be broken between its entries."""
    vector = _VECTOR.search(term)
    if vector is None:
        return [(typeset_mathematics(term), _width_of(term))]
    width = _width_of(term) + len(vector[1].split())  # the columns of a matrix stand further apart than words
    if width <= _MAX_ROW_WIDTH:
        return [(typeset_mathematics(term), width)]
    before, after = term[: vector.start()], term[vector.end() :]
    entries = [(typeset_mathematics(entry) + r"\;", _width_of(entry) + 1) for entry in vector[1].split()]
    pieces = [(typeset_mathematics(before), len(before))] if before.strip() else []
    pieces += [("[", 1), *entries, ("]", 1)]
    return [*pieces, *(_typeset_term(after) if after.strip() else [])]
