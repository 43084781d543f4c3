"""Where computations are tried out: plans, rewritten plans, and the figures they give, on the cells that are claimed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from attncli.check.claims import Claim, step_shape
from attncli.errors import AttnError
from attncli.parts.projections import PROJECTION_PARAMETERS
from attncli.plan import Plan, make_plan
from attncli.types import Json, NumpyArray, Problem
from attncli.variant import Variant

Arrays = Mapping[str, NumpyArray]
_EQUIVALENT_STEPS = (  # where a variant lacks a step, the one before it of its kind stands for it
    ("q", "normed_q", "positioned_q"),
    ("k", "normed_k", "positioned_k"),
    ("weights", "dropout_weights", "mixed_weights"),
    ("head_context", "normed_context"),
    ("context", "output"),
)
_PROJECTION_PARAMETERS = {parameter.name for parameter in PROJECTION_PARAMETERS}


class Trials:
    """A problem and the steps that are claimed of it; every computation that is tried runs here, in float64."""

    def __init__(self, plan: Plan, top: int | None, claims: Sequence[Claim] = ()) -> None:
        self.plan = plan
        self.top = top
        self.claims = claims
        self.trial_count = 0
        self._projected_plan: Plan | bool | None = False

    @property
    def claimed_steps(self) -> frozenset[str]:
        return self.plan.keep

    def replan(
        self, problem: Problem | None = None, variant: Variant | None = None, keep: Collection[str] | None = None
    ) -> Plan:
        """A plan for a changed problem or variant, keeping what is claimed, or what stands for it.

        Raises:
            AttnError: the two do not go together.
        """
        p, v = problem or self.plan.problem, variant or self.plan.variant
        wanted = self.claimed_steps if keep is None else keep
        made = make_plan(p, v, (), top=self.top)
        return dataclasses.replace(
            made, keep=frozenset(filter(None, (self.equivalent_step(s, made.steps) for s in wanted)))
        )

    def with_choices(self, **choices: Any) -> Plan:
        """The same problem by other choices."""
        return self.replan(variant=self.plan.variant.replace(**choices))

    def with_fields(self, **fields: Any) -> Plan:
        """The same choices on a problem of other fields."""
        return self.replan(dataclasses.replace(self.plan.problem, **fields))

    def equivalent_step(self, step: str, available_steps: Collection[str]) -> str | None:
        """The step itself, or the last one before it of its kind."""
        if step in available_steps:
            return step
        order = list(self.plan.steps)
        if step not in order:
            return None
        kind: tuple[str, ...] | None = next((kind for kind in _EQUIVALENT_STEPS if step in kind), None)
        if kind is None and step.rpartition("_")[2] in ("scores", "2", "3"):
            kind = tuple(s for s in order if s.rstrip("0123456789_").endswith("scores"))
        before = [s for s in order[: order.index(step)] if kind and s in kind and s in available_steps]
        return before[-1] if before else None

    def compute_steps(self, plan: Plan) -> dict[str, NumpyArray]:
        """What a plan gives for each claimed step, on all the step's axes."""
        from attncli.core.attention import run_plan

        self.trial_count += 1
        result = run_plan(plan)
        held = {step.name: step for step in result.steps}
        out = {}
        for name in self.claimed_steps | plan.keep:
            one = held.get(self.equivalent_step(name, held) or "")
            if one is None:
                continue
            values = one.values
            if name == "mask" and name in plan.steps:
                missing = tuple(slice(None) if axis in one.axes else None for axis in plan.steps["mask"])
                values = np.broadcast_to(values[missing], step_shape(plan, "mask"))
            out[name] = values if values.dtype.kind in "biu" else values.astype(np.float64)
        return out

    @property
    def projected_plan(self) -> Plan | None:
        """The same problem with q, k and v given, heads side by side: what is done to them can be rewritten there."""
        if self._projected_plan is False:
            try:
                self._projected_plan = self._make_projected_plan()
            except AttnError:
                self._projected_plan = None
        return self._projected_plan  # type: ignore[return-value]

    def _make_projected_plan(self) -> Plan:
        from attncli.core.attention import run_plan

        plan, p = self.plan, self.plan.problem
        letters = ("q", "k", "v") if plan.shapes.c is not None else ("q", "k")
        result = run_plan(dataclasses.replace(plan, keep=frozenset(letters)))
        own = plan.variant.projection
        held = {**p.parameters, **result.parameters}
        applies = own.traits.is_drawn or "w_o" in {q.name for q in own.member.parameters}
        kept = {k: x for k, x in held.items() if k not in _PROJECTION_PARAMETERS or (k in ("w_o", "b_o") and applies)}
        acts = plan.variant.position.traits.acts_on
        v = plan.variant.replace(projection=None, align=None)
        if acts == "embeddings":
            v = v.replace(position=Variant().position)
        if plan.shapes.has_head_axis:
            v = v.replace(heads=plan.shapes.heads, kv_heads=plan.shapes.kv_heads)
        arrays: Json = {x: merge_heads(plan, np.asarray(result[x].values, np.float64)) for x in letters}
        problem = dataclasses.replace(
            p,
            embeddings=None,
            memory=None,
            layout=None,
            tokens=p.tokens,
            k_tokens=None,
            parameters=kept,
            **arrays,
            positions=plan.q_pos,
            k_positions=plan.k_pos if plan.q_pos is not None else None,
        )
        return self.replan(problem, v)

    def with_qkv(self, **arrays: Any) -> Plan | None:
        """The direct form with some of its arrays replaced."""
        base = self.projected_plan
        return base and self.replan(dataclasses.replace(base.problem, **arrays), base.variant)


def merge_heads(plan: Plan, x: NumpyArray) -> NumpyArray:
    """Heads side by side, where a plan has heads: (…, h, t, d) → (…, t, h·d)"""
    return x.swapaxes(-2, -3).reshape(*x.shape[:-3], x.shape[-2], -1) if plan.shapes.has_head_axis else x


def compute_or_default(compute: Callable[[], Any], default: Any = None) -> Any:
    """What a rewrite gives, or nothing where it cannot be computed on this problem."""
    try:
        with np.errstate(all="ignore"):
            return compute()
    except (AttnError, RuntimeError, ValueError, IndexError, KeyError, TypeError, AssertionError, ZeroDivisionError):
        return default
