"""Scores into weights: (scores: b h n m, visible: broadcasts to it) → b h n m, row by row, 0 where not visible.

`visible` is None where every key is, which saves long runs a pass over each tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from attncli.derivation import WORKING, Cell, Expr, Line, Num, Work, explaining, finer, per_key
from attncli.parts.traits import NormalizerTraits
from attncli.registry import Family, Range
from attncli.types import Tensor

normalizer = Family("normalizer", "scores into weights, row by row", NormalizerTraits)

_LAWS = ("prefix", "decode", "permutation")
_HIDDEN = float("-inf")


def hide(x: Tensor, visible: Tensor | None, value: float) -> Tensor:
    """x where visible, else the value."""
    return x if visible is None else x.where(visible, value)  # (b, h, n, m)


def _work_softmax(w: Work) -> Iterator[Line]:
    """Subtract the largest, exponentiate, sum, divide."""
    top, total = w("top"), w("total")
    yield Line("largest", ([top],))
    for c in w.seen:
        yield Line(c.label, (["e^(", c.before, " − ", top, ")"], ["e^(", c("s − top"), ")"], [c("e")]))
    yield Line("sum", (w.added(lambda c: [c("e")], lambda c: c("e").value), [total]))
    yield from w.each(lambda c: ([c("e"), " / ", total],))


def _jacobian_softmax(w: Work) -> Iterator[Line]:
    """dsⱼ = wⱼ (dwⱼ − Σ w·dw)"""
    mean = _mean(w)
    yield Line("Σ w·dw", (w.added(lambda c: [c.after, "·", c("dw")], lambda c: c.after.value * c("dw").value), [mean]))
    yield from _slopes(w, lambda c: [c.after, " × (", c("dw"), " − ", mean, ")"])


def _mean(w: Work) -> Num:
    """Σ w·dw"""
    return Num(sum(c.after.value * c("dw").value for c in w.every if not c.hidden), WORKING)


def _slopes(w: Work, write: Callable[[Cell], Expr]) -> Iterator[Line]:
    """A line for each key shown that may be seen, ending in the gradient of its score."""
    for c in w.seen:
        yield Line(c.label, (write(c), [c("ds")]))


@normalizer(
    "softmax",
    "e^(s − max s) / Σ e^(s − max s)",
    source="Vaswani et al. 2017, §3.2.1; 0 for a row that sees nothing, as in PyTorch SDPA and ONNX",
    laws=_LAWS,
    is_distribution=True,
    is_exponential=True,
    has_denominator=True,
    is_fused=True,
    derivation=_work_softmax,
    jacobian="dsⱼ = wⱼ (dwⱼ − Σ w·dw)",
    gradient_derivation=_jacobian_softmax,
)
def softmax(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Exponentials, divided by their sum; the largest is subtracted first, which changes nothing but rounding."""
    s = hide(scores, visible, _HIDDEN)  # (b, h, n, m)
    top = s.amax(-1, keepdim=True)  # (b, h, n, 1)
    if top.isfinite().all() and not explaining():
        return s.softmax(-1)  # (b, h, n, m); the same in one pass
    top = finer("top", top.masked_fill(top == _HIDDEN, 0), "bhn1")  # a row that sees nothing: e^(−∞ − 0) = 0
    e = finer("e", finer("s − top", s - top).exp())  # (b, h, n, m)
    total = finer("total", e.sum(-1, keepdim=True), "bhn1")  # (b, h, n, 1)
    return hide(
        e / total.masked_fill(total == 0, 1), visible, 0
    )  # (b, h, n, m); what a row does not see gets none of its NaN


@normalizer(
    "sigmoid",
    "1 / (1 + e^−(s + bias))",
    source="Ramapuram et al. 2024, §3",
    laws=_LAWS,
    lawless="bias=auto counts all keys, and keeps neither prefix nor decode",
    is_key_count_dependent=lambda part: part.get("bias") == "auto",
    derivation=per_key(lambda w, c: (["1 / (1 + e^(−(", c.before, " + ", w("b"), ")))"],)),
    jacobian="dsⱼ = wⱼ (1 − wⱼ) dwⱼ",
    gradient_derivation=lambda w: _slopes(w, lambda c: [c.after, " × (1 − ", c.after, ") × ", c("dw")]),
)
def sigmoid(scores: Tensor, visible: Tensor | None, *, bias: float | Literal["auto"] = 0.0) -> Tensor:
    """Each weight by itself, so that rows need not sum to 1; auto is −ln of the number of keys."""
    b = -math.log(scores.shape[-1]) if bias == "auto" else bias
    finer("b", scores.new_tensor(b), "", given=True)
    return hide((scores + b).sigmoid(), visible, 0)  # (b, h, n, m)


def _work_entmax(w: Work) -> Iterator[Line]:
    """How far each score lies above τ, to the power 1/(α − 1)."""
    tau, less, power = w("τ"), w("α − 1"), w("1/(α − 1)")
    yield Line("τ", ([tau],), "such that the weights sum to 1")
    for c in w.seen:
        stretched: Expr = [c.before] if less.value == 1 else [c.before, " × ", less]
        above: Expr = ["max(", *stretched, " − ", tau, ", 0)"]
        yield Line(c.label, (above if power.value == 1 else [*above, "^", power], [c.after]))


def _jacobian_entmax(w: Work) -> Iterator[Line]:
    """dsⱼ = gⱼ (dwⱼ − Σ g·dw / Σ g), gⱼ = wⱼ^(2−α) where wⱼ > 0"""
    held = replace(w, every=tuple(c for c in w.every if not c.hidden and c.after.value > 0))
    if not held.every:
        return
    power = Num(1 - w("α − 1").value)
    g = {c.index: Num(c.after.value**power.value, WORKING) for c in held.every}
    for c in w.seen:
        if c.index in g:
            yield Line(f"g {c.label}", ([c.after, "^", power], [g[c.index]]))
    top = sum(g[c.index].value * c("dw").value for c in held.every)
    mean = Num(top / sum(x.value for x in g.values()), WORKING)
    above = held.added(lambda c: [g[c.index], "·", c("dw")], lambda c: g[c.index].value * c("dw").value)
    below = held.added(lambda c: [g[c.index]], lambda c: g[c.index].value)
    yield Line("Σ g·dw / Σ g", (["(", *above, ") / (", *below, ")"], [mean]))
    yield from _slopes(w, lambda c: [g.get(c.index, Num(0.0)), " × (", c("dw"), " − ", mean, ")"])


_ENTMAX: Mapping[str, Any] = {
    "derivation": lambda w: (_work_softmax if "e" in w else _work_entmax)(w),  # α = 1 is softmax
    "jacobian": "dsⱼ = gⱼ (dwⱼ − Σ g·dw / Σ g), gⱼ = wⱼ^(2 − α) where wⱼ > 0",
    "gradient_derivation": lambda w: (_jacobian_softmax if "e" in w else _jacobian_entmax)(w),
}


@normalizer(
    "sparsemax",
    "max(s − τ, 0) with τ such that Σ = 1",
    source="Martins and Astudillo 2016, Alg. 1",
    laws=_LAWS,
    is_distribution=True,
    **_ENTMAX,
)
def sparsemax(scores: Tensor, visible: Tensor | None) -> Tensor:
    """The nearest point of the simplex: small scores get exactly 0."""
    return _entmax(scores, visible, 2.0)  # (b, h, n, m)


@normalizer(
    "entmax15",
    "max(s/2 − τ, 0)² with τ such that Σ = 1",
    source="Peters et al. 2019, §3 and Alg. 2",
    laws=_LAWS,
    is_distribution=True,
    **_ENTMAX,
)
def entmax15(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Between softmax and sparsemax: entmax with α = 1.5."""
    return _entmax(scores, visible, 1.5)  # (b, h, n, m)


@normalizer(
    "entmax",
    "max((α − 1) s − τ, 0)^(1/(α − 1)) with τ such that Σ = 1",
    source="Peters et al. 2019, §3 and Alg. 1",
    laws=_LAWS,
    is_distribution=True,
    option_conflict=lambda o: (
        "alpha between 1 and 1.01 cannot be told from softmax in floating point" if 1 < o["alpha"] < 1.01 else ""
    ),
    **_ENTMAX,
)
def entmax(scores: Tensor, visible: Tensor | None, *, alpha: Annotated[float, Range(low=1, high=64)] = 1.5) -> Tensor:
    """From softmax (α = 1) over entmax15 to sparsemax (α = 2) and towards hardmax."""
    return softmax(scores, visible) if alpha == 1 else _entmax(scores, visible, alpha)  # (b, h, n, m)


def _entmax(scores: Tensor, visible: Tensor | None, alpha: float) -> Tensor:
    """τ by halving the interval that must hold it until it can be halved no more."""
    s = hide(scores, visible, _HIDDEN)  # (b, h, n, m)
    top = s.amax(-1, keepdim=True)  # (b, h, n, 1)
    top = top.masked_fill(top == _HIDDEN, 0)
    s = (s - top) * (alpha - 1)  # the largest is 0, so that τ lies in [−1, 0)
    power = 1 / (alpha - 1)
    finer("α − 1", s.new_tensor(alpha - 1), "", given=True)
    finer("1/(α − 1)", s.new_tensor(power), "", given=True)

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
    finer("τ", tau + (alpha - 1) * top, "bhn1")  # of the scores as they came
    return w / total.masked_fill(total == 0, 1)


@normalizer(
    "relu",
    "max(s, 0)",
    source="Shen et al. 2023, §3; Wortsman et al. 2023 divide by the number of keys (--temperature)",
    laws=_LAWS,
    derivation=per_key(lambda w, c: (["max(", c.before, ", 0)"],)),
    jacobian="dsⱼ = dwⱼ where sⱼ > 0, else 0",
    gradient_derivation=lambda w: _slopes(w, lambda c: [c("dw")] if c.before.value > 0 else [Num(0.0)]),
)
def relu(scores: Tensor, visible: Tensor | None) -> Tensor:
    """What is above 0, as it is; rows need not sum to 1."""
    return hide(scores.clamp(min=0), visible, 0)  # (b, h, n, m)


def _work_topk(w: Work) -> Iterator[Line]:
    """Softmax among the largest; the others have none."""
    yield from _work_softmax(_among(w))
    for c in w.seen:
        if not c("among").value:
            yield Line(c.label, ([c.after],), f"not among the {w.part.get('k')} largest")


def _among(w: Work) -> Work:
    """The keys that take part."""

    def taking(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
        return tuple(c for c in cells if not c.hidden and c("among").value)

    return replace(w, cells=taking(w.cells), every=taking(w.every))


@normalizer(
    "topk",
    "softmax over the k largest scores",
    source="Gupta et al. 2021, §3",
    laws=_LAWS,
    is_distribution=True,
    derivation=_work_topk,
    jacobian="dsⱼ = wⱼ (dwⱼ − Σ w·dw) among the k largest, else 0",
    gradient_derivation=lambda w: _jacobian_softmax(_among(w)),
)
def topk(scores: Tensor, visible: Tensor | None, *, k: Annotated[int, Range(low=1)]) -> Tensor:
    """Softmax among the k largest scores that a query sees; of equal ones the lower index stays."""
    return softmax(scores, finer("among", _largest(scores, visible, k)))  # (b, h, n, m)


def _work_hardmax(w: Work) -> Iterator[Line]:
    """All to the largest."""
    best = max((c for c in w.every if not c.hidden), key=lambda c: c.after.value, default=None)
    if best:
        yield Line("largest", ([best.before],), best.label)
    for c in w.seen:
        yield Line(c.label, ([c.after],))


@normalizer(
    "hardmax",
    "1 for the largest score, else 0",
    source="ONNX Hardmax; Luong et al. 2015 in TensorFlow Addons",
    laws=_LAWS,
    is_distribution=True,
    derivation=_work_hardmax,
    jacobian="dsⱼ = 0: a step has no slope",
)
def hardmax(scores: Tensor, visible: Tensor | None) -> Tensor:
    """All for the largest score that a query sees; of equal ones the lower index."""
    return _largest(scores, visible, 1).to(scores.dtype)  # (b, h, n, m)


def _largest(scores: Tensor, visible: Tensor | None, k: int) -> Tensor:
    """Whether a key is visible and its score among the k largest of its row; ties, lower index first."""
    order = hide(scores, visible, _HIDDEN).sort(dim=-1, descending=True, stable=True)[1]  # (b, h, n, m)
    kept = (order < 0).scatter(-1, order[..., :k], True)  # (b, h, n, m)
    return kept if visible is None else kept & visible


def _work_sum(w: Work) -> Iterator[Line]:
    """The sum, then each score's share of it."""
    yield Line("sum", (w.added(lambda c: [c.before], lambda c: c.before.value), [w("total")]))
    if w("total").value:
        yield from w.each(lambda c: ([c.before, " / ", w("total")],))


def _jacobian_sum(w: Work) -> Iterator[Line]:
    """dsⱼ = (dwⱼ − Σ w·dw) / Σ s"""
    mean = _mean(w)
    yield Line("Σ w·dw", (w.added(lambda c: [c.after, "·", c("dw")], lambda c: c.after.value * c("dw").value), [mean]))
    yield from _slopes(w, lambda c: ["(", c("dw"), " − ", mean, ") / ", w("total")] if w("total").value else [Num(0.0)])


@normalizer(
    "sum",
    "s / Σ s, 0 where Σ s = 0",
    source="Katharopoulos et al. 2020, §3.1; negative scores give negative weights, and are warned of",
    laws=_LAWS,
    derivation=_work_sum,
    jacobian="dsⱼ = (dwⱼ − Σ w·dw) / Σ s",
    gradient_derivation=_jacobian_sum,
    is_ratio_of_sum=True,
)
def sum_(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Each score's share of the row's sum."""
    s = hide(scores, visible, 0)  # (b, h, n, m)
    total = finer("total", s.sum(-1, keepdim=True), "bhn1")  # (b, h, n, 1)
    return hide((s / total.masked_fill(total == 0, 1)).masked_fill(total == 0, 0), visible, 0)  # (b, h, n, m)


@normalizer(
    "none",
    "s",
    source="Schlag et al. 2021, §3.2 (unnormalised linear attention)",
    laws=_LAWS,
    derivation=per_key(lambda w, c: ()),
    jacobian="dsⱼ = dwⱼ",
    gradient_derivation=lambda w: _slopes(w, lambda c: [c("dw")]),
)
def none(scores: Tensor, visible: Tensor | None) -> Tensor:
    """The scores themselves."""
    return hide(scores, visible, 0)  # (b, h, n, m)
