"""Keeping the derivation: each step that was asked for, with its name, formula and axes, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attncli.gate.arrays import as_numpy, is_tensor
from attncli.plan import Plan, blind_rows
from attncli.types import BASE_STEPS, Attention, Step
from attncli.worked import Finer, take

if TYPE_CHECKING:
    from attncli.core.given import Given


class Notes:
    """The notebook of one run. Calling it notes a step and hands its values back."""

    def __init__(self, plan: Plan, given: Given) -> None:
        self.plan, self.given = plan, given
        self.dtype: torch.dtype = getattr(torch, plan.variant["dtype"])
        self.steps: list[Step] = []
        self.whole: dict[str, Tensor] = {}  # every step as the algebra has it: what gradients are taken of
        self.warnings = list(plan.warnings)
        p = plan.problem
        self.tensors = any(is_tensor(x) for x in (p.embeddings, p.q, p.k))

    def __call__(self, name: str, values: Tensor | None, formula: str) -> Any:
        """Keep `values` if the step was asked for, without the axes that the problem lacks; hand them back whole."""
        self._keep(name, values, formula, self.given.predicates if name == "mask" else take())
        return values

    def _keep(self, name: str, values: Tensor | None, formula: str, noted: Mapping[str, Finer] | None = None) -> None:
        if name not in self.plan.keep or values is None:
            return
        self.whole[name] = values
        if self.given.traced and values.is_floating_point() and not values.requires_grad:
            values.requires_grad_()  # what is made without a slope, as a hard maximum is, has a gradient of its own
        axes, kept = self.cut(name, values)
        finer = {word: one._replace(values=as_numpy(one.values)) for word, one in (noted or {}).items()}
        self.steps.append(Step(name, formula, axes, self._own(kept), finer))

    def cut(self, name: str, values: Tensor) -> tuple[tuple[str, ...], Tensor]:
        """What has every axis → (the axes of the step, what has those alone)."""
        axes, full = self.plan.steps[name], BASE_STEPS.get(name, BASE_STEPS["scores"])
        if name == "mask":  # the trailing axes that it needs
            needed = [axis in ("query", "key") or values.shape[full.index(axis)] > 1 for axis in axes]
            axes = axes[needed.index(True) :]
        there = {*axes, "new_key"} if "key" in axes else {*axes}  # without a past, new keys are the keys
        kept = values[tuple(slice(None) if axis in there else 0 for axis in full)]
        return axes, kept.expand([self.plan.length(name, axis) for axis in axes])

    def _own(self, kept: Tensor) -> Any:
        """As the kind that came in, and never the caller's own memory."""
        kept = kept.to(self.dtype) if kept.is_floating_point() else kept
        if kept.untyped_storage().data_ptr() in self.given.borrowed:
            kept = kept.clone()
        return kept if self.tensors else as_numpy(kept)

    def row_statistics(self, s: Tensor, seen: Tensor, visible: Tensor) -> None:
        """Of the scores that the normaliser sees, a sink's included (b, h, n, m + 1) → (b, h, n). Natural logarithm."""
        if not self.plan.keep & {"max_score", "log_sum_exp", "visible_keys"}:
            return
        s = s.masked_fill(~seen, -torch.inf)  # (b, h, n, m + 1)
        self._keep("max_score", s[..., : visible.shape[-1]].amax(-1), "max s")
        self._keep("log_sum_exp", s.logsumexp(-1), "ln Σ e^s")
        self._keep("visible_keys", visible.sum(-1).expand(s.shape[:-1]), "number of keys that may be seen")

    def entropy(self, w: Tensor) -> None:
        """Of the weights brought to sum 1, in bits; 0 for a row of zeros. (b, h, n, m) → (b, h, n)"""
        if "entropy" in self.plan.keep:
            if (w < 0).any():
                self.warnings.append("no-entropy: some weights are negative, and where they are entropy is no number")
            total = w.sum(-1, keepdim=True)  # (b, h, n, 1)
            p = w / total.masked_fill(total == 0, 1)  # (b, h, n, m)
            self._keep("entropy", 0 - torch.special.xlogy(p, p).sum(-1) / math.log(2), "−Σ w log₂ w")

    def checked(self, w: Tensor, visible: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weights of the keys, and of the sink: what is odd is warned of, and rows that see nothing are filled."""
        m = visible.shape[-1]
        w, sink = w[..., :m], w[..., m] if w.shape[-1] > m else None
        normalizer, dtype = self.plan.variant["normalizer"], self.plan.variant["dtype"]
        if not w.isfinite().all():
            self.warnings.append(
                f"not-finite: some weights are not finite: a visible NaN or ∞, or scores beyond {dtype}"
            )
        if normalizer.member.facts.get("shares"):
            if (w < 0).any():
                self.warnings.append(f"negative-weights: under {normalizer.name} negative scores give negative weights")
            if rows := blind_rows((w != 0) | ~visible.any(-1, keepdim=True), self.plan):
                self.warnings.append(f"zero-sum: {rows.rpartition(' ')[0]}: scores sum to 0, so weights are 0")
        rows = blind_rows(visible, self.plan) if self.plan.masked else ""
        if not rows:
            return w, sink
        how = self.plan.variant["empty_rows"]
        value, says = {"zero": (0.0, "0"), "nan": (torch.nan, "NaN"), "uniform": (1 / m, "uniform over all keys")}[how]
        whose = "weights are" if how == "uniform" else "weights and context are"
        self.warnings.append(f"empty-rows: {rows} no key: {whose} {says}")
        blind = ~visible.any(-1, keepdim=True)  # (b, h, n, 1)
        if sink is not None and how != "zero":  # the keys have what the sink had
            sink = sink.masked_fill(blind[..., 0], torch.nan if how == "nan" else 0)
        return w.masked_fill(blind, value), sink

    def largest(self, w: Tensor, top: int) -> None:
        """The `top` largest weights of each query and where they are; ties, lower index first. (b, h, n, m) → (b, h, n, top)"""
        if top and self.plan.keep & {"top_keys", "top_weights"}:
            values, keys = w.sort(dim=-1, descending=True, stable=True)
            self._keep("top_keys", keys[..., :top], "keys of the largest weights")
            self._keep("top_weights", values[..., :top], "the largest weights")

    def attention(self) -> Attention:
        """The result, once every step has been noted."""
        plan = self.plan
        return Attention(
            variant=plan.variant.describe(),
            tokens=plan.tokens,
            k_tokens=plan.k_tokens,
            steps=tuple(sorted(self.steps, key=lambda step: list(plan.steps).index(step.name))),
            warnings=tuple(self.warnings),
            parameters={k: x if self.tensors else as_numpy(x) for k, x in self.given.drawn.items()},
            about=plan.problem.about,
            layout=plan.problem.layout or "bhtd",
            dtype=plan.variant["dtype"],
            summary=plan.summary,
        )
