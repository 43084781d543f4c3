"""`attn batch` when something dies: kills, Ctrl-C, full disks, read-only folders."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.batch.helpers import (
    GOOD,
    descendants,
    finished,
    left_undisturbed,
    names,
    read_results,
    running_processes,
    started,
    until,
    worker_processes,
)
from tests.helpers import ROOT, TIMEOUT

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_and_run_again_it_leaves_what_an_undisturbed_run_leaves(warm, many, tmp_path, jobs):
    """`python benchmarks/batch_kill.py` does this at as many random moments as are wanted."""
    out = tmp_path / "out"
    run = started(many / "in", "-o", out, "-j", jobs, "-q")
    until(lambda: finished(out) > 50)
    children = descendants(run.pid)
    run.kill()
    run.communicate()
    until(lambda: not running_processes(children))
    before = {name: (out / name).stat().st_mtime_ns for name in read_results(out)}

    assert warm.run("batch", many / "in", "-o", out, "-q").returncode == 0

    twice = [name for name, when in before.items() if (out / name).exists() and (out / name).stat().st_mtime_ns != when]
    assert len(twice) <= (1 if jobs == 1 else 4 * 64)
    assert left_undisturbed(out, many)


def test_a_worker_that_is_killed_costs_nothing(many, tmp_path):
    run = started(many / "in", "-o", tmp_path / "out", "-j", 2, "--no-progress")
    until(lambda: finished(tmp_path / "out") > 0)
    os.kill(max(worker_processes(run.pid)), signal.SIGKILL)

    _, err = run.communicate(timeout=TIMEOUT)

    assert run.returncode == 0, err
    assert err.splitlines()[-1].startswith("240 done, 0 failed")
    assert len(err.splitlines()) == 1, err  # the cluster says nothing of its own
    assert left_undisturbed(tmp_path / "out", many)


def halted_early(folder: Path, many: Path, jobs: int) -> tuple[subprocess.Popen, Path]:
    """A batch in a process group that was halted (SIGSTOP) when a few inputs were finished, and its folder of results.

    A task holds up to twice as many inputs as the one before it: a third of a second after the first input, all of them may
    have been sent to workers, and then none is left to be stopped. Where this process had to wait so long, another is begun.
    """
    for attempt in range(10):
        out = folder / f"out{attempt}"
        run = started(many / "in", "-o", out, "-j", jobs, "--no-progress", start_new_session=True)
        until(lambda out=out: finished(out) > 0)
        os.killpg(run.pid, signal.SIGSTOP)
        if finished(out) < 60:  # at most 64 more are with each worker
            return run, out
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    raise AssertionError("this machine is too busy to halt a batch in the middle")


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_finishes_what_runs(warm, many, tmp_path, jobs):
    run, out = halted_early(tmp_path, many, jobs)
    children = descendants(run.pid)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: everyone in the group hears it
    os.killpg(run.pid, signal.SIGCONT)

    _, err = run.communicate(timeout=TIMEOUT)

    assert run.returncode == 130, err
    assert err.startswith("finishing what is running; Ctrl-C again stops at once\n")
    assert "stopped: interrupted; " in err
    assert " failed" not in err.replace(", 0 failed", "")
    until(lambda: not running_processes(children))
    assert warm.run("batch", many / "in", "-o", out, "-q").returncode == 0
    assert left_undisturbed(out, many)


def test_ctrl_c_twice_stops(many, tmp_path):
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "a.json").write_text(GOOD)
    (slow / "b.json").write_text(json.dumps({"embeddings": [[float(i % 7), 1.0] for i in range(3000)]}))
    run = started(
        slow, "-o", tmp_path / "out", "--only", "context", "--normalizer", "entmax:alpha=1.3", "--no-progress"
    )
    until(lambda: finished(tmp_path / "out") > 0)
    run.send_signal(signal.SIGINT)
    assert run.stderr.readline().startswith("finishing what is running")
    run.send_signal(signal.SIGINT)

    _, err = run.communicate(timeout=TIMEOUT)

    assert (run.returncode, err) == (130, "interrupted\n")
    assert names(tmp_path / "out") == ["a.json", "manifest.ndjson"]


def mounted(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A shell script in a mount namespace of its own."""
    attn = f"{sys.executable} -m attncli"
    return subprocess.run(
        ["unshare", "-rm", "bash", "-c", script.replace("attn ", f"{attn} ").replace("ROOT", str(folder))],
        capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT, check=False,
    )  # fmt: skip


CAN_MOUNT = (
    shutil.which("unshare") is not None
    and subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    ).returncode
    == 0
)


@pytest.mark.skipif(not CAN_MOUNT, reason="no file system can be mounted here")
@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.full), 2])
def test_a_full_disk_stops_the_batch_and_the_rerun_completes_it(many, tmp_path, jobs):
    (tmp_path / "out").mkdir()
    done = mounted(
        f"""
        mount -t tmpfs -o size=200k tmpfs ROOT/out
        attn batch {many}/in -o ROOT/out -j {jobs}; echo "status $?"
        find ROOT/out -name '.*' -type f | wc -l
        mount -o remount,size=50m ROOT/out
        attn batch {many}/in -o ROOT/out; echo "status $?"
        cp -r ROOT/out ROOT/kept
        """,
        tmp_path,
    )

    assert done.stdout.split("\n")[:3] == ["status 4", "0", "status 0"], done.stderr
    assert "cannot be written: No space left on device" in done.stderr
    assert "finished results are kept; run the same command to resume" in done.stderr
    assert " skipped" in done.stderr
    assert left_undisturbed(tmp_path / "kept", many)


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
    assert read_results(tmp_path / "kept") == read_results(many / "whole")
