"""Dropout is drawn as torch.nn.Dropout draws it, over the whole grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.helpers import assert_close, assert_identical, compute, step_values
from tests.oracles.tensors import coins, floats, merged, redrawn, stream

pytestmark = pytest.mark.usefixtures("own_stream")
B, H, G, N, M, D, C, P = 2, 6, 3, 4, 5, 7, 9, 8  # batch, heads, kv heads, queries, keys, width of q and k, of v, past
E, HEADS, T, SOURCE, K_DIM = 12, 3, 5, 4, 7
X, Y = floats(stream(400), T, E), floats(stream(401), SOURCE, K_DIM)  # embeddings, memory


@pytest.mark.parametrize("shape", [(), (H,), (B,), (B, H)], ids=["no axes", "heads", "batch", "batch and heads"])
@pytest.mark.parametrize(
    ("choices", "p"),
    [
        ({"dropout": 0.4, "seed": 11}, 0.4),
        ({"dropout": "dropout:p=0.25,seed=11", "seed": 99}, 0.25),
        ({"dropout": "0.75", "seed": 11}, 0.75),
    ],
)
def test_dropout_is_drawn_over_the_whole_grid(choices: dict[str, Any], p: float, shape: tuple[int, ...]) -> None:
    g = stream(500)
    b, h = B if B in shape else 1, H if H in shape else 1
    q, k, v = floats(g, b, h, N, D), floats(g, b, h, M, D), floats(g, b, h, M, C)
    if shape == (H,):
        fields: dict[str, Any] = {"q": q[0], "k": k[0], "v": v[0], "layout": "htd"}
    elif shape == (B,):
        fields = {"q": q[:, 0], "k": k[:, 0], "v": v[:, 0]}
    else:
        fields = {"q": q, "k": k, "v": v} if shape else {"q": q[0, 0], "k": k[0, 0], "v": v[0, 0]}
    mask = coins(g, N, M)
    result = compute({**fields, "mask": mask}, **choices)
    kept = torch.rand((b, h, N, M), dtype=torch.float64, generator=stream(11)) < 1 - p
    w = torch.zeros(b, h, N, M, dtype=torch.float64) + F.scaled_dot_product_attention(
        q, k, torch.eye(M, dtype=torch.float64).expand(b, h, -1, -1), mask
    )
    survivors = torch.where(kept, w / (1 - p), 0.0)
    assert 0 < (survivors != 0).sum() < (w != 0).sum()
    assert_close(step_values(result, "dropout_weights").reshape(b, h, N, M), survivors, atol=1e-15)
    assert_close(step_values(result, "weights").reshape(b, h, N, M), w, atol=1e-15)  # as they were before
    assert_close(
        step_values(result, "context").reshape(b, N, h * C), merged(survivors @ v), atol=1e-14 * float(v.abs().max())
    )


def test_one_stream_for_projection_and_dropout() -> None:
    expected = redrawn(
        "linear", 77, "qkv", dict.fromkeys("qkv", (E, 8))
    )  # leaves the global stream where the next draw begins
    kept = torch.rand((1, 1, T, T), dtype=torch.float64) < 0.5
    result = compute({"embeddings": X}, projection="linear:dim=8", dropout=0.5, seed=77)
    assert_identical(result.parameters["w_v"], expected["w_v"])
    assert_close(step_values(result, "dropout_weights"), np.where(kept[0, 0], step_values(result, "weights") * 2, 0))
    assert 0 < kept.sum() < kept.numel()


def test_dropout_and_projection_seeded_apart() -> None:
    """The part's own seed begins a stream of its own: rasbt's figures draw weights with 789 and re-seed dropout with 123."""
    expected = redrawn("linear", 789, "qkv", dict.fromkeys("qkv", (E, 2)))
    torch.manual_seed(123)
    kept = torch.rand((1, 1, T, T), dtype=torch.float64) < 0.5
    result = compute(
        {"embeddings": X}, projection="linear:dim=2,seed=789", dropout="dropout:p=0.5,seed=123", mask="causal"
    )
    assert_identical(result.parameters["w_k"], expected["w_k"])
    w = F.scaled_dot_product_attention(
        *(X[None] @ expected[f"w_{n}"].double() for n in "qk"), torch.eye(T, dtype=torch.float64)[None], is_causal=True
    )[0]
    assert_close(step_values(result, "dropout_weights"), torch.where(kept[0, 0], w * 2, 0.0), atol=1e-15)


@pytest.mark.parametrize("shape", [(M,), (N, M), (H, 1, 1), (B, 1, 1, M), (B, H, N, M)])
def test_a_given_dropout_mask_wins_over_drawing(shape: tuple[int, ...]) -> None:
    g = stream(501)
    q, k, v = floats(g, B, H, N, D), floats(g, B, G, M, D), floats(g, B, G, M, C)
    kept = coins(g, *shape)
    assert 0 < kept.sum() < kept.numel()
    result = compute(
        {"q": q, "k": k, "v": v, "dropout_mask": kept}, dropout="dropout:p=0.2,seed=3", mask="causal", align="top-left"
    )
    w = F.scaled_dot_product_attention(
        q, k, torch.eye(M, dtype=torch.float64).expand(B, G, -1, -1), is_causal=True, enable_gqa=True
    )
    survivors = torch.where(kept.expand(B, H, N, M), w / 0.8, 0.0)
    assert_close(step_values(result, "dropout_weights"), survivors, atol=1e-15)
    assert_close(
        step_values(result, "head_context"),
        survivors @ v.repeat_interleave(H // G, 1),
        atol=1e-14 * float(v.abs().max()),
    )
