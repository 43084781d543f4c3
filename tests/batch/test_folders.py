"""Folders and globs."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from attncli.batch import name_lists as lists
from attncli.batch.inputs import gather_inputs
from attncli.errors import InputError
from tests.batch.helpers import GOOD, failure_codes, lines, names, results_by_input, write


@pytest.mark.parametrize("word", ["d/**/*.json", "d", "d/*/*.json", "@list"])
def test_results_are_no_inputs_wherever_they_lie(attn, tmp_path, word):
    write(tmp_path, {"d/sub/x.json": GOOD, "list": "d\n"})

    first = attn("batch", word, "-o", "d/results")
    again = attn("batch", word, "-o", "d/results")
    other = attn("batch", word, "-o", "d/results2")

    assert "1 done, 0 failed" in first.err
    assert (again.status, "0 done, 0 failed, 1 skipped" in again.err) == (0, True)
    assert (other.status, "1 done, 0 failed" in other.err) == (0, True)
    assert not any("results" in name for name in names(tmp_path / "d/results2"))


def test_results_are_inputs_where_they_are_named(attn, tmp_path):
    write(tmp_path, {"d/x.json": GOOD, "d/file/manifest.ndjson": GOOD})
    attn("batch", "d/x.json", "-o", "d/r", "-q")

    assert results_by_input("d") == {
        "d/x.json": "x.json",
        "d/file/manifest.ndjson": "file/manifest.ndjson",
    }  # nobody's manifest
    assert (
        results_by_input("d/r")
        == results_by_input("d/r/*")
        == results_by_input("d/r/x.json")
        == {"d/r/x.json": "x.json"}
    )
    with pytest.raises(InputError):
        gather_inputs(["d/r"], result_suffix=".json", results_folder=Path("d/r"))


def test_results_behind_a_link_are_no_inputs(attn, tmp_path):
    write(tmp_path, {"d/x.json": GOOD, "elsewhere/old.json": GOOD})
    (tmp_path / "d/out").symlink_to("../elsewhere")

    assert results_by_input("d") == {"d/x.json": "x.json", "d/out/old.json": "out/old.json"}
    for word in ("d", "d/**/*.json"):
        inputs, _ = gather_inputs([word], result_suffix=".json", results_folder=Path("d/out"))
        assert [one.path for one in inputs] == ["d/x.json"]
    (tmp_path / "y").symlink_to("d")
    done = attn("batch", "d/x.json", "-o", "y", "--force")  # the folder of the input, by another name
    assert (done.status, "would replace the input d/x.json" in done.err) == (2, True)


def test_links_to_folders_are_followed_and_circles_are_not(attn, tmp_path):
    write(tmp_path, {"d/z/x.csv": "1,2\n3,4\n", "real/deep/y.csv": "1,2\n3,4\n"})
    for link, to in {"d/a": "z", "d/z/up": "../..", "d/loop": ".", "d/link": "../real", "real/back": "../d"}.items():
        (tmp_path / link).symlink_to(to)

    assert results_by_input("d") == {"d/z/x.csv": "z/x.json", "d/link/deep/y.csv": "link/deep/y.json"}
    assert results_by_input("d/**/deep/*.csv") == {"d/link/deep/y.csv": "link/deep/y.json"}
    assert results_by_input("d/*/x.csv", keep_suffix=True) == {"d/a/x.csv": "a/x.csv.json", "d/z/x.csv": "z/x.csv.json"}
    (tmp_path / "sl").mkdir()
    (tmp_path / "sl/link").symlink_to("../real/deep")
    assert results_by_input("sl") == {"sl/link/y.csv": "link/y.json"}


def test_pipes_that_are_met_are_left_out_and_those_that_are_named_are_read(attn, tmp_path):
    write(tmp_path, {"d/x.csv": "1,2\n3,4\n", "d/notes.md": ""})
    os.mkfifo(tmp_path / "d/p.csv")
    (tmp_path / "d/dangling.csv").symlink_to("nowhere")

    for word, count in (("d", 2), ("d/*.csv", 1)):
        inputs, left_out = gather_inputs([word], result_suffix=".json")
        assert ([one.path for one in inputs], left_out) == (["d/dangling.csv", "d/x.csv"], count)
    writer = threading.Thread(target=(tmp_path / "d/p.csv").write_text, args=("1,2\n3,5\n",), daemon=True)
    writer.start()
    done = attn("batch", "d/p.csv", "-o", "out")
    assert (done.status, "1 done, 0 failed" in done.err) == (0, True)


def test_a_folder_that_cannot_be_read_is_counted(attn, tmp_path, monkeypatch):
    write(tmp_path, {"d/x.csv": "1,2\n3,4\n", "d/locked/y.csv": "1,2\n3,4\n"})
    scandir = os.scandir

    def locked(path):
        if os.fspath(path) == "d/locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    inputs, left_out = gather_inputs(["d"], result_suffix=".json")
    assert ([one.path for one in inputs], left_out) == (["d/x.csv"], 1)
    monkeypatch.setattr(os, "access", lambda path, mode: path != "d/locked")
    inputs, left_out = gather_inputs(["d/locked", "d/x.csv"], result_suffix=".json")
    assert ([one.path for one in inputs], left_out) == (["d/locked", "d/x.csv"], 0)  # named: it fails by itself


@pytest.mark.parametrize(
    "name", ["x" * 300, "x" * 300 + ".csv", "/".join(["ab"] * 2000) + ".csv", "y" * 300 + "/z.csv"]
)
def test_a_name_that_no_file_can_have_is_one_failure(attn, tmp_path, name):
    write(tmp_path, {"good.csv": "1,2\n3,4\n", "list": f"{name}\n2{name}\ngood.csv\n"})

    one = attn("batch", name, "good.csv", "-o", "out")
    both = attn("batch", "@list", "-o", "more")

    assert (one.status, "1 done, 1 failed" in one.err) == (1, True)
    assert (both.status, "1 done, 2 failed" in both.err) == (1, True)
    assert failure_codes(tmp_path / "more") == {name: "cannot-read", f"2{name}": "cannot-read"}
    assert [*lists.read_name_list("more/failed.txt")] == [name, f"2{name}"]
    [message] = {r["error"]["message"] for r in lines(tmp_path / "out/manifest.ndjson") if r.get("status") == "failed"}
    assert message == f"{name[:60]}…{name[-60:]} cannot be read: File name too long"
