"""What the head of a page says of a plan, and what is refused with which numbers."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.errors import AttnError
from attncli.plan import make_plan, outline_plan
from attncli.plan.build import OUTLINE_CACHE
from attncli.plan.memory import available_memory_bytes, extra_numbers_per_score
from attncli.plan.summary import describe_rows
from attncli.variant import Variant
from tests.helpers import draw_normal

X = draw_normal(1, 5, 12)
MEMORY = {"embeddings": draw_normal(2, 7, 12)}
Q, K, V = (draw_normal(i, n, 4) for i, n in ((3, 5), (4, 7), (5, 7)))


def summary(choices=None, **fields):
    return make_plan(attncli.Problem(**fields), Variant(**(choices or {}))).summary


@pytest.mark.parametrize(
    ("fields", "choices", "says"),
    [
        (
            {"embeddings": X},
            {},
            "self-attention|5 tokens × 12 dims|q = k = v = x|score dot|scale 0.288675 = 1/√12|no mask|float64",
        ),
        (
            {"embeddings": X, "memory": MEMORY},
            {"heads": 3, "mask": "full"},
            "cross-attention|5 queries × 7 keys × 12 dims|3 heads|q = x, k = v = memory|score dot|scale 0.5 = 1/√4|no mask|float64",
        ),
        (
            {"q": Q, "k": K, "v": V},
            {"scale": "none", "softcap": 20},
            "attention of given q and k|5 queries × 7 keys|score dot|no scale|softcap 20|no mask|float64",
        ),
        (
            {"embeddings": X[:, :1]},
            {"normalizer": "sparsemax"},
            "self-attention|5 tokens × 1 dim|q = k = v = x|score dot|scale 1 = 1/√1|no mask|sparsemax|float64",
        ),
        (
            {"embeddings": np.stack([X, X]), "lengths": [2, 5]},
            {"heads": 4, "scale": 0.25, "position": "alibi"},
            "self-attention|2 × 5 tokens × 12 dims|4 heads|q = k = v = x|position alibi|score dot|scale 0.25|mask by lengths|float64",
        ),
        (
            {"embeddings": X, "parameters": {"w_q": np.eye(12), "w_k": X[:4].T, "w_v": X[:4].T}},
            {"heads": 3, "kv_heads": 1, "mask": "causal", "seed": 3},
            "self-attention|5 tokens × 12 dims|3 heads, 1 kv|projection given|score dot|scale 0.5 = 1/√4|mask causal|seed 3|float64",
        ),
    ],
)
def test_the_summary_says_what_is_computed(fields, choices, says):
    assert "|".join(summary(choices, **fields)) == says


@pytest.mark.parametrize(
    ("choices", "message", "way_out"),
    [
        ({"kv_heads": 2}, "kv_heads is 2, but the number of query heads is missing", "add --heads 4 (a multiple of 2)"),
        ({"heads": 6, "kv_heads": 4}, "6 query heads cannot share 4 kv heads equally", "1, 2, 3 or 6"),
    ],
)
def test_heads_that_do_not_go_together_are_refused_with_those_that_do(choices, message, way_out):
    with pytest.raises(AttnError) as refusal:
        make_plan(attncli.Problem(embeddings=X), Variant(**choices))

    assert message in str(refusal.value)
    assert way_out in str(refusal.value.help)


def test_heads_of_arrays_that_do_not_go_together_are_refused_with_those_that_do():
    q, k = draw_normal(1, 1, 6, 3, 4), draw_normal(2, 1, 4, 3, 4)  # (b, h, t, d)

    with pytest.raises(AttnError) as refusal:
        make_plan(attncli.Problem(q=q, k=k))

    assert "6 query heads cannot share 4 kv heads equally" in str(refusal.value)
    assert "1, 2, 3 or 6" in str(refusal.value.help)


def test_one_kv_head_without_heads_is_what_there_is():
    assert make_plan(attncli.Problem(embeddings=X), Variant(kv_heads=1)).shapes.kv_heads == 1


@pytest.mark.parametrize(
    ("marked", "batch", "heads", "says"),
    [
        ([[[0, 0, 1]]], None, None, "query 2 sees"),
        ([[[1, 0, 1]]], None, None, "queries 0 and 2 see"),
        ([[[1, 0, 1], [1, 0, 1]]], None, 2, "queries 0 and 2 see"),
        ([[[0, 0, 1], [0, 0, 0]]], None, 2, "head 0 query 2 sees"),
        ([[[0, 0, 1], [1, 0, 0]]], None, 2, "head 0 query 2 and head 1 query 0 see"),
        ([[[0, 1, 0]], [[0, 0, 0]]], 2, None, "batch 0 query 1 sees"),
        ([[[0, 0, 0]]], None, None, ""),
    ],
)
def test_rows_are_named_by_what_tells_them_apart(marked, batch, heads, says):
    problem = attncli.Problem(embeddings=draw_normal(1, *([batch] if batch else []), 3, 4))
    plan = make_plan(problem, Variant(**({"heads": heads} if heads else {})))

    assert describe_rows(np.array(marked, bool), plan) == says


@pytest.mark.parametrize(
    ("count", "says"), [(8, "0, 1, 2, 3, 4, 5, 6 and 7"), (9, "0, 1, 2, 3, 4, 5, 6, 7 and 1 more")]
)
def test_of_many_rows_eight_are_named(count, says):
    plan = make_plan(attncli.Problem(embeddings=draw_normal(1, 12, 4)))

    assert describe_rows(np.arange(12)[None, None] < count, plan) == f"queries {says} see"


def test_a_seed_that_is_drawn_is_drawn_anew_for_each_problem():
    OUTLINE_CACHE.clear()
    drawn = Variant(projection="xavier", heads=2)

    seeds = {outline_plan(attncli.Problem(embeddings=X), drawn).variant.seed for _ in range(4)}

    assert len(seeds) == 4
    assert len(OUTLINE_CACHE) == 0
    given = drawn.replace(seed=7)
    assert {outline_plan(attncli.Problem(embeddings=X), given).variant.seed for _ in range(2)} == {7}
    assert len(OUTLINE_CACHE) == 1


@pytest.mark.parametrize(
    ("parameters", "formulas"),
    [
        ({}, ["x", "x", "x"]),
        ({"w_q": np.eye(12), "w_k": np.eye(12), "w_v": np.eye(12)}, ["x W_q", "memory W_k", "memory W_v"]),
        ({"w_q": np.eye(12), "b_q": np.ones(12), "b_v": np.ones(12)}, ["x W_q + b_q", "memory", "memory + b_v"]),
    ],
)
def test_a_projections_formula_says_what_there_is(parameters, formulas):
    memory = {"memory": MEMORY} if parameters else {}

    made = attncli.attend(attncli.Problem(embeddings=X, parameters=parameters, **memory), keep=["q", "k", "v"])

    assert [made[letter].formula for letter in "qkv"] == formulas


def test_a_bias_of_another_width_is_refused_with_the_width_that_it_needs():
    with pytest.raises(AttnError, match=r"b_q has shape \(3,\), but q has 12 columns"):
        make_plan(attncli.Problem(embeddings=X, parameters={"w_q": np.eye(12), "b_q": np.ones(3)}))


def test_free_memory_is_what_the_system_says_in_bytes(monkeypatch):
    monkeypatch.setattr("attncli.plan.memory._CONTROL_GROUP_FILES", ())
    monkeypatch.setattr("pathlib.Path.read_text", lambda self: "MemTotal: 9000 kB\nMemAvailable:  5000 kB\n")

    assert available_memory_bytes() == 5000 * 1024


@pytest.mark.parametrize(("score", "numbers"), [("dot", 0), ("cosine", 0), ("additive", 8)])
def test_a_score_that_is_made_of_a_vector_takes_its_memory(score, numbers):
    plan = make_plan(attncli.Problem(embeddings=X), Variant(heads=3, score=score))

    assert extra_numbers_per_score(plan) == numbers
