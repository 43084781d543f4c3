"""Select what a result shows, for `--at AXIS=WHICH`: which batch item, head, query, key, … Entries: `resolve_selection`, `select_indices`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from attncli.errors import InputError, OptionError
from attncli.plan import Plan
from attncli.plan.head_shapes import kv_head_of
from attncli.registry import parse_index
from attncli.text import join_names, shorten, suggestion
from attncli.types import AXES, Attention, Labels, Step

Selection = Mapping[str, tuple[int, ...]]  # axis → indices


@dataclass(frozen=True)
class Selectable:
    """What can be selected from: a plan, or a result that was read back. Indices are those of the problem."""

    steps: Mapping[str, tuple[str, ...]]  # the steps that are shown, with their axes
    axis_length: Callable[[str, str], int]  # (step, axis) → how long it is
    labels: Callable[[], tuple[Labels, Labels]]  # of queries and keys
    has_batch: bool
    past_length: int

    @classmethod
    def of_plan(cls, plan: Plan) -> Selectable:
        """Return what will be computed."""
        steps = {name: axes for name, axes in plan.steps.items() if name in plan.keep}
        has_batch = plan.size.batch is not None
        return cls(steps, plan.axis_length, lambda: (plan.tokens, plan.k_tokens), has_batch, plan.size.past)

    @classmethod
    def of_result(cls, attention: Attention) -> Selectable:
        """Return what a result holds; where it is a part of another, up to the largest index that was selected."""

        def axis_length(step: str, axis: str) -> int:
            if axis in attention.at:
                return max(attention.at[axis]) + 1
            found = attention[step]
            return int(found.values.shape[found.axes.index(axis)])

        def place_labels(labels: Labels, axis: str) -> Labels:
            """The labels by the indices of the problem; None stands for those that were not selected."""
            if axis not in attention.at:
                return labels
            known = dict(zip(attention.at[axis], labels, strict=True))
            return tuple(known.get(i) for i in range(max(attention.at[axis]) + 1))

        def place_all(labels: Labels, axis: str) -> Labels:
            if not labels or not isinstance(labels[0], tuple):
                return place_labels(labels, axis)
            items = place_labels(labels, "batch")
            return tuple(() if item is None else place_labels(item, axis) for item in items)

        steps = {step.name: step.axes for step in attention}
        has_batch = bool(attention.tokens) and isinstance(attention.tokens[0], tuple)
        return cls(
            steps,
            axis_length,
            lambda: (place_all(attention.tokens, "query"), place_all(attention.k_tokens, "key")),
            has_batch,
            attention.past_length,
        )


_AXES_WITH_TOKENS = ("query", "key", "new_key")  # the others are chosen by an index alone


def resolve_selection(source: Selectable, requests: Sequence[str]) -> Selection:
    """Turn `query=shiny`, `key=2:5`, `head=0` into the indices on each axis; the same axis again adds to it.

    Raises:
        OptionError: no `axis=which`, or no such axis.
        InputError: this result lacks the axis, the index or the token, or the token occurs more than once.
    """
    selection: dict[str, tuple[int, ...]] = {}
    for request in sorted(requests, key=_is_not_batch):  # tokens are looked up in the batch items that are selected
        axis, which = parse_request(request)
        kept = source.steps
        steps_by_length = {source.axis_length(name, axis): name for name, axes in kept.items() if axis in axes}
        if not steps_by_length:
            axes_there_are = join_names(dict.fromkeys(name for axes in kept.values() for name in axes))
            message = f"no step that is shown has an axis {axis!r}"
            raise InputError("absent-axis", message, help=f"its axes are {axes_there_are}")
        length = min(steps_by_length)
        shortest_step = steps_by_length[length] if len(steps_by_length) > 1 else ""
        indices = _resolve_indices(source, axis, which, length, selection, shortest_step)
        selection[axis] = tuple(dict.fromkeys((*selection.get(axis, ()), *indices)))
    return selection


def parse_request(request: str) -> tuple[str, str]:
    """Return axis and which of `AXIS=WHICH`; what is wrong with it whatever the result holds is refused here.

    Raises:
        OptionError: no `axis=which`, no such axis, or a token where there are only indices.
    """
    axis, equals, which = request.partition("=")
    if not equals or not which:
        hint = "--at query=shiny, --at head=0, --at key=2:5"
        raise OptionError("bad-option", f"--at takes AXIS=WHICH, not {shorten(request)!r}", help=hint)
    if axis not in AXES:
        raise OptionError("unknown-axis", f"there is no axis called {shorten(axis)!r}", help=suggestion(axis, AXES))
    if axis not in _AXES_WITH_TOKENS and parse_index(which) is None and _parse_bounds(which) is None:
        several = _spell_several(axis, which, ())
        message = f"{axis} is selected by its index, not by {shorten(which)!r}"
        raise OptionError("bad-option", message, help=several or f"--at {axis}=0")
    return axis, which


def _spell_several(axis: str, which: str, tokens: Collection[str]) -> str:
    """Return how a list such as `0,2` is spelled; empty: it is none."""
    items = [item.strip() for item in which.split(",")]
    if len(items) < 2 or any(parse_index(item) is None and item not in tokens for item in items):
        return ""
    return "one --at for each: " + " ".join(f"--at {axis}={shorten(item, 40)}" for item in items[:8])


def _parse_bounds(which: str) -> tuple[int | None, int | None] | None:
    """Return the bounds of a range such as `2:5` or `2:`; None: it is none."""
    texts = which.split(":")
    bounds = [parse_index(text) if text else None for text in texts]
    if len(texts) != 2 or any(text and bound is None for text, bound in zip(texts, bounds, strict=True)):
        return None
    return bounds[0], bounds[1]


def _is_not_batch(request: str) -> bool:
    return not request.startswith("batch=")


def _resolve_indices(
    source: Selectable, axis: str, which: str, length: int, selection: Selection, shortest_step: str
) -> tuple[int, ...]:
    """Return the indices that one request selects: those of a range, one by its number, or one by its token.

    Args:
        source: what is selected from.
        axis: its name.
        which: what stands behind the equals sign.
        length: of the axis.
        selection: what is selected so far.
        shortest_step: the step in which the axis is so long, where steps differ in it.
    """
    bounds = _parse_bounds(which)
    if bounds is not None:
        indices = tuple(range(length)[slice(*bounds)])
        if not indices:
            raise InputError(
                "out-of-range",
                f"{axis}={shorten(which)} selects none of {length}",
                help=f"indices run from 0 to {length - 1}; the end of a range is not included",
            )
        return indices
    index = parse_index(which)
    if index is not None:
        if not -length <= index < length:
            where = f" in {shortest_step}; --only can leave it out" if shortest_step else ""
            message = f"there is no {axis} {shorten(which)}{where}"
            raise InputError("out-of-range", message, help=f"indices run from 0 to {length - 1}")
        return (index % length,)
    return _find_token(source, axis, which, selection)


def _find_token(source: Selectable, axis: str, token: str, selection: Selection) -> tuple[int, ...]:
    """Return the index of the one query or key that has a token, in every batch item that is selected.

    Raises:
        InputError: there is none, or several, or another in each batch item.
    """
    labels = source.labels()[0 if axis == "query" else 1]
    items = [labels]
    if source.has_batch:
        items = [labels[b] for b in selection.get("batch", range(len(labels)))]
    matches = {tuple(i for i, label in enumerate(item) if label == token) for item in items}
    if len(matches) > 1:
        raise InputError(
            "ambiguous-token",
            f"{shorten(token)!r} has a different place in each batch item",
            help=f"choose one first: --at batch=0 --at {axis}={shorten(token)}",
        )
    indices = matches.pop()
    if axis == "new_key":
        indices = tuple(i - source.past_length for i in indices if i >= source.past_length)
    if not indices:
        known = dict.fromkeys(str(label) for item in items for label in item if label is not None)
        raise InputError(
            "unknown-token",
            f"there is no {axis} called {shorten(token)!r}",
            help=_spell_several(axis, token, known) or suggestion(token, known),
        )
    if len(indices) > 1:
        raise InputError(
            "ambiguous-token",
            f"the token {shorten(token)!r} occurs {len(indices)} times",
            help=f"choose by index: --at {axis}={indices[0]}, or {join_names(indices[1:], 'or')}",
        )
    return indices


def add_kv_heads(plan: Plan, selection: Selection) -> Selection:
    """Return a selection of heads with the kv heads that they read, unless kv heads are selected by themselves."""
    has_kv_heads = any("kv_head" in plan.steps[name] for name in plan.keep)
    if "head" not in selection or "kv_head" in selection or not has_kv_heads or plan.shapes.has_paired_heads:
        return selection
    shapes, kv_map = plan.shapes, plan.variant.kv_map
    read = (kv_head_of(head, shapes.heads, shapes.kv_heads, kv_map) for head in selection["head"])
    return {**selection, "kv_head": tuple(dict.fromkeys(read))}


def select_from_result(attention: Attention, requests: Sequence[str]) -> Attention:
    """Return the part of a result that was read back which `--at` asks for.

    Raises:
        OptionError, InputError: as `resolve_selection`; or the result is a part of another, which lacks the index.
    """
    selection = resolve_selection(Selectable.of_result(attention), requests)
    places: dict[str, tuple[int, ...]] = {}  # where the indices stand in the result
    for axis, indices in selection.items():
        held = attention.at.get(axis)
        if held is None:
            places[axis] = indices
            continue
        places[axis] = tuple(held.index(i) for i in indices if i in held)
        if not places[axis]:
            message = f"the result holds no {axis} {indices[0]}"
            raise InputError("out-of-range", message, help=f"of {axis} it holds {join_names(held)}")
    selected = {axis: tuple(i for i in selection[axis] if i in attention.at.get(axis, (i,))) for axis in selection}
    return dataclasses.replace(select_indices(attention, places), at={**attention.at, **selected})


def selects_only_queries(selection: Selection) -> bool:
    """Return whether a selection is of queries alone, or of nothing: then those rows can be computed by themselves."""
    return not {*selection} - {"query"}


def select_indices(attention: Attention, selection: Selection, done_axes: Collection[str] = ()) -> Attention:
    """Return the selected part of a result; every axis stays, with the length of its selection.

    Args:
        attention: the result.
        selection: indices by axis.
        done_axes: axes of which no more than the selection was computed.
    """
    if not selection:
        return attention

    def trim_step(step: Step) -> Step:
        values = step.values
        for i, axis in enumerate(step.axes):
            if axis in selection and axis not in done_axes:
                values = values[(slice(None),) * i + (list(selection[axis]),)]
        return dataclasses.replace(step, values=values)

    def trim_labels(labels: Labels, axis: str) -> Labels:
        has_batch = bool(labels) and isinstance(labels[0], tuple)
        items = [labels[b] for b in selection.get("batch", range(len(labels)))] if has_batch else [labels]
        if axis in selection:
            items = [tuple(item[i] for i in selection[axis]) for item in items]
        return tuple(items) if has_batch else items[0]

    return dataclasses.replace(
        attention,
        steps=tuple(map(trim_step, attention.steps)),
        tokens=trim_labels(attention.tokens, "query"),
        k_tokens=trim_labels(attention.k_tokens, "key"),
        at=dict(selection),
    )
