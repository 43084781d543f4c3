"""Figures as they are claimed, step by step, with the digits they are written with; the problem is not known yet.

`figure_files` and `worksheet` read `Figures` from files; `figures_from_expected`, `figures_from_result` and
`figures_from_arrays` make them of what is in memory.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from attncli.check import figure_precision
from attncli.errors import InputError
from attncli.step_names import find_figure_name, names_like
from attncli.text import printable, shorten, suggestion
from attncli.types import Attention, Json, Labels, NumpyArray
from attncli.validation.fields import as_numpy, is_tensor

_WRITTEN_NUMBER_PATTERN = re.compile(r"[-+−]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?", re.ASCII)
_MAX_HANDWRITTEN_DIGITS = 8  # significant digits that people write; more are a program's
_CACHED_TEXTS = 4096  # of numbers, since many are the same
_MAX_EXPONENT = 999  # beyond it a number is 0 or more than a float64 holds, whatever its digits
_MAX_INDEX_DIGITS = 15  # no axis is longer
_INTEGER_STEPS = ("top_keys", "visible_keys")
_BOOLEAN_STEPS = ("mask",)
_MAX_ABS_INTEGER = 2**53  # float64 holds every whole number up to it


@dataclass(frozen=True)
class StepFigures:
    """Figures of one step, or of a step that the command line names."""

    step: str | None
    values: NumpyArray  # float64, booleans or integers
    dtype: str = "float64"  # that they were computed in, as far as can be seen; "text": so few digits do not tell it
    decimals: NumpyArray | None = None  # how many each was printed with, or rounded to
    axes: tuple[str, ...] | None = None  # of the values, where they are known
    axis_indices: Mapping[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # which indices of an axis the values have
    rows: tuple[int, ...] | None = None  # which indices of the last axis but one
    columns: tuple[int, ...] | None = None  # which indices of the last axis
    row_labels: tuple[str, ...] | None = None  # what a table calls its rows and columns
    column_labels: tuple[str, ...] | None = None
    row_axis: str = ""  # the axis of its rows, where the table says so
    axis_labels: Mapping[str, Labels] = field(default_factory=dict)  # tokens by axis, as a result has them
    cells: NumpyArray | None = None  # (n, axes) the indices of each figure, where they form no block; −1: not said
    cell_axes: tuple[str, ...] = ()  # what each column of `cells` is an index of
    cell_tokens: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # column of `TOKEN_AXES` → (n,) tokens
    cell_indices: tuple[tuple[int, ...], ...] | None = None  # the same in the order of the step's axes: a worksheet's
    rtol: float | None = None  # as `expected` gives them, in numpy's sense
    atol: float | None = None
    expected_decimals: int | None = None  # the decimals that `expected` gives
    gap_numbers: tuple[int, ...] = ()
    gap_texts: tuple[str, ...] = ()  # the text of each gap, as it was filled in


@dataclass(frozen=True)
class Figures:
    """All that a file claims."""

    name: str
    kind: Literal["result", "expected", "arrays", "text", "worksheet"]
    steps: tuple[StepFigures, ...]
    notes: tuple[str, ...] = ()
    is_layout_known: bool = True  # heads are where a result has them
    open_gaps: tuple[StepFigures, ...] = ()  # gaps that were left open: their cells, without values
    options: str | None = None  # of the command that a worksheet says marks it; None: it does not say


# ── digits ───────────────────────────────────────────────────────────────────────────────────────
class WrittenNumber(NamedTuple):
    """A number as it is written: 0.0629 has 4 decimals and 3 significant digits."""

    value: float
    decimals: int
    significant_digits: int


@functools.lru_cache(_CACHED_TEXTS)
def parse_written_number(text: str) -> WrittenNumber:
    """Parse a number as people write them: with a comma, a true minus sign or ∞ too.

    Raises:
        InputError: it is larger than a float64 can hold.
    """
    ascii_text = text.strip().replace("−", "-").replace(",", ".").replace("∞", "inf")
    value = float(ascii_text)
    if not any(c.isdigit() for c in ascii_text):
        return WrittenNumber(value, 0, 0)
    if math.isinf(value):
        raise InputError("not-finite", f"{printable(shorten(text))} is too large for float64")
    mantissa, _, exponent = ascii_text.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("+-").partition(".")
    digits = (whole + fraction).lstrip("0")
    decimals = len(fraction) - _parse_exponent(exponent)
    return WrittenNumber(value, decimals if digits else max(decimals, 0), len(digits))


def _parse_exponent(text: str) -> int:
    """Parse an exponent of any length; a huge one is cut to what no float64 has."""
    digits = text.lstrip("+-").lstrip("0")
    exponent = int(digits or 0) if len(digits) <= len(str(_MAX_EXPONENT)) else _MAX_EXPONENT
    return -exponent if text.startswith("-") else exponent


def parse_index(text: str) -> int | None:
    """Parse an index, a whole number ≥ 0 in digits of ASCII; None where it is none, or longer than any axis.

    Python itself refuses to parse more than some thousand digits.
    """
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_INDEX_DIGITS else None


@functools.lru_cache(_CACHED_TEXTS)
def is_number(text: str) -> bool:
    """Tell whether a text is a number as people write them."""
    return bool(_WRITTEN_NUMBER_PATTERN.fullmatch(text.strip())) and (text.isascii() or "−" in text)


def step_figures_from_texts(step: str | None, values: NumpyArray, texts: Sequence[str]) -> StepFigures:
    """Make figures of numbers and their texts, in order, with what printing left of them.

    A text that is no number, as that of NaN, has no digits.
    """
    decimals, digits = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
    for i, text in enumerate(texts):
        if text and is_number(text):
            _, decimals[i], digits[i] = parse_written_number(text)
    most_digits = int(digits.max(initial=0))
    decimals, digits = decimals.reshape(values.shape), digits.reshape(values.shape)
    if most_digits > _MAX_HANDWRITTEN_DIGITS:
        decimals = figure_precision.implied_decimals(values, decimals, digits)
    are_whole = bool((values == np.rint(values))[np.isfinite(values)].all())
    if (
        most_digits <= figure_precision.MAX_FLOAT32_DIGITS
        or are_whole
        or figure_precision.may_be_printed_float32(values, decimals)
    ):
        dtype = figure_precision.infer_dtype(values, "float32", decimals)
        return StepFigures(step, values, "text" if dtype == "float32" else dtype, decimals)
    dtype = figure_precision.infer_dtype(values, "float64", decimals)
    if dtype != "float64" and (rounded := figure_precision.infer_decimals(values, dtype)):
        return _rounded_figures(step, values, dtype, rounded)
    return StepFigures(step, values, dtype, decimals)


def _rounded_figures(step: str | None, values: NumpyArray, dtype: str, decimals: int) -> StepFigures:
    """Make figures of an array that was rounded in a dtype: few digits may come from a narrower one."""
    each = np.full(values.shape, decimals)
    if figure_precision.count_digits(values, each) <= figure_precision.MAX_FLOAT32_DIGITS and dtype in (
        "float32",
        "float64",
    ):
        narrow = figure_precision.infer_dtype(values, "float32", each)
        return StepFigures(step, values, "text" if narrow == "float32" else narrow, each)
    return StepFigures(step, values, dtype, each)


# ── kinds ────────────────────────────────────────────────────────────────────────────────────────
def kind_of_step(step: str | None) -> Literal["floats", "integers", "booleans"]:
    """Return what the figures of a step are; a step that is not named yet has floats."""
    base = re.sub(r"_\d+$", "", step or "")
    return "integers" if base in _INTEGER_STEPS else "booleans" if base in _BOOLEAN_STEPS else "floats"


def conform_to_step(figures: StepFigures) -> StepFigures:
    """Return figures in the kind that their step has: floats, whole numbers or booleans; nothing is cut off.

    What a worksheet holds stays as it is where it does not conform, since a wrong answer is an answer.

    Raises:
        InputError: a fraction, NaN or a boolean stands for a whole number, a number for a boolean, or a boolean for a number.
    """
    _check_precision(figures)
    kind, values = kind_of_step(figures.step), figures.values
    has_booleans = values.dtype.kind == "b"
    if kind == "floats":
        if has_booleans:
            raise InputError(
                "wrong-type", f"{figures.step} has true and false where numbers should be", help="write numbers"
            )
        return figures if values.dtype.kind == "f" else replace(figures, values=values.astype(np.float64))
    if kind == "booleans" and has_booleans:
        return figures
    if kind == "integers" and has_booleans:
        raise InputError(
            "wrong-type", f"{figures.step} has true and false where whole numbers should be", help="write whole numbers"
        )
    if kind == "integers":
        with np.errstate(all="ignore"):
            conforms = (np.abs(values.astype(np.float64)) <= _MAX_ABS_INTEGER) & (values == np.trunc(values))
        noun = "a whole number"
    else:
        conforms, noun = (values == 0) | (values == 1), "true or false"
    if conforms.all():
        whole = values.astype(np.int64 if kind == "integers" else np.bool_)
        return replace(figures, values=whole, dtype="float64", decimals=None)
    if figures.gap_numbers:
        return figures
    raise InputError(
        "wrong-type" if kind == "integers" else "numeric-mask",
        f"{figures.step} has {values[~conforms][0].item():g} where {noun} should be",
        help=f"write {noun} for each figure",
    )


def _check_precision(figures: StepFigures) -> None:
    """Check how exact figures are said to be.

    Raises:
        InputError: decimals are not a whole number, or rtol or atol are not finite.
    """
    decimals = figures.expected_decimals
    if decimals is not None and not (0 <= decimals <= _MAX_EXPONENT and decimals == int(decimals)):
        raise InputError(
            "wrong-type",
            f"decimals of {figures.step} is {decimals!r:.40}",
            help=f"write a whole number from 0 to {_MAX_EXPONENT}",
        )
    for name, tolerance in (("rtol", figures.rtol), ("atol", figures.atol)):
        if tolerance is not None and not 0 <= tolerance < math.inf:
            raise InputError(
                "wrong-type", f"{name} of {figures.step} is {tolerance!r:.40}", help="write a finite number ≥ 0"
            )


# ── from a problem, a result or arrays in memory ─────────────────────────────────────────────────
def figures_from_expected(expected: Json, name: str) -> Figures:
    """Make figures of a problem's `expected`, as validation leaves it."""
    steps = []
    for step, entry in expected.items():
        rows, columns = (
            None if entry.get(key) is None else tuple(map(int, np.asarray(entry[key]))) for key in ("rows", "columns")
        )
        steps.append(
            replace(
                _step_figures_from_array(step, np.asarray(entry["values"])),
                rows=rows,
                columns=columns,
                expected_decimals=entry.get("decimals"),
                rtol=entry.get("rtol"),
                atol=entry.get("atol"),
            )
        )
    return Figures(name, "expected", tuple(steps))


def figures_from_result(result: Attention, name: str) -> Figures:
    """Make figures of a result of attn, which has its axes, its dtype and what was selected of each axis."""
    steps = []
    for step in result.steps:
        values = np.asarray(step.values)
        if values.dtype.kind == "f":
            values = values.astype(np.float64)
        steps.append(
            StepFigures(
                step.name,
                values,
                result.dtype,
                axes=step.axes,
                axis_indices={axis: result.at[axis] for axis in step.axes if axis in result.at},
                axis_labels={"query": result.tokens, "key": result.k_tokens},
            )
        )
    return Figures(name, "result", tuple(steps))


def figures_from_arrays(arrays: Json, name: str = "figures") -> Figures:
    """Make figures of arrays or tensors by the names of steps, for callers from Python.

    Raises:
        InputError: a name is no step's, or there are no arrays.
    """
    dtypes = {step: str(x.dtype).removeprefix("torch.") for step, x in arrays.items() if is_tensor(x)}  # bfloat16 too
    return figures_from_named_arrays(name, {step: as_numpy(x) for step, x in arrays.items()}, dtypes)


def figures_from_named_arrays(
    name: str, arrays: Mapping[str, NumpyArray], dtypes: Mapping[str, str] | None = None
) -> Figures:
    """Make figures of arrays under the names of steps, or of a single one without a name.

    Args:
        name: of the file, for messages.
        arrays: by the names of steps.
        dtypes: what arrays are stored in that have another dtype here, by the same names.

    Raises:
        InputError: a name is no step's, or there are no arrays.
    """
    dtypes = dtypes or {}
    is_unnamed = any(re.fullmatch(r"arr_\d+", step) or step in ("", "array", "data") for step in arrays)
    if len(arrays) == 1 and is_unnamed:
        steps = [_step_figures_from_array(None, x, dtypes.get(step)) for step, x in arrays.items()]
        return Figures(name, "arrays", tuple(steps), is_layout_known=False)
    for step in arrays:
        require_known_step(step)
    if not arrays:
        raise InputError("no-figures", "it holds no array")
    steps = [_step_figures_from_array(step, x, dtypes.get(step)) for step, x in arrays.items()]
    return Figures(name, "arrays", tuple(steps), is_layout_known=False)


def require_known_step(step: str) -> None:
    """Check that some variant has a step of this name, or that it is a gradient.

    Raises:
        InputError: none has.
    """
    if find_figure_name(step) is None:
        message = f"there is no step called {printable(step)!r}"
        raise InputError("unknown-step", message, help=suggestion(step, names_like(step)))


def _step_figures_from_array(step: str | None, values: NumpyArray, dtype: str | None = None) -> StepFigures:
    """Make figures of an array; its bits, and how few digits its numbers need, tell the dtype they were computed in.

    Args:
        step: None if it is not named yet.
        values: the array.
        dtype: that it is stored in, where it has another one, as bfloat16 has in numpy.

    Raises:
        InputError: it holds no real numbers.
    """
    if values.dtype.kind == "V" and values.dtype.name == "bfloat16":  # numpy's by way of ml_dtypes
        values, dtype = values.astype(np.float32), "bfloat16"
    if values.dtype.kind not in "fbiu":
        raise InputError(
            "wrong-type", f"{step or 'the array'} holds {values.dtype}, not figures", help="save numbers or booleans"
        )
    if values.dtype.kind in "biu":
        return StepFigures(step, values)
    if dtype is None:
        dtype = {2: "float16", 4: "float32"}.get(values.dtype.itemsize, "float64")
    with np.errstate(all="ignore"):
        values = values.astype(np.float64)
        dtype = figure_precision.infer_dtype(values, dtype)
        if decimals := figure_precision.infer_decimals(values, dtype):
            return _rounded_figures(step, values, dtype, decimals)
        return StepFigures(step, values, dtype)
