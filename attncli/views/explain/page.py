"""The page of one query as data: sections of equations, before any format writes them. `ExplanationPage` is the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from attncli.derivation import Equation
from attncli.views.explain.worksheet import CONTEXT_STEPS, EXPONENTIALS, VECTOR_STEP_ENDINGS

_MAX_TERMS = 8  # terms of a sum before its middle is left out
_MAX_LINES_PER_VECTOR = 12  # lines of one vector before its middle is left out


@dataclass(frozen=True)
class Section:
    """One step on the page."""

    title: str
    formula: str = ""
    lines: tuple[Equation, ...] = ()
    remark: str = ""
    why: str = ""  # the reasons of the step, where they are asked for
    is_idle: bool = False  # printed as one grey line: it does nothing in this variant
    used_steps: frozenset[str] = frozenset()  # the steps whose numbers stand in its lines
    is_heading: bool = False  # the sections that follow are of another head
    is_numbered: bool = True  # a step of the derivation


@dataclass(frozen=True)
class ExplanationPage:
    """Everything on the page: what is explained, the sections, and where the query looks."""

    title: str
    summary: str
    sections: tuple[Section, ...]
    closing: str
    step_axes: dict[str, tuple[str, ...]]  # the axes of each step, for the addresses of gaps
    tokens: frozenset[str] = frozenset()  # that may stand in labels: they are no formulas
    settings: Mapping[str, str] = field(default_factory=dict)  # the choices that settings made → where they were set


@dataclass(frozen=True)
class ExplanationScope:
    """What is explained: one query of one batch item, in some heads, before some keys."""

    query: int
    batch: int = 0
    heads: tuple[int, ...] = (0,)
    keys: tuple[int, ...] | None = None  # the keys that are worked out; None: as many as a page holds
    blank_steps: frozenset[str] = frozenset()  # steps whose numbers a worksheet leaves blank
    full: bool = False  # nothing is left out, and what does nothing here is named
    has_reasons: bool = False  # a sentence or two on each step say why it is taken
    title: str = ""  # of the page; empty: it names the query

    @property
    def shows_every_key(self) -> bool:
        """Whether no key is left out: a blank sum over keys cannot be worked out without each of its terms."""
        blank = self.blank_steps
        has_weights, has_context = any(step.endswith("weights") for step in blank), bool(blank & CONTEXT_STEPS)
        has_terms = EXPONENTIALS in blank or any(step.endswith("scores") for step in blank)
        return self.full or (has_weights and has_terms) or (has_context and (has_weights or "v" in blank))

    @property
    def shows_whole_vectors(self) -> bool:
        """Whether no entry and no row of a vector is left out: those of a blank one are needed further down."""
        blank = self.blank_steps
        is_summed = "normed_context" in blank or ("output" in blank and bool(blank & CONTEXT_STEPS))
        return self.full or is_summed or any(step.endswith(VECTOR_STEP_ENDINGS) for step in blank)

    @property
    def max_key_terms(self) -> int:
        """How many terms of a sum over keys are written."""
        return 10**9 if self.shows_every_key else _MAX_TERMS

    @property
    def max_entry_terms(self) -> int:
        """How many terms of a sum over the entries of a vector are written."""
        return 10**9 if self.shows_whole_vectors else _MAX_TERMS

    @property
    def max_lines_per_vector(self) -> int | None:
        """How many lines of one vector are shown; None: all."""
        return None if self.shows_every_key or self.shows_whole_vectors else _MAX_LINES_PER_VECTOR


def leave_out_middle(lines: Sequence[Equation], max_lines: int | None) -> tuple[Equation, ...]:
    """Keep the first and the last of many lines; one line says how many are missing."""
    if max_lines is None or len(lines) <= max_lines:
        return tuple(lines)
    leading_count = max_lines - 4
    left_out = Equation("…", ([f"{len(lines) - leading_count - 2} more lines of the same kind; --full shows them"],))
    return (*lines[:leading_count], left_out, *lines[-2:])
