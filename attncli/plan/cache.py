"""Remember the outlines of problems that come again and again with equal shapes, as in a stream of JSON lines. Entry: `OutlineCache`."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import fields
from itertools import repeat
from operator import attrgetter, is_not
from typing import NamedTuple

from attncli.plan.plan import Plan
from attncli.types import SHAPE_ONLY_FIELDS, Problem
from attncli.validation.fields import is_tensor
from attncli.variant import Variant

_fields_of_values = attrgetter(*(item.name for item in fields(Problem) if item.name not in SHAPE_ONLY_FIELDS))


class OutlineKey(NamedTuple):
    """All that the outline of a plain problem depends on: its shapes and dtypes, and what was asked of it; no values."""

    variant: Variant
    part_functions: tuple[Hashable, ...]  # equal variants may differ in a part that is not registered
    explicit: frozenset[str]  # equal variants may differ in it, and it is part of the plan
    has_tokens: bool
    w_layout: str | None
    keep: Hashable  # names of steps
    top: int | None
    arrays: tuple[tuple[str, tuple[int, ...], object], ...]  # name, shape and dtype of each


def outline_key(problem: Problem, variant: Variant, keep: Collection[str] | None, top: int | None) -> OutlineKey | None:
    """Return what the outline depends on; None where it may depend on values too, as with a mask or with tensors."""
    if any(map(is_not, _fields_of_values(problem), repeat(None))):
        return None
    arrays = [("embeddings", problem.embeddings), *problem.parameters.items()]
    if any(is_tensor(x) for _, x in arrays):
        return None
    return OutlineKey(
        variant,
        variant.part_functions,
        variant.explicit,
        problem.tokens is not None,
        problem.w_layout,
        keep if keep is None or isinstance(keep, str) else tuple(keep),
        top,
        tuple((name, x.shape, x.dtype) for name, x in arrays),
    )


class OutlineCache:
    """Outlines by what they depend on, without their problems' data. When it is full, the oldest one goes."""

    def __init__(self, max_outlines: int = 64) -> None:
        self.max_outlines = max_outlines
        self._outlines: dict[OutlineKey, Plan] = {}

    def __len__(self) -> int:
        return len(self._outlines)

    def get(self, key: OutlineKey) -> Plan | None:
        """Return the outline that is remembered, if there is one."""
        return self._outlines.get(key)

    def add(self, key: OutlineKey, outline: Plan) -> None:
        """Remember an outline."""
        while len(self._outlines) >= self.max_outlines:
            del self._outlines[next(iter(self._outlines))]
        self._outlines[key] = outline

    def clear(self) -> None:
        """Forget all outlines."""
        self._outlines.clear()
