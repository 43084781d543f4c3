"""Faults beside others: two at once, two that give the same figures, and what is said of one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.check.faulty import Case, masked, merge, no_scale, rope, steps, swap, triangle
from tests.helpers import softmax

pytestmark = [pytest.mark.slow, pytest.mark.uncounted]


@pytest.mark.parametrize(("rest", "says"), [(0.9, "divided by 1 − p, p = 0.1;"), (1, "and not rescaled:")])
def test_dropout_that_was_left_on_is_told_as_it_was(rest, says):
    case = Case(1, tokens=11)
    s, v = case.scores()
    kept = np.random.default_rng(5).random(s.shape) < 0.9

    [found] = case.verdict(steps(softmax(s) * kept / rest, v)).identified

    assert found.names == ("dropout left on",)
    assert says in found.sentence


def test_two_changes_are_found_together():
    case = Case(3, mask="causal", position="rope")
    q, k, v = case.qkv(q=case.w["q"].T)
    s = rope(q, "half") @ swap(rope(k, "half"))
    fault_and_choice = steps(softmax(masked(s, triangle(case.n))), v)
    q, k, v = case.qkv()
    s = rope(q, "interleaved") @ swap(rope(k, "interleaved"))
    two_choices = {"context": merge(softmax(masked(s, triangle(case.n))) @ v)}

    assert case.verdict(fault_and_choice).identified[0].names == ("no scale and W_q transposed",)
    assert "no scale and --position rope:layout=interleaved" in case.verdict(two_choices).identified[0].names


@pytest.mark.parametrize("pair", ["two matrices", "mask and scale"])
def test_two_faults_are_found_together(pair):
    case = Case(2, mask="causal")
    if pair == "two matrices":
        s, v = case.scores(q=case.w["q"].T, k=case.w["k"].T)
        name, seen = {"W_q transposed", "W_k transposed"}, triangle(case.n)
    else:
        s, v = case.scores()
        s, name, seen = s / math.sqrt(case.d), {"diagonal hidden", "scale 1/d_k"}, triangle(case.n, k=-1)

    [found] = case.verdict({"context": merge(softmax(masked(s, seen)) @ v)}).identified

    assert set(found.names[0].split(" and ")) == name


def test_what_gives_the_same_figures_is_named_together():
    case = Case(1, tokens=6, width=16, heads=4)  # d_k is 4, so that 1/d_k is 1/√d_model
    q, k, v = case.qkv()

    [found] = case.verdict(steps(softmax(q @ swap(k) / 4), v)).identified

    assert {"scale 1/d_k", "scale 1/√d_model", "scale applied twice"} <= set(found.names)


def test_the_sentence_says_the_numbers_and_the_way_out():
    case = Case(0)

    [found] = case.verdict(no_scale(case)).identified

    said = "your weights, context and output are the reference without 1/√d_k (d_k = 4): divide the scores by 2 before the softmax"
    assert found.sentence == said
