"""Gradients as steps of a plan: which there are, on which axes, and of which loss. Entry: `with_gradients`.

A gradient is called as what it is taken of, with a d before it: dq, dbias, dw_q. The loss is known by its gradient with
respect to the context or the output.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from attncli.plan.gradient_request import Backward, GradientRequest
from attncli.plan.plan import Plan
from attncli.registry import AnyPart
from attncli.step_names import GRADIENT_NAMES
from attncli.types import PARAMETER_STEPS, NumpyArray
from attncli.validation.fields import shape_of

_ARRAY_AXES = ("batch", "head", "query", "key")


def with_gradients(plan: Plan, upstream_step: str, upstream: NumpyArray, backward: Backward | None = None) -> Plan:
    """Return the plan with the gradients of all that comes before a step, after its other steps.

    Args:
        plan: it may have such steps already.
        upstream_step: context or output.
        upstream: the gradient that arrives there.
        backward: in the place of differentiation.
    """
    steps = {name: axes for name, axes in plan.steps.items() if name not in GRADIENT_NAMES}
    before = list(steps)[: list(steps).index(upstream_step)]
    shapes = dict(_shapes_of_inputs(plan, before))
    axes = {f"d{name}": tuple(shapes[name]) if name in shapes else steps[name] for name in (*before, *shapes)}
    axes = {name: axes[name] for name in GRADIENT_NAMES if name in axes}
    lengths = {f"d{name}": shape for name, shape in shapes.items()}
    request = GradientRequest(upstream_step, upstream, axes, lengths, backward)
    return dataclasses.replace(plan, steps={**steps, **axes}, gradients=request, shared=None)


def _shapes_of_inputs(plan: Plan, before: list[str]) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield what comes in and has a gradient, but is no step or lies otherwise: its name, and its lengths by axis.

    Args:
        plan: of the problem.
        before: the steps before the one that the loss is known by.
    """
    problem, variant = plan.problem, plan.variant
    axes: tuple[str, ...]
    embeddings = {
        "embeddings": (problem.embeddings, "query"),
        "memory": ((problem.memory or {}).get("embeddings"), "key"),
    }
    for name, (x, token_axis) in embeddings.items():
        if x is not None:
            axes = ("batch", token_axis, "dim")
            yield name, dict(zip(axes[-x.ndim :], shape_of(x), strict=True))
    if problem.bias is not None and any(link.name == "bias" for link in plan.chain):
        shape = shape_of(problem.bias)
        yield "bias", dict(zip(_ARRAY_AXES[4 - len(shape) :], shape, strict=True))
    out_in = plan.projection_sizes().out_in
    for name in PARAMETER_STEPS:
        if name in plan.shapes.parameters and name in before:  # as the file has it, not as x @ W takes it
            axes, shape = PARAMETER_STEPS[name], plan.shapes.parameters[name]
            lengths = dict(zip(axes, shape, strict=True))
            yield name, {axis: lengths[axis] for axis in (reversed(axes) if out_in else axes)}
    parts: tuple[AnyPart, ...] = (variant.qk_norm, variant.position, variant.score, variant.sink, variant.head_mixing)
    for part in parts:
        for parameter in part.member.parameters:
            if parameter.name in problem.parameters:
                shape = shape_of(problem.parameters[parameter.name])
                axes = ("in_dim", "out_dim")[-len(shape) :]
                if parameter.axes == ("H",):
                    axes = ("head",)
                yield parameter.name, dict(zip(axes, shape, strict=True))
