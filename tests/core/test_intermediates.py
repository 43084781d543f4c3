"""What a worksheet may show on the way to a step: what was read or drawn, and nothing that is worked out."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.derivation import recording_intermediates
from attncli.variant import Variant
from tests.helpers import draw_normal

PARAMETERS = {
    f"{kind}_{x}": draw_normal(2, *((8, 8) if kind == "w" else (8,)))
    for kind in ("w", "b")
    for x in ("q", "k", "v", "o")
}
READ = {"x", "W", "b"}  # a projection's
POSITION = {"p", "ω", "angle", "cos", "sin"}  # of a token's number alone


@pytest.mark.parametrize(
    ("choices", "parameters", "shown", "worked_out"),
    [
        ({}, {}, READ, {"top", "s − top", "e", "total"}),
        ({"position": "rope"}, {}, READ | POSITION, {"top", "s − top", "e", "total"}),
        ({"position": "sinusoidal", "normalizer": "none"}, {}, READ | {"p", "ω"}, set()),
        ({"position": "alibi", "normalizer": "none"}, {}, READ | {"m"}, set()),
        ({"qk_norm": "rms", "normalizer": "none"}, {}, READ, {"mean", "size"}),
        ({"score": "additive", "normalizer": "none"}, {}, READ | {"v"}, {"q W_q", "k W_k", "hidden"}),
        ({"sink": "given"}, {"sinks": np.ones(2)}, READ | {"sink"}, {"top", "s − top", "e", "total"}),
        ({"dropout": "dropout:p=0.5,seed=1", "normalizer": "none"}, {}, READ | {"kept"}, set()),
        (
            {"head_mixing": "talking-heads", "normalizer": "none"},
            {"talking_pre": np.eye(2)},
            READ | {"table"},
            {"heads"},
        ),
        (
            {"head_mixing": "differential", "normalizer": "none"},
            {},
            READ | {"gain"},
            {"first", "second", "mean", "root"},
        ),
    ],
)
def test_what_was_read_or_drawn_is_shown_and_nothing_else(choices, parameters, shown, worked_out):
    problem = attncli.Problem(embeddings=draw_normal(1, 5, 8), parameters=PARAMETERS | parameters)

    with recording_intermediates():
        result = attncli.attend(problem, Variant(heads=2, **choices))

    found = [x for step in result.steps for x in step.intermediates.items()]
    assert {name for name, x in found if x.is_input} == shown
    assert {name for name, x in found if not x.is_input} == worked_out


def test_of_a_row_that_sees_nothing_0_is_subtracted_and_the_sum_is_0():
    hidden = np.array([[False, False], [True, True]])

    with recording_intermediates():
        result = attncli.attend(attncli.Problem(q=np.ones((2, 2)), k=np.ones((2, 2)), mask=hidden))

    recorded = result["weights"].intermediates
    assert np.asarray(recorded["top"].values).ravel().tolist() == [0, pytest.approx(2**0.5)]
    assert np.asarray(recorded["total"].values).ravel().tolist() == [0, 2]
