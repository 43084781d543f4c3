"""Figures as they are claimed, step by step, with the digits they are written with; the problem is not known yet.

`figure_files` and `worksheet` read `Figures` from files; `figures_from_expected`, `figures_from_result` and
`figures_from_arrays` make them of what is in memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from attncli.errors import InputError
from attncli.text import printable, suggestion
from attncli.types import Attention, Json, NumpyArray
from attncli.validation.fields import STEP_NAMES, as_numpy, is_tensor, to_bfloat16

_WRITTEN_NUMBER_PATTERN = re.compile(r"[-+−]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")
_MAX_HANDWRITTEN_DIGITS = 8  # significant digits that people write; more are a program's
_FEW_MANTISSA_BITS = {"bfloat16": 4, "float16": 6, "float32": 14}  # a number with more needs most bits of the dtype
_MIN_TELLING_FIGURES = 4  # so many numbers with more bits than those few tell the dtype


@dataclass(frozen=True)
class StepFigures:
    """Figures of one step, or of a step that the command line names."""

    step: str | None
    values: NumpyArray  # float64, booleans or integers
    dtype: str = "float64"  # that they were computed in, as far as can be seen; "text": written with few digits
    decimals: NumpyArray | None = None  # how many each was written with, if the dtype is "text"
    axes: tuple[str, ...] | None = None  # of the values, where they are known
    axis_indices: Mapping[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # which indices of an axis the values have
    rows: tuple[int, ...] | None = None  # which indices of the last axis but one
    columns: tuple[int, ...] | None = None  # which indices of the last axis
    row_labels: tuple[str, ...] | None = None  # of its rows
    cells: tuple[Mapping[str, int], ...] | None = None  # the cell of each figure, where they form no block
    cell_indices: tuple[tuple[int, ...], ...] | None = (
        None  # the same as indices, axis by axis, as worksheets give them
    )
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


# ── digits ───────────────────────────────────────────────────────────────────────────────────────
class WrittenNumber(NamedTuple):
    """A number as it is written: 0.0629 has 4 decimals and 3 significant digits."""

    value: float
    decimals: int
    significant_digits: int


def parse_written_number(text: str) -> WrittenNumber:
    """Parse a number as people write them: with a comma, a true minus sign or ∞ too."""
    ascii_text = text.strip().replace("−", "-").replace(",", ".").replace("∞", "inf")
    if not any(c.isdigit() for c in ascii_text):
        return WrittenNumber(float(ascii_text), 0, 0)
    mantissa, _, exponent = ascii_text.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("+-").partition(".")
    return WrittenNumber(float(ascii_text), len(fraction) - int(exponent or 0), len((whole + fraction).lstrip("0")))


def is_number(text: str) -> bool:
    """Tell whether a text is a number as people write them."""
    return bool(_WRITTEN_NUMBER_PATTERN.fullmatch(text.strip())) and (text.isascii() or "−" in text)


def infer_dtype(values: NumpyArray, default: str) -> str:
    """Infer the narrowest dtype that holds every value, where some need most of its digits; else the default."""
    x = values[np.isfinite(values)].ravel()
    with np.errstate(over="ignore"):
        rounded = {
            "bfloat16": to_bfloat16(x).astype(np.float64),
            "float16": x.astype(np.float16).astype(np.float64),
            "float32": x.astype(np.float32).astype(np.float64),
        }
    mantissa = np.frexp(x)[0]
    for dtype, few_bits in _FEW_MANTISSA_BITS.items():
        telling = np.count_nonzero(mantissa * 2**few_bits % 1)
        if telling >= _MIN_TELLING_FIGURES and np.array_equal(rounded[dtype], x):
            return dtype
    return default


def _infer_decimals(values: NumpyArray) -> int | None:
    """Infer to how many decimals an array was rounded: the most of any number; None where one has more digits than people write."""
    finite = values[np.isfinite(values)].ravel()
    if (finite == np.rint(finite)).all():  # whole numbers were not rounded
        return None
    for numbers in (finite[:64], finite):  # the first few numbers are enough for most arrays
        written = [parse_written_number(repr(float(x))) for x in numbers]
        if max(number.significant_digits for number in written) > _MAX_HANDWRITTEN_DIGITS:
            return None
    return max(number.decimals for number in written)


def step_figures_from_texts(step: str | None, values: NumpyArray, texts: Sequence[str]) -> StepFigures:
    """Make figures of numbers and their texts, in order: few digits are compared as written, many tell the dtype."""
    written = [parse_written_number(t) if t and is_number(t) else WrittenNumber(0.0, 0, 0) for t in texts]
    most_digits = max((number.significant_digits for number in written), default=0)
    if most_digits <= _MAX_HANDWRITTEN_DIGITS:
        decimals = np.array([number.decimals for number in written], int).reshape(values.shape)
        return StepFigures(step, values, "text", decimals)
    dtype = infer_dtype(values, "float64")
    if dtype == "float64" and most_digits <= 9 and _are_shortest_float32(values, texts):
        dtype = "float32"
    return StepFigures(step, values, dtype)


def _are_shortest_float32(values: NumpyArray, texts: Sequence[str]) -> bool:
    """Tell whether every text is the shortest that reads back to some float32, as programs print them."""
    with np.errstate(over="ignore"):
        float32_values = values.astype(np.float32).ravel()
    return all(not t or float(str(x)) == float(t.replace("−", "-")) for x, t in zip(float32_values, texts, strict=True))


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
        axis_indices = {axis: result.at[axis] for axis in step.axes if axis in result.at}
        steps.append(StepFigures(step.name, values, result.dtype, axes=step.axes, axis_indices=axis_indices))
    return Figures(name, "result", tuple(steps))


def figures_from_arrays(arrays: Json, name: str = "figures") -> Figures:
    """Make figures of arrays or tensors by the names of steps, for callers from Python.

    Raises:
        InputError: a name is no step's, or there are no arrays.
    """
    figures = figures_from_named_arrays(name, {step: as_numpy(x) for step, x in arrays.items()})
    dtypes = {step: str(x.dtype).removeprefix("torch.") for step, x in arrays.items() if is_tensor(x)}  # bfloat16 too
    return replace(
        figures, steps=tuple(replace(step, dtype=dtypes.get(str(step.step), step.dtype)) for step in figures.steps)
    )


def figures_from_named_arrays(name: str, arrays: Mapping[str, NumpyArray]) -> Figures:
    """Make figures of arrays under the names of steps, or of a single one without a name.

    Raises:
        InputError: a name is no step's, or there are no arrays.
    """
    is_unnamed = any(re.fullmatch(r"arr_\d+", step) or step in ("", "array", "data") for step in arrays)
    if len(arrays) == 1 and is_unnamed:
        steps = [_step_figures_from_array(None, x) for x in arrays.values()]
        return Figures(name, "arrays", tuple(steps), is_layout_known=False)
    for step in arrays:
        require_known_step(step)
    if not arrays:
        raise InputError("no-figures", "there is no array in it")
    steps = [_step_figures_from_array(step, x) for step, x in arrays.items()]
    return Figures(name, "arrays", tuple(steps), is_layout_known=False)


def require_known_step(step: str) -> None:
    """Check that some variant has a step of this name.

    Raises:
        InputError: none has.
    """
    base, _, again = step.rpartition("_")
    if step not in STEP_NAMES and not (base in STEP_NAMES and again.isdigit()):
        raise InputError("unknown-step", f"no step is called {printable(step)!r}", help=suggestion(step, STEP_NAMES))


def _step_figures_from_array(step: str | None, values: NumpyArray) -> StepFigures:
    """Make figures of an array; its bits, or how few digits its numbers need, tell the dtype they were computed in."""
    if values.dtype.kind in "biu":
        return StepFigures(step, values)
    is_float = values.dtype.kind == "f"
    stored_dtype = {2: "float16", 4: "float32"}.get(values.dtype.itemsize, "float64") if is_float else "float64"
    values = values.astype(np.float64)
    if is_float and stored_dtype == "float64" and (decimals := _infer_decimals(values)):
        return StepFigures(step, values, "text", np.full(values.shape, decimals))
    return StepFigures(step, values, infer_dtype(values, stored_dtype))
