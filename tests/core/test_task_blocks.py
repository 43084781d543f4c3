"""How many rows are sent in a task, and which keys a tile of them has."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import attncli
from attncli.core import remote
from attncli.core.remote import make_tile_blocks
from attncli.core.tiles import select_keys
from attncli.plan import make_plan
from attncli.variant import Variant
from tests.helpers import assert_identical, draw_normal

N, M, D = 12, 7, 4


def plan_of_few_rows(keep, c=5, **choices):
    problem = attncli.Problem(q=draw_normal(1, N, D), k=draw_normal(2, M, D), v=draw_normal(3, M, c))
    return make_plan(problem, Variant(**choices), keep)


def rows_of_blocks(plan):
    """The rows of each tile, block by block."""
    return [[(tile.rows.start, tile.rows.stop) for tile in block.tiles] for block in make_tile_blocks(plan, 1)]


@pytest.mark.parametrize(
    ("keep", "bytes_per_row"),
    [
        (["context"], 8 * (D + 5)),  # a query is sent, and its context is returned
        (["context", "weights"], 8 * (D + 5 + M)),
        (["scores", "context", "weights"], 8 * (D + 5 + M + M)),
    ],
)
def test_a_task_has_as_many_rows_as_its_bytes_allow(monkeypatch, keep, bytes_per_row):
    plan = replace(plan_of_few_rows(keep, schedule="tiled"), tile_size=M)  # a row in each tile

    monkeypatch.setattr(remote, "_MAX_BYTES_PER_TASK", 5 * bytes_per_row)
    assert [len(rows) for rows in rows_of_blocks(plan)] == [5, 5, 2]
    monkeypatch.setattr(remote, "_MAX_BYTES_PER_TASK", 5 * bytes_per_row - 1)
    assert [len(rows) for rows in rows_of_blocks(plan)] == [4, 4, 4]


def test_the_kernel_is_handed_no_larger_mask_than_it_may(monkeypatch):
    plan = plan_of_few_rows(["context"], c=D, schedule="fused", mask="causal", align="top-left")

    bytes_per_row = M * (1 + 8)  # a boolean and a number for each key
    monkeypatch.setattr(remote, "MAX_SDPA_MASK_BYTES", 5 * bytes_per_row)
    assert rows_of_blocks(plan) == [[(0, 5), (5, 10), (10, 12)]]
    monkeypatch.setattr(remote, "MAX_SDPA_MASK_BYTES", 5 * bytes_per_row - 1)
    assert rows_of_blocks(plan) == [[(0, 4), (4, 8), (8, 12)]]


def test_keys_of_several_ranges_stand_side_by_side():
    x = torch.as_tensor(draw_normal(4, 2, 3, M))

    assert_identical(select_keys(x, (slice(0, 1), slice(3, 5)), -1), x[..., [0, 3, 4]])
    assert_identical(select_keys(x, (slice(0, 1), slice(2, 3)), 1), x[:, [0, 2]])
    assert_identical(select_keys(x, (slice(2, 5),), -1), x[..., 2:5])
