"""Plain, Markdown and LaTeX: the same matrices without a screen."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attncli.errors import printable
from attncli.output_formats import RenderOptions, output_format
from attncli.types import Attention
from attncli.views.labelled import LabelledMatrix, labelled_matrices


@output_format("plain")
def write_plain(attention: Attention, render_options: RenderOptions) -> str:
    """One row a line, each saying what it is: for grep, and for screen readers."""
    lines = []
    for matrix in labelled_matrices(attention, render_options.precision):
        for r, row in enumerate(matrix.row_labels):
            names = matrix.column_labels if matrix.column_labels != (matrix.name,) else ("",)
            cells = [f"{name}={cell}" if name else cell for name, cell in zip(names, matrix.cells[r], strict=True)]
            cells += [f"{fact.name}={fact.cells[r]}" for fact in matrix.statistics]
            lines.append(
                "  ".join(
                    (
                        " ".join(filter(None, (matrix.name, matrix.slice_label.replace(" ·", "")))),
                        f"{matrix.corner_label.split()[0]} {row}:",
                        *cells,
                    )
                )
            )
    return "\n".join(lines) + "\n"


def _header_cells(matrix: LabelledMatrix) -> list[str]:
    return [matrix.corner_label, *matrix.column_labels, *(fact.name for fact in matrix.statistics)]


def _row_cells(matrix: LabelledMatrix) -> list[list[str]]:
    return [
        [label, *matrix.cells[r], *(fact.cells[r] for fact in matrix.statistics)]
        for r, label in enumerate(matrix.row_labels)
    ]


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$!&])")


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is: no emphasis, no link, no HTML."""
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
_LATEX_SYMBOLS = {
    "−": "-", "·": r"\cdot ", "√": r"\surd ", "Σ": r"\Sigma ", "∞": r"\infty ", "×": r"\times ", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
    "≤": r"\le ", "≥": r"\ge ", "╲": r"\backslash ", "₂": "_2", "ᵀ": "^{T}", "…": r"\dots ", "α": r"\alpha ", "λ": r"\lambda ", "φ": r"\phi ", "½": r"\tfrac12 ",
    "ⱼ": "_j", "ᵢ": "_i", "ω": r"\omega ", "²": "^2", "≠": r"\ne ", "τ": r"\tau ", "→": r"\to ",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is; symbols of formulas in mathematics."""
    return "".join(f"${_LATEX_SYMBOLS[c].strip()}$" if c in _LATEX_SYMBOLS else _LATEX_ESCAPES.get(c, c) for c in text)


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
    cell = cell.replace("−", "-").replace("∞", r"\infty")
    return f"${cell}$" if re.fullmatch(r"-?(\d+(\.\d+)?(e[+-]\d+)?|\\infty)", cell) else escape_latex(cell)
