"""Lists of names."""

from __future__ import annotations

import json
import os

from attncli.batch import name_lists as lists
from attncli.batch.inputs import gather_inputs
from attncli.batch.manifest import Manifest
from tests.batch.helpers import GOOD, failure_codes, names, results_by_input, write


def test_a_list_names_the_results_that_the_folder_has(tmp_path, attn):
    write(tmp_path, {"data/good.csv": "1,2\n3,4\n", "data/deep/bad.csv": "1,2\n3\n", "other.csv": "1,2\n3,4\n"})
    assert attn("batch", "data", "-o", "out", "-q").status == 1
    write(tmp_path, {"list": "other.csv\ndata/deep\n"})
    known = {receipt.input: receipt.result for receipt in Manifest(tmp_path / "out").receipts.values()}

    assert results_by_input("@out/failed.txt", known_results=known) == {"data/deep/bad.csv": "deep/bad.json"}
    assert results_by_input("@out/failed.txt") == {"data/deep/bad.csv": "data/deep/bad.json"}
    assert results_by_input("@list", known_results=known) == {
        "other.csv": "other.json",
        "data/deep/bad.csv": "deep/bad.json",
    }
    assert results_by_input("data/deep/bad.csv", known_results=known) == {
        "data/deep/bad.csv": "bad.json"
    }  # a word is below what it names
    inputs, _ = gather_inputs(["@list"], result_suffix=".npz", known_results=known)
    assert [one.result_path for one in inputs] == ["other.npz", "deep/bad.npz"]


NAMES = ["\udcff\udcfe.csv", "a\u2028b\x85c\x0cd.csv", " both ends ", "# no comment.csv", 'say "x".csv', "r.csv\r", "@at.csv"]  # fmt: skip


def test_a_name_in_a_list_is_what_stands_there(attn, tmp_path):
    (tmp_path / "list").write_text(
        "\ufeff" + "\n\n".join(NAMES[:5]) + "\tbad-json: why\r\n \n@at.csv\r\n", errors="surrogateescape"
    )

    assert [*lists.read_name_list("list")] == [*NAMES[:5], "@at.csv"]


def test_what_is_spelled_into_a_list_is_read_back(tmp_path):
    strange = [*NAMES, "a\nb.csv", "a\tb.csv", '"quoted"', '"', " ", "\ufefffirst.csv", '"[1]', "x\\ny"]
    path = tmp_path / "failed.txt"
    path.write_bytes(
        b"".join(f"{lists.quote_name(name)}\tcode: why\n".encode("utf-8", "surrogateescape") for name in strange)
    )

    assert [*lists.read_name_list(str(path))] == strange
    assert [lists.quote_name(name) for name in ("data/x.csv", NAMES[0], 'say "x".csv')] == [
        "data/x.csv",
        NAMES[0],
        'say "x".csv',
    ]


def test_a_list_is_no_pattern_and_what_is_gone_from_it_is_one_failure(attn, tmp_path):
    write(
        tmp_path,
        {"a[2].csv": "1,2\n3,4\n", "a2.csv": "5,6\n7,8\n", "list": "a[1].csv\na[2].csv\n*.csv\n", "gone": "a[1].csv\n"},
    )

    done = attn("batch", "@list", "-o", "out")
    gone = attn("batch", "@gone", "-o", "more")

    assert (done.status, gone.status) == (1, 1)
    assert failure_codes(tmp_path / "out") == {"a[1].csv": "no-such-file", "*.csv": "no-such-file"}
    assert failure_codes(tmp_path / "more") == {"a[1].csv": "no-such-file"}
    assert names(tmp_path / "out") == ["a[2].json", "failed.txt", "manifest.ndjson"]


def test_a_file_may_be_called_as_standard_input_is(attn, tmp_path):
    write(tmp_path, {"in/-": GOOD, "in/list": "-\n"})
    os.chdir(tmp_path / "in")

    for i, word in enumerate(("@list", "?", "./-")):
        done = attn("batch", word, "--input-format", "json", "-o", f"../{i}", "-q", stdin=b"[[1, 2]]")
        assert (done.status, done.err) == (0, "")
        assert json.loads((tmp_path / f"{i}/-.json").read_text())["tokens"] == ["a", "b"]
    assert attn("batch", "-", "-o", "../x").status == 2


def test_a_list_in_another_encoding_is_refused(attn, tmp_path):
    (tmp_path / "list").write_text("a.csv\n", encoding="utf-16")

    assert attn("batch", "@list", "-o", "out").err.startswith("error[wrong-encoding]: the list list is not UTF-8")
