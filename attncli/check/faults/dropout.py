"""Dropout that was left on, seen in the weights that are claimed; or that is not applied, or not rescaled, where it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from attncli.check.claims import step_shape, to_step_array
from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import with_mixed_weights, with_normalizer
from attncli.check.trials import StepArrays, Trials
from attncli.plan import Plan
from attncli.types import NumpyArray
from attncli.variant import Variant

_MIN_TELLING_ZEROS = 3
_MIN_SEEN_WEIGHT = 1e-6  # a smaller one may be 0 in a narrow dtype
_DIGITS_PER_ZERO = 0.35  # of evidence, that one weight is worth which is 0 or not


@fault
def dropout_left_on(trials: Trials) -> Iterator[Hypothesis]:
    """There are zeros among the weights that are claimed, where the reference has none."""
    claim = next((c for c in trials.claims if c.step == "weights" and c.is_whole_step), None)
    if claim is None:
        return
    claimed = to_step_array(claim, step_shape(trials.plan, "weights"))
    reference = trials.compute_steps(trials.plan)["weights"]
    # what is printed as 0 because it is small was not dropped
    is_seen = reference > max(_MIN_SEEN_WEIGHT, 0.0 if claim.decimals is None else 10.0 ** -float(claim.decimals.min()))
    dropped = (claimed == 0) & is_seen
    kept = (claimed != 0) & is_seen
    if not (dropped.any() and kept.any()):
        return
    if _has_shape(dropped, is_seen):
        return  # rows, columns or tiles that are missing are no chance
    largest_dropped, smallest_kept = float(np.abs(reference[dropped]).max()), float(np.abs(reference[kept]).min())
    if largest_dropped < smallest_kept:
        yield Hypothesis(
            "small weights set to 0",
            f"with the {int(dropped.sum())} smallest weights, up to {largest_dropped:.2g}, set to 0 and the others as they were",
            partial(_drop_weights, trials, ~dropped, 1.0),
            0,
            evidence_cost=_DIGITS_PER_ZERO,
        )
        return
    p = _estimate_probability(float(np.median(claimed[kept] / reference[kept])))
    cost = _DIGITS_PER_ZERO * float((reference != 0).sum()) / 2
    zeros = f"{int(dropped.sum())} weights are 0 and the others"
    if 0.005 < p < 0.995:
        yield Hypothesis(
            "dropout left on",
            f"with dropout left on: {zeros} divided by 1 − p, p = {p:.2g}; switch it off, as eval() does",
            partial(_drop_weights, trials, ~dropped, 1 / (1 - p)),
            0,
            evidence_cost=cost,
        )
    yield Hypothesis(
        "dropout left on",
        f"with dropout left on, and not rescaled: {zeros} as they were",
        partial(_drop_weights, trials, ~dropped, 1.0),
        0,
        evidence_cost=cost,
    )


def _has_shape(dropped: NumpyArray, may_be_dropped: NumpyArray) -> bool:
    """Tell whether zeros fill rows, columns or a rectangle of each matrix: what some rows and some columns have in common."""
    if dropped.sum() < _MIN_TELLING_ZEROS:
        return True  # so few may be anything
    rows, columns = dropped.any(-1, keepdims=True), dropped.any(-2, keepdims=True)
    return bool((dropped == (rows & columns & may_be_dropped)).all())


def _estimate_probability(ratio: float) -> float:
    """Estimate the probability p of dropout from the ratio 1 / (1 − p) of the kept weights, rounded to two decimals if near."""
    p = 1 - 1 / ratio if ratio > 0 else 0.0
    return round(p, 2) if abs(p - round(p, 2)) < 2e-3 else p


def _drop_weights(trials: Trials, kept: NumpyArray, factor: float) -> Plan:
    """Make the plan whose weights are 0 where they were dropped, and multiplied by a factor elsewhere."""
    import torch

    mask = torch.as_tensor(kept)
    if trials.plan.size.batch is None:
        mask = mask[None]
    if not trials.plan.shapes.has_head_axis:
        mask = mask[:, None]  # (b, h, n, m)
    return with_normalizer(
        trials.plan, lambda normalizer, s, visible: normalizer(s, visible) * mask.to(s.dtype) * factor
    )


@fault
def dropout_left_off(trials: Trials) -> Iterator[Hypothesis]:
    """The variant has dropout, and the figures have none or only half of it."""
    dropout = trials.plan.variant.dropout
    if dropout.is_none:
        return
    yield Hypothesis(
        "dropout not applied", "without dropout", partial(trials.with_choices, dropout=Variant().dropout), 0
    )
    keep_probability = 1 - dropout.option_value("p")
    yield Hypothesis(
        "dropout not rescaled",
        f"with dropout not divided by 1 − p = {keep_probability:.4g}",
        partial(_compute_without_rescaling, trials, keep_probability),
        0,
    )


def _compute_without_rescaling(trials: Trials, keep_probability: float) -> StepArrays | None:
    plan = with_mixed_weights(trials.plan, lambda w: w * keep_probability)
    if plan is None:
        return None
    figures = trials.compute_steps(plan)
    if "dropout_weights" in figures:
        figures["dropout_weights"] = figures["dropout_weights"] * keep_probability
    return figures
