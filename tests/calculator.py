"""A pocket calculator for printed arithmetic: every number is an interval, half a unit of its last digit to each side.

An oracle of its own: it shares nothing with the program but the symbols on the page.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise

TOKEN = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\d.])|more:|tanh|sin|cos|max|ln|NaN|[-−+·×/^²√()\[\]|,…e∞]")


class Interval(tuple):
    """(low, high)"""


def printed_interval(text: str, precision: int) -> Interval:
    x = float(text)
    mantissa, _, power = text.partition("e")
    digits = len(mantissa.partition(".")[2])
    if power or digits >= precision:
        half = 0.5000001 * 10.0 ** (int(power or 0) - digits)
        return Interval((x - half, x + half))
    return Interval((x - 1e-11 * abs(x), x + 1e-11 * abs(x)))  # it would have more digits if it had more


def apply_to_intervals(function, *sides: Interval) -> Interval:
    """A function that is monotone, or nearly straight, within so small an interval."""
    corners = [()]
    for low, high in sides:
        corners = [(*c, x) for c in corners for x in (low, (low + high) / 2, high)]
    values = [function(*c) for c in corners]
    if any(math.isnan(x) for x in values):
        return Interval((math.nan, math.nan))
    return Interval((min(values), max(values)))


def apply_elementwise(function, *operands):
    """Number by number: vectors entry by entry, a number with every entry."""
    lengths = {len(x) for x in operands if isinstance(x, list)}
    if not lengths:
        return apply_to_intervals(function, *operands)
    assert len(lengths) == 1, operands
    n = lengths.pop()
    rows = [x if isinstance(x, list) else [x] * n for x in operands]
    return [None if None in row else apply_to_intervals(function, *row) for row in zip(*rows, strict=True)]


def nan_on_error(function):
    def call(*xs):
        try:
            return function(*xs)
        except (OverflowError, ZeroDivisionError, ValueError):
            return math.nan

    return call


class Calculator:
    """sum := product (± product)*; product := power (·|×|/ power)*; power := atom (^ power | ²)*"""

    def __init__(self, text: str, precision: int) -> None:
        text = re.sub(r"\d+ more: ", "", text)
        self.tokens = TOKEN.findall(text)
        assert "".join(self.tokens) == re.sub(r"\s+", "", text), f"not arithmetic: {text}"
        self.precision, self.position = precision, 0

    def value(self):
        out = self.sum()
        assert self.position == len(self.tokens), self.tokens[self.position :]
        return out

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, *expected: str) -> str:
        """Take the next token if it is one of these; empty if it is not."""
        if self.peek() in expected:
            self.position += 1
            return self.tokens[self.position - 1]
        return ""

    def sum(self):
        out = self.product()
        while sign := self.take("+", "−"):
            other = self.product()
            out = apply_elementwise(lambda a, b, sign=sign: a + b if sign == "+" else a - b, out, other)
        return out

    def product(self):
        out = self.power()
        while sign := self.take("·", "×", "/"):
            other = self.power()
            out = apply_elementwise(nan_on_error(lambda a, b, sign=sign: a / b if sign == "/" else a * b), out, other)
        return out

    def power(self):
        if self.take("-", "−"):
            return apply_elementwise(lambda x: -x, self.power())
        out = self.atom()
        while sign := self.take("^", "²"):
            if sign == "²":
                out = apply_elementwise(lambda x: x * x, out)
            else:
                exponent = self.power()
                out = apply_elementwise(nan_on_error(lambda a, b: a**b), out, exponent)
        return out

    def atom(self):
        token = self.peek()
        self.position += 1
        if token == "e":
            return Interval((math.e, math.e))
        if token == "∞":
            return Interval((math.inf, math.inf))
        if token == "NaN":
            return Interval((math.nan, math.nan))
        if token == "(":
            out = self.sum()
            assert self.take(")")
            return out
        if token == "|":
            out = self.sum()
            assert self.take("|")
            return apply_elementwise(abs, out)
        if token == "[":
            out = []
            while not self.take("]"):
                out.append(None if self.take("…") else self.power())
            return out
        if token == "ln":
            return apply_elementwise(nan_on_error(math.log), self.power())
        if token in ("√", "tanh", "sin", "cos"):
            function = {"√": lambda x: math.sqrt(max(x, 0)), "tanh": math.tanh, "sin": math.sin, "cos": math.cos}[token]
            return apply_elementwise(function, self.power())
        if token == "max":
            assert self.take("(")
            first = self.sum()
            assert self.take(",")
            second = self.sum()
            assert self.take(")")
            return apply_elementwise(max, first, second)
        return printed_interval(token, self.precision)


def equation_holds(equation: str, precision: int) -> bool:
    """Whether all sides of `a × b + … = c` can be equal, given how each printed number was rounded."""
    sides = [Calculator(side, precision).value() for side in equation.split(" = ")]
    return all(overlap(a, b) for a, b in pairwise(sides))


def overlap(a, b) -> bool:
    if isinstance(a, list) or isinstance(b, list):
        return len(a) == len(b) and all(
            (x is None) == (y is None) and (x is None or overlap(x, y)) for x, y in zip(a, b, strict=True)
        )
    if math.isnan(a[0]) or math.isnan(b[0]):
        return math.isnan(a[0]) == math.isnan(b[0])
    slack = 1e-9 * max(1.0, *(abs(x) for x in (*a, *b) if math.isfinite(x))) if math.isfinite(a[0]) else 0
    return a[0] <= b[1] + slack and b[0] <= a[1] + slack


def terms_add_up(terms: list[str], total: str, precision: int) -> bool:
    """Whether printed vectors can add up to a printed one."""
    out = Calculator(terms[0], precision).value()
    for term in terms[1:]:
        out = apply_elementwise(lambda a, b: a + b, out, Calculator(term, precision).value())
    return overlap(out, Calculator(total, precision).value())
