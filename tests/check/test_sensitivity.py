"""When figures are too near each other to tell one computation from another."""

from __future__ import annotations

import numpy as np
import pytest

from attncli.check.sensitivity import are_nearly_equal

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("value", "reference", "is_near"),
    [
        (INF, INF, True),
        (-INF, -INF, True),
        (-INF, INF, False),
        (INF, 1.0, False),
        (NAN, NAN, True),
        (NAN, 1.0, False),
        (1.0, 1.5, False),
        (1.5, 1.0, False),
        (0.0, 0.0, True),
        (1.0, 1.0 + 1e-13, True),
    ],
)
def test_figures_are_near_if_no_ordinary_tolerance_tells_them_apart(value, reference, is_near):
    assert are_nearly_equal(np.array([value]), np.array([reference]), 4.0).tolist() == [is_near]
