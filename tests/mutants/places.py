"""The mutants of a source file, made by the operators of cosmic-ray.

A *place* is a position with one kind of operator, such as a comparison; it has as many mutants as there are replacements.
Samples are drawn from places, as otherwise nine in ten mutants would be of arithmetic.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from tests.helpers import ROOT

PACKAGES = ("core", "parts", "plan", "check")

# Replacements stay within one of these: `a << b` of two floats is a TypeError, which every test notices, and `a is b`
# of two small numbers is `a == b`, which no test can tell apart.
INTERCHANGEABLE = [
    {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"},
    {"RShift", "LShift", "BitOr", "BitAnd", "BitXor"},
    {"Eq", "NotEq", "Lt", "LtE", "Gt", "GtE"},
    {"Is", "IsNot"},
    {"In", "NotIn"},
    {"UAdd", "USub", "Invert", "Not", "Nothing"},
]
LEFT_OUT_OPERATORS = {"VariableReplacer", "VariableInserter"}  # they want names, which differ from function to function

ANNOTATION = "an annotation, which nothing evaluates"
TYPE_CHECKING = "under TYPE_CHECKING, which is never run"
MESSAGE = "the text of an error"
CACHE = "a cache, which changes no result"
OVERLOAD = "a declaration for the type checker"
SYNTAX = "not Python any more"


@dataclass(frozen=True)
class Mutant:
    """One small fault: what an operator does at one of its positions in a file."""

    path: str  # from the root, such as attncli/parts/masks.py
    line: int
    column: int
    operator: str
    occurrence: int

    @property
    def package(self) -> str:
        return self.path.split("/")[1]

    @property
    def name(self) -> str:
        return f"{self.path}:{self.line}:{self.column + 1}"

    @functools.cached_property
    def source(self) -> str:
        """Return the text of the mutated file."""
        return mutate_code(_read(self.path), get_operator(self.operator)(), self.occurrence)

    @property
    def change(self) -> tuple[str, str]:
        """Return the first line that differs, before and after."""
        before, after = _read(self.path).splitlines(), self.source.splitlines()
        for old, new in zip(before, after, strict=False):
            if old != new:
                return old.strip(), new.strip()
        return before[len(after) :][0].strip(), ""


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def list_sources() -> list[str]:
    """Return the paths of the files that are mutated, from the root."""
    return sorted(str(p.relative_to(ROOT)) for name in PACKAGES for p in (ROOT / "attncli" / name).rglob("*.py"))


def hash_of(*paths: str) -> str:
    """Return one hash of the contents of files."""
    return hashlib.sha256(b"\0".join((ROOT / p).read_bytes() for p in paths)).hexdigest()


@functools.cache
def list_places(path: str) -> dict[tuple[int, int, str], list[Mutant]]:
    """Return the mutants of a file by place: (line, column, kind of operator)."""
    nodes = list(ast_nodes(get_ast(_read(path))))
    places = defaultdict(list)
    for name in operator_names():
        kind, _, words = name.partition("/")[2].partition("_")
        if kind in LEFT_OUT_OPERATORS or not _is_interchangeable(words):
            continue
        operator = get_operator(name)()
        positions = [position for node in nodes for position in operator.mutation_positions(node)]
        for occurrence, ((line, column), _) in enumerate(positions):
            places[line, column, kind].append(Mutant(path, line, column, name, occurrence))
    return dict(sorted(places.items()))


def _is_interchangeable(words: str) -> bool:
    """Whether the operator is no replacement, or one within a kind: its name ends with both, as in `Add_Sub`."""
    if not words:
        return True
    old, _, new = words.partition("_")
    return any({old, new.replace("_", "")} <= group for group in INTERCHANGEABLE)


def draw_mutants(count: int, seed: int, paths: list[str]) -> tuple[list[Mutant], dict[str, int], int]:
    """Return a sample, how many drawn places were left out for which reason, and how many places there are.

    Every place has the same chance, and so has every mutant of a drawn place. The order is random, so the beginning of a
    sample is a sample, too.
    """
    places = [mutants for path in paths for mutants in list_places(path).values()]
    random.Random(seed).shuffle(places)
    drawn: list[Mutant] = []
    left_out: dict[str, int] = defaultdict(int)
    invisible = {path: find_invisible(_read(path)) for path in paths}
    for mutants in places:
        if len(drawn) == count:
            break
        mutant = random.Random(f"{seed} {mutants[0].name} {mutants[0].operator}").choice(mutants)
        if reason := why_left_out(mutant, invisible[mutant.path]):
            left_out[reason] += 1
        else:
            drawn.append(mutant)
    return drawn, dict(left_out), len(places)


def why_left_out(mutant: Mutant, invisible: list[tuple[int, int, int, int, str]]) -> str | None:
    """Return why no test could notice a mutant, or None."""
    where = (mutant.line, mutant.column)
    for line, column, end_line, end_column, reason in invisible:
        if (line, column) <= where < (end_line, end_column):
            return reason
    try:
        compile(mutant.source, mutant.path, "exec")
    except SyntaxError:
        return SYNTAX
    return None


def find_invisible(source: str) -> list[tuple[int, int, int, int, str]]:
    """Return the stretches of a file that no test can see: first line and column, last line and column, reason.

    Docstrings and other texts are not among them, because no operator touches a string. `Annotated[int, Range(low=1)]` is
    evaluated: what it says is visible.
    """
    lines = source.encode().splitlines()

    def characters(line: int, offset: int) -> int:
        """Return a column in characters: ast counts bytes, and cosmic-ray does not."""
        return len(lines[line - 1][:offset].decode())

    return [
        (
            node.lineno,
            characters(node.lineno, node.col_offset) - (reason in (CACHE, OVERLOAD)),  # the sign @
            node.end_lineno,
            characters(node.end_lineno, node.end_col_offset),
            reason,
        )
        for node, reason in _invisible_nodes(ast.parse(source))
    ]


def _invisible_nodes(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            if node.annotation and "Annotated" not in ast.dump(node.annotation):
                yield node.annotation, ANNOTATION
        elif isinstance(node, ast.FunctionDef):
            if node.returns:
                yield node.returns, ANNOTATION
            for decorator in node.decorator_list:
                for word, reason in (("cache", CACHE), ("overload", OVERLOAD)):
                    if word in ast.unparse(decorator):
                        yield decorator, reason
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield node, TYPE_CHECKING
        elif isinstance(node, ast.Raise):
            yield from ((text, MESSAGE) for text in ast.walk(node) if isinstance(text, ast.JoinedStr))
