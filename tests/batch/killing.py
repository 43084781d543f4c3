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

VARYING = ("seconds", "attempts")  # what may differ between two manifests, beside the order


def problems(folder: Path, count: int, tokens: int = 3) -> None:
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


def command(inputs: Path, into: Path, jobs: int) -> list[str]:
    """The batch, as a process of its own."""
    return [sys.executable, "-m", "attncli", "batch", str(inputs), "-o", str(into), "-j", str(jobs), "-q"]


def manifest(folder: Path) -> dict[str, dict]:
    """Its lines by result, without what may differ; a torn one is no line."""
    found = {}
    for line in (folder / "manifest.ndjson").read_bytes().splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        found[fields.get("result", "")] = {k: v for k, v in fields.items() if k not in VARYING}
    return found


def left(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the manifest."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "manifest.ndjson")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def family(pid: int) -> set[int]:
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


def alive(pids: set[int]) -> set[int]:
    """Those that still run; a zombie does not."""
    out = set()
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                out.add(pid)
        except OSError:
            continue
    return out


def killed(inputs: Path, into: Path, jobs: int, after: float) -> tuple[int, int, float]:
    """Start a batch, kill it after so many seconds: (inputs that were finished, processes left behind, its length)."""
    process = subprocess.Popen(command(inputs, into, jobs), stderr=subprocess.DEVNULL, cwd=ROOT)
    started, seen = time.monotonic(), set()
    while time.monotonic() - started < after and process.poll() is None:
        seen |= family(process.pid)
        time.sleep(0.02)
    seen |= family(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    took = time.monotonic() - started
    deadline = time.monotonic() + TIMEOUT
    while alive(seen) and time.monotonic() < deadline:
        time.sleep(0.05)
    finished = len(manifest(into)) - 1 if (into / "manifest.ndjson").exists() else 0
    return max(finished, 0), len(alive(seen)), took


def again(inputs: Path, into: Path, jobs: int) -> int:
    """Run it to the end: how many were computed a second time."""
    before = {name: (into / name).stat().st_mtime_ns for name in left(into)} if into.exists() else {}
    subprocess.run(command(inputs, into, jobs), check=True, stderr=subprocess.DEVNULL, cwd=ROOT)
    return sum((into / name).stat().st_mtime_ns != when for name, when in before.items() if (into / name).exists())


def moments(inputs: Path, whole: Path, folder: Path, jobs: int, count: int, seed: int = 0) -> list[dict]:
    """The experiment, `count` times; each raises where something differs."""
    draw, out = random.Random(seed), []
    wanted, listed = left(whole), manifest(whole)
    started = time.monotonic()
    again(inputs, folder / f"length-{jobs}", jobs)
    length = time.monotonic() - started
    for i in range(count):
        into = folder / f"{jobs}-{i}"
        after = draw.uniform(0.05, length)
        finished, behind, _ = killed(inputs, into, jobs, after)
        twice = again(inputs, into, jobs)
        assert behind == 0, f"{behind} processes were left behind"
        assert left(into) == wanted, f"after a kill at {after:.2f} s the results differ"
        have = manifest(into)
        assert {k: v for k, v in have.items() if k} == {k: v for k, v in listed.items() if k}, "the manifests differ"
        out.append({"jobs": jobs, "after": round(after, 2), "finished": finished, "twice": twice})
    return out
