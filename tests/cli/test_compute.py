"""`attn compute`: the book's examples, --at, --only, --top, warnings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import SAMPLES

HELLO = SAMPLES / "hello_shiny_sun.json"


def test_the_first_example(attn):
    shown = attn("compute", HELLO, "--variant", "simplified", "--at", "query=shiny")
    whole = attn("compute", HELLO, "--variant", "simplified", "--json").json

    assert shown.status == 0
    assert shown.err == ""
    for row in (
        "1 shiny        0.7842    1.3569   1.2487",
        "1 shiny        0.2291    0.4063   0.3646   1.0000",
        "1 shiny       0.3990   0.3854   0.8610",
    ):
        assert row in shown.out
    np.testing.assert_allclose(whole["weights"][1], [0.22913359, 0.40626482, 0.36460159], atol=5e-9)
    np.testing.assert_allclose(whole["context"][1], [0.39896024, 0.38542429, 0.86095114], atol=5e-9)


@pytest.mark.parametrize(
    ("words", "step", "rows"),
    [
        (["--projection", "linear:dim=2", "--seed", "789"], "context", [[-0.0739, 0.0713], [-0.0748, 0.0703]]),
        (
            ["--projection", "linear:dim=2", "--seed", "123", "--causal"],
            "context",
            [[-0.4519, 0.2216], [-0.5874, 0.0058]],
        ),
        (
            ["--projection", "linear:dim=2,bias=o,out=yes", "--seed", "123", "--causal", "--heads", "2"],
            "output",
            [[0.3190, 0.4858], [0.2943, 0.3897]],
        ),
    ],
)
def test_the_book_by_options(attn, tmp_path, words, step, rows):
    source = json.loads((SAMPLES / "journey_linear.json").read_text())
    (tmp_path / "six.json").write_text(json.dumps({k: source[k] for k in ("tokens", "embeddings")}))

    done = attn("compute", "six.json", *words, "--json")

    np.testing.assert_allclose(done.json[step][:2], rows, atol=5.1e-5)


def test_csv_says_what_it_found_and_quiet_does_not(attn):
    loud, quiet = (attn("compute", SAMPLES / "tokens.csv", *words) for words in ([], ["--quiet"]))

    assert loud.err == f"{SAMPLES}/tokens.csv: 3 tokens × 4 dims, header row, token column 'token', separator comma\n"
    assert quiet.err == ""
    assert loud.out == quiet.out


def test_a_drawn_seed_is_shown_and_recorded(attn):
    first = attn("compute", SAMPLES / "tokens.csv", "--projection", "randn", "--json", "-q").json
    again = attn(
        "compute", SAMPLES / "tokens.csv", "--projection", "randn", "--seed", first["variant"]["seed"], "--json", "-q"
    ).json
    other = attn("compute", SAMPLES / "tokens.csv", "--projection", "randn", "--json", "-q").json
    table = attn("compute", SAMPLES / "tokens.csv", "--projection", "randn", "-q")

    assert first["weights"] == again["weights"]
    assert first["parameters"] == again["parameters"]
    assert set(first["parameters"]) == {"w_q", "w_k", "w_v"}
    assert other["variant"]["seed"] != first["variant"]["seed"]
    assert re.search(r" · seed \d+ · float64\n", table.out)


def test_only_at_top_and_precision(attn):
    only = attn("compute", SAMPLES / "cat_sat.json", "--only", "weights,context", "--only", "q", "--json").json
    every = attn("compute", SAMPLES / "cat_sat.json", "--only", "all", "--json").json
    part = attn(
        "compute", SAMPLES / "cat_sat.json", "--at", "query=1", "--at", "key=1:", "--at", "dim=0", "--json"
    ).json
    top = attn("compute", SAMPLES / "cat_sat.json", "--top", "2", "--json").json
    table = attn(
        "compute", SAMPLES / "cat_sat.json", "--top", "1", "--precision", "2", "--only", "top_keys,top_weights"
    )

    assert list(only["axes"]) == ["q", "weights", "context"]
    assert list(every["axes"]) == [
        "q",
        "k",
        "v",
        "scores",
        "scaled_scores",
        "max_score",
        "log_sum_exp",
        "entropy",
        "visible_keys",
        "weights",
        "context",
    ]
    np.testing.assert_allclose(every["log_sum_exp"], [1.9580, 3.2664, 3.3064], atol=5e-5)
    np.testing.assert_allclose(every["entropy"], [1.550, 0.981, 1.085], atol=5e-4)
    assert part["at"] == {"query": [1], "key": [1, 2], "dim": [0]}
    assert (part["tokens"], part["k_tokens"]) == (["cat"], ["cat", "sat"])
    assert part["scores"] == [[6.0, 3.0]]
    assert part["shapes"] == {"scores": [1, 2], "scaled_scores": [1, 2], "weights": [1, 2], "context": [1, 1]}
    assert top["top_keys"] == [[0, 2], [1, 2], [2, 1]]  # a tie of 0 and 2 for the first query: the lower index first
    assert re.search(r"^1 cat +1 cat$", table.out, re.MULTILINE)
    assert re.search(r"1 cat +0\.77\n", table.out)


@pytest.mark.parametrize(
    ("wish", "rows"),
    [
        ([], ["0 d", "1 e"]),
        (["key=0"], ["0", "1"]),
        (["key=4"], ["0", "1 e"]),
        (["key=1:4"], ["0 d", "1"]),
        (["new_key=0"], ["0 d"]),
        (["new_key=e"], ["1 e"]),
        (["key=c", "new_key=1"], ["1"]),
    ],
    ids=str,
)
def test_new_keys_have_their_own_tokens_whichever_keys_are_selected(attn, wish, rows):
    """With a cache of a, b and c the new keys are d and e; which of them are shown does not depend on the keys that are."""
    past = {name: [[[[1, 0], [2, 1], [0, 3]]]] for name in "kv"}
    problem = {"q": [[1, 0]], "k": [[1, 1], [0, 1]], "v": [[1, 2], [3, 4]], "past": past, "k_tokens": [*"abcde"]}
    Path("p.json").write_text(json.dumps(problem))

    run = attn("compute", "p.json", "--only", "all", "--quiet", *(word for at in wish for word in ("--at", at)))

    assert run.status == 0
    shown = run.out.partition("\nk   ")[2].partition("\n\n")[0].splitlines()[3:]
    assert [re.split(r"  +", line)[0] for line in shown] == rows


@pytest.mark.parametrize(
    ("wish", "indices"),
    [("query=sat", [2]), ("query=-1", [2]), ("query=0:2", [0, 1]), ("query=:", [0, 1, 2]), ("key=1", None)],
)
def test_at_chooses(attn, wish, indices):
    done = attn("compute", SAMPLES / "cat_sat.json", "--at", wish, "--json").json

    assert done["at"].get("query") == indices


def test_a_token_is_looked_up_in_the_batch_item_chosen(attn, tmp_path):
    (tmp_path / "b.json").write_text(
        json.dumps({"tokens": [["a", "b"], ["b", "a"]], "embeddings": [[[1], [2]], [[3], [4]]]})
    )

    unclear = attn("compute", "b.json", "--at", "query=a")
    clear = attn("compute", "b.json", "--at", "query=a", "--at", "batch=1", "--json").json

    assert unclear.status == 3
    assert "choose one first: --at batch=0 --at query=a" in unclear.err
    assert clear["at"] == {"batch": [1], "query": [1]}
    assert clear["tokens"] == [["a"]]
    assert clear["scores"] == [[[12.0, 16.0]]]


def test_warnings_stand_on_standard_error_and_in_the_result(attn, tmp_path):
    (tmp_path / "a.json").write_text(
        json.dumps({"embeddings": [[1], [2]], "segments": [0, 0], "mask": [[True, True], [False, False]]})
    )

    done = attn("compute", "a.json", "--json", "--quiet")

    assert done.json["warnings"] == [
        "unused-field: segments is not used by this variant",
        "empty-rows: query 1 sees no key: weights and context are 0",
    ]
    assert (
        done.err
        == "warning[unused-field]: segments is not used by this variant\nwarning[empty-rows]: query 1 sees no key: weights and context are 0\n"
    )
