"""A mask that comes too late, comes as numbers, or lets through something else; likewise lengths, and a bias that is left out."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from attncli.check.alternatives import masks_with_one_option_changed
from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import (
    Replacement,
    expand_over_grid,
    visible_cells,
    with_mask,
    with_mask_link,
    with_normalizer,
)
from attncli.check.trials import Trials
from attncli.plan import Plan
from attncli.registry import AnyPart
from attncli.types import Array, Grid, Tensor

_MIN_LARGE_FILL = 1000  # such a large fill value leaves hidden keys no weight beside visible ones
_MAX_ADDED_FILL = -1e4  # a value as low as this is also tried as an addend to hidden scores
_FILL_VALUES = {  # in the place of −∞
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


def _mask_link_hypothesis(
    trials: Trials,
    name: str,
    description: str,
    replacement: Replacement,
    implausibility: int = 1,
    *,
    explains_constant: bool = False,
) -> Hypothesis:
    """Make a hypothesis in which nothing is hidden, and the mask's link is replacement(scores, what the mask lets through)."""
    return Hypothesis(
        name,
        description,
        partial(with_mask_link, trials, replacement),
        implausibility,
        unchanged_steps=("mask",),
        explains_constant=explains_constant,
    )


# ── where it does not belong, or as numbers ──────────────────────────────────────────────────────
@fault
def mask_after_softmax(trials: Trials) -> Iterator[Hypothesis]:
    """The mask is applied after the softmax, or never."""
    plan = trials.plan
    if not plan.is_masked:
        return
    mask = plan.mask or ("lengths" if plan.problem.lengths is not None else "bias")
    yield Hypothesis(
        "mask after softmax, not renormalised",
        "with the mask applied after the softmax and the rows not normalised again: mask the scores with −∞ before it",
        partial(_mask_after_normalizing, trials),
        0,
        unchanged_steps=("mask",),
    )
    yield _mask_link_hypothesis(trials, "mask forgotten", f"without the mask ({mask})", lambda s, _: s, 0)


def _mask_after_normalizing(trials: Trials) -> Plan | None:
    import torch

    mask = visible_cells(trials.plan)
    unmasked = with_mask_link(trials, lambda s, _: s)

    def normalize(normalizer: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
        w, m = normalizer(s, visible), mask.shape[-1]
        kept = w[..., :m] * mask
        return kept if w.shape[-1] == m else torch.cat([kept, w[..., m:]], -1)  # the sink comes after the keys

    return with_normalizer(unmasked, normalize) if unmasked else None


@fault
def mask_as_numbers(trials: Trials) -> Iterator[Hypothesis]:
    """0 and 1, or a large number, stand where −∞ belongs."""
    if not trials.plan.is_masked:
        return
    yield _mask_link_hypothesis(
        trials,
        "0/1 mask added",
        "with the mask added to the scores as 0 and 1: true must keep a score and false make it −∞",
        lambda s, mask: s + mask.to(s.dtype),
        0,
    )
    yield _mask_link_hypothesis(
        trials,
        "inverted 0/1 mask added",
        "with 1 added to the scores that should be hidden: make them −∞",
        lambda s, mask: s + (~mask).to(s.dtype),
    )
    yield _mask_link_hypothesis(
        trials,
        "1 subtracted where hidden",
        "with 1 subtracted from the scores that should be hidden: make them −∞",
        lambda s, mask: s - (~mask).to(s.dtype),
    )
    for name, value in _FILL_VALUES.items():
        description = f"with hidden scores set to {name} instead of −∞"
        if abs(value) < _MIN_LARGE_FILL:
            description += ", so that hidden keys keep weight"
        else:
            description += ": a row that sees nothing then spreads its weight over all keys"
        implausibility = 1 if abs(value) >= 1 or not value else 3
        yield _mask_link_hypothesis(
            trials, f"fill {name} instead of −∞", description, _fill_hidden(value), implausibility
        )
        if value <= _MAX_ADDED_FILL:
            yield _mask_link_hypothesis(
                trials,
                f"{name} added instead of −∞",
                f"with {name} added to the hidden scores instead of −∞: a row that sees nothing then attends as if nothing were hidden",
                _add_to_hidden(value),
            )
    yield _mask_link_hypothesis(
        trials,
        "triu(ones) * -inf",
        "with a mask multiplied by −∞, where 0 × −∞ is NaN: fill with −∞ instead, or use where",
        lambda s, mask: s + mask.to(s.dtype) * math.nan + s.new_zeros(()).masked_fill(~mask, -math.inf),
        0,
        explains_constant=any(c.step.startswith("weights") or "scores" in c.step for c in trials.claims),
    )


def _fill_hidden(value: float) -> Replacement:
    return lambda s, mask: s.masked_fill(~mask, value)


def _add_to_hidden(value: float) -> Replacement:
    return lambda s, mask: s + (~mask).to(s.dtype) * value


@fault
def softcap_after_mask(trials: Trials) -> Iterator[Hypothesis]:
    """A softcap after the mask turns −∞ into a number."""
    if trials.plan.is_masked and any(link.name == "softcap" for link in trials.plan.chain):
        yield Hypothesis(
            "softcap after the mask",
            "with the softcap after the mask: −∞ becomes −cap, and hidden keys get weight; cap the scores first",
            partial(_move_mask_before_softcap, trials),
            0,
            unchanged_steps=("mask",),
        )


def _move_mask_before_softcap(trials: Trials) -> Plan | None:
    plan = with_mask_link(trials, lambda s, mask: s.masked_fill(~mask, -math.inf))
    if plan is None:
        return None
    links = list(plan.chain)
    mask_link = links.pop(next(i for i, link in enumerate(links) if link.name == "unmasked"))
    links.insert(next(i for i, link in enumerate(links) if link.name == "softcap"), mask_link)
    return dataclasses.replace(plan, chain=tuple(links))


# ── another mask ─────────────────────────────────────────────────────────────────────────────────
def _is_diagonal(grid: Grid) -> Array:
    return grid.k_pos == grid.q_pos


@fault
def wrong_mask(trials: Trials) -> Iterator[Hypothesis]:
    """The mask lets through something else."""
    plan = trials.plan
    has_positions = plan.q_pos is not None
    if has_positions:
        yield Hypothesis(
            "diagonal hidden",
            "with each query's own key hidden too (j < i for j ≤ i): a token sees itself",
            partial(with_mask, trials, lambda grid, visible: visible & ~_is_diagonal(grid)),
            0,
            combinable=plan.mask is not None,
        )
    if plan.mask is None:
        return
    yield Hypothesis(
        "mask inverted",
        "with the mask the wrong way round: hidden where it should be seen; true means: may attend",
        partial(with_mask, trials, lambda grid, visible: ~visible),
        0,
    )
    yield Hypothesis(
        "mask inverted, diagonal kept",
        "with the other triangle: keys at and after the query, not before",
        partial(with_mask, trials, lambda grid, visible: ~visible | _is_diagonal(grid) if has_positions else ~visible),
    )
    if plan.size.queries == plan.size.keys:
        yield Hypothesis(
            "mask transposed",
            "with rows and columns of the mask exchanged: rows are queries",
            partial(with_mask, trials, lambda grid, visible: expand_over_grid(visible, grid).swapaxes(-1, -2)),
            0,
            mixes_queries=True,
        )
    for offset, what in ((1, "one key too many"), (-1, "one key too few")):
        yield Hypothesis(
            f"mask off by one: {what}",
            f"with a mask that is off by one: each query sees {what}",
            partial(_shift_mask_queries, trials, offset),
            combinable=offset > 0,
        )
    for offset, side in itertools.product((1, -1), ("left", "right")):
        yield from _window_off_by_one(trials, offset, side)


def _shift_mask_queries(trials: Trials, offset: int) -> Plan | None:
    """Shift the positions of the queries, for the mask alone."""
    mask = trials.plan.mask
    if mask is None or trials.plan.q_pos is None:
        return None

    def shift(grid: Grid, visible: Array) -> Array:
        if not isinstance(grid, Grid):  # a probe that finds out which fields a mask reads
            return visible
        grid = grid.for_masks
        return mask(dataclasses.replace(grid, q_pos=grid.q_pos + offset))

    return with_mask(trials, shift)


def _window_off_by_one(trials: Trials, offset: int, side: str) -> Iterator[Hypothesis]:
    """Yield hypotheses in which a window of the mask is one wider or narrower."""
    if trials.plan.mask is None:
        return
    sizes = {
        str(part): part.option_value(side)
        for part in trials.plan.mask.iter_parts()
        if part.traits.is_window and part.option_value(side) >= 0
    }
    for window, size in sizes.items():
        for changed, _ in masks_with_one_option_changed("mask", trials.plan.mask):
            new_windows = [part for part in changed.iter_parts() if part.traits.is_window and str(part) not in sizes]
            if (
                len(new_windows) == 1
                and new_windows[0].option_value(side) == size + offset
                and str(changed).count("window") == len(sizes)
            ):
                word = "wide" if offset > 0 else "narrow"
                yield Hypothesis(
                    f"window one too {word}",
                    f"with a window one too {word}: {new_windows[0]} where {window} is meant; left and right count the neighbours, without the query itself",
                    partial(trials.with_choices, mask=changed),
                    0,
                )


# ── what the file hides ──────────────────────────────────────────────────────────────────────────
@fault
def file_mask_misread(trials: Trials) -> Iterator[Hypothesis]:
    """The file's mask is inverted or ignored."""
    if trials.plan.problem.mask is None:
        return
    mask = np.asarray(trials.plan.problem.mask)
    yield Hypothesis(
        "file's mask inverted",
        "with the file's mask the wrong way round: true means: may attend",
        partial(trials.with_fields, mask=~mask),
        0,
    )
    yield Hypothesis(
        "file's mask ignored", "without the file's mask", partial(trials.with_fields, mask=np.ones_like(mask)), 0
    )


@fault
def wrong_lengths(trials: Trials) -> Iterator[Hypothesis]:
    """Padding is visible, or more is hidden than padding."""
    lengths, key_count = trials.plan.problem.lengths, trials.plan.size.keys
    if lengths is None:
        return
    yield Hypothesis(
        "lengths ignored", "without the lengths: padding is seen", partial(trials.with_fields, lengths=None), 0
    )
    for offset in (1, -1):
        changed = np.clip(np.asarray(lengths) + offset, 0, key_count)
        yield Hypothesis(
            f"lengths off by {offset:+d}",
            f"with each length off by {offset:+d}",
            partial(trials.with_fields, lengths=changed),
        )
    if trials.plan.size.queries == key_count:
        yield Hypothesis(
            "padded queries masked too",
            "with the padded queries masked as well as the padded keys",
            partial(with_mask, trials, lambda grid, visible: visible & (grid.q_idx < grid.lengths)),
        )


@fault
def bias_forgotten_beside_mask(trials: Trials) -> Iterator[Hypothesis]:
    """The bias is left out beside a mask; without a mask this is a fault of the links."""
    if trials.plan.problem.bias is not None and has_mask_or_lengths(trials):
        yield bias_forgotten_hypothesis(trials)


def has_mask_or_lengths(trials: Trials) -> bool:
    """Tell whether a mask or lengths may hide keys."""
    return trials.plan.mask is not None or trials.plan.problem.lengths is not None


def bias_forgotten_hypothesis(trials: Trials) -> Hypothesis:
    """Make the hypothesis that there is no bias, which may hide keys too."""
    return Hypothesis("bias forgotten", "without the bias", partial(trials.with_fields, bias=None), 0)
