"""The values of a step as text: `choose_number_format` decides how all its numbers are written, and any part of them is written
at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from attncli.text import printable
from attncli.types import NumpyArray

_MAX_PLAIN_NUMBER = 1e9  # a step with a larger one is written with exponents: all would be digits before the point
_NUMBERS_AT_ONCE = 2**16  # looked at, or held as text, at a time


HIDDEN = "·"  # in place of a number: the key is hidden from the query
DROPPED = "–"  # in place of a number: dropout set the weight to 0


class CellFormat(Protocol):
    """How the cells of one step are written."""

    @property
    def is_narrow(self) -> bool:
        """Whether every character takes one column on a terminal, as in all that we write ourselves; tokens may be wider."""
        ...

    def format(self, values: NumpyArray) -> list[str]:
        """Return the text of each value, in the order of rows."""
        ...


@dataclass(frozen=True)
class NumberFormat:
    """How the numbers of one step are written: all alike."""

    style: Literal["boolean", "integer", "fixed", "exponent"]
    precision: int = 0  # digits after the point
    is_narrow = True

    def format(self, values: NumpyArray) -> list[str]:
        """Return the text of each number, in the order of rows."""
        numbers = values.ravel()
        if self.style == "boolean":
            return ["yes" if value else HIDDEN for value in numbers.tolist()]
        if self.style == "integer":
            return list(map(str, numbers.tolist()))
        template = f"{{:.{self.precision}{'e' if self.style == 'exponent' else 'f'}}}"
        texts = list(map(template.format, numbers.tolist()))
        for i in np.flatnonzero(np.signbit(numbers) & (np.abs(numbers) <= 10.0**-self.precision)).tolist():
            if not texts[i].strip("-0.e+"):
                texts[i] = texts[i].removeprefix("-")  # no −0.0000
        for i in np.flatnonzero(~np.isfinite(numbers)).tolist():
            texts[i] = {"nan": "NaN", "inf": "∞", "-inf": "−∞"}[texts[i]]
        return texts


@dataclass(frozen=True)
class KeyFormat:
    """How indices of keys are written: each with its token."""

    tokens: Mapping[int, object]  # of the keys that are known: the token of one that was not selected is not
    is_narrow = False

    def format(self, values: NumpyArray) -> list[str]:
        """Return index and token of each key, in the order of rows."""
        return [index_and_token(j, self.tokens.get(j, j)) for j in values.ravel().tolist()]


def index_and_token(index: int, token: object) -> str:
    """`1 shiny`: the index and the token, or the index alone where it is the token as well."""
    text = printable(str(token))
    return text if text == str(index) else f"{index} {text}"


def choose_number_format(values: NumpyArray, precision: int) -> NumberFormat:
    """Choose how the numbers of one step are written.

    Args:
        values: all of them, of any shape: booleans, integers or floats.
        precision: digits after the point of a float.
    """
    if values.dtype == bool:
        return NumberFormat("boolean")
    if values.dtype.kind in "iu":
        return NumberFormat("integer")
    smallest, greatest = finite_range(values)
    largest = max(-smallest, greatest)
    would_print_zero = 0 < largest < 10.0 ** -(precision + 1)  # every number would be 0.0000
    return NumberFormat("exponent" if largest >= _MAX_PLAIN_NUMBER or would_print_zero else "fixed", precision)


def finite_range(values: NumpyArray) -> tuple[float, float]:
    """The smallest and the largest finite number; 0 and 0 where there is none."""
    smallest, largest = np.inf, -np.inf
    for some in np.nditer(values, ["external_loop", "buffered", "zerosize_ok"], buffersize=_NUMBERS_AT_ONCE):
        finite = np.asarray(some)[np.isfinite(some)].astype(np.float64)
        smallest = min(smallest, float(finite.min(initial=np.inf)))
        largest = max(largest, float(finite.max(initial=-np.inf)))
    return (smallest, largest) if smallest <= largest else (0.0, 0.0)


def sum_rows(values: NumpyArray) -> NumpyArray:
    """The sums along the last axis, in float64: (…, n, m) → (…, n)."""
    sums = np.empty(values.shape[:-1])
    count = rows_at_once(values.shape[-1])
    for index in np.ndindex(sums.shape[:-1]):
        for i in range(0, sums.shape[-1], count):
            sums[index][i : i + count] = values[index][i : i + count].astype(np.float64).sum(-1)
    return sums


def rows_at_once(column_count: int) -> int:
    """How many rows of so many columns are held as text at a time; at least one."""
    return max(1, _NUMBERS_AT_ONCE // max(1, column_count))
