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

from attncli.errors import InputError, OptionError, Place, listed, nearest, printable
from attncli.types import AXES, FIELDS, NONFINITE, Attention, Field, Json, NumpyArray
from attncli.validation.fields import STEP_NAMES, array, is_tensor

_NUMBER = re.compile(r"[-+−]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")
_ENOUGH = 8  # significant digits that people write; more is a program's


@dataclass(frozen=True)
class Given:
    """Figures of one step, or of a step that the command line names."""

    step: str | None
    values: NumpyArray  # float64, booleans or integers
    dtype: str = "float64"  # what they were computed in, as far as can be seen; text: a few written digits
    decimals: NumpyArray | None = None  # how many each was written with, where it is text
    axes: tuple[str, ...] | None = None  # its own, where it says them
    at: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # which indices of an axis
    rows: tuple[int, ...] | None = None  # which of the last axis but one
    columns: tuple[int, ...] | None = None  # which of the last
    labels: tuple[str, ...] | None = None  # of its rows
    cells: tuple[Mapping[str, int], ...] | None = None  # one place a figure, where they form no block
    path: tuple[tuple[int, ...], ...] | None = None  # the same by position of the axis, as worksheets say it
    rtol: float | None = None  # as `expected` says them, in numpy's sense
    atol: float | None = None
    rounded: int | None = None  # the decimals that `expected` says
    gaps: tuple[int, ...] = ()
    written: tuple[str, ...] = ()  # the text of each gap, as it was filled in


@dataclass(frozen=True)
class Figures:
    """All that a file claims."""

    name: str
    kind: Literal["result", "expected", "arrays", "text", "worksheet"]
    given: tuple[Given, ...]
    notes: tuple[str, ...] = ()
    layout_known: bool = True  # heads stand where a result has them
    missing: tuple[Given, ...] = ()  # gaps that were left open: their places, and no values


def digits_of(text: str) -> tuple[float, int, int]:
    """A written number → its value, its decimals, its significant digits: 0.0629 → (0.0629, 4, 3)."""
    plain = text.strip().replace("−", "-").replace(",", ".").replace("∞", "inf")
    if not any(c.isdigit() for c in plain):
        return float(plain), 0, 0
    mantissa, _, exponent = plain.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("+-").partition(".")
    return float(plain), len(fraction) - int(exponent or 0), len((whole + fraction).lstrip("0"))


def is_number(text: str) -> bool:
    """Whether a text is a number as people write them."""
    return bool(_NUMBER.fullmatch(text.strip())) and text.isascii() | ("−" in text)


class _Written(float):
    """A number that remembers how it was written."""

    text: str

    def __new__(cls, text: str) -> _Written:
        self = super().__new__(cls, text)
        self.text = text
        return self


# ── from a problem or a result in memory ─────────────────────────────────────────────────────────
def of_expected(expected: Json, name: str) -> Figures:
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
                _typed(step, values), rows=rows, columns=columns, rounded=figure.get("decimals"), rtol=said["rtol"], atol=said["atol"]
            )
        )  # fmt: skip
    return Figures(name, "expected", tuple(given))


def of_result(result: Attention, name: str) -> Figures:
    """A result of attn: it says its axes, its dtype and what was selected."""
    given = []
    for step in result.steps:
        values = np.asarray(step.values)
        kind = values.dtype.kind
        wide = values.astype(np.float64) if kind == "f" else values
        at = {axis: result.at[axis] for axis in step.axes if axis in result.at}
        given.append(Given(step.name, wide, result.dtype, axes=step.axes, at=at))
    return Figures(name, "result", tuple(given))


def _typed(step: str | None, values: NumpyArray) -> Given:
    """An array whose numbers say by their own bits, or by how short they are written, what they were computed in."""
    if values.dtype.kind in "biu":
        return Given(step, values)
    wide = values.astype(np.float64)
    own = {2: "float16", 4: "float32"}.get(values.dtype.itemsize, "float64") if values.dtype.kind == "f" else "float64"
    dtype = narrowest(wide, own)
    if own == "float64" and values.dtype.kind == "f" and (decimals := _rounded_to(wide)):
        return Given(step, wide, "text", np.full(wide.shape, decimals))
    return Given(step, wide, dtype)


def _rounded_to(values: NumpyArray) -> int | None:
    """To how many decimals an array was rounded: the most that any of it has, if none needs more than people write."""
    finite = values[np.isfinite(values)].ravel()
    if (finite == np.rint(finite)).all():  # whole numbers were not rounded
        return None
    for some in (finite[:64], finite):  # most arrays are told by their first few
        written = [digits_of(repr(float(x))) for x in some]
        if max(sig for _, _, sig in written) > _ENOUGH:
            return None
    return max(decimals for _, decimals, _ in written)


def narrowest(values: NumpyArray, own: str) -> str:
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
    return own


# ── from a file ──────────────────────────────────────────────────────────────────────────────────
def read_figures(path: str) -> Figures:
    """A file of figures, by its suffix: .json, .ndjson of one line, .npz, .npy, .safetensors, .csv, .tsv; a worksheet is text.

    Raises:
        OptionError: the format is not read.
        InputError: the file cannot be read, or holds no figures.
    """
    from attncli.readers import slurp

    suffix = PurePath(path).suffix.lower()
    if suffix == ".tex":
        way = "attn explain … --format markdown writes a worksheet that can be read"
        raise OptionError("unknown-format", f"{path} is LaTeX, which is not read back", help=way)
    data = slurp(path)
    try:
        if suffix in _READERS:
            return _READERS[suffix](path, data)
        from attncli.readers import decoded

        text = decoded(data, what="a text of figures")
        if suffix in (".csv", ".tsv"):
            return _csv(path, text, "\t" if suffix == ".tsv" else "")
        from attncli.check.worksheet import has_gaps, worksheet

        if suffix not in _SHEETS and not has_gaps(text):
            way = f"figures are read from {listed((*_READERS, '.csv', '.tsv'))}, and a worksheet from {listed(_SHEETS)}"
            raise OptionError(
                "unknown-format", f"{printable(path)} is in no format that figures are read from", help=way
            )
        return worksheet(path, text)
    except InputError as error:
        raise error.at(file=path) from None


def _problem_names(names: Json | set[str]) -> bool:
    tops = {name.partition(".")[0] for name in FIELDS}
    return any(name.partition(".")[0] in tops - set(STEP_NAMES) for name in names) or "expected" in names


def _own_expected(path: str) -> Figures:
    from attncli.readers import read

    problem = read(path)
    if not problem.expected:
        way = 'a problem claims figures by "expected": {"weights": [[…]]}'
        raise InputError("no-figures", "this problem expects nothing", help=way)
    return of_expected(problem.expected, path)


def _json(path: str, data: bytes) -> Figures:
    try:
        text = data.decode("utf-8-sig")
        held = json.loads(text, parse_float=_Written, parse_int=_Written)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        raise InputError("bad-json", f"this is no JSON: {error}", place=Place(line=line)) from None
    if isinstance(held, list):
        return Figures(path, "text", (_from_lists(None, held),), layout_known=False)
    if not isinstance(held, dict):
        raise InputError("no-figures", "figures are an object, step by step, or a matrix", help='{"weights": [[…], …]}')
    if "schema" in held:
        from attncli.readers.results import read_result

        return of_result(read_result(path, data), path)
    if not _problem_names(held):
        return Figures(path, "text", tuple(_figure(step, figure) for step, figure in held.items()))
    own = _own_expected(path)  # refuses what is no problem
    return replace(own, given=tuple(_figure(step, x, inside=True) for step, x in held["expected"].items()))


def _ndjson(path: str, data: bytes) -> Figures:
    """The one result of a stream of them."""
    lines = [line for line in data.splitlines() if line.strip()]
    if len(lines) > 1:
        message = f"there are {len(lines)} results in it, and one problem is checked"
        raise InputError("several-results", message, help="keep the line that is this problem's")
    return _json(path, lines[0] if lines else data)


def _figure(step: str, figure: object, *, inside: bool = False) -> Given:
    """One step of an object, by the grammar of `expected`, with the digits it is written with."""
    from attncli.validation.fields import one_field

    _check_name(step)
    said = figure if isinstance(figure, dict) else {"values": figure}
    plain = {key: _plain(value) for key, value in said.items()}
    try:
        checked = one_field("expected", {step: plain})[step]
    except InputError as error:
        if inside:
            raise
        held = f"expected.{step}.values", f"expected.{step}"  # as the gate calls them: here they stand at the top
        message, path = error.message, error.place.path
        for name in held if not isinstance(figure, dict) else held[1:]:
            message, path = message.replace(name, step), path.replace(name, step)
        raise InputError(error.code, message, place=replace(error.place, path=path), help=error.help) from None
    made = _from_lists(step, said["values"])
    rows, columns = (None if k not in checked else tuple(map(int, checked[k])) for k in ("rows", "columns"))
    return replace(
        made, rows=rows, columns=columns, rounded=checked.get("decimals"), rtol=checked.get("rtol"), atol=checked.get("atol")
    )  # fmt: skip


def _check_name(step: str) -> None:
    base, _, again = step.rpartition("_")
    if step not in STEP_NAMES and not (base in STEP_NAMES and again.isdigit()):
        raise InputError("unknown-step", f"no step is called {printable(step)!r}", help=nearest(step, STEP_NAMES))


def _plain(value: object) -> object:
    """Written numbers → numbers as the gate knows them."""
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, _Written):
        return int(value) if re.fullmatch(r"[-+]?\d+", value.text) else float(value)
    return value


def _from_lists(step: str | None, held: object) -> Given:
    """Nested lists of written numbers."""
    plain = _plain(held)
    leaf = plain
    while isinstance(leaf, list) and leaf:
        leaf = leaf[0]
    name = f"expected.{step}.values" if step else "figures"
    if isinstance(leaf, bool):
        return Given(step, array(plain, Field(name, "booleans", ("*",))))
    whole = step is not None and re.sub(r"_\d+$", "", step) in ("top_keys", "visible_keys")
    values = array(plain, Field(name, "integers" if whole else "floats", ("*",), finite=False))
    if whole:
        return Given(step, values)
    texts: list[str] = []

    def gather(value: object) -> None:
        for item in value if isinstance(value, list) else [value]:
            gather(item) if isinstance(item, list) else texts.append(getattr(item, "text", ""))

    gather(held)
    return _written(step, values, texts)


def _written(step: str | None, values: NumpyArray, texts: list[str]) -> Given:
    """Numbers and their texts, in order: few digits are judged as written, many say their dtype."""
    digits = [digits_of(t)[1:] if t and is_number(t) else (0, 0) for t in texts]
    if max((sig for _, sig in digits), default=0) > _ENOUGH:
        finite = [sig for _, sig in digits if sig]
        dtype = narrowest(values, "float64")
        if dtype == "float64" and max(finite) <= 9 and _short_float32(values, texts):
            dtype = "float32"
        return Given(step, values, dtype)
    return Given(step, values, "text", np.array([d for d, _ in digits], int).reshape(values.shape))


def _short_float32(values: NumpyArray, texts: list[str]) -> bool:
    """Whether every text is the shortest that reads back to some float32, as programs print them."""
    with np.errstate(over="ignore"):
        short = values.astype(np.float32).ravel()
    return all(not t or float(str(x)) == float(t.replace("−", "-")) for x, t in zip(short, texts, strict=True))


def _named(path: str, arrays: Mapping[str, NumpyArray]) -> Figures:
    """Arrays under the names of steps, or one without a name."""
    unnamed = [name for name in arrays if re.fullmatch(r"arr_\d+", name) or name in ("", "array", "data")]
    if len(arrays) == 1 and unnamed:
        return Figures(path, "arrays", (_typed(None, next(iter(arrays.values()))),), layout_known=False)
    for name in arrays:
        _check_name(name)
    if not arrays:
        raise InputError("no-figures", "there is no array in it")
    return Figures(path, "arrays", tuple(_typed(n, x) for n, x in arrays.items()), layout_known=False)


def _npy(path: str, data: bytes) -> Figures:
    from attncli.readers.npz import _array as npy

    return _named(path, {"": npy(data, "figures")})


def _npz(path: str, data: bytes) -> Figures:
    from attncli.readers.npz import archive

    arrays, rest = archive(data)
    return _archive(path, arrays, rest)


def _safetensors(path: str, data: bytes) -> Figures:
    from attncli.readers.safetensors import tensors

    arrays, rest, _ = tensors(data)
    return _archive(path, arrays, rest)


def _archive(path: str, arrays: Mapping[str, NumpyArray], rest: Json) -> Figures:
    if str(rest.get("schema", "")).startswith("attn.result"):
        from attncli.readers.results import read_result

        return of_result(read_result(path), path)
    if _problem_names({*arrays, *rest} - set(STEP_NAMES)):
        return _own_expected(path)
    return _named(path, arrays)


def of_arrays(arrays: Json, name: str = "figures") -> Figures:
    """Arrays or tensors by the names of steps, for callers from Python. What numpy has no dtype for is told by its bits."""
    from attncli.validation.fields import as_numpy

    made = _named(name, {step: as_numpy(x) for step, x in arrays.items()})
    known = {step: str(x.dtype).removeprefix("torch.") for step, x in arrays.items() if is_tensor(x)}
    return replace(made, given=tuple(replace(g, dtype=known.get(str(g.step), g.dtype)) for g in made.given))


_READERS: dict[str, Callable[[str, bytes], Figures]] = {
    ".json": _json,
    ".ndjson": _ndjson,
    ".npz": _npz,
    ".npy": _npy,
    ".safetensors": _safetensors,
}
_SHEETS = (".md", ".txt")


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────
def _csv(path: str, text: str, separator: str) -> Figures:
    """attn's own tidy rows or matrix, or a bare matrix of numbers."""
    from attncli.readers.csv import separator_of

    separator = separator or separator_of(text.splitlines())
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=separator)]
    rows = [row for row in rows if any(row)]
    if not rows:
        raise InputError("empty", "the file is empty")
    if rows[0][0] == "step" and rows[0][-1] == "value":
        return Figures(path, "text", _tidy(rows))
    beside, names = rows[0][1:] or rows[0], ("token", "", *AXES)
    header = (rows[0][0] != "" and not _cell(rows[0][0])) or not all(map(_cell, beside))
    if (
        header and rows[0][0] not in names and len(rows) > 1 and any(map(_cell, beside)) and not _counts(beside)
    ):  # a slip, and no header
        header = False
    body = rows[1:] if header else rows
    labelled = bool(body) and ((header and rows[0][0] in names) or any(not _cell(row[0]) for row in body))
    cells = [row[1:] if labelled else row for row in body]
    widths = {len(row) for row in cells}
    if len(widths) != 1 or not cells or 0 in widths:
        raise InputError(
            "ragged", f"the rows have {listed(sorted(widths), 'or')} figures", help="rows are equally long"
        )
    for n, row in enumerate(cells):
        for cell in row:
            if not _cell(cell):
                place = Place(line=n + 1 + header, column=cells[n].index(cell) + 1 + labelled)
                raise InputError("not-a-number", f"{printable(cell)!r} stands where a figure should", place=place)
    made = _texts(None, [c for row in cells for c in row], (len(cells), *widths))
    labels = tuple(row[0] for row in body) if labelled else None
    return Figures(path, "text", (replace(made, labels=labels),), layout_known=False)


def _counts(cells: list[str]) -> bool:
    """Whether a header numbers its columns."""
    return cells in ([str(i) for i in range(first, first + len(cells))] for first in (0, 1))


def _cell(text: str) -> bool:
    return is_number(text) or text.lower() in _WORDS


_WORDS: dict[str, float | bool] = {"true": True, "false": False, "nan": np.nan, "inf": np.inf, "-inf": -np.inf}
_WORDS |= {word.lower(): float(word) for word in NONFINITE}


def _texts(step: str | None, texts: list[str], shape: tuple[int, ...]) -> Given:
    """Cells of a table → figures."""
    values = [_WORDS[t.lower()] if t.lower() in _WORDS else digits_of(t)[0] for t in texts]
    if all(isinstance(v, bool) for v in values):
        return Given(step, np.array(values).reshape(shape))
    if step is not None and re.sub(r"_\d+$", "", step) in ("top_keys", "visible_keys"):
        return Given(step, np.array(values, np.float64).astype(np.int64).reshape(shape))
    plain = [t if is_number(t) else "" for t in texts]
    return _written(step, np.array(values, np.float64).reshape(shape), plain)


def _tidy(rows: list[list[str]]) -> tuple[Given, ...]:
    """step, batch, head, query, key, …, value: a figure a row."""
    columns = rows[0][1:-1]
    for name in columns:
        if name not in AXES:
            raise InputError("unknown-axis", f"no axis is called {printable(name)!r}", help=nearest(name, AXES))
    found: dict[str, list[tuple[dict[str, int], str]]] = {}
    for n, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]) or not _cell(row[-1]) or not all(not c or c.isdecimal() for c in row[1:-1]):
            raise InputError("bad-row", "this row is no step, indices and value", place=Place(line=n))
        _check_name(row[0])
        place = {axis: int(cell) for axis, cell in zip(columns, row[1:-1], strict=True) if cell}
        found.setdefault(row[0], []).append((place, row[-1]))
    if not found:
        raise InputError("no-figures", "there are no rows below the header")
    return tuple(
        replace(_texts(step, [t for _, t in held], (len(held),)), cells=tuple(place for place, _ in held))
        for step, held in found.items()
    )
