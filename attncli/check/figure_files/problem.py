"""Figures that a problem's file gives by its field `expected`."""

from __future__ import annotations

from attncli.check.figures import Figures, figures_from_expected
from attncli.errors import InputError
from attncli.readers import read
from attncli.step_names import STEP_NAMES
from attncli.types import FIELDS, Json


def has_problem_fields(names: Json | set[str]) -> bool:
    """Tell whether some of these names are fields of a problem, which claims figures by `expected` alone."""
    fields = {name.partition(".")[0] for name in FIELDS} - set(STEP_NAMES)
    return any(name.partition(".")[0] in fields for name in names) or "expected" in names


def figures_from_problem(path: str) -> Figures:
    """Read what a problem's file gives under `expected`.

    Raises:
        InputError: it gives nothing.
    """
    problem = read(path)
    if not problem.expected:
        hint = 'a problem gives its figures under "expected": {"weights": [[…]]}'
        raise InputError("no-figures", "this problem gives no figures", help=hint)
    return figures_from_expected(problem.expected, path)
