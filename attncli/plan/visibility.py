"""Decide which keys each query may see: the mask as it will run, and what mask, lengths and bias together let through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from attncli import mask_expression as expression
from attncli.errors import input_error
from attncli.mask_expression import MaskExpression
from attncli.parts.masks import mask
from attncli.parts.traits import MaskTraits
from attncli.registry import Part
from attncli.types import Array, Grid, Problem
from attncli.validation import problem_size
from attncli.validation.fields import as_numpy, shape_of
from attncli.variant import Variant


def effective_mask(problem: Problem, variant: Variant) -> MaskExpression | None:
    """Return the mask as it will run, or None where it hides nothing: the file's mask is and-ed in unless it is named.

    Raises:
        InputError: a mask reads a field that the problem lacks.
    """
    expr: MaskExpression = variant.mask
    fields = fields_read(expr)
    if "problem_mask" in fields and problem.mask is None:
        raise input_error("missing-field", f"mask {expr} needs the file's `mask`, and the file has none", "mask")
    if problem.mask is not None and "problem_mask" not in fields:
        expr = expression.conjunction(expr, expression.parse_expression("given", mask))
    if "q_seg" in fields and problem.segments is None:
        raise input_error(
            "missing-field",
            f"mask {expr} needs segments, and the file has none",
            "segments",
            help='add "segments": the document of each token, as in [0, 0, 1]',
        )
    k_segments = problem.segments if problem.k_segments is None else problem.k_segments
    if "k_seg" in fields and shape_of(k_segments)[-1] != problem_size(problem).keys:
        message = f"mask {expr} needs segments, but the {problem_size(problem).keys} keys have none of their own"
        raise input_error("missing-field", message, "k_segments", help="add k_segments: one for each key, past and new")
    return None if str(expr) == "full" else expr


class _FieldProbe:
    """A grid of one cell that remembers which of its fields a mask has read."""

    key_count = head_count = max_length = 1

    def __init__(self) -> None:
        self.accessed: set[str] = set()

    @property
    def for_masks(self) -> _FieldProbe:
        return self

    def __getattr__(self, name: str) -> Array:
        self.accessed.add(name)
        return np.zeros((1, 1, 1, 1), bool if name == "problem_mask" else np.int64)


def fields_read(expr: MaskExpression | None) -> set[str]:
    """Return which fields of the grid the masks of an expression read, found by running them on a probe."""
    probe = _FieldProbe()
    for part in expr.iter_parts() if expr else ():
        part(probe)
    return probe.accessed


def part_expression(part: Part[MaskTraits]) -> MaskExpression:
    """Return the expression that is one part alone."""
    return MaskExpression("part", part)


# ── the grid ─────────────────────────────────────────────────────────────────────────────────────
def to_query_axis(x: Array) -> Array:
    """Reshape (n,) or (b, n) → (b, 1, n, 1); None stays None."""
    return x if x is None else x.reshape(-1, 1, x.shape[-1], 1)


def to_key_axis(x: Array) -> Array:
    """Reshape (m,) or (b, m) → (b, 1, 1, m); None stays None."""
    return x if x is None else x.reshape(-1, 1, 1, x.shape[-1])


def to_4d(x: Array) -> Array:
    """Reshape (…, n, m) → (b, h, n, m), with 1 where an axis is absent; None stays None."""
    return x if x is None else x.reshape((1,) * (4 - x.ndim) + shape_of(x))


def grid_arrays(grid: Grid) -> dict[str, Array]:
    """Return the arrays of a grid that have four axes, by name."""
    return {name: x for name, x in vars(grid).items() if getattr(x, "ndim", 0) == 4}


def mask_batch_heads(grid: Grid, mask: MaskExpression | None) -> tuple[int, int]:
    """Return how many batch items and heads differ in what they may see: 1 where all see the same."""
    corner: dict[str, Array] = {name: as_numpy(x[..., :1, :1]) for name, x in grid_arrays(grid).items()}
    b, h, *_ = np.shape(compute_visibility(replace(grid, **corner), mask))
    return b, h


def compute_visibility(grid: Grid, mask: MaskExpression | None) -> Array:
    """Return what mask, lengths and bias together let through: booleans that broadcast to (b, h, n, m)."""
    visible = grid.k_idx >= 0 if mask is None else mask(grid)  # (b, h, n, m)
    if grid.lengths is not None:
        visible = visible & (grid.k_idx < grid.lengths)
    if grid.bias is not None:
        visible = visible & (grid.bias > float("-inf"))
    return visible
