"""Dropout left on, seen in the weights that are claimed; or not applied, or not rescaled, where it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from attncli.check.claims import block, full_shape
from attncli.check.faults.base import Figures, Suspicion, fault
from attncli.check.plan_edits import mixed, normalised
from attncli.check.trials import Bench
from attncli.plan import Plan
from attncli.types import NumpyArray
from attncli.variant import Variant


@fault
def left_on(b: Bench) -> Iterator[Suspicion]:
    """Zeros among the weights that are claimed, where the reference has none."""
    claim = next((c for c in b.claims if c.step == "weights" and c.whole), None)
    if claim is None:
        return
    mine = block(claim, full_shape(b.plan, "weights"))
    right = b.figures(b.plan)["weights"]
    gone = (mine == 0) & (right != 0)
    kept = (mine != 0) & (right != 0)
    if not (gone.any() and kept.any()):
        return
    ratio = float(np.median(mine[kept] / right[kept]))
    p = 1 - 1 / ratio if ratio > 0 else 0.0
    p = round(p, 2) if abs(p - round(p, 2)) < 2e-3 else p
    cost = 0.35 * float((right != 0).sum()) / 2
    zeros = f"{int(gone.sum())} weights are 0 and the others"
    if 0.005 < p < 0.995:
        says = f"with dropout left on: {zeros} divided by 1 − p, p = {p:.2g}; switch it off, as eval() does"
        yield Suspicion("dropout left on", says, partial(_dropped, b, ~gone, 1 / (1 - p)), 0, cost=cost)
    says = f"with dropout left on, and not rescaled: {zeros} as they were"
    yield Suspicion("dropout left on", says, partial(_dropped, b, ~gone, 1.0), 0, cost=cost)


def _dropped(b: Bench, kept: NumpyArray, factor: float) -> Plan:
    import torch

    mask = torch.as_tensor(kept)
    if b.plan.size.batch is None:
        mask = mask[None]
    if not b.plan.shapes.headed:
        mask = mask[:, None]  # (b, h, n, m)
    return normalised(b.plan, lambda own, s, seen: own(s, seen) * mask.to(s.dtype) * factor)


@fault
def left_off(b: Bench) -> Iterator[Suspicion]:
    """Dropout that the variant has, and the figures have not or only half."""
    own = b.plan.variant.dropout
    if own.is_none:
        return
    yield Suspicion("dropout not applied", "without dropout", partial(b.chosen, dropout=Variant().dropout), 0)
    rest = 1 - own.get("p")
    says = f"with dropout not divided by 1 − p = {rest:.4g}"
    yield Suspicion("dropout not rescaled", says, partial(_unscaled, b, rest), 0)


def _unscaled(b: Bench, rest: float) -> Figures | None:
    made = mixed(b.plan, lambda w: w * rest)
    if made is None:
        return None
    out = b.figures(made)
    if "dropout_weights" in out:
        out["dropout_weights"] = out["dropout_weights"] * rest
    return out
