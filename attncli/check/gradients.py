"""Gradients among the figures: which loss they are of, and their place among the steps of a plan.

`take_upstream` takes the gradient by which the loss is known out of the figures, `with_claimed_gradients` plans theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from attncli.check.claims import make_claims, step_shape
from attncli.check.figures import Figures, StepFigures
from attncli.errors import InputError, input_error
from attncli.plan import Plan
from attncli.plan.gradients import with_gradients
from attncli.step_names import GRADIENT_NAMES, UPSTREAM_NAMES, find_figure_name
from attncli.text import join_names

_WAY_OUT = (
    'add "dout", the gradient of the loss with respect to the context; "dout": 1 if the loss is the sum of the context'
)


def with_known_names(figures: Figures) -> Figures:
    """Return figures under the names that steps and gradients have here: dq for grad_q, dout for grad_output.

    Raises:
        InputError: two names mean the same.
    """
    steps: dict[str | None, StepFigures] = {}
    for step_figures in figures.steps:
        name = None if step_figures.step is None else find_figure_name(step_figures.step) or step_figures.step
        if name in steps:
            message = f"{steps[name].step} and {step_figures.step} are both {name}"
            raise InputError("two-sources", message, help="remove one of them")
        steps[name] = step_figures
    named = tuple(dataclasses.replace(s, step=name) for name, s in steps.items())
    return dataclasses.replace(figures, steps=named)


def take_upstream(figures: Figures) -> tuple[Figures, StepFigures | None]:
    """Take the gradient by which the loss is known out of the figures: dout, doutput or dcontext; the others are claims.

    Raises:
        InputError: there are two such gradients.
    """
    by_name = {s.step: s for s in figures.steps}
    found = [name for name in UPSTREAM_NAMES if name in by_name]
    if "dout" in found and len(found) > 1:
        message = f"{join_names(found)} each say how the loss depends on what attention gives"
        raise InputError("two-sources", message, help="remove one of them")
    if not found:
        return figures, None
    others = tuple(s for s in figures.steps if s.step != found[0])
    return dataclasses.replace(figures, steps=others), by_name[found[0]]


def resolve_out(step_figures: Sequence[StepFigures], plan: Plan) -> tuple[StepFigures, ...]:
    """Give figures called `out` the step that they are of: the context, where nothing is made of it.

    Raises:
        InputError: there is an output besides, so that they may be of either.
    """
    steps = tuple(_resolve(s, plan) for s in step_figures)
    names = [s.step for s in steps]
    twice = next((name for name in names if name is not None and names.count(name) > 1), None)
    if twice is not None:
        raise InputError("two-sources", f"out and {twice} are the same figures here", help="remove one of them")
    return steps


def _resolve(figures: StepFigures, plan: Plan) -> StepFigures:
    if figures.step not in ("out", "dout"):
        return figures
    mark = figures.step.removesuffix("out")
    if "output" in plan.steps:
        message = f"{figures.step} may be of the context, or of the output, which W_o makes of it"
        hint = f"call it {mark}context or {mark}output"
        raise input_error("ambiguous-name", message, help=hint)
    if "context" not in plan.steps:
        raise input_error("absent-step", "without values there is no context, and nothing to go back from")
    return dataclasses.replace(figures, step=f"{mark}context")


def with_claimed_gradients(
    plan: Plan, step_figures: Sequence[StepFigures], upstream: StepFigures | None, figures: Figures, layout: str | None
) -> Plan:
    """Return the plan with gradients among its steps, if some are claimed.

    Args:
        plan: of the problem.
        step_figures: what is claimed.
        upstream: the gradient by which the loss is known.
        figures: that it is from.
        layout: that is said of arrays with heads.

    Raises:
        InputError: nothing says of which loss they are, or its gradient has another shape than what it is of.
    """
    claimed = [str(s.step) for s in step_figures if s.step in GRADIENT_NAMES]
    if not claimed:
        return plan
    if upstream is None:
        message = f"nothing says of which loss {join_names(claimed)} {'is the gradient' if len(claimed) == 1 else 'are the gradients'}"
        raise input_error("no-upstream", message, help=_WAY_OUT)
    name, upstream = str(upstream.step), _resolve(upstream, plan)
    step = str(upstream.step)[1:]
    if step not in plan.steps:
        hint = "call it dcontext" if "context" in plan.steps else "there is no context either, without values"
        raise input_error("absent-step", f"{name} is given, but this variant has no {step}", help=hint)
    shape = step_shape(plan, step)
    if upstream.values.ndim == 0:
        values = np.full(shape, float(upstream.values))
    else:
        try:
            [claim] = make_claims(figures, (dataclasses.replace(upstream, step=step),), plan, layout)
        except InputError as error:
            message = error.message.replace(f"of {step}", f"of {name}")
            raise InputError(error.code, message, location=error.location, help=error.help) from None
        if not claim.is_whole_step:
            message = f"{name} is not given for all of the {step}"
            raise input_error("wrong-shape", message, help="gradients need all of it")
        values = claim.values.astype(np.float64)
    if not np.isfinite(values).all():
        raise input_error("not-finite", f"{name} holds NaN or ∞, so that no gradient is finite")
    return with_gradients(plan, step, values)


def has_shared_gradients(steps: Iterable[str]) -> bool:
    """Tell whether some of these steps are gradients of what several queries share, to which each of these adds."""
    return any(step in GRADIENT_NAMES and step not in ("dq", "dscores", "dweights") for step in steps)
