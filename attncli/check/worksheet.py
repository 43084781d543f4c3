"""Reading a worksheet that was filled in: gaps ⟨1⟩____ in a text, and below it which figure each gap is."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from attncli.check.figures import Figures, StepFigures, parse_index, parse_written_number
from attncli.errors import InputError, Location
from attncli.text import join_names, pluralize, printable, shorten

_COMMAND = "attn check "  # that marks a worksheet, as it stands below its gaps
_GAP_OPEN, _GAP_CLOSE = "[⟨<]", "[⟩>]"
_LEGEND_PATTERN = re.compile(
    rf"^\W*{_GAP_OPEN}(\d+){_GAP_CLOSE}(?:\s+to\s+{_GAP_OPEN}(\d+){_GAP_CLOSE})?:\s*`?(\w+)((?:\[\d+(?::\d+)?\])+)`?\s*$"
)
_GAP_PATTERN = re.compile(rf"{_GAP_OPEN}(\d+){_GAP_CLOSE}")
_NUMBER_IN_GAP_PATTERN = re.compile(
    r" ?[*`]*+_*+[*`]*+([-+−]?(?:(?:\d+(?:[.,]\d+)?|[.,]\d+)(?:[eE][-+]?\d+)?|∞|inf(?:inity)?(?![^\W_])|nan(?![^\W_])))",
    re.IGNORECASE,
)
_TRAILING_TEXT_PATTERN = re.compile(r"[*`_]*([^\W_]|[√^%]|[.,/·×*+−-]\d)")  # after a number, this makes it another
_WORD_IN_GAP_PATTERN = re.compile(
    r" ?[*`]*+_++([^\W\d_][^\s_|]*|[-+−]?[√½⅓⅔¼¾≈~(][^\s_|]*)|[*`]*([^\W\d_][^\s_|]*|[-+−]?[√½⅓⅔¼¾≈~][^\s_|]*)"
)
_TEXT_IN_GAP_PATTERN = re.compile(r"\s*[*`_]*([^\s_|]*)")
_MAX_GAPS = 1 << 16  # that are made into cells, before the step's size is known
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
    for line_number, line in enumerate(lines, 1):
        if match := _LEGEND_PATTERN.match(line):
            _add_legend_line(match, line_number, cells)
    if not cells:
        hint = "attn explain … --blank STEP writes a worksheet; other figures can be .json, .csv, .npz or .safetensors"
        raise InputError("no-figures", "this text holds no figures: it has no line like ⟨1⟩: weights[0][1]", help=hint)
    answers: dict[int, str] = {}
    for line_number, line in enumerate(lines, 1):
        if not _LEGEND_PATTERN.match(line):
            _collect_answers(line, line_number, answers)
    for gap in answers:
        if gap not in cells:
            raise InputError(
                "unknown-gap",
                f"nothing says which figure gap {gap} is",
                help="keep the list at the end of the worksheet",
            )
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
    options = next((found for line in lines if (found := _find_options(line)) is not None), None)
    return Figures(name, "worksheet", tuple(steps), open_gaps=tuple(open_gaps), options=options)


def _find_options(line: str) -> str | None:
    """Return what the command of a worksheet computes, as it is spelled behind the name of the sheet; None of another line."""
    if not line.strip().startswith(_COMMAND):
        return None
    try:
        words = shlex.split(line)
    except ValueError:  # a quotation mark is open
        return None
    return shlex.join(words[words.index("--figures") + 2 :]) if "--figures" in words else None


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


def _parse_gap_number(text: str, line_number: int) -> int:
    """Parse the number of a gap.

    Raises:
        InputError: no worksheet has so many gaps.
    """
    number = parse_index(text)
    if number is None:
        location = Location(line=line_number)
        raise InputError("unknown-gap", f"no worksheet has a gap {shorten(text, 40)}", location=location)
    return number


def _add_legend_line(match: re.Match[str], line_number: int, cells: dict[int, GapCell]) -> None:
    """Add the cell of each gap in ⟨1⟩ to ⟨3⟩: weights[1][0:3].

    Raises:
        InputError: gaps and figures are not as many, too many, or a gap stands for another figure already.
    """
    location, text = Location(line=line_number), printable(shorten(match[0].strip()))
    first = _parse_gap_number(match[1], line_number)
    last, step = _parse_gap_number(match[2] or match[1], line_number), match[3]
    *outer, inner = re.findall(r"\[([\d:]+)\]", match[4])
    if any(":" in index for index in outer):
        raise InputError("bad-gap", f"{text}: only the last index may be a range", location=location)
    start_text, colon, stop_text = inner.partition(":")
    numbers = [parse_index(index) for index in (*outer, start_text, stop_text if colon else start_text)]
    if None in numbers:
        raise InputError("out-of-range", f"{text}: no axis is that long", location=location)
    *outer_indices, start, stop = (number for number in numbers if number is not None)
    indices = range(start, stop if colon else start + 1)
    if len(indices) != last - first + 1:
        message = f"{text}: {pluralize(max(last - first + 1, 0), 'gap')}, {pluralize(len(indices), 'figure')}"
        raise InputError("bad-gap", message, location=location)
    if len(cells) + len(indices) > _MAX_GAPS:
        hint = "check the numbers in the list below the text"
        raise InputError(
            "out-of-range", f"{text}: a worksheet has at most {_MAX_GAPS:,} gaps", location=location, help=hint
        )
    for gap, i in enumerate(indices, first):
        cell = GapCell(step, (*outer_indices, i))
        if cells.setdefault(gap, cell) != cell:
            message = f"{text}: gap {gap} already stands for another figure"
            raise InputError("two-sources", message, location=location, help="keep the list as it was written")


def _collect_answers(line: str, line_number: int, answers: dict[int, str]) -> None:
    """Collect what stands at each gap of a line: right behind its number, or one space away; underscores alone are no answer."""
    for mark in _GAP_PATTERN.finditer(line):
        gap = _parse_gap_number(mark[1], line_number)
        number = _NUMBER_IN_GAP_PATTERN.match(line, mark.end())
        if number is None or _TRAILING_TEXT_PATTERN.match(line, number.end()):
            pattern = _TEXT_IN_GAP_PATTERN if number else _WORD_IN_GAP_PATTERN
            word = pattern.match(line, mark.end())
            if word:
                text = printable(shorten(next(filter(None, word.groups()), "")))
                raise InputError(
                    "not-a-number",
                    f"gap {gap} holds {text!r}",
                    location=Location(line=line_number),
                    help="write a number",
                )
            continue
        answer = answers.setdefault(gap, number[1])
        try:
            is_same = _are_equal_numbers(answer, number[1])
        except InputError as error:  # larger than a float64 can hold
            raise error.add_location(line=line_number) from None
        if not is_same:
            both = join_names([shorten(answer), shorten(number[1])])
            raise InputError(
                "two-answers", f"gap {gap} holds {both}", location=Location(line=line_number), help="fill it in once"
            )


def _are_equal_numbers(text: str, other: str) -> bool:
    value, other_value = parse_written_number(text).value, parse_written_number(other).value
    return value == other_value or (math.isnan(value) and math.isnan(other_value))
