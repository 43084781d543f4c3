"""Problems of one plan and equal shapes, computed in one call as the items of a batch. Entry: `run_stacked`.

What a small problem costs is the calls that compute it, not its numbers: as a batch they share the calls. The values are
those of each problem by itself, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from attncli.core.attention import run_plan
from attncli.parts.projections import PROJECTION_PARAMETERS
from attncli.plan import Plan
from attncli.plan.hidden_keys import PlannedHiddenKeys
from attncli.types import PARAMETER_STEPS, Attention, NumpyArray, Problem

MAX_STACKED_SCORES = 2**14  # scores of a problem beyond which it gains nothing from being one of many
_PROJECTION_NAMES = {parameter.name for parameter in PROJECTION_PARAMETERS}


def is_stackable(plan: Plan) -> bool:
    """Return whether a plan's problem may be one of many that are computed in one call.

    Not where something is drawn for it, its parts have learned arrays of their own, or it is large enough to gain nothing.
    """
    shared = plan.shared
    if shared is None or not plan.is_as_shared:
        return False
    if shared.is_stackable is None:
        shared.is_stackable = _are_stackable(plan)
    return shared.is_stackable


def _are_stackable(plan: Plan) -> bool:
    """Return the answer for all plans that share what this one does."""
    return (
        plan.schedule == "dense"
        and plan.score_count <= MAX_STACKED_SCORES
        and plan.size.batch is None
        and plan.variant.device == "cpu"
        and plan.variant.dropout.is_none
        and plan.gradients is None
        and plan.problem.parameters.keys() <= _PROJECTION_NAMES
        and not plan.keep & PARAMETER_STEPS.keys()
    )


def run_stacked(plans: Sequence[Plan]) -> list[Attention] | None:
    """Compute plans that share what is found once, each of which is stackable; None where each must be computed by itself.

    That is so where one of them has something to warn of, which names its own rows.
    """
    first = plans[0]
    stacked = _stack(plans)
    result = run_plan(stacked)
    if len(result.warnings) > len(first.warnings):
        assert first.shared is not None
        first.shared.is_stackable = False  # the next will most often have the same to say
        return None
    return [_item_of(result, i, plan) for i, plan in enumerate(plans)]


def _stack(plans: Sequence[Plan]) -> Plan:
    """Return the plan of a batch whose items are the problems; learned arrays get the axis of the batch, too."""
    first = plans[0]
    is_out_in = first.problem.w_layout == "out-in"
    parameters: dict[str, NumpyArray] = {}
    for name in first.problem.parameters:
        arrays = np.stack([plan.problem.parameters[name] for plan in plans])
        if arrays.ndim == 2:  # (b, d_out), to be added to (b, t, d_out)
            parameters[name] = arrays[:, None]
        else:  # (b, d_in, d_out)
            parameters[name] = arrays.swapaxes(1, 2) if is_out_in else arrays
    embeddings = np.stack([plan.problem.embeddings for plan in plans])  # (b, t, x)
    return replace(
        first,
        problem=Problem(embeddings=embeddings, parameters=parameters, validated=True),
        size=replace(first.size, batch=len(plans)),
        steps={name: ("batch", *axes) for name, axes in first.steps.items()},
        shared=None,
    )


def _item_of(result: Attention, i: int, plan: Plan) -> Attention:
    """Return the result of one problem from that of all."""
    problem = plan.problem
    steps = [
        step.with_values(step.axes[1:], step.values[i]) if step.axes[0] == "batch" else step for step in result.steps
    ]
    return result.with_fields(
        tokens=plan.tokens,
        k_tokens=plan.k_tokens,
        steps=tuple(steps),
        about=problem.about,
        source=problem.source,
        line=problem.line,
        id=problem.id,
        meta=problem.meta,
        settings=plan.settings,
        hidden_keys=PlannedHiddenKeys(plan) if plan.is_masked else None,
    )
