"""The way back: the gradient of every step, given the one that arrives at the context. All of it is autograd's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attncli.core.attention import merge, work
from attncli.plan import Plan
from attncli.types import Array, Attention, NumpyArray
from attncli.validation.fields import as_numpy


@dataclass(frozen=True)
class Gradients:
    """What a small change of each number would change, times the gradient that arrives at the context."""

    steps: dict[str, NumpyArray]  # on the axes of the step
    parameters: dict[str, NumpyArray]  # W as x @ W wants it, (d_in, d_out)
    embeddings: dict[str, NumpyArray]  # (b, t, ·): through q, k and v, of what each is made of
    upstream: NumpyArray


def follow_back(plan: Plan, upstream: Array) -> tuple[Attention, Gradients]:
    """The steps of a plan, and their gradients.

    Args:
        plan: it keeps every step.
        upstream: the gradient of the context, (n, h·c) or (b, n, h·c); a number stands for all of them.
    """
    note = work(plan, traced=True)
    weights = note.given.parameters  # (d_in, d_out)
    whole = {name: x for name, x in note.traced.items() if x.is_floating_point()}
    context = whole["context"]
    arriving = torch.as_tensor(upstream).to(context).expand(note.cut("context", context)[1].shape)
    wanted = [*whole.values(), *weights.values()]
    found = torch.autograd.grad(context, wanted, arriving.reshape(context.shape), allow_unused=True)
    steps = {n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(whole.items(), found, strict=False)}
    learned = dict(zip(weights, found[len(whole) :], strict=True))
    cut = {n: note.cut(n, g)[1] for n, g in steps.items() if n not in ("max_score", "log_sum_exp", "entropy")}
    through = {x: _through(x, steps[x], weights) for x in "qkv" if x in steps and plan.problem.embeddings is not None}
    return note.attention(), Gradients(
        {n: as_numpy(g) for n, g in cut.items()},
        {n: as_numpy(g) for n, g in learned.items() if g is not None},
        {x: as_numpy(g) for x, g in through.items()},
        as_numpy(arriving),
    )


def _through(letter: str, gradient: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """dq W_qᵀ: what reaches the embeddings by way of q, k or v. (b, h, t, d) → (b, t, ·)"""
    whole = merge(gradient)
    assert whole is not None
    w = weights.get(f"w_{letter}")
    return whole if w is None else whole @ w.T
