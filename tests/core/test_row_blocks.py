"""Which rows are computed together, and with which keys."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.core import bands, tiles
from attncli.core.bands import reachable_keys
from attncli.core.tiles import _split_rows
from attncli.variant import Variant
from tests.core.tiles import assert_same_steps, in_tiles
from tests.helpers import draw_normal


def blocks(n, m, max_scores, ranges=None, *, equal_blocks=False):
    """[(first row, one past the last, [(first key, one past the last)])]"""
    split = _split_rows(n, m, max_scores, ranges, equal_blocks=equal_blocks)
    return [(rows.start, rows.stop, [(s.start, s.stop) for s in keys]) for rows, keys in split]


def causal(n):
    return [(np.zeros(n, int), np.arange(n) + 1)]


def test_without_ranges_blocks_are_as_large_as_they_may_be():
    assert blocks(7, 5, 10) == [(0, 2, [(0, 5)]), (2, 4, [(0, 5)]), (4, 6, [(0, 5)]), (6, 7, [(0, 5)])]
    assert blocks(1000, 2, 2000) == [(0, 1000, [(0, 2)])]
    assert blocks(2, 5, 3) == [(0, 1, [(0, 5)]), (1, 2, [(0, 5)])]  # a row at least


def test_equal_blocks_have_as_many_rows_wherever_they_are(monkeypatch):
    monkeypatch.setattr(tiles, "_MIN_TILE_SCORES", 1)

    assert [(start, stop) for start, stop, _ in blocks(24, 24, 48, causal(24), equal_blocks=True)] == [
        (i, i + 2) for i in range(0, 24, 2)
    ]
    rows = [(start, stop) for start, stop, _ in blocks(24, 24, 48, causal(24))]
    assert rows[0] == (0, 2)
    assert max(stop - start for start, stop in rows) > 2  # early rows reach few keys


def test_rows_that_reach_far_apart_are_not_computed_together_if_that_pays(monkeypatch):
    diagonal = [(np.arange(64), np.arange(64) + 1)]

    assert blocks(64, 64, 1 << 20, diagonal) == [(0, 64, [(0, 64)])]  # too few scores to divide
    monkeypatch.setattr(tiles, "_MIN_TILE_SCORES", 1)
    divided = blocks(64, 64, 1 << 20, diagonal)
    assert all((stop - start) * (stop - start) <= 2 * (stop - start) for start, stop, _ in divided)
    assert [start for start, _, _ in divided[1:]] == [stop for _, stop, _ in divided[:-1]]


@pytest.mark.parametrize(
    ("hulls", "reached"),
    [
        ([(0, 2), (10, 12), (13, 15)], [(0, 2), (10, 15)]),
        ([(0, 2), (10, 16), (18, 20)], [(0, 2), (10, 20)]),
        ([(0, 2), (6, 8)], [(0, 2), (6, 8)]),
        ([(0, 2), (5, 8)], [(0, 8)]),
        ([(0, 9), (5, 8)], [(0, 9)]),  # one within the other
        ([(6, 8), (0, 2)], [(0, 2), (6, 8)]),
        ([(3, 3)], [(0, 1)]),  # none is reached: a row has a key, all the same
    ],
)
def test_keys_between_are_left_out_where_there_are_enough(hulls, reached, monkeypatch):
    monkeypatch.setattr(bands, "_MIN_SKIPPED_KEYS", 4)

    keys, scores = reachable_keys([(np.array([a]), np.array([b])) for a, b in hulls], slice(0, 1))

    assert [(s.start, s.stop) for s in keys] == reached
    assert scores == sum(b - a for a, b in hulls)


@pytest.mark.parametrize(
    ("choices", "parameters"), [({"sink": "given"}, {"sinks": np.array([0.5, -1.0, 2.0])}), ({"position": "alibi"}, {})]
)
def test_a_head_that_is_computed_alone_has_its_own_parameters(choices, parameters):
    problem = attncli.Problem(embeddings=draw_normal(1, 5, 12), parameters=parameters)
    variant = Variant(heads=3, **choices)

    assert_same_steps(attncli.attend(problem, variant, top=4), in_tiles(problem, variant))
