"""What printing and storing does to figures: the dtype that they come from, and how many decimals were left of them.

`infer_dtype` and `infer_decimals` read that off the numbers themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from attncli.types import NumpyArray
from attncli.validation.fields import to_bfloat16

MANTISSA_BITS = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}
MIN_EXPONENTS = {"float64": -1022, "float32": -126, "float16": -14, "bfloat16": -126}
NARROW_DTYPES = ("bfloat16", "float16", "float32")
MAX_FLOAT32_DIGITS = 9  # significant digits that tell one float32 from another: nobody prints more of them
_FEW_BITS = {"bfloat16": 4, "float16": 6, "float32": 14}  # a number with more needs most bits of the dtype
_NATURAL_UNIT = 1 / 16  # multiples of it, and whole numbers, occur without rounding
_MIN_UNNATURAL = 2.0**-10  # what is smaller comes of no such number
_MIN_EVIDENCE_BITS = 6.0  # by which a dtype's numbers are sparser than those that could have been written
_MIN_EVIDENCE_BITS_BESIDE_EXACT = 4.0  # the same where it is known what the figures should be
_MIN_EVIDENCE_DIGITS = 1.5  # the same of decimals
_DECIMALS_OF_WHOLE_NUMBERS = (
    2  # they do not tell whether they were rounded: one-hot weights may come of 0.998 and 0.002
)
_MAX_FLOAT32_DECIMALS = 8  # after the point that programs print of a float32
_MAX_DECIMALS = 12  # to which an array is taken to be rounded
_FIRST_FIGURES = 4096  # that are looked at before all of them: most arrays are no narrower, and not rounded


# ── dtypes ───────────────────────────────────────────────────────────────────────────────────────
def spacing(dtype: str, values: NumpyArray) -> NumpyArray:
    """Return the distance between neighbouring numbers of a dtype, at each value."""
    exponents = np.where(np.isfinite(values) & (values != 0), np.frexp(values)[1] - 1, MIN_EXPONENTS[dtype])
    distance: NumpyArray = np.ldexp(1.0, np.maximum(exponents, MIN_EXPONENTS[dtype]) - MANTISSA_BITS[dtype])
    return distance


def to_dtype(dtype: str, values: NumpyArray) -> NumpyArray:
    """Round values to the nearest number of a dtype; they are held in float64."""
    if dtype == "bfloat16":
        return to_bfloat16(values).astype(np.float64)
    return values.astype(dtype).astype(np.float64)


@np.errstate(all="ignore")
def infer_dtype(
    values: NumpyArray, default: str, decimals: NumpyArray | None = None, exact: NumpyArray | None = None
) -> str:
    """Infer the narrowest dtype of which every value is a number, where few numbers are; else the default.

    Args:
        values: in float64.
        default: the dtype where nothing tells a narrower one.
        decimals: how many each was printed with, if they were: the dtype's number is within the last digit then.
        exact: what each should be, if that is known. Otherwise whole numbers and sixteenths may be exact, and tell nothing.
    """
    is_finite = np.isfinite(values) if exact is None else np.isfinite(values) & np.isfinite(exact)
    x = values[is_finite]
    unit = spacing(default, x) if decimals is None else 10.0 ** -decimals[is_finite].astype(np.float64)
    for dtype in NARROW_DTYPES:
        if dtype == default:
            break
        if not all(
            _are_numbers_of(dtype, x[part], None if decimals is None else unit[part])
            for part in _first_then_others(x.size)
        ):
            continue
        if exact is None:
            bits = _count_bits(dtype, x, _natural_units(x, unit), _needs_most_bits(dtype, x))
            is_told = bits >= _MIN_EVIDENCE_BITS
        else:
            is_inexact = np.abs(to_dtype(dtype, exact[is_finite]) - exact[is_finite]) > unit
            is_told = _count_bits(dtype, x, unit, is_inexact) >= _MIN_EVIDENCE_BITS_BESIDE_EXACT
        if is_told:
            return dtype
    return default


@np.errstate(all="ignore")
def possible_dtypes_of_short_figures(values: NumpyArray, decimals: NumpyArray, exact: NumpyArray) -> Iterator[str]:
    """Yield the half precisions whose numbers may be so short that they look exact: 82.0 and 57.5, as programs write all of them.

    Each must be a number of the dtype, with the digits that it takes; and where it is not the reference rounded, the dtype
    cannot hold that, and the figure is next to it.

    Args:
        values: in float64.
        decimals: how many each is written with.
        exact: what each should be.
    """
    is_finite = np.isfinite(values) & np.isfinite(exact)
    x, places, target = values[is_finite], decimals[is_finite], exact[is_finite]
    without_last = x * 10.0 ** (places.astype(np.float64) - 1)
    if ((places > 1) & (np.rint(without_last) == without_last)).any():
        return  # a zero at the end: somebody chose how many digits there are
    for dtype in ("float16", "bfloat16"):
        is_inexact = to_dtype(dtype, target) != target
        allowed = np.maximum(np.where(is_inexact, spacing(dtype, target), 0.0), 10.0 ** -places.astype(np.float64) / 2)
        is_next = np.abs(x - target) <= allowed
        if (to_dtype(dtype, x) == x).all() and is_next.all():
            yield dtype


@np.errstate(all="ignore")
def may_be_printed_float32(values: NumpyArray, decimals: NumpyArray) -> bool:
    """Tell whether figures can be float32 numbers with so many decimals as programs print of them, however many digits that is.

    Args:
        values: in float64.
        decimals: how many each was printed with.
    """
    x, unit = values[np.isfinite(values)], 10.0 ** -decimals[np.isfinite(values)].astype(np.float64)
    is_short = int(decimals.max(initial=0)) <= _MAX_FLOAT32_DECIMALS
    return is_short and all(_are_numbers_of("float32", x[part], unit[part]) for part in _first_then_others(x.size))


def _first_then_others(count: int) -> Iterator[slice[int | None, int | None, None]]:
    """Yield the first figures, which decide of most arrays, then the others."""
    yield slice(_FIRST_FIGURES)
    if count > _FIRST_FIGURES:
        yield slice(_FIRST_FIGURES, None)


def _are_numbers_of(dtype: str, x: NumpyArray, printed: NumpyArray | None) -> bool:
    """Tell whether each figure is a number of a dtype, or what printing leaves of one: rounded, or cut off."""
    near = to_dtype(dtype, x)
    if printed is None:
        return bool((near == x).all())
    reach = spacing("float64", x)
    if (np.abs(x - near) <= printed / 2 + reach).all():
        return True
    outward = np.where(np.abs(near) >= np.abs(x) - reach, near, near + np.copysign(spacing(dtype, near), x))
    return bool((np.abs(outward - x) < printed + reach).all())


def _count_bits(dtype: str, x: NumpyArray, unit: NumpyArray, may_tell: NumpyArray) -> float:
    """Count the bits of evidence for a dtype: how much sparser its numbers are than those that could have been written."""
    bits = np.log2(spacing(dtype, x) / unit)
    return float(bits[may_tell & (bits > 0) & (x != 0)].sum())


def _needs_most_bits(dtype: str, x: NumpyArray) -> NumpyArray:
    """Tell which numbers of a dtype need most of its bits, or are too small to be exact."""
    mantissa = np.frexp(to_dtype(dtype, x))[0]
    needs_bits: NumpyArray = (mantissa * 2.0 ** _FEW_BITS[dtype] % 1 != 0) | (np.abs(x) < _MIN_UNNATURAL)
    return needs_bits


def _natural_units(x: NumpyArray, unit: NumpyArray) -> NumpyArray:
    """Return the unit that each figure could have been written with, where whole numbers and sixteenths are exact."""
    natural_units = np.where(x == np.rint(x), 1.0, np.where(x % _NATURAL_UNIT == 0, _NATURAL_UNIT, 0.0))
    units: NumpyArray = np.maximum(unit, natural_units)
    return units


# ── decimals ─────────────────────────────────────────────────────────────────────────────────────
@np.errstate(all="ignore")
def infer_decimals(values: NumpyArray, dtype: str) -> int | None:
    """Infer to how many decimals an array of a dtype was rounded; None where it was not.

    Args:
        values: in float64, each a number of the dtype.
        dtype: the one they were rounded in.
    """
    x = values[np.isfinite(values)]
    if (x == np.rint(x)).all():
        return _DECIMALS_OF_WHOLE_NUMBERS
    for decimals in range(1, _MAX_DECIMALS + 1):
        if all(_are_rounded(x[part], decimals, dtype) for part in _first_then_others(x.size)):
            digits = np.log10(10.0**-decimals / (_rounding_slack(dtype, x[x != 0]) * 2 + spacing(dtype, x[x != 0])))
            return decimals if digits[digits > 0].sum() >= _MIN_EVIDENCE_DIGITS else None
    return None


def _are_rounded(x: NumpyArray, decimals: int, dtype: str) -> bool:
    """Tell whether each figure is the number of a dtype that is next to so many decimals, or a neighbour of that."""
    rounded = np.rint(x * 10.0**decimals) / 10.0**decimals
    return bool((np.abs(to_dtype(dtype, rounded) - x) <= _rounding_slack(dtype, x)).all())


def _rounding_slack(dtype: str, x: NumpyArray) -> NumpyArray:
    """Return by how much a rounded number may miss the one next to its decimals, as some libraries round."""
    return 0 * x if dtype in ("float16", "bfloat16") else 2 * spacing(dtype, x)


def implied_decimals(values: NumpyArray, decimals: NumpyArray, digits: NumpyArray) -> NumpyArray:
    """Return how many decimals each figure has if a program wrote them all: a short one lost the zeros at its end.

    Either all have as many decimals as the longest, or all have as many significant digits, whichever is fewer.

    Args:
        values: the figures.
        decimals: how many each is written with.
        digits: how many significant digits each is written with.
    """
    x = values.astype(np.float64)
    is_number = np.isfinite(x) & (x != 0)
    exponents = np.floor(np.log10(np.abs(np.where(is_number, x, 1.0)))).astype(np.int64)
    by_digits = int(digits.max(initial=1)) - 1 - exponents
    return np.maximum(decimals, np.minimum(int(decimals.max(initial=0)), np.where(is_number, by_digits, decimals)))


def count_digits(values: NumpyArray, decimals: NumpyArray) -> int:
    """Count the significant digits of the longest figure, each written with so many decimals."""
    x = np.abs(values.astype(np.float64))
    is_number = np.isfinite(x) & (x != 0)
    if not is_number.any():
        return 0
    return int((np.floor(np.log10(x[is_number])).astype(np.int64) + 1 + decimals[is_number]).max())
