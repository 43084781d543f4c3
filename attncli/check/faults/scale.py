"""Scores that are not scaled, or scaled by another number: the wrong dimension, its square, the root multiplied."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.trials import Trials


@fault
def wrong_scale(trials: Trials) -> Iterator[Hypothesis]:
    """Not scaled, or by another number."""
    own = next((link for link in trials.plan.chain if link.is_scale), None)
    d, heads = trials.plan.shapes.d, trials.plan.shapes.heads
    now = own.value if own and own.value else 1.0
    if own:
        root = own.value_formula and f"1/√d_k (d_k = {d})"
        way = f"divide the scores by {1 / now:.6g}" if now < 1 else f"multiply the scores by {now:.6g}"
        says = f"without {root or f'the scale {now:.6g}'}: {way} before the softmax"
        yield Hypothesis("no scale", says, partial(trials.with_choices, scale="none"), 0)
    embeddings = trials.plan.problem.embeddings
    width = embeddings.shape[-1] if embeddings is not None else d * heads
    others = (
        ("scale 1/d_k", f"1/d_k = 1/{d}", 1 / d, 1),
        ("scale 1/√d_model", f"1/√d_model = 1/√{width}", 1 / math.sqrt(width), 1),
        ("scale 1/√(heads · d_k)", f"1/√(heads · d_k) = 1/√{d * heads}", 1 / math.sqrt(d * heads), 1),
        ("scale 1/√d_k", f"1/√d_k = 1/√{d}", 1 / math.sqrt(d), 1),
        ("scale √d_k", f"√d_k = √{d}, multiplied instead of divided", math.sqrt(d), 1),
        ("scale d_k", f"d_k = {d}, multiplied instead of divided", float(d), 2),
        (
            "scale 1/√n",
            f"1/√n = 1/√{trials.plan.size.keys}, n the number of keys",
            1 / math.sqrt(trials.plan.size.keys),
            2,
        ),
        ("scale 1/d_model", f"1/d_model = 1/{width}", 1 / width, 2),
        ("scale applied twice", f"{now:.6g} twice", now**2, 2),
    )
    for name, what, value, rank in others:
        if not math.isclose(value, now):
            says = f"scaled by {what} instead of {own.value_formula if own and own.value_formula else f'{now:.6g}'}"
            yield Hypothesis(name, says, partial(trials.with_choices, scale=value), rank, combinable=rank < 2)
