"""Pages with gaps: worksheets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import attncli
from attncli.variant import Variant
from tests.helpers import SAMPLES, draw_normal
from tests.laws.problems import N, problem_for
from tests.views.pages import page
from tests.worksheet_solver import Worksheet

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
    learned = {name: draw_normal(n, 4, 3).tolist() for n, name in enumerate(("w_q", "w_k", "w_v"))}
    fields = {"embeddings": draw_normal(3, 2, 4).tolist(), "parameters": learned, "past": past}
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
        (["--grad", "ones", "--blank", "weights"], 2, "a worksheet covers the forward pass only"),
        (["--blank", "mask", "--causal"], 2, "nothing to leave blank"),
        (["--blank", "exponentials"], 2, "--blank exponentials,weights"),
        (["--blank", "exponentials,weights", "--normalizer", "sparsemax"], 3, "sparsemax has no exponentials"),
        (["--blank", "scores,weights", "--at", "key=1"], 2, "leave --at key out"),
        (["--seeds", "1..3", "-o", "new"], 2, "nothing is drawn from the seed here"),
        (["--seeds", "1..3", "-o", "new", "--projection", "randn:seed=5"], 2, "without a seed= of its own"),
        (["--seeds", "1..3", "--projection", "randn"], 2, "-o FOLDER"),
        (["--seeds", "3..1", "-o", "new", "--projection", "randn"], 2, "1..30 or 1,5,9"),
        (["--seeds", "1..1002", "-o", "new", "--projection", "randn"], 2, "at most 1000 pages, not 1002"),
        (["--seeds", "1..3", "--seed", "1", "-o", "new", "--projection", "randn"], 2, "both name the seed"),
        (["--seeds", "1", "--answers", "--blank", "q", "-o", "new", "--projection", "randn"], 2, "leave --answers out"),
    ],
)
def test_what_cannot_be_explained_is_refused(attn, words, status, says):
    run = attn("explain", CAT, "cat" if "query=0:2" not in words else "", *words)

    assert (run.status, run.out) == (status, "")
    assert says in run.err
    assert not Path("new").exists()


@pytest.mark.parametrize("step", ["q", "k,v"])
def test_what_came_in_as_it_is_cannot_be_left_blank(attn, tmp_path, step):
    fields = {letter: draw_normal(n, 2, 3).tolist() for n, letter in enumerate("qkv")}
    (tmp_path / "p.json").write_text(json.dumps(fields))

    run = attn("explain", "p.json", "1", "--blank", step)

    assert (run.status, run.out) == (2, "")
    assert "came in as given" in run.err
    gaps = attn("explain", "p.json", "1", "--blank", "all", "--json").json["gaps"]
    assert {gap["step"] for gap in gaps} == {"scores", "scaled_scores", "weights", "context"}


def test_exponentials_are_left_blank_beside_the_weights(attn):
    plain = attn("explain", CAT, "cat", "--blank", "weights").out
    sheet = attn("explain", CAT, "cat", "--blank", "exponentials,weights").out

    assert "e^(0.5 − 3) = e^(-2.5) = 0.0821" in plain
    assert "the       e^(0.5 − ____) = e^(____) = ____" in sheet
    assert sheet.splitlines()[-2] == plain.splitlines()[-2] == "⟨1⟩ to ⟨3⟩: weights[1][0:3]"


@pytest.mark.slow
def test_a_sheet_for_each_seed_is_solved_and_marked_right(attn, tmp_path):
    """Filled in from the sheet alone, and marked with the seed that is its name; the key of another seed is wrong."""
    words = [SAMPLES / "tokens.csv", "--projection", "randn:dim=2"]
    blank = ["--blank", "k,scores,weights,context"]

    run = attn("explain", *words, "cat", *blank, "--seeds", "1..3", "-o", "sheets", "--precision", "9")

    assert (run.status, run.out) == (0, "")
    assert "3 worksheets in sheets, and the keys in sheets/keys" in run.err
    names = [f"seed-{seed}.md" for seed in (1, 2, 3)]
    assert sorted(path.name for path in (tmp_path / "sheets").glob("*.md")) == names
    assert sorted(path.name for path in (tmp_path / "sheets" / "keys").iterdir()) == names
    for seed in (1, 2, 3):
        record = attn("explain", *words, "cat", *blank, "--seed", seed, "--json", "--precision", "9").json
        sheet = (tmp_path / "sheets" / f"seed-{seed}.md").read_text(encoding="utf-8")
        for gap, value in Worksheet(record).solve().items():
            assert f"⟨{gap}⟩____" in sheet
            sheet = sheet.replace(f"⟨{gap}⟩____", f"⟨{gap}⟩{value:.6f}")
        (tmp_path / "filled.md").write_text(sheet, encoding="utf-8")
        marks = attn("check", *words, "--seed", seed, "--figures", "filled.md", "--json", "--no-identify").json
        assert marks["verdict"] == "right", seed
        key = tmp_path / "sheets" / "keys" / f"seed-{seed}.md"
        assert attn("check", *words, "--seed", seed, "--figures", key, "--no-identify").status == 0
        assert attn("check", *words, "--seed", seed % 3 + 1, "--figures", key, "--no-identify").status == 1
    assert "error[output-exists]" in attn("explain", *words, "cat", *blank, "--seeds", "1..3", "-o", "sheets").err


def test_a_sheet_for_each_query(attn, tmp_path):
    words = ["explain", CAT, "--causal", "--blank", "weights"]

    assert attn(*words, "--at", "query=0:3", "-o", "sheets", "-f", "latex", "-q").err == ""

    assert sorted(path.name for path in (tmp_path / "sheets").glob("*.tex")) == [f"query-{i}.tex" for i in range(3)]
    alone = attn(*words, "--at", "query=1", "-f", "latex").out
    assert (tmp_path / "sheets" / "query-1.tex").read_text(encoding="utf-8") == alone
    assert attn(*words, "--at", "query=0:3").status == 2


def test_a_gap_that_stands_again_before_a_minus_is_no_number_that_was_rounded(attn):
    """⟨1⟩ − 0.0039·1 is no −0.0039·1: what it comes to is not known, and nothing says that it does not come out."""
    run = attn("explain", CAT, "cat", "--scale", "none", "--alibi", "--blank", "scores", "--json")

    lines = [line for s in run.json["sections"] if s["title"] == "positioned_scores" for line in s["lines"]]
    assert len(lines) == 3
    assert all(line["text"].startswith("⟨") and " − " in line["text"] for line in lines)
    assert not any(line["rounded"] for line in lines)


@pytest.mark.parametrize(
    ("format", "heading"),
    [("table", "Exercise 3\n"), ("markdown", "# Exercise 3\n"), ("latex", "\\section*{Exercise 3}\n")],
)
def test_a_title_of_ones_own_stands_in_place_of_the_query(attn, format, heading):
    run = attn("explain", CAT, "cat", "--blank", "weights", "--title", "Exercise 3", "--format", format)
    assert heading in run.out
    assert "Attention of query" not in run.out


def test_a_title_is_text_in_every_format(attn):
    title = "a_b 50 % \x1b[31m<b>"
    assert "\\section*{a\\_b 50 \\% " in attn("explain", CAT, "--title", title, "--format", "latex").out
    assert "<b>" not in attn("explain", CAT, "--title", title, "--format", "markdown").out
    assert "\x1b" not in attn("explain", CAT, "--title", title, "--format", "table").out
    assert attn("explain", CAT, "--title", title, "--json").json["title"].startswith("a_b 50 % ")
