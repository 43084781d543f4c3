"""Norms of rows that are very small, against the formulas in 60 digits."""

from __future__ import annotations

import mpmath
import pytest
import torch

from attncli.parts.magnitudes import sum_exactly
from attncli.parts.norms import norm
from attncli.parts.scores import score

TINY = {torch.float64: 5e-324, torch.float32: 2.0**-149}  # the smallest number of each dtype
ROWS = {
    torch.float64: [[5e-324, 0, 0], [1e-310, -2e-310, 0], [3e-308, 1e-309, 2e-308], [0, 0, 0]],
    torch.float32: [[2.0**-149, 0, 0], [1e-40, -2e-40, 0], [3e-38, 1e-39, 2e-38], [0, 0, 0]],
}


def exact_norm(name, row, eps):
    """The formula of a norm in 60 digits; a row of zeros remains one."""
    with mpmath.workdps(60):
        x = [mpmath.mpf(value) for value in row]
        if name == "layer":
            mean = sum(x) / len(x)
            x = [value - mean for value in x]
        squares = sum(value * value for value in x)
        length = max(mpmath.sqrt(squares), eps) if name == "l2" else mpmath.sqrt(squares / len(x) + eps)
        return [float(value / length) if length else 0.0 for value in x]


@pytest.mark.parametrize("dtype", ROWS)
@pytest.mark.parametrize("name", ["l2", "rms", "layer"])
@pytest.mark.parametrize("eps", [1e-12, None])
def test_rows_below_the_smallest_normal_number_are_normed_by_the_formula(dtype, name, eps):
    eps = TINY[dtype] if eps is None else eps
    x = torch.tensor(ROWS[dtype], dtype=dtype)

    found = norm.parse(f"{name}:eps={eps!r}")(x[None, None])[0, 0]

    for row, values in zip(x.tolist(), found.tolist(), strict=True):
        expected = exact_norm(name, row, torch.tensor(eps, dtype=dtype).item())
        unit = torch.finfo(dtype).eps
        assert values == pytest.approx(expected, rel=16 * unit, abs=max(map(abs, expected)) * 16 * unit + TINY[dtype])


@pytest.mark.parametrize("name", ["l2", "rms", "layer"])
def test_an_eps_that_the_dtype_cannot_hold_leaves_rows_of_zeros(name):
    x = torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 5.0]])

    found = norm.parse(f"{name}:eps=1e-60")(x[None, None])[0, 0]

    assert found[0].tolist() == [0, 0, 0]
    assert found[1].tolist() == pytest.approx(exact_norm(name, [3, 4, 5], 0), rel=1e-6)


def test_cosines_of_the_smallest_vectors_are_those_of_their_directions():
    q = torch.tensor([[1e-310, 2e-310], [5e-324, 0], [0, 0]], dtype=torch.float64)[None, None]

    cosines = score.parse("cosine")(q, torch.tensor([[2.0, 1.0]], dtype=torch.float64)[None, None], {})[0, 0, :, 0]

    assert cosines.tolist() == pytest.approx([4 / 5, 2 / 5**0.5, 0], rel=1e-12)


def test_a_sum_has_the_digits_of_its_terms():
    x = torch.tensor([[1e16, 1.0, -1e16], [0.5, 0.25, 0.125]], dtype=torch.float64)

    total, lost = sum_exactly(x)
    assert (total + lost).tolist() == [[1.0], [0.875]]
