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

from attncli.derivation import record_intermediate
from attncli.errors import Location, OptionError
from attncli.registry import Family, Part

if TYPE_CHECKING:
    from attncli.parts.traits import MaskTraits
    from attncli.types import Array, Grid

_TOKEN_PATTERN = re.compile(r"\s*([()]|[^\s()]+)")
_MAX_NESTING = 50  # parentheses and nots within each other; more is a slip, and Python's own stack is not endless


@dataclass(frozen=True)
class MaskExpression:
    """A part, or `not`, `and`, `or` over expressions."""

    kind: Literal["part", "not", "and", "or"]
    part: Part[MaskTraits] | None = None
    operands: tuple[MaskExpression, ...] = ()

    def __call__(self, at: Grid) -> Array:
        """The booleans of the whole expression on a grid, as broadcastable as its parts leave them."""
        if self.part:
            return record_intermediate(str(self.part), self.part(at))
        values = [term(at) for term in self.operands]
        if self.kind == "not":
            return ~values[0]
        out = values[0]
        for value in values[1:]:
            out = out & value if self.kind == "and" else out | value
        return out

    def iter_parts(self) -> Iterator[Part[MaskTraits]]:
        """Every part that is named, left to right."""
        if self.part:
            yield self.part
        for term in self.operands:
            yield from term.iter_parts()

    def blame(
        self, part_holds: Callable[[Part[MaskTraits]], bool], value: bool = False
    ) -> Iterator[tuple[Part[MaskTraits], bool]]:
        """The parts to which a cell owes that the whole is `value`, each with what it says itself."""
        if self.part:
            yield self.part, value
        elif self.kind == "not":
            yield from self.operands[0].blame(part_holds, not value)
        else:
            decisive = [term for term in self.operands if term.holds(part_holds) == value]
            for term in decisive:
                yield from term.blame(part_holds, value)

    def holds(self, part_holds: Callable[[Part[MaskTraits]], bool]) -> bool:
        """The whole at one cell, from what its parts say there."""
        if self.part:
            return part_holds(self.part)
        if self.kind == "not":
            return not self.operands[0].holds(part_holds)
        return (all if self.kind == "and" else any)(term.holds(part_holds) for term in self.operands)

    def __str__(self) -> str:
        if self.part:
            return str(self.part)
        inner = [f"({t})" if t.kind in ("and", "or") and t.kind != self.kind else str(t) for t in self.operands]
        return f"not {inner[0]}" if self.kind == "not" else f" {self.kind} ".join(inner)


def conjunction(*terms: MaskExpression) -> MaskExpression:
    """All of them, flattened; one alone is itself. What lets everything through adds nothing."""
    flat = [t for term in terms for t in (term.operands if term.kind == "and" else (term,))]
    flat = [t for t in dict.fromkeys(flat) if str(t) != "full"] or flat[:1]
    return flat[0] if len(flat) == 1 else MaskExpression("and", operands=tuple(flat))


def parse_expression(text: str, family: Family[MaskTraits]) -> MaskExpression:
    """Text → tree.

    Raises:
        OptionError: it is no expression (with a caret where it breaks), or names what the family has not.
    """
    words = [(m.group(1), m.start(1)) for m in _TOKEN_PATTERN.finditer(text)]
    at = 0

    def wrong(message: str) -> OptionError:
        column = words[at][1] if at < len(words) else len(text)
        width = len(words[at][0]) if at < len(words) else 1
        place = Location(source_lines=((1, text),), line=1, column=column + 1, caret_width=width)
        return OptionError(
            "bad-expression",
            f"{family.name} expression: {message}",
            location=place,
            help="join names by and, or, not and parentheses: 'causal and (window:left=2 or prefix:length=4)'",
        )

    def joined(word: Literal["and", "or"], below: Callable[[int], MaskExpression], depth: int) -> MaskExpression:
        nonlocal at
        terms = [below(depth)]
        while at < len(words) and words[at][0] == word:
            at += 1
            terms.append(below(depth))
        flat = [t for term in terms for t in (term.operands if term.kind == word else (term,))]
        return terms[0] if len(terms) == 1 else MaskExpression(word, operands=tuple(flat))

    def either(depth: int) -> MaskExpression:
        return joined("or", every, depth)

    def every(depth: int) -> MaskExpression:
        return joined("and", single, depth)

    def single(depth: int) -> MaskExpression:
        nonlocal at
        if depth > _MAX_NESTING:
            raise wrong(f"deeper than {_MAX_NESTING} levels")
        if at == len(words):
            raise wrong("a name is missing at the end")
        word = words[at][0]
        if word in (")", "and", "or"):
            raise wrong(f"a name is missing before {word!r}")
        at += 1
        if word == "not":
            return MaskExpression("not", operands=(single(depth + 1),))
        if word == "(":
            inner = either(depth + 1)
            if at == len(words) or words[at][0] != ")":
                raise wrong("a closing parenthesis is missing")
            at += 1
            return inner
        return MaskExpression("part", family.parse(word))

    tree = either(0)
    if at < len(words):
        raise wrong(
            f"'and' or 'or' is missing before {words[at][0]!r}"
            if words[at][0] != ")"
            else "this parenthesis closes nothing"
        )
    return tree
