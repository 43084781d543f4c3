"""Steps that take each other's place where a variant lacks one."""

from __future__ import annotations

import pytest

import attncli
from attncli.check.trials import Trials
from attncli.plan import make_plan
from attncli.variant import Variant
from tests.helpers import assert_close, draw_normal


@pytest.fixture
def trials():
    variant = Variant(
        heads=2,
        position="rope",
        qk_norm="rms",
        mask="causal",
        dropout="dropout:p=0.5,seed=1",
        head_mixing="talking-heads",
    )
    parameters = {"talking_post": draw_normal(2, 2, 2), "w_o": draw_normal(3, 8, 8)}
    return Trials(make_plan(attncli.Problem(embeddings=draw_normal(1, 5, 8), parameters=parameters), variant), None)


@pytest.mark.parametrize(
    ("step", "available", "found"),
    [
        ("weights", ["weights", "context"], "weights"),
        ("mixed_weights", ["weights", "dropout_weights"], "dropout_weights"),
        ("dropout_weights", ["weights", "mixed_weights"], "weights"),  # none that comes later
        ("positioned_q", ["q", "k", "normed_q"], "normed_q"),
        ("positioned_k", ["q", "k"], "k"),
        ("masked_scores", ["scores", "scaled_scores", "weights"], "scaled_scores"),
        ("scaled_scores", ["scores", "weights"], "scores"),
        ("output", ["head_context", "context"], "context"),
        ("weights", ["scores", "context"], None),
        ("scores", ["q", "weights"], None),
        ("nothing", ["weights"], None),
    ],
)
def test_the_last_step_before_it_takes_a_steps_place(trials, step, available, found):
    assert trials.equivalent_step(step, available) == found


def test_the_projected_plan_has_the_heads_and_the_figures_of_the_problem():
    x, memory = draw_normal(1, 5, 8), draw_normal(2, 7, 8)
    parameters = {"w_q": draw_normal(3, 8, 12), "w_k": draw_normal(4, 8, 6), "w_v": draw_normal(5, 8, 4)}
    problem = attncli.Problem(embeddings=x, memory={"embeddings": memory}, parameters=parameters)
    trials = Trials(make_plan(problem, Variant(heads=4, kv_heads=2)), None)

    plan = trials.projected_plan

    assert plan is not None
    assert (plan.shapes.heads, plan.shapes.kv_heads, plan.problem.embeddings) == (4, 2, None)
    found, wanted = trials.compute_steps(plan), trials.compute_steps(trials.plan)
    for step in ("weights", "context"):
        assert_close(found[step], wanted[step])


def test_heads_of_the_arrays_are_those_of_the_projected_plan():
    q, k, v = (draw_normal(seed, 3, 5, 4) for seed in (1, 2, 3))  # (h, t, d), without --heads
    trials = Trials(make_plan(attncli.Problem(q=q, k=k, v=v), Variant()), None)

    plan = trials.projected_plan

    assert plan is not None
    assert_close(trials.compute_steps(plan)["weights"], trials.compute_steps(trials.plan)["weights"])
