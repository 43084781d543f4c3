"""Scores into weights: (scores: b h n m, visible: broadcasts to it) → b h n m, row by row, 0 where not visible.

`visible` is None where every key is, which saves long runs a pass over each tile.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from attncli.registry import Family, Range
from attncli.types import Tensor

normalizer = Family("normalizer", "scores into weights, row by row")

_LAWS = ("prefix", "decode", "permutation")
_HIDDEN = float("-inf")


def hide(x: Tensor, visible: Tensor | None, value: float) -> Tensor:
    """x where visible, else the value."""
    return x if visible is None else x.where(visible, value)  # (b, h, n, m)


@normalizer(
    "softmax",
    "e^(s − max s) / Σ e^(s − max s)",
    source="Vaswani et al. 2017, §3.2.1; 0 for a row that sees nothing, as in PyTorch SDPA and ONNX",
    laws=_LAWS,
    sums_to_one=True,
    sinks=True,  # a sink may join its denominator
    kernel=True,  # what fused kernels do
)
def softmax(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Exponentials, divided by their sum; the largest is subtracted first, which changes nothing but rounding."""
    s = hide(scores, visible, _HIDDEN)  # (b, h, n, m)
    top = s.amax(-1, keepdim=True)  # (b, h, n, 1)
    if top.isfinite().all():
        return s.softmax(-1)  # (b, h, n, m)
    lost = top == _HIDDEN  # (b, h, n, 1): rows that see nothing, or nothing above −∞, get 0
    w = s.masked_fill(lost, 0).softmax(-1).masked_fill(lost, 0)  # (b, h, n, m)
    return hide(w, visible, 0)  # (b, h, n, m); what a row does not see gets none of its NaN


@normalizer(
    "sigmoid",
    "1 / (1 + e^−(s + bias))",
    source="Ramapuram et al. 2024, §3",
    laws=_LAWS,
    lawless="bias=auto counts all keys, and keeps neither prefix nor decode",
    counts_keys=lambda part: part.get("bias") == "auto",
)
def sigmoid(scores: Tensor, visible: Tensor | None, *, bias: float | Literal["auto"] = 0.0) -> Tensor:
    """Each weight by itself, so that rows need not sum to 1; auto is −ln of the number of keys."""
    b = -math.log(scores.shape[-1]) if bias == "auto" else bias
    return hide((scores + b).sigmoid(), visible, 0)  # (b, h, n, m)


@normalizer(
    "sparsemax",
    "max(s − τ, 0) with τ such that Σ = 1",
    source="Martins and Astudillo 2016, Alg. 1",
    laws=_LAWS,
    sums_to_one=True,
)
def sparsemax(scores: Tensor, visible: Tensor | None) -> Tensor:
    """The nearest point of the simplex: small scores get exactly 0."""
    return _entmax(scores, visible, 2.0)  # (b, h, n, m)


@normalizer(
    "entmax15",
    "max(s/2 − τ, 0)² with τ such that Σ = 1",
    source="Peters et al. 2019, §3 and Alg. 2",
    laws=_LAWS,
    sums_to_one=True,
)
def entmax15(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Between softmax and sparsemax: entmax with α = 1.5."""
    return _entmax(scores, visible, 1.5)  # (b, h, n, m)


@normalizer(
    "entmax",
    "max((α − 1) s − τ, 0)^(1/(α − 1)) with τ such that Σ = 1",
    source="Peters et al. 2019, §3 and Alg. 1",
    laws=_LAWS,
    sums_to_one=True,
    refuse=lambda o: (
        "alpha between 1 and 1.01 cannot be told from softmax in floating point" if 1 < o["alpha"] < 1.01 else ""
    ),
)
def entmax(scores: Tensor, visible: Tensor | None, *, alpha: Annotated[float, Range(low=1, high=64)] = 1.5) -> Tensor:
    """From softmax (α = 1) over entmax15 to sparsemax (α = 2) and towards hardmax."""
    return softmax(scores, visible) if alpha == 1 else _entmax(scores, visible, alpha)  # (b, h, n, m)


def _entmax(scores: Tensor, visible: Tensor | None, alpha: float) -> Tensor:
    """τ by halving the interval that must hold it until it can be halved no more."""
    s = hide(scores, visible, _HIDDEN)  # (b, h, n, m)
    top = s.amax(-1, keepdim=True)  # (b, h, n, 1)
    s = (s - top.masked_fill(top == _HIDDEN, 0)) * (alpha - 1)  # the largest is 0, so that τ lies in [−1, 0)
    power = 1 / (alpha - 1)

    def weights(tau: Tensor) -> Tensor:
        return (s - tau).clamp(min=0) ** power  # (b, h, n, m)

    low = top.new_full(top.shape, -1.0)  # there the largest alone has weight 1: the sum is at least 1
    high = low + 1 - float(s.shape[-1]) ** (1 - alpha)  # there none exceeds 1/m: the sum is at most 1
    for _ in range(64):
        middle = (low + high) / 2  # (b, h, n, 1)
        enough = weights(middle).sum(-1, keepdim=True) >= 1
        low, high = middle.where(enough, low), high.where(enough, middle)
    z = (s.detach() - low).clamp(min=0)  # (b, h, n, m)
    slope = (power * z.where(z > 0, 1) ** (power - 1) * (z > 0)).sum(-1, keepdim=True)  # (b, h, n, 1)
    tau = low + (weights(low).sum(-1, keepdim=True) - 1) / slope.masked_fill(
        slope == 0, 1
    )  # Newton: τ gets its gradient
    w = hide(weights(tau), visible, 0)  # (b, h, n, m)
    total = w.detach().sum(-1, keepdim=True)  # 1 but for rounding, which a large α magnifies
    return w / total.masked_fill(total == 0, 1)


@normalizer(
    "relu",
    "max(s, 0)",
    source="Shen et al. 2023, §3; Wortsman et al. 2023 divide by the number of keys (--temperature)",
    laws=_LAWS,
)
def relu(scores: Tensor, visible: Tensor | None) -> Tensor:
    """What is above 0, as it is; rows need not sum to 1."""
    return hide(scores.clamp(min=0), visible, 0)  # (b, h, n, m)


@normalizer("topk", "softmax over the k largest scores", source="Gupta et al. 2021, §3", laws=_LAWS, sums_to_one=True)
def topk(scores: Tensor, visible: Tensor | None, *, k: Annotated[int, Range(low=1)]) -> Tensor:
    """Softmax among the k largest scores that a query sees; of equal ones the lower index stays."""
    return softmax(scores, _largest(scores, visible, k))  # (b, h, n, m)


@normalizer(
    "hardmax",
    "1 for the largest score, else 0",
    source="ONNX Hardmax; Luong et al. 2015 in TensorFlow Addons",
    laws=_LAWS,
    sums_to_one=True,
)
def hardmax(scores: Tensor, visible: Tensor | None) -> Tensor:
    """All for the largest score that a query sees; of equal ones the lower index."""
    return _largest(scores, visible, 1).to(scores.dtype)  # (b, h, n, m)


def _largest(scores: Tensor, visible: Tensor | None, k: int) -> Tensor:
    """Whether a key is visible and its score among the k largest of its row; ties, lower index first."""
    order = hide(scores, visible, _HIDDEN).sort(dim=-1, descending=True, stable=True)[1]  # (b, h, n, m)
    kept = (order < 0).scatter(-1, order[..., :k], True)  # (b, h, n, m)
    return kept if visible is None else kept & visible


@normalizer(
    "sum",
    "s / Σ s, 0 where Σ s = 0",
    source="Katharopoulos et al. 2020, §3.1; negative scores give negative weights, and are warned of",
    laws=_LAWS,
    shares=True,  # weights are shares of a sum, which may be 0 and whose parts may be negative
)
def sum_(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Each score's share of the row's sum."""
    s = hide(scores, visible, 0)  # (b, h, n, m)
    total = s.sum(-1, keepdim=True)  # (b, h, n, 1)
    return hide((s / total.masked_fill(total == 0, 1)).masked_fill(total == 0, 0), visible, 0)  # (b, h, n, m)


@normalizer("none", "s", source="Schlag et al. 2021, §3.2 (unnormalised linear attention)", laws=_LAWS)
def none(scores: Tensor, visible: Tensor | None) -> Tensor:
    """The scores themselves."""
    return hide(scores, visible, 0)  # (b, h, n, m)
