"""Weights that meet v in a wrong way, embeddings that are added, and row statistics in other units."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import divide_where_nonzero, with_head_context, with_mixed_weights, with_normalizer
from attncli.check.trials import StepArrays, Trials
from attncli.plan import Plan
from attncli.registry import AnyPart
from attncli.types import NumpyArray, Tensor


@fault
def weights_misapplied(trials: Trials) -> Iterator[Hypothesis]:
    """The weights meet v in a wrong way."""
    plan = trials.plan
    if plan.shapes.c is None:
        return
    if plan.size.queries == plan.size.keys:
        yield Hypothesis(
            "weights transposed",
            "with the weights transposed where they meet v: context = weights · v, not weightsᵀ · v",
            lambda: with_mixed_weights(plan, lambda w: w.mT),
            0,
            mixes_queries=True,
        )
    yield Hypothesis(
        "values weighted by scores",
        "with the values weighted by the scores, not by the weights",
        partial(_weight_values_by_scores, plan),
        0,
    )
    if plan.shapes.heads > 1 and plan.variant.head_mixing.is_none:
        yield Hypothesis(
            "weights averaged over heads",
            "with the weights averaged over heads before they meet v",
            lambda: with_mixed_weights(plan, lambda w: w.mean(1, keepdim=True).expand(w.shape)),
        )
    if not plan.variant.sink.is_none:
        yield Hypothesis(
            "sink renormalised away",
            "with the weights normalised again after the sink was removed",
            partial(with_normalizer, plan, partial(_renormalize_over_keys, plan.size.keys)),
        )


def _weight_values_by_scores(plan: Plan) -> Plan | None:
    """Make the plan in which v is weighted by the scores that the normaliser takes."""
    scores: list[Tensor] = []

    def remember_scores(normalizer: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
        scores[:] = [s.masked_fill(~visible, 0)]
        return normalizer(s, visible)

    return with_mixed_weights(with_normalizer(plan, remember_scores), lambda w: scores[0][..., : w.shape[-1]])


def _renormalize_over_keys(key_count: int, normalizer: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
    w = normalizer(s, visible)
    return divide_where_nonzero(w, w[..., :key_count].sum(-1, keepdim=True))


@fault
def residual_added(trials: Trials) -> Iterator[Hypothesis]:
    """The embeddings are added, as a layer around attention does."""
    plan, embeddings = trials.plan, trials.plan.problem.embeddings
    if plan.shapes.c is None or embeddings is None:
        return

    def add_to_result() -> StepArrays:
        figures = trials.compute_steps(plan)
        for step in ("context", "output"):
            is_last = step == "output" or "output" not in plan.steps
            if is_last and step in figures and figures[step].shape == embeddings.shape:
                figures[step] = figures[step] + np.asarray(embeddings)
        return figures

    yield Hypothesis(
        "residual added", "with the embeddings added (a residual connection)", add_to_result, mixes_queries=True
    )
    if "output" in plan.steps:

        def add_to_context(z: Tensor, *_: object) -> Tensor:
            import torch

            x = torch.as_tensor(np.array(embeddings, np.float64)).unflatten(-1, (z.shape[1], -1))  # ([b] n, h, c)
            return z + (x if x.dim() == 4 else x[None]).transpose(1, 2)

        yield Hypothesis(
            "residual added to the context",
            "with the embeddings added to the context (a residual connection)",
            lambda: with_head_context(plan, add_to_context),
            mixes_queries=True,
        )


@fault
def wrong_row_statistics(trials: Trials) -> Iterator[Hypothesis]:
    """Row statistics are in other units, or half done."""
    log_sum_exp_units = {"base 2": 1 / math.log(2), "base 10": 1 / math.log(10)}
    entropy_units = {"nats": math.log(2), "base 10": math.log10(2)}
    for step, right_unit, factors in (
        ("log_sum_exp", "the natural logarithm", log_sum_exp_units),
        ("entropy", "in bits", entropy_units),
    ):
        if step not in trials.claimed_steps:
            continue
        for unit, factor in factors.items():
            yield Hypothesis(
                f"{step} in {unit}",
                f"with {step} in {unit}: it is {right_unit}",
                partial(_change_step, trials, step, partial(np.multiply, factor)),
                0,
            )
    if "log_sum_exp" in trials.claimed_steps:
        yield Hypothesis(
            "log_sum_exp without the largest",
            "without the largest score added again after it was subtracted",
            partial(_log_sum_exp_without_max, trials),
            0,
        )
        yield Hypothesis(
            "sum of exponentials without the logarithm",
            "without the logarithm",
            partial(_change_step, trials, "log_sum_exp", np.exp),
        )
    if "entropy" in trials.claimed_steps:
        yield Hypothesis(
            "entropy with the wrong sign",
            "with the sign of the entropy reversed",
            partial(_change_step, trials, "entropy", np.negative),
        )


def _change_step(trials: Trials, step: str, change: Callable[[NumpyArray], NumpyArray]) -> StepArrays:
    """Compute the figures of the plan, and change those of one step."""
    figures = trials.compute_steps(trials.plan)
    return {**figures, step: change(figures[step])}


def _log_sum_exp_without_max(trials: Trials) -> StepArrays:
    figures = trials.compute_steps(dataclasses.replace(trials.plan, keep=trials.plan.keep | {"max_score"}))
    return {**figures, "log_sum_exp": figures["log_sum_exp"] - figures["max_score"]}
