"""Find keys that are padding by a mask or a bias, and that `--align bottom-right` counts all the same. Entry: `uncounted_padding_warning`."""

from __future__ import annotations

import numpy as np

from attncli.plan.plan import Plan
from attncli.plan.visibility import fields_read
from attncli.text import join_names
from attncli.types import Array, NumpyArray
from attncli.validation.fields import as_numpy

_MAX_SPELLED_LENGTHS = 16
_HIDING_BIAS = -1e4  # and below: what libraries add where a key shall be hidden, if not −∞


def uncounted_padding_warning(plan: Plan) -> str:
    """Return the warning that the last keys are hidden from every query of an item, and the last query stands beside them; "" if not.

    `lengths` would line it up with the last key that is filled, as kernels with caches do.

    Args:
        plan: the outline of a problem whose alignment is bottom-right.
    """
    problem = plan.problem
    if any(x is not None for x in (problem.lengths, problem.positions, problem.k_positions)):
        return ""
    if plan.variant.position.is_none and "q_pos" not in fields_read(plan.mask):
        return ""
    name = "mask" if problem.mask is not None else "bias"
    counts = _count_keys(problem.mask, problem.bias, plan.size.keys)  # (b or 1,)
    short = np.flatnonzero((counts > 0) & (counts < plan.size.keys))
    if not len(short):
        return ""
    batch = plan.size.batch or 1
    lengths = np.broadcast_to(counts, (batch,)).tolist()
    spelled = f" {lengths}" if batch <= _MAX_SPELLED_LENGTHS else ""
    items = f" of {'item' if len(short) == 1 else 'items'} {join_names(short, max_names=8)}" if len(counts) > 1 else ""
    return (
        f"uncounted-padding: {name} hides the last keys{items} from every query, but --align bottom-right puts the last query next to the last of them; "
        f'if they are padding, "lengths":{spelled or " […]"} puts it next to the last key that is filled'
    )


def _count_keys(mask: Array, bias: Array, key_count: int) -> NumpyArray:
    """Return up to which key some query of an item sees: (b or 1,)."""
    seen = np.ones((1, key_count), bool)
    if mask is not None:
        seen = seen & as_numpy(mask).any((1, 2))
    if bias is not None:
        seen = seen & (as_numpy(bias) > _HIDING_BIAS).any((1, 2))
    return np.where(seen.any(-1), key_count - np.argmax(seen[:, ::-1], -1), 0)
