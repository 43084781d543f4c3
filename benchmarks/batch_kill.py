"""Kill a batch at random moments, run it again, and hold what it leaves against an undisturbed run's.

    python benchmarks/batch_kill.py [MOMENTS] [INPUTS]

Of every moment it says what was there when the process died, and how many inputs were computed twice.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.batch.helpers import descendants, read_manifest, read_results, running_processes, write_problems
from tests.helpers import ROOT


def batch_command(inputs: Path, into: Path, jobs: int) -> list[str]:
    """The batch, as a process of its own."""
    return [sys.executable, "-m", "attncli", "batch", str(inputs), "-o", str(into), "-j", str(jobs), "-q"]


def kill_batch(inputs: Path, into: Path, jobs: int, after: float) -> tuple[int, int, float]:
    """Start a batch, kill it after so many seconds: (inputs that were finished, processes left behind, its length)."""
    process = subprocess.Popen(batch_command(inputs, into, jobs), stderr=subprocess.DEVNULL, cwd=ROOT)
    started, seen = time.monotonic(), set()
    while time.monotonic() - started < after and process.poll() is None:
        seen |= descendants(process.pid)
        time.sleep(0.02)
    seen |= descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    took = time.monotonic() - started
    deadline = time.monotonic() + 10
    while running_processes(seen) and time.monotonic() < deadline:
        time.sleep(0.05)
    finished = len(read_manifest(into)) - 1 if (into / "manifest.ndjson").exists() else 0
    return max(finished, 0), len(running_processes(seen)), took


def run_to_end(inputs: Path, into: Path, jobs: int) -> int:
    """Run it to the end: how many were computed a second time."""
    before = {name: (into / name).stat().st_mtime_ns for name in read_results(into)} if into.exists() else {}
    subprocess.run(batch_command(inputs, into, jobs), check=True, stderr=subprocess.DEVNULL, cwd=ROOT)
    return sum((into / name).stat().st_mtime_ns != when for name, when in before.items() if (into / name).exists())


def kill_at_random_moments(inputs: Path, whole: Path, folder: Path, jobs: int, count: int, seed: int = 0) -> list[dict]:
    """The experiment, `count` times; each raises where something differs."""
    draw, out = random.Random(seed), []
    wanted, listed = read_results(whole), read_manifest(whole)
    started = time.monotonic()
    run_to_end(inputs, folder / f"length-{jobs}", jobs)
    length = time.monotonic() - started
    for i in range(count):
        into = folder / f"{jobs}-{i}"
        after = draw.uniform(0.05, length)
        finished, behind, _ = kill_batch(inputs, into, jobs, after)
        twice = run_to_end(inputs, into, jobs)
        assert behind == 0, f"{behind} processes were left behind"
        assert read_results(into) == wanted, f"after a kill at {after:.2f} s the results differ"
        have = read_manifest(into)
        assert {k: v for k, v in have.items() if k} == {k: v for k, v in listed.items() if k}, "the manifests differ"
        out.append({"jobs": jobs, "after": round(after, 2), "finished": finished, "twice": twice})
    return out


def main() -> None:
    """Every moment in a line, for one process and for two."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        write_problems(folder / "in", size)
        run_to_end(folder / "in", folder / "whole", 1)
        for jobs in (1, 2):
            for moment in kill_at_random_moments(folder / "in", folder / "whole", folder, jobs, count):
                print(json.dumps(moment), flush=True)
    print(f"{2 * count} kills: every rerun left what an undisturbed run leaves, and no process")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
