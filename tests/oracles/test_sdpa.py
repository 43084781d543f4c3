"""PyTorch's scaled_dot_product_attention, float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import attncli
from tests.helpers import assert_close, assert_identical, compute, step_values
from tests.oracles.tensors import coins, floats, merged, stream

pytestmark = pytest.mark.usefixtures("own_stream")
INF = math.inf
B, H, G, N, M, D, C, P = 2, 6, 3, 4, 5, 7, 9, 8  # batch, heads, kv heads, queries, keys, width of q and k, of v, past
BROADCASTS = [(M,), (N, 1), (N, M), (H, N, M), (1, H, 1, M), (B, 1, N, M), (B, H, N, M)]


# Within rtol 1e-12, and atol 1e-14 × the largest |v| where a sum cancels.
def sdpa_holds(result: attncli.Attention, q: Tensor, k: Tensor, v: Tensor, **more: Any) -> None:
    """Context per head, context, and weights (what SDPA makes of the values 1, e_1, e_2 …) of a result are SDPA's."""
    z = F.scaled_dot_product_attention(q, k, v, enable_gqa=True, **more)  # (B, H, N, C)
    one_hot = torch.eye(k.shape[2], dtype=v.dtype).expand(*k.shape[:2], -1, -1)
    w = F.scaled_dot_product_attention(q, k, one_hot, enable_gqa=True, **more)  # (B, H, N, M)
    atol = 1e-14 * float(v.abs().max())
    assert_close(step_values(result, "head_context"), z, atol=atol)
    assert_close(step_values(result, "context"), merged(z), atol=atol)
    assert_close(step_values(result, "weights"), w, atol=1e-15)


LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Any], dict[str, str], dict[str, int]]] = {
    "bhtd": (lambda x: x, lambda x: x, {}, {}),  # tensors
    "bthd": (lambda x: x.transpose(1, 2), lambda x: x.numpy(), {"layout": "bthd"}, {}),  # numpy
    "merged": (merged, lambda x: x.tolist(), {}, {"heads": H, "kv_heads": G}),  # lists, (B, T, H·d)
}


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
    assert_identical(step_values(result, "mask"), below)


def test_sdpa_on_one_head_and_one_sequence() -> None:
    """Rank 2, (T, d): no batch, no heads, and no axes for them."""
    g = stream(103)
    q, k, v = floats(g, N, D), floats(g, M, D), floats(g, M, C)
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 0, 0]], dtype=torch.bool)
    result = compute({"q": q, "k": k, "v": v, "mask": mask})
    assert_close(
        step_values(result, "context"),
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
    assert_close(step_values(result, "head_context"), z[0], atol=1e-14 * float(v.abs().max()))
    assert_close(step_values(result, "context"), merged(z)[0], atol=1e-14 * float(v.abs().max()))
    assert result["head_context"].axes == ("head", "query", "dim")


def test_sdpa_on_heads_without_a_batch() -> None:
    """Rank 3 said to be htd, with a float mask a head."""
    g = stream(105)
    q, k, v, bias = floats(g, H, N, D), floats(g, G, M, D), floats(g, G, M, C), floats(g, H, N, M)
    bias[2, 1] = -INF
    result = compute({"q": q, "k": k, "v": v, "bias": bias, "layout": "htd"})
    z = F.scaled_dot_product_attention(q[None], k[None], v[None], bias[None], enable_gqa=True)
    assert_close(step_values(result, "head_context"), z[0], atol=1e-14 * float(v.abs().max()))
    assert_close(step_values(result, "context"), merged(z)[0], atol=1e-14 * float(v.abs().max()))
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
    assert_close(step_values(result, "context"), expected[0], atol=1e-14 * float(np.abs(fields["v"]).max()))


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
    assert not step_values(result, "weights")[empty].any()
    assert not step_values(result, "head_context")[empty].any()
    assert step_values(result, "head_context")[~empty].all()
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
    assert_close(
        step_values(result, "head_context"),
        F.scaled_dot_product_attention(told, k, v, bias, enable_gqa=True),
        atol=1e-14 * float(v.abs().max()),
    )
    assert_close(step_values(result, "weights")[:, :, 2], np.full((B, H, M), weight))


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
    assert_close(step_values(result, "weights"), [[1 / 3] * 3, [1.0, 0.0, 0.0]])
    assert_close(step_values(result, "context"), [[math.nan, -1.0], [1.0, 2.0]])


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
        assert_close(mine, reference, atol=1e-13)
