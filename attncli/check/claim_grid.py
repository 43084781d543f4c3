"""A claim as a grid: its figures, the reference, and which are wrong, with an axis for the heads of a merged context.

`make_claim_grid` is the entry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attncli.check.comparison import Comparison
from attncli.types import NumpyArray


@dataclass(frozen=True)
class ClaimGrid:
    """Arrays of one shape, an axis of them for each of `axes`."""

    step: str
    axes: tuple[str, ...]
    indices: tuple[
        NumpyArray, ...
    ]  # of each axis, what is claimed: (n), ascending unless the figures are in another order
    values: NumpyArray
    reference: NumpyArray
    tolerance: NumpyArray
    is_wrong: NumpyArray


def make_claim_grid(comparison: Comparison, claim_index: int) -> ClaimGrid | None:
    """Make the grid of a claim; None where it is a list of cells.

    The heads of `context` stand side by side in its last axis; here they have an axis, as those of `head_context` have.
    """
    claim, cells = comparison.task.claims[claim_index], comparison.cell_comparisons[claim_index]
    shape = claim.values.shape
    if len(shape) != len(claim.axes) or any(side.size != n for side, n in zip(claim.index, shape, strict=True)):
        return None
    axes, indices = claim.axes, tuple(side.ravel() for side in claim.index)
    arrays = (claim.values, comparison.reference_cells(claim), cells.tolerance, ~cells.is_right)
    heads = comparison.task.plan.shapes.heads if comparison.task.plan.shapes.has_head_axis else 1
    width = comparison.reference[claim.step].shape[-1] if axes else 0
    if claim.step == "context" and heads > 1 and width % heads == 0 and (indices[-1] == np.arange(width)[: len(indices[-1])]).all() and len(indices[-1]) == width:  # fmt: skip
        arrays = tuple(np.moveaxis(x.reshape(*shape[:-1], heads, -1), -2, -3) for x in arrays)  # type: ignore[assignment]
        axes = (*axes[:-2], "head", *axes[-2:])
        indices = (*indices[:-2], np.arange(heads), indices[-2], np.arange(width // heads))
    values, reference, tolerance, is_wrong = arrays
    return ClaimGrid(claim.step, axes, indices, values, reference, tolerance, is_wrong)
