"""What small functions of the plan, the core, the parts and the check return, where no larger test looks at it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import attncli
from attncli.check import index_sets
from attncli.check.alternatives import _SMALL_INTEGERS, _other_option_values
from attncli.check.faults.constants import _factor_names, _Solution
from attncli.core.inputs import require_device
from attncli.core.remote import _shift_rows
from attncli.errors import CannotError, InputError
from attncli.plan import make_plan
from attncli.plan.schedule import why_not_sdpa
from attncli.variant import FAMILIES, Variant
from tests.helpers import draw_normal


def test_ordinals():
    words = {
        2: "2nd",
        3: "3rd",
        4: "4th",
        10: "10th",
        11: "11th",
        12: "12th",
        13: "13th",
        21: "21st",
        111: "111th",
        122: "122nd",
    }

    assert {n: index_sets._ordinal(n) for n in words} == words


def test_numbers_near_an_option_are_tried_on_both_sides():
    option = next(option for option in FAMILIES["position"]["rope"].options if option.name == "dims")

    assert list(_other_option_values(option, 8, [4], words_only=False)) == [4, 9, 7, 10, 6]


@pytest.mark.parametrize(
    ("family", "member", "name", "small"),
    [
        ("mask", "window", "left", True),  # without a bound, unless one is given
        ("mask", "bigbird", "block", False),
        ("position", "rope", "theta", False),
        ("position", "rope", "factor", False),
    ],
)
def test_small_numbers_are_tried_for_what_counts_and_may_be_left_out(family, member, name, small):
    option = next(option for option in FAMILIES[family][member].options if option.name == name)

    others = [x for x in _other_option_values(option, option.default, [], words_only=True) if not isinstance(x, str)]

    assert others == ([*_SMALL_INTEGERS] if small else [])


def test_a_number_is_rounded_to_the_digits_that_figures_tell():
    assert [_Solution(0.12345, u, 0).plainest(()) for u in (0.03, 0.004, 0.001, 1e-5)] == [0.1, 0.12, 0.123, 0.12345]
    assert _Solution(0.2886, 1e-3, 0).plainest((0.5, 12**-0.5)) == 12**-0.5  # 1/√12, as far as the figures tell
    assert _Solution(0.2886, 1e-5, 2.0**-11).plainest([12**-0.5]) == 12**-0.5  # as float16 rounds it, nearly
    assert _Solution(0.2886, 1e-5, 2.0**-24).plainest([12**-0.5]) == 0.2886


def test_factors_have_the_names_of_what_they_are():
    plan = make_plan(attncli.Problem(embeddings=draw_normal(1, 3, 15)), Variant(heads=5))

    named = _factor_names(plan)

    assert {name: named[name] for name in ("1/√2", "log₂ e", "(log₂ e)²", "√d_k", "1/√d_k", "d_k", "1/d_k", "H", "1/H", "√H", "1/√H")} == {
        "1/√2": pytest.approx(0.70710678), "log₂ e": pytest.approx(1.44269504), "(log₂ e)²": pytest.approx(2.08136898),
        "√d_k": pytest.approx(math.sqrt(3)), "1/√d_k": pytest.approx(0.57735027), "d_k": 3, "1/d_k": pytest.approx(1 / 3),
        "H": 5, "1/H": 0.2, "√H": pytest.approx(2.23606798), "1/√H": pytest.approx(0.44721360),
    }  # fmt: skip


def test_rows_are_counted_from_another_start():
    assert _shift_rows(slice(7, 9), 3) == slice(4, 6)


@pytest.mark.parametrize("width", [3, 5])
def test_pytorchs_kernel_wants_values_as_wide_as_keys(width):
    plan = make_plan(
        attncli.Problem(q=draw_normal(1, 2, 4), k=draw_normal(2, 2, 4), v=draw_normal(3, 2, width)), keep=["context"]
    )

    assert why_not_sdpa(plan, True) == f"values are {width} wide but keys 4"


@pytest.mark.parametrize("error", [RuntimeError, AssertionError])
def test_a_device_that_is_not_there_is_refused_with_the_first_sentence_that_torch_says(monkeypatch, error):
    def refuse(*_: object, **__: object) -> None:
        raise error("no such thing. Look it up\nat length")

    monkeypatch.setattr(torch, "empty", refuse)

    with pytest.raises(CannotError, match=r"there is no device warp on this machine: no such thing\n"):
        require_device("warp")


def test_the_bias_of_a_projection_is_as_wide_as_what_it_is_added_to():
    x = draw_normal(1, 3, 4)
    parameters = {f"w_{letter}": np.eye(4)[:, :2] for letter in "qkv"} | {"b_q": np.zeros(3)}

    with pytest.raises(InputError, match=r"b_q has shape \(3,\), but q has 2 columns"):
        attncli.attend(attncli.Problem(embeddings=x, parameters=parameters))


def test_a_matrix_takes_vectors_as_wide_as_its_rows():
    parameters = {"w_q": np.ones((5, 3)), "w_k": np.ones((4, 3)), "w_v": np.ones((4, 3))}

    with pytest.raises(InputError, match=r"w_q takes 5 columns, but the embeddings have 4"):
        attncli.attend(attncli.Problem(embeddings=draw_normal(1, 3, 4), parameters=parameters))


def test_what_is_not_projected_is_as_wide_as_the_memory():
    parameters = {"w_k": draw_normal(3, 6, 4)}
    problem = attncli.Problem(
        embeddings=draw_normal(1, 3, 4), memory={"embeddings": draw_normal(2, 5, 6)}, parameters=parameters
    )

    plan = make_plan(problem, Variant())

    assert (plan.shapes.d, plan.shapes.d_k, plan.shapes.c) == (4, 4, 6)
    assert attncli.attend(problem)["context"].values.shape == (3, 6)


def test_a_rotation_scaled_as_yarn_may_come_from_two_positions():
    assert (
        str(FAMILIES["position"].parse("rope:scaling=yarn,factor=2,original=2"))
        == "rope:scaling=yarn,factor=2,original=2"
    )
    assert FAMILIES["position"].parse("rope:scaling=yarn,factor=2,original=2").option_value("beta-slow") == 1.0
    with pytest.raises(attncli.AttnError, match="original"):
        FAMILIES["position"].parse("rope:scaling=yarn,factor=2,original=1")
