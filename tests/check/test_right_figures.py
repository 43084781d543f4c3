"""What is right is called right: PyTorch's kernels, published figures, figures with few digits."""

from __future__ import annotations

import json

import numpy as np
import pytest

import attncli
from attncli.check import check
from attncli.check.figures import figures_from_arrays, figures_from_expected
from tests.check.faulty import Case, case_of, steps
from tests.helpers import GOLDEN, SAMPLES, softmax

pytestmark = [pytest.mark.slow, pytest.mark.uncounted]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_no_result_of_pytorchs_kernels_is_called_wrong(dtype):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    r = torch.Generator().manual_seed(11)
    for trial in range(50):
        b, h, n, m, d = (
            int(torch.randint(low, high, (1,), generator=r))
            for low, high in ((1, 3), (1, 4), (2, 20), (2, 20), (2, 33))
        )
        q, k, v = (torch.randn(b, h, t, d, generator=r).to(getattr(torch, dtype)) for t in (n, m, m))
        how = trial % 3
        mask = torch.rand(b, 1, n, m, generator=r) < 0.7 if how == 1 else None
        if mask is not None:
            mask[..., 0] = True
        with sdpa_kernel(SDPBackend.MATH if trial % 2 else SDPBackend.FLASH_ATTENTION):
            mine = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=how == 2)
        problem = attncli.Problem(q=q, k=k, v=v, mask=mask)
        variant = attncli.Variant(**({"mask": "causal", "align": "top-left"} if how == 2 else {}))

        said = check(problem, variant, figures_from_arrays({"head_context": mine}), layout="bhtd", identify=False)

        assert said.first_wrong_step is None, (trial, said.steps)
        assert said.steps[0].rule.name == ("flash" if dtype.endswith("16") else "close")


@pytest.mark.parametrize(
    "name",
    [
        *("empty_rows_nan", "tiled", "cap_leaks"),
        *(pytest.param(name, marks=pytest.mark.full) for name in ("wide_window", "rope_half", "no_sink", "no_bias")),
    ],
)
def test_a_right_result_is_given_no_fault(name):
    case, function = case_of(name, 0)
    claimed = [step for step in function(case) if step != "q"]
    problem, variant = attncli.Problem(**case.fields), attncli.Variant(**case.choices)
    right = attncli.attend(problem, variant, keep=claimed)

    said = case.verdict({step: right[step].values for step in claimed}, identify=True)

    assert (said.verdict, said.identified, said.nearest_candidates) == ("right", (), ())


def test_identify_says_which_choices_these_figures_cannot_tell():
    case = Case(0, heads=3)  # as many kv heads as heads: how they are shared makes no difference
    s, v = case.scores()

    alike = case.verdict(steps(softmax(s), v), identify=True).equivalent_choices

    assert "--kv-map tile" in alike
    assert "--scale none" not in alike


@pytest.mark.parametrize("seed", [*(pytest.param(seed, marks=pytest.mark.full) for seed in (0, 1)), 2])
def test_noise_is_never_right_nor_a_fault(seed):
    r = np.random.default_rng(seed)
    case = Case(seed, tokens=5, width=8, **[{"heads": 2}, {"heads": 1, "mask": "causal"}, {"heads": 2}][seed])
    noise = [
        {"weights": softmax(r.standard_normal((2, 5, 5)))},
        {"context": r.standard_normal((5, 8)), "output": r.standard_normal((5, 8))},
        {"weights": r.random((2, 5, 5)).round(1)},
    ][seed % 3]

    said = case.verdict(noise)

    assert (said.verdict, said.identified) == ("wrong", ())


def test_a_few_short_figures_are_given_no_fault_by_chance():
    """Among so many computations some give any two digits; that is no evidence."""
    for mine in (0.05, 0.95):
        problem = attncli.read(SAMPLES / "cat_sat.json")
        figures = figures_from_expected(
            {"weights": {"values": np.array([[mine]]), "rows": [1], "columns": [2], "decimals": 2}}, "mine"
        )

        assert check(problem, None, figures).identified == ()


def test_the_published_context_of_hello_shiny_sun_is_wrong_without_a_fault():
    problem = attncli.read(SAMPLES / "hello_shiny_sun.json")
    figures = figures_from_expected(
        {"context": {"values": np.array([[0.3992, 0.3858, 0.8610]]), "rows": [1], "decimals": 4}}, "mine"
    )

    said = check(problem, None, figures)

    assert (said.verdict, said.identified) == ("wrong", ())
    assert said.steps[0].max_abs_error == pytest.approx(0.0004, abs=5e-5)
    assert (said.steps[0].worst_cell, said.steps[0].worst_cell_text) == ({"query": 1, "dim": 1}, "shiny, dim 1")
    assert said.steps[0].wrong_count == 2


@pytest.mark.parametrize(
    "case", json.loads((GOLDEN / "known_wrong.json").read_text())["figures"], ids=lambda c: c["id"]
)
def test_published_figures_that_are_wrong_are_called_wrong(case):
    problem = attncli.Problem(**case["problem"])
    figures = figures_from_expected(
        {s: {"values": np.array(x), "decimals": case["decimals"]} for s, x in case["printed"].items()}, "mine"
    )

    assert check(problem, None, figures, identify=False).verdict == "wrong"
