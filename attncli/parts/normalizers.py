"""Scores into weights: (scores: b h n m, visible: broadcasts to it) → b h n m, row by row, 0 where not visible."""

from __future__ import annotations

from attncli.registry import Family
from attncli.types import Tensor

normalizer = Family("normalizer", "scores into weights, row by row")


@normalizer(
    "softmax",
    "e^(s − max s) / Σ e^(s − max s)",
    source="Vaswani et al. 2017, §3.2.1; 0 for a row that sees nothing, as in PyTorch SDPA and ONNX",
    laws=("prefix", "decode", "permutation"),
    sums_to_one=True,
)
def softmax(scores: Tensor, visible: Tensor) -> Tensor:
    """Exponentials, divided by their sum; the largest is subtracted first, which changes nothing but rounding."""
    s = scores.masked_fill(~visible, float("-inf"))  # (b, h, n, m)
    top = s.amax(-1, keepdim=True)  # (b, h, n, 1)
    top = top.masked_fill(top == float("-inf"), 0)  # a row that sees nothing: e^(−∞ − 0) = 0, not e^(−∞ + ∞)
    e = (s - top).exp()  # (b, h, n, m)
    total = e.sum(-1, keepdim=True)  # (b, h, n, 1)
    w = e / total.masked_fill(total == 0, 1)  # (b, h, n, m)
    return w.masked_fill(~visible, 0)  # a NaN that a row does see is not passed on to what it does not
