"""Weights of a kernel that goes through the keys block by block, with one mistake in it.

Each function takes scores, (b, h, n, m) with −∞ where hidden, and returns the weights that follow from the running sum,
and those that meet the values. Entry: `ONLINE_MISTAKES`, `MERGE_MISTAKES`, and the functions for single blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from attncli.check.plan_edits import divide_where_nonzero
from attncli.check.score_rows import WeightPair
from attncli.types import Tensor

Weigh: TypeAlias = Callable[[Tensor], WeightPair]
BlockWeigh: TypeAlias = Callable[[Tensor, int], WeightPair]


def softmax_of(s: Tensor, extra: Tensor | float = 0.0) -> Tensor:
    """Softmax over keys, a row without one being 0, with something added to the sum of e^(s − max)."""
    e = exponentials(s)
    return divide_where_nonzero(e, e.sum(-1, keepdim=True) + extra)


def exponentials(s: Tensor) -> Tensor:
    """Compute e^(s − max) of each row; 0 in a row without a key."""
    return (s - _finite_max(s)).exp()


def _finite_max(s: Tensor) -> Tensor:
    largest = s.amax(-1, keepdim=True)
    return largest.masked_fill(largest == -math.inf, 0)


def _as_pair(w: Tensor) -> WeightPair:
    return w, w


# ── some blocks ──────────────────────────────────────────────────────────────────────────────────
def without_keys(s: Tensor, start: int, stop: int, step: int = 1) -> WeightPair:
    """Leave out a range of keys."""
    s = s.clone()
    s[..., start:stop:step] = -math.inf
    return _as_pair(softmax_of(s))


def keys_twice(s: Tensor, start: int, stop: int, step: int = 1, times: float = 2.0) -> WeightPair:
    """Count a range of keys several times."""
    s = s.clone()
    s[..., start:stop:step] += math.log(times)
    return _as_pair(softmax_of(s))


def padding_counted(s: Tensor, count: int) -> WeightPair:
    """Count so many keys of score 0 and value 0."""
    return _as_pair(softmax_of(s, count * (-_finite_max(s)).exp()))


def keys_of_block_before(s: Tensor, block: int, start: int, stop: int) -> WeightPair:
    """Score the keys of the block before in the place of a range of keys, which are hidden as they were."""
    stale = s.clone()
    own = s[..., start:stop]
    stale[..., start:stop] = s[..., start - block : stop - block].masked_fill(own == -math.inf, -math.inf)
    return _as_pair(softmax_of(stale))


def values_of_block_before(s: Tensor, block: int, start: int, stop: int) -> WeightPair:
    """Take the values of the block before in the place of those of a range of keys."""
    w = softmax_of(s)
    met = w.clone()
    met[..., start:stop] = 0
    met[..., start - block : stop - block] += w[..., start:stop]
    return w, met


def _exp(x: Tensor) -> Tensor:
    return x.exp()


def _ones(x: Tensor) -> Tensor:
    return x * 0 + 1


def _exp_of_negative(x: Tensor) -> Tensor:
    return (-x).exp()


def _exp_of_twice(x: Tensor) -> Tensor:
    return (2 * x).exp()


def _exp2(x: Tensor) -> Tensor:
    return x.exp2()


# ── the running maximum, sum and context ─────────────────────────────────────────────────────────
def _weigh_block_by_block(
    s: Tensor,
    block: int,
    *,
    acc: Callable[[Tensor], Tensor] = _exp,
    total: Callable[[Tensor], Tensor] = _exp,
    own_max: bool = False,
    keep_acc: bool = True,
    keep_total: bool = True,
    divide_each: bool = False,
) -> WeightPair:
    """Go through blocks of keys with a running maximum, as an online softmax does.

    Args:
        s: scores.
        block: keys in a block.
        acc: the factor by which the context so far is rescaled, of (old maximum − new maximum).
        total: the same of the sum.
        own_max: exponentials are relative to the block's own maximum, not to the running one.
        keep_acc: what there is so far is kept when a block is added.
        keep_total: the same of the sum.
        divide_each: the context is divided by the sum after each block, and not at the end.
    """
    import torch

    running = torch.full_like(s[..., :1], -math.inf)
    sums = torch.zeros_like(running)
    numerators: list[Tensor] = []
    factors: list[Tensor] = []  # by which each block multiplies the context before it
    divisors: list[Tensor] = []
    for start in range(0, s.shape[-1], block):
        s_block = s[..., start : start + block]
        block_max = s_block.amax(-1, keepdim=True)
        new = torch.maximum(running, block_max)
        has_key, had_key = new > -math.inf, running > -math.inf
        moved = torch.where(had_key, running - torch.where(has_key, new, 0.0), 0.0)
        base = torch.where(block_max > -math.inf, block_max, 0.0) if own_max else torch.where(has_key, new, 0.0)
        p = (s_block - base).exp()
        sums = (sums * total(moved) if keep_total else 0) + p.sum(-1, keepdim=True)
        numerators.append(p)
        factors.append(acc(moved) if keep_acc else torch.zeros_like(moved))
        divisors.append(sums.masked_fill(sums == 0, 1) if divide_each else torch.ones_like(sums))
        running = new
    after = torch.ones_like(running)  # the product of what the later blocks multiply by
    for i in reversed(range(len(numerators))):
        after = after / divisors[i]
        numerators[i] = torch.where(numerators[i] == 0, 0.0, numerators[i] * after)
        after = after * factors[i]
    parts = torch.cat(numerators, -1)
    divided = divide_where_nonzero(exponentials(s), sums)
    return divided, parts if divide_each else divide_where_nonzero(parts, sums)


def _online_softmax(**mistake: object) -> BlockWeigh:
    return lambda s, block: _weigh_block_by_block(s, block, **mistake)  # type: ignore[arg-type]


_RESCALINGS = {
    "not rescaled": (_ones, "not multiplied by e^(old maximum − new maximum)"),
    "rescaled inversely": (_exp_of_negative, "multiplied by e^(new maximum − old maximum), the inverse"),
    "rescaled twice": (_exp_of_twice, "multiplied by e^(old maximum − new maximum) twice"),
    "rescaled in base 2": (
        _exp2,
        "multiplied by 2^(old maximum − new maximum): use exp, or scores × log₂ e throughout",
    ),
}
_RESCALED = {
    "sum and context": ("the sum and the context so far are", ("acc", "total")),
    "context": ("the context so far is", ("acc",)),
    "sum": ("the sum so far is", ("total",)),
}
# name → what is said after “with blocks of B keys, where”, and the weights
ONLINE_MISTAKES: dict[str, tuple[str, BlockWeigh]] = {
    f"{what} {how}": (f"{start} {text} when the maximum grows", _online_softmax(**dict.fromkeys(arguments, factor)))
    for how, (factor, text) in _RESCALINGS.items()
    for what, (start, arguments) in _RESCALED.items()
} | {
    "each block's own maximum": (
        "each block's exponentials are relative to its own maximum, and nothing is rescaled: use the running maximum",
        _online_softmax(own_max=True, acc=_ones, total=_ones),
    ),
    "each block's own maximum, rescaled": (
        "each block's exponentials are relative to its own maximum, not to the running one",
        _online_softmax(own_max=True),
    ),
    "sum overwritten": ("the sum is overwritten by each block, not added to", _online_softmax(keep_total=False)),
    "context overwritten": ("the context is overwritten by each block, not added to", _online_softmax(keep_acc=False)),
    "sum and context overwritten": (
        "sum and context are overwritten by each block: only the last one counts",
        _online_softmax(keep_total=False, keep_acc=False),
    ),
    "context divided after each block": (
        "the context is divided by the sum after each block: divide once, at the end",
        _online_softmax(divide_each=True),
    ),
}


# ── parts that are computed apart, and merged ────────────────────────────────────────────────────
def _merge_parts(
    s: Tensor, block: int, weight: Callable[[Tensor, Tensor, int], Tensor], *, divide: bool = True
) -> WeightPair:
    """Normalise each part of the keys by itself, and merge: weight(maximum, sum of e^(s − maximum), keys) of each part."""
    import torch

    parts, weights = [], []
    for start in range(0, s.shape[-1], block):
        s_part = s[..., start : start + block]
        parts.append(softmax_of(s_part))
        largest = s_part.amax(-1, keepdim=True)
        weights.append(weight(largest, exponentials(s_part).sum(-1, keepdim=True), s_part.shape[-1]))
    total = sum(weights[1:], weights[0]) if divide else torch.ones_like(weights[0])
    merged = torch.cat([divide_where_nonzero(p * w, total) for p, w in zip(parts, weights, strict=True)], -1)
    return softmax_of(s), merged


def _log_sum_exp_itself(m: Tensor, total: Tensor, _: int) -> Tensor:
    return (m + total.log()).masked_fill(m == -math.inf, 0)


def _merged_by(weight: Callable[[Tensor, Tensor, int], Tensor], *, divide: bool = True) -> BlockWeigh:
    return lambda s, block: _merge_parts(s, block, weight, divide=divide)


# name → how the parts' contexts are said to be merged, and the weights
MERGE_MISTAKES: dict[str, tuple[str, BlockWeigh]] = {
    "averaged": ("by their mean", _merged_by(lambda m, total, _: (m == m) * 1.0)),
    "averaged where something is seen": (
        "by the mean of those that see a key",
        _merged_by(lambda m, total, _: (total > 0) * 1.0),
    ),
    "summed": ("by their sum", _merged_by(lambda m, total, _: (total > 0) * 1.0, divide=False)),
    "by their sums": ("by their sums of e^(s − maximum), without the maxima", _merged_by(lambda m, total, _: total)),
    "by their maxima": ("by e^maximum, without the sums", _merged_by(lambda m, total, _: m.exp())),
    "by their lengths": ("by how many keys each has", _merged_by(lambda m, total, keys: (m == m) * float(keys))),
    "in base 2": ("by 2^log-sum-exp, not e^log-sum-exp", _merged_by(lambda m, total, _: (m + total.log()).exp2())),
    "by their log-sum-exp": ("by their log-sum-exp itself, not e^log-sum-exp", _merged_by(_log_sum_exp_itself)),
}
