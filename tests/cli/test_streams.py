"""Streams of problems, line by line, and standard input."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.helpers import ROOT, TIMEOUT


@pytest.mark.slow
def test_a_stream_answers_each_line_before_the_next():
    """A script keeps the process open: it writes a problem and has its answer before it writes another."""
    with subprocess.Popen(
        [sys.executable, "-m", "attncli", "compute", "-", "--input-format", "ndjson"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as child:
        answers = []
        for line in (b'{"embeddings": [[1, 2]]}', b"{broken", b"", b'{"embeddings": [[1], [2, 3]]}', b"[[3, 4]]"):
            child.stdin.write(line + b"\n")
            child.stdin.flush()
            if line:
                answers.append(json.loads(child.stdout.readline()))
        child.stdin.close()
        status = child.wait(timeout=TIMEOUT)

    assert status == 1
    assert answers[0]["scores"] == [[5.0]]
    assert answers[1]["error"]["code"] == "bad-json"
    assert answers[1]["error"]["location"]["row"] == 2
    assert answers[2]["error"]["code"] == "ragged"
    assert answers[2]["error"]["location"]["row"] == 4
    assert answers[2]["error"]["path"] == "$.embeddings[1]"
    assert answers[3]["scores"] == [[25.0]]


def test_a_stream_in_a_file_and_to_a_file(attn, tmp_path):
    (tmp_path / "p.ndjson").write_text('[[1, 2]]\n{"embeddings": [[2]], "variant": {"heads": 3}}\n')

    done = attn("compute", "p.ndjson", "-o", "r.ndjson", "--only", "weights")

    lines = [json.loads(line) for line in (tmp_path / "r.ndjson").read_text().splitlines()]
    assert done.status == 1
    assert lines[0]["weights"] == [[1.0]]
    assert lines[1]["error"]["message"] == "the 1 column of q cannot be split into 3 heads"


IDENTIFIED = """
{"id": 9007199254740993, "meta": {"split": "test", "\u202e": [1.50, null]}, "embeddings": [[1, 2]]}

{"id": "x", "embeddings": [[2]], "variant": {"heads": 3}}
{"id": 7, "meta": {"a": 1}, "embeddings": [[1, "a"]]}
{"id": 8, "embeddings": [[1,]]}
{"id": [8], "meta": {"a": 1}, "embeddings": [[1]]}
"""


def test_every_answer_says_which_line_it_is_of(attn, tmp_path):
    """Blank lines are counted, and `id` and `meta` come back as they were, with errors too where they can be read."""
    (tmp_path / "p.ndjson").write_text(IDENTIFIED)

    done = attn("compute", "p.ndjson", "--only", "scores")

    answers = [json.loads(line) for line in done.out.splitlines()]
    assert [list(answer)[:4] for answer in answers[1:]] == [
        ["source", "line", "id", "error"], ["source", "line", "id", "meta"], ["source", "line", "error"], ["source", "line", "meta", "error"],
    ]  # fmt: skip
    assert [(a["source"], a["line"], a.get("id"), a.get("meta")) for a in answers] == [
        ("p.ndjson", 2, 9007199254740993, {"split": "test", "\u202e": [1.5, None]}),
        ("p.ndjson", 4, "x", None),
        ("p.ndjson", 5, 7, {"a": 1}),
        ("p.ndjson", 6, None, None),
        ("p.ndjson", 7, None, {"a": 1}),
    ]
    errors = [answer["error"] for answer in answers[1:]]
    assert [(e["code"], e["location"]["row"]) for e in errors] == [
        ("heads-mismatch", 4), ("not-a-number", 5), ("bad-json", 6), ("wrong-type", 7),
    ]  # fmt: skip
    assert "\u202e" not in done.out
    bare = [json.loads(line) for line in attn("compute", "p.ndjson", "--only", "scores", "--bare").out.splitlines()]
    names = ("source", "line", "id", "meta", "tokens", "k_tokens", "scores", "warnings")
    assert bare == [{name: answers[0][name] for name in names}, *answers[1:]]


def test_a_result_says_its_source(attn, tmp_path):
    (tmp_path / "x.json").write_text('{"id": "one", "embeddings": [[1]]}')

    for words, more, source in (
        (["compute", "x.json"], {}, "x.json"),
        (["compute", tmp_path / "x.json"], {}, str(tmp_path / "x.json")),
        (["compute", "-", "--input-format", "json"], {"stdin": b"[[1]]"}, "<stdin>"),
        (["demo"], {}, "cat_sat"),
    ):
        result = attn(*words, "--json", **more).json
        assert (result["source"], "line" in result) == (source, False)
    assert attn("compute", "x.json", "--json").json["id"] == "one"


def test_a_bare_record_is_refused_where_a_whole_one_is_needed(attn, tmp_path):
    (tmp_path / "x.json").write_text("[[1, 2], [0, 1]]")
    (tmp_path / "r.json").write_text(attn("compute", "x.json", "--json", "--bare").out)

    as_problem, as_figures = attn("compute", "r.json"), attn("check", "x.json", "--figures", "r.json")

    hint = "this result was written with --bare, which leaves out what is needed to read it\n --> r.json\n  = help: write it again without --bare\n"
    assert (as_problem.status, as_problem.err) == (3, f"error[not-a-problem]: {hint}")
    assert (as_figures.status, as_figures.err) == (3, f"error[not-a-result]: {hint}")


def test_a_wrong_command_line_stops_a_stream_at_once(attn):
    for words in (["--format", "table"], ["--only", "weigths"], ["--header", "yes"], ["--mask", "cusal"]):
        done = attn("compute", "-", "--input-format", "ndjson", *words, stdin=b"[[1]]\n")
        assert (done.status, done.out) == (2, ""), words


def test_a_stream_says_how_it_becomes_a_table(attn, tmp_path):
    (tmp_path / "p.ndjson").write_text("[[1, 2]]\n")

    refused = [attn("compute", "p.ndjson", *more) for more in (("-o", "x.parquet"), ("-o", "x.csv"), ("-f", "csv"))]

    hints = [done.err.splitlines()[1] for done in refused]
    assert hints == [
        "  = help: attn batch p.ndjson -o x.parquet makes one table of them",
        "  = help: -o FILE.ndjson",
        "  = help: --format ndjson",
    ]
    assert [done.status for done in refused] == [2, 2, 2]
    for words in (("batch", "p.ndjson", "-o", "x.parquet"), ("compute", "p.ndjson", "-o", "x.ndjson")):
        assert attn(*words).status == 0


def test_a_bug_costs_a_stream_one_line(attn, monkeypatch):
    import attncli.select as select

    was, calls = select.select_indices, iter([1, 0, 1])
    monkeypatch.setattr(select, "select_indices", lambda *a: was(*a) if next(calls) else 1 / 0)

    done = attn("compute", "-", "--input-format", "ndjson", "--only", "q", stdin=b"[[1]]\n[[2]]\n[[3]]\n")

    lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.status == 1
    assert [line.get("q") for line in lines] == [[[1.0]], None, [[3.0]]]
    assert lines[1]["error"]["code"] == "bug"


def test_standard_input(attn):
    done = attn("compute", "-", "--input-format", "csv", "--only", "scores", "--json", stdin=b"a,1,2\nb,3,4\n")

    assert done.json["scores"] == [[5.0, 11.0], [11.0, 25.0]]
    assert done.err.startswith("<stdin>: 2 tokens × 2 dims")
