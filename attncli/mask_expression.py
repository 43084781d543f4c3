"""Parse masks joined by `and`, `or`, `not` and parentheses, write them back as text, and evaluate them on a grid.

Entries: `parse_expression`, and the tree that it returns, `MaskExpression`. The grammar:

or:    and ("or" and)*          binds loosest
and:   not ("and" not)*
not:   "not" not | "(" or ")" | name:option=value,…
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

from attncli.derivation import record_intermediate
from attncli.errors import Location, OptionError
from attncli.registry import Family, Part
from attncli.text import shorten

if TYPE_CHECKING:
    from attncli.parts.traits import MaskTraits
    from attncli.types import Array, Grid

_TOKEN_PATTERN = re.compile(r"[()]|[^\s()]+")
MAX_PARTS = 256  # masks in one expression; each is evaluated on every score
_MAX_WORDS = 16 * MAX_PARTS  # parentheses, and, or, not and masks
_MAX_NESTING = 50  # parentheses and nots within each other; more is a slip, and Python's stack is limited


@dataclass(frozen=True)
class MaskExpression:
    """A node of the tree: a part, or `not`, `and`, `or` over other nodes."""

    kind: Literal["part", "not", "and", "or"]
    part: Part[MaskTraits] | None = None
    operands: tuple[MaskExpression, ...] = ()

    def __call__(self, grid: Grid) -> Array:
        """Evaluate the expression on a grid: booleans that broadcast to (b, h, n, m)."""
        if self.part:
            return record_intermediate(str(self.part), self.part(grid.for_masks))
        values = [operand(grid) for operand in self.operands]
        if self.kind == "not":
            return ~values[0]
        return functools.reduce(operator.and_ if self.kind == "and" else operator.or_, values)

    def iter_parts(self) -> Iterator[Part[MaskTraits]]:
        """Yield every part that is named, left to right."""
        if self.part:
            yield self.part
        for operand in self.operands:
            yield from operand.iter_parts()

    def deciding_parts(
        self, part_holds: Callable[[Part[MaskTraits]], bool], value: bool = False
    ) -> Iterator[tuple[Part[MaskTraits], bool]]:
        """Yield the parts that make the expression `value` at one cell, each with its own value there."""
        if self.part:
            yield self.part, value
        elif self.kind == "not":
            yield from self.operands[0].deciding_parts(part_holds, not value)
        else:
            for operand in self.operands:
                if operand.holds(part_holds) == value:
                    yield from operand.deciding_parts(part_holds, value)

    def holds(self, part_holds: Callable[[Part[MaskTraits]], bool]) -> bool:
        """Whether the expression holds at one cell, from what its parts are there."""
        if self.part:
            return part_holds(self.part)
        if self.kind == "not":
            return not self.operands[0].holds(part_holds)
        return (all if self.kind == "and" else any)(operand.holds(part_holds) for operand in self.operands)

    def __str__(self) -> str:
        if self.part:
            return str(self.part)
        texts = [
            f"({operand})" if operand.kind in ("and", "or") and operand.kind != self.kind else str(operand)
            for operand in self.operands
        ]
        return f"not {texts[0]}" if self.kind == "not" else f" {self.kind} ".join(texts)


def conjunction(*terms: MaskExpression) -> MaskExpression:
    """Join expressions by `and`; duplicates and `full` are left out, and one alone stays as it is."""
    unique = [*dict.fromkeys(_flatten("and", terms))]
    hiding = [term for term in unique if str(term) != "full"] or unique[:1]
    return hiding[0] if len(hiding) == 1 else MaskExpression("and", operands=tuple(hiding))


def _flatten(kind: Literal["and", "or"], terms: Iterable[MaskExpression]) -> list[MaskExpression]:
    """Replace terms that are of the kind themselves by their operands."""
    return [operand for term in terms for operand in (term.operands if term.kind == kind else (term,))]


def parse_expression(text: str, family: Family[MaskTraits]) -> MaskExpression:
    """Parse text as an expression over the parts of a family.

    Raises:
        OptionError: it is no expression (with a caret where it breaks), or names what the family has not.
    """
    return _Parser(text, family).parse()


class _Parser:
    """A recursive-descent parser: one method for each rule of the grammar."""

    def __init__(self, text: str, family: Family[MaskTraits]) -> None:
        self.text = text
        self.family = family
        words = islice(_TOKEN_PATTERN.finditer(text), _MAX_WORDS)
        self.words = [(match.group(), match.start()) for match in words]
        self.next = 0  # index of the next word
        self.part_count = 0  # of those parsed so far

    def parse(self) -> MaskExpression:
        if len(self.words) == _MAX_WORDS:
            raise OptionError("bad-expression", f"{self.family.name} expression: it has {_MAX_WORDS:,} words or more")
        tree = self._parse_or(0)
        word = self._peek()
        if word == ")":
            raise self._error("this closing parenthesis has no opening one")
        if word:
            raise self._error(f"'and' or 'or' is missing before {shorten(word)!r}")
        return tree

    def _peek(self) -> str:
        """Return the next word; nothing at the end."""
        return self.words[self.next][0] if self.next < len(self.words) else ""

    def _parse_or(self, depth: int) -> MaskExpression:
        return self._parse_joined("or", self._parse_and, depth)

    def _parse_and(self, depth: int) -> MaskExpression:
        return self._parse_joined("and", self._parse_not, depth)

    def _parse_joined(
        self, kind: Literal["and", "or"], parse_term: Callable[[int], MaskExpression], depth: int
    ) -> MaskExpression:
        terms = [parse_term(depth)]
        while self._peek() == kind:
            self.next += 1
            terms.append(parse_term(depth))
        return terms[0] if len(terms) == 1 else MaskExpression(kind, operands=tuple(_flatten(kind, terms)))

    def _parse_not(self, depth: int) -> MaskExpression:
        if depth > _MAX_NESTING:
            raise self._error(f"it is nested deeper than {_MAX_NESTING} levels")
        word = self._peek()
        if not word:
            raise self._error("a name is missing at the end")
        if word in (")", "and", "or"):
            raise self._error(f"a name is missing before {shorten(word)!r}")
        self.next += 1
        if word == "not":
            return MaskExpression("not", operands=(self._parse_not(depth + 1),))
        if word != "(":
            self.part_count += 1
            if self.part_count > MAX_PARTS:
                raise self._error(f"it has more than {MAX_PARTS} masks")
            return MaskExpression("part", self.family.parse(word))
        inner = self._parse_or(depth + 1)
        if self._peek() != ")":
            raise self._error("a closing parenthesis is missing")
        self.next += 1
        return inner

    def _error(self, message: str) -> OptionError:
        """Make an error with a caret under the next word."""
        word, start = self.words[self.next] if self.next < len(self.words) else (" ", len(self.text))
        return OptionError(
            "bad-expression",
            f"{self.family.name} expression: {message}",
            location=Location(source_lines=((1, self.text),), line=1, column=start + 1, caret_width=len(word)),
            help="join names with and, or, not and parentheses: 'causal and (window:left=2 or prefix:length=4)'",
        )
