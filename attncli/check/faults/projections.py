"""What q, k and v are made of: learned matrices transposed, exchanged or forgotten, letters in each other's place, a past left out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from attncli.check.faults.base import Suspicion, fault
from attncli.check.plan_edits import scored
from attncli.check.trials import Bench
from attncli.plan import Plan


@fault
def matrices(b: Bench) -> Iterator[Suspicion]:
    """Learned matrices the wrong way, exchanged or forgotten."""
    plan, p = b.plan, b.plan.problem
    held = p.parameters
    named = [f"w_{x}" for x in "qkvo" if f"w_{x}" in held]
    if not plan.variant.projection.traits.is_from_file:
        named = []
    if p.embeddings is None:
        named = [n for n in named if n == "w_o"]
    square = [n for n in named if np.asarray(held[n]).shape[0] == np.asarray(held[n]).shape[1]]
    shown = {n: "W_" + n[2:] for n in named}

    def turned(which: Iterable[str]) -> Callable[[], Plan]:
        return _changed(b, **{n: np.ascontiguousarray(np.asarray(held[n]).T) for n in which})

    way = "x @ W, or x @ W.T for what nn.Linear stores (w_layout out-in)"
    for group in dict.fromkeys((tuple(square), tuple(n for n in square if n != "w_o"))):
        if len(group) > 1:
            names = ", ".join(shown[n] for n in group)
            yield Suspicion(f"{names} transposed", f"with {names} transposed: {way}", turned(group), 0)
    for n in square:
        yield Suspicion(f"{shown[n]} transposed", f"with {shown[n]} transposed: {way}", turned([n]), 0, base=True)
    for n in named:
        x = n[2:]
        gone = _changed(b, **{n: None, f"b_{x}": None})
        if x != "o":
            says = f"with {x} not projected: it is x itself, not x {shown[n]}"
            yield Suspicion(f"{x} not projected", says, gone, 0)
        else:
            yield Suspicion("W_o forgotten", "without W_o: the output is the context itself", gone, 0)
    biases = [f"b_{x}" for x in "qkvo" if f"b_{x}" in held]
    if len(biases) > 1:
        gone = _changed(b, **dict.fromkeys(biases))
        yield Suspicion("biases forgotten", "without the projections' biases", gone, 0)
    for n in biases:
        yield Suspicion(f"{n} forgotten", f"without the bias {n}", _changed(b, **{n: None}), 0)
    for one, other in itertools.combinations([n for n in named if n != "w_o"], 2):
        swap = {one: held[other], other: held[one]}
        pair = {f"b_{one[2:]}": held.get(f"b_{other[2:]}"), f"b_{other[2:]}": held.get(f"b_{one[2:]}")}
        both = f"{shown[one]} and {shown[other]} exchanged"
        yield Suspicion(both, f"with {both}", _changed(b, **swap, **pair))
    for n in ("score_w_q", "score_w_k"):
        if n in held and np.asarray(held[n]).shape[0] == np.asarray(held[n]).shape[-1]:
            yield Suspicion(f"{n} transposed", f"with {n} transposed", turned([n]))


def _changed(b: Bench, **arrays: Any) -> Callable[[], Plan]:
    """Other learned arrays, and without those that are None."""
    held = {**b.plan.problem.parameters, **arrays}
    return partial(b.given, parameters={name: x for name, x in held.items() if x is not None})


@fault
def sinks(b: Bench) -> Iterator[Suspicion]:
    """A sink's logit taken for a score."""
    plan = b.plan
    if "sinks" not in plan.problem.parameters:
        return
    value = plan.variant.scale
    now = next((link.value for link in plan.chain if link.is_scale), value if isinstance(value, float) else None)
    if now:
        says = "with the sinks scaled like the scores: a sink's logit is taken as it is"
        scaled = np.asarray(plan.problem.parameters["sinks"]) * now
        yield Suspicion("sinks scaled", says, _changed(b, sinks=scaled))


@fault
def past(b: Bench) -> Iterator[Suspicion]:
    """New keys and values alone."""
    if b.plan.problem.past is not None:
        says = "without the past: only the new keys are attended to"
        yield Suspicion("past forgotten", says, partial(b.given, past=None), 0)


@fault
def letters(b: Bench) -> Iterator[Suspicion]:
    """q, k and v exchanged."""
    c = b.plan.shapes.c

    def taken(**which: str) -> Plan | None:
        base = b.direct
        return base and b.rewritten(**{x: getattr(base.problem, y) for x, y in which.items()})

    yield Suspicion("q and k swapped", "with q and k exchanged: rows are queries, q kᵀ", lambda: taken(q="k", k="q"), 0)
    yield Suspicion(
        "scores transposed",
        "with k qᵀ for q kᵀ: rows are queries",
        lambda: scored(b.plan, lambda own, q, k, learned: own(q, k, learned).mT),
        0,
    )
    yield Suspicion("keys for queries", "with q made of what k is made of: q = k", lambda: taken(q="k"))
    yield Suspicion("queries for keys", "with k made of what q is made of: k = q", lambda: taken(k="q"))
    if c is None:
        return
    yield Suspicion("keys for values", "with k in the place of v: the context is weights · v", lambda: taken(v="k"))
    yield Suspicion("queries for values", "with q in the place of v", lambda: taken(v="q"))
    yield Suspicion("k and v swapped", "with k and v exchanged", lambda: taken(v="k", k="v"))
    yield Suspicion("q and v swapped", "with q and v exchanged", lambda: taken(v="q", q="v"))
    x = b.plan.problem.embeddings
    if x is not None and b.plan.problem.memory is None:
        many = np.asarray(x, np.float64)
        says = "with v not projected: it is x itself, not x W_v"
        yield Suspicion("v not projected", says, partial(b.rewritten, v=many), 0)
