"""Keeping the derivation: each step that was asked for, with its name, formula and axes, and nothing else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attncli.core.tiles import KeySlices, Slice, Tile
from attncli.derivation import Intermediate, pop_intermediates
from attncli.plan import Plan, describe_rows
from attncli.plan.visibility import mask_batch_heads
from attncli.types import BASE_STEPS, Array, Attention, NumpyArray, Step
from attncli.validation.fields import as_numpy, is_tensor

if TYPE_CHECKING:
    from attncli.core.inputs import Inputs

_TOPK_BLOCK_COLUMNS = 64  # columns whose largest is found together
StepAllocator = Callable[[str, Sequence[int]], Tensor | None]  # the name of a step and its lengths → where to put it


class Recorder:
    """The notebook of one run. Calling it notes a step, or a tile's part of one, and hands its values back."""

    def __init__(self, plan: Plan, inputs: Inputs, allocate_step: StepAllocator | None = None) -> None:
        self.plan, self.inputs = plan, inputs
        self.dtype: torch.dtype = getattr(torch, plan.variant.dtype)
        self.allocate_step = allocate_step  # where steps too large for memory go
        self.allocated_steps: set[str] = set()  # which have gone there
        self.steps: dict[str, Step] = {}
        self.assembled_steps: dict[str, Tensor] = {}  # steps that tiles put together
        self.tracked_steps: dict[str, Tensor] = {}  # every step as the algebra has it, where gradients are taken
        self.current_tile: Tile | None = None  # the tile at hand; None: everything at once
        self.warnings_seen: set[str] = set()  # codes of what is odd about some weights
        self.warning_rows: dict[str, Tensor] = {}  # for each of two warnings, the rows it is about: (b, h, n)
        p = plan.problem
        self.returns_tensors = any(is_tensor(x) for x in (p.embeddings, p.q, p.k))

    def begin_tile(self, tile: Tile) -> None:
        """What is noted from now on belongs to a tile."""
        self.current_tile = tile if self.plan.tile_size else None

    def end_tiles(self) -> None:
        """What is noted from now on is whole."""
        self.current_tile = None

    def __call__(self, name: str, values: Tensor | None, formula: str) -> Array:
        """Keep `values` if the step was asked for, without the axes that the problem lacks; hand them back whole."""
        self._store(name, values, formula, self.inputs.mask_intermediates if name == "mask" else pop_intermediates())
        return values

    def _store(
        self, name: str, values: Tensor | None, formula: str, intermediates: Mapping[str, Intermediate] | None = None
    ) -> None:
        if name not in self.plan.keep or values is None:
            return
        if self.inputs.track_gradients:
            self.tracked_steps[name] = values
            if values.is_floating_point() and not values.requires_grad:
                values.requires_grad_()  # what is made without a slope, as a hard maximum is, has a gradient of its own
        axes, kept = self.trim_axes(name, values)
        if self.current_tile is None:
            lengths = [self.plan.axis_length(name, axis) for axis in axes]
            finer = {word: one._replace(values=as_numpy(one.values)) for word, one in (intermediates or {}).items()}
            self.steps[name] = Step(name, formula, axes, self._to_result_array(kept.expand(lengths)), finer)
            return
        self._store_tile(name, formula, axes, kept)

    def _store_tile(self, name: str, formula: str, axes: tuple[str, ...], values: Tensor) -> None:
        """A tile's part of a step to where it belongs."""
        if name not in self.assembled_steps:
            lengths = [self.plan.axis_length(name, axis) for axis in axes]
            self.assembled_steps[name] = self._allocate(
                name, lengths, self.dtype if values.is_floating_point() else values.dtype
            )
            self.steps[name] = Step(name, formula, axes, None)
        self.assembled_steps[name][self._tile_slices(axes)] = values

    def _tile_slices(self, axes: Sequence[str]) -> tuple[Slice, ...]:
        """Where the tile at hand lies in a step."""
        assert self.current_tile is not None
        part = {"batch": self.current_tile.batch, "head": self.current_tile.heads, "query": self.current_tile.rows}
        return tuple(part.get(axis, slice(None)) for axis in axes)

    def export_tile(
        self, tile: Tile
    ) -> tuple[dict[str, tuple[str, tuple[str, ...], NumpyArray]], dict[str, NumpyArray]]:
        """What a worker has noted of a tile: steps by name (formula, axes, values), and the rows that warnings are about."""
        self.begin_tile(tile)
        steps = {
            name: (
                self.steps[name].formula,
                self.steps[name].axes,
                as_numpy(x[self._tile_slices(self.steps[name].axes)]),
            )
            for name, x in self.assembled_steps.items()
        }
        rows = {
            code: as_numpy(tile.select(x[..., None], has_key_axis=False)[..., 0])
            for code, x in self.warning_rows.items()
        }
        return steps, rows

    def import_tile(
        self,
        tile: Tile,
        steps: Mapping[str, tuple[str, tuple[str, ...], NumpyArray]],
        warnings_seen: Iterable[str],
        warning_rows: Mapping[str, NumpyArray],
    ) -> None:
        """Note what a worker has sent of a tile."""
        self.begin_tile(tile)
        for name, (formula, axes, values) in steps.items():
            self._store_tile(name, formula, axes, torch.from_numpy(values))
        self.warnings_seen.update(warnings_seen)
        for code, found in warning_rows.items():
            self._mark_rows(code, torch.from_numpy(found))

    def trim_axes(self, name: str, values: Tensor) -> tuple[tuple[str, ...], Tensor]:
        """What has every axis → (the axes of the step, what has those alone)."""
        axes, full = self.plan.steps[name], BASE_STEPS.get(name, BASE_STEPS["scores"])
        if name == "mask":  # the trailing axes that it needs
            differ = dict(zip(("batch", "head"), mask_batch_heads(self.plan.make_grid(), self.plan.mask), strict=True))
            needed = [differ.get(axis, 2) > 1 for axis in axes]
            axes = axes[needed.index(True) :]
        there = {*axes, "new_key"} if "key" in axes else {*axes}  # without a past, new keys are the keys
        kept = values[tuple(slice(None) if axis in there else 0 for axis in full)]
        return axes, kept

    def _allocate(self, name: str, lengths: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Where a whole step goes: into memory, or where its place is."""
        room = self.allocate_step(name, lengths) if self.allocate_step else None
        if room is None:
            return torch.empty(*lengths, dtype=dtype)
        self.allocated_steps.add(name)
        return room

    def _to_result_array(self, values: Tensor) -> Array:
        """As the kind that came in, and never the caller's own memory."""
        values = values.to(self.dtype) if values.is_floating_point() else values
        if values.untyped_storage().data_ptr() in self.inputs.caller_memory:
            values = values.clone()
        return values if self.returns_tensors else as_numpy(values)

    def record_row_statistics(self, s: Tensor, w: Tensor, visible: Tensor) -> None:
        """Of the scores that the normaliser sees, and what it makes of them, a sink's included (b, h, n, m + 1) → (b, h, n)"""
        if not self.plan.keep & {"max_score", "log_sum_exp", "visible_keys"}:
            return
        if "max_score" in self.plan.keep:
            self._store("max_score", s[..., : visible.shape[-1]].amax(-1), "max s")
        if "log_sum_exp" in self.plan.keep:
            exponential = self.plan.variant.normalizer.traits.is_exponential
            self._store("log_sum_exp", log_sum_exp(s, w) if exponential else s.logsumexp(-1), "ln Σ e^s")
        if "visible_keys" in self.plan.keep:
            self._store("visible_keys", visible.sum(-1).expand(s.shape[:-1]), "number of keys that may be seen")

    def record_entropy(self, w: Tensor) -> None:
        """Of the weights brought to sum 1, in bits; 0 for a row of zeros. (b, h, n, m) → (b, h, n)"""
        if "entropy" in self.plan.keep:
            if (w < 0).any():
                self.warnings_seen.add("no-entropy")
            total = w.sum(-1, keepdim=True)  # (b, h, n, 1)
            p = w / total.masked_fill(total == 0, 1)  # (b, h, n, m)
            self._store("entropy", 0 - torch.special.xlogy(p, p).sum(-1) / math.log(2), "−Σ w log₂ w")

    def fill_empty_rows(self, w: Tensor, visible: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weights of the keys, and of the sink: what is odd is warned of, and rows that see nothing are filled."""
        m = visible.shape[-1]
        w, sink = w[..., :m], w[..., m] if w.shape[-1] > m else None
        if not all_finite(w):
            self.warnings_seen.add("not-finite")
        if self.plan.variant.normalizer.traits.is_ratio_of_sum:
            if (w < 0).any():
                self.warnings_seen.add("negative-weights")
            self._mark_rows("zero-sum", ~any_true(w != 0) & any_true(visible))
        if not self.plan.is_masked:
            return w, sink
        blind = ~any_true(visible)[..., None]  # (b, h, n, 1)
        if not blind.any():
            return w, sink
        value = self.empty_row_value(blind[..., 0])
        if sink is not None and self.plan.variant.empty_rows != "zero":  # the keys have what the sink had
            sink = sink.masked_fill(blind[..., 0], torch.nan if math.isnan(value) else 0)
        return w.masked_fill(blind, value), sink

    def empty_row_value(self, is_empty: Tensor) -> float:
        """Remember which rows see no key, (b, h, n); what their weights are."""
        self._mark_rows("empty-rows", is_empty)
        return {"zero": 0.0, "nan": math.nan, "uniform": 1 / self.plan.size.keys}[self.plan.variant.empty_rows]

    def _mark_rows(self, code: str, marked: Tensor) -> None:
        """Rows that a warning is about, (b, h, n), of this tile."""
        if not marked.any():
            return
        b, h, n = self.plan.size.batch or 1, self.plan.shapes.heads, self.plan.axis_length("scores", "query")
        found = self.warning_rows.setdefault(code, torch.zeros(b, h, n, dtype=torch.bool))
        (self.current_tile.select(found[..., None], has_key_axis=False)[..., 0] if self.current_tile else found)[:] = (
            marked.cpu()
        )

    def record_top_weights(self, w: Tensor) -> None:
        """The largest weights of each query and where they are; ties, lower index first. (b, h, n, m) → (b, h, n, top)"""
        if not self.plan.keep & {"top_keys", "top_weights"}:
            return
        stretches = self.current_tile.keys if self.current_tile else (slice(0, self.plan.size.keys),)
        values, keys = top_weights(w, self.plan.top, stretches, self.plan.size.keys)
        self._store("top_keys", keys, "keys of the largest weights")
        self._store("top_weights", values, "the largest weights")

    def fall_back_to_tiles(self) -> None:
        """The kernel was not used after all."""
        self.plan = replace(self.plan, schedule="tiled", variant=self.plan.variant.replace(schedule="tiled"))

    def _warning_messages(self) -> list[str]:
        """What was found out on the way, in words."""
        v = self.plan.variant
        said = {
            "not-finite": f"some weights are not finite: a visible NaN or ∞, or scores beyond {v.dtype}",
            "negative-weights": f"under {v.normalizer.name} negative scores give negative weights",
            "zero-sum": "{}: scores sum to 0, so weights are 0",
            "empty-rows": {
                "zero": "{} see no key: weights and context are 0",
                "nan": "{} see no key: weights and context are NaN",
                "uniform": "{} see no key: weights are uniform over all keys",
            }.get(v.empty_rows, ""),
            "no-entropy": "some weights are negative, and where they are entropy is no number",
        }
        out = list(self.plan.warnings)
        for code, sentence in said.items():
            if code in self.warning_rows:
                rows = describe_rows(as_numpy(self.warning_rows[code]), self.plan)  # "queries 0 and 2 see"
                names, _, sees = rows.rpartition(" ")
                out.append(f"{code}: {sentence.replace('{} see', names + ' ' + sees).replace('{}', names)}")
            elif code in self.warnings_seen:
                out.append(f"{code}: {sentence}")
        return out

    def make_attention(self) -> Attention:
        """The result, once every step has been noted."""
        plan = self.plan
        made = {
            name: x if name in self.allocated_steps else self._to_result_array(x)
            for name, x in self.assembled_steps.items()
        }
        steps = {name: replace(self.steps[name], values=x) for name, x in made.items()}
        return Attention(
            variant=plan.variant.describe(),
            tokens=plan.tokens,
            k_tokens=plan.k_tokens,
            steps=tuple((self.steps | steps)[name] for name in plan.steps if name in self.steps),
            warnings=tuple(self._warning_messages()),
            parameters={k: x if self.returns_tensors else as_numpy(x) for k, x in self.inputs.drawn_parameters.items()},
            about=plan.problem.about,
            layout=plan.problem.layout or "bhtd",
            dtype=plan.variant.dtype,
            summary=plan.summary,
        )


def all_finite(x: Tensor) -> bool:
    """Whether it holds neither NaN nor ∞; without a copy, for x may be most of memory."""
    return x.numel() == 0 or all(math.isfinite(end.item()) for end in x.detach().aminmax())


def log_sum_exp(s: Tensor, w: Tensor) -> Tensor:
    """ln Σ e^s of scores whose softmax is w, (b, h, n, m) each → (b, h, n): the largest has the weight e^(max s) / Σ e^s."""
    top = s.amax(-1)  # (b, h, n)
    return (top - w.amax(-1).log()).where(top.isfinite(), top)  # −∞ where nothing is seen, ∞ and NaN as they are


def any_true(x: Tensor) -> Tensor:
    """Whether any of a row is true, (…, m) → (…): what `any` says, several times as fast."""
    return x.view(torch.uint8).amax(-1) > 0


def top_weights(w: Tensor, top: int, key_slices: KeySlices, key_count: int) -> tuple[Tensor, Tensor]:
    """The `top` largest weights of each row, largest first, and their keys; ties, lower key first. (b, h, n, top) each

    The columns of w (b, h, n, m) are these stretches of the `key_count` keys that there are; what stands between them weighs 0.
    """
    w, names = _insert_zero_columns(w, top, key_slices, key_count)  # (b, h, n, m), (m,)
    if w.shape[-1] > top:
        values, at = _blockwise_topk(w, top + 1)  # (b, h, n, top + 1)
        unsure = ~(values[..., top - 1] > values[..., top])  # (b, h, n): what is left out may be as large
        at = at[..., :top].sort(-1)[0]  # (b, h, n, top)
        values = w.gather(-1, at)
        order = values.sort(dim=-1, descending=True, stable=True)[1]
        values, at = values.gather(-1, order), at.gather(-1, order)
        if unsure.any():
            sure = w[unsure].sort(dim=-1, descending=True, stable=True)  # (·, m)
            values[unsure], at[unsure] = sure[0][:, :top], sure[1][:, :top]
    else:
        values, at = (x[..., :top] for x in w.sort(dim=-1, descending=True, stable=True))
    return values, names[at]


def _insert_zero_columns(w: Tensor, top: int, key_slices: KeySlices, key_count: int) -> tuple[Tensor, Tensor]:
    """Weights and the names of their keys, with zeros enough that one which should be among the largest is there."""
    pieces, names, row = [], [], 0
    for first, last in itertools.pairwise([slice(0, 0), *key_slices, slice(key_count, key_count)]):
        gap = min(top, last.start - first.stop)
        width = last.stop - last.start
        pieces += [w.new_zeros(()).expand(*w.shape[:-1], gap)] * bool(gap) + [w[..., row : row + width]] * bool(width)
        names += [torch.arange(first.stop, first.stop + gap), torch.arange(last.start, last.stop)]
        row += width
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1), torch.cat(names).to(w.device)


def _blockwise_topk(w: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest of each row and their columns, (b, h, n, count) each; found in the blocks that have the largest maxima."""
    blocks = w.shape[-1] // _TOPK_BLOCK_COLUMNS
    if blocks < 4 * count:
        values, at = w.topk(count, -1)
        return values, at
    head, tail = w.split([blocks * _TOPK_BLOCK_COLUMNS, w.shape[-1] - blocks * _TOPK_BLOCK_COLUMNS], -1)
    head = head.unflatten(-1, (blocks, _TOPK_BLOCK_COLUMNS))  # (b, h, n, blocks, block)
    best = head.amax(-1).topk(count, -1)[1]  # (b, h, n, count)
    held = head.gather(-2, best[..., None].expand(*best.shape, _TOPK_BLOCK_COLUMNS)).flatten(
        -2
    )  # (b, h, n, count · block)
    held = torch.cat([held, tail], -1) if tail.shape[-1] else held
    values, at = held.topk(count, -1)  # (b, h, n, count)
    place, column = at // _TOPK_BLOCK_COLUMNS, at % _TOPK_BLOCK_COLUMNS
    inside = best.gather(-1, place.clamp(max=count - 1)) * _TOPK_BLOCK_COLUMNS + column
    return values, inside.where(place < count, at + (blocks - count) * _TOPK_BLOCK_COLUMNS)
