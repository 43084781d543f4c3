"""Dropout left on, seen in the weights that are claimed; or not applied, or not rescaled, where it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from attncli.check.claims import step_shape, to_step_array
from attncli.check.faults.base import Hypothesis, StepArrays, fault
from attncli.check.plan_edits import with_mixed_weights, with_normalizer
from attncli.check.trials import Trials
from attncli.plan import Plan
from attncli.types import NumpyArray
from attncli.variant import Variant


@fault
def dropout_left_on(trials: Trials) -> Iterator[Hypothesis]:
    """Zeros among the weights that are claimed, where the reference has none."""
    claim = next((c for c in trials.claims if c.step == "weights" and c.is_whole_step), None)
    if claim is None:
        return
    mine = to_step_array(claim, step_shape(trials.plan, "weights"))
    right = trials.compute_steps(trials.plan)["weights"]
    gone = (mine == 0) & (right != 0)
    kept = (mine != 0) & (right != 0)
    if not (gone.any() and kept.any()):
        return
    ratio = float(np.median(mine[kept] / right[kept]))
    p = 1 - 1 / ratio if ratio > 0 else 0.0
    p = round(p, 2) if abs(p - round(p, 2)) < 2e-3 else p
    cost = 0.35 * float((right != 0).sum()) / 2
    zeros = f"{int(gone.sum())} weights are 0 and the others"
    if 0.005 < p < 0.995:
        says = f"with dropout left on: {zeros} divided by 1 − p, p = {p:.2g}; switch it off, as eval() does"
        yield Hypothesis(
            "dropout left on", says, partial(_drop_weights, trials, ~gone, 1 / (1 - p)), 0, evidence_cost=cost
        )
    says = f"with dropout left on, and not rescaled: {zeros} as they were"
    yield Hypothesis("dropout left on", says, partial(_drop_weights, trials, ~gone, 1.0), 0, evidence_cost=cost)


def _drop_weights(trials: Trials, kept: NumpyArray, factor: float) -> Plan:
    import torch

    mask = torch.as_tensor(kept)
    if trials.plan.size.batch is None:
        mask = mask[None]
    if not trials.plan.shapes.has_head_axis:
        mask = mask[:, None]  # (b, h, n, m)
    return with_normalizer(trials.plan, lambda own, s, seen: own(s, seen) * mask.to(s.dtype) * factor)


@fault
def dropout_left_off(trials: Trials) -> Iterator[Hypothesis]:
    """Dropout that the variant has, and the figures have not or only half."""
    own = trials.plan.variant.dropout
    if own.is_none:
        return
    yield Hypothesis(
        "dropout not applied", "without dropout", partial(trials.with_choices, dropout=Variant().dropout), 0
    )
    rest = 1 - own.option_value("p")
    says = f"with dropout not divided by 1 − p = {rest:.4g}"
    yield Hypothesis("dropout not rescaled", says, partial(_without_rescaling, trials, rest), 0)


def _without_rescaling(trials: Trials, keep_probability: float) -> StepArrays | None:
    made = with_mixed_weights(trials.plan, lambda w: w * keep_probability)
    if made is None:
        return None
    out = trials.compute_steps(made)
    if "dropout_weights" in out:
        out["dropout_weights"] = out["dropout_weights"] * keep_probability
    return out
