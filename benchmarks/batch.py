"""What a batch costs: beside a hand-written loop in one Python process, beside a shell loop, and with two processes.

    python benchmarks/batch.py [PAIRS]
    python benchmarks/batch.py --processor [PAIRS]    processor time and least values, where others use the machine

Every ratio is the median of interleaved pairs of whole processes. With --processor it is that of the least processor
seconds, of which others take less; then nothing can be said of two processes, nor of single lines. The hand-written loop is what one would write in a
minute, without a check, a plan, a name of a step or a file that appears whole: json, torch, json.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.batch.helpers import write_problems
from tests.helpers import ROOT

PEER_SCRIPT = """
import json, math, sys
from pathlib import Path
import torch
def answer(problem):
    x = torch.tensor(problem["embeddings"], dtype=torch.float64)
    w = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in problem["parameters"].items()}
    q, k, v = x @ w["w_q"], x @ w["w_k"], x @ w["w_v"]
    scores = q @ k.T
    scaled = scores / math.sqrt(q.shape[-1])
    weights = torch.softmax(scaled, -1)
    steps = {"scores": scores, "scaled_scores": scaled, "weights": weights, "context": weights @ v}
    return json.dumps({"tokens": problem["tokens"], **{name: step.tolist() for name, step in steps.items()}})
if sys.argv[1:] == ["-"]:
    for line in sys.stdin:
        print(answer(json.loads(line)), flush=True)
    sys.exit()
source, into = Path(sys.argv[1]), Path(sys.argv[2])
if source.is_dir():
    into.mkdir(exist_ok=True)
    for path in sorted(source.glob("*.json")):
        (into / path.name).write_text(answer(json.loads(path.read_text())))
else:
    with source.open() as lines, into.open("w") as out:
        for line in lines:
            out.write(answer(json.loads(line)) + "\\n")
"""
# Of every process that is measured. One thread: arrays as small as these gain nothing from more.
PROCESS_ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


HAS_PROCESSOR_TIME = "--processor" in sys.argv


def process_seconds(command: list[str]) -> float:
    """Seconds of one process, from start to end; or those of the processor."""
    start, used_before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=PROCESS_ENVIRONMENT)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    if HAS_PROCESSOR_TIME:
        return used.ru_utime + used.ru_stime - used_before.ru_utime - used_before.ru_stime
    return time.perf_counter() - start


def milliseconds_between_lines(command: list[str], lines: list[str]) -> float:
    """Milliseconds from a line that is written to a process until its answer is there, the median; the first ten warm it."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=PROCESS_ENVIRONMENT,
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        seconds = []
        for line in lines:
            start = time.perf_counter()
            running.stdin.write(line)
            running.stdin.flush()
            running.stdout.readline()
            seconds.append(time.perf_counter() - start)
        running.stdin.close()
    return statistics.median(seconds[10:]) * 1000


def attn_command(*arguments: object) -> list[str]:
    """A command line of attn, in a process of its own."""
    return [sys.executable, "-m", "attncli", *map(str, arguments)]


def peer_command(source: Path, destination: Path) -> list[str]:
    """The hand-written loop over a folder, or over JSON lines."""
    return [sys.executable, "-c", PEER_SCRIPT, str(source), str(destination)]


def compare_pairs(
    pair_count: int, ours: Callable[[int], float], theirs: Callable[[int], float]
) -> tuple[float, float, float]:
    """Measure pairs, interleaved: (median of ours, median of theirs, median of the ratios); of processor time, the least."""
    pairs = [(ours(i), theirs(i)) for i in range(pair_count)]
    if HAS_PROCESSOR_TIME:
        our_least, their_least = (min(column) for column in zip(*pairs, strict=True))
        return our_least, their_least, our_least / their_least
    our_median, their_median = (statistics.median(column) for column in zip(*pairs, strict=True))
    return our_median, their_median, statistics.median(a / b for a, b in pairs)


class Tables:
    """Measures the rows of the table, and prints them, in a folder of its own."""

    def __init__(self, folder: Path, pair_count: int) -> None:
        self.folder, self.pair_count = folder, pair_count
        self.inputs = folder / "in"
        write_problems(self.inputs, 2000)
        lines = [path.read_text() + "\n" for path in sorted(self.inputs.iterdir())]
        self.few_lines, self.many_lines = lines[:10], lines * 5
        (folder / "few.ndjson").write_text("".join(self.few_lines))
        (folder / "many.ndjson").write_text("".join(self.many_lines))

    def warm_up(self) -> None:
        """Run both peers once, so that files and modules are in the caches of the system."""
        process_seconds(attn_command("batch", self.inputs, "-o", self.folder / "warm"))
        process_seconds(peer_command(self.inputs, self.folder / "warm-loop"))

    def print_small_files(self) -> None:
        """A folder of small files: beside the hand-written loop, and beside a shell loop."""
        ours, theirs, ratio = compare_pairs(
            self.pair_count,
            lambda i: process_seconds(attn_command("batch", self.inputs, "-o", self.folder / f"a{i}", "-j", 1)),
            lambda i: process_seconds(peer_command(self.inputs, self.folder / f"b{i}")),
        )
        print_row("2 000 small files, -j 1, beside the loop", f"{ours:.2f} s", f"{theirs:.2f} s", f"{ratio:.2f}", "0.6")
        few = sorted(self.inputs.iterdir())[:20]
        result = self.folder / "x.json"
        seconds = [process_seconds(attn_command("compute", path, "-o", result, "--force")) for path in few]
        shell = sum(seconds) / len(few) * 2000
        label = "the same beside a shell loop over attn compute, from 20"
        print_row(label, f"{ours:.2f} s", f"{shell:.0f} s", f"1/{shell / ours:.0f}", "1/100")

    def milliseconds_per_line(self, make_command: Callable[[Path, Path], list[str]], repetition: int) -> float:
        """Milliseconds of one line once everything is loaded: what many lines cost more than few."""
        many, few = (
            process_seconds(make_command(self.folder / f"{name}.ndjson", self.folder / f"{name}-{repetition}.out"))
            for name in ("many", "few")
        )
        return (many - few) / (len(self.many_lines) - len(self.few_lines)) * 1000

    def print_lines(self) -> None:
        """JSON lines beside the hand-written loop."""

        def attn_lines(source: Path, destination: Path) -> list[str]:
            return attn_command("compute", source, "-o", destination, "-f", "ndjson", "--force")

        ours, theirs, ratio = compare_pairs(
            self.pair_count,
            lambda i: self.milliseconds_per_line(attn_lines, i),
            lambda i: self.milliseconds_per_line(peer_command, i),
        )
        label = "JSON lines, a problem of 3 tokens once warm, where all wait"
        print_row(label, f"{ours:.3f} ms", f"{theirs:.3f} ms", f"{ratio:.2f}", "1.5")
        if HAS_PROCESSOR_TIME:
            return
        ours, theirs, ratio = compare_pairs(
            self.pair_count,
            lambda i: milliseconds_between_lines(
                attn_command("compute", "-", "--input-format", "ndjson", "-f", "ndjson"), self.many_lines[:1000]
            ),
            lambda i: milliseconds_between_lines([sys.executable, "-c", PEER_SCRIPT, "-"], self.many_lines[:1000]),
        )
        print_row("the same, one at a time", f"{ours:.3f} ms", f"{theirs:.3f} ms", f"{ratio:.2f}", "5")

    def print_two_processes(self, file_count: int, token_count: int) -> None:
        """A folder computed by two processes beside one."""
        inputs = self.folder / f"in{file_count}"
        write_problems(inputs, file_count, token_count)

        def batch_seconds(process_count: int, repetition: int) -> float:
            results = self.folder / f"j{process_count}-{file_count}-{repetition}"
            return process_seconds(attn_command("batch", inputs, "-o", results, "-j", process_count))

        two, one, ratio = compare_pairs(
            min(self.pair_count, 3), lambda i: batch_seconds(2, i), lambda i: batch_seconds(1, i)
        )
        label = f"{file_count:,} files of {token_count} tokens, -j 2 beside -j 1"
        print_row(label, f"{two:.2f} s", f"{one:.2f} s", f"{ratio:.2f}", "1" if token_count == 3 else "0.6")


def print_row(*cells: str) -> None:
    """Print one row: what is measured, attn, the peer, the ratio, and what it may be at most."""
    print(f"| {' | '.join(cells)} |", flush=True)


def main(pair_count: int) -> None:
    """Measure and print."""
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {pair_count} pairs a row\n"
    )
    print("| what | attn | peer | ratio | at most |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables(Path(folder), pair_count)
        tables.warm_up()
        tables.print_small_files()
        tables.print_lines()
        for file_count, token_count in () if HAS_PROCESSOR_TIME else ((500, 3), (2000, 3), (8000, 3), (1500, 128)):
            tables.print_two_processes(file_count, token_count)


if __name__ == "__main__":
    counts = [int(word) for word in sys.argv[1:] if word.isdecimal()]
    main(*counts[:1] or [5])
