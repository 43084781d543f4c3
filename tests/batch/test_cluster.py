"""`attn batch` and `attn compute` on a Dask cluster of processes."""

from __future__ import annotations

import shutil
import socket

import pytest

from tests.batch.helpers import ENVIRONMENT, GOOD, LONG, names, read_results, rename_sources, same_result, write

pytestmark = pytest.mark.cluster


def test_a_cluster_of_processes_runs_the_batch(warm, cluster, many, tmp_path):
    shutil.copytree(many / "in", tmp_path / "in")

    done = warm.run(
        "batch", "in", "-o", "out", "--scheduler", cluster.address, cwd=tmp_path, env=ENVIRONMENT
    )  # it runs elsewhere

    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert read_results(tmp_path / "out") == rename_sources(read_results(many / "whole"), many / "in", "in")
    by_file = warm.run(
        "batch", "in", "-o", "out", "--scheduler", cluster.folder / "scheduler.json", cwd=tmp_path, env=ENVIRONMENT
    )
    assert b"0 done, 0 failed, 240 skipped" in by_file.stderr


@pytest.mark.parametrize("way", LONG)
def test_a_cluster_of_processes_computes_one_long_problem(warm, cluster, big, tmp_path, way):
    out = tmp_path / "out.safetensors"
    by_address = warm.run("compute", big / "big.safetensors", *LONG[way], "-o", out, "--scheduler", cluster.address)

    assert (by_address.returncode, by_address.stdout) == (0, b""), by_address.stderr
    assert set(by_address.stderr.splitlines()) <= {b"the cluster has no workers yet; waiting for one"}
    assert same_result(out, big / f"{way}.safetensors")


def test_a_short_problem_needs_no_cluster_but_one_that_answers(warm, cluster, tmp_path):
    write(tmp_path, {"a.csv": "1,2\n3,4\n", "b.ndjson": GOOD})

    short = warm.run(
        "compute", "a.csv", "--json", "--scheduler", cluster.folder / "scheduler.json", cwd=tmp_path, env=ENVIRONMENT
    )
    many = warm.run("compute", "b.ndjson", "--scheduler", "tcp://127.0.0.1:9", cwd=tmp_path, env=ENVIRONMENT)
    nobody = warm.run("compute", "a.csv", "--scheduler", "nope.json", cwd=tmp_path, env=ENVIRONMENT)

    assert short.stdout == warm.run("compute", "a.csv", "--json", cwd=tmp_path).stdout
    assert short.stderr.endswith(b"the problem is a single tile, so it is computed here and not on the cluster\n")
    assert (many.returncode, many.stderr.splitlines()[-1]) == (
        2,
        b"  = help: attn batch computes many problems on a cluster",
    )
    assert (nobody.returncode, nobody.stdout) == (4, b"")
    assert b"\nerror[no-scheduler]: no Dask scheduler answers at nope.json: there is no such file\n" in nobody.stderr


def test_a_server_of_another_kind_is_no_scheduler(attn, tmp_path, monkeypatch):
    """It takes the connection, and says nothing that Dask would understand."""
    monkeypatch.setattr("attncli.batch.dask_cluster._SCHEDULER_TIMEOUT_SECONDS", 0.5)
    write(tmp_path, {"a.csv": "1,2\n3,4\n", "b.json": "{}"})
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        done = attn("batch", "a.csv", "-o", "out", "--scheduler", address)
    file = attn("batch", "a.csv", "-o", "out", "--scheduler", "b.json")

    assert (done.status, file.status) == (4, 4)
    assert f"no Dask scheduler answers at {address}: what answers there is not Dask" in done.err
    assert "no Dask scheduler answers at b.json: this is not a scheduler file" in file.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["batch", "compute"])
def test_a_cluster_without_gpus_is_refused_what_needs_one(warm, cluster, big, tmp_path, command):
    words = [big / "big.safetensors", "--device", "cuda", "--only", "context", "--schedule", "tiled", "-o"]
    done = warm.run(command, *words, tmp_path / "out.safetensors", "--scheduler", cluster.address)

    assert done.returncode == 4
    assert done.stderr.startswith(b"error[no-device]: no worker of the cluster has announced a GPU\n")
    assert names(tmp_path) == []


def test_no_scheduler_is_said(warm, tmp_path):
    write(tmp_path, {"a.csv": "1,2\n3,4\n"})

    gone = warm.run("batch", tmp_path / "a.csv", "-o", tmp_path / "out", "--scheduler", tmp_path / "nope.json")

    assert gone.returncode == 4
    assert gone.stderr.startswith(b"error[no-scheduler]: no Dask scheduler answers at")
