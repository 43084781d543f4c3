"""The classic faults, each a small rewrite of the problem, the variant or the plan around the algebra. No family knows them.

A fault is `@fault` over a function (Bench) → suspicions: a name, a sentence that finishes “your weights are the reference …”,
and how to compute it. What a problem cannot show (heads where there are none) is not yielded, or gives no plan.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from attncli.check.bench import Bench
from attncli.check.claims import Claim
from attncli.check.rewrites import (
    contexts,
    hidden_by,
    mixed,
    normalised,
    part,
    relinked,
    scored,
    seen_by,
    unhidden,
    uniform,
    with_part,
)
from attncli.plan import Plan
from attncli.types import Grid
from attncli.variant import Variant

Figures = dict[str, np.ndarray]


@dataclass(frozen=True)
class Suspicion:
    """Something that figures may be instead."""

    name: str
    says: str
    compute: Callable[[], Plan | Figures | None]
    rank: int = 1  # how far-fetched: of several that fit, the lowest is named first
    kin: bool = False  # it need not give each figure: rounding errors that go the same way are enough
    same: tuple[str, ...] = ()  # steps that it leaves as they are, whatever its rewriting did to them
    cost: float = 0.0  # digits of the figures that it was made from
    flat: bool = False  # its mark is figures that are all alike
    rounds: bool = False  # rounding, looked for where nothing else fits
    base: bool = False  # common enough that other faults are tried on top of it


Fault = Callable[[Bench], Iterator[Suspicion]]
FAULTS: list[Fault] = []


def fault(function: Fault) -> Fault:
    """Register a fault."""
    FAULTS.append(function)
    return function


def suspicions(bench: Bench) -> Iterator[Suspicion]:
    """Every fault that this problem could show."""
    for one in FAULTS:
        yield from one(bench)


def _again(bench: Bench, **choices: Any) -> Callable[[], Plan]:
    return lambda: bench.again(variant=bench.plan.variant.but(**choices))


def _with(bench: Bench, **fields: Any) -> Callable[[], Plan]:
    return lambda: bench.again(dataclasses.replace(bench.plan.problem, **fields))


# ── scale ────────────────────────────────────────────────────────────────────────────────────────
@fault
def scale(b: Bench) -> Iterator[Suspicion]:
    """Not scaled, or by another number."""
    own = next((link for link in b.plan.chain if link.name == "scale"), None)
    d, heads = b.plan.shapes.d, b.plan.shapes.heads
    now = own.value if own and own.value else 1.0
    if own:
        root = own.why and f"1/√d_k (d_k = {d})"
        way = f"divide the scores by {1 / now:.6g}" if now < 1 else f"multiply the scores by {now:.6g}"
        yield Suspicion(
            "no scale",
            f"without {root or f'the scale {now:.6g}'}: {way} before the softmax",
            _again(b, scale="none"),
            0,
        )
    embeddings = b.plan.problem.embeddings
    width = embeddings.shape[-1] if embeddings is not None else d * heads
    others = (
        ("scale 1/d_k", f"1/d_k = 1/{d}", 1 / d, 1),
        ("scale 1/√d_model", f"1/√d_model = 1/√{width}", 1 / math.sqrt(width), 1),
        ("scale 1/√(heads · d_k)", f"1/√(heads · d_k) = 1/√{d * heads}", 1 / math.sqrt(d * heads), 1),
        ("scale 1/√d_k", f"1/√d_k = 1/√{d}", 1 / math.sqrt(d), 1),
        ("scale √d_k", f"√d_k = √{d}, multiplied instead of divided", math.sqrt(d), 1),
        ("scale d_k", f"d_k = {d}, multiplied instead of divided", float(d), 2),
        ("scale 1/√n", f"1/√n = 1/√{b.plan.size.keys}, n the number of keys", 1 / math.sqrt(b.plan.size.keys), 2),
        ("scale 1/d_model", f"1/d_model = 1/{width}", 1 / width, 2),
        ("scale applied twice", f"{now:.6g} twice", now**2, 2),
    )
    for name, what, value, rank in others:
        if not math.isclose(value, now):
            says = f"scaled by {what} instead of {own.why if own and own.why else f'{now:.6g}'}"
            yield Suspicion(name, says, _again(b, scale=value), rank, base=rank < 2)


# ── what the normaliser does ─────────────────────────────────────────────────────────────────────
def _over(axis: int) -> Callable[..., Any]:
    def run(own: Any, s: Any, seen: Any) -> Any:
        seen = seen.expand(s.shape)
        return own(s.movedim(axis, -1), seen.movedim(axis, -1)).movedim(-1, axis)

    return run


def _multiplied(factor: float) -> Callable[..., Any]:
    return lambda own, s, seen: own(s * factor, seen)


@fault
def normaliser(b: Bench) -> Iterator[Suspicion]:
    """Over the wrong axis, twice, in another base, or what is no normaliser at all."""
    plan, name = b.plan, b.plan.variant["normalizer"].name
    sink = plan.variant["sink"].name != "none"
    axes = {"the queries (columns sum to 1)": -2}
    axes |= {"the heads": 1} if plan.shapes.heads > 1 else {}
    axes |= {"the batch": 0} if (plan.size.batch or 1) > 1 else {}
    for what, axis in axes.items() if not sink else ():
        says = f"with {name} over {what} instead of the keys: normalise each row, over the last axis"
        yield Suspicion(f"{name} over {what.partition(' (')[0]}", says, partial(normalised, plan, _over(axis)), 0)

    def all_cells(own: Any, s: Any, seen: Any) -> Any:
        return own(s.flatten(-2), seen.expand(s.shape).flatten(-2)).unflatten(-1, s.shape[-2:])

    if not sink:
        says = f"with {name} over all cells of a head together: normalise each row by itself"
        yield Suspicion(f"{name} over all cells", says, lambda: normalised(plan, all_cells))
    yield Suspicion(
        f"{name} applied twice",
        f"with {name} applied twice",
        lambda: normalised(plan, lambda own, s, seen: own(own(s, seen), seen)),
    )
    if plan.masked:
        says = f"with {name} applied twice, the second time over hidden keys too"
        yield Suspicion(
            f"{name} applied twice, the second unmasked",
            says,
            lambda: normalised(plan, lambda own, s, seen: own(own(s, seen), seen | True)),
        )
    if not sink:
        yield Suspicion(
            "uniform weights",
            "with the same weight on every key that is seen (a mean), whatever the scores are",
            lambda: normalised(plan, uniform),
            0,
            flat=True,
        )
        if plan.masked:
            yield Suspicion(
                "uniform weights over all keys",
                "with the same weight on every key (a mean), hidden or not",
                lambda: normalised(plan, lambda own, s, seen: uniform(own, s, seen | True)),
                0,
                flat=True,
            )

        def by_norm(_: Any, s: Any, seen: Any) -> Any:
            s = s.masked_fill(~seen, 0)
            norm = s.square().sum(-1, keepdim=True).sqrt()
            return s / norm.masked_fill(norm == 0, 1)

        says = f"with each row of scores divided by its length (L2) instead of {name}"
        yield Suspicion("rows divided by their length", says, lambda: normalised(plan, by_norm))
    if name != "softmax":
        return
    for base, factor in (("2", math.log(2)), ("10", math.log(10))):
        yield Suspicion(
            f"softmax base {base}",
            f"with softmax to base {base}, {base}^s instead of e^s: use exp, or multiply the scores by 1/ln {base}",
            partial(normalised, plan, _multiplied(factor)),
        )

    def exponentials(shift: bool, total: Any = None) -> Callable[..., Any]:
        def run(_: Any, s: Any, seen: Any) -> Any:
            s = s.masked_fill(~seen, -math.inf)
            top = s.amax(-1, keepdim=True)
            e = (s - top.masked_fill(top == -math.inf, 0)).exp() if shift else s.exp()
            return e if total is None else e / total(e)

        return run

    yield Suspicion(
        "exponentials not divided", "with e^s not divided by their sum", lambda: normalised(plan, exponentials(False))
    )
    yield Suspicion(
        "exponentials not divided, max subtracted",
        "with e^(s − max) not divided by their sum",
        lambda: normalised(plan, exponentials(True)),
    )
    yield Suspicion(
        "divided by the norm",
        "with e^s divided by the root of their squares, not by their sum",
        lambda: normalised(plan, exponentials(True, lambda e: e.square().sum(-1, keepdim=True).sqrt())),
    )
    yield Suspicion(
        "divided by the number of keys",
        "with e^s divided by the number of keys, not by their sum",
        lambda: normalised(plan, exponentials(False, lambda e: e.shape[-1])),
    )
    yield Suspicion(
        "log-softmax",
        "with log-softmax for softmax: the weights are their logarithms",
        lambda: normalised(plan, lambda own, s, seen: own(s, seen).log()),
    )

    def naive_one(_: Any, s: Any, seen: Any) -> Any:
        s = s.masked_fill(~seen, -math.inf)
        e = (s - s.amax(-1, keepdim=True)).exp()
        return e / (1 + e.sum(-1, keepdim=True))

    yield Suspicion(
        "softmax1 with the 1 added after the largest was subtracted",
        "with 1 added to the denominator after the largest score was subtracted: it should be e^(−max)",
        lambda: normalised(plan, naive_one),
    )


# ── masks ────────────────────────────────────────────────────────────────────────────────────────
def _filled(value: float) -> Callable[..., Any]:
    return lambda s, seen: s.masked_fill(~seen, value)


def _lowered(value: float) -> Callable[..., Any]:
    return lambda s, seen: s + (~seen).to(s.dtype) * value


@fault
def mask_after(b: Bench) -> Iterator[Suspicion]:
    """The mask applied where it does not belong, or as numbers."""
    plan = b.plan
    if not plan.masked:
        return
    import torch

    seen = seen_by(plan)
    mask = plan.mask or ("lengths" if plan.problem.lengths is not None else "bias")

    def after() -> Plan | None:
        free = unhidden(b, lambda s, _: s)

        def run(own: Any, s: Any, visible: Any) -> Any:
            w, m = own(s, visible), seen.shape[-1]
            kept = w[..., :m] * seen
            return kept if w.shape[-1] == m else torch.cat([kept, w[..., m:]], -1)

        return normalised(free, run) if free else None

    yield Suspicion(
        "mask after softmax, not renormalised",
        "with the mask applied after the softmax and the rows not brought to sum 1 again: mask the scores with −∞ before it",
        after,
        0,
        same=("mask",),
    )
    yield Suspicion(
        "mask forgotten", f"without the mask ({mask})", lambda: unhidden(b, lambda s, _: s), 0, same=("mask",)
    )
    yield Suspicion(
        "0/1 mask added",
        "with the mask added to the scores as 0 and 1: true must keep a score and false make it −∞",
        lambda: unhidden(b, lambda s, m: s + m.to(s.dtype)),
        0,
        same=("mask",),
    )
    yield Suspicion(
        "inverted 0/1 mask added",
        "with 1 added to the scores that should be hidden: make them −∞",
        lambda: unhidden(b, lambda s, m: s + (~m).to(s.dtype)),
        same=("mask",),
    )
    yield Suspicion(
        "1 subtracted where hidden",
        "with 1 subtracted from the scores that should be hidden: make them −∞",
        lambda: unhidden(b, lambda s, m: s - (~m).to(s.dtype)),
        same=("mask",),
    )
    fills = {
        "0": 0.0,
        "−1": -1.0,
        "−100": -100.0,
        "−1e4": -1e4,
        "−1e9": -1e9,
        "−65504": -65504.0,
        "−1e10": -1e10,
        "−1e20": -1e20,
    }
    fills |= {
        "the least float32": float(np.finfo(np.float32).min),
        "1e-9": 1e-9,
        "−1e6": -1e6,
        "−1e5": -1e5,
        "−1e8": -1e8,
    }
    for name, value in fills.items():
        says = f"with hidden scores set to {name} instead of −∞: a row that sees nothing then spreads its weight over all keys"
        if abs(value) < 1000:
            says = f"with hidden scores set to {name} instead of −∞, so that hidden keys keep weight"
        rank = 1 if abs(value) >= 1 or not value else 3
        yield Suspicion(f"fill {name} instead of −∞", says, partial(unhidden, b, _filled(value)), rank, same=("mask",))
        if value <= -1e4:
            yield Suspicion(
                f"{name} added instead of −∞",
                f"with {name} added to the hidden scores instead of −∞: a row that sees nothing then attends as if nothing were hidden",
                partial(unhidden, b, _lowered(value)),
                same=("mask",),
            )
    yield Suspicion(
        "triu(ones) * -inf",
        "with a mask multiplied by −∞, where 0 × −∞ is NaN: fill with −∞ instead, or use where",
        lambda: unhidden(b, lambda s, m: s + m.to(s.dtype) * math.nan + s.new_zeros(()).masked_fill(~m, -math.inf)),
        0,
        same=("mask",),
        flat=any(c.step.startswith("weights") or "scores" in c.step for c in b.claims),
    )
    softcap = next((i for i, link in enumerate(plan.chain) if link.name == "softcap"), None)
    if softcap is not None:

        def leaking() -> Plan | None:
            free = unhidden(b, lambda s, m: s.masked_fill(~m, -math.inf))
            if free is None:
                return None
            links = list(free.chain)
            masked = links.pop(next(i for i, link in enumerate(links) if link.name == "unmasked"))
            at = next(i for i, link in enumerate(links) if link.name == "softcap")
            return dataclasses.replace(free, chain=(*links[:at], masked, *links[at:]))

        yield Suspicion(
            "softcap after the mask",
            "with the softcap after the mask: −∞ becomes −cap, and hidden keys get weight; cap the scores first",
            leaking,
            0,
            same=("mask",),
        )


def _diagonal(at: Any) -> Any:
    return at.k_pos == at.q_pos


@fault
def mask_wrong(b: Bench) -> Iterator[Suspicion]:
    """The mask lets through something else."""
    plan, p = b.plan, b.plan.problem
    placed = plan.q_pos is not None

    def other(run: Callable[[Any, Any], Any]) -> Callable[[], Plan]:
        return lambda: hidden_by(b, run)

    if placed:
        yield Suspicion(
            "diagonal hidden",
            "with each query's own key hidden too (j < i for j ≤ i): a token sees itself",
            other(lambda at, seen: seen & ~_diagonal(at)),
            0,
            base=plan.mask is not None,
        )
    if plan.mask is None and p.lengths is None:
        return
    if plan.mask is not None:
        yield Suspicion(
            "mask inverted",
            "with the mask the wrong way round: hidden where it should be seen; true means may attend",
            other(lambda at, seen: ~seen),
            0,
        )
        yield Suspicion(
            "mask inverted, diagonal kept",
            "with the other triangle: keys at and after the query, not before",
            other(lambda at, seen: ~seen | _diagonal(at)) if placed else other(lambda at, seen: ~seen),
            1,
        )
        if plan.size.queries == plan.size.keys:
            yield Suspicion(
                "mask transposed",
                "with rows and columns of the mask exchanged: rows are queries",
                other(lambda at, seen: (seen & (at.q_idx == at.q_idx) & (at.k_idx == at.k_idx)).swapaxes(-1, -2)),
                0,
            )
        for step, what in ((1, "one key too many"), (-1, "one key too few")):
            yield Suspicion(
                f"mask off by one: {what}",
                f"with a mask that is off by one: each query sees {what}",
                partial(_positioned, b, step, own=True),
                base=step > 0,
            )
        for side, part_name in itertools.product((1, -1), ("left", "right")):
            yield from _windowed(b, side, part_name)
    if p.mask is not None:
        truth = np.asarray(p.mask)
        yield Suspicion(
            "file's mask inverted",
            "with the file's mask the wrong way round: true means may attend",
            _with(b, mask=~truth),
            0,
        )
        yield Suspicion("file's mask ignored", "without the file's mask", _with(b, mask=np.ones_like(truth)), 0)
    if p.lengths is not None:
        keys = plan.size.keys
        yield Suspicion("lengths ignored", "without the lengths: padding is seen", _with(b, lengths=None), 0)
        for step in (1, -1):
            changed = np.clip(np.asarray(p.lengths) + step, 0, keys)
            yield Suspicion(
                f"lengths off by {step:+d}", f"with each length off by {step:+d}", _with(b, lengths=changed)
            )
        if plan.size.queries == keys:
            yield Suspicion(
                "padded queries masked too",
                "with the padded queries masked as well as the padded keys",
                other(lambda at, seen: seen & (at.q_idx < at.lengths)),
            )
    if p.bias is not None:
        yield Suspicion("bias forgotten", "without the bias", lambda: _unbiased(b), 0)


def _unbiased(b: Bench) -> Plan:
    return b.again(dataclasses.replace(b.plan.problem, bias=None))


def _windowed(b: Bench, step: int, side: str) -> Iterator[Suspicion]:
    """Each window of the mask one wider or narrower."""
    from attncli.check.choices import reworked

    if b.plan.mask is None:
        return
    sizes = {str(p): p.get(side) for p in b.plan.mask.parts() if p.name == "window" and p.get(side) >= 0}
    for old, size in sizes.items():
        for changed, _ in reworked("mask", b.plan.mask):
            now = [p for p in changed.parts() if p.name == "window" and str(p) not in sizes]
            if len(now) == 1 and now[0].get(side) == size + step and str(changed).count("window") == len(sizes):
                word = "wide" if step > 0 else "narrow"
                says = f"with a window one too {word}: {now[0]} where {old} is meant; left and right count neighbours beside the query itself"
                yield Suspicion(f"window one too {word}", says, _again(b, mask=changed), 0)


# ── positions ────────────────────────────────────────────────────────────────────────────────────
def _positioned(b: Bench, queries: int = 0, keys: int = 0, *, own: bool = False) -> Plan | None:
    """Positions moved; `own`: for the mask alone."""
    plan = b.plan
    if plan.q_pos is None:
        return None
    if own:

        def moved(at: Any, seen: Any) -> Any:
            if plan.mask is None or not isinstance(at, Grid):
                return seen
            return plan.mask(dataclasses.replace(at, q_pos=at.q_pos + queries))

        return hidden_by(b, moved)
    return dataclasses.replace(plan, q_pos=plan.q_pos + queries, k_pos=plan.k_pos + keys)


@fault
def positions(b: Bench) -> Iterator[Suspicion]:
    """Queries and keys stand elsewhere."""
    plan, size = b.plan, b.plan.size
    if plan.q_pos is None:
        return
    starts = {"top-left": 0, "bottom-right": size.keys - size.queries}
    if size.queries != size.keys:
        for name, first in starts.items():
            at = np.arange(first, first + size.queries)
            if not np.array_equal(np.broadcast_to(plan.q_pos, at.shape) if plan.q_pos.ndim == 1 else plan.q_pos, at):
                now = "bottom-right" if name == "top-left" else "top-left"
                yield Suspicion(
                    f"{name} for {now}",
                    f"with positions aligned {name}: the {'first' if not first else 'last'} query stands beside the {'first' if not first else 'last'} key",
                    partial(dataclasses.replace, plan, q_pos=at, k_pos=np.arange(size.keys)),
                    0,
                )
    for n in (1, -1):
        yield Suspicion(
            f"query positions off by {n:+d}",
            f"with the positions of the queries off by {n:+d}",
            partial(_positioned, b, n),
        )
        yield Suspicion(
            f"all positions off by {n:+d}",
            f"with all positions off by {n:+d}: they count from 0",
            partial(_positioned, b, n, n),
        )
    acts = plan.variant["position"].member.facts["acts"]
    if acts == "qk":
        for name, turned in (("queries only", (1, 0)), ("keys only", (0, 1)), ("the other way round", (-1, -1))):
            yield Suspicion(
                f"{plan.variant['position'].name}: {name}",
                f"with {plan.variant['position'].name} applied to {name}"
                if "only" in name
                else f"with {plan.variant['position'].name} turned the other way: −sin for sin",
                partial(_turned, plan, turned),
            )
        if plan.shapes.c is not None:
            name = plan.variant["position"].name
            says = f"with {name} applied to v too: it belongs to q and k alone"
            yield Suspicion(f"{name} applied to v too", says, lambda: _values_turned(b))
    if acts == "scores":
        name = plan.variant["position"].name
        yield Suspicion(
            f"{name} with the wrong sign",
            f"with {name} of the wrong sign: it is added where it should be subtracted",
            lambda: relinked(plan, "position", lambda own, s, at: 2 * s - own.run(s, at)),
        )
        if name == "alibi":
            yield Suspicion(
                "alibi signed",
                "with ALiBi's distance signed, m (j − i): the paper's is −m |i − j|",
                lambda: relinked(
                    plan, "position", lambda own, s, at: s + (s - own.run(s, at)) * (at.k_pos - at.q_pos).sign()
                ),
            )
            heads = plan.shapes.heads

            def slopes(own: Any, s: Any, at: Any) -> Any:
                m = s.new_tensor([2 ** (-8 * (h + 1) / heads) for h in range(heads)]).reshape(-1, 1, 1)
                return s - m * abs(at.q_pos - at.k_pos)

            yield Suspicion(
                "alibi slopes 2^(−8h/H)",
                "with slopes 2^(−8h/H): for a number of heads that is no power of two the paper's are others",
                lambda: relinked(plan, "position", slopes),
            )


def _turned(plan: Plan, how: tuple[int, int]) -> Plan:
    own, turn = plan.variant["position"], itertools.count()

    def run(x: Any, at: Any, length: Any, learned: Any) -> Any:
        times = how[next(turn)]
        return own(x, at * times, length, learned)

    return with_part(plan, "position", part("position", "rewritten", run, **own.member.facts))


def _values_turned(b: Bench) -> Plan | None:
    """v placed as the keys are: it takes their place for once, and what becomes of it is v."""
    base = b.direct
    if base is None or "normed_k" in base.steps or b.plan.shapes.kv_heads != b.plan.shapes.v_heads:
        return None
    placed = dataclasses.replace(
        b.again(dataclasses.replace(base.problem, k=base.problem.v), base.variant, ["positioned_k"])
    )
    v = Bench(placed, b.top).figures(placed)["positioned_k"]
    if b.plan.shapes.headed:  # (…, h, t, d) → (…, t, h·d)
        v = v.swapaxes(-2, -3).reshape(*v.shape[:-3], v.shape[-2], -1)
    return b.rewritten(v=v)


@fault
def bias(b: Bench) -> Iterator[Suspicion]:
    """What is added to the scores, the wrong way."""
    if b.plan.problem.bias is not None:
        yield Suspicion(
            "bias subtracted",
            "with the bias subtracted instead of added",
            lambda: relinked(b.plan, "bias", lambda own, s, at: 2 * s - own.run(s, at)),
        )
        if b.plan.mask is None and b.plan.problem.lengths is None:
            yield Suspicion("bias forgotten", "without the bias", lambda: _unbiased(b), 0)


@fault
def softcap(b: Bench) -> Iterator[Suspicion]:
    """The cap half done."""
    cap = b.plan.variant["softcap"]
    if isinstance(cap, int | float):
        yield Suspicion(
            "softcap without multiplying back",
            "with tanh(s / cap) not multiplied by the cap again",
            lambda: relinked(b.plan, "softcap", lambda own, s, at: own.run(s, at) / cap),
        )
        yield Suspicion(
            "softcap by clipping",
            "with the scores cut off at ±cap instead of bent by tanh",
            lambda: relinked(b.plan, "softcap", lambda own, s, at: s.clamp(-cap, cap)),
        )
        yield Suspicion(
            "softcap without dividing",
            "with cap · tanh(s), not tanh(s / cap)",
            lambda: relinked(b.plan, "softcap", lambda own, s, at: cap * s.tanh()),
        )


# ── heads ────────────────────────────────────────────────────────────────────────────────────────
def _columns(x: Any, heads: int, how: str) -> np.ndarray:
    """(…, t, h·d) with columns that belong to other heads."""
    x = np.asarray(x)
    t, width = x.shape[-2:]
    lead = x.shape[:-2]
    if how == "stride":  # column i belongs to head i mod h
        return x.reshape(*lead, t, width // heads, heads).swapaxes(-1, -2).reshape(x.shape)
    return x.reshape(*lead, heads, t, width // heads).swapaxes(-3, -2).reshape(x.shape)  # read as (h, t, d)


@fault
def heads(b: Bench) -> Iterator[Suspicion]:
    """Heads split or merged another way."""
    shapes = b.plan.shapes
    if not shapes.headed or shapes.heads == 1:
        return
    counts = {"q": shapes.heads, "k": shapes.kv_heads, "v": shapes.v_heads}
    letters = [x for x in counts if x != "v" or shapes.c is not None]

    def split(how: str, which: list[str]) -> Plan | None:
        base = b.direct
        return base and b.rewritten(**{x: _columns(getattr(base.problem, x), counts[x], how) for x in which})

    merged = {
        "merge": lambda z, *_: z.reshape(z.shape[0], z.shape[2], -1).unflatten(-1, (z.shape[1], -1)).transpose(1, 2),
        "stride": lambda z, *_: z.permute(0, 2, 3, 1).flatten(2).unflatten(-1, (z.shape[1], -1)).transpose(1, 2),
        "reverse": lambda z, *_: z.flip(1),
        "mean": lambda z, *_: z.mean(1, keepdim=True).expand(z.shape),
    }

    def also(plan: Plan | None, how: str) -> Plan | None:
        return contexts(plan, merged[how]) if plan else None

    stride = "with heads split by stride, column i belonging to head i mod H: a head takes columns side by side"
    view = "with q, k and v reshaped to (heads, tokens, d) without a transpose: reshape to (tokens, heads, d), then transpose"
    yield Suspicion("heads split by stride", stride, lambda: split("stride", letters), 0)
    yield Suspicion("heads split and merged by stride", stride, lambda: also(split("stride", letters), "stride"))
    yield Suspicion("heads split without a transpose", view, lambda: split("view", letters), 0)
    yield Suspicion("heads split and merged without a transpose", view, lambda: also(split("view", letters), "merge"))
    for x in letters:
        yield Suspicion(
            f"heads of {x} split by stride", f"with the heads of {x} split by stride", partial(split, "stride", [x])
        )
    yield Suspicion(
        "heads merged without a transpose",
        "with heads reshaped to one context without a transpose: transpose to (tokens, heads, d) first",
        lambda: also(b.plan, "merge"),
        0,
    )
    yield Suspicion(
        "heads merged by stride",
        "with the heads' columns interleaved in the context: put heads side by side",
        lambda: also(b.plan, "stride"),
    )
    yield Suspicion(
        "heads merged in reverse", "with the heads side by side in reverse order", lambda: also(b.plan, "reverse")
    )
    yield Suspicion(
        "heads averaged", "with each head's context replaced by the mean of all", lambda: also(b.plan, "mean")
    )
    if shapes.kv_heads < shapes.heads:

        def one(which: int) -> Plan | None:
            base = b.direct
            if base is None:
                return None
            d = {x: np.asarray(getattr(base.problem, x)) for x in letters if x != "q"}
            width = {x: y.shape[-1] // counts[x] for x, y in d.items()}
            return b.rewritten(
                **{x: np.tile(y[..., which * width[x] : (which + 1) * width[x]], counts[x]) for x, y in d.items()}
            )

        yield Suspicion("all heads on kv head 0", "with every query head reading the first kv head", lambda: one(0))
        if shapes.kv_heads > 1:
            tile = b.plan.variant["kv_map"] != "tile"
            name = "kv heads tiled instead of interleaved" if tile else "kv heads interleaved instead of tiled"
            groups = shapes.heads // shapes.kv_heads
            says = f"with {name}: query head h should read kv head {f'⌊h / {groups}⌋' if tile else f'h mod {shapes.kv_heads}'}"
            yield Suspicion(name, says, _again(b, kv_map="tile" if tile else "interleave"), 0)


# ── what q, k and v are made of ──────────────────────────────────────────────────────────────────
@fault
def matrices(b: Bench) -> Iterator[Suspicion]:
    """Learned matrices the wrong way, exchanged or forgotten."""
    plan, p = b.plan, b.plan.problem
    held = dict(p.parameters)
    named = [f"w_{x}" for x in "qkvo" if f"w_{x}" in held]
    if plan.variant["projection"].name != "given":
        named = []
    if p.embeddings is None:
        named = [n for n in named if n == "w_o"]
    square = [n for n in named if np.asarray(held[n]).shape[0] == np.asarray(held[n]).shape[1]]
    shown = {n: "W_" + n[2:] for n in named}

    def changed(**arrays: Any) -> Callable[[], Plan]:
        return _with(b, parameters={k: v for k, v in {**held, **arrays}.items() if v is not None})

    def turned(which: list[str]) -> Callable[[], Plan]:
        return changed(**{n: np.ascontiguousarray(np.asarray(held[n]).T) for n in which})

    way = "x @ W, or x @ W.T for what nn.Linear stores (w_layout out-in)"
    groups = [g for g in ([*square], [n for n in square if n != "w_o"]) if len(g) > 1]
    for group in [list(g) for g in dict.fromkeys(map(tuple, groups))]:
        names = ", ".join(shown[n] for n in group)
        yield Suspicion(f"{names} transposed", f"with {names} transposed: {way}", turned(group), 0)
    for n in square:
        yield Suspicion(f"{shown[n]} transposed", f"with {shown[n]} transposed: {way}", turned([n]), 0, base=True)
    for n in named:
        x = n[2:]
        rest = [k for k in (n, f"b_{x}") if k in held]
        if x != "o":
            says = f"with {x} not projected: it is x itself, not x {shown[n]}"
            yield Suspicion(f"{x} not projected", says, changed(**dict.fromkeys(rest)), 0)
        else:
            yield Suspicion(
                "W_o forgotten", "without W_o: the output is the context itself", changed(**dict.fromkeys(rest)), 0
            )
    biases = [f"b_{x}" for x in "qkvo" if f"b_{x}" in held]
    if len(biases) > 1:
        yield Suspicion("biases forgotten", "without the projections' biases", changed(**dict.fromkeys(biases)), 0)
    for n in biases:
        yield Suspicion(f"{n} forgotten", f"without the bias {n}", changed(**{n: None}), 0)
    for one, other in itertools.combinations([n for n in named if n != "w_o"], 2):
        swap = {one: held[other], other: held[one]}
        pair = {f"b_{one[2:]}": held.get(f"b_{other[2:]}"), f"b_{other[2:]}": held.get(f"b_{one[2:]}")}
        yield Suspicion(
            f"{shown[one]} and {shown[other]} exchanged",
            f"with {shown[one]} and {shown[other]} exchanged",
            changed(**swap, **pair),
        )
    for n in ("score_w_q", "score_w_k"):
        if n in held and np.asarray(held[n]).shape[0] == np.asarray(held[n]).shape[-1]:
            yield Suspicion(f"{n} transposed", f"with {n} transposed", turned([n]))
    if "sinks" in held:
        value = plan.variant["scale"]
        now = next(
            (link.value for link in plan.chain if link.name == "scale"), value if isinstance(value, float) else None
        )
        if now:
            yield Suspicion(
                "sinks scaled",
                "with the sinks scaled like the scores: a sink's logit is taken as it is",
                changed(sinks=np.asarray(held["sinks"]) * now),
            )
    if p.past is not None:
        yield Suspicion("past forgotten", "without the past: only the new keys are attended to", _with(b, past=None), 0)


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
    if c is not None:
        yield Suspicion("keys for values", "with k in the place of v: the context is weights · v", lambda: taken(v="k"))
        yield Suspicion("queries for values", "with q in the place of v", lambda: taken(v="q"))
        yield Suspicion("k and v swapped", "with k and v exchanged", lambda: taken(v="k", k="v"))
        yield Suspicion("q and v swapped", "with q and v exchanged", lambda: taken(v="q", q="v"))
        x = b.plan.problem.embeddings
        if x is not None and b.plan.problem.memory is None:
            many = np.asarray(x, np.float64)
            yield Suspicion(
                "v not projected", "with v not projected: it is x itself, not x W_v", lambda: b.rewritten(v=many), 0
            )


# ── what is done with the weights ────────────────────────────────────────────────────────────────
@fault
def values(b: Bench) -> Iterator[Suspicion]:
    """The weights meet v the wrong way."""
    plan = b.plan
    if plan.shapes.c is None:
        return
    if plan.size.queries == plan.size.keys:
        says = "with the weights transposed where they meet v: context = weights · v, not weightsᵀ · v"
        yield Suspicion("weights transposed", says, lambda: mixed(plan, lambda w: w.mT), 0)

    def scores_instead() -> Plan | None:
        held: dict[str, Any] = {}

        def keep(own: Any, s: Any, seen: Any) -> Any:
            held["s"] = s.masked_fill(~seen, 0)
            return own(s, seen)

        return mixed(normalised(plan, keep), lambda w: held["s"][..., : w.shape[-1]])

    yield Suspicion(
        "values weighted by scores", "with the values weighted by the scores, not by the weights", scores_instead, 0
    )
    if plan.shapes.heads > 1 and plan.variant["head_mixing"].name == "none":
        says = "with the weights averaged over heads before they meet v"
        yield Suspicion(
            "weights averaged over heads", says, lambda: mixed(plan, lambda w: w.mean(1, keepdim=True).expand(w.shape))
        )
    if plan.variant["sink"].name != "none":
        says = "with the weights brought to sum 1 again after the sink was taken off"
        run = lambda own, s, seen: _summing(own(s, seen), plan.size.keys)  # noqa: E731
        yield Suspicion("sink renormalised away", says, lambda: normalised(plan, run))
    x = plan.problem.embeddings
    if x is not None:

        def added() -> Figures:
            out = b.figures(plan)
            for step in ("context", "output"):
                if step in out and out[step].shape == x.shape and (step == "output" or "output" not in plan.steps):
                    out[step] = out[step] + np.asarray(x)
            return out

        yield Suspicion("residual added", "with the embeddings added (a residual connection)", added)
        if "output" in plan.steps:

            def inside(z: Any, *_: Any) -> Any:
                import torch

                beside = torch.as_tensor(np.array(x, np.float64)).unflatten(-1, (z.shape[1], -1))  # ([b] n, h, c)
                return z + (beside if beside.dim() == 4 else beside[None]).transpose(1, 2)

            says = "with the embeddings added to the context (a residual connection)"
            yield Suspicion("residual added to the context", says, lambda: contexts(plan, inside))


def _summing(w: Any, keys: int) -> Any:
    total = w[..., :keys].sum(-1, keepdim=True)
    return w / total.masked_fill(total == 0, 1)


@fault
def statistics(b: Bench) -> Iterator[Suspicion]:
    """Row statistics in other units."""
    units = {
        "log_sum_exp": {"base 2": 1 / math.log(2), "base 10": 1 / math.log(10)},
        "entropy": {"nats": math.log(2), "base 10": math.log10(2)},
    }
    for step, factors in units.items():
        if step not in b.claimed:
            continue
        for name, factor in factors.items():

            def scaled(step: str = step, factor: float = factor) -> Figures:
                out = b.figures(b.plan)
                return {**out, step: out[step] * factor}

            said = "in bits" if step == "entropy" else "the natural logarithm"
            yield Suspicion(f"{step} in {name}", f"with {step} in {name}: it is {said}", scaled, 0)
    if "log_sum_exp" in b.claimed:

        def unshifted() -> Figures:
            out = b.figures(dataclasses.replace(b.plan, keep=b.plan.keep | {"max_score"}))
            return {**out, "log_sum_exp": out["log_sum_exp"] - out["max_score"]}

        yield Suspicion(
            "log_sum_exp without the largest",
            "without the largest score added again after it was subtracted",
            unshifted,
            0,
        )
        yield Suspicion(
            "sum of exponentials without the logarithm",
            "without the logarithm",
            lambda: _moved(b, "log_sum_exp", np.exp),
        )
    if "entropy" in b.claimed:
        yield Suspicion(
            "entropy with the wrong sign",
            "with the sign of the entropy turned",
            lambda: _moved(b, "entropy", np.negative),
        )


def _moved(b: Bench, step: str, run: Callable[[np.ndarray], np.ndarray]) -> Figures:
    out = b.figures(b.plan)
    return {**out, step: run(out[step])}


# ── dropout ──────────────────────────────────────────────────────────────────────────────────────
@fault
def dropout(b: Bench) -> Iterator[Suspicion]:
    """Dropout left on, seen in the weights that are claimed; or not rescaled where it belongs."""
    plan = b.plan
    claim: Claim | None = next((c for c in b.claims if c.step == "weights" and c.whole), None)
    if claim is not None:
        from attncli.check.claims import block, full_shape

        mine = block(claim, full_shape(plan, "weights"))
        right = b.figures(plan)["weights"]
        gone = (mine == 0) & (right != 0)
        kept = (mine != 0) & (right != 0)
        if gone.any() and kept.any():
            ratio = float(np.median(mine[kept] / right[kept]))
            p = 1 - 1 / ratio if ratio > 0 else 0.0
            p = round(p, 2) if abs(p - round(p, 2)) < 2e-3 else p
            cost = 0.35 * float((right != 0).sum()) / 2
            for factor, says in (
                (
                    1 / (1 - p) if p < 1 else 1.0,
                    f"with dropout left on: {int(gone.sum())} weights are 0 and the others divided by 1 − p, p = {p:.2g}; switch it off, as eval() does",
                ),
                (
                    1.0,
                    f"with dropout left on, and not rescaled: {int(gone.sum())} weights are 0 and the others as they were",
                ),
            ):
                if factor != 1.0 and not 0.005 < p < 0.995:
                    continue
                yield Suspicion("dropout left on", says, partial(_dropped, b, ~gone, factor), 0, cost=cost)
    own = plan.variant["dropout"]
    if own.name != "none":
        p = own.get("p")
        yield Suspicion("dropout not applied", "without dropout", _again(b, dropout=Variant()["dropout"]), 0)

        def unscaled() -> Plan | None:
            return mixed(plan, lambda w: w * (1 - p))

        def figures() -> Figures | None:
            made = unscaled()
            if made is None:
                return None
            out = b.figures(made)
            return {
                **out,
                **({"dropout_weights": out["dropout_weights"] * (1 - p)} if "dropout_weights" in out else {}),
            }

        yield Suspicion("dropout not rescaled", f"with dropout not divided by 1 − p = {1 - p:.4g}", figures, 0)


def _dropped(b: Bench, kept: np.ndarray, factor: float) -> Plan:
    import torch

    mask = torch.as_tensor(kept)
    if b.plan.size.batch is None:
        mask = mask[None]
    if not b.plan.shapes.headed:
        mask = mask[:, None]  # (b, h, n, m)
    return normalised(b.plan, lambda own, s, seen: own(s, seen) * mask.to(s.dtype) * factor)


# ── rounding ─────────────────────────────────────────────────────────────────────────────────────
def _each(b: Bench, rounding: Callable[[Any], Any], where: tuple[str, ...]) -> Plan:
    """The plan with some intermediates rounded."""
    plan = b.plan
    if "scores" in where:
        plan = scored(plan, lambda own, q, k, learned: rounding(own(q, k, learned)))
    if ("chain" in where or "scaled" in where) and plan.chain:
        links = [
            dataclasses.replace(x, run=lambda s, at, x=x: rounding(x.run(s, at)))
            if "chain" in where or x.name == "scale"
            else x
            for x in plan.chain
        ]
        plan = dataclasses.replace(plan, chain=tuple(links))
    if "exponentials" in where:

        def run(_: Any, s: Any, seen: Any) -> Any:
            s = s.masked_fill(~seen, -math.inf)
            if "shifted" in where:
                top = s.amax(-1, keepdim=True)
                s = s - top.masked_fill(top == -math.inf, 0)
            e = rounding(s.exp())
            total = rounding(e.sum(-1, keepdim=True))
            w = (e / total.masked_fill(total == 0, 1)).masked_fill(~seen, 0)
            return rounding(w) if "weights" in where else w

        plan = normalised(plan, run)
    elif "weights" in where:
        plan = normalised(plan, lambda own, s, seen: rounding(own(s, seen)))
    if "context" in where and plan.shapes.c is not None:
        plan = contexts(plan, lambda z, *_: rounding(z)) or plan
    return plan


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


def _rounded(digits: int) -> Callable[[Any], Any]:
    return lambda x: x.round(decimals=digits)


def _cut(factor: float) -> Callable[[Any], Any]:
    return lambda x: (x * factor).trunc() / factor


@fault
def by_hand(b: Bench) -> Iterator[Suspicion]:
    """Intermediates rounded to n digits."""
    softmax = b.plan.variant["normalizer"].name == "softmax" and b.plan.variant["sink"].name == "none"
    for n in range(1, 7):
        for what, where in _ROUNDED.items():
            if "exponentials" in where and not softmax:
                continue
            for how, verb, rounding in (
                ("rounded to", "rounded to", _rounded(n)),
                ("cut to", "cut off after", _cut(10.0**n)),
            ):
                compute = partial(_given_narrow if "qkv" in where else _each, b, rounding, where)
                yield Suspicion(
                    f"{what} {how} {n} digit{'s' * (n > 1)}",
                    f"with {what} {verb} {n} decimal{'s' * (n > 1)} on the way: keep all digits until the end",
                    compute,
                    3,
                    kin=True,  # a tie may fall to the other side
                    rounds=True,
                )


@fault
def half(b: Bench) -> Iterator[Suspicion]:
    """Arithmetic of few bits, told by errors that go the same way."""
    import torch

    for dtype in ("float16", "bfloat16", "float32"):
        kind = getattr(torch, dtype)

        def narrow(x: Any, kind: Any = kind) -> Any:
            return x.to(kind).to(x.dtype)

        places: dict[str, Callable[[], Plan | None]] = {
            "scores and weights": partial(_each, b, narrow, ("scores", "chain", "weights")),
            "scores": partial(_each, b, narrow, ("scores", "chain")),
            "weights": partial(_each, b, narrow, ("weights",)),
            "inputs": partial(_stored, b, dtype),
            "all arithmetic": _again(b, dtype=dtype),
            "q, k and v": partial(_given_narrow, b, narrow),
            "q, k, v, scores and weights": partial(_given_narrow, b, narrow, ("scores", "chain", "weights")),
            "inputs, scores and weights": partial(_all_narrow, b, dtype, narrow),
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


def _all_narrow(b: Bench, dtype: str, rounding: Callable[[Any], Any]) -> Plan:
    """Inputs, scores and weights rounded alike."""
    return _each(Bench(_stored(b, dtype), b.top), rounding, ("scores", "chain", "weights"))


def _given_narrow(b: Bench, rounding: Callable[[Any], Any], where: tuple[str, ...] = ()) -> Plan | None:
    """q, k and v rounded, and other intermediates with them."""
    import torch

    base = b.direct
    if base is None:
        return None
    arrays = {x: getattr(base.problem, x) for x in "qkv" if getattr(base.problem, x) is not None}
    made = b.rewritten(**{x: rounding(torch.as_tensor(np.array(y, np.float64))).numpy() for x, y in arrays.items()})
    return made and _each(Bench(made, b.top), rounding, where)


def _stored(b: Bench, dtype: str) -> Plan:
    """Every array of the problem rounded to a dtype."""
    import torch

    def narrow(x: Any) -> Any:
        return torch.as_tensor(np.array(x, np.float64)).to(getattr(torch, dtype)).double().numpy()

    p = b.plan.problem
    fields: dict[str, Any] = {
        x: narrow(getattr(p, x)) for x in ("embeddings", "q", "k", "v", "bias") if getattr(p, x) is not None
    }
    fields["parameters"] = {k: narrow(x) for k, x in p.parameters.items()}
    if p.memory:
        fields["memory"] = {**p.memory, "embeddings": narrow(p.memory["embeddings"])}
    if p.past:
        fields["past"] = {k: x if k == "tokens" else narrow(x) for k, x in p.past.items()}
    return b.again(dataclasses.replace(p, **fields))


def _accumulated(_: Any, q: Any, k: Any, learned: Any) -> Any:
    """q·k with every product and sum rounded to float16."""
    q, k = q.half(), k.half()
    total = q.new_zeros(()).half()
    for i in range(q.shape[-1]):
        total = (total + (q[..., :, None, i] * k[..., None, :, i])).half()
    return total.double()
