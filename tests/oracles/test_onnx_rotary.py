"""RotaryEmbedding of the ONNX reference."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from tests.helpers import assert_close, compute, draw_normal, step_values
from tests.parts.position_formulas import omegas

pytestmark = pytest.mark.usefixtures("own_stream")
B, H, G, N, M, D, E, C = 2, 6, 3, 4, 5, 8, 7, 9  # batch, heads, kv heads, queries, keys, width of q, of another k, of v


def heads_of(seed: int, d_k: int = D) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q (B, H, N, D), k (B, H, M, d_k), v (B, H, M, C)"""
    return draw_normal(seed, B, H, N, D), draw_normal(seed + 1, B, H, M, d_k), draw_normal(seed + 2, B, H, M, C)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("r", [0, 4, 6])
def test_rope_is_onnx_rotary_embedding(interleaved: int, r: int) -> None:
    onnx = pytest.importorskip("onnx")
    q, k, _ = heads_of(97)
    positions, k_positions = np.array([[0, 5, 2, 9], [7, 7, 1, 0]]), np.array([[0, 5, 2, 9, 3], [7, 7, 1, 0, 8]])
    angles = np.outer(np.arange(10), omegas(r or D, 300))
    node = onnx.helper.make_node(
        "RotaryEmbedding", ["x", "cos", "sin", "at"], ["y"], interleaved=interleaved, rotary_embedding_dim=r
    )
    reference = importlib.import_module("onnx.reference").ReferenceEvaluator(node)
    layout = "interleaved" if interleaved else "half"
    text = f"rope:theta=300,layout={layout}" + (f",dims={r}" if r else "")
    result = compute({"q": q, "k": k, "positions": positions, "k_positions": k_positions}, position=text)

    for step, x, at in (("positioned_q", q, positions), ("positioned_k", k, k_positions)):
        expected = reference.run(None, {"x": x, "cos": np.cos(angles), "sin": np.sin(angles), "at": at})[0]
        assert_close(step_values(result, step), expected, rtol=1e-11, atol=1e-14)
