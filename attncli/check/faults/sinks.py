"""Sinks, biases and dropout that are taken otherwise than they are meant."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import (
    divide_where_nonzero,
    unregistered_part,
    with_link,
    with_mixed_weights,
    with_normalizer,
    with_part,
)
from attncli.check.trials import Trials
from attncli.parts.traits import DropoutTraits
from attncli.plan import Plan
from attncli.registry import AnyPart
from attncli.types import Generator, NumpyArray, Tensor


@fault
def wrong_sink(trials: Trials) -> Iterator[Hypothesis]:
    """A sink's logit has another value, or a weight that meets the values."""
    plan = trials.plan
    if plan.variant.sink.is_none:
        return
    sinks = plan.problem.parameters.get("sinks")
    if sinks is not None:
        given = np.asarray(sinks, np.float64)
        changed: dict[str, tuple[str, NumpyArray]] = {
            "sinks × log₂ e": (
                "multiplied by log₂ e, as the scores of a kernel in base 2 are, but e^sink taken",
                given / math.log(2),
            ),
            "sinks × ln 2": ("multiplied by ln 2: 2^sink instead of e^sink", given * math.log(2)),
            "sinks with the wrong sign": ("of the wrong sign", -given),
            "sinks counted twice": ("counted twice in the sum", given + math.log(2)),
            "sinks multiplied by √d": ("multiplied by √d_k", given * math.sqrt(plan.shapes.d)),
        }
        for name, (text, values) in changed.items():
            parameters = {**plan.problem.parameters, "sinks": values}
            yield Hypothesis(
                name,
                f"with the sinks {text}: a sink's logit is taken as it is, once",
                partial(trials.with_fields, parameters=parameters),
            )
    for sign, text in ((1, "the largest score is subtracted from the scores, but not from the sink"),
                       (-1, "the largest score is subtracted from the sink twice")):  # fmt: skip
        yield Hypothesis(
            f"sink {'+' if sign > 0 else '−'} the largest score",
            f"with a sink that is off by the largest score of each row: {text}",
            partial(with_normalizer, plan, partial(_shift_sink, sign)),
        )
    yield Hypothesis(
        "sink as a value",
        "with the sink's weight on the mean of all values: a sink has no value",
        partial(_give_sink_the_mean, plan),
    )
    yield Hypothesis(
        "first key dropped for the sink",
        "with the sink before the keys, and the last column dropped instead of the sink's: the weights are one key off",
        partial(with_normalizer, plan, _drop_last_key),
    )
    yield Hypothesis(
        "first key without weight",
        "with the weight of the first key dropped as if it were the sink's",
        partial(with_mixed_weights, plan, _without_first_key),
    )


def _shift_sink(sign: int, normalizer: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
    """Add the largest score to the sink's, or subtract it."""
    s = s.clone()
    row_max = s[..., :-1].masked_fill(~visible[..., :-1], -math.inf).amax(-1)
    s[..., -1] += sign * row_max.masked_fill(row_max == -math.inf, 0)
    return normalizer(s, visible)


def _give_sink_the_mean(plan: Plan) -> Plan | None:
    weights: list[Tensor] = []

    def remember(normalizer: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
        w: Tensor = normalizer(s, visible)
        weights[:] = [w[..., -1:]]
        return w

    return with_mixed_weights(with_normalizer(plan, remember), lambda w: w + weights[0] / w.shape[-1])


def _drop_last_key(normalizer: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
    w: Tensor = normalizer(s, visible)
    return w.roll(1, -1)


def _without_first_key(w: Tensor) -> Tensor:
    w = w.clone()
    w[..., 0] = 0
    return w


# ── biases ───────────────────────────────────────────────────────────────────────────────────────
@fault
def wrong_additive_bias(trials: Trials) -> Iterator[Hypothesis]:
    """The bias is transposed, added twice, multiplied or scaled; a projection's is added twice or once a head."""
    plan, bias = trials.plan, trials.plan.problem.bias
    if bias is not None:
        array = np.asarray(bias)
        if array.ndim > 1 and array.shape[-1] == array.shape[-2]:
            yield Hypothesis(
                "bias transposed",
                "with the bias transposed: rows are queries",
                partial(trials.with_fields, bias=np.ascontiguousarray(array.swapaxes(-1, -2))),
                0,
            )
        yield Hypothesis(
            "bias added twice",
            "with the bias added twice",
            lambda: with_link(plan, "bias", lambda link, s, grid: link.run(link.run(s, grid), grid)),
        )
        yield Hypothesis(
            "bias multiplied",
            "with the scores multiplied by the bias: it is added",
            lambda: with_link(plan, "bias", lambda link, s, grid: s * grid.bias),
        )
        yield Hypothesis(
            "bias after the softmax",
            "with the bias added to the weights: it is added to the scores",
            partial(_add_bias_to_weights, plan),
        )
        scale = next((link.value for link in plan.chain if link.is_scale and link.value), None)
        if scale:
            yield Hypothesis(
                "bias scaled",
                f"with the bias multiplied by the scale {scale:.6g}, as the scores are: add it after scaling",
                partial(trials.with_fields, bias=np.where(np.isfinite(array), array * scale, array)),
            )
    parameters = plan.problem.parameters
    for letter in "qkvo":
        name = f"b_{letter}"
        if name in parameters:
            yield Hypothesis(
                f"{name} added twice",
                f"with {name} added twice",
                partial(trials.with_fields, parameters={**parameters, name: 2 * np.asarray(parameters[name])}),
            )
    if "b_o" in parameters and plan.shapes.heads > 2:
        once_a_head = plan.shapes.heads * np.asarray(parameters["b_o"])
        yield Hypothesis(
            "b_o added once a head",
            f"with b_o added for each of {plan.shapes.heads} heads: add it once, to their sum",
            partial(trials.with_fields, parameters={**parameters, "b_o": once_a_head}),
        )


def _add_bias_to_weights(plan: Plan) -> Plan | None:
    biases: list[Tensor] = []

    def remember(link: object, s: Tensor, grid: object) -> Tensor:
        biases[:] = [grid.bias]  # type: ignore[attr-defined]
        return s

    changed = with_link(plan, "bias", remember)
    return changed and with_normalizer(changed, lambda normalizer, s, visible: normalizer(s, visible) + biases[0])


# ── dropout ──────────────────────────────────────────────────────────────────────────────────────
@fault
def wrong_dropout(trials: Trials) -> Iterator[Hypothesis]:
    """Weights that are dropped otherwise: the others, before the softmax, with another factor."""
    plan, dropout = trials.plan, trials.plan.variant.dropout
    p = 0 if dropout.is_none else dropout.option_value("p")
    if not p:
        return
    scores: list[Tensor] = []

    def remember(normalizer: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
        scores[:] = [s.masked_fill(~visible, -math.inf)]
        w: Tensor = normalizer(s, visible)
        return w

    def from_scores(w: Tensor, kept: Tensor) -> Tensor:
        s = scores[0]
        n = w.shape[-1]
        dropped = (s[..., :n] / (1 - p)).where(kept | s[..., :n].isinf(), 0)
        s = s.clone()
        s[..., :n] = dropped
        e = (s - s.amax(-1, keepdim=True).clamp(min=-1e300)).exp()
        return divide_where_nonzero(e, e.sum(-1, keepdim=True))[..., :n]

    ways: dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
        "dropout mask inverted": (
            "with the weights dropped that should be kept: true means kept", lambda w, kept: (w / (1 - p)).where(~kept, 0)
        ),
        "dropout divided by p": (
            f"with the kept weights divided by p = {p:.4g}, not by 1 − p", lambda w, kept: (w / p).where(kept, 0)
        ),
        "dropout multiplied by 1 − p": (
            f"with the kept weights multiplied by 1 − p = {1 - p:.4g}, not divided", lambda w, kept: (w * (1 - p)).where(kept, 0)
        ),
        "dropout renormalised": (
            "with the kept weights brought to sum 1 again, as if scores were dropped before the softmax: divide by 1 − p",
            lambda w, kept: divide_where_nonzero(w.where(kept, 0), w.where(kept, 0).sum(-1, keepdim=True)),
        ),
        "dropout of scores": (
            "with dropout of the scores, before the softmax: drop weights", from_scores
        ),
        "dropout of one head for all": (
            "with the dropout of the first head for all heads: each head has its own",
            lambda w, kept: (w / (1 - p)).where(kept[:, :1], 0),
        ),
        "dropout of one item for all": (
            "with the dropout of the first item for the whole batch: each item has its own",
            lambda w, kept: (w / (1 - p)).where(kept[:1], 0),
        ),
        "dropout transposed": (
            "with the dropout mask transposed: rows are queries",
            lambda w, kept: (w / (1 - p)).where(kept.mT, 0),
        ),
    }  # fmt: skip
    for name, (text, drop) in ways.items():
        base = with_normalizer(plan, remember) if name == "dropout of scores" else plan
        is_transposed = name == "dropout transposed"
        yield Hypothesis(name, text, partial(_with_drop, base, dropout, drop), 0, mixes_queries=is_transposed)


def _with_drop(plan: Plan, dropout: AnyPart, drop: Callable[[Tensor, Tensor], Tensor]) -> Plan:
    """Make the plan that drops the same weights in another way."""

    def draw(shape: tuple[int, ...], generator: Generator, *, seed: int | None = None) -> Tensor:
        kept: Tensor = dropout(shape, generator)  # of its own seed, where it has one
        return kept

    traits = DropoutTraits(**vars(dropout.traits) | {"drop": lambda w, kept, _: drop(w, kept)})
    part = unregistered_part("dropout", "rewritten", draw, traits)
    seed = {"seed": dropout.option_value("seed")} if dropout.is_set("seed") else {}
    return with_part(plan, "dropout", dataclasses.replace(part, option_values=seed))
