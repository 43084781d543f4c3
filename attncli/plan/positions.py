"""Resolve the positions of queries and keys. Entry: `resolve_positions`."""

from __future__ import annotations

import numpy as np

from attncli.errors import InputError, input_error
from attncli.mask_expression import MaskExpression
from attncli.plan.visibility import fields_read, part_expression
from attncli.text import join_names, pluralize
from attncli.types import NumpyArray, Problem
from attncli.validation import ProblemSize
from attncli.validation.fields import shape_of
from attncli.variant import Variant


def is_self_attention(problem: Problem, size: ProblemSize) -> bool:
    """Whether the new keys are the queries' own tokens, so that positions of one are positions of the other."""
    return problem.memory is None and size.queries == size.new_keys


def resolve_positions(
    problem: Problem, variant: Variant, size: ProblemSize, mask: MaskExpression | None
) -> tuple[NumpyArray | None, NumpyArray]:
    """Return positions of queries, (n,) or (b, n), and of keys, (m,) or (b, m): given, or counted on from the past, or by --align.

    Those of queries are None where nothing reads them and they cannot be known.

    Raises:
        InputError: a mask or the position reads positions, and they cannot be known.
    """
    q_pos, k_pos = problem.positions, problem.k_positions
    if q_pos is None and k_pos is not None and is_self_attention(problem, size):
        q_pos = k_pos[..., size.past :]
    if k_pos is None and q_pos is not None and is_self_attention(problem, size):
        past = np.broadcast_to(np.arange(size.past), (*shape_of(q_pos)[:-1], size.past))
        k_pos = np.concatenate([past, q_pos], -1)
    align = variant.align if k_pos is None else None
    k_pos = np.arange(size.keys) if k_pos is None else k_pos
    if q_pos is not None:
        return q_pos, k_pos
    if problem.past is not None or size.queries == size.new_keys:
        return np.arange(size.past, size.past + size.queries), k_pos
    if align:
        first = size.keys - size.queries if align == "bottom-right" else 0
        return np.arange(size.queries) + first, k_pos
    readers = [str(part) for part in mask.iter_parts() if "q_pos" in fields_read(part_expression(part))] if mask else []
    if not variant.position.is_none:
        readers.append(str(variant.position))
    if readers:
        raise _missing_positions_error(problem, size, join_names(readers))
    return None, k_pos


def _missing_positions_error(problem: Problem, size: ProblemSize, needed_by: str) -> InputError:
    if problem.k_positions is not None:
        message = f"{needed_by} needs positions, and only those of the keys are given"
        return input_error("missing-positions", message, "positions", help="add positions, one for each query")
    return input_error(
        "align-needed",
        f"{pluralize(size.queries, 'query meets', 'queries meet')} {pluralize(size.keys, 'key')}, "
        f"and {needed_by} must know which stand side by side",
        help="--align top-left: the first query beside the first key, as in PyTorch SDPA; "
        "--align bottom-right: the last beside the last, as in FlashAttention; or give positions",
    )
