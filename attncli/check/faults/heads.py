"""Heads cut out of the wrong columns, put together in the wrong order, or reading the wrong keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from attncli.check.faults.base import Suspicion, fault
from attncli.check.plan_edits import contexts
from attncli.check.trials import Bench
from attncli.plan import Plan
from attncli.types import NumpyArray


@fault
def columns(b: Bench) -> Iterator[Suspicion]:
    """Heads split or merged another way."""
    shapes = b.plan.shapes
    if not shapes.headed or shapes.heads == 1:
        return
    counts = {"q": shapes.heads, "k": shapes.kv_heads, "v": shapes.v_heads}
    letters = [x for x in counts if x != "v" or shapes.c is not None]

    def split(how: str, which: list[str]) -> Plan | None:
        base = b.direct
        return base and b.rewritten(**{x: _columns(getattr(base.problem, x), counts[x], how) for x in which})

    merged = {
        "merge": lambda z, *_: z.reshape(z.shape[0], z.shape[2], -1).unflatten(-1, (z.shape[1], -1)).transpose(1, 2),
        "stride": lambda z, *_: z.permute(0, 2, 3, 1).flatten(2).unflatten(-1, (z.shape[1], -1)).transpose(1, 2),
        "reverse": lambda z, *_: z.flip(1),
        "mean": lambda z, *_: z.mean(1, keepdim=True).expand(z.shape),
    }

    def also(plan: Plan | None, how: str) -> Plan | None:
        return contexts(plan, merged[how]) if plan else None

    stride = "with heads split by stride, column i belonging to head i mod H: a head takes columns side by side"
    view = "with q, k and v reshaped to (heads, tokens, d) without a transpose: reshape to (tokens, heads, d), then transpose"
    yield Suspicion("heads split by stride", stride, lambda: split("stride", letters), 0)
    yield Suspicion("heads split and merged by stride", stride, lambda: also(split("stride", letters), "stride"))
    yield Suspicion("heads split without a transpose", view, lambda: split("view", letters), 0)
    yield Suspicion("heads split and merged without a transpose", view, lambda: also(split("view", letters), "merge"))
    for x in letters:
        says = f"with the heads of {x} split by stride"
        yield Suspicion(f"heads of {x} split by stride", says, partial(split, "stride", [x]))
    says = "with heads reshaped to one context without a transpose: transpose to (tokens, heads, d) first"
    yield Suspicion("heads merged without a transpose", says, lambda: also(b.plan, "merge"), 0)
    says = "with the heads' columns interleaved in the context: put heads side by side"
    yield Suspicion("heads merged by stride", says, lambda: also(b.plan, "stride"))
    says = "with the heads side by side in reverse order"
    yield Suspicion("heads merged in reverse", says, lambda: also(b.plan, "reverse"))
    says = "with each head's context replaced by the mean of all"
    yield Suspicion("heads averaged", says, lambda: also(b.plan, "mean"))


def _columns(x: Any, heads: int, how: str) -> NumpyArray:
    """(…, t, h·d) with columns that belong to other heads."""
    x = np.asarray(x)
    t, width = x.shape[-2:]
    lead = x.shape[:-2]
    if how == "stride":  # column i belongs to head i mod h
        return x.reshape(*lead, t, width // heads, heads).swapaxes(-1, -2).reshape(x.shape)
    return x.reshape(*lead, heads, t, width // heads).swapaxes(-3, -2).reshape(x.shape)  # read as (h, t, d)


@fault
def groups(b: Bench) -> Iterator[Suspicion]:
    """Query heads that read another kv head."""
    shapes = b.plan.shapes
    if not shapes.headed or shapes.kv_heads >= shapes.heads:
        return
    yield Suspicion("all heads on kv head 0", "with every query head reading the first kv head", partial(_first, b))
    if shapes.kv_heads > 1:
        tile = b.plan.variant.kv_map != "tile"
        name = "kv heads tiled instead of interleaved" if tile else "kv heads interleaved instead of tiled"
        size = shapes.heads // shapes.kv_heads
        own = f"⌊h / {size}⌋" if tile else f"h mod {shapes.kv_heads}"
        says = f"with {name}: query head h should read kv head {own}"
        yield Suspicion(name, says, partial(b.chosen, kv_map="tile" if tile else "interleave"), 0)


def _first(b: Bench) -> Plan | None:
    """The first kv head in the place of each."""
    base, shapes = b.direct, b.plan.shapes
    if base is None:
        return None
    counts = {"k": shapes.kv_heads} | ({"v": shapes.v_heads} if shapes.c is not None else {})
    arrays = {x: np.asarray(getattr(base.problem, x)) for x in counts}
    return b.rewritten(**{x: np.tile(y[..., : y.shape[-1] // counts[x]], counts[x]) for x, y in arrays.items()})
