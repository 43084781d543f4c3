"""Gradients of every step, given the one that arrives at the context; all of them are autograd's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attncli.core.attention import forward
from attncli.core.inputs import Inputs
from attncli.core.layers import merge
from attncli.core.recorder import Recorder
from attncli.plan import Plan
from attncli.types import Array, Attention, NumpyArray
from attncli.validation.fields import as_numpy

_NOT_EXPLAINED = ("max_score", "log_sum_exp", "entropy")  # nothing goes on from these steps


@dataclass(frozen=True)
class Gradients:
    """The derivative of (context · upstream) with respect to each number of each step."""

    steps: dict[str, NumpyArray]  # on the axes of the step
    parameters: dict[str, NumpyArray]  # of W as x @ W takes it, (d_in, d_out)
    embeddings: dict[str, NumpyArray]  # (b, t, ·): by way of q, k and v, with respect to what each is projected from
    upstream: NumpyArray


def run_plan_with_gradients(plan: Plan, upstream: Array) -> tuple[Attention, Gradients]:
    """Compute a plan and the gradients of its steps.

    Args:
        plan: it keeps every step.
        upstream: the gradient of the context, (n, h·c) or (b, n, h·c); a number stands for all of them.
    """
    inputs = Inputs(plan, track_gradients=True)
    recorder = Recorder(plan, inputs.caller_memory, inputs.drawn_parameters, track_gradients=True)
    forward(inputs, recorder)
    parameters = inputs.projection_parameters  # (d_in, d_out)
    steps = {name: x for name, x in recorder.tracked_steps.items() if x.is_floating_point()}
    context = steps["context"]
    context_gradient = torch.as_tensor(upstream).to(context).expand(recorder.trim_axes("context", context)[1].shape)
    all_gradients = torch.autograd.grad(
        context, [*steps.values(), *parameters.values()], context_gradient.reshape(context.shape), allow_unused=True
    )
    step_gradients = {
        name: torch.zeros_like(x) if gradient is None else gradient
        for (name, x), gradient in zip(steps.items(), all_gradients, strict=False)
    }
    parameter_gradients = dict(zip(parameters, all_gradients[len(steps) :], strict=True))
    embedding_gradients = {
        letter: _embedding_gradient(letter, step_gradients[letter], parameters)
        for letter in "qkv"
        if letter in step_gradients and plan.problem.embeddings is not None
    }
    return recorder.make_attention(), Gradients(
        {
            name: as_numpy(recorder.trim_axes(name, gradient)[1])
            for name, gradient in step_gradients.items()
            if name not in _NOT_EXPLAINED
        },
        {name: as_numpy(gradient) for name, gradient in parameter_gradients.items() if gradient is not None},
        {letter: as_numpy(gradient) for letter, gradient in embedding_gradients.items()},
        as_numpy(context_gradient),
    )


def _embedding_gradient(letter: str, gradient: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """dq W_qᵀ: the gradient that reaches the embeddings by way of q, k or v. (b, h, t, d) → (b, t, ·)"""
    merged = merge(gradient)  # (b, t, h·d)
    w = parameters.get(f"w_{letter}")
    return merged if w is None else merged @ w.T
