"""Heads cut out of the wrong columns, put together in the wrong order, or reading the wrong keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import with_head_context
from attncli.check.trials import Trials
from attncli.plan import Plan
from attncli.types import NumpyArray


@fault
def wrong_head_columns(trials: Trials) -> Iterator[Hypothesis]:
    """Heads split or merged another way."""
    shapes = trials.plan.shapes
    if not shapes.has_head_axis or shapes.heads == 1:
        return
    counts = {"q": shapes.heads, "k": shapes.kv_heads, "v": shapes.v_heads}
    letters = [x for x in counts if x != "v" or shapes.c is not None]

    def split(how: str, which: list[str]) -> Plan | None:
        base = trials.projected_plan
        return base and trials.with_qkv(
            **{x: _reassign_columns(getattr(base.problem, x), counts[x], how) for x in which}
        )

    merged = {
        "merge": lambda z, *_: z.reshape(z.shape[0], z.shape[2], -1).unflatten(-1, (z.shape[1], -1)).transpose(1, 2),
        "stride": lambda z, *_: z.permute(0, 2, 3, 1).flatten(2).unflatten(-1, (z.shape[1], -1)).transpose(1, 2),
        "reverse": lambda z, *_: z.flip(1),
        "mean": lambda z, *_: z.mean(1, keepdim=True).expand(z.shape),
    }

    def also(plan: Plan | None, how: str) -> Plan | None:
        return with_head_context(plan, merged[how]) if plan else None

    stride = "with heads split by stride, column i belonging to head i mod H: a head takes columns side by side"
    view = "with q, k and v reshaped to (heads, tokens, d) without a transpose: reshape to (tokens, heads, d), then transpose"
    yield Hypothesis("heads split by stride", stride, lambda: split("stride", letters), 0)
    yield Hypothesis("heads split and merged by stride", stride, lambda: also(split("stride", letters), "stride"))
    yield Hypothesis("heads split without a transpose", view, lambda: split("view", letters), 0)
    yield Hypothesis("heads split and merged without a transpose", view, lambda: also(split("view", letters), "merge"))
    for x in letters:
        says = f"with the heads of {x} split by stride"
        yield Hypothesis(f"heads of {x} split by stride", says, partial(split, "stride", [x]))
    says = "with heads reshaped to one context without a transpose: transpose to (tokens, heads, d) first"
    yield Hypothesis("heads merged without a transpose", says, lambda: also(trials.plan, "merge"), 0)
    says = "with the heads' columns interleaved in the context: put heads side by side"
    yield Hypothesis("heads merged by stride", says, lambda: also(trials.plan, "stride"))
    says = "with the heads side by side in reverse order"
    yield Hypothesis("heads merged in reverse", says, lambda: also(trials.plan, "reverse"))
    says = "with each head's context replaced by the mean of all"
    yield Hypothesis("heads averaged", says, lambda: also(trials.plan, "mean"))


def _reassign_columns(x: Any, heads: int, order: str) -> NumpyArray:
    """(…, t, h·d) with columns that belong to other heads."""
    x = np.asarray(x)
    t, width = x.shape[-2:]
    lead = x.shape[:-2]
    if order == "stride":  # column i belongs to head i mod h
        return x.reshape(*lead, t, width // heads, heads).swapaxes(-1, -2).reshape(x.shape)
    return x.reshape(*lead, heads, t, width // heads).swapaxes(-3, -2).reshape(x.shape)  # read as (h, t, d)


@fault
def wrong_kv_head(trials: Trials) -> Iterator[Hypothesis]:
    """Query heads that read another kv head."""
    shapes = trials.plan.shapes
    if not shapes.has_head_axis or shapes.kv_heads >= shapes.heads:
        return
    yield Hypothesis(
        "all heads on kv head 0",
        "with every query head reading the first kv head",
        partial(_first_kv_head_for_all, trials),
    )
    if shapes.kv_heads > 1:
        tile = trials.plan.variant.kv_map != "tile"
        name = "kv heads tiled instead of interleaved" if tile else "kv heads interleaved instead of tiled"
        size = shapes.heads // shapes.kv_heads
        own = f"⌊h / {size}⌋" if tile else f"h mod {shapes.kv_heads}"
        says = f"with {name}: query head h should read kv head {own}"
        yield Hypothesis(name, says, partial(trials.with_choices, kv_map="tile" if tile else "interleave"), 0)


def _first_kv_head_for_all(trials: Trials) -> Plan | None:
    """The first kv head in the place of each."""
    base, shapes = trials.projected_plan, trials.plan.shapes
    if base is None:
        return None
    counts = {"k": shapes.kv_heads} | ({"v": shapes.v_heads} if shapes.c is not None else {})
    arrays = {x: np.asarray(getattr(base.problem, x)) for x in counts}
    return trials.with_qkv(**{x: np.tile(y[..., : y.shape[-1] // counts[x]], counts[x]) for x, y in arrays.items()})
