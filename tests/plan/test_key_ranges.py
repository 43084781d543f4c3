"""Which keys a mask can reach: what is out of reach is not computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import attncli
from attncli.core.attention import run_plan
from attncli.core.tiles import iter_tiles
from attncli.plan import make_plan
from attncli.variant import Variant
from tests.helpers import draw_normal
from tests.laws.problems import problem_for

pytestmark = pytest.mark.usefixtures("small_stretches")


@pytest.mark.parametrize("text", ["window:left=2,right=1", "causal", "chunk:size=3", "natten:kernel=3", "document"])
def test_what_is_out_of_reach_is_not_computed(text):
    """Not sorted either: a NaN score out of a tile's reach would otherwise be noticed."""
    problem = problem_for(text)
    made = replace(make_plan(problem, Variant(mask=text, schedule="tiled"), ["context"]), tile_size=7)

    cells = sum((t.rows.stop - t.rows.start) * t.key_count for t in iter_tiles(made))

    assert cells < 7 * 7 * 3 / 4
    assert [t.rows.start for t in iter_tiles(made)] == [0, *(t.rows.stop for t in iter_tiles(made))][:-1]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("causal", [([0, 0, 0, 0], [1, 2, 3, 4])]),
        ("window:left=1", [([0, 0, 1, 2], [4, 4, 4, 4])]),
        ("causal and window:left=1", [([0, 0, 1, 2], [1, 2, 3, 4])]),
        ("chunk:size=2 or prefix:length=1", [([0, 0, 2, 2], [2, 2, 4, 4]), ([0, 0, 0, 0], [1, 1, 1, 1])]),
        ("causal and prefix:length=2", [([0, 0, 0, 0], [1, 2, 2, 2])]),
        ("causal and (window:left=1 or prefix:length=1)", [([0, 0, 1, 2], [1, 2, 3, 4]), ([0, 0, 0, 0], [1, 1, 1, 1])]),
        ("global:tokens=1+3+2+9", [([1, 0, 0, 0], [4, 4, 4, 4])]),
        ("global:tokens=0+2", [([0, 0, 0, 0], [4, 1, 4, 1]), ([0, 2, 0, 2], [4, 3, 4, 3])]),
        ("causal and global:tokens=2", [([2, 2, 0, 2], [1, 2, 3, 3])]),
    ],
)
def test_bounds_pass_through_and_and_or(text, spans):
    made = make_plan(attncli.Problem(embeddings=draw_normal(1, 4, 2)), Variant(mask=text), ["context"])

    assert [tuple(x[0].tolist() for x in span) for span in made.find_key_ranges()] == spans


def test_each_item_reaches_the_keys_at_its_own_positions():
    q_pos, k_pos = [2, 0, 1], [[0, 1, 2, 3], [1, 2, 3, 4], [0, 2, 4, 6]]
    problem = attncli.Problem(
        q=draw_normal(1, 3, 3, 2),
        k=draw_normal(2, 3, 4, 2),
        v=draw_normal(3, 3, 4, 2),
        positions=q_pos,
        k_positions=k_pos,
    )
    made = make_plan(problem, Variant(mask="causal", heads=1), ["context"])

    [(first, last)] = made.find_key_ranges()

    assert np.broadcast_to(first, (3, 3)).tolist() == [[0, 0, 0]] * 3
    assert last.tolist() == [[sum(k <= q for k in keys) for q in q_pos] for keys in k_pos]


def test_spans_of_several_masks_are_brought_to_one_around_those_that_hold_a_key():
    """Four tokens that all see, and the first two keys for those beside them: no key for most queries."""
    text = "global:tokens=3+5+7+9 or (window:left=1,right=0 and prefix:length=2)"
    made = make_plan(attncli.Problem(embeddings=draw_normal(1, 11, 2)), Variant(mask=text), ["context"])

    [(first, last)] = made.find_key_ranges()

    assert first[0].tolist() == [0, 0, 1, 0, 3, 0, 3, 0, 3, 0, 3]
    assert last[0].tolist() == [10, 10, 10, 11, 10, 11, 10, 11, 10, 11, 10]


def test_many_spans_are_brought_to_one():
    problem = attncli.Problem(embeddings=draw_normal(1, 11, 2))
    made = make_plan(problem, Variant(mask="global:tokens=0+2+4+6+8"), ["context"])

    [(first, last)] = made.find_key_ranges()

    assert (first[0].tolist(), last[0].tolist()) == ([0] * 11, [11, 9] * 4 + [11, 9, 9])


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("causal and (window:left=20 or prefix:length=4)", 2.5 * 2000 * 25),
        ("window:left=20,right=20 or global:tokens=0+1+2", 3 * 2000 * 44 + 3 * 2000),
        ("window:left=20,right=20 or global:tokens=0+1000", 3 * 2000 * 43 + 2 * 2000),
    ],
)
def test_a_union_costs_what_its_parts_cost(text, most):
    """StreamingLLM and Longformer grow with the number of tokens, and not with its square."""
    problem = attncli.Problem(embeddings=draw_normal(1, 2000, 4))
    made = make_plan(problem, Variant(mask=text, schedule="tiled"), ["context", "top_keys", "top_weights"], top=30)

    cells = sum((t.rows.stop - t.rows.start) * t.key_count for t in iter_tiles(made))

    assert cells < max(most, 2000 * 256)
    assert max(len(t.keys) for t in iter_tiles(made)) > 1
    dense = attncli.attend(
        problem, Variant(mask=text, schedule="dense"), ["context", "top_keys", "top_weights"], top=30
    )
    found = run_plan(made)
    np.testing.assert_array_equal(found["top_keys"].values, dense["top_keys"].values)
    np.testing.assert_allclose(found["context"].values, dense["context"].values, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("text", ["not causal", "causal or dilated:rate=2", "bigbird:block=2", "given", "full"])
def test_what_says_nothing_reaches_every_key(text):
    problem = attncli.Problem(embeddings=draw_normal(1, 4, 2), mask=np.eye(4, dtype=bool) if text == "given" else None)

    assert make_plan(problem, Variant(mask=text), ["context"]).find_key_ranges() is None


def test_unsorted_positions_are_bounded_by_their_outermost():
    problem = attncli.Problem(embeddings=draw_normal(1, 5, 2), positions=[3, 0, 2, 1, 9])

    [(first, last)] = make_plan(problem, Variant(mask="window:left=1,right=0"), ["context"]).find_key_ranges()

    assert first[0].tolist() == [0, 0, 0, 0, 4]  # the first key at or above 2, −1, 1, 0, 8
    assert last[0].tolist() == [4, 2, 4, 4, 5]  # one past the last key at or below 3, 0, 2, 1, 9
