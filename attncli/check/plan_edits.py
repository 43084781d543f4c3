"""How a plan is rewritten around the algebra: a part, a link or the mask replaced by another that no family knows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

from attncli.check.trials import Trials
from attncli.mask_expression import MaskExpression
from attncli.parts.traits import MaskTraits, MixingTraits
from attncli.plan import Plan
from attncli.plan.chain import Link
from attncli.registry import AnyPart, Member, Option, Part, T, TraitsT
from attncli.types import Array, Grid, Tensor

Replacement: TypeAlias = Callable[..., Any]


class UnregisteredMember(Member[TraitsT]):
    """A member of no family: it takes no options, and what it needs is bound in its function."""

    @property
    def options(self) -> tuple[Option, ...]:
        return ()


def unregistered_part(family: str, name: str, function: Replacement, traits: T) -> Part[T]:
    """A part that stands in no family."""
    return Part(UnregisteredMember(family, name, function, traits))


def with_part(plan: Plan, choice_name: str, part: AnyPart) -> Plan:
    """The plan with one part replaced."""
    return dataclasses.replace(plan, variant=plan.variant.replace(**{choice_name: part}))


def with_normalizer(plan: Plan, replacement: Replacement) -> Plan:
    """The plan with another normaliser: run(normaliser of the plan, scores, visible)."""
    own = plan.variant.normalizer

    def act(s: Tensor, seen: Tensor) -> Tensor:
        return replacement(own, s, s.new_ones(s.shape[-2:], dtype=bool) if seen is None else seen)

    return with_part(plan, "normalizer", unregistered_part("normalizer", "rewritten", act, own.traits))


def with_score(plan: Plan, replacement: Replacement) -> Plan:
    """The plan with another score: run(score of the plan, q, k, learned)."""
    own = plan.variant.score
    return with_part(plan, "score", unregistered_part("score", "rewritten", partial(replacement, own), own.traits))


def equal_weights(_: object, s: Tensor, visible: Tensor) -> Tensor:
    """In the place of a normaliser: the same weight on every key that is seen."""
    visible = visible.expand(s.shape).to(s.dtype)
    return visible / visible.sum(-1, keepdim=True).clamp(min=1)  # (b, h, n, m)


def subtract_row_max(scores: Tensor) -> Tensor:
    """Scores less the largest of their row; a row that sees nothing stays −∞."""
    top = scores.amax(-1, keepdim=True)
    return scores - top.masked_fill(top == -math.inf, 0)


def divide_where_nonzero(numerator: Tensor, denominator: Tensor) -> Tensor:
    """x / total, and x itself where the total is 0: a row that sees nothing."""
    return numerator / denominator.masked_fill(denominator == 0, 1)


def with_chain(plan: Plan, links: Iterable[Link]) -> Plan:
    """The plan with another chain."""
    return dataclasses.replace(plan, chain=tuple(links))


def with_link(plan: Plan, name: str, replacement: Replacement) -> Plan | None:
    """The plan with one link doing something else: run(link of the plan, scores, grid). None where it is not there."""
    if not any(link.name == name for link in plan.chain):
        return None
    return with_chain(
        plan, [dataclasses.replace(x, run=partial(replacement, x)) if x.name == name else x for x in plan.chain]
    )  # fmt: skip


def with_head_context(plan: Plan, replacement: Replacement) -> Plan | None:
    """The plan with each head's context changed before heads are merged: run(z, learned, part)."""
    if plan.variant.head_mixing.traits.transform_context:
        return None
    return with_part(
        plan,
        "head_mixing",
        unregistered_part("head-mixing", "rewritten", lambda w, _: w, MixingTraits(transform_context=replacement)),
    )


def with_mixed_weights(plan: Plan, replacement: Replacement) -> Plan | None:
    """The plan with the weights that meet v changed, once they are noted: run(w)."""
    if not plan.variant.head_mixing.is_none:
        return None
    return with_part(
        plan, "head_mixing", unregistered_part("head-mixing", "rewritten", lambda w, _: replacement(w), MixingTraits())
    )


def with_mask(trials: Trials, predicate: Callable[[Grid, Array], Array]) -> Plan:
    """Another mask: predicate(grid, what the plan's own mask lets through) → what is let through."""
    own = trials.plan.mask

    def seen(at: Grid) -> Tensor:
        return predicate(at, own(at) if own else at.k_idx >= 0)

    made = MaskExpression("part", unregistered_part("mask", "rewritten", seen, MaskTraits()))
    return trials.with_choices(mask=made)


def with_mask_link(trials: Trials, replacement: Replacement) -> Plan | None:
    """Nothing is hidden by the algebra; where the mask stood there is run(scores, what the mask let through) instead."""
    plan = trials.plan
    if not plan.is_masked:
        return None
    seen = visible_cells(plan)
    links = [
        dataclasses.replace(link, name="unmasked", is_mask=False, run=lambda s, _: replacement(s, seen))
        if link.is_mask
        else link
        for link in plan.chain
    ]
    return dataclasses.replace(
        plan, mask=None, is_masked=False, problem=dataclasses.replace(plan.problem, lengths=None), chain=tuple(links)
    )


def visible_cells(plan: Plan) -> Tensor:
    """What mask, lengths and bias let through, as a tensor: (b|1, h|1, n, m)"""
    import numpy as np
    import torch

    from attncli.plan.visibility import compute_visibility

    seen = np.asarray(compute_visibility(plan.make_grid(), plan.mask))
    whole = np.broadcast_shapes(seen.shape, (1, 1, plan.size.queries, plan.size.keys))
    return torch.as_tensor(np.broadcast_to(seen, whole).copy())
