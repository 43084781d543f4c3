"""A result as plain text, Markdown or LaTeX, and text escaped for Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attncli.output_formats import RenderOptions, output_format
from attncli.symbols import LATEX_IN_TEXT
from attncli.text import printable
from attncli.types import Attention
from attncli.views.labelled import LabelledMatrix, labelled_matrices


@output_format("plain")
def write_plain(attention: Attention, render_options: RenderOptions) -> str:
    """One row a line, each saying what it is: for grep, and for screen readers."""
    lines = []
    for matrix in labelled_matrices(attention, render_options.precision):
        title = " ".join(filter(None, (matrix.name, matrix.slice_label.replace(" ·", ""))))
        row_axis = matrix.corner_label.split()[0]
        for r, row_label in enumerate(matrix.row_labels):
            lines.append("  ".join((title, f"{row_axis} {row_label}:", *_named_cells(matrix, r))))
    return "\n".join(lines) + "\n"


def _named_cells(matrix: LabelledMatrix, row: int) -> list[str]:
    """`column=cell` for each cell of a row; a column that is the whole step needs no name."""
    cells = list(matrix.cells[row])
    if matrix.column_labels != (matrix.name,):
        labelled = zip(matrix.column_labels, cells, strict=True)
        cells = [f"{label}={cell}" if label else cell for label, cell in labelled]
    return [*cells, *(f"{column.name}={column.cells[row]}" for column in matrix.statistics)]


def _header_cells(matrix: LabelledMatrix) -> list[str]:
    return [matrix.corner_label, *matrix.column_labels, *(column.name for column in matrix.statistics)]


def _row_cells(matrix: LabelledMatrix) -> list[list[str]]:
    return [
        [label, *matrix.cells[r], *(column.cells[r] for column in matrix.statistics)]
        for r, label in enumerate(matrix.row_labels)
    ]


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$!&])")


def escape_markdown(text: str) -> str:
    """Escape text, so that Markdown shows it as it is: no emphasis, no link, no HTML."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", text).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")


@output_format("markdown", ".md")
def write_markdown(attention: Attention, render_options: RenderOptions) -> str:
    """A heading and a pipe table for each matrix."""
    parts = [
        " · ".join(escape_markdown(printable(s)) for s in attention.summary),
        "",
        "rows = query (looks), columns = key (is looked at)",
    ]
    for matrix in labelled_matrices(attention, render_options.precision):
        head = [escape_markdown(cell) for cell in _header_cells(matrix)]
        parts += [
            "",
            f"### {escape_markdown(matrix.title)}",
            "",
            escape_markdown(matrix.formula) + (f" ({matrix.remark})" if matrix.remark else ""),
            "",
        ]
        parts += [_pipe_row(head), _pipe_row(["---", *["---:"] * (len(head) - 1)])]
        parts += [_pipe_row([escape_markdown(cell) for cell in row]) for row in _row_cells(matrix)]
    return "\n".join(parts) + "\n"


def _pipe_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# ── LaTeX ────────────────────────────────────────────────────────────────────────────────────────
_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}


def escape_latex(text: str) -> str:
    """Escape text, so that LaTeX sets it as it is; symbols become mathematics."""
    return "".join(LATEX_IN_TEXT.get(c) or _LATEX_ESCAPES.get(c, c) for c in text)


@output_format("latex", ".tex")
def write_latex(attention: Attention, render_options: RenderOptions) -> str:
    """A tabular for each matrix, in a table with its caption; plain LaTeX, no package needed."""
    parts = [f"% {printable(' · '.join(attention.summary))}", "% rows = query (looks), columns = key (is looked at)"]
    for matrix in labelled_matrices(attention, render_options.precision):
        head = _header_cells(matrix)
        parts += [
            "",
            r"\begin{table}",
            rf"\caption{{{escape_latex(matrix.title)}: {escape_latex(matrix.formula)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        ]
        parts += [" & ".join(map(escape_latex, head)) + r" \\ \hline"]
        parts += [
            " & ".join(escape_latex(cell) if i == 0 else _latex_number(cell) for i, cell in enumerate(row)) + r" \\"
            for row in _row_cells(matrix)
        ]
        parts += [r"\end{tabular}", r"\end{table}"]
    return "\n".join(parts) + "\n"


def _latex_number(cell: str) -> str:
    """A number in mathematics, for its minus; anything else as text."""
    cell = cell.replace("−", "-").replace("∞", r"\infty")
    return f"${cell}$" if re.fullmatch(r"-?(\d+(\.\d+)?(e[+-]\d+)?|\\infty)", cell) else escape_latex(cell)
