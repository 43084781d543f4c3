"""Parameters drawn as nn.Linear, Xavier, torch.rand and torch.randn draw them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import attncli
from tests.helpers import assert_close, assert_identical, compute, step_values
from tests.oracles.tensors import floats, redrawn, stream

pytestmark = pytest.mark.usefixtures("own_stream")
B, H, G, N, M, D, C, P = 2, 6, 3, 4, 5, 7, 9, 8  # batch, heads, kv heads, queries, keys, width of q and k, of v, past
E, HEADS, T, SOURCE, K_DIM = 12, 3, 5, 4, 7
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
        assert_identical(result.parameters[name], array.T if turned and array.ndim == 2 else array)

    def applied(letter: str, x: Tensor) -> Tensor:
        return x @ expected[f"w_{letter}"].double() + expected.get(f"b_{letter}", torch.zeros(1)).double()

    for letter, source in (("q", x), ("k", y), ("v", y)):
        step = result[letter].values
        columns = step if step.ndim == 2 else step.transpose(0, 1).flatten(1)  # (head, T, d) → (T, H·d)
        assert_close(columns, applied(letter, source), atol=1e-14)
    assert ("output" in result) == ("w_o" in expected)
    if "output" in result:
        assert_close(step_values(result, "output"), applied("o", result["context"].values), atol=1e-14)
