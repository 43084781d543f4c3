"""Faults of ALiBi, lengths and dropout, planted in NumPy, are named first."""

from __future__ import annotations

import math

import numpy as np
import pytest

import attncli
from attncli.check import check
from attncli.check.figures import figures_from_arrays
from tests.check.faulty import Case, masked, steps, swap
from tests.helpers import softmax

pytestmark = pytest.mark.slow

# ── ALiBi ────────────────────────────────────────────────────────────────────────────────────────
PAPER_SLOPES = [2**-4, 2**-8, 2**-2]  # three heads: those of two, then the first of four (Press et al. 2022)
PLAIN_SLOPES = [2 ** (-8 * (h + 1) / 3) for h in range(3)]


@pytest.mark.parametrize(
    ("name", "slopes", "bias"),
    [
        ("alibi with the wrong sign", PAPER_SLOPES, lambda i, j: abs(i - j)),
        ("alibi signed", PAPER_SLOPES, lambda i, j: j - i),
        ("alibi slopes 2^(−8h/H)", PLAIN_SLOPES, lambda i, j: -abs(i - j)),
    ],
)
def test_a_wrong_distance_bias_is_named_first(name, slopes, bias):
    case = Case(4, position="alibi")
    s, v = case.scores()
    i, j = np.arange(case.n)[:, None], np.arange(case.n)
    s = s + np.array(slopes)[:, None, None] * bias(i, j)

    said = case.verdict(steps(softmax(s), v))

    assert said.verdict == "wrong"
    assert name in said.identified[0].names


def test_the_papers_slopes_are_right():
    case = Case(4, position="alibi")
    s, v = case.scores()
    distance = abs(np.arange(case.n)[:, None] - np.arange(case.n))

    assert case.verdict(steps(softmax(s - np.array(PAPER_SLOPES)[:, None, None] * distance), v)).verdict == "right"


# ── lengths ──────────────────────────────────────────────────────────────────────────────────────
B, H, T, D = 3, 2, 7, 5
LENGTHS = np.array([5, 7, 2])


def context_of_lengths(q, k, v, seen):
    """(b, h, t, d) each, seen: (b, 1, n, m) → (b, t, h·d); a query that sees no key has 0."""
    s = masked(q @ swap(k) / math.sqrt(D), seen)
    e = np.where(seen, np.exp(s - np.where(seen.any(-1, keepdims=True), s.max(-1, keepdims=True), 0)), 0)
    total = e.sum(-1, keepdims=True)
    z = e / np.where(total == 0, 1, total) @ v
    return z.transpose(0, 2, 1, 3).reshape(B, T, H * D)


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("lengths ignored", lambda i, j, n: j < T + 0 * n + 0 * i),
        ("lengths off by +1", lambda i, j, n: (j < n + 1) & (i < T)),
        ("lengths off by -1", lambda i, j, n: (j < n - 1) & (i < T)),
        ("padded queries masked too", lambda i, j, n: (j < n) & (i < n)),
    ],
)
def test_wrong_lengths_are_named_first(name, seen):
    draws = np.random.default_rng(6)
    q, k, v = draws.standard_normal((3, B, H, T, D))
    i, j, n = np.arange(T)[:, None], np.arange(T), LENGTHS[:, None, None, None]
    problem = attncli.Problem(q=q, k=k, v=v, lengths=LENGTHS)
    wrong = figures_from_arrays({"context": context_of_lengths(q, k, v, seen(i, j, n))})
    right = figures_from_arrays({"context": context_of_lengths(q, k, v, (j < n) & (i < T))})

    said = check(problem, attncli.Variant(), wrong)

    assert said.verdict == "wrong"
    assert name in said.identified[0].names
    assert check(problem, attncli.Variant(), right).verdict == "right"


# ── dropout ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("name", "is_applied"), [("dropout not applied", False), ("dropout not rescaled", True)])
def test_dropout_that_was_left_off_is_named_first(name, is_applied):
    case = Case(7, tokens=11, dropout="dropout:p=0.25")
    kept = np.random.default_rng(8).random((case.h, case.n, case.n)) < 0.75
    case.fields["dropout_mask"] = kept
    s, v = case.scores()
    w = softmax(s)
    dropped = w * kept if is_applied else w

    said = case.verdict({"weights": w, "dropout_weights": dropped, "context": steps(dropped, v)["context"]})

    assert said.verdict == "wrong"
    assert name in said.identified[0].names
    right = w * kept / 0.75
    assert case.verdict({"dropout_weights": right, "context": steps(right, v)["context"]}).verdict == "right"


def test_lengths_that_an_alignment_passes_over_are_named():
    import attncli
    from attncli.check import check
    from attncli.check.figures import figures_from_arrays
    from tests.helpers import draw_normal

    q, k = draw_normal(1, 2, 2, 4), draw_normal(2, 2, 6, 4)
    fields = {"q": q, "k": k, "v": k, "lengths": [4, 5]}
    variant = attncli.Variant(mask="causal", align="bottom-right", heads=1)
    buffer_end = attncli.attend(attncli.Problem(**fields, positions=[[4, 5], [4, 5]]), variant, {"weights"})

    verdict = check(attncli.Problem(**fields), variant, figures_from_arrays({"weights": buffer_end["weights"].values}))

    assert verdict.verdict == "wrong"
    assert any("padding included, whatever the lengths" in found.sentence for found in verdict.identified)


# ── the norm of q and k ──────────────────────────────────────────────────────────────────────────
Q_GAIN, K_GAIN = 1 + np.random.default_rng(5).standard_normal((2, 6)) / 3


def root_mean_square_norm(x, gain):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * gain


def not_normed(x, _gain):
    return x


@pytest.mark.parametrize(
    ("name", "q_norm", "q_gain", "k_norm", "k_gain"),
    [
        (None, root_mean_square_norm, Q_GAIN, root_mean_square_norm, K_GAIN),
        ("q_norm and k_norm forgotten", root_mean_square_norm, 1, root_mean_square_norm, 1),
        ("q_norm forgotten", root_mean_square_norm, 1, root_mean_square_norm, K_GAIN),
        ("1 + k_norm", root_mean_square_norm, Q_GAIN, root_mean_square_norm, 1 + K_GAIN),
        ("norm forgotten on q", not_normed, 1, root_mean_square_norm, K_GAIN),
        ("norm forgotten on k", root_mean_square_norm, Q_GAIN, not_normed, 1),
    ],
)
def test_a_wrong_norm_of_q_and_k_is_named_first(name, q_norm, q_gain, k_norm, k_gain):
    r = np.random.default_rng(4)
    q, k, v = (r.standard_normal((2, tokens, width)) for tokens, width in ((5, 6), (7, 6), (7, 3)))
    weights = softmax(q_norm(q, q_gain) @ swap(k_norm(k, k_gain)) / math.sqrt(6))
    problem = attncli.Problem(q=q, k=k, v=v, layout="htd", parameters={"q_norm": Q_GAIN, "k_norm": K_GAIN})

    said = check(problem, attncli.Variant(qk_norm="rms"), figures_from_arrays({"weights": weights}))

    assert said.verdict == ("wrong" if name else "right")
    assert [cause.names[0] for cause in said.identified] == ([name] if name else [])
