"""Streams of problems, line by line, and standard input."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.helpers import ROOT, TIMEOUT


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
    assert lines[1]["error"]["message"] == "q has 1 column, which 3 heads do not divide"


def test_a_wrong_command_line_stops_a_stream_at_once(attn):
    for words in (["--format", "table"], ["--only", "weigths"], ["--header", "yes"], ["--mask", "cusal"]):
        done = attn("compute", "-", "--input-format", "ndjson", *words, stdin=b"[[1]]\n")
        assert (done.status, done.out) == (2, ""), words


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
