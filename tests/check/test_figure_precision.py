"""What is read off figures: the dtype that they come from, and to how many decimals they were rounded."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.check import check, figure_precision
from attncli.check.figure_files import read_figures
from attncli.check.figures import figures_from_arrays
from attncli.check.rules import Rule, compare_cells
from tests.helpers import softmax

RANDOM = np.random.default_rng(5).standard_normal(40)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_numbers_of_a_narrow_dtype_tell_it_also_when_they_are_printed(dtype):
    x = figure_precision.to_dtype(dtype, RANDOM)
    decimals = np.full(x.shape, 10)

    assert figure_precision.infer_dtype(x, "float64") == dtype
    assert figure_precision.infer_dtype(x.round(10), "float64", decimals) == dtype  # rounded
    assert figure_precision.infer_dtype(np.trunc(x * 1e10) / 1e10, "float64", decimals) == dtype  # cut off
    assert figure_precision.infer_dtype(RANDOM.round(10), "float64", decimals) == "float64"


def test_whole_numbers_and_sixteenths_tell_no_dtype_unless_something_else_was_due():
    x = np.array([17.0, 100.0, -3.25, 45.5])

    assert figure_precision.infer_dtype(x, "float64") == "float64"
    assert figure_precision.infer_dtype(x, "float64", None, exact=x) == "float64"
    assert figure_precision.infer_dtype(x, "float64", None, exact=x + 0.01) == "bfloat16"


@pytest.mark.parametrize(("dtype", "decimals"), [("float64", 4), ("float64", 8), ("float32", 3), ("float16", 2)])
def test_rounded_arrays_tell_their_decimals(dtype, decimals):
    rounded = RANDOM.round(decimals).astype(dtype).astype(float)

    assert figure_precision.infer_decimals(rounded, dtype) == decimals
    assert (
        figure_precision.infer_decimals(
            figure_precision.to_dtype(dtype, RANDOM) if dtype != "float64" else RANDOM, dtype
        )
        is None
    )


def test_short_numbers_beside_long_ones_lost_their_zeros():
    values = np.array([0.5, 1.23456789, 123.456789, 0.0])

    found = figure_precision.implied_decimals(values, np.array([1, 8, 6, 1]), np.array([1, 9, 9, 0]))

    assert found.tolist() == [8, 8, 6, 1]


# ── what may be cut off ──────────────────────────────────────────────────────────────────────────
DIGITS = Rule("digits", "they are written with few digits", "float32")


@pytest.mark.parametrize(
    ("reference", "mine", "right"),
    [
        ([1.23, 0.35], [1.2299, 0.35], True),  # 1.2299999999999998 cut off
        ([1.15, 0.3579], [1.14, 0.35], True),  # 1.15 · 100 is a little less than 115
        ([2.0, 0.35], [1.0, 0.35], False),
        ([12.35, 0.5, 1.25], [12.34, 0.5, 1.25], True),  # added up in another order it is 12.349999999999998
        ([12.35, 0.5, 3.25], [12.35, 0.5, 3.24], False),  # 3.25 is exact in any order
        ([12.35, 3.47, 0.7], [12.34, 3.46, 0.7], False),  # most of them are lower
        ([1.23, 0.354], [1.22, 0.36], False),  # the other is not cut off
        ([0.30000000000000004, 1.23], [0.3, 1.22], True),  # a computation whose last bits differ
    ],
)
def test_an_exact_decimal_may_have_come_out_lower_where_all_figures_are_cut_off(reference, mine, right):
    decimals = np.array([len(str(x).partition(".")[2]) for x in mine])

    cells = compare_cells(DIGITS, np.array(mine), np.array(reference), decimals, 2.0)

    assert cells.is_right.all() == right


# ── float32 ──────────────────────────────────────────────────────────────────────────────────────
def verdict_of(texts, problem, tmp_path, step="weights"):
    rows = ", ".join("[" + ", ".join(row) + "]" for row in texts)
    (tmp_path / "mine.json").write_text(f'{{"{step}": [{rows}]}}')
    return check(problem, None, read_figures(str(tmp_path / "mine.json")), identify=False)


def test_what_float32_arithmetic_may_be_off_by_is_right_to_float32(tmp_path, attn):
    q, k = np.random.default_rng(1).standard_normal((2, 5, 4)).astype(np.float32)
    problem = attncli.Problem(q=q.astype(float), k=k.astype(float), v=k.astype(float))
    exact = softmax(q.astype(float) @ k.astype(float).T / 2)
    near = [[f"{x + 4e-7:.7f}" for x in row] for row in exact]
    far = [[f"{x + 4e-4:.7f}" for x in row] for row in exact]

    said, exactly = (
        verdict_of(near, problem, tmp_path),
        verdict_of([[f"{x:.7f}" for x in r] for r in exact], problem, tmp_path),
    )

    assert (said.verdict, said.steps[0].is_right_to_float32) == ("right", True)
    assert (exactly.verdict, exactly.steps[0].is_right_to_float32) == ("right", False)
    assert verdict_of(far, problem, tmp_path).verdict == "wrong"


def test_large_scores_in_float32_are_allowed_what_flash_allows():
    q, k = np.random.default_rng(3).standard_normal((2, 64, 16)).astype(np.float32)
    q *= 1000
    k = (k[:1] + k / 1000).astype(np.float32)  # near ties of large scores
    problem = attncli.Problem(q=q, k=k, v=k)
    w = softmax((q @ k.T) * np.float32(0.25))
    assert w.dtype == np.float32

    said = check(problem, None, figures_from_arrays({"weights": w}), identify=False)
    [step] = said.steps

    assert said.verdict == "right"
    assert step.rule.name == "close"
    assert step.rule.allowed_error > 2e-5
    assert (
        check(problem, None, figures_from_arrays({"weights": w + np.float32(1e-2)}), identify=False).verdict == "wrong"
    )


@pytest.mark.parametrize(
    ("figures", "decimals", "exact", "dtypes"),
    [
        ([15.0, -11.0, 82.0], [1, 1, 1], [15.0, -11.0, 81.943526], ["float16", "bfloat16"]),
        ([57.5, 77.5, 65.0], [1, 1, 1], [57.5, 77.4, 64.666667], ["bfloat16"]),
        ([15.0, -11.0, 82.0], [1, 1, 1], [16.0, -11.0, 81.943526], []),  # 16 is a number of each
        ([15.0, -11.0, 82.00], [1, 1, 2], [15.0, -11.0, 81.943526], []),  # nobody's program ends in 82.00 and 15.0
        ([15.0, 0.3, 82.0], [1, 1, 1], [15.0, 0.3, 81.943526], []),  # 0.3 is none of them
    ],
)
def test_short_numbers_may_be_all_that_half_precision_holds(figures, decimals, exact, dtypes):
    found = figure_precision.possible_dtypes_of_short_figures(np.array(figures), np.array(decimals), np.array(exact))

    assert list(found) == dtypes
