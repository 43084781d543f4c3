"""The page of one query as data: sections of equations, before any format writes them. `ExplanationPage` is the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attncli.derivation import Equation

_MAX_LINES_PER_VECTOR = 12  # lines of one vector before its middle is left out


@dataclass(frozen=True)
class Section:
    """One step on the page."""

    title: str
    formula: str = ""
    lines: tuple[Equation, ...] = ()
    remark: str = ""
    is_idle: bool = False  # printed as one grey line: it does nothing in this variant
    used_steps: frozenset[str] = frozenset()  # the steps whose numbers stand in its lines
    is_heading: bool = False  # the sections that follow are of another head


@dataclass(frozen=True)
class ExplanationPage:
    """Everything on the page: what is explained, the sections, and where the query looks."""

    title: str
    summary: str
    sections: tuple[Section, ...]
    closing: str
    step_axes: dict[str, tuple[str, ...]]  # the axes of each step, for the addresses of gaps


@dataclass(frozen=True)
class ExplanationScope:
    """What is explained: one query of one batch item, in some heads, before some keys."""

    query: int
    batch: int = 0
    heads: tuple[int, ...] = (0,)
    keys: tuple[int, ...] | None = None  # the keys that are worked out; None: as many as a page holds
    blank_steps: frozenset[str] = frozenset()  # steps whose numbers a worksheet leaves blank
    full: bool = False  # nothing is left out

    @property
    def max_lines_per_vector(self) -> int | None:
        """How many lines of one vector are shown; None: all."""
        return None if self.full else _MAX_LINES_PER_VECTOR


def leave_out_middle(lines: Sequence[Equation], max_lines: int | None) -> tuple[Equation, ...]:
    """Keep the first and the last of many lines; one line says how many are missing."""
    if max_lines is None or len(lines) <= max_lines:
        return tuple(lines)
    leading_count = max_lines - 4
    left_out = Equation("…", ([f"{len(lines) - leading_count - 2} more lines, made alike; --full shows them"],))
    return (*lines[:leading_count], left_out, *lines[-2:])
