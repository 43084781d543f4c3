"""`--at AXIS=WHICH`: which batch item, head, query, key, … a result shows. Every output follows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from attncli.errors import InputError, OptionError, join_names, printable, suggestion
from attncli.plan import Plan
from attncli.types import AXES, Attention, Labels, Step

Selection = Mapping[str, tuple[int, ...]]


def resolve_selection(plan: Plan, requests: Sequence[str]) -> Selection:
    """`query=shiny`, `key=2:5`, `head=0` → the indices chosen on each axis; the same axis again adds to it.

    Raises:
        OptionError: no `axis=which`, or no such axis.
        InputError: this result lacks the axis, the index or the token, or the token stands more than once.
    """
    chosen: dict[str, tuple[int, ...]] = {}
    for wish in sorted(
        requests, key=lambda w: not w.startswith("batch=")
    ):  # tokens are looked up in the batch item chosen
        axis, equals, which = wish.partition("=")
        if not equals or not which:
            raise OptionError(
                "bad-option", f"--at takes AXIS=WHICH, not {wish!r}", help="--at query=shiny, --at head=0, --at key=2:5"
            )
        if axis not in AXES:
            raise OptionError("unknown-axis", f"no axis is called {axis!r}", help=suggestion(axis, AXES))
        kept = {name: axes for name, axes in plan.steps.items() if name in plan.keep}
        lengths = {plan.axis_length(name, axis): name for name, axes in kept.items() if axis in axes}
        if not lengths:
            have = join_names(dict.fromkeys(a for axes in kept.values() for a in axes))
            raise InputError("absent-axis", f"nothing that is shown has an axis {axis!r}", help=f"its axes are {have}")
        chosen[axis] = tuple(
            dict.fromkeys(
                (
                    *chosen.get(axis, ()),
                    *_resolve_indices(
                        plan, axis, which, min(lengths), chosen, lengths[min(lengths)] if len(lengths) > 1 else ""
                    ),
                )
            )
        )
    return chosen


def _resolve_indices(
    plan: Plan, axis: str, requested: str, length: int, chosen: Selection, shortest_step: str
) -> tuple[int, ...]:
    start, colon, stop = requested.partition(":")
    if colon and all(not part or _is_integer(part) for part in (start, stop)):
        found = tuple(range(length)[slice(*(int(part) if part else None for part in (start, stop)))])
        if not found:
            raise InputError(
                "out-of-range",
                f"{axis}={requested} selects nothing of {length}",
                help=f"indices are 0 … {length - 1}; the second is not included",
            )
        return found
    if _is_integer(requested):
        index = int(requested)
        if not -length <= index < length:
            where = f" in {shortest_step}; --only can leave it out" if shortest_step else ""
            raise InputError("out-of-range", f"there is no {axis} {index}{where}", help=f"indices are 0 … {length - 1}")
        return (index % length,)
    if axis not in ("query", "key", "new_key"):
        raise OptionError("bad-option", f"{axis} is chosen by its index, not by {requested!r}", help=f"--at {axis}=0")
    labels = plan.tokens if axis == "query" else plan.k_tokens
    items = [labels[b] for b in chosen.get("batch", range(len(labels)))] if plan.size.batch is not None else [labels]
    places = {tuple(i for i, label in enumerate(item) if label == requested) for item in items}
    if len(places) > 1:
        raise InputError(
            "ambiguous-token",
            f"{requested!r} stands elsewhere in each batch item",
            help=f"choose one first: --at batch=0 --at {axis}={requested}",
        )
    found = places.pop()
    if axis == "new_key":
        found = tuple(i - plan.size.past for i in found if i >= plan.size.past)
    if not found:
        known = [str(label) for item in items for label in item]
        raise InputError(
            "unknown-token",
            f"no {axis} is called {printable(requested)!r}",
            help=suggestion(requested, dict.fromkeys(known)),
        )
    if len(found) > 1:
        raise InputError(
            "ambiguous-token",
            f"{requested!r} stands {len(found)} times",
            help=f"choose by index: --at {axis}={found[0]}, or {join_names(found[1:], 'or')}",
        )
    return found


def _is_integer(text: str) -> bool:
    return text.lstrip("-").isdecimal() and text.isascii() and text.count("-") <= text.startswith("-")


def select_indices(attention: Attention, selection: Selection, done_axes: Collection[str] = ()) -> Attention:
    """The chosen part of a result; every axis stays, with the length that was chosen. `done`: axes computed so already."""
    if not selection:
        return attention

    def cut(step: Step) -> Step:
        values = step.values
        for i, axis in enumerate(step.axes):
            if axis in selection and axis not in done_axes:
                values = values[(slice(None),) * i + (list(selection[axis]),)]
        return dataclasses.replace(step, values=values)

    def labels(tokens: Labels, axis: str) -> Labels:
        batched = bool(tokens) and isinstance(tokens[0], tuple)
        items = [tokens[b] for b in selection.get("batch", range(len(tokens)))] if batched else [tokens]
        cut = [tuple(item[i] for i in selection[axis]) if axis in selection else item for item in items]
        return tuple(cut) if batched else cut[0]

    return dataclasses.replace(
        attention,
        steps=tuple(map(cut, attention.steps)),
        tokens=labels(attention.tokens, "query"),
        k_tokens=labels(attention.k_tokens, "key"),
        at=dict(selection),
    )
