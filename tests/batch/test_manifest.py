"""`attn batch`: the manifest, and folders of results that somebody else wrote in."""

from __future__ import annotations

import json

import pytest

from tests.batch.helpers import GOOD, names, read_manifest, read_results, write


@pytest.mark.parametrize("torn", ['{"input": "in/c.js', '{"input": "in/a.json", "result": "a.json"}\n', "\x00\x00\n[1"])
def test_a_torn_manifest_is_read(attn, tmp_path, torn):
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": GOOD, "in/c.json": GOOD})
    attn("batch", "in", "-o", "out", "-q")
    path = tmp_path / "out/manifest.ndjson"
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:3]) + torn)

    again = attn("batch", "in", "-o", "out")

    assert "1 done, 0 failed, 2 skipped" in again.err
    assert read_manifest(tmp_path / "out") == {
        r.get("result", ""): {k: v for k, v in r.items() if k not in ("seconds", "attempts")}
        for r in map(json.loads, whole.splitlines())
    }


def test_two_batches_do_not_share_a_folder(attn, tmp_path):
    from attncli.batch.manifest import Manifest

    write(tmp_path, {"in/a.json": GOOD})
    holder = Manifest(tmp_path / "out")
    holder.open({"seed": 1})

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
    assert f"{name} exists, but was not made by attn batch" in refused.err
    assert (tmp_path / "out" / name).read_text() == text
    assert attn("batch", "x.csv", "-o", "out", "--force", "-q").status == 0


def test_a_manifest_that_lost_its_head_is_not_guessed(attn, tmp_path):
    """Its seed is gone with it: the same command would give other numbers."""
    write(tmp_path, {"in/a.json": GOOD})
    words = ("batch", "in", "-o", "out", "--projection", "linear:dim=2")
    attn(*words, "-q")
    path, before = tmp_path / "out/manifest.ndjson", read_results(tmp_path / "out")
    path.write_bytes(path.read_bytes()[:60])

    assert attn(*words).status == 2
    assert read_results(tmp_path / "out") == before


def test_a_seed_that_is_said_leaves_the_one_that_was_drawn(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD})
    words = ("batch", "in", "-o", "out", "--projection", "linear:dim=2", "-q")
    attn(*words)
    first = read_results(tmp_path / "out")
    attn(*words, "--seed", "5", "--force")
    assert json.loads((tmp_path / "out/a.json").read_text())["variant"]["seed"] == 5

    attn(*words, "--force")

    assert read_results(tmp_path / "out") == first


def test_a_result_that_was_written_on_is_made_again(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD, "in/b.ndjson": f"{GOOD}\n{GOOD}\n", "in/c.json": GOOD})
    attn("batch", "in", "-o", "out", "-q")
    before = read_results(tmp_path / "out")
    for name in ("a.json", "b.ndjson"):  # as long as it was
        (tmp_path / "out" / name).write_bytes(before[name].replace(b"0.5", b"0.6"))

    again = attn("batch", "in", "-o", "out")

    assert "2 done, 0 failed, 1 skipped" in again.err
    assert read_results(tmp_path / "out") == before


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
    from attncli.batch.job import Job
    from attncli.batch.manifest import Manifest
    from attncli.batch.process import process_input
    from attncli.request import OutputOptions, ReadOptions, VariantRequest

    write(tmp_path, {"a.json": GOOD, "out/keep": ""})
    later = Manifest(tmp_path / "out")
    job = Job(VariantRequest(), ReadOptions(), OutputOptions(), "json", 1, str(tmp_path / "out")).for_run(
        later.publish_run_id()
    )
    one = Input(str(tmp_path / "a.json"), "a.json")
    assert process_input(job, "", one).status == "done"
    before = (tmp_path / "out/a.json").read_bytes()

    orphan = process_input(
        Job(
            VariantRequest({"scale": "3"}),
            ReadOptions(),
            OutputOptions(),
            "json",
            1,
            job.results_folder,
            run_id="another",
        ),
        "",
        one,
    )
    later.close()
    too_late = process_input(job, "", one)

    for receipt in (orphan, too_late):
        assert (receipt.status, receipt.error["code"]) == ("failed", "not-wanted")
    assert (tmp_path / "out/a.json").read_bytes() == before
    assert names(tmp_path / "out") == ["a.json", "keep"]


def test_what_another_batch_has_written_meanwhile_is_not_forgotten(tmp_path):
    from attncli.batch.manifest import Manifest, Receipt
    from attncli.errors import CannotError

    one, other = Manifest(tmp_path / "out"), Manifest(tmp_path / "out")
    one.open({"seed": 1})
    one.add_receipt(Receipt("a", "a.json", "done"))
    one.finalize(["a.json"])
    one.close()

    with pytest.raises(CannotError, match="has just written"):
        other.open({"seed": 2})
    other.close()
    assert [*Manifest(tmp_path / "out").receipts] == ["a.json"]


def test_every_wish_that_changes_a_result_is_in_its_hash():
    import dataclasses

    from attncli.batch.job import Job
    from attncli.request import OutputOptions, ReadOptions, VariantRequest

    told = {"format", "output", "force", "full", "color", "quiet", "progress", "error_format"}  # what no file shows
    told |= {"figure", "figure_format"}  # figures stand beside results, which are the same without them
    other = {
        "only": ("weights",),
        "at": ("query=0",),
        "top": 3,
        "precision": 9,
        "heat": "on",
        "normalize": "row",
        "bare": True,
        "tidy": True,
        "standalone": True,
        "shared_js": True,
    }
    assert {f.name for f in dataclasses.fields(OutputOptions)} == told | set(other)

    def hashed(**more):
        return Job(VariantRequest(), ReadOptions(), OutputOptions(**more), "json", 1, "out").manifest_header()[
            "variant"
        ]

    hashes = {hashed(), hashed(heat="map"), *(hashed(**{name: value}) for name, value in other.items())}
    assert len(hashes) == 2 + len(other)
