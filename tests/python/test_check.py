"""`attncli.check`: what may be figures, and what the report says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import attncli
from attncli import Problem
from tests.python.three_tokens import CAUSAL, LATER, Handed, X, weigh


def test_right_figures_are_right():
    for figures in (
        {"weights": CAUSAL},
        {"weights": torch.tensor(CAUSAL)},
        {"weights": Handed(CAUSAL)},
        {"weights": CAUSAL.tolist()},
    ):
        report = attncli.check(X, figures, mask="causal")
        assert report.right
        report.assert_right()
        assert report.causes == ()


def test_a_frame_is_figures():
    assert attncli.check(X, {"weights": attncli.attend(X, mask="causal").to_pandas("weights")}, mask="causal").right


def test_one_array_and_its_step_are_figures():
    assert attncli.check(X, CAUSAL, "causal", step="weights").right


def test_a_result_is_figures():
    assert attncli.check(X, attncli.attend(X, mask="causal", only="weights"), mask="causal").right


def test_the_layout_is_that_of_the_figures():
    q = np.random.default_rng(0).normal(size=(2, 2, 3, 4))  # b h t d
    context = np.asarray(attncli.attend(q=q, k=q, v=q)["head_context"])

    assert attncli.check(Problem(q=q, k=q, v=q), {"head_context": context.swapaxes(1, 2)}, layout="bthd").right


def test_wrong_figures_say_what_they_are():
    report = attncli.check(X, {"weights": weigh(X, X, LATER, 1)}, mask="causal")

    assert not report.right
    assert not report
    assert "without 1/√d_k" in report.causes[0]
    with pytest.raises(AssertionError, match="your weights are the reference without 1/√d_k"):
        report.assert_right()
    assert repr(report) == "<Report: wrong: 5 of 9 figures, in weights>"
    assert str(report).splitlines()[-1] == "wrong: 5 of 9 figures, in weights"
