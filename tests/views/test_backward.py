"""Explain's gradients are PyTorch's."""

from __future__ import annotations

import numpy as np

from tests.helpers import SAMPLES, draw_normal

CAT = SAMPLES / "cat_sat.json"


def test_gradients_are_those_of_pytorch(attn, tmp_path):
    import torch
    from torch.nn import functional as F

    q, k, v, g = (draw_normal(seed, 5, 3) for seed in range(4))
    np.savez(tmp_path / "p.npz", q=q, k=k, v=v)
    np.save(tmp_path / "g.npy", g)
    leaves = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
    F.scaled_dot_product_attention(*(x[None, None] for x in leaves), is_causal=True).backward(
        torch.tensor(g)[None, None]
    )

    record = attn("explain", "p.npz", "3", "--causal", "--grad", "g.npy", "--json", "--precision", "12").json

    lines = {s["title"]: {x["label"]: x["text"] for x in s["lines"]} for s in record["sections"]}
    for letter, label, row in (("q", "dq", 3), ("k", "dk 2", 2), ("v", "dv 1", 1)):
        printed = [float(x) for x in lines[f"gradient of {letter}"][label].strip("[]").split()]
        np.testing.assert_allclose(printed, leaves["qkv".index(letter)].grad[row], rtol=0, atol=1e-12)


def test_gradients_of_projections_are_those_of_pytorch(attn, tmp_path):
    import torch

    x, w = draw_normal(1, 4, 5), {f"w_{letter}": draw_normal(n, 5, 6) for n, letter in enumerate("qkv", start=2)}
    np.savez(tmp_path / "p.npz", embeddings=x, **{f"parameters.{name}": a for name, a in w.items()})
    leaves = {"x": torch.tensor(x, requires_grad=True)} | {n: torch.tensor(a, requires_grad=True) for n, a in w.items()}
    q, k, v = ((leaves["x"] @ leaves[f"w_{letter}"]).unflatten(-1, (2, 3)).transpose(0, 1) for letter in "qkv")
    torch.nn.functional.scaled_dot_product_attention(q, k, v).sum().backward()

    record = attn("explain", "p.npz", "2", "--heads", "2", "--grad", "ones", "--json", "--precision", "12").json

    lines = {s["title"]: {y["label"]: y["text"] for y in s["lines"]} for s in record["sections"]}
    for name in w:
        printed = [float(y) for y in lines[f"gradient of {name}"]["dW[4]"].strip("[]").split()]
        np.testing.assert_allclose(printed, leaves[name].grad[4], rtol=0, atol=1e-12)
    printed = lines["gradient of the embedding"]["dx"].rpartition("= ")[2].strip("[]").split()
    np.testing.assert_allclose([float(y) for y in printed], leaves["x"].grad[2], rtol=0, atol=1e-12)


def test_a_gradient_of_another_shape_is_refused(attn, tmp_path):
    np.save(tmp_path / "g.npy", draw_normal(1, 2, 4))

    run = attn("explain", CAT, "cat", "--grad", "g.npy")

    assert run.status == 3
    assert "the gradient has shape (2, 4), but the context (3, 4)" in run.err
