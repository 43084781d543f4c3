"""Scores that are not scaled, or scaled by another number: the wrong dimension, its square, the root multiplied."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.trials import Trials


@fault
def wrong_scale(trials: Trials) -> Iterator[Hypothesis]:
    """The scores are not scaled, or scaled by another number."""
    link = next((link for link in trials.plan.chain if link.is_scale), None)
    d, heads, keys = trials.plan.shapes.d, trials.plan.shapes.heads, trials.plan.size.keys
    scale = link.value if link and link.value else 1.0
    scale_text = link.value_formula if link and link.value_formula else f"{scale:.6g}"
    if link:
        missing = f"1/√d_k (d_k = {d})" if link.value_formula else f"the scale {scale:.6g}"
        hint = f"divide the scores by {1 / scale:.6g}" if scale < 1 else f"multiply the scores by {scale:.6g}"
        description = f"without {missing}: {hint} before the softmax"
        yield Hypothesis("no scale", description, partial(trials.with_choices, scale="none"), 0)
    embeddings = trials.plan.problem.embeddings
    width = embeddings.shape[-1] if embeddings is not None else d * heads
    others = (
        ("scale 1/d_k", f"1/d_k = 1/{d}", 1 / d, 1),
        ("scale 1/√d_model", f"1/√d_model = 1/√{width}", 1 / math.sqrt(width), 1),
        ("scale 1/√(heads · d_k)", f"1/√(heads · d_k) = 1/√{d * heads}", 1 / math.sqrt(d * heads), 1),
        ("scale 1/√d_k", f"1/√d_k = 1/√{d}", 1 / math.sqrt(d), 1),
        ("scale √d_k", f"√d_k = √{d}", math.sqrt(d), 1),
        ("scale d_k", f"d_k = {d}", float(d), 2),
        ("scale 1/√n", f"1/√n = 1/√{keys} (n keys)", 1 / math.sqrt(keys), 2),
        ("scale 1/d_model", f"1/d_model = 1/{width}", 1 / width, 2),
        ("scale applied twice", f"{scale:.6g} twice", scale**2, 2),
    )
    for name, wrong_scale_text, value, implausibility in others:
        if not math.isclose(value, scale):
            hint = ": the scores are divided by √d_k, not multiplied" if name in ("scale √d_k", "scale d_k") else ""
            yield Hypothesis(
                name,
                f"scaled by {wrong_scale_text} instead of {scale_text}{hint}",
                partial(trials.with_choices, scale=value),
                implausibility,
                combinable=implausibility < 2,
            )
