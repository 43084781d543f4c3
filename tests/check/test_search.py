"""Which pairs of changes are tried, in which order, and what counts as a match."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import attncli
from attncli.check import check
from attncli.check.alternatives import Alternative
from attncli.check.comparison import Comparison, _worst_position
from attncli.check.diagnoses import _are_indistinguishable
from attncli.check.evidence import Evidence, _count_gained_digits, _have_same_nonfinite_cells, is_within_own_rounding
from attncli.check.faults import Hypothesis
from attncli.check.figures import figures_from_arrays
from attncli.check.rules import CellComparison
from attncli.check.search import _MAX_PAIR_TRIALS, PairTrial, Search
from attncli.check.task import prepare
from attncli.check.trial_results import SingleTrial, TrialResult
from attncli.types import Problem
from attncli.variant import Variant
from tests.check.faulty import Case, merge, steps
from tests.helpers import draw_normal, softmax

INF, NAN = np.inf, np.nan


def trial(name, implausibility, *, choice=None, combinable=False, **changed):
    """A single change that gives figures of its own."""
    hypothesis = Hypothesis(name, f"with {name}", lambda: None, implausibility, combinable=combinable)
    result = TrialResult(
        **{
            "names": (name,),
            "description": hypothesis.description,
            "implausibility": implausibility,
            "is_fault": choice is None,
            "is_match": False,
            "evidence_digits": 0.0,
            "max_error": 1.0,
            "max_relative_error": 1.0,
            "residual": 0.0,
            "explained_steps": (),
            "figures_key": name.encode(),
            "differs_from_reference": True,
            "breaks_right_claims": False,
            "claimed_cells": (),
            "hypothesis": hypothesis,
            "approximate": False,
        }
        | changed
    )
    return SingleTrial(result, Alternative(choice, name, name, "", implausibility) if choice else None)


def pairs_of(*singles):
    """What would be tried of pairs: what each function would be called with, and how far-fetched it is."""
    search = Search.__new__(Search)
    out = []
    for pair in search._pair_trials(singles):
        assert isinstance(pair.run, partial)
        names = [
            x.value if isinstance(x, Alternative) else x.names[0] if isinstance(x, TrialResult) else x.name
            for x in pair.run.args[:2]
        ]
        out.append((*names, pair.implausibility))
    return sorted(out)


def test_pairs_are_as_far_fetched_as_both_changes():
    likely, other = trial("--mask full", 1, choice="mask"), trial("--scale 3", 3, choice="scale")
    common, rare = trial("no scale", 2, combinable=True), trial("q and k swapped", 1)

    assert pairs_of(likely, other, common, rare) == [
        ("--mask full", "--scale 3", 4),
        ("no scale", "--mask full", 3),
        ("q and k swapped", "--mask full", 2),
        ("q and k swapped", "no scale", 3),
    ]


def test_two_faults_that_may_be_combined_are_tried_together_once():
    faults = (trial(name, 1, combinable=True) for name in ("a", "b", "c"))

    assert pairs_of(*faults) == [("b", "a", 2), ("c", "a", 2), ("c", "b", 2)]


@pytest.mark.parametrize(
    ("scores", "is_sampled", "numbers_left", "tried"),
    [
        (2048, False, 0, _MAX_PAIR_TRIALS),  # of a small problem
        (4096, False, 0, _MAX_PAIR_TRIALS // 2),
        (2048, True, 7, 3),
        (2048, True, -1, 0),  # single changes have used it up
    ],
)
def test_fewer_pairs_are_tried_where_each_costs_more(scores, is_sampled, numbers_left, tried):
    search, ran = Search.__new__(Search), []
    search.comparison = SimpleNamespace(score_count=scores)
    search.whole = object() if is_sampled else search.comparison
    search.numbers_left, search.numbers_of_trial, search.left_out_count = numbers_left, 2, 0
    search._pair_trials = lambda _: [PairTrial(1, lambda: ran.append(1))] * (_MAX_PAIR_TRIALS + 5)

    assert search._try_pairs([], lambda *_: None) == []
    assert len(ran) == tried
    assert search.left_out_count == _MAX_PAIR_TRIALS + 5 - tried


def test_what_cannot_be_one_of_two_changes_is_not_tried():
    base = trial("no scale", 1, combinable=True)

    assert pairs_of(base) == []
    assert pairs_of(base, trial("same figures", 1, differs_from_reference=False)) == []
    assert pairs_of(base, trial("breaks what is right", 1, breaks_right_claims=True)) == []
    assert pairs_of(base, trial("too far-fetched", 3)) == []
    assert pairs_of(base, trial("the same figures as no scale", 1, figures_key=b"no scale")) == []
    # two values of one choice are no pair, nor are two choices that both change nothing
    assert pairs_of(trial("a", 2, choice="mask"), trial("b", 2, choice="mask")) == []
    silent = {"differs_from_reference": False}
    assert pairs_of(trial("a", 1, choice="mask", **silent), trial("b", 1, choice="scale", **silent)) == []
    assert pairs_of(trial("a", 1, choice="mask", **silent), trial("b", 2, choice="scale")) == [("b", "a", 3)]
    assert pairs_of(trial("a", 2, choice="mask", **silent), trial("b", 2, choice="scale")) == []


@pytest.mark.parametrize(
    ("values", "other", "same"),
    [
        ([NAN, 1], [NAN, 2], True),
        ([NAN, 1], [1, NAN], False),
        ([NAN, 1], [INF, 1], False),
        ([INF, 1], [-INF, 1], False),
        ([-INF, INF], [-INF, INF], True),
        ([1, 2], [1, 2], False),  # all of them are finite, which says nothing
    ],
)
def test_what_is_not_finite_is_compared_by_kind_and_place(values, other, same):
    assert _have_same_nonfinite_cells(np.array(values, float), np.array(other, float)) is same


def test_digits_are_gained_where_wrong_figures_become_right():
    error, tolerance = np.array([1.0, 1.0, NAN]), np.array([1e-3, 1e-3, 1e-3])

    assert _count_gained_digits(
        error, np.array([5.0, 5.0, 10.0]), tolerance, np.array([True, False, False])
    ) == pytest.approx(3)
    assert _count_gained_digits(
        error, np.array([5.0, 5.0, 10.0]), tolerance, np.array([True, False, True])
    ) == pytest.approx(7)
    assert _count_gained_digits(
        error, np.array([5.0, 5.0, NAN]), tolerance, np.array([False, False, True])
    ) == pytest.approx(0.35)


@pytest.mark.parametrize(
    ("error", "is_right", "position"),
    [
        ([0.5, 0.2, 0.1], [True, False, False], (1,)),  # the largest error is allowed, such as a large figure's
        ([0.5, 0.2, 0.7], [True, True, True], (2,)),
        ([0.5, INF, 0.7], [False, False, True], (0,)),  # beside an infinite error, all that is wrong is
        ([0.5, 0.2, 0.7], [False, False, True], (0,)),
    ],
)
def test_the_worst_cell_is_a_wrong_one_if_any_is(error, is_right, position):
    cells = CellComparison(np.array(is_right), np.array(error), np.full(3, 0.6))

    assert _worst_position(cells) == position


def test_right_figures_are_not_searched():
    case = Case(0)
    s, v = case.scores()
    right = {"context": merge(softmax(s) @ v)}

    assert case.verdict(right).trial_count < 10  # what is plainly wrong is tried, to see whether it would be noticed
    assert case.verdict(right).identified == ()


def test_where_nothing_is_claimed_nothing_is_searched():
    case = Case(0)
    figures = figures_from_arrays(steps(softmax(case.scores()[0]), case.scores()[1]))
    comparison = Comparison(prepare(Problem(**case.fields), Variant(**case.choices), figures))

    assert comparison.wrong_claims == frozenset()


@pytest.mark.slow
def test_of_a_large_problem_only_likely_changes_are_tried(monkeypatch):
    case = Case(0)
    s, v = case.scores()
    claims = steps(softmax(s / np.sqrt(case.h)), v)
    small = case.verdict(claims)
    monkeypatch.setattr("attncli.check.search._LARGE_PROBLEM_SCORES", 1)

    large = case.verdict(claims)

    assert "scale 1/√(heads · d_k)" in small.identified[0].names
    assert "scale 1/√(heads · d_k)" in large.identified[0].names
    assert large.trial_count < small.trial_count / 2


def search_for(claims, case=None):
    case = case or Case(0)
    problem, variant = Problem(**case.fields), Variant(**case.choices)
    return Search(Comparison(prepare(problem, variant, figures_from_arrays(claims))))


def test_wrong_figures_beside_constant_ones_that_are_right_are_searched_as_any():
    q, k = draw_normal(1, 5, 4) / 100, draw_normal(2, 7, 4)
    figures = figures_from_arrays({"scaled_scores": q @ k.T, "weights": np.full((5, 7), 1 / 7)})
    loose = tuple(replace(s, rtol=0.0, atol=0.01) if s.step == "weights" else s for s in figures.steps)

    said = check(Problem(q=q, k=k), None, replace(figures, steps=loose))

    assert [step.is_right for step in said.steps] == [False, True]
    assert {"no scale", "scores for scaled_scores"} <= {*said.identified[0].names}  # which are the same figures


def test_only_cells_that_a_trial_repairs_are_evidence():
    case = Case(0)
    reference, _ = case.scores()
    claimed = reference.copy()
    claimed[0, 1, 2] += 1.0  # one is wrong
    search = search_for({"scaled_scores": claimed})

    def gained_digits(values):
        evidence = Evidence()
        evidence.add_claim(search.comparison, 0, values, is_sampled=False)
        return evidence.gained_digits

    assert gained_digits(reference) == 0  # nothing repaired, and nothing is NaN or ∞
    elsewhere = reference.copy()
    elsewhere[0, 1, 2] -= 1.0
    assert gained_digits(elsewhere) == 0
    assert 8 < gained_digits(claimed) < 16  # from 1 to within the rule


@pytest.mark.parametrize(("left", "is_within"), [(0.1, True), (0.19, True), (0.21, False), (1.5, False)])
def test_an_error_is_within_a_roundings_own_if_it_is_at_most_twice_what_that_moves(left, is_within):
    case = Case(0)
    reference, _ = case.scores()
    rounded = reference + 0.1  # what the hypothesis computes
    search = search_for({"scaled_scores": rounded + left})
    hypothesis = Hypothesis("rounded", "rounded", lambda: None, 1)

    assert is_within_own_rounding(search.comparison, hypothesis, {"scaled_scores": rounded}) is is_within


@pytest.mark.parametrize(("factor", "shared"), [(1.0, True), (1 + 1e-12, True), (1.01, False)])
def test_two_computations_share_a_diagnosis_if_the_rule_cannot_tell_them_apart(factor, shared):
    case = Case(0)
    weights = softmax(case.scores()[0])
    search = search_for({"weights": weights})
    first = trial("first", 1, claimed_cells=(weights,)).result
    second = trial("second", 1, claimed_cells=(weights * factor,)).result

    assert _are_indistinguishable(search.comparison, first, second) is shared


def test_faults_on_another_choice_are_tried_on_the_steps_that_are_claimed():
    case = Case(0)
    search = search_for(steps(softmax(case.scores()[0]), case.scores()[1]))

    trials, faults = search._faults_under_choice(Alternative("scale", "none", "--scale none", "", 1))

    assert trials.claimed_steps == {"weights", "context"}
    assert trials.plan.variant.scale == "none"
    assert "softmax over the queries" in faults


@pytest.mark.slow
def test_a_number_that_is_solved_for_is_not_named_beside_a_cause_with_a_name():
    x = np.random.default_rng(1).standard_normal((9, 4))
    scores = x @ x.T

    def names(scale):
        report = attncli.check(x, {"weights": softmax(scores * scale)})
        return [diagnosis.names for diagnosis in report.identified]

    assert names(1.0) == [("no scale", "--scale none")]
    assert names(2.0) == [("scale √d_k",)]
    assert names(0.37) == [("another scale",)]
