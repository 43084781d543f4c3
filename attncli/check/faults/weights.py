"""What is done with the weights: they meet v the wrong way, the embeddings are added, statistics are in other units."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from attncli.check.faults.base import Figures, Suspicion, fault
from attncli.check.plan_edits import contexts, divided, mixed, normalised
from attncli.check.trials import Bench
from attncli.plan import Plan
from attncli.registry import AnyPart
from attncli.types import NumpyArray, Tensor


@fault
def values(b: Bench) -> Iterator[Suspicion]:
    """The weights meet v the wrong way."""
    plan = b.plan
    if plan.shapes.c is None:
        return
    if plan.size.queries == plan.size.keys:
        says = "with the weights transposed where they meet v: context = weights · v, not weightsᵀ · v"
        yield Suspicion("weights transposed", says, lambda: mixed(plan, lambda w: w.mT), 0)
    says = "with the values weighted by the scores, not by the weights"
    yield Suspicion("values weighted by scores", says, partial(_weighted_by_scores, plan), 0)
    if plan.shapes.heads > 1 and plan.variant.head_mixing.is_none:
        says = "with the weights averaged over heads before they meet v"
        yield Suspicion(
            "weights averaged over heads", says, lambda: mixed(plan, lambda w: w.mean(1, keepdim=True).expand(w.shape))
        )
    if not plan.variant.sink.is_none:
        says = "with the weights brought to sum 1 again after the sink was taken off"
        yield Suspicion("sink renormalised away", says, partial(normalised, plan, partial(_summing, plan.size.keys)))


def _weighted_by_scores(plan: Plan) -> Plan | None:
    held: dict[str, Tensor] = {}

    def keep(own: AnyPart, s: Tensor, seen: Tensor) -> Tensor:
        held["s"] = s.masked_fill(~seen, 0)
        return own(s, seen)

    return mixed(normalised(plan, keep), lambda w: held["s"][..., : w.shape[-1]])


def _summing(keys: int, own: AnyPart, s: Tensor, seen: Tensor) -> Tensor:
    w = own(s, seen)
    return divided(w, w[..., :keys].sum(-1, keepdim=True))


@fault
def residual(b: Bench) -> Iterator[Suspicion]:
    """The embeddings added, as a layer around attention does."""
    plan, x = b.plan, b.plan.problem.embeddings
    if plan.shapes.c is None or x is None:
        return

    def added() -> Figures:
        out = b.figures(plan)
        for step in ("context", "output"):
            if step in out and out[step].shape == x.shape and (step == "output" or "output" not in plan.steps):
                out[step] = out[step] + np.asarray(x)
        return out

    yield Suspicion("residual added", "with the embeddings added (a residual connection)", added)
    if "output" in plan.steps:

        def inside(z: Tensor, *_: object) -> Tensor:
            import torch

            beside = torch.as_tensor(np.array(x, np.float64)).unflatten(-1, (z.shape[1], -1))  # ([b] n, h, c)
            return z + (beside if beside.dim() == 4 else beside[None]).transpose(1, 2)

        says = "with the embeddings added to the context (a residual connection)"
        yield Suspicion("residual added to the context", says, lambda: contexts(plan, inside))


@fault
def statistics(b: Bench) -> Iterator[Suspicion]:
    """Row statistics in other units, or half done."""
    units = {
        "log_sum_exp": {"base 2": 1 / math.log(2), "base 10": 1 / math.log(10)},
        "entropy": {"nats": math.log(2), "base 10": math.log10(2)},
    }
    for step, factors in units.items():
        if step not in b.claimed:
            continue
        said = "in bits" if step == "entropy" else "the natural logarithm"
        for name, factor in factors.items():
            scaled = partial(_moved, b, step, partial(np.multiply, factor))
            yield Suspicion(f"{step} in {name}", f"with {step} in {name}: it is {said}", scaled, 0)
    if "log_sum_exp" in b.claimed:
        says = "without the largest score added again after it was subtracted"
        yield Suspicion("log_sum_exp without the largest", says, partial(_unshifted, b), 0)
        bare = partial(_moved, b, "log_sum_exp", np.exp)
        yield Suspicion("sum of exponentials without the logarithm", "without the logarithm", bare)
    if "entropy" in b.claimed:
        turned = partial(_moved, b, "entropy", np.negative)
        yield Suspicion("entropy with the wrong sign", "with the sign of the entropy turned", turned)


def _moved(b: Bench, step: str, run: Callable[[NumpyArray], NumpyArray]) -> Figures:
    """The figures with those of one step changed."""
    out = b.figures(b.plan)
    return {**out, step: run(out[step])}


def _unshifted(b: Bench) -> Figures:
    out = b.figures(dataclasses.replace(b.plan, keep=b.plan.keep | {"max_score"}))
    return {**out, "log_sum_exp": out["log_sum_exp"] - out["max_score"]}
