"""Digits or bits that are lost on the way: intermediates rounded by hand, inputs and arithmetic in a narrow dtype."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import (
    divide_where_nonzero,
    subtract_row_max,
    with_chain,
    with_head_context,
    with_normalizer,
    with_score,
)
from attncli.check.trials import Trials
from attncli.plan import Plan
from attncli.plan.chain import Link
from attncli.types import Array, Grid, Json, NumpyArray, Tensor

RoundingFunction: TypeAlias = Callable[[Tensor], Tensor]
_WHOLE_SLACK = 1 + 1e-13  # what is less than a whole number by a share as small as this is one


# ── rounded by hand ───────────────────────────────────────────────────────────────────────────────────────
_ROUNDED_INTERMEDIATES = {  # in words, and as `rounded_intermediates` calls them; the plainest first
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
    """Intermediates are rounded to n decimals, or cut off after them."""
    has_exponentials = trials.plan.variant.normalizer.traits.is_exponential and trials.plan.variant.sink.is_none
    for n in range(1, 7):
        plural = "s" if n > 1 else ""
        for what, intermediates in _ROUNDED_INTERMEDIATES.items():
            if "exponentials" in intermediates and not has_exponentials:
                continue
            for verb, long_verb, rounding in (
                ("rounded to", "rounded to", _round_to(n)),
                ("cut to", "cut off after", _truncate_at(10.0**n)),
            ):
                round_them = rounded_qkv if "qkv" in intermediates else rounded_intermediates
                yield Hypothesis(
                    f"{what} {verb} {n} digit{plural}",
                    f"with {what} {long_verb} {n} decimal{plural} on the way: keep all digits until the end",
                    partial(round_them, trials, rounding, intermediates),
                    3,
                    approximate=True,  # a tie may fall to the other side
                    decimals=n,
                    is_rounding=True,
                )


def _round_to(decimals: int) -> RoundingFunction:
    return lambda x: x.round(decimals=decimals)


def _truncate_at(factor: float) -> RoundingFunction:
    # 4.14 × 100 is a little less than 414 in binary, and whoever cuts 4.14 by hand keeps it
    return lambda x: (x * factor * _WHOLE_SLACK).trunc() / factor


# ── a narrow dtype ───────────────────────────────────────────────────────────────────────────────
@fault
def low_precision(trials: Trials) -> Iterator[Hypothesis]:
    """Arithmetic is done in a narrow dtype; the errors go the same way."""
    for dtype in ("float16", "bfloat16", "float32"):
        rounding = _round_to_dtype(dtype)
        computations: dict[str, Callable[[], Plan | None]] = {
            "scores and weights": partial(rounded_intermediates, trials, rounding, ("scores", "chain", "weights")),
            "scores": partial(rounded_intermediates, trials, rounding, ("scores", "chain")),
            "weights": partial(rounded_intermediates, trials, rounding, ("weights",)),
            "inputs": partial(_round_inputs, trials, rounding),
            "all arithmetic": partial(trials.with_choices, dtype=dtype),
            "q, k and v": partial(rounded_qkv, trials, rounding),
            "q, k, v, scores and weights": partial(rounded_qkv, trials, rounding, ("scores", "chain", "weights")),
            "inputs, scores and weights": partial(
                _round_inputs_and_intermediates, trials, rounding, ("scores", "chain", "weights")
            ),
        }
        if dtype == "float16":
            computations["the sum of each score"] = lambda: with_score(trials.plan, _dot_products_in_float16)
        wider_dtype = "float64" if dtype == "float32" else "float32"
        for what, compute in computations.items():
            yield Hypothesis(
                f"{dtype} {what}",
                f"with {what} in {dtype}: {_advice(what, wider_dtype)}",
                compute,
                3,
                approximate=True,
                is_rounding=True,
            )


def _advice(what: str, wider_dtype: str) -> str:
    """Say the way out of arithmetic in a narrow dtype."""
    if what == "inputs":
        return "the inputs have more digits"
    sums = {"all arithmetic": "accumulate", "the sum of each score": "accumulate"}
    return f"{sums.get(what, 'keep them')} in {wider_dtype}"


def _round_to_dtype(dtype: str) -> RoundingFunction:
    import torch

    torch_dtype: torch.dtype = getattr(torch, dtype)
    return lambda x: x.to(torch_dtype).to(x.dtype)


def _dot_products_in_float16(_: object, q: Tensor, k: Tensor, parameters: object) -> Tensor:
    """Compute q·k with every product and sum rounded to float16."""
    q, k = q.half(), k.half()
    total = q.new_zeros(()).half()
    for i in range(q.shape[-1]):
        total = (total + (q[..., :, None, i] * k[..., None, :, i])).half()
    return total.double()


# ── what is rounded ──────────────────────────────────────────────────────────────────────────────
def rounded_intermediates(trials: Trials, rounding: RoundingFunction, intermediates: Collection[str]) -> Plan:
    """Make the plan with some intermediates rounded."""
    plan = trials.plan
    if "scores" in intermediates:
        plan = with_score(plan, lambda score, q, k, parameters: rounding(score(q, k, parameters)))
    if "chain" in intermediates or "scaled" in intermediates:
        links = [
            dataclasses.replace(link, run=partial(_run_link_rounded, link, rounding))
            if "chain" in intermediates or link.is_scale
            else link
            for link in plan.chain
        ]
        plan = with_chain(plan, links)
    if "exponentials" in intermediates:
        plan = with_normalizer(plan, partial(_softmax_rounded, rounding, intermediates))
    elif "weights" in intermediates:
        plan = with_normalizer(plan, lambda normalizer, s, visible: rounding(normalizer(s, visible)))
    if "context" in intermediates and plan.shapes.c is not None:
        plan = with_head_context(plan, lambda z, *_: rounding(z)) or plan
    return plan


def _run_link_rounded(link: Link, rounding: RoundingFunction, scores: Tensor, grid: Grid) -> Tensor:
    return rounding(link.run(scores, grid))


def _softmax_rounded(
    rounding: RoundingFunction, intermediates: Collection[str], _: object, s: Tensor, visible: Tensor
) -> Tensor:
    """Compute softmax with its exponentials and their sum rounded, and its weights if they are among the intermediates."""
    s = s.masked_fill(~visible, -math.inf)
    if "shifted" in intermediates:
        s = subtract_row_max(s)
    e = rounding(s.exp())
    w = divide_where_nonzero(e, rounding(e.sum(-1, keepdim=True))).masked_fill(~visible, 0)
    return rounding(w) if "weights" in intermediates else w


def rounded_qkv(trials: Trials, rounding: RoundingFunction, intermediates: Collection[str] = ()) -> Plan | None:
    """Make the projected plan with q, k and v rounded, and other intermediates with them."""
    base = trials.projected_plan
    if base is None:
        return None
    arrays = {x: getattr(base.problem, x) for x in "qkv"}
    rounded = {x: _round_array(rounding, array) for x, array in arrays.items() if array is not None}
    plan = trials.with_qkv(**rounded)
    return plan and rounded_intermediates(Trials(plan, trials.top), rounding, intermediates)


def _round_inputs_and_intermediates(trials: Trials, rounding: RoundingFunction, intermediates: Collection[str]) -> Plan:
    """Make the plan with inputs rounded, and other intermediates with them."""
    return rounded_intermediates(Trials(_round_inputs(trials, rounding), trials.top), rounding, intermediates)


def _round_inputs(trials: Trials, rounding: RoundingFunction) -> Plan:
    """Make the plan with every array of the problem rounded."""
    problem, round_array = trials.plan.problem, partial(_round_array, rounding)
    arrays = {x: getattr(problem, x) for x in ("embeddings", "q", "k", "v", "bias")}
    fields: Json = {x: round_array(array) for x, array in arrays.items() if array is not None}
    fields["parameters"] = {name: round_array(x) for name, x in problem.parameters.items()}
    if problem.memory:
        fields["memory"] = {**problem.memory, "embeddings": round_array(problem.memory["embeddings"])}
    if problem.past:
        fields["past"] = {name: x if name == "tokens" else round_array(x) for name, x in problem.past.items()}
    return trials.with_fields(**fields)


def _round_array(rounding: RoundingFunction, values: Array) -> NumpyArray:
    import torch

    return np.asarray(rounding(torch.as_tensor(np.array(values, np.float64))).numpy())
