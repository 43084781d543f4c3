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
from attncli.check.plan_edits import Replacement, visible_cells, with_mask, with_mask_link, with_normalizer
from attncli.check.trials import Trials
from attncli.plan import Plan
from attncli.registry import AnyPart
from attncli.types import Grid, Tensor


def _mask_link_hypothesis(
    trials: Trials,
    name: str,
    description: str,
    replacement: Replacement,
    implausibility: int = 1,
    *,
    explains_constant: bool = False,
) -> Hypothesis:
    """Nothing is hidden; where the mask stood there is run(scores, what the mask lets through)."""
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
    """After the softmax, or never."""
    plan = trials.plan
    if not plan.is_masked:
        return
    mask = plan.mask or ("lengths" if plan.problem.lengths is not None else "bias")
    says = "with the mask applied after the softmax and the rows not brought to sum 1 again: mask the scores with −∞ before it"
    yield Hypothesis(
        "mask after softmax, not renormalised",
        says,
        partial(_mask_after_normalizing, trials),
        0,
        unchanged_steps=("mask",),
    )
    yield _mask_link_hypothesis(trials, "mask forgotten", f"without the mask ({mask})", lambda s, _: s, 0)


def _mask_after_normalizing(trials: Trials) -> Plan | None:
    import torch

    seen = visible_cells(trials.plan)
    free = with_mask_link(trials, lambda s, _: s)

    def run(own: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
        w, m = own(s, visible), seen.shape[-1]
        kept = w[..., :m] * seen
        return kept if w.shape[-1] == m else torch.cat([kept, w[..., m:]], -1)

    return with_normalizer(free, run) if free else None


_FILL_VALUES = {
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
def mask_as_numbers(trials: Trials) -> Iterator[Hypothesis]:
    """0 and 1, or a large number, where −∞ belongs."""
    if not trials.plan.is_masked:
        return
    yield _mask_link_hypothesis(
        trials,
        "0/1 mask added",
        "with the mask added to the scores as 0 and 1: true must keep a score and false make it −∞",
        lambda s, m: s + m.to(s.dtype),
        0,
    )
    yield _mask_link_hypothesis(
        trials,
        "inverted 0/1 mask added",
        "with 1 added to the scores that should be hidden: make them −∞",
        lambda s, m: s + (~m).to(s.dtype),
    )
    yield _mask_link_hypothesis(
        trials,
        "1 subtracted where hidden",
        "with 1 subtracted from the scores that should be hidden: make them −∞",
        lambda s, m: s - (~m).to(s.dtype),
    )
    for name, value in _FILL_VALUES.items():
        says = f"with hidden scores set to {name} instead of −∞: a row that sees nothing then spreads its weight over all keys"
        if abs(value) < 1000:
            says = f"with hidden scores set to {name} instead of −∞, so that hidden keys keep weight"
        rank = 1 if abs(value) >= 1 or not value else 3
        yield _mask_link_hypothesis(trials, f"fill {name} instead of −∞", says, _fill_hidden(value), rank)
        if value <= -1e4:
            says = f"with {name} added to the hidden scores instead of −∞: a row that sees nothing then attends as if nothing were hidden"
            yield _mask_link_hypothesis(trials, f"{name} added instead of −∞", says, _add_to_hidden(value))
    yield _mask_link_hypothesis(
        trials,
        "triu(ones) * -inf",
        "with a mask multiplied by −∞, where 0 × −∞ is NaN: fill with −∞ instead, or use where",
        lambda s, m: s + m.to(s.dtype) * math.nan + s.new_zeros(()).masked_fill(~m, -math.inf),
        0,
        explains_constant=any(c.step.startswith("weights") or "scores" in c.step for c in trials.claims),
    )


def _fill_hidden(value: float) -> Replacement:
    return lambda s, seen: s.masked_fill(~seen, value)


def _add_to_hidden(value: float) -> Replacement:
    return lambda s, seen: s + (~seen).to(s.dtype) * value


@fault
def softcap_after_mask(trials: Trials) -> Iterator[Hypothesis]:
    """A softcap that makes a number of −∞."""
    if trials.plan.is_masked and any(link.name == "softcap" for link in trials.plan.chain):
        says = "with the softcap after the mask: −∞ becomes −cap, and hidden keys get weight; cap the scores first"
        yield Hypothesis(
            "softcap after the mask", says, partial(_move_mask_before_softcap, trials), 0, unchanged_steps=("mask",)
        )


def _move_mask_before_softcap(trials: Trials) -> Plan | None:
    free = with_mask_link(trials, lambda s, m: s.masked_fill(~m, -math.inf))
    if free is None:
        return None
    links = list(free.chain)
    masked = links.pop(next(i for i, link in enumerate(links) if link.name == "unmasked"))
    at = next(i for i, link in enumerate(links) if link.name == "softcap")
    return dataclasses.replace(free, chain=(*links[:at], masked, *links[at:]))


# ── another mask ─────────────────────────────────────────────────────────────────────────────────
def _is_diagonal(grid: Grid) -> Tensor:
    return grid.k_pos == grid.q_pos


@fault
def wrong_mask(trials: Trials) -> Iterator[Hypothesis]:
    """The mask lets through something else."""
    plan = trials.plan
    placed = plan.q_pos is not None
    if placed:
        yield Hypothesis(
            "diagonal hidden",
            "with each query's own key hidden too (j < i for j ≤ i): a token sees itself",
            partial(with_mask, trials, lambda at, seen: seen & ~_is_diagonal(at)),
            0,
            combinable=plan.mask is not None,
        )
    if plan.mask is None:
        return
    yield Hypothesis(
        "mask inverted",
        "with the mask the wrong way round: hidden where it should be seen; true means may attend",
        partial(with_mask, trials, lambda at, seen: ~seen),
        0,
    )
    yield Hypothesis(
        "mask inverted, diagonal kept",
        "with the other triangle: keys at and after the query, not before",
        partial(with_mask, trials, lambda at, seen: ~seen | _is_diagonal(at) if placed else ~seen),
    )
    if plan.size.queries == plan.size.keys:
        yield Hypothesis(
            "mask transposed",
            "with rows and columns of the mask exchanged: rows are queries",
            partial(
                with_mask,
                trials,
                lambda at, seen: (seen & (at.q_idx == at.q_idx) & (at.k_idx == at.k_idx)).swapaxes(-1, -2),
            ),
            0,
        )
    for step, what in ((1, "one key too many"), (-1, "one key too few")):
        yield Hypothesis(
            f"mask off by one: {what}",
            f"with a mask that is off by one: each query sees {what}",
            partial(_shift_mask_queries, trials, step),
            combinable=step > 0,
        )
    for step, side in itertools.product((1, -1), ("left", "right")):
        yield from _window_off_by_one(trials, step, side)


def _shift_mask_queries(trials: Trials, offset: int) -> Plan | None:
    """The queries stand elsewhere, for the mask alone."""
    own = trials.plan.mask
    if own is None or trials.plan.q_pos is None:
        return None

    def moved(at: Grid, seen: Tensor) -> Tensor:
        return own(dataclasses.replace(at, q_pos=at.q_pos + offset)) if isinstance(at, Grid) else seen

    return with_mask(trials, moved)


def _window_off_by_one(trials: Trials, offset: int, side: str) -> Iterator[Hypothesis]:
    """Each window of the mask one wider or narrower."""
    if trials.plan.mask is None:
        return
    sizes = {
        str(p): p.option_value(side)
        for p in trials.plan.mask.iter_parts()
        if p.traits.is_window and p.option_value(side) >= 0
    }
    for old, size in sizes.items():
        for changed, _ in masks_with_one_option_changed("mask", trials.plan.mask):
            now = [p for p in changed.iter_parts() if p.traits.is_window and str(p) not in sizes]
            if (
                len(now) == 1
                and now[0].option_value(side) == size + offset
                and str(changed).count("window") == len(sizes)
            ):
                word = "wide" if offset > 0 else "narrow"
                says = f"with a window one too {word}: {now[0]} where {old} is meant; left and right count neighbours beside the query itself"
                yield Hypothesis(f"window one too {word}", says, partial(trials.with_choices, mask=changed), 0)


# ── what the file hides ──────────────────────────────────────────────────────────────────────────
@fault
def file_mask_misread(trials: Trials) -> Iterator[Hypothesis]:
    """The file's mask inverted or ignored."""
    if trials.plan.problem.mask is None:
        return
    truth = np.asarray(trials.plan.problem.mask)
    says = "with the file's mask the wrong way round: true means may attend"
    yield Hypothesis("file's mask inverted", says, partial(trials.with_fields, mask=~truth), 0)
    whole = np.ones_like(truth)
    yield Hypothesis("file's mask ignored", "without the file's mask", partial(trials.with_fields, mask=whole), 0)


@fault
def wrong_lengths(trials: Trials) -> Iterator[Hypothesis]:
    """Padding that is seen, or more hidden than padding."""
    own, keys = trials.plan.problem.lengths, trials.plan.size.keys
    if own is None:
        return
    says = "without the lengths: padding is seen"
    yield Hypothesis("lengths ignored", says, partial(trials.with_fields, lengths=None), 0)
    for step in (1, -1):
        changed = np.clip(np.asarray(own) + step, 0, keys)
        name = f"off by {step:+d}"
        yield Hypothesis(f"lengths {name}", f"with each length {name}", partial(trials.with_fields, lengths=changed))
    if trials.plan.size.queries == keys:
        says = "with the padded queries masked as well as the padded keys"
        yield Hypothesis(
            "padded queries masked too",
            says,
            partial(with_mask, trials, lambda at, seen: seen & (at.q_idx < at.lengths)),
        )


@fault
def bias_forgotten_beside_mask(trials: Trials) -> Iterator[Hypothesis]:
    """A bias that is left out beside a mask; alone it is one of the links."""
    if trials.plan.problem.bias is not None and has_mask_or_lengths(trials):
        yield bias_forgotten_hypothesis(trials)


def has_mask_or_lengths(trials: Trials) -> bool:
    """Whether a mask or lengths are there to hide keys."""
    return trials.plan.mask is not None or trials.plan.problem.lengths is not None


def bias_forgotten_hypothesis(trials: Trials) -> Hypothesis:
    """No bias, which may hide keys too."""
    return Hypothesis("bias forgotten", "without the bias", partial(trials.with_fields, bias=None), 0)
