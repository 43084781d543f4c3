"""Find a mask that lets a query see a key only because positions repeat or go back. Entry: `repeated_positions_warning`.

Frameworks hide keys by their place in the sequence, and use positions for RoPE alone; here masks compare positions.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from attncli.parts.traits import MaskTraits
from attncli.plan.plan import Plan
from attncli.plan.positions import is_self_attention
from attncli.plan.visibility import (
    compute_visibility,
    fields_read,
    grid_arrays,
    mask_batch_heads,
    to_key_axis,
    to_query_axis,
)
from attncli.registry import Part
from attncli.types import NumpyArray
from attncli.validation.fields import as_numpy

_ROWS_AT_A_TIME = 256
_MAX_CELLS_LOOKED_AT = 2**24  # of a mask under repeated positions; more would take longer than what is computed


def repeated_positions_warning(plan: Plan) -> str:
    """Return the warning that a mask lets a query see a key that it would not by index, since positions repeat or go back; "" if not.

    Under a causal mask that is a later key.
    """
    has_positions = plan.problem.positions is not None or plan.problem.k_positions is not None
    if plan.mask is None or plan.q_order is not None or not has_positions or "q_pos" not in fields_read(plan.mask):
        return ""
    k_pos = np.atleast_2d(plan.k_pos)  # (b or 1, m)
    if not is_self_attention(plan.problem, plan.size):
        return ""
    if (np.diff(k_pos, axis=-1) > 0).all():
        return ""
    repeat = any(len(np.unique(row)) < len(row) for row in k_pos)
    grid = plan.make_grid()
    order = np.arange(plan.size.keys)
    k_order, q_order = to_key_axis(order), to_query_axis(order[plan.size.past :])
    is_causal = any(map(_hides_later_keys, plan.mask.iter_parts()))
    cells = max(1, math.prod(mask_batch_heads(grid, plan.mask)) * plan.size.keys)
    candidates = _rows_before_a_later_key(plan) if is_causal else np.arange(plan.size.queries)
    for first in range(0, min(len(candidates), _MAX_CELLS_LOOKED_AT // cells), _ROWS_AT_A_TIME):
        rows = candidates[first : first + _ROWS_AT_A_TIME]
        arrays = {name: x[:, :, rows] for name, x in grid_arrays(grid).items() if x.shape[2] > 1}
        some = replace(grid, **arrays)
        by_index = replace(some, q_order=q_order[:, :, rows], k_order=k_order)
        shown = as_numpy(compute_visibility(some, plan.mask)) & ~as_numpy(compute_visibility(by_index, plan.mask))
        if is_causal:
            shown = shown & (some.k_idx > some.q_idx) & (some.k_pos <= some.q_pos)
        if shown.any():
            b, _, i, j = (int(index) for index in min(np.argwhere(shown), key=lambda cell: (cell[2], cell[3], cell[0])))
            of_item = f" of item {b}" if len(k_pos) > 1 else ""
            return (
                f"repeated-positions: positions {'repeat' if repeat else 'go back'}, so the mask lets query {rows[i]}{of_item} see key {j}, "
                f"which {'comes later' if is_causal else 'its place in the sequence hides'}; --mask-by index compares places in the sequence instead"
            )
    return ""


def _hides_later_keys(part: Part[MaskTraits]) -> bool:
    """Whether a mask hides the keys that come later: a causal one, or a window that ends at the query."""
    return part.traits.is_causal or (part.traits.is_window and part.option_value("right") == 0)


def _rows_before_a_later_key(plan: Plan) -> NumpyArray:
    """Return the queries that a later key's position does not exceed, in some item: those that a causal mask may show it to."""
    q_pos, k_pos = np.atleast_2d(np.asarray(plan.q_pos)), np.atleast_2d(plan.k_pos)  # (b or 1, n), (b or 1, m)
    least_from = np.minimum.accumulate(k_pos[:, ::-1], -1)[:, ::-1]  # (b or 1, m): the least from there on
    later = least_from[:, plan.size.past + 1 :]  # of what follows each query but the last
    return np.flatnonzero((later[:, : plan.size.queries] <= q_pos[:, : later.shape[1]]).any(0))
