"""Recognise text that is no CSV: JSON, matrices as programs print them, Markdown, LaTeX, HTML. Entry: `explain_foreign_text`."""

from __future__ import annotations

import re
from itertools import islice

from attncli.readers.source import Source

_EXPORT = "export it as CSV: df.to_csv, write_csv, COPY … TO, .mode csv, \\copy … csv header"
# How the text begins → what it is, and the way out.
_BEGINNINGS: tuple[tuple[str, str, str], ...] = (
    ("%%MatrixMarket", "this is a Matrix Market matrix", "numpy.save('FILE.npy', scipy.io.mmread('FILE'))"),
    ("@relation", "this is an ARFF table", "remove the lines before the rows: sed '1,/^@[Dd][Aa][Tt][Aa]/d'"),
    ("structure(", "this is what R's dput writes", "write.csv(x, 'FILE.csv', row.names = FALSE)"),
    ("\\begin{", "this is a LaTeX table", _EXPORT),
)  # fmt: skip
_RULE = re.compile(r"[ \t]*[-=+|:┌┬┐├┼┤└┴┘╞╪╡╔╦╗╭╮╰╯│┆─═━ \t]*(?:--|==|──|══|━━)[-=+|:┌┬┐├┼┤└┴┘╞╪╡╔╦╗╭╮╰╯│┆─═━ \t]*")
_HTML = re.compile(r"\s*<(?:!doctype html|html|table|tr)\b", re.IGNORECASE)
_REPRESENTATION = re.compile(r"(?:array|tensor)\(\[\[")
_WITHOUT_BRACKETS = (
    r"sed -E 's/array\(|tensor\(|(dtype|device|grad_fn|requires_grad|shape)=[^,]*//g; s/[][() ]//g; s/,+$//'"
)
_MARKDOWN = r"sed -E '/^[ |:-]+$/d; s/^ *\| *| *\| *$//g; s/ *\| */|/g'"
_MAX_RULE_CHARACTERS = 1000  # of a line that is looked at
_MAX_LINES = 5  # among which a table that was printed has a rule


def explain_foreign_text(text: str, source: Source) -> tuple[str, str] | None:
    """Return what a text is that is no CSV, and the way out; None where it may be CSV.

    Args:
        text: without white space around it.
        source: where it comes from.
    """
    ends = text[:1] + text[-1:]
    if ends in ("[]", "{}"):
        found = _explain_brackets(text, ends, source)
        if found:
            return found
    head = text[:20].lower()
    for beginning, message, hint in _BEGINNINGS:
        if head.startswith(beginning.lower()):
            return message, hint
    if _REPRESENTATION.match(text):
        return (
            "this is an array as Python's repr prints it",
            f"numpy.savetxt writes it without brackets; or {_WITHOUT_BRACKETS}",
        )
    if _HTML.match(text):
        return "this is HTML", "pandas.read_html('FILE')[0].to_csv('NEW.csv', index=False)"
    lines = list(islice((match[0] for match in re.finditer(r"[^\r\n]+", text)), _MAX_LINES))
    if len(lines) > 1 and any(len(line) <= _MAX_RULE_CHARACTERS and _RULE.fullmatch(line) for line in lines):
        if all(line.lstrip().startswith("|") for line in lines) and "--" in lines[1]:
            return "this is a Markdown table", f"remove its frame: {_MARKDOWN}"
        return "this is a table as a program prints it, with rules", _EXPORT
    return None


def _explain_brackets(text: str, ends: str, source: Source) -> tuple[str, str] | None:
    if text.startswith("[[") and "," not in text:
        return "this is a matrix as NumPy prints it", "numpy.savetxt writes it without brackets; or tr -d '[]'"
    if ends == "[]" and ";" in text and "\n" not in text:
        return "this is a matrix as MATLAB writes it", "put each row on a line of its own: tr -d '[]' | tr ';' '\\n'"
    if text.startswith(("[[", "[{", '{"')):
        return "this is JSON, not CSV", source.spell_format("json")
    return None
