"""Norms of q and k: their formulas, per head and per projection, before and after the rotation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.helpers import assert_close, assert_identical, compute, draw_normal, step_names, step_values
from tests.parts.position_formulas import omegas, rotated

pytestmark = pytest.mark.usefixtures("own_stream")
B, H, G, N, M, D, E, C = 2, 6, 3, 4, 5, 8, 7, 9  # batch, heads, kv heads, queries, keys, width of q, of another k, of v
Q_POS, K_POS = [3, 0, 19, 8], [5, 4, 1, 2, 17]


def normed(x: np.ndarray, name: str, eps: float) -> np.ndarray:
    """Row by row of (…, d), with nothing but sums."""
    out = np.empty_like(x)
    for where in np.ndindex(x.shape[:-1]):
        row = x[where]
        if name == "l2":
            out[where] = row / max(math.sqrt(sum(row**2)), eps)
        elif name == "rms":
            out[where] = row / math.sqrt(sum(row**2) / len(row) + eps)
        else:
            mean = sum(row) / len(row)
            out[where] = (row - mean) / math.sqrt(sum((row - mean) ** 2) / len(row) + eps)
    return out


def by_rows(x: np.ndarray) -> np.ndarray:
    """(B, H, T, d) → (B, T, H·d)"""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def by_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """(B, T, H·d) → (B, H, T, d)"""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


EPS = {"l2": 1e-12, "rms": 1e-6, "layer": 1e-5}


@pytest.mark.parametrize("gains", ["none", "a head's", "each head's", "q only"])
@pytest.mark.parametrize("eps", [None, 0.3])
@pytest.mark.parametrize("name", EPS)
def test_norms_of_each_head(name: str, eps: float | None, gains: str) -> None:
    q, k = draw_normal(35, B, H, N, D), draw_normal(36, B, G, M, D)
    if eps:  # for l2 it is a floor under the length: half the lengths are below it
        q[:, ::2], k[:, ::2] = q[:, ::2] * 0.01, k[:, ::2] * 0.01
    parameters = {
        "none": {},
        "a head's": {"q_norm": draw_normal(37, D), "k_norm": draw_normal(38, D)},
        "each head's": {"q_norm": draw_normal(37, H, D), "k_norm": draw_normal(38, G, D)},
        "q only": {"q_norm": draw_normal(37, D)},
    }[gains]
    result = compute({"q": q, "k": k, "parameters": parameters}, qk_norm=name + (f":eps={eps}" if eps else ""))

    def gain(which: str) -> Any:
        g = parameters.get(which, np.ones(1))
        return g[:, None] if g.ndim == 2 else g

    q, k = (normed(x, name, eps or EPS[name]) * gain(g) for x, g in ((q, "q_norm"), (k, "k_norm")))
    assert_close(step_values(result, "normed_q"), q)
    assert_close(step_values(result, "normed_k"), k)
    assert_close(step_values(result, "scores"), q @ k.repeat(H // G, 1).swapaxes(-1, -2), atol=1e-13)


@pytest.mark.parametrize("gains", [True, False])
@pytest.mark.parametrize("name", EPS)
def test_norms_of_the_whole_projection(name: str, gains: bool) -> None:
    q, k = draw_normal(39, B, H, N, D), draw_normal(40, B, G, M, D)
    q_gain, k_gain = draw_normal(41, H * D), draw_normal(42, G * D)
    fields = {"q": q, "k": k, "parameters": {"q_norm": q_gain, "k_norm": k_gain} if gains else {}}
    result = compute(fields, qk_norm=f"{name}:scope=full")

    q = normed(by_rows(q), name, EPS[name]) * (q_gain if gains else 1)
    k = normed(by_rows(k), name, EPS[name]) * (k_gain if gains else 1)
    assert_close(step_values(result, "normed_q"), by_heads(q, H))
    assert_close(step_values(result, "normed_k"), by_heads(k, G))


def test_norms_are_pytorchs() -> None:
    q, k = draw_normal(43, N, D), draw_normal(44, M, D)
    gain = draw_normal(45, D)
    fields = {"q": q, "k": k, "parameters": {"q_norm": gain}}
    x, g = torch.as_tensor(q), torch.as_tensor(gain)

    assert_close(step_values(compute(fields, qk_norm="l2"), "normed_q"), F.normalize(x, dim=-1) * g)
    assert_close(step_values(compute(fields, qk_norm="rms:eps=0.01"), "normed_q"), F.rms_norm(x, (D,), g, 0.01))
    assert_close(
        step_values(compute(fields, qk_norm="layer:eps=0.01"), "normed_q"), F.layer_norm(x, (D,), g, None, 0.01)
    )


def test_a_zero_vector_is_normed_to_zero() -> None:
    q, k = np.zeros((N, D)), draw_normal(46, M, D)
    for name in EPS:
        assert_identical(step_values(compute({"q": q, "k": k}, qk_norm=name), "normed_q"), np.zeros((N, D)))


@pytest.mark.parametrize("scope", ["head", "full"])
@pytest.mark.parametrize("name", EPS)
def test_a_norm_stands_before_or_after_the_rotation(name: str, scope: str) -> None:
    q, k = draw_normal(47, B, H, N, D), draw_normal(48, B, G, M, D)
    wide = (H * D, G * D) if scope == "full" else (D, D)
    parameters = {"q_norm": draw_normal(49, wide[0]), "k_norm": draw_normal(50, wide[1])}
    fields = {"q": q, "k": k, "positions": Q_POS, "k_positions": K_POS, "parameters": parameters}

    def norm(x: np.ndarray, which: str) -> np.ndarray:
        if scope == "head":
            return normed(x, name, EPS[name]) * parameters[which]
        return by_heads(normed(by_rows(x), name, EPS[name]) * parameters[which], x.shape[1])

    before = compute(fields, qk_norm=f"{name}:scope={scope},at=before", position="rope")
    assert_close(step_values(before, "positioned_q"), rotated(norm(q, "q_norm"), Q_POS, omegas(D)), atol=1e-13)
    assert_close(step_values(before, "positioned_k"), rotated(norm(k, "k_norm"), K_POS, omegas(D)), atol=1e-13)
    assert step_names(before)[:6] == ["q", "k", "normed_q", "normed_k", "positioned_q", "positioned_k"]
    after = compute(fields, qk_norm=f"{name}:scope={scope},at=after", position="rope")
    assert_close(step_values(after, "normed_q"), norm(rotated(q, Q_POS, omegas(D)), "q_norm"), atol=1e-13)
    assert_close(step_values(after, "normed_k"), norm(rotated(k, K_POS, omegas(D)), "k_norm"), atol=1e-13)
    assert step_names(after)[:6] == ["q", "k", "positioned_q", "positioned_k", "normed_q", "normed_k"]
    assert not np.allclose(step_values(before, "scores"), step_values(after, "scores"), atol=1e-2)
    assert_close(
        step_values(after, "scores"),
        step_values(after, "normed_q") @ step_values(after, "normed_k").repeat(2, 1).swapaxes(-1, -2),
    )
