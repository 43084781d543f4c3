"""Where figures are wrong, and what the wrong rows look like: found without a search."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest

import attncli
from attncli.check import check
from attncli.check.figures import figures_from_arrays
from attncli.check.index_sets import describe_indices
from attncli.variant import Variant
from tests.helpers import SAMPLES, softmax

B, H, T, D = 2, 4, 24, 6
CAUSAL = np.tri(T, dtype=bool)


def draw(seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(B, H, T, D)) for _ in range(3))


Q, K, V = draw()
SCORES = np.where(CAUSAL, Q @ K.swapaxes(-1, -2) / math.sqrt(D), -np.inf)
WEIGHTS = softmax(SCORES)
CONTEXT = WEIGHTS @ V
EXPONENTIALS = np.exp(SCORES)
SUMS = EXPONENTIALS.sum(-1, keepdims=True)


def region_of(values, step="head_context", q=Q, k=K, v=V, **choices):
    problem = attncli.Problem(q=q, k=k, v=v)
    verdict = check(
        problem, Variant(mask="causal", **choices), figures_from_arrays({step: values}, "mine"), identify=False
    )
    [compared] = verdict.steps
    return compared.region


def damaged(edit, values=CONTEXT):
    values = values.copy()
    edit(values)
    return values


# ── where ────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("index", "where"),
    [
        (np.s_[:, 2], "in head 2"),
        (np.s_[1], "in batch item 1"),
        (np.s_[:, :, 16:], "in queries 16 to 23 (16 is a multiple of 16)"),
        (np.s_[:, :, 8:16], "in queries 8 to 15 (a block of 8)"),
        (np.s_[:, :, :-1], "in queries 0 to 22"),
        (np.s_[:, :, 2::3], "in every 3rd query, from 2 on"),
        (np.s_[:, 1::2], "in heads 1 and 3"),
        (
            np.s_[0, 3, 20:, 3:5],
            "in batch item 0, in head 3, in queries 20 to 23 (20 is a multiple of 4), in dims 3 and 4",
        ),
        (np.s_[:], "in every batch item, head, query and dim"),
    ],
)
def test_it_says_which_items_heads_queries_and_dims_are_wrong(index, where):
    def edit(x):
        x[index] += 0.5

    region = region_of(damaged(edit))

    assert (region.words, region.share) == (where, 1.0)


def test_it_says_how_much_is_wrong_where_it_is_not_all():
    region = region_of(damaged(lambda x: np.copyto(x[0, 1, 8:, ::2], 0.5)))
    assert (
        region.words
        == "in batch item 0, in head 1, in queries 8 to 23 (8 is a multiple of 8), in every 2nd dim, from 0 on"
    )

    def edit(x):
        x[0, 1, 8:, :2] += 0.5
        x[0, 1, 23, :] += 0.5

    assert region_of(damaged(edit)).words.endswith("(8 is a multiple of 8); 38% of the figures there")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([7], "key 7"),
        ([0, 1], "keys 0 and 1"),
        (range(32, 64), "keys 32 to 63 (32 is a multiple of 32)"),
        (range(16, 24), "keys 16 to 23 (a block of 8)"),
        (range(31), "keys 0 to 30"),
        (range(32), "keys 0 to 31 (a block of 32)"),
        ([1, 5, 9], "keys 1, 5 and 9"),
        (range(3, 64, 4), "every 4th key, from 3 on"),
        ([i for i in range(64) if i % 8 in (6, 7)], "6 to 7 of every 8 keys"),
        ([1, 4, 5, 11, 17, 30], "6 of 64 keys: 1, 4 to 5, 11, 17 and 1 more"),
        ([i for i in range(64) if i != 5], "all keys but 5"),
        (range(64), ""),
    ],
)
def test_indices_in_words(wrong, words):
    is_in = np.isin(np.arange(64), list(wrong))
    assert describe_indices(is_in, np.arange(64), "key") == words


def test_the_heads_of_a_merged_context_are_named():
    merged = np.moveaxis(CONTEXT, 1, 2).reshape(B, T, H * D)
    region = region_of(damaged(lambda x: np.copyto(x[..., 2 * D : 3 * D], 1.5), merged), "context")
    assert region.words == "in head 2"
    assert {axis.axis for axis in region.axes} == {"batch", "head", "query", "dim"}


# ── what the wrong rows look like ────────────────────────────────────────────────────────────────
def denominator(extra):
    return EXPONENTIALS @ V / (SUMS + extra)


SINKS = np.array([-0.5, 0.25, 1.0, 1.5])
TABLE = [
    (damaged(lambda x: np.copyto(x[:, :, 20:], 0)), ["the wrong rows are all 0"]),
    (damaged(lambda x: np.multiply(x[1], 0.3, out=x[1])), ["the wrong rows are the reference × 0.3"]),
    (
        CONTEXT * np.array([1, 2, 0.5, 4])[:, None, None],
        ["the reference × a factor for each head (1: 2, 2: 0.5, 3: 4)"],
    ),
    (denominator(12), ["too large by 12: 12 more keys with score 0, as padding has"]),
    (denominator(1), ["are too large by 1: one more key with score 0"]),
    (denominator(0.05), ["too large by 0.05 = e^-2.996"]),
    (denominator(np.exp(SINKS)[:, None, None]), ["as with a sink (0: e^-0.5, 1: e^0.25, 2: e^1, 3: e^1.5)"]),
    (CONTEXT[:, [1, 0, 2, 3]], ["those of other heads (0 has those of 1, 1 has those of 0)"]),
    (CONTEXT[:, [1, 2, 3, 3]], ["the wrong rows are those of the head after them"]),
    (CONTEXT[::-1], ["those of other batch items (0 has those of 1, 1 has those of 0)"]),
    (np.concatenate([CONTEXT[:, :, :1], CONTEXT[:, :, :-1]], 2), ["the wrong rows are those of the query before them"]),
    (CONTEXT[..., ::-1], ["the reference's own numbers in reverse order"]),
    (np.roll(CONTEXT, 2, -1), ["the reference's own numbers shifted by 2"]),
    (CONTEXT[..., [2, 0, 1, 5, 3, 4]], ["the reference's own numbers in another order"]),
    (CONTEXT + 100, ["outside the range of the values"]),
]


@pytest.mark.parametrize(("values", "said"), TABLE, ids=[said[0][-40:] for _, said in TABLE])
def test_what_the_wrong_rows_look_like(values, said):
    observations = region_of(values).observations
    for words in said:
        assert any(words in observation for observation in observations), observations


@pytest.mark.parametrize(("sign", "limit", "told"), [(1, 2**20, True), (-1, 2**20, False), (1, 0, False)])
def test_denominators_are_told_of_where_factors_are_positive_and_sums_are_computed(monkeypatch, sign, limit, told):
    monkeypatch.setattr("attncli.check.comparison._MAX_STATISTIC_SCORES", limit)
    factors = 1 / (1 + 3 / SUMS)
    factors[1, 2, 5:9] *= sign

    observations = region_of(CONTEXT * factors).observations

    assert any("the reference × a factor of their own" in words for words in observations)
    assert any("their denominators are too large by 3" in words for words in observations) is told


def test_one_value_changed_leaves_a_difference_of_rank_one():
    v = V.copy()
    v[0, 1, 7] += np.arange(1, D + 1)
    [first, *_] = region_of(WEIGHTS @ v).observations
    assert first.startswith("the wrong rows are off by one vector along dim times a number for each query")


def test_rows_that_are_wrong_in_several_ways_are_named_apart():
    def edit(x):
        x[0, 0, 4:8] = 0
        x[1, 2, 12:] *= 2

    observations = region_of(damaged(edit)).observations
    assert observations[0] == "4 of the 16 wrong rows (batch item 0, head 0, queries 4 to 7 (a block of 4)) are all 0"
    assert observations[1].startswith(
        "12 of the 16 wrong rows (batch item 1, head 2, queries 12 to 23 (12 is a multiple of 4)) are the reference × 2"
    )


@pytest.mark.parametrize(("dtype", "factor"), [("float16", 9), ("float32", 60)])
def test_nan_says_where_the_exponential_overflows(dtype, factor):
    scores = np.where(CAUSAL, factor * Q @ K.swapaxes(-1, -2) / math.sqrt(D), -np.inf)
    with np.errstate(all="ignore"):
        exponentials = np.exp(scores).astype(dtype).astype(float)
        mine = exponentials / exponentials.sum(-1, keepdims=True) @ V
    limit = {"float16": "11.09", "float32": "88.72"}[dtype]

    observations = region_of(mine, q=factor * Q).observations

    assert np.isnan(mine).any()
    assert not np.isnan(mine).all()
    assert any(
        f"largest score exceeds {limit}, where e^s overflows {dtype} or is below −" in each for each in observations
    )


def test_weights_say_their_sums_and_signs():
    observations = region_of(damaged(lambda x: np.copyto(x[0, 1, 10, 2:3], -0.25), WEIGHTS), "weights").observations
    assert "1 of the weights is negative" in observations
    assert any(each.startswith("the wrong row sums to 0.") and each.endswith(", not to 1") for each in observations)


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        (np.log2(SUMS[..., 0]), "the wrong figures are the reference × 1.4427"),
        (np.zeros(SUMS.shape[:-1]), "the wrong figures are all 0"),
        (np.log(SUMS[..., 0]) + 0.75, "the wrong figures are the reference + 0.75"),
        (np.log(SUMS[..., 0] + 3), "their denominators are too large by 3: 3 more keys with score 0, as padding has"),
    ],
)
def test_log_sum_exp_says_what_is_too_much(mine, said):
    assert said in region_of(mine, "log_sum_exp").observations


def test_noise_has_no_look():
    rng = np.random.default_rng(5)
    for scale in (1e-3, 0.1, 1.0):
        region = region_of(CONTEXT + scale * rng.normal(size=CONTEXT.shape))
        assert [each for each in region.observations if "outside" not in each] == []


# ── in each form ─────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def files(tmp_path):
    np.savez(tmp_path / "p.npz", q=Q, k=K, v=V)
    np.savez(tmp_path / "mine.npz", head_context=damaged(lambda x: np.copyto(x[:, 2, 16:], 0)))
    return ["check", "p.npz", "--causal", "--figures", "mine.npz", "--no-identify"]


def test_the_table_has_words_and_a_map(attn, files):
    out = attn(*files).out
    assert (
        "head_context: wrong in head 2, in queries 16 to 23 (16 is a multiple of 16)\n    the wrong rows are all 0\n"
        in out
    )
    lines = out.partition("map of head_context: batch item · head × query")[2].splitlines()
    assert lines[2:5] == [
        "0 · 0 to 0 · 1  " + "·" * 24,
        "         0 · 2  " + "·" * 16 + "█" * 8,
        "0 · 3 to 1 · 1  " + "·" * 24,
    ]


def test_json_has_the_region(attn, files):
    region = attn(*files, "--json").json["steps"][0]["region"]
    assert region["axes"]["head"] == {"wrong": [[2, 3]], "count": 1, "of": 4, "first": 2, "multiple_of": 2}
    assert region["axes"]["query"] == {"wrong": [[16, 24]], "count": 8, "of": 24, "first": 16, "multiple_of": 16}
    assert region["says"] == ["the wrong rows are all 0"]
    assert np.array(region["map"]["shares"]).sum() == 2 * 8


def test_npz_has_the_differences(attn, files, tmp_path):
    assert attn(*files, "-o", "errors.npz").status == 1
    with np.load(io.BytesIO((tmp_path / "errors.npz").read_bytes())) as file:
        assert json.loads(str(file["attn"]))["verdict"] == "wrong"
        assert file["head_context.wrong"].sum() == 2 * 8 * D
        np.testing.assert_allclose(file["head_context.difference"][:, 2, 16:], -CONTEXT[:, 2, 16:], atol=1e-12)


def test_what_hides_the_reference_hides_the_region(attn, files):
    record = attn(*files, "--no-reveal", "--json").json
    assert "region" not in record["steps"][0]
    assert "queries 16" not in attn(*files, "--no-reveal").out
    refused = attn(*files, "--no-reveal", "-o", "errors.npz")
    assert (refused.status, "the differences that npz holds" in refused.err) == (2, True)


def test_figures_of_few_digits_are_not_said_to_be_the_references_in_another_order(attn, tmp_path):
    (tmp_path / "mine.json").write_text('{"weights": [[1, 0, 0], [0.2, 0.8, 0], [0.1, 0.1, 0.8]]}')

    done = attn("check", SAMPLES / "cat_sat.json", "--causal", "--figures", "mine.json", "--no-identify")

    assert (done.status, "weights: wrong in queries 1 and 2" in done.out) == (1, True)
    assert "own numbers" not in done.out  # 0.2 is none of 0.0759, 0.9241 and 0
