"""What small functions of the check return, where no larger test looks at it."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.check import check, figure_precision
from attncli.check.claims import largest_claimed_rank
from attncli.check.comparison import Comparison
from attncli.check.evidence import Evidence, _differ_beyond_noise
from attncli.check.figures import figures_from_arrays, figures_from_result, step_figures_from_texts
from attncli.check.query_samples import choose_large_queries, choose_queries
from attncli.check.regions import _MAX_MAP_COLUMNS, _make_bins
from attncli.check.task import prepare
from attncli.errors import InputError
from attncli.variant import Variant
from tests.helpers import draw_normal

NAN = float("nan")


# ── figures ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("values", "decimals", "digits"),
    [([0.123, -12.5, 0.0], [3, 1, 5], 3), ([1.0, 250.0], [4, 1], 5), ([1234.0, NAN], [0, 0], 4), ([0.0], [3], 0)],
)
def test_the_longest_figure_says_how_many_digits_are_written(values, decimals, digits):
    assert figure_precision.count_digits(np.array(values), np.array(decimals)) == digits


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_neighbours_are_as_far_apart_as_numpy_says_down_to_the_smallest(dtype):
    x = np.array([0.0, 1e-7, 3e-5, 0.75, 1.0, 1000.0] + ([1e-40, 1.2e-38] if dtype == "float32" else []), dtype)

    np.testing.assert_array_equal(figure_precision.spacing(dtype, x.astype(np.float64)), np.spacing(x))


def test_short_numbers_of_bfloat16_are_taken_for_its_numbers():
    x = figure_precision.to_dtype("bfloat16", draw_normal(5, 40))

    figures = step_figures_from_texts("weights", x, [f"{value:.8g}" for value in x])

    assert figures.dtype == "bfloat16"


def test_figures_of_a_result_are_judged_in_float64_and_keys_stay_whole_numbers():
    result = attncli.attend(attncli.Problem(embeddings=draw_normal(1, 3, 4)), dtype="float32", top=2)

    figures = {step.step: step for step in figures_from_result(result, "r").steps}

    assert {name: str(figures[name].values.dtype) for name in ("weights", "top_keys")} == {
        "weights": "float64",
        "top_keys": "int64",
    }
    assert figures["weights"].dtype == "float32"


def test_ranks_are_the_last_axis():
    assert largest_claimed_rank(figures_from_arrays({"top_keys": np.zeros((2, 4, 3), int)}).steps) == 3


# ── evidence ─────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("values", "reference", "differs"),
    [
        ([NAN, 1.0], [NAN, 1.0], False),
        ([NAN, 1.0], [0.0, 1.0], True),
        ([0.0, 1.0], [NAN, 1.0], True),
        ([0.0, 1.0 + 1e-14], [0.0, 1.0], False),
        ([0.0, 1.0 + 1e-11], [0.0, 1.0], True),
    ],
)
def test_what_is_not_a_number_on_both_sides_is_the_same(values, reference, differs):
    assert _differ_beyond_noise(np.array(values), np.array(reference), 1.0) is differs


def test_the_reference_itself_is_no_evidence():
    problem = attncli.Problem(embeddings=draw_normal(1, 3, 4))
    weights = attncli.attend(problem)["weights"].values
    comparison = Comparison(prepare(problem, Variant(), figures_from_arrays({"weights": weights + 0.25})))
    evidence = Evidence()

    evidence.add_claim(comparison, 0, comparison.reference["weights"], is_sampled=False)

    assert not evidence.is_match
    assert not evidence.differs_from_reference
    assert evidence.residual == evidence.residual_before == pytest.approx(9 * 0.25**2 / weights.max() ** 2)
    assert evidence.gained_digits == 0


# ── samples of queries ───────────────────────────────────────────────────────────────────────────
def sampled_task(claims, keys=100, queries=100):
    fields = {"q": draw_normal(1, queries, 4), "k": draw_normal(2, keys, 4), "v": draw_normal(3, keys, 4)}
    return prepare(attncli.Problem(**fields), Variant(), figures_from_arrays(claims))


def test_a_sample_has_wrong_queries_and_others_as_many_as_their_scores_allow():
    task = sampled_task({"context": np.zeros((100, 4))})
    is_wrong = np.zeros((100, 4), bool)
    is_wrong[90:, 1] = True

    chosen = choose_queries(task, [is_wrong])
    few = choose_queries(sampled_task({"context": np.zeros((5, 4))}, keys=2**18, queries=5), [np.zeros((5, 4), bool)])

    assert len(chosen) == 64
    assert set(range(90, 100)) < set(chosen.tolist())
    assert len(few) == 4


def test_where_figures_are_of_keys_alone_any_query_may_be_in_the_sample():
    chosen = choose_queries(sampled_task({"v": np.zeros((100, 4))}), [np.ones((100, 4), bool)])

    assert len(chosen) == 64
    assert (chosen[0], chosen[-1]) == (0, 99)


def test_the_queries_with_the_largest_figures_are_among_the_chosen():
    task = sampled_task({"context": np.zeros((100, 4))})
    context = np.zeros((100, 4))
    context[[37, 58], 2] = -7.0
    context[41] = np.inf

    chosen = choose_large_queries(task.plan, {"context": context}).tolist()

    assert {0, 37, 58, 99} <= {*chosen}
    assert len(chosen) <= 64


# ── where it is wrong ────────────────────────────────────────────────────────────────────────────
def test_as_many_indices_as_a_map_has_columns_have_one_each():
    def widths(length):
        bins = _make_bins(length, _MAX_MAP_COLUMNS)
        return {*(bins.ends - bins.starts).tolist()}

    assert widths(_MAX_MAP_COLUMNS) == {1}
    assert widths(_MAX_MAP_COLUMNS + 1) == {1, 2}


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────
def test_figures_that_are_transposed_are_told_so():
    fields = {"q": draw_normal(1, 2, 4), "k": draw_normal(2, 3, 4)}

    with pytest.raises(InputError) as e:
        check(attncli.Problem(**fields), None, figures_from_arrays({"weights": np.zeros((3, 2))}))

    assert e.value.help == "transpose them: rows are query, columns key"


def test_a_gradient_that_is_no_multiple_is_not_said_to_be_unsummed():
    fields = {x: draw_normal(i, 1, 6 if x == "q" else 2, 3, 4) for i, x in enumerate("qkv")}
    grads = {"dk": np.zeros((1, 5, 3, 4)), "dout": np.zeros((1, 6, 3, 4))}

    with pytest.raises(InputError) as e:
        check(attncli.Problem(**fields), None, figures_from_arrays(grads))

    assert "add up" not in e.value.help
