"""Scores that are not brought to weights row by row: over another axis, twice, in another base, not at all, or divided by something else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

from attncli.check.faults.base import Suspicion, fault
from attncli.check.plan_edits import Run, divided, normalised, shifted, uniform
from attncli.check.trials import Bench
from attncli.registry import AnyPart
from attncli.types import Tensor


def _by(b: Bench, name: str, says: str, run: Run, rank: int = 1, *, flat: bool = False) -> Suspicion:
    """Another normaliser: run(normaliser of the plan, scores, visible)."""
    return Suspicion(name, says, partial(normalised, b.plan, run), rank, flat=flat)


# ── over what ────────────────────────────────────────────────────────────────────────────────────
@fault
def axes(b: Bench) -> Iterator[Suspicion]:
    """Over the wrong axis."""
    plan, name = b.plan, b.plan.variant.normalizer.name
    if not plan.variant.sink.is_none:
        return
    others = {"the queries (columns sum to 1)": -2}
    others |= {"the heads": 1} if plan.shapes.heads > 1 else {}
    others |= {"the batch": 0} if (plan.size.batch or 1) > 1 else {}
    for what, axis in others.items():
        says = f"with {name} over {what} instead of the keys: normalise each row, over the last axis"
        yield _by(b, f"{name} over {what.partition(' (')[0]}", says, _over(axis), 0)
    says = f"with {name} over all cells of a head together: normalise each row by itself"
    yield _by(b, f"{name} over all cells", says, _over_all)


def _over(axis: int) -> Run:
    def run(own: AnyPart, s: Tensor, seen: Tensor) -> Tensor:
        seen = seen.expand(s.shape)
        return own(s.movedim(axis, -1), seen.movedim(axis, -1)).movedim(-1, axis)

    return run


def _over_all(own: AnyPart, s: Tensor, seen: Tensor) -> Tensor:
    return own(s.flatten(-2), seen.expand(s.shape).flatten(-2)).unflatten(-1, s.shape[-2:])


@fault
def twice(b: Bench) -> Iterator[Suspicion]:
    """Weights normalised once more."""
    name = b.plan.variant.normalizer.name
    says = f"with {name} applied twice"
    yield _by(b, f"{name} applied twice", says, lambda own, s, seen: own(own(s, seen), seen))
    if b.plan.masked:
        yield _by(
            b,
            f"{name} applied twice, the second unmasked",
            f"{says}, the second time over hidden keys too",
            lambda own, s, seen: own(own(s, seen), seen | True),
        )


# ── not by exponentials ──────────────────────────────────────────────────────────────────────────
@fault
def alike(b: Bench) -> Iterator[Suspicion]:
    """A mean, or rows of another length."""
    if not b.plan.variant.sink.is_none:
        return
    says = "with the same weight on every key that is seen (a mean), whatever the scores are"
    yield _by(b, "uniform weights", says, uniform, 0, flat=True)
    if b.plan.masked:
        yield _by(
            b,
            "uniform weights over all keys",
            "with the same weight on every key (a mean), hidden or not",
            lambda own, s, seen: uniform(own, s, seen | True),
            0,
            flat=True,
        )
    says = f"with each row of scores divided by its length (L2) instead of {b.plan.variant.normalizer.name}"
    yield _by(b, "rows divided by their length", says, _by_length)


def _by_length(_: object, s: Tensor, seen: Tensor) -> Tensor:
    s = s.masked_fill(~seen, 0)
    return divided(s, s.square().sum(-1, keepdim=True).sqrt())


# ── softmax half done ────────────────────────────────────────────────────────────────────────────
@fault
def exponentials(b: Bench) -> Iterator[Suspicion]:
    """Softmax to another base, or its exponentials divided by something else."""
    if not b.plan.variant.normalizer.traits.is_exponential:
        return
    for base, factor in (("2", math.log(2)), ("10", math.log(10))):
        says = f"with softmax to base {base}, {base}^s instead of e^s: use exp, or multiply the scores by 1/ln {base}"
        yield _by(b, f"softmax base {base}", says, _multiplied(factor))
    yield _by(b, "exponentials not divided", "with e^s not divided by their sum", _exponentials())
    yield _by(
        b,
        "exponentials not divided, max subtracted",
        "with e^(s − max) not divided by their sum",
        _exponentials(less=shifted),
    )
    yield _by(
        b,
        "divided by the norm",
        "with e^s divided by the root of their squares, not by their sum",
        _exponentials(less=shifted, by=lambda e: e.square().sum(-1, keepdim=True).sqrt()),
    )
    yield _by(
        b,
        "divided by the number of keys",
        "with e^s divided by the number of keys, not by their sum",
        _exponentials(by=lambda e: e.shape[-1]),
    )
    yield _by(
        b,
        "log-softmax",
        "with log-softmax for softmax: the weights are their logarithms",
        lambda own, s, seen: own(s, seen).log(),
    )
    yield _by(
        b,
        "softmax1 with the 1 added after the largest was subtracted",
        "with 1 added to the denominator after the largest score was subtracted: it should be e^(−max)",
        _naive_one,
    )


def _multiplied(factor: float) -> Run:
    return lambda own, s, seen: own(s * factor, seen)


def _exponentials(
    less: Callable[[Tensor], Tensor] = lambda s: s, by: Callable[[Tensor], Tensor | int] = lambda e: 1
) -> Run:
    """e^s of what is seen, s made less before and the exponentials divided after."""

    def run(_: object, s: Tensor, seen: Tensor) -> Tensor:
        e = less(s.masked_fill(~seen, -math.inf)).exp()
        return e / by(e)

    return run


def _naive_one(_: object, s: Tensor, seen: Tensor) -> Tensor:
    s = s.masked_fill(~seen, -math.inf)
    e = (s - s.amax(-1, keepdim=True)).exp()
    return e / (1 + e.sum(-1, keepdim=True))
