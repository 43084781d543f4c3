"""Every step against loops in plain Python."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import attncli
from tests.helpers import assert_close, assert_identical, compute, step_values
from tests.oracles.tensors import coins, floats, stream

pytestmark = pytest.mark.usefixtures("own_stream")
INF = math.inf


def looped(q: list, k: list, v: list, sees: Callable[[int, int], bool], top: int = 0) -> dict[str, Any]:
    """One head, from its q, k, v: every step in scalars. Ties go to the lower index."""
    found: dict[str, list] = {
        name: []
        for name in (
            "scores",
            "scaled_scores",
            "mask",
            "masked_scores",
            "max_score",
            "log_sum_exp",
            "entropy",
            "visible_keys",
            "weights",
            "top_keys",
            "top_weights",
            "head_context",
        )
    }
    for i, query in enumerate(q):
        scores = [sum(a * b for a, b in zip(query, key, strict=True)) for key in k]
        scaled = [s / math.sqrt(len(query)) for s in scores]
        seen = [sees(i, j) for j in range(len(k))]
        masked = [s if see else -INF for s, see in zip(scaled, seen, strict=True)]
        total = sum(math.exp(s) for s in masked)
        weights = [math.exp(s) / total if total else 0.0 for s in masked]
        best = sorted(range(len(k)), key=lambda j: (-weights[j], j))[:top]
        row = {
            "scores": scores,
            "scaled_scores": scaled,
            "mask": seen,
            "masked_scores": masked,
            "max_score": max(masked),
            "log_sum_exp": math.log(total) if total else -INF,
            "entropy": -sum(w * math.log2(w) for w in weights if w),
            "visible_keys": sum(seen),
            "weights": weights,
            "top_keys": best,
            "top_weights": [weights[j] for j in best],
            "head_context": [sum(w * value[c] for w, value in zip(weights, v, strict=True)) for c in range(len(v[0]))],
        }
        for name, value in row.items():
            found[name].append(value)
    return found


def product(x: list, w: list) -> list:
    return [[sum(a * b for a, b in zip(row, column, strict=True)) for column in zip(*w, strict=True)] for row in x]


# Small integers: scores are exact, and keys 0 and 3 are alike, so weights tie.
TOKENS = [[1, 0, 2, -1], [0, 1, 1, 2], [2, -1, 0, 1], [1, 0, 2, -1], [-1, 2, 1, 0]]
W_Q = [[0, 1, 1, -1, 0, 1], [1, 0, 0, 1, -1, 0], [1, 1, 0, 0, 1, -1], [0, -1, 1, 1, 0, 0]]  # (4, 2 heads of 3)


W_K = [[1, 0, 1], [0, 1, 0], [1, -1, 0], [0, 0, 1]]  # (4, 1 kv head of 3)
W_V = [[1, 2, 0, -1, 1], [0, 1, 1, 0, 3], [2, 0, -1, 1, 0], [1, 1, 0, 2, -1]]  # (4, 1 kv head of 5)


W_O = [[(3 * i + 5 * j) % 7 - 3 for j in range(7)] for i in range(10)]  # (2 heads of 5, 7)
SEGMENTS, SHUFFLED, LEFT = [0, 0, 1, 1, 0], [3, 1, 4, 0, 2], [-3, -2, -1, 0, 1]


FILE_MASK = [[bool((i * i + j) % 3) for j in range(5)] for i in range(5)]
LOOPED: dict[str, tuple[dict[str, Any], Any, Callable[[int, int], bool] | None]] = {
    "full": ({}, "full", None),
    "causal": ({}, "causal", lambda i, j: j <= i),
    "not causal": ({}, "not causal", lambda i, j: j > i),  # the last query sees nothing
    "window": ({}, "window:left=1,right=2", lambda i, j: -1 <= j - i <= 2),
    "window, right only": ({}, "window:right=1", lambda i, j: j - i <= 1),
    "window, -1": ({}, "window:left=-1,right=0", lambda i, j: j <= i),
    "window of one": ({}, "window:left=0,right=0", lambda i, j: i == j),
    "prefix": ({}, "causal or prefix:length=3", lambda i, j: j <= i or j < 3),
    "no prefix": ({}, "prefix:length=0", lambda i, j: False),
    "expression": (
        {},
        "causal and (window:left=2,right=0 or prefix:length=1)",
        lambda i, j: j <= i and (i - j <= 2 or j < 1),
    ),
    "and binds tighter than or": (
        {},
        "prefix:length=1 or causal and window:left=1",
        lambda i, j: j < 1 or (j <= i and i - j <= 1),
    ),
    "not binds tighter than and": ({}, "not causal and window:right=2", lambda i, j: j > i and j - i <= 2),
    "not of parentheses": ({}, "not (causal and window:left=1)", lambda i, j: not (j <= i and i - j <= 1)),
    "a list of masks": ({}, ["causal", "window:left=1"], lambda i, j: i - 1 <= j <= i),
    "chunk": ({}, "chunk:size=2", lambda i, j: i // 2 == j // 2),
    "document": ({"segments": SEGMENTS}, "document", lambda i, j: SEGMENTS[i] == SEGMENTS[j]),
    "causal document": (
        {"segments": SEGMENTS},
        "causal and document",
        lambda i, j: j <= i and SEGMENTS[i] == SEGMENTS[j],
    ),
    "k_segments": (
        {"segments": SEGMENTS, "k_segments": [1, 0, 0, 1, 2]},
        "document",
        lambda i, j: SEGMENTS[i] == [1, 0, 0, 1, 2][j],
    ),
    "positions": ({"positions": SHUFFLED}, "causal", lambda i, j: SHUFFLED[j] <= SHUFFLED[i]),  # keys follow
    "positions, window": (
        {"positions": SHUFFLED},
        "window:left=1,right=0",
        lambda i, j: -1 <= SHUFFLED[j] - SHUFFLED[i] <= 0,
    ),
    "negative positions": (
        {"positions": LEFT},
        "chunk:size=2",
        lambda i, j: math.floor(LEFT[i] / 2) == math.floor(LEFT[j] / 2),
    ),
    "positions, prefix": (
        {"positions": SHUFFLED},
        "causal and prefix:length=3",
        lambda i, j: SHUFFLED[j] <= SHUFFLED[i] and SHUFFLED[j] < 3,
    ),
    "negative prefix": ({"positions": LEFT}, "prefix:length=1", lambda i, j: LEFT[j] < 1),
    "k_positions": (
        {"positions": SHUFFLED, "k_positions": [0, 2, 1, 5, 3]},
        "causal",
        lambda i, j: [0, 2, 1, 5, 3][j] <= SHUFFLED[i],
    ),
    "file's mask": ({"mask": FILE_MASK}, "full", lambda i, j: FILE_MASK[i][j]),
    "file's mask and causal": ({"mask": FILE_MASK}, "causal", lambda i, j: FILE_MASK[i][j] and j <= i),
    "given or causal": ({"mask": FILE_MASK}, "given or causal", lambda i, j: FILE_MASK[i][j] or j <= i),
    "not given": ({"mask": FILE_MASK}, "not given", lambda i, j: not FILE_MASK[i][j]),
    "mask of keys": ({"mask": [True, False, True, True, False]}, "full", lambda i, j: j in (0, 2, 3)),
    "mask of queries": ({"mask": [[True], [False], [True], [True], [False]]}, "full", lambda i, j: i in (0, 2, 3)),
    "lengths": ({"lengths": [3]}, "full", lambda i, j: j < 3),
    "lengths are applied outside of or": ({"lengths": [3]}, "causal or prefix:length=4", lambda i, j: j < 3),
}


def looped_heads(sees: Callable[[int, int], bool] | None, top: int = 0) -> dict[str, Any]:
    """Both heads of the integer example; they share one kv head."""
    q, k, v = product(TOKENS, W_Q), product(TOKENS, W_K), product(TOKENS, W_V)
    heads = [looped([row[3 * h : 3 * h + 3] for row in q], k, v, sees or (lambda i, j: True), top) for h in range(2)]
    found = {name: [head[name] for head in heads] for name in heads[0]}
    found["context"] = [one + other for one, other in zip(*found["head_context"], strict=True)]
    found["output"] = product(found["context"], W_O)
    return found


FIELDS = {"embeddings": TOKENS, "parameters": {"w_q": W_Q, "w_k": W_K, "w_v": W_V, "w_o": W_O}}


@pytest.mark.parametrize("name", LOOPED)
def test_every_step_is_that_of_a_loop(name: str) -> None:
    fields, expression, sees = LOOPED[name]
    result = compute(FIELDS | fields, heads=2, kv_heads=1, mask=expression)
    expected = looped_heads(sees)
    if sees is None:
        assert "mask" not in result
        assert "masked_scores" not in result
        del expected["mask"], expected["masked_scores"]
    else:
        hidden = np.array(expected.pop("mask"))
        assert_identical(np.broadcast_to(step_values(result, "mask"), hidden.shape), hidden)
    for step in ("top_keys", "top_weights"):
        assert step not in result
        del expected[step]
    for step, figures in expected.items():
        assert_close(step_values(result, step), figures, atol=1e-15 if step == "weights" else 1e-14)
    codes = [w.partition(":")[0] for w in result.warnings if not w.startswith("repeated-positions")]
    assert codes == ["empty-rows"] * (0 in np.array(expected["visible_keys"]))


def test_an_entropy_of_nothing_is_not_minus_zero() -> None:
    """The first causal query sees one key: 0 bits, and not -0.0 in JSON and arrays."""
    entropy = step_values(
        compute(FIELDS | {"lengths": [4]}, heads=2, kv_heads=1, mask="causal and not prefix:length=1"), "entropy"
    )
    assert entropy[:, :2].tolist() == [[0, 0], [0, 0]]  # sees none, sees one
    assert not np.signbit(entropy).any()


@pytest.mark.parametrize("top", [1, 2, 4, 5])
@pytest.mark.parametrize("name", ["full", "causal", "expression", "not causal", "file's mask", "window of one"])
def test_top_keys_are_those_of_a_loop(name: str, top: int) -> None:
    """Keys 0 and 3 are alike, and hidden keys all weigh 0: lower index first."""
    fields, expression, sees = LOOPED[name]
    result = compute(FIELDS | fields, heads=2, kv_heads=1, mask=expression, top=top)
    expected = looped_heads(sees, top)
    np.testing.assert_array_equal(step_values(result, "top_keys"), expected["top_keys"])
    assert_close(step_values(result, "top_weights"), expected["top_weights"], atol=1e-15)
    assert result["top_keys"].axes == ("head", "query", "rank")


def test_more_top_keys_than_keys_are_all_of_them() -> None:
    result = compute(FIELDS, heads=2, kv_heads=1, top=9)
    expected = looped_heads(None, 5)
    np.testing.assert_array_equal(step_values(result, "top_keys"), expected["top_keys"])


def test_many_ties_are_in_order() -> None:
    result = compute({"q": [[1.0], [0.0]], "k": [[float(j % 3)] for j in range(300)]}, top=150)
    twos, ones = [j for j in range(300) if j % 3 == 2], [j for j in range(300) if j % 3 == 1]
    assert step_values(result, "top_keys").tolist() == [(twos + ones)[:150], list(range(150))]


def test_top_keys_alone_may_be_kept() -> None:
    result = attncli.attend(
        attncli.Problem(**FIELDS), attncli.Variant(heads=2, kv_heads=1), keep={"top_keys", "top_weights"}, top=2
    )
    assert [step.name for step in result] == ["top_keys", "top_weights"]
    np.testing.assert_array_equal(step_values(result, "top_keys"), looped_heads(None, 2)["top_keys"])


@pytest.mark.parametrize("seed", range(6))
def test_loops_on_random_numbers(seed: int) -> None:
    """One head, no parameters: embeddings are their own queries, keys and values; a random mask, some rows of it empty."""
    g = stream(800 + seed)
    tokens, width = 3 + seed, 10 - seed
    x, mask = floats(g, tokens, width), coins(g, tokens, tokens)
    mask[seed % tokens] = False
    result = compute({"embeddings": x.tolist(), "mask": mask.tolist()})
    expected = looped(x.tolist(), x.tolist(), x.tolist(), lambda i, j: bool(mask[i, j]))
    for step in (
        "scores",
        "scaled_scores",
        "masked_scores",
        "max_score",
        "log_sum_exp",
        "entropy",
        "visible_keys",
        "weights",
    ):
        assert_close(step_values(result, step), expected[step], atol=1e-13)
    assert_close(step_values(result, "context"), expected["head_context"], atol=1e-14)
    (warning,) = result.warnings
    blind = [str(i) for i, n in enumerate(expected["visible_keys"]) if n == 0]
    assert re.findall(r"\d+", warning.partition(" see")[0]) == blind
