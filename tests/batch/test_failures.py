"""`attn batch` keeps going: failures cost a line each, and the same command does what is left."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import attncli
from tests.batch.helpers import ENVIRONMENT, GOOD, lines, names, read_results, write
from tests.helpers import SAMPLES

pytestmark = pytest.mark.slow


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
    assert (
        "failed[bad-json]: in/p03.json:1:12, and 2 more: this is not valid JSON: the text ends in the middle"
        in done.err
    )
    assert "failed[ragged]: in/p20.json: " in done.err
    listed = (tmp_path / "out/failed.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == [f"in/p{i}.json" for i in ("03", "17", "20", "31")]
    assert listed[0].split("\t")[1] == "bad-json: this is not valid JSON: the text ends in the middle"
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


def test_results_of_another_variant_are_replaced_by_force_alone(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": GOOD})
    attn("batch", "in", "-o", "out", "-q")
    before = read_results(tmp_path / "out")

    refused = [attn("batch", "in", "-o", "out", "--causal", *more) for more in ((), ("--dry-run",))]

    hint = "  = help: use another folder, or --force to compute everything again\n"
    assert [done.err for done in refused] == [
        f"error[output-exists]: out/a.json was made with other options\n{hint}"
    ] * 2
    assert [done.status for done in refused] == [2, 2]
    assert read_results(tmp_path / "out") == before
    assert "2 done" in attn("batch", "in", "-o", "out", "--causal", "--force").err
    assert json.loads((tmp_path / "out/a.json").read_text())["variant"]["mask"] == "causal"
    assert "2 skipped" in attn("batch", "in", "-o", "out", "--causal").err
    assert "2 done" in attn("batch", "in", "-o", "out", "--causal", "--force").err


def test_what_failed_is_tried_again_with_other_options(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": GOOD})
    assert attn("batch", "in", "-o", "out", "--heads", "2", "-q").status == 1  # which do not divide three columns

    assert "2 done" in attn("batch", "in", "-o", "out").err


def test_a_run_with_other_options_that_was_interrupted_goes_on(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": "[[1,"})
    attn("batch", "in", "-o", "out", "-q")
    attn("batch", "in", "-o", "out", "--causal", "--force", "--fail-fast", "-q")
    write(tmp_path, {"in/b.json": GOOD})

    assert "1 done, 0 failed, 1 skipped" in attn("batch", "in", "-o", "out", "--causal").err


def test_results_of_another_version_say_so(attn, tmp_path):
    write(tmp_path, {"in/a.json": GOOD})
    attn("batch", "in", "-o", "out", "-q")
    manifest = tmp_path / "out/manifest.ndjson"
    manifest.write_text(manifest.read_text().replace(f'"{attncli.__version__}"', '"0.0.7"'))
    header = json.loads(manifest.read_text().splitlines()[0])
    for name in ("variant", "options"):
        manifest.write_text(manifest.read_text().replace(header[name], "0" * 16))

    assert "out/a.json was made by attn 0.0.7" in attn("batch", "in", "-o", "out").err


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
    assert "1 file or folder left out: not in a readable format" in first.err
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
    assert "fail    in/p03.json: bad-json: this is not valid JSON: the text ends in the middle\n" in done.out
    assert "skip    in/p00.json → out/p00.json\n" in done.out
    assert "compute in/p02.json → out/p02.json\n" in done.out
    assert (tmp_path / "out/manifest.ndjson").read_bytes() == before


def test_an_input_deleted_meanwhile_is_one_failure(attn, tmp_path, monkeypatch):
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": GOOD, "in/c.json": GOOD})
    import attncli.batch.process as work

    was = work.read_content

    def read(job, input):
        (tmp_path / "in/b.json").unlink(missing_ok=True)
        return was(job, input)

    with monkeypatch.context() as patch:
        patch.setattr(work, "read_content", read)
        done = attn("batch", "in", "-o", "out")

    assert done.status == 1
    assert "failed[no-such-file]: in/b.json: there is no file in/b.json" in done.err
    assert attn("batch", "in", "-o", "out").status == 0  # the folder no longer names it
    named = attn("batch", "in/a.json", "in/b.json", "in/c.json", "-o", "out")
    assert (named.status, "2 skipped" in named.err) == (1, True)


def test_a_bug_costs_one_input(attn, tmp_path, monkeypatch):
    """Those of equal shapes are computed together, unless that is what fails."""
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": GOOD.replace("0.5", "0.25")})
    import attncli.core.stacked as stacked
    import attncli.pipeline as work

    was = work.load_engine()

    def broken(plan):
        if plan.problem.embeddings[0, 1] == 0.5:
            raise KeyError("what nobody foresaw")
        return was(plan)

    monkeypatch.setattr(work, "load_engine", lambda: broken)
    monkeypatch.setattr(stacked, "run_stacked", lambda plans: 1 / 0)
    done = attn("batch", "in", "-o", "out")

    assert (done.status, names(tmp_path / "out")) == (1, ["b.json", "failed.txt", "manifest.ndjson"])
    assert "failed[bug]: in/a.json: a bug in attn: KeyError: 'what nobody foresaw'" in done.err


def test_a_bug_costs_one_input_of_a_dry_run(attn, tmp_path, monkeypatch):
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": GOOD.replace("0.5", "0.25")})
    import attncli.batch.job as work

    was = work.plan_input

    def broken(job, input, data):
        if input.path == "in/a.json":
            raise KeyError("what nobody foresaw")
        return was(job, input, data)

    monkeypatch.setattr(work, "plan_input", broken)
    done = attn("batch", "in", "-o", "out", "--dry-run")

    assert (done.status, done.err.startswith("would compute 1 input (dense): less than 0.1 s")) == (1, True)
    assert done.out.splitlines()[0].startswith("fail    in/a.json: bug: a bug in attn: KeyError")
    assert done.out.splitlines()[1] == "compute in/b.json → out/b.json"


def test_without_a_folder_for_temporary_files_results_go_to_a_folder_and_no_lines_by_workers(
    attn, tmp_path, monkeypatch
):
    def refuse(*words, **how):
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    write(tmp_path, {"a.json": GOOD, "b.json": GOOD})
    with monkeypatch.context() as patch:  # pytest itself wants such a folder, once this test is over
        for name in ("TemporaryDirectory", "mkdtemp", "mkstemp", "gettempdir"):
            patch.setattr(f"tempfile.{name}", refuse)
        to_lines = attn("batch", "a.json", "b.json", "-o", "-", "-j", "2")
        to_folder = attn("batch", "a.json", "b.json", "-o", "out", "-j", "2", "-q")

    assert (to_lines.status, to_lines.out) == (4, "")
    assert to_lines.err.startswith("error[cannot-write]: there is no folder for temporary files: No usable")
    assert "name one with TMPDIR=DIR, or leave -j out" in to_lines.err
    assert (to_folder.status, to_folder.err) == (0, "")


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


def test_the_samples_are_a_batch(attn, tmp_path):
    """Every file that comes with attn, whatever its format."""
    done = attn("batch", SAMPLES, "-o", "out", "--keep-suffix")

    assert done.status in (0, 1)
    assert "bug" not in done.err


def test_a_worker_imports_neither_typer_nor_rich(tmp_path):
    write(tmp_path, {"a.json": GOOD})
    code = """
import sys
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.batch.executors import process_chunk
from attncli.batch.inputs import Input
from attncli.batch.job import Job
[receipt] = process_chunk(Job(VariantRequest(), ReadOptions(), OutputOptions(), "json", 1, "."), "", [(Input("a.json", "out.json"), None)])
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
