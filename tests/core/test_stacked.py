"""Problems of equal shapes, computed in one call: each gives what it gives by itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

import attncli
from attncli.core.attention import run_plan
from attncli.core.stacked import is_stackable, run_stacked
from attncli.errors import AttnError
from attncli.pipeline import run_plans
from attncli.plan import make_plan, outline_plan
from attncli.plan.build import OUTLINE_CACHE
from attncli.types import PARAMETER_STEPS
from attncli.variant import Variant
from tests.helpers import draw_normal
from tests.laws.problems import ONE_CHOICE

TOKENS, WIDTH, HEADS, COUNT = 7, 30, 3, 5


def plans_of(choices: dict, *, with_biases: bool = True, scale: float = 1.0):
    """Plans of problems that differ in their numbers alone, each with matrices of its own."""
    OUTLINE_CACHE.clear()
    variant = Variant(**{"heads": HEADS} | choices)
    plans = []
    for i in range(-1, COUNT):  # the first is the one that others are found to be like
        parameters = {
            name: draw_normal(10 * i + j + 20, WIDTH, WIDTH) / 5 for j, name in enumerate(("w_q", "w_k", "w_v", "w_o"))
        }
        parameters |= {"b_q": draw_normal(i + 1, WIDTH), "b_o": draw_normal(i + 50, WIDTH)} if with_biases else {}
        problem = attncli.Problem(
            embeddings=draw_normal(i + 100, TOKENS, WIDTH) * scale,
            tokens=[f"t{i}{j}" for j in range(TOKENS)],
            parameters=parameters,
            id=f"problem {i}",
            w_layout="out-in" if choices.get("mask") == "causal" else None,
        )
        steps = outline_plan(problem, variant).steps.keys() - PARAMETER_STEPS.keys()
        plans.append(make_plan(problem, variant, sorted(steps)))
    return plans[1:]


def can_be_planned(choices: dict) -> bool:
    try:
        return is_stackable(plans_of(choices)[1])
    except AttnError:
        return False  # it needs arrays of its own, or fields


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
def test_every_part_gives_in_one_call_what_it_gives_alone(choices):
    if not can_be_planned(choices):
        pytest.skip("it is computed by itself")
    plans = plans_of(choices)

    together = run_stacked(plans)

    if together is None:  # some row has a warning of its own
        assert any(len(run_plan(plan).warnings) > len(plan.warnings) for plan in plans)
        return
    for alone, stacked in zip(map(run_plan, plans), together, strict=True):
        assert [(s.name, s.formula, s.axes) for s in stacked] == [(s.name, s.formula, s.axes) for s in alone]
        for one, other in zip(stacked, alone, strict=True):
            np.testing.assert_allclose(one.values, other.values, rtol=1e-10, atol=1e-12, err_msg=one.name)
        for name, drawn in alone.parameters.items():
            np.testing.assert_array_equal(stacked.parameters[name], drawn)
        others = [{**vars(x), "steps": (), "hidden_keys": None, "parameters": 0} for x in (stacked, alone)]
        assert others[0] == others[1]


def test_most_parts_are_computed_in_one_call():
    assert sum(map(can_be_planned, ONE_CHOICE)) > len(ONE_CHOICE) / 2


def test_what_has_a_warning_of_its_own_is_computed_alone():
    """Scores of ratio normalisation sum to 0 in one problem alone."""
    plans = plans_of({"heads": None, "normalizer": "sum", "projection": "identity"}, with_biases=False)
    plans[2].problem.embeddings[:] = 0

    results = list(run_plans(plans))

    assert [bool(result.warnings) for result in results] == [bool(run_plan(plan).warnings) for plan in plans]
    assert results[2].warnings
    assert not is_stackable(plans[0])  # nor is it tried again


def test_others_go_on_where_one_has_a_bug(monkeypatch):
    import attncli.pipeline as work

    was = work.load_engine()

    def broken(plan, *rest):
        if plan.problem.id == "problem 3":
            raise ValueError("what nobody foresaw")
        return was(plan, *rest)

    monkeypatch.setattr(work, "load_engine", lambda: broken)
    monkeypatch.setattr("attncli.core.stacked.run_stacked", lambda plans: 1 / 0)
    results = list(run_plans(plans_of({})))

    assert [isinstance(result, ValueError) for result in results] == [i == 3 for i in range(COUNT)]
    assert [result.id for result in results if not isinstance(result, ValueError)] == [
        f"problem {i}" for i in (0, 1, 2, 4)
    ]


def test_problems_of_different_shapes_are_answered_in_their_order():
    plans = [plan for pair in zip(plans_of({}), plans_of({"mask": "causal"}), strict=True) for plan in pair]

    results = list(run_plans(plans))

    assert [result.id for result in results] == [f"problem {i}" for i in range(COUNT) for _ in range(2)]
    assert [result.variant["mask"] for result in results] == ["full", "causal"] * COUNT


def test_a_warning_stands_at_the_lines_that_it_is_about_wherever_they_wait(attn):
    """The lines come in together, and all have equal shapes."""
    lines = [{"id": i, "embeddings": [[float(i), 2.0], [3.0, 4.0]]} for i in range(6)]
    lines[3]["embeddings"] = [[1e200, 0.0], [1e200, 1e200]]  # the scores overflow
    text = [json.dumps(line) for line in lines]
    text.insert(2, '{"embeddings": [[1, 2], [3')

    done = attn("compute", "-", "--json", stdin="\n".join(text).encode())

    answers = [json.loads(line) for line in done.out.splitlines()]
    assert done.status == 1
    assert [(a["line"], a.get("id"), len(a.get("warnings", ())), "error" in a) for a in answers] == [
        *((1, 0, 0, False), (2, 1, 0, False), (3, None, 0, True), (4, 2, 0, False)),
        *((5, 3, 1, False), (6, 4, 0, False), (7, 5, 0, False)),
    ]
    assert answers[4]["warnings"][0].startswith("not-finite")
