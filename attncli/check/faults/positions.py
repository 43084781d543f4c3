"""Queries and keys at other positions, and rotations or distance biases that are reversed, one-sided or of the wrong sign."""

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
    """Queries and keys stand at other positions."""
    plan, size = trials.plan, trials.plan.size
    if plan.q_pos is None:
        return
    if size.queries != size.keys:
        for name, other_name, first in (
            ("top-left", "bottom-right", 0),
            ("bottom-right", "top-left", size.keys - size.queries),
        ):
            q_pos = np.arange(first, first + size.queries)
            if not np.array_equal(plan.q_pos, q_pos):
                side = "last" if first else "first"
                description = f"with positions aligned {name}: the {side} query is next to the {side} key"
                if first and plan.problem.lengths is not None:
                    description = f"{description}, padding included, whatever the lengths of the items are"
                yield Hypothesis(
                    f"{name} for {other_name}",
                    description,
                    partial(dataclasses.replace, plan, q_pos=q_pos, k_pos=np.arange(size.keys)),
                    0,
                )
    for offset in (1, -1):
        q_pos, k_pos = plan.q_pos + offset, plan.k_pos + offset
        yield Hypothesis(
            f"query positions off by {offset:+d}",
            f"with the positions of the queries off by {offset:+d}",
            partial(dataclasses.replace, plan, q_pos=q_pos),
        )
        yield Hypothesis(
            f"all positions off by {offset:+d}",
            f"with all positions off by {offset:+d}: they count from 0",
            partial(dataclasses.replace, plan, q_pos=q_pos, k_pos=k_pos),
        )


@fault
def wrong_rotation(trials: Trials) -> Iterator[Hypothesis]:
    """The rotation of q and k is applied to one of them, reversed, or applied to v too."""
    plan, name = trials.plan, trials.plan.variant.position.name
    if plan.q_pos is None or plan.variant.position.traits.acts_on != "qk":
        return
    for sides, factors in (("queries only", (1, 0)), ("keys only", (0, 1))):
        yield Hypothesis(
            f"{name}: {sides}", f"with {name} applied to {sides}", partial(_with_rotation_factors, plan, factors)
        )
    yield Hypothesis(
        f"{name}: the other way round",
        f"with {name} turned the other way: −sin for sin",
        partial(_with_rotation_factors, plan, (-1, -1)),
    )
    if plan.shapes.c is not None:
        yield Hypothesis(
            f"{name} applied to v too",
            f"with {name} applied to v too: it belongs to q and k alone",
            partial(_rotate_values, trials),
        )


def _with_rotation_factors(plan: Plan, factors: tuple[int, int]) -> Plan:
    """Make the plan with the positions of q and of k multiplied, for their rotation alone."""
    position, call_numbers = plan.variant.position, itertools.count()  # q is rotated first, then k

    def rotate(x: Tensor, positions: Tensor, length: int, parameters: Mapping[str, Tensor]) -> Tensor:
        return position(x, positions * factors[next(call_numbers)], length, parameters)

    return with_part(plan, "position", unregistered_part("position", "rewritten", rotate, position.traits))


def _rotate_values(trials: Trials) -> Plan | None:
    """Make the projected plan with v rotated as k is; v is rotated in the place of k, in a plan of its own."""
    base = trials.projected_plan
    if base is None or "normed_k" in base.steps or trials.plan.shapes.kv_heads != trials.plan.shapes.v_heads:
        return None
    plan = trials.replan(dataclasses.replace(base.problem, k=base.problem.v), base.variant, ["positioned_k"])
    rotated = Trials(plan, trials.top).compute_steps(plan)["positioned_k"]
    return trials.with_qkv(v=merge_heads(trials.plan, rotated))


@fault
def wrong_distance_bias(trials: Trials) -> Iterator[Hypothesis]:
    """What is added to the scores by distance has the wrong sign or slope."""
    plan, name = trials.plan, trials.plan.variant.position.name
    if plan.q_pos is None or plan.variant.position.traits.acts_on != "scores":
        return
    yield Hypothesis(
        f"{name} with the wrong sign",
        f"with {name} of the wrong sign: it is added where it should be subtracted",
        lambda: with_link(plan, "position", lambda link, s, grid: 2 * s - link.run(s, grid)),
    )
    yield Hypothesis(
        f"{name} in the other direction",
        f"with {name} by i − j instead of j − i: it is the key's position less the query's",
        lambda: with_link(
            plan,
            "position",
            lambda link, s, grid: link.run(s, dataclasses.replace(grid, q_pos=-grid.q_pos, k_pos=-grid.k_pos)),
        ),
    )
    if not plan.variant.position.traits.has_head_slopes:
        return
    yield Hypothesis(
        "alibi signed",
        "with ALiBi's distance signed, m (j − i): the paper's is −m |i − j|",
        lambda: with_link(
            plan, "position", lambda link, s, grid: s + (s - link.run(s, grid)) * (grid.k_pos - grid.q_pos).sign()
        ),
    )
    heads = plan.shapes.heads

    def subtract_distance(_: object, s: Tensor, grid: Grid) -> Tensor:
        slopes = s.new_tensor([2 ** (-8 * (h + 1) / heads) for h in range(heads)]).reshape(-1, 1, 1)  # (h, 1, 1)
        return s - slopes * abs(grid.q_pos - grid.k_pos)

    yield Hypothesis(
        "alibi slopes 2^(−8h/H)",
        "with slopes 2^(−8h/H): if the number of heads is not a power of two, the paper uses others",
        lambda: with_link(plan, "position", subtract_distance),
    )
