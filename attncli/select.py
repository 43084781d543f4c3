"""Select what a result shows, for `--at AXIS=WHICH`: which batch item, head, query, key, … Entries: `resolve_selection`, `select_indices`."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from attncli.errors import InputError, OptionError
from attncli.plan import Plan
from attncli.plan.head_shapes import kv_head_of
from attncli.registry import parse_index
from attncli.text import join_names, shorten, suggestion
from attncli.types import AXES, Attention, Labels, Step

Selection = Mapping[str, tuple[int, ...]]  # axis → indices
_AXES_WITH_TOKENS = ("query", "key", "new_key")  # the others are chosen by an index alone


def resolve_selection(plan: Plan, requests: Sequence[str]) -> Selection:
    """Turn `query=shiny`, `key=2:5`, `head=0` into the indices on each axis; the same axis again adds to it.

    Raises:
        OptionError: no `axis=which`, or no such axis.
        InputError: this result lacks the axis, the index or the token, or the token occurs more than once.
    """
    selection: dict[str, tuple[int, ...]] = {}
    for request in sorted(requests, key=_is_not_batch):  # tokens are looked up in the batch items that are selected
        axis, which = parse_request(request)
        kept = {name: axes for name, axes in plan.steps.items() if name in plan.keep}
        steps_by_length = {plan.axis_length(name, axis): name for name, axes in kept.items() if axis in axes}
        if not steps_by_length:
            axes_there_are = join_names(dict.fromkeys(name for axes in kept.values() for name in axes))
            message = f"no step that is shown has an axis {axis!r}"
            raise InputError("absent-axis", message, help=f"its axes are {axes_there_are}")
        length = min(steps_by_length)
        shortest_step = steps_by_length[length] if len(steps_by_length) > 1 else ""
        indices = _resolve_indices(plan, axis, which, length, selection, shortest_step)
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
        message = f"{axis} is selected by its index, not by {shorten(which)!r}"
        raise OptionError("bad-option", message, help=f"--at {axis}=0")
    return axis, which


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
    plan: Plan, axis: str, which: str, length: int, selection: Selection, shortest_step: str
) -> tuple[int, ...]:
    """Return the indices that one request selects: those of a range, one by its number, or one by its token.

    Args:
        plan: the outline.
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
    return _find_token(plan, axis, which, selection)


def _find_token(plan: Plan, axis: str, token: str, selection: Selection) -> tuple[int, ...]:
    """Return the index of the one query or key that has a token, in every batch item that is selected.

    Raises:
        InputError: there is none, or several, or another in each batch item.
    """
    labels = plan.tokens if axis == "query" else plan.k_tokens
    items = [labels]
    if plan.size.batch is not None:
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
        indices = tuple(i - plan.size.past for i in indices if i >= plan.size.past)
    if not indices:
        known = dict.fromkeys(str(label) for item in items for label in item)
        raise InputError(
            "unknown-token", f"there is no {axis} called {shorten(token)!r}", help=suggestion(token, known)
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
