"""Decoding token by token with a cache is the whole run, whatever the mask."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.helpers import assert_close, compute, step_values
from tests.oracles.tensors import floats, merged, stream

pytestmark = pytest.mark.usefixtures("own_stream")
B, H, G, N, M, D, C, P = 2, 6, 3, 4, 5, 7, 9, 8  # batch, heads, kv heads, queries, keys, width of q and k, of v, past
E, HEADS, T, SOURCE, K_DIM = 12, 3, 5, 4, 7
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
    assert_close(step_values(whole, "output"), output if batch else output[0], atol=atol)

    past = {
        "k": torch.zeros(batch or 1, G, 0, d, dtype=torch.float64),
        "v": torch.zeros(batch or 1, G, 0, C, dtype=torch.float64),
    }
    outputs, start = [], 0
    for n in pieces:
        step = compute({"embeddings": x[..., start : start + n, :], "past": past, "parameters": parameters}, **choices)
        rows = step_values(whole, "weights")[..., start : start + n, : start + n]
        assert_close(step_values(step, "weights"), rows, atol=1e-15)
        outputs.append(step["output"].values)
        past, start = {"k": step["present_k"].values, "v": step["present_v"].values}, start + n
    assert_close(torch.cat(outputs, -2), step_values(whole, "output"), atol=atol)
    assert_close(past["k"], k, atol=1e-14)
    assert_close(past["v"], v, atol=1e-14)
