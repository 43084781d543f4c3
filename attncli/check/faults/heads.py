"""Heads cut out of the wrong columns, merged in the wrong order, or reading the wrong keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import Replacement, with_head_context
from attncli.check.trials import Trials
from attncli.plan import Plan
from attncli.types import Array, NumpyArray

# ways of merging heads, as changes of each head's context: (b, h, n, c) → (b, h, n, c)
_MERGES: dict[str, Replacement] = {
    "view": lambda z, *_: z.reshape(z.shape[0], z.shape[2], -1).unflatten(-1, (z.shape[1], -1)).transpose(1, 2),
    "stride": lambda z, *_: z.permute(0, 2, 3, 1).flatten(2).unflatten(-1, (z.shape[1], -1)).transpose(1, 2),
    "reverse": lambda z, *_: z.flip(1),
    "mean": lambda z, *_: z.mean(1, keepdim=True).expand(z.shape),
}


@fault
def wrong_head_columns(trials: Trials) -> Iterator[Hypothesis]:
    """Heads are split or merged another way."""
    shapes = trials.plan.shapes
    if not shapes.has_head_axis or shapes.heads == 1:
        return
    letters = ["q", "k"] if shapes.c is None else ["q", "k", "v"]

    def split(order: str, letters: Sequence[str]) -> Plan | None:
        return _split_heads(trials, order, letters)

    def merge(plan: Plan | None, order: str) -> Plan | None:
        return with_head_context(plan, _MERGES[order]) if plan else None

    by_stride = "with heads split by stride, column i belonging to head i mod H: a head takes columns side by side"
    no_transpose = "with q, k and v reshaped to (heads, tokens, d) without a transpose: reshape to (tokens, heads, d), then transpose"
    yield Hypothesis("heads split by stride", by_stride, lambda: split("stride", letters), 0)
    yield Hypothesis("heads split and merged by stride", by_stride, lambda: merge(split("stride", letters), "stride"))
    yield Hypothesis("heads split without a transpose", no_transpose, lambda: split("view", letters), 0)
    yield Hypothesis(
        "heads split and merged without a transpose",
        no_transpose,
        lambda: merge(split("view", letters), "view"),
        mixes_queries=True,
    )
    for x in letters:
        yield Hypothesis(
            f"heads of {x} split by stride", f"with the heads of {x} split by stride", partial(split, "stride", [x])
        )
    yield Hypothesis(
        "heads merged without a transpose",
        "with heads reshaped to one context without a transpose: transpose to (tokens, heads, d) first",
        lambda: merge(trials.plan, "view"),
        0,
        mixes_queries=True,
    )
    yield Hypothesis(
        "heads merged by stride",
        "with the heads' columns interleaved in the context: put heads side by side",
        lambda: merge(trials.plan, "stride"),
    )
    yield Hypothesis(
        "heads merged in reverse", "with the heads side by side in reverse order", lambda: merge(trials.plan, "reverse")
    )
    yield Hypothesis(
        "heads averaged", "with each head's context replaced by the mean of all", lambda: merge(trials.plan, "mean")
    )


def _split_heads(trials: Trials, order: str, letters: Sequence[str]) -> Plan | None:
    """Make the projected plan with the heads of some of q, k and v split another way."""
    base, shapes = trials.projected_plan, trials.plan.shapes
    if base is None:
        return None
    counts = {"q": shapes.heads, "k": shapes.kv_heads, "v": shapes.v_heads}
    return trials.with_qkv(**{x: _reassign_columns(getattr(base.problem, x), counts[x], order) for x in letters})


def _reassign_columns(x: Array, heads: int, order: str) -> NumpyArray:
    """Give each head other columns of (…, t, h·d), as another way of splitting would."""
    x = np.asarray(x)
    *leading, t, width = x.shape
    if order == "stride":  # column i belongs to head i mod h
        return x.reshape(*leading, t, width // heads, heads).swapaxes(-1, -2).reshape(x.shape)
    return x.reshape(*leading, heads, t, width // heads).swapaxes(-3, -2).reshape(x.shape)  # read as (h, t, d)


@fault
def wrong_kv_head(trials: Trials) -> Iterator[Hypothesis]:
    """Query heads read another kv head."""
    shapes = trials.plan.shapes
    if not shapes.has_head_axis or shapes.kv_heads >= shapes.heads:
        return
    yield Hypothesis(
        "all heads on kv head 0",
        "with every query head reading the first kv head",
        partial(_first_kv_head_for_all, trials),
    )
    if shapes.kv_heads > 1:
        group_size = shapes.heads // shapes.kv_heads
        if trials.plan.variant.kv_map != "tile":
            kv_map, name, right = "tile", "kv heads tiled instead of interleaved", f"⌊h / {group_size}⌋"
        else:
            kv_map, name, right = "interleave", "kv heads interleaved instead of tiled", f"h mod {shapes.kv_heads}"
        description = f"with {name}: query head h should read kv head {right}"
        yield Hypothesis(name, description, partial(trials.with_choices, kv_map=kv_map), 0)


def _first_kv_head_for_all(trials: Trials) -> Plan | None:
    """Make the projected plan with the first kv head in the place of each."""
    base, shapes = trials.projected_plan, trials.plan.shapes
    if base is None:
        return None
    counts = {"k": shapes.kv_heads}
    if shapes.c is not None:
        counts["v"] = shapes.v_heads
    arrays = {x: np.asarray(getattr(base.problem, x)) for x in counts}
    return trials.with_qkv(**{x: np.tile(y[..., : y.shape[-1] // counts[x]], counts[x]) for x, y in arrays.items()})
