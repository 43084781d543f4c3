"""MINE as it came: bytes → figures by step, each with the digits it was written with. Nothing is known of the problem yet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Literal

import numpy as np

from attncli.errors import InputError, Location, OptionError, join_names, printable, suggestion
from attncli.types import AXES, FIELDS, NONFINITE_SPELLINGS, Attention, Field, Json, NumpyArray
from attncli.validation.fields import STEP_NAMES, is_tensor, validate_array

_WRITTEN_NUMBER_PATTERN = re.compile(r"[-+−]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")
_MAX_HANDWRITTEN_DIGITS = 8  # significant digits that people write; more is a program's


@dataclass(frozen=True)
class StepFigures:
    """Figures of one step, or of a step that the command line names."""

    step: str | None
    values: NumpyArray  # float64, booleans or integers
    dtype: str = "float64"  # what they were computed in, as far as can be seen; text: a few written digits
    decimals: NumpyArray | None = None  # how many each was written with, where it is text
    axes: tuple[str, ...] | None = None  # its own, where it says them
    axis_indices: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # which indices of an axis
    rows: tuple[int, ...] | None = None  # which of the last axis but one
    columns: tuple[int, ...] | None = None  # which of the last
    row_labels: tuple[str, ...] | None = None  # of its rows
    cells: tuple[Mapping[str, int], ...] | None = None  # one place a figure, where they form no block
    cell_indices: tuple[tuple[int, ...], ...] | None = None  # the same by position of the axis, as worksheets say it
    rtol: float | None = None  # as `expected` says them, in numpy's sense
    atol: float | None = None
    expected_decimals: int | None = None  # the decimals that `expected` says
    gap_numbers: tuple[int, ...] = ()
    gap_texts: tuple[str, ...] = ()  # the text of each gap, as it was filled in


@dataclass(frozen=True)
class Figures:
    """All that a file claims."""

    name: str
    kind: Literal["result", "expected", "arrays", "text", "worksheet"]
    steps: tuple[StepFigures, ...]
    notes: tuple[str, ...] = ()
    is_layout_known: bool = True  # heads stand where a result has them
    open_gaps: tuple[StepFigures, ...] = ()  # gaps that were left open: their places, and no values


def parse_written_number(text: str) -> tuple[float, int, int]:
    """A written number → its value, its decimals, its significant digits: 0.0629 → (0.0629, 4, 3)."""
    plain = text.strip().replace("−", "-").replace(",", ".").replace("∞", "inf")
    if not any(c.isdigit() for c in plain):
        return float(plain), 0, 0
    mantissa, _, exponent = plain.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("+-").partition(".")
    return float(plain), len(fraction) - int(exponent or 0), len((whole + fraction).lstrip("0"))


def is_number(text: str) -> bool:
    """Whether a text is a number as people write them."""
    return bool(_WRITTEN_NUMBER_PATTERN.fullmatch(text.strip())) and text.isascii() | ("−" in text)


class _WrittenNumber(float):
    """A number that remembers how it was written."""

    text: str

    def __new__(cls, text: str) -> _WrittenNumber:
        self = super().__new__(cls, text)
        self.text = text
        return self


# ── from a problem or a result in memory ─────────────────────────────────────────────────────────
def figures_from_expected(expected: Json, name: str) -> Figures:
    """A problem's `expected`, as the gate admits it."""
    given = []
    for step, figure in expected.items():
        values = np.asarray(figure["values"])
        said = {key: figure.get(key) for key in ("rtol", "atol")}
        rows, columns = (
            None if figure.get(k) is None else tuple(map(int, np.asarray(figure[k]))) for k in ("rows", "columns")
        )
        given.append(
            replace(
                _step_figures_from_array(step, values), rows=rows, columns=columns, expected_decimals=figure.get("decimals"), rtol=said["rtol"], atol=said["atol"]
            )
        )  # fmt: skip
    return Figures(name, "expected", tuple(given))


def figures_from_result(result: Attention, name: str) -> Figures:
    """A result of attn: it says its axes, its dtype and what was selected."""
    given = []
    for step in result.steps:
        values = np.asarray(step.values)
        kind = values.dtype.kind
        wide = values.astype(np.float64) if kind == "f" else values
        at = {axis: result.at[axis] for axis in step.axes if axis in result.at}
        given.append(StepFigures(step.name, wide, result.dtype, axes=step.axes, axis_indices=at))
    return Figures(name, "result", tuple(given))


def _step_figures_from_array(step: str | None, values: NumpyArray) -> StepFigures:
    """An array whose numbers say by their own bits, or by how short they are written, what they were computed in."""
    if values.dtype.kind in "biu":
        return StepFigures(step, values)
    wide = values.astype(np.float64)
    own = {2: "float16", 4: "float32"}.get(values.dtype.itemsize, "float64") if values.dtype.kind == "f" else "float64"
    dtype = infer_dtype(wide, own)
    if own == "float64" and values.dtype.kind == "f" and (decimals := _infer_decimals(wide)):
        return StepFigures(step, wide, "text", np.full(wide.shape, decimals))
    return StepFigures(step, wide, dtype)


def _infer_decimals(values: NumpyArray) -> int | None:
    """To how many decimals an array was rounded: the most that any of it has, if none needs more than people write."""
    finite = values[np.isfinite(values)].ravel()
    if (finite == np.rint(finite)).all():  # whole numbers were not rounded
        return None
    for some in (finite[:64], finite):  # most arrays are told by their first few
        written = [parse_written_number(repr(float(x))) for x in some]
        if max(sig for _, _, sig in written) > _MAX_HANDWRITTEN_DIGITS:
            return None
    return max(decimals for _, decimals, _ in written)


def infer_dtype(values: NumpyArray, default: str) -> str:
    """The narrowest dtype that holds every value, where some need most of its digits; else its own."""
    from attncli.validation.fields import to_bfloat16

    x = values[np.isfinite(values)].ravel()
    with np.errstate(over="ignore"):
        rounded = {"bfloat16": to_bfloat16(x).astype(np.float64), "float16": x.astype(np.float16).astype(np.float64)}
        rounded["float32"] = x.astype(np.float32).astype(np.float64)
    mantissa = np.frexp(x)[0]
    for dtype, few in (("bfloat16", 4), ("float16", 6), ("float32", 14)):
        telling = np.count_nonzero(mantissa * 2**few % 1)  # those with more bits than a short number has
        if telling >= 4 and np.array_equal(rounded[dtype], x):
            return dtype
    return default


# ── from a file ──────────────────────────────────────────────────────────────────────────────────
def read_figures(path: str) -> Figures:
    """A file of figures, by its suffix: .json, .ndjson of one line, .npz, .npy, .safetensors, .csv, .tsv; a worksheet is text.

    Raises:
        OptionError: the format is not read.
        InputError: the file cannot be read, or holds no figures.
    """
    from attncli.readers import read_bytes

    suffix = PurePath(path).suffix.lower()
    if suffix == ".tex":
        way = "attn explain … --format markdown writes a worksheet that can be read"
        raise OptionError("unknown-format", f"{path} is LaTeX, which is not read back", help=way)
    data = read_bytes(path)
    try:
        if suffix in _READERS:
            return _READERS[suffix](path, data)
        from attncli.readers import decode_text

        text = decode_text(data, format_name="a text of figures")
        if suffix in (".csv", ".tsv"):
            return _figures_from_csv(path, text, "\t" if suffix == ".tsv" else "")
        from attncli.check.worksheet import has_gaps, read_worksheet

        if suffix not in _WORKSHEET_SUFFIXES and not has_gaps(text):
            way = f"figures are read from {join_names((*_READERS, '.csv', '.tsv'))}, and a worksheet from {join_names(_WORKSHEET_SUFFIXES)}"
            raise OptionError(
                "unknown-format", f"{printable(path)} is in no format that figures are read from", help=way
            )
        return read_worksheet(path, text)
    except InputError as error:
        raise error.add_location(file=path) from None


def _has_problem_fields(names: Json | set[str]) -> bool:
    tops = {name.partition(".")[0] for name in FIELDS}
    return any(name.partition(".")[0] in tops - set(STEP_NAMES) for name in names) or "expected" in names


def _figures_from_problem(path: str) -> Figures:
    from attncli.readers import read

    problem = read(path)
    if not problem.expected:
        way = 'a problem claims figures by "expected": {"weights": [[…]]}'
        raise InputError("no-figures", "this problem expects nothing", help=way)
    return figures_from_expected(problem.expected, path)


def _figures_from_json(path: str, data: bytes) -> Figures:
    try:
        text = data.decode("utf-8-sig")
        held = json.loads(text, parse_float=_WrittenNumber, parse_int=_WrittenNumber)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        raise InputError("bad-json", f"this is no JSON: {error}", location=Location(line=line)) from None
    if isinstance(held, list):
        return Figures(path, "text", (_step_figures_from_lists(None, held),), is_layout_known=False)
    if not isinstance(held, dict):
        raise InputError("no-figures", "figures are an object, step by step, or a matrix", help='{"weights": [[…], …]}')
    if "schema" in held:
        from attncli.readers.results import read_result

        return figures_from_result(read_result(path, data), path)
    if not _has_problem_fields(held):
        return Figures(path, "text", tuple(_step_figures_from_json(step, figure) for step, figure in held.items()))
    own = _figures_from_problem(path)  # refuses what is no problem
    return replace(
        own, steps=tuple(_step_figures_from_json(step, x, in_problem=True) for step, x in held["expected"].items())
    )


def _figures_from_ndjson(path: str, data: bytes) -> Figures:
    """The one result of a stream of them."""
    lines = [line for line in data.splitlines() if line.strip()]
    if len(lines) > 1:
        message = f"there are {len(lines)} results in it, and one problem is checked"
        raise InputError("several-results", message, help="keep the line that is this problem's")
    return _figures_from_json(path, lines[0] if lines else data)


def _step_figures_from_json(step: str, entry: object, *, in_problem: bool = False) -> StepFigures:
    """One step of an object, by the grammar of `expected`, with the digits it is written with."""
    from attncli.validation.fields import validate_field

    _require_known_step(step)
    said = entry if isinstance(entry, dict) else {"values": entry}
    plain = {key: _as_plain_numbers(value) for key, value in said.items()}
    try:
        checked = validate_field("expected", {step: plain})[step]
    except InputError as error:
        if in_problem:
            raise
        held = f"expected.{step}.values", f"expected.{step}"  # as the gate calls them: here they stand at the top
        message, path = error.message, error.location.path
        for name in held if not isinstance(entry, dict) else held[1:]:
            message, path = message.replace(name, step), path.replace(name, step)
        raise InputError(error.code, message, location=replace(error.location, path=path), help=error.help) from None
    made = _step_figures_from_lists(step, said["values"])
    rows, columns = (None if k not in checked else tuple(map(int, checked[k])) for k in ("rows", "columns"))
    return replace(
        made, rows=rows, columns=columns, expected_decimals=checked.get("decimals"), rtol=checked.get("rtol"), atol=checked.get("atol")
    )  # fmt: skip


def _require_known_step(step: str) -> None:
    base, _, again = step.rpartition("_")
    if step not in STEP_NAMES and not (base in STEP_NAMES and again.isdigit()):
        raise InputError("unknown-step", f"no step is called {printable(step)!r}", help=suggestion(step, STEP_NAMES))


def _as_plain_numbers(value: object) -> object:
    """Written numbers → numbers as the gate knows them."""
    if isinstance(value, list):
        return [_as_plain_numbers(v) for v in value]
    if isinstance(value, _WrittenNumber):
        return int(value) if re.fullmatch(r"[-+]?\d+", value.text) else float(value)
    return value


def _step_figures_from_lists(step: str | None, nested: object) -> StepFigures:
    """Nested lists of written numbers."""
    plain = _as_plain_numbers(nested)
    leaf = plain
    while isinstance(leaf, list) and leaf:
        leaf = leaf[0]
    name = f"expected.{step}.values" if step else "figures"
    if isinstance(leaf, bool):
        return StepFigures(step, validate_array(plain, Field(name, "booleans", ("*",))))
    whole = step is not None and re.sub(r"_\d+$", "", step) in ("top_keys", "visible_keys")
    values = validate_array(plain, Field(name, "integers" if whole else "floats", ("*",), finite=False))
    if whole:
        return StepFigures(step, values)
    texts: list[str] = []

    def gather(value: object) -> None:
        for item in value if isinstance(value, list) else [value]:
            gather(item) if isinstance(item, list) else texts.append(getattr(item, "text", ""))

    gather(nested)
    return _step_figures_from_texts(step, values, texts)


def _step_figures_from_texts(step: str | None, values: NumpyArray, texts: list[str]) -> StepFigures:
    """Numbers and their texts, in order: few digits are judged as written, many say their dtype."""
    digits = [parse_written_number(t)[1:] if t and is_number(t) else (0, 0) for t in texts]
    if max((sig for _, sig in digits), default=0) > _MAX_HANDWRITTEN_DIGITS:
        finite = [sig for _, sig in digits if sig]
        dtype = infer_dtype(values, "float64")
        if dtype == "float64" and max(finite) <= 9 and _are_shortest_float32(values, texts):
            dtype = "float32"
        return StepFigures(step, values, dtype)
    return StepFigures(step, values, "text", np.array([d for d, _ in digits], int).reshape(values.shape))


def _are_shortest_float32(values: NumpyArray, texts: list[str]) -> bool:
    """Whether every text is the shortest that reads back to some float32, as programs print them."""
    with np.errstate(over="ignore"):
        short = values.astype(np.float32).ravel()
    return all(not t or float(str(x)) == float(t.replace("−", "-")) for x, t in zip(short, texts, strict=True))


def _figures_from_named_arrays(path: str, arrays: Mapping[str, NumpyArray]) -> Figures:
    """Arrays under the names of steps, or one without a name."""
    unnamed = [name for name in arrays if re.fullmatch(r"arr_\d+", name) or name in ("", "array", "data")]
    if len(arrays) == 1 and unnamed:
        return Figures(
            path, "arrays", (_step_figures_from_array(None, next(iter(arrays.values()))),), is_layout_known=False
        )
    for name in arrays:
        _require_known_step(name)
    if not arrays:
        raise InputError("no-figures", "there is no array in it")
    return Figures(
        path, "arrays", tuple(_step_figures_from_array(n, x) for n, x in arrays.items()), is_layout_known=False
    )


def _figures_from_npy(path: str, data: bytes) -> Figures:
    from attncli.readers.npz import read_npy_array as npy

    return _figures_from_named_arrays(path, {"": npy(data, "figures")})


def _figures_from_npz(path: str, data: bytes) -> Figures:
    from attncli.readers.npz import read_archive

    arrays, rest = read_archive(data)
    return _figures_from_archive(path, arrays, rest)


def _figures_from_safetensors(path: str, data: bytes) -> Figures:
    from attncli.readers.safetensors import read_tensors

    arrays, rest, _ = read_tensors(data)
    return _figures_from_archive(path, arrays, rest)


def _figures_from_archive(path: str, arrays: Mapping[str, NumpyArray], metadata: Json) -> Figures:
    if str(metadata.get("schema", "")).startswith("attn.result"):
        from attncli.readers.results import read_result

        return figures_from_result(read_result(path), path)
    if _has_problem_fields({*arrays, *metadata} - set(STEP_NAMES)):
        return _figures_from_problem(path)
    return _figures_from_named_arrays(path, arrays)


def figures_from_arrays(arrays: Json, name: str = "figures") -> Figures:
    """Arrays or tensors by the names of steps, for callers from Python. What numpy has no dtype for is told by its bits."""
    from attncli.validation.fields import as_numpy

    made = _figures_from_named_arrays(name, {step: as_numpy(x) for step, x in arrays.items()})
    known = {step: str(x.dtype).removeprefix("torch.") for step, x in arrays.items() if is_tensor(x)}
    return replace(made, steps=tuple(replace(g, dtype=known.get(str(g.step), g.dtype)) for g in made.steps))


_READERS: dict[str, Callable[[str, bytes], Figures]] = {
    ".json": _figures_from_json,
    ".ndjson": _figures_from_ndjson,
    ".npz": _figures_from_npz,
    ".npy": _figures_from_npy,
    ".safetensors": _figures_from_safetensors,
}
_WORKSHEET_SUFFIXES = (".md", ".txt")


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────
def _figures_from_csv(path: str, text: str, separator: str) -> Figures:
    """attn's own tidy rows or matrix, or a bare matrix of numbers."""
    from attncli.readers.csv import detect_separator

    separator = separator or detect_separator(text.splitlines())
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=separator)]
    rows = [row for row in rows if any(row)]
    if not rows:
        raise InputError("empty", "the file is empty")
    if rows[0][0] == "step" and rows[0][-1] == "value":
        return Figures(path, "text", _step_figures_from_tidy_rows(rows))
    beside, names = rows[0][1:] or rows[0], ("token", "", *AXES)
    header = (rows[0][0] != "" and not _is_value(rows[0][0])) or not all(map(_is_value, beside))
    if (
        header
        and rows[0][0] not in names
        and len(rows) > 1
        and any(map(_is_value, beside))
        and not _is_column_numbering(beside)
    ):  # a slip, and no header
        header = False
    body = rows[1:] if header else rows
    labelled = bool(body) and ((header and rows[0][0] in names) or any(not _is_value(row[0]) for row in body))
    cells = [row[1:] if labelled else row for row in body]
    widths = {len(row) for row in cells}
    if len(widths) != 1 or not cells or 0 in widths:
        raise InputError(
            "ragged", f"the rows have {join_names(sorted(widths), 'or')} figures", help="rows are equally long"
        )
    for n, row in enumerate(cells):
        for cell in row:
            if not _is_value(cell):
                place = Location(line=n + 1 + header, column=cells[n].index(cell) + 1 + labelled)
                raise InputError("not-a-number", f"{printable(cell)!r} stands where a figure should", location=place)
    made = _step_figures_from_cells(None, [c for row in cells for c in row], (len(cells), *widths))
    labels = tuple(row[0] for row in body) if labelled else None
    return Figures(path, "text", (replace(made, row_labels=labels),), is_layout_known=False)


def _is_column_numbering(header: list[str]) -> bool:
    """Whether a header numbers its columns."""
    return header in ([str(i) for i in range(first, first + len(header))] for first in (0, 1))


def _is_value(text: str) -> bool:
    return is_number(text) or text.lower() in _VALUE_WORDS


_VALUE_WORDS: dict[str, float | bool] = {"true": True, "false": False, "nan": np.nan, "inf": np.inf, "-inf": -np.inf}
_VALUE_WORDS |= {word.lower(): float(word) for word in NONFINITE_SPELLINGS}


def _step_figures_from_cells(step: str | None, texts: list[str], shape: tuple[int, ...]) -> StepFigures:
    """Cells of a table → figures."""
    values = [_VALUE_WORDS[t.lower()] if t.lower() in _VALUE_WORDS else parse_written_number(t)[0] for t in texts]
    if all(isinstance(v, bool) for v in values):
        return StepFigures(step, np.array(values).reshape(shape))
    if step is not None and re.sub(r"_\d+$", "", step) in ("top_keys", "visible_keys"):
        return StepFigures(step, np.array(values, np.float64).astype(np.int64).reshape(shape))
    plain = [t if is_number(t) else "" for t in texts]
    return _step_figures_from_texts(step, np.array(values, np.float64).reshape(shape), plain)


def _step_figures_from_tidy_rows(rows: list[list[str]]) -> tuple[StepFigures, ...]:
    """step, batch, head, query, key, …, value: a figure a row."""
    columns = rows[0][1:-1]
    for name in columns:
        if name not in AXES:
            raise InputError("unknown-axis", f"no axis is called {printable(name)!r}", help=suggestion(name, AXES))
    found: dict[str, list[tuple[dict[str, int], str]]] = {}
    for n, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]) or not _is_value(row[-1]) or not all(not c or c.isdecimal() for c in row[1:-1]):
            raise InputError("bad-row", "this row is no step, indices and value", location=Location(line=n))
        _require_known_step(row[0])
        place = {axis: int(cell) for axis, cell in zip(columns, row[1:-1], strict=True) if cell}
        found.setdefault(row[0], []).append((place, row[-1]))
    if not found:
        raise InputError("no-figures", "there are no rows below the header")
    return tuple(
        replace(
            _step_figures_from_cells(step, [t for _, t in held], (len(held),)), cells=tuple(place for place, _ in held)
        )
        for step, held in found.items()
    )
