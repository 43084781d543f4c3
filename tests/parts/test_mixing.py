"""Heads that are mixed: talking heads and differential attention."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from attncli.parts.mixing import split_pairs, visible_to_pair
from attncli.variant import Variant
from tests.helpers import assert_close, compute, draw_normal, softmax, step_names, step_values

pytestmark = pytest.mark.usefixtures("own_stream")
INF = math.inf
B, H, G, N, M, D, E, C = 2, 6, 3, 4, 5, 8, 7, 9  # batch, heads, kv heads, queries, keys, width of q, of another k, of v


def heads_of(seed: int, d_k: int = D) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q (B, H, N, D), k (B, H, M, d_k), v (B, H, M, C)"""
    return draw_normal(seed, B, H, N, D), draw_normal(seed + 1, B, H, M, d_k), draw_normal(seed + 2, B, H, M, C)


@pytest.mark.parametrize("which", ["both", "talking_pre", "talking_post"])
def test_talking_heads_are_shazeers(which: str) -> None:
    """Shazeer et al. 2020, §3: einsum of the logits with P_l before the softmax, of the weights with P_w after."""
    q, k, v = heads_of(80)
    pre, post = draw_normal(81, H, H), draw_normal(82, H, H)
    parameters = {"talking_pre": pre, "talking_post": post}
    parameters = parameters if which == "both" else {which: parameters[which]}
    visible = np.tril(np.ones((N, M), bool), 1)
    result = compute({"q": q, "k": k, "v": v, "parameters": parameters, "mask": visible}, head_mixing="talking-heads")

    s = q @ k.swapaxes(-1, -2) / math.sqrt(D)
    if "talking_pre" in parameters:
        s = np.einsum("bgnm,gh->bhnm", s, pre)
        assert_close(step_values(result, "mixed_scores"), s)
    assert ("mixed_scores" in step_names(result)) == ("talking_pre" in parameters)
    w = softmax(np.where(visible, s, -INF))
    assert_close(step_values(result, "weights"), w)
    mixed = np.einsum("bgnm,gh->bhnm", w, post) if "talking_post" in parameters else w
    assert_close(step_values(result, "mixed_weights"), mixed)
    assert_close(step_values(result, "head_context"), mixed @ v, atol=1e-13)


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("depth", [0, 3])
@pytest.mark.parametrize("pairing", ["adjacent", "halves"])
def test_differential_attention_is_yes(pairing: str, depth: int, learned: bool) -> None:
    """Ye et al. 2024, eq. 1–3: (softmax(Q1 K1ᵀ/√d) − λ softmax(Q2 K2ᵀ/√d)) V, each pair normed × (1 − λ_init)."""
    pairs = H // 2
    q, k, v = draw_normal(83, B, H, N, D), draw_normal(84, B, H, M, D), draw_normal(85, B, pairs, M, 2 * D)
    vectors = {f"lambda_{x}{i}": draw_normal(86 + 2 * i + (x == "k"), D) * 0.3 for x in "qk" for i in (1, 2)}
    gain = draw_normal(92, 2 * D)
    fields = {"q": q, "k": k, "v": v, "parameters": vectors | {"sub_norm": gain} if learned else {}}
    result = compute(
        fields, head_mixing=f"differential:pairing={pairing},depth={depth}", mask="causal", align="top-left"
    )

    lambda_init = 0.8 - 0.6 * math.exp(-0.3 * depth)
    amount = lambda_init
    if learned:
        amount += math.exp(vectors["lambda_q1"] @ vectors["lambda_k1"])
        amount -= math.exp(vectors["lambda_q2"] @ vectors["lambda_k2"])
    w = softmax(np.where(np.tri(N, M, dtype=bool), q @ k.swapaxes(-1, -2) / math.sqrt(D), -INF))
    for p in range(pairs):
        first, second = (2 * p, 2 * p + 1) if pairing == "adjacent" else (p, p + pairs)
        mixed = w[:, first] - amount * w[:, second]
        z = mixed @ v[:, p]
        z_normed = z / np.sqrt((z**2).mean(-1, keepdims=True) + 1e-5) * (gain if learned else 1) * (1 - lambda_init)
        assert_close(step_values(result, "mixed_weights")[:, p], mixed)
        assert_close(step_values(result, "head_context")[:, p], z, atol=1e-13)
        assert_close(step_values(result, "normed_context")[:, p], z_normed, rtol=1e-11, atol=1e-13)
        assert_close(step_values(result, "context")[..., p * 2 * D : (p + 1) * 2 * D], z_normed, rtol=1e-11, atol=1e-13)
    assert step_names(result)[-4:] == ["mixed_weights", "head_context", "normed_context", "context"]


@pytest.mark.parametrize(
    ("pairing", "pairs"), [("adjacent", [0, 0, 1, 1, 2, 2, 3, 3]), ("halves", [0, 1, 2, 3, 0, 1, 2, 3])]
)
def test_a_head_is_part_of_the_pair_that_its_weights_go_to(pairing: str, pairs: list[int]) -> None:
    part = Variant(head_mixing=f"differential:pairing={pairing}").head_mixing
    first, second = split_pairs(torch.arange(8)[None], pairing)

    assert [part.traits.mixed_head(part, head, 8) for head in range(8)] == pairs
    assert all({int(first[0, p]), int(second[0, p])} == {h for h in range(8) if pairs[h] == p} for p in range(4))


@pytest.mark.parametrize(("pairing", "pairs"), [("adjacent", [(0, 1), (2, 3)]), ("halves", [(0, 2), (1, 3)])])
def test_a_pair_may_see_what_one_of_its_heads_may(pairing: str, pairs: list[tuple[int, int]]) -> None:
    part = Variant(head_mixing=f"differential:pairing={pairing}").head_mixing
    visible = torch.as_tensor(draw_normal(1, 2, 4, 1, 3) > 0)  # (b, h, n, m), n = 1
    shared = visible[:, :1].expand(2, 1, 5, 3)

    assert torch.equal(
        visible_to_pair(visible, part), torch.stack([visible[:, a] | visible[:, b] for a, b in pairs], 1)
    )
    assert torch.equal(visible_to_pair(shared, part), shared)
