"""What q, k and v are made of: learned matrices transposed, exchanged or forgotten, letters in each other's place, a past left out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import with_score
from attncli.check.trials import Trials
from attncli.plan import Plan


@fault
def wrong_projection_parameters(trials: Trials) -> Iterator[Hypothesis]:
    """Learned matrices the wrong way, exchanged or forgotten."""
    plan, p = trials.plan, trials.plan.problem
    held = p.parameters
    named = [f"w_{x}" for x in "qkvo" if f"w_{x}" in held]
    if not plan.variant.projection.traits.is_from_file:
        named = []
    if p.embeddings is None:
        named = [n for n in named if n == "w_o"]
    square = [n for n in named if np.asarray(held[n]).shape[0] == np.asarray(held[n]).shape[1]]
    shown = {n: "W_" + n[2:] for n in named}

    def turned(which: Iterable[str]) -> Callable[[], Plan]:
        return _with_parameters(trials, **{n: np.ascontiguousarray(np.asarray(held[n]).T) for n in which})

    way = "x @ W, or x @ W.T for what nn.Linear stores (w_layout out-in)"
    for group in dict.fromkeys((tuple(square), tuple(n for n in square if n != "w_o"))):
        if len(group) > 1:
            names = ", ".join(shown[n] for n in group)
            yield Hypothesis(f"{names} transposed", f"with {names} transposed: {way}", turned(group), 0)
    for n in square:
        yield Hypothesis(
            f"{shown[n]} transposed", f"with {shown[n]} transposed: {way}", turned([n]), 0, combinable=True
        )
    for n in named:
        x = n[2:]
        gone = _with_parameters(trials, **{n: None, f"b_{x}": None})
        if x != "o":
            says = f"with {x} not projected: it is x itself, not x {shown[n]}"
            yield Hypothesis(f"{x} not projected", says, gone, 0)
        else:
            yield Hypothesis("W_o forgotten", "without W_o: the output is the context itself", gone, 0)
    biases = [f"b_{x}" for x in "qkvo" if f"b_{x}" in held]
    if len(biases) > 1:
        gone = _with_parameters(trials, **dict.fromkeys(biases))
        yield Hypothesis("biases forgotten", "without the projections' biases", gone, 0)
    for n in biases:
        yield Hypothesis(f"{n} forgotten", f"without the bias {n}", _with_parameters(trials, **{n: None}), 0)
    for one, other in itertools.combinations([n for n in named if n != "w_o"], 2):
        swap = {one: held[other], other: held[one]}
        pair = {f"b_{one[2:]}": held.get(f"b_{other[2:]}"), f"b_{other[2:]}": held.get(f"b_{one[2:]}")}
        both = f"{shown[one]} and {shown[other]} exchanged"
        yield Hypothesis(both, f"with {both}", _with_parameters(trials, **swap, **pair))
    for n in ("score_w_q", "score_w_k"):
        if n in held and np.asarray(held[n]).shape[0] == np.asarray(held[n]).shape[-1]:
            yield Hypothesis(f"{n} transposed", f"with {n} transposed", turned([n]))


def _with_parameters(trials: Trials, **arrays: Any) -> Callable[[], Plan]:
    """Other learned arrays, and without those that are None."""
    held = {**trials.plan.problem.parameters, **arrays}
    return partial(trials.with_fields, parameters={name: x for name, x in held.items() if x is not None})


@fault
def sinks_scaled(trials: Trials) -> Iterator[Hypothesis]:
    """A sink's logit taken for a score."""
    plan = trials.plan
    if "sinks" not in plan.problem.parameters:
        return
    value = plan.variant.scale
    now = next((link.value for link in plan.chain if link.is_scale), value if isinstance(value, float) else None)
    if now:
        says = "with the sinks scaled like the scores: a sink's logit is taken as it is"
        scaled = np.asarray(plan.problem.parameters["sinks"]) * now
        yield Hypothesis("sinks scaled", says, _with_parameters(trials, sinks=scaled))


@fault
def past_forgotten(trials: Trials) -> Iterator[Hypothesis]:
    """New keys and values alone."""
    if trials.plan.problem.past is not None:
        says = "without the past: only the new keys are attended to"
        yield Hypothesis("past forgotten", says, partial(trials.with_fields, past=None), 0)


@fault
def qkv_exchanged(trials: Trials) -> Iterator[Hypothesis]:
    """q, k and v exchanged."""
    c = trials.plan.shapes.c

    def taken(**which: str) -> Plan | None:
        base = trials.projected_plan
        return base and trials.with_qkv(**{x: getattr(base.problem, y) for x, y in which.items()})

    yield Hypothesis(
        "q and k swapped", "with q and k exchanged: rows are queries, q kᵀ", lambda: taken(q="k", k="q"), 0
    )
    yield Hypothesis(
        "scores transposed",
        "with k qᵀ for q kᵀ: rows are queries",
        lambda: with_score(trials.plan, lambda own, q, k, learned: own(q, k, learned).mT),
        0,
    )
    yield Hypothesis("keys for queries", "with q made of what k is made of: q = k", lambda: taken(q="k"))
    yield Hypothesis("queries for keys", "with k made of what q is made of: k = q", lambda: taken(k="q"))
    if c is None:
        return
    yield Hypothesis("keys for values", "with k in the place of v: the context is weights · v", lambda: taken(v="k"))
    yield Hypothesis("queries for values", "with q in the place of v", lambda: taken(v="q"))
    yield Hypothesis("k and v swapped", "with k and v exchanged", lambda: taken(v="k", k="v"))
    yield Hypothesis("q and v swapped", "with q and v exchanged", lambda: taken(v="q", q="v"))
    x = trials.plan.problem.embeddings
    if x is not None and trials.plan.problem.memory is None:
        many = np.asarray(x, np.float64)
        says = "with v not projected: it is x itself, not x W_v"
        yield Hypothesis("v not projected", says, partial(trials.with_qkv, v=many), 0)
