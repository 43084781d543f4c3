"""Published figures come out to their printed digits; those known to be wrong do not."""

from __future__ import annotations

import json

import numpy as np
import pytest

import attncli
from tests.helpers import GOLDEN, GOLDEN_PROBLEMS, SAMPLES, agrees

PROBLEMS = sorted(SAMPLES.glob("*.json"))


@pytest.mark.parametrize("path", GOLDEN_PROBLEMS + PROBLEMS, ids=lambda p: p.stem)
def test_figures_come_out(path):
    problem = attncli.read(path)

    result = attncli.attend(problem)

    assert problem.expected, "a figure without figures tests nothing"
    for step, figure in problem.expected.items():
        assert agrees(figure, result[step].values), step


def test_there_are_as_many_figures_as_were_copied():
    assert len(GOLDEN_PROBLEMS) == 99


@pytest.mark.parametrize(
    "case", json.loads((GOLDEN / "known_wrong.json").read_text())["figures"], ids=lambda c: c["id"]
)
def test_wrong_figures_do_not_come_out(case):
    result = attncli.attend(attncli.Problem(**case["problem"]))

    for step, exact in case["exact"].items():
        np.testing.assert_allclose(result[step].values, exact, rtol=0, atol=6e-8)
    assert not all(
        agrees({"values": printed, "decimals": case["decimals"]}, result[step].values)
        for step, printed in case["printed"].items()
    )


def test_the_comparison_can_fail():
    figure = {"values": [[0.25]], "decimals": 2}

    assert agrees(figure, [[0.2549]])
    assert not agrees(figure, [[0.2551]])
    assert not agrees(figure, [[np.nan]])
    assert not agrees({"values": [[float("-inf")]], "decimals": 2}, [[-1e9]])


def test_every_csv_sample_holds_the_same_vectors():
    cat_sat = attncli.read(SAMPLES / "cat_sat.json")
    tables = sorted(p for p in SAMPLES.iterdir() if p.suffix in (".csv", ".tsv"))

    assert len(tables) == 6
    for path in tables:
        problem = attncli.read(path)
        np.testing.assert_array_equal(problem.embeddings, cat_sat.embeddings)
        assert problem.tokens in (cat_sat.tokens, None)
