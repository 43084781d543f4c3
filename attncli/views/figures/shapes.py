"""What can be drawn of a result, decided by the shapes of its steps, before anything is computed. Entries: `check_shapes`,
`keep_drawn_steps`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from attncli.errors import InputError, OptionError
from attncli.output_formats import FigureKind, FigureOptions, StepShape
from attncli.text import join_names, pluralize
from attncli.types import Attention

_MAX_PANELS = 144
_INDEX_STEPS = {"top_keys": "top_weights"}  # steps that hold indices, and what is drawn instead
_DEFAULT_STEP = "weights"


def choose_steps(shapes: Sequence[StepShape], options: FigureOptions) -> list[str]:
    """Return the names of the steps that are drawn: those that are named, or else the weights, or else all there are."""
    names = [shape.name for shape in shapes if shape.name not in _INDEX_STEPS]
    if options.steps and "all" not in options.steps:
        return [name for name in names if name in options.steps]
    return [_DEFAULT_STEP] if _DEFAULT_STEP in names and not options.steps else names


def choose_kind(shapes: Sequence[StepShape], options: FigureOptions) -> FigureKind:
    """Return the kind that is asked for; or else bars, where there is one query alone, and heat maps."""
    if options.kind is not None:
        return options.kind
    drawn = [shape for shape in shapes if shape.name in choose_steps(shapes, options)]
    is_one_query = all(shape.is_matrix and shape.length("query") == 1 for shape in drawn)
    return "flow" if is_one_query and drawn else "heat"


def check_shapes(shapes: Sequence[StepShape], options: FigureOptions) -> None:
    """Refuse what no figure can show.

    Raises:
        OptionError: a step holds indices, or the kind is of other steps.
        InputError: there are too many panels, or not as many queries or heads as the kind draws.
    """
    for name in options.steps:
        if name in _INDEX_STEPS:
            message = f"{name} holds indices of keys, which are not amounts that can be drawn"
            raise OptionError("bad-option", message, help=f"--only {_INDEX_STEPS[name]}")
    steps = choose_steps(shapes, options)
    drawn = [shape for shape in shapes if shape.name in steps]
    kind = choose_kind(shapes, options)
    if kind != "heat":
        other = next((shape.name for shape in drawn if not shape.is_matrix), None)
        if other is not None:
            message = f"--kind {kind} draws steps with a number for each query and key, and {other} is none"
            raise OptionError("bad-option", message, help="--only weights, or --kind heat")
    for shape in drawn:
        if 0 in shape.lengths:
            raise InputError("empty", f"{shape.name} has no cell to be drawn: its shape is {shape.lengths}")
        if kind == "flow" and shape.length("query") != 1:
            message = f"--kind flow draws where one query looks, and there are {shape.length('query')}"
            raise InputError("several-queries", message, help="--at query=0 chooses the first")
        if kind == "heads" and shape.length("head") != 2:
            count = shape.length("head")
            message = (
                f"--kind heads draws two heads against each other, and there {'is' if count == 1 else 'are'} {count}"
            )
            hint = "--at head=0 --at head=1 chooses two of them" if count > 2 else "--heads 2 makes two of one"
            raise InputError("other-head-count", message, help=hint)
    panel_count = sum(math.prod(shape.lengths[: -len(shape.panel_axes)]) for shape in drawn)
    if panel_count > _MAX_PANELS:
        axes = [a for a in ("batch", "head", "kv_head") if any(a in shape.axes for shape in drawn)]
        message = f"the figure would have {pluralize(panel_count, 'panel')}, and at most {_MAX_PANELS} can be read"
        raise InputError("too-many-panels", message, help=join_names([f"--at {axis}=0:4" for axis in axes], "or"))


def keep_drawn_steps(attention: Attention, names: tuple[str, ...]) -> Attention:
    """Return a result with the steps that are drawn; its hidden keys stay known.

    Raises:
        InputError: it lacks one of them.
    """
    held = [step.name for step in attention]
    if "all" in names or not names:
        names = ("weights",) if "weights" in held and not names else tuple(held)
    for name in names:
        if name not in held:
            message = f"the result has no step {name!r}: it has {join_names(held)}"
            hint = f"attn compute INPUT --only {name} -o result.json writes one that has it"
            raise InputError("absent-step", message, help=hint)
    kept = {*names, *(("weights",) if "dropout_weights" in names else ())}  # these tell which weights were dropped
    return replace(attention, steps=tuple(step for step in attention if step.name in kept))
