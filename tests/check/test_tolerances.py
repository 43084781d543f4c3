"""A tolerance judged by itself: which wrong answers it passes, by how much right work is off, and what would tell them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import attncli
from attncli.check.tolerances import judge_tolerance_task, prepare_judgement
from attncli.check.wrong_answers import FAULTS, ONLINE_MISTAKES
from attncli.schema import check_schema
from attncli.tolerance import MEASURES, Tolerance
from attncli.validation import validate
from tests.helpers import softmax

HEADS, QUERIES, KEYS, WIDTH = 4, 24, 24, 8
USUAL = Tolerance(1e-2, 1e-2)


def draw(batch=1, heads=HEADS, kv_heads=2, queries=QUERIES, keys=KEYS, width=WIDTH):
    r = np.random.default_rng(5)
    shapes = {
        "q": (batch, heads, queries, width),
        "k": (batch, kv_heads, keys, width),
        "v": (batch, kv_heads, keys, width),
    }
    return {name: r.standard_normal(shape) for name, shape in shapes.items()}


def judge(fields, tolerance=USUAL, step=None, **choices):
    problem = validate(attncli.Problem(**fields))
    return judge_tolerance_task(prepare_judgement(problem, attncli.Variant(**choices), tolerance, step=step))


def deviation(judgement, name):
    return next(answer.deviation for answer in judgement.wrong_answers if answer.name == name)


def attend(fields, is_visible=None):
    """Attention of each head, (b, h, n, d), retyped."""
    q, k, v = fields["q"], fields["k"], fields["v"]
    k, v = (np.repeat(x, q.shape[1] // k.shape[1], 1) for x in (k, v))
    s = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    return softmax(s if is_visible is None else np.where(is_visible, s, -np.inf)) @ v


# ── measures ─────────────────────────────────────────────────────────────────────────────────────
def test_zeros_are_as_far_off_as_the_reference_is_large():
    fields = draw()
    context = attend(fields)

    found = deviation(judge(fields), "all zeros")

    assert (found.rms, found.worst_row, found.cosine_distance, found.relative_l1) == (1, 1, 1, 1)
    assert found.max_abs == pytest.approx(np.abs(context).max())
    assert found.within == (np.abs(context) <= 1e-2 + 1e-2 * np.abs(context)).mean()


def test_each_measure_is_that_of_its_formula():
    fields = draw()
    triangle = np.tril(np.ones((QUERIES, KEYS), bool))
    right, wrong = attend(fields, triangle), attend(fields)
    off = wrong - right
    row_errors = np.sqrt((off**2).sum(-1) / (right**2).sum(-1))
    cosine = (right * wrong).sum() / math.sqrt((right**2).sum() * (wrong**2).sum())

    found = deviation(judge(fields, mask="causal"), "mask forgotten")

    assert found.max_abs == pytest.approx(np.abs(off).max())
    assert found.rms == pytest.approx(math.sqrt((off**2).sum() / (right**2).sum()))
    assert found.worst_row == pytest.approx(row_errors.max())
    assert found.cosine_distance == pytest.approx(1 - cosine)
    assert found.relative_l1 == pytest.approx(np.abs(off).sum() / np.abs(right).sum())
    assert found.passing_factor == pytest.approx((np.abs(off) / (1e-2 + 1e-2 * np.abs(right))).max())


def test_the_share_that_must_match_is_a_quantile():
    fields = draw()
    right = attend(fields, np.tril(np.ones((QUERIES, KEYS), bool)))
    factors = np.sort((np.abs(attend(fields) - right) / 0.5).ravel())

    found = deviation(judge(fields, Tolerance(0, 0.5, 0.75), mask="causal"), "mask forgotten")

    assert found.passing_factor == pytest.approx(factors[int(0.75 * factors.size) - 1])


def test_what_is_not_finite_is_infinitely_far_off():
    judgement = judge({"q": [[3000.0, 0]], "k": [[1.0, 0], [0, 1]], "v": [[1.0], [2]]})

    assert deviation(judgement, "exponentials not divided").max_abs == math.inf


# ── which wrong answers ──────────────────────────────────────────────────────────────────────────
def _names(judgement):
    return {answer.name for answer in judgement.wrong_answers}


def test_every_fault_that_is_named_exists_on_some_problem():
    lengths = {"lengths": [KEYS, 17]}
    found = [
        judge(draw(), mask="causal and window:left=5", position="rope", softcap=20),
        judge(draw(batch=2) | lengths, qk_norm="l2"),
        judge(draw(queries=5), mask="causal", align="bottom-right", position="alibi"),
        judge(draw(queries=5), mask="causal", align="top-left"),
    ]
    names = set().union(*map(_names, found))

    assert {name.format(block=16) for name in FAULTS} - names == set()
    assert {f"blocks of 16 keys: {mistake}" for mistake in ONLINE_MISTAKES} - names == set()
    assert {
        "keys 0 to 15 (block 0 of 16 keys) skipped",
        "keys 16 to 23 (block 1 of 16 keys, not full) skipped",
        "keys 16 to 23 (block 1 of 16 keys, not full) counted twice",
        "padding of the last block counted, blocks of 16",
        "2 parts merged: averaged",
        "queries 16 to 23 not written",
        "--softcap none",
        "--qk-norm none",
        "--position none",
        "another head's figures",
        "shuffled values",
    } - names == set()


def test_what_gives_the_right_figures_is_neither_passed_nor_noticed():
    judgement = judge(draw(), step="weights")

    shuffled = next(answer for answer in judgement.wrong_answers if answer.name == "shuffled values")
    assert shuffled.passes is None
    assert "shuffled values" not in judgement.passed


@pytest.mark.slow
def test_a_last_block_that_is_dropped_is_what_a_kernel_without_it_gives():
    fields = draw(keys=40)
    right, wrong = attend(fields), attend(fields | {x: fields[x][:, :, :32] for x in "kv"})

    found = deviation(judge(fields), "keys 32 to 39 (block 1 of 32 keys, not full) skipped")

    assert found.max_abs == pytest.approx(np.abs(wrong - right).max())


# ── what would tell them ─────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("tolerance", [USUAL, Tolerance(0, 2.0), Tolerance(0.5, 0.5, 0.9)])
def test_the_loosest_tolerance_notices_all_and_a_little_more_does_not(tolerance):
    fields = draw()

    first = judge(fields, tolerance, mask="causal")
    loosest = first.loosest
    looser = Tolerance(loosest.rtol * 1.2, loosest.atol * 1.2, loosest.matched)

    assert judge(fields, loosest, mask="causal").passed == first.unnoticeable
    assert len(judge(fields, looser, mask="causal").passed) > len(first.unnoticeable)


def test_what_changes_few_figures_cannot_be_noticed_if_few_may_be_wrong():
    judgement = judge(draw(), Tolerance(0, 1e-3, 0.5), mask="causal")

    assert "queries 16 to 23 not written" in judgement.unnoticeable  # a third of all
    assert "mask off by one: one key too many" not in judgement.unnoticeable  # every row but the last
    assert not judgement.is_tight


def test_a_bound_is_twice_what_plain_attention_is_off_by():
    judgement = judge(draw(), mask="causal")
    right = {answer.dtype: answer.deviation for answer in judgement.right_answers}
    bound = {(b.dtype, b.measure.name): b for b in judgement.bounds}

    assert list(right) == ["float32", "bfloat16", "float16"]
    assert right["float32"].rms < 1e-6 < right["float16"].rms < 1e-3 < right["bfloat16"].rms < 1e-2
    assert bound["bfloat16", "rms"].largest == 2 * right["bfloat16"].rms
    assert bound["bfloat16", "cosine_distance"].largest == 4 * right["bfloat16"].cosine_distance
    assert len(bound["float32", "max_abs"].noticed) == len(judgement.telling)


@pytest.mark.slow
def test_a_large_problem_is_judged_on_some_of_its_queries():
    judgement = judge(draw(heads=1, kv_heads=1, queries=3000, keys=3000, width=2), mask="causal")

    assert judgement.sampled_queries == (1 << 20) // 3000
    assert judgement.figure_count == 2 * judgement.sampled_queries
    assert deviation(judgement, "queries 2944 to 2999 not written").worst_row == 1


# ── the command line ─────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def qkv(tmp_path):
    np.savez(tmp_path / "qkv.npz", **draw())
    return "qkv.npz"


def test_the_exit_status_says_whether_a_wrong_answer_would_pass(attn, qkv):
    loose = attn("check", qkv, "--causal", "--rtol", "0.5", "--atol", "0.5")
    tight = attn("check", qkv, "--causal", "--rtol", "1e-2", "--atol", "1e-2")

    assert (loose.status, tight.status) == (1, 0)
    count = len(judge(draw(), mask="causal").telling)
    assert tight.out.splitlines()[-1] == f"tight enough: all {count} wrong answers would be noticed"
    assert loose.out.splitlines()[-1].startswith("too loose: ")
    assert "all zeros" in tight.out


def test_the_record_follows_its_schema(attn, qkv):
    jsonschema = pytest.importorskip("jsonschema")

    record = attn("check", qkv, "--causal", "--rtol", "0.5", "--atol", "0.5", "--matched", "0.9", "--json").json

    jsonschema.validate(record, check_schema())
    assert record["tolerance"] == {"rtol": 0.5, "atol": 0.5, "matched": 0.9}
    assert record["verdict"] == "too-loose"
    assert record["passed"] == [x["name"] for x in record["wrong_answers"] if x["passes"]]
    assert [b["measure"] for b in record["bounds"][:5]] == [measure.name for measure in MEASURES]


def test_the_proposed_tolerance_works_when_it_is_followed(attn, qkv):
    loose = attn("check", qkv, "--rtol", "0.5", "--atol", "0.5", "-f", "plain")
    line = next(line for line in loose.out.splitlines() if line.startswith("the loosest that notices all"))
    options = line.split(": ")[1].split(";")[0].split()

    assert attn("check", qkv, *options).status == 0


def test_without_the_figures_of_the_problem_the_tolerance_is_judged(attn, tmp_path):
    problem = {"embeddings": [[1, 0], [0, 1], [1, 1]], "expected": {"context": [[1, 1]]}}
    (tmp_path / "p.json").write_text(json.dumps(problem))

    run = attn("check", "p.json", "--atol", "0.001", "--figures", "none", "-f", "markdown")

    assert run.status == 0
    assert "| all zeros | 0 % |" in run.out


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["--figures", "none"], 2, "missing-option"),
        (["--matched", "0.5"], 2, "missing-option"),
        (["--atol", "1", "--matched", "0"], 2, "bad-option"),
        (["--atol", "1", "--matched", "1.5"], 2, "bad-option"),
        (["--atol", "1", "--matched", "most"], 2, "bad-option"),
        (["--atol", "1", "--no-identify"], 2, "bad-option"),
        (["--atol", "1", "--layout", "bhtd"], 2, "bad-option"),
        (["--atol", "1", "--no-reveal"], 2, "bad-option"),
        (["--atol", "1", "--junit", "j.xml"], 2, "bad-option"),
        (["--atol", "1", "--format", "html"], 2, "unknown-format"),
        (["--atol", "1", "--step", "wieghts"], 2, "unknown-step"),
        (["--atol", "1", "--step", "mask"], 2, "bad-option"),
        (["--atol", "1", "--step", "all"], 2, "bad-option"),
        (["--atol", "1", "--step", "masked_scores"], 3, "absent-step"),
        (["--atol", "1", "--matched", "0.5", "--figures", "qkv.npz"], 2, "bad-option"),
    ],
)
def test_refusals(attn, qkv, words, status, code):
    run = attn("check", qkv, *words)

    assert (run.status, run.out) == (status, "")
    assert f"error[{code}]" in run.err


@pytest.mark.parametrize(
    ("refused", "followed"),
    [
        (["--atol", "1", "--step", "all"], ["--atol", "1"]),
        (["--atol", "1", "--step", "mask"], ["--atol", "1"]),
        (["--atol", "1", "--matched", "most"], ["--atol", "1", "--matched", "0.95"]),
        (["--figures", "none"], ["--figures", "none", "--rtol", "1e-2", "--atol", "1e-2"]),
    ],
)
def test_the_way_out_of_a_refusal_works(attn, qkv, refused, followed):
    assert attn("check", qkv, *refused).status == 2
    assert attn("check", qkv, *followed, "-f", "plain").out.startswith("verdict: ")


def test_a_folder_has_no_tolerance_of_its_own(attn, tmp_path):
    run = attn("check", ".", "--atol", "1", "--matched", "0.5")

    assert run.status == 2
    assert "--matched is for one problem" in run.err


# ── Python ───────────────────────────────────────────────────────────────────────────────────────
def test_python_says_the_same():
    report = attncli.judge_tolerance(attncli.Problem(**draw()), rtol=0.5, atol=0.5, mask="causal")

    assert not report.is_tight
    assert not report
    assert report.passed == judge(draw(), Tolerance(0.5, 0.5), mask="causal").passed
    with pytest.raises(AssertionError, match="too loose: "):
        report.assert_tight()
    attncli.judge_tolerance(
        attncli.Problem(**draw()), rtol=report.loosest.rtol, atol=report.loosest.atol, mask="causal"
    ).assert_tight()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no tolerance is given"),
        ({"rtol": -1}, "rtol takes a number"),
        ({"atol": 1, "matched": 0}, "matched takes a share"),
        ({"atol": 1, "matched": 2}, "matched takes a share"),
        ({"atol": 1, "step": "wieghts"}, "'wieghts'"),
    ],
)
def test_python_refuses(options, words):
    with pytest.raises(attncli.AttnError, match=words):
        attncli.judge_tolerance([[1.0, 0], [0, 1]], **options)
