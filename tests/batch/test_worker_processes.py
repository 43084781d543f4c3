"""Worker processes of this machine: what dies costs little, and nobody else reaches them."""

from __future__ import annotations

import os
import posix
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attncli.batch import executors, worker_processes
from attncli.batch.inputs import gather_inputs
from attncli.batch.run import BatchRun
from attncli.batch.task_pool import WorkersDied
from attncli.batch.worker_processes import open_process_pool
from attncli.errors import CannotError
from attncli.request import VariantRequest
from tests.batch.helpers import (
    ENVIRONMENT,
    GOOD,
    WITH_ALL_PROCESSES,
    descendants,
    failure_codes,
    finished,
    names,
    running_processes,
    started,
    until,
    write,
)
from tests.batch.helpers import worker_processes as workers_of
from tests.helpers import TIMEOUT

pytestmark = pytest.mark.slow


# ── who can reach them ───────────────────────────────────────────────────────────────────────────
def listening_sockets(pids: set[int]) -> list[str]:
    """The lines of /proc/net of the sockets of these processes that accept connections: TCP, or Unix."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            inodes |= {target[len("socket:[") : -1]} if target.startswith("socket:[") else set()
    out = []
    for name in ("tcp", "tcp6"):
        fields = [line.split() for line in Path("/proc/net", name).read_text().splitlines()[1:]]
        out += [f"{name} {one[1]}" for one in fields if one[3] == "0A" and one[9] in inodes]
    fields = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    out += [f"unix {' '.join(one[7:])}" for one in fields if one[3] == "00010000" and one[6] in inodes]
    return out


needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="/proc says who listens")


@needs_proc
def test_nothing_listens_while_two_processes_compute(many, tmp_path):
    run = started(many / "in", "-o", tmp_path / "out", "-j", 2, "-q")
    seen = 0
    while run.poll() is None:
        try:
            time.sleep(0.02)  # what listens does so for longer
            seen = max(seen, len(workers_of(run.pid)))
            assert listening_sockets({run.pid, *descendants(run.pid)}) == []
        except OSError:  # one of them has just ended
            continue

    _, err = run.communicate(timeout=TIMEOUT)
    assert (run.returncode, err, seen) == (0, "", 2)


@needs_proc
def test_a_socket_that_listens_would_be_found():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as unix:
        unix.bind("\0attn-test-of-sockets")
        unix.listen()
        found = listening_sockets({os.getpid()})

        port = server.getsockname()[1]

    assert found == [f"tcp 0100007F:{port:04X}", "unix @attn-test-of-sockets"]


def test_a_worker_imports_nothing_from_the_folder_that_it_runs_in(tmp_path):
    write(tmp_path, {f"in/{name}.json": GOOD for name in "abcd"})
    planted = (
        "pickle",
        "signal",
        "queue",
        "json",
        "attncli",
        "numpy",
        "sitecustomize",
        "subprocess",
        "multiprocessing",
    )
    write(tmp_path, {f"{name}.py": "open('ran', 'a').write(__name__)" for name in planted})
    command = [sys.executable, "-P", "-c", WITH_ALL_PROCESSES, "batch", "in", "-o", "out", "-j", "2", "-q"]

    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=ENVIRONMENT, timeout=TIMEOUT, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert not (tmp_path / "ran").exists()


# ── what dies ────────────────────────────────────────────────────────────────────────────────────
def outcomes(pool) -> dict[object, object]:
    """The outcomes of all tasks that were sent, by token."""
    out = {}
    deadline = time.monotonic() + TIMEOUT
    while pool.in_flight:
        assert time.monotonic() < deadline
        out |= dict(pool.completed(0.2))
    return out


def test_a_task_is_told_apart_from_the_one_whose_worker_died():
    with open_process_pool(2) as pool:
        pool.submit("dies", posix._exit, 3)  # os._exit may be replaced by what counts lines
        pool.submit("lives", divmod, 17, 5)
        assert not pool.has_capacity
        assert outcomes(pool) == {"dies": WorkersDied(1), "lives": (3, 2)}
        pool.submit("killed", os.kill, 0, 0)  # signal 0 does nothing
        assert outcomes(pool) == {"killed": None}
        pool.submit("raises", divmod, 1, 0)
        with pytest.raises(ZeroDivisionError):
            outcomes(pool)


def test_what_a_task_prints_is_no_outcome():
    with open_process_pool(1) as pool:
        pool.submit("a process", os.system, "echo this is printed")
        assert outcomes(pool) == {"a process": 0}
        pool.submit("Python", print, "so is this")
        assert outcomes(pool) == {"Python": None}


def test_an_idle_worker_that_dies_is_replaced():
    with open_process_pool(1) as pool:
        pool.submit(1, os.getpid)
        [first] = outcomes(pool).values()
        os.kill(first, signal.SIGKILL)
        until(lambda: not running_processes({first}))
        pool.submit(2, os.getpid)
        [second] = outcomes(pool).values()

    assert second != first


@pytest.mark.parametrize(
    ("executable", "says"),
    [("/bin/false", "3 worker processes ended with status 1 before they could start"), ("/nowhere", "No such file")],
)
def test_workers_that_cannot_start_end_the_batch(monkeypatch, executable, says):
    monkeypatch.setattr(worker_processes.sys, "executable", executable)

    def compute() -> None:
        with open_process_pool(2) as pool:
            pool.submit("never", divmod, 17, 5)
            outcomes(pool)

    with pytest.raises(CannotError, match=says) as raised:
        compute()

    assert raised.value.code == "no-worker"


def test_workers_end_with_whoever_started_them_even_in_the_middle_of_a_task(tmp_path):
    """By whatever signal: nobody but the kernel tells them."""
    code = """
import os, sys, time
from attncli.batch.worker_processes import open_process_pool
with open_process_pool(2) as pool:
    pool.submit(1, time.sleep, 600)
    pool.submit(2, time.sleep, 600)
    print(*(worker.process.pid for worker in pool.workers), flush=True)
    while True:
        [*pool.completed(1)]
"""
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    pids = set(map(int, run.stdout.readline().split()))
    run.kill()
    run.communicate()

    until(lambda: not running_processes(pids))


def process_chunk_with_poison(job, variant_hash, chunk):
    """What a worker does in the next test."""
    if any("poison" in input.path for input, _ in chunk):
        os.kill(os.getpid(), signal.SIGKILL)
    return executors.process_chunk(job, variant_hash, chunk)


def test_an_input_that_kills_its_workers_is_named_after_two_deaths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {f"in/{name}.json": GOOD for name in ("a", "b", "poison", "z")})
    write(tmp_path, {"out/.poison.json.0123abcd": "half", "out/manifest.ndjson": '{"schema": "attn.batch/1"}\n'})
    found, _ = gather_inputs(["in"], result_suffix=".json", results_folder=Path("out"))
    batch = BatchRun(found, VariantRequest(), process_count=2)

    with monkeypatch.context() as patch:
        patch.setattr(executors, "process_chunk", process_chunk_with_poison)
        stats = batch.run_to_folder(Path("out"))

    assert (stats.done, stats.failed) == (3, 1)
    [cause] = stats.causes.values()
    assert cause.first_receipt.error["message"] == "2 workers died while they computed this"
    assert failure_codes(tmp_path / "out") == {"in/poison.json": "worker-died"}
    assert names(tmp_path / "out") == ["a.json", "b.json", "failed.txt", "manifest.ndjson", "z.json"]


def test_ctrl_c_twice_leaves_neither_workers_nor_half_results(tmp_path):
    slow = ", ".join(f"[{i % 7}, 1.5]" for i in range(3000))
    write(tmp_path, {"in/a.json": GOOD, "in/b.json": f'{{"embeddings": [{slow}]}}', "in/c.json": f"[{slow}]"})
    words = ("--only", "context", "--normalizer", "entmax:alpha=1.3", "--no-progress")
    run = started(tmp_path / "in", "-o", tmp_path / "out", "-j", 3, *words, start_new_session=True)
    until(lambda: finished(tmp_path / "out") > 0)
    children = descendants(run.pid)
    os.killpg(run.pid, signal.SIGINT)
    assert run.stderr.readline().startswith("finishing what is running")
    os.killpg(run.pid, signal.SIGINT)

    _, err = run.communicate(timeout=TIMEOUT)

    assert (run.returncode, err) == (130, "interrupted\n")
    assert names(tmp_path / "out") == ["a.json", "manifest.ndjson"]
    until(lambda: not running_processes(children))
