"""What can be said of figures that are alike, few or strange."""

from __future__ import annotations

import math

import numpy as np
import pytest

import attncli
from attncli.check import check
from attncli.check.figures import figures_from_arrays
from tests.check.faulty import Case, masked, merge, steps, triangle
from tests.helpers import SAMPLES, softmax

pytestmark = [pytest.mark.slow, pytest.mark.uncounted]

CAT_SAT = SAMPLES / "cat_sat.json"
EMPTY = {
    "q": [[1, 0.5], [0.3, 0.2], [0.7, 0.9]],
    "k": [[1, 0.1], [0.4, 0.8], [0.6, 0.2]],
    "v": [[1, 2], [3, 1], [2, 2]],
    "mask": [[True, False, True], [False, False, False], [True, True, False]],
}


@pytest.mark.parametrize("fill", ["nan", "uniform"])
def test_what_an_empty_row_holds_is_named_on_a_small_problem_too(fill):
    q, k, v, seen = (np.array(EMPTY[x], bool if x == "mask" else float) for x in ("q", "k", "v", "mask"))
    w = softmax(masked(q @ k.T / math.sqrt(2), seen))
    w[1] = np.nan if fill == "nan" else 1 / 3

    said = check(attncli.Problem(**EMPTY), None, figures_from_arrays({"weights": w, "context": w @ v}))

    assert said.identified
    assert f"--empty-rows {fill}" in said.identified[0].names


def test_a_fit_that_may_be_chance_is_said_to_fit(attn, tmp_path):
    (tmp_path / "mine.json").write_text('{"weights": {"values": [[0.33]], "rows": [0], "columns": [1]}}')

    out = attn("check", CAT_SAT, "--figures", "mine.json").out

    assert "these fit, but with so few figures it may be chance" in out  # another scale, and uniform weights
    assert "nothing that was tried" not in out


@pytest.mark.parametrize(
    ("value", "said", "names"), [(0.0, "0", ()), (np.nan, "NaN", ()), (1 / 3, "0.333333", "uniform")]
)
def test_figures_that_are_all_alike_are_said_to_be(value, said, names):
    found = check(attncli.read(CAT_SAT), None, figures_from_arrays({"weights": np.full((3, 3), value)}))

    assert found.observations == (f"all of your weights are {said}",)
    assert found.nearest_candidates == ()
    assert [s.names[0] for s in found.identified] == (["uniform weights"] if names else [])


@pytest.mark.parametrize(("over", "name"), [("seen", "uniform weights"), ("all", "uniform weights over all keys")])
def test_a_mean_is_no_attention(over, name):
    case = Case(0, mask="causal")
    w = (
        triangle(case.n) / triangle(case.n).sum(-1, keepdims=True)
        if over == "seen"
        else np.full((case.n,) * 2, 1 / case.n)
    )

    [found] = case.verdict({"context": merge(w @ case.qkv()[2])}).identified

    assert found.names[0] == name


def test_the_plainest_of_what_few_digits_cannot_tell_apart_stands_first():
    case = Case(0, mask="causal")
    s, _ = case.scores()

    found = case.verdict({"weights": softmax(masked(s, triangle(case.n), 0)).round(5)}).identified

    assert found[0].names[0] == "fill 0 instead of −∞"
    assert "fill 1e-9 instead of −∞" in found[0].names[1:]


def test_the_second_of_two_softmaxes_may_not_mask():
    case = Case(1, mask="causal")
    s, v = case.scores()

    found = case.verdict(steps(softmax(softmax(masked(s, triangle(case.n)))), v)).identified

    assert found[0].names[0] == "softmax applied twice, the second unmasked"
