"""Gradients as steps: a plan that has some is computed forwards and back, block by block of queries. Entry: `run_plan_with_gradient_steps`.

The loss is a sum over queries, so that the gradients of what queries share are sums over blocks of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from attncli.core.attention import forward, run_plan
from attncli.core.inputs import Inputs
from attncli.core.recorder import Recorder
from attncli.plan import Plan
from attncli.plan.gradient_request import GradientRequest
from attncli.plan.schedule import STEPS_OUTSIDE_TILES
from attncli.types import PARAMETER_STEPS, Attention, NumpyArray, Step
from attncli.validation.fields import as_numpy

_MAX_BLOCK_SCORES = 1 << 20  # whose graph is in memory at once


@dataclass(frozen=True)
class ForwardPass:
    """What a block of queries was computed from, with its graph: from here one goes back."""

    plan: Plan
    steps: Mapping[str, Tensor]  # with all axes that a step can have
    targets: Mapping[str, Tensor]  # what gradients are wanted of, by the gradient's name
    upstream_step: Tensor  # the context or the output, (b, n, ·)
    upstream: Tensor  # the gradient that arrives there
    inputs: Inputs

    def differentiate(self) -> dict[str, Tensor]:
        """Return the gradient of every target, by autograd; 0 where nothing depends on it."""
        return self.pull_back(self.upstream_step, self.upstream)

    def pull_back(self, values: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        """Return the gradient of every target, given that of some values that are computed from them.

        Args:
            values: a step, or what is computed from steps.
            gradient: in the shape of the values.
        """
        if not values.requires_grad:
            return {name: torch.zeros_like(x) for name, x in self.targets.items()}
        gradients = torch.autograd.grad(
            values, list(self.targets.values()), gradient, allow_unused=True, retain_graph=True
        )
        return {
            name: torch.zeros_like(x) if dx is None else dx
            for (name, x), dx in zip(self.targets.items(), gradients, strict=True)
        }


def run_plan_with_gradient_steps(plan: Plan) -> Attention:
    """Compute a plan, of whose steps some are gradients, and return the steps that it keeps.

    Args:
        plan: with `gradients`, and with any schedule.
    """
    request = plan.gradients
    assert request is not None
    names = [name for name in request.axes if name in plan.keep]
    steps = {name: axes for name, axes in plan.steps.items() if name not in request.axes}
    forward_plan = replace(plan, steps=steps, keep=plan.keep & steps.keys(), gradients=None, shared=None)
    queries = np.arange(plan.size.queries) if plan.computed_queries is None else plan.computed_queries
    is_fused = _is_differentiated_by_sdpa(forward_plan, request, names)
    blocks = [np.arange(len(queries))] if is_fused else list(_iter_blocks(forward_plan, queries))
    is_whole = len(blocks) == 1 and not is_fused
    attention = None if is_whole else run_plan(forward_plan)
    gradients: dict[str, NumpyArray] = {}
    for positions in blocks:
        schedule: Literal["dense", "fused"] = "fused" if is_fused else "dense"
        inputs, recorder = _run_forward(
            forward_plan, request, names, queries[positions], schedule=schedule, is_whole=is_whole
        )
        if attention is None:
            attention = recorder.make_attention()
            attention = replace(attention, steps=tuple(s for s in attention.steps if s.name in plan.keep))
        forward_pass = _make_forward_pass(request, names, queries[positions], inputs, recorder)
        backward = request.backward or ForwardPass.differentiate
        for name, gradient in backward(forward_pass).items():
            own = _lay_out(name, gradient, forward_pass, recorder)
            _add_block(gradients, name, own, _query_axis(request, name), positions, len(queries))
    assert attention is not None
    made = tuple(Step(name, f"∂loss/∂{name[1:]}", request.axes[name], gradients[name]) for name in names)
    return replace(attention, steps=(*attention.steps, *made))


def _is_differentiated_by_sdpa(plan: Plan, request: GradientRequest, names: list[str]) -> bool:
    """Whether PyTorch's kernel computes the plan, and nothing is asked for between what goes into it and what comes out.

    Of values that are not finite it computes nothing.
    """
    if plan.schedule != "fused" or request.backward is not None:
        return False
    before = {"embeddings", "memory", *PARAMETER_STEPS, *STEPS_OUTSIDE_TILES}
    arrays = (plan.problem.q, plan.problem.k, plan.problem.v)
    return all(name[1:] in before for name in names) and all(x is None or np.isfinite(x).all() for x in arrays)


def _iter_blocks(plan: Plan, queries: NumpyArray) -> Iterator[NumpyArray]:
    """Yield the positions of the queries of each block: all at once where they have few scores."""
    scores_of_query = (plan.size.batch or 1) * plan.shapes.heads * plan.size.keys
    size = max(1, _MAX_BLOCK_SCORES // scores_of_query)
    for first in range(0, len(queries), size):
        yield np.arange(first, min(first + size, len(queries)))


def _run_forward(
    plan: Plan,
    request: GradientRequest,
    names: list[str],
    queries: NumpyArray,
    *,
    schedule: Literal["dense", "fused"],
    is_whole: bool,
) -> tuple[Inputs, Recorder]:
    """Compute a block of queries with its graph."""
    sources = request.axes if request.backward else names
    needed = {name[1:] for name in sources} & plan.steps.keys() | {request.upstream_step}
    is_all = len(queries) == plan.size.queries
    block = replace(
        plan,
        keep=frozenset(needed | plan.keep) if is_whole else frozenset(needed),
        computed_queries=None if is_all else queries,
        variant=plan.variant.replace(schedule=schedule),
        schedule=schedule,
        tile_size=0,
    )
    with torch.enable_grad():
        inputs = Inputs(block, track_gradients=True)
        recorder = Recorder(block, inputs.caller_memory, inputs.drawn_parameters, track_gradients=True)
        forward(inputs, recorder)
    return inputs, recorder


def _make_forward_pass(
    request: GradientRequest, names: list[str], queries: NumpyArray, inputs: Inputs, recorder: Recorder
) -> ForwardPass:
    steps = recorder.tracked_steps
    leaves = {"embeddings": inputs.embeddings, "memory": inputs.memory_embeddings, "bias": inputs.grid.bias}
    leaves |= inputs.projection_parameters | inputs.part_parameters | steps
    targets = {name: x for name in names if (x := leaves.get(name[1:])) is not None}
    context = steps[request.upstream_step]
    upstream = torch.as_tensor(np.take(request.upstream, queries, axis=-2)).to(context)
    return ForwardPass(inputs.plan, steps, targets, context, upstream.reshape(context.shape), inputs)


def _lay_out(name: str, gradient: Tensor, forward_pass: ForwardPass, recorder: Recorder) -> NumpyArray:
    """Bring a gradient to the axes that the problem has: of learned arrays and the bias, to those of the file."""
    plan, of = forward_pass.plan, name[1:]
    gradient = gradient.detach()
    if of in forward_pass.inputs.projection_parameters:
        is_transposed = plan.projection_sizes().out_in and gradient.ndim == 2
        return as_numpy(gradient.T if is_transposed else gradient).astype(np.float64)
    if of in plan.steps:
        return as_numpy(recorder.trim_axes(of, gradient)[1]).astype(np.float64)
    x = as_numpy(gradient).astype(np.float64)
    if of in ("embeddings", "memory"):
        return x if plan.size.batch is not None else x[0]
    return x.reshape(x.shape[4 - plan.problem.bias.ndim :]) if of == "bias" else x


def _query_axis(request: GradientRequest, name: str) -> int | None:
    """Return the axis along which each query has numbers of its own; None where all queries share them."""
    axes, lengths = request.axes[name], request.lengths.get(name)
    is_shared = "query" not in axes or name == "dembeddings" or (lengths is not None and lengths["query"] == 1)
    return None if is_shared else axes.index("query")


def _add_block(
    gradients: dict[str, NumpyArray],
    name: str,
    own: NumpyArray,
    query_axis: int | None,
    positions: NumpyArray,
    query_count: int,
) -> None:
    """Put a block's rows in their place, or add up what its queries share."""
    if query_axis is None:
        gradients[name] = gradients[name] + own if name in gradients else own
        return
    before, after = own.shape[:query_axis], own.shape[query_axis + 1 :]
    whole = gradients.setdefault(name, np.zeros((*before, query_count, *after)))
    np.moveaxis(whole, query_axis, 0)[positions] = np.moveaxis(own, query_axis, 0)
