"""Blocks of keys that are lost, counted twice, padded or stale, and an online softmax that goes wrong from block to block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np

from attncli.check.claims import Claim, to_step_array
from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import with_mask, with_mixed_weights, with_score
from attncli.check.score_rows import WeightPair, score_rows, with_weights_of_scores
from attncli.check.tile_weights import (
    MERGE_MISTAKES,
    ONLINE_MISTAKES,
    BlockWeigh,
    Weigh,
    keys_of_block_before,
    keys_twice,
    padding_counted,
    values_of_block_before,
    without_keys,
)
from attncli.check.trials import StepArrays, Trials
from attncli.plan import Plan
from attncli.registry import AnyPart
from attncli.types import Array, Grid, Tensor

_BLOCKS = (8, 16, 32, 64, 128, 256)
_MAX_BLOCKS_OF_KEYS = 64  # of so many keys that there are more, smaller blocks are not tried
_SPLITS = (2, 3, 4, 8)
_STATISTICS = ("max_score", "log_sum_exp")  # of each query
_WRITTEN_STEPS = ("context", "head_context", "output", *_STATISTICS)
_COST_DIGITS = 2.5  # digits of evidence: some hundred ways are compared with a few rows


@fault
def wrong_blocks_of_keys(trials: Trials) -> Iterator[Hypothesis]:
    """Blocks of keys are lost, counted twice, padded or stale, or badly merged."""
    plan = trials.plan
    keys = plan.size.keys
    if keys <= _BLOCKS[0] or not plan.variant.normalizer.traits.is_exponential or not plan.variant.sink.is_none:
        return
    seen: set[str] = set()
    for name, description, weigh in _mistakes(keys):
        if name not in seen:
            seen.add(name)
            yield Hypothesis(name, description, partial(_compute_mistake, trials, weigh), evidence_cost=_COST_DIGITS)


def _compute_mistake(trials: Trials, weigh: Weigh) -> Plan | None:
    """Make the plan of one way; None where it comes no nearer on a few rows."""
    rows = None if trials.is_confirming else score_rows(trials)
    if not trials.is_confirming and (rows is None or not rows.is_nearer(weigh(rows.scores))):
        return None
    return with_weights_of_scores(trials.plan, weigh)


def _block_sizes(keys: int) -> list[int]:
    return [block for block in _BLOCKS if block < keys <= block * _MAX_BLOCKS_OF_KEYS]


def _mistakes(keys: int) -> Iterator[tuple[str, str, Weigh]]:
    """Yield the names, descriptions and weights of all ways."""
    for block in _block_sizes(keys):
        yield from mistakes_with_blocks(keys, block)
    yield from mistakes_of_merging(keys, _SPLITS, _block_sizes(keys))


def mistakes_with_blocks(keys: int, block: int) -> Iterator[tuple[str, str, Weigh]]:
    """Yield what may happen to the blocks of one size: names, descriptions and weights."""
    yield from _mistakes_of_single_blocks(keys, block)
    yield from _mistakes_at_block_edges(keys, block)
    start = f"with blocks of {block} keys, where"
    for name, (text, weigh_blocks) in ONLINE_MISTAKES.items():
        yield f"blocks of {block} keys: {name}", f"{start} {text}", partial(_in_blocks, weigh_blocks, block)


def mistakes_of_merging(
    keys: int, splits: Iterable[int], blocks: Iterable[int] = ()
) -> Iterator[tuple[str, str, Weigh]]:
    """Yield what may happen where the keys are computed in parts and merged: in so many parts, or in parts of so many keys."""
    sizes = {math.ceil(keys / count): f"{count} parts" for count in splits if keys >= 2 * count}
    sizes |= {block: f"parts of {block} keys" for block in blocks}
    for size, parts in sizes.items():
        for name, (text, weigh_blocks) in MERGE_MISTAKES.items():
            yield (
                f"{parts} merged: {name}",
                f"with the keys in {parts}, whose contexts are merged {text}: weigh them by e^(log-sum-exp)",
                partial(_in_blocks, weigh_blocks, size),
            )


def _in_blocks(weigh_blocks: BlockWeigh, block: int, s: Tensor) -> WeightPair:
    return weigh_blocks(s, block)


def _mistakes_of_single_blocks(keys: int, block: int) -> Iterator[tuple[str, str, Weigh]]:
    """Yield what may happen to one block: the first, the second, the middle, the last or the one that is not full."""
    count = math.ceil(keys / block)
    numbers = dict.fromkeys((0, 1, count // 2, (count - 1) // 2, count - 2, count - 1))
    for number in (n for n in numbers if 0 <= n < count):
        start, stop = number * block, min((number + 1) * block, keys)
        which = f"keys {start} to {stop - 1} (block {number} of {block} keys{'' if stop - start == block else ', not full'})"
        yield (
            f"{which} skipped",
            f"without {which}: the loop over blocks leaves it out",
            partial(_weigh_key_range, without_keys, start, stop),
        )
        yield (
            f"{which} counted twice",
            f"with {which} counted twice",
            partial(_weigh_key_range, keys_twice, start, stop),
        )
        if number:
            yield (
                f"{which}: k of the block before",
                f"with the keys of the block before in the place of {which}: load each block anew",
                partial(_weigh_block_range, keys_of_block_before, block, start, stop),
            )
            yield (
                f"{which}: v of the block before",
                f"with the values of the block before in the place of {which}: load each block anew",
                partial(_weigh_block_range, values_of_block_before, block, start, stop),
            )
    for letter, weigh in (("k", keys_of_block_before), ("v", values_of_block_before)):
        what = "keys" if letter == "k" else "values"
        yield (
            f"{letter} of the block before, blocks of {block}",
            f"with the {what} of the block before, of {block} keys, in each block but the first: load each block anew",
            partial(_weigh_block_range, weigh, block, block, keys),
        )


def _weigh_key_range(weigh: Callable[[Tensor, int, int], WeightPair], start: int, stop: int, s: Tensor) -> WeightPair:
    return weigh(s, start, stop)


def _weigh_block_range(
    weigh: Callable[[Tensor, int, int, int], WeightPair], block: int, start: int, stop: int, s: Tensor
) -> WeightPair:
    return weigh(s, block, start, stop)


def _mistakes_at_block_edges(keys: int, block: int) -> Iterator[tuple[str, str, Weigh]]:
    """Yield what may happen where blocks meet, and behind the last key."""
    for first, which in ((block, "first"), (block - 1, "last")):
        text = f"the {which} key of each block of {block}"
        text += " but the first block" if which == "first" else ""
        yield (
            f"{text} lost",
            f"without {text}: blocks begin where the one before ends",
            partial(_every_block, without_keys, first, keys, block),
        )
        yield (
            f"{text} counted twice",
            f"with {text} counted twice: blocks overlap by a key",
            partial(_every_block, keys_twice, first, keys, block),
        )
    padding = -keys % block
    if padding:
        end = f"the last block, of {block} keys, filled up by {padding}"
        yield (
            f"padding of the last block counted, blocks of {block}",
            f"with {end} of score 0, which count in the sum: mask keys from {keys} on",
            lambda s: padding_counted(s, padding),
        )
        yield (
            f"last key repeated in the last block, blocks of {block}",
            f"with {end} that repeat the last one: mask keys from {keys} on",
            lambda s: keys_twice(s, keys - 1, keys, 1, 1.0 + padding),
        )


def _every_block(
    weigh: Callable[[Tensor, int, int, int], WeightPair], start: int, stop: int, block: int, s: Tensor
) -> WeightPair:
    return weigh(s, start, stop, block)


# ── tiles of queries and keys ────────────────────────────────────────────────────────────────────
@fault
def masked_by_tile(trials: Trials) -> Iterator[Hypothesis]:
    """The mask is applied to whole tiles, and not within them."""
    plan = trials.plan
    if plan.mask is None or plan.q_pos is None:
        return
    for block in (4, *_BLOCKS):
        if block >= plan.size.keys:
            break
        yield Hypothesis(
            f"mask by tiles of {block}",
            f"with the mask applied to whole tiles of {block} queries and {block} keys: a tile on the diagonal is masked cell by cell",
            partial(with_mask, trials, partial(_see_diagonal_tile, block)),
        )
        yield Hypothesis(
            f"diagonal tiles of {block} skipped",
            f"without the tiles of {block} queries and {block} keys on the diagonal",
            partial(with_mask, trials, partial(_skip_diagonal_tile, block)),
        )


def _see_diagonal_tile(block: int, grid: Grid, visible: Array) -> Array:
    return visible | (grid.q_pos // block == grid.k_pos // block)


def _skip_diagonal_tile(block: int, grid: Grid, visible: Array) -> Array:
    return visible & (grid.q_pos // block != grid.k_pos // block)


@fault
def last_rows_not_written(trials: Trials) -> Iterator[Hypothesis]:
    """The figures of the last queries are 0: their context, and the statistics that are written beside it."""
    plan = trials.plan
    claims = [c for c in trials.claims if c.step in _WRITTEN_STEPS and c.is_whole_step and "query" in c.axes]
    if not claims:
        return
    queries = np.arange(plan.size.queries) if plan.computed_queries is None else plan.computed_queries
    written = max(_count_rows_before_zeros(claim) for claim in claims)
    if written == len(queries):
        return
    first, count = int(queries[written]), plan.size.queries - int(queries[written])
    blocks = [block for block in _BLOCKS if first % block == 0]
    edge = f", a multiple of {blocks[-1]}" if blocks else ""
    yield Hypothesis(
        "last queries not written",
        f"with 0 for the last {count} queries, from query {first} on{edge}: the last block of queries is not written",
        partial(_leave_rows_at_zero, trials, written),
        evidence_cost=2.0,
    )


def _count_rows_before_zeros(claim: Claim) -> int:
    """Count the queries of a claim before those at its end whose figures are all 0; all of them where every figure is 0."""
    axis = claim.axes.index("query")
    rows = np.moveaxis(to_step_array(claim, claim.values.shape), axis, 0).reshape(claim.values.shape[axis], -1)
    is_written = np.flatnonzero((rows != 0).any(-1))
    return int(is_written[-1]) + 1 if len(is_written) else len(rows)


def _leave_rows_at_zero(trials: Trials, first: int) -> StepArrays | None:
    """Compute the steps with a context of 0 from a query on, and so the statistics whose claimed figures are 0 there."""
    edited = with_mixed_weights(trials.plan, partial(_clear_rows, first))
    if edited is None:
        return None
    figures = trials.compute_steps(edited)
    for claim in trials.claims:
        if claim.step in _STATISTICS and claim.step in figures and _count_rows_before_zeros(claim) <= first:
            figures[claim.step][..., first:] = 0  # query is their last axis
    return figures


def _clear_rows(first: int, w: Tensor) -> Tensor:
    w = w.clone()
    w[:, :, first:] = 0
    return w


@fault
def last_dims_not_read(trials: Trials) -> Iterator[Hypothesis]:
    """The scores miss the last dims of q and k, which do not fill a block."""
    d = trials.plan.shapes.d
    for block in (2, 4, *_BLOCKS):
        width = d - d % block
        if 0 < width < d and (block == 2 or d % (block // 2) != d % block):
            yield Hypothesis(
                f"q·k over {width} of {d} dims",
                f"with q·k over the first {width} of {d} dims: the last {d - width} do not fill a block of {block}",
                partial(with_score, trials.plan, partial(_score_of_first_dims, width)),
            )


def _score_of_first_dims(width: int, score: AnyPart, q: Tensor, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    s: Tensor = score(q[..., :width], k[..., :width], parameters)
    return s
