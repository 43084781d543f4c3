"""Digits or bits that are lost on the way: intermediates rounded by hand, inputs stored and arithmetic done in a narrow dtype."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from attncli.check.faults.base import Suspicion, fault
from attncli.check.plan_edits import contexts, divided, normalised, scored, shifted
from attncli.check.trials import Bench
from attncli.plan import Plan
from attncli.plan.chain import Link
from attncli.types import Grid, Json, NumpyArray, Tensor

Rounding = Callable[[Tensor], Tensor]


# ── digits ───────────────────────────────────────────────────────────────────────────────────────
_ROUNDED = {  # the plainest first
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
def by_hand(b: Bench) -> Iterator[Suspicion]:
    """Intermediates rounded to n digits."""
    softmax = b.plan.variant.normalizer.traits.is_exponential and b.plan.variant.sink.is_none
    for n in range(1, 7):
        for what, where in _ROUNDED.items():
            if "exponentials" in where and not softmax:
                continue
            for how, verb, rounding in (
                ("rounded to", "rounded to", _rounded(n)),
                ("cut to", "cut off after", _cut(10.0**n)),
            ):
                yield Suspicion(
                    f"{what} {how} {n} digit{'s' * (n > 1)}",
                    f"with {what} {verb} {n} decimal{'s' * (n > 1)} on the way: keep all digits until the end",
                    partial(_from_qkv if "qkv" in where else _each, b, rounding, where),
                    3,
                    kin=True,  # a tie may fall to the other side
                    rounds=True,
                )


def _rounded(digits: int) -> Rounding:
    return lambda x: x.round(decimals=digits)


def _cut(factor: float) -> Rounding:
    return lambda x: (x * factor).trunc() / factor


# ── bits ─────────────────────────────────────────────────────────────────────────────────────────
@fault
def half(b: Bench) -> Iterator[Suspicion]:
    """Arithmetic of few bits, told by errors that go the same way."""
    for dtype in ("float16", "bfloat16", "float32"):
        narrow = _narrow(dtype)
        places: dict[str, Callable[[], Plan | None]] = {
            "scores and weights": partial(_each, b, narrow, ("scores", "chain", "weights")),
            "scores": partial(_each, b, narrow, ("scores", "chain")),
            "weights": partial(_each, b, narrow, ("weights",)),
            "inputs": partial(_stored, b, narrow),
            "all arithmetic": partial(b.chosen, dtype=dtype),
            "q, k and v": partial(_from_qkv, b, narrow),
            "q, k, v, scores and weights": partial(_from_qkv, b, narrow, ("scores", "chain", "weights")),
            "inputs, scores and weights": partial(_from_inputs, b, narrow, ("scores", "chain", "weights")),
        }
        if dtype == "float16":
            places["the sum of each score"] = lambda: scored(b.plan, _accumulated)
        for what, compute in places.items():
            yield Suspicion(
                f"{dtype} {what}",
                f"with {what} in {dtype}: accumulate in {'float32' if dtype != 'float32' else 'float64'}",
                compute,
                3,
                kin=True,
                rounds=True,
            )


def _narrow(dtype: str) -> Rounding:
    import torch

    kind = getattr(torch, dtype)
    return lambda x: x.to(kind).to(x.dtype)


def _accumulated(_: object, q: Tensor, k: Tensor, learned: Mapping[str, Tensor]) -> Tensor:
    """q·k with every product and sum rounded to float16."""
    q, k = q.half(), k.half()
    total = q.new_zeros(()).half()
    for i in range(q.shape[-1]):
        total = (total + (q[..., :, None, i] * k[..., None, :, i])).half()
    return total.double()


# ── what is rounded ──────────────────────────────────────────────────────────────────────────────
def _rounded_link(link: Link, rounding: Rounding, s: Tensor, at: Grid) -> Tensor:
    """What a link makes of the scores, rounded."""
    return rounding(link.run(s, at))


def _each(b: Bench, rounding: Rounding, where: tuple[str, ...]) -> Plan:
    """The plan with some intermediates rounded."""
    plan = b.plan
    if "scores" in where:
        plan = scored(plan, lambda own, q, k, learned: rounding(own(q, k, learned)))
    if ("chain" in where or "scaled" in where) and plan.chain:
        links = [
            dataclasses.replace(link, run=partial(_rounded_link, link, rounding))
            if "chain" in where or link.is_scale
            else link
            for link in plan.chain
        ]
        plan = dataclasses.replace(plan, chain=tuple(links))
    if "exponentials" in where:

        def run(_: object, s: Tensor, seen: Tensor) -> Tensor:
            s = s.masked_fill(~seen, -math.inf)
            e = rounding((shifted(s) if "shifted" in where else s).exp())
            w = divided(e, rounding(e.sum(-1, keepdim=True))).masked_fill(~seen, 0)
            return rounding(w) if "weights" in where else w

        plan = normalised(plan, run)
    elif "weights" in where:
        plan = normalised(plan, lambda own, s, seen: rounding(own(s, seen)))
    if "context" in where and plan.shapes.c is not None:
        plan = contexts(plan, lambda z, *_: rounding(z)) or plan
    return plan


def _from_qkv(b: Bench, rounding: Rounding, where: tuple[str, ...] = ()) -> Plan | None:
    """q, k and v rounded, and other intermediates with them."""
    base = b.direct
    if base is None:
        return None
    arrays = {x: getattr(base.problem, x) for x in "qkv" if getattr(base.problem, x) is not None}
    made = b.rewritten(**{x: _array(rounding, y) for x, y in arrays.items()})
    return made and _each(Bench(made, b.top), rounding, where)


def _from_inputs(b: Bench, rounding: Rounding, where: tuple[str, ...]) -> Plan:
    """Inputs rounded, and other intermediates with them."""
    return _each(Bench(_stored(b, rounding), b.top), rounding, where)


def _stored(b: Bench, rounding: Rounding) -> Plan:
    """Every array of the problem rounded."""
    p, each = b.plan.problem, partial(_array, rounding)
    fields: Json = {x: each(getattr(p, x)) for x in ("embeddings", "q", "k", "v", "bias") if getattr(p, x) is not None}
    fields["parameters"] = {k: each(x) for k, x in p.parameters.items()}
    if p.memory:
        fields["memory"] = {**p.memory, "embeddings": each(p.memory["embeddings"])}
    if p.past:
        fields["past"] = {k: x if k == "tokens" else each(x) for k, x in p.past.items()}
    return b.given(**fields)


def _array(rounding: Rounding, x: Tensor) -> NumpyArray:
    import torch

    rounded: NumpyArray = rounding(torch.as_tensor(np.array(x, np.float64))).numpy()
    return rounded
