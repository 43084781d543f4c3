"""Nothing that is read names a place outside of the folder of results: no manifest, no list, no link."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from attncli.batch.inputs import Input
from attncli.batch.job import Job
from attncli.batch.manifest import Manifest
from attncli.batch.process import process_input
from attncli.batch.result_paths import is_result_path, safe_name, valid_file_name
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from tests.batch.helpers import GOOD, failure_codes, lines, names, write

pytestmark = pytest.mark.slow

HEADER = json.dumps({"schema": "attn.batch/1", "attn_version": "0.1.0", "variant": "x", "seed": 1, "choices": {}})


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file and link below a folder."""
    return {
        str(p.relative_to(folder)): str(p.readlink()) if p.is_symlink() else p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_symlink() or p.is_file()
    }


def receipt(result: object, status: str = "failed", **more: object) -> str:
    error = {"error": {"code": "x", "message": "m"}} if status == "failed" else {}
    return json.dumps({"input": "x.csv", "result": result, "status": status, **error, **more})


# ── what a manifest says ─────────────────────────────────────────────────────────────────────────
OUTSIDE = [
    "../victim.json", "deep/../../victim.json", "{root}/victim.json", "//{root}/victim.json", "./../victim.json", "..",
    "../victim", "deep/../../outside/new.json", ".", "", "/", "a//b.json", "./x.json", "x\0.json", "x" * 300, "\ud800.json",
    "../" * 40 + "tmp/attn-planted.json", "C:/victim.json", 7, None, ["x.json"],
]  # fmt: skip


@pytest.mark.parametrize("result", OUTSIDE)
@pytest.mark.parametrize("words", [[], ["--force"], ["--format", "npz"], ["--retry-failed"]])
def test_a_manifest_names_no_place_outside_of_its_folder(attn, tmp_path, result, words):
    result = result.replace("{root}", str(tmp_path)) if isinstance(result, str) else result
    write(tmp_path, {"x.csv": "1,2\n3,4\n", "victim.json": "precious", "outside/keep": "", "victim.npz": "precious"})
    write(tmp_path, {"out/manifest.ndjson": f"{HEADER}\n{receipt(result)}\n", "out/failed.txt": "x.csv\tx: m\n"})
    before = {name: data for name, data in contents(tmp_path).items() if not name.startswith("out/")}

    done = attn("batch", "@out/failed.txt", "-o", "out", "-q", *words)

    assert (done.status, done.err) == (0, "")
    assert {name: data for name, data in contents(tmp_path).items() if not name.startswith("out/")} == before
    made = [] if "--retry-failed" in words else ["x.npz" if "npz" in words else "x.json"]
    assert names(tmp_path / "out") == sorted([*made, "manifest.ndjson"])


def test_a_manifest_keeps_the_names_that_a_batch_gives(attn, tmp_path):
    """Whatever a file may be called: its list of failures still mends the folder in place."""
    odd = [
        "a\\b.json",
        "c..json",
        "d..json",
        "C:d.json",
        "e /f.json",
        "~.json",
        "\udcff.json",
        "x" * 251 + ".csv",
        "c:/g.csv",
    ]
    write(tmp_path, {f"in/deep/{name}": "{" for name in odd})
    attn("batch", "in/deep", "-o", "out", "-q")
    before = {r["input"]: r["result"] for r in lines(tmp_path / "out/manifest.ndjson")[1:]}
    write(tmp_path, {f"in/deep/{name}": GOOD if name.endswith("n") else "1,2\n" for name in odd})

    again = attn("batch", "@out/failed.txt", "-o", "out")

    assert f"{len(odd)} done, 0 failed" in again.err
    assert {r["input"]: r["result"] for r in lines(tmp_path / "out/manifest.ndjson")[1:]} == before
    assert all(is_result_path(result) for result in before.values())


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "C:/x", "..", "", ".", "a/./b", "//"])
def test_a_name_is_made_safe(name):
    assert not is_result_path(name)
    assert is_result_path(safe_name(name))


@pytest.mark.parametrize("name", ["x" * 256, "a\0b", "\ud800", "/".join(["ab"] * 2000)])
def test_a_name_that_no_file_can_have_is_made_one(tmp_path, name):
    (tmp_path / valid_file_name(name)).write_text("")

    assert not is_result_path(name)
    assert is_result_path(valid_file_name(name))


# ── links below the folder ───────────────────────────────────────────────────────────────────────
def plant_link(out: Path, place: str, target: Path) -> None:
    (out / place).parent.mkdir(parents=True, exist_ok=True)
    (out / place).unlink(missing_ok=True)
    (out / place).symlink_to(target)


PLACES = ["manifest.ndjson", "failed.txt", ".attn-batch", "deep/er/x.json", "b.json", "deep", "deep/er"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("target", ["file", "folder", "nothing", "device", "manifest"])
@pytest.mark.parametrize("words", [[], ["--force"], ["--dry-run"], ["-j", "2"]])
def test_a_link_below_the_folder_is_not_written_through(attn, tmp_path, place, target, words):
    write(tmp_path, {"in/deep/er/x.csv": "1,2\n3,4\n", "in/b.csv": "1,2\n3\n"})
    write(tmp_path, {"outside/file": "precious", "outside/folder/.x.json.0123abcd": "precious"})
    write(tmp_path, {"outside/folder/er/.x.json.0123abcd": "precious", "outside/manifest": f"{HEADER}\n"})
    write(tmp_path, {"out/manifest.ndjson": f"{HEADER}\n"})
    places = {"device": Path("/dev/null"), "nothing": tmp_path / "outside/new"}
    plant_link(tmp_path / "out", place, places.get(target, tmp_path / "outside" / target))
    before = contents(tmp_path)

    done = attn("batch", "in", "-o", "out", *words)

    assert (done.status, done.out) == (4, "")
    assert done.err.startswith(
        f"error[link-in-results]: out/{place} is a link, but results are not written through links"
    )
    assert contents(tmp_path) == before
    (tmp_path / "out" / place).unlink()  # the way out
    assert attn("batch", "in", "-o", "out", "-q", "--force").status == 1
    assert (tmp_path / "out/deep/er/x.json").is_file()


@pytest.mark.parametrize("place", ["manifest.ndjson", "failed.txt", "b.json"])
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(attn, tmp_path, place):
    write(tmp_path, {"b.csv": "1,2\n3,4\n", "out/keep": ""})
    os.mkfifo(tmp_path / "out" / place)

    done = attn("batch", "b.csv", "-o", "out", "--force")

    assert done.status == 4
    assert done.err.startswith(f"error[link-in-results]: out/{place} is neither a file nor a folder")


def test_the_folder_itself_may_be_a_link(attn, tmp_path):
    write(tmp_path, {"in/deep/x.csv": "1,2\n3,4\n", "real/keep": ""})
    (tmp_path / "out").symlink_to("real")
    (tmp_path / "nowhere").symlink_to("gone")

    assert attn("batch", "in", "-o", "out", "-q").status == 0
    assert names(tmp_path / "real") == ["deep/x.json", "keep", "manifest.ndjson"]
    lost = attn("batch", "in", "-o", "nowhere")
    assert (lost.status, "nowhere is a broken link" in lost.err) == (2, True)
    assert not (tmp_path / "gone").exists()


def test_a_link_that_is_put_there_while_a_batch_runs_costs_that_input(tmp_path):
    """A worker looks again before it writes."""
    write(tmp_path, {"x.csv": "1,2\n3,4\n", "outside/keep": "", "out/keep": ""})
    (tmp_path / "out/deep").symlink_to("../outside")
    job = Job(VariantRequest(), ReadOptions(), OutputOptions(), "json", 1, str(tmp_path / "out"))

    made = process_input(job, "", Input(str(tmp_path / "x.csv"), "deep/x.json"))

    assert (made.status, made.error["code"]) == ("failed", "link-in-results")
    assert names(tmp_path / "outside") == ["keep"]


def test_what_is_behind_a_link_is_not_swept_away(tmp_path):
    write(
        tmp_path,
        {"outside/.x.json.0123abcd": "precious", "out/.x.json.0123abcd": "half", "out/deep/.x.json.0123abcd": ""},
    )
    (tmp_path / "out/link").symlink_to("../outside")
    (tmp_path / "out/.y.json.0123abcd").symlink_to("../outside/.x.json.0123abcd")

    Manifest(tmp_path / "out").remove_leftovers(
        ["x.json", "y.json", "link/x.json", "deep/x.json", "link/../deep/x.json"]
    )

    assert names(tmp_path / "outside") == [".x.json.0123abcd"]
    assert names(tmp_path / "out") == [".y.json.0123abcd"]


# ── what else a manifest may hold ────────────────────────────────────────────────────────────────
DEEP = "[" * 5000 + "]" * 5000
ODD_LINES = [
    DEEP, f'{{"a": {DEEP}}}', '{"input": "x.csv", "result": "x.json", "status": "failed", "error": {"a": %s}}' % ("[" * 800 + "]" * 800),
    receipt("x.json", attempts=10**4000), receipt("x.json", attempts=-1), receipt("x.json", seconds=float("nan")),
    receipt("x.json", seconds=float("inf")), receipt("x.json", bytes=2**70), '{"n": %s}' % ("9" * 5000), "\udcff", "{",
    '{"input": "\\ud800", "result": "\\ud800", "status": "failed"}', receipt("x.json", warnings="w"),
]  # fmt: skip


@pytest.mark.parametrize("line", ODD_LINES)
@pytest.mark.parametrize("before", [f"{HEADER}\n", ""])
def test_an_odd_line_of_a_manifest_is_passed_over(attn, tmp_path, line, before):
    write(tmp_path, {"in/x.csv": "1,2\n3,4\n"})
    path = tmp_path / "in/out/manifest.ndjson"
    path.parent.mkdir()
    path.write_text(f"{before}{line}\n", errors="surrogateescape")

    walked = attn("batch", "in/**/*.csv", "-o", "elsewhere", "--dry-run")
    refused = attn("batch", "in/x.csv", "-o", "in/out")
    forced = attn("batch", "in/x.csv", "-o", "in/out", "--force")

    assert (walked.status, walked.out) == (0, "compute in/x.csv → elsewhere/x.json\n")
    assert (refused.status, forced.status) == ((0, 0) if before else (2, 0))
    assert [r["status"] for r in lines(path)[1:]] == ["done"]


@pytest.mark.parametrize("seed", ['"abc"', "-1", str(2**64), "1.5", "true", "[]", "1e400", "9" * 5000])
def test_a_seed_that_is_none_is_refused_and_forced_away(attn, tmp_path, seed):
    write(tmp_path, {"x.csv": "1,2\n3,4\n", "out/manifest.ndjson": f'{{"schema": "attn.batch/1", "seed": {seed}}}\n'})
    words = ("batch", "x.csv", "-o", "out", "--projection", "linear:dim=2")

    refused, dry = attn(*words), attn(*words, "--dry-run")
    forced = attn(*words, "--force", "-q")

    assert (refused.status, dry.status, forced.status) == (2, 2, 0)
    assert refused.err.startswith("error[output-exists]: out/manifest.ndjson")
    assert attn(*words, "-q").status == 0


@pytest.mark.parametrize("name", ["\ud800", "a\0b", "loop/x", "x\ty", "x\nb.csv\ty"])
def test_an_odd_input_of_a_manifest_is_told_as_it_is(attn, tmp_path, name):
    write(tmp_path, {"x.csv": "1,2\n3,4\n", "b.csv": "1,2\n3\n"})
    if name.startswith("loop"):
        (tmp_path / "loop").symlink_to("loop")
    line = json.dumps(
        {"input": name, "result": "x.json", "status": "failed", "error": {"code": "a\nb.csv", "message": ""}}
    )
    write(tmp_path, {"out/manifest.ndjson": f"{HEADER}\n{line}\n"})

    other = attn("batch", "x.csv", "-o", "out")
    again = attn("batch", "b.csv", "-o", "out")
    listed = attn("batch", "@out/failed.txt", "-o", "more")

    assert (other.status, again.status, listed.status) == (2, 1, 1)
    assert "out/x.json is the result of" in other.err
    assert set(failure_codes(tmp_path / "more")) == {name, "b.csv"}


# ── other commands that write into a folder ──────────────────────────────────────────────────────
@pytest.mark.parametrize("place", ["seed1.md", "keys", "keys/seed1.md"])
@pytest.mark.parametrize("target", ["victim", "absent", "outside"])
@pytest.mark.parametrize("words", [[], ["--force"]])
def test_no_worksheet_is_written_through_a_link(attn, tmp_path, place, target, words):
    write(tmp_path, {"x.csv": "1,2\n3,4\n", "victim": "precious", "outside/keep": ""})
    sheets = (
        "explain",
        "x.csv",
        "--projection",
        "randn",
        "--seeds",
        "1..2",
        "--blank",
        "weights",
        "-f",
        "markdown",
        "-o",
    )
    assert attn(*sheets, "made").status == 0
    (tmp_path / "sent" / place).parent.mkdir(parents=True)
    name = next(path.name for path in (tmp_path / "made" / place).parent.iterdir() if path.suffix == Path(place).suffix)
    link = (tmp_path / "sent" / place).with_name(name)
    link.symlink_to(tmp_path / target)
    before = contents(tmp_path)

    done = attn(*sheets, "sent", *words)

    assert (done.status, "error[link-in-results]" in done.err) == (4, True)
    assert contents(tmp_path) == before


def test_a_shared_script_that_somebody_else_has_left_is_replaced(attn, tmp_path):
    """A page would run it."""
    write(tmp_path, {"x.csv": "1,2\n3,4\n", "victim": "precious"})
    assert attn("compute", "x.csv", "-o", "own/x.html", "--shared-js").status == 4
    assert attn("batch", "x.csv", "-o", "own", "-f", "html", "--shared-js").status == 0
    script = next((tmp_path / "own").glob("*.js"))
    planted = [b"alert(1)", script.read_bytes()[:-1] + b"!"]
    for i, words in enumerate([["batch", "x.csv", "-o", "out{}"], ["compute", "x.csv", "-o", "out{}/x.html"]] * 2):
        folder = tmp_path / f"out{i}"
        folder.mkdir()
        (folder / script.name).write_bytes(planted[i // 2])

        assert attn(*(word.format(i) for word in words), "-f", "html", "--shared-js").status == 0
        assert (folder / script.name).read_bytes() == script.read_bytes()

        (folder / script.name).unlink()
        (folder / script.name).symlink_to(tmp_path / "victim")
        again = attn(*(word.format(i) for word in words), "-f", "html", "--shared-js", "--force")
        assert "link-in-results" in again.err
        assert (tmp_path / "victim").read_text() == "precious"
