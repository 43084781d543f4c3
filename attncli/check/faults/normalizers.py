"""Scores that are not normalised row by row: over another axis, twice, in another base, not at all, or divided by something else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import Replacement, divide_where_nonzero, equal_weights, subtract_row_max, with_normalizer
from attncli.check.trials import Trials
from attncli.registry import AnyPart
from attncli.types import Tensor


def _normalizer_hypothesis(
    trials: Trials,
    name: str,
    description: str,
    replacement: Replacement,
    implausibility: int = 1,
    *,
    explains_constant: bool = False,
) -> Hypothesis:
    """Make a hypothesis of another normaliser: replacement(normaliser of the plan, scores, visible)."""
    return Hypothesis(
        name,
        description,
        partial(with_normalizer, trials.plan, replacement),
        implausibility,
        explains_constant=explains_constant,
    )


# ── over another axis ────────────────────────────────────────────────────────────────────────────
@fault
def normalized_over_wrong_axis(trials: Trials) -> Iterator[Hypothesis]:
    """The scores are normalised over another axis than the keys, or over several."""
    plan, name = trials.plan, trials.plan.variant.normalizer.name
    if not plan.variant.sink.is_none:
        return
    axes = {"the queries (columns sum to 1)": -2}
    if plan.shapes.heads > 1:
        axes["the heads"] = 1
    if (plan.size.batch or 1) > 1:
        axes["the batch"] = 0
    for axis_text, axis in axes.items():
        description = f"with {name} over {axis_text} instead of the keys: normalise each row, over the last axis"
        over_axis = _normalizer_hypothesis(
            trials, f"{name} over {axis_text.partition(' (')[0]}", description, _normalize_over_axis(axis), 0
        )
        yield dataclasses.replace(over_axis, mixes_queries=axis == -2)
    description = f"with {name} over all cells of a head together: normalise each row by itself"
    over_all = _normalizer_hypothesis(trials, f"{name} over all cells", description, _normalize_over_all_cells)
    yield dataclasses.replace(over_all, mixes_queries=True)


@fault
def sum_of_own_chunk(trials: Trials) -> Iterator[Hypothesis]:
    """The sum of each row is of the newest chunk of keys, as where linear attention carries its values on but not its sum."""
    plan = trials.plan
    if plan.variant.normalizer.name != "sum":
        return
    for size in (2, 4, 8, 16, 32, 64, 128, 256):
        if size < plan.size.keys:
            yield _normalizer_hypothesis(
                trials,
                f"sum over chunks of {size}",
                f"with each row divided by the sum over the newest chunk of {size} keys: the sum of the chunks before belongs to it",
                partial(_divide_by_chunk, size),
            )


def _divide_by_chunk(size: int, _: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
    import torch

    s, indices = s.masked_fill(~visible, 0), torch.arange(s.shape[-1])
    newest = indices.where(visible, -1).amax(-1, keepdim=True)
    return divide_where_nonzero(s, s.where(indices >= newest // size * size, 0).sum(-1, keepdim=True))


def _normalize_over_axis(axis: int) -> Replacement:
    def normalize(normalizer: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
        visible = visible.expand(s.shape)
        return normalizer(s.movedim(axis, -1), visible.movedim(axis, -1)).movedim(-1, axis)

    return normalize


def _normalize_over_all_cells(normalizer: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
    return normalizer(s.flatten(-2), visible.expand(s.shape).flatten(-2)).unflatten(-1, s.shape[-2:])


@fault
def normalized_twice(trials: Trials) -> Iterator[Hypothesis]:
    """The weights are normalised once more."""
    name = trials.plan.variant.normalizer.name
    description = f"with {name} applied twice"
    yield _normalizer_hypothesis(
        trials,
        f"{name} applied twice",
        description,
        lambda normalizer, s, visible: normalizer(normalizer(s, visible), visible),
    )
    if trials.plan.is_masked:
        yield _normalizer_hypothesis(
            trials,
            f"{name} applied twice, the second unmasked",
            f"{description}, the second time over hidden keys too",
            lambda normalizer, s, visible: normalizer(normalizer(s, visible), visible | True),
        )


# ── not by exponentials ──────────────────────────────────────────────────────────────────────────
@fault
def uniform_weights(trials: Trials) -> Iterator[Hypothesis]:
    """The weights are a mean, or rows of scores of unit length."""
    if not trials.plan.variant.sink.is_none:
        return
    description = "with the same weight on every key that is seen (a mean), whatever the scores are"
    yield _normalizer_hypothesis(trials, "uniform weights", description, equal_weights, 0, explains_constant=True)
    if trials.plan.is_masked:
        yield _normalizer_hypothesis(
            trials,
            "uniform weights over all keys",
            "with the same weight on every key (a mean), hidden or not",
            lambda normalizer, s, visible: equal_weights(normalizer, s, visible | True),
            0,
            explains_constant=True,
        )
    description = f"with each row of scores divided by its length (L2) instead of {trials.plan.variant.normalizer.name}"
    yield _normalizer_hypothesis(trials, "rows divided by their length", description, _divide_by_row_norm)


def _divide_by_row_norm(_: object, s: Tensor, visible: Tensor) -> Tensor:
    s = s.masked_fill(~visible, 0)
    return divide_where_nonzero(s, s.square().sum(-1, keepdim=True).sqrt())


# ── softmax half done ────────────────────────────────────────────────────────────────────────────
@fault
def softmax_half_done(trials: Trials) -> Iterator[Hypothesis]:
    """Softmax has another base, or its exponentials are divided by something else."""
    if not trials.plan.variant.normalizer.traits.is_exponential:
        return
    for base, factor in (("2", math.log(2)), ("10", math.log(10))):
        description = (
            f"with softmax to base {base}, {base}^s instead of e^s: use exp, or multiply the scores by 1/ln {base}"
        )
        yield _normalizer_hypothesis(trials, f"softmax base {base}", description, _scale_scores(factor))
    yield _normalizer_hypothesis(
        trials, "exponentials not divided", "with e^s not divided by their sum", _exponential_weights()
    )
    yield _normalizer_hypothesis(
        trials,
        "exponentials not divided, max subtracted",
        "with e^(s − max) not divided by their sum",
        _exponential_weights(shift=subtract_row_max),
    )
    yield _normalizer_hypothesis(
        trials,
        "divided by the norm",
        "with e^s divided by the root of their squares, not by their sum",
        _exponential_weights(shift=subtract_row_max, divisor=lambda e: e.square().sum(-1, keepdim=True).sqrt()),
    )
    yield _normalizer_hypothesis(
        trials,
        "divided by the number of keys",
        "with e^s divided by the number of keys, not by their sum",
        _exponential_weights(divisor=lambda e: e.shape[-1]),
    )
    yield _normalizer_hypothesis(
        trials,
        "log-softmax",
        "with log-softmax for softmax: the weights are their logarithms",
        lambda normalizer, s, visible: normalizer(s, visible).log(),
    )
    yield _normalizer_hypothesis(
        trials,
        "softmax1 with the 1 added after the largest was subtracted",
        "with 1 added to the denominator after the largest score was subtracted: it should be e^(−max)",
        _softmax_one_after_shift,
    )


def _scale_scores(factor: float) -> Replacement:
    return lambda normalizer, s, visible: normalizer(s * factor, visible)


def _exponential_weights(
    shift: Callable[[Tensor], Tensor] = lambda s: s, divisor: Callable[[Tensor], Tensor | int] = lambda e: 1
) -> Replacement:
    """Return the replacement e^shift(s) / divisor(e) over visible keys."""

    def normalize(_: object, s: Tensor, visible: Tensor) -> Tensor:
        e = shift(s.masked_fill(~visible, -math.inf)).exp()
        return e / divisor(e)

    return normalize


def _softmax_one_after_shift(_: object, s: Tensor, visible: Tensor) -> Tensor:
    s = s.masked_fill(~visible, -math.inf)
    e = (s - s.amax(-1, keepdim=True)).exp()
    return e / (1 + e.sum(-1, keepdim=True))
