"""Digits or bits that are lost on the way: intermediates rounded by hand, inputs stored and arithmetic done in a narrow dtype."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import (
    divide_where_nonzero,
    subtract_row_max,
    with_head_context,
    with_normalizer,
    with_score,
)
from attncli.check.trials import Trials
from attncli.plan import Plan
from attncli.plan.chain import Link
from attncli.types import Grid, Json, NumpyArray, Tensor

RoundingFunction = Callable[[Tensor], Tensor]


# ── digits ───────────────────────────────────────────────────────────────────────────────────────
_ROUNDED_INTERMEDIATES = {  # the plainest first
    "the weights": ("weights",),
    "q·k": ("scores",),
    "the scaled scores": ("scaled",),
    "the scores": ("scores", "chain"),
    "q, k and v": ("qkv",),
    "the exponentials": ("exponentials",),
    "the exponentials and weights": ("exponentials", "weights"),
    "the scores and weights": ("scores", "chain", "weights"),
    "every intermediate": ("scores", "chain", "exponentials", "weights"),
    "everything": ("qkv", "scores", "chain", "exponentials", "weights", "context"),
    "everything, the largest subtracted": ("qkv", "scores", "chain", "exponentials", "shifted", "weights", "context"),
}


@fault
def rounded_by_hand(trials: Trials) -> Iterator[Hypothesis]:
    """Intermediates rounded to n digits."""
    softmax = trials.plan.variant.normalizer.traits.is_exponential and trials.plan.variant.sink.is_none
    for n in range(1, 7):
        for what, where in _ROUNDED_INTERMEDIATES.items():
            if "exponentials" in where and not softmax:
                continue
            for how, verb, rounding in (
                ("rounded to", "rounded to", _round_to(n)),
                ("cut to", "cut off after", _truncate_at(10.0**n)),
            ):
                yield Hypothesis(
                    f"{what} {how} {n} digit{'s' * (n > 1)}",
                    f"with {what} {verb} {n} decimal{'s' * (n > 1)} on the way: keep all digits until the end",
                    partial(_round_qkv if "qkv" in where else _round_intermediates, trials, rounding, where),
                    3,
                    approximate=True,  # a tie may fall to the other side
                    is_rounding=True,
                )


def _round_to(digits: int) -> RoundingFunction:
    return lambda x: x.round(decimals=digits)


def _truncate_at(factor: float) -> RoundingFunction:
    return lambda x: (x * factor).trunc() / factor


# ── bits ─────────────────────────────────────────────────────────────────────────────────────────
@fault
def low_precision(trials: Trials) -> Iterator[Hypothesis]:
    """Arithmetic of few bits, told by errors that go the same way."""
    for dtype in ("float16", "bfloat16", "float32"):
        narrow = _round_to_dtype(dtype)
        places: dict[str, Callable[[], Plan | None]] = {
            "scores and weights": partial(_round_intermediates, trials, narrow, ("scores", "chain", "weights")),
            "scores": partial(_round_intermediates, trials, narrow, ("scores", "chain")),
            "weights": partial(_round_intermediates, trials, narrow, ("weights",)),
            "inputs": partial(_round_inputs, trials, narrow),
            "all arithmetic": partial(trials.with_choices, dtype=dtype),
            "q, k and v": partial(_round_qkv, trials, narrow),
            "q, k, v, scores and weights": partial(_round_qkv, trials, narrow, ("scores", "chain", "weights")),
            "inputs, scores and weights": partial(
                _round_inputs_and_intermediates, trials, narrow, ("scores", "chain", "weights")
            ),
        }
        if dtype == "float16":
            places["the sum of each score"] = lambda: with_score(trials.plan, _dot_products_in_float16)
        for what, compute in places.items():
            yield Hypothesis(
                f"{dtype} {what}",
                f"with {what} in {dtype}: accumulate in {'float32' if dtype != 'float32' else 'float64'}",
                compute,
                3,
                approximate=True,
                is_rounding=True,
            )


def _round_to_dtype(dtype: str) -> RoundingFunction:
    import torch

    kind = getattr(torch, dtype)
    return lambda x: x.to(kind).to(x.dtype)


def _dot_products_in_float16(_: object, q: Tensor, k: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
    """q·k with every product and sum rounded to float16."""
    q, k = q.half(), k.half()
    total = q.new_zeros(()).half()
    for i in range(q.shape[-1]):
        total = (total + (q[..., :, None, i] * k[..., None, :, i])).half()
    return total.double()


# ── what is rounded ──────────────────────────────────────────────────────────────────────────────
def _run_link_rounded(link: Link, rounding: RoundingFunction, scores: Tensor, grid: Grid) -> Tensor:
    """What a link makes of the scores, rounded."""
    return rounding(link.run(scores, grid))


def _round_intermediates(trials: Trials, rounding: RoundingFunction, intermediates: tuple[str, ...]) -> Plan:
    """The plan with some intermediates rounded."""
    plan = trials.plan
    if "scores" in intermediates:
        plan = with_score(plan, lambda own, q, k, learned: rounding(own(q, k, learned)))
    if ("chain" in intermediates or "scaled" in intermediates) and plan.chain:
        links = [
            dataclasses.replace(link, run=partial(_run_link_rounded, link, rounding))
            if "chain" in intermediates or link.is_scale
            else link
            for link in plan.chain
        ]
        plan = dataclasses.replace(plan, chain=tuple(links))
    if "exponentials" in intermediates:

        def run(_: object, s: Tensor, seen: Tensor) -> Tensor:
            s = s.masked_fill(~seen, -math.inf)
            e = rounding((subtract_row_max(s) if "shifted" in intermediates else s).exp())
            w = divide_where_nonzero(e, rounding(e.sum(-1, keepdim=True))).masked_fill(~seen, 0)
            return rounding(w) if "weights" in intermediates else w

        plan = with_normalizer(plan, run)
    elif "weights" in intermediates:
        plan = with_normalizer(plan, lambda own, s, seen: rounding(own(s, seen)))
    if "context" in intermediates and plan.shapes.c is not None:
        plan = with_head_context(plan, lambda z, *_: rounding(z)) or plan
    return plan


def _round_qkv(trials: Trials, rounding: RoundingFunction, intermediates: tuple[str, ...] = ()) -> Plan | None:
    """q, k and v rounded, and other intermediates with them."""
    base = trials.projected_plan
    if base is None:
        return None
    arrays = {x: getattr(base.problem, x) for x in "qkv" if getattr(base.problem, x) is not None}
    made = trials.with_qkv(**{x: _round_array(rounding, y) for x, y in arrays.items()})
    return made and _round_intermediates(Trials(made, trials.top), rounding, intermediates)


def _round_inputs_and_intermediates(trials: Trials, rounding: RoundingFunction, intermediates: tuple[str, ...]) -> Plan:
    """Inputs rounded, and other intermediates with them."""
    return _round_intermediates(Trials(_round_inputs(trials, rounding), trials.top), rounding, intermediates)


def _round_inputs(trials: Trials, rounding: RoundingFunction) -> Plan:
    """Every array of the problem rounded."""
    p, each = trials.plan.problem, partial(_round_array, rounding)
    fields: Json = {x: each(getattr(p, x)) for x in ("embeddings", "q", "k", "v", "bias") if getattr(p, x) is not None}
    fields["parameters"] = {k: each(x) for k, x in p.parameters.items()}
    if p.memory:
        fields["memory"] = {**p.memory, "embeddings": each(p.memory["embeddings"])}
    if p.past:
        fields["past"] = {k: x if k == "tokens" else each(x) for k, x in p.past.items()}
    return trials.with_fields(**fields)


def _round_array(rounding: RoundingFunction, values: Tensor) -> NumpyArray:
    import torch

    rounded: NumpyArray = rounding(torch.as_tensor(np.array(values, np.float64))).numpy()
    return rounded
