"""A result in LaTeX, text escaped for it, and whole documents: entries `write_latex`, `escape_latex`, `latex_document`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain, groupby

from attncli.output_formats import RenderOptions, output_format
from attncli.symbols import LATEX_IN_TEXT
from attncli.text import printable
from attncli.types import Attention, Labels
from attncli.views.labelled_matrices import LabelledMatrix
from attncli.views.latex_mathematics import split_formula
from attncli.views.table_order import labelled_matrices

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}
PACKAGES_NOTE = r"% needs \usepackage{amsmath}"
_MAX_TABLE_CHARACTERS = 80  # of a row, on a page of 16 cm: a wider table is scaled down


def escape_latex(text: str) -> str:
    """Escape text, so that LaTeX sets it as it is; symbols become mathematics."""
    return "".join(LATEX_IN_TEXT.get(c) or _ESCAPES.get(c, c) for c in text)


def formula_in_latex(formula: str) -> str:
    """A formula as it stands within a line: its mathematics between dollar signs, its words as text."""
    return "".join(
        f"${piece.text}$" if piece.is_mathematics else escape_latex(piece.text) for piece in split_formula(formula)
    )


# ── tables ───────────────────────────────────────────────────────────────────────────────────────
@output_format("latex", ".tex", shape_options=("standalone",))
def write_latex(attention: Attention, render_options: RenderOptions) -> Iterator[str]:
    """A table for each matrix, with its formula as the caption."""
    tables = _tables(attention, render_options)
    summary = printable(" · ".join(attention.summary))
    if render_options.standalone:
        texts = (summary, *_all_labels(attention.tokens), *_all_labels(attention.k_tokens))
        yield from latex_document(chain([f"\\noindent {escape_latex(summary)}\n"], tables), texts)
        return
    yield f"% {summary}\n{PACKAGES_NOTE}, and \\usepackage{{graphicx}} for tables wider than the page\n"
    yield from tables


def _tables(attention: Attention, render_options: RenderOptions) -> Iterator[str]:
    for matrix in labelled_matrices(attention, render_options.precision):
        head = [matrix.corner_label, *matrix.cell_labels]
        is_wide = sum(map(len, head)) + 3 * len(head) > _MAX_TABLE_CHARACTERS
        label = re.sub(r"[^a-z0-9]+", "-", matrix.title.lower()).strip("-")
        lines = [
            "",
            r"\begin{table}[ht]",
            r"\centering",
            rf"\caption{{{_caption(matrix)}}}",
            rf"\label{{tab:{label}}}",
            *([r"\resizebox{\linewidth}{!}{%"] if is_wide else []),
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\hline",
            " & ".join(map(escape_latex, head)) + r" \\ \hline",
        ]
        yield "\n".join(lines) + "\n"
        for first, rows in matrix.pages():
            lines = [
                " & ".join((escape_latex(label), *map(_latex_number, cells))) + r" \\"
                for label, cells in zip(matrix.row_labels[first : first + len(rows)], rows, strict=True)
            ]
            yield "\n".join(lines) + "\n"
        yield "\\hline\n\\end{tabular}" + ("}" if is_wide else "") + "\n\\end{table}\n"


def _caption(matrix: LabelledMatrix) -> str:
    """What the table holds: step, formula, remark, and what its rows and columns are."""
    formula = f": {formula_in_latex(matrix.formula)}" if matrix.formula else ""
    remark = f" ({escape_latex(matrix.remark)})" if matrix.remark else ""
    row_axis, _, column_axis = matrix.corner_label.partition(" ╲ ")
    orientation = f" A row for each {row_axis}, a column for each {column_axis}." if column_axis else ""
    return escape_latex(matrix.title) + formula + remark + "." + escape_latex(orientation)


def _latex_number(cell: str) -> str:
    """A number in mathematics, for its minus; anything else as text."""
    cell = cell.replace("−", "-").replace("∞", r"\infty")
    return f"${cell}$" if re.fullmatch(r"-?(\d+(\.\d+)?(e[+-]\d+)?|\\infty)", cell) else escape_latex(cell)


def _all_labels(labels: Labels) -> Iterator[str]:
    """Every token, of a batch too."""
    for label in labels:
        if isinstance(label, tuple):
            yield from map(str, label)
        else:
            yield str(label)


# ── whole documents ──────────────────────────────────────────────────────────────────────────────
# Script → how the Unicode names of its characters begin, and fonts that have them, the first that is installed is taken.
_SCRIPTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "european": (("CYRILLIC", "GREEK"), ("CMU Serif", "DejaVu Serif", "FreeSerif", "Noto Serif")),
    "eastasian": (
        ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH"),
        ("Noto Serif CJK SC", "Noto Sans CJK SC", "Source Han Serif SC", "FandolSong-Regular.otf", "WenQuanYi Zen Hei"),
    ),
    "other": ((), ("FreeSerif", "DejaVu Sans", "Noto Sans", "Symbola")),
}
_LAST_LATIN = "\u017f"  # up to here pdfLaTeX has every character
_PUNCTUATION = frozenset("“”‘’„–—…†‡•€™")  # beyond it, these
_BEGIN = r"""\documentclass[11pt,a4paper]{article}
\usepackage[margin=2.5cm]{geometry}
\usepackage{amsmath}
\usepackage{graphicx}
\usepackage{iftex}
\allowdisplaybreaks
\setlength{\belowcaptionskip}{6pt}
\setlength{\parindent}{0pt}
"""
_PDFLATEX_FONTS = "\\usepackage[T1]{fontenc}\n\\usepackage[utf8]{inputenc}\n\\usepackage{lmodern}\n"


def latex_document(body: Iterable[str], texts: Iterable[str]) -> Iterator[str]:
    """Yield a document that compiles as it is, by pdfLaTeX, XeLaTeX or LuaLaTeX.

    pdfLaTeX has no fonts for most scripts, and prints a character that it lacks as its number, [U+043A].

    Args:
        body: its pieces, in which everything beyond Latin is part of a text.
        texts: all the texts in it, whose characters decide which fonts are loaded.
    """
    characters = sorted({c for text in texts for c in text if not _is_known_to_pdflatex(c)})
    scripts = [name for name in _SCRIPTS if any(_script_of(c) == name for c in characters)]
    if scripts:
        yield "% Compile it with xelatex or lualatex: pdflatex lacks some of its characters, and prints their numbers.\n"
    yield _BEGIN + "\\ifPDFTeX\n" + _PDFLATEX_FONTS
    yield "".join(f"\\DeclareUnicodeCharacter{{{ord(c):04X}}}{{[U+{ord(c):04X}]}}\n" for c in characters)
    yield "".join(f"\\newcommand\\{name}font{{}}\n" for name in scripts)
    yield "\\else\n\\usepackage{fontspec}\n" + "".join(map(_choose_font, scripts)) + "\\fi\n\\begin{document}\n"
    for piece in body:
        yield _mark_scripts(piece)
    yield "\n\\end{document}\n"


def unknown_characters_note(text: str) -> list[str]:
    """A comment that says what a text beyond Latin needs; none where it needs nothing."""
    if all(_is_known_to_pdflatex(c) or c in LATEX_IN_TEXT for c in text):
        return []
    return [
        r"% and XeLaTeX or LuaLaTeX, with a font that has its characters: \usepackage{fontspec} \setmainfont{FreeSerif}"
    ]


def _is_known_to_pdflatex(character: str) -> bool:
    return character <= _LAST_LATIN or character in _PUNCTUATION or character in LATEX_IN_TEXT


def _script_of(character: str) -> str:
    """The script of a character; nothing for what every font has."""
    if _is_known_to_pdflatex(character):
        return ""
    name = unicodedata.name(character, "")
    return next((script for script, (starts, _) in _SCRIPTS.items() if starts and name.startswith(starts)), "other")


def _choose_font(script: str) -> str:
    r"""Define `\europeanfont` and its like as the first font that is installed."""
    choice = f"\\newcommand\\{script}font{{}}"
    for font in reversed(_SCRIPTS[script][1]):
        choice = f"\\IfFontExistsTF{{{font}}}{{\\newfontfamily\\{script}font{{{font}}}}}{{{choice}}}"
    return choice + "\n"


def _mark_scripts(latex: str) -> str:
    """Set the characters of each script in its font."""
    if latex.isascii():
        return latex
    runs = ((script, "".join(run)) for script, run in groupby(latex, _script_of))
    return "".join(f"{{\\{script}font {run}}}" if script else run for script, run in runs)
