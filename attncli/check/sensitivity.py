"""Could these figures fail? A few plainly wrong computations, held to the same rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from attncli.check import rules
from attncli.check.plan_edits import normalised, uniform
from attncli.check.trials import Bench, quiet
from attncli.errors import listed
from attncli.types import Json, NumpyArray
from attncli.verdict import Power

if TYPE_CHECKING:
    from attncli.check.comparison import Court

_TOLD = 1e-9  # of the largest: what is nearer no ordinary tolerance tells
Wrong = tuple[str, str, Callable[[], Any]]  # its name, the first step that it changes, how it is computed


def wrongs(bench: Bench, reference: dict[str, NumpyArray]) -> Iterator[Wrong]:
    """Uniform weights, shuffled values, no scale, another head's figures: each where the problem has what it is wrong about."""
    plan = bench.plan
    yield "uniform weights", "weights", lambda: bench.figures(normalised(plan, uniform))
    if plan.shapes.c is not None:
        yield "shuffled values", "v", lambda: _shuffled(bench)
    if any(link.is_scale for link in plan.chain):
        yield "no scale", "scaled_scores", lambda: bench.figures(bench.chosen(scale="none"))
    if plan.shapes.headed and plan.shapes.heads > 1:
        yield "another head's figures", "", lambda: _turned(bench, reference)


def _shuffled(bench: Bench) -> dict[str, NumpyArray] | None:
    """Every key with its neighbour's value."""
    base = bench.direct
    if base is None:
        return None
    p = base.problem
    changes: Json = {"v": np.roll(np.asarray(p.v), 1, axis=-2)}
    if p.past and "v" in p.past:
        both = np.asarray(p.past["v"], np.float64)
        changes["past"] = {**p.past, "v": np.roll(both, 1, axis=-2)}
    plan = bench.rewritten(**changes)
    return bench.figures(plan) if plan else None


def _turned(bench: Bench, reference: dict[str, NumpyArray]) -> dict[str, NumpyArray]:
    """Each head's figures in the place of the next."""
    out = {}
    for step, values in reference.items():
        axes = bench.plan.steps.get(step, ())
        head = next((i for i, axis in enumerate(axes) if axis in ("head", "kv_head")), None)
        if head is not None:
            out[step] = np.roll(values, 1, axis=head)
        elif step == "context":
            heads = bench.plan.shapes.mixed_heads
            apart = values.reshape(*values.shape[:-1], heads, -1)
            out[step] = np.roll(apart, 1, axis=-2).reshape(values.shape)
    return out


def power(court: Court) -> tuple[Power, ...]:
    """Of each wrong computation, whether the claimed figures would have told it from the right one."""
    out = []
    order = list(court.task.plan.steps)
    for name, first, compute in wrongs(court.bench, court.reference):
        found: dict[str, NumpyArray] | None = quiet(compute)
        if found is None:
            continue
        told, differs, most, at = False, False, 0.0, ""
        for n, claim in enumerate(court.task.claims):
            ref = court.reference[claim.step]
            wrong = found.get(claim.step)
            if wrong is None or wrong.shape != ref.shape:
                continue
            cells = wrong[claim.index]
            decimals = court.decimals[n]
            written = cells if decimals is None else rules.rounded(cells, decimals)
            here = rules.judge(
                court.rules[n],
                cells,
                ref[claim.index],
                None if decimals is None else decimals + 12,
                court.largest[claim.step],
            )
            same = _same(cells, ref[claim.index], court.largest[claim.step])
            if not same.all():
                differs = True
                error = float(np.where(np.isfinite(here.error), here.error, np.inf).max(initial=0.0))
                if error > most:
                    most, at = error, claim.step
            told = told or not court.judged(n, ref, written).ok.all()
        if differs:
            out.append(Power(name, told, most, at))
        else:
            out.append(Power(name, None, why=_why(court, first, order)))
    return tuple(out)


def _same(a: NumpyArray, b: NumpyArray, largest: float) -> NumpyArray:
    """Too near for any ordinary tolerance."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        near: NumpyArray = (np.abs(a - b) <= _TOLD * max(largest, 1e-300)) | (a == b) | (np.isnan(a) & np.isnan(b))
    return near


def _why(court: Court, first: str, order: list[str]) -> str:
    claimed = [claim.step for claim in court.task.claims]
    after = [
        s
        for s in claimed
        if not first or (first in order and order.index(s) >= order.index(first) and not _apart(first, s))
    ]
    if not after:
        return f"{listed(dict.fromkeys(claimed))} {'comes' if len(set(claimed)) == 1 else 'come'} before it"
    if court.task.plan.size.keys == 1:
        return "there is only one key"
    return "it gives the same figures here"


def _apart(first: str, step: str) -> bool:
    """Whether a step that stands later in the order does not look at an earlier one: values meet only the context."""
    return first == "v" and step not in ("v", "present_v", "head_context", "normed_context", "context", "output")
