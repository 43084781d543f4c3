"""The one kernel that PyTorch has for attention, where it says exactly what the plan says; the plan knows where."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from attncli.core.inputs import Given
from attncli.core.recorder import Notes, finite
from attncli.core.tiles import Tile
from attncli.errors import CannotError
from attncli.plan.schedule import causal

_ALL = Tile()


def fused(q: Tensor, k: Tensor, v: Tensor, given: Given, note: Notes, tile: Tile = _ALL) -> Tensor | None:
    """q (b, h, n, d), k and v (b, h, m, d) → (b, h, n, d); None where only the algebra keeps what it promises.

    The kernel multiplies by zero what it hides, so that a NaN or ∞ there would arrive: such values go the long way.

    Raises:
        CannotError: the kernel was asked for, and the values are not finite.
    """
    plan, z = given.plan, None
    k, v = tile.of_keys(k), tile.of_keys(v)  # (b, h, m, d)
    visible = given.on(tile).visible if plan.masked and not causal(plan) else None  # (b, h, n, m)
    if finite(q) and finite(k) and finite(v):
        scale = next((link.value for link in plan.chain if link.is_scale), 1.0)
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=causal(plan), scale=scale)
    if z is None or not finite(z):
        if "schedule" in plan.variant.chosen:
            message = "the fused kernel is for finite values, and here some are not, or come to be NaN or ∞"
            raise CannotError("not-fused", message, help="leave --schedule out")
        note.not_fused()
        return None
    if visible is not None:
        blind = ~visible.any(-1, keepdim=True)  # (b, h, n, 1)
        z = z.masked_fill(blind, note.blind(blind[..., 0]))
    return z
