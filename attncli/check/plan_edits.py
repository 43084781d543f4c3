"""How a plan is rewritten around the algebra: a part, a link or the mask replaced by another that no family knows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

from attncli.check.trials import Bench
from attncli.mask_expression import Expression
from attncli.parts.traits import MaskTraits, MixingTraits
from attncli.plan import Plan
from attncli.plan.chain import Link
from attncli.registry import AnyPart, Member, Option, Part, T, TraitsT
from attncli.types import Array, Grid, Tensor

Run: TypeAlias = Callable[..., Any]


class Loose(Member[TraitsT]):
    """A member of no family: it takes no options, and what it needs is bound in its function."""

    @property
    def options(self) -> tuple[Option, ...]:
        return ()


def part(family: str, name: str, run: Run, traits: T) -> Part[T]:
    """A part that stands in no family."""
    return Part(Loose(family, name, run, traits))


def with_part(plan: Plan, choice: str, made: AnyPart) -> Plan:
    """The plan with one part replaced."""
    return dataclasses.replace(plan, variant=plan.variant.but(**{choice: made}))


def normalised(plan: Plan, run: Run) -> Plan:
    """The plan with another normaliser: run(normaliser of the plan, scores, visible)."""
    own = plan.variant.normalizer

    def act(s: Tensor, seen: Tensor) -> Tensor:
        return run(own, s, s.new_ones(s.shape[-2:], dtype=bool) if seen is None else seen)

    return with_part(plan, "normalizer", part("normalizer", "rewritten", act, own.traits))


def scored(plan: Plan, run: Run) -> Plan:
    """The plan with another score: run(score of the plan, q, k, learned)."""
    own = plan.variant.score
    return with_part(plan, "score", part("score", "rewritten", partial(run, own), own.traits))


def uniform(_: object, s: Tensor, seen: Tensor) -> Tensor:
    """In the place of a normaliser: the same weight on every key that is seen."""
    seen = seen.expand(s.shape).to(s.dtype)
    return seen / seen.sum(-1, keepdim=True).clamp(min=1)  # (b, h, n, m)


def shifted(s: Tensor) -> Tensor:
    """Scores less the largest of their row; a row that sees nothing stays −∞."""
    top = s.amax(-1, keepdim=True)
    return s - top.masked_fill(top == -math.inf, 0)


def divided(x: Tensor, total: Tensor) -> Tensor:
    """x / total, and x itself where the total is 0: a row that sees nothing."""
    return x / total.masked_fill(total == 0, 1)


def chained(plan: Plan, links: Iterable[Link]) -> Plan:
    """The plan with another chain."""
    return dataclasses.replace(plan, chain=tuple(links))


def relinked(plan: Plan, name: str, run: Run) -> Plan | None:
    """The plan with one link doing something else: run(link of the plan, scores, grid). None where it is not there."""
    if not any(link.name == name for link in plan.chain):
        return None
    return chained(
        plan, [dataclasses.replace(x, run=partial(run, x)) if x.name == name else x for x in plan.chain]
    )  # fmt: skip


def contexts(plan: Plan, run: Run) -> Plan | None:
    """The plan with each head's context changed before heads are merged: run(z, learned, part)."""
    if plan.variant.head_mixing.traits.transform_context:
        return None
    return with_part(
        plan, "head_mixing", part("head-mixing", "rewritten", lambda w, _: w, MixingTraits(transform_context=run))
    )


def mixed(plan: Plan, run: Run) -> Plan | None:
    """The plan with the weights that meet v changed, once they are noted: run(w)."""
    if not plan.variant.head_mixing.is_none:
        return None
    return with_part(plan, "head_mixing", part("head-mixing", "rewritten", lambda w, _: run(w), MixingTraits()))


def hidden_by(bench: Bench, predicate: Callable[[Grid, Array], Array]) -> Plan:
    """Another mask: predicate(grid, what the plan's own mask lets through) → what is let through."""
    own = bench.plan.mask

    def seen(at: Grid) -> Tensor:
        return predicate(at, own(at) if own else at.k_idx >= 0)

    made = Expression("part", part("mask", "rewritten", seen, MaskTraits()))
    return bench.chosen(mask=made)


def unhidden(bench: Bench, run: Run) -> Plan | None:
    """Nothing is hidden by the algebra; where the mask stood there is run(scores, what the mask let through) instead."""
    plan = bench.plan
    if not plan.masked:
        return None
    seen = seen_by(plan)
    links = [
        dataclasses.replace(link, name="unmasked", is_mask=False, run=lambda s, _: run(s, seen))
        if link.is_mask
        else link
        for link in plan.chain
    ]
    return dataclasses.replace(
        plan, mask=None, masked=False, problem=dataclasses.replace(plan.problem, lengths=None), chain=tuple(links)
    )


def seen_by(plan: Plan) -> Tensor:
    """What mask, lengths and bias let through, as a tensor: (b|1, h|1, n, m)"""
    import numpy as np
    import torch

    from attncli.plan.visibility import visible

    seen = np.asarray(visible(plan.grid(), plan.mask))
    whole = np.broadcast_shapes(seen.shape, (1, 1, plan.size.queries, plan.size.keys))
    return torch.as_tensor(np.broadcast_to(seen, whole).copy())
