"""Queries and keys that stand elsewhere, and parts that place them turned the wrong way, on one side only, or of the wrong sign."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from attncli.check.faults.base import Suspicion, fault
from attncli.check.plan_edits import part, relinked, with_part
from attncli.check.trials import Bench, beside
from attncli.plan import Plan
from attncli.types import Grid, Tensor


@fault
def places(b: Bench) -> Iterator[Suspicion]:
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
                which = "last" if first else "first"
                yield Suspicion(
                    f"{name} for {now}",
                    f"with positions aligned {name}: the {which} query stands beside the {which} key",
                    partial(dataclasses.replace, plan, q_pos=at, k_pos=np.arange(size.keys)),
                    0,
                )
    for n in (1, -1):
        off = f"off by {n:+d}"
        moved = partial(dataclasses.replace, plan, q_pos=plan.q_pos + n)
        yield Suspicion(f"query positions {off}", f"with the positions of the queries {off}", moved)
        moved = partial(moved, k_pos=plan.k_pos + n)
        yield Suspicion(f"all positions {off}", f"with all positions {off}: they count from 0", moved)


@fault
def turns(b: Bench) -> Iterator[Suspicion]:
    """What turns q and k, on one of them, the other way or on v too."""
    plan, name = b.plan, b.plan.variant.position.name
    if plan.q_pos is None or plan.variant.position.traits.acts_on != "qk":
        return
    for which, times in (("queries only", (1, 0)), ("keys only", (0, 1))):
        yield Suspicion(f"{name}: {which}", f"with {name} applied to {which}", partial(_turned, plan, times))
    says = f"with {name} turned the other way: −sin for sin"
    yield Suspicion(f"{name}: the other way round", says, partial(_turned, plan, (-1, -1)))
    if plan.shapes.c is not None:
        says = f"with {name} applied to v too: it belongs to q and k alone"
        yield Suspicion(f"{name} applied to v too", says, partial(_values_turned, b))


def _turned(plan: Plan, how: tuple[int, int]) -> Plan:
    own, turn = plan.variant.position, itertools.count()

    def run(x: Tensor, at: Tensor, length: int, learned: Mapping[str, Tensor]) -> Tensor:
        times = how[next(turn)]
        return own(x, at * times, length, learned)

    return with_part(plan, "position", part("position", "rewritten", run, own.traits))


def _values_turned(b: Bench) -> Plan | None:
    """v placed as the keys are: it takes their place for once, and what becomes of it is v."""
    base = b.direct
    if base is None or "normed_k" in base.steps or b.plan.shapes.kv_heads != b.plan.shapes.v_heads:
        return None
    placed = dataclasses.replace(
        b.again(dataclasses.replace(base.problem, k=base.problem.v), base.variant, ["positioned_k"])
    )
    v = Bench(placed, b.top).figures(placed)["positioned_k"]
    return b.rewritten(v=beside(b.plan, v))


@fault
def distances(b: Bench) -> Iterator[Suspicion]:
    """What is added to the scores by distance, of the wrong sign or slope."""
    plan, name = b.plan, b.plan.variant.position.name
    if plan.q_pos is None or plan.variant.position.traits.acts_on != "scores":
        return
    yield Suspicion(
        f"{name} with the wrong sign",
        f"with {name} of the wrong sign: it is added where it should be subtracted",
        lambda: relinked(plan, "position", lambda own, s, at: 2 * s - own.run(s, at)),
    )
    if not plan.variant.position.traits.has_head_slopes:
        return
    yield Suspicion(
        "alibi signed",
        "with ALiBi's distance signed, m (j − i): the paper's is −m |i − j|",
        lambda: relinked(plan, "position", lambda own, s, at: s + (s - own.run(s, at)) * (at.k_pos - at.q_pos).sign()),
    )
    heads = plan.shapes.heads

    def slopes(own: object, s: Tensor, at: Grid) -> Tensor:
        m = s.new_tensor([2 ** (-8 * (h + 1) / heads) for h in range(heads)]).reshape(-1, 1, 1)
        return s - m * abs(at.q_pos - at.k_pos)

    yield Suspicion(
        "alibi slopes 2^(−8h/H)",
        "with slopes 2^(−8h/H): for a number of heads that is no power of two the paper's are others",
        lambda: relinked(plan, "position", slopes),
    )
