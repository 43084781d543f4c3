"""The one kernel that PyTorch has for attention, where it says exactly what the plan says; the plan knows where."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from attncli.core.inputs import Inputs
from attncli.core.recorder import Recorder, all_finite
from attncli.core.tiles import Tile
from attncli.errors import CannotError
from attncli.plan.schedule import is_causal

_WHOLE_GRID = Tile()


def try_sdpa(
    q: Tensor, k: Tensor, v: Tensor, inputs: Inputs, recorder: Recorder, tile: Tile = _WHOLE_GRID
) -> Tensor | None:
    """q (b, h, n, d), k and v (b, h, m, d) → (b, h, n, d); None where only the algebra keeps what it promises.

    The kernel multiplies by zero what it hides, so that a NaN or ∞ there would arrive: such values go the long way.

    Raises:
        CannotError: the kernel was asked for, and the values are not finite.
    """
    plan, z = inputs.plan, None
    k, v = tile.select_kv(k), tile.select_kv(v)  # (b, h, m, d)
    visible = inputs.grid_of(tile).visible if plan.is_masked and not is_causal(plan) else None  # (b, h, n, m)
    if all_finite(q) and all_finite(k) and all_finite(v):
        scale = next((link.value for link in plan.chain if link.is_scale), 1.0)
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=is_causal(plan), scale=scale)
    if z is None or not all_finite(z):
        if "schedule" in plan.variant.explicit:
            message = "the fused kernel is for finite values, and here some are not, or come to be NaN or ∞"
            raise CannotError("not-fused", message, help="leave --schedule out")
        recorder.fall_back_to_tiles()
        return None
    if visible is not None:
        blind = ~visible.any(-1, keepdim=True)  # (b, h, n, 1)
        z = z.masked_fill(blind, recorder.empty_row_value(blind[..., 0]))
    return z
