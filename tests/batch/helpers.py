"""Folders of inputs, processes that run a batch, and a Dask cluster from the documentation's lines."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from attncli.batch.inputs import gather_inputs
from tests.helpers import ROOT, TIMEOUT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
VARYING = ("seconds", "attempts")  # what may differ between two manifests, beside the order
GOOD = '{"tokens": ["a", "b"], "embeddings": [[1, 0.5, 2], [0, 1, 1]]}'


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def write_problems(folder: Path, count: int, tokens: int = 3) -> None:
    """So many problems, small ones unless told."""
    folder.mkdir()
    draw = random.Random(1)

    def matrix(rows: int, columns: int) -> list[list[float]]:
        return [[round(draw.uniform(-1, 1), 3) for _ in range(columns)] for _ in range(rows)]

    for i in range(count):
        parameters = {name: matrix(4, 2) for name in ("w_q", "w_k", "w_v")}
        problem = {
            "tokens": [f"t{i}" for i in range(tokens)],
            "embeddings": matrix(tokens, 4),
            "parameters": parameters,
        }
        (folder / f"p{i:05d}.json").write_text(json.dumps(problem))


def read_manifest(folder: Path) -> dict[str, dict]:
    """Its lines by result, without what may differ; a torn one is no line."""
    found = {}
    for line in (folder / "manifest.ndjson").read_bytes().splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        found[fields.get("result", "")] = {k: v for k, v in fields.items() if k not in VARYING}
    return found


def read_results(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the manifest."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "manifest.ndjson")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def rename_sources(results: dict[str, bytes], old_folder: object, new_folder: object) -> dict[str, bytes]:
    """Results as they are where the same inputs are named by another folder."""
    old, new = (f'"source":"{folder}/'.encode() for folder in (old_folder, new_folder))
    return {name: content.replace(old, new) for name, content in results.items()}


_PEAK_CODE = (
    "import sys; from attncli.cli import main; main(sys.argv[1:]);"
    "print(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')), file=sys.stderr)"
)


def peak_kibibytes(*words: object) -> int:
    """The peak memory of a command in a process of its own: what getrusage says is at least its parent's."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK_CODE, *map(str, words)],
        capture_output=True, text=True, timeout=TIMEOUT, env=ENVIRONMENT, check=True,
    )  # fmt: skip
    return int(done.stderr.split()[-1])


def descendants(pid: int) -> set[int]:
    """The processes that a process started, and those that they did."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    out, todo = set(), [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            out.add(child)
            todo.append(child)
    return out


def running_processes(pids: set[int]) -> set[int]:
    """Those that still run; a zombie does not."""
    out = set()
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                out.add(pid)
        except OSError:
            continue
    return out


# ── processes that run a batch ───────────────────────────────────────────────────────────────────
# The program, in which `-j` starts as many processes as it says, however little there is to do.
WITH_ALL_PROCESSES = (
    "import attncli.batch.expected_time as e; e.WORTH_LOADS = 0; from attncli.__main__ import run; run()"
)


def started(*words: object, command: str = "batch", **more) -> subprocess.Popen:
    line = [sys.executable, "-P", "-c", WITH_ALL_PROCESSES, command, *map(str, words)]
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, **more)


def until(condition, seconds: float = TIMEOUT) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)


def finished(folder: Path) -> int:
    path = folder / "manifest.ndjson"
    return path.read_bytes().count(b"\n") - 1 if path.exists() else 0


def left_undisturbed(folder: Path, many: Path) -> bool:
    wanted = {k: v for k, v in read_manifest(many / "whole").items() if k}
    return (
        read_results(folder) == read_results(many / "whole")
        and {k: v for k, v in read_manifest(folder).items() if k} == wanted
    )


def worker_processes(pid: int) -> set[int]:
    """The worker processes of a run."""
    return {p for p in descendants(pid) if b"serve_tasks" in Path(f"/proc/{p}/cmdline").read_bytes()}


# ── a cluster of processes ───────────────────────────────────────────────────────────────────────
def documented(start: str, port: int) -> list[str]:
    """The words of the documentation's line that starts the scheduler or the workers."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    [line] = {
        one for page in pages for one in re.findall(rf"^(?:DASK_\S+ )?{start} .*$", page.read_text(), re.MULTILINE)
    }
    return line.replace("8786", str(port)).split()


# Workers are forked from a process that has torch: a dozen of them die and are replaced, and each would import it.
FORKED_WORKERS = "import distributed.versions as v\nv.optional_packages.append('torch')\n"


class Cluster:
    """A scheduler and two workers as processes of their own, from the documentation's lines."""

    def __init__(self, folder: Path, preload: str = "") -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        self.address, self.folder = f"tcp://127.0.0.1:{port}", folder
        setting, *scheduler = documented("dask scheduler", port)
        worker = documented("dask worker", port)
        scheduler += ["--scheduler-file", str(folder / "scheduler.json")]
        (folder / "nanny.py").write_text(FORKED_WORKERS)
        worker += ["--preload-nanny", str(folder / "nanny.py")]
        if preload:
            (folder / "preload.py").write_text(preload)
            worker += ["--preload", str(folder / "preload.py")]
        name, _, value = setting.partition("=")
        self.log = (folder / "dask.log").open("wb")

        def start(words: list[str], **said: str) -> subprocess.Popen:
            return subprocess.Popen(
                [sys.executable, "-m", *words], stdout=self.log, stderr=self.log, cwd=folder, start_new_session=True,
                env={**ENVIRONMENT, "DASK_TEMPORARY_DIRECTORY": str(folder), **said},
            )  # fmt: skip

        self.scheduler = start(scheduler, **{name: value})
        self.workers = start(worker, DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD="forkserver")
        until(
            lambda: (folder / "dask.log").read_bytes().count(b"Register worker addr") >= 2
        )  # more where one was restarted

    def close(self) -> None:
        for one in (self.workers, self.scheduler):
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()
        self.log.close()


LONG = {
    "kernel": ["--causal", "--only", "context"],
    "tiles": ["--only", "context,log_sum_exp", "--softcap", "20", "--top", "3"],
    "matrix": ["--only", "weights,context", "--window", "3,0", "--at", "query=100:1900"],
}


def same_result(made: Path, wanted: Path) -> bool:
    """The same in all but the last digits of numbers."""
    (one, head), (other, its) = ((load_file(str(p)), safe_open(str(p), "np").metadata()) for p in (made, wanted))
    assert (head, [*one]) == (its, [*other])
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], rtol=1e-12, atol=1e-14)
    return True


def results_by_input(*words: object, **how: object) -> dict[str, str]:
    """What words stand for: results by input."""
    inputs, _ = gather_inputs(map(str, words), result_suffix=".json", results_folder=Path("out"), **how)
    return {one.path: one.result_path for one in inputs}


def failure_codes(folder: Path) -> dict[str, str]:
    """Codes of what failed, by input."""
    return {r["input"]: r["error"]["code"] for r in lines(folder / "manifest.ndjson") if r.get("status") == "failed"}
