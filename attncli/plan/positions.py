"""Resolve the positions of queries and keys. Entry: `resolve_positions`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from attncli.errors import InputError, input_error
from attncli.mask_expression import MaskExpression
from attncli.plan.visibility import fields_read, part_expression
from attncli.presets import find_cross_attention
from attncli.text import join_names, pluralize
from attncli.types import NumpyArray, Problem
from attncli.validation import ProblemSize
from attncli.validation.fields import shape_of
from attncli.variant import CHOICES, Variant


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
    counts_lengths = align == "bottom-right" and problem.lengths is not None
    if not counts_lengths and (problem.past is not None or size.queries == size.new_keys):
        return np.arange(size.past, size.past + size.queries), k_pos
    if align:
        if align == "top-left":
            return np.arange(size.queries), k_pos
        key_counts = (
            np.array([size.keys]) if problem.lengths is None else problem.lengths
        )  # of each item, if they differ
        q_pos = key_counts[:, None] - size.queries + np.arange(size.queries)  # (b, n)
        return q_pos[0] if len(q_pos) == 1 else q_pos, k_pos
    readers = [str(part) for part in mask.iter_parts() if "q_pos" in fields_read(part_expression(part))] if mask else []
    if not variant.position.is_none:
        readers.append(str(variant.position))
    if readers:
        raise _missing_positions_error(problem, variant, size, readers)
    return None, k_pos


def resolve_order(
    problem: Problem, variant: Variant, size: ProblemSize, mask: MaskExpression | None
) -> tuple[NumpyArray | None, NumpyArray | None]:
    """Return where queries and keys stand in the sequence, (n,) and (m,), if masks go by that; else None twice.

    Raises:
        InputError: queries and keys differ in number, and it is not said which stand side by side.
    """
    if variant.mask_by != "index" or mask is None:
        return None, None
    without_positions = replace(problem, positions=None, k_positions=None)
    return resolve_positions(without_positions, variant.replace(position=CHOICES["position"].default), size, mask)


def _missing_positions_error(problem: Problem, variant: Variant, size: ProblemSize, readers: list[str]) -> InputError:
    needed_by, needs = join_names(readers), "needs" if len(readers) == 1 else "need"
    is_by_index = variant.mask_by == "index" and variant.position.is_none
    if problem.k_positions is not None:
        message = f"{needed_by} {needs} positions, but only those of the keys are given"
        return input_error("missing-positions", message, "positions", help="add positions, one for each query")
    queries = pluralize(size.queries, "query", "queries")
    cross_attention = find_cross_attention(variant.name) if problem.memory is not None else ""
    hint = (
        f"the attention of {variant.name}'s layers to a memory is {cross_attention}; else " if cross_attention else ""
    )
    return input_error(
        "align-needed",
        f"{queries} {'meets' if size.queries == 1 else 'meet'} {pluralize(size.keys, 'key')}, and {needed_by} {needs} to know which query is next to which key",
        help=f"{hint}--align top-left puts the first query next to the first key, as PyTorch SDPA does; "
        f"--align bottom-right the last next to the last, as FlashAttention does{'' if is_by_index else '; or give positions'}",
    )
