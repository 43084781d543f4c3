"""A mask that comes too late, comes as numbers, or lets through something else; likewise lengths, and a bias that is left out."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
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
from attncli.types import Array, Grid, NumpyArray, Tensor

_FILL_VALUES = {"0": 0.0, "1e-9": 1e-9, "−1": -1.0, "−100": -100.0, "−1e4": -1e4, "−1e9": -1e9}  # in the place of −∞
_MIN_LARGE_FILL = (
    1000  # such a large fill value leaves hidden keys no weight beside visible ones, and one is as good as another
)
_ADDED_VALUES = {  # to hidden scores: in a row that sees nothing they decide how the scores are rounded
    "−1e4": -1e4, "−65504": -65504.0, "−1e6": -1e6, "−1e8": -1e8, "−1e9": -1e9, "−1e10": -1e10, "−1e15": -1e15,
}  # fmt: skip


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
        is_large = abs(value) >= _MIN_LARGE_FILL
        effect = (
            ": a row that sees nothing then spreads its weight over all keys"
            if is_large
            else ", so that hidden keys keep weight"
        )
        implausibility = {"1e-9": 3, "−100": 2}.get(name, 1)
        yield _mask_link_hypothesis(
            trials,
            f"fill {name} instead of −∞",
            f"with hidden scores set to {'a number like ' if is_large else ''}{name} instead of −∞{effect}",
            _fill_hidden(value),
            implausibility,
        )
    for name, value in _ADDED_VALUES.items():
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


@fault
def window_on_both_sides(trials: Trials) -> Iterator[Hypothesis]:
    """A causal window reaches as far ahead as back: what is given as one number is read as two."""
    mask = trials.plan.mask
    windows = [part for part in mask.iter_parts() if part.traits.is_window] if mask else []
    reaches = {max(window.option_value("left"), window.option_value("right")) for window in windows}
    if len(reaches) != 1 or trials.plan.q_pos is None:
        return
    own = reaches.pop()
    for reach in (own, own + 1):
        yield Hypothesis(
            f"window of {reach} on both sides",
            f"with a window of {reach} keys on both sides of the query: what is ahead is hidden",
            partial(with_mask, trials, partial(_see_within, reach)),
        )


def _see_within(reach: int, grid: Grid, visible: Array) -> Array:
    return abs(grid.k_pos - grid.q_pos) <= reach


@fault
def segments_taken_as_one(trials: Trials) -> Iterator[Hypothesis]:
    """Segments of several tokens, such as images, are one segment."""
    segments = trials.plan.problem.segments
    if segments is None or trials.plan.problem.k_segments is not None:
        return
    segments = np.asarray(segments)
    sizes = (segments[..., :, None] == segments[..., None, :]).sum(-1)
    joined = np.where(sizes > 1, segments[sizes > 1].min(initial=segments.max(initial=0)), segments)
    if not np.array_equal(joined, segments):
        yield Hypothesis(
            "segments taken as one",
            "with all segments of more than one token as one segment: each sees itself alone",
            partial(trials.with_fields, segments=joined),
        )


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
    own = np.asarray(lengths)
    without = Trials(trials.with_fields(lengths=None), trials.top, trials.claims)
    yield Hypothesis(
        "padding on the other side",
        "with the padding taken to be on the left: lengths count the first keys",
        partial(_with_limit, without, own, lambda grid, limit: grid.k_idx >= key_count - limit),
    )
    if trials.plan.size.queries == key_count:
        for row, text in (
            ("uniform", ", whose rows are then uniform"),
            ("zero", ""),
            ("nan", ", whose rows are then NaN"),
        ):
            yield Hypothesis(
                f"padded queries masked, not keys, rows {row}",
                f"with the padded queries masked instead of the padded keys{text}: the mask belongs to the axis of the keys",
                partial(_mask_queries, without, own, row),
                0,
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


def _with_limit(trials: Trials, lengths: NumpyArray, is_within: Callable[[Grid, Array], Array]) -> Plan:
    """Make the plan whose mask hides besides what is beyond the lengths of the items: lengths (b,)"""

    def is_visible(grid: Grid, visible: Array) -> Array:
        limit = lengths.reshape(-1, 1, 1, 1)
        if not isinstance(grid.k_idx, np.ndarray):
            limit = grid.k_idx.new_tensor(limit.tolist())
        return visible & is_within(grid, limit)

    return with_mask(trials, is_visible)


def _mask_queries(trials: Trials, lengths: NumpyArray, empty_rows: str) -> Plan:
    plan = _with_limit(trials, lengths, lambda grid, limit: (grid.q_idx < limit) & (grid.k_idx >= 0))
    return dataclasses.replace(plan, variant=plan.variant.replace(empty_rows=empty_rows))


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
