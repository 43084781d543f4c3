"""Where scores sit: positions of queries and keys, the mask as it will run, and what it lets through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from attncli import mask_expression as expression
from attncli.errors import InputError, input_error, join_names
from attncli.mask_expression import MaskExpression
from attncli.parts.masks import mask
from attncli.parts.traits import MaskTraits
from attncli.registry import Part
from attncli.types import Array, Grid, NumpyArray, Problem
from attncli.validation import ProblemSize, problem_size
from attncli.validation.fields import as_numpy, shape_of
from attncli.variant import Variant


def effective_mask(problem: Problem, variant: Variant) -> MaskExpression | None:
    """The expression as it will run, or None where it hides nothing: the file's mask is and-ed in unless it is named.

    Raises:
        InputError: a mask looks at what the problem lacks.
    """
    expr: MaskExpression = variant.mask
    looked = fields_read(expr)
    if "problem_mask" in looked and problem.mask is None:
        raise input_error("missing-field", f"mask {expr} looks at the file's mask, and it has none", "mask")
    if problem.mask is not None and "problem_mask" not in looked:
        expr = expression.conjunction(expr, expression.parse_expression("given", mask))
    if "q_seg" in looked and problem.segments is None:
        way = 'add "segments": the document of each token, as in [0, 0, 1]'
        raise input_error(
            "missing-field", f"mask {expr} looks at segments, and the file has none", "segments", help=way
        )
    keys = problem.segments if problem.k_segments is None else problem.k_segments
    if "k_seg" in looked and shape_of(keys)[-1] != problem_size(problem).keys:
        message = f"mask {expr} looks at segments, and the {problem_size(problem).keys} keys have none of their own"
        raise input_error("missing-field", message, "k_segments", help="add k_segments, one for each key, past and new")
    return None if str(expr) == "full" else expr


class _FieldProbe:
    """A grid of one cell that remembers which of its fields a mask looked at."""

    key_count = head_count = max_length = 1

    def __init__(self) -> None:
        self.accessed: set[str] = set()

    def __getattr__(self, name: str) -> Array:
        self.accessed.add(name)
        return np.zeros((1, 1, 1, 1), bool if name == "problem_mask" else np.int64)


def fields_read(expr: MaskExpression | None) -> set[str]:
    """Which fields of the grid the masks of an expression look at: found by letting them look."""
    watch = _FieldProbe()
    for part in expr.iter_parts() if expr else ():
        part(watch)
    return watch.accessed


def as_expression(part: Part[MaskTraits]) -> MaskExpression:
    """A part as an expression."""
    return MaskExpression("part", part)


def is_self_attention(problem: Problem, size: ProblemSize) -> bool:
    """Whether the new keys are the queries' own tokens, so that positions of one are positions of the other."""
    return problem.memory is None and size.queries == size.new_keys


def resolve_positions(
    problem: Problem, variant: Variant, size: ProblemSize, mask: MaskExpression | None
) -> tuple[NumpyArray | None, NumpyArray]:
    """Positions of queries and keys (DESIGN §3.1): given, or counted on from the past, or by --align.

    Raises:
        InputError: a mask reads positions, and they cannot be known.
    """
    q, k = problem.positions, problem.k_positions
    if q is None and k is not None and is_self_attention(problem, size):
        q = k[..., size.past :]
    if k is None and q is not None and is_self_attention(problem, size):
        past = np.broadcast_to(np.arange(size.past), (*shape_of(q)[:-1], size.past))
        k = np.concatenate([past, q], -1)
    aligned = variant.align if k is None else None
    k = np.arange(size.keys) if k is None else k
    if q is not None:
        return q, k
    if problem.past is not None or size.queries == size.new_keys:
        return np.arange(size.past, size.past + size.queries), k
    if aligned:
        return np.arange(size.queries) + (size.keys - size.queries if aligned == "bottom-right" else 0), k
    readers = [str(part) for part in mask.iter_parts() if "q_pos" in fields_read(as_expression(part))] if mask else []
    readers += [] if variant.position.is_none else [str(variant.position)]
    if readers:
        raise _missing_positions_error(problem, size, join_names(readers))
    return None, k


def _missing_positions_error(problem: Problem, size: ProblemSize, needed_by: str) -> InputError:
    if problem.k_positions is not None:
        message = f"{needed_by} needs positions, and only those of the keys are given"
        return input_error("missing-positions", message, "positions", help="add positions, one for each query")
    return input_error(
        "align-needed",
        f"{size.queries} queries meet {size.keys} keys, and {needed_by} must know which stand side by side",
        help="--align top-left: the first query beside the first key, as in PyTorch SDPA; "
        "--align bottom-right: the last beside the last, as in FlashAttention; or give positions",
    )


def to_query_axis(x: Array) -> Array:
    """(n,) or (b, n) → (b, 1, n, 1)"""
    return x if x is None else x.reshape(-1, 1, x.shape[-1], 1)


def to_key_axis(x: Array) -> Array:
    """(m,) or (b, m) → (b, 1, 1, m)"""
    return x if x is None else x.reshape(-1, 1, 1, x.shape[-1])


def to_4d(x: Array) -> Array:
    """(…, n, m) → (b, h, n, m), with 1 where an axis is absent"""
    return x if x is None else x.reshape((1,) * (4 - x.ndim) + shape_of(x))


def grid_arrays(grid: Grid) -> dict[str, Array]:
    """What the grid holds by cell: everything of four axes."""
    return {name: x for name, x in vars(grid).items() if getattr(x, "ndim", 0) == 4}


def mask_batch_heads(grid: Grid, mask: MaskExpression | None) -> tuple[int, int]:
    """How many batch items and heads differ in what they may see: 1 where all see the same."""
    corner: dict[str, Array] = {name: as_numpy(x[..., :1, :1]) for name, x in grid_arrays(grid).items()}
    b, h, *_ = np.shape(compute_visibility(replace(grid, **corner), mask))
    return b, h


def compute_visibility(grid: Grid, mask: MaskExpression | None) -> Array:
    """What mask, lengths and bias together let through: booleans that broadcast to (b, h, n, m)."""
    seen = grid.k_idx >= 0 if mask is None else mask(grid)
    if grid.lengths is not None:
        seen = seen & (grid.k_idx < grid.lengths)
    if grid.bias is not None:
        seen = seen & (grid.bias > float("-inf"))
    return seen
