"""A page with gaps to fill in: which steps are left blank, and which cell each gap stands for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

StepCell = tuple[str, tuple[int, ...]]  # a step, and the index of one of its cells


@dataclass(frozen=True)
class Worksheet:
    """Which steps are left blank, and whether their numbers are printed after all."""

    blank_steps: frozenset[str] = frozenset()
    show_answers: bool = False

    def __contains__(self, step: str) -> bool:
        return step in self.blank_steps


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
