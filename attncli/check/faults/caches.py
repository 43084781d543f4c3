"""A cache that is read or written wrongly: rotated again, restarted, in another order, a slot too early, empty."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import unregistered_part, with_mixed_weights, with_part, with_score
from attncli.check.trials import Trials
from attncli.plan import Plan
from attncli.registry import AnyPart
from attncli.types import NumpyArray, Tensor


@fault
def wrong_cache(trials: Trials) -> Iterator[Hypothesis]:
    """Cached keys and values are at another place, or changed."""
    plan, past = trials.plan, trials.plan.problem.past
    count = plan.size.past
    if past is None or not count:
        return
    zeros = {letter: np.zeros_like(np.asarray(x)) for letter, x in past.items()}
    yield Hypothesis(
        "cache of zeros",
        "with zeros for the past: the cache is made, but never filled",
        partial(trials.with_fields, past=zeros),
    )
    if len(past) == 2:
        for letter in past:
            yield Hypothesis(
                f"past {letter} of zeros",
                f"with zeros for the past of {letter}: it is never written to the cache",
                partial(trials.with_fields, past={**past, letter: zeros[letter]}),
            )
            for offset, text in ((1, "later"), (-1, "earlier")):
                rolled = np.roll(np.asarray(past[letter]), offset, -2)
                yield Hypothesis(
                    f"past {letter} one slot {text}",
                    f"with the past of {letter} one slot {text} than it belongs",
                    partial(trials.with_fields, past={**past, letter: rolled}),
                )
    keys, new = plan.size.keys, plan.size.new_keys
    reordered = np.concatenate([np.arange(count, keys), np.arange(count)])
    yield Hypothesis(
        "new keys before the past",
        "with the new keys and values before the past, and masked as if they came after it: append them",
        partial(_with_slots, plan, reordered, None),
    )
    early = np.concatenate([np.arange(count - 1), np.arange(count, keys), [keys - 1]])
    text = "with the new keys and values written one slot too early, over the last of the past"
    yield Hypothesis(
        "new keys one slot early", f"{text}; the last slot holds 0", partial(_with_slots, plan, early, 0.0)
    )
    yield Hypothesis(
        "new keys one slot early, last repeated",
        f"{text}; the last slot repeats them",
        partial(_with_slots, plan, early, None),
    )
    late = np.concatenate([np.arange(count), [count], np.arange(count, keys - 1)])
    if new > 1:
        yield Hypothesis(
            "new keys one slot late",
            "with the new keys and values one slot too late, the last of them lost",
            partial(_with_slots, plan, late, None),
        )
    if plan.variant.position.traits.acts_on == "qk":
        yield Hypothesis(
            "cached keys rotated again",
            f"with the cached keys given {plan.variant.position.name} once more: they were rotated when they were new",
            partial(_rotate_past, trials),
        )
        yield Hypothesis(
            "positions restarted",
            f"with the positions of the new tokens counted from 0 again: they go on from {count}, behind the past",
            partial(with_shifted_rotation, plan, -count, -count),
        )
        yield Hypothesis(
            "positions of queries restarted",
            f"with the positions of the queries alone counted from 0: they go on from {count}, behind the past",
            partial(with_shifted_rotation, plan, -count, 0),
        )


def _with_slots(plan: Plan, sources: NumpyArray, last: float | None) -> Plan | None:
    """Make the plan in which each slot holds the key and value of another one.

    Args:
        plan: without mixing of heads.
        sources: which key each slot holds.
        last: what is in the last slot, key and value; None: what its source says.
    """
    import torch

    index = torch.as_tensor(sources)

    def score(own: AnyPart, q: Tensor, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        k = k[..., index, :]
        if last is not None:
            k = torch.cat([k[..., :-1, :], k[..., -1:, :] * last], -2)
        s: Tensor = own(q, k, parameters)
        return s

    def to_values(w: Tensor) -> Tensor:
        if last is not None:
            w = torch.cat([w[..., :-1], w[..., -1:] * last], -1)
        return torch.zeros_like(w).index_add(-1, index, w)

    return with_mixed_weights(with_score(plan, score), to_values)


def _rotate_past(trials: Trials) -> Plan | None:
    """Apply the position to the past of k, at the positions that its keys have."""
    import torch

    plan = trials.plan
    assert plan.problem.past is not None
    k = torch.as_tensor(np.array(plan.problem.past["k"], np.float64))  # ([b] g, p, d)
    positions = np.asarray(plan.k_pos)[..., : plan.size.past]
    at = torch.as_tensor(positions)[..., None]  # ([b] p, 1)
    at = at[:, None] if at.dim() == 3 else at
    length = int(np.max(plan.k_pos)) + 1
    parameters = {name: torch.as_tensor(np.asarray(x)) for name, x in plan.problem.parameters.items()}
    rotated = plan.variant.position(k, at, length, parameters)
    return trials.with_fields(past={**plan.problem.past, "k": rotated.numpy()})


def with_shifted_rotation(plan: Plan, q_offset: int, k_offset: int) -> Plan:
    """Make the plan with the positions of q and of the new k shifted, for their rotation alone."""
    position, offsets = plan.variant.position, itertools.cycle((q_offset, k_offset))  # q is rotated first, then k

    def rotate(x: Tensor, positions: Tensor, length: int, parameters: Mapping[str, Tensor]) -> Tensor:
        rotated: Tensor = position(x, positions + next(offsets), length, parameters)
        return rotated

    return with_part(plan, "position", unregistered_part("position", "rewritten", rotate, position.traits))


@fault
def rotated_one_off(trials: Trials) -> Iterator[Hypothesis]:
    """The rotation, and not the mask, takes queries or keys to be at other positions."""
    plan = trials.plan
    if plan.q_pos is None or plan.variant.position.traits.acts_on != "qk":
        return
    name = plan.variant.position.name
    for offset, letter in itertools.product((1, -1), "qk"):
        what = "queries" if letter == "q" else "keys"
        offsets = (offset, 0) if letter == "q" else (0, offset)
        yield Hypothesis(
            f"{name}: positions of {what} off by {offset:+d}",
            f"with {name} of the {what} at positions off by {offset:+d}; the mask is right",
            partial(with_shifted_rotation, plan, *offsets),
            0 if letter == "q" else 1,
        )


@fault
def memory_forgotten(trials: Trials) -> Iterator[Hypothesis]:
    """Keys and values are made from the tokens that attend, not from the memory."""
    problem = trials.plan.problem
    if problem.memory is None or problem.embeddings is None:
        return
    yield Hypothesis(
        "memory forgotten",
        "with k and v made from the tokens that attend: in cross-attention they come from the memory",
        lambda: trials.replan(dataclasses.replace(problem, memory=None, k_tokens=None)),
        0,
    )
