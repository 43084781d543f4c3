"""Rows of a tile whose keys come in blocks: what is kept of each row, and how the next block joins it. Entry: `MergedRows`.

The normaliser declares how its weights are merged (`RowMerging`); here that is done to whatever depends on them: the
weighted sum of the values, the statistics of a row, its largest weights. Memory is rows × keys of a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from attncli.core.layers import upcast_half, weighted_sum
from attncli.core.recorder import Recorder
from attncli.core.statistics import (
    NamedStatistic,
    all_finite,
    any_true,
    enter_largest,
    find_empty_rows,
    find_unusual_context,
    largest_columns,
    weight_of_empty_row,
)
from attncli.core.tiles import Tile
from attncli.parts.traits import RowTotals
from attncli.plan import Plan
from attncli.types import Grid

_JOIN_STATISTICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of two parts of a row → of both
    "max_score": torch.maximum,
    "lowest": torch.minimum,  # numerator
    "highest": torch.maximum,
    "magnitude": torch.add,  # Σ |numerator|
    "visible_keys": torch.add,
    "sees": torch.logical_or,  # whether a key is visible
}


class RowPart(NamedTuple):
    """What is kept of rows for some of their keys, (b, h, n, ·) each."""

    totals: RowTotals
    statistics: dict[str, Tensor]  # by the names of `_JOIN_STATISTICS`
    entropy: Tensor | None  # Σ e ln e over the numerators
    z: Tensor | None  # Σ numerator · v


class MergedRows:
    """The rows of one tile, to which blocks of keys are added in their order."""

    def __init__(self, plan: Plan) -> None:
        merging = plan.variant.normalizer.traits.merging
        assert merging is not None  # `why_whole_rows` has found it
        self.plan, self.merging = plan, merging
        self.is_softmax = plan.variant.normalizer.traits.is_exponential
        self.keeps_top = bool(plan.keep & {"top_keys", "top_weights"})
        self.top: tuple[Tensor, Tensor] | None = None  # the largest scores, and their keys
        self._rows: RowPart | None = None

    @property
    def rows(self) -> RowPart:
        """What is kept of all the blocks so far."""
        assert self._rows is not None  # a tile has a key at least
        return self._rows

    def merge_block(
        self, s: Tensor, grid: Grid, v: Tensor | None, nonfinite: Tensor | None, block: Tile, *, is_full: bool
    ) -> None:
        """Add a block of keys.

        Args:
            s: scores, −∞ where hidden: (b, h, n, m).
            grid: where they sit.
            v: (b, h, m, c).
            nonfinite: where v holds NaN or ∞, (b, h, m, c); None: nowhere.
            block: the tile's rows and these keys.
            is_full: whether every query sees every key of the block.
        """
        plan, s = self.plan, upcast_half(s)
        if self.keeps_top:
            self._enter_top(s, block.key_indices(s.device))
        u, totals = self.merging.weigh(plan.variant.normalizer, s, None if is_full else grid.visible)  # (b, h, n, m)
        part = RowPart(
            totals=totals,
            statistics=self._find_statistics(s, u, totals, grid, is_full),
            entropy=torch.special.xlogy(u, u).sum(-1, keepdim=True) if "entropy" in plan.keep else None,
            z=None if v is None else weighted_sum(u, v, nonfinite, grid.visible),
        )
        self._rows = part if self._rows is None else self._join(self._rows, part)

    def _enter_top(self, s: Tensor, keys: Tensor) -> None:
        """Enter the scores of a block among the largest of each row, (b, h, n, m), whose keys are these, (m,)."""
        if self.top is None:
            scores, columns = largest_columns(s, self.plan.top)
            self.top = scores, keys[columns]
        else:
            self.top = enter_largest(self.top, s, keys, self.plan.top)

    def _find_statistics(self, s: Tensor, u: Tensor, totals: RowTotals, grid: Grid, is_full: bool) -> dict[str, Tensor]:
        """What is kept of a block's rows beside their totals, by name; s are the scores, u the numerators."""
        plan, shape = self.plan, (*s.shape[:-1], 1)
        statistics = {"max_score": totals[0] if self.is_softmax else s.amax(-1, keepdim=True)}
        if not self.is_softmax:
            statistics |= {"lowest": u.amin(-1, keepdim=True), "highest": u.amax(-1, keepdim=True)}
        if plan.variant.normalizer.traits.is_ratio_of_sum:
            statistics["magnitude"] = u.abs().sum(-1, keepdim=True)
        if "visible_keys" in plan.keep:
            statistics["visible_keys"] = grid.visible.sum(-1, keepdim=True).expand(shape)
        if plan.is_masked:
            sees = s.new_ones((), dtype=torch.bool) if is_full else any_true(grid.visible)[..., None]
            statistics["sees"] = sees.expand(shape)
        return statistics

    def _join(self, a: RowPart, b: RowPart) -> RowPart:
        """Join what is kept of some keys with what is kept of the keys after them; a's weighted sums are overwritten."""
        totals, factor_a, factor_b = self.merging.join(a.totals, b.totals)
        z, entropy = a.z, a.entropy
        if z is not None and b.z is not None:
            z = z if factor_a is None else z.mul_(factor_a)
            z = z.add_(b.z) if factor_b is None else z.addcmul_(b.z, factor_b)
        if entropy is not None and b.entropy is not None and factor_a is not None and factor_b is not None:
            entropy = _rescale_entropy(entropy, factor_a, a.totals[1]) + _rescale_entropy(
                b.entropy, factor_b, b.totals[1]
            )
        statistics = {name: _JOIN_STATISTICS[name](x, b.statistics[name]) for name, x in a.statistics.items()}
        return RowPart(totals, statistics, entropy, z)

    @property
    def is_ordered(self) -> bool:
        """Whether the largest scores have the largest weights: not in rows that hold a NaN, whose weights are all NaN."""
        return not self.keeps_top or all_finite(self.rows.totals[1])

    def finish_rows(self, recorder: Recorder, sink: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """Record what the plan keeps of the rows, once every block is there; return their weighted sums, (b, h, n, c).

        Args:
            recorder: of the run.
            sink: its scores, (1, h, 1, 1), if there is one: a key more, which has no value.
            dtype: of the sums.
        """
        rows, plan, variant, record = self.rows, self.plan, self.plan.variant, recorder.record
        totals, factor = rows.totals, None  # of the keys, and the sink
        empty = find_empty_rows(plan, rows.statistics["sees"]) if plan.is_masked else None  # (b, h, n)
        if sink is not None:
            sink_scores = upcast_half(sink).expand(rows.statistics["max_score"].shape).clone()  # (b, h, n, 1)
            e, sink_totals = self.merging.weigh(variant.normalizer, sink_scores, None)
            totals, factor, sink_factor = self.merging.join(rows.totals, sink_totals)
            w_sink = self.merging.finish(e if sink_factor is None else e * sink_factor, totals)[..., 0]  # (b, h, n)
            record("sink_weights", self._fill_nan(w_sink, empty), variant.sink.formula)
        recorder.warn(self._find_unusual(totals, empty))
        for statistic in self._iter_statistics(totals, empty, "" if sink is None else ", Σ with the sink"):
            record(*statistic)
        if rows.z is None:
            return None
        z = self.merging.finish(rows.z if factor is None else rows.z * factor, totals)  # (b, h, n, c)
        z = (z if empty is None else z.masked_fill(empty[..., None], weight_of_empty_row(plan))).to(dtype)
        recorder.warn(find_unusual_context(plan, z, empty))
        return z

    def _iter_statistics(self, totals: RowTotals, empty: Tensor | None, sum_note: str) -> Iterator[NamedStatistic]:
        """Yield the statistics that the plan keeps, (b, h, n, ·): those of `iter_row_statistics` and `iter_top_weights`."""
        rows, plan = self.rows, self.plan
        yield "max_score", rows.statistics["max_score"][..., 0], "max s"
        if "log_sum_exp" in plan.keep:
            top, total = totals[0][..., 0], totals[1][..., 0]  # of a softmax, as `why_whole_rows` has found
            yield "log_sum_exp", (top + total.log()).where(top.isfinite(), top), "ln Σ e^s" + sum_note
        if "visible_keys" in plan.keep:
            yield "visible_keys", rows.statistics["visible_keys"][..., 0], "number of visible keys"
        if rows.entropy is not None:
            total = rows.totals[1]  # of the keys alone
            in_nats = total.log() - rows.entropy / total  # (b, h, n, 1)
            bits = in_nats.masked_fill(total == 0, 0)[..., 0].clamp(min=0) / math.log(2)
            yield "entropy", self._fill_nan(bits, empty), "−Σ w log₂ w"
        if self.top is not None:
            weights, keys = self._find_top_weights(*self.top, totals)  # (b, h, n, top) each
            yield "top_keys", keys, "keys of the largest weights"
            yield (
                "top_weights",
                self._fill_nan(weights, None if empty is None else empty[..., None]),
                "the largest weights",
            )

    def _fill_nan(self, x: Tensor, empty: Tensor | None) -> Tensor:
        """Fill empty rows with NaN where `--empty-rows` says so."""
        return x if empty is None or self.plan.variant.empty_rows != "nan" else x.masked_fill(empty, torch.nan)

    def _find_top_weights(self, scores: Tensor, keys: Tensor, totals: RowTotals) -> tuple[Tensor, Tensor]:
        """Make weights of the largest scores; of keys that weigh nothing the first ones are named. (b, h, n, top) each"""
        u, own_totals = self.merging.weigh(self.plan.variant.normalizer, scores, None)
        _, factor, _ = self.merging.join(own_totals, totals)
        weights = self.merging.finish(u if factor is None else u * factor, totals)
        missing = self.plan.top - weights.shape[-1]  # keys that no block has
        if missing:
            weights, keys = F.pad(weights, (0, missing)), F.pad(keys, (0, missing))
        if weights[..., -1].all():
            return weights, keys
        weighs_nothing = weights == 0
        candidates = min(2 * self.plan.top, self.plan.size.keys)  # so many keys from the first on: enough are free
        taken = keys.where(~weighs_nothing & (keys < candidates), candidates)
        is_taken = torch.zeros(*keys.shape[:-1], candidates + 1, dtype=torch.uint8, device=keys.device)
        first_free = is_taken.scatter_(-1, taken, 1)[..., :candidates].sort(dim=-1, stable=True)[1]
        rank = weighs_nothing.cumsum(-1) - 1  # among the keys of the row that weigh nothing
        return weights, first_free.gather(-1, rank.clamp(min=0)).where(weighs_nothing, keys)

    def _find_unusual(self, totals: RowTotals, empty: Tensor | None) -> dict[str, Tensor | None]:
        """What `find_unusual_weights` finds of whole rows; totals are of the keys and the sink."""
        plan, statistics = self.plan, self.rows.statistics
        unusual: dict[str, Tensor | None] = {}
        is_ratio = plan.variant.normalizer.traits.is_ratio_of_sum
        if self.is_softmax:
            largest, is_finite = totals[0], all_finite(totals[1])  # the sum is not finite where a weight is not
        else:
            largest = statistics["max_score"]
            bounds = [self.merging.finish(statistics[name], totals) for name in ("lowest", "highest")]
            is_finite = all(map(all_finite, bounds))
        sees = statistics.get("sees")
        has_overflown = (largest == -torch.inf) if sees is None else (largest == -torch.inf) & sees
        if not is_finite or has_overflown.any():
            unusual["not-finite"] = None
        if is_ratio:
            low, high = bounds
            if ((low < 0) | (high < 0)).any():
                unusual["negative-weights"] = None
                share = self.merging.finish(statistics["magnitude"], totals).abs()[..., 0]
                noise = plan.size.keys * torch.finfo(share.dtype).eps * share  # of the scores' sum, as a share of it
                unusual["rounded-sum"] = noise.isfinite() & (noise >= 1)
            is_zero = (low == 0) & (high == 0)
            unusual["zero-sum"] = (is_zero if sees is None else is_zero & sees)[..., 0]
        if empty is not None:
            unusual["empty-rows"] = empty
        return unusual


def _rescale_entropy(entropy: Tensor, factor: Tensor, total: Tensor) -> Tensor:
    """Σ u ln u of numerators that are multiplied by a factor; total is their sum before."""
    return entropy * factor + torch.special.xlogy(factor, factor) * total
