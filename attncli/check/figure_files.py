"""Reading files of figures: JSON, CSV, NPZ, NPY, safetensors, results, problems with `expected`, and worksheets.

`read_figures` is the entry.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import json
import math
import re
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TypeVar

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
from attncli.readers.base import bare_record_error, is_bare_record, merge_fields, nest_fields
from attncli.readers.compression import explain_unpacking, packed_suffix, strip_packed_suffix, unpack
from attncli.step_names import STEP_NAMES
from attncli.text import join_names, pluralize, printable, shorten, suggestion
from attncli.types import AXES, FIELDS, NONFINITE_SPELLINGS, TOKEN_AXES, Field, FieldKind, Json, NumpyArray
from attncli.validation.fields import validate_array, validate_field

_WORKSHEET_SUFFIXES = (".md", ".txt")
_TEXT_SUFFIXES = (".json", ".ndjson", ".csv", ".tsv", *_WORKSHEET_SUFFIXES)  # which may be packed
_MAX_LIST_DEPTH = 8  # lists within lists; an array has at most four axes
_MAX_AXES = 4
_MAX_ABS_INTEGER = 2**53
_FRACTION = re.compile(r"[+-]?[0-9]+ */ *[0-9]+")
_INTEGER_PATTERN = re.compile(r"-?[0-9]+")
_MAX_INTEGER_CHARACTERS = 19  # of a number that is read as an integer; longer ones are no index, and floats will do
_CACHED_TEXTS = 4096  # of cells, since many are the same
_TAKE_ONE_OUT = "remove one of them"
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
    """Read a file of figures, by its suffix: .json, .ndjson of one line, .npz, .npy, .safetensors, .parquet, .arrow, .csv, .tsv; a worksheet is text.

    Texts may be packed by gzip or Zstandard.

    Raises:
        OptionError: the format is not read.
        InputError: the file cannot be read, or holds no figures.
    """
    suffix = PurePath(strip_packed_suffix(path)).suffix.lower()
    if suffix == ".tex":
        hint = "attn explain … --blank STEP --format markdown writes a worksheet that can be read"
        raise OptionError("unknown-format", f"{path} is LaTeX, which cannot be read back", help=hint)
    data = read_bytes(path)
    with np.errstate(all="ignore"):
        return _parse_figures(path, suffix, data)


def _parse_figures(path: str, suffix: str, data: bytes) -> Figures:
    """Parse the bytes of a file of figures.

    Raises:
        OptionError, InputError: as `read_figures`.
    """
    try:
        if suffix in _TEXT_SUFFIXES:
            data, _ = unpack(data, path)
        elif packed_suffix(path):
            message = f"{shorten(path)}: of packed figures only text is read, {join_names(_TEXT_SUFFIXES)}"
            raise OptionError("unknown-format", message, help=explain_unpacking(path))
        if suffix in _READERS:
            return _READERS[suffix](path, data)
        text = decode_text(data, format_name="a text of figures")
        if suffix in (".csv", ".tsv"):
            return _figures_from_csv(path, text, "\t" if suffix == ".tsv" else "")
        if suffix not in _WORKSHEET_SUFFIXES and not has_gaps(text):
            hint = f"figures can be {join_names((*_READERS, '.csv', '.tsv'))}, and a worksheet {join_names(_WORKSHEET_SUFFIXES)}"
            raise OptionError("unknown-format", f"{printable(path)} is not in a format for figures", help=hint)
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
        hint = 'a problem gives its figures under "expected": {"weights": [[…]]}'
        raise InputError("no-figures", "this problem gives no figures", help=hint)
    return figures_from_expected(problem.expected, path)


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────
class _NumberWithText(float):
    """A number that keeps the text it was written as."""

    __slots__ = ("plain", "text")
    text: str
    plain: int | float  # the same as validation takes it; a whole number beyond the indices of any axis is a float

    def __new__(cls, text: str) -> _NumberWithText:
        self = super().__new__(cls, text)
        self.text = text
        is_integer = len(text) <= _MAX_INTEGER_CHARACTERS and _INTEGER_PATTERN.fullmatch(text)
        self.plain = int(text) if is_integer else float(self)
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
        raise InputError("too-deep", "the JSON is nested deeper than figures can be") from None
    except Exception as error:  # whatever the parser raises, the file is bad
        line = getattr(error, "lineno", None)
        raise InputError(
            "bad-json", f"this is not valid JSON: {shorten(str(error))}", location=Location(line=line)
        ) from None


def _make_object(pairs: list[tuple[str, object]]) -> Json:
    """Make an object of its keys and values.

    Raises:
        InputError: a key stands twice.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InputError("two-sources", f"{printable(shorten(twice))!r} occurs twice in one object", help=_TAKE_ONE_OUT)
    return content


def _figures_from_json(path: str, data: bytes) -> Figures:
    content = _decode_json(data)
    if isinstance(content, list):
        return Figures(path, "text", (_step_figures_from_lists(None, content),), is_layout_known=False)
    if not isinstance(content, dict):
        raise InputError(
            "no-figures",
            "figures must be an object with a matrix for each step, or one matrix",
            help='{"weights": [[…], …]}',
        )
    if "schema" in content:
        from attncli.readers.results import read_result

        return figures_from_result(read_result(path, data), path)
    if is_bare_record(content):
        raise bare_record_error("not-a-result")
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
        message = f"it holds {len(lines)} results, but one problem is checked at a time"
        raise InputError("several-results", message, help="keep only the line of this problem")
    return _figures_from_json(path, lines[0] if lines else data)


def _step_figures_from_json(step: str, entry: object, *, in_problem: bool = False) -> StepFigures:
    """Make figures of one entry of an object, which follows the grammar of `expected`, with the digits that are written."""
    require_known_step(step)
    properties: Json = entry if isinstance(entry, dict) else {"values": entry}
    name = f"expected.{step}" if in_problem else step
    paths = {key: f"{name}.{key}" if isinstance(entry, dict) else name for key in properties}
    arrays = {"values": _array_of_numbers(step, properties["values"])} if "values" in properties else {}
    numbers = {
        key: _as_plain_numbers(x, paths[key]) if arrays.get(key) is None else arrays[key]
        for key, x in properties.items()
    }
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
        message = f"{name} holds {shorten(value.text, 40)}, which is too large for float64"
        raise input_error("not-finite", message, name, index)
    return value.plain


def _flatten(nested: object) -> tuple[list[object], tuple[int, ...]] | None:
    """Flatten lists of equal lengths into their leaves and their shape; None where they form no array that a step can be."""
    shape: list[int] = []
    level = [nested]
    while True:
        lengths = {len(item) if isinstance(item, list) else -1 for item in level}
        if lengths == {-1}:
            return level, tuple(shape)
        if len(lengths) > 1 or lengths == {0} or len(shape) == _MAX_AXES:
            return None
        shape += lengths
        level = list(itertools.chain.from_iterable(level))  # type: ignore[arg-type]


def _array_of_numbers(step: str | None, nested: object) -> NumpyArray | None:
    """Return nested lists of numbers or booleans as an array of the step's kind, without a copy of the lists.

    None where they are anything else: then validation says what is wrong, or reads "NaN" and the like.
    """
    flattened = _flatten(nested)
    if flattened is None:
        return None
    leaves, shape = flattened
    types = set(map(type, leaves))
    if types == {bool}:
        return np.array(leaves, bool).reshape(shape)
    if types != {_NumberWithText}:
        return None
    if kind_of_step(step) == "integers":
        integers = [leaf.plain for leaf in leaves]  # type: ignore[attr-defined]
        is_valid = all(type(x) is int and abs(x) <= _MAX_ABS_INTEGER for x in integers)
        return np.array(integers, np.int64).reshape(shape) if is_valid else None
    values = np.array(leaves, np.float64).reshape(shape)
    return values if not np.isinf(values).any() else None


def _step_figures_from_lists(step: str | None, nested: object, name: str = "figures") -> StepFigures:
    """Make figures of nested lists of numbers with their texts."""
    values = _array_of_numbers(step, nested)
    if values is None:
        plain = _as_plain_numbers(nested, name)
        first = plain
        while isinstance(first, list) and first:
            first = first[0]
        kind: FieldKind = "integers" if kind_of_step(step) == "integers" else "floats"
        kind = "booleans" if isinstance(first, bool) else kind
        values = validate_array(plain, Field(name, kind, ("*",), finite=False))
        del plain
    if values.dtype.kind != "f":
        return StepFigures(step, values)
    flattened = _flatten(nested)
    leaves = flattened[0] if flattened else []
    return step_figures_from_texts(step, values, [getattr(leaf, "text", "") for leaf in leaves])


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

    arrays, metadata, dtypes = _parse_arrays(lambda: read_tensors(data))
    return _figures_from_archive(
        path, arrays, metadata, {name: "bfloat16" for name, x in dtypes.items() if x == "BF16"}
    )


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


def _figures_from_archive(
    path: str, arrays: Mapping[str, NumpyArray], metadata: Json, dtypes: Mapping[str, str] | None = None
) -> Figures:
    if "schema" in {*arrays, *metadata}:
        from attncli.readers.results import parse_result

        return figures_from_result(parse_result(merge_fields(nest_fields(dict(arrays)), metadata)), path)
    if _has_problem_fields({*arrays, *metadata} - set(STEP_NAMES)):
        return _figures_from_problem(path)
    twice = next((name for name in metadata if name in arrays), None)
    if twice is not None:
        message = f"{printable(shorten(twice))} occurs twice: as an array and in the JSON text beside the arrays"
        raise InputError("two-sources", message, help=_TAKE_ONE_OUT)
    if metadata:
        message = f"{printable(shorten(next(iter(metadata))))} is in the text beside the arrays, not an array"
        raise InputError("no-figures", message, help="save every step as an array of numbers")
    return figures_from_named_arrays(path, arrays, dtypes)


def _figures_from_parquet(path: str, data: bytes) -> Figures:
    return _figures_from_frame(path, data, "parquet")


def _figures_from_arrow(path: str, data: bytes) -> Figures:
    return _figures_from_frame(path, data, "arrow")


def _figures_from_frame(path: str, data: bytes, format_name: str) -> Figures:
    """Read a table of Parquet or Arrow as the CSV of the same rows, in which numbers are written out in full."""
    from attncli.readers.arrow import read_frame

    frame = read_frame(data, format_name)
    try:
        text = frame.write_csv()
    except Exception as error:  # whatever the library raises, the columns are of another kind
        message = f"its columns are not a matrix of figures: {shorten(str(error).partition(chr(10))[0])}"
        raise InputError("no-figures", message, help="use a column of numbers for each key, and one of names") from None
    return _figures_from_csv(path, text, ",")


_READERS: dict[str, Callable[[str, bytes], Figures]] = {
    ".json": _figures_from_json,
    ".ndjson": _figures_from_ndjson,
    ".npz": _figures_from_npz,
    ".npy": _figures_from_npy,
    ".safetensors": _figures_from_safetensors,
    ".parquet": _figures_from_parquet,
    ".pq": _figures_from_parquet,
    ".arrow": _figures_from_arrow,
    ".feather": _figures_from_arrow,
    ".ipc": _figures_from_arrow,
}


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────
def _figures_from_csv(path: str, text: str, separator: str) -> Figures:
    """Read the tidy rows or the matrix that attn writes, or a bare matrix of numbers."""
    from attncli.readers.csv_rows import detect_separator, split_lines

    table = _parse_table(text, separator or detect_separator(split_lines(text), "\t;,"))
    if not table.rows:
        raise InputError("empty", "the file is empty")
    first = table.stripped(0)
    if first[0] == "step" and first[_tidy_value_column(first)] == "value":
        return Figures(path, "text", _step_figures_from_tidy_rows(table))
    if first[-1] == "value" and len(first) > 1 and all(name in AXES for name in first[:-1]):
        message = f"the header {join_names(first)} does not name the step of the values"
        hint = f"put a column step in front: step,{','.join(first)}"
        raise InputError("bad-row", message, location=Location(line=table.lines[0]), help=hint)
    return Figures(path, "text", (_step_figures_from_matrix(table),), is_layout_known=False)


def _tidy_value_column(header: Sequence[str]) -> int:
    """Return where the value of tidy rows stands: last, or before the tokens."""
    token_count = next((i for i, name in enumerate(reversed(header)) if name not in TOKEN_AXES), 0)
    return len(header) - 1 - token_count


@dataclass(frozen=True)
class _Table:
    """The rows of a table that hold something: their cells as they are written, and the line that each starts in."""

    rows: list[tuple[str, ...]]
    lines: array[int]

    def stripped(self, i: int) -> list[str]:
        """Return the cells of a row without the spaces around them."""
        return [cell.strip() for cell in self.rows[i]]


def _parse_table(text: str, separator: str) -> _Table:
    """Parse the rows of a table.

    Raises:
        InputError: it is no CSV.
    """
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a label may be as long as the file
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    table = _Table([], array("q"))
    start = 1
    try:
        for cells in reader:
            if any(cell and not cell.isspace() for cell in cells):
                table.rows.append(tuple(cells))
                table.lines.append(start)
            start = reader.line_num + 1
    except Exception as error:  # whatever the parser raises, the file is bad
        raise InputError(
            "bad-csv",
            f"this is not valid CSV: {shorten(str(error))}",
            location=Location(line=max(reader.line_num, 1)),
            help="close the quotation mark that was opened",
        ) from None
    return table


def _step_figures_from_matrix(table: _Table) -> StepFigures:
    """Make figures of a matrix of numbers, with the labels of its rows and columns where it has them.

    Raises:
        InputError: rows are not equally long, a cell is no number, or there are not as many names as columns.
    """
    header = table.stripped(0)
    names_labels = header[0] in ("token", "", *AXES)
    has_header = _is_header(table, names_labels)
    body = table.rows[has_header:]
    if not body:
        names = join_names([repr(printable(shorten(cell))) for cell in header], max_names=4)
        message = f"there are no rows below the first, which is taken for a header: {names}"
        raise InputError("no-figures", message, help="figures are decimal numbers: 0.3333")
    has_labels = (has_header and names_labels and len(body[0]) == len(header)) or any(
        not _is_value(row[0].strip()) for row in body
    )
    skipped = int(has_labels)
    widths = {len(row) - skipped for row in body}
    if len(widths) != 1 or 0 in widths:
        raise InputError(
            "ragged",
            f"the rows have {join_names(sorted(widths), 'or')} figures",
            help="all rows must have the same length",
        )
    width = widths.pop()
    texts = [cell.strip() for row in body for cell in row[skipped:]]
    for i, text in enumerate(texts):
        if not _is_value(text):
            location = Location(line=table.lines[has_header + i // width], column=i % width + 1 + skipped)
            hint = "fractions are not read: write decimal numbers, 0.3333" if _FRACTION.fullmatch(text) else ""
            message = f"{printable(shorten(text))!r} is where a number should be"
            raise InputError("not-a-number", message, location=location, help=hint)
    column_labels: tuple[str, ...] | None = None
    row_axis = ""
    if has_header:
        has_corner = has_labels and (names_labels or len(header) == width + 1)
        if len(header) != width + has_corner:
            message = f"the header has {pluralize(len(header) - has_corner, 'name')}, but the rows have {width} figures"
            raise InputError("ragged", message, help="give a name for each column, or leave the header out")
        column_labels = table.rows[0][has_corner:]
        row_axis = header[0] if has_corner and header[0] in AXES else ""
    return replace(
        _step_figures_from_cells(None, texts, (len(body), width)),
        row_labels=tuple(row[0] for row in body) if has_labels else None,
        column_labels=column_labels,
        row_axis=row_axis,
    )


def _is_header(table: _Table, names_labels: bool) -> bool:
    """Tell whether the first row of a table is a header: a row of figures in which one is mistyped is none."""
    first = table.stripped(0)
    others = first[1:] or first
    if all(map(_is_value, others)) and (first[0] == "" or _is_value(first[0])):
        # pandas writes an empty cell, and then the numbers of the columns
        return first[0] == "" and _is_column_numbering(others) and all(row[0].strip() for row in table.rows[1:])
    if any(map(_FRACTION.fullmatch, others)):
        return False
    if names_labels or len(table.rows) == 1:
        return True
    return not any(map(_is_value, others)) or _is_column_numbering(others)


def _is_column_numbering(header: Sequence[str]) -> bool:
    """Tell whether a header numbers its columns, from 0 or from 1, in any order."""
    numbers = sorted(index for text in header if (index := parse_index(text)) is not None)
    return numbers in (list(range(first, first + len(header))) for first in (0, 1))


@functools.lru_cache(_CACHED_TEXTS)
def _is_value(text: str) -> bool:
    return is_number(text) or text.lower() in _VALUE_WORDS


def _step_figures_from_cells(step: str | None, texts: Sequence[str], shape: tuple[int, ...]) -> StepFigures:
    """Make figures of the cells of a table.

    Raises:
        InputError: some are booleans and some numbers, or a number is larger than a float64 can hold.
    """
    boolean_count = sum(text.lower() in ("true", "false") for text in texts)
    if boolean_count == len(texts):
        return StepFigures(step, np.array([text.lower() == "true" for text in texts]).reshape(shape))
    if boolean_count:
        message = "it mixes true and false with numbers"
        raise InputError("wrong-type", message, help="use only numbers, or only true and false")
    values = np.fromiter(map(_parse_value, texts), np.float64, len(texts))
    return step_figures_from_texts(step, values.reshape(shape), texts)


def _parse_value(text: str) -> float:
    word = _VALUE_WORDS.get(text.lower())
    return parse_written_number(text).value if word is None else word


def _step_figures_from_tidy_rows(table: _Table) -> tuple[StepFigures, ...]:
    """Make figures of tidy rows, one figure each: step, batch, head, query, key, …, value, and tokens where they are said.

    Raises:
        InputError: a column is no axis or stands twice, or a row is no step, indices and value.
    """
    header = table.stripped(0)
    value_column = _tidy_value_column(header)
    axes, token_columns = tuple(header[1:value_column]), tuple(header[value_column + 1 :])
    for i, name in enumerate((*axes, *token_columns)):
        if name not in AXES and name not in token_columns:
            message = f"there is no axis called {printable(shorten(name))!r}"
            raise InputError("unknown-axis", message, help=suggestion(name, AXES))
        if name in (*axes, *token_columns)[:i]:
            raise InputError("two-sources", f"the column {name} occurs twice", help=_TAKE_ONE_OUT)
    cells: dict[str, array[int]] = {}  # step → the indices of all its figures, −1 where one is not said
    texts: dict[str, list[str]] = {}
    tokens: dict[str, list[list[str]]] = {}
    for i in range(1, len(table.rows)):
        row = table.stripped(i)
        indices, value = row[1:value_column], "".join(row[value_column : value_column + 1])
        if len(row) != len(header) or not _is_value(value) or not all(map(_is_index, indices)):
            raise _bad_row_error(row, header, table.lines[i])
        if row[0] not in texts:
            require_known_step(row[0])
            cells[row[0]], texts[row[0]], tokens[row[0]] = array("q"), [], [[] for _ in token_columns]
        if axes:
            cells[row[0]].extend([_parse_known_index(index, table.lines[i]) if index else -1 for index in indices])
        texts[row[0]].append(value)
        for found, token in zip(tokens[row[0]], row[value_column + 1 :], strict=True):
            found.append(token)
    if not texts:
        raise InputError("no-figures", "there are no rows below the header")
    return tuple(
        replace(
            _step_figures_from_cells(step, values, (len(values),)),
            cells=np.array(cells[step], np.int64).reshape(len(values), len(axes)),
            cell_axes=axes,
            cell_tokens={name: tuple(found) for name, found in zip(token_columns, tokens[step], strict=True)},
        )
        for step, values in texts.items()
    )


def _bad_row_error(row: Sequence[str], header: Sequence[str], line: int) -> InputError:
    """Make the error of a tidy row that is no step, indices and value: what of it is not."""
    if len(row) != len(header):
        message = f"this row has {pluralize(len(row), 'cell')}, but the header {len(header)}"
        return InputError("bad-row", message, location=Location(line=line), help=f"write {','.join(header)}")
    column = next((i for i, text in enumerate(row[1:-1], 1) if not _is_index(text)), len(row) - 1)
    location = Location(line=line, column=column + 1)
    name = printable(shorten(row[column]))
    if column == len(row) - 1:
        return InputError("bad-row", f"{name!r} is where a number should be", location=location)
    return InputError(
        "bad-row",
        f"{name!r} is not an index of the axis {header[column]}",
        location=location,
        help="write the number of the token, counted from 0; only the rows and columns of a matrix have names",
    )


def _is_index(text: str) -> bool:
    return not text or (text.isascii() and text.isdecimal())


def _parse_known_index(text: str, line: int) -> int:
    index = parse_index(text)
    if index is None:
        raise InputError("out-of-range", f"no axis has an index {shorten(text, 40)}", location=Location(line=line))
    return index
