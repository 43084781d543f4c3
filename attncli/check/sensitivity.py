"""Could these figures fail? A few plainly wrong computations, held to the same rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from attncli.check import rules
from attncli.check.plan_edits import equal_weights, with_normalizer
from attncli.check.trials import Trials, compute_or_default
from attncli.errors import join_names
from attncli.types import Json, NumpyArray
from attncli.verdict import SensitivityCheck

if TYPE_CHECKING:
    from attncli.check.comparison import Comparison

_MIN_RELATIVE_DIFFERENCE = 1e-9  # of the largest: what is nearer no ordinary tolerance tells
WrongComputation = tuple[str, str, Callable[[], Any]]  # its name, the first step that it changes, how it is computed


def wrong_computations(trials: Trials, reference: dict[str, NumpyArray]) -> Iterator[WrongComputation]:
    """Uniform weights, shuffled values, no scale, another head's figures: each where the problem has what it is wrong about."""
    plan = trials.plan
    yield "uniform weights", "weights", lambda: trials.compute_steps(with_normalizer(plan, equal_weights))
    if plan.shapes.c is not None:
        yield "shuffled values", "v", lambda: _shuffle_values(trials)
    if any(link.is_scale for link in plan.chain):
        yield "no scale", "scaled_scores", lambda: trials.compute_steps(trials.with_choices(scale="none"))
    if plan.shapes.has_head_axis and plan.shapes.heads > 1:
        yield "another head's figures", "", lambda: _shift_heads(trials, reference)


def _shuffle_values(trials: Trials) -> dict[str, NumpyArray] | None:
    """Every key with its neighbour's value."""
    base = trials.projected_plan
    if base is None:
        return None
    p = base.problem
    changes: Json = {"v": np.roll(np.asarray(p.v), 1, axis=-2)}
    if p.past and "v" in p.past:
        both = np.asarray(p.past["v"], np.float64)
        changes["past"] = {**p.past, "v": np.roll(both, 1, axis=-2)}
    plan = trials.with_qkv(**changes)
    return trials.compute_steps(plan) if plan else None


def _shift_heads(trials: Trials, reference: dict[str, NumpyArray]) -> dict[str, NumpyArray]:
    """Each head's figures in the place of the next."""
    out = {}
    for step, values in reference.items():
        axes = trials.plan.steps.get(step, ())
        head = next((i for i, axis in enumerate(axes) if axis in ("head", "kv_head")), None)
        if head is not None:
            out[step] = np.roll(values, 1, axis=head)
        elif step == "context":
            heads = trials.plan.shapes.mixed_heads
            apart = values.reshape(*values.shape[:-1], heads, -1)
            out[step] = np.roll(apart, 1, axis=-2).reshape(values.shape)
    return out


def check_sensitivity(comparison: Comparison) -> tuple[SensitivityCheck, ...]:
    """Of each wrong computation, whether the claimed figures would have told it from the right one."""
    out = []
    order = list(comparison.task.plan.steps)
    for name, first, compute in wrong_computations(comparison.trials, comparison.reference):
        found: dict[str, NumpyArray] | None = compute_or_default(compute)
        if found is None:
            continue
        told, differs, most, at = False, False, 0.0, ""
        for n, claim in enumerate(comparison.task.claims):
            ref = comparison.reference[claim.step]
            wrong = found.get(claim.step)
            if wrong is None or wrong.shape != ref.shape:
                continue
            cells = wrong[claim.index]
            decimals = comparison.decimals[n]
            written = cells if decimals is None else rules.round_to_decimals(cells, decimals)
            here = rules.compare_cells(
                comparison.rules[n],
                cells,
                ref[claim.index],
                None if decimals is None else decimals + 12,
                comparison.largest_figures[claim.step],
            )
            same = _are_nearly_equal(cells, ref[claim.index], comparison.largest_figures[claim.step])
            if not same.all():
                differs = True
                error = float(np.where(np.isfinite(here.error), here.error, np.inf).max(initial=0.0))
                if error > most:
                    most, at = error, claim.step
            told = told or not comparison.compare(n, ref, written).is_right.all()
        if differs:
            out.append(SensitivityCheck(name, told, most, at))
        else:
            out.append(SensitivityCheck(name, None, reason=_why_undetectable(comparison, first, order)))
    return tuple(out)


def _are_nearly_equal(actual: NumpyArray, reference: NumpyArray, largest_figure: float) -> NumpyArray:
    """Too near for any ordinary tolerance."""
    actual, reference = actual.astype(np.float64), reference.astype(np.float64)
    with np.errstate(all="ignore"):
        near: NumpyArray = (
            (np.abs(actual - reference) <= _MIN_RELATIVE_DIFFERENCE * max(largest_figure, 1e-300))
            | (actual == reference)
            | (np.isnan(actual) & np.isnan(reference))
        )
    return near


def _why_undetectable(comparison: Comparison, first_changed: str, step_order: list[str]) -> str:
    claimed = [claim.step for claim in comparison.task.claims]
    after = [
        s
        for s in claimed
        if not first_changed
        or (
            first_changed in step_order
            and step_order.index(s) >= step_order.index(first_changed)
            and not _is_independent(first_changed, s)
        )
    ]
    if not after:
        return f"{join_names(dict.fromkeys(claimed))} {'comes' if len(set(claimed)) == 1 else 'come'} before it"
    if comparison.task.plan.size.keys == 1:
        return "there is only one key"
    return "it gives the same figures here"


def _is_independent(earlier: str, later: str) -> bool:
    """Whether a step that stands later in the order does not look at an earlier one: values meet only the context."""
    return earlier == "v" and later not in ("v", "present_v", "head_context", "normed_context", "context", "output")
