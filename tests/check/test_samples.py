"""Large problems: what is said of a sample of their queries, and what is confirmed on all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import attncli
from attncli.check import comparison, query_samples

HEADS, TOKENS, WIDTH = 3, 64, 6
QUERIES = 16  # of a sample


@pytest.fixture(scope="module", autouse=True)
def small_is_large():
    """Take a sample of what is small, and confirm on several blocks of queries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "_MAX_WHOLE_SCORES", HEADS * TOKENS**2 // 2)
        patch.setattr(comparison, "_MAX_BLOCK_SCORES", HEADS * TOKENS * 20)
        patch.setattr(query_samples, "_MAX_SAMPLED_SCORES", HEADS * TOKENS * QUERIES)
        patch.setattr(query_samples, "_MAX_QUERIES", QUERIES)
        yield


@pytest.fixture(scope="module")
def qkv():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(3, 1, HEADS, TOKENS, WIDTH, generator=generator, dtype=torch.float64)


def attend(q, k, v, *, visible=None, scale=None):
    visible = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril() if visible is None else visible
    return scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scale)


def check(qkv, context, **options):
    q, k, v = qkv
    problem = attncli.Problem(q=q, k=k, v=v)
    return attncli.check(problem, {"head_context": context}, mask="causal", layout="bhtd", **options)


def test_right_figures_are_right_and_wrong_work_would_be_noticed(qkv):
    report = check(qkv, attend(*qkv))
    assert report.right
    assert [x.caught for x in report.sensitivity_checks] == [True] * 4


def without_a_block(q, k, v):
    visible = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
    visible[:, 32:48] = False
    return attend(q, k, v, visible=visible)


@pytest.mark.parametrize(
    ("context_of", "words"),
    [
        (lambda q, k, v: attend(q, k, v, scale=1.0), "without 1/√d_k"),
        (lambda q, k, v: attend(q, k, v, visible=torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril(1)), "one key too"),
        (lambda q, k, v: torch.softmax(scores_of(q, k), -2) @ v, "over the queries"),
        (lambda q, k, v: attend(q, k, v, scale=0.7), "scaled by 0.7"),
        (without_a_block, "keys 32 to 47 (block 2 of 16 keys)"),  # the first queries see none of it
    ],
    ids=["scale", "mask", "across-queries", "solved", "tile"],
)
def test_a_cause_is_found_on_a_sample_of_the_queries_and_holds_for_all(qkv, context_of, words):
    report = check(qkv, context_of(*qkv))
    assert report.sampled_queries == QUERIES
    assert report.causes
    assert words in report.causes[0]


def scores_of(q, k):
    scores = q @ k.mT / WIDTH**0.5
    return scores.masked_fill(~torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril(), -torch.inf)


def test_a_cause_that_one_query_contradicts_is_none(qkv):
    context = attend(*qkv, scale=1.0)
    context[0, 1, 41, 3] += 0.01  # of the 64, one that no sample need hold
    report = check(qkv, context)
    assert report.verdict == "wrong"
    assert not report.causes
    assert not report.nearest_candidates


def test_one_wrong_row_is_wrong_and_told(qkv):
    context = attend(*qkv)
    context[0, 2, 37] = 0
    report = check(qkv, context, identify=False)
    (step,) = report.steps
    assert step.wrong_count == WIDTH
    assert [axis.wrong for axis in step.region.axes][1:3] == [(2,), (37,)]


def test_later_wrong_steps_follow_from_earlier_ones(qkv):
    q, k, v = (x[:, 0] for x in qkv)
    scores = q @ k.mT / WIDTH**0.5 * 1.01
    context = scaled_dot_product_attention(q, k, v, scale=1.01 / WIDTH**0.5)
    problem = attncli.Problem(q=np.tile(q, (2, 1, 1)), k=np.tile(k, (2, 1, 1)), v=np.tile(v, (2, 1, 1)))
    figures = {"scaled_scores": scores.repeat(2, 1, 1), "context": context.repeat(2, 1, 1)}
    report = attncli.check(problem, figures, identify=False)
    assert [step.cause for step in report.steps] == ["first", "follows"]


def test_the_verdict_is_written_before_the_search(attn, qkv, tmp_path, monkeypatch):
    from attncli.check import verdicts

    q, k, v = qkv[:, :, :, :5]
    np.savez(tmp_path / "qkv.npz", q=q, k=k, v=v)
    np.savez(tmp_path / "mine.npz", head_context=scaled_dot_product_attention(q, k, v, scale=1.0))

    def stop(*_):
        raise KeyError

    arguments = ("check", tmp_path / "qkv.npz", "--figures", tmp_path / "mine.npz")
    whole = attn(*arguments).out
    monkeypatch.setattr(verdicts.Search, "find_changes", stop)
    before = attn(*arguments).out
    assert "head_context is the first step that is wrong, all 90 of its figures" in before
    assert whole.startswith(before)
    assert len(whole) > len(before)
    assert attn(*arguments, "--json").out == ""


def test_half_precision_is_judged_by_some_queries_first_and_by_all_where_these_do_not_do(qkv):
    half = [x.to(torch.bfloat16) for x in qkv]
    context = attend(*half)

    right = check(half, context)
    wrong = check(half, torch.where(torch.arange(TOKENS)[:, None] < 48, context, 0.0), identify=False)

    assert (right.right, wrong.first_wrong_step) == (True, "head_context")
    asked_first, of_all = (report.steps[0].rule.plain_error for report in (right, wrong))
    assert of_all / 2 < asked_first <= of_all
    assert wrong.steps[0].region.words.startswith("in queries 48 to 63")
