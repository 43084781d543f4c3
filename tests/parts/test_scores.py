"""Scores: each is the formula of its paper, computed cell by cell."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.helpers import assert_close, assert_identical, compute, draw_normal, softmax, step_names, step_values

pytestmark = pytest.mark.usefixtures("own_stream")
B, H, G, N, M, D, E, C = 2, 6, 3, 4, 5, 8, 7, 9  # batch, heads, kv heads, queries, keys, width of q, of another k, of v


def heads_of(seed: int, d_k: int = D) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q (B, H, N, D), k (B, H, M, d_k), v (B, H, M, C)"""
    return draw_normal(seed, B, H, N, D), draw_normal(seed + 1, B, H, M, d_k), draw_normal(seed + 2, B, H, M, C)


def cells(q: np.ndarray, k: np.ndarray, score: Any) -> np.ndarray:
    """score(one query, one key) for every pair: (B, H, N, M)"""
    pairs = [
        [[[score(x, y) for y in kh] for x in qh] for qh, kh in zip(qb, kb, strict=True)]
        for qb, kb in zip(q, k, strict=True)
    ]
    return np.array(pairs)


A = 10  # hidden units of additive and concat
W_Q, W_K, V_A = draw_normal(50, D, A), draw_normal(51, E, A), draw_normal(52, A)


SCORES: dict[str, tuple[str, int, dict[str, np.ndarray], Any]] = {
    "general": ("general", E, {"score_w_q": draw_normal(53, D, E)}, lambda q, k: q @ draw_normal(53, D, E) @ k),
    "additive": (  # Bahdanau et al. 2015, A.1.2: v · tanh(W q + U k)
        "additive",
        E,
        {"score_w_q": W_Q, "score_w_k": W_K, "score_v": V_A},
        lambda q, k: sum(V_A[a] * math.tanh(W_Q[:, a] @ q + W_K[:, a] @ k) for a in range(A)),
    ),
    "additive without parameters": ("additive", D, {}, lambda q, k: np.tanh(q + k).sum()),  # as Keras without scale
    "additive with v only": (
        "additive",
        D,
        {"score_v": draw_normal(54, D)},
        lambda q, k: draw_normal(54, D) @ np.tanh(q + k),
    ),
    "concat": (  # Luong et al. 2015, §3.1: v · tanh(W [q; k]), W one matrix over both
        "concat",
        E,
        {"score_w_q": W_Q, "score_w_k": W_K, "score_v": V_A},
        lambda q, k: V_A @ np.tanh(np.vstack([W_Q, W_K]).T @ np.concatenate([q, k])),
    ),
    "cosine": ("cosine", D, {}, lambda q, k: (q @ k) / math.sqrt((q @ q) * (k @ k))),
    "euclidean": ("euclidean", D, {}, lambda q, k: -sum((a - b) ** 2 for a, b in zip(q, k, strict=True))),
    "elu": ("kernel:phi=elu", D, {}, lambda q, k: phi_elu(q) @ phi_elu(k)),
    "default phi": ("kernel", D, {}, lambda q, k: phi_elu(q) @ phi_elu(k)),
    "relu": ("kernel:phi=relu", D, {}, lambda q, k: np.maximum(q, 0) @ np.maximum(k, 0)),
    "exp": ("kernel:phi=exp", D, {}, lambda q, k: np.exp(q) @ np.exp(k)),
}


def phi_elu(x: np.ndarray) -> np.ndarray:
    return F.elu(torch.as_tensor(x)).numpy() + 1


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_their_formula(name: str) -> None:
    part, d_k, parameters, formula = SCORES[name]
    q, k, v = heads_of(1, d_k)
    result = compute({"q": q, "k": k, "v": v, "parameters": parameters}, score=part)

    expected = cells(q, k, formula)
    assert_close(step_values(result, "scores"), expected)
    assert "scaled_scores" not in step_names(result)  # auto is 1 for all but dot
    assert_close(step_values(result, "weights"), softmax(expected))
    assert_close(step_values(result, "head_context"), softmax(expected) @ v)
    assert not result.warnings


def test_cosine_of_a_zero_vector_is_zero() -> None:
    q, k = draw_normal(2, N, D), draw_normal(3, M, D)
    q[1], k[3] = 0, 0
    s = step_values(compute({"q": q, "k": k}, score="cosine"), "scores")

    assert_identical(s[1], np.zeros(M))
    assert_identical(s[:, 3], np.zeros(N))
    assert (np.delete(np.delete(s, 1, 0), 3, 1) != 0).all()


def test_cosine_does_not_overflow_and_does_not_see_lengths() -> None:
    q, k = draw_normal(4, N, D), draw_normal(5, M, D)
    s = step_values(compute({"q": q, "k": k}, score="cosine"), "scores")

    assert_close(step_values(compute({"q": q * 2.0**300, "k": k * 2.0**-300}, score="cosine"), "scores"), s)


def test_general_with_fewer_kv_heads() -> None:
    q, k, w = draw_normal(6, B, H, N, D), draw_normal(7, B, G, M, E), draw_normal(8, D, E)
    expected = np.einsum("bhnd,de,bhme->bhnm", q, w, k.repeat(H // G, 1))

    assert_close(
        step_values(compute({"q": q, "k": k, "parameters": {"score_w_q": w}}, score="general"), "scores"), expected
    )


def test_linear_attention_is_the_recurrence_of_its_paper() -> None:
    """Katharopoulos et al. 2020, eq. 12 and 18–20: a state of keys' features and values, read by each query."""
    q, k, v = draw_normal(9, M, D), draw_normal(10, M, D), draw_normal(11, M, C)
    result = compute({"q": q, "k": k, "v": v}, score="kernel", normalizer="sum", mask="causal")

    state, total = np.zeros((D, C)), np.zeros(D)
    for i in range(M):
        state, total = state + np.outer(phi_elu(k[i]), v[i]), total + phi_elu(k[i])
        assert_close(step_values(result, "context")[i], phi_elu(q[i]) @ state / (phi_elu(q[i]) @ total))


def test_onnx_linear_attention_is_unnormalised_dot_attention() -> None:
    """onnx.reference LinearAttention, update_rule linear; it accumulates in float32, so within 1e-5."""
    onnx = pytest.importorskip("onnx")
    ops = importlib.import_module("onnx.reference")
    if not hasattr(onnx.defs, "has") or not onnx.defs.has("LinearAttention"):
        pytest.skip("this release of onnx has no LinearAttention")
    q, k, v = (draw_normal(i, B, M, n).astype(np.float32) for i, n in ((12, H * D), (13, G * D), (14, G * C)))
    node = onnx.helper.make_node(
        "LinearAttention", ["q", "k", "v"], ["y", "s"], q_num_heads=H, kv_num_heads=G, update_rule="linear"
    )
    float_ = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info(n, float_, None) for n in "qkv"],
        [onnx.helper.make_tensor_value_info(n, float_, None) for n in "ys"],
    )
    version = onnx.defs.get_schema("LinearAttention").since_version
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)])
    expected, _ = ops.ReferenceEvaluator(model).run(None, {"q": q, "k": k, "v": v})

    fields = {"q": q.astype(np.float64), "k": k.astype(np.float64), "v": v.astype(np.float64)}
    result = compute(fields, heads=H, kv_heads=G, normalizer="none", mask="causal")
    assert_close(step_values(result, "context"), expected, rtol=1e-5, atol=1e-5)
