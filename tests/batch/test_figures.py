"""`attn batch --plot`: a figure beside each result, drawn anew where it is missing or older than its result."""

from __future__ import annotations

import json
import os

import pytest

from tests.batch.helpers import GOOD, names, write
from tests.helpers import draw_normal


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, {"in/a.json": GOOD, "in/sub/b.json": GOOD})
    return tmp_path


def test_a_figure_stands_beside_each_result(attn, folder):
    done = attn("batch", "in", "-o", "out", "--plot", "svg", "--causal", "-q")
    attn("plot", "in/a.json", "--causal", "-o", "a.svg")
    attn("compute", "in/a.json", "--causal", "-o", "a.json")

    assert done.status == 0
    assert names(folder / "out") == ["a.json", "a.svg", "manifest.ndjson", "sub/b.json", "sub/b.svg"]
    for name in ("a.svg", "a.json"):
        assert (folder / "out" / name).read_bytes() == (folder / name).read_bytes()


def test_figures_that_are_missing_or_older_than_their_results_are_drawn_again(attn, folder):
    command = ("batch", "in", "-o", "out", "--plot", "svg")
    summaries = [attn(*command).err]
    drawn = (folder / "out/a.svg").read_bytes()
    summaries.append(attn(*command).err)
    (folder / "out/a.svg").unlink()
    summaries.append(attn(*command).err)
    assert (folder / "out/a.svg").read_bytes() == drawn
    os.utime(folder / "out/a.svg", (1, 1))
    summaries += [attn(*command).err, attn(*command[:4]).err]

    assert [summary.partition(";")[0].strip() for summary in summaries] == [
        "2 done, 0 failed",
        "0 done, 0 failed, 2 skipped",
        "1 done, 0 failed, 1 skipped",
        "1 done, 0 failed, 1 skipped",
        "0 done, 0 failed, 2 skipped",
    ]


def test_what_cannot_be_drawn_fails_by_itself(attn, folder):
    write(folder, {"in/c.json": json.dumps({"embeddings": draw_normal(1, 150, 2, 4).tolist()})})
    done = attn("batch", "in", "-o", "out", "--plot", "png")

    assert done.status == 1
    assert "too-many-panels" in (folder / "out/failed.txt").read_text()
    assert names(folder / "out") == ["a.json", "a.png", "failed.txt", "manifest.ndjson", "sub/b.json", "sub/b.png"]


def test_a_figure_replaces_no_file_of_yours(attn, folder):
    write(folder, {"out/a.svg": "mine"})
    done = attn("batch", "in", "-o", "out", "--plot", "svg")

    assert done.status == 2
    assert "a.svg exists, but was not made by attn batch" in done.err
    assert names(folder / "out") == ["a.svg"]


@pytest.mark.slow
def test_results_may_be_figures_themselves(attn, folder):
    assert attn("batch", "in", "-o", "out", "--format", "pdf").status == 0
    assert names(folder / "out") == ["a.pdf", "manifest.ndjson", "sub/b.pdf"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-o", "-", "--plot", "svg"], "in a folder"),
        (["-o", "out", "--plot", "svg", "--format", "png"], "figures themselves"),
        (["-o", "all.parquet", "--plot", "svg"], "in a folder"),
        (["-o", "out", "--plot", "gif"], "'gif' is not one of"),
    ],
)
def test_where_there_is_no_place_for_figures_they_are_refused(attn, folder, words, says):
    done = attn("batch", "in", *words)

    assert done.status == 2
    assert says in done.err
    assert names(folder) == ["in/a.json", "in/sub/b.json"]
