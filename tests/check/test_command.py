"""`attn check`: refusals, the record of a verdict, its views, and folders."""

from __future__ import annotations

import json
import os
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.helpers import GOLDEN, SAMPLES, run_without_torch, softmax

pytestmark = [pytest.mark.slow, pytest.mark.uncounted]

CAT_SAT = SAMPLES / "cat_sat.json"


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["p.csv"], 3, "no-figures"),
        (["p.csv", "--figures", "none.json"], 3, "no-such-file"),
        (["p.csv", "--figures", "mine.tex"], 2, "unknown-format"),
        (["p.csv", "--figures", "-"], 2, "bad-option"),
        (["p.csv", "--figures", "mine.txt"], 3, "no-figures"),
        (["p.csv", "--figures", "mine.json", "--step", "weigths"], 2, "unknown-step"),
        (["p.csv", "--figures", "mine.json", "--step", "context"], 3, "absent-step"),
        (["p.csv", "--figures", "mine.json", "--rtol", "-1"], 2, "bad-option"),
        (["p.csv", "--figures", "mine.json", "--rule", "digits", "--atol", "1"], 2, "bad-option"),
        (["p.csv", "--figures", "mine.json", "--rule", "nearly"], 2, "usage"),
        (["p.csv", "--figures", "mine.json", "--format", "csv"], 2, "unknown-format"),
        (["p.csv", "--figures", "mine.json", "--heads", "5"], 3, "heads-mismatch"),
        (["empty"], 3, "no-figures"),
        (["nodir"], 3, "no-such-file"),
        (["p.csv", "--figures", "mine.json", "--step", "all"], 2, "bad-option"),
        (["p.csv", "--figures", "mine.json", "--step", ""], 2, "bad-option"),
        ([".", "--figures", "mine.json"], 2, "bad-option"),
    ],
)  # fmt: skip
def test_refusals(attn, tmp_path, words, status, code):
    (tmp_path / "p.csv").write_text("token,a,b\nx,1,0\ny,0,1\n")
    (tmp_path / "mine.json").write_text('{"weights": [[0.67, 0.33], [0.33, 0.67]]}')
    (tmp_path / "mine.txt").write_text("nothing is asked here")
    (tmp_path / "empty").mkdir()

    run = attn("check", *words)

    assert (run.status, run.out) == (status, "")
    assert f"error[{code}]" in run.err


def test_what_is_refused_is_refused_without_torch(tmp_path):
    (tmp_path / "mine.json").write_text('{"weights": [[0.67, 0.33], [0.33, 0.67]]}')
    (tmp_path / "w.md").write_text("⟨1⟩____\n\n⟨1⟩: weights[7][0]\n")
    commands = [
        ["check", str(CAT_SAT), "--figures", str(tmp_path / name)] for name in ("mine.json", "w.md", "none.csv")
    ]

    assert [(status, asked) for status, asked, _, _ in run_without_torch(commands)] == [(3, False)] * 3


def test_the_record_of_a_verdict(attn, tmp_path):
    (tmp_path / "mine.json").write_text('{"context": {"values": [[0.3992, 0.3858, 0.8610]], "rows": [1]}}')

    run = attn("check", SAMPLES / "hello_shiny_sun.json", "--figures", "mine.json", "--json")

    assert run.status == 1
    assert run.json["schema"] == "attn.check/1"
    assert (run.json["verdict"], run.json["first_wrong"], run.json["identified"]) == ("wrong", "context", [])
    [step] = run.json["steps"]
    assert (step["step"], step["shape"], step["rule"]["name"]) == ("context", [1, 3], "digits")
    assert (step["mine"], step["reference"]) == (0.3858, pytest.approx(0.385424, abs=1e-6))
    assert (step["right"], step["wrong"], step["of"], step["cause"]) == (False, 2, 3, "first")
    assert run.json["variant"]["name"] == "simplified"
    assert {p["wrong"]: p["caught"] for p in run.json["power"]} == {"uniform weights": True, "shuffled values": True}
    assert run.json["nearest"] == []  # nothing that was tried takes off most of the error


@pytest.mark.parametrize("format", ["table", "plain", "markdown", "json"])
def test_every_form_says_the_verdict(attn, tmp_path, format):
    (tmp_path / "mine.json").write_text('{"weights": [[0.42, 0.16, 0.42], [0.01, 0.95, 0.05], [0.02, 0.05, 0.94]]}')

    run = attn("check", CAT_SAT, "--figures", "mine.json", "--format", format)

    assert run.status == 1
    assert "wrong" in run.out
    assert "the reference without 1/" in run.out.replace("\\", "")


def test_tokens_and_names_are_printed_safely(attn, tmp_path):
    tokens = ["\x1b[31mred", "[/bold]"]
    mine = {"weights": [[0.5, 0.5], [0.5, 0.5]]}
    (tmp_path / "p.json").write_text(json.dumps({"tokens": tokens, "embeddings": [[2, 1], [0, 1]], "expected": mine}))

    for format in ("table", "plain", "markdown"):
        run = attn("check", "p.json", "--format", format, "--no-identify")
        assert run.status == 1
        assert "\x1b" not in run.out
        assert "[/bold]" in run.out.replace("\\", "") or "␛" in run.out


def test_records_keep_their_schema(attn, tmp_path):
    import jsonschema

    (tmp_path / "mine.json").write_text('{"masked_scores": [[0.5, 1, "NaN"], [1, 1, 1], [1, 1, 1]]}')
    (tmp_path / "sheet.md").write_text("⟨1⟩0.5 ⟨2⟩____\n\n⟨1⟩ to ⟨2⟩: weights[0][0:2]\n", encoding="utf-8")
    validator = jsonschema.Draft202012Validator(attn("schema", "check").json)

    for words in (
        [CAT_SAT],
        [CAT_SAT, "--causal", "--figures", "mine.json"],
        [CAT_SAT, "--figures", "sheet.md", "--no-identify"],
        [CAT_SAT, "--rule", "close", "--no-identify"],
        [SAMPLES],
    ):
        validator.validate(attn("check", *words, "--json").json)
    assert not validator.is_valid({**attn("check", CAT_SAT, "--json").json, "verdict": "perhaps"})


def test_golden_problems_are_right(attn):
    import jsonschema

    run = attn("check", GOLDEN, "--json")

    jsonschema.validate(run.json, attn("schema", "check").json)
    wrong = [p["input"] for p in run.json["problems"] if p["verdict"] != "right"]
    assert wrong == ["known_wrong.json"]  # no problem: its figures are known not to come out
    assert (run.status, run.json["right"], run.json["of"]) == (1, 99, 100)


def test_a_folder_is_a_matrix(attn, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "right.json").write_text(CAT_SAT.read_text())
    (tmp_path / "silent.json").write_text('{"embeddings": [[1]]}')
    assert attn("check", ".").status == 0

    (tmp_path / "wrong.json").write_text(
        '{"embeddings": [[2, 1], [0, 1]], "expected": {"weights": [[0.5, 0.5], [0.5, 0.5]]}}'
    )
    (tmp_path / "broken.json").write_text('{"embeddings": [[1], ')
    run = attn("check", ".", "--json")
    table = attn("check", ".").out

    assert run.status == 1
    assert [(p["verdict"], p["input"].rpartition("/")[2]) for p in run.json["problems"]] == [
        ("error", "broken.json"),
        ("right", "right.json"),
        ("wrong", "wrong.json"),
    ]
    assert [line.split()[:2] for line in table.splitlines()[2:5]] == [
        ["broken.json", "error"],
        ["deep/right.json", "right"],
        ["wrong.json", "wrong"],
    ]
    assert "broken.json: bad-json" in table


def one_wrong_figure(attn, tmp_path):
    """Figures of a small context of which one is wrong, which nothing explains."""
    attn("compute", CAT_SAT, "--only", "context", "-o", "r.json")
    figures = json.loads((tmp_path / "r.json").read_text())["context"]
    figures[1][1] += 0.3
    (tmp_path / "mine.json").write_text(json.dumps({"context": [[round(x, 4) for x in row] for row in figures]}))
    return ["check", CAT_SAT, "--figures", "mine.json"]


def test_a_search_says_which_pairs_of_changes_it_leaves_out(attn, tmp_path, monkeypatch):
    words = one_wrong_figure(attn, tmp_path)
    monkeypatch.setattr("attncli.check.search._MAX_PAIR_TRIALS", 20)

    run, record = attn(*words), attn(*words, "--json").json

    assert record["left_out"] > 100
    assert (
        f"({record['searched']} computations, without {record['left_out']} less likely changes or pairs of changes)"
        in run.out
    )


def test_a_long_search_is_announced_once_where_no_bar_is_shown(attn, tmp_path, monkeypatch):
    words = one_wrong_figure(attn, tmp_path)
    monkeypatch.setattr("attncli.check.search._MAX_PAIR_TRIALS", 20)
    assert "looking for" not in attn(*words, "--no-identify").err

    monkeypatch.setattr("attncli.cli.check._SECONDS_BEFORE_NOTE", 0.0)

    said = [line for line in attn(*words).err.splitlines() if line.startswith("looking for")]
    assert len(said) == 1
    assert said[0].endswith("--no-identify skips this")
    assert attn(*words, "-q").err == ""


def test_a_folder_says_what_it_leaves_out(attn, tmp_path):
    (tmp_path / "p.json").write_text(json.dumps({"embeddings": [[1.0]], "expected": {"weights": [[1.0]]}}))
    os.mkfifo(tmp_path / "pipe.json")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone.json").symlink_to("nowhere.json")

    run = attn("check", ".")

    assert run.err == "2 files and folders left out: not a regular file, or not readable\n"
    assert run.status == 1
    assert "1 of 2 problems right" in run.out
    assert "gone.json: no-such-file" in run.out


def test_a_folder_of_npz_files_that_hold_their_variants_and_its_junit_report(attn, tmp_path):
    rng = np.random.default_rng(0)
    cases = tmp_path / "cases"
    cases.mkdir()
    for name, mask, is_wrong in (("a", "causal", False), ("b", "full", False), ("c", "causal", True)):
        q, k, v = rng.normal(size=(3, 1, 2, 4, 3))
        weights = softmax(np.where(np.tri(4) == 1 if mask == "causal" else True, q @ k.mT / 3**0.5, -np.inf))
        context = weights @ v * (2 if is_wrong else 1)
        about = json.dumps({"layout": "bhtd", "variant": {"mask": mask}})
        arrays = {"q": q, "k": k, "v": v, "expected.head_context": context, "attn": about}
        np.savez(cases / f"{name}.npz", **arrays)
    loose = {"q": [[1, 0]], "k": [[0, 1], [1, 1]], "v": [[1, 2], [1, 3]]}
    (cases / "d.json").write_text(json.dumps(loose | {"expected": {"context": {"values": [[1, 2.5]], "atol": 9}}}))
    (cases / "e.json").write_text('{"q": [[1, 2]')
    report = tmp_path / "report.xml"

    run = attn("check", cases, "--json", "--junit", report)

    assert run.status == 1
    assert [problem["verdict"] for problem in run.json["problems"]] == ["right", "right", "wrong", "too-loose", "error"]
    suite = ElementTree.parse(report).getroot()[0]
    assert suite.attrib["tests"] == "5"
    outcomes = {case.attrib["name"]: [(child.tag, child.attrib["type"]) for child in case] for case in suite}
    assert outcomes["a.npz"] == []
    assert outcomes["c.npz"] == [("failure", "wrong")]
    assert outcomes["d.json"] == [("failure", "too-loose")]
    assert outcomes["e.json"][0][0] == "error"
    assert "the reference × 2" in suite[2][0].text
    assert "output-exists" in attn("check", cases, "--junit", report).err


def test_a_folder_in_which_nothing_is_wrong_may_be_too_loose(attn, tmp_path):
    loose = {"q": [[1, 0]], "k": [[0, 1], [1, 1]], "v": [[1, 2], [1, 3]]}
    loose["expected"] = {"context": {"values": [[1, 2.5]], "atol": 9}}
    (tmp_path / "d.json").write_text(json.dumps(loose))
    run = attn("check", tmp_path, "--json")
    assert (run.status, run.json["verdict"]) == (1, "too-loose")
