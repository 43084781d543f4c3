"""Reading files of figures: JSON, CSV, NPZ, NPY, safetensors, results, problems with `expected`, and worksheets.

`read_figures` is the entry.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import NamedTuple, TypeVar

import numpy as np

from attncli.check.figures import (
    Figures,
    StepFigures,
    figures_from_expected,
    figures_from_named_arrays,
    figures_from_result,
    is_number,
    kind_of_step,
    parse_index,
    parse_written_number,
    require_known_step,
    step_figures_from_texts,
)
from attncli.check.worksheet import has_gaps, read_worksheet
from attncli.errors import InputError, Location, OptionError, input_error
from attncli.readers import decode_text, read, read_bytes
from attncli.readers.base import merge_fields, nest_fields
from attncli.text import join_names, pluralize, printable, shorten, suggestion
from attncli.types import AXES, FIELDS, NONFINITE_SPELLINGS, Field, Json, NumpyArray
from attncli.validation.fields import STEP_NAMES, validate_array, validate_field

_WORKSHEET_SUFFIXES = (".md", ".txt")
_MAX_LIST_DEPTH = 8  # lists within lists; an array has at most four axes
_MAX_INTEGER_CHARACTERS = 19  # of a number that is read as an integer; longer ones are no index, and floats will do
_TAKE_ONE_OUT = "take one of them out"
_VALUE_WORDS: dict[str, float] = {
    "true": 1.0,
    "false": 0.0,
    "nan": np.nan,
    "inf": np.inf,
    "-inf": -np.inf,
    **{word.lower(): float(word) for word in NONFINITE_SPELLINGS},
}

T = TypeVar("T")


def read_figures(path: str) -> Figures:
    """Read a file of figures, by its suffix: .json, .ndjson of one line, .npz, .npy, .safetensors, .csv, .tsv; a worksheet is text.

    Raises:
        OptionError: the format is not read.
        InputError: the file cannot be read, or holds no figures.
    """
    suffix = PurePath(path).suffix.lower()
    if suffix == ".tex":
        hint = "attn explain … --format markdown writes a worksheet that can be read"
        raise OptionError("unknown-format", f"{path} is LaTeX, which is not read back", help=hint)
    data = read_bytes(path)
    with np.errstate(all="ignore"):
        return _parse_figures(path, suffix, data)


def _parse_figures(path: str, suffix: str, data: bytes) -> Figures:
    """Parse the bytes of a file of figures.

    Raises:
        OptionError, InputError: as `read_figures`.
    """
    try:
        if suffix in _READERS:
            return _READERS[suffix](path, data)
        text = decode_text(data, format_name="a text of figures")
        if suffix in (".csv", ".tsv"):
            return _figures_from_csv(path, text, "\t" if suffix == ".tsv" else "")
        if suffix not in _WORKSHEET_SUFFIXES and not has_gaps(text):
            hint = f"figures are read from {join_names((*_READERS, '.csv', '.tsv'))}, and a worksheet from {join_names(_WORKSHEET_SUFFIXES)}"
            raise OptionError(
                "unknown-format", f"{printable(path)} is in no format that figures are read from", help=hint
            )
        return read_worksheet(path, text)
    except InputError as error:
        raise error.add_location(file=path) from None


def _has_problem_fields(names: Json | set[str]) -> bool:
    """Tell whether some of these names are fields of a problem, which claims figures by `expected` alone."""
    fields = {name.partition(".")[0] for name in FIELDS} - set(STEP_NAMES)
    return any(name.partition(".")[0] in fields for name in names) or "expected" in names


def _figures_from_problem(path: str) -> Figures:
    problem = read(path)
    if not problem.expected:
        hint = 'a problem claims figures by "expected": {"weights": [[…]]}'
        raise InputError("no-figures", "this problem expects nothing", help=hint)
    return figures_from_expected(problem.expected, path)


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────
class _NumberWithText(float):
    """A number that keeps the text it was written as."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> _NumberWithText:
        self = super().__new__(cls, text)
        self.text = text
        return self


def _decode_json(data: bytes) -> object:
    """Decode JSON in which every number keeps its text; equal texts share one number.

    Raises:
        InputError: it is no JSON, or an object has a key twice.
    """
    make_number = functools.cache(_NumberWithText)
    try:
        text = data.decode("utf-8-sig")
        return json.loads(text, parse_float=make_number, parse_int=make_number, object_pairs_hook=_make_object)
    except InputError:
        raise
    except RecursionError:
        raise InputError("too-deep", "the JSON is nested deeper than anything figures hold") from None
    except Exception as error:  # whatever the parser raises, the file is bad
        line = getattr(error, "lineno", None)
        raise InputError("bad-json", f"this is no JSON: {shorten(str(error))}", location=Location(line=line)) from None


def _make_object(pairs: list[tuple[str, object]]) -> Json:
    """Make an object of its keys and values.

    Raises:
        InputError: a key stands twice.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InputError("two-sources", f"{printable(shorten(twice))!r} stands twice in one object", help=_TAKE_ONE_OUT)
    return content


def _figures_from_json(path: str, data: bytes) -> Figures:
    content = _decode_json(data)
    if isinstance(content, list):
        return Figures(path, "text", (_step_figures_from_lists(None, content),), is_layout_known=False)
    if not isinstance(content, dict):
        raise InputError("no-figures", "figures are an object, step by step, or a matrix", help='{"weights": [[…], …]}')
    if "schema" in content:
        from attncli.readers.results import read_result

        return figures_from_result(read_result(path, data), path)
    if not _has_problem_fields(content):
        return Figures(path, "text", tuple(_step_figures_from_json(step, entry) for step, entry in content.items()))
    figures = _figures_from_problem(path)  # refuses what is no problem
    expected: Json = content["expected"]
    steps = tuple(_step_figures_from_json(step, entry, in_problem=True) for step, entry in expected.items())
    return replace(figures, steps=steps)


def _figures_from_ndjson(path: str, data: bytes) -> Figures:
    """Read the one result of a stream of results."""
    lines = [line for line in data.splitlines() if line.strip()]
    if len(lines) > 1:
        message = f"there are {len(lines)} results in it, and one problem is checked"
        raise InputError("several-results", message, help="keep the line that is this problem's")
    return _figures_from_json(path, lines[0] if lines else data)


def _step_figures_from_json(step: str, entry: object, *, in_problem: bool = False) -> StepFigures:
    """Make figures of one entry of an object, which follows the grammar of `expected`, with the digits that are written."""
    require_known_step(step)
    properties: Json = entry if isinstance(entry, dict) else {"values": entry}
    name = f"expected.{step}" if in_problem else step
    paths = {key: f"{name}.{key}" if isinstance(entry, dict) else name for key in properties}
    numbers = {key: _as_plain_numbers(x, paths[key]) for key, x in properties.items()}
    checked = _validate_entry(step, numbers, in_problem=in_problem, is_object=isinstance(entry, dict))
    rows, columns = (tuple(map(int, checked[key])) if key in checked else None for key in ("rows", "columns"))
    del numbers
    return replace(
        _step_figures_from_lists(step, properties["values"], paths["values"]),
        rows=rows,
        columns=columns,
        expected_decimals=checked.get("decimals"),
        rtol=checked.get("rtol"),
        atol=checked.get("atol"),
    )


def _validate_entry(step: str, properties: Json, *, in_problem: bool, is_object: bool) -> Json:
    """Validate a step's entry as `expected` is; outside a problem, errors name the step as the file does."""
    try:
        checked: Json = validate_field("expected", {step: properties})[step]
        return checked
    except InputError as error:
        if in_problem:
            raise
        message, path = error.message, error.location.path
        for name in (f"expected.{step}",) if is_object else (f"expected.{step}.values", f"expected.{step}"):
            message, path = message.replace(name, step), path.replace(name, step)
        raise InputError(error.code, message, location=replace(error.location, path=path), help=error.help) from None


def _as_plain_numbers(value: object, name: str, index: tuple[int, ...] = ()) -> object:
    """Convert numbers with their texts to the numbers that validation takes.

    Raises:
        InputError: a number is larger than a float64 can hold, or lists are nested deeper than any array.
    """
    if isinstance(value, list):
        if len(index) > _MAX_LIST_DEPTH:
            raise input_error("too-deep", f"{name} is nested deeper than any array", name)
        return [_as_plain_numbers(v, name, (*index, i)) for i, v in enumerate(value)]
    if not isinstance(value, _NumberWithText):
        return value
    if math.isinf(value):
        message = f"{name} holds {shorten(value.text, 40)}, which is larger than a float64 can hold"
        raise input_error("not-finite", message, name, index)
    is_integer = len(value.text) <= _MAX_INTEGER_CHARACTERS and re.fullmatch(r"[-+]?\d+", value.text)
    return int(value.text) if is_integer else float(value)


def _step_figures_from_lists(step: str | None, nested: object, name: str = "figures") -> StepFigures:
    """Make figures of nested lists of numbers with their texts."""
    plain = _as_plain_numbers(nested, name)
    first = plain
    while isinstance(first, list) and first:
        first = first[0]
    if isinstance(first, bool):
        return StepFigures(step, validate_array(plain, Field(name, "booleans", ("*",))))
    if kind_of_step(step) == "integers":
        return StepFigures(step, validate_array(plain, Field(name, "integers", ("*",), finite=False)))
    values = validate_array(plain, Field(name, "floats", ("*",), finite=False))
    del plain
    texts: list[str] = []

    def collect_texts(value: object) -> None:
        if isinstance(value, list):
            for item in value:
                collect_texts(item)
        else:
            texts.append(getattr(value, "text", ""))

    collect_texts(nested)
    return step_figures_from_texts(step, values, texts)


# ── arrays ───────────────────────────────────────────────────────────────────────────────────────
def _figures_from_npy(path: str, data: bytes) -> Figures:
    from attncli.readers.npz import read_npy_array

    return figures_from_named_arrays(path, {"": _parse_arrays(lambda: read_npy_array(data, "figures"))})


def _figures_from_npz(path: str, data: bytes) -> Figures:
    from attncli.readers.npz import read_archive

    arrays, metadata = _parse_arrays(lambda: read_archive(data))
    return _figures_from_archive(path, arrays, metadata)


def _figures_from_safetensors(path: str, data: bytes) -> Figures:
    from attncli.readers.safetensors import read_tensors

    arrays, metadata, _ = _parse_arrays(lambda: read_tensors(data))
    return _figures_from_archive(path, arrays, metadata)


def _parse_arrays(parse: Callable[[], T]) -> T:
    """Parse a file of arrays; whatever its parser raises, the file is bad.

    Raises:
        InputError: it is.
    """
    try:
        return parse()
    except InputError:
        raise
    except Exception as error:
        message = shorten(str(error).partition("\n")[0] or type(error).__name__)
        raise InputError(
            "bad-file", f"these arrays cannot be read: {message}", help="was the copy cut short?"
        ) from None


def _figures_from_archive(path: str, arrays: Mapping[str, NumpyArray], metadata: Json) -> Figures:
    if "schema" in {*arrays, *metadata}:
        from attncli.readers.results import parse_result

        return figures_from_result(parse_result(merge_fields(nest_fields(dict(arrays)), metadata)), path)
    if _has_problem_fields({*arrays, *metadata} - set(STEP_NAMES)):
        return _figures_from_problem(path)
    twice = next((name for name in metadata if name in arrays), None)
    if twice is not None:
        message = f"{printable(shorten(twice))} stands twice: as an array and in the JSON beside the arrays"
        raise InputError("two-sources", message, help=_TAKE_ONE_OUT)
    if metadata:
        message = f"{printable(shorten(next(iter(metadata))))} stands in the text beside the arrays, and is no array"
        raise InputError("no-figures", message, help="save every step as an array of numbers")
    return figures_from_named_arrays(path, arrays)


_READERS: dict[str, Callable[[str, bytes], Figures]] = {
    ".json": _figures_from_json,
    ".ndjson": _figures_from_ndjson,
    ".npz": _figures_from_npz,
    ".npy": _figures_from_npy,
    ".safetensors": _figures_from_safetensors,
}


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────
def _figures_from_csv(path: str, text: str, separator: str) -> Figures:
    """Read the tidy rows or the matrix that attn writes, or a bare matrix of numbers."""
    from attncli.readers.csv import detect_separator

    rows = _parse_rows(text, separator or detect_separator(re.split(r"\r\n|\r|\n", text)))
    if not rows:
        raise InputError("empty", "the file is empty")
    first = rows[0].stripped
    if first[0] == "step" and first[-1] == "value":
        return Figures(path, "text", _step_figures_from_tidy_rows(rows))
    return Figures(path, "text", (_step_figures_from_matrix(rows),), is_layout_known=False)


class _Row(NamedTuple):
    """One row of a table: its line, and its cells as they are written."""

    line: int
    cells: list[str]

    @property
    def stripped(self) -> list[str]:
        return [cell.strip() for cell in self.cells]


def _parse_rows(text: str, separator: str) -> list[_Row]:
    """Parse the rows of a table that hold something.

    Raises:
        InputError: it is no CSV.
    """
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a label may be as long as the file
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[_Row] = []
    start = 1
    try:
        for cells in reader:
            if any(cell and not cell.isspace() for cell in cells):
                rows.append(_Row(start, cells))
            start = reader.line_num + 1
    except Exception as error:  # whatever the parser raises, the file is bad
        raise InputError(
            "bad-csv",
            f"this is no CSV: {shorten(str(error))}",
            location=Location(line=max(reader.line_num, 1)),
            help="a quote that opens must close",
        ) from None
    return rows


def _step_figures_from_matrix(rows: Sequence[_Row]) -> StepFigures:
    """Make figures of a matrix of numbers, with the labels of its rows and columns where it has them.

    Raises:
        InputError: rows are not equally long, a cell is no number, or there are not as many names as columns.
    """
    header = rows[0].stripped
    names_labels = header[0] in ("token", "", *AXES)
    has_header = _is_header(rows, names_labels)
    body = rows[1:] if has_header else rows
    has_labels = bool(body) and (
        (has_header and names_labels and len(body[0].cells) == len(header))
        or any(not _is_value(row.cells[0].strip()) for row in body)
    )
    skipped = int(has_labels)
    widths = {len(row.cells) - skipped for row in body}
    if len(widths) != 1 or 0 in widths:
        raise InputError(
            "ragged", f"the rows have {join_names(sorted(widths), 'or')} figures", help="rows are equally long"
        )
    width = widths.pop()
    texts: list[str] = []
    for row in body:
        cells = row.stripped[skipped:]
        if not all(map(_is_value, cells)):
            column = next(j for j, cell in enumerate(cells) if not _is_value(cell))
            raise InputError(
                "not-a-number",
                f"{printable(shorten(cells[column]))!r} stands where a figure should",
                location=Location(line=row.line, column=column + 1 + skipped),
            )
        texts += cells
    column_labels: tuple[str, ...] | None = None
    row_axis = ""
    if has_header:
        has_corner = has_labels and (names_labels or len(header) == width + 1)
        if len(header) != width + has_corner:
            message = f"the header has {pluralize(len(header) - has_corner, 'name')}, but the rows have {width} figures"
            raise InputError("ragged", message, help="a name for each column, or no header")
        column_labels = tuple(rows[0].cells[has_corner:])
        row_axis = header[0] if has_corner and header[0] in AXES else ""
    return replace(
        _step_figures_from_cells(None, texts, (len(body), width)),
        row_labels=tuple(row.cells[0] for row in body) if has_labels else None,
        column_labels=column_labels,
        row_axis=row_axis,
    )


def _is_header(rows: Sequence[_Row], names_labels: bool) -> bool:
    """Tell whether the first row of a table is a header: a row of figures in which one is mistyped is none."""
    first = rows[0].stripped
    others = first[1:] or first
    if all(map(_is_value, others)) and (first[0] == "" or _is_value(first[0])):
        # pandas writes an empty cell, and then the numbers of the columns
        return first[0] == "" and _is_column_numbering(others) and all(row.cells[0].strip() for row in rows[1:])
    if names_labels or len(rows) == 1:
        return True
    return not any(map(_is_value, others)) or _is_column_numbering(others)


def _is_column_numbering(header: Sequence[str]) -> bool:
    """Tell whether a header numbers its columns, from 0 or from 1, in any order."""
    numbers = sorted(index for text in header if (index := parse_index(text)) is not None)
    return numbers in (list(range(first, first + len(header))) for first in (0, 1))


def _is_value(text: str) -> bool:
    return is_number(text) or text.lower() in _VALUE_WORDS


def _step_figures_from_cells(step: str | None, texts: Sequence[str], shape: tuple[int, ...]) -> StepFigures:
    """Make figures of the cells of a table.

    Raises:
        InputError: some are booleans and some numbers, or a number is larger than a float64 can hold.
    """
    is_boolean = [text.lower() in ("true", "false") for text in texts]
    if all(is_boolean):
        return StepFigures(step, np.array([text.lower() == "true" for text in texts]).reshape(shape))
    if any(is_boolean):
        message = "true and false stand among numbers"
        raise InputError("wrong-type", message, help="figures are all numbers, or all true and false")
    values = np.array([_VALUE_WORDS[t.lower()] if t.lower() in _VALUE_WORDS else _parse_number(t) for t in texts])
    return step_figures_from_texts(step, values.reshape(shape), texts)


def _parse_number(text: str) -> float:
    return parse_written_number(text).value


def _step_figures_from_tidy_rows(rows: Sequence[_Row]) -> tuple[StepFigures, ...]:
    """Make figures of tidy rows, one figure each: step, batch, head, query, key, …, value.

    Raises:
        InputError: a column is no axis or stands twice, or a row is no step, indices and value.
    """
    header = rows[0].stripped
    axes = tuple(header[1:-1])
    for i, name in enumerate(axes):
        if name not in AXES:
            message = f"no axis is called {printable(shorten(name))!r}"
            raise InputError("unknown-axis", message, help=suggestion(name, AXES))
        if name in axes[:i]:
            raise InputError("two-sources", f"the column {name} stands twice", help=_TAKE_ONE_OUT)
    cells: dict[str, array[int]] = {}  # step → the indices of all its figures, −1 where one is not said
    texts: dict[str, list[str]] = {}
    for row in rows[1:]:
        step, *indices, value = (*row.stripped, "") if len(row.cells) == 1 else row.stripped
        if len(row.cells) != len(header) or not _is_value(value) or not all(_is_index(index) for index in indices):
            raise InputError("bad-row", "this row is no step, indices and value", location=Location(line=row.line))
        if step not in texts:
            require_known_step(step)
            cells[step], texts[step] = array("q"), []
        cells[step].extend(-1 if index == "" else _parse_known_index(index, row.line) for index in indices)
        texts[step].append(value)
    if not texts:
        raise InputError("no-figures", "there are no rows below the header")
    return tuple(
        replace(
            _step_figures_from_cells(step, values, (len(values),)),
            cells=np.array(cells[step], np.int64).reshape(len(values), len(axes)),
            cell_axes=axes,
        )
        for step, values in texts.items()
    )


def _is_index(text: str) -> bool:
    return not text or (text.isascii() and text.isdecimal())


def _parse_known_index(text: str, line: int) -> int:
    index = parse_index(text)
    if index is None:
        raise InputError("out-of-range", f"no axis has an index {shorten(text, 40)}", location=Location(line=line))
    return index
