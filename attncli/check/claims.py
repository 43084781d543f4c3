"""Turning figures into claims: which cell of which step each figure is, or a refusal where that cannot be known.

`make_claims` is the entry, after `assign_steps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from attncli.check.figures import Figures, StepFigures, conform_to_step
from attncli.check.labels import (
    AXIS_PLURALS,
    check_cell_tokens,
    find_labelled_indices,
    find_result_indices,
    label_names,
)
from attncli.errors import InputError, OptionError, input_error
from attncli.plan import Plan
from attncli.step_names import GRADIENT_NAMES, find_figure_name, require_step_name
from attncli.text import join_names, pluralize, printable, suggestion
from attncli.types import NumpyArray

_LAYOUT_OF_STEP = "as it is"
LAYOUTS = ("bhtd", "bthd", "htd", "thd")
_CONTEXT_STEPS = ("head_context", "normed_context", "context")  # what kernels write in heads
_MAX_SIGNATURE_FIGURES = 1 << 20

Shape: TypeAlias = tuple[int, ...]
Rearrangement: TypeAlias = Callable[[NumpyArray], NumpyArray]


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
        """Find the cell of a figure in the step: its index on each axis."""
        indices = np.broadcast_arrays(*self.index) if self.index else []
        return {axis: int(i[position]) for axis, i in zip(self.axes, indices, strict=True)}


# ── which steps ──────────────────────────────────────────────────────────────────────────────────
def assign_steps(figures: Figures, step: str | None) -> tuple[Figures, tuple[StepFigures, ...]]:
    """Assign each array of figures to its step: its own, or the one that --step names; --step also selects one of several.

    Returns:
        The figures, with the open gaps of the selected steps alone, and the selected steps.

    Raises:
        OptionError: an array has no name and --step gives none, or there is no such step at all.
        InputError: there are no figures of the step, or they are of another kind than the step.
    """
    if step in ("all", ""):
        raise OptionError("bad-option", "--step takes one step", help="leave --step out to check all of them")
    if step is not None:
        known = find_figure_name(step)
        if known is None:
            require_step_name(step, is_all_allowed=False)
        step = known
    if any(s.step is None for s in figures.steps):
        if step is None:
            hint = "name it: --step weights"
            raise OptionError("missing-option", f"{figures.name} does not name the step of its figures", help=hint)
        return figures, tuple(conform_to_step(replace(s, step=step)) for s in figures.steps)
    if step is None:
        return figures, tuple(map(conform_to_step, figures.steps))
    chosen = tuple(s for s in figures.steps if s.step == step)
    if not chosen:
        names = join_names(dict.fromkeys(str(s.step) for s in figures.steps))
        raise input_error("absent-step", f"{figures.name} has no figures of {step}", help=f"it has {names}")
    return replace(figures, open_gaps=tuple(s for s in figures.open_gaps if s.step == step)), tuple(
        map(conform_to_step, chosen)
    )


def largest_claimed_rank(steps: Sequence[StepFigures]) -> int | None:
    """Return how many ranks are claimed, which the plan must know first."""
    counts: list[int] = []
    for figures in steps:
        if figures.step not in ("top_keys", "top_weights"):
            continue
        if figures.cells is not None:
            ranks = figures.cells[:, figures.cell_axes.index("rank")] if "rank" in figures.cell_axes else [0]
            counts.append(int(max(ranks)) + 1)
        elif figures.cell_indices is not None:
            counts.append(max((indices[-1] for indices in figures.cell_indices if indices), default=0) + 1)
        elif figures.values.ndim:
            counts.append(figures.values.shape[-1])
    return max(counts, default=None)


# ── which cells ──────────────────────────────────────────────────────────────────────────────────
def make_claims(figures: Figures, steps: Sequence[StepFigures], plan: Plan, layout: str | None) -> tuple[Claim, ...]:
    """Find the cell of every figure, steps in order of computation.

    Raises:
        InputError: a step that this variant lacks, a shape that is not the step's, or a layout that is ambiguous.
    """
    for step_figures in steps:
        if step_figures.step not in plan.steps:
            hint = f"this variant has {join_names(plan.steps)}; --step checks only one of yours"
            message = f"{figures.name} has figures of {step_figures.step}, which this variant does not have"
            raise input_error("absent-step", message, help=hint)
    claims = [_make_claim(s, plan, layout, figures.is_layout_known and layout is None) for s in steps]
    claims = [claim for claim in claims if claim.values.size]
    if not claims and not figures.open_gaps:
        raise input_error("no-figures", f"{figures.name} holds no figures")
    order = list(plan.steps)
    return tuple(sorted(claims, key=lambda claim: order.index(claim.step)))


def step_shape(plan: Plan, step: str) -> Shape:
    """Return the shape of a step on all its axes."""
    return tuple(plan.axis_length(step, axis) for axis in plan.steps[step])


def _make_claim(step_figures: StepFigures, plan: Plan, layout: str | None, is_layout_known: bool) -> Claim:
    """Find the cells of one step's figures."""
    if step_figures.cells is not None or step_figures.cell_indices is not None:
        return _make_cell_claim(step_figures, plan)
    step = str(step_figures.step)
    axes, shape = plan.steps[step], step_shape(plan, step)
    axis_indices = [
        np.array(step_figures.axis_indices.get(axis, range(n))) for axis, n in zip(axes, shape, strict=True)
    ]
    for name, indices, axis_position in (("rows", step_figures.rows, -2), ("columns", step_figures.columns, -1)):
        if indices is not None:
            if len(axes) + axis_position < 0:
                raise input_error("wrong-shape", f"{step} has no {name}: its axes are {join_names(axes)}")
            axis_indices[axis_position] = np.array(indices)
    for axis, index, n in zip(axes, axis_indices, shape, strict=True):
        if (index >= n).any() or (index < -n).any():
            raise input_error(
                "out-of-range",
                f"{step} has {pluralize(n, axis, AXIS_PLURALS.get(axis, ''))}, but a figure is for {axis} {max(index)}",
            )
        np.remainder(index, n, out=index)  # negative indices count from the end
        if len(np.unique(index)) < len(index):
            twice = next(i for i in index if (index == i).sum() > 1)
            raise input_error("two-sources", f"{axis} {twice} of {step} is given twice", help="remove one of them")
    _apply_labels(step_figures, plan, axis_indices)
    claimed_shape = tuple(len(index) for index in axis_indices)
    values, decimals = _apply_layout(step_figures, plan, claimed_shape, layout, is_layout_known)
    is_whole_step = claimed_shape == shape and all(
        (index == np.arange(n)).all() for index, n in zip(axis_indices, shape, strict=True)
    )
    return Claim(step, axes, values, np.ix_(*axis_indices), is_whole_step, step_figures, decimals)


def _apply_labels(step_figures: StepFigures, plan: Plan, axis_indices: list[NumpyArray]) -> None:
    """Find the indices of rows and columns by their labels, in place: those of a table, or the tokens of a result.

    Raises:
        InputError: a label is unknown or ambiguous, or a table's rows are of another axis than the step's.
    """
    step = str(step_figures.step)
    axes = plan.steps[step]
    for axis, labels in step_figures.axis_labels.items():
        if axis in axes:
            position = axes.index(axis)
            batch_indices = axis_indices[axes.index("batch")] if "batch" in axes else None
            is_selected = axis in step_figures.axis_indices
            order = find_result_indices(
                labels, plan, axis, axis_indices[position], batch_indices, step, is_selected=is_selected
            )
            axis_indices[position] = axis_indices[position][order]
    if step_figures.row_axis and len(axes) > 1 and step_figures.row_axis != axes[-2]:
        raise input_error(
            "wrong-shape",
            f"the rows of the table are along the {step_figures.row_axis} axis, but those of {step} are along {axes[-2]}",
        )
    for noun, table_labels, axis_position in (
        ("row", step_figures.row_labels, -2),
        ("column", step_figures.column_labels, -1),
    ):
        if table_labels is not None and len(axes) + axis_position >= 0:
            axis, length = axes[axis_position], len(axis_indices[axis_position])
            found = find_labelled_indices(table_labels, label_names(plan, axis), length, axis, noun, step)
            axis_indices[axis_position] = found


def _make_cell_claim(step_figures: StepFigures, plan: Plan) -> Claim:
    """Make a claim of figures that name their cells one by one.

    Raises:
        InputError: a cell is not in the step, does not say an axis, or is claimed twice.
    """
    step = str(step_figures.step)
    axes, shape = plan.steps[step], step_shape(plan, step)
    cells = _align_cells(step_figures, step, axes, shape)
    for axis, indices, n in zip(axes, cells.T, shape, strict=True):
        if (indices >= n).any():
            raise input_error(
                "out-of-range", f"there is no {axis} {indices[indices >= n][0]} in {step}: it has only {n}"
            )
    check_cell_tokens(step_figures.cell_tokens, plan, axes, cells, step)
    index = tuple(cells.T)
    flat = np.ravel_multi_index(index, shape) if axes else np.zeros(len(cells), np.int64)
    distinct, counts = np.unique(flat, return_counts=True)
    if len(distinct) < len(flat) and not step_figures.gap_numbers:  # two gaps may ask for the same
        twice = np.unravel_index(int(distinct[counts > 1][0]), shape)
        cell = describe_cell(plan, {axis: int(i) for axis, i in zip(axes, twice, strict=True)})
        raise input_error("two-sources", f"{step} of {cell} is given twice", help="remove one of them")
    is_whole_step = len(distinct) == int(np.prod(shape)) == len(flat)
    return Claim(step, axes, step_figures.values, index, is_whole_step, step_figures, step_figures.decimals)


def _align_cells(step_figures: StepFigures, step: str, axes: tuple[str, ...], shape: Shape) -> NumpyArray:
    """Return the indices of cells by the axes of the step: (figures, axes).

    An axis of length 1 may be left out, and any axis of a mask.

    Raises:
        InputError: an axis is missing, or the step has none such.
    """
    for indices in step_figures.cell_indices or ():
        if len(indices) != len(axes):
            path = step + "".join(f"[{i}]" for i in indices)
            raise input_error(
                "wrong-place",
                f"{path} has {pluralize(len(indices), 'index', 'indices')}, but its axes are {join_names(axes)}",
            )
    if step_figures.cells is None:
        return np.array(step_figures.cell_indices, np.int64).reshape(-1, len(axes))
    by_axis = dict(zip(step_figures.cell_axes, step_figures.cells.T, strict=True))
    absent = next((axis for axis, indices in by_axis.items() if axis not in axes and (indices > 0).any()), None)
    if absent is not None:
        message = f"{step} has no axis {absent!r}: its axes are {join_names(axes)}"
        raise input_error("absent-axis", message, help=suggestion(absent, axes))
    unsaid = np.full(len(step_figures.cells), -1)
    columns = [by_axis.get(axis, unsaid) for axis in axes]
    missing = [axis for axis, n, indices in zip(axes, shape, columns, strict=True) if n > 1 and (indices < 0).any()]
    if missing and step != "mask":
        raise input_error("missing-axis", f"a figure of {step} does not give its {join_names(missing)}")
    return np.maximum(np.array(columns, np.int64).reshape(len(axes), -1).T, 0)


# ── layouts ──────────────────────────────────────────────────────────────────────────────────────
def _apply_layout(
    step_figures: StepFigures, plan: Plan, target_shape: Shape, layout: str | None, is_layout_known: bool
) -> tuple[NumpyArray, NumpyArray | None]:
    """Lay out values and decimals as the step is; their layout is given, or only one is possible."""
    step, axes = str(step_figures.step), plan.steps[str(step_figures.step)]
    values, decimals = step_figures.values, step_figures.decimals
    own_axes = step_figures.axes
    if own_axes is not None and own_axes != axes and set(own_axes) <= set(axes):
        return _expand_axes(step_figures, plan, target_shape), None
    possible = list(_possible_layouts(values.shape, plan, step, target_shape))
    if layout is None:
        allowed = {*LAYOUTS, _LAYOUT_OF_STEP}
    elif layout in ("bthd", "thd"):  # thd is bthd without a batch
        allowed = {"bthd"}
    else:
        allowed = {"bhtd", "htd"}  # htd is bhtd without a batch
    rearrangements = {name: rearrange for name, rearrange in possible if name in allowed}
    if layout is not None and not rearrangements:  # heads side by side, or no heads at all: only one layout
        rearrangements = {name: rearrange for name, rearrange in possible if name == _LAYOUT_OF_STEP}
    if is_layout_known and _are_equal_but_leading_ones(values.shape, target_shape):
        rearrangements = {_LAYOUT_OF_STEP: _reshape_to(target_shape)}
    if len({_layout_signature(values.shape, rearrange) for rearrange in rearrangements.values()}) > 1:
        names = [name for name in rearrangements if name in LAYOUTS]
        message = f"the axes of {step}, of shape {values.shape}, can be read as {join_names(names, 'or')}"
        raise input_error("ambiguous-layout", message, help=f"choose one: --layout {names[0]}, or --layout {names[-1]}")
    if not rearrangements:
        raise _wrong_shape_error(step_figures, plan, target_shape, layout)
    rearrange = next(iter(rearrangements.values()))
    return rearrange(values), None if decimals is None else rearrange(decimals)


def _expand_axes(step_figures: StepFigures, plan: Plan, target_shape: Shape) -> NumpyArray:
    """Return values that have some of the step's axes on all of them.

    A mask has only the axes it needs; of another step, those that are left out have length 1.

    Raises:
        InputError: the axes that are left out are longer, or the others are not as long as the step's.
    """
    step, own_axes = str(step_figures.step), step_figures.axes or ()
    axes, values = plan.steps[step], step_figures.values
    lengths = dict(zip(axes, target_shape, strict=True))
    is_in_order = own_axes == tuple(axis for axis in axes if axis in own_axes)
    are_left_out_single = step == "mask" or all(n == 1 for axis, n in lengths.items() if axis not in own_axes)
    if not (is_in_order and are_left_out_single and values.shape == tuple(lengths[axis] for axis in own_axes)):
        raise _wrong_shape_error(step_figures, plan, target_shape, None)
    expanded = tuple(slice(None) if axis in own_axes else None for axis in axes)
    return np.broadcast_to(values[expanded], target_shape)


def _layout_signature(shape: Shape, rearrange: Rearrangement) -> bytes:
    """Return the signature of a layout: two layouts with equal signatures put every value in the same place."""
    count = int(np.prod(shape))
    if count > _MAX_SIGNATURE_FIGURES:
        return repr(rearrange).encode()
    return rearrange(np.arange(count, dtype=np.int64).reshape(shape)).tobytes()


def _possible_layouts(shape: Shape, plan: Plan, step: str, target_shape: Shape) -> Iterator[tuple[str, Rearrangement]]:
    """Yield every layout that a shape can have, with the rearrangement that brings it to the step's axes."""
    axes = plan.steps[step]
    has_heads = "head" in axes or "kv_head" in axes
    heads_first = "bhtd" if "batch" in axes else "htd"
    if _are_equal_but_leading_ones(shape, target_shape):
        yield heads_first if has_heads and axes[-1] == "dim" else _LAYOUT_OF_STEP, _reshape_to(target_shape)
    if axes[-1] != "dim":
        return
    batch = target_shape[0] if axes[0] == "batch" else 1
    if has_heads:
        h, t, d = target_shape[-3:]
        swap_heads = _exchange_middle_axes((batch, t, h, d), target_shape)
        for candidate in ((batch, t, h, d), (t, h, d)):
            if _are_equal_but_leading_ones(shape, candidate) and (batch == 1 or len(candidate) == 4):
                yield "bthd", swap_heads
        if _are_equal_but_leading_ones(shape, (batch, t, h * d)):  # heads side by side
            yield _LAYOUT_OF_STEP, swap_heads
    elif step in _CONTEXT_STEPS and plan.shapes.has_head_axis:  # the context in heads, as kernels write it
        h = plan.shapes.mixed_heads
        t, d = target_shape[-2], target_shape[-1] // h
        if target_shape[-1] != h * d:
            return
        if _are_equal_but_leading_ones(shape, (batch, h, t, d)):
            yield heads_first, _exchange_middle_axes((batch, h, t, d), target_shape)
        if _are_equal_but_leading_ones(shape, (batch, t, h, d)):
            yield "bthd", _reshape_to(target_shape)


def _reshape_to(target_shape: Shape) -> Rearrangement:
    return lambda x: x.reshape(target_shape)


def _exchange_middle_axes(shape: Shape, target_shape: Shape) -> Rearrangement:
    """Return the rearrangement that reads a shape of rank 4 and exchanges its tokens and heads: b t h d ↔ b h t d."""
    return lambda x: x.reshape(shape).swapaxes(1, 2).reshape(target_shape)


def _are_equal_but_leading_ones(shape: Shape, other: Shape) -> bool:
    """Tell whether two shapes differ by leading axes of length 1 only."""
    return _without_leading_ones(shape) == _without_leading_ones(other)


def _without_leading_ones(shape: Shape) -> Shape:
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape


def _wrong_shape_error(step_figures: StepFigures, plan: Plan, target_shape: Shape, layout: str | None) -> InputError:
    """Make the error of figures that fit no layout; where rows may be missing, its help says how to name the others."""
    step, axes = str(step_figures.step), plan.steps[str(step_figures.step)]
    shape = step_figures.values.shape
    wanted = f"({', '.join(f'{axis} {n}' for axis, n in zip(axes, target_shape, strict=True))})"
    if layout and any(True for _ in _possible_layouts(shape, plan, step, target_shape)):
        return input_error(
            "wrong-shape", f"{step} of shape {shape} is not {layout}: the step is {wanted}", help="leave --layout out"
        )
    hint = f"the step is {wanted}"
    if step_figures.axes is not None and len(step_figures.axes) == len(shape):
        own = f"({', '.join(f'{axis} {n}' for axis, n in zip(step_figures.axes, shape, strict=True))})"
        return input_error(
            "wrong-shape",
            f"the figures of {step} are {own}, but should be {wanted}",
            help="check the problem and the options that the result was computed with",
        )
    if len(axes) > 1 and target_shape != _exchange_last(target_shape) == shape:
        hint = f"transpose them: rows are {axes[-2]}, columns {axes[-1]}"
    if step in GRADIENT_NAMES and len(shape) == len(target_shape):
        hint = _hint_of_unsummed_gradient(shape, axes, target_shape) or hint
    if _lacks_heads_alone(shape, axes, target_shape):
        hint = f"give the figures of each head, {wanted}; an average over heads cannot be checked"
        if step.endswith("weights"):
            hint = (
                f"nn.MultiheadAttention averages its weights over the heads unless it is called with average_attn_weights=False, "
                f"which gives those of each head, {wanted}; an average cannot be checked"
            )
    elif len(shape) >= 2 and len(target_shape) >= 2 and shape[-1] == target_shape[-1] and shape[-2] < target_shape[-2]:
        rows = join_names(range(shape[-2]), "and", max_names=4)
        hint = (
            f'say which rows they are: {{"{step}": {{"values": …, "rows": [{rows.replace(" and ", ", ")}]}}}} in JSON, '
            f"or one figure per row under step,{','.join(axes)},value in CSV"
        )
    return input_error("wrong-shape", f"the figures of {step} have shape {shape}, but should be {wanted}", help=hint)


def _hint_of_unsummed_gradient(shape: Shape, axes: tuple[str, ...], target_shape: Shape) -> str:
    """Say over what a gradient is still to be added up: query heads that read one kv head, what a bias is broadcast over."""
    lengths = list(zip(axes[::-1], shape[::-1], target_shape[::-1], strict=False))
    longer = [(axis, own, n) for axis, own, n in lengths if own != n]
    if not longer or any(own % n for _, own, n in longer):
        return ""
    if len(longer) == 1 and longer[0][0] == "kv_head":
        _, own, n = longer[0]
        return f"add up the gradients of the {own // n} query heads that read each of the {n} kv heads"
    if all(n == 1 for _, _, n in longer):
        return f"add it up along {join_names(axis for axis, _, _ in longer[::-1])}, where one number stands for all"
    return ""


def _exchange_last(shape: Shape) -> Shape:
    return (*shape[:-2], *shape[:-3:-1])


def _lacks_heads_alone(shape: Shape, axes: tuple[str, ...], target_shape: Shape) -> bool:
    """Tell whether figures have the shape of a step of (query, key) but for its heads, as an average over these has."""
    if "head" not in axes or axes[-1] != "key":
        return False
    without_heads = tuple(n for axis, n in zip(axes, target_shape, strict=True) if axis != "head")
    return _are_equal_but_leading_ones(shape, without_heads)


# ── cells ────────────────────────────────────────────────────────────────────────────────────────
def to_step_array(claim: Claim, shape: Shape) -> NumpyArray:
    """Return the figures of a claim in the shape of the whole step; 0 where nothing is claimed."""
    values = np.zeros(shape, claim.values.dtype)
    values[claim.index] = claim.values
    return values


def describe_cell(plan: Plan, cell: Mapping[str, int]) -> str:
    """Describe a cell in words: `head 1, sat → cat`, `sat, dim 0`."""
    heads = [f"{axis.replace('_', ' ')} {cell[axis]}" for axis in ("batch", "head", "kv_head") if axis in cell]
    tokens = [_describe_token(plan, cell, axis) for axis in ("query", "key", "new_key") if axis in cell]
    dims = [f"{axis} {cell[axis]}" for axis in ("dim", "rank") if axis in cell]
    return ", ".join(filter(None, [*heads, " → ".join(tokens), *dims]))


def _describe_token(plan: Plan, cell: Mapping[str, int], axis: str) -> str:
    """Describe the token of a cell: its label, with its index where the label is repeated; its index where it has no label."""
    labels = plan.tokens if axis == "query" else plan.k_tokens
    if plan.size.batch is not None:
        labels = labels[cell.get("batch", 0)]
    i = cell[axis]
    if axis == "new_key":
        i += plan.size.past
    text = printable(str(labels[i])) if i < len(labels) else str(i)
    if text == str(i):
        return f"{axis.replace('new_', '')} {i}"
    return f"{text} ({i})" if labels.count(labels[i]) > 1 else text
