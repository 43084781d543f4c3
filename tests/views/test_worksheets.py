"""Pages with gaps: worksheets."""

from __future__ import annotations

import json

import pytest

import attncli
from attncli.variant import Variant
from tests.helpers import SAMPLES, draw_normal
from tests.laws.problems import N, problem_for
from tests.views.pages import page

CAT = SAMPLES / "cat_sat.json"


def test_a_worksheet_has_gaps_and_says_which_cells_they_are(attn):
    sheet = attn("explain", CAT, "cat", "--blank", "weights,context").out
    key = attn("explain", CAT, "cat", "--blank", "weights,context", "--answers").out

    for n in range(1, 8):
        assert sheet.count(f"⟨{n}⟩____") == 1
    assert "⟨1⟩ to ⟨3⟩: weights[1][0:3]\n⟨4⟩ to ⟨7⟩: context[1][0:4]\n" in sheet
    assert "0.7662" not in sheet  # neither as a weight nor as a product with a value of 1
    assert "takes" not in sheet
    assert "⟨2⟩0.7662" in key
    assert "⟨7⟩1.7033" in key
    assert sheet.splitlines()[-2:] == key.splitlines()[-2:]


@pytest.mark.parametrize("step", ["q", "k", "v", "scores", "scaled_scores", "weights", "context"])
def test_a_step_left_blank_is_nowhere_on_the_page(attn, step):
    path = SAMPLES / "journey_two_heads.json"
    words = ["explain", path, "3", "--causal", "--scale", "0.3", "--json", "--precision", "9"]
    record = attn(*words, "--blank", step).json
    answers = attn(*words, "--blank", step, "--answers").json["gaps"]
    page_text = json.dumps(record["sections"], ensure_ascii=False)

    assert len(answers) >= 1
    for gap in answers:
        text = f"{gap['value']:.9f}" if isinstance(gap["value"], float) else "−∞"
        if len(text.strip("-0.")) > 3:
            assert text not in page_text, (step, gap)


@pytest.mark.parametrize(
    ("choices", "blank"),
    [
        ({"head_mixing": "talking-heads", "heads": 2}, ("weights",)),
        ({"head_mixing": "differential", "heads": 2}, ("weights",)),
        ({"head_mixing": "talking-heads", "heads": 2}, ("scaled_scores",)),
        ({"score": "additive"}, ("positioned_q", "positioned_k")),
        ({"score": "kernel:phi=relu"}, ("positioned_q", "positioned_k")),
        ({"heads": 2}, ("head_context", "context")),
        ({"qk_norm": "rms"}, ("normed_k",)),
    ],
    ids=str,
)
def test_results_on_the_way_do_not_give_a_gap_away(choices, blank):
    bare = attncli.Problem(
        embeddings=draw_normal(5, N, 6), positions=list(range(1, N + 1))
    )  # without W, which would hide q and k
    variant = Variant(**choices | ({"position": "rope"} if "score" in choices else {}))
    problem = bare if "score" in choices else problem_for("", variant=variant)
    heads = tuple(range(variant["heads"] or 1))

    sheet = page(problem, variant, blank=blank, precision=9, heads=heads)
    key = page(problem, variant, blank=blank, precision=9, heads=heads, answers=True)

    shown = json.dumps(sheet["sections"], ensure_ascii=False)
    values = [f"{gap['value']:.9f}" for gap in key["gaps"]]
    assert len(values) > 3
    assert [v for v in values if v in shown] == []


def test_a_past_is_not_given_away_by_the_cache(attn, tmp_path):
    past = {"k": draw_normal(1, 1, 1, 2, 3).tolist(), "v": draw_normal(2, 1, 1, 2, 3).tolist()}
    fields = {
        "q": draw_normal(3, 2, 3).tolist(),
        "k": draw_normal(4, 2, 3).tolist(),
        "v": draw_normal(5, 2, 3).tolist(),
        "past": past,
    }
    (tmp_path / "p.json").write_text(json.dumps(fields))

    for step in "kv":
        words = ["explain", "p.json", "1", "--blank", step, "--json", "--precision", "9"]
        shown = json.dumps(attn(*words).json["sections"])
        for gap in attn(*words, "--answers").json["gaps"]:
            assert f"{gap['value']:.9f}" not in shown


def test_gaps_of_a_batch_and_heads_are_addressed_in_full(attn):
    path = SAMPLES / "journey_causal_batch.json"
    gaps = attn("explain", path, "2", "--at", "batch=1", "--blank", "context", "--json").json["gaps"]

    assert gaps[0] == {"gap": 1, "step": "context", "index": [1, 2, 0]}


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--blank", "wieghts"], 2, "did you mean 'weights'"),
        (["--blank", "output"], 3, "no step 'output'"),
        (["--answers"], 2, "add --blank"),
        (["--only", "weights"], 2, "goes through every step"),
        (["--top", "2"], 2, "goes through every step"),
        (["-f", "csv"], 2, "not csv"),
        (["--at", "query=0:2"], 2, "one query is explained at a time"),
        (["--at", "dim=0"], 3, "has an axis 'dim'"),
        (["--grad", "nothing.npy"], 3, "no file nothing.npy"),
        (["--grad", "zeros"], 2, "--grad takes ones or a file, not 'zeros'"),
        (["--grad", "ones", "--blank", "weights"], 2, "a worksheet goes forwards only"),
        (["--blank", "mask", "--causal"], 2, "nothing to leave blank"),
    ],
)
def test_what_cannot_be_explained_is_refused(attn, words, status, says):
    run = attn("explain", CAT, "cat" if "query=0:2" not in words else "", *words)

    assert (run.status, run.out) == (status, "")
    assert says in run.err


def test_a_gap_that_stands_again_before_a_minus_is_no_number_that_was_rounded(attn):
    """⟨1⟩ − 0.0039·1 is no −0.0039·1: what it comes to is not known, and nothing says that it does not come out."""
    run = attn("explain", CAT, "cat", "--scale", "none", "--alibi", "--blank", "scores", "--json")

    lines = [line for s in run.json["sections"] if s["title"] == "positioned_scores" for line in s["lines"]]
    assert len(lines) == 3
    assert all(line["text"].startswith("⟨") and " − " in line["text"] for line in lines)
    assert not any(line["rounded"] for line in lines)
