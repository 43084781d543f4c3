"""In tiles, every part gives what it gives in one piece."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attncli
from attncli.parts.links import link
from attncli.parts.normalizers import normalizer
from attncli.parts.sinks import sink
from attncli.variant import Variant
from tests.core.tiles import assert_same_steps, in_tiles
from tests.helpers import draw_normal
from tests.laws.problems import ONE_CHOICE, mask_expressions, parameters_for, parts, problem_for

pytestmark = [pytest.mark.usefixtures("small_stretches"), pytest.mark.slow, pytest.mark.uncounted]
LONG = 13  # queries and keys; prime, so that no tile but of one row divides them


ROW_STEPS = ["max_score", "log_sum_exp", "entropy", "visible_keys", "top_keys", "top_weights", "context"]


def steps_by_row(variant):
    return [*ROW_STEPS, "sink_weights"] if variant["sink"].name != "none" else ROW_STEPS


MASKS = [
    "full",
    "causal and not prefix:length=1",
    "window:left=2,right=1 and not prefix:length=1",
    "causal and (window:left=1 or prefix:length=1) and not (prefix:length=4 and not prefix:length=2)",
]


# What has done its work before the first tile is computed sees no mask; and a mask of its own replaces the others.
BEFORE_TILES = [
    choices
    for choices in ONE_CHOICE
    if {"projection", "qk_norm", "mask"} & set(choices)
    or str(choices.get("position", "")).startswith(("none", "rope", "sinusoidal"))
]


def grid():
    """Each part under each mask, in tiles of one row and of three; those that would add little only if all are asked for.

    What comes before the tiles sees no mask, and the other parts meet two masks: the plainest and the most broken. Under one
    of them every step is kept in tiles of one row, and what holds rows in tiles of three; under the other the other way round.
    """
    for mask in MASKS:
        for choices in ONE_CHOICE:
            little = mask in MASKS[1:-1] or (mask != MASKS[-1] and choices in BEFORE_TILES)
            yield pytest.param((1, 3), mask, choices, marks=[pytest.mark.full] if little else [])
            yield pytest.param((2, 5), mask, choices, marks=pytest.mark.full)


@pytest.mark.parametrize(("rows", "mask", "choices"), list(grid()), ids=str)
def test_every_part_is_the_same_in_tiles(rows, mask, choices):
    variant = Variant(**{"heads": 3, "mask": mask} | choices)
    problem = problem_for(str(choices.get("mask")), variant=variant)
    counts = rows if mask == MASKS[0] else rows[::-1]
    for count, keep in zip(counts, (None, steps_by_row(variant)), strict=True):
        dense = attncli.attend(problem, variant, keep, top=4)
        assert_same_steps(dense, in_tiles(problem, variant, keep, rows=count), 4)


def dtypes():
    """Each part in float32; in float64, where the test above compares every step, every fourth one."""
    for i, choices in enumerate(ONE_CHOICE):
        yield pytest.param(choices, "float32", 1e-5, 1e-5)
        yield pytest.param(choices, "float64", 1e-12, 1e-14, marks=[pytest.mark.full] if i % 4 else [])


@pytest.mark.parametrize(("choices", "dtype", "rtol", "atol"), list(dtypes()), ids=str)
def test_the_context_is_the_same_to_the_last_digits(choices, dtype, rtol, atol):
    variant = Variant(**{"heads": 3, "mask": MASKS[2]} | choices | {"dtype": dtype})
    problem = problem_for(str(choices.get("mask")), variant=variant)
    dense = attncli.attend(problem, variant, ["v", "context"])
    largest = np.abs(dense["v"].values).max()

    tiled = in_tiles(problem, variant, ["context"], rows=3, top=None)

    np.testing.assert_allclose(tiled["context"].values, dense["context"].values, rtol=rtol, atol=atol * largest)


@given(
    heads=st.sampled_from([None, 1, 2]),
    text=mask_expressions(),
    softcap=st.sampled_from(["none", 0.5]),
    scale=st.sampled_from(["auto", -1.5]),
    chain=st.permutations(list(link.members)),
    log_n=st.sampled_from(["none", 4]),
    normalize=st.sampled_from(parts(normalizer)),
    sinks=st.sampled_from(parts(sink)),
    position=st.sampled_from(["none", "alibi", "rope", "sinusoidal"]),
    dropout=st.sampled_from(["none", "dropout:p=0.4,seed=3"]),
    empty_rows=st.sampled_from(["zero", "nan", "uniform"]),
    mixed=st.sampled_from(["none", "differential"]),
    batch=st.sampled_from([None, 2]),
    shuffled=st.booleans(),
    padded=st.booleans(),
    rows=st.sampled_from([1, 2, 3, 5, 100]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_random_products_are_the_same_in_tiles(
    heads, text, softcap, scale, chain, log_n, normalize, sinks, position, dropout, empty_rows, mixed, batch, shuffled,
    padded, rows, seed,
):  # fmt: skip
    lead = () if batch is None else (batch,)
    fields = {"embeddings": draw_normal(seed, *lead, LONG, 8)}
    if shuffled:
        fields["positions"] = np.random.default_rng(seed).permutation(LONG * 2)[:LONG] - 5
    if padded:
        fields["lengths"] = [4, 9][: batch or 1]
    if normalize != "softmax":
        sinks = "none"
    variant = Variant(
        heads=heads, mask=text, softcap=softcap, scale=scale, chain=chain, log_n=log_n, normalizer=normalize, sink=sinks,
        position=position, dropout=dropout, empty_rows=empty_rows, head_mixing=mixed if heads == 2 else "none",
    )  # fmt: skip
    problem = attncli.Problem(**fields, parameters=parameters_for(variant, 8))
    for keep in (None, steps_by_row(variant)):
        dense = attncli.attend(problem, variant, keep, top=4)
        size = max(np.abs(s.values[np.isfinite(s.values)]).max(initial=1) for s in dense if s.values.dtype.kind == "f")
        assert_same_steps(dense, in_tiles(problem, variant, keep, rows=rows), size)
