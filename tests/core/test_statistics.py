"""The largest weights of long rows, and what is warned about."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import attncli
from attncli.core.statistics import _TOPK_BLOCK_COLUMNS, _blockwise_topk, enter_largest, largest_columns, top_weights
from attncli.variant import Variant
from tests.helpers import draw_normal


@pytest.mark.parametrize("beyond", [0, 1, 37])
@pytest.mark.parametrize("count", [1, 3])
def test_the_largest_of_long_rows_are_topks(count, beyond):
    """Some lie in whole blocks, some in the columns behind the last."""
    columns = 5 * count * _TOPK_BLOCK_COLUMNS + beyond
    w = torch.as_tensor(draw_normal(1, 2, 3, 4, columns))
    w[..., -1] = 9.0  # in every row one of the last column
    w[0, 0, 0, 3] = 10.0

    largest, found = _blockwise_topk(w, count)

    expected, expected_columns = w.topk(count, -1)
    assert torch.equal(largest, expected)
    assert torch.equal(found, expected_columns)


def test_equal_weights_are_named_from_the_first_key_on():
    w = torch.tensor([[[[0.1, 0.3, 0.3, 0.3, 0.0], [0.5, 0.1, 0.2, 0.2, 0.0], [0.2, 0.2, 0.2, 0.2, 0.2]]]])

    weights, keys = top_weights(w, 2, (slice(0, 5),), 5)

    assert keys.tolist() == [[[[1, 2], [0, 2], [0, 1]]]]
    assert torch.equal(weights, w.gather(-1, keys))


@pytest.mark.parametrize("spread", [3, 1000])  # of integers: with many ties, and with few
@pytest.mark.parametrize(("keys_per_block", "count"), [(64, 1), (128, 2), (96, 5), (50, 3)])
def test_scores_enter_the_largest_block_by_block_as_if_all_were_sorted(spread, keys_per_block, count):
    s = torch.as_tensor(np.random.default_rng(spread).integers(0, spread, (1, 2, 5, 500)).astype(float))
    s[0, 1, 2, :480] = -torch.inf  # a row that sees few keys
    largest = None
    for keys in torch.arange(500).split(keys_per_block):
        block = s[..., keys]
        if largest is None:
            scores, columns = largest_columns(block, count)
            largest = scores, keys[columns]
        else:
            largest = enter_largest(largest, block, keys, count)

    expected, expected_keys = (x[..., :count] for x in s.sort(dim=-1, descending=True, stable=True))
    assert torch.equal(largest[0], expected)
    assert torch.equal(largest[1].where(expected > -torch.inf, 0), expected_keys.where(expected > -torch.inf, 0))


def test_there_may_be_fewer_keys_than_are_asked_for_and_more_items():
    w = torch.tensor([[0.3, 0.7], [0.6, 0.4], [0.5, 0.5]]).reshape(3, 1, 1, 2)  # (b, h, n, m)

    weights, keys = top_weights(w, 2, (slice(0, 2),), 2)

    assert keys.flatten(1).tolist() == [[1, 0], [0, 1], [0, 1]]
    assert torch.equal(weights, w.gather(-1, keys))


@pytest.mark.parametrize(
    ("normalizer", "scores", "codes"),
    [
        ("sum", [[1.0, 2.0]], []),
        ("sum", [[-1.0, 3.0]], ["negative-weights"]),
        ("sum", [[1.0, -1.0]], ["zero-sum"]),
        ("sum", [[0.1 + 0.2, -0.3]], ["negative-weights", "rounded-sum"]),
        ("sum", [[1.0, -0.9999]], ["negative-weights"]),
        ("softmax", [[1.0, -1.0]], []),
        ("none", [[-1.0, 3.0]], []),
    ],
)
def test_weights_of_a_ratio_may_be_negative_or_have_no_sum(normalizer, scores, codes):
    problem = attncli.Problem(q=[[1.0]], k=np.transpose(scores), v=[[1.0], [2.0]])

    said = attncli.attend(problem, Variant(normalizer=normalizer, scale="none"), ["weights"]).warnings

    assert [warning.partition(":")[0] for warning in said] == codes


LARGE = 1e308  # two of them are beyond float64, and 4e4 + 4e4 is beyond float16


def codes(keep=None, variant=None, **fields):
    result = attncli.attend(attncli.Problem(**fields), variant, keep)
    return [warning.partition(":")[0] for warning in result.warnings]


@pytest.mark.parametrize("schedule", ["dense", "tiled"])
@pytest.mark.parametrize(
    ("v", "variant", "expected"),
    [
        ([[LARGE], [LARGE]], {"normalizer": "none"}, ["not-finite"]),
        ([[LARGE], [1.0]], {"normalizer": "none"}, []),
        ([[LARGE], [LARGE]], {}, []),  # a mean is no larger than what it is of
        ([[4e4], [4e4]], {"normalizer": "none", "dtype": "float16"}, ["not-finite"]),
        ([[4e4], [4e4]], {"normalizer": "none", "dtype": "float32"}, []),
        ([[np.nan], [1.0]], {}, ["not-finite"]),
        ([[1.0], [np.inf]], {}, ["not-finite"]),
    ],
)
def test_a_context_that_is_not_finite_is_warned_of_as_scores_are(v, variant, expected, schedule):
    fields = {"q": [[1.0], [1.0], [1.0]], "k": [[1.0], [1.0]], "v": v}
    variant = attncli.Variant(schedule=schedule, **variant)

    assert codes(variant=variant, **fields) == expected
    assert codes(keep=["weights"], variant=variant, **fields) == []  # it was not asked for


def test_what_no_query_sees_and_rows_that_shall_be_nan_are_not_warned_of():
    fields = {"q": [[1.0], [1.0]], "k": [[1.0], [1.0], [1.0]], "v": [[np.nan], [1.0], [2.0]]}
    hidden = attncli.Variant(empty_rows="nan")

    assert codes(variant=hidden, mask=[[False, True, True]] * 2, **fields) == []
    assert codes(variant=hidden, mask=[[False, True, True], [False] * 3], **fields) == ["empty-rows"]
    assert codes(variant=hidden, mask=[[True] * 3, [False] * 3], **fields) == ["not-finite", "empty-rows"]


@pytest.mark.parametrize(("factor", "expected"), [(1e300, ["not-finite"]), (1e290, [])])
def test_an_output_beyond_the_dtype_is_warned_of(factor, expected):
    q = np.ones((3, 2))

    assert codes(q=q, k=q, v=q * 1e10, parameters={"w_o": np.full((2, 5), factor)}) == expected
    assert codes(keep=["context"], q=q, k=q, v=q * 1e10, parameters={"w_o": np.full((2, 5), factor)}) == []


def test_an_output_that_is_too_large_is_warned_of_and_one_of_an_unusual_context_is_not_warned_of_twice():
    def codes_of(values, w_o):
        problem = attncli.Problem(q=np.ones((2, 2)), k=np.ones((2, 2)), v=values, parameters={"w_o": w_o})
        return [warning.partition(":")[0] for warning in attncli.attend(problem, keep=["context", "output"]).warnings]

    assert codes_of(np.ones((2, 2)), np.full((2, 2), 1.5e308)) == ["not-finite"]
    assert codes_of(np.full((2, 2), np.inf), np.eye(2)) == ["not-finite"]
    assert codes_of(np.ones((2, 2)), np.eye(2)) == []
