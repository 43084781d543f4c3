"""What runs take: measured once, kept in the user's cache folder, and told by --dry-run before anything is computed."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

import attncli
from attncli.calibration import Calibrations, find_cache_folder
from attncli.plan import make_plan
from attncli.plan.estimate import (
    TYPICAL_CALIBRATION,
    count_computed_scores,
    describe_bytes,
    describe_seconds,
    estimate_run,
    seconds_left,
)
from attncli.variant import Variant
from tests.helpers import SAMPLES, draw_normal, run_without_torch

MEASURED = asdict(TYPICAL_CALIBRATION) | {"load": 0.75}


@pytest.fixture
def cache(tmp_path):
    """The variables of a user with a cache folder, in which this machine has been measured."""
    variables = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    path = Calibrations(variables).path
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(MEASURED))
    return variables


# ── where it is kept ─────────────────────────────────────────────────────────────────────────────
def test_it_is_measured_once_and_kept(tmp_path):
    variables = {"HOME": str(tmp_path)}
    assert Calibrations(variables).read() is None

    measured = Calibrations(variables).measure(lambda: None)

    assert Calibrations(variables).read() == measured
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / ".cache/attn"]
    assert all(seconds > 0 for seconds in asdict(measured).values())


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "3", '{"load": 1}', json.dumps(MEASURED | {"product": float("nan")}),
     json.dumps(MEASURED | {"score": -1.0}), json.dumps(MEASURED | {"byte": "x"}), json.dumps(MEASURED | {"kernel": 1e9}), "[" * 5000],
)  # fmt: skip
def test_what_is_damaged_is_as_if_it_were_not_there(cache, content):
    assert Calibrations(cache).read().load == 0.75
    Calibrations(cache).path.write_text(content)

    assert Calibrations(cache).read() is None


def test_a_folder_that_cannot_be_written_to_only_costs_the_time(tmp_path):
    (tmp_path / "file").write_text("")

    assert Calibrations({"XDG_CACHE_HOME": str(tmp_path / "file")}).measure(lambda: None).number > 0


def test_no_relative_folder_is_heeded():
    """The working folder may be anybody's."""
    assert find_cache_folder({"XDG_CACHE_HOME": "cache", "HOME": "."}) is None
    assert Calibrations({}).path is None
    assert Calibrations({}).read() is None


# ── what it says ─────────────────────────────────────────────────────────────────────────────────
def test_an_estimate_counts_what_is_computed():
    problem = attncli.Problem(q=draw_normal(1, 64, 8), k=draw_normal(2, 64, 8), v=draw_normal(3, 64, 8))
    dense = make_plan(problem, Variant(), ["context"])
    window = make_plan(problem, Variant(mask="window:left=3,right=0", schedule="tiled"), ["context"])

    assert count_computed_scores(dense) == 64 * 64
    assert count_computed_scores(window) == 64 * 4 - (1 + 2 + 3)
    ones = dict.fromkeys(asdict(TYPICAL_CALIBRATION), 1.0)
    counted = estimate_run(dense, type(TYPICAL_CALIBRATION)(**ones), read_bytes=5, written_numbers=7)
    # one problem, products of q and k and of weights and v, in float64 twice as slow, six passes and five of the chain
    links = len(dense.chain)
    assert counted.seconds == 1 + 64 * 64 * (2 * 8 + 5 + links) * 2 + 5 + 7


def test_more_tokens_take_longer_and_more_memory():
    def estimate(count):
        problem = attncli.Problem(embeddings=np.zeros((count, 4), np.float32))
        return estimate_run(make_plan(problem, Variant(), ["weights"]), TYPICAL_CALIBRATION)

    short, long = estimate(100), estimate(400)
    assert long.seconds > 2 * short.seconds
    assert 15 < long.memory_bytes / short.memory_bytes < 17


@pytest.mark.parametrize(
    ("elapsed", "fraction", "expected", "left"),
    [(0, 0, 0, 0), (2, 0, 10, 8), (12, 0, 10, 0), (5, 0.5, 0, 5), (5, 0.5, 100, 5), (1, 0.1, 20, 14), (3, 1, 20, 0)],
)
def test_the_seconds_left_come_from_what_was_expected_until_the_speed_is_known(elapsed, fraction, expected, left):
    assert seconds_left(elapsed, fraction, expected) == pytest.approx(left)


def test_durations_and_sizes_in_words():
    words = [describe_seconds(s) for s in (0.03, 0.44, 7.2, 23, 90, 700, 30000)]
    assert words == [
        "less than 0.1 s", "about 0.4 s", "about 7 s", "about 20 s", "about 90 s", "about 12 min", "about 8 h",
    ]  # fmt: skip
    assert [describe_bytes(n) for n in (12, 2048, 3 << 20, 5 << 30)] == ["12 bytes", "2.0 KiB", "3.0 MiB", "5.0 GiB"]


# ── on the command line ──────────────────────────────────────────────────────────────────────────
def test_a_dry_run_of_a_long_problem(attn, cache, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((5000, 4), np.float32))

    words = ("compute", "x.npy", "--causal", "--softcap", "30", "--only", "log_sum_exp", "--dry-run")
    done, told = attn(*words, variables=cache), attn(*words, "--json", variables=cache)

    assert (done.status, done.err) == (0, "")
    lines = dict(line.split(None, 1) for line in done.out.splitlines())
    assert lines["schedule"].startswith("tiled: 12,502,500 scores, about ")
    assert lines["keeps"] == "log_sum_exp"
    assert lines["time"].endswith(" once torch is loaded")
    record = json.loads(told.out)
    assert (record["schedule"], record["scores"]) == ("tiled", 5000 * 5001 // 2)
    assert lines["schedule"].endswith(f"about {record['scores_at_once']:,} at once")
    assert (record["steps"], record["load_seconds"]) == (["log_sum_exp"], 0.75)
    assert record["seconds"] > 0 < record["memory_bytes"] < record["free_bytes"]


def test_a_dry_run_refuses_what_a_run_does(attn, cache, tmp_path):
    (tmp_path / "lines.ndjson").write_text('{"embeddings": [[1]]}\n')
    (tmp_path / "there.json").write_text("")
    sample = SAMPLES / "tokens.csv"

    assert attn("compute", sample, "--dry-run", "--only", "output", variables=cache).status == 3
    assert attn("compute", sample, "--dry-run", "-o", "there.json", variables=cache).status == 2
    stream = attn("compute", "lines.ndjson", "--dry-run", variables=cache)
    assert (stream.status, "attn batch lines.ndjson -o DIR --dry-run" in stream.err) == (2, True)


def test_a_dry_run_of_many(attn, cache, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.json").write_text('{"embeddings": [[1, 2], [3, 4]]}')
    (tmp_path / "in/b.json").write_text("nope")
    (tmp_path / "in/c.ndjson").write_text('{"embeddings": [[1, 2]]}\n{"embeddings": [[1, 2], [3, 4], [5, 6]]}\n')
    words = ("batch", "in", "-o", "out", "--dry-run")

    done, told = attn(*words, variables=cache), attn(*words, "--json", variables=cache)

    assert done.out.splitlines()[0] == "compute in/a.json → out/a.json"
    assert "would compute 2 inputs (dense): less than 0.1 s once torch is loaded, " in done.err
    first, failed, lines, summary = map(json.loads, told.out.splitlines())
    assert (first["action"], first["result"], first["schedule"], first["scores"]) == (
        "compute",
        "out/a.json",
        "dense",
        4,
    )
    assert (failed["action"], failed["error"]["code"]) == ("fail", "bad-json")
    assert (lines["action"], lines["scores"]) == ("compute", 1 + 9)
    assert (summary["compute"], summary["fail"], summary["processes"], summary["seconds"]) == (2, 1, 1, 0.75)
    assert not (tmp_path / "out").exists()


def test_torch_is_not_loaded_where_this_machine_has_been_measured(tmp_path):
    """Where it has not, and torch does not load, a dry run says so and goes on."""
    keep = f"""
import os
from attncli.calibration import Calibrations
os.environ["XDG_CACHE_HOME"] = {str(tmp_path)!r}
path = Calibrations(os.environ).path
path.parent.mkdir(exist_ok=True)
path.write_text({json.dumps(MEASURED)!r})
"""
    sample = str(SAMPLES / "tokens.csv")
    dry_runs = [["compute", sample, "--dry-run"], ["batch", sample, "-o", str(tmp_path / "out"), "--dry-run"]]

    measured = run_without_torch(dry_runs, keep)
    unmeasured = run_without_torch(dry_runs[:1], keep + "path.unlink()")

    assert [(status, was_asked) for status, was_asked, _, _ in measured] == [(0, False)] * 2
    [(status, was_asked, _, err)] = unmeasured
    assert (status, was_asked) == (0, True)
    assert (
        "warning[not-measured]: torch does not load: torch is refused, so times are those of a typical machine" in err
    )
