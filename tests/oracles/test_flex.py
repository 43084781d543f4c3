"""PyTorch's flex_attention, run eagerly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.helpers import assert_close, compute, draw_normal, step_values
from tests.parts.position_formulas import paper_slopes

pytestmark = [pytest.mark.usefixtures("own_stream"), pytest.mark.slow]
B, H, G, N, M, D, E, C = 2, 6, 3, 4, 5, 8, 7, 9  # batch, heads, kv heads, queries, keys, width of q, of another k, of v


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")  # eager is what we want
@pytest.mark.parametrize("what", ["alibi", "softcap", "relative", "document", "prefix-lm", "natten"])
def test_flex_attention(what: str) -> None:
    """A score_mod or a mask_mod of its own; float64, so within 1e-12."""
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    t, g = 11, torch.Generator().manual_seed(95)
    q, k, v = (torch.randn(B, H, t, d, generator=g, dtype=torch.float64) for d in (D, D, D))
    slopes, table = torch.tensor(paper_slopes(H), dtype=torch.float64), torch.as_tensor(draw_normal(96, 7, H))
    segments = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3])
    fields: dict[str, Any] = {"q": q, "k": k, "v": v}
    score_mod, mask_mod, choices = None, None, {}
    if what == "alibi":
        choices, score_mod = {"position": "alibi"}, lambda s, b, h, i, j: s - slopes[h] * (i - j).abs()
    elif what == "softcap":
        choices, score_mod = {"softcap": 0.7}, lambda s, b, h, i, j: 0.7 * torch.tanh(s / 0.7)
    elif what == "relative":
        fields |= {"parameters": {"bias_table": table}}
        choices = {"position": "relative:max-distance=3"}
        score_mod = lambda s, b, h, i, j: s + table[(j - i).clamp(-3, 3) + 3, h]  # noqa: E731
    elif what == "document":
        fields |= {"segments": segments}
        choices, mask_mod = {"mask": "document"}, lambda b, h, i, j: segments[i] == segments[j]
    elif what == "prefix-lm":
        choices, mask_mod = {"mask": "causal or prefix:length=4"}, lambda b, h, i, j: (i >= j) | (j < 4)
    else:
        choices = {"mask": "natten:kernel=5"}
        mask_mod = lambda b, h, i, j: (i.clamp(2, t - 3) - j).abs() <= 2  # noqa: E731 — attention-gym's natten
    block = flex.create_block_mask(mask_mod, None, None, t, t, device="cpu", BLOCK_SIZE=t) if mask_mod else None
    expected = flex.flex_attention(q, k, v, score_mod=score_mod, block_mask=block)

    assert_close(step_values(compute(fields, **choices), "head_context"), expected, atol=1e-13)
