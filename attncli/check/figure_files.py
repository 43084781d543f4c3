"""Reading files of figures: JSON, CSV, NPZ, NPY, safetensors, results, problems with `expected`, and worksheets.

`read_figures` is the entry.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np

from attncli.check.figures import (
    Figures,
    StepFigures,
    figures_from_expected,
    figures_from_named_arrays,
    figures_from_result,
    is_number,
    parse_written_number,
    require_known_step,
    step_figures_from_texts,
)
from attncli.check.worksheet import has_gaps, read_worksheet
from attncli.errors import InputError, Location, OptionError
from attncli.readers import decode_text, read, read_bytes
from attncli.text import join_names, printable, suggestion
from attncli.types import AXES, FIELDS, NONFINITE_SPELLINGS, Field, Json, NumpyArray
from attncli.validation.fields import STEP_NAMES, validate_array, validate_field

_WORKSHEET_SUFFIXES = (".md", ".txt")
_INTEGER_STEPS = ("top_keys", "visible_keys")
_VALUE_WORDS: dict[str, float | bool] = {
    "true": True,
    "false": False,
    "nan": np.nan,
    "inf": np.inf,
    "-inf": -np.inf,
    **{word.lower(): float(word) for word in NONFINITE_SPELLINGS},
}


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

    text: str

    def __new__(cls, text: str) -> _NumberWithText:
        self = super().__new__(cls, text)
        self.text = text
        return self


def _figures_from_json(path: str, data: bytes) -> Figures:
    try:
        text = data.decode("utf-8-sig")
        content = json.loads(text, parse_float=_NumberWithText, parse_int=_NumberWithText)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        raise InputError("bad-json", f"this is no JSON: {error}", location=Location(line=line)) from None
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
    numbers = {key: _as_plain_numbers(x) for key, x in properties.items()}
    checked = _validate_entry(step, numbers, in_problem=in_problem, is_object=isinstance(entry, dict))
    rows, columns = (tuple(map(int, checked[key])) if key in checked else None for key in ("rows", "columns"))
    return replace(
        _step_figures_from_lists(step, properties["values"]),
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


def _as_plain_numbers(value: object) -> object:
    """Convert numbers with their texts to the numbers that validation takes."""
    if isinstance(value, list):
        return [_as_plain_numbers(v) for v in value]
    if isinstance(value, _NumberWithText):
        return int(value) if re.fullmatch(r"[-+]?\d+", value.text) else float(value)
    return value


def _step_figures_from_lists(step: str | None, nested: object) -> StepFigures:
    """Make figures of nested lists of numbers with their texts."""
    plain = _as_plain_numbers(nested)
    first = plain
    while isinstance(first, list) and first:
        first = first[0]
    name = f"expected.{step}.values" if step else "figures"
    if isinstance(first, bool):
        return StepFigures(step, validate_array(plain, Field(name, "booleans", ("*",))))
    if _is_integer_step(step):
        return StepFigures(step, validate_array(plain, Field(name, "integers", ("*",), finite=False)))
    values = validate_array(plain, Field(name, "floats", ("*",), finite=False))
    texts: list[str] = []

    def collect_texts(value: object) -> None:
        if isinstance(value, list):
            for item in value:
                collect_texts(item)
        else:
            texts.append(getattr(value, "text", ""))

    collect_texts(nested)
    return step_figures_from_texts(step, values, texts)


def _is_integer_step(step: str | None) -> bool:
    return step is not None and re.sub(r"_\d+$", "", step) in _INTEGER_STEPS


# ── arrays ───────────────────────────────────────────────────────────────────────────────────────
def _figures_from_npy(path: str, data: bytes) -> Figures:
    from attncli.readers.npz import read_npy_array

    return figures_from_named_arrays(path, {"": read_npy_array(data, "figures")})


def _figures_from_npz(path: str, data: bytes) -> Figures:
    from attncli.readers.npz import read_archive

    arrays, metadata = read_archive(data)
    return _figures_from_archive(path, arrays, metadata)


def _figures_from_safetensors(path: str, data: bytes) -> Figures:
    from attncli.readers.safetensors import read_tensors

    arrays, metadata, _ = read_tensors(data)
    return _figures_from_archive(path, arrays, metadata)


def _figures_from_archive(path: str, arrays: Mapping[str, NumpyArray], metadata: Json) -> Figures:
    if str(metadata.get("schema", "")).startswith("attn.result"):
        from attncli.readers.results import read_result

        return figures_from_result(read_result(path), path)
    if _has_problem_fields({*arrays, *metadata} - set(STEP_NAMES)):
        return _figures_from_problem(path)
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

    separator = separator or detect_separator(text.splitlines())
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=separator)]
    rows = [row for row in rows if any(row)]
    if not rows:
        raise InputError("empty", "the file is empty")
    if rows[0][0] == "step" and rows[0][-1] == "value":
        return Figures(path, "text", _step_figures_from_tidy_rows(rows))
    names_labels = rows[0][0] in ("token", "", *AXES)
    has_header = _is_header(rows, names_labels)
    body = rows[1:] if has_header else rows
    has_labels = bool(body) and ((has_header and names_labels) or any(not _is_value(row[0]) for row in body))
    cells = [row[1:] if has_labels else row for row in body]
    widths = {len(row) for row in cells}
    if len(widths) != 1 or not cells or 0 in widths:
        raise InputError(
            "ragged", f"the rows have {join_names(sorted(widths), 'or')} figures", help="rows are equally long"
        )
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            if not _is_value(cell):
                location = Location(line=i + 1 + has_header, column=j + 1 + has_labels)
                raise InputError("not-a-number", f"{printable(cell)!r} stands where a figure should", location=location)
    figures = _step_figures_from_cells(None, [cell for row in cells for cell in row], (len(cells), *widths))
    labels = tuple(row[0] for row in body) if has_labels else None
    return Figures(path, "text", (replace(figures, row_labels=labels),), is_layout_known=False)


def _is_header(rows: Sequence[Sequence[str]], names_labels: bool) -> bool:
    """Tell whether the first row of a table is a header: a row of figures in which one is mistyped is none."""
    first = rows[0]
    others = first[1:] or first
    if all(map(_is_value, others)) and (first[0] == "" or _is_value(first[0])):
        return False
    if names_labels or len(rows) == 1:
        return True
    return not any(map(_is_value, others)) or _is_column_numbering(others)


def _is_column_numbering(header: Sequence[str]) -> bool:
    """Tell whether a header numbers its columns, from 0 or from 1."""
    return list(header) in ([str(i) for i in range(first, first + len(header))] for first in (0, 1))


def _is_value(text: str) -> bool:
    return is_number(text) or text.lower() in _VALUE_WORDS


def _step_figures_from_cells(step: str | None, texts: Sequence[str], shape: tuple[int, ...]) -> StepFigures:
    """Make figures of the cells of a table."""
    values = [_VALUE_WORDS[t.lower()] if t.lower() in _VALUE_WORDS else parse_written_number(t).value for t in texts]
    if all(isinstance(v, bool) for v in values):
        return StepFigures(step, np.array(values).reshape(shape))
    if _is_integer_step(step):
        return StepFigures(step, np.array(values, np.float64).astype(np.int64).reshape(shape))
    number_texts = [t if is_number(t) else "" for t in texts]
    return step_figures_from_texts(step, np.array(values, np.float64).reshape(shape), number_texts)


def _step_figures_from_tidy_rows(rows: Sequence[Sequence[str]]) -> tuple[StepFigures, ...]:
    """Make figures of tidy rows, one figure each: step, batch, head, query, key, …, value."""
    header = rows[0]
    axes = header[1:-1]
    for name in axes:
        if name not in AXES:
            raise InputError("unknown-axis", f"no axis is called {printable(name)!r}", help=suggestion(name, AXES))
    figures: dict[str, list[tuple[dict[str, int], str]]] = {}  # step → (cell, text) of each
    for line, row in enumerate(rows[1:], 2):
        has_value = len(row) == len(header) and _is_value(row[-1])
        if not has_value or not all(not index or index.isdecimal() for index in row[1:-1]):
            raise InputError("bad-row", "this row is no step, indices and value", location=Location(line=line))
        step, *indices, value = row
        require_known_step(step)
        cell = {axis: int(index) for axis, index in zip(axes, indices, strict=True) if index}
        figures.setdefault(step, []).append((cell, value))
    if not figures:
        raise InputError("no-figures", "there are no rows below the header")
    return tuple(
        replace(
            _step_figures_from_cells(step, [text for _, text in entries], (len(entries),)),
            cells=tuple(cell for cell, _ in entries),
        )
        for step, entries in figures.items()
    )
