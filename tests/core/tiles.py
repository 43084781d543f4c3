"""A run in tiles, and the comparison of two results step by step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from attncli.core.attention import run_plan
from attncli.plan import finish_plan, outline_plan
from attncli.plan.schedule import why_whole_rows


def assert_same_steps(dense, other, largest=1.0, rtol=1e-12, atol=1e-14):
    """Every step of one result is that of the other, warnings too."""
    assert other.warnings == dense.warnings
    for a, b in zip(dense, other, strict=True):
        assert (a.name, a.axes, a.values.dtype) == (b.name, b.axes, b.values.dtype)
        if a.name == "top_keys":
            differ = a.values != b.values
            assert not (differ & ~near_ties(dense["top_weights"].values)).any()
            continue
        np.testing.assert_allclose(b.values, a.values, rtol=rtol, atol=atol * largest * 10, err_msg=a.name)


def near_ties(weights, tolerance=1e-9):
    """Which ranks have the weight of a neighbour, to rounding, so that either key may come first; (…, rank) both."""
    is_tied = np.zeros(weights.shape, bool)
    gaps = np.abs(np.diff(weights, axis=-1)) <= tolerance * np.abs(weights).max(initial=1)
    is_tied[..., :-1] |= gaps
    is_tied[..., 1:] |= gaps
    is_tied[..., -1] = True  # what comes after it is not there
    return is_tied


def in_tiles(problem, variant, keep=None, top=4, *, rows=1, keys=5, at=None):
    """A run in tiles of so many rows of every head, and blocks of so many keys where they can be merged."""
    made = finish_plan(outline_plan(problem, variant.replace(schedule="tiled"), keep, top=top), at)
    keys_per_block = 0 if why_whole_rows(made) else keys
    return run_plan(replace(made, tile_size=rows * (keys_per_block or made.size.keys), keys_per_block=keys_per_block))
