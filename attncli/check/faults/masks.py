"""A mask that comes too late, comes as numbers, or lets through something else; likewise lengths, and a bias that is left out."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from attncli.check.alternatives import reworked
from attncli.check.faults.base import Suspicion, fault
from attncli.check.plan_edits import Run, hidden_by, normalised, seen_by, unhidden
from attncli.check.trials import Bench
from attncli.plan import Plan
from attncli.registry import AnyPart
from attncli.types import Grid, Tensor


def _instead(b: Bench, name: str, says: str, run: Run, rank: int = 1, *, flat: bool = False) -> Suspicion:
    """Nothing is hidden; where the mask stood there is run(scores, what the mask lets through)."""
    return Suspicion(name, says, partial(unhidden, b, run), rank, same=("mask",), flat=flat)


# ── where it does not belong, or as numbers ──────────────────────────────────────────────────────
@fault
def late(b: Bench) -> Iterator[Suspicion]:
    """After the softmax, or never."""
    plan = b.plan
    if not plan.masked:
        return
    mask = plan.mask or ("lengths" if plan.problem.lengths is not None else "bias")
    says = "with the mask applied after the softmax and the rows not brought to sum 1 again: mask the scores with −∞ before it"
    yield Suspicion("mask after softmax, not renormalised", says, partial(_after, b), 0, same=("mask",))
    yield _instead(b, "mask forgotten", f"without the mask ({mask})", lambda s, _: s, 0)


def _after(b: Bench) -> Plan | None:
    import torch

    seen = seen_by(b.plan)
    free = unhidden(b, lambda s, _: s)

    def run(own: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
        w, m = own(s, visible), seen.shape[-1]
        kept = w[..., :m] * seen
        return kept if w.shape[-1] == m else torch.cat([kept, w[..., m:]], -1)

    return normalised(free, run) if free else None


_FILLS = {
    "0": 0.0,
    "−1": -1.0,
    "−100": -100.0,
    "−1e4": -1e4,
    "−1e9": -1e9,
    "−65504": -65504.0,
    "−1e10": -1e10,
    "−1e20": -1e20,
    "the least float32": float(np.finfo(np.float32).min),
    "1e-9": 1e-9,
    "−1e6": -1e6,
    "−1e5": -1e5,
    "−1e8": -1e8,
}


@fault
def numbers(b: Bench) -> Iterator[Suspicion]:
    """0 and 1, or a large number, where −∞ belongs."""
    if not b.plan.masked:
        return
    yield _instead(
        b,
        "0/1 mask added",
        "with the mask added to the scores as 0 and 1: true must keep a score and false make it −∞",
        lambda s, m: s + m.to(s.dtype),
        0,
    )
    yield _instead(
        b,
        "inverted 0/1 mask added",
        "with 1 added to the scores that should be hidden: make them −∞",
        lambda s, m: s + (~m).to(s.dtype),
    )
    yield _instead(
        b,
        "1 subtracted where hidden",
        "with 1 subtracted from the scores that should be hidden: make them −∞",
        lambda s, m: s - (~m).to(s.dtype),
    )
    for name, value in _FILLS.items():
        says = f"with hidden scores set to {name} instead of −∞: a row that sees nothing then spreads its weight over all keys"
        if abs(value) < 1000:
            says = f"with hidden scores set to {name} instead of −∞, so that hidden keys keep weight"
        rank = 1 if abs(value) >= 1 or not value else 3
        yield _instead(b, f"fill {name} instead of −∞", says, _filled(value), rank)
        if value <= -1e4:
            says = f"with {name} added to the hidden scores instead of −∞: a row that sees nothing then attends as if nothing were hidden"
            yield _instead(b, f"{name} added instead of −∞", says, _lowered(value))
    yield _instead(
        b,
        "triu(ones) * -inf",
        "with a mask multiplied by −∞, where 0 × −∞ is NaN: fill with −∞ instead, or use where",
        lambda s, m: s + m.to(s.dtype) * math.nan + s.new_zeros(()).masked_fill(~m, -math.inf),
        0,
        flat=any(c.step.startswith("weights") or "scores" in c.step for c in b.claims),
    )


def _filled(value: float) -> Run:
    return lambda s, seen: s.masked_fill(~seen, value)


def _lowered(value: float) -> Run:
    return lambda s, seen: s + (~seen).to(s.dtype) * value


@fault
def capped(b: Bench) -> Iterator[Suspicion]:
    """A softcap that makes a number of −∞."""
    if b.plan.masked and any(link.name == "softcap" for link in b.plan.chain):
        says = "with the softcap after the mask: −∞ becomes −cap, and hidden keys get weight; cap the scores first"
        yield Suspicion("softcap after the mask", says, partial(_leaking, b), 0, same=("mask",))


def _leaking(b: Bench) -> Plan | None:
    free = unhidden(b, lambda s, m: s.masked_fill(~m, -math.inf))
    if free is None:
        return None
    links = list(free.chain)
    masked = links.pop(next(i for i, link in enumerate(links) if link.name == "unmasked"))
    at = next(i for i, link in enumerate(links) if link.name == "softcap")
    return dataclasses.replace(free, chain=(*links[:at], masked, *links[at:]))


# ── another mask ─────────────────────────────────────────────────────────────────────────────────
def _diagonal(at: Grid) -> Tensor:
    return at.k_pos == at.q_pos


@fault
def wrong(b: Bench) -> Iterator[Suspicion]:
    """The mask lets through something else."""
    plan = b.plan
    placed = plan.q_pos is not None
    if placed:
        yield Suspicion(
            "diagonal hidden",
            "with each query's own key hidden too (j < i for j ≤ i): a token sees itself",
            partial(hidden_by, b, lambda at, seen: seen & ~_diagonal(at)),
            0,
            base=plan.mask is not None,
        )
    if plan.mask is None:
        return
    yield Suspicion(
        "mask inverted",
        "with the mask the wrong way round: hidden where it should be seen; true means may attend",
        partial(hidden_by, b, lambda at, seen: ~seen),
        0,
    )
    yield Suspicion(
        "mask inverted, diagonal kept",
        "with the other triangle: keys at and after the query, not before",
        partial(hidden_by, b, lambda at, seen: ~seen | _diagonal(at) if placed else ~seen),
    )
    if plan.size.queries == plan.size.keys:
        yield Suspicion(
            "mask transposed",
            "with rows and columns of the mask exchanged: rows are queries",
            partial(
                hidden_by, b, lambda at, seen: (seen & (at.q_idx == at.q_idx) & (at.k_idx == at.k_idx)).swapaxes(-1, -2)
            ),
            0,
        )
    for step, what in ((1, "one key too many"), (-1, "one key too few")):
        yield Suspicion(
            f"mask off by one: {what}",
            f"with a mask that is off by one: each query sees {what}",
            partial(_off, b, step),
            base=step > 0,
        )
    for step, side in itertools.product((1, -1), ("left", "right")):
        yield from _windowed(b, step, side)


def _off(b: Bench, step: int) -> Plan | None:
    """The queries stand elsewhere, for the mask alone."""
    own = b.plan.mask
    if own is None or b.plan.q_pos is None:
        return None

    def moved(at: Grid, seen: Tensor) -> Tensor:
        return own(dataclasses.replace(at, q_pos=at.q_pos + step)) if isinstance(at, Grid) else seen

    return hidden_by(b, moved)


def _windowed(b: Bench, step: int, side: str) -> Iterator[Suspicion]:
    """Each window of the mask one wider or narrower."""
    if b.plan.mask is None:
        return
    sizes = {str(p): p.get(side) for p in b.plan.mask.parts() if p.traits.is_window and p.get(side) >= 0}
    for old, size in sizes.items():
        for changed, _ in reworked("mask", b.plan.mask):
            now = [p for p in changed.parts() if p.traits.is_window and str(p) not in sizes]
            if len(now) == 1 and now[0].get(side) == size + step and str(changed).count("window") == len(sizes):
                word = "wide" if step > 0 else "narrow"
                says = f"with a window one too {word}: {now[0]} where {old} is meant; left and right count neighbours beside the query itself"
                yield Suspicion(f"window one too {word}", says, partial(b.chosen, mask=changed), 0)


# ── what the file hides ──────────────────────────────────────────────────────────────────────────
@fault
def files(b: Bench) -> Iterator[Suspicion]:
    """The file's mask inverted or ignored."""
    if b.plan.problem.mask is None:
        return
    truth = np.asarray(b.plan.problem.mask)
    says = "with the file's mask the wrong way round: true means may attend"
    yield Suspicion("file's mask inverted", says, partial(b.given, mask=~truth), 0)
    whole = np.ones_like(truth)
    yield Suspicion("file's mask ignored", "without the file's mask", partial(b.given, mask=whole), 0)


@fault
def lengths(b: Bench) -> Iterator[Suspicion]:
    """Padding that is seen, or more hidden than padding."""
    own, keys = b.plan.problem.lengths, b.plan.size.keys
    if own is None:
        return
    says = "without the lengths: padding is seen"
    yield Suspicion("lengths ignored", says, partial(b.given, lengths=None), 0)
    for step in (1, -1):
        changed = np.clip(np.asarray(own) + step, 0, keys)
        name = f"off by {step:+d}"
        yield Suspicion(f"lengths {name}", f"with each length {name}", partial(b.given, lengths=changed))
    if b.plan.size.queries == keys:
        says = "with the padded queries masked as well as the padded keys"
        yield Suspicion(
            "padded queries masked too", says, partial(hidden_by, b, lambda at, seen: seen & (at.q_idx < at.lengths))
        )


@fault
def biased(b: Bench) -> Iterator[Suspicion]:
    """A bias that is left out beside a mask; alone it is one of the links."""
    if b.plan.problem.bias is not None and hides(b):
        yield bias_forgotten(b)


def hides(b: Bench) -> bool:
    """Whether a mask or lengths are there to hide keys."""
    return b.plan.mask is not None or b.plan.problem.lengths is not None


def bias_forgotten(b: Bench) -> Suspicion:
    """No bias, which may hide keys too."""
    return Suspicion("bias forgotten", "without the bias", partial(b.given, bias=None), 0)
