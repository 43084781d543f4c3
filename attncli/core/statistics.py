"""What is said about rows of scores and weights: their largest, log-sum-exp, entropy, and what is unusual about them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from attncli.core.bands import KeySlices
from attncli.core.tiles import Tile
from attncli.plan import Plan

_STEPS_OF_CONTEXT = {"head_context", "normed_context", "context", "output"}
_TOPK_BLOCK_COLUMNS = 64  # columns whose largest is found together
_TOP_GROUP_KEYS = 32  # keys of a block whose largest score is found together
NamedStatistic = tuple[str, Tensor, str]  # step, values, formula


def find_bounds(x: Tensor) -> tuple[float, float]:
    """The smallest and the largest of x, without a copy, for x may take most of the memory; NaN if it holds one, 0 if nothing."""
    if x.numel() == 0:
        return 0.0, 0.0
    low, high = x.detach().aminmax()
    return low.item(), high.item()


def all_finite(x: Tensor) -> bool:
    """Whether x holds neither NaN nor ∞."""
    x = x.detach()
    return math.isfinite(x.sum().item()) or all(map(math.isfinite, find_bounds(x)))  # finite numbers may sum to ∞


def any_true(x: Tensor) -> Tensor:
    """Whether any cell of a row is true, (…, m) → (…): as `any`, several times as fast."""
    return x.view(torch.uint8).amax(-1) > 0


# ── rows of scores and weights ───────────────────────────────────────────────────────────────────
def iter_row_statistics(
    plan: Plan, s: Tensor, largest: Tensor, w_all: Tensor, w: Tensor, visible: Tensor
) -> Iterator[NamedStatistic]:
    """Yield the statistics of each row that the plan keeps, (b, h, n).

    Args:
        s: what the normaliser was given, a sink's scores included: (b, h, n, m or m + 1).
        largest: of each row of s, (b, h, n).
        w_all: what it made of them, the sink's weights included.
        w: the weights of the keys alone: (b, h, n, m).
        visible: (b, h, n, m).
    """
    if "max_score" in plan.keep:
        has_sink = s.shape[-1] > visible.shape[-1]
        yield "max_score", s[..., :-1].amax(-1) if has_sink else largest, "max s"
    if "log_sum_exp" in plan.keep:
        is_exponential = plan.variant.normalizer.traits.is_exponential
        formula = "ln Σ e^s" + (", Σ with the sink" if s.shape[-1] > visible.shape[-1] else "")
        yield "log_sum_exp", log_sum_exp(largest, w_all) if is_exponential else s.logsumexp(-1), formula
    if "visible_keys" in plan.keep:
        yield "visible_keys", visible.sum(-1).expand(s.shape[:-1]), "number of visible keys"
    if "entropy" in plan.keep:
        yield "entropy", entropy_in_bits(w), "−Σ w log₂ w"


def log_sum_exp(largest: Tensor, w: Tensor) -> Tensor:
    """ln Σ e^s of scores whose softmax is w: the largest has the weight e^(max s) / Σ e^s.

    Args:
        largest: score of each row, (b, h, n), as the result; where it is not finite, so is the sum.
        w: (b, h, n, m).
    """
    log_sum = largest - w.amax(-1).log()  # (b, h, n)
    return log_sum if all_finite(largest) else log_sum.where(largest.isfinite(), largest)


def entropy_in_bits(w: Tensor) -> Tensor:
    """−Σ p log₂ p of the weights brought to sum 1; 0 for a row of zeros. (b, h, n, m) → (b, h, n)"""
    total = w.sum(-1, keepdim=True)  # (b, h, n, 1)
    p = w / total.masked_fill(total == 0, 1)  # (b, h, n, m)
    return 0 - torch.special.xlogy(p, p).sum(-1) / math.log(2)


# ── empty rows and warnings ──────────────────────────────────────────────────────────────────────
def find_empty_rows(plan: Plan, visible: Tensor) -> Tensor | None:
    """Return which rows see no key, (b, h, n, m) → (b, h, n); None where every row sees one."""
    if not plan.is_masked:
        return None
    empty = ~any_true(visible)  # (b, h, n)
    return empty if empty.any() else None


def weight_of_empty_row(plan: Plan) -> float:
    """Return what `--empty-rows` gives every weight of a query that sees no key."""
    return {"zero": 0.0, "nan": math.nan, "uniform": 1 / plan.size.keys}[plan.variant.empty_rows]


def fill_empty_rows(plan: Plan, w: Tensor, w_sink: Tensor | None, empty: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Fill rows that see no key, (b, h, n), in weights (b, h, n, m); what the keys are given the sink (b, h, n) loses."""
    if empty is None:
        return w, w_sink
    weight = weight_of_empty_row(plan)
    if w_sink is not None and plan.variant.empty_rows != "zero":
        w_sink = w_sink.masked_fill(empty, torch.nan if math.isnan(weight) else 0)
    return w.masked_fill(empty[..., None], weight), w_sink


def find_unusual_weights(
    plan: Plan, largest: Tensor, w: Tensor, visible: Tensor, empty: Tensor | None
) -> dict[str, Tensor | None]:
    """Return the codes of warnings about weights, with the rows that each names, (b, h, n), or None if it names none.

    Args:
        largest: score of each row, a sink's included: (b, h, n).
        w: the weights of the keys, (b, h, n, m), before empty rows are filled.
        visible: (b, h, n, m).
        empty: which rows see no key, (b, h, n); None: none.
    """
    unusual: dict[str, Tensor | None] = {}
    is_ratio = plan.variant.normalizer.traits.is_ratio_of_sum
    low, high = find_bounds(w)
    is_finite = math.isfinite(low) and math.isfinite(high)
    has_negative = (is_ratio or "entropy" in plan.keep) and (low < 0 if is_finite else bool((w < 0).any()))
    if not is_finite or _has_overflown(largest, visible):
        unusual["not-finite"] = None
    if is_ratio and has_negative:
        unusual["negative-weights"] = None
        noise = w.shape[-1] * torch.finfo(w.dtype).eps * w.abs().sum(-1)  # of the scores' sum, as a share of it
        unusual["rounded-sum"] = noise.isfinite() & (noise >= 1)
    if is_ratio:
        unusual["zero-sum"] = ~any_true(w != 0) & any_true(visible)
    if "entropy" in plan.keep and has_negative:
        unusual["no-entropy"] = None
    if empty is not None:
        unusual["empty-rows"] = empty
    return unusual


def _has_overflown(largest: Tensor, visible: Tensor) -> bool:
    """Whether a query sees keys, and all of their scores are −∞: the largest of each row, (b, h, n); visible, (b, h, n, m)."""
    if find_bounds(largest)[0] > -torch.inf:
        return False
    return bool(((largest == -torch.inf) & any_true(visible)).any())


def find_unusual_context(plan: Plan, z: Tensor, empty: Tensor | None) -> dict[str, Tensor | None]:
    """Return the code of the warning about a context that is not finite, (b, h', n, c), if the plan keeps it.

    Args:
        empty: which rows see no key, (b, h, n); None: none. `--empty-rows nan` says what they hold.
    """
    if not plan.keep & _STEPS_OF_CONTEXT or all_finite(z):
        return {}
    is_unusual = ~z.isfinite().all(-1)  # (b, h', n)
    if empty is not None and plan.variant.empty_rows == "nan":
        is_mixed = is_unusual.shape[1] != empty.shape[1] or not plan.variant.head_mixing.is_none
        is_unusual = is_unusual & ~(empty.any(1, keepdim=True) if is_mixed else empty)
    return {"not-finite": None} if is_unusual.any() else {}


def find_unusual_output(plan: Plan, z: Tensor | None, output: Tensor | None) -> dict[str, Tensor | None]:
    """Return the code of the warning about an output, (b, n, ·), that is not finite where its context is, (b, n, h'·c)."""
    if z is None or output is None or "output" not in plan.keep or all_finite(output):
        return {}
    is_unusual = ~output.isfinite().all(-1) & z.isfinite().all(-1)  # (b, n)
    return {"not-finite": None} if is_unusual.any() else {}


# ── the largest weights ──────────────────────────────────────────────────────────────────────────
def iter_top_weights(plan: Plan, w: Tensor, tile: Tile) -> Iterator[NamedStatistic]:
    """Yield the largest weights of each row of a tile and their keys, if the plan keeps them: (b, h, n, m) → (b, h, n, top)."""
    if not plan.keep & {"top_keys", "top_weights"}:
        return
    key_slices = tile.keys if plan.tile_size else (slice(0, plan.size.keys),)
    weights, keys = top_weights(w, plan.top, key_slices, plan.size.keys)
    yield "top_keys", keys, "keys of the largest weights"
    yield "top_weights", weights, "the largest weights"


def top_weights(w: Tensor, top: int, key_slices: KeySlices, key_count: int) -> tuple[Tensor, Tensor]:
    """Return the `top` largest weights of each row, largest first, and their keys; ties, lower key first. (b, h, n, top) each

    Args:
        w: (b, h, n, m), whose columns are the keys of the slices, side by side; a key between them weighs 0.
        key_slices: in order.
        key_count: how many keys there are in all.
    """
    w, keys = _insert_zero_columns(w, top, key_slices, key_count)  # (b, h, n, m), (m,)
    weights, columns = largest_columns(w, top)
    return weights, keys[columns]


def largest_columns(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest of each row, or all, largest first, and their columns; ties, lower column first. (b, h, n, count)"""
    if x.shape[-1] <= count:
        return x.sort(dim=-1, descending=True, stable=True)
    largest, columns = _blockwise_topk(x, count + 1)  # (b, h, n, count + 1)
    is_tied = ~(largest[..., count - 1] > largest[..., count])  # (b, h, n): what is left out may be as large
    columns = columns[..., :count].sort(-1)[0]  # (b, h, n, count)
    largest = x.gather(-1, columns)
    order = largest.sort(dim=-1, descending=True, stable=True)[1]
    largest, columns = largest.gather(-1, order), columns.gather(-1, order)
    if is_tied.any():
        sorted_rows, sorted_columns = x[is_tied].sort(dim=-1, descending=True, stable=True)  # (·, m)
        largest[is_tied], columns[is_tied] = sorted_rows[:, :count], sorted_columns[:, :count]
    return largest, columns


def enter_largest(largest: tuple[Tensor, Tensor], s: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Enter the scores of more keys among the largest of each row so far: (b, h, n, count) each, and their keys.

    Most of them are no larger than the last of the largest. So only groups of keys are looked at, of every row the same number,
    whose own largest score is; what is equal to that last one does not enter, because its key is higher.

    Args:
        largest: the scores and keys so far, largest first, (b, h, n, ≤ count); ties, lower key first.
        s: (b, h, n, m).
        keys: of the columns of s, ascending and higher than those so far, (m,).
        count: how many to keep.
    """
    scores, keys_so_far = largest
    width = s.shape[-1] // _TOP_GROUP_KEYS  # groups; the keys of one are so far apart
    if scores.shape[-1] < count or s.shape[-1] % _TOP_GROUP_KEYS or width < 2 * count or s.device.type != "cpu":
        candidates, columns = largest_columns(s, count)
        return _keep_largest(scores, keys_so_far, candidates, keys[columns], count)
    flat_scores, flat_keys = scores.reshape(-1, count), keys_so_far.reshape(-1, count)
    group_largest = s.reshape(-1, _TOP_GROUP_KEYS, width).amax(1)  # (rows, groups)
    row, group = (~(group_largest <= flat_scores[:, -1:])).nonzero().unbind(-1)  # (groups that enter,); a NaN enters
    if not len(row):
        return largest
    columns = group[:, None] + torch.arange(0, s.shape[-1], width)  # (groups that enter, keys of a group)
    candidates = s.reshape(-1).index_select(0, (row[:, None] * s.shape[-1] + columns).flatten()).view(columns.shape)
    enters = ~(candidates <= flat_scores[row, -1:])
    cells = (row[:, None] * s.shape[-1] + columns)[enters].sort()[0]  # row by row, keys ascending
    row, column = cells // s.shape[-1], cells % s.shape[-1]
    rows, index, counts = row.unique_consecutive(return_inverse=True, return_counts=True)
    rank = torch.arange(len(row)) - (counts.cumsum(0) - counts)[index]  # among those of its row
    most = int(counts.amax())
    own_scores = s.new_full((len(rows), most), -torch.inf).index_put((index, rank), s.reshape(-1)[cells])
    own_keys = keys.new_zeros(len(rows), most).index_put((index, rank), keys[column])
    new_scores, new_keys = flat_scores.clone(), flat_keys.clone()
    new_scores[rows], new_keys[rows] = _keep_largest(flat_scores[rows], flat_keys[rows], own_scores, own_keys, count)
    return new_scores.view(scores.shape), new_keys.view(scores.shape)


def _keep_largest(a: Tensor, a_keys: Tensor, b: Tensor, b_keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Keep the largest of two sets of each row, whose keys are ascending where scores are equal, a's before b's."""
    largest, columns = largest_columns(torch.cat([a, b], -1), count)
    return largest, torch.cat([a_keys, b_keys], -1).gather(-1, columns)


def _insert_zero_columns(w: Tensor, top: int, key_slices: KeySlices, key_count: int) -> tuple[Tensor, Tensor]:
    """Put zeros between the slices, as many as could be among the largest; return the weights and the keys of their columns."""
    columns, keys, start = [], [], 0
    for before, after in itertools.pairwise([slice(0, 0), *key_slices, slice(key_count, key_count)]):
        zeros = min(top, after.start - before.stop)
        width = after.stop - after.start
        if zeros:
            columns.append(w.new_zeros(()).expand(*w.shape[:-1], zeros))
            keys.append(torch.arange(before.stop, before.stop + zeros))
        if width:
            columns.append(w[..., start : start + width])
            keys.append(torch.arange(after.start, after.stop))
        start += width
    return columns[0] if len(columns) == 1 else torch.cat(columns, -1), torch.cat(keys).to(w.device)


def _blockwise_topk(w: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest of each row and their columns, (b, h, n, count) each: as topk, faster for long rows.

    They lie in the `count` blocks whose maxima are largest, or in the columns behind the last whole block.
    """
    blocks = w.shape[-1] // _TOPK_BLOCK_COLUMNS
    if blocks < 4 * count:
        largest, columns = w.topk(count, -1)
        return largest, columns
    head, tail = w.split([blocks * _TOPK_BLOCK_COLUMNS, w.shape[-1] - blocks * _TOPK_BLOCK_COLUMNS], -1)
    head = head.unflatten(-1, (blocks, _TOPK_BLOCK_COLUMNS))  # (b, h, n, blocks, block)
    best_blocks = head.amax(-1).topk(count, -1)[1]  # (b, h, n, count)
    candidate_index = best_blocks[..., None].expand(*best_blocks.shape, _TOPK_BLOCK_COLUMNS)
    candidates = head.gather(-2, candidate_index).flatten(-2)  # (b, h, n, count · block)
    candidates = torch.cat([candidates, tail], -1) if tail.shape[-1] else candidates
    largest, index = candidates.topk(count, -1)  # (b, h, n, count)
    block, column = index // _TOPK_BLOCK_COLUMNS, index % _TOPK_BLOCK_COLUMNS
    in_head = best_blocks.gather(-1, block.clamp(max=count - 1)) * _TOPK_BLOCK_COLUMNS + column
    return largest, in_head.where(block < count, index + (blocks - count) * _TOPK_BLOCK_COLUMNS)
