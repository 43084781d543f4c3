"""Links of the chain that are no family of their own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.helpers import assert_close, assert_identical, compute, draw_normal, softmax, step_names, step_values

pytestmark = pytest.mark.usefixtures("own_stream")
B, H, G, N, M, D, E, C = 2, 6, 3, 4, 5, 8, 7, 9  # batch, heads, kv heads, queries, keys, width of q, of another k, of v


@pytest.mark.parametrize("base", [3, 1.5, 100])
def test_log_n_counts_what_a_query_sees(base: float) -> None:
    q = draw_normal(60, B, H, M, D)
    result = compute({"q": q, "k": q, "lengths": [M, 3]}, log_n=base, mask="causal")
    s = q @ q.swapaxes(-1, -2) / math.sqrt(D)

    assert step_names(result)[2:6] == ["scores", "scaled_scores", "length_scaled_scores", "mask"]
    for b, length in enumerate([M, 3]):
        for i in range(M):
            n = min(i + 1, length)
            grown = s[b, :, i] * max(1, math.log(n) / math.log(base))
            assert_close(step_values(result, "length_scaled_scores")[b, :, i], grown)
            assert_close(step_values(result, "weights")[b, :, i, :n], softmax(grown[:, :n]))


def test_log_n_of_a_query_that_sees_nothing_is_finite() -> None:
    q, k = draw_normal(61, N, D), draw_normal(62, M, D)
    mask = np.ones((N, M), bool)
    mask[2] = False
    result = compute({"q": q, "k": k, "mask": mask}, log_n=2)

    assert_close(step_values(result, "length_scaled_scores")[2], (q @ k.T / math.sqrt(D))[2])
    assert_identical(step_values(result, "weights")[2], np.zeros(M))
    assert [w.partition(":")[0] for w in result.warnings] == ["empty-rows"]
