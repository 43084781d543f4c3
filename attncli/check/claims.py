"""Figures and a plan → claims: which cells of which step each figure is, or a refusal where that cannot be known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attncli.check.figures import Figures, Given
from attncli.errors import OptionError, counted, listed, nearest, wrong
from attncli.plan import Plan
from attncli.plan.steps import check_step
from attncli.types import NumpyArray

_PLURAL = {"query": "queries", "batch": "batches"}
_PLAIN = "as it is"
LAYOUTS = ("bhtd", "bthd", "htd")
_HEAD_LAST = ("head_context", "normed_context", "context")  # what kernels write in heads


@dataclass(frozen=True)
class Claim:
    """Figures of one step, each at its cell: `reference[index]` has the shape of `values`."""

    step: str
    axes: tuple[str, ...]
    values: NumpyArray
    index: tuple[NumpyArray, ...]  # an open mesh, or a list of cells
    whole: bool  # every cell of the step
    given: Given
    decimals: NumpyArray | None = None

    def cell(self, place: tuple[int, ...]) -> dict[str, int]:
        """Where in the step a figure is: its index on each axis."""
        spread = np.broadcast_arrays(*self.index) if self.index else []
        return {axis: int(i[place]) for axis, i in zip(self.axes, spread, strict=True)}


def named(figures: Figures, step: str | None) -> tuple[Figures, tuple[Given, ...]]:
    """Every figure's step: its own, or the one that --step says. --step chooses among several too.

    Raises:
        OptionError: an array has no name and --step gives none, or there is no such step at all.
    """
    if step in ("all", ""):
        raise OptionError("bad-option", "--step names one step", help="without it, all that are claimed are checked")
    if step is not None:
        check_step(step)
    if any(g.step is None for g in figures.given):
        if step is None:
            way = "say which: --step weights"
            raise OptionError("missing-option", f"{figures.name} does not say which step its figures are", help=way)
        return figures, tuple(replace(g, step=step) for g in figures.given)
    if step is not None:
        chosen = tuple(g for g in figures.given if g.step == step)
        if not chosen:
            have = listed(dict.fromkeys(str(g.step) for g in figures.given))
            raise wrong("absent-step", f"{figures.name} has no figures of {step}", help=f"it has {have}")
        return replace(figures, missing=tuple(g for g in figures.missing if g.step == step)), chosen
    return figures, figures.given


def printed(given: tuple[Given, ...]) -> tuple[Given, ...]:
    """Where one step is written with all its digits, a program wrote them all: short figures are not rounded there."""
    wide = [
        g.dtype
        for g in given
        if g.values.dtype.kind == "f" and g.dtype != "text" and g.rounded is None and g.rtol is None
    ]
    if not wide:
        return given
    dtype = max(wide, key=("bfloat16", "float16", "float32", "float64").index)
    return tuple(
        replace(g, dtype=dtype, decimals=None) if g.dtype == "text" and g.rounded is None else g for g in given
    )


def top_of(given: tuple[Given, ...]) -> int | None:
    """How many ranks are claimed, which the plan must know first."""
    wide = [g.values.shape[-1] for g in given if g.step in ("top_keys", "top_weights") and g.values.ndim]
    return max(wide, default=None)


def claims_of(figures: Figures, given: tuple[Given, ...], plan: Plan, layout: str | None) -> tuple[Claim, ...]:
    """Every figure at its cell, steps in order of computation.

    Raises:
        InputError: a step that this variant lacks, a shape that is not the step's, or a place that may be two.
    """
    for g in given:
        if g.step not in plan.steps:
            way = f"this variant has {listed(plan.steps)}; --step checks one of yours alone"
            raise wrong("absent-step", f"{figures.name} has figures of {g.step}, which this variant lacks", help=way)
    order = list(plan.steps)
    made = [_claim(g, plan, layout, figures.layout_known and layout is None) for g in given]
    made = [claim for claim in made if claim.values.size]
    if not made and not figures.missing:
        raise wrong("no-figures", f"{figures.name} claims no figure")
    return tuple(sorted(made, key=lambda claim: order.index(claim.step)))


def full_shape(plan: Plan, step: str) -> tuple[int, ...]:
    """The shape of a step on all its axes."""
    return tuple(plan.length(step, axis) for axis in plan.steps[step])


def _claim(g: Given, plan: Plan, layout: str | None, known: bool) -> Claim:
    step = str(g.step)
    axes, full = plan.steps[step], full_shape(plan, step)
    if g.cells is not None or g.path is not None:
        return _cells(g, plan)
    chosen = [np.asarray(g.at.get(axis, range(n))) for axis, n in zip(axes, full, strict=True)]
    for name, where in (("rows", -2), ("columns", -1)):
        indices = getattr(g, name)
        if indices is not None:
            if len(axes) + where < 0:
                raise wrong("wrong-shape", f"{step} has no {name}: its axes are {listed(axes)}")
            chosen[where] = np.asarray(indices)
    g = _labelled(g, plan, chosen)
    for axis, indices, n in zip(axes, chosen, full, strict=True):
        if (indices >= n).any() or (indices < -n).any():
            raise wrong(
                "out-of-range",
                f"{step} has {counted(n, axis, _PLURAL.get(axis, ''))}, and {axis} {max(indices)} is claimed",
            )
        indices %= n
    wanted = tuple(len(indices) for indices in chosen)
    values, decimals = _fitted(g, plan, wanted, layout, known)
    whole = wanted == full and all((indices == np.arange(n)).all() for indices, n in zip(chosen, full, strict=True))
    return Claim(step, axes, values, np.ix_(*chosen), whole, g, decimals)


def _labelled(g: Given, plan: Plan, chosen: list[NumpyArray]) -> Given:
    """Rows of a table that carry tokens: found by them, where there are fewer rows than the step has."""
    axes = plan.steps[str(g.step)]
    if not g.labels or len(axes) < 2 or len(g.labels) == len(chosen[-2]) or axes[-2] not in ("query", "key"):
        return g
    tokens = plan.tokens if axes[-2] == "query" else plan.k_tokens
    if plan.size.batch is not None or any(tokens.count(label) != 1 for label in g.labels):
        return g
    chosen[-2] = np.array([tokens.index(label) for label in g.labels])
    return g


def _fitted(
    g: Given, plan: Plan, wanted: tuple[int, ...], layout: str | None, known: bool
) -> tuple[NumpyArray, NumpyArray | None]:
    """Values laid out as the step is; how they lie is said, or there is one way only."""
    step, axes = str(g.step), plan.steps[str(g.step)]
    values = g.values
    if g.axes is not None and g.axes != axes and set(g.axes) <= set(axes):  # a mask says only the axes it needs
        at = tuple(slice(None) if axis in g.axes else None for axis in axes)
        values = np.broadcast_to(values[at], wanted)
        return values, None
    found = list(_ways(values.shape, plan, step, wanted))
    said = {None: {*LAYOUTS, _PLAIN}, "bthd": {"bthd"}}.get(layout, {"bhtd", "htd"})  # htd is bhtd without a batch
    ways = {name: moved for name, moved in found if name in said}
    if layout is not None and not ways:  # heads side by side, or no heads at all: there is but one way
        ways = {name: moved for name, moved in found if name == _PLAIN}
    if known and _bare(values.shape, wanted):
        ways = {_PLAIN: _reshape(wanted)}
    if len({_trace(values.shape, moved) for moved in ways.values()}) > 1:
        names = [name for name in ways if name in LAYOUTS]
        message = f"{step} of shape {values.shape} may be laid out as {listed(names, 'or')}"
        raise wrong("ambiguous-layout", message, help=f"say which: --layout {names[0]}, or --layout {names[-1]}")
    if not ways:
        raise _misshapen(g, plan, wanted, layout)
    move = next(iter(ways.values()))
    return move(values), None if g.decimals is None else move(g.decimals)


def _trace(shape: tuple[int, ...], move: Any) -> bytes:
    """Where each value goes under a way of laying out: two ways that agree here are one."""
    n = int(np.prod(shape))
    return move(np.arange(n, dtype=np.int64).reshape(shape)).tobytes() if n <= 1 << 20 else repr(move).encode()


def _ways(shape: tuple[int, ...], plan: Plan, step: str, wanted: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """(layout, how to bring it to the step's axes) for every layout that a shape can be."""
    axes = plan.steps[step]
    heads = next((axis for axis in axes if axis in ("head", "kv_head")), None)
    if _bare(shape, wanted):
        yield ("bhtd" if "batch" in axes else "htd") if heads and axes[-1] == "dim" else _PLAIN, _reshape(wanted)
    if axes[-1] != "dim":
        return
    batch = wanted[0] if axes[0] == "batch" else 1
    if heads:
        h, t, d = wanted[-3:]
        for form in ((batch, t, h, d), (t, h, d)):
            if _bare(shape, form) and (batch == 1 or len(form) == 4):
                yield "bthd", lambda x: x.reshape(batch, t, h, d).swapaxes(1, 2).reshape(wanted)
        if _bare(shape, (batch, t, h * d)):  # heads side by side
            yield _PLAIN, lambda x: x.reshape(batch, t, h, d).swapaxes(1, 2).reshape(wanted)
    elif step in _HEAD_LAST and plan.shapes.headed:  # the context in heads, as kernels write it
        h = plan.shapes.mixed_heads
        t, d = wanted[-2], wanted[-1] // h
        if wanted[-1] != h * d:
            return
        if _bare(shape, (batch, h, t, d)):
            name = "bhtd" if "batch" in axes else "htd"
            yield name, lambda x: x.reshape(batch, h, t, d).swapaxes(1, 2).reshape(wanted)
        if _bare(shape, (batch, t, h, d)):
            yield "bthd", lambda x: x.reshape(wanted)


def _reshape(wanted: tuple[int, ...]) -> Any:
    return lambda x: x.reshape(wanted)


def _bare(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether two shapes differ by leading axes of 1 only."""

    def cut(s: tuple[int, ...]) -> tuple[int, ...]:
        while s and s[0] == 1:
            s = s[1:]
        return s

    return cut(shape) == cut(wanted)


def _misshapen(g: Given, plan: Plan, wanted: tuple[int, ...], layout: str | None) -> Exception:
    step, axes = str(g.step), plan.steps[str(g.step)]
    shape = g.values.shape
    want = f"({', '.join(f'{axis} {n}' for axis, n in zip(axes, wanted, strict=True))})"
    if layout and any(True for _ in _ways(shape, plan, step, wanted)):
        return wrong(
            "wrong-shape", f"{step} of shape {shape} is not {layout}: the step is {want}", help="leave --layout out"
        )
    way = f"the step is {want}"
    if len(shape) >= 2 and len(wanted) >= 2 and shape[-1] == wanted[-1] and shape[-2] < wanted[-2]:
        rows = listed(range(shape[-2]), "and", most=4)
        way = (
            f'say which rows they are: {{"{step}": {{"values": …, "rows": [{rows.replace(" and ", ", ")}]}}}} in JSON, '
            f"or one figure a row under step,{','.join(axes)},value in CSV"
        )
    return wrong("wrong-shape", f"the figures of {step} have shape {shape}, but should be {want}", help=way)


def _cells(g: Given, plan: Plan) -> Claim:
    """Figures that say their places one by one."""
    step = str(g.step)
    axes, full = plan.steps[step], full_shape(plan, step)
    places = []
    for place in g.cells or ():
        absent = [axis for axis in place if axis not in axes and place[axis] != 0]
        unsaid = [axis for axis, n in zip(axes, full, strict=True) if axis not in place and n > 1]
        if absent:
            help = nearest(absent[0], axes)
            raise wrong("absent-axis", f"{step} has no axis {absent[0]!r}: its axes are {listed(axes)}", help=help)
        if unsaid and step != "mask":
            raise wrong("missing-axis", f"a figure of {step} does not say its {listed(unsaid)}")
        places.append(tuple(place.get(axis, 0) for axis in axes))
    for indices in g.path or ():
        if len(indices) != len(axes):
            said = "".join(f"[{i}]" for i in indices)
            raise wrong(
                "wrong-place",
                f"{step}{said} has {counted(len(indices), 'index', 'indices')}, but its axes are {listed(axes)}",
            )
        places.append(indices)
    for spot in places:
        for axis, i, n in zip(axes, spot, full, strict=True):
            if not 0 <= i < n:
                raise wrong("out-of-range", f"there is no {axis} {i} in {step}: it has {n}")
    index = tuple(np.array([place[a] for place in places], int) for a in range(len(axes)))
    whole = len(set(places)) == int(np.prod(full)) == len(places)
    return Claim(step, axes, g.values, index, whole, g, g.decimals)


def block(claim: Claim, full: tuple[int, ...]) -> NumpyArray:
    """The figures of a whole step, in its shape."""
    out = np.zeros(full, claim.values.dtype)
    out[claim.index] = claim.values
    return out


def where(plan: Plan, at: Mapping[str, int]) -> str:
    """A cell in words: `head 1, sat → cat`, `sat, dim 0`."""
    from attncli.errors import printable

    def token(axis: str) -> str:
        labels = plan.tokens if axis == "query" else plan.k_tokens
        own = labels[at.get("batch", 0)] if plan.size.batch is not None else labels
        i = at[axis] + (plan.size.past if axis == "new_key" else 0)
        text = printable(str(own[i])) if i < len(own) else str(i)
        twice = text == str(i) or own.count(own[i]) > 1
        return f"{axis.replace('new_', '')} {i}" if text == str(i) else f"{text} ({i})" if twice else text

    head = [f"{axis.replace('_', ' ')} {at[axis]}" for axis in ("batch", "head", "kv_head") if axis in at]
    tokens = " → ".join(token(axis) for axis in ("query", "key", "new_key") if axis in at)
    tail = [f"{axis} {at[axis]}" for axis in ("dim", "rank") if axis in at]
    return ", ".join([*head, *([tokens] if tokens else []), *tail])
