"""Equal bands of rows are found, and computed together as each by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import attncli
from attncli.core import bands
from attncli.core.attention import run_plan
from attncli.core.bands import find_bands
from attncli.core.tiles import Tile, iter_tiles
from attncli.plan import make_plan
from attncli.variant import Variant
from tests.core.tiles import assert_same_steps
from tests.laws.problems import ONE_CHOICE, problem_for

STEPS = ["max_score", "visible_keys", "context"]
MASKS = [
    "window:left=2,right=0",
    "window:left=1,right=1 or global:tokens=6",
    "chunk:size=3",
    "causal and (window:left=1 or prefix:length=1) and not prefix:length=1",
]


@pytest.fixture(autouse=True)
def small_bands(monkeypatch, small_stretches):
    """Bands of two or three rows, wherever they are."""
    monkeypatch.setattr(bands, "_ROWS_PER_BAND", (2, 3))
    monkeypatch.setattr(bands, "_MAX_REACHED_SHARE", 0)
    monkeypatch.setattr(bands, "_MAX_WASTE", 6)
    monkeypatch.setattr(bands, "_SCORES_PER_BAND", 0)
    monkeypatch.setattr(bands, "_SCORES_PER_TILE", 0)


def in_bands(problem, variant, keep, tile_size=40, keys_per_block=3):
    made = make_plan(problem, variant.replace(schedule="tiled"), keep)
    keys_per_block = keys_per_block if made.keys_per_block else 0
    made = replace(made, tile_size=tile_size, keys_per_block=keys_per_block)
    return run_plan(made), list(iter_tiles(made))


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
def test_every_part_is_the_same_in_bands(choices):
    for text in MASKS if "mask" not in choices else [choices["mask"]]:
        variant = Variant(**{"heads": 3} | choices | {"mask": text})
        problem = problem_for(str(text), variant=variant)

        made, tiles = in_bands(problem, variant, STEPS)

        assert_same_steps(attncli.attend(problem, variant, STEPS), made, 4)
        if text == MASKS[0] and variant.dropout.is_none:
            assert max(tile.bands for tile in tiles) > 1


def test_arrays_of_every_query_and_key_are_cut_along_the_bands():
    x = torch.arange(12 * 20).reshape(1, 1, 12, 20)
    tile = Tile(slice(0, 1), slice(0, 1), slice(2, 8), (slice(0, 1), slice(5, 9)), 3, (0, 2))

    cut = tile.select(x)

    assert cut.shape == (3, 1, 2, 5)
    for band in range(3):
        keys = [0, *range(5 + 2 * band, 9 + 2 * band)]
        assert cut[band, 0].tolist() == x[0, 0, 2 + 2 * band : 4 + 2 * band][:, keys].tolist()
    assert tile.join_bands(cut[..., 1:]).tolist() == torch.cat([cut[:, 0, :, 1:].flatten(0, 1)])[None, None].tolist()
    keys_of_bands = tile.select(x[:, :, :1])[:, 0, 0].tolist()
    assert keys_of_bands == [[0, *range(5 + 2 * band, 9 + 2 * band)] for band in range(3)]
    v = torch.arange(20.0)[None, None, :, None]
    assert tile.select_kv(v)[:, 0, :, 0].tolist() == keys_of_bands


def test_rows_of_global_tokens_are_no_bands(monkeypatch):
    monkeypatch.setattr(bands, "_MAX_WASTE", 1.8)
    n = 64
    first, last = np.arange(n).clip(min=2) - 2, np.arange(n) + 1
    first[[20]], last[[20]] = 0, n

    groups = find_bands(n, n, [(first, last)])

    assert [row for group in groups for row in range(group.rows.start, group.rows.stop)] == list(range(n))
    assert [group.rows.start for group in groups if group.is_wasteful] != []
    assert max(group.band_count for group in groups) > 8
    for group in groups:
        size = (group.rows.stop - group.rows.start) // group.band_count
        for band in range(group.band_count):
            rows = slice(group.rows.start + band * size, group.rows.start + (band + 1) * size)
            start = group.keys[0].start + band * group.shifts[0]
            assert start <= first[rows].min()
            assert group.keys[0].stop + band * group.shifts[0] >= last[rows].max()


def test_where_rows_reach_most_keys_there_are_no_bands(monkeypatch):
    monkeypatch.setattr(bands, "_MAX_REACHED_SHARE", 8)
    n = 100

    assert find_bands(n, n, [(np.zeros(n, int), np.arange(n) + 1)]) is None
    assert find_bands(n, n, [(np.arange(n), np.arange(n) + 1)]) is not None
