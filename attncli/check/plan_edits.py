"""Editing a plan around the algebra: a part, a link or the mask is replaced by one that no family knows.

Each function takes a plan, or the trials of one, and returns the edited plan; None where there is nothing to replace.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias

import numpy as np

from attncli.check.trials import Trials
from attncli.mask_expression import MaskExpression
from attncli.parts.traits import MaskTraits, MixingTraits
from attncli.plan import Plan
from attncli.plan.chain import Link
from attncli.plan.visibility import compute_visibility
from attncli.registry import AnyPart, Member, Option, Part, T, TraitsT
from attncli.types import Array, Grid, Tensor

Replacement: TypeAlias = Callable[..., Tensor]  # in place of the function of a part, of whichever family


# ── parts ────────────────────────────────────────────────────────────────────────────────────────
class UnregisteredMember(Member[TraitsT]):
    """A member of no family: it takes no options, and what it needs is bound in its function."""

    @property
    def options(self) -> tuple[Option, ...]:
        return ()


def unregistered_part(family: str, name: str, function: Replacement, traits: T) -> Part[T]:
    """Make a part that stands in no family; the formula is not spelled from its options, since it has none."""
    without_formula = type(traits)(**vars(traits) | {"formula_of_options": None})
    return Part(UnregisteredMember(family, name, function, without_formula))


def with_part(plan: Plan, choice_name: str, part: AnyPart) -> Plan:
    """Replace the part of a choice."""
    return dataclasses.replace(plan, variant=plan.variant.replace(**{choice_name: part}))


def with_normalizer(plan: Plan, replacement: Replacement) -> Plan:
    """Replace the normaliser by replacement(normaliser of the plan, scores, visible)."""
    import torch

    normalizer = plan.variant.normalizer

    def normalize(s: Tensor, visible: Tensor | None) -> Tensor:
        if visible is None:
            visible = s.new_ones(s.shape[-2:], dtype=torch.bool)
        return replacement(normalizer, s, visible)

    return with_part(plan, "normalizer", unregistered_part("normalizer", "rewritten", normalize, normalizer.traits))


def with_score(plan: Plan, replacement: Replacement) -> Plan:
    """Replace the score by replacement(score of the plan, q, k, parameters)."""
    score = plan.variant.score
    return with_part(plan, "score", unregistered_part("score", "rewritten", partial(replacement, score), score.traits))


def with_head_context(plan: Plan, replacement: Replacement) -> Plan | None:
    """Change each head's context before heads are merged, to replacement(z, parameters, part)."""
    if plan.variant.head_mixing.traits.transform_context:
        return None
    traits = MixingTraits(transform_context=replacement)
    return with_part(plan, "head_mixing", unregistered_part("head-mixing", "rewritten", lambda w, _: w, traits))


def with_mixed_weights(plan: Plan, replacement: Replacement) -> Plan | None:
    """Change the weights that meet v, after they are recorded, to replacement(w)."""
    if not plan.variant.head_mixing.is_none:
        return None
    mixing = unregistered_part("head-mixing", "rewritten", lambda w, _: replacement(w), MixingTraits())
    return with_part(plan, "head_mixing", mixing)


# ── in the place of a normaliser ─────────────────────────────────────────────────────────────────
def equal_weights(_: object, s: Tensor, visible: Tensor) -> Tensor:
    """Give every visible key the same weight; a replacement of the normaliser."""
    visible = visible.expand(s.shape).to(s.dtype)
    return visible / visible.sum(-1, keepdim=True).clamp(min=1)  # (b, h, n, m)


def subtract_row_max(scores: Tensor) -> Tensor:
    """Subtract the largest score of each row; a row without a visible key stays −∞."""
    row_max = scores.amax(-1, keepdim=True)
    return scores - row_max.masked_fill(row_max == -math.inf, 0)


def divide_where_nonzero(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide, and leave the numerator where the denominator is 0: in a row without a visible key."""
    return numerator / denominator.masked_fill(denominator == 0, 1)


# ── links ────────────────────────────────────────────────────────────────────────────────────────
def with_chain(plan: Plan, links: Iterable[Link]) -> Plan:
    """Replace the chain."""
    return dataclasses.replace(plan, chain=tuple(links))


def with_link(plan: Plan, name: str, replacement: Replacement) -> Plan | None:
    """Make a link of the chain run replacement(link of the plan, scores, grid)."""
    if not any(link.name == name for link in plan.chain):
        return None
    return with_chain(
        plan,
        (
            dataclasses.replace(link, run=partial(replacement, link)) if link.name == name else link
            for link in plan.chain
        ),
    )


# ── the mask ─────────────────────────────────────────────────────────────────────────────────────
def with_mask(trials: Trials, predicate: Callable[[Grid, Array], Array]) -> Plan:
    """Replace the mask by predicate(grid, what the plan's own mask lets through) → what is let through."""
    mask = trials.plan.mask

    def is_visible(grid: Grid) -> Array:
        return predicate(grid, mask(grid) if mask else grid.k_idx >= 0)

    part = unregistered_part("mask", "rewritten", is_visible, MaskTraits())
    return trials.with_choices(mask=MaskExpression("part", part))


def with_mask_link(trials: Trials, replacement: Replacement) -> Plan | None:
    """Hide nothing; the link of the mask becomes replacement(scores, what the mask let through)."""
    plan = trials.plan
    if not plan.is_masked:
        return None
    visible = visible_cells(plan)

    def replace_mask(link: Link) -> Link:
        if not link.is_mask:
            return link
        return dataclasses.replace(link, name="unmasked", is_mask=False, run=lambda s, _: replacement(s, visible))

    return dataclasses.replace(
        plan,
        mask=None,
        is_masked=False,
        problem=dataclasses.replace(plan.problem, lengths=None),
        chain=tuple(map(replace_mask, plan.chain)),
    )


def visible_cells(plan: Plan) -> Tensor:
    """Compute what mask, lengths and bias let through, as a tensor: (b|1, h|1, n, m)"""
    import torch

    grid = plan.make_grid()
    visible = np.asarray(compute_visibility(grid, plan.mask))
    return torch.as_tensor(expand_over_grid(visible, grid).copy())


def expand_over_grid(visible: Array, grid: Grid) -> Array:
    """Broadcast what is visible over every query and key, an array or a tensor: (b|1, h|1, n|1, m|1) → (b|1, h|1, n, m)"""
    shape = np.broadcast_shapes(visible.shape, grid.q_idx.shape, grid.k_idx.shape)
    return np.broadcast_to(visible, shape) if isinstance(visible, np.ndarray) else visible.expand(shape)
