"""nn.MultiheadAttention, from its seed and from its state dict."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers import assert_close, assert_identical, compute, step_values
from tests.oracles.tensors import coins, floats, stream

pytestmark = pytest.mark.usefixtures("own_stream")
B, H, G, N, M, D, C, P = 2, 6, 3, 4, 5, 7, 9, 8  # batch, heads, kv heads, queries, keys, width of q and k, of v, past
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
        projection=f"torch-mha:{'' if bias else 'bias=none,'}seed={seed}",  # as it stands, it is PyTorch's own
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
        assert_identical(result.parameters[name], array)  # float32, to the last bit

    layer.to(dtype)
    y = memory if cross else x
    banned = torch.ones(T, T, dtype=torch.bool).triu(1) if what == "causal" else None  # true = may not
    output, weights = layer(x, y, y, attn_mask=banned, need_weights=True, average_attn_weights=False)
    assert result["output"].values.dtype == dtype
    assert_close(step_values(result, "output"), output.detach(), **TOLERANCE[dtype])
    assert_close(step_values(result, "weights"), weights.detach(), **TOLERANCE[dtype])


@pytest.mark.parametrize("bias", [True, False])
def test_multihead_attention_without_its_output_projection(bias: bool) -> None:
    """nn.MultiheadAttention draws W_o first; its q, k, v are the same whether or not one asks for the output."""
    torch.manual_seed(9)
    layer = nn.MultiheadAttention(E, HEADS, bias=bias)
    projection = f"torch-mha:out=no,{'' if bias else 'bias=none,'}seed=9"
    result = compute({"embeddings": floats(stream(302), T, E)}, projection=projection, heads=HEADS)
    for name, w in zip("qkv", layer.in_proj_weight.detach().chunk(3), strict=True):
        assert_identical(result.parameters[f"w_{name}"], w.T)
    assert set(result.parameters) == {f"{x}_{n}" for x in ("wb" if bias else "w") for n in "qkv"}
    assert "output" not in result


def test_drawing_leaves_pytorchs_own_stream_alone() -> None:
    before = torch.get_rng_state()
    drawn = [
        compute({"embeddings": torch.eye(E)}, projection="torch-mha:out=yes", seed=seed, dropout=0.5).parameters["w_q"]
        for seed in (1, 2, 1)
    ]
    assert_identical(torch.get_rng_state(), before)
    assert_identical(drawn[0], drawn[2])
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
    assert_close(step_values(result, "output"), output.detach(), **TOLERANCE[dtype])
    assert_close(step_values(result, "weights"), weights.detach(), **TOLERANCE[dtype])
    assert not result.parameters  # nothing was drawn
    assert not result.warnings
