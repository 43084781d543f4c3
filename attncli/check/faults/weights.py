"""What is done with the weights: they meet v the wrong way, the embeddings are added, statistics are in other units."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from attncli.check.faults.base import Hypothesis, StepArrays, fault
from attncli.check.plan_edits import divide_where_nonzero, with_head_context, with_mixed_weights, with_normalizer
from attncli.check.trials import Trials
from attncli.plan import Plan
from attncli.registry import AnyPart
from attncli.types import NumpyArray, Tensor


@fault
def weights_misapplied(trials: Trials) -> Iterator[Hypothesis]:
    """The weights meet v the wrong way."""
    plan = trials.plan
    if plan.shapes.c is None:
        return
    if plan.size.queries == plan.size.keys:
        says = "with the weights transposed where they meet v: context = weights · v, not weightsᵀ · v"
        yield Hypothesis("weights transposed", says, lambda: with_mixed_weights(plan, lambda w: w.mT), 0)
    says = "with the values weighted by the scores, not by the weights"
    yield Hypothesis("values weighted by scores", says, partial(_weight_values_by_scores, plan), 0)
    if plan.shapes.heads > 1 and plan.variant.head_mixing.is_none:
        says = "with the weights averaged over heads before they meet v"
        yield Hypothesis(
            "weights averaged over heads",
            says,
            lambda: with_mixed_weights(plan, lambda w: w.mean(1, keepdim=True).expand(w.shape)),
        )
    if not plan.variant.sink.is_none:
        says = "with the weights brought to sum 1 again after the sink was taken off"
        yield Hypothesis(
            "sink renormalised away",
            says,
            partial(with_normalizer, plan, partial(_renormalize_over_keys, plan.size.keys)),
        )


def _weight_values_by_scores(plan: Plan) -> Plan | None:
    held: dict[str, Tensor] = {}

    def keep(own: AnyPart, s: Tensor, seen: Tensor) -> Tensor:
        held["s"] = s.masked_fill(~seen, 0)
        return own(s, seen)

    return with_mixed_weights(with_normalizer(plan, keep), lambda w: held["s"][..., : w.shape[-1]])


def _renormalize_over_keys(key_count: int, normalizer: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
    w = normalizer(s, visible)
    return divide_where_nonzero(w, w[..., :key_count].sum(-1, keepdim=True))


@fault
def residual_added(trials: Trials) -> Iterator[Hypothesis]:
    """The embeddings added, as a layer around attention does."""
    plan, x = trials.plan, trials.plan.problem.embeddings
    if plan.shapes.c is None or x is None:
        return

    def added() -> StepArrays:
        out = trials.compute_steps(plan)
        for step in ("context", "output"):
            if step in out and out[step].shape == x.shape and (step == "output" or "output" not in plan.steps):
                out[step] = out[step] + np.asarray(x)
        return out

    yield Hypothesis("residual added", "with the embeddings added (a residual connection)", added)
    if "output" in plan.steps:

        def inside(z: Tensor, *_: object) -> Tensor:
            import torch

            beside = torch.as_tensor(np.array(x, np.float64)).unflatten(-1, (z.shape[1], -1))  # ([b] n, h, c)
            return z + (beside if beside.dim() == 4 else beside[None]).transpose(1, 2)

        says = "with the embeddings added to the context (a residual connection)"
        yield Hypothesis("residual added to the context", says, lambda: with_head_context(plan, inside))


@fault
def wrong_row_statistics(trials: Trials) -> Iterator[Hypothesis]:
    """Row statistics in other units, or half done."""
    units = {
        "log_sum_exp": {"base 2": 1 / math.log(2), "base 10": 1 / math.log(10)},
        "entropy": {"nats": math.log(2), "base 10": math.log10(2)},
    }
    for step, factors in units.items():
        if step not in trials.claimed_steps:
            continue
        said = "in bits" if step == "entropy" else "the natural logarithm"
        for name, factor in factors.items():
            scaled = partial(_change_step, trials, step, partial(np.multiply, factor))
            yield Hypothesis(f"{step} in {name}", f"with {step} in {name}: it is {said}", scaled, 0)
    if "log_sum_exp" in trials.claimed_steps:
        says = "without the largest score added again after it was subtracted"
        yield Hypothesis("log_sum_exp without the largest", says, partial(_log_sum_exp_without_max, trials), 0)
        bare = partial(_change_step, trials, "log_sum_exp", np.exp)
        yield Hypothesis("sum of exponentials without the logarithm", "without the logarithm", bare)
    if "entropy" in trials.claimed_steps:
        turned = partial(_change_step, trials, "entropy", np.negative)
        yield Hypothesis("entropy with the wrong sign", "with the sign of the entropy turned", turned)


def _change_step(trials: Trials, step: str, change: Callable[[NumpyArray], NumpyArray]) -> StepArrays:
    """The figures with those of one step changed."""
    out = trials.compute_steps(trials.plan)
    return {**out, step: change(out[step])}


def _log_sum_exp_without_max(trials: Trials) -> StepArrays:
    out = trials.compute_steps(dataclasses.replace(trials.plan, keep=trials.plan.keep | {"max_score"}))
    return {**out, "log_sum_exp": out["log_sum_exp"] - out["max_score"]}
