"""The computation taken up at a step, with figures that are given: what follows from them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from attncli.check.plan_edits import unregistered_part, with_chain, with_part
from attncli.check.trials import Trials, merge_heads
from attncli.parts.traits import MixingTraits, NormalizerTraits, ScoreTraits
from attncli.plan import Plan
from attncli.types import NumpyArray


def resume_from_step(trials: Trials, step: str, values: NumpyArray) -> Plan | None:
    """A plan in which a step has these values, on all its axes; None where it cannot be taken up there."""
    plan = trials.plan
    if step in ("q", "k", "v") and trials.projected_plan:
        return trials.with_qkv(**{step: merge_heads(plan, values)})
    import torch

    given = torch.as_tensor(np.ascontiguousarray(values, np.float64))
    if "batch" not in plan.steps[step]:
        given = given[None]
    if not plan.shapes.has_head_axis and "dim" not in plan.steps[step]:
        given = given[:, None]  # (b, h, n, m)

    def instead(*_: Any, **__: Any) -> Any:
        return given

    if step == "scores":
        return with_part(plan, "score", unregistered_part("score", "given-scores", instead, ScoreTraits()))
    if step in {link.step for link in plan.chain}:
        links = [dataclasses.replace(link, run=instead) if link.step == step else link for link in plan.chain]
        return with_chain(plan, links)
    if step == "weights":
        if not plan.variant.sink.is_none:
            return None
        return with_part(
            plan, "normalizer", unregistered_part("normalizer", "given-weights", instead, NormalizerTraits())
        )
    if step in ("head_context", "context"):
        if step == "context":
            given = given.unflatten(-1, (plan.shapes.mixed_heads, -1)).transpose(1, 2)  # (b, h, n, c)
        elif not plan.shapes.has_head_axis:
            given = given[:, None]
        mixing = plan.variant.head_mixing
        if mixing.traits.transform_context:
            return None
        return with_part(
            plan,
            "head_mixing",
            unregistered_part(
                "head-mixing", "given-context", mixing.member.function, MixingTraits(transform_context=instead)
            ),
        )
    return None
