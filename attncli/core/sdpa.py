"""PyTorch's kernel for attention, where it computes exactly what the plan says; `plan.schedule` knows where that is."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from attncli.core.inputs import Inputs
from attncli.core.recorder import Recorder
from attncli.core.statistics import all_finite, weight_of_empty_row
from attncli.core.tiles import WHOLE_GRID, Tile
from attncli.errors import CannotError
from attncli.plan import Plan
from attncli.plan.schedule import is_causal


def try_sdpa(
    plan: Plan, q: Tensor, k: Tensor, v: Tensor, inputs: Inputs, recorder: Recorder, tile: Tile = WHOLE_GRID
) -> Tensor | None:
    """Compute one tile by the kernel, q (b, h, n, d), k and v (b, h, m, d) → (b, h, n, d); None where it cannot.

    The kernel multiplies what it hides by zero, so that a NaN or ∞ there would arrive: it is used on finite values only.

    Raises:
        CannotError: `--schedule fused` was asked for, and the values are not finite.
    """
    z = None
    k, v = tile.select_kv(k), tile.select_kv(v)  # (b, h, m, d)
    visible = inputs.grid_of(tile).visible if plan.is_masked and not is_causal(plan) else None  # (b, h, n, m)
    if all_finite(q) and all_finite(k) and all_finite(v):
        scale = next((link.value for link in plan.chain if link.is_scale), 1.0)
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=is_causal(plan), scale=scale)
    if z is None or not all_finite(z):
        if "schedule" in plan.variant.explicit:
            message = "the fused kernel needs finite values, but some here are NaN or ∞, or become so"
            raise CannotError("not-fused", message, help="leave --schedule out")
        return None
    if visible is not None:
        empty = ~visible.any(-1)  # (b, h, n)
        recorder.warn({"empty-rows": empty})
        z = z.masked_fill(empty[..., None], weight_of_empty_row(plan))
    return z
