"""A batch from Python, without the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attncli.batch.inputs import gather_inputs
from attncli.batch.run import BatchCallbacks, BatchRun
from attncli.errors import OptionError
from attncli.request import OutputOptions, VariantRequest
from tests.batch.helpers import GOOD, names, write


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": "{broken", "in/c.ndjson": f"{GOOD}\n[[1],[2, 3]]\n"})
    found, _ = gather_inputs(["in"], result_suffix=".json", results_folder=Path("out"))
    return found


def test_a_batch_runs_into_a_folder_and_goes_on_where_it_stopped(inputs, tmp_path, capfd):
    progress = []
    callbacks = BatchCallbacks(on_progress=lambda stats: progress.append((stats.finished_count, stats.current_lines)))
    batch = BatchRun(inputs, VariantRequest({"mask": "causal"}), callbacks=callbacks)

    stats = batch.run_to_folder(Path("out"))
    again = batch.run_to_folder(Path("out"))

    assert (stats.done, stats.failed, stats.skipped, stats.left_count) == (1, 2, 0, 0)
    assert (again.done, again.failed, again.skipped) == (0, 2, 1)
    assert list(stats.causes) == ["bad-json", "lines-failed"]
    assert progress[:5] == [(1, 0), (2, 0), (2, 1), (2, 2), (3, 0)]
    assert names(tmp_path / "out") == ["a.json", "c.ndjson", "failed.txt", "manifest.ndjson"]
    assert json.loads((tmp_path / "out/a.json").read_text())["weights"][0][1] == 0
    assert capfd.readouterr() == ("", "")


def test_a_batch_runs_into_lines_in_the_order_of_the_inputs(inputs):
    lines = []

    stats = BatchRun(inputs, VariantRequest(), output_options=OutputOptions(only=("weights",))).run_to_lines(
        lines.append
    )

    results = [json.loads(line) for line in lines]
    assert stats.finished_count == 3
    assert ["weights" in result for result in results] == [True, False, True, False]
    assert [result.get("error", {}).get("code") for result in results] == [None, "bad-json", None, "ragged"]


def test_a_dry_run_says_of_each_input_what_would_be_done(inputs, tmp_path):
    batch = BatchRun(inputs, VariantRequest())
    before = [(entry.input.path, entry.action) for entry in batch.dry_run(Path("out"))]
    assert not (tmp_path / "out").exists()
    batch.run_to_folder(Path("out"))

    [*after] = batch.dry_run(Path("out"))

    assert before == [("in/a.json", "compute"), ("in/b.json", "fail"), ("in/c.ndjson", "fail")]
    assert [entry.action for entry in after] == ["skip", "fail", "fail"]
    assert [entry.error and entry.error.code for entry in after] == [None, "bad-json", "lines-failed"]


def test_a_batch_replaces_nothing_of_others(inputs, tmp_path):
    write(tmp_path, {"out/a.json": "mine"})

    with pytest.raises(OptionError, match="was not made by attn batch in this folder"):
        BatchRun(inputs, VariantRequest()).run_to_folder(Path("out"))

    assert names(tmp_path / "out") == ["a.json"]
