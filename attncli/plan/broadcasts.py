"""Read `mask`, `bias` and `dropout_mask`: which of their axes is which of the scores'. Entry: `resolve_broadcasts`.

An array with fewer axes than the scores has more than one reading where sizes happen to be equal: libraries pass one
mask an item, (B, Tq, Tk), one a head, (H, Tq, Tk), and the keys that are padding, (B, Tk). What has one reading is
computed; what has two is refused, with both spelled.
"""

from __future__ import annotations

import dataclasses

from attncli.errors import InputError, input_error
from attncli.types import Array, Problem
from attncli.validation import ProblemSize
from attncli.validation.fields import shape_of

Axes = tuple[str, ...]  # some of B, H, Tq, Tk, in order
_SCORE_AXES: Axes = ("B", "H", "Tq", "Tk")
# By rank: what an array with so many axes may mean; with B only where the problem has a batch.
_READINGS: dict[int, tuple[Axes, ...]] = {
    0: ((),),
    1: (("Tk",),),
    2: (("Tq", "Tk"), ("B", "Tk")),
    3: (("H", "Tq", "Tk"), ("B", "Tq", "Tk")),
    4: (_SCORE_AXES,),
}
_MEANINGS = {
    ("Tq", "Tk"): "the same for each item",
    ("B", "Tk"): "keys of each item",
    ("H", "Tq", "Tk"): "one per head",
    ("B", "Tq", "Tk"): "one per item",
}


def resolve_broadcasts(problem: Problem, size: ProblemSize, heads: int) -> Problem:
    """Return the problem with `mask`, `bias` and `dropout_mask` of four axes, each as long as the scores' or 1.

    Raises:
        InputError: one of them fits the scores (B, H, Tq, Tk) in no way, or in two.
    """
    arrays = {name: getattr(problem, name) for name in ("mask", "bias", "dropout_mask")}
    resolved = {name: _to_score_axes(name, x, size, heads) for name, x in arrays.items() if x is not None}
    return dataclasses.replace(problem, **resolved) if resolved else problem


def _to_score_axes(name: str, x: Array, size: ProblemSize, heads: int) -> Array:
    """Reshape an array to its one reading: (…) → (B or 1, H or 1, Tq or 1, Tk or 1)."""
    lengths = {"B": size.batch or 1, "H": heads, "Tq": size.queries, "Tk": size.keys}
    shape = shape_of(x)
    shapes: dict[tuple[int, ...], Axes] = {}
    for axes in _readings(len(shape), size):
        if all(length in (1, lengths[axis]) for axis, length in zip(axes, shape, strict=True)):
            shapes.setdefault(_whole_shape(axes, shape), axes)
    if not shapes:
        raise _misfit_error(name, shape, size, lengths)
    if len(shapes) > 1:
        spelled = "; ".join(f"{_spell_axes(axes)} = {whole}: {_MEANINGS[axes]}" for whole, axes in shapes.items())
        message = f"{name} has shape {shape}, which can be read in two ways: {_join_readings(shapes)}"
        raise input_error("two-readings", message, name, help=f"give it four axes: {spelled}")
    return x.reshape(next(iter(shapes)))


def _readings(rank: int, size: ProblemSize) -> list[Axes]:
    """Return what an array of this rank may mean on this problem."""
    return [axes for axes in _READINGS.get(rank, ()) if rank == 4 or "B" not in axes or size.batch is not None]


def _whole_shape(axes: Axes, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape with an axis of length 1 for each that is absent."""
    named = dict(zip(axes, shape, strict=True))
    return tuple(named.get(axis, 1) for axis in _SCORE_AXES)


def _spell_axes(axes: Axes) -> str:
    return f"({', '.join(axis if axis in axes else '1' for axis in _SCORE_AXES)})"


def _join_readings(shapes: dict[tuple[int, ...], Axes]) -> str:
    return " or ".join(f"({', '.join(axes)})" for axes in shapes.values())


def _misfit_error(name: str, shape: tuple[int, ...], size: ProblemSize, lengths: dict[str, int]) -> InputError:
    """Make the error of an array that fits the scores in no way."""
    batch, heads = lengths["B"], lengths["H"]
    whole = f"(B, H, Tq, Tk) = ({', '.join(map(str, lengths.values()))})"
    message = f"{name} has shape {shape}, which does not broadcast to {whole}"
    fits_grid = len(shape) >= 2 and all(
        length in (1, lengths[axis]) for axis, length in zip(("Tq", "Tk"), shape[-2:], strict=True)
    )
    if len(shape) == 3 and fits_grid and shape[0] == batch * heads:
        hint = f"items and heads share one axis: reshape it to ({batch}, {heads}, {shape[1]}, {shape[2]})"
    elif len(shape) == 3 and fits_grid and size.batch is None:
        hint = f"there is one head: one {name} for it has two axes, ({shape[1]}, {shape[2]})"
        if heads > 1:
            hint = f"there are {heads} heads: give one {name} per head, ({heads}, {shape[1]}, {shape[2]}), or one for all, of two axes"
    elif len(shape) == 3 and fits_grid:
        hint = (
            f"one per item is ({batch}, 1, {shape[1]}, {shape[2]}), one per head (1, {heads}, {shape[1]}, {shape[2]})"
        )
    elif len(shape) == 4 and size.batch is None and shape[0] != 1:
        hint = f"the problem has no batch: give one {name}, or a batch of {shape[0]} problems"
    else:
        wrong = [
            f"{axis} is {length}, not {lengths[axis]}"
            for axis, length in zip(_SCORE_AXES[4 - min(len(shape), 4) :], shape[-4:], strict=True)
            if length not in (1, lengths[axis])
        ]
        message += f": {wrong[0]}" if wrong else ""
        hint = "each axis must be as long as the problem's, or 1"
    return input_error("shape-mismatch", message, name, help=hint)
