"""Plain, Markdown and LaTeX: the same matrices without a screen."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attncli.errors import printable
from attncli.output_formats import Look, output_format
from attncli.types import Attention
from attncli.views.labelled import Matrix, matrices


@output_format("plain")
def write_plain(attention: Attention, look: Look) -> str:
    """One row a line, each saying what it is: for grep, and for screen readers."""
    lines = []
    for matrix in matrices(attention, look.precision):
        for r, row in enumerate(matrix.rows):
            names = matrix.columns if matrix.columns != (matrix.name,) else ("",)
            cells = [f"{name}={cell}" if name else cell for name, cell in zip(names, matrix.cells[r], strict=True)]
            cells += [f"{fact.name}={fact.cells[r]}" for fact in matrix.facts]
            lines.append(
                "  ".join(
                    (
                        " ".join(filter(None, (matrix.name, matrix.where.replace(" ·", "")))),
                        f"{matrix.corner.split()[0]} {row}:",
                        *cells,
                    )
                )
            )
    return "\n".join(lines) + "\n"


def _head(matrix: Matrix) -> list[str]:
    return [matrix.corner, *matrix.columns, *(fact.name for fact in matrix.facts)]


def _rows(matrix: Matrix) -> list[list[str]]:
    return [[label, *matrix.cells[r], *(fact.cells[r] for fact in matrix.facts)] for r, label in enumerate(matrix.rows)]


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$!&])")


def markdown(text: str) -> str:
    """Text that Markdown shows as it is: no emphasis, no link, no HTML."""
    return _MARKDOWN.sub(r"\\\1", text).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")


@output_format("markdown", ".md")
def write_markdown(attention: Attention, look: Look) -> str:
    """A heading and a pipe table for each matrix."""
    parts = [
        " · ".join(markdown(printable(s)) for s in attention.summary),
        "",
        "rows = query (looks), columns = key (is looked at)",
    ]
    for matrix in matrices(attention, look.precision):
        head = [markdown(cell) for cell in _head(matrix)]
        parts += [
            "",
            f"### {markdown(matrix.title)}",
            "",
            markdown(matrix.formula) + (f" ({matrix.remark})" if matrix.remark else ""),
            "",
        ]
        parts += [_pipes(head), _pipes(["---", *["---:"] * (len(head) - 1)])]
        parts += [_pipes([markdown(cell) for cell in row]) for row in _rows(matrix)]
    return "\n".join(parts) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# ── LaTeX ────────────────────────────────────────────────────────────────────────────────────────
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}
_SYMBOLS = {
    "−": "-", "·": r"\cdot ", "√": r"\surd ", "Σ": r"\Sigma ", "∞": r"\infty ", "×": r"\times ", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
    "≤": r"\le ", "≥": r"\ge ", "╲": r"\backslash ", "₂": "_2", "ᵀ": "^{T}", "…": r"\dots ", "α": r"\alpha ", "λ": r"\lambda ", "φ": r"\phi ", "½": r"\tfrac12 ",
    "ⱼ": "_j", "ᵢ": "_i", "ω": r"\omega ", "²": "^2", "≠": r"\ne ", "τ": r"\tau ", "→": r"\to ",
}  # fmt: skip


def latex(text: str) -> str:
    """Text that LaTeX sets as it is; symbols of formulas in mathematics."""
    return "".join(f"${_SYMBOLS[c].strip()}$" if c in _SYMBOLS else _LATEX.get(c, c) for c in text)


@output_format("latex", ".tex")
def write_latex(attention: Attention, look: Look) -> str:
    """A tabular for each matrix, in a table with its caption; plain LaTeX, no package needed."""
    parts = [f"% {printable(' · '.join(attention.summary))}", "% rows = query (looks), columns = key (is looked at)"]
    for matrix in matrices(attention, look.precision):
        head = _head(matrix)
        parts += [
            "",
            r"\begin{table}",
            rf"\caption{{{latex(matrix.title)}: {latex(matrix.formula)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        ]
        parts += [" & ".join(map(latex, head)) + r" \\ \hline"]
        parts += [
            " & ".join(latex(cell) if i == 0 else _number(cell) for i, cell in enumerate(row)) + r" \\"
            for row in _rows(matrix)
        ]
        parts += [r"\end{tabular}", r"\end{table}"]
    return "\n".join(parts) + "\n"


def _number(cell: str) -> str:
    cell = cell.replace("−", "-").replace("∞", r"\infty")
    return f"${cell}$" if re.fullmatch(r"-?(\d+(\.\d+)?(e[+-]\d+)?|\\infty)", cell) else latex(cell)
