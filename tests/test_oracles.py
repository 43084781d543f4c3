"""The algebra held against other people's: PyTorch, ONNX's reference, and loops that anyone can check by eye.

No oracle here shares code with attncli: each is a library's own function, that library's own drawing, or the formula
retyped. Sizes are pairwise different wherever a mix-up of two axes could hide, and figures are compared by value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

import attncli
from tests.conftest import compute

pytestmark = pytest.mark.usefixtures("one_thread", "own_stream")

INF = math.inf
B, H, G, N, M, D, C, P = 2, 6, 3, 4, 5, 7, 9, 8  # batch, heads, kv heads, queries, keys, width of q and k, of v, past


def values(result: attncli.Attention, step: str) -> np.ndarray:
    return np.asarray(result[step].values)


def same(actual: Any, expected: Any, rtol: float = 1e-12, atol: float = 0.0) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol, equal_nan=True)


def identical(actual: Any, expected: Any) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def floats(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def coins(g: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=g) < 0.6


def merged(x: Tensor) -> Tensor:
    """(B, H, T, d) → (B, T, H·d)"""
    return x.transpose(1, 2).flatten(2)


# ── PyTorch's scaled_dot_product_attention, float64 ──────────────────────────────────────────────
# Within rtol 1e-12, and atol 1e-14 × the largest |v| where a sum cancels.
def sdpa_holds(result: attncli.Attention, q: Tensor, k: Tensor, v: Tensor, **more: Any) -> None:
    """Context per head, context, and weights (what SDPA makes of the values 1, e_1, e_2 …) of a result are SDPA's."""
    z = F.scaled_dot_product_attention(q, k, v, enable_gqa=True, **more)  # (B, H, N, C)
    one_hot = torch.eye(k.shape[2], dtype=v.dtype).expand(*k.shape[:2], -1, -1)
    w = F.scaled_dot_product_attention(q, k, one_hot, enable_gqa=True, **more)  # (B, H, N, M)
    atol = 1e-14 * float(v.abs().max())
    same(values(result, "head_context"), z, atol=atol)
    same(values(result, "context"), merged(z), atol=atol)
    same(values(result, "weights"), w, atol=1e-15)


LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Any], dict[str, str], dict[str, int]]] = {
    "bhtd": (lambda x: x, lambda x: x, {}, {}),  # tensors
    "bthd": (lambda x: x.transpose(1, 2), lambda x: x.numpy(), {"layout": "bthd"}, {}),  # numpy
    "merged": (merged, lambda x: x.tolist(), {}, {"heads": H, "kv_heads": G}),  # lists, (B, T, H·d)
}
BROADCASTS = [(M,), (N, 1), (N, M), (H, N, M), (1, H, 1, M), (B, 1, N, M), (B, H, N, M)]
LENGTHS = [3, 5]


def masking(name: str, g: torch.Generator) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Any]]:
    """(fields, choices, what SDPA is told) of one way to hide keys."""
    i, j = torch.arange(N)[:, None], torch.arange(M)
    kind, _, rank = name.partition(" ")
    if kind == "bool":
        mask = coins(g, *BROADCASTS[int(rank)])
        return {"mask": mask}, {}, {"attn_mask": mask.expand(B, H, N, M)}
    if kind == "float":
        shape = BROADCASTS[int(rank)]
        bias = floats(g, *shape).masked_fill(~coins(g, *shape), -INF)
        return {"bias": bias}, {}, {"attn_mask": bias.expand(B, H, N, M)}
    if kind == "both":
        mask, bias = coins(g, B, 1, 1, M), floats(g, H, N, M)
        return {"mask": mask, "bias": bias}, {}, {"attn_mask": bias.expand(B, H, N, M).masked_fill(~mask, -INF)}
    return {
        "none": ({}, {}, {}),
        "top-left": ({}, {"mask": "causal", "align": "top-left"}, {"is_causal": True}),
        "bottom-right": ({}, {"mask": "causal", "align": "bottom-right"}, {"attn_mask": j <= i + M - N}),
        "lengths": (
            {"lengths": torch.tensor(LENGTHS)},
            {},
            {"attn_mask": (j < torch.tensor(LENGTHS)[:, None])[:, None, None].expand(B, H, N, M)},
        ),
    }[name]


MASKINGS = ["none", "top-left", "bottom-right", "lengths", "both"] + [
    f"{kind} {rank}" for kind in ("bool", "float") for rank in range(len(BROADCASTS))
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MASKINGS)
def test_sdpa_on_every_layout_and_mask(name: str, layout: str) -> None:
    g = stream(MASKINGS.index(name))
    q, k, v = floats(g, B, H, N, D), floats(g, B, G, M, D), floats(g, B, G, M, C)
    lay, kind, said, heads = LAYOUTS[layout]
    fields, choices, told = masking(name, g)
    result = compute(
        {
            **{n: kind(lay(x)) for n, x in zip("qkv", (q, k, v), strict=True)},
            **{n: kind(x) for n, x in fields.items()},
            **said,
        },
        **heads,
        **choices,
    )
    sdpa_holds(result, q, k, v, **told)
    assert result["weights"].axes == ("batch", "head", "query", "key")
    assert isinstance(result["weights"].values, Tensor if layout == "bhtd" else np.ndarray)


@pytest.mark.parametrize("name", ["none", "top-left", "both"])
@pytest.mark.parametrize(
    ("scale", "factor"), [("auto", D**-0.5), ("none", 1.0), (1, 1.0), (0.3, 0.3), (-0.7, -0.7), ("-2.5e-1", -0.25)]
)
def test_sdpa_on_every_scale(scale: Any, factor: float, name: str) -> None:
    g = stream(100)
    q, k, v = floats(g, B, H, N, D), floats(g, B, G, M, D), floats(g, B, G, M, C)
    fields, choices, told = masking(name, g)
    result = compute({"q": q, "k": k, "v": v, **fields}, scale=scale, **choices)
    sdpa_holds(result, q, k, v, scale=factor, **told)
    assert ("scaled_scores" in result) == (factor != 1)


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
@pytest.mark.parametrize("kv_map", ["interleave", "tile"])
def test_sdpa_when_heads_share_keys_and_values(kv_heads: int, kv_map: str) -> None:
    g = stream(101)
    q, k, v = floats(g, B, H, N, D), floats(g, B, kv_heads, M, D), floats(g, B, kv_heads, M, C)
    result = compute({"q": q, "k": k, "v": v}, kv_map=kv_map)
    read = [h // (H // kv_heads) if kv_map == "interleave" else h % kv_heads for h in range(H)]
    sdpa_holds(result, q, k[:, read], v[:, read])


@pytest.mark.parametrize(
    ("queries", "keys", "align"),
    [
        (5, 5, None),
        (4, 7, "top-left"),
        (7, 4, "top-left"),
        (4, 7, "bottom-right"),
        (7, 4, "bottom-right"),
        (1, 6, "bottom-right"),
        (6, 1, "top-left"),
    ],
)
def test_sdpa_causal_whatever_the_shape(queries: int, keys: int, align: str | None) -> None:
    g = stream(102)
    q, k, v = floats(g, B, H, queries, D), floats(g, B, H, keys, D), floats(g, B, H, keys, C)
    result = compute({"q": q, "k": k, "v": v}, mask="causal", **({"align": align} if align else {}))
    below = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries if align == "bottom-right" else 0)
    sdpa_holds(result, q, k, v, **({"attn_mask": below} if align == "bottom-right" else {"is_causal": True}))
    identical(values(result, "mask"), below)


def test_sdpa_on_one_head_and_one_sequence() -> None:
    """Rank 2, (T, d): no batch, no heads, and no axes for them."""
    g = stream(103)
    q, k, v = floats(g, N, D), floats(g, M, D), floats(g, M, C)
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 0, 0]], dtype=torch.bool)
    result = compute({"q": q, "k": k, "v": v, "mask": mask})
    same(
        values(result, "context"),
        F.scaled_dot_product_attention(q[None], k[None], v[None], mask)[0],
        atol=1e-14 * float(v.abs().max()),
    )
    assert result["context"].axes == ("query", "dim")
    assert result["weights"].axes == ("query", "key")
    assert "head_context" not in result


def test_sdpa_on_one_sequence_of_several_heads() -> None:
    """Rank 2, (T, H·d), heads named."""
    g = stream(104)
    q, k, v = floats(g, N, H * D), floats(g, M, G * D), floats(g, M, G * C)
    result = compute({"q": q, "k": k, "v": v}, heads=H, kv_heads=G)
    z = F.scaled_dot_product_attention(
        *(x.unflatten(-1, (n, -1)).transpose(0, 1)[None] for x, n in ((q, H), (k, G), (v, G))), enable_gqa=True
    )
    same(values(result, "head_context"), z[0], atol=1e-14 * float(v.abs().max()))
    same(values(result, "context"), merged(z)[0], atol=1e-14 * float(v.abs().max()))
    assert result["head_context"].axes == ("head", "query", "dim")


def test_sdpa_on_heads_without_a_batch() -> None:
    """Rank 3 said to be htd, with a float mask a head."""
    g = stream(105)
    q, k, v, bias = floats(g, H, N, D), floats(g, G, M, D), floats(g, G, M, C), floats(g, H, N, M)
    bias[2, 1] = -INF
    result = compute({"q": q, "k": k, "v": v, "bias": bias, "layout": "htd"})
    z = F.scaled_dot_product_attention(q[None], k[None], v[None], bias[None], enable_gqa=True)
    same(values(result, "head_context"), z[0], atol=1e-14 * float(v.abs().max()))
    same(values(result, "context"), merged(z)[0], atol=1e-14 * float(v.abs().max()))
    assert result["context"].axes == ("query", "dim")


VIEWED = ("q", "k", "v", "mask", "bias", "positions")


@pytest.mark.parametrize("view", ["flipped", "read-only", "broadcast"])
@pytest.mark.parametrize("name", VIEWED)
def test_a_numpy_view_is_as_good_as_its_copy(name: str, view: str) -> None:
    """Negative strides, memory that may not be written, zero strides: what [::-1], np.load and broadcast_to give."""
    g = stream(109)
    fields = {
        n: floats(g, *shape).numpy() for n, shape in (("q", (N, D)), ("k", (M, D)), ("v", (M, C)), ("bias", (N, M)))
    }
    fields |= {"mask": coins(g, N, M).numpy(), "positions": np.array([3, 0, 2, 4])}
    if view == "flipped":
        fields[name] = fields[name][::-1]
    elif view == "broadcast":
        fields[name] = np.broadcast_to(fields[name][:1], fields[name].shape)
    else:
        fields[name] = fields[name].copy()
        fields[name].flags.writeable = False
    expected = F.scaled_dot_product_attention(
        *(torch.tensor(fields[n].copy())[None] for n in "qkv"),
        torch.tensor(np.where(fields["mask"] & (np.arange(M) <= fields["positions"][:, None]), fields["bias"], -INF)),
    )
    torch.set_warn_always(True)  # else torch speaks of memory that may not be written once in a process
    try:
        result = compute(fields, mask="causal")
    finally:
        torch.set_warn_always(False)
    same(values(result, "context"), expected[0], atol=1e-14 * float(np.abs(fields["v"]).max()))


@pytest.mark.parametrize("how", ["mask", "bias", "lengths"])
def test_sdpa_gives_zero_to_a_query_that_sees_nothing(how: str) -> None:
    g = stream(106)
    q, k, v = floats(g, B, H, N, D), floats(g, B, G, M, D), floats(g, B, G, M, C)
    seen = torch.ones(B, H, N, M, dtype=torch.bool)
    if how == "lengths":
        fields: dict[str, Any] = {"lengths": [M, 0]}
        seen[1] = False
    else:
        seen[1, 4, 2] = seen[0, 0, 3] = False
        fields = (
            {"mask": seen}
            if how == "mask"
            else {"bias": torch.zeros(B, H, N, M, dtype=torch.float64).masked_fill(~seen, -INF)}
        )
    result = compute({"q": q, "k": k, "v": v, **fields})
    sdpa_holds(result, q, k, v, attn_mask=seen)
    empty = ~seen.any(-1).numpy()
    assert not values(result, "weights")[empty].any()
    assert not values(result, "head_context")[empty].any()
    assert values(result, "head_context")[~empty].all()
    (warning,) = (w for w in result.warnings if w.startswith("empty-rows"))
    named = ["batch 0 head 0 query 3", "batch 1 head 4 query 2"] if how != "lengths" else ["batch 1 head 0 query 0"]
    assert all(name in warning for name in named)


@pytest.mark.parametrize(("answer", "weight"), [("nan", math.nan), ("uniform", 1 / M)])
def test_the_other_answers_for_a_query_that_sees_nothing(answer: str, weight: float) -> None:
    """NaN as nn.MultiheadAttention, uniform over all keys as JAX: what SDPA makes of scores all NaN, all equal."""
    g = stream(107)
    q, k, v = floats(g, B, H, N, D), floats(g, B, G, M, D), floats(g, B, G, M, C)
    mask = coins(g, N, M)
    mask[:, 0], mask[2] = True, False
    result = compute({"q": q, "k": k, "v": v, "mask": mask}, empty_rows=answer)
    bias = torch.zeros(N, M, dtype=torch.float64).masked_fill(~mask, -INF)
    bias[2] = math.nan if answer == "nan" else 0
    told = q.clone()
    told[:, :, 2] = 0
    same(
        values(result, "head_context"),
        F.scaled_dot_product_attention(told, k, v, bias, enable_gqa=True),
        atol=1e-14 * float(v.abs().max()),
    )
    same(values(result, "weights")[:, :, 2], np.full((B, H, M), weight))


def test_uniform_weights_are_over_hidden_keys_too() -> None:
    """The one exception to what is hidden stays hidden: the mean of all values, a hidden NaN included."""
    v = [[1.0, 2.0], [math.nan, 4.0], [6.0, -9.0]]
    fields = {
        "q": [[1.0], [2.0]],
        "k": [[1.0], [5.0], [3.0]],
        "v": v,
        "mask": [[False, False, False], [True, False, False]],
    }
    result = compute(fields, empty_rows="uniform")
    same(values(result, "weights"), [[1 / 3] * 3, [1.0, 0.0, 0.0]])
    same(values(result, "context"), [[math.nan, -1.0], [1.0, 2.0]])


def test_gradients_are_those_of_sdpa() -> None:
    g = stream(108)
    q, k, v = floats(g, B, H, N, D), floats(g, B, G, M, D), floats(g, B, G, M, C)
    mask, towards = coins(g, N, M), floats(g, B, H, N, C)
    mask[1] = False  # a query that sees nothing has a gradient too: 0

    def gradients(attention: Callable[..., Tensor]) -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        return list(torch.autograd.grad((attention(*leaves) * towards).sum(), leaves))

    ours = gradients(lambda q, k, v: compute({"q": q, "k": k, "v": v, "mask": mask})["head_context"].values)
    theirs = gradients(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True))
    for mine, reference in zip(ours, theirs, strict=True):
        same(mine, reference, atol=1e-13)


# ── what is hidden stays hidden: SDPA run with those keys taken away ─────────────────────────────
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
    same(values(result, "head_context"), expected, atol=1e-14 * float(v[:, :, ~hidden].abs().max()))
    assert not values(result, "weights")[..., hidden.numpy()].any()
    assert np.isfinite(values(result, "weights")).all()
    for row in ("max_score", "log_sum_exp", "entropy"):
        assert not np.isnan(values(result, row)).any()


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
    z = values(result, "head_context")
    same(z, without_hidden(q, k, v, seen), atol=1e-13)
    same(z[:, :, :2], values(clean, "head_context")[:, :, :2], atol=1e-14)  # by whichever of two ways
    assert not np.isfinite(z[:, :, 2:, 4]).all()  # it did arrive where it is seen


def test_a_strange_query_spoils_no_other() -> None:
    g = stream(202)
    q, k, v = floats(g, B, H, N, D), floats(g, B, G, M, D), floats(g, B, G, M, C)
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    q[:, :, 1, 3] = math.nan
    z = values(compute({"q": q, "k": k, "v": v}), "head_context")
    assert np.isnan(z[:, :, 1]).all()
    same(z[:, :, [0, 2, 3]], expected[:, :, [0, 2, 3]], atol=1e-14 * float(v.abs().max()))


@pytest.mark.parametrize("poison", [math.nan, INF])
def test_a_hidden_key_weighs_nothing_even_beside_a_visible_nan(poison: float) -> None:
    """DESIGN §4: a normaliser gives 0 where not visible. Key 0 is visible and strange, key 2 is hidden and ordinary."""
    result = compute({"q": [[1.0], [2.0]], "k": [[poison], [1.0], [3.0]], "mask": [True, True, False]})
    w = values(result, "weights")
    assert np.isnan(w[:, 0]).all()
    same(w[:, 2], [0.0, 0.0])


def test_visible_scores_of_minus_infinity_are_sdpas() -> None:
    """A visible key of −∞ weighs nothing; a row of nothing else weighs nothing anywhere, as in SDPA."""
    q, k = torch.tensor([[1.0], [2.0]], dtype=torch.float64), torch.tensor([[-INF], [3.0], [-INF]], dtype=torch.float64)
    v, mask = torch.eye(3, dtype=torch.float64), torch.tensor([[True, True, False], [True, False, True]])
    result = compute({"q": q, "k": k, "v": v, "mask": mask})
    expected = F.scaled_dot_product_attention(q[None], k[None], v[None], mask)[0]
    identical(values(result, "weights"), expected)
    identical(values(result, "context"), expected)
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
    same(values(result, "head_context"), expected, atol=1e-14 * float(whole_v.abs().max()))


# ── nn.MultiheadAttention ────────────────────────────────────────────────────────────────────────
# Its float32 sums are ordered differently from ours: rtol 1e-5. In float64 both agree to 1e-12.
E, HEADS, T, SOURCE, K_DIM = 12, 3, 5, 4, 7
TOLERANCE = {torch.float32: {"rtol": 1e-5, "atol": 1e-6}, torch.float64: {"rtol": 1e-12, "atol": 1e-14}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 123])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("what", ["self", "causal", "cross, same width", "cross, kdim"])
def test_multihead_attention_with_the_weights_it_draws(what: str, bias: bool, seed: int, dtype: torch.dtype) -> None:
    e = K_DIM if what == "cross, kdim" else E
    torch.manual_seed(seed)
    layer = nn.MultiheadAttention(E, HEADS, bias=bias, batch_first=True, **({"kdim": e, "vdim": e} if e != E else {}))
    g = stream(300)
    x, memory = floats(g, B, T, E).to(dtype), floats(g, B, SOURCE, e).to(dtype)
    cross = what.startswith("cross")
    result = compute(
        {"embeddings": x, **({"memory": {"embeddings": memory}} if cross else {})},
        projection=f"torch-mha:{'bias=all,' if bias else ''}out=yes,seed={seed}",
        heads=HEADS,
        mask="causal" if what == "causal" else "full",
    )

    packed = (
        layer.in_proj_weight.detach().chunk(3)
        if e == E
        else [getattr(layer, f"{n}_proj_weight").detach() for n in "qkv"]
    )
    drawn = {**{f"w_{n}": w.T for n, w in zip("qkv", packed, strict=True)}, "w_o": layer.out_proj.weight.detach().T}
    if bias:
        drawn |= {
            **{f"b_{n}": b for n, b in zip("qkv", layer.in_proj_bias.detach().chunk(3), strict=True)},
            "b_o": layer.out_proj.bias.detach(),
        }
    assert set(result.parameters) == set(drawn)
    for name, array in drawn.items():
        identical(result.parameters[name], array)  # float32, to the last bit

    layer.to(dtype)
    y = memory if cross else x
    banned = torch.ones(T, T, dtype=torch.bool).triu(1) if what == "causal" else None  # true = may not
    output, weights = layer(x, y, y, attn_mask=banned, need_weights=True, average_attn_weights=False)
    assert result["output"].values.dtype == dtype
    same(values(result, "output"), output.detach(), **TOLERANCE[dtype])
    same(values(result, "weights"), weights.detach(), **TOLERANCE[dtype])


@pytest.mark.parametrize("bias", [True, False])
def test_multihead_attention_without_its_output_projection(bias: bool) -> None:
    """nn.MultiheadAttention draws W_o first; its q, k, v are the same whether or not one asks for the output."""
    torch.manual_seed(9)
    layer = nn.MultiheadAttention(E, HEADS, bias=bias)
    projection = f"torch-mha:{'bias=all,' if bias else ''}seed=9"
    result = compute({"embeddings": floats(stream(302), T, E)}, projection=projection, heads=HEADS)
    for name, w in zip("qkv", layer.in_proj_weight.detach().chunk(3), strict=True):
        identical(result.parameters[f"w_{name}"], w.T)
    assert set(result.parameters) == {f"{x}_{n}" for x in ("wb" if bias else "w") for n in "qkv"}
    assert "output" not in result


def test_drawing_leaves_pytorchs_own_stream_alone() -> None:
    before = torch.get_rng_state()
    drawn = [
        compute({"embeddings": torch.eye(E)}, projection="torch-mha:out=yes", seed=seed, dropout=0.5).parameters["w_q"]
        for seed in (1, 2, 1)
    ]
    identical(torch.get_rng_state(), before)
    identical(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "what",
    [
        "plain",
        "key_padding_mask",
        "attn_mask",
        "attn_mask a head",
        "float attn_mask",
        "padding and attn_mask",
        "cross, kdim",
    ],
)
def test_multihead_attention_from_its_state_dict(what: str, dtype: torch.dtype) -> None:
    """Matrices as nn.Linear stores them (out-in), every bias non-zero; True means masked there, may attend here."""
    e = K_DIM if what == "cross, kdim" else E
    torch.manual_seed(4)
    layer = nn.MultiheadAttention(E, HEADS, batch_first=True, dtype=dtype, **({"kdim": e, "vdim": e} if e != E else {}))
    with torch.no_grad():
        layer.in_proj_bias.normal_()
        layer.out_proj.bias.normal_()
    state = layer.state_dict()
    matrices = state["in_proj_weight"].chunk(3) if e == E else [state[f"{n}_proj_weight"] for n in "qkv"]
    parameters = {
        **{f"w_{n}": w for n, w in zip("qkv", matrices, strict=True)},
        **{f"b_{n}": b for n, b in zip("qkv", state["in_proj_bias"].chunk(3), strict=True)},
        "w_o": state["out_proj.weight"],
        "b_o": state["out_proj.bias"],
    }
    g = stream(301)
    x, keys = floats(g, B, T, E).to(dtype), SOURCE if e != E else T
    y = floats(g, B, keys, e).to(dtype) if e != E else x
    fields: dict[str, Any] = {"embeddings": x, "parameters": parameters, "w_layout": "out-in"}
    told: dict[str, Tensor] = {}
    if e != E:
        fields["memory"] = {"embeddings": y}
    if "padding" in what:
        lengths = torch.tensor([keys - 2, keys])
        fields["lengths"], told["key_padding_mask"] = lengths, torch.arange(keys) >= lengths[:, None]
    if what.endswith("attn_mask a head"):
        banned = ~coins(g, B, HEADS, T, keys)
        banned[..., 0] = False  # a query that sees nothing is NaN there, 0 here
        fields["mask"], told["attn_mask"] = ~banned, banned.flatten(0, 1)
    elif what.startswith("float"):
        fields["bias"] = told["attn_mask"] = floats(g, T, keys).to(dtype)
    elif what.endswith("attn_mask"):
        banned = ~coins(g, T, keys)
        banned[:, 0] = False
        fields["mask"], told["attn_mask"] = ~banned, banned
    output, weights = layer(x, y, y, need_weights=True, average_attn_weights=False, **told)
    result = compute(fields, heads=HEADS)
    same(values(result, "output"), output.detach(), **TOLERANCE[dtype])
    same(values(result, "weights"), weights.detach(), **TOLERANCE[dtype])
    assert not result.parameters  # nothing was drawn
    assert not result.warnings


# ── parameters drawn as nn.Linear, Xavier, torch.rand and torch.randn draw them ──────────────────
def redrawn(
    kind: str,
    seed: int,
    turns: str,
    sizes: dict[str, tuple[int, int]],
    biased: str = "",
    *,
    parts: int = 1,
    out_in: bool = False,
) -> dict[str, Tensor]:
    """What PyTorch's global stream gives, matrix by matrix: letter → (d_in, d_out) in `sizes`; `parts` heads are drawn apart."""
    torch.manual_seed(seed)
    found: dict[str, list[Tensor]] = {}
    for letter in turns:
        d_in, d_out = sizes[letter][0], sizes[letter][1] // (1 if letter == "o" else parts)
        bias = letter in biased
        if kind == "linear":
            layer = nn.Linear(d_in, d_out, bias=bias)
            w, b = layer.weight.detach().T, layer.bias.detach() if bias else None
        elif kind == "xavier":
            w, b = nn.init.xavier_uniform_(torch.empty(d_out, d_in)).T, torch.zeros(d_out)
        else:
            draw = torch.rand if kind == "rand" else torch.randn
            w = draw(d_out, d_in).T if out_in else draw(d_in, d_out)
            b = draw(d_out) if bias else None
        found.setdefault(f"w_{letter}", []).append(w)
        if bias:
            found.setdefault(f"b_{letter}", []).append(b)
    return {name: torch.cat(arrays, -1) for name, arrays in found.items()}


X, Y = floats(stream(400), T, E), floats(stream(401), SOURCE, K_DIM)  # embeddings, memory
SELF = {"q": (E, 8), "k": (E, 8), "v": (E, 10), "o": (10, 10)}
CROSS = {"q": (E, 8), "k": (K_DIM, 8), "v": (K_DIM, 10), "o": (10, 10)}
SQUARE = dict.fromkeys("qkvo", (E, E))
DRAWN = {  # options → (turns, sizes, whose bias, in how many parts)
    "": ("qkv", SQUARE, "", 1),
    "dim=2": ("qkv", {"q": (E, 2), "k": (E, 2), "v": (E, 2)}, "", 1),
    "out=yes": ("qkvo", SQUARE, "", 1),
    "dim=8,v-dim=10": ("qkv", SELF, "", 1),
    "dim=8,v-dim=10,bias=qkv": ("qkv", SELF, "qkv", 1),
    "dim=8,v-dim=10,out=yes,bias=o": ("qkvo", SELF, "o", 1),
    "dim=8,v-dim=10,out=yes,bias=all": ("qkvo", SELF, "qkvo", 1),
    "dim=8,v-dim=10,out=yes,bias=qkv,order=kqvo": ("kqvo", SELF, "qkv", 1),
    "dim=8,v-dim=10,out=yes,bias=all,order=oqkv": ("oqkv", SELF, "qkvo", 1),
    "dim=8,v-dim=10,out=yes,bias=all,order=per-head": ("qkvqkvo", SELF, "qkvo", 2),
    "dim=8,v-dim=10,order=per-head": ("qkvqkv", SELF, "", 2),
}


@pytest.mark.parametrize("options", DRAWN)
@pytest.mark.parametrize("kind", ["linear", "xavier", "rand", "randn", "rand out-in", "randn out-in", "linear out-in"])
def test_drawn_projections_are_pytorchs(kind: str, options: str) -> None:
    kind, _, layout = kind.partition(" ")
    turns, sizes, biased, parts = DRAWN[options]
    expected = redrawn(kind, 789, turns, sizes, biased, parts=parts, out_in=layout == "out-in")
    fields = {"embeddings": X, **({"w_layout": layout} if layout else {})}
    result = compute(fields, projection=f"{kind}:{options}".rstrip(":"), seed=789, heads=2)
    holds_drawn(result, expected, X, X, turned=layout == "out-in")


@pytest.mark.parametrize("kind", ["linear", "xavier", "rand", "randn"])
def test_drawn_projections_of_another_memory(kind: str) -> None:
    """Keys and values are made of the memory, which is of another width; the part's own seed wins."""
    expected = redrawn(kind, 123, "qkvo", CROSS, "qkvo")
    result = compute(
        {"embeddings": X, "memory": {"embeddings": Y}},
        projection=f"{kind}:dim=8,v-dim=10,bias=all,out=yes,seed=123",
        seed=5,
    )
    holds_drawn(result, expected, X, Y)


@pytest.mark.parametrize("kind", ["linear", "randn"])
def test_drawn_projections_of_fewer_kv_heads(kind: str) -> None:
    """Six query heads of 2, three kv heads of 2; values 5 wide."""
    sizes = {"q": (E, 12), "k": (E, 6), "v": (E, 15), "o": (30, 30)}
    expected = redrawn(kind, 31, "qkvo", sizes)
    result = compute({"embeddings": X}, projection=f"{kind}:v-dim=30,out=yes", seed=31, heads=H, kv_heads=G)
    holds_drawn(result, expected, X, X)


def holds_drawn(
    result: attncli.Attention, expected: dict[str, Tensor], x: Tensor, y: Tensor, *, turned: bool = False
) -> None:
    """The drawn arrays, to the last bit and as the file lays them out, and what they make of x and y."""
    assert set(result.parameters) == set(expected)
    for name, array in expected.items():
        identical(result.parameters[name], array.T if turned and array.ndim == 2 else array)

    def applied(letter: str, x: Tensor) -> Tensor:
        return x @ expected[f"w_{letter}"].double() + expected.get(f"b_{letter}", torch.zeros(1)).double()

    for letter, source in (("q", x), ("k", y), ("v", y)):
        step = result[letter].values
        columns = step if step.ndim == 2 else step.transpose(0, 1).flatten(1)  # (head, T, d) → (T, H·d)
        same(columns, applied(letter, source), atol=1e-14)
    assert ("output" in result) == ("w_o" in expected)
    if "output" in result:
        same(values(result, "output"), applied("o", result["context"].values), atol=1e-14)


# ── dropout ──────────────────────────────────────────────────────────────────────────────────────
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
    same(values(result, "dropout_weights").reshape(b, h, N, M), survivors, atol=1e-15)
    same(values(result, "weights").reshape(b, h, N, M), w, atol=1e-15)  # as they were before
    same(values(result, "context").reshape(b, N, h * C), merged(survivors @ v), atol=1e-14 * float(v.abs().max()))


def test_one_stream_for_projection_and_dropout() -> None:
    expected = redrawn(
        "linear", 77, "qkv", dict.fromkeys("qkv", (E, 8))
    )  # leaves the global stream where the next draw begins
    kept = torch.rand((1, 1, T, T), dtype=torch.float64) < 0.5
    result = compute({"embeddings": X}, projection="linear:dim=8", dropout=0.5, seed=77)
    identical(result.parameters["w_v"], expected["w_v"])
    same(values(result, "dropout_weights"), np.where(kept[0, 0], values(result, "weights") * 2, 0))
    assert 0 < kept.sum() < kept.numel()


def test_dropout_and_projection_seeded_apart() -> None:
    """The part's own seed begins a stream of its own: rasbt's figures draw weights with 789 and re-seed dropout with 123."""
    expected = redrawn("linear", 789, "qkv", dict.fromkeys("qkv", (E, 2)))
    torch.manual_seed(123)
    kept = torch.rand((1, 1, T, T), dtype=torch.float64) < 0.5
    result = compute(
        {"embeddings": X}, projection="linear:dim=2,seed=789", dropout="dropout:p=0.5,seed=123", mask="causal"
    )
    identical(result.parameters["w_k"], expected["w_k"])
    w = F.scaled_dot_product_attention(
        *(X[None] @ expected[f"w_{n}"].double() for n in "qk"), torch.eye(T, dtype=torch.float64)[None], is_causal=True
    )[0]
    same(values(result, "dropout_weights"), torch.where(kept[0, 0], w * 2, 0.0), atol=1e-15)


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
    same(values(result, "dropout_weights"), survivors, atol=1e-15)
    same(values(result, "head_context"), survivors @ v.repeat_interleave(H // G, 1), atol=1e-14 * float(v.abs().max()))


# ── onnx.reference's Attention ───────────────────────────────────────────────────────────────────
# Run on onnx 1.23.2 (opset 28; Attention at 23, 24 and 25), whose reference has causal offsets and zeros for empty
# rows (onnx #8068) and cap before mask (#7867); older releases give other figures for the same opset. Figures are
# float64. Attributes are float32, and so is the root of a scale, hence 0.5625 = 0.75². It multiplies q and k each by √scale, which
# rounds differently from scaling the scores: rtol 1e-12 with a little atol where a sum cancels.
ONNX_INPUTS = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")
ONNX_TYPES = {
    "bool": onnx.TensorProto.BOOL,
    "int64": onnx.TensorProto.INT64,
    "float32": onnx.TensorProto.FLOAT,
    "float64": onnx.TensorProto.DOUBLE,
}


def onnx_attention(
    opset: int, inputs: dict[str, Any], outputs: tuple[str, ...] = ("Y",), **attributes: Any
) -> list[np.ndarray]:
    """The named outputs, of (Y, present_key, present_value, qk), by onnx's reference evaluator."""
    fed = {name: np.asarray(x) for name, x in inputs.items()}
    names = [name if name in fed else "" for name in ONNX_INPUTS]
    while not names[-1]:
        names.pop()
    slots = [name if name in outputs else "" for name in ("Y", "present_key", "present_value", "qk")]
    while not slots[-1]:
        slots.pop()
    node = helper.make_node("Attention", names, slots, **attributes)
    graph = helper.make_graph(
        [node],
        "attention",
        [helper.make_tensor_value_info(name, ONNX_TYPES[str(x.dtype)], x.shape) for name, x in fed.items()],
        [helper.make_tensor_value_info(name, ONNX_TYPES[str(fed["Q"].dtype)], None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return list(ReferenceEvaluator(model).run(list(outputs), fed))


def onnx_qkv(
    g: torch.Generator, rank: int, kv_heads: int = G
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """(ONNX's inputs, its attributes, our fields, our choices, (B, H, T, d) arrays) of one random q, k, v, of rank 3 or 4."""
    x = {"q": floats(g, B, H, N, D), "k": floats(g, B, kv_heads, M, D), "v": floats(g, B, kv_heads, M, C)}
    laid = {n: (merged(t) if rank == 3 else t).numpy() for n, t in x.items()}
    attributes = {"q_num_heads": H, "kv_num_heads": kv_heads} if rank == 3 else {}
    choices = {"heads": H, "kv_heads": kv_heads} if rank == 3 else {}
    return {n.upper(): a for n, a in laid.items()}, attributes, dict(laid), choices, x


def onnx_case(name: str, g: torch.Generator) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(ONNX's further inputs, its attributes, our fields, our choices)"""
    kind, _, rank = name.partition(" ")
    causal = {"mask": "causal", "align": "top-left"}
    if kind in ("bool", "float", "causal-bool", "causal-float"):
        shape = BROADCASTS[int(rank)]
        mask = coins(g, *shape).numpy()
        if kind.endswith("float"):
            mask = np.where(mask, floats(g, *shape).numpy(), -INF)
        told, chosen = ({"is_causal": 1}, causal) if kind.startswith("causal") else ({}, {})
        return {"attn_mask": mask}, told, {"bias" if kind.endswith("float") else "mask": mask}, chosen
    return {
        "plain": ({}, {}, {}, {}),
        "causal": ({}, {"is_causal": 1}, {}, causal),
        "scaled": ({}, {"scale": 0.5625}, {}, {"scale": 0.5625}),
        "softcap": ({}, {"softcap": 1.25}, {}, {"softcap": 1.25}),
        "causal softcap scaled": (
            {},
            {"softcap": 1.25, "scale": 0.5625, "is_causal": 1},
            {},
            {"softcap": 1.25, "scale": 0.5625, **causal},
        ),
    }[name]


ONNX_CASES = ["plain", "causal", "scaled", "softcap", "causal softcap scaled"]
# (N, 1) is left out: ONNX pads a mask that is shorter than the keys, and never repeats it along them.
ONNX_CASES += [f"{kind} {rank}" for kind in ("bool", "float") for rank in (0, 2, 3, 4, 5, 6)] + [
    "causal-bool 2",
    "causal-bool 6",
    "causal-float 3",
    "causal-float 5",
]


@pytest.mark.parametrize("opset", [23, 24, 25])
@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("name", ONNX_CASES)
def test_onnx_on_every_mask_and_rank(name: str, rank: int, opset: int) -> None:
    g = stream(600 + ONNX_CASES.index(name))
    inputs, attributes, fields, choices, _ = onnx_qkv(g, rank)
    further, told, ours, chosen = onnx_case(name, g)
    y, w = onnx_attention(opset, inputs | further, ("Y", "qk"), **attributes, **told, qk_matmul_output_mode=3)
    result = compute(fields | ours, **choices, **chosen)
    same(values(result, "context" if rank == 3 else "head_context"), y, atol=1e-14)
    same(values(result, "weights"), w, atol=1e-15)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("rank", [3, 4])
def test_onnx_shares_kv_heads(rank: int, kv_heads: int) -> None:
    inputs, attributes, fields, choices, _ = onnx_qkv(stream(630), rank, kv_heads)
    (y,) = onnx_attention(24, inputs, **attributes, is_causal=1)
    result = compute(fields, **choices, mask="causal", align="top-left")
    same(values(result, "context" if rank == 3 else "head_context"), y, atol=1e-14)


@pytest.mark.parametrize("masked", ["", "causal", "bool", "float"])
@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("opset", [23, 25])
def test_onnx_with_a_past(opset: int, rank: int, masked: str) -> None:
    """New queries count on from the past: causal sees P + i + 1 keys. A mask is over past and new keys."""
    g = stream(640)
    inputs, attributes, fields, choices, x = onnx_qkv(g, rank)
    past_k, past_v = floats(g, B, G, P, D).numpy(), floats(g, B, G, P, C).numpy()
    mask = coins(g, N, P + M).numpy()
    bias = np.where(mask, floats(g, N, P + M).numpy(), -INF)
    told = {"": {}, "causal": {}, "bool": {"attn_mask": mask}, "float": {"attn_mask": bias}}[masked]
    ours = {"": {}, "causal": {}, "bool": {"mask": mask}, "float": {"bias": bias}}[masked]
    y, present_k, present_v, w = onnx_attention(
        opset,
        inputs | {"past_key": past_k, "past_value": past_v} | told,
        ("Y", "present_key", "present_value", "qk"),
        **attributes,
        is_causal=int(masked == "causal"),
        qk_matmul_output_mode=3,
    )
    result = compute(
        {**fields, "past": {"k": past_k, "v": past_v}, **ours},
        **choices,
        mask="causal" if masked == "causal" else "full",
    )
    same(values(result, "context" if rank == 3 else "head_context"), y, atol=1e-14)
    same(values(result, "weights"), w, atol=1e-15)
    identical(values(result, "present_k"), present_k)
    identical(values(result, "present_v"), present_v)
    identical(values(result, "k"), x["k"])  # the new keys alone
    assert result["present_k"].axes == ("batch", "kv_head", "key", "dim")
    assert result["k"].axes == ("batch", "kv_head", "new_key", "dim")


# Mode 0 is checked without softcap: with one, this release hands back the capped scores there too.
@pytest.mark.parametrize(
    ("mode", "softcap", "masked", "step"),
    [
        (0, None, "", "scaled_scores"),
        (0, None, "float", "scaled_scores"),
        (0, None, "causal", "scaled_scores"),
        (1, None, "float", "scaled_scores"),
        (1, 1.25, "", "softcapped_scores"),
        (1, 1.25, "float", "softcapped_scores"),
        (1, 1.25, "causal", "softcapped_scores"),
        (2, None, "finite", "biased_scores"),
        (2, 1.25, "finite", "biased_scores"),
        (2, None, "float", "masked_scores"),
        (2, 1.25, "float", "masked_scores"),
        (2, 1.25, "bool", "masked_scores"),
        (2, 1.25, "causal", "masked_scores"),
        (2, 1.25, "causal finite", "masked_scores"),
        (3, None, "", "weights"),
        (3, 1.25, "causal finite", "weights"),
    ],
)
@pytest.mark.parametrize("opset", [23, 24, 25])
def test_onnx_stages_are_our_steps(opset: int, mode: int, softcap: float | None, masked: str, step: str) -> None:
    g = stream(650 + mode)
    inputs, _, fields, _, _ = onnx_qkv(g, 4)
    mask, bias = coins(g, H, N, M).numpy(), floats(g, H, N, M).numpy()
    added = {
        "": {},
        "causal": {},
        "bool": mask,
        "finite": bias,
        "causal finite": bias,
        "float": np.where(mask, bias, -INF),
    }[masked]
    told = {"attn_mask": added} if isinstance(added, np.ndarray) else {}
    ours = {"mask" if masked == "bool" else "bias": added} if told else {}
    causal = masked.startswith("causal")
    (qk,) = onnx_attention(
        opset,
        inputs | told,
        ("qk",),
        is_causal=int(causal),
        qk_matmul_output_mode=mode,
        **({"softcap": softcap} if softcap else {}),
    )
    result = compute(
        fields | ours, softcap=softcap or "none", **({"mask": "causal", "align": "top-left"} if causal else {})
    )
    same(values(result, step), qk, atol=1e-14)


@pytest.mark.parametrize("left", [-1, 0, 1, 3])
@pytest.mark.parametrize("right", [-1, 0, 2])
@pytest.mark.parametrize("how", ["", "causal", "past", "causal past", "nonpad", "causal nonpad", "mask a head"])
def test_onnx_windows(how: str, left: int, right: int) -> None:
    """left_window_size and right_window_size are new in opset 25; both count neighbours, -1 is no bound."""
    g = stream(660)
    inputs, _, fields, _, _ = onnx_qkv(g, 4)
    further: dict[str, Any] = {}
    ours: dict[str, Any] = {}
    if "past" in how:
        past_k, past_v = floats(g, B, G, P, D).numpy(), floats(g, B, G, P, C).numpy()
        further, ours = {"past_key": past_k, "past_value": past_v}, {"past": {"k": past_k, "v": past_v}}
    elif "nonpad" in how:
        further, ours = nonpad([5, 3])
    elif "mask" in how:
        further = ours = {"mask": coins(g, B, H, N, M).numpy()}
        further = {"attn_mask": further["mask"]}
    causal = "causal" in how
    y, w = onnx_attention(
        25,
        inputs | further,
        ("Y", "qk"),
        is_causal=int(causal),
        left_window_size=left,
        right_window_size=right,
        qk_matmul_output_mode=3,
    )
    choices = {} if "past" in how or "nonpad" in how else {"align": "top-left"}
    result = compute(
        fields | ours, mask=[f"window:left={left},right={right}", "causal" if causal else "full"], **choices
    )
    same(values(result, "head_context"), y, atol=1e-14)
    same(values(result, "weights"), w, atol=1e-15)


def nonpad(counts: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An external cache: so many keys of each batch item count, and the queries are the last N of them."""
    positions = [[n - N + i for i in range(N)] for n in counts]
    return {"nonpad_kv_seqlen": np.array(counts)}, {
        "lengths": counts,
        "positions": positions,
        "k_positions": list(range(M)),
    }


@pytest.mark.parametrize("counts", [[5, 4], [5, 2], [3, 1]])
@pytest.mark.parametrize("masked", ["", "bool", "float"])
@pytest.mark.parametrize("opset", [24, 25])
def test_onnx_nonpad_is_lengths_and_positions(opset: int, masked: str, counts: list[int]) -> None:
    """With fewer keys than queries the first queries stand before all keys, and see none."""
    g = stream(670)
    inputs, _, fields, _, _ = onnx_qkv(g, 4)
    further, ours = nonpad(counts)
    if masked:
        mask = coins(g, H, N, M).numpy() if masked == "bool" else floats(g, B, 1, N, M).numpy()
        further, ours = further | {"attn_mask": mask}, ours | {"mask" if masked == "bool" else "bias": mask}
    y, w = onnx_attention(opset, inputs | further, ("Y", "qk"), is_causal=1, qk_matmul_output_mode=3)
    result = compute(fields | ours, mask="causal")
    same(values(result, "head_context"), y, atol=1e-14)
    same(values(result, "weights"), w, atol=1e-15)
    first_rows = [N - n for n in counts]  # so many queries stand before all keys
    assert all(not values(result, "weights")[b, :, : max(n, 0)].any() for b, n in enumerate(first_rows))


@pytest.mark.parametrize("opset", [24, 25])
def test_onnx_nonpad_without_causal_is_lengths_alone(opset: int) -> None:
    inputs, _, fields, _, _ = onnx_qkv(stream(680), 4)
    y, w = onnx_attention(opset, inputs | {"nonpad_kv_seqlen": np.array([4, 1])}, ("Y", "qk"), qk_matmul_output_mode=3)
    result = compute({**fields, "lengths": [4, 1]})
    same(values(result, "head_context"), y, atol=1e-14)
    same(values(result, "weights"), w, atol=1e-15)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("opset", [23, 24, 25])
def test_onnx_gives_zero_to_a_query_that_sees_nothing(opset: int, kind: str) -> None:
    g = stream(690)
    inputs, _, fields, _, _ = onnx_qkv(g, 4)
    mask = coins(g, H, N, M).numpy()
    mask[:, :, 0], mask[2, 1], mask[5, 3] = True, False, False
    added = mask if kind == "bool" else np.where(mask, floats(g, H, N, M).numpy(), -INF)
    y, w = onnx_attention(opset, {**inputs, "attn_mask": added}, ("Y", "qk"), qk_matmul_output_mode=3)
    result = compute({**fields, "mask" if kind == "bool" else "bias": added})
    same(values(result, "head_context"), y, atol=1e-14)
    same(values(result, "weights"), w, atol=1e-15)
    assert sorted({(h, i) for _, h, i in np.argwhere(~values(result, "weights").any(-1)).tolist()}) == [(2, 1), (5, 3)]


@pytest.mark.parametrize("name", ["plain", "causal softcap scaled", "bool 6", "float 3"])
def test_onnx_in_float32(name: str) -> None:
    """Both sum in float32: 1e-5 of the value, 1e-6 of the values' size."""
    g = stream(695)
    inputs, _, fields, _, _ = onnx_qkv(g, 4)
    further, told, ours, chosen = onnx_case(name, g)

    def narrow(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {n: x if x.dtype == bool else x.astype(np.float32) for n, x in arrays.items()}

    y, w = onnx_attention(24, narrow(inputs | further), ("Y", "qk"), **told, qk_matmul_output_mode=3)
    result = compute(narrow(fields | ours), **chosen)
    assert values(result, "head_context").dtype == y.dtype == np.float32
    same(values(result, "head_context"), y, rtol=1e-5, atol=1e-6)
    same(values(result, "weights"), w, rtol=1e-5, atol=1e-6)


# ── the cache: decoding token by token is the whole run ──────────────────────────────────────────
DECODED = {
    "causal": lambda i, j: j <= i,
    "causal and window:left=2": lambda i, j: i - 2 <= j <= i,
    "causal and (window:left=1 or prefix:length=2)": lambda i, j: j <= i and (i - 1 <= j or j < 2),
    "causal and chunk:size=3": lambda i, j: j <= i and i // 3 == j // 3,
}


@pytest.mark.parametrize("pieces", [[1] * 7, [3, 4], [2, 1, 4]])
@pytest.mark.parametrize("batch", [None, B])
@pytest.mark.parametrize("expression", DECODED)
def test_decoding_with_a_past_is_the_whole_run(expression: str, batch: int | None, pieces: list[int]) -> None:
    g = stream(700)
    d, tokens = 4, sum(pieces)
    x = floats(g, *([batch] if batch else []), tokens, E)
    parameters = {
        "w_q": floats(g, E, H * d),
        "w_k": floats(g, E, G * d),
        "w_v": floats(g, E, G * C),
        "b_k": floats(g, G * d),
        "w_o": floats(g, H * C, 10),
    }
    choices = {"heads": H, "kv_heads": G, "mask": expression}
    whole = compute({"embeddings": x, "parameters": parameters}, **choices)

    seen = torch.tensor([[DECODED[expression](i, j) for j in range(tokens)] for i in range(tokens)])
    q, k, v = (
        (x @ parameters[f"w_{n}"] + parameters.get(f"b_{n}", torch.zeros(1)))
        .reshape(batch or 1, tokens, heads, -1)
        .transpose(1, 2)
        for n, heads in (("q", H), ("k", G), ("v", G))
    )
    z = F.scaled_dot_product_attention(q, k, v, seen, enable_gqa=True)
    output = merged(z) @ parameters["w_o"]
    atol = 1e-13 * float(output.abs().max())
    same(values(whole, "output"), output if batch else output[0], atol=atol)

    past = {
        "k": torch.zeros(batch or 1, G, 0, d, dtype=torch.float64),
        "v": torch.zeros(batch or 1, G, 0, C, dtype=torch.float64),
    }
    outputs, start = [], 0
    for n in pieces:
        step = compute({"embeddings": x[..., start : start + n, :], "past": past, "parameters": parameters}, **choices)
        rows = values(whole, "weights")[..., start : start + n, : start + n]
        same(values(step, "weights"), rows, atol=1e-15)
        outputs.append(step["output"].values)
        past, start = {"k": step["present_k"].values, "v": step["present_v"].values}, start + n
    same(torch.cat(outputs, -2), values(whole, "output"), atol=atol)
    same(past["k"], k, atol=1e-14)
    same(past["v"], v, atol=1e-14)


# ── loops in plain Python ────────────────────────────────────────────────────────────────────────
def looped(q: list, k: list, v: list, sees: Callable[[int, int], bool], top: int = 0) -> dict[str, Any]:
    """One head, from its q, k, v: every step in scalars. Ties go to the lower index."""
    found: dict[str, list] = {
        name: []
        for name in (
            "scores",
            "scaled_scores",
            "mask",
            "masked_scores",
            "max_score",
            "log_sum_exp",
            "entropy",
            "visible_keys",
            "weights",
            "top_keys",
            "top_weights",
            "head_context",
        )
    }
    for i, query in enumerate(q):
        scores = [sum(a * b for a, b in zip(query, key, strict=True)) for key in k]
        scaled = [s / math.sqrt(len(query)) for s in scores]
        seen = [sees(i, j) for j in range(len(k))]
        masked = [s if see else -INF for s, see in zip(scaled, seen, strict=True)]
        total = sum(math.exp(s) for s in masked)
        weights = [math.exp(s) / total if total else 0.0 for s in masked]
        best = sorted(range(len(k)), key=lambda j: (-weights[j], j))[:top]
        row = {
            "scores": scores,
            "scaled_scores": scaled,
            "mask": seen,
            "masked_scores": masked,
            "max_score": max(masked),
            "log_sum_exp": math.log(total) if total else -INF,
            "entropy": -sum(w * math.log2(w) for w in weights if w),
            "visible_keys": sum(seen),
            "weights": weights,
            "top_keys": best,
            "top_weights": [weights[j] for j in best],
            "head_context": [sum(w * value[c] for w, value in zip(weights, v, strict=True)) for c in range(len(v[0]))],
        }
        for name, value in row.items():
            found[name].append(value)
    return found


def product(x: list, w: list) -> list:
    return [[sum(a * b for a, b in zip(row, column, strict=True)) for column in zip(*w, strict=True)] for row in x]


# Small integers: scores are exact, and keys 0 and 3 are alike, so weights tie.
TOKENS = [[1, 0, 2, -1], [0, 1, 1, 2], [2, -1, 0, 1], [1, 0, 2, -1], [-1, 2, 1, 0]]
W_Q = [[0, 1, 1, -1, 0, 1], [1, 0, 0, 1, -1, 0], [1, 1, 0, 0, 1, -1], [0, -1, 1, 1, 0, 0]]  # (4, 2 heads of 3)
W_K = [[1, 0, 1], [0, 1, 0], [1, -1, 0], [0, 0, 1]]  # (4, 1 kv head of 3)
W_V = [[1, 2, 0, -1, 1], [0, 1, 1, 0, 3], [2, 0, -1, 1, 0], [1, 1, 0, 2, -1]]  # (4, 1 kv head of 5)
W_O = [[(3 * i + 5 * j) % 7 - 3 for j in range(7)] for i in range(10)]  # (2 heads of 5, 7)
SEGMENTS, SHUFFLED, LEFT = [0, 0, 1, 1, 0], [3, 1, 4, 0, 2], [-3, -2, -1, 0, 1]
FILE_MASK = [[bool((i * i + j) % 3) for j in range(5)] for i in range(5)]

LOOPED: dict[str, tuple[dict[str, Any], Any, Callable[[int, int], bool] | None]] = {
    "full": ({}, "full", None),
    "causal": ({}, "causal", lambda i, j: j <= i),
    "not causal": ({}, "not causal", lambda i, j: j > i),  # the last query sees nothing
    "window": ({}, "window:left=1,right=2", lambda i, j: -1 <= j - i <= 2),
    "window, right only": ({}, "window:right=1", lambda i, j: j - i <= 1),
    "window, -1": ({}, "window:left=-1,right=0", lambda i, j: j <= i),
    "window of one": ({}, "window:left=0,right=0", lambda i, j: i == j),
    "prefix": ({}, "causal or prefix:length=3", lambda i, j: j <= i or j < 3),
    "no prefix": ({}, "prefix:length=0", lambda i, j: False),
    "expression": (
        {},
        "causal and (window:left=2,right=0 or prefix:length=1)",
        lambda i, j: j <= i and (i - j <= 2 or j < 1),
    ),
    "and binds tighter than or": (
        {},
        "prefix:length=1 or causal and window:left=1",
        lambda i, j: j < 1 or (j <= i and i - j <= 1),
    ),
    "not binds tighter than and": ({}, "not causal and window:right=2", lambda i, j: j > i and j - i <= 2),
    "not of parentheses": ({}, "not (causal and window:left=1)", lambda i, j: not (j <= i and i - j <= 1)),
    "a list of masks": ({}, ["causal", "window:left=1"], lambda i, j: i - 1 <= j <= i),
    "chunk": ({}, "chunk:size=2", lambda i, j: i // 2 == j // 2),
    "document": ({"segments": SEGMENTS}, "document", lambda i, j: SEGMENTS[i] == SEGMENTS[j]),
    "causal document": (
        {"segments": SEGMENTS},
        "causal and document",
        lambda i, j: j <= i and SEGMENTS[i] == SEGMENTS[j],
    ),
    "k_segments": (
        {"segments": SEGMENTS, "k_segments": [1, 0, 0, 1, 2]},
        "document",
        lambda i, j: SEGMENTS[i] == [1, 0, 0, 1, 2][j],
    ),
    "positions": ({"positions": SHUFFLED}, "causal", lambda i, j: SHUFFLED[j] <= SHUFFLED[i]),  # keys follow
    "positions, window": (
        {"positions": SHUFFLED},
        "window:left=1,right=0",
        lambda i, j: -1 <= SHUFFLED[j] - SHUFFLED[i] <= 0,
    ),
    "negative positions": (
        {"positions": LEFT},
        "chunk:size=2",
        lambda i, j: math.floor(LEFT[i] / 2) == math.floor(LEFT[j] / 2),
    ),
    "positions, prefix": (
        {"positions": SHUFFLED},
        "causal and prefix:length=3",
        lambda i, j: SHUFFLED[j] <= SHUFFLED[i] and SHUFFLED[j] < 3,
    ),
    "negative prefix": ({"positions": LEFT}, "prefix:length=1", lambda i, j: LEFT[j] < 1),
    "k_positions": (
        {"positions": SHUFFLED, "k_positions": [0, 2, 1, 5, 3]},
        "causal",
        lambda i, j: [0, 2, 1, 5, 3][j] <= SHUFFLED[i],
    ),
    "file's mask": ({"mask": FILE_MASK}, "full", lambda i, j: FILE_MASK[i][j]),
    "file's mask and causal": ({"mask": FILE_MASK}, "causal", lambda i, j: FILE_MASK[i][j] and j <= i),
    "given or causal": ({"mask": FILE_MASK}, "given or causal", lambda i, j: FILE_MASK[i][j] or j <= i),
    "not given": ({"mask": FILE_MASK}, "not given", lambda i, j: not FILE_MASK[i][j]),
    "mask of keys": ({"mask": [True, False, True, True, False]}, "full", lambda i, j: j in (0, 2, 3)),
    "mask of queries": ({"mask": [[True], [False], [True], [True], [False]]}, "full", lambda i, j: i in (0, 2, 3)),
    "lengths": ({"lengths": [3]}, "full", lambda i, j: j < 3),
    "lengths are applied outside of or": ({"lengths": [3]}, "causal or prefix:length=4", lambda i, j: j < 3),
}


def looped_heads(sees: Callable[[int, int], bool] | None, top: int = 0) -> dict[str, Any]:
    """Both heads of the integer example; they share one kv head."""
    q, k, v = product(TOKENS, W_Q), product(TOKENS, W_K), product(TOKENS, W_V)
    heads = [looped([row[3 * h : 3 * h + 3] for row in q], k, v, sees or (lambda i, j: True), top) for h in range(2)]
    found = {name: [head[name] for head in heads] for name in heads[0]}
    found["context"] = [one + other for one, other in zip(*found["head_context"], strict=True)]
    found["output"] = product(found["context"], W_O)
    return found


FIELDS = {"embeddings": TOKENS, "parameters": {"w_q": W_Q, "w_k": W_K, "w_v": W_V, "w_o": W_O}}


@pytest.mark.parametrize("name", LOOPED)
def test_every_step_is_that_of_a_loop(name: str) -> None:
    fields, expression, sees = LOOPED[name]
    result = compute(FIELDS | fields, heads=2, kv_heads=1, mask=expression)
    expected = looped_heads(sees)
    if sees is None:
        assert "mask" not in result
        assert "masked_scores" not in result
        del expected["mask"], expected["masked_scores"]
    else:
        hidden = np.array(expected.pop("mask"))
        identical(np.broadcast_to(values(result, "mask"), hidden.shape), hidden)
    for step in ("top_keys", "top_weights"):
        assert step not in result
        del expected[step]
    for step, figures in expected.items():
        same(values(result, step), figures, atol=1e-15 if step == "weights" else 1e-14)
    assert [w.partition(":")[0] for w in result.warnings] == ["empty-rows"] * (0 in np.array(expected["visible_keys"]))


def test_an_entropy_of_nothing_is_not_minus_zero() -> None:
    """The first causal query sees one key: 0 bits, and not -0.0 in JSON and arrays."""
    entropy = values(
        compute(FIELDS | {"lengths": [4]}, heads=2, kv_heads=1, mask="causal and not prefix:length=1"), "entropy"
    )
    assert entropy[:, :2].tolist() == [[0, 0], [0, 0]]  # sees none, sees one
    assert not np.signbit(entropy).any()


@pytest.mark.parametrize("top", [1, 2, 4, 5])
@pytest.mark.parametrize("name", ["full", "causal", "expression", "not causal", "file's mask", "window of one"])
def test_top_keys_are_those_of_a_loop(name: str, top: int) -> None:
    """Keys 0 and 3 are alike, and hidden keys all weigh 0: lower index first."""
    fields, expression, sees = LOOPED[name]
    result = compute(FIELDS | fields, heads=2, kv_heads=1, mask=expression, top=top)
    expected = looped_heads(sees, top)
    np.testing.assert_array_equal(values(result, "top_keys"), expected["top_keys"])
    same(values(result, "top_weights"), expected["top_weights"], atol=1e-15)
    assert result["top_keys"].axes == ("head", "query", "rank")


def test_more_top_keys_than_keys_are_all_of_them() -> None:
    result = compute(FIELDS, heads=2, kv_heads=1, top=9)
    expected = looped_heads(None, 5)
    np.testing.assert_array_equal(values(result, "top_keys"), expected["top_keys"])


def test_many_ties_are_in_order() -> None:
    result = compute({"q": [[1.0], [0.0]], "k": [[float(j % 3)] for j in range(300)]}, top=150)
    twos, ones = [j for j in range(300) if j % 3 == 2], [j for j in range(300) if j % 3 == 1]
    assert values(result, "top_keys").tolist() == [(twos + ones)[:150], list(range(150))]


def test_top_keys_alone_may_be_kept() -> None:
    result = attncli.attend(
        attncli.Problem(**FIELDS), attncli.Variant(heads=2, kv_heads=1), keep={"top_keys", "top_weights"}, top=2
    )
    assert [step.name for step in result] == ["top_keys", "top_weights"]
    np.testing.assert_array_equal(values(result, "top_keys"), looped_heads(None, 2)["top_keys"])


@pytest.mark.parametrize("seed", range(6))
def test_loops_on_random_numbers(seed: int) -> None:
    """One head, no parameters: embeddings are their own queries, keys and values; a random mask, some rows of it empty."""
    g = stream(800 + seed)
    tokens, width = 3 + seed, 10 - seed
    x, mask = floats(g, tokens, width), coins(g, tokens, tokens)
    mask[seed % tokens] = False
    result = compute({"embeddings": x.tolist(), "mask": mask.tolist()})
    expected = looped(x.tolist(), x.tolist(), x.tolist(), lambda i, j: bool(mask[i, j]))
    for step in (
        "scores",
        "scaled_scores",
        "masked_scores",
        "max_score",
        "log_sum_exp",
        "entropy",
        "visible_keys",
        "weights",
    ):
        same(values(result, step), expected[step], atol=1e-13)
    same(values(result, "context"), expected["head_context"], atol=1e-14)
    (warning,) = result.warnings
    blind = [str(i) for i, n in enumerate(expected["visible_keys"]) if n == 0]
    assert re.findall(r"\d+", warning.partition(" see")[0]) == blind


# ── the chain, link by link ──────────────────────────────────────────────────────────────────────
SCALE, CAP, HEAT = -0.75, 1.5, 2.5  # a negative scale turns −∞ into +∞, if anyone lets it
SEEN = np.array(
    [[[1, 0, 1, 1, 0], [0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]], bool
)  # the third query sees nothing
ADDED = floats(stream(900), 1, N, M).numpy()
ADDED[0, 3, 2] = -INF
VISIBLE = SEEN & (ADDED > -INF)  # mask allows and bias > −∞


def hide(s: np.ndarray, seen: np.ndarray = VISIBLE) -> np.ndarray:
    return np.where(seen, s, -INF)


def cap(s: np.ndarray) -> np.ndarray:
    return CAP * np.tanh(s / CAP)


# chain → (fields, choices, each step from the raw scores s)
CHAINS: dict[str, tuple[tuple[str, ...], dict[str, float], Callable[[np.ndarray], list[tuple[str, np.ndarray]]]]] = {
    "mask,scale": (
        ("mask",),
        {},
        lambda s: [("masked_scores", hide(s, SEEN)), ("scaled_scores", hide(s * SCALE, SEEN))],
    ),
    "scale,mask": (("mask",), {}, lambda s: [("scaled_scores", s * SCALE), ("masked_scores", hide(s * SCALE, SEEN))]),
    "scale,bias,softcap,mask": (
        ("mask", "bias"),
        {"softcap": CAP},
        lambda s: [
            ("scaled_scores", s * SCALE),
            ("biased_scores", s * SCALE + ADDED),
            ("softcapped_scores", cap(s * SCALE + ADDED)),
            ("masked_scores", hide(cap(s * SCALE + ADDED))),
        ],
    ),
    "scale,softcap,mask,bias": (
        ("mask", "bias"),
        {"softcap": CAP},
        lambda s: [
            ("scaled_scores", s * SCALE),
            ("softcapped_scores", cap(s * SCALE)),
            ("masked_scores", hide(cap(s * SCALE))),
            ("biased_scores", hide(cap(s * SCALE) + ADDED)),
        ],
    ),
    "bias,scale,mask": (
        ("mask", "bias"),
        {},
        lambda s: [
            ("biased_scores", s + ADDED),
            ("scaled_scores", (s + ADDED) * SCALE),
            ("masked_scores", hide((s + ADDED) * SCALE)),
        ],
    ),
    "mask,softcap,scale": (
        ("mask",),
        {"softcap": CAP},
        lambda s: [
            ("masked_scores", hide(s, SEEN)),
            ("softcapped_scores", hide(cap(s), SEEN)),
            ("scaled_scores", hide(cap(s) * SCALE, SEEN)),
        ],
    ),
    "scale,softcap,scale": (
        (),
        {"softcap": CAP},
        lambda s: [
            ("scaled_scores", s * SCALE),
            ("softcapped_scores", cap(s * SCALE)),
            ("scaled_scores_2", cap(s * SCALE) * SCALE),
        ],
    ),
    "scale,softcap,scale,scale": (
        (),
        {"softcap": CAP},
        lambda s: [
            ("scaled_scores", s * SCALE),
            ("softcapped_scores", cap(s * SCALE)),
            ("scaled_scores_2", cap(s * SCALE) * SCALE),
            ("scaled_scores_3", cap(s * SCALE) * SCALE * SCALE),
        ],
    ),
    "bias,scale,bias,mask": (
        ("mask", "bias"),
        {},
        lambda s: [
            ("biased_scores", s + ADDED),
            ("scaled_scores", (s + ADDED) * SCALE),
            ("biased_scores_2", biased_again((s + ADDED) * SCALE)),
            ("masked_scores", hide(biased_again((s + ADDED) * SCALE))),
        ],
    ),
    "temperature,scale": (
        (),
        {"temperature": HEAT},
        lambda s: [("tempered_scores", s / HEAT), ("scaled_scores", s / HEAT * SCALE)],
    ),
    "temperature,softcap,scale": (
        (),
        {"temperature": HEAT, "softcap": CAP},
        lambda s: [
            ("tempered_scores", s / HEAT),
            ("softcapped_scores", cap(s / HEAT)),
            ("scaled_scores", cap(s / HEAT) * SCALE),
        ],
    ),
    "": (  # as it stands without being said
        ("mask", "bias"),
        {"temperature": HEAT, "softcap": CAP},
        lambda s: [
            ("scaled_scores", s * SCALE),
            ("softcapped_scores", cap(s * SCALE)),
            ("tempered_scores", cap(s * SCALE) / HEAT),
            ("biased_scores", cap(s * SCALE) / HEAT + ADDED),
            ("masked_scores", hide(cap(s * SCALE) / HEAT + ADDED)),
        ],
    ),
}


def biased_again(s: np.ndarray) -> np.ndarray:
    """+∞ (−∞ times a negative scale) plus −∞ is NaN, until the mask takes the cell away."""
    with np.errstate(invalid="ignore"):
        return s + ADDED


@pytest.mark.parametrize("chain", CHAINS)
def test_every_link_of_a_chain_in_its_place(chain: str) -> None:
    used, choices, follow = CHAINS[chain]
    g = stream(901)
    q, k, v = floats(g, B, H, N, D).numpy(), floats(g, B, H, M, D).numpy(), floats(g, B, H, M, C).numpy()
    fields = {"mask": SEEN, "bias": ADDED}
    result = compute(
        {"q": q, "k": k, "v": v, **{name: fields[name] for name in used}},
        scale=SCALE,
        **choices,
        **({"chain": chain} if chain else {}),
    )
    raw = np.einsum("bhnd,bhmd->bhnm", q, k)
    steps = follow(raw)
    same(values(result, "scores"), raw, atol=1e-14)
    assert [step.name for step in result if step.name.endswith("_scores") or "_scores_" in step.name] == [
        name for name, _ in steps
    ]
    for name, figures in steps:
        same(values(result, name), figures, atol=1e-14)
    last = steps[-1][1]
    total = np.exp(last).sum(-1, keepdims=True)
    weights = np.exp(last) / np.where(total == 0, 1, total)
    same(values(result, "weights"), weights, atol=1e-15)
    same(values(result, "head_context"), weights @ v, atol=1e-14 * np.abs(v).max())
    same(values(result, "max_score"), last.max(-1), atol=1e-14)
    with np.errstate(divide="ignore"):
        same(values(result, "log_sum_exp"), np.log(total)[..., 0], atol=1e-14)
    seen = {(): np.ones((N, M), bool), ("mask",): SEEN, ("mask", "bias"): VISIBLE}[used]
    np.testing.assert_array_equal(values(result, "visible_keys"), np.broadcast_to(seen.sum(-1), (B, H, N)))


def test_orders_that_differ_give_other_weights() -> None:
    """The published example (x-transformers against Gemma): scores 3 1 2, bias 0 −1 −2, cap 5."""
    fields = {"q": [[1.0]], "k": [[3.0], [1.0], [2.0]], "bias": [0.0, -1.0, -2.0]}
    cap_first, bias_first = (
        values(compute(fields, softcap=5, chain=chain), "weights")[0]
        for chain in ("scale,softcap,bias", "scale,bias,softcap")
    )
    assert cap_first.round(4).tolist() == [0.8857, 0.0596, 0.0546]
    assert bias_first.round(4).tolist() == [0.88, 0.06, 0.06]


@pytest.mark.parametrize(
    "choices", [{}, {"scale": "none"}, {"scale": 1}, {"temperature": 1}, {"temperature": "none", "softcap": "none"}]
)
def test_a_link_that_does_nothing_leaves_no_step(choices: dict[str, Any]) -> None:
    """With width 1, 1/√d_k is 1: nothing to see there either."""
    result = compute({"q": [[1.0], [-2.0]], "k": [[3.0], [1.0], [2.0]]}, **choices)
    assert [step.name for step in result if "scores" in step.name] == ["scores"]
    e = np.exp([[3.0, 1.0, 2.0], [-6.0, -2.0, -4.0]])
    same(values(result, "weights"), e / e.sum(-1, keepdims=True))
