"""A result as plain text or Markdown, and text escaped for Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from operator import add

from attncli.output_formats import RenderOptions, output_format
from attncli.text import printable
from attncli.types import Attention
from attncli.views.labelled_matrices import LabelledMatrix
from attncli.views.latex_mathematics import split_formula
from attncli.views.table_order import labelled_matrices


@output_format("plain")
def write_plain(attention: Attention, render_options: RenderOptions) -> Iterator[str]:
    """One row a line, each saying what it is: for grep, and for screen readers."""
    for matrix in labelled_matrices(attention, render_options.precision):
        title = " ".join(filter(None, (matrix.name, matrix.slice_label.replace(" ·", ""))))
        row_axis = matrix.corner_label.split()[0]
        names = [f"{label}=" for label in matrix.cell_labels]
        if matrix.column_labels == (matrix.name,):
            names[0] = ""  # a column that is the whole step needs no name
        for labels, rows in _labelled_pages(matrix):
            lines = [
                "  ".join((title, f"{row_axis} {label}:", *map(add, names, cells)))
                for label, cells in zip(labels, rows, strict=True)
            ]
            yield "\n".join(lines) + "\n"


def _labelled_pages(matrix: LabelledMatrix) -> Iterator[tuple[Sequence[str], list[list[str]]]]:
    """The rows of a matrix, a page at a time: their labels, and their cells."""
    for first, rows in matrix.pages():
        yield matrix.row_labels[first : first + len(rows)], rows


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$!&])")


def escape_markdown(text: str) -> str:
    """Escape text, so that Markdown shows it as it is: no emphasis, no link, no HTML."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", text).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")


def formula_in_markdown(formula: str) -> str:
    """A formula for renderers that typeset mathematics (GitHub, Jupyter, pandoc): between dollar signs, its words as text."""
    return "".join(
        f"${piece.text}$" if piece.is_mathematics else escape_markdown(piece.text) for piece in split_formula(formula)
    )


@output_format("markdown", ".md")
def write_markdown(attention: Attention, render_options: RenderOptions) -> Iterator[str]:
    """A heading and a pipe table for each matrix."""
    summary = " · ".join(escape_markdown(printable(s)) for s in attention.summary)
    yield f"{summary}\n\nrows = query (looks), columns = key (is looked at)\n"
    for matrix in labelled_matrices(attention, render_options.precision):
        head = [matrix.corner_label, *matrix.cell_labels]
        remark = f" ({escape_markdown(matrix.remark)})" if matrix.remark else ""
        legend = f"{escape_markdown(' · '.join(matrix.statistics_legend))}\n\n" if matrix.statistics_legend else ""
        yield (
            f"\n### {escape_markdown(matrix.title)}\n\n{formula_in_markdown(matrix.formula)}{remark}\n\n{legend}"
            f"{_pipe_row(head)}| {' | '.join(['---', *['---:'] * (len(head) - 1)])} |\n"
        )
        for labels, rows in _labelled_pages(matrix):
            yield "".join(_pipe_row((label, *cells)) for label, cells in zip(labels, rows, strict=True))


def _pipe_row(cells: Iterable[str]) -> str:
    """One line of a pipe table. Its cells are escaped all at once: none of them holds a line break."""
    return f"| {escape_markdown(chr(10).join(cells)).replace(chr(10), ' | ')} |\n"
