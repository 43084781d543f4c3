"""Steps that take each other's place where a variant lacks one."""

from __future__ import annotations

import pytest

import attncli
from attncli.check.trials import Trials
from attncli.plan import make_plan
from attncli.variant import Variant
from tests.helpers import draw_normal


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
