"""Rows whose keys come in parts have the weights of whole rows, whatever the parts and their order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attncli
from attncli.parts.normalizers import normalizer
from attncli.parts.traits import RowMerging
from attncli.plan import make_plan
from attncli.plan.schedule import why_whole_rows
from attncli.variant import Variant
from tests.core.tiles import assert_same_steps, in_tiles
from tests.helpers import draw_normal
from tests.laws.problems import parts

ROWS, KEYS = 4, 11
MERGED = [text for text in parts(normalizer) if normalizer.parse(text).traits.merging and "bias=auto" not in text]


def weights_of_parts(merging: RowMerging, part, s, visible, columns):
    """The weights of columns that are joined part by part, (n, m), and of each part its own."""
    joined, numerators = None, s.new_zeros(s.shape)
    for chosen in columns:
        u, totals = merging.weigh(part, s[..., chosen].clone(), visible[..., chosen])
        if joined is None:
            joined, factors = totals, (None, None)
        else:
            joined, *factors = merging.join(joined, totals)
        if factors[0] is not None:
            numerators = numerators * factors[0]
        numerators[..., chosen] = u if factors[1] is None else u * factors[1]
    return merging.finish(numerators, joined)


@pytest.mark.parametrize("text", MERGED)
@given(
    seed=st.integers(0, 999), count=st.integers(1, 5), spread=st.sampled_from([1.0, 30.0, 800.0]), hides=st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_merged_weights_are_those_of_whole_rows(text, seed, count, spread, hides):
    stream = np.random.default_rng(seed)
    s = torch.as_tensor(stream.normal(size=(1, 1, ROWS, KEYS)) * spread)
    visible = torch.as_tensor(stream.random((1, 1, ROWS, KEYS)) < (0.4 if hides else 2.0))
    visible[..., 0, :] &= not hides  # one row sees nothing
    columns = [torch.as_tensor(x) for x in np.array_split(stream.permutation(KEYS), count)]
    part = normalizer.parse(text)
    merging = part.traits.merging

    found = weights_of_parts(merging, part, s.where(visible, -torch.inf), visible, columns)

    # a share of a sum is no more certain than the sum
    torch.testing.assert_close(found, part(s, visible), rtol=1e-9 if part.traits.is_ratio_of_sum else 1e-12, atol=1e-15)


def test_every_normalizer_merges_or_says_why_not():
    said = {member.name: bool(member.traits.merging) != bool(member.traits.whole_row_reason) for member in normalizer}

    assert all(said.values()), said


def test_rows_of_a_part_that_forgets_a_factor_are_noticed():
    part = normalizer.parse("softmax")
    right = part.traits.merging
    wrong = right._replace(join=lambda a, b: (right.join(a, b)[0], None, None))
    s = torch.as_tensor(draw_normal(1, 1, 1, ROWS, KEYS))
    columns = torch.arange(KEYS).split(4)

    found = weights_of_parts(wrong, part, s, s > -torch.inf, columns)

    assert not torch.allclose(found, part(s, None))


@pytest.mark.parametrize(
    ("choices", "keep", "reason"),
    [
        ({}, ["context", "log_sum_exp", "entropy", "top_keys"], ""),
        ({"mask": "causal", "sink": "zero", "softcap": 5, "position": "alibi"}, ["context", "max_score"], ""),
        ({"normalizer": "sparsemax"}, ["context"], "sparsemax: the threshold τ depends on every score of the row"),
        ({"normalizer": "sigmoid:bias=auto"}, ["context"], "its weights depend on the number of keys"),
        ({"normalizer": "sigmoid"}, ["context"], ""),
        ({"normalizer": "sigmoid"}, ["entropy"], "entropy is merged of a softmax only"),
        ({}, ["weights"], "all of weights is kept"),
        ({"log_n": 4}, ["context"], "the link log-n reads whole rows"),
        ({"dropout": "0.2", "seed": 1}, ["context"], "dropout is drawn row by row"),
        ({"mask": "causal", "empty_rows": "uniform"}, ["context"], "a query that sees no key weighs every key"),
    ],
)  # fmt: skip
def test_a_plan_says_why_its_rows_are_whole(choices, keep, reason):
    plan = make_plan(
        attncli.Problem(embeddings=draw_normal(1, 9, 4)), Variant(schedule="tiled", **choices), keep, top=2
    )

    assert why_whole_rows(plan).endswith(reason)
    assert bool(why_whole_rows(plan)) == bool(reason)
    assert bool(plan.keys_per_block) == (not reason and "top_keys" not in keep)  # those of short rows are found at once


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float16", 2e-3), ("bfloat16", 1e-2), ("float32", 1e-5), ("float64", 1e-12)]
)
@pytest.mark.parametrize("keys", [1, 4, 100])
def test_scores_and_values_that_are_not_finite_arrive_as_in_whole_rows(dtype, tolerance, keys):
    q, k, v = (draw_normal(i, 7, 3) for i in range(3))
    q[0, 0], k[5, 1], v[2, 0], v[6, 1] = np.nan, np.inf, np.inf, np.nan
    variant = Variant(dtype=dtype, mask="causal and not prefix:length=1")
    steps = ["context", "log_sum_exp", "max_score", "entropy", "visible_keys", "top_keys", "top_weights"]
    problem = attncli.Problem(q=q, k=k, v=v)

    whole = attncli.attend(problem, variant, steps, top=3)

    made = in_tiles(problem, variant, steps, 3, rows=3, keys=keys)
    assert_same_steps(whole, made, 1, tolerance, tolerance / 10)


def test_of_keys_that_weigh_nothing_the_first_are_named():
    """One score is so large that all others weigh 0, in whichever block they are; and a query sees one key."""
    k = np.array([[0.0], [0.0], [0.0], [0.0], [3.0], [1.0], [2.0]])
    problem = attncli.Problem(q=np.array([[1000.0], [1000.0], [0.1]]), k=k, v=k)

    made = in_tiles(problem, Variant(scale="none"), ["top_keys", "top_weights"], 4, rows=3, keys=2)

    assert made["top_keys"].values.tolist() == [[4, 0, 1, 2], [4, 0, 1, 2], [4, 6, 5, 0]]
    assert made["top_weights"].values[0].tolist() == [1, 0, 0, 0]
