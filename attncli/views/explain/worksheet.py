"""A page with gaps to fill in: which steps are left blank, and which cell each gap stands for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attncli.plan import Plan
from attncli.plan.steps import ROW_STATISTICS, TOP_STEPS
from attncli.types import PARAMETER_STEPS

EXPONENTIALS = "exponentials"  # may be left blank like a step: what the normaliser works out on its way to the weights
_NEVER_BLANK = {"mask", "present_k", "present_v", *PARAMETER_STEPS, *ROW_STATISTICS, *TOP_STEPS}
CONTEXT_STEPS = frozenset({"head_context", "normed_context", "context"})  # each says what the others say
VECTOR_STEP_ENDINGS = ("q", "k", "v", "positioned_embeddings")
StepCell = tuple[str, tuple[int, ...]]  # a step, and the index of one of its cells


@dataclass(frozen=True)
class Worksheet:
    """Which steps are left blank, and whether their numbers are printed after all."""

    blank_steps: frozenset[str] = frozenset()
    show_answers: bool = False

    def __contains__(self, step: str) -> bool:
        return step in self.blank_steps


def steps_to_blank(plan: Plan) -> frozenset[str]:
    """The steps whose numbers stand on a page and have to be worked out: none that came in as it is, and no statistic."""
    given = {"q", "k", "v"} if plan.problem.embeddings is None else set[str]()
    return frozenset(plan.steps) - given - _NEVER_BLANK


def gap_lines(cells: Iterable[StepCell]) -> list[str]:
    """`⟨1⟩ to ⟨3⟩: weights[1][0:3]`: which cell each gap stands for, cells of one row together."""
    runs: list[list[StepCell]] = []
    for cell in cells:
        if runs and _is_next_cell(runs[-1][-1], cell):
            runs[-1].append(cell)
        else:
            runs.append([cell])
    lines, gap = [], 1
    for run in runs:
        step, index = run[0]
        path = "".join(f"[{i}]" for i in index[:-1])
        if len(run) == 1:
            lines.append(f"⟨{gap}⟩: {step}{path}[{index[-1]}]")
        else:
            lines.append(f"⟨{gap}⟩ to ⟨{gap + len(run) - 1}⟩: {step}{path}[{index[-1]}:{index[-1] + len(run)}]")
        gap += len(run)
    return lines


def _is_next_cell(cell: StepCell, other: StepCell) -> bool:
    """Whether the other cell follows this one in the same row of the same step."""
    (step, index), (other_step, other_index) = cell, other
    return (step, index[:-1]) == (other_step, other_index[:-1]) and other_index[-1] == index[-1] + 1
