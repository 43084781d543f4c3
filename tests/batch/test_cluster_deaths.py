"""Workers of a Dask cluster that die of an input or of one long problem, and a scheduler that goes."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.batch.helpers import (
    ENVIRONMENT,
    GOOD,
    LONG,
    Cluster,
    finished,
    read_manifest,
    read_results,
    rename_sources,
    same_result,
    started,
    until,
)
from tests.helpers import TIMEOUT

pytestmark = pytest.mark.cluster

POISON = """
import os, signal, time
import attncli.batch.job as work
if not hasattr(work, "healthy"):
    work.healthy = work.plan_input
def ready(job, input, data):
    if b"poison" in data:
        os.kill(os.getpid(), signal.SIGKILL)
    return work.healthy(job, input, data)
work.plan_input = ready

import attncli.core.remote as away
if not hasattr(away, "healthy"):
    away.healthy = away.compute_block
def compute_block(common, task):
    if common.plan.variant["empty_rows"] == "uniform":  # it takes its time
        open("began", "w").close()
        time.sleep(1)
    for name in os.listdir():  # a worker that finds one takes it, and dies
        if name.startswith("die"):
            try:
                os.unlink(name)
            except FileNotFoundError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
    if common.plan.variant["empty_rows"] == "nan" and task.block.combined_tile.rows.start == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return away.healthy(common, task)
away.compute_block = compute_block
"""


def test_a_poison_input_is_named_after_two_deaths_and_a_scheduler_that_goes_is_said(warm, many, big, tmp_path):
    """One cluster for all: its workers die of one input, or of one long problem; then it is taken away."""
    shutil.copytree(many / "in", tmp_path / "in")
    (tmp_path / "in/p00123.json").write_text(GOOD[:-1] + ', "about": "poison"}')
    made = Cluster(tmp_path, preload=POISON)
    try:
        done = warm.run("batch", "in", "-o", "out", "--scheduler", made.address, cwd=tmp_path, env=ENVIRONMENT)
        err = done.stderr.decode()
        assert done.returncode == 1, err
        assert "239 done, 1 failed" in err
        assert "failed[worker-died]: in/p00123.json: 2 workers died while they computed this" in err
        whole = rename_sources(read_results(many / "whole"), many / "in", "in")
        wanted = {k: v for k, v in whole.items() if k != "p00123.json"}
        have = read_results(tmp_path / "out")
        assert have.pop("failed.txt").startswith(b"in/p00123.json\tworker-died: ")
        assert have == wanted
        assert read_manifest(tmp_path / "out")["p00123.json"]["error"]["code"] == "worker-died"

        _workers_die_and_a_long_problem_is_computed(warm, made, big, tmp_path)
        (tmp_path / "in/p00123.json").unlink()
        slow = [*LONG["tiles"], "--empty-rows", "uniform", "-o", tmp_path / "4.safetensors"]
        long = started(big / "big.safetensors", *slow, "--scheduler", made.address, command="compute")
        until((tmp_path / "began").exists)
        run = started("in", "-o", "more", "--no-progress", "--scheduler", made.address, cwd=tmp_path)
        until(lambda: finished(tmp_path / "more") > 0)
        os.killpg(made.scheduler.pid, signal.SIGKILL)
        for one in (run, long):
            _, err = one.communicate(timeout=TIMEOUT)
            assert one.returncode == 4, err
            assert [line.partition(":")[0] for line in err.splitlines()][-2:] == ["error[scheduler-gone]", "  = help"]
            assert len(err.splitlines()) <= 3
        assert not list(tmp_path.glob("*4.safetensors*"))
    finally:
        made.close()
    kept = finished(tmp_path / "more")
    again = warm.run("batch", "in", "-o", "more", cwd=tmp_path, env=ENVIRONMENT)
    assert f"{239 - kept} done, 0 failed, {kept} skipped".encode() in again.stderr
    assert read_results(tmp_path / "more") == wanted


def _workers_die_and_a_long_problem_is_computed(warm, made: Cluster, big: Path, folder: Path) -> None:
    words = ("compute", big / "big.safetensors", *LONG["tiles"], "--scheduler", made.address)
    for deaths in (1, 2):  # the second time with all that they held
        for i in range(deaths):
            (folder / f"die{i}").touch()
        done = warm.run(*words, "-o", folder / f"{deaths}.safetensors")
        assert done.returncode == 0, done.stderr
        assert set(done.stderr.splitlines()) <= {b"the cluster has no workers yet; waiting for one"}
        assert not list(folder.glob("die*"))
        assert same_result(folder / f"{deaths}.safetensors", big / "tiles.safetensors")
    done = warm.run(*words, "--empty-rows", "nan", "-o", folder / "3.safetensors")
    assert done.returncode == 4
    assert re.search(rb"error\[worker-died\]: \d workers died while they computed queries 0 to \d+\n", done.stderr)
    assert not list(folder.glob("*3.safetensors*"))
