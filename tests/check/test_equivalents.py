"""Steps that differ in what nothing after them sees are not wrong, but otherwise; where something sees it, they are wrong."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.check import check
from attncli.check.figures import figures_from_arrays
from tests.helpers import draw_normal, softmax

Q, K, V = draw_normal(1, 4, 6), draw_normal(2, 5, 6), draw_normal(3, 5, 3)
S = Q @ K.T / np.sqrt(6)
W = softmax(S)
ORDER = [2, 0, 1, 5, 3, 4]


def judge(claims, fields=None, **choices):
    problem = attncli.Problem(**(fields or {"q": Q, "k": K, "v": V}))
    return check(problem, attncli.Variant(**choices), figures_from_arrays(claims), identify=False)


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"q": Q / 2, "weights": W}, {"q": "the reference × 0.5"}),
        ({"scores": S, "weights": W}, {"scores": "the reference × 0.408248"}),
        ({"q": Q / 2, "k": K * 2, "scores": Q @ K.T}, {"q": "× 0.5", "k": "× 2"}),
        ({"scaled_scores": S - S.max(-1, keepdims=True), "weights": W}, {"scaled_scores": "a constant"}),
        ({"scaled_scores": S + np.arange(4)[:, None]}, {"scaled_scores": "a constant"}),
        ({"q": Q[:, ORDER], "k": K[:, ORDER]}, {"q": "2, 0, 1, 5, 3, 4", "k": "2, 0, 1, 5, 3, 4"}),
        ({"q": Q[:, ORDER], "weights": W}, {"q": "2, 0, 1, 5, 3, 4"}),
    ],
)
def test_what_nothing_after_it_sees_is_otherwise(claims, said):
    verdict = judge(claims)

    assert (verdict.verdict, verdict.first_wrong_step) == ("otherwise", None)
    told = {step.step: step.cause_text for step in verdict.steps if step.cause}
    assert told.keys() == said.keys()
    for step, words in said.items():
        assert told[step].startswith("not wrong, but otherwise: ")
        assert words in told[step]


@pytest.mark.parametrize(
    "claims",
    [
        {"q": Q / 2},  # nothing tells that the factor is made good
        {"q": Q / 2, "weights": softmax(S / 2)},
        {"q": Q[:, ORDER], "k": K[:, ORDER[::-1]]},
        {"q": Q + 0.1, "weights": W},
        {"scaled_scores": S + np.arange(5), "weights": W},  # a constant in each column
        {"weights": W * 0.5, "context": W @ V},
        {"v": V * 2, "weights": W},  # weights do not come of v
    ],
)
def test_what_something_sees_is_wrong(claims):
    assert judge(claims).verdict == "wrong"


def test_a_constant_in_a_row_is_seen_where_the_normaliser_is_no_softmax():
    claims = {"scaled_scores": S + np.arange(4)[:, None]}

    assert judge(claims, normalizer="sigmoid").verdict == "wrong"
    assert (
        judge(claims, {"q": Q, "k": K, "v": V, "parameters": {"sinks": np.zeros(1)}}, sink="given").verdict == "wrong"
    )


def test_what_the_mask_hides_later_need_not_have_the_constant():
    mask = np.tri(4, 5, 1, dtype=bool)
    before = np.where(mask, S - S.max(-1, keepdims=True), 7.0)
    after = np.where(mask, S, np.nan)
    fields = {"q": Q, "k": K, "v": V, "mask": mask}

    assert judge({"scaled_scores": before}, fields).verdict == "otherwise"
    assert judge({"masked_scores": after}, fields).verdict == "wrong"


def test_a_sink_may_take_its_share_of_the_context():
    sink = np.array([0.7])
    e = np.exp(S)
    context = (e / (e.sum(-1, keepdims=True) + np.exp(sink))) @ V
    fields = {"q": Q, "k": K, "v": V, "parameters": {"sinks": sink}}

    verdict = judge({"weights": W, "context": context}, fields, sink="given")

    assert verdict.verdict == "otherwise"
    assert "sigmoid(log_sum_exp − sink)" in verdict.steps[0].cause_text
    assert judge({"weights": W}, fields, sink="given").verdict == "wrong"


def test_a_loose_tolerance_proves_nothing():
    figures = figures_from_arrays({"q": Q * 2, "context": W @ V})
    loose = tuple(
        step if step.step == "q" else type(step)(**{**vars(step), "atol": 9.0, "rtol": 0.0}) for step in figures.steps
    )
    problem = attncli.Problem(q=Q, k=K, v=V)

    assert check(problem, None, type(figures)(figures.name, figures.kind, loose), identify=False).verdict == "wrong"


@pytest.mark.parametrize("format", ["table", "plain", "markdown", "json"])
def test_every_form_says_that_it_is_not_wrong(attn, tmp_path, format):
    np.savez(tmp_path / "mine.npz", q=Q / 2, weights=W)
    np.savez(tmp_path / "p.npz", q=Q, k=K, v=V)

    run = attn("check", "p.npz", "--figures", "mine.npz", "--format", format)

    assert run.status == 0
    assert "not wrong, but otherwise: the reference × 0.5" in run.out.replace("\\", "")
    if format == "json":
        assert (run.json["verdict"], run.json["first_wrong"]) == ("otherwise", None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_no_constant_in_their_row(value):
    scores = S.copy()
    scores[1] = value

    assert judge({"scaled_scores": scores}).verdict == "wrong"
