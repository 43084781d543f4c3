"""Whether a printed equation comes out when it is worked with a calculator. `is_consistent` is the entry.

Each side is evaluated from its numbers as they are printed, digits lost, and the operators between them.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from attncli.types import NumpyArray
from attncli.views.explain.numbers import PrintedNumber

PrintedVector: TypeAlias = tuple[PrintedNumber, ...]  # without the entries that were left out
PrintedItem: TypeAlias = str | PrintedNumber | PrintedVector  # text holds operators, brackets, names and whole numbers
Value: TypeAlias = "np.float64 | NumpyArray"  # a number, or a vector
_Token: TypeAlias = "str | Value"

_OPERATORS: dict[str, Callable[[Value, Value], Value]] = {
    "+": operator.add, "−": operator.sub, "·": operator.mul, "×": operator.mul, "/": operator.truediv,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[[Value], Value]] = {
    "√": np.sqrt, "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "ln": np.log,
}  # fmt: skip
_CONSTANTS = {"e": math.e, "∞": math.inf, "NaN": math.nan}
_TEXT_TOKEN = re.compile(r"(?P<count>\d+ more:)|(?P<number>\d+(?:\.\d+)?)|(?P<symbol>[A-Za-z]+|\S)")
_EXACT_TOLERANCE = 1e-9  # of a number with fewer digits than the precision: it would have more if it needed them


@dataclass(frozen=True)
class PrintedSide:
    """One side of an equation as it stands on the page."""

    text: str
    items: tuple[PrintedItem, ...]

    @cached_property
    def value(self) -> Value | None:
        """What a calculator gives for it; None if a number is blank, or it is no arithmetic."""
        try:
            with np.errstate(all="ignore"):
                return _Calculator(self.items).value()
        except (_NoArithmeticError, ValueError):  # ValueError: vectors of two lengths
            return None

    def rounding_tolerance(self, precision: int) -> float | NumpyArray:
        """By how much rounding may have moved it: half a unit of the last digit of each printed number of a vector, or of
        the number that it ends in."""
        *before, last = self.items
        if not before and isinstance(last, tuple):
            return np.array([_number_tolerance(number, precision) for number in last])
        if last == ")" and before:
            last = before[-1]
        return _number_tolerance(last if isinstance(last, PrintedNumber) else None, precision)


def _number_tolerance(number: PrintedNumber | None, precision: int) -> float:
    """Half a unit of the last printed digit; next to nothing for a number with fewer digits, which is exact."""
    decimals, exponent = (number.decimals, number.exponent) if number else (0, 0)
    has_exponent = number is not None and "e" in number.digits
    if has_exponent or decimals >= precision:
        return 0.5000001 * 10.0 ** (exponent - decimals)
    return _EXACT_TOLERANCE


def is_consistent(sides: Sequence[PrintedSide], precision: int, terms_above: Sequence[Value | None] = ()) -> bool:
    """Whether each side gives the printed result of the next; true where it cannot be worked.

    Args:
        sides: of one equation; an empty first side stands for the sum of the lines above it.
        precision: digits after the point.
        terms_above: what those lines come to.
    """
    values = [side.value for side in sides]
    if not sides[0].text:
        values = [_sum_of(terms_above), sides[-1].value]
    for left, right, side in zip(values, values[1:], sides[1:], strict=False):
        if left is not None and right is not None and np.shape(left) == np.shape(right):
            with np.errstate(all="ignore"):
                is_near = np.abs(left - right) <= side.rounding_tolerance(precision)
            if not np.all(is_near | ~np.isfinite(right)):
                return False
    return True


def _sum_of(terms: Sequence[Value | None]) -> Value | None:
    """The sum of all terms; None if there is none, or one cannot be worked."""
    known = [term for term in terms if term is not None]
    if not known or len(known) < len(terms):
        return None
    return sum(known[1:], known[0])


class _NoArithmeticError(Exception):
    """The side holds words, or a number is blank."""


class _Calculator:
    """sum := product (± product)*; product := factor (·×/ factor)*; factor := −factor | atom (^factor | ²)*"""

    def __init__(self, items: Sequence[PrintedItem]) -> None:
        self.tokens, self.position = list(_tokens_of(items)), 0

    def value(self) -> Value:
        """The value of the whole side.

        Raises:
            _NoArithmeticError: it has none.
        """
        value = self._sum()
        if self.position < len(self.tokens):
            raise _NoArithmeticError
        return value

    def _next_symbol(self, symbols: str) -> str:
        """Take the next token if it is one of these symbols of one letter; empty if it is not."""
        token = self.tokens[self.position] if self.position < len(self.tokens) else ""
        if not isinstance(token, str) or not token or token not in symbols:
            return ""
        self.position += 1
        return token

    def _expect(self, symbol: str) -> None:
        if not self._next_symbol(symbol):
            raise _NoArithmeticError

    def _sum(self) -> Value:
        value = self._product()
        while symbol := self._next_symbol("+−"):
            value = _OPERATORS[symbol](value, self._product())
        return value

    def _product(self) -> Value:
        value = self._factor()
        while symbol := self._next_symbol("·×/"):
            value = _OPERATORS[symbol](value, self._factor())
        return value

    def _factor(self) -> Value:
        if self._next_symbol("−"):
            return -self._factor()
        value = self._atom()
        while symbol := self._next_symbol("^²"):
            value = value ** (self._factor() if symbol == "^" else np.float64(2))
        return value

    def _atom(self) -> Value:
        if self.position == len(self.tokens):
            raise _NoArithmeticError
        token = self.tokens[self.position]
        self.position += 1
        if not isinstance(token, str):
            return token
        if token in _CONSTANTS:
            return np.float64(_CONSTANTS[token])
        if token == "(":
            value = self._sum()
            self._expect(")")
            return value
        if token == "|":
            value = self._sum()
            self._expect("|")
            return np.abs(value)
        if token in _FUNCTIONS:
            return _FUNCTIONS[token](self._atom())
        if token == "max":
            self._expect("(")
            first = self._sum()
            self._expect(",")
            second = self._sum()
            self._expect(")")
            return np.maximum(first, second)
        raise _NoArithmeticError


def _tokens_of(items: Sequence[PrintedItem]) -> Iterator[_Token]:
    """Symbols of the text, and numbers and vectors as values; a minus before a number is a symbol of its own.

    Raises:
        _NoArithmeticError: a number is blank, or the number of an earlier gap stands for it.
    """
    for item in items:
        if isinstance(item, str):
            for match in _TEXT_TOKEN.finditer(item):
                if match["number"]:
                    yield np.float64(match["number"])
                elif match["symbol"]:
                    yield match["symbol"]
        elif isinstance(item, PrintedNumber):
            value = _known(item)
            if value < 0:
                yield "−"
            yield np.abs(value)
        else:
            yield np.array([_known(number) for number in item])


def _known(number: PrintedNumber) -> np.float64:
    """The value of a printed number.

    Raises:
        _NoArithmeticError: it is blank.
    """
    if number.value is None:
        raise _NoArithmeticError
    return np.float64(number.value)
