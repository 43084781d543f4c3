"""Scores into weights: (scores: b h n m, visible: broadcasts to it) → b h n m, row by row, 0 where not visible.

`visible` is None where every key is, which saves long runs a pass over each tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from attncli.derivation import (
    DERIVED,
    Equation,
    EquationSide,
    KeyCell,
    Number,
    RowDerivation,
    derive_per_key,
    is_recording,
    record_intermediate,
)
from attncli.parts.magnitudes import add_exactly, sum_exactly
from attncli.parts.traits import NormalizerTraits, RowMerging, RowTotals
from attncli.registry import AnyPart, Family, Range
from attncli.types import Tensor

normalizer = Family("normalizer", "how scores become weights, row by row", NormalizerTraits)

_ALL_LAWS = ("prefix", "decode", "permutation")
_MINUS_INFINITY = float("-inf")


def fill_hidden(x: Tensor, visible: Tensor | None, value: float) -> Tensor:
    """x where visible, else the value."""
    return x if visible is None else x.where(visible, value)  # (b, h, n, m)


# ── rows whose keys come in parts ────────────────────────────────────────────────────────────────
def _weigh_exponentials(s: Tensor, *, overwrites: bool) -> tuple[Tensor, RowTotals]:
    """e^(s − max s), perhaps in the place of s, and what softmax keeps of a row: its largest score and the sum of these."""
    top = s.amax(-1, keepdim=True)  # (b, h, n, 1)
    base = record_intermediate("top", _zero_where_empty(top), "bhn1")  # a row that sees nothing: e^(−∞ − 0) = 0
    e = record_intermediate("s − top", s.sub_(base) if overwrites else s - base)  # (b, h, n, m)
    e = record_intermediate("e", e.exp() if is_recording() else e.exp_())
    return e, (top, record_intermediate("total", e.sum(-1, keepdim=True), "bhn1"))


def _join_exponentials(a: RowTotals, b: RowTotals) -> tuple[RowTotals, Tensor, Tensor]:
    """The larger maximum; sums and numerators of each part times e^(its own maximum − the larger)."""
    (top_a, total_a), (top_b, total_b) = a, b
    top = top_a.maximum(top_b)  # (b, h, n, 1)
    base = _zero_where_empty(top)
    factor_a, factor_b = (top_a - base).exp(), (top_b - base).exp()
    return (top, total_a * factor_a + total_b * factor_b), factor_a, factor_b


def _zero_where_empty(top: Tensor) -> Tensor:
    """The largest score of each row, 0 where there is none but −∞."""
    return top.masked_fill(top == _MINUS_INFINITY, 0)


def _divide_by_total(x: Tensor, totals: RowTotals) -> Tensor:
    """Numerators, or sums of them, divided by the sum of all; 0 where there are none."""
    return x / totals[1].masked_fill(totals[1] == 0, 1)


def _weigh_each(part: AnyPart, s: Tensor, visible: Tensor | None) -> tuple[Tensor, RowTotals]:
    """The weights themselves: each depends on its own score alone."""
    return part(s, visible), ()


def _weigh_shares(s: Tensor, visible: Tensor | None) -> tuple[Tensor, RowTotals]:
    """The scores, and their sum with what it lacks for rounding."""
    s = fill_hidden(s, visible, 0)
    return s, sum_exactly(s)


def _join_shares(a: RowTotals, b: RowTotals) -> tuple[RowTotals, None, None]:
    total, lost = add_exactly(a[0], b[0])
    return (total, a[1] + b[1] + lost), None, None


def _divide_by_sum(x: Tensor, totals: RowTotals) -> Tensor:
    """Scores, or sums of them, divided by the sum of all; 0 where that is 0."""
    total = totals[0] + totals[1].where(totals[1].isfinite(), 0)
    record_intermediate("total", total, "bhn1")
    return (x / total.masked_fill(total == 0, 1)).masked_fill(total == 0, 0)


_EXPONENTIALS = RowMerging(
    lambda part, s, visible: _weigh_exponentials(s, overwrites=True), _join_exponentials, _divide_by_total
)
_EACH_KEY_ALONE = RowMerging(_weigh_each, lambda a, b: ((), None, None), lambda x, totals: x)
_SHARES_OF_SUM = RowMerging(lambda part, s, visible: _weigh_shares(s, visible), _join_shares, _divide_by_sum)
_HAS_THRESHOLD = "the threshold τ depends on every score of the row"


def _derive_softmax(row: RowDerivation) -> Iterator[Equation]:
    """Subtract the largest, exponentiate, sum, divide."""
    top, total = row["top"], row["total"]
    yield Equation("largest", ([top],))
    for cell in row.unhidden_cells:
        yield Equation(
            cell.label, (["e^(", cell.value_before, " − ", top, ")"], ["e^(", cell["s − top"], ")"], [cell["e"]])
        )
    yield Equation("sum", (row.write_sum_over_keys(lambda cell: [cell["e"]], lambda cell: cell["e"].value), [total]))
    yield from row.equation_per_key(lambda cell: ([cell["e"], " / ", total],))


def _derive_softmax_gradient(row: RowDerivation) -> Iterator[Equation]:
    """dsⱼ = wⱼ (dwⱼ − Σ w·dw)"""
    mean = _weighted_gradient_sum(row)
    yield Equation(
        "Σ w·dw",
        (
            row.write_sum_over_keys(
                lambda cell: [cell.value_after, "·", cell["dw"]], lambda cell: cell.value_after.value * cell["dw"].value
            ),
            [mean],
        ),
    )
    yield from _gradient_per_key(row, lambda cell: [cell.value_after, " × (", cell["dw"], " − ", mean, ")"])


def _weighted_gradient_sum(row: RowDerivation) -> Number:
    """Σ w·dw"""
    return Number(
        sum(cell.value_after.value * cell["dw"].value for cell in row.all_cells if not cell.is_hidden), DERIVED
    )


def _gradient_per_key(row: RowDerivation, write: Callable[[KeyCell], EquationSide]) -> Iterator[Equation]:
    """A line for each key shown that may be seen, ending in the gradient of its score."""
    for cell in row.unhidden_cells:
        yield Equation(cell.label, (write(cell), [cell["ds"]]))


@normalizer(
    "softmax",
    "e^(s − max s) / Σ e^(s − max s)",
    why="Exponentials make every weight positive, and dividing by their sum makes the weights sum to 1. Subtracting the largest score changes no weight; it only keeps e^s from becoming too large to compute.",
    source="Vaswani et al. 2017, §3.2.1; 0 for a row that sees nothing, as in PyTorch SDPA and ONNX",
    merging=_EXPONENTIALS,
    laws=_ALL_LAWS,
    is_distribution=True,
    is_exponential=True,
    has_denominator=True,
    is_fused=True,
    derivation=_derive_softmax,
    jacobian="dsⱼ = wⱼ (dwⱼ − Σ w·dw)",
    gradient_derivation=_derive_softmax_gradient,
)
def softmax(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Exponentials divided by their sum; the largest score is subtracted first, which changes only rounding."""
    s = fill_hidden(scores, visible, _MINUS_INFINITY)  # (b, h, n, m)
    if not is_recording() and math.isfinite(s.detach().amax(-1).sum().item()):  # then each of them is
        return s.softmax(-1)  # (b, h, n, m); the same in one pass
    e, totals = _weigh_exponentials(s, overwrites=False)
    return fill_hidden(_divide_by_total(e, totals), visible, 0)  # what a row does not see gets none of its NaN


@normalizer(
    "sigmoid",
    "1 / (1 + e^−(s + bias))",
    why="Each key is judged by itself, so that many keys, or none, may have a large weight.",
    source="Ramapuram et al. 2024, §3",
    merging=_EACH_KEY_ALONE,
    laws=_ALL_LAWS,
    law_exceptions="bias=auto depends on the number of keys, so that none of this but reordering leaves it unchanged",
    is_key_count_dependent=lambda part: part.option_value("bias") == "auto",
    derivation=derive_per_key(lambda row, cell: (["1 / (1 + e^(−(", cell.value_before, " + ", row["b"], ")))"],)),
    jacobian="dsⱼ = wⱼ (1 − wⱼ) dwⱼ",
    gradient_derivation=lambda row: _gradient_per_key(
        row, lambda cell: [cell.value_after, " × (1 − ", cell.value_after, ") × ", cell["dw"]]
    ),
)
def sigmoid(scores: Tensor, visible: Tensor | None, *, bias: float | Literal["auto"] = 0.0) -> Tensor:
    """Each weight on its own, so rows need not sum to 1; bias=auto is −ln of the number of keys."""
    b = -math.log(scores.shape[-1]) if bias == "auto" else bias
    record_intermediate("b", scores.new_tensor(b), "", is_input=True)
    return fill_hidden((scores + b).sigmoid(), visible, 0)  # (b, h, n, m)


def _derive_entmax(row: RowDerivation) -> Iterator[Equation]:
    """How far each score lies above τ, to the power 1/(α − 1)."""
    tau, less, power = row["τ"], row["α − 1"], row["1/(α − 1)"]
    yield Equation("τ", ([tau],), "such that the weights sum to 1")
    for cell in row.unhidden_cells:
        stretched: EquationSide = [cell.value_before] if less.value == 1 else [cell.value_before, " × ", less]
        above: EquationSide = ["max(", *stretched, " − ", tau, ", 0)"]
        yield Equation(cell.label, (above if power.value == 1 else [*above, "^", power], [cell.value_after]))


def _derive_entmax_gradient(row: RowDerivation) -> Iterator[Equation]:
    """dsⱼ = gⱼ (dwⱼ − Σ g·dw / Σ g), gⱼ = wⱼ^(2−α) where wⱼ > 0"""
    support = replace(
        row, all_cells=tuple(cell for cell in row.all_cells if not cell.is_hidden and cell.value_after.value > 0)
    )
    if not support.all_cells:
        return
    power = Number(1 - row["α − 1"].value)
    g = {cell.index: Number(cell.value_after.value**power.value, DERIVED) for cell in support.all_cells}
    for cell in row.unhidden_cells:
        if cell.index in g:
            yield Equation(f"g {cell.label}", ([cell.value_after, "^", power], [g[cell.index]]))
    weighted_sum = sum(g[cell.index].value * cell["dw"].value for cell in support.all_cells)
    mean = Number(weighted_sum / sum(x.value for x in g.values()), DERIVED)
    numerator = support.write_sum_over_keys(
        lambda cell: [g[cell.index], "·", cell["dw"]], lambda cell: g[cell.index].value * cell["dw"].value
    )
    denominator = support.write_sum_over_keys(lambda cell: [g[cell.index]], lambda cell: g[cell.index].value)
    yield Equation("Σ g·dw / Σ g", (["(", *numerator, ") / (", *denominator, ")"], [mean]))
    yield from _gradient_per_key(
        row, lambda cell: [g.get(cell.index, Number(0.0)), " × (", cell["dw"], " − ", mean, ")"]
    )


_ENTMAX_DERIVATIONS: Mapping[str, Any] = {  # traits by name, each of its own type
    "derivation": lambda row: (_derive_softmax if "e" in row else _derive_entmax)(row),  # α = 1 is softmax
    "jacobian": "dsⱼ = gⱼ (dwⱼ − Σ g·dw / Σ g), gⱼ = wⱼ^(2 − α) where wⱼ > 0",
    "gradient_derivation": lambda row: (_derive_softmax_gradient if "e" in row else _derive_entmax_gradient)(row),
}


@normalizer(
    "sparsemax",
    "max(s − τ, 0) with τ such that Σ = 1",
    why="Scores below the threshold τ get no weight at all, so that the query looks at a few keys only.",
    source="Martins and Astudillo 2016, Alg. 1",
    whole_row_reason=_HAS_THRESHOLD,
    laws=_ALL_LAWS,
    is_distribution=True,
    **_ENTMAX_DERIVATIONS,
)
def sparsemax(scores: Tensor, visible: Tensor | None) -> Tensor:
    """The nearest probability distribution: small scores get a weight of exactly 0."""
    return _entmax_by_bisection(scores, visible, 2.0)  # (b, h, n, m)


@normalizer(
    "entmax15",
    "max(s/2 − τ, 0)² with τ such that Σ = 1",
    why="Scores below the threshold τ get no weight at all, but more keys keep some than with sparsemax.",
    source="Peters et al. 2019, §3 and Alg. 2",
    whole_row_reason=_HAS_THRESHOLD,
    laws=_ALL_LAWS,
    is_distribution=True,
    **_ENTMAX_DERIVATIONS,
)
def entmax15(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Between softmax and sparsemax: entmax with α = 1.5."""
    return _entmax_by_bisection(scores, visible, 1.5)  # (b, h, n, m)


@normalizer(
    "entmax",
    "max((α − 1) s − τ, 0)^(1/(α − 1)) with τ such that Σ = 1",
    why="α chooses between softmax, which gives every key some weight, and sparsemax, which gives most keys none.",
    source="Peters et al. 2019, §3 and Alg. 1",
    whole_row_reason=_HAS_THRESHOLD,
    laws=_ALL_LAWS,
    is_distribution=True,
    option_conflict=lambda o: (
        "alpha between 1 and 1.01 cannot be told from softmax in floating point" if 1 < o["alpha"] < 1.01 else ""
    ),
    **_ENTMAX_DERIVATIONS,
)
def entmax(scores: Tensor, visible: Tensor | None, *, alpha: Annotated[float, Range(low=1, high=64)] = 1.5) -> Tensor:
    """Softmax for α = 1, entmax15 for 1.5, sparsemax for 2; larger values approach hardmax."""
    return softmax(scores, visible) if alpha == 1 else _entmax_by_bisection(scores, visible, alpha)  # (b, h, n, m)


def _entmax_by_bisection(scores: Tensor, visible: Tensor | None, alpha: float) -> Tensor:
    """τ by halving the interval that must hold it, in ratio, until it can be halved no more."""
    import torch

    s = fill_hidden(scores, visible, _MINUS_INFINITY)  # (b, h, n, m)
    top = s.amax(-1, keepdim=True)  # (b, h, n, 1)
    top = top.masked_fill(top == _MINUS_INFINITY, 0)
    s = (s - top) * (alpha - 1)  # the largest is 0, so that τ lies in [−1, 0)
    power = 1 / (alpha - 1)
    record_intermediate("α − 1", s.new_tensor(alpha - 1), "", is_input=True)
    record_intermediate("1/(α − 1)", s.new_tensor(power), "", is_input=True)

    def weights(tau: Tensor) -> Tensor:
        return (s - tau).clamp(min=0) ** power  # (b, h, n, m)

    low = top.new_full(top.shape, -1.0)  # there the largest alone has weight 1: the sum is at least 1
    least = max(float(s.shape[-1]) ** (1 - alpha), torch.finfo(s.dtype).tiny)
    high = top.new_full(top.shape, -least)  # there none exceeds 1/m: the sum is at most 1
    for _ in range(64):
        middle = -(low.abs().sqrt() * high.abs().sqrt())  # (b, h, n, 1): τ may be as near 0 as m^(1 − α)
        enough = weights(middle).sum(-1, keepdim=True) >= 1
        low, high = middle.where(enough, low), high.where(enough, middle)
    if alpha > 2:
        return _entmax_above_least(s, visible, low, alpha, top)
    z = (s.detach() - low).clamp(min=0)  # (b, h, n, m)
    slope = (power * z.where(z > 0, 1) ** (power - 1) * (z > 0)).sum(-1, keepdim=True)  # (b, h, n, 1)
    tau = low + (weights(low).sum(-1, keepdim=True) - 1) / slope.masked_fill(
        slope == 0, 1
    )  # Newton: τ gets its gradient
    w = weights(tau)  # (b, h, n, m)
    total = w.detach().sum(-1, keepdim=True)  # 1 but for rounding, which a large α magnifies
    record_intermediate("τ", tau + (alpha - 1) * top, "bhn1")  # of the scores as they came
    return fill_hidden(w / total.masked_fill(total == 0, 1), visible, 0)  # none of a visible NaN for hidden keys


def _entmax_above_least(s: Tensor, visible: Tensor | None, tau: Tensor, alpha: float, top: Tensor) -> Tensor:
    """The weights by that of the least score above τ: for α > 2 it may lie nearer to τ than floating point tells beside it.

    Args:
        s: (α − 1) times the scores, the largest 0: (b, h, n, m).
        visible: which keys are.
        tau: the largest number at which the weights sum to 1 or more: (b, h, n, 1).
        alpha: above 2.
        top: the largest score: (b, h, n, 1).
    """
    power = 1 / (alpha - 1)
    fixed = s.detach()
    least = fixed.masked_fill(~(fixed > tau), math.inf).amin(-1, keepdim=True)  # (b, h, n, 1)
    above = s - least  # (b, h, n, m)

    def weights(w_least: Tensor) -> Tensor:
        w = (above.detach() + w_least ** (alpha - 1)).clamp(min=0) ** power
        return w_least.where(above == 0, w)  # (b, h, n, m)

    low, high = tau.new_zeros(tau.shape), tau.new_ones(tau.shape)
    for _ in range(64):
        middle = (low + high) / 2  # (b, h, n, 1)
        enough = weights(middle).sum(-1, keepdim=True) >= 1
        low, high = low.where(enough, middle), middle.where(enough, high)
    w = weights(high)  # (b, h, n, m)
    if s.requires_grad:
        z = above + high ** (alpha - 1)  # (b, h, n, m)
        has_weight = z > 0
        z = z.where(has_weight, 1)
        slope = (power * z.detach() ** (power - 1) * has_weight).sum(-1, keepdim=True)  # (b, h, n, 1)
        excess = (z**power * has_weight).sum(-1, keepdim=True) - 1
        moved = (z - excess / slope.masked_fill(slope == 0, 1)).where(has_weight, 1)  # Newton: τ gets its gradient
        followed = moved**power * has_weight  # (b, h, n, m)
        w = followed + (w - followed).detach()
    record_intermediate("τ", least - high ** (alpha - 1) + (alpha - 1) * top, "bhn1")  # of the scores as they came
    total = w.detach().sum(-1, keepdim=True)  # 1 but for rounding
    return fill_hidden(w / total.masked_fill(total == 0, 1), visible, 0)  # none of a visible NaN for hidden keys


@normalizer(
    "relu",
    "max(s, 0)",
    why="Negative scores count as nothing, and positive ones as they are.",
    source="Shen et al. 2023, §3; Wortsman et al. 2023 divide by the number of keys (--temperature)",
    merging=_EACH_KEY_ALONE,
    laws=_ALL_LAWS,
    derivation=derive_per_key(lambda row, cell: (["max(", cell.value_before, ", 0)"],)),
    jacobian="dsⱼ = dwⱼ where sⱼ > 0, else 0",
    gradient_derivation=lambda row: _gradient_per_key(
        row, lambda cell: [cell["dw"]] if cell.value_before.value > 0 else [Number(0.0)]
    ),
)
def relu(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Positive scores as they are, others 0; rows need not sum to 1."""
    return fill_hidden(scores.clamp(min=0), visible, 0)  # (b, h, n, m)


def _derive_topk(row: RowDerivation) -> Iterator[Equation]:
    """Softmax among the largest; the others have none."""
    yield from _derive_softmax(_keep_top_keys(row))
    for cell in row.unhidden_cells:
        if not cell["among"].value:
            yield Equation(cell.label, ([cell.value_after],), f"not among the {row.part.option_value('k')} largest")


def _keep_top_keys(row: RowDerivation) -> RowDerivation:
    """The keys that take part."""

    def select_top(cells: tuple[KeyCell, ...]) -> tuple[KeyCell, ...]:
        return tuple(cell for cell in cells if not cell.is_hidden and cell["among"].value)

    return replace(row, shown_cells=select_top(row.shown_cells), all_cells=select_top(row.all_cells))


@normalizer(
    "topk",
    "softmax over the k largest scores",
    why="Only the k best keys share the weight, so that the others add no noise.",
    source="Gupta et al. 2021, §3",
    whole_row_reason="which scores are the k largest is known once all of them are",
    laws=_ALL_LAWS,
    is_distribution=True,
    derivation=_derive_topk,
    jacobian="dsⱼ = wⱼ (dwⱼ − Σ w·dw) among the k largest, else 0",
    gradient_derivation=lambda row: _derive_softmax_gradient(_keep_top_keys(row)),
)
def topk(scores: Tensor, visible: Tensor | None, *, k: Annotated[int, Range(low=1)]) -> Tensor:
    """Softmax over the k largest scores that a query sees; among equal ones the lower index is kept."""
    return softmax(scores, record_intermediate("among", _top_k_mask(scores, visible, k)))  # (b, h, n, m)


def _derive_hardmax(row: RowDerivation) -> Iterator[Equation]:
    """All to the largest."""
    best = max(
        (cell for cell in row.all_cells if not cell.is_hidden), key=lambda cell: cell.value_after.value, default=None
    )
    if best:
        yield Equation("largest", ([best.value_before],), best.label)
    for cell in row.unhidden_cells:
        yield Equation(cell.label, ([cell.value_after],))


@normalizer(
    "hardmax",
    "1 for the largest score, else 0",
    why="The whole weight goes to the best key.",
    source="ONNX Hardmax; Luong et al. 2015 in TensorFlow Addons",
    whole_row_reason="of equal scores the first of the row counts",
    laws=_ALL_LAWS,
    is_distribution=True,
    derivation=_derive_hardmax,
    jacobian="dsⱼ = 0: a step has no slope",
)
def hardmax(scores: Tensor, visible: Tensor | None) -> Tensor:
    """All weight goes to the largest score that a query sees; among equal ones to the lower index. A visible NaN makes the row NaN."""
    w = _top_k_mask(scores, visible, 1).to(scores.dtype)  # (b, h, n, m)
    has_nan = fill_hidden(scores, visible, 0).isnan().any(-1, keepdim=True)  # (b, h, n, 1)
    return fill_hidden(w.masked_fill(has_nan, math.nan), visible, 0)


def _top_k_mask(scores: Tensor, visible: Tensor | None, k: int) -> Tensor:
    """Whether a key is visible and its score among the k largest of its row; ties, lower index first."""
    order = fill_hidden(scores, visible, _MINUS_INFINITY).sort(dim=-1, descending=True, stable=True)[1]  # (b, h, n, m)
    is_largest = (order < 0).scatter(-1, order[..., :k], True)  # (b, h, n, m)
    return is_largest if visible is None else is_largest & visible


def _derive_sum(row: RowDerivation) -> Iterator[Equation]:
    """The sum, then each score's share of it."""
    yield Equation(
        "sum",
        (
            row.write_sum_over_keys(lambda cell: [cell.value_before], lambda cell: cell.value_before.value),
            [row["total"]],
        ),
    )
    if row["total"].value:
        yield from row.equation_per_key(lambda cell: ([cell.value_before, " / ", row["total"]],))


def _derive_sum_gradient(row: RowDerivation) -> Iterator[Equation]:
    """dsⱼ = (dwⱼ − Σ w·dw) / Σ s"""
    mean = _weighted_gradient_sum(row)
    yield Equation(
        "Σ w·dw",
        (
            row.write_sum_over_keys(
                lambda cell: [cell.value_after, "·", cell["dw"]], lambda cell: cell.value_after.value * cell["dw"].value
            ),
            [mean],
        ),
    )
    yield from _gradient_per_key(
        row, lambda cell: ["(", cell["dw"], " − ", mean, ") / ", row["total"]] if row["total"].value else [Number(0.0)]
    )


@normalizer(
    "sum",
    "s / Σ s, 0 where Σ s = 0",
    why="Each weight is a score's share of the sum of all scores, without exponentials.",
    source="Katharopoulos et al. 2020, §3.1; negative scores give negative weights, with a warning",
    merging=_SHARES_OF_SUM,
    laws=_ALL_LAWS,
    derivation=_derive_sum,
    jacobian="dsⱼ = (dwⱼ − Σ w·dw) / Σ s",
    gradient_derivation=_derive_sum_gradient,
    is_ratio_of_sum=True,
)
def sum_(scores: Tensor, visible: Tensor | None) -> Tensor:
    """Each score's share of the row's sum."""
    return fill_hidden(_divide_by_sum(*_weigh_shares(scores, visible)), visible, 0)  # (b, h, n, m)


@normalizer(
    "none",
    "s",
    why="The scores themselves are the weights.",
    source="Schlag et al. 2021, §3.2 (unnormalised linear attention)",
    merging=_EACH_KEY_ALONE,
    laws=_ALL_LAWS,
    derivation=derive_per_key(lambda row, cell: ()),
    jacobian="dsⱼ = dwⱼ",
    gradient_derivation=lambda row: _gradient_per_key(row, lambda cell: [cell["dw"]]),
)
def none(scores: Tensor, visible: Tensor | None) -> Tensor:
    """The scores themselves."""
    return fill_hidden(scores, visible, 0)  # (b, h, n, m)
