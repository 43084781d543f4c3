"""By which rule a figure is right, which wrong step is the cause, and what a tolerance lets pass."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.check import check
from attncli.check.figure_files import read_figures
from attncli.check.figures import figures_from_arrays, figures_from_expected
from attncli.check.rules import Rule, compare_cells
from tests.check.faulty import Case, masked, merge, triangle
from tests.helpers import draw_normal, softmax

# ── rules ────────────────────────────────────────────────────────────────────────────────────────
ONE = {"q": [[1.0]], "k": [[0.0]], "v": [[0.25]]}  # one key: the context is v


def one_context(text, tmp_path, value=0.25, **options):
    (tmp_path / "mine.json").write_text(f'{{"context": [[{text}]]}}')
    problem = attncli.Problem(**{**ONE, "v": [[value]]})
    return check(problem, None, read_figures(str(tmp_path / "mine.json")), identify=False, **options).steps[0]


@pytest.mark.parametrize(
    ("value", "text", "right"),
    [
        (0.23849, "0.238", True),
        (0.23851, "0.239", True),  # rounded
        (0.23851, "0.238", True),  # cut off
        (0.23849, "0.239", False),  # neither
        (0.23849, "0.237", False),
        (0.25, "0.2", True),  # a tie goes either way
        (0.25, "0.3", True),
        (0.25, "0.25", True),
        (0.3, "0.2", False),  # one unit off is not cut off
        (-0.23851, "-0.238", True),
        (-0.23851, "-0.239", True),
        (-0.23851, "0.239", False),
        (-0.00004, "0.0000", True),
        (-0.00004, "-0.0000", True),
        (0.00006, "0.0000", True),
        (0.5, "0.50", True),
        (0.504, "0.50", True),
        (0.504, "0.5", True),
        (0.514, "0.50", False),
        (0.514, "0.5", True),
        (1234.4, "1234", True),
        (1234.4, "1.2e3", True),
        (1234.4, "1.3e3", False),
        (0.00123, "1.2e-3", True),
        (1.8609999999999998, "1.8609", True),  # cut off just below a digit's edge
        (1.8609999999999998, "1.861", True),
        (-1.8609999999999998, "-1.8609", True),
        (1.8610000000000002, "1.8609", True),  # the reference may be off by some units in the last place
        (1.861, "1.8609", False),  # on the edge itself nothing is cut off
        (1.8609999999999998, "1.8608", False),
        (1.86095, "1.8608", False),
        (2.0, "1", False),
        (123.0, "122", False),
        (0.25, "0e5", True),
        (1.25, "0e5", False),
    ],
)
def test_digits(value, text, right, tmp_path):
    found = one_context(text, tmp_path, value)

    assert found.rule.name == "digits"
    assert found.is_right is right


def test_arrays_that_were_rounded_are_judged_by_their_digits():
    case = Case(0)
    w = softmax(case.scores()[0])
    found = case.verdict({"weights": w.round(4)}).steps[0]
    off = case.verdict({"weights": (w + 2e-4).round(4)}, identify=False).steps[0]

    assert (found.rule.name, found.is_right, found.decimals) == ("digits", True, 4)
    assert (off.rule.name, off.is_right) == ("digits", False)
    assert case.verdict({"weights": w.astype(np.float32).astype(float)}).steps[0].rule.dtype == "float32"


def test_the_rule_of_a_step_comes_from_its_own_figures(tmp_path):
    problem = attncli.Problem(q=[[1.0]], k=[[2.04]], v=[[0.123456789012345, 3.0]])

    def judge(scores, context):
        (tmp_path / "mine.json").write_text(f'{{"scores": [[{scores}]], "context": [[{context}]]}}')
        said = check(problem, None, read_figures(str(tmp_path / "mine.json")), identify=False)
        return [(step.rule.name, step.is_right) for step in said.steps]

    assert judge("2.0", "0.123456789012345, 3.0") == [("digits", True), ("close", True)]
    assert judge("2.1", "0.123456789012345, 3.0") == [("digits", False), ("close", True)]
    assert judge("2.0", "0.123456789012345, 3.1")[1] == ("close", False)  # of a step with long figures


@pytest.mark.parametrize(("dtype", "near", "far"), [(np.float64, 5e-10, 5e-9), (np.float32, 5e-6, 1e-4)])
def test_close(dtype, near, far):
    case = Case(0)
    w = softmax(case.scores()[0])

    assert case.verdict({"weights": (w * (1 + near)).astype(dtype)}).verdict == "right"
    assert case.verdict({"weights": (w * (1 + far)).astype(dtype)}, identify=False).verdict == "wrong"


@pytest.mark.slow
def test_tolerances_of_expected_and_of_the_command_line_are_numpys():
    problem = attncli.Problem(**{**ONE, "v": [[2.0]]})

    def right(mine, **said):
        return (
            check(problem, None, figures_from_expected({"context": {"values": np.array([[mine]]), **said}}, "mine"))
            .steps[0]
            .is_right
        )

    assert right(2.019, rtol=0.01)
    assert not right(2.021, rtol=0.01)
    assert right(2.021, rtol=0.01, atol=0.002)
    assert not right(2.0000001, rtol=0.0, atol=0.0)


def test_flash_allows_twice_the_error_of_plain_half_precision():
    import torch

    case = Case(2, tokens=9, width=12, heads=2)
    s, v = case.scores()
    right = merge(softmax(s) @ v)

    def verdict(off):
        return case.verdict({"context": torch.as_tensor(right + off).half()}, identify=False).steps[0]

    bound = verdict(0).rule.allowed_error
    assert verdict(0).rule.plain_error < bound < 0.02
    assert verdict(0).is_right
    assert not verdict(1.6 * bound).is_right
    assert verdict(0).max_ulp_error <= 0.5
    assert bound == 2 * verdict(0).rule.plain_error > 0


def test_flash_allows_two_units_where_plain_attention_makes_no_error():
    import torch

    one_key = attncli.Problem(q=[[1.0]], k=[[1.0]], v=[[3.0]])  # its context is 3, in [2, 4)

    [step] = check(one_key, None, figures_from_arrays({"context": torch.tensor([[3.0]]).half()})).steps

    assert (step.rule.plain_error, step.rule.allowed_error) == (0, 2 * 2.0**-9)


@pytest.mark.slow
def test_what_is_not_finite_must_be_the_same():
    case = Case(0, mask="causal")
    s, _ = case.scores()
    mine = masked(s, triangle(case.n))
    finite, nan = (np.where(np.isinf(mine), fill, mine) for fill in (-1e9, np.nan))

    assert case.verdict({"masked_scores": mine}).verdict == "right"
    assert case.verdict({"masked_scores": finite}, identify=False).steps[0].max_abs_error == np.inf
    assert case.verdict({"masked_scores": nan}, identify=False).verdict == "wrong"
    assert "fill −1e9 instead of −∞" in case.verdict({"masked_scores": finite}).identified[0].names


def test_booleans_integers_and_ties():
    problem = attncli.Problem(q=[[1.0]], k=[[3.0], [1.0], [3.0], [0.0]], v=[[1.0], [2.0], [3.0], [4.0]])

    def right(step, values):
        return check(problem, None, figures_from_arrays({step: np.array(values)}), identify=False).verdict == "right"

    assert right("top_keys", [[0, 2]])
    assert right("top_keys", [[2, 0]])  # equal weights: either first
    assert not right("top_keys", [[0, 1]])
    assert not right("top_keys", [[0, 0]])
    assert right("visible_keys", [4])
    assert not right("visible_keys", [3])


def test_the_first_wrong_step_is_the_cause_of_those_that_follow_from_it():
    case = Case(0)
    s, v = case.scores()
    s = s * 1.5
    follows = {"scaled_scores": s, "weights": softmax(s), "context": merge(softmax(s) @ v)}
    own = {**follows, "context": follows["context"] + 0.1}

    causes = [f.cause_text for f in case.verdict(follows, identify=False).steps]
    assert causes == ["first", "follows from your scaled_scores", "follows from your weights"]
    assert case.verdict(own, identify=False).steps[2].cause_text == "wrong by itself, even from your weights"
    assert case.verdict(own, identify=False).first_wrong_step == "scaled_scores"


def test_what_follows_from_figures_that_were_rounded_is_judged_with_their_rounding():
    """The figures come from all digits, and are printed with 2 and with 4: from the printed scores the weights differ."""
    case = Case(0)
    s, v = case.scores()
    s = s * 1.5
    problem, variant = attncli.Problem(**case.fields), attncli.Variant(**case.choices)
    printed = {"scaled_scores": (s, 2), "weights": (softmax(s), 4), "head_context": (softmax(s) @ v, 4)}

    def causes(changed_step=""):
        expected = {
            step: {"values": (x + 0.1 * (step == changed_step)).round(decimals), "decimals": decimals}
            for step, (x, decimals) in printed.items()
        }
        said = check(problem, variant, figures_from_expected(expected, "mine"), identify=False)
        return [step.cause_text for step in said.steps]

    assert np.abs(softmax(s.round(2)) - softmax(s)).max() > 1e-4
    assert causes() == ["first", "follows from your scaled_scores", "follows from your weights"]
    assert causes("weights")[1] == "wrong by itself, even from your scaled_scores"
    assert causes("head_context")[2] == "wrong by itself, even from your weights"


# ── power ────────────────────────────────────────────────────────────────────────────────────────
def told(verdict):
    return {p.name: p.caught for p in verdict.sensitivity_checks}


def test_a_tolerance_that_lets_wrong_figures_pass_is_too_loose():
    case = Case(0)
    s, v = case.scores()
    right = merge(softmax(s) @ v)

    strict, loose = case.verdict({"context": right}), case.verdict({"context": right}, atol=50.0)

    assert strict.verdict == "right"
    assert set(told(strict).values()) == {True}
    assert set(told(strict)) == {"uniform weights", "shuffled values", "no scale", "another head's figures"}
    assert loose.verdict == "too-loose"
    assert set(told(loose).values()) == {False}


def test_what_cannot_be_told_here_is_no_fault_of_the_tolerance():
    one_key = check(attncli.Problem(**ONE), None, figures_from_arrays({"context": np.array([[0.25]])}))
    equal = attncli.Problem(q=[[1.0, 2.0]], k=[[1.0, 0.5], [0.0, 1.0]], v=[[3.0], [3.0]])
    same_values = check(equal, None, figures_from_arrays({"context": np.array([[3.0]])}))
    scores = check(equal, None, figures_from_arrays({"scores": np.array([[2.0, 2.0]])}))

    assert one_key.verdict == same_values.verdict == scores.verdict == "right"
    assert {p.reason for p in one_key.sensitivity_checks} == {"there is only one key"}
    assert told(same_values)["shuffled values"] is None
    assert [p.reason for p in scores.sensitivity_checks] == ["only scores were given"] * 3


def test_what_cannot_be_told_is_said_of_one_step_and_of_several():
    problem = attncli.Problem(embeddings=[[1.0, 2.0], [0.5, 1.0]])
    right = attncli.attend(problem)
    one = check(problem, None, figures_from_arrays({"scores": right["scores"].values}))
    two = check(problem, None, figures_from_arrays({x: right[x].values for x in ("q", "scores")}))

    assert {c.name: c.reason for c in one.sensitivity_checks}["shuffled values"] == "only scores were given"
    assert {c.name: c.reason for c in two.sensitivity_checks}["shuffled values"] == "only q and scores were given"


@pytest.mark.parametrize(
    ("rtol", "atol", "tolerance"), [(0.1, 0.0, [0.2, 0.4]), (0.0, 0.3, [0.3, 0.3]), (0.1, 0.3, [0.5, 0.7])]
)
def test_a_tolerance_is_a_share_of_the_reference_and_an_amount(rtol, atol, tolerance):
    rule = Rule("close", "from the command line", "float64", rtol, atol)

    cells = compare_cells(rule, np.array([2.1, -4.6]), np.array([2.0, -4.0]), None, 4.0)

    np.testing.assert_allclose(cells.tolerance, tolerance)
    np.testing.assert_array_equal(cells.is_right, [True, tolerance[1] > 0.6])


@pytest.mark.parametrize("step", ["weights", "context"])
def test_heads_that_are_alike_cannot_be_told_apart(step):
    q, k, v = (
        np.repeat(draw_normal(seed, 1, 1, 4, 3), 2, axis=1) for seed in (1, 2, 3)
    )  # two heads of the same numbers
    problem = attncli.Problem(q=q, k=k, v=v)

    said = check(problem, None, figures_from_arrays({step: attncli.attend(problem)[step].values}))

    [other_head] = [c for c in said.sensitivity_checks if c.name == "another head's figures"]
    assert (other_head.caught, other_head.reason) == (None, "it gives the right figures here")


# ── keys of equal weight ─────────────────────────────────────────────────────────────────────────
EQUAL_KEYS = attncli.Problem(q=[[1.0, 0.0]], k=[[1.0, 2.0], [0.0, 1.0], [1.0, 3.0], [0.0, 5.0]])  # 0 and 2, 1 and 3 tie


@pytest.mark.parametrize(
    ("top_keys", "is_right"),
    [
        ([0, 2, 1], True),
        ([2, 0, 1], True),
        ([2, 0, 3], True),
        ([0, 0, 1], False),  # no key stands twice
        ([0, 1, 2], False),
        ([0, 2, 4], False),  # there is none
        ([0, 2, -1], False),
    ],
)
def test_keys_of_equal_weight_may_stand_in_any_order(top_keys, is_right):
    said = check(EQUAL_KEYS, None, figures_from_arrays({"top_keys": np.array([top_keys])}), identify=False)

    assert said.steps[0].is_right is is_right
