"""What small functions of the check return, where no larger test looks at it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import attncli
from attncli.check import check, figure_precision
from attncli.check.claims import Claim, largest_claimed_rank
from attncli.check.comparison import Comparison, _is_constant
from attncli.check.equivalents import _is_proved
from attncli.check.evidence import Evidence, _differ_beyond_noise, _has_more_decimals
from attncli.check.faults import fault_hypotheses
from attncli.check.faults.rope_and_qk_norm import _rotate
from attncli.check.faults.rounding import _dot_products_in_float16
from attncli.check.figures import StepFigures, figures_from_arrays, figures_from_result, step_figures_from_texts
from attncli.check.labels import find_labelled_indices
from attncli.check.plain_attention_errors import PlainErrors
from attncli.check.query_samples import choose_large_queries, choose_queries
from attncli.check.regions import _MAX_MAP_COLUMNS, _make_bins
from attncli.check.rules import Rule, choose_rule, compare_cells, largest_finite, written_decimals
from attncli.check.score_rows import ScoreRows
from attncli.check.task import prepare
from attncli.check.tile_weights import softmax_of
from attncli.check.wrong_answers import wrong_answers
from attncli.errors import InputError
from attncli.variant import FAMILIES, Variant
from tests.check.faulty import rope
from tests.check.gradient_kernels import Case, backward
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


@pytest.mark.parametrize(
    ("labels", "length", "found"),
    [(["0", "1", "2", "3"], 2, [0, 1]), (["1", "2", "3", "4"], 2, [0, 1]), (["2", "3", "0", "1"], 2, None), (["7"], 2, None)],
)  # fmt: skip
def test_more_labels_than_dims_are_those_of_heads_side_by_side_if_they_count(labels, length, found):
    if found is None:
        with pytest.raises(InputError, match="does not say which dim"):
            find_labelled_indices(labels, (), length, "dim", "column", "head_context")
    else:
        assert find_labelled_indices(labels, (), length, "dim", "column", "head_context").tolist() == found


@pytest.mark.parametrize(
    ("values", "largest"),
    [([-3.0, 2.0, np.inf, NAN], 3.0), ([3, -7], 1.0), ([True], 1.0), ([NAN], 0.0)],  # what counts has no units
)
def test_the_largest_figure_is_a_finite_one(values, largest):
    assert largest_finite(np.array(values)) == largest


# ── what is tried ────────────────────────────────────────────────────────────────────────────────
def trials_of(fields, step="context", **choices):
    """The trials of a problem whose figures are right, and the reference."""
    problem, variant = attncli.Problem(**fields), Variant(**choices)
    comparison = Comparison(prepare(problem, variant, figures_from_arrays({step: attncli.attend(problem, variant)[step].values})))  # fmt: skip
    return comparison.trials, comparison.reference


def test_each_choice_is_left_out_once_to_see_whether_the_figures_would_tell():
    trials, reference = trials_of(
        {"embeddings": draw_normal(1, 5, 8)}, heads=2, mask="causal", softcap=2.0, position="rope", qk_norm="l2"
    )

    names = [wrong.name for wrong in wrong_answers(trials, reference)]

    assert {name for name in names if name.startswith("--")} == {
        *("--qk-norm none", "--position none", "--scale none", "--softcap none")
    }


@pytest.mark.parametrize(
    ("parameters", "choices"), [({f"w_{x}": np.eye(4) for x in "qkv"}, {}), ({}, {"projection": "randn:seed=1,dim=4"})]
)
def test_v_that_is_not_projected_is_tried_once_whether_its_matrix_is_given_or_drawn(parameters, choices):
    trials, _ = trials_of({"embeddings": draw_normal(1, 5, 4), "parameters": parameters}, **choices)

    assert [h.name for h in fault_hypotheses(trials)].count("v not projected") == 1


def test_rows_of_keys_and_values_may_be_off_by_one_and_a_querys_are_those_of_its_context():
    names = [h.name for h in fault_hypotheses(trials_of({"embeddings": draw_normal(1, 5, 4)}, heads=2)[0])]

    assert [name.removesuffix(" of the token before") for name in names if name.endswith(" of the token before")] == [
        *("k", "v", "k and v")
    ]
    assert "context of the query before" in names


@pytest.mark.parametrize(("queries", "rows"), [(16, "8 to 15"), (17, "16 to 16"), (9, "8 to 8")])
def test_the_last_block_of_queries_is_left_out_whole_or_not(queries, rows):
    trials, reference = trials_of({"embeddings": draw_normal(1, queries, 4)})

    [name] = [wrong.name for wrong in wrong_answers(trials, reference) if wrong.name.endswith("not written")]

    assert name == f"queries {rows} not written"


def test_the_options_of_a_scaled_rotation_are_left_out_together():
    trials, _ = trials_of(
        {"embeddings": draw_normal(1, 5, 8)}, position="rope:theta=500,scaling=linear,factor=2", qk_norm="rms:eps=0.1"
    )

    names = [hypothesis.name for hypothesis in fault_hypotheses(trials)]

    assert [name for name in names if name.startswith("rope without")] == ["rope without theta", "rope without scaling"]
    assert "rms without eps" in names


def test_blocks_are_of_the_usual_sizes_up_to_the_number_of_keys():
    trials, _ = trials_of({"embeddings": draw_normal(1, 130, 2)})

    sizes = [re.findall(r"^last key repeated in the last block, blocks of (\d+)", h.name) for h in fault_hypotheses(trials)]  # fmt: skip

    assert [int(size) for found in sizes for size in found] == [8, 16, 32, 64, 128]


def test_what_no_scale_changes_is_not_offered_where_nothing_is_scaled():
    names = {h.name for h in fault_hypotheses(trials_of({"embeddings": draw_normal(1, 5, 4)}, scale="none")[0])}

    assert "scale 1/√d_k" in names
    assert not names & {"no scale", "scale applied twice"}


def test_rounding_is_named_after_whatever_else_may_be():
    hypotheses = [*fault_hypotheses(trials_of({"embeddings": draw_normal(1, 9, 4)}, mask="causal")[0])]

    assert {h.implausibility for h in hypotheses if h.is_rounding} == {max(h.implausibility for h in hypotheses)} == {3}


@pytest.mark.parametrize(("rows", "edge"), [(27, "from query 16 on, a multiple of 16:"), (28, "from query 17 on:")])
def test_the_edge_from_which_rows_are_missing_is_named_by_the_largest_block(rows, edge):
    context = draw_normal(2, rows, 4)
    context[rows - 11 :] = 0
    task = prepare(attncli.Problem(embeddings=draw_normal(1, rows, 4)), Variant(), figures_from_arrays({"context": context}))  # fmt: skip

    [said] = [h.description for h in fault_hypotheses(Comparison(task).trials) if h.name == "last queries not written"]

    assert said.startswith(f"with 0 for the last 11 queries, {edge}")


def test_a_product_in_float16_rounds_each_term_and_each_sum():
    q, k = draw_normal(1, 1, 1, 2, 5), draw_normal(2, 1, 1, 3, 5)
    expected = np.zeros((2, 3), np.float16)
    for i in range(5):
        terms = np.outer(q[0, 0, :, i].astype(np.float16), k[0, 0, :, i].astype(np.float16)).astype(np.float16)
        expected = (expected + terms).astype(np.float16)

    scores = _dot_products_in_float16(None, torch.tensor(q), torch.tensor(k), {})

    np.testing.assert_array_equal(scores[0, 0].numpy(), expected)


def test_plain_arithmetic_is_computed_once_and_drawn_only_where_it_is_asked_for():
    fields = {"embeddings": draw_normal(1, 5, 8)}
    trials, reference = trials_of(fields, "weights")
    computed = attncli.attend(attncli.Problem(**fields), dtype="float16")["weights"].values.astype(np.float64)
    errors = PlainErrors(trials, reference, 25)

    plain = errors.largest_error("weights", "float16")

    assert plain == np.abs(computed - reference["weights"]).max()
    assert errors.largest_error("weights", "float16", is_drawn=True) > plain


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_a_rotation_with_nothing_wrong_turns_each_pair(layout):
    x, positions = draw_normal(1, 1, 2, 5, 6), torch.arange(5.0).reshape(1, 1, 5, 1)

    turned = _rotate(torch.tensor(x), positions, FAMILIES["position"].parse(f"rope:layout={layout}"))

    np.testing.assert_allclose(turned[0].numpy(), rope(x[0], layout), atol=1e-6)


def test_a_cache_that_was_forgotten_gives_the_figures_of_the_new_keys_alone():
    new = {name: draw_normal(i, 1, 2, 3, 4) for i, name in enumerate("qkv")}
    past = {name: draw_normal(i, 1, 2, 5, 4) for i, name in enumerate("kv", 3)}
    trials, _ = trials_of({**new, "past": past}, "head_context")

    [plan] = [h.compute() for h in fault_hypotheses(trials) if h.name == "past forgotten"]

    alone = attncli.attend(attncli.Problem(**new), keep=["head_context"])["head_context"].values
    np.testing.assert_allclose(trials.compute_steps(plan)["head_context"], alone, atol=1e-15)


# ── rows of scores ───────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("step", ["log_sum_exp", "context", "weights"])
def test_the_rows_that_are_furthest_off_are_looked_at_and_give_the_reference(step):
    problem, variant = attncli.Problem(embeddings=draw_normal(1, 12, 6)), Variant(heads=2, mask="causal")
    claimed = attncli.attend(problem, variant, keep=[step])[step].values.copy()
    wrong = [1, 3, 4, 7, 8, 11]
    np.moveaxis(claimed, {"context": 0}.get(step, 1), 0)[wrong] += 0.5

    task = prepare(problem, variant, figures_from_arrays({step: claimed}))
    rows = ScoreRows(Comparison(task).trials)
    figures = rows._figures((softmax_of(rows.scores), softmax_of(rows.scores)))

    assert rows.queries.tolist() == wrong
    assert np.abs(rows.claimed - figures) == pytest.approx(0.5)


def test_a_problem_of_more_scores_is_not_looked_at_row_by_row(monkeypatch):
    trials, _ = trials_of({"embeddings": draw_normal(1, 12, 6)}, heads=2)

    monkeypatch.setattr("attncli.check.score_rows._MAX_NUMBERS", 2 * 12 * 12)
    assert ScoreRows(trials).step == "context"
    monkeypatch.setattr("attncli.check.score_rows._MAX_NUMBERS", 2 * 12 * 12 - 1)
    with pytest.raises(ValueError, match="too large"):
        ScoreRows(trials)


# ── comparing ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("values", "is_constant"),
    [([1.0, 1.0], True), ([1.0, 2.0], False), ([NAN, NAN], True), ([NAN, 1.0], False), ([1, 2], False), ([3, 3], True)],
)
def test_figures_are_constant_where_all_are_equal_or_none_is_a_number(values, is_constant):
    assert _is_constant(np.array(values)) is is_constant


@pytest.mark.parametrize(("name", "allowed"), [("flash", 0.1), ("close", 0.01)])
def test_larger_figures_are_rounded_to_larger_units_under_flash_alone(name, allowed):
    problem = attncli.Problem(embeddings=draw_normal(1, 3, 4))
    weights = attncli.attend(problem)["weights"].values
    comparison = Comparison(prepare(problem, Variant(), figures_from_arrays({"weights": weights})))
    comparison.rules = (Rule(name, "", "float32", rtol=0.0, atol=0.0, allowed_error=0.01),)

    cells = comparison.compare(0, weights, largest_figure=10 * weights.max())

    np.testing.assert_allclose(cells.tolerance, allowed, rtol=1e-12)


def test_a_tolerance_beside_the_digits_of_a_worksheet_is_relative_to_the_reference():
    rule = Rule("digits", "", "float64", rtol=0.1, atol=0.01)
    reference, zero = np.array([8.0, -4.0]), np.zeros(2, np.int64)

    cells = compare_cells(rule, np.array([8.8, -4.42]), reference, zero + 3, 8.0)

    np.testing.assert_allclose(cells.tolerance, [0.81, 0.41], rtol=1e-12)
    assert cells.is_right.tolist() == [True, False]


@pytest.mark.parametrize(("dtype", "judged"), [("text", "float32"), ("float64", "float32"), ("float16", "float16")])
def test_flash_judges_what_says_no_narrow_dtype_as_float32(dtype, judged):
    figures = StepFigures("weights", np.zeros((2, 2)), dtype, np.full((2, 2), 3))
    index = tuple(np.indices((2, 2)))

    rule = choose_rule(Claim("weights", ("query", "key"), figures.values, index, True, figures, None), "flash", None, None)  # fmt: skip

    assert (rule.name, rule.dtype, rule.reason) == ("flash", judged, "--rule flash")


def test_a_statistic_of_many_scores_costs_too_much(monkeypatch):
    comparison = Comparison(
        prepare(
            attncli.Problem(embeddings=draw_normal(1, 3, 4)), Variant(), figures_from_arrays({"weights": np.eye(3)})
        )
    )

    assert comparison.row_statistic("log_sum_exp").shape == (3,)
    monkeypatch.setattr("attncli.check.comparison._MAX_STATISTIC_SCORES", 8)
    assert comparison.row_statistic("log_sum_exp") is None


@pytest.mark.parametrize(("values", "decimals", "has_more"), [([0.004], 2, True), ([0.123], 2, True), ([0.12, NAN], 2, False), ([3.0], 0, False), ([2.5], 0, True)])  # fmt: skip
def test_decimals_are_counted_of_what_is_a_number(values, decimals, has_more):
    assert _has_more_decimals(np.array(values), decimals) is has_more


@pytest.mark.parametrize(
    ("name", "relative", "decimals"),
    [("exact", False, None), ("close", False, None), ("close", True, 3), ("flash", False, 3), ("digits", False, 3)],
)
def test_decimals_count_unless_a_tolerance_or_equality_is_asked_for(name, relative, decimals):
    figures = StepFigures("weights", np.zeros((2, 2)), "text", np.full((2, 2), 3))
    claim = Claim("weights", ("query", "key"), figures.values, (), True, figures, figures.decimals)

    written = written_decimals(claim, Rule(name, "", "float32", 0.0, 0.0, atol_is_relative=relative))

    assert written is None if decimals is None else (written == decimals).all()


# ── samples of queries ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("factor", "is_proved"), [(1.0, False), (2.0, True)])
def test_a_later_step_tells_on_a_sample_whether_it_comes_of_other_figures(factor, is_proved):
    problem, variant = attncli.Problem(embeddings=draw_normal(1, 7, 4)), Variant(mask="causal")
    right = attncli.attend(problem, variant)
    claims = {step: right[step].values for step in ("scores", "weights")}
    comparison = Comparison(prepare(problem, variant, figures_from_arrays(claims)))
    comparison.__dict__["sample"] = comparison.at_queries(np.array([1, 4]))

    assert _is_proved(comparison, 0, right["scores"].values * factor) is is_proved


def test_gradients_that_queries_share_are_no_evidence_on_a_sample():
    case = Case(batch=1, queries=9, keys=9)
    figures = figures_from_arrays({**backward(case), "dk": np.zeros_like(case.k)})
    comparison = Comparison(prepare(attncli.Problem(**case.problem_fields()), Variant(), figures))

    sample = comparison.at_queries(np.array([1, 4]))

    [n] = [n for n, claim in enumerate(comparison.task.claims) if claim.step == "dk"]
    assert comparison.wrong_claims == {n}
    assert sample.wrong_claims == set()
    assert not np.allclose(sample.reference["dk"], comparison.reference["dk"])  # of two queries, not of nine


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
