"""PyTorch's kernel for attention, where it computes exactly what the plan says; `plan.schedule` knows where that is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from attncli.core.inputs import Inputs
from attncli.core.recorder import Recorder
from attncli.core.statistics import all_finite, weight_of_empty_row
from attncli.core.tiles import WHOLE_GRID, Tile
from attncli.errors import CannotError
from attncli.plan import Plan
from attncli.plan.schedule import is_causal

_CPU_KERNEL = "_scaled_dot_product_flash_attention_for_cpu"  # not public; a test says what it is called with


def try_sdpa(
    plan: Plan, q: Tensor, k: Tensor, v: Tensor, inputs: Inputs, recorder: Recorder, tile: Tile = WHOLE_GRID
) -> Tensor | None:
    """Compute one tile by the kernel, q (b, h, n, d), k and v (b, h, m, d) → (b, h, n, d); None where it cannot.

    The kernel multiplies what it hides by zero, so that a NaN or ∞ there would arrive: it is used on finite values only.

    Raises:
        CannotError: `--schedule fused` was asked for, and the kernel cannot compute this.
    """
    z = None
    k, v = tile.select_kv(k), tile.select_kv(v)  # (b, h, m, d)
    visible = inputs.grid_of(tile).visible if plan.is_masked and not is_causal(plan) else None  # (b, h, n, m)
    needs_log_sum_exp, log_sum_exp = "log_sum_exp" in plan.keep, None  # (b, h, n)
    reason = "it needs finite values, but some here are NaN or ∞, or become so"
    if needs_log_sum_exp and not has_log_sum_exp(q.device):
        reason = "the kernel of this device or version of torch does not return log_sum_exp"
    elif all_finite(q) and all_finite(k) and all_finite(v):
        scale = next((link.value for link in plan.chain if link.is_scale), 1.0)
        if needs_log_sum_exp:
            z, log_sum_exp = _sdpa_with_log_sum_exp(q, k, v, visible, is_causal(plan), scale)
        else:
            z = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=is_causal(plan), scale=scale)
    if z is None or not all_finite(z):
        if "schedule" in plan.variant.explicit:
            raise CannotError(
                "not-fused", f"the fused kernel cannot compute this: {reason}", help="leave --schedule out"
            )
        return None
    if visible is not None:
        empty = ~visible.any(-1)  # (b, h, n)
        recorder.warn({"empty-rows": empty})
        z = z.masked_fill(empty[..., None], weight_of_empty_row(plan))
        log_sum_exp = None if log_sum_exp is None else log_sum_exp.masked_fill(empty, -torch.inf)
    recorder.record("log_sum_exp", log_sum_exp, "ln Σ e^s")
    return z


def has_log_sum_exp(device: torch.device) -> bool:
    """Whether the kernel for this device returns the log-sum-exp of each row beside its output."""
    return device.type == "cpu" and hasattr(torch.ops.aten, _CPU_KERNEL)


def _sdpa_with_log_sum_exp(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, is_causal: bool, scale: float | None
) -> tuple[Tensor, Tensor]:
    """As scaled_dot_product_attention, by the kernel that it calls on a CPU: the output, and ln Σ e^s of each row, (b, h, n)."""
    mask = None if visible is None else torch.zeros((), dtype=q.dtype).masked_fill(~visible, -torch.inf)  # (b, h, n, m)
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    kernel = getattr(torch.ops.aten, _CPU_KERNEL)
    z, log_sum_exp = kernel(q, k, v, 0.0, is_causal, attn_mask=mask, scale=scale)
    return z, log_sum_exp
