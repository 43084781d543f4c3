"""Sinks: a column beside the scores, as gpt-oss and softmax1 have it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers import assert_close, assert_identical, compute, draw_normal, softmax, step_names, step_values

pytestmark = pytest.mark.usefixtures("own_stream")
INF = math.inf
B, H, G, N, M, D, E, C = 2, 6, 3, 4, 5, 8, 7, 9  # batch, heads, kv heads, queries, keys, width of q, of another k, of v


def heads_of(seed: int, d_k: int = D) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q (B, H, N, D), k (B, H, M, d_k), v (B, H, M, C)"""
    return draw_normal(seed, B, H, N, D), draw_normal(seed + 1, B, H, M, d_k), draw_normal(seed + 2, B, H, M, C)


def sinking(masked: bool) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray]:
    q, k, v = heads_of(70)
    sinks = draw_normal(71, H) * 2
    visible = np.tril(np.ones((N, M), bool)) if masked else np.ones((N, M), bool)
    fields = {"q": q, "k": k, "v": v, "parameters": {"sinks": sinks}, **({"mask": visible} if masked else {})}
    return fields, np.where(visible, q @ k.swapaxes(-1, -2) / math.sqrt(D), -INF), sinks, v


@pytest.mark.parametrize("masked", [False, True])
def test_a_sink_is_gpt_osss_column(masked: bool) -> None:
    """gpt-oss, torch/model.py: QK = cat([QK, S]), softmax, then the last column is dropped."""
    fields, s, sinks, v = sinking(masked)
    result = compute(fields, sink="given")
    column = np.broadcast_to(sinks[:, None, None], (B, H, N, 1))
    w = softmax(np.concatenate([s, column], -1))

    assert_close(step_values(result, "weights"), w[..., :-1])
    assert_close(step_values(result, "sink_weights"), w[..., -1])
    assert_close(step_values(result, "head_context"), w[..., :-1] @ v)
    order = step_names(result)
    assert order.index("visible_keys") < order.index("sink_weights") == order.index("weights") - 1


@pytest.mark.parametrize("masked", [False, True])
def test_a_sink_is_softmax_times_a_gate(masked: bool) -> None:
    """semantics 2.13: w · σ(lse − sink), lse without the sink; ours is reported with it."""
    fields, s, sinks, _ = sinking(masked)
    result = compute(fields, sink="given")
    lse = np.log(np.exp(s).sum(-1))
    gate = 1 / (1 + np.exp(sinks[:, None] - lse))

    assert_close(step_values(result, "weights"), softmax(s) * gate[..., None])
    assert_close(step_values(result, "log_sum_exp"), np.log(np.exp(s).sum(-1) + np.exp(sinks)[:, None]))
    assert_close(step_values(result, "max_score"), s.max(-1))
    assert_close(step_values(result, "weights").sum(-1) + step_values(result, "sink_weights"), np.ones((B, H, N)))


def test_a_sink_of_zero_is_softmax1_and_add_zero_attn() -> None:
    """nn.MultiheadAttention(add_zero_attn=True) has one more key of zeros."""
    heads, d = 3, 12
    mha = nn.MultiheadAttention(d, heads, add_zero_attn=True, batch_first=True, dtype=torch.float64)
    x = torch.as_tensor(draw_normal(72, B, N, d))
    with torch.no_grad():
        out, w = mha(x, x, x, average_attn_weights=False)
    packed, bias = mha.in_proj_weight.detach().chunk(3), mha.in_proj_bias.detach().chunk(3)
    parameters = {f"w_{a}": m for a, m in zip("qkv", packed, strict=True)}
    parameters |= {f"b_{a}": m for a, m in zip("qkv", bias, strict=True)}
    parameters |= {"w_o": mha.out_proj.weight.detach(), "b_o": mha.out_proj.bias.detach()}
    result = compute({"embeddings": x, "parameters": parameters, "w_layout": "out-in"}, sink="zero", heads=heads)

    assert_close(step_values(result, "weights"), w[..., :N])
    assert_close(step_values(result, "sink_weights"), w[..., N])
    assert_close(step_values(result, "output"), out)
    s = step_values(result, "scaled_scores")
    assert_close(step_values(result, "weights"), np.exp(s) / (1 + np.exp(s).sum(-1, keepdims=True)))  # Miller 2023


def test_a_sink_is_neither_scaled_nor_capped() -> None:
    fields, s, sinks, _ = sinking(False)
    result = compute(fields, sink="given", softcap=0.5, temperature=3, scale=2)
    capped = 0.5 * np.tanh(s * math.sqrt(D) * 2 / 0.5) / 3
    e = np.exp(capped)

    assert_close(step_values(result, "weights"), e / (e.sum(-1, keepdims=True) + np.exp(sinks)[:, None, None]))


@pytest.mark.parametrize("scale", [1e3, -1e3])
def test_a_huge_sink_does_not_overflow(scale: float) -> None:
    q, k, _ = heads_of(73)
    result = compute({"q": q, "k": k, "parameters": {"sinks": np.full(H, scale)}}, sink="given")

    assert np.isfinite(step_values(result, "weights")).all()
    assert_close(step_values(result, "sink_weights"), np.full((B, H, N), float(scale > 0)))
    assert_close(step_values(compute({"q": q * 1e3, "k": k}, sink="zero"), "weights").sum(-1).max(), 1.0)


def test_a_query_that_sees_nothing_gives_all_to_the_sink() -> None:
    q, k, _ = heads_of(74)
    mask = np.ones((N, M), bool)
    mask[2] = False
    result = compute({"q": q, "k": k, "mask": mask}, sink="zero")

    assert_identical(step_values(result, "weights")[:, :, 2], np.zeros((B, H, M)))
    assert_identical(step_values(result, "sink_weights")[:, :, 2], np.ones((B, H)))
    assert_identical(step_values(result, "log_sum_exp")[:, :, 2], np.zeros((B, H)))
