"""Keeping the derivation: each step that was asked for, with its name, formula and axes, and nothing else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attncli.core.tiles import Keys, Slice, Tile
from attncli.derivation import Finer, take
from attncli.plan import Plan, blind_rows
from attncli.plan.visibility import seen_shape
from attncli.types import BASE_STEPS, Array, Attention, NumpyArray, Step
from attncli.validation.fields import as_numpy, is_tensor

if TYPE_CHECKING:
    from attncli.core.inputs import Given

_BLOCK = 64  # columns whose largest is found together
Place = Callable[[str, Sequence[int]], Tensor | None]  # the name of a step and its lengths → where to put it


class Notes:
    """The notebook of one run. Calling it notes a step, or a tile's part of one, and hands its values back."""

    def __init__(self, plan: Plan, given: Given, place: Place | None = None) -> None:
        self.plan, self.given = plan, given
        self.dtype: torch.dtype = getattr(torch, plan.variant.dtype)
        self.place = place  # where steps too large for memory go
        self.placed: set[str] = set()  # which have gone there
        self.steps: dict[str, Step] = {}
        self.whole: dict[str, Tensor] = {}  # steps that tiles put together
        self.traced: dict[str, Tensor] = {}  # every step as the algebra has it, where gradients are taken
        self.tile: Tile | None = None  # the tile at hand; None: everything at once
        self.odd: set[str] = set()  # codes of what is odd about some weights
        self.rows: dict[str, Tensor] = {}  # for each of two warnings, the rows it is about: (b, h, n)
        p = plan.problem
        self.tensors = any(is_tensor(x) for x in (p.embeddings, p.q, p.k))

    def on(self, tile: Tile) -> None:
        """What is noted from now on belongs to a tile."""
        self.tile = tile if self.plan.tile else None

    def off(self) -> None:
        """What is noted from now on is whole."""
        self.tile = None

    def __call__(self, name: str, values: Tensor | None, formula: str) -> Array:
        """Keep `values` if the step was asked for, without the axes that the problem lacks; hand them back whole."""
        self._keep(name, values, formula, self.given.predicates if name == "mask" else take())
        return values

    def _keep(self, name: str, values: Tensor | None, formula: str, noted: Mapping[str, Finer] | None = None) -> None:
        if name not in self.plan.keep or values is None:
            return
        if self.given.traced:
            self.traced[name] = values
            if values.is_floating_point() and not values.requires_grad:
                values.requires_grad_()  # what is made without a slope, as a hard maximum is, has a gradient of its own
        axes, kept = self.cut(name, values)
        if self.tile is None:
            lengths = [self.plan.length(name, axis) for axis in axes]
            finer = {word: one._replace(values=as_numpy(one.values)) for word, one in (noted or {}).items()}
            self.steps[name] = Step(name, formula, axes, self._own(kept.expand(lengths)), finer)
            return
        self._into(name, formula, axes, kept)

    def _into(self, name: str, formula: str, axes: tuple[str, ...], kept: Tensor) -> None:
        """A tile's part of a step to where it belongs."""
        if name not in self.whole:
            lengths = [self.plan.length(name, axis) for axis in axes]
            self.whole[name] = self._room(name, lengths, self.dtype if kept.is_floating_point() else kept.dtype)
            self.steps[name] = Step(name, formula, axes, None)
        self.whole[name][self._part(axes)] = kept

    def _part(self, axes: Sequence[str]) -> tuple[Slice, ...]:
        """Where the tile at hand lies in a step."""
        assert self.tile is not None
        part = {"batch": self.tile.batch, "head": self.tile.heads, "query": self.tile.rows}
        return tuple(part.get(axis, slice(None)) for axis in axes)

    def sent(self, tile: Tile) -> tuple[dict[str, tuple[str, tuple[str, ...], NumpyArray]], dict[str, NumpyArray]]:
        """What a worker has noted of a tile: steps by name (formula, axes, values), and the rows that warnings are about."""
        self.on(tile)
        steps = {
            name: (self.steps[name].formula, self.steps[name].axes, as_numpy(x[self._part(self.steps[name].axes)]))
            for name, x in self.whole.items()
        }
        rows = {code: as_numpy(tile.of(x[..., None], columns=False)[..., 0]) for code, x in self.rows.items()}
        return steps, rows

    def received(
        self,
        tile: Tile,
        steps: Mapping[str, tuple[str, tuple[str, ...], NumpyArray]],
        odd: Iterable[str],
        rows: Mapping[str, NumpyArray],
    ) -> None:
        """Note what a worker has sent of a tile."""
        self.on(tile)
        for name, (formula, axes, values) in steps.items():
            self._into(name, formula, axes, torch.from_numpy(values))
        self.odd.update(odd)
        for code, found in rows.items():
            self._about(code, torch.from_numpy(found))

    def cut(self, name: str, values: Tensor) -> tuple[tuple[str, ...], Tensor]:
        """What has every axis → (the axes of the step, what has those alone)."""
        axes, full = self.plan.steps[name], BASE_STEPS.get(name, BASE_STEPS["scores"])
        if name == "mask":  # the trailing axes that it needs
            differ = dict(zip(("batch", "head"), seen_shape(self.plan.grid(), self.plan.mask), strict=True))
            needed = [differ.get(axis, 2) > 1 for axis in axes]
            axes = axes[needed.index(True) :]
        there = {*axes, "new_key"} if "key" in axes else {*axes}  # without a past, new keys are the keys
        kept = values[tuple(slice(None) if axis in there else 0 for axis in full)]
        return axes, kept

    def _room(self, name: str, lengths: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Where a whole step goes: into memory, or where its place is."""
        room = self.place(name, lengths) if self.place else None
        if room is None:
            return torch.empty(*lengths, dtype=dtype)
        self.placed.add(name)
        return room

    def _own(self, kept: Tensor) -> Array:
        """As the kind that came in, and never the caller's own memory."""
        kept = kept.to(self.dtype) if kept.is_floating_point() else kept
        if kept.untyped_storage().data_ptr() in self.given.borrowed:
            kept = kept.clone()
        return kept if self.tensors else as_numpy(kept)

    def row_statistics(self, s: Tensor, w: Tensor, visible: Tensor) -> None:
        """Of the scores that the normaliser sees, and what it makes of them, a sink's included (b, h, n, m + 1) → (b, h, n)"""
        if not self.plan.keep & {"max_score", "log_sum_exp", "visible_keys"}:
            return
        if "max_score" in self.plan.keep:
            self._keep("max_score", s[..., : visible.shape[-1]].amax(-1), "max s")
        if "log_sum_exp" in self.plan.keep:
            exponential = self.plan.variant.normalizer.traits.is_exponential
            self._keep("log_sum_exp", log_sum_exp(s, w) if exponential else s.logsumexp(-1), "ln Σ e^s")
        if "visible_keys" in self.plan.keep:
            self._keep("visible_keys", visible.sum(-1).expand(s.shape[:-1]), "number of keys that may be seen")

    def entropy(self, w: Tensor) -> None:
        """Of the weights brought to sum 1, in bits; 0 for a row of zeros. (b, h, n, m) → (b, h, n)"""
        if "entropy" in self.plan.keep:
            if (w < 0).any():
                self.odd.add("no-entropy")
            total = w.sum(-1, keepdim=True)  # (b, h, n, 1)
            p = w / total.masked_fill(total == 0, 1)  # (b, h, n, m)
            self._keep("entropy", 0 - torch.special.xlogy(p, p).sum(-1) / math.log(2), "−Σ w log₂ w")

    def checked(self, w: Tensor, visible: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weights of the keys, and of the sink: what is odd is warned of, and rows that see nothing are filled."""
        m = visible.shape[-1]
        w, sink = w[..., :m], w[..., m] if w.shape[-1] > m else None
        if not finite(w):
            self.odd.add("not-finite")
        if self.plan.variant.normalizer.traits.is_ratio_of_sum:
            if (w < 0).any():
                self.odd.add("negative-weights")
            self._about("zero-sum", ~some(w != 0) & some(visible))
        if not self.plan.masked:
            return w, sink
        blind = ~some(visible)[..., None]  # (b, h, n, 1)
        if not blind.any():
            return w, sink
        value = self.blind(blind[..., 0])
        if sink is not None and self.plan.variant.empty_rows != "zero":  # the keys have what the sink had
            sink = sink.masked_fill(blind[..., 0], torch.nan if math.isnan(value) else 0)
        return w.masked_fill(blind, value), sink

    def blind(self, rows: Tensor) -> float:
        """Remember which rows see no key, (b, h, n); what their weights are."""
        self._about("empty-rows", rows)
        return {"zero": 0.0, "nan": math.nan, "uniform": 1 / self.plan.size.keys}[self.plan.variant.empty_rows]

    def _about(self, code: str, rows: Tensor) -> None:
        """Rows that a warning is about, (b, h, n), of this tile."""
        if not rows.any():
            return
        b, h, n = self.plan.size.batch or 1, self.plan.shapes.heads, self.plan.length("scores", "query")
        found = self.rows.setdefault(code, torch.zeros(b, h, n, dtype=torch.bool))
        (self.tile.of(found[..., None], columns=False)[..., 0] if self.tile else found)[:] = rows.cpu()

    def largest(self, w: Tensor) -> None:
        """The largest weights of each query and where they are; ties, lower index first. (b, h, n, m) → (b, h, n, top)"""
        if not self.plan.keep & {"top_keys", "top_weights"}:
            return
        stretches = self.tile.keys if self.tile else (slice(0, self.plan.size.keys),)
        values, keys = largest(w, self.plan.top, stretches, self.plan.size.keys)
        self._keep("top_keys", keys, "keys of the largest weights")
        self._keep("top_weights", values, "the largest weights")

    def not_fused(self) -> None:
        """The kernel was not used after all."""
        self.plan = replace(self.plan, schedule="tiled", variant=self.plan.variant.but(schedule="tiled"))

    def _warnings(self) -> list[str]:
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
            if code in self.rows:
                rows = blind_rows(as_numpy(self.rows[code]), self.plan)  # "queries 0 and 2 see"
                names, _, sees = rows.rpartition(" ")
                out.append(f"{code}: {sentence.replace('{} see', names + ' ' + sees).replace('{}', names)}")
            elif code in self.odd:
                out.append(f"{code}: {sentence}")
        return out

    def attention(self) -> Attention:
        """The result, once every step has been noted."""
        plan = self.plan
        made = {name: x if name in self.placed else self._own(x) for name, x in self.whole.items()}
        steps = {name: replace(self.steps[name], values=x) for name, x in made.items()}
        return Attention(
            variant=plan.variant.describe(),
            tokens=plan.tokens,
            k_tokens=plan.k_tokens,
            steps=tuple((self.steps | steps)[name] for name in plan.steps if name in self.steps),
            warnings=tuple(self._warnings()),
            parameters={k: x if self.tensors else as_numpy(x) for k, x in self.given.drawn.items()},
            about=plan.problem.about,
            layout=plan.problem.layout or "bhtd",
            dtype=plan.variant.dtype,
            summary=plan.summary,
        )


def finite(x: Tensor) -> bool:
    """Whether it holds neither NaN nor ∞; without a copy, for x may be most of memory."""
    return x.numel() == 0 or all(math.isfinite(end.item()) for end in x.detach().aminmax())


def log_sum_exp(s: Tensor, w: Tensor) -> Tensor:
    """ln Σ e^s of scores whose softmax is w, (b, h, n, m) each → (b, h, n): the largest has the weight e^(max s) / Σ e^s."""
    top = s.amax(-1)  # (b, h, n)
    return (top - w.amax(-1).log()).where(top.isfinite(), top)  # −∞ where nothing is seen, ∞ and NaN as they are


def some(x: Tensor) -> Tensor:
    """Whether any of a row is true, (…, m) → (…): what `any` says, several times as fast."""
    return x.view(torch.uint8).amax(-1) > 0


def largest(w: Tensor, top: int, stretches: Keys, keys: int) -> tuple[Tensor, Tensor]:
    """The `top` largest weights of each row, largest first, and their keys; ties, lower key first. (b, h, n, top) each

    The columns of w (b, h, n, m) are these stretches of the `keys` that there are; what stands between them weighs 0.
    """
    w, names = _with_zeros(w, top, stretches, keys)  # (b, h, n, m), (m,)
    if w.shape[-1] > top:
        values, at = _topk(w, top + 1)  # (b, h, n, top + 1)
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


def _with_zeros(w: Tensor, top: int, stretches: Keys, keys: int) -> tuple[Tensor, Tensor]:
    """Weights and the names of their keys, with zeros enough that one which should be among the largest is there."""
    pieces, names, row = [], [], 0
    for first, last in itertools.pairwise([slice(0, 0), *stretches, slice(keys, keys)]):
        gap = min(top, last.start - first.stop)
        width = last.stop - last.start
        pieces += [w.new_zeros(()).expand(*w.shape[:-1], gap)] * bool(gap) + [w[..., row : row + width]] * bool(width)
        names += [torch.arange(first.stop, first.stop + gap), torch.arange(last.start, last.stop)]
        row += width
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1), torch.cat(names).to(w.device)


def _topk(w: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest of each row and their columns, (b, h, n, count) each; found in the blocks that have the largest maxima."""
    blocks = w.shape[-1] // _BLOCK
    if blocks < 4 * count:
        values, at = w.topk(count, -1)
        return values, at
    head, tail = w.split([blocks * _BLOCK, w.shape[-1] - blocks * _BLOCK], -1)
    head = head.unflatten(-1, (blocks, _BLOCK))  # (b, h, n, blocks, block)
    best = head.amax(-1).topk(count, -1)[1]  # (b, h, n, count)
    held = head.gather(-2, best[..., None].expand(*best.shape, _BLOCK)).flatten(-2)  # (b, h, n, count · block)
    held = torch.cat([held, tail], -1) if tail.shape[-1] else held
    values, at = held.topk(count, -1)  # (b, h, n, count)
    place, column = at // _BLOCK, at % _BLOCK
    inside = best.gather(-1, place.clamp(max=count - 1)) * _BLOCK + column
    return values, inside.where(place < count, at + (blocks - count) * _BLOCK)
