"""Ties: figures that are as right as the reference's, such as keys of equal weight in `top_keys`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from attncli.check.claims import Claim
from attncli.types import NumpyArray

_RANKED_STEPS = ("mixed_weights", "dropout_weights", "weights")  # the first of these that a variant has is ranked


@dataclass(frozen=True)
class Ties:
    """How the figures of a step can tie."""

    needed_step: Callable[[Collection[str]], str]  # the steps of a plan → the one that shows ties
    are_tied: Callable[[Claim, Mapping[str, NumpyArray]], NumpyArray]  # claim, reference by step → a boolean a figure


def _ranked_step(steps: Collection[str]) -> str:
    """Return the step whose largest values `top_keys` names."""
    return next(step for step in _RANKED_STEPS if step in steps)


def _are_equally_weighted(claim: Claim, reference: Mapping[str, NumpyArray]) -> NumpyArray:
    """Tell which claimed keys have exactly the weight of the reference's key in their place."""
    weights, top_keys = reference[_ranked_step(reference)], reference["top_keys"]
    rows = np.broadcast_arrays(*claim.index)[:-1]
    exists = (claim.values >= 0) & (claim.values < weights.shape[-1]) & (claim.values == np.trunc(claim.values))
    claimed_weights = weights[(*rows, np.where(exists, claim.values, 0).astype(np.int64))]
    is_tied: NumpyArray = exists & (claimed_weights == weights[(*rows, top_keys[claim.index])])
    if claim.is_whole_step and claim.values.ndim and claim.values.shape == top_keys.shape:
        ordered = np.sort(claim.values, -1)
        is_tied &= ~(ordered[..., 1:] == ordered[..., :-1]).any(-1, keepdims=True)  # no key stands twice
    return is_tied


TIES_BY_STEP: Mapping[str, Ties] = {"top_keys": Ties(_ranked_step, _are_equally_weighted)}
