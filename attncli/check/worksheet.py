"""A worksheet that was filled in: gaps ⟨1⟩____ in a text, and below it which figure each gap is."""

from __future__ import annotations

import math
import re

import numpy as np

from attncli.check.figures import Figures, StepFigures, parse_written_number
from attncli.errors import InputError, Location, join_names, printable

_GAP_OPEN, _GAP_CLOSE = "[⟨<]", "[⟩>]"
_LEGEND_PATTERN = re.compile(
    rf"^\W*{_GAP_OPEN}(\d+){_GAP_CLOSE}(?:\s+to\s+{_GAP_OPEN}(\d+){_GAP_CLOSE})?:\s*`?(\w+)((?:\[\d+(?::\d+)?\])+)`?\s*$"
)
_GAP_PATTERN = re.compile(rf"{_GAP_OPEN}(\d+){_GAP_CLOSE}")
_NUMBER_IN_GAP_PATTERN = re.compile(
    r" ?[*`]*_*[*`]*([-+−]?(?:(?:\d+(?:[.,]\d+)?|[.,]\d+)(?:[eE][-+]?\d+)?|∞|inf(?:inity)?(?![^\W_])|nan(?![^\W_])))",
    re.IGNORECASE,
)
_TRAILING_TEXT_PATTERN = re.compile(r"[*`_]*([^\W_]|[√^%]|[.,/·×*]\d)")  # behind a number, this makes it another
_WORD_IN_GAP_PATTERN = re.compile(
    r" ?[*`]*_+([^\W\d_][^\s_|]*|[-+−]?[√½⅓⅔¼¾≈~(][^\s_|]*)|[*`]*([^\W\d_][^\s_|]*|[-+−]?[√½⅓⅔¼¾≈~][^\s_|]*)"
)
_MARKDOWN_ESCAPE_PATTERN = re.compile(r"\\([\\`*_{}\[\]<>#|~$!&()])|&(lt|gt);")


def read_worksheet(name: str, text: str) -> Figures:
    """The answers of a filled-in worksheet, each with the digits it is written with.

    Raises:
        InputError: nothing in it says what its gaps are, or an answer is no number.
    """
    lines = _unescape_markdown(text).splitlines()
    places: dict[int, tuple[str, tuple[int, ...]]] = {}
    for line in lines:
        if found := _LEGEND_PATTERN.match(line):
            for gap, index in _expand_legend_line(found):
                places[gap] = (found[3], index)
    if not places:
        way = "a worksheet is what attn explain … --blank STEP writes; figures are .json, .csv, .npz or .safetensors"
        raise InputError("no-figures", "this text says no figures: no line like ⟨1⟩: weights[0][1]", help=way)
    answers: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if not _LEGEND_PATTERN.match(line):
            _collect_answers(line, number, answers)
    for gap in answers:
        if gap not in places:
            raise InputError("unknown-gap", f"nothing says which figure gap {gap} is", help="keep the list at the end")
    steps = dict.fromkeys(step for step, _ in places.values())
    given, missing = [], []
    for step in steps:
        filled = sorted(gap for gap, (s, _) in places.items() if s == step and gap in answers)
        open_ = sorted(gap for gap, (s, _) in places.items() if s == step and gap not in answers)
        if filled:
            read = [parse_written_number(answers[gap]) for gap in filled]
            given.append(
                StepFigures(
                    step,
                    np.array([value for value, _, _ in read]),
                    "text",
                    np.array([decimals for _, decimals, _ in read]),
                    cell_indices=tuple(places[gap][1] for gap in filled),
                    gap_numbers=tuple(filled),
                    gap_texts=tuple(answers[gap] for gap in filled),
                )
            )
        if open_:
            paths = tuple(places[gap][1] for gap in open_)
            missing.append(
                StepFigures(step, np.zeros(len(open_)), "text", cell_indices=paths, gap_numbers=tuple(open_))
            )
    return Figures(name, "worksheet", tuple(given), open_gaps=tuple(missing))


def has_gaps(text: str) -> bool:
    """Whether a text says which figure a gap is."""
    return any(_LEGEND_PATTERN.match(line) for line in _unescape_markdown(text).splitlines())


def _unescape_markdown(text: str) -> str:
    return _MARKDOWN_ESCAPE_PATTERN.sub(lambda m: m[1] or {"lt": "<", "gt": ">"}[m[2]], text)


def _expand_legend_line(match: re.Match[str]) -> list[tuple[int, tuple[int, ...]]]:
    """⟨1⟩ to ⟨3⟩: weights[1][0:3] → gap and index, one by one."""
    first, last = int(match[1]), int(match[2] or match[1])
    *outer, inner = re.findall(r"\[([\d:]+)\]", match[4])
    if any(":" in index for index in outer):
        raise InputError("bad-gap", f"{printable(match[0].strip())}: only the last index may be a range")
    start, colon, stop = inner.partition(":")
    indices = list(range(int(start), int(stop) if colon else int(start) + 1))
    if len(indices) != last - first + 1:
        raise InputError("bad-gap", f"{printable(match[0].strip())}: {last - first + 1} gaps, {len(indices)} figures")
    return [(gap, (*map(int, outer), i)) for gap, i in zip(range(first, last + 1), indices, strict=True)]


def _collect_answers(line: str, line_number: int, answers: dict[int, str]) -> None:
    """What stands at each gap of a line: directly behind its number, or one space away; underscores alone are no answer."""
    for mark in _GAP_PATTERN.finditer(line):
        rest, gap = line[mark.end() :], int(mark[1])
        filled = _NUMBER_IN_GAP_PATTERN.match(rest)
        whole = filled and not _TRAILING_TEXT_PATTERN.match(rest, filled.end())
        if filled is None or not whole:
            word = _WORD_IN_GAP_PATTERN.match(rest) if filled is None else re.match(r"\s*[*`_]*([^\s_|]*)", rest)
            if word:
                said = printable(word[1] or word[word.lastindex or 0])
                raise InputError(
                    "not-a-number",
                    f"gap {gap} holds {said!r}",
                    location=Location(line=line_number),
                    help="write a number",
                )
            continue
        said = answers.setdefault(gap, filled[1])
        one, other = parse_written_number(said)[0], parse_written_number(filled[1])[0]
        if one != other and not (math.isnan(one) and math.isnan(other)):
            both = join_names([said, filled[1]])
            raise InputError(
                "two-answers", f"gap {gap} holds {both}", location=Location(line=line_number), help="fill it in once"
            )
