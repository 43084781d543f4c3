"""`attn batch`: names, resumption, keeping going, and what is left when something dies."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from benchmarks.batch_kill import alive, family, left, manifest, moments, problems
from tests.conftest import ROOT, SAMPLES, process

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
GOOD = '{"tokens": ["a", "b"], "embeddings": [[1, 0.5, 2], [0, 1, 1]]}'


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# ── inputs and the names of results ──────────────────────────────────────────────────────────────
@pytest.fixture
def data(tmp_path):
    write(tmp_path, {
        "data/one.json": GOOD, "data/deep/two.csv": "x,1,2\ny,3,4\n", "data/deep/er/three.tsv": "x\t1\t2\ny\t3\t5\n",
        "data/.hidden.json": GOOD, "data/notes.md": "no problem",
    })  # fmt: skip
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("words", "results"),
    [
        (["data"], ["deep/er/three.json", "deep/two.json", "one.json"]),
        (["data/"], ["deep/er/three.json", "deep/two.json", "one.json"]),
        (["data/deep"], ["er/three.json", "two.json"]),
        (["data/deep/two.csv", "data/one.json"], ["one.json", "two.json"]),
        (["data/**/*.?sv"], ["deep/er/three.json", "deep/two.json"]),
        (["d*/*/two.csv"], ["data/deep/two.json"]),
        (["@list.txt"], ["data/deep/two.json", "data/one.json"]),
        (["data/one.json", "data"], ["deep/er/three.json", "deep/two.json", "one.json"]),
        (["data/deep/../one.json"], ["one.json"]),
        (["data", "--keep-suffix"], ["deep/er/three.tsv.json", "deep/two.csv.json", "one.json.json"]),
        (["data/deep", "--format", "npz"], ["er/three.npz", "two.npz"]),
        (["data/deep", "--format", "plain"], ["er/three.plain", "two.plain"]),
    ],
)
def test_results_are_named_below_what_was_named(attn, data, tmp_path, words, results):
    (tmp_path / "list.txt").write_text("data/one.json\ndata/deep/two.csv\tbad-json: what failed.txt says\n\n")

    done = attn("batch", *words, "-o", "out", "-q")

    assert (done.status, done.out, done.err) == (0, "", "")
    assert names(tmp_path / "out") == sorted([*results, "manifest.ndjson"])


def test_a_result_is_what_compute_writes(attn, data, tmp_path):
    attn("batch", "data", "-o", "out", "--causal", "--only", "weights,context", "-q")
    attn("batch", "data", "-o", "tables", "--format", "markdown", "--causal", "--precision", "7", "-q")

    for name, source in (("one", "one.json"), ("deep/two", "deep/two.csv"), ("deep/er/three", "deep/er/three.tsv")):
        attn("compute", data / source, "--causal", "--only", "weights,context", "-o", "x.json", "--force")
        attn("compute", data / source, "--causal", "--precision", "7", "-o", "x.md", "--force")
        assert (tmp_path / "out" / f"{name}.json").read_bytes() == (tmp_path / "x.json").read_bytes()
        assert (tmp_path / "tables" / f"{name}.md").read_bytes() == (tmp_path / "x.md").read_bytes()


@pytest.mark.parametrize(
    ("files", "words", "says"),
    [
        (["a/x.csv", "a/x.json"], ["a"], "--keep-suffix tells them apart"),
        (["a/x.json", "b/x.json"], ["a", "b"], "name a folder above both"),
        (["a/x.json", "b/x.json"], ["a/x.json", "b/x.json"], "name a folder above both"),
        (["a/x.csv", "a/x.json/y.csv"], ["a"], "--keep-suffix tells them apart"),
        (["manifest.ndjson"], ["manifest.ndjson"], "manifest.ndjson"),
        (["a/failed.txt/x.json"], ["a"], "would be called failed.txt/x.json"),
    ],
)
def test_names_that_clash_are_refused_before_anything_runs(attn, tmp_path, files, words, says):
    write(tmp_path, dict.fromkeys(files, GOOD))

    done = attn("batch", *words, "-o", "out")

    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error[name-clash]")
    assert says in done.err
    assert not (tmp_path / "out").exists()


def test_keep_suffix_tells_apart_what_would_clash(attn, tmp_path):
    write(tmp_path, {"a/x.csv": "1,2\n3,4\n", "a/x.json": GOOD})

    assert attn("batch", "a", "-o", "out", "--keep-suffix", "-q").status == 0
    assert names(tmp_path / "out") == ["manifest.ndjson", "x.csv.json", "x.json.json"]


def test_an_input_is_never_replaced(attn, tmp_path):
    write(tmp_path, {"a/x.json": GOOD})

    done = attn("batch", "a", "-o", "a", "--force")
    both = attn("batch", "a/x.json", "-o", "a")

    assert done.status == 3  # the folder of results holds no inputs
    assert both.status == 2
    assert "would replace the input" in both.err
    assert (tmp_path / "a/x.json").read_text() == GOOD


def test_results_inside_the_inputs_are_no_inputs(attn, tmp_path):
    write(tmp_path, {"a/x.json": GOOD})

    attn("batch", "a", "-o", "a/out", "-q")
    again = attn("batch", "a", "-o", "a/out")

    assert "0 done, 0 failed, 1 skipped" in again.err
    assert names(tmp_path / "a/out") == ["manifest.ndjson", "x.json"]


def test_no_name_leads_out_of_the_folder(attn, tmp_path):
    write(tmp_path, {"work/here/x.csv": "1,2\n3,4\n", "elsewhere/y.csv": "1,2\n3,5\n"})
    (tmp_path / "list").write_text("../elsewhere/y.csv\n../work/here/../../elsewhere/./y.csv\nhere/x.csv\n")
    os.chdir(tmp_path / "work")

    assert attn("batch", "@../list", "-o", "out", "-q").status == 0
    inside = str(tmp_path / "elsewhere/y.json").lstrip("/")
    assert names(tmp_path / "work/out") == sorted(["here/x.json", inside, "manifest.ndjson"])


def test_a_link_in_the_folder_of_results_leads_nowhere(attn, tmp_path):
    write(
        tmp_path,
        {"x.csv": "1,2\n3,4\n", "precious.json": "mine", "out/manifest.ndjson": '{"schema": "attn.batch/1"}\n'},
    )
    (tmp_path / "out/x.json").symlink_to(tmp_path / "precious.json")

    assert attn("batch", "x.csv", "-o", "out", "-q").status == 0
    assert (tmp_path / "precious.json").read_text() == "mine"


def test_a_folder_of_others_is_left_alone(attn, tmp_path):
    write(tmp_path, {"x.csv": "1,2\n3,4\n", "out/x.json": "mine"})

    refused = attn("batch", "x.csv", "-o", "out")
    assert (refused.status, (tmp_path / "out/x.json").read_text()) == (2, "mine")
    assert "error[output-exists]" in refused.err
    assert attn("batch", "x.csv", "-o", "out", "--force", "-q").status == 0
    write(tmp_path, {"other/x.csv": "1,2\n3,9\n"})
    assert "is the result of x.csv, not of other/x.csv" in attn("batch", "other/x.csv", "-o", "out").err


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["x.csv"], 2, "where shall the results go?"),
        (["-", "-o", "out"], 2, "standard input is no file of a batch"),
        (["nope.csv", "-o", "out"], 3, "there is no file nope.csv"),
        (["n*pe.csv", "-o", "out"], 3, "nothing matches n*pe.csv"),
        (["@nope", "-o", "out"], 3, "there is no file nope"),
        (["empty", "-o", "out"], 3, "nothing that was named holds a file we read"),
        (["x.csv", "-o", "x.csv"], 2, "x.csv is a file"),
        (["x.csv", "-o", "s3://b/out"], 2, "not to s3://b/out"),
        (["x.csv", "-o", ""], 2, "-o is empty"),
        (["x.csv", "-o", "out", "--scheduler", ""], 2, "--scheduler is empty"),
        (["x.csv", "-o", "-", "--dry-run"], 2, "--dry-run says what would be done to a folder"),
        (["x.csv", "-o", "out", "--retry-failed"], 2, "out holds no batch, and nothing that failed"),
        (["x.csv", "-o", "out", "-j", "0"], 2, "--jobs is an integer from 1 to 4096, not 0"),
        (["x.csv", "-o", "out", "-j", "2", "--scheduler", "tcp://h:1"], 2, "--jobs and --scheduler say two things"),
        (["x.csv", "-o", "out", "--only", "wieghts"], 2, "did you mean 'weights'?"),
        (["x.csv", "-o", "out", "--max-failures", "7.5%"], 2, "not 7.5%"),
        (["x.csv", "-o", "out", "--max-failures", "1", "--fail-fast"], 2, "say two things"),
        (["x.csv", "-o", "-", "-f", "csv"], 2, "standard output gets JSON lines, not csv"),
        (["l.ndjson", "-o", "out", "-f", "csv"], 2, "l.ndjson is answered with JSON lines, not csv"),
        (["l.ndjson", "-o", "out", "--with", "mask=x.csv"], 2, "do not go with l.ndjson"),
        (["x.csv", "-o", "out", "-f", "jsn"], 2, "did you mean 'json'?"),
        (["s4://bucket/x.csv", "-o", "out"], 3, "s4://bucket/x.csv cannot be read"),
    ],
)
def test_a_wrong_command_line_makes_nothing(attn, tmp_path, words, status, says):
    write(tmp_path, {"x.csv": "1,2\n3,4\n", "l.ndjson": GOOD, "empty/notes.md": ""})

    done = attn("batch", *words)

    assert (done.status, done.out) == (status, "")
    assert says in done.err
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(attn, tmp_path, monkeypatch):
    write(tmp_path, {"x.csv": "1,2\n3,4\n"})
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setitem(sys.modules, "s3fs", None)

    dask = attn("batch", "x.csv", "x.csv", "-o", "out", "--scheduler", "tcp://127.0.0.1:1")
    s3 = attn("batch", "s3://bucket/x.csv", "-o", "out")

    assert (dask.status, s3.status) == (4, 4)
    assert "error[missing-extra]" in dask.err
    assert "pip install 'attncli[batch]'" in dask.err
    assert "error[missing-extra]" in s3.err
    assert "pip install s3fs" in s3.err


# ── keeping going ────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def mixed(tmp_path):
    """Forty inputs, of which four are bad in two ways."""
    write(tmp_path, {f"in/p{i:02d}.json": GOOD for i in range(40)})
    write(tmp_path, dict.fromkeys(("in/p03.json", "in/p17.json", "in/p31.json"), "[[1, 2], [3"))
    write(tmp_path, {"in/p20.json": '{"embeddings": [[1, 2], [3]]}'})
    return tmp_path / "in"


def test_bad_files_cost_a_line_each_and_nothing_else(attn, mixed, tmp_path):
    done = attn("batch", "in", "-o", "out")

    assert (done.status, done.out) == (1, "")
    assert "36 done, 4 failed" in done.err
    assert "failed[bad-json]: in/p03.json, and 2 more: this is no JSON: the text ends in the middle" in done.err
    assert "failed[ragged]: in/p20.json: " in done.err
    listed = (tmp_path / "out/failed.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == [f"in/p{i}.json" for i in ("03", "17", "20", "31")]
    assert listed[0].split("\t")[1] == "bad-json: this is no JSON: the text ends in the middle"
    assert len([n for n in names(tmp_path / "out") if n.startswith("p")]) == 36
    record = next(r for r in lines(tmp_path / "out/manifest.ndjson") if r.get("input") == "in/p20.json")
    assert (record["status"], record["attempts"], record["error"]["path"]) == ("failed", 1, "$.embeddings[1]")
    assert len(record["sha256"]) == 64


def test_the_same_command_again_does_what_is_left(attn, mixed, tmp_path):
    attn("batch", "in", "-o", "out", "-q")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("p*")}
    write(tmp_path, {"in/p03.json": GOOD, "in/p05.json": GOOD.replace("0.5", "0.25"), "in/p99.json": GOOD})
    (tmp_path / "out/p06.json").unlink()
    (tmp_path / "out/p07.json").write_text("")  # what a loss of power can leave

    again = attn("batch", "in", "-o", "out")

    assert again.status == 1
    assert "5 done, 3 failed, 33 skipped" in again.err  # 03, 05, 06, 07, 99
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("p*")}
    assert {n for n in after if after[n] != before.get(n)} == {f"p{i}.json" for i in ("03", "05", "06", "07", "99")}
    attempts = {r["input"]: r["attempts"] for r in lines(tmp_path / "out/manifest.ndjson")[1:]}
    assert attempts["in/p03.json"] == attempts["in/p17.json"] == attempts["in/p05.json"] == 2
    assert attempts["in/p01.json"] == attempts["in/p99.json"] == 1
    assert len((tmp_path / "out/failed.txt").read_text().splitlines()) == 3


def test_another_variant_is_another_batch(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": GOOD})
    attn("batch", "in", "-o", "out", "-q")

    assert "2 done" in attn("batch", "in", "-o", "out", "--causal").err
    assert json.loads((tmp_path / "out/a.json").read_text())["variant"]["mask"] == "causal"
    assert "2 skipped" in attn("batch", "in", "-o", "out", "--causal").err
    assert "2 done" in attn("batch", "in", "-o", "out", "--causal", "--force").err


def test_what_is_taken_from_another_file_counts_by_its_content(attn, tmp_path):
    write(tmp_path, {"in/a.csv": "1,2\n3,4\n", "w.csv": "1,0\n0,1\n"})
    words = ("batch", "in", "-o", "out", "--with", "parameters.w_q=w.csv")
    attn(*words, "-q")

    assert "1 skipped" in attn(*words).err
    write(tmp_path, {"w.csv": "1,0\n0,2\n"})
    assert "1 done" in attn(*words).err


def test_retry_failed_does_only_those(attn, mixed, tmp_path):
    attn("batch", "in", "-o", "out", "-q")
    write(tmp_path, {"in/p17.json": GOOD, "in/p99.json": GOOD})

    assert "1 done, 3 failed" in attn("batch", "in", "-o", "out", "--retry-failed").err
    assert not (tmp_path / "out/p99.json").exists()
    assert "1 done, 3 failed" in attn("batch", "@out/failed.txt", "in/p99.json", "-o", "more").err


def test_what_failed_can_be_given_back_from_its_list(attn, tmp_path):
    """Into the place that it would have had, whatever its name."""
    odd = ["b.json", "deep/c.json", "a\nb.json", 'q"[1].json', " d\t.json", "\udcff.json"]
    write(tmp_path, {"in/good.json": GOOD, **{f"in/{name}": "{" for name in odd}, "in/notes.md": ""})
    first = attn("batch", "in", "-o", "out")
    assert "1 file or folder left out: in no format we read" in first.err
    assert "1 done, 6 failed" in first.err
    write(tmp_path, {f"in/{name}": GOOD for name in odd})

    again = attn("batch", "@out/failed.txt", "-o", "out")

    assert "6 done, 0 failed" in again.err, again.err
    assert names(tmp_path / "out") == sorted(["manifest.ndjson", "good.json", *odd])
    assert "0 done, 0 failed, 7 skipped" in attn("batch", "in", "-o", "out").err


def test_a_failure_no_more_is_listed_no_more(attn, mixed, tmp_path):
    attn("batch", "in", "-o", "out", "-q")
    write(tmp_path, {f"in/p{i}.json": GOOD for i in ("03", "17", "20", "31")})

    assert attn("batch", "in", "-o", "out", "-q").status == 0
    assert not (tmp_path / "out/failed.txt").exists()


@pytest.mark.parametrize(
    ("words", "failed", "left"),
    [(["--fail-fast"], 1, 36), (["--max-failures", "1"], 2, 22), (["--max-failures", "5%"], 3, 19), ([], 4, 0)],
)
def test_when_to_stop(attn, mixed, words, failed, left):
    done = attn("batch", "in", "-o", "out", *words)

    assert done.status == 1
    assert f"{failed} failed" in done.err
    why = "a failure" if words == ["--fail-fast"] else "too many failures"
    assert (f"stopped: {why}; {left} inputs left" in done.err) == bool(left)
    assert ("stopped" in done.err) == bool(left)


def test_a_dry_run_says_what_would_be_done(attn, mixed, tmp_path):
    nothing = attn("batch", "in", "-o", "out", "--dry-run")
    assert not (tmp_path / "out").exists()
    attn("batch", "in/p00.json", "in/p01.json", "-o", "out", "-q")
    before = (tmp_path / "out/manifest.ndjson").read_bytes()

    done = attn("batch", "in", "-o", "out", "--dry-run")

    assert (nothing.status, done.status) == (1, 1)
    assert nothing.out.count("compute ") == 36
    assert "fail    in/p03.json: bad-json: this is no JSON: the text ends in the middle\n" in done.out
    assert "skip    in/p00.json → out/p00.json\n" in done.out
    assert "compute in/p02.json → out/p02.json\n" in done.out
    assert (tmp_path / "out/manifest.ndjson").read_bytes() == before


def test_an_input_deleted_meanwhile_is_one_failure(attn, tmp_path, monkeypatch):
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": GOOD, "in/c.json": GOOD})
    import attncli.batch.job as work

    was = work.perform

    def perform(job, variant, input, *rest):
        (tmp_path / "in/b.json").unlink(missing_ok=True)
        return was(job, variant, input, *rest)

    monkeypatch.setattr("attncli.batch.executors.perform", perform)
    done = attn("batch", "in", "-o", "out")
    monkeypatch.undo()
    os.chdir(tmp_path)

    assert done.status == 1
    assert "failed[no-such-file]: in/b.json: there is no file in/b.json" in done.err
    assert attn("batch", "in", "-o", "out").status == 0  # the folder no longer names it
    named = attn("batch", "in/a.json", "in/b.json", "in/c.json", "-o", "out")
    assert (named.status, "2 skipped" in named.err) == (1, True)


def test_a_bug_costs_one_input(attn, tmp_path, monkeypatch):
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": GOOD.replace("0.5", "0.25")})
    import attncli.batch.job as work

    was = work.core()

    def broken(plan):
        if plan.problem.embeddings[0, 1] == 0.5:
            raise KeyError("what nobody foresaw")
        return was(plan)

    monkeypatch.setattr(work, "core", lambda: broken)
    done = attn("batch", "in", "-o", "out")

    assert (done.status, names(tmp_path / "out")) == (1, ["b.json", "failed.txt", "manifest.ndjson"])
    assert "failed[bug]: in/a.json: a bug in attn: KeyError: 'what nobody foresaw'" in done.err


def test_warnings_are_counted(attn, tmp_path):
    write(tmp_path, {f"in/{n}.json": '{"embeddings": [[1, 2], [3, 4]], "lengths": [0]}' for n in "abc"})
    write(tmp_path, {"in/d.json": GOOD})

    done = attn("batch", "in", "-o", "out")

    assert done.status == 0
    assert done.err.splitlines()[0] == "warning[empty-rows]: in 3 results"
    [warning] = next(r for r in lines(tmp_path / "out/manifest.ndjson") if r.get("input") == "in/a.json")["warnings"]
    assert warning.startswith("empty-rows: queries 0 and 1 see no key")


def test_a_summary_for_programs(attn, mixed):
    done = attn("batch", "in", "-o", "out", "--error-format", "json")

    *causes, summary = map(json.loads, done.err.splitlines())
    assert [(one["type"], one["code"], one["input"], one["count"]) for one in causes] == [
        ("error", "bad-json", "in/p03.json", 3), ("error", "ragged", "in/p20.json", 1),
    ]  # fmt: skip
    assert summary.pop("per_second") > 0
    assert summary == {
        "type": "summary", "done": 36, "failed": 4, "skipped": 0, "left": 0, "causes": {"bad-json": 3, "ragged": 1},
        "warnings": {},
    }  # fmt: skip


# ── seeds ────────────────────────────────────────────────────────────────────────────────────────
def test_a_seed_is_drawn_once_recorded_and_used_again(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": GOOD, "in/own.json": GOOD[:-1] + ', "variant": {"seed": 5}}'})
    words = ("batch", "in", "-o", "out", "--projection", "linear:dim=2")
    attn(*words, "-q")
    seed = lines(tmp_path / "out/manifest.ndjson")[0]["seed"]
    first = left(tmp_path / "out")

    assert [json.loads(first[f"{n}.json"])["variant"]["seed"] for n in ("a", "b", "own")] == [seed, seed, 5]
    write(tmp_path, {"in/c.json": GOOD})
    (tmp_path / "out/a.json").unlink()
    attn(*words, "-q")
    assert left(tmp_path / "out") == {**first, "c.json": first["b.json"]}
    attn("compute", "in/a.json", "--projection", "linear:dim=2", "--seed", seed, "-o", "x.json")
    assert (tmp_path / "x.json").read_bytes() == first["a.json"]


def test_what_draws_nothing_has_no_seed(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD})
    attn("batch", "in", "-o", "out", "-q")

    assert "seed" not in json.loads((tmp_path / "out/a.json").read_text())["variant"]


# ── JSON lines, and standard output ──────────────────────────────────────────────────────────────
def test_json_lines_become_json_lines(attn, tmp_path):
    write(tmp_path, {"in/l.jsonl": f"{GOOD}\n\n[[1, 2], [3\n{GOOD}\n", "in/one.json": GOOD})

    done = attn("batch", "in", "-o", "out", "--only", "weights")

    assert done.status == 1
    assert names(tmp_path / "out") == ["failed.txt", "l.ndjson", "manifest.ndjson", "one.json"]
    first, bad, last = lines(tmp_path / "out/l.ndjson")
    assert first == last == json.loads((tmp_path / "out/one.json").read_text())
    assert (bad["error"]["code"], bad["error"]["location"]["row"]) == ("bad-json", 3)
    assert "failed[lines-failed]: in/l.jsonl: 1 of 3 lines failed: 1 bad-json" in done.err
    write(tmp_path, {"in/l.jsonl": f"{GOOD}\n{GOOD}\n"})
    assert "1 done, 0 failed, 1 skipped" in attn("batch", "in", "-o", "out", "--only", "weights").err
    assert "2 skipped" in attn("batch", "in", "-o", "out", "--only", "weights").err


@pytest.mark.parametrize("jobs", [1, 2])
def test_standard_output_is_json_lines_in_the_order_of_the_inputs(tmp_path, jobs):
    count = 60
    write(tmp_path, {f"in/p{i:02d}.json": GOOD.replace("0.5", f"{i}.25") for i in range(count)})
    write(tmp_path, {"in/p07.json": "[[1,", "in/p30.ndjson": f"{GOOD}\nnope\n{GOOD}\n"})

    done = process("batch", tmp_path / "in", "-o", "-", "-j", jobs, "--only", "q", cwd=tmp_path, env=ENVIRONMENT)

    assert done.returncode == 1
    out = [json.loads(line) for line in done.stdout.splitlines()]
    firsts = [line["q"][0][1] if "q" in line else line["error"]["code"] for line in out]
    wanted = [i + 0.25 if i != 7 else "bad-json" for i in range(count)]
    wanted[31:31] = [0.5, "bad-json", 0.5]
    assert firsts == wanted
    assert names(tmp_path / "in") == names(tmp_path)[: count + 1] or not (tmp_path / "manifest.ndjson").exists()


def test_a_pipe_that_closes_ends_the_batch(tmp_path):
    write(tmp_path, {f"in/p{i:03d}.json": GOOD for i in range(400)})
    command = [sys.executable, "-m", "attncli", "batch", str(tmp_path / "in"), "-o", "-"]
    piped = subprocess.run(
        ["bash", "-c", f"{' '.join(command)} | head -2 | wc -l; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip

    assert (piped.stdout.strip(), piped.returncode) == ("2", 141)


def test_a_long_stream_takes_no_more_memory_than_a_short_one(tmp_path):
    peak = (  # of this process alone: what getrusage says is at least its parent's
        "import sys; from attncli.cli import main; main(sys.argv[1:]);"
        "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')), file=sys.stderr)"
    )
    used = []
    for count in (20, 1000):
        path = tmp_path / f"{count}.ndjson"
        path.write_text((GOOD[:-1] + f', "about": "{"x" * 60_000}"}}\n') * count)
        done = subprocess.run(
            [sys.executable, "-c", peak, "batch", str(path), "-o", str(tmp_path / f"out{count}"), "-q"],
            capture_output=True, text=True, timeout=60, env={**ENVIRONMENT, "OMP_NUM_THREADS": "1"}, check=True,
        )  # fmt: skip
        used.append(int(done.stderr.split()[-1]))
        assert len(lines(tmp_path / f"out{count}" / f"{count}.ndjson")) == count

    assert used[1] - used[0] < 20_000  # KiB; the input alone is three times as large


# ── remote inputs ────────────────────────────────────────────────────────────────────────────────
def test_progress_counts_files_and_the_lines_of_one(monkeypatch):
    from attncli.batch import runner
    from attncli.batch.manifest import Receipt

    now = 100.0
    monkeypatch.setattr(runner.time, "monotonic", lambda: now)
    tally = runner.Tally(4, streams=True, started=now)
    now = 110.0
    tally.count(Receipt("a", "a", "skipped"))
    tally.count(Receipt("b", "b", "done"))
    assert tally.says() == "0 problems/s, 20 s left"
    tally.lines, tally.wrong, tally.within = 2499, 3, 0.25
    assert tally.says() == "2,499 lines, 3 failed; 250 problems/s, 14 s left"
    tally.count(Receipt("c", "c", "failed", problems=9999, error={"code": "lines-failed"}))
    assert (tally.says(), tally.seen) == ("1 failed; 1,000 problems/s, 5 s left", 3)
    assert runner.Tally(3, started=now).says() == "0 files/s, 0 s left"


def test_a_long_stream_says_how_far_it_is(attn, tmp_path, monkeypatch):
    monkeypatch.setattr("attncli.cli.batch._EVERY", -1.0)
    write(tmp_path, {"a.ndjson": f"{GOOD}\n[[1],[2, 3]]\n{GOOD}\n", "b.json": GOOD})

    done = attn("batch", "a.ndjson", "b.json", "-o", "out")

    said = [re.sub(r"[\d,]+ (problems/s|s left)", r"N \1", line) for line in done.err.splitlines()]
    rate = "N problems/s, N s left"
    assert said[:4] == [
        f"0 of 2; 1 lines; {rate}", f"0 of 2; 2 lines, 1 failed; {rate}", f"0 of 2; 3 lines, 1 failed; {rate}",
        f"1 of 2; 1 failed; {rate}",
    ]  # fmt: skip
    assert said[-2] == "1 done, 1 failed; N problems/s"
    assert lines(tmp_path / "out/manifest.ndjson")[1]["problems"] == 3
    silent = attn("batch", "a.ndjson", "b.json", "-o", "more", "--no-progress")
    assert " of 2;" not in silent.err


def test_memory_addresses(attn, tmp_path):
    import fsspec

    system = fsspec.filesystem("memory")
    for name, text in {"/set/a.json": GOOD, "/set/deep/b.csv": "1,2\n3,4\n", "/set/l.ndjson": f"{GOOD}\n"}.items():
        system.pipe(name, text.encode())
    try:
        assert attn("batch", "memory://set", "-o", "out", "-q").status == 0
        assert names(tmp_path / "out") == ["a.json", "deep/b.json", "l.ndjson", "manifest.ndjson"]
        assert "3 skipped" in attn("batch", "memory://set", "-o", "out").err
        assert attn("batch", "memory://set/**/*.csv", "memory://set/a.json", "-o", "some", "-q").status == 0
        assert names(tmp_path / "some") == ["a.json", "deep/b.json", "manifest.ndjson"]
        gone = attn("batch", "memory://set/nope.json", "memory://set/a.json", "-o", "gone")
        assert "failed[no-such-file]: memory://set/nope.json: there is no file" in gone.err
    finally:
        system.rm("/set", recursive=True)


def test_file_addresses(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD, "in/deep/b.csv": "1,2\n3,4\n"})

    assert attn("batch", f"file://{tmp_path}/in", "-o", "out", "-q").status == 0
    assert names(tmp_path / "out") == ["a.json", "deep/b.json", "manifest.ndjson"]


def test_http_addresses(attn, tmp_path, monkeypatch):
    write(tmp_path, {"site/sub/a.json": GOOD, "site/l.ndjson": f"{GOOD}\n{GOOD}\n"})
    monkeypatch.setenv("no_proxy", "*")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words):
            super().__init__(*words, directory=str(tmp_path / "site"))

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"127.0.0.1:{server.server_port}"
        words = [f"http://{at}/sub/a.json?secret=1", f"http://me:word@{at}/l.ndjson", f"http://{at}/gone.csv"]
        done = attn("batch", *words, "-o", "out")
        server.shutdown()

    assert names(tmp_path / "out")[:1] == ["a.json"]
    assert f"failed[no-such-file]: http://{at}/gone.csv: there is no file" in done.err
    assert "word" not in (tmp_path / "out/manifest.ndjson").read_text()


# ── the manifest ─────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("torn", ['{"input": "in/c.js', '{"input": "in/a.json", "result": "a.json"}\n', "\x00\x00\n[1"])
def test_a_torn_manifest_is_read(attn, tmp_path, torn):
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": GOOD, "in/c.json": GOOD})
    attn("batch", "in", "-o", "out", "-q")
    path = tmp_path / "out/manifest.ndjson"
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:3]) + torn)

    again = attn("batch", "in", "-o", "out")

    assert "1 done, 0 failed, 2 skipped" in again.err
    assert manifest(tmp_path / "out") == {
        r.get("result", ""): {k: v for k, v in r.items() if k not in ("seconds", "attempts")}
        for r in map(json.loads, whole.splitlines())
    }


def test_two_batches_do_not_share_a_folder(attn, tmp_path):
    from attncli.batch.manifest import Manifest

    write(tmp_path, {"in/a.json": GOOD})
    holder = Manifest(tmp_path / "out")
    holder.begin({"seed": 1})

    refused = attn("batch", "in", "-o", "out")
    holder.close()

    assert (refused.status, "error[folder-in-use]" in refused.err) == (4, True)
    assert attn("batch", "in", "-o", "out", "-q").status == 0


def test_what_a_killed_process_left_is_taken_away_and_nothing_else(attn, tmp_path):
    write(tmp_path, {"in/deep/a.json": GOOD})
    attn("batch", "in", "-o", "out", "-q")
    write(tmp_path, dict.fromkeys(("out/deep/.a.json.abcd1234", "out/deep/.b.json.abcd1234", "out/.note"), "x"))

    attn("batch", "in", "-o", "out", "-q")

    assert names(tmp_path / "out") == [".note", "deep/.b.json.abcd1234", "deep/a.json", "manifest.ndjson"]


@pytest.mark.parametrize(
    "line",
    [
        "[1,2]", "5", "null", '"x"', "{}", '{"schema": "attn.batch/2", "seed": 3}',
        '{"input": "in/a.json", "result": "a.json", "status": "done", "attempts": "x"}',
        '{"input": "in/a.json", "result": "a.json", "status": "failed", "error": "x"}', "\ufffe",
    ],
)  # fmt: skip
def test_what_is_no_receipt_in_a_manifest_is_passed_over(attn, tmp_path, line):
    write(tmp_path, {"in/a.json": GOOD})
    attn("batch", "in", "-o", "out", "-q")
    path = tmp_path / "out/manifest.ndjson"
    before = path.read_text()
    path.write_text(before + line + "\n")

    assert "0 done, 0 failed, 1 skipped" in attn("batch", "in", "-o", "out").err
    assert path.read_text() == before


@pytest.mark.parametrize("name", ["failed.txt", "manifest.ndjson"])
@pytest.mark.parametrize("text", ["my exam results", '{"mine": 1}\n'])
def test_a_file_of_the_name_of_ours_is_left_alone(attn, tmp_path, name, text):
    write(tmp_path, {"x.csv": "1,2\n3,4\n", f"out/{name}": text})

    refused = attn("batch", "x.csv", "-o", "out")

    assert (refused.status, names(tmp_path / "out")) == (2, [name])
    assert f"{name} exists, and no batch made it" in refused.err
    assert (tmp_path / "out" / name).read_text() == text
    assert attn("batch", "x.csv", "-o", "out", "--force", "-q").status == 0


def test_a_manifest_that_lost_its_head_is_not_guessed(attn, tmp_path):
    """Its seed is gone with it: the same command would give other numbers."""
    write(tmp_path, {"in/a.json": GOOD})
    words = ("batch", "in", "-o", "out", "--projection", "linear:dim=2")
    attn(*words, "-q")
    path, before = tmp_path / "out/manifest.ndjson", left(tmp_path / "out")
    path.write_bytes(path.read_bytes()[:60])

    assert attn(*words).status == 2
    assert left(tmp_path / "out") == before


def test_a_seed_that_is_said_leaves_the_one_that_was_drawn(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD})
    words = ("batch", "in", "-o", "out", "--projection", "linear:dim=2", "-q")
    attn(*words)
    first = left(tmp_path / "out")
    attn(*words, "--seed", "5")
    assert json.loads((tmp_path / "out/a.json").read_text())["variant"]["seed"] == 5

    attn(*words)

    assert left(tmp_path / "out") == first


def test_a_result_that_was_written_on_is_made_again(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD, "in/b.ndjson": f"{GOOD}\n{GOOD}\n", "in/c.json": GOOD})
    attn("batch", "in", "-o", "out", "-q")
    before = left(tmp_path / "out")
    for name in ("a.json", "b.ndjson"):  # as long as it was
        (tmp_path / "out" / name).write_bytes(before[name].replace(b"0.5", b"0.6"))

    again = attn("batch", "in", "-o", "out")

    assert "2 done, 0 failed, 1 skipped" in again.err
    assert left(tmp_path / "out") == before


def test_a_file_is_the_same_however_it_is_named(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD})
    attn("batch", "in", "-o", "out", "-q")

    for word in ("./in", tmp_path / "in", "in/../in"):
        assert "0 done, 0 failed, 1 skipped" in attn("batch", word, "-o", "out").err


def test_a_file_in_the_place_of_a_folder_costs_what_lies_in_it(attn, tmp_path):
    write(tmp_path, {"in/x/a.json": GOOD, "in/b.json": GOOD, "out/x": "mine"})

    done = attn("batch", "in", "-o", "out")

    assert (done.status, names(tmp_path / "out")) == (1, ["b.json", "failed.txt", "manifest.ndjson", "x"])
    assert "failed[cannot-write]: in/x/a.json" in done.err
    assert (tmp_path / "out/x").read_text() == "mine"


def test_a_dry_run_reads_json_lines_too(attn, tmp_path):
    write(tmp_path, {"in/a.ndjson": f"{GOOD}\n{GOOD}\n", "in/b.ndjson": f"{GOOD}\n[[1],[2,3]]\n"})
    first = attn("batch", "in", "-o", "out", "--dry-run")
    attn("batch", "in", "-o", "out", "-q")

    done = attn("batch", "in", "-o", "out", "--dry-run")

    fails = "fail    in/b.ndjson: lines-failed: 1 of 2 lines failed: 1 ragged\n"
    assert (first.status, first.out) == (1, "compute in/a.ndjson → out/a.ndjson\n" + fails)
    assert (done.status, done.out) == (1, "skip    in/a.ndjson → out/a.ndjson\n" + fails)


def test_what_a_run_that_has_ended_still_makes_is_not_wanted(tmp_path):
    """A task goes on when whoever sent it is killed; the next run has the folder by then."""
    from attncli.batch.inputs import Input
    from attncli.batch.job import Job, perform
    from attncli.batch.manifest import Manifest
    from attncli.request import Choosing, Reading, Showing

    write(tmp_path, {"a.json": GOOD, "out/keep": ""})
    later = Manifest(tmp_path / "out")
    job = Job(Choosing(), Reading(), Showing(), "json", 1, str(tmp_path / "out")).wanted(later.publish())
    one = Input(str(tmp_path / "a.json"), "a.json")
    assert perform(job, "", one).status == "done"
    before = (tmp_path / "out/a.json").read_bytes()

    orphan = perform(Job(Choosing({"scale": "3"}), Reading(), Showing(), "json", 1, job.folder, run="another"), "", one)
    later.close()
    too_late = perform(job, "", one)

    for receipt in (orphan, too_late):
        assert (receipt.status, receipt.error["code"]) == ("failed", "not-wanted")
    assert (tmp_path / "out/a.json").read_bytes() == before
    assert names(tmp_path / "out") == ["a.json", "keep"]


def test_what_another_batch_has_written_meanwhile_is_not_forgotten(tmp_path):
    from attncli.batch.manifest import Manifest, Receipt
    from attncli.errors import CannotError

    one, other = Manifest(tmp_path / "out"), Manifest(tmp_path / "out")
    one.begin({"seed": 1})
    one.add(Receipt("a", "a.json", "done"))
    one.finish(["a.json"])
    one.close()

    with pytest.raises(CannotError, match="has just written"):
        other.begin({"seed": 2})
    other.close()
    assert [*Manifest(tmp_path / "out").receipts] == ["a.json"]


def test_every_wish_that_changes_a_result_is_in_its_hash():
    import dataclasses

    from attncli.batch.job import Job
    from attncli.request import Choosing, Reading, Showing

    told = {"format", "output", "force", "full", "color", "quiet", "progress", "error_format"}  # what no file shows
    other = {"only": ("weights",), "at": ("query=0",), "top": 3, "precision": 9, "heat": "on"}
    assert {f.name for f in dataclasses.fields(Showing)} == told | set(other)

    def hashed(**more):
        return Job(Choosing(), Reading(), Showing(**more), "json", 1, "out").head()["variant"]

    hashes = {hashed(), *(hashed(**{name: value}) for name, value in other.items())}
    assert len(hashes) == 1 + len(other)


# ── what dies ────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Two hundred and forty inputs, and what an undisturbed run leaves of them."""
    folder = tmp_path_factory.mktemp("many")
    problems(folder / "in", 240)
    done = process("batch", folder / "in", "-o", folder / "whole", "-q")
    assert (done.returncode, done.stderr) == (0, b"")
    return folder


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_and_run_again_it_leaves_what_an_undisturbed_run_leaves(many, tmp_path, jobs):
    for moment in moments(many / "in", many / "whole", tmp_path, jobs, 1, seed=jobs):
        assert moment["twice"] <= (1 if jobs == 1 else 4 * 64)


def started(*words: object, command: str = "batch", **more) -> subprocess.Popen:
    line = [sys.executable, "-m", "attncli", command, *map(str, words)]
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, **more)


def until(condition, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)


def finished(folder: Path) -> int:
    path = folder / "manifest.ndjson"
    return path.read_bytes().count(b"\n") - 1 if path.exists() else 0


def same(folder: Path, many: Path) -> bool:
    wanted = {k: v for k, v in manifest(many / "whole").items() if k}
    return left(folder) == left(many / "whole") and {k: v for k, v in manifest(folder).items() if k} == wanted


def test_a_worker_that_is_killed_costs_nothing(many, tmp_path):
    run = started(many / "in", "-o", tmp_path / "out", "-j", 2)
    until(lambda: finished(tmp_path / "out") > 0)
    os.kill(max(_workers(run.pid)), signal.SIGKILL)

    _, err = run.communicate(timeout=60)

    assert run.returncode == 0, err
    assert err.splitlines()[-1].startswith("240 done, 0 failed")
    assert len(err.splitlines()) <= 2, err  # the cluster says nothing of its own
    assert same(tmp_path / "out", many)


def _workers(pid: int) -> set[int]:
    """The processes of a local cluster that compute."""
    return {p for p in family(pid) if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()}


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_finishes_what_runs(many, tmp_path, jobs):
    run = started(many / "in", "-o", tmp_path / "out", "-j", jobs, start_new_session=True)
    until(lambda: finished(tmp_path / "out") > 0)
    children = family(run.pid)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: everyone in the group hears it

    _, err = run.communicate(timeout=60)

    assert run.returncode == 130, err
    assert err.startswith("finishing what runs; Ctrl-C again stops at once\n")
    assert "stopped: interrupted; " in err
    assert " failed" not in err.replace(", 0 failed", "")
    until(lambda: not alive(children), 10)
    assert process("batch", many / "in", "-o", tmp_path / "out", "-q").returncode == 0
    assert same(tmp_path / "out", many)


def test_ctrl_c_twice_stops(many, tmp_path):
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "a.json").write_text(GOOD)
    (slow / "b.json").write_text(json.dumps({"embeddings": [[float(i % 7), 1.0] for i in range(3000)]}))
    run = started(slow, "-o", tmp_path / "out", "--only", "context", "--normalizer", "entmax:alpha=1.3")
    until(lambda: finished(tmp_path / "out") > 0)
    run.send_signal(signal.SIGINT)
    assert run.stderr.readline().startswith("finishing what runs")
    run.send_signal(signal.SIGINT)

    _, err = run.communicate(timeout=60)

    assert (run.returncode, err) == (130, "interrupted\n")
    assert names(tmp_path / "out") == ["a.json", "manifest.ndjson"]


def mounted(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A shell script in a mount namespace of its own."""
    attn = f"{sys.executable} -m attncli"
    return subprocess.run(
        ["unshare", "-rm", "bash", "-c", script.replace("attn ", f"{attn} ").replace("ROOT", str(folder))],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip


CAN_MOUNT = (
    shutil.which("unshare") is not None
    and subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode == 0
)


@pytest.mark.skipif(not CAN_MOUNT, reason="no file system can be mounted here")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_stops_the_batch_and_the_rerun_completes_it(many, tmp_path, jobs):
    (tmp_path / "out").mkdir()
    done = mounted(
        f"""
        mount -t tmpfs -o size=200k tmpfs ROOT/out
        attn batch {many}/in -o ROOT/out -j {jobs}; echo "status $?"
        find ROOT/out -name '.*' -type f | wc -l
        mount -o remount,size=50m ROOT/out
        attn batch {many}/in -o ROOT/out -j {jobs}; echo "status $?"
        cp -r ROOT/out ROOT/kept
        """,
        tmp_path,
    )

    assert done.stdout.split("\n")[:3] == ["status 4", "0", "status 0"], done.stderr
    assert "cannot be written: No space left on device" in done.stderr
    assert "what is finished is kept, and the same command goes on from there" in done.stderr
    assert " skipped" in done.stderr
    assert same(tmp_path / "kept", many)


@pytest.mark.skipif(not CAN_MOUNT, reason="no file system can be mounted here")
def test_a_read_only_folder_stops_the_batch_and_the_rerun_completes_it(many, tmp_path):
    (tmp_path / "out").mkdir()
    done = mounted(
        f"""
        mount -t tmpfs tmpfs ROOT/out
        attn batch {many}/in/p0001*.json -o ROOT/out -q; echo "status $?"
        mount -o remount,ro ROOT/out
        attn batch {many}/in -o ROOT/out; echo "status $?"
        mount -o remount,rw ROOT/out
        attn batch {many}/in -o ROOT/out; echo "status $?"
        cp -r ROOT/out ROOT/kept
        """,
        tmp_path,
    )

    assert done.stdout.split("\n")[:3] == ["status 0", "status 4", "status 0"], done.stderr
    assert "manifest.ndjson cannot be written: Read-only file system" in done.stderr
    assert "230 done, 0 failed, 10 skipped" in done.stderr
    assert left(tmp_path / "kept") == left(many / "whole")


# ── a cluster of processes ───────────────────────────────────────────────────────────────────────
def readme(start: str, port: int) -> list[str]:
    """The words of the README's line that starts the scheduler or the workers."""
    [line] = re.findall(rf"^(?:DASK_\S+ )?{start} .*$", (ROOT / "README.md").read_text(), re.M)
    return line.replace("8786", str(port)).split()


class Cluster:
    """A scheduler and two workers as processes of their own, from the README's lines."""

    def __init__(self, folder: Path, preload: str = "") -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        self.address, self.folder = f"tcp://127.0.0.1:{port}", folder
        setting, *scheduler = readme("dask scheduler", port)
        worker = readme("dask worker", port)
        scheduler += ["--scheduler-file", str(folder / "scheduler.json")]
        if preload:
            (folder / "preload.py").write_text(preload)
            worker += ["--preload", str(folder / "preload.py")]
        name, _, value = setting.partition("=")
        self.log = (folder / "dask.log").open("wb")

        def start(words: list[str], **said: str) -> subprocess.Popen:
            return subprocess.Popen(
                [sys.executable, "-m", *words], stdout=self.log, stderr=self.log, cwd=folder, start_new_session=True,
                env={**ENVIRONMENT, "DASK_TEMPORARY_DIRECTORY": str(folder), **said},
            )  # fmt: skip

        self.scheduler, self.workers = start(scheduler, **{name: value}), start(worker)

    def close(self) -> None:
        for one in (self.workers, self.scheduler):
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()
        self.log.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.close()


def test_a_cluster_of_processes_runs_the_batch(cluster, many, tmp_path):
    shutil.copytree(many / "in", tmp_path / "in")

    done = process(
        "batch", "in", "-o", "out", "--scheduler", cluster.address, cwd=tmp_path, env=ENVIRONMENT
    )  # it runs elsewhere

    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert left(tmp_path / "out") == left(many / "whole")
    by_file = process(
        "batch", "in", "-o", "out", "--scheduler", cluster.folder / "scheduler.json", cwd=tmp_path, env=ENVIRONMENT
    )
    assert b"0 done, 0 failed, 240 skipped" in by_file.stderr


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """One long problem, and what this process makes of it in three ways."""
    folder = tmp_path_factory.mktemp("big")
    draws = np.random.default_rng(3)
    save_file({name: draws.normal(size=(1, 2, 5000, 8)) for name in "qkv"}, str(folder / "big.safetensors"))
    for name, words in LONG.items():
        done = process("compute", folder / "big.safetensors", *words, "-o", folder / f"{name}.safetensors")
        assert done.returncode == 0, done.stderr
    return folder


LONG = {
    "kernel": ["--causal", "--only", "context"],
    "tiles": ["--only", "context,log_sum_exp", "--softcap", "20", "--top", "3"],
    "matrix": ["--only", "weights,context", "--window", "3,0", "--at", "query=100:1900"],
}


def same_result(made: Path, wanted: Path) -> bool:
    """The same in all but the last digits of numbers."""
    (one, head), (other, its) = ((load_file(str(p)), safe_open(str(p), "np").metadata()) for p in (made, wanted))
    assert (head, [*one]) == (its, [*other])
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], rtol=1e-12, atol=1e-14)
    return True


@pytest.mark.parametrize("way", LONG)
def test_a_cluster_of_processes_computes_one_long_problem(cluster, big, tmp_path, way):
    out = tmp_path / "out.safetensors"
    by_address = process("compute", big / "big.safetensors", *LONG[way], "-o", out, "--scheduler", cluster.address)

    assert (by_address.returncode, by_address.stdout, by_address.stderr) == (0, b"", b"")
    assert same_result(out, big / f"{way}.safetensors")


def test_a_short_problem_needs_no_cluster_but_one_that_answers(cluster, tmp_path):
    write(tmp_path, {"a.csv": "1,2\n3,4\n", "b.ndjson": GOOD})

    short = process(
        "compute", "a.csv", "--json", "--scheduler", cluster.folder / "scheduler.json", cwd=tmp_path, env=ENVIRONMENT
    )
    many = process("compute", "b.ndjson", "--scheduler", "tcp://127.0.0.1:9", cwd=tmp_path, env=ENVIRONMENT)
    nobody = process("compute", "a.csv", "--scheduler", "nope.json", cwd=tmp_path, env=ENVIRONMENT)

    assert short.stdout == process("compute", tmp_path / "a.csv", "--json").stdout
    assert short.stderr.endswith(b"this is one tile: it is computed here, and not on the cluster\n")
    assert (many.returncode, many.stderr.splitlines()[-1]) == (
        2,
        b"  = help: attn batch computes many problems on a cluster",
    )
    assert (nobody.returncode, nobody.stdout) == (4, b"")
    assert b"\nerror[no-scheduler]: no Dask scheduler answers at nope.json: there is no such file\n" in nobody.stderr


def test_a_server_of_another_kind_is_no_scheduler(attn, tmp_path, monkeypatch):
    """It takes the connection, and says nothing that Dask would understand."""
    monkeypatch.setattr("attncli.batch.dask_cluster._PATIENCE", 0.5)
    write(tmp_path, {"a.csv": "1,2\n3,4\n", "b.json": "{}"})
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        done = attn("batch", "a.csv", "-o", "out", "--scheduler", address)
    file = attn("batch", "a.csv", "-o", "out", "--scheduler", "b.json")

    assert (done.status, file.status) == (4, 4)
    assert f"no Dask scheduler answers at {address}: nothing that speaks Dask" in done.err
    assert "no Dask scheduler answers at b.json: this is no scheduler file" in file.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["batch", "compute"])
def test_a_cluster_without_gpus_is_refused_what_needs_one(cluster, big, tmp_path, command):
    words = [big / "big.safetensors", "--device", "cuda", "--only", "context", "--schedule", "tiled", "-o"]
    done = process(command, *words, tmp_path / "out.safetensors", "--scheduler", cluster.address)

    assert done.returncode == 4
    assert done.stderr.startswith(b"error[no-device]: no worker of the cluster says that it has a GPU\n")
    assert names(tmp_path) == []


def test_no_scheduler_is_said(tmp_path):
    write(tmp_path, {"a.csv": "1,2\n3,4\n"})

    gone = process("batch", tmp_path / "a.csv", "-o", tmp_path / "out", "--scheduler", tmp_path / "nope.json")

    assert gone.returncode == 4
    assert gone.stderr.startswith(b"error[no-scheduler]: no Dask scheduler answers at")


POISON = """
import os, signal, time
import attncli.batch.job as work
if not hasattr(work, "healthy"):
    work.healthy = work.ready
def ready(job, input, data):
    if b"poison" in data:
        os.kill(os.getpid(), signal.SIGKILL)
    return work.healthy(job, input, data)
work.ready = ready

import attncli.core.remote as away
if not hasattr(away, "healthy"):
    away.healthy = away.piece
def piece(common, task):
    if common.plan.variant["empty_rows"] == "uniform":  # it takes its time
        open("began", "w").close()
        time.sleep(1)
    for name in os.listdir():  # a worker that finds one takes it, and dies
        if name.startswith("die"):
            try:
                os.unlink(name)
            except FileNotFoundError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
    if common.plan.variant["empty_rows"] == "nan" and task.block.whole.rows.start == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return away.healthy(common, task)
away.piece = piece
"""


def test_a_poison_input_is_named_after_two_deaths_and_a_scheduler_that_goes_is_said(many, big, tmp_path):
    """One cluster for all: its workers die of one input, or of one long problem; then it is taken away."""
    shutil.copytree(many / "in", tmp_path / "in")
    (tmp_path / "in/p00123.json").write_text(GOOD[:-1] + ', "about": "poison"}')
    made = Cluster(tmp_path, preload=POISON)
    try:
        done = process("batch", "in", "-o", "out", "--scheduler", made.address, cwd=tmp_path, env=ENVIRONMENT)
        err = done.stderr.decode()
        assert done.returncode == 1, err
        assert "239 done, 1 failed" in err
        assert "failed[worker-died]: in/p00123.json: 2 workers died while they computed this" in err
        wanted = {k: v for k, v in left(many / "whole").items() if k != "p00123.json"}
        have = left(tmp_path / "out")
        assert have.pop("failed.txt").startswith(b"in/p00123.json\tworker-died: ")
        assert have == wanted
        assert manifest(tmp_path / "out")["p00123.json"]["error"]["code"] == "worker-died"

        _workers_die_and_a_long_problem_is_computed(made, big, tmp_path)
        (tmp_path / "in/p00123.json").unlink()
        slow = [*LONG["tiles"], "--empty-rows", "uniform", "-o", tmp_path / "4.safetensors"]
        long = started(big / "big.safetensors", *slow, "--scheduler", made.address, command="compute")
        until((tmp_path / "began").exists)
        run = started("in", "-o", "more", "--scheduler", made.address, cwd=tmp_path)
        until(lambda: finished(tmp_path / "more") > 0)
        os.killpg(made.scheduler.pid, signal.SIGKILL)
        for one in (run, long):
            _, err = one.communicate(timeout=60)
            assert one.returncode == 4, err
            assert [line.partition(":")[0] for line in err.splitlines()][-2:] == ["error[scheduler-gone]", "  = help"]
            assert len(err.splitlines()) <= 3
        assert not list(tmp_path.glob("*4.safetensors*"))
    finally:
        made.close()
    kept = finished(tmp_path / "more")
    again = process("batch", "in", "-o", "more", cwd=tmp_path, env=ENVIRONMENT)
    assert f"{239 - kept} done, 0 failed, {kept} skipped".encode() in again.stderr
    assert left(tmp_path / "more") == wanted


def _workers_die_and_a_long_problem_is_computed(made: Cluster, big: Path, folder: Path) -> None:
    words = ("compute", big / "big.safetensors", *LONG["tiles"], "--scheduler", made.address)
    for deaths in (1, 2):  # the second time with all that they held
        for i in range(deaths):
            (folder / f"die{i}").touch()
        done = process(*words, "-o", folder / f"{deaths}.safetensors")
        assert done.returncode == 0, done.stderr
        assert set(done.stderr.splitlines()) <= {b"the cluster has no workers; waiting for some"}
        assert not list(folder.glob("die*"))
        assert same_result(folder / f"{deaths}.safetensors", big / "tiles.safetensors")
    done = process(*words, "--empty-rows", "nan", "-o", folder / "3.safetensors")
    assert done.returncode == 4
    assert re.search(rb"error\[worker-died\]: \d workers died while they computed queries 0 to \d+\n", done.stderr)
    assert not list(folder.glob("*3.safetensors*"))


def test_the_samples_are_a_batch(attn, tmp_path):
    """Every file that comes with attn, whatever its format."""
    done = attn("batch", SAMPLES, "-o", "out", "--keep-suffix")

    assert done.status in (0, 1)
    assert "bug" not in done.err


def test_a_worker_imports_neither_typer_nor_rich(tmp_path):
    write(tmp_path, {"a.json": GOOD})
    code = """
import sys
from attncli.request import Choosing, Reading, Showing
from attncli.batch.executors import remote
from attncli.batch.inputs import Input
from attncli.batch.job import Job
[receipt] = remote(Job(Choosing(), Reading(), Showing(), "json", 1, "."), "", [(Input("a.json", "out.json"), None)])
print(receipt.status, [guest for guest in ("typer", "rich", "dask") if guest in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, check=True
    )

    assert done.stdout == "done []\n"


def test_a_long_name_is_written(attn, tmp_path):
    name = "é" * 120  # 240 bytes
    write(tmp_path, {f"{name}.csv": "1,2\n3,4\n"})

    assert attn("batch", f"{name}.csv", "-o", "out", "-q").status == 0
    assert (tmp_path / f"out/{name}.json").exists()
