"""Reading a worksheet that was filled in: gaps ⟨1⟩____ in a text, and below it which figure each gap is."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from attncli.check.figures import Figures, StepFigures, parse_written_number
from attncli.errors import InputError, Location
from attncli.text import join_names, printable

_GAP_OPEN, _GAP_CLOSE = "[⟨<]", "[⟩>]"
_LEGEND_PATTERN = re.compile(
    rf"^\W*{_GAP_OPEN}(\d+){_GAP_CLOSE}(?:\s+to\s+{_GAP_OPEN}(\d+){_GAP_CLOSE})?:\s*`?(\w+)((?:\[\d+(?::\d+)?\])+)`?\s*$"
)
_GAP_PATTERN = re.compile(rf"{_GAP_OPEN}(\d+){_GAP_CLOSE}")
_NUMBER_IN_GAP_PATTERN = re.compile(
    r" ?[*`]*_*[*`]*([-+−]?(?:(?:\d+(?:[.,]\d+)?|[.,]\d+)(?:[eE][-+]?\d+)?|∞|inf(?:inity)?(?![^\W_])|nan(?![^\W_])))",
    re.IGNORECASE,
)
_TRAILING_TEXT_PATTERN = re.compile(r"[*`_]*([^\W_]|[√^%]|[.,/·×*]\d)")  # after a number, this makes it another
_WORD_IN_GAP_PATTERN = re.compile(
    r" ?[*`]*_+([^\W\d_][^\s_|]*|[-+−]?[√½⅓⅔¼¾≈~(][^\s_|]*)|[*`]*([^\W\d_][^\s_|]*|[-+−]?[√½⅓⅔¼¾≈~][^\s_|]*)"
)
_MARKDOWN_ESCAPE_PATTERN = re.compile(r"\\([\\`*_{}\[\]<>#|~$!&()])|&(lt|gt);")


class GapCell(NamedTuple):
    """The cell of a step that a gap asks for."""

    step: str
    indices: tuple[int, ...]


def read_worksheet(name: str, text: str) -> Figures:
    """Read the answers of a filled-in worksheet, each with the digits it is written with.

    Raises:
        InputError: nothing in it says what its gaps are, or an answer is no number.
    """
    lines = _unescape_markdown(text).splitlines()
    cells: dict[int, GapCell] = {}
    for line in lines:
        if match := _LEGEND_PATTERN.match(line):
            cells |= _expand_legend_line(match)
    if not cells:
        hint = "a worksheet is what attn explain … --blank STEP writes; figures are .json, .csv, .npz or .safetensors"
        raise InputError("no-figures", "this text says no figures: no line like ⟨1⟩: weights[0][1]", help=hint)
    answers: dict[int, str] = {}
    for line_number, line in enumerate(lines, 1):
        if not _LEGEND_PATTERN.match(line):
            _collect_answers(line, line_number, answers)
    for gap in answers:
        if gap not in cells:
            raise InputError("unknown-gap", f"nothing says which figure gap {gap} is", help="keep the list at the end")
    steps: list[StepFigures] = []
    open_gaps: list[StepFigures] = []
    for step in dict.fromkeys(cell.step for cell in cells.values()):
        gaps = sorted(gap for gap, cell in cells.items() if cell.step == step)
        answered = [gap for gap in gaps if gap in answers]
        unanswered = [gap for gap in gaps if gap not in answers]
        if answered:
            steps.append(_answered_figures(step, answered, cells, answers))
        if unanswered:
            open_gaps.append(_unanswered_figures(step, unanswered, cells))
    return Figures(name, "worksheet", tuple(steps), open_gaps=tuple(open_gaps))


def _answered_figures(
    step: str, gaps: Sequence[int], cells: Mapping[int, GapCell], answers: Mapping[int, str]
) -> StepFigures:
    written = [parse_written_number(answers[gap]) for gap in gaps]
    return StepFigures(
        step,
        np.array([number.value for number in written]),
        "text",
        np.array([number.decimals for number in written]),
        cell_indices=tuple(cells[gap].indices for gap in gaps),
        gap_numbers=tuple(gaps),
        gap_texts=tuple(answers[gap] for gap in gaps),
    )


def _unanswered_figures(step: str, gaps: Sequence[int], cells: Mapping[int, GapCell]) -> StepFigures:
    return StepFigures(
        step,
        np.zeros(len(gaps)),
        "text",
        cell_indices=tuple(cells[gap].indices for gap in gaps),
        gap_numbers=tuple(gaps),
    )


def has_gaps(text: str) -> bool:
    """Tell whether a text says which figure a gap is."""
    return any(_LEGEND_PATTERN.match(line) for line in _unescape_markdown(text).splitlines())


def _unescape_markdown(text: str) -> str:
    return _MARKDOWN_ESCAPE_PATTERN.sub(lambda m: m[1] or {"lt": "<", "gt": ">"}[m[2]], text)


def _expand_legend_line(match: re.Match[str]) -> dict[int, GapCell]:
    """Expand ⟨1⟩ to ⟨3⟩: weights[1][0:3] into the cell of each gap."""
    first, last, step = int(match[1]), int(match[2] or match[1]), match[3]
    *outer, inner = re.findall(r"\[([\d:]+)\]", match[4])
    if any(":" in index for index in outer):
        raise InputError("bad-gap", f"{printable(match[0].strip())}: only the last index may be a range")
    start, colon, stop = inner.partition(":")
    indices = list(range(int(start), int(stop) if colon else int(start) + 1))
    if len(indices) != last - first + 1:
        raise InputError("bad-gap", f"{printable(match[0].strip())}: {last - first + 1} gaps, {len(indices)} figures")
    gaps = range(first, last + 1)
    return {gap: GapCell(step, (*map(int, outer), i)) for gap, i in zip(gaps, indices, strict=True)}


def _collect_answers(line: str, line_number: int, answers: dict[int, str]) -> None:
    """Collect what stands at each gap of a line: right behind its number, or one space away; underscores alone are no answer."""
    for mark in _GAP_PATTERN.finditer(line):
        gap, rest = int(mark[1]), line[mark.end() :]
        number = _NUMBER_IN_GAP_PATTERN.match(rest)
        if number is None or _TRAILING_TEXT_PATTERN.match(rest, number.end()):
            word = re.match(r"\s*[*`_]*([^\s_|]*)", rest) if number else _WORD_IN_GAP_PATTERN.match(rest)
            if word:
                text = printable(word[1] or word[word.lastindex or 0])
                raise InputError(
                    "not-a-number",
                    f"gap {gap} holds {text!r}",
                    location=Location(line=line_number),
                    help="write a number",
                )
            continue
        answer = answers.setdefault(gap, number[1])
        if not _are_equal_numbers(answer, number[1]):
            both = join_names([answer, number[1]])
            raise InputError(
                "two-answers", f"gap {gap} holds {both}", location=Location(line=line_number), help="fill it in once"
            )


def _are_equal_numbers(text: str, other: str) -> bool:
    value, other_value = parse_written_number(text).value, parse_written_number(other).value
    return value == other_value or (math.isnan(value) and math.isnan(other_value))
