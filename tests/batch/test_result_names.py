"""`attn batch`: inputs, and the names of their results."""

from __future__ import annotations

import os
import sys

import pytest

from tests.batch.helpers import GOOD, names, write

pytestmark = pytest.mark.slow


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
        attn("compute", f"data/{source}", "--causal", "--only", "weights,context", "-o", "x.json", "--force")
        attn("compute", f"data/{source}", "--causal", "--precision", "7", "-o", "x.md", "--force")
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
        (["", "-o", "out"], 2, "the name of an input is empty"),
        (["@", "-o", "out"], 2, "the name of a list is empty"),
        (["x.csv", "-o", "o" * 300], 4, "cannot be written: File name too long"),
        (["x.csv", "-o", "o" * 300 + "/out"], 4, "cannot be written: File name too long"),
        (["x.csv", "-o", "x.csv/out"], 4, "cannot be written: Not a directory"),
        (["x.csv", "-o", "out", "--max-failures", "1" * 5000 + "%"], 2, "--max-failures is a number or a share"),
        (["x.csv", "-o", "out", "--max-failures", "²"], 2, "--max-failures is a number or a share"),
        (["x.csv", "-o", "out", "--scheduler", ""], 2, "--scheduler is empty"),
        *(
            (["x.csv", "-o", "out", "--scheduler", address], 4, f"no Dask scheduler answers at {address}")
            for address in (
                "tls://127.0.0.1:1",
                "inproc://x",
                "tcp://[",
                "ucx://x",
                "no",
                "/",
                "://",
                "tcp://h:99999999",
            )
        ),
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
