"""Masks joined by `and`, `or`, `not` and parentheses: text → tree → text, and the tree evaluated on a grid.

or:    and ("or" and)*          binds loosest
and:   not ("and" not)*
not:   "not" not | "(" or ")" | name:option=value,…
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from attncli.derivation import finer
from attncli.errors import OptionError, Place
from attncli.registry import Family, Part

if TYPE_CHECKING:
    from attncli.parts.traits import MaskTraits
    from attncli.types import Array, Grid

_WORD = re.compile(r"\s*([()]|[^\s()]+)")
_DEEPEST = 50  # parentheses and nots within each other; more is a slip, and Python's own stack is not endless


@dataclass(frozen=True)
class Expression:
    """A part, or `not`, `and`, `or` over expressions."""

    word: Literal["part", "not", "and", "or"]
    part: Part[MaskTraits] | None = None
    terms: tuple[Expression, ...] = ()

    def __call__(self, at: Grid) -> Array:
        """The booleans of the whole expression on a grid, as broadcastable as its parts leave them."""
        if self.part:
            return finer(str(self.part), self.part(at))
        values = [term(at) for term in self.terms]
        if self.word == "not":
            return ~values[0]
        out = values[0]
        for value in values[1:]:
            out = out & value if self.word == "and" else out | value
        return out

    def parts(self) -> Iterator[Part[MaskTraits]]:
        """Every part that is named, left to right."""
        if self.part:
            yield self.part
        for term in self.terms:
            yield from term.parts()

    def blame(
        self, holds: Callable[[Part[MaskTraits]], bool], value: bool = False
    ) -> Iterator[tuple[Part[MaskTraits], bool]]:
        """The parts to which a cell owes that the whole is `value`, each with what it says itself."""
        if self.part:
            yield self.part, value
        elif self.word == "not":
            yield from self.terms[0].blame(holds, not value)
        else:
            decisive = [term for term in self.terms if term.says(holds) == value]
            for term in decisive:
                yield from term.blame(holds, value)

    def says(self, holds: Callable[[Part[MaskTraits]], bool]) -> bool:
        """The whole at one cell, from what its parts say there."""
        if self.part:
            return holds(self.part)
        if self.word == "not":
            return not self.terms[0].says(holds)
        return (all if self.word == "and" else any)(term.says(holds) for term in self.terms)

    def __str__(self) -> str:
        if self.part:
            return str(self.part)
        inner = [f"({t})" if t.word in ("and", "or") and t.word != self.word else str(t) for t in self.terms]
        return f"not {inner[0]}" if self.word == "not" else f" {self.word} ".join(inner)


def both(*terms: Expression) -> Expression:
    """All of them, flattened; one alone is itself. What lets everything through adds nothing."""
    flat = [t for term in terms for t in (term.terms if term.word == "and" else (term,))]
    flat = [t for t in dict.fromkeys(flat) if str(t) != "full"] or flat[:1]
    return flat[0] if len(flat) == 1 else Expression("and", terms=tuple(flat))


def parse(text: str, family: Family[MaskTraits]) -> Expression:
    """Text → tree.

    Raises:
        OptionError: it is no expression (with a caret where it breaks), or names what the family has not.
    """
    words = [(m.group(1), m.start(1)) for m in _WORD.finditer(text)]
    at = 0

    def wrong(message: str) -> OptionError:
        column = words[at][1] if at < len(words) else len(text)
        width = len(words[at][0]) if at < len(words) else 1
        place = Place(lines=((1, text),), line=1, column=column + 1, width=width)
        return OptionError(
            "bad-expression",
            f"{family.name} expression: {message}",
            place=place,
            help="join names by and, or, not and parentheses: 'causal and (window:left=2 or prefix:length=4)'",
        )

    def joined(word: Literal["and", "or"], below: Callable[[int], Expression], depth: int) -> Expression:
        nonlocal at
        terms = [below(depth)]
        while at < len(words) and words[at][0] == word:
            at += 1
            terms.append(below(depth))
        flat = [t for term in terms for t in (term.terms if term.word == word else (term,))]
        return terms[0] if len(terms) == 1 else Expression(word, terms=tuple(flat))

    def either(depth: int) -> Expression:
        return joined("or", every, depth)

    def every(depth: int) -> Expression:
        return joined("and", single, depth)

    def single(depth: int) -> Expression:
        nonlocal at
        if depth > _DEEPEST:
            raise wrong(f"deeper than {_DEEPEST} levels")
        if at == len(words):
            raise wrong("a name is missing at the end")
        word = words[at][0]
        if word in (")", "and", "or"):
            raise wrong(f"a name is missing before {word!r}")
        at += 1
        if word == "not":
            return Expression("not", terms=(single(depth + 1),))
        if word == "(":
            inner = either(depth + 1)
            if at == len(words) or words[at][0] != ")":
                raise wrong("a closing parenthesis is missing")
            at += 1
            return inner
        return Expression("part", family.parse(word))

    tree = either(0)
    if at < len(words):
        raise wrong(
            f"'and' or 'or' is missing before {words[at][0]!r}"
            if words[at][0] != ")"
            else "this parenthesis closes nothing"
        )
    return tree
