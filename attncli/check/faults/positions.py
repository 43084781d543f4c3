"""Queries and keys that stand elsewhere, and parts that place them turned the wrong way, on one side only, or of the wrong sign."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import unregistered_part, with_link, with_part
from attncli.check.trials import Trials, merge_heads
from attncli.plan import Plan
from attncli.types import Grid, Tensor


@fault
def wrong_positions(trials: Trials) -> Iterator[Hypothesis]:
    """Queries and keys stand elsewhere."""
    plan, size = trials.plan, trials.plan.size
    if plan.q_pos is None:
        return
    starts = {"top-left": 0, "bottom-right": size.keys - size.queries}
    if size.queries != size.keys:
        for name, first in starts.items():
            at = np.arange(first, first + size.queries)
            if not np.array_equal(np.broadcast_to(plan.q_pos, at.shape) if plan.q_pos.ndim == 1 else plan.q_pos, at):
                now = "bottom-right" if name == "top-left" else "top-left"
                which = "last" if first else "first"
                yield Hypothesis(
                    f"{name} for {now}",
                    f"with positions aligned {name}: the {which} query stands beside the {which} key",
                    partial(dataclasses.replace, plan, q_pos=at, k_pos=np.arange(size.keys)),
                    0,
                )
    for n in (1, -1):
        off = f"off by {n:+d}"
        moved = partial(dataclasses.replace, plan, q_pos=plan.q_pos + n)
        yield Hypothesis(f"query positions {off}", f"with the positions of the queries {off}", moved)
        moved = partial(moved, k_pos=plan.k_pos + n)
        yield Hypothesis(f"all positions {off}", f"with all positions {off}: they count from 0", moved)


@fault
def wrong_rotation(trials: Trials) -> Iterator[Hypothesis]:
    """What turns q and k, on one of them, the other way or on v too."""
    plan, name = trials.plan, trials.plan.variant.position.name
    if plan.q_pos is None or plan.variant.position.traits.acts_on != "qk":
        return
    for which, times in (("queries only", (1, 0)), ("keys only", (0, 1))):
        yield Hypothesis(
            f"{name}: {which}", f"with {name} applied to {which}", partial(_with_rotation_factors, plan, times)
        )
    says = f"with {name} turned the other way: −sin for sin"
    yield Hypothesis(f"{name}: the other way round", says, partial(_with_rotation_factors, plan, (-1, -1)))
    if plan.shapes.c is not None:
        says = f"with {name} applied to v too: it belongs to q and k alone"
        yield Hypothesis(f"{name} applied to v too", says, partial(_rotate_values, trials))


def _with_rotation_factors(plan: Plan, factors: tuple[int, int]) -> Plan:
    own, turn = plan.variant.position, itertools.count()

    def run(x: Tensor, at: Tensor, length: int, learned: Mapping[str, Tensor]) -> Tensor:
        times = factors[next(turn)]
        return own(x, at * times, length, learned)

    return with_part(plan, "position", unregistered_part("position", "rewritten", run, own.traits))


def _rotate_values(trials: Trials) -> Plan | None:
    """v placed as the keys are: it takes their place for once, and what becomes of it is v."""
    base = trials.projected_plan
    if base is None or "normed_k" in base.steps or trials.plan.shapes.kv_heads != trials.plan.shapes.v_heads:
        return None
    placed = dataclasses.replace(
        trials.replan(dataclasses.replace(base.problem, k=base.problem.v), base.variant, ["positioned_k"])
    )
    v = Trials(placed, trials.top).compute_steps(placed)["positioned_k"]
    return trials.with_qkv(v=merge_heads(trials.plan, v))


@fault
def wrong_distance_bias(trials: Trials) -> Iterator[Hypothesis]:
    """What is added to the scores by distance, of the wrong sign or slope."""
    plan, name = trials.plan, trials.plan.variant.position.name
    if plan.q_pos is None or plan.variant.position.traits.acts_on != "scores":
        return
    yield Hypothesis(
        f"{name} with the wrong sign",
        f"with {name} of the wrong sign: it is added where it should be subtracted",
        lambda: with_link(plan, "position", lambda own, s, at: 2 * s - own.run(s, at)),
    )
    if not plan.variant.position.traits.has_head_slopes:
        return
    yield Hypothesis(
        "alibi signed",
        "with ALiBi's distance signed, m (j − i): the paper's is −m |i − j|",
        lambda: with_link(plan, "position", lambda own, s, at: s + (s - own.run(s, at)) * (at.k_pos - at.q_pos).sign()),
    )
    heads = plan.shapes.heads

    def slopes(own: object, s: Tensor, at: Grid) -> Tensor:
        m = s.new_tensor([2 ** (-8 * (h + 1) / heads) for h in range(heads)]).reshape(-1, 1, 1)
        return s - m * abs(at.q_pos - at.k_pos)

    yield Hypothesis(
        "alibi slopes 2^(−8h/H)",
        "with slopes 2^(−8h/H): for a number of heads that is no power of two the paper's are others",
        lambda: with_link(plan, "position", slopes),
    )
