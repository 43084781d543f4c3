"""Figures and a plan → claims: which cells of which step each figure is, or a refusal where that cannot be known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attncli.check.figures import Figures, StepFigures
from attncli.errors import OptionError, input_error, join_names, pluralize, suggestion
from attncli.plan import Plan
from attncli.plan.steps import require_step_name
from attncli.types import NumpyArray

_AXIS_PLURALS = {"query": "queries", "batch": "batches"}
_LAYOUT_OF_STEP = "as it is"
LAYOUTS = ("bhtd", "bthd", "htd")
_CONTEXT_STEPS = ("head_context", "normed_context", "context")  # what kernels write in heads


@dataclass(frozen=True)
class Claim:
    """Figures of one step, each at its cell: `reference[index]` has the shape of `values`."""

    step: str
    axes: tuple[str, ...]
    values: NumpyArray
    index: tuple[NumpyArray, ...]  # an open mesh, or a list of cells
    is_whole_step: bool  # every cell of the step
    step_figures: StepFigures
    decimals: NumpyArray | None = None

    def cell_at(self, position: tuple[int, ...]) -> dict[str, int]:
        """Where in the step a figure is: its index on each axis."""
        spread = np.broadcast_arrays(*self.index) if self.index else []
        return {axis: int(i[position]) for axis, i in zip(self.axes, spread, strict=True)}


def assign_steps(figures: Figures, step: str | None) -> tuple[Figures, tuple[StepFigures, ...]]:
    """Every figure's step: its own, or the one that --step says. --step chooses among several too.

    Raises:
        OptionError: an array has no name and --step gives none, or there is no such step at all.
    """
    if step in ("all", ""):
        raise OptionError("bad-option", "--step names one step", help="without it, all that are claimed are checked")
    if step is not None:
        require_step_name(step)
    if any(g.step is None for g in figures.steps):
        if step is None:
            way = "say which: --step weights"
            raise OptionError("missing-option", f"{figures.name} does not say which step its figures are", help=way)
        return figures, tuple(replace(g, step=step) for g in figures.steps)
    if step is not None:
        chosen = tuple(g for g in figures.steps if g.step == step)
        if not chosen:
            have = join_names(dict.fromkeys(str(g.step) for g in figures.steps))
            raise input_error("absent-step", f"{figures.name} has no figures of {step}", help=f"it has {have}")
        return replace(figures, open_gaps=tuple(g for g in figures.open_gaps if g.step == step)), chosen
    return figures, figures.steps


def apply_common_dtype(steps: tuple[StepFigures, ...]) -> tuple[StepFigures, ...]:
    """Where one step is written with all its digits, a program wrote them all: short figures are not rounded there."""
    wide = [
        g.dtype
        for g in steps
        if g.values.dtype.kind == "f" and g.dtype != "text" and g.expected_decimals is None and g.rtol is None
    ]
    if not wide:
        return steps
    dtype = max(wide, key=("bfloat16", "float16", "float32", "float64").index)
    return tuple(
        replace(g, dtype=dtype, decimals=None) if g.dtype == "text" and g.expected_decimals is None else g
        for g in steps
    )


def largest_claimed_rank(steps: tuple[StepFigures, ...]) -> int | None:
    """How many ranks are claimed, which the plan must know first."""
    wide = [g.values.shape[-1] for g in steps if g.step in ("top_keys", "top_weights") and g.values.ndim]
    return max(wide, default=None)


def make_claims(figures: Figures, steps: tuple[StepFigures, ...], plan: Plan, layout: str | None) -> tuple[Claim, ...]:
    """Every figure at its cell, steps in order of computation.

    Raises:
        InputError: a step that this variant lacks, a shape that is not the step's, or a place that may be two.
    """
    for g in steps:
        if g.step not in plan.steps:
            way = f"this variant has {join_names(plan.steps)}; --step checks one of yours alone"
            raise input_error(
                "absent-step", f"{figures.name} has figures of {g.step}, which this variant lacks", help=way
            )
    order = list(plan.steps)
    made = [_make_claim(g, plan, layout, figures.is_layout_known and layout is None) for g in steps]
    made = [claim for claim in made if claim.values.size]
    if not made and not figures.open_gaps:
        raise input_error("no-figures", f"{figures.name} claims no figure")
    return tuple(sorted(made, key=lambda claim: order.index(claim.step)))


def step_shape(plan: Plan, step: str) -> tuple[int, ...]:
    """The shape of a step on all its axes."""
    return tuple(plan.axis_length(step, axis) for axis in plan.steps[step])


def _make_claim(step_figures: StepFigures, plan: Plan, layout: str | None, is_layout_known: bool) -> Claim:
    step = str(step_figures.step)
    axes, full = plan.steps[step], step_shape(plan, step)
    if step_figures.cells is not None or step_figures.cell_indices is not None:
        return _make_cell_claim(step_figures, plan)
    chosen = [np.asarray(step_figures.axis_indices.get(axis, range(n))) for axis, n in zip(axes, full, strict=True)]
    for name, where in (("rows", -2), ("columns", -1)):
        indices = getattr(step_figures, name)
        if indices is not None:
            if len(axes) + where < 0:
                raise input_error("wrong-shape", f"{step} has no {name}: its axes are {join_names(axes)}")
            chosen[where] = np.asarray(indices)
    step_figures = _select_labelled_rows(step_figures, plan, chosen)
    for axis, indices, n in zip(axes, chosen, full, strict=True):
        if (indices >= n).any() or (indices < -n).any():
            raise input_error(
                "out-of-range",
                f"{step} has {pluralize(n, axis, _AXIS_PLURALS.get(axis, ''))}, and {axis} {max(indices)} is claimed",
            )
        indices %= n
    wanted = tuple(len(indices) for indices in chosen)
    values, decimals = _apply_layout(step_figures, plan, wanted, layout, is_layout_known)
    whole = wanted == full and all((indices == np.arange(n)).all() for indices, n in zip(chosen, full, strict=True))
    return Claim(step, axes, values, np.ix_(*chosen), whole, step_figures, decimals)


def _select_labelled_rows(step_figures: StepFigures, plan: Plan, axis_indices: list[NumpyArray]) -> StepFigures:
    """Rows of a table that carry tokens: found by them, where there are fewer rows than the step has."""
    axes = plan.steps[str(step_figures.step)]
    if (
        not step_figures.row_labels
        or len(axes) < 2
        or len(step_figures.row_labels) == len(axis_indices[-2])
        or axes[-2] not in ("query", "key")
    ):
        return step_figures
    tokens = plan.tokens if axes[-2] == "query" else plan.k_tokens
    if plan.size.batch is not None or any(tokens.count(label) != 1 for label in step_figures.row_labels):
        return step_figures
    axis_indices[-2] = np.array([tokens.index(label) for label in step_figures.row_labels])
    return step_figures


def _apply_layout(
    step_figures: StepFigures, plan: Plan, target_shape: tuple[int, ...], layout: str | None, is_layout_known: bool
) -> tuple[NumpyArray, NumpyArray | None]:
    """Values laid out as the step is; how they lie is said, or there is one way only."""
    step, axes = str(step_figures.step), plan.steps[str(step_figures.step)]
    values = step_figures.values
    if (
        step_figures.axes is not None and step_figures.axes != axes and set(step_figures.axes) <= set(axes)
    ):  # a mask says only the axes it needs
        at = tuple(slice(None) if axis in step_figures.axes else None for axis in axes)
        values = np.broadcast_to(values[at], target_shape)
        return values, None
    found = list(_possible_layouts(values.shape, plan, step, target_shape))
    said = {None: {*LAYOUTS, _LAYOUT_OF_STEP}, "bthd": {"bthd"}}.get(
        layout, {"bhtd", "htd"}
    )  # htd is bhtd without a batch
    ways = {name: moved for name, moved in found if name in said}
    if layout is not None and not ways:  # heads side by side, or no heads at all: there is but one way
        ways = {name: moved for name, moved in found if name == _LAYOUT_OF_STEP}
    if is_layout_known and _are_equal_but_leading_ones(values.shape, target_shape):
        ways = {_LAYOUT_OF_STEP: _reshape_to(target_shape)}
    if len({_layout_signature(values.shape, moved) for moved in ways.values()}) > 1:
        names = [name for name in ways if name in LAYOUTS]
        message = f"{step} of shape {values.shape} may be laid out as {join_names(names, 'or')}"
        raise input_error("ambiguous-layout", message, help=f"say which: --layout {names[0]}, or --layout {names[-1]}")
    if not ways:
        raise _wrong_shape_error(step_figures, plan, target_shape, layout)
    move = next(iter(ways.values()))
    return move(values), None if step_figures.decimals is None else move(step_figures.decimals)


def _layout_signature(shape: tuple[int, ...], rearrange: Any) -> bytes:
    """Where each value goes under a way of laying out: two ways that agree here are one."""
    n = int(np.prod(shape))
    return (
        rearrange(np.arange(n, dtype=np.int64).reshape(shape)).tobytes() if n <= 1 << 20 else repr(rearrange).encode()
    )


def _possible_layouts(
    shape: tuple[int, ...], plan: Plan, step: str, target_shape: tuple[int, ...]
) -> Iterator[tuple[str, Any]]:
    """(layout, how to bring it to the step's axes) for every layout that a shape can be."""
    axes = plan.steps[step]
    heads = next((axis for axis in axes if axis in ("head", "kv_head")), None)
    if _are_equal_but_leading_ones(shape, target_shape):
        yield (
            ("bhtd" if "batch" in axes else "htd") if heads and axes[-1] == "dim" else _LAYOUT_OF_STEP,
            _reshape_to(target_shape),
        )
    if axes[-1] != "dim":
        return
    batch = target_shape[0] if axes[0] == "batch" else 1
    if heads:
        h, t, d = target_shape[-3:]
        for form in ((batch, t, h, d), (t, h, d)):
            if _are_equal_but_leading_ones(shape, form) and (batch == 1 or len(form) == 4):
                yield "bthd", lambda x: x.reshape(batch, t, h, d).swapaxes(1, 2).reshape(target_shape)
        if _are_equal_but_leading_ones(shape, (batch, t, h * d)):  # heads side by side
            yield _LAYOUT_OF_STEP, lambda x: x.reshape(batch, t, h, d).swapaxes(1, 2).reshape(target_shape)
    elif step in _CONTEXT_STEPS and plan.shapes.has_head_axis:  # the context in heads, as kernels write it
        h = plan.shapes.mixed_heads
        t, d = target_shape[-2], target_shape[-1] // h
        if target_shape[-1] != h * d:
            return
        if _are_equal_but_leading_ones(shape, (batch, h, t, d)):
            name = "bhtd" if "batch" in axes else "htd"
            yield name, lambda x: x.reshape(batch, h, t, d).swapaxes(1, 2).reshape(target_shape)
        if _are_equal_but_leading_ones(shape, (batch, t, h, d)):
            yield "bthd", lambda x: x.reshape(target_shape)


def _reshape_to(target_shape: tuple[int, ...]) -> Any:
    return lambda x: x.reshape(target_shape)


def _are_equal_but_leading_ones(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes differ by leading axes of 1 only."""

    def cut(s: tuple[int, ...]) -> tuple[int, ...]:
        while s and s[0] == 1:
            s = s[1:]
        return s

    return cut(shape) == cut(other)


def _wrong_shape_error(
    step_figures: StepFigures, plan: Plan, target_shape: tuple[int, ...], layout: str | None
) -> Exception:
    step, axes = str(step_figures.step), plan.steps[str(step_figures.step)]
    shape = step_figures.values.shape
    want = f"({', '.join(f'{axis} {n}' for axis, n in zip(axes, target_shape, strict=True))})"
    if layout and any(True for _ in _possible_layouts(shape, plan, step, target_shape)):
        return input_error(
            "wrong-shape", f"{step} of shape {shape} is not {layout}: the step is {want}", help="leave --layout out"
        )
    way = f"the step is {want}"
    if len(shape) >= 2 and len(target_shape) >= 2 and shape[-1] == target_shape[-1] and shape[-2] < target_shape[-2]:
        rows = join_names(range(shape[-2]), "and", max_names=4)
        way = (
            f'say which rows they are: {{"{step}": {{"values": …, "rows": [{rows.replace(" and ", ", ")}]}}}} in JSON, '
            f"or one figure a row under step,{','.join(axes)},value in CSV"
        )
    return input_error("wrong-shape", f"the figures of {step} have shape {shape}, but should be {want}", help=way)


def _make_cell_claim(step_figures: StepFigures, plan: Plan) -> Claim:
    """Figures that say their places one by one."""
    step = str(step_figures.step)
    axes, full = plan.steps[step], step_shape(plan, step)
    places = []
    for place in step_figures.cells or ():
        absent = [axis for axis in place if axis not in axes and place[axis] != 0]
        unsaid = [axis for axis, n in zip(axes, full, strict=True) if axis not in place and n > 1]
        if absent:
            help = suggestion(absent[0], axes)
            raise input_error(
                "absent-axis", f"{step} has no axis {absent[0]!r}: its axes are {join_names(axes)}", help=help
            )
        if unsaid and step != "mask":
            raise input_error("missing-axis", f"a figure of {step} does not say its {join_names(unsaid)}")
        places.append(tuple(place.get(axis, 0) for axis in axes))
    for indices in step_figures.cell_indices or ():
        if len(indices) != len(axes):
            said = "".join(f"[{i}]" for i in indices)
            raise input_error(
                "wrong-place",
                f"{step}{said} has {pluralize(len(indices), 'index', 'indices')}, but its axes are {join_names(axes)}",
            )
        places.append(indices)
    for spot in places:
        for axis, i, n in zip(axes, spot, full, strict=True):
            if not 0 <= i < n:
                raise input_error("out-of-range", f"there is no {axis} {i} in {step}: it has {n}")
    index = tuple(np.array([place[a] for place in places], int) for a in range(len(axes)))
    whole = len(set(places)) == int(np.prod(full)) == len(places)
    return Claim(step, axes, step_figures.values, index, whole, step_figures, step_figures.decimals)


def to_step_array(claim: Claim, shape: tuple[int, ...]) -> NumpyArray:
    """The figures of a whole step, in its shape."""
    out = np.zeros(shape, claim.values.dtype)
    out[claim.index] = claim.values
    return out


def describe_cell(plan: Plan, cell: Mapping[str, int]) -> str:
    """A cell in words: `head 1, sat → cat`, `sat, dim 0`."""
    from attncli.errors import printable

    def token(axis: str) -> str:
        labels = plan.tokens if axis == "query" else plan.k_tokens
        own = labels[cell.get("batch", 0)] if plan.size.batch is not None else labels
        i = cell[axis] + (plan.size.past if axis == "new_key" else 0)
        text = printable(str(own[i])) if i < len(own) else str(i)
        twice = text == str(i) or own.count(own[i]) > 1
        return f"{axis.replace('new_', '')} {i}" if text == str(i) else f"{text} ({i})" if twice else text

    head = [f"{axis.replace('_', ' ')} {cell[axis]}" for axis in ("batch", "head", "kv_head") if axis in cell]
    tokens = " → ".join(token(axis) for axis in ("query", "key", "new_key") if axis in cell)
    tail = [f"{axis} {cell[axis]}" for axis in ("dim", "rank") if axis in cell]
    return ", ".join([*head, *([tokens] if tokens else []), *tail])
