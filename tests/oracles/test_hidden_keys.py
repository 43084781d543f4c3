"""What is hidden stays hidden: SDPA run with those keys taken away."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers import assert_close, assert_identical, compute, step_values
from tests.oracles.tensors import floats, stream

pytestmark = pytest.mark.usefixtures("own_stream")
INF = math.inf
B, H, G, N, M, D, C, P = 2, 6, 3, 4, 5, 7, 9, 8  # batch, heads, kv heads, queries, keys, width of q and k, of v, past


def without_hidden(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, bias: Tensor | None = None) -> Tensor:
    """SDPA of each query on its own, handed only the keys it may see. seen: (B, H, N, M)"""
    z = torch.zeros(B, H, N, C, dtype=q.dtype)
    for b, h, i in np.ndindex(B, H, N):
        at = seen[b, h, i].nonzero()[:, 0]
        added = None if bias is None else bias[at][None]
        z[b, h, i] = (
            F.scaled_dot_product_attention(q[b, h, i, None], k[b, h // (H // G), at], v[b, h // (H // G), at], added)[0]
            if len(at)
            else 0
        )
    return z


BIAS = torch.tensor([0.5, -INF, -1.0, 2.0, -INF], dtype=torch.float64)
HIDING: dict[str, tuple[dict[str, Any], dict[str, str], Callable[[int, int], bool]]] = {  # queries i, keys j
    "mask": ({"mask": [True, False, True, True, False]}, {}, lambda i, j: j in (0, 2, 3)),
    "bias": ({"bias": BIAS}, {}, lambda i, j: j in (0, 2, 3)),
    "lengths": ({"lengths": [3, 3]}, {}, lambda i, j: j < 3),
    "causal": ({}, {"mask": "causal", "align": "top-left"}, lambda i, j: j <= i),
    "window": (
        {"positions": [2, 3, 3, 2]},
        {"mask": "window:left=1,right=0"},
        lambda i, j: j in ((1, 2), (2, 3), (2, 3), (1, 2))[i],
    ),
    "not prefix": ({}, {"mask": "not prefix:length=2"}, lambda i, j: j >= 2),
    "masked first": (
        {"mask": [[False, True, True, False, True]]},
        {"chain": "mask,scale"},
        lambda i, j: j in (1, 2, 4),
    ),
    "bias after mask": (
        {"mask": [[False, True, True, False, True]], "bias": [0.0] * M},
        {"chain": "scale,mask,bias"},
        lambda i, j: j in (1, 2, 4),
    ),
    "row by row": (
        {"mask": torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 0, 0, 1, 0]]).bool()},
        {},
        lambda i, j: j in ((0, 1, 2), (2, 3), (), (0, 3))[i],
    ),
}


@pytest.mark.parametrize("poison", [math.nan, INF, -INF])
@pytest.mark.parametrize("how", HIDING)
def test_nothing_of_a_key_hidden_from_all_reaches_anyone(how: str, poison: float) -> None:
    g = stream(200)
    q, k, v = floats(g, B, H, N, D), floats(g, B, G, M, D), floats(g, B, G, M, C)
    fields, choices, sees = HIDING[how]
    seen = torch.tensor([[sees(i, j) for j in range(M)] for i in range(N)])
    hidden = ~seen.any(0)
    assert hidden.any()
    expected = without_hidden(q, k, v, seen.expand(B, H, N, M), BIAS if how == "bias" else None)
    k[:, :, hidden] = poison
    v[:, :, hidden] = poison
    result = compute({"q": q, "k": k, "v": v, **fields}, **choices)
    assert_close(step_values(result, "head_context"), expected, atol=1e-14 * float(v[:, :, ~hidden].abs().max()))
    assert not step_values(result, "weights")[..., hidden.numpy()].any()
    assert np.isfinite(step_values(result, "weights")).all()
    for row in ("max_score", "log_sum_exp", "entropy"):
        assert not np.isnan(step_values(result, row)).any()


@pytest.mark.parametrize("poison", [math.nan, INF, -INF])
@pytest.mark.parametrize("where", ["k", "v", "k, one number"])
def test_what_one_query_sees_another_does_not(where: str, poison: float) -> None:
    """Key 2 holds a NaN or ∞; causal queries 0 and 1 do not see it, 2 and 3 do, and get what SDPA gets from it."""
    g = stream(201)
    q, k, v = floats(g, B, H, N, D), floats(g, B, G, M, D), floats(g, B, G, M, C)
    clean = compute({"q": q, "k": k, "v": v}, mask="causal", align="top-left")
    if where == "v":
        v[:, :, 2, 4] = poison
    elif where == "k":
        k[:, :, 2] = poison
    else:
        k[:, :, 2, 4] = poison
    seen = torch.ones(N, M, dtype=torch.bool).tril().expand(B, H, N, M)
    result = compute({"q": q, "k": k, "v": v}, mask="causal", align="top-left")
    z = step_values(result, "head_context")
    assert_close(z, without_hidden(q, k, v, seen), atol=1e-13)
    assert_close(z[:, :, :2], step_values(clean, "head_context")[:, :, :2], atol=1e-14)  # by whichever of two ways
    assert not np.isfinite(z[:, :, 2:, 4]).all()  # it did arrive where it is seen


def test_a_strange_query_spoils_no_other() -> None:
    g = stream(202)
    q, k, v = floats(g, B, H, N, D), floats(g, B, G, M, D), floats(g, B, G, M, C)
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    q[:, :, 1, 3] = math.nan
    z = step_values(compute({"q": q, "k": k, "v": v}), "head_context")
    assert np.isnan(z[:, :, 1]).all()
    assert_close(z[:, :, [0, 2, 3]], expected[:, :, [0, 2, 3]], atol=1e-14 * float(v.abs().max()))


@pytest.mark.parametrize("poison", [math.nan, INF])
def test_a_hidden_key_weighs_nothing_even_beside_a_visible_nan(poison: float) -> None:
    """DESIGN §4: a normaliser gives 0 where not visible. Key 0 is visible and strange, key 2 is hidden and ordinary."""
    result = compute({"q": [[1.0], [2.0]], "k": [[poison], [1.0], [3.0]], "mask": [True, True, False]})
    w = step_values(result, "weights")
    assert np.isnan(w[:, 0]).all()
    assert_close(w[:, 2], [0.0, 0.0])


def test_visible_scores_of_minus_infinity_are_sdpas() -> None:
    """A visible key of −∞ weighs nothing; a row of nothing else weighs nothing anywhere, as in SDPA."""
    q, k = torch.tensor([[1.0], [2.0]], dtype=torch.float64), torch.tensor([[-INF], [3.0], [-INF]], dtype=torch.float64)
    v, mask = torch.eye(3, dtype=torch.float64), torch.tensor([[True, True, False], [True, False, True]])
    result = compute({"q": q, "k": k, "v": v, "mask": mask})
    expected = F.scaled_dot_product_attention(q[None], k[None], v[None], mask)[0]
    assert_identical(step_values(result, "weights"), expected)
    assert_identical(step_values(result, "context"), expected)
    assert expected.tolist() == [[0, 1, 0], [0, 0, 0]]


def test_a_poisoned_past_out_of_the_window_does_not_leak() -> None:
    g = stream(203)
    q, k, v, past_k, past_v = (
        floats(g, B, H, N, D),
        floats(g, B, G, N, D),
        floats(g, B, G, N, C),
        floats(g, B, G, P, D),
        floats(g, B, G, P, C),
    )
    whole_k, whole_v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
    i, j = torch.arange(P, P + N)[:, None], torch.arange(P + N)
    expected = F.scaled_dot_product_attention(q, whole_k, whole_v, (j <= i) & (j >= i - 2), enable_gqa=True)
    past_k[:, :, : P - 2], past_v[:, :, : P - 2] = math.nan, INF
    result = compute({"q": q, "k": k, "v": v, "past": {"k": past_k, "v": past_v}}, mask="causal and window:left=2")
    assert_close(step_values(result, "head_context"), expected, atol=1e-14 * float(whole_v.abs().max()))
