"""Kill a batch at random moments, run it again, and hold what it leaves against an undisturbed run's."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers import ROOT, TIMEOUT

VARYING_KEYS = ("seconds", "attempts")  # what may differ between two manifests, beside the order


def write_problems(folder: Path, count: int, token_count: int = 3) -> None:
    """So many problems, small ones unless told."""
    folder.mkdir()
    draw = random.Random(1)

    def random_matrix(rows: int, columns: int) -> list[list[float]]:
        return [[round(draw.uniform(-1, 1), 3) for _ in range(columns)] for _ in range(rows)]

    for i in range(count):
        parameters = {name: random_matrix(4, 2) for name in ("w_q", "w_k", "w_v")}
        problem = {
            "tokens": [f"t{i}" for i in range(token_count)],
            "embeddings": random_matrix(token_count, 4),
            "parameters": parameters,
        }
        (folder / f"p{i:05d}.json").write_text(json.dumps(problem))


def batch_command(input_folder: Path, results_folder: Path, jobs: int) -> list[str]:
    """The batch, as a process of its own."""
    return [
        sys.executable,
        "-m",
        "attncli",
        "batch",
        str(input_folder),
        "-o",
        str(results_folder),
        "-j",
        str(jobs),
        "-q",
    ]


def read_manifest(results_folder: Path) -> dict[str, dict]:
    """Its lines by result, without what may differ; a torn one is no line."""
    found = {}
    for line in (results_folder / "manifest.ndjson").read_bytes().splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        found[fields.get("result", "")] = {k: v for k, v in fields.items() if k not in VARYING_KEYS}
    return found


def read_results(results_folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the manifest."""
    files = (p for p in sorted(results_folder.rglob("*")) if p.is_file() and p.name != "manifest.ndjson")
    return {str(p.relative_to(results_folder)): p.read_bytes() for p in files}


def descendants(process_id: int) -> set[int]:
    """The processes that a process started, and those that they did."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    out, todo = set(), [process_id]
    while todo:
        for child in children.get(todo.pop(), []):
            out.add(child)
            todo.append(child)
    return out


def running_processes(process_ids: set[int]) -> set[int]:
    """Those that still run; a zombie does not."""
    out = set()
    for pid in process_ids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                out.add(pid)
        except OSError:
            continue
    return out


def run_and_kill(input_folder: Path, results_folder: Path, jobs: int, seconds: float) -> tuple[int, int, float]:
    """Start a batch, kill it after so many seconds: (inputs that were finished, processes left behind, its length)."""
    process = subprocess.Popen(batch_command(input_folder, results_folder, jobs), stderr=subprocess.DEVNULL, cwd=ROOT)
    started, seen = time.monotonic(), set()
    while time.monotonic() - started < seconds and process.poll() is None:
        seen |= descendants(process.pid)
        time.sleep(0.02)
    seen |= descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    took = time.monotonic() - started
    deadline = time.monotonic() + TIMEOUT
    while running_processes(seen) and time.monotonic() < deadline:
        time.sleep(0.05)
    finished = len(read_manifest(results_folder)) - 1 if (results_folder / "manifest.ndjson").exists() else 0
    return max(finished, 0), len(running_processes(seen)), took


def run_to_end(input_folder: Path, results_folder: Path, jobs: int) -> int:
    """Run it to the end: how many were computed a second time."""
    before = (
        {name: (results_folder / name).stat().st_mtime_ns for name in read_results(results_folder)}
        if results_folder.exists()
        else {}
    )
    subprocess.run(batch_command(input_folder, results_folder, jobs), check=True, stderr=subprocess.DEVNULL, cwd=ROOT)
    return sum(
        (results_folder / name).stat().st_mtime_ns != when
        for name, when in before.items()
        if (results_folder / name).exists()
    )


def kill_at_random_moments(
    input_folder: Path, undisturbed_results: Path, scratch_folder: Path, jobs: int, count: int, seed: int = 0
) -> list[dict]:
    """The experiment, `count` times; each raises where something differs."""
    draw, out = random.Random(seed), []
    wanted, listed = read_results(undisturbed_results), read_manifest(undisturbed_results)
    started = time.monotonic()
    run_to_end(input_folder, scratch_folder / f"length-{jobs}", jobs)
    length = time.monotonic() - started
    for i in range(count):
        into = scratch_folder / f"{jobs}-{i}"
        after = draw.uniform(0.05, length)
        finished, behind, _ = run_and_kill(input_folder, into, jobs, after)
        twice = run_to_end(input_folder, into, jobs)
        assert behind == 0, f"{behind} processes were left behind"
        assert read_results(into) == wanted, f"after a kill at {after:.2f} s the results differ"
        have = read_manifest(into)
        assert {k: v for k, v in have.items() if k} == {k: v for k, v in listed.items() if k}, "the manifests differ"
        out.append({"jobs": jobs, "after": round(after, 2), "finished": finished, "twice": twice})
    return out
