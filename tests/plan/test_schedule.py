"""Which schedule is chosen, what is kept in a long run, and what cannot fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import attncli
from attncli.errors import CannotError, InputError
from attncli.plan import finish_plan, make_plan, memory, outline_plan, schedule
from attncli.variant import Variant
from tests.core.tiles import assert_same_steps, in_tiles
from tests.helpers import draw_normal

pytestmark = pytest.mark.usefixtures("small_stretches")
LONG = 13  # queries and keys; prime, so that no tile but of one row divides them


@pytest.mark.parametrize(
    ("choices", "keep", "ran"),
    [
        ({}, ["context"], "fused"),
        ({"mask": "causal"}, ["output", "context"], "fused"),
        ({"mask": "window:left=2"}, ["context"], "tiled"),
        ({"mask": "not causal"}, ["context"], "fused"),
        ({"softcap": 5}, ["context"], "tiled"),
        ({}, ["context", "log_sum_exp"], "fused"),
        ({}, ["context", "entropy"], "tiled"),
    ],
)
def test_the_schedule_is_found_and_said(choices, keep, ran, monkeypatch):
    problem = attncli.Problem(embeddings=draw_normal(1, LONG, 4), parameters={"w_o": np.eye(4)})
    dense = attncli.attend(problem, Variant(**choices), keep)
    monkeypatch.setattr(schedule, "MAX_DENSE_SCORES", 0)

    result = attncli.attend(problem, Variant(**choices), keep)

    assert (dense.variant["schedule"], result.variant["schedule"]) == ("dense", ran)
    assert_same_steps(dense, result, 5)


@pytest.mark.parametrize("dropout", ["none", "dropout:p=0.5,seed=5"])
@pytest.mark.parametrize("rows", [(4,), (11, 2, 3, 12), tuple(range(LONG))])
def test_chosen_rows_alone_are_computed_and_are_the_whole_runs(rows, dropout, monkeypatch):
    variant = Variant(heads=2, mask="causal and not prefix:length=3", position="alibi", dropout=dropout)
    problem = attncli.Problem(embeddings=draw_normal(1, LONG, 4))
    whole = attncli.attend(problem, variant, top=3)
    monkeypatch.setattr(schedule, "MAX_DENSE_SCORES", 0)

    result = in_tiles(problem, variant, None, 3, rows=2, at={"query": rows})

    assert result["context"].values.shape == (len(rows), 4)
    for step in whole:
        cut = step.values[tuple(list(rows) if axis == "query" else slice(None) for axis in step.axes)]
        np.testing.assert_allclose(result[step.name].values, cut, rtol=1e-12, atol=1e-14, err_msg=step.name)
    blind = [r for r in rows if r < 3]
    assert [w.partition(" see")[0] for w in result.warnings] == (
        []
        if not blind
        else [f"empty-rows: query {blind[0]}"]
        if len(blind) == 1
        else ["empty-rows: queries 0, 1 and 2"]
    )


def test_a_first_look_at_a_long_run_leaves_matrices_out_and_says_so(monkeypatch):
    monkeypatch.setattr(schedule, "MAX_FIRST_LOOK_SCORES", 10)
    problem = attncli.Problem(embeddings=draw_normal(1, 4, 2))

    result = attncli.attend(problem, keep="shown")

    assert [step.name for step in result] == ["context"]
    assert result.warnings[0].startswith("left-out: scores, scaled_scores and weights of 4 × 4")
    assert "weights" in attncli.attend(problem, keep=["shown", "weights"])
    with pytest.raises(InputError, match="there is no v"):
        make_plan(attncli.Problem(q=draw_normal(1, 4, 2), k=draw_normal(2, 4, 2)), keep="shown")


@pytest.mark.parametrize(("tokens", "has_matrices"), [(4096, True), (4097, False)])
def test_a_first_look_shows_matrices_of_16_million_scores_and_no_more(tokens, has_matrices):
    problem = attncli.Problem(embeddings=np.zeros((tokens, 1), np.float32))

    assert ("weights" in make_plan(problem, Variant(), keep="shown").keep) is has_matrices


@pytest.mark.parametrize(
    ("fields", "choices", "rows", "expected"),
    [
        ({}, {}, None, True),
        ({"positions": [0, 1, 2]}, {}, None, True),
        ({"positions": [0, 2, 1]}, {}, None, False),
        ({}, {"mask": "window:left=1"}, None, False),
        ({"keys": 5}, {"align": "top-left"}, None, False),
        ({}, {}, [0, 2], False),  # of some queries alone
    ],
)
def test_a_kernel_is_told_that_a_square_of_all_queries_and_keys_is_causal(fields, choices, rows, expected):
    fields = dict(fields)
    x, y = draw_normal(1, 3, 2), draw_normal(2, fields.pop("keys", 3), 2)
    made = make_plan(attncli.Problem(q=x, k=y, v=y, **fields), Variant(**{"mask": "causal"} | choices), ["context"])

    assert schedule.is_causal(replace(made, computed_queries=None if rows is None else np.array(rows))) is expected


def test_drawn_projections_that_cannot_fit_are_said_to_be_what_is_large(monkeypatch):
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 2**20)

    with pytest.raises(CannotError, match=r"the drawn projections need about 0\.4 GiB") as e:
        make_plan(attncli.Problem(embeddings=np.zeros((2, 12))), Variant(projection="randn:dim=6000"), ["context"])
    assert e.value.help == "use fewer tokens or a narrower projection"  # tiles would need as much


def test_what_cannot_fit_is_refused_with_sizes_and_the_way_out(monkeypatch):
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 2**20)
    x = np.zeros((3000, 2), np.float32)

    with pytest.raises(
        CannotError, match=r"3,000 × 3,000 scores in 1 head need about 0\.1 GiB, but only 0\.0 GiB are free"
    ) as e:
        make_plan(attncli.Problem(embeddings=x), Variant(schedule="dense"), ["context"])
    assert "tiled" in e.value.help
    with pytest.raises(CannotError, match="weights kept") as e:
        make_plan(attncli.Problem(embeddings=x), Variant(), ["weights"])
    assert "--top 8" in e.value.help
    assert (
        finish_plan(outline_plan(attncli.Problem(embeddings=x), Variant(schedule="fused"), ["context"])).schedule
        == "fused"
    )
