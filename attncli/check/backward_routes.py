"""The two ways that a gradient takes back through attention, by way of the scores and of the values, each of which may go wrong.

`Routes` is the entry: a fault gives the gradient that arrives at the scores, or the weights that meet the values, and
everything else is differentiated as it should be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from attncli.types import Tensor

if TYPE_CHECKING:
    from attncli.core.gradient_steps import ForwardPass
    from attncli.plan import Plan

Gradients = dict[str, Tensor]


class Routes:
    """A block of queries computed forwards, and the gradients of its targets by each way."""

    def __init__(self, forward_pass: ForwardPass) -> None:
        self.forward_pass = forward_pass
        self.plan = forward_pass.plan
        self.steps = forward_pass.steps

    @cached_property
    def right(self) -> Gradients:
        """The gradients as they should be."""
        return self.forward_pass.differentiate()

    # ── what arrives ─────────────────────────────────────────────────────────────────────────────
    def gradient_of(self, step: str) -> Tensor:
        """The gradient that arrives at a step, in its shape."""
        import torch

        x = self.steps[step]
        [gradient] = torch.autograd.grad(
            self.forward_pass.upstream_step, [x], self.forward_pass.upstream, allow_unused=True, retain_graph=True
        )
        return torch.zeros_like(x) if gradient is None else gradient

    @cached_property
    def weights(self) -> Tensor:
        """What softmax gives: (b, h, n, m)."""
        return self.steps["weights"].detach()

    @cached_property
    def kept_weights(self) -> Tensor:
        """The weights that meet the values: after dropout, where there is any."""
        return self.steps[self.plan.summed_weights].detach()

    @cached_property
    def dropout_factor(self) -> Tensor:
        """What dropout multiplies each weight by: 0 or 1/(1 − p); 1 where there is none."""
        ratio: Tensor = self.kept_weights / self.weights
        return ratio.nan_to_num(0.0, 0.0, 0.0)

    @cached_property
    def weights_gradient(self) -> Tensor:
        """The gradient that arrives at what softmax gives: dP."""
        return self.gradient_of("weights")

    @cached_property
    def row_term(self) -> Tensor:
        """Σ P ∘ dP of each row, which is Σ dO ∘ O: (b, h, n, 1)."""
        return (self.weights * self.weights_gradient).sum(-1, keepdim=True)

    @property
    def last_scores(self) -> str:
        """The step that softmax takes."""
        return self.plan.chain[-1].step if self.plan.chain else "scores"

    @property
    def unmasked_scores(self) -> str:
        """The step that the mask takes; what softmax takes, where there is no mask."""
        links = [link for link in self.plan.chain if link.is_mask]
        before = list(self.plan.chain[: self.plan.chain.index(links[0])]) if links else list(self.plan.chain)
        return before[-1].step if before else "scores"

    def unmasked_weights(self) -> Tensor:
        """What a kernel makes of scores that it forgot to mask, with the sum that it kept: exp(s − log-sum-exp)."""
        s, masked = self.steps[self.unmasked_scores].detach(), self.steps[self.last_scores].detach()
        seen = masked > -math.inf
        sums = (s - self.weights.log()).masked_fill(~seen | (self.weights == 0), -math.inf).amax(-1, keepdim=True)
        weights: Tensor = (s - sums).exp()
        return weights.masked_fill(sums == -math.inf, 0.0)

    # ── the two ways ─────────────────────────────────────────────────────────────────────────────
    def by_scores(self, step: str, gradient: Tensor) -> Gradients:
        """The gradients by way of a step of the scores, to which this one arrives."""
        return self.forward_pass.pull_back(self.steps[step], gradient)

    def by_values(self, weights: Tensor, heads: Iterable[int] | None = None) -> Gradients:
        """The gradients by way of the values, that these weights meet.

        Args:
            weights: (b, h, n, m).
            heads: whose share is taken; None: of all.
        """
        from attncli.core.layers import merge, repeat_kv

        plan = self.plan
        v = self.steps["present_v" if "present_v" in self.steps else "v"]
        z = weights @ repeat_kv(v, plan.shapes.mixed_heads, plan.variant.kv_map).to(weights.dtype)
        gradient = self.gradient_of("context")
        if heads is not None:
            gradient = keep_heads(gradient.unflatten(-1, (plan.shapes.mixed_heads, -1)), heads, 2).flatten(2)
        return self.forward_pass.pull_back(merge(z), gradient)

    @cached_property
    def right_by_scores(self) -> Gradients:
        return self.by_scores(self.last_scores, self.gradient_of(self.last_scores))

    @cached_property
    def right_by_values(self) -> Gradients:
        return self.by_values(self.kept_weights)

    def with_scores(self, wrong: Gradients) -> Gradients:
        """The gradients with these by way of the scores in the place of the right ones."""
        return {name: self.right[name] - self.right_by_scores[name] + wrong[name] for name in self.right}

    def with_values(self, wrong: Gradients) -> Gradients:
        """The gradients with these by way of the values in the place of the right ones."""
        return {name: self.right[name] - self.right_by_values[name] + wrong[name] for name in self.right}

    def with_both(self, scores: Gradients, values: Gradients) -> Gradients:
        """The gradients with both ways replaced."""
        half = self.with_scores(scores)
        return {name: half[name] - self.right_by_values[name] + values[name] for name in half}

    def of_heads(self, heads: Iterable[int]) -> Gradients:
        """The share of some query heads in the gradients."""
        heads = list(heads)
        s = self.last_scores
        scores = self.by_scores(s, keep_heads(self.gradient_of(s), heads, 1))
        values = self.by_values(self.kept_weights, heads)
        return {name: scores[name] + values[name] for name in scores}


def keep_heads(x: Tensor, heads: Iterable[int], axis: int) -> Tensor:
    """Set all but some heads to 0."""
    kept = x.new_zeros(x.shape[axis])
    kept[list(heads)] = 1
    shape = [1] * x.ndim
    shape[axis] = -1
    return x * kept.reshape(shape)


def query_indices(plan: Plan) -> Tensor:
    """The index of each query that is computed: (n, 1)."""
    import torch

    queries = plan.computed_queries
    return torch.arange(plan.size.queries)[:, None] if queries is None else torch.as_tensor(queries)[:, None]
