"""What a batch costs: beside a hand-written loop in one Python process, beside a shell loop, and with two processes.

    python benchmarks/batch.py [PAIRS]

Every ratio is the median of interleaved pairs of whole processes. The hand-written loop is what one would write in a
minute, without a check, a plan, a name of a step or a file that appears whole: json, torch, json.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.batch.killing import write_problems
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
PROCESS_ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
}  # of every process: small arrays gain nothing


def process_seconds(command: list[str]) -> float:
    """Wall time of one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=PROCESS_ENVIRONMENT)
    return time.perf_counter() - start


def attn_command(*arguments: object) -> list[str]:
    """A command line of attn."""
    return [sys.executable, "-m", "attncli", *map(str, arguments)]


def peer_command(source: Path, destination: Path) -> list[str]:
    """The hand-written loop over a folder, or over JSON lines."""
    return [sys.executable, "-c", PEER_SCRIPT, str(source), str(destination)]


def compare_pairs(
    pair_count: int, ours: Callable[[int], float], theirs: Callable[[int], float]
) -> tuple[float, float, float]:
    """(median of the one, median of the other, median of the ratios)"""
    both = [(ours(i), theirs(i)) for i in range(pair_count)]
    ones, others = zip(*both, strict=True)
    return statistics.median(ones), statistics.median(others), statistics.median(a / b for a, b in both)


def main(pair_count: int) -> None:
    """Measure and print."""
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {pair_count} pairs a row\n"
    )
    print("| what | attn | peer | ratio | at most |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        write_problems(folder / "in", 2000)
        lines = [path.read_text() + "\n" for path in sorted((folder / "in").iterdir())]
        (folder / "few.ndjson").write_text("".join(lines[:10]))
        (folder / "many.ndjson").write_text("".join(lines) * 5)
        for warm in (
            attn_command("batch", folder / "in", "-o", folder / "warm"),
            peer_command(folder / "in", folder / "warm-loop"),
        ):
            process_seconds(warm)

        a, b, ratio = compare_pairs(
            pair_count,
            lambda i: process_seconds(attn_command("batch", folder / "in", "-o", folder / f"a{i}")),
            lambda i: process_seconds(peer_command(folder / "in", folder / f"b{i}")),
        )
        print(f"| 2 000 small files, -j 1, beside the loop | {a:.2f} s | {b:.2f} s | {ratio:.2f} | 2 |", flush=True)
        few = sorted((folder / "in").iterdir())[:20]
        shell = (
            sum(process_seconds(attn_command("compute", path, "-o", folder / "x.json", "--force")) for path in few)
            / 20
            * 2000
        )
        print(
            f"| the same beside a shell loop over attn compute, from 20 | {a:.2f} s | {shell:.0f} s | 1/{shell / a:.0f} | 1/100 |"
        )

        def milliseconds_per_line(command: Callable[[Path, Path], list[str]], repetition: int) -> float:
            """Of one line once warm: what many cost more than few."""
            take = [
                process_seconds(command(folder / f"{n}.ndjson", folder / f"{n}-{repetition}.out"))
                for n in ("many", "few")
            ]
            return (take[0] - take[1]) / (len(lines) * 5 - 10) * 1000

        a, b, ratio = compare_pairs(
            pair_count,
            lambda i: milliseconds_per_line(
                lambda source, into: attn_command("compute", source, "-o", into, "-f", "ndjson", "--force"), i
            ),
            lambda i: milliseconds_per_line(peer_command, i),
        )
        print(
            f"| JSON lines, a problem of 3 tokens once warm | {a:.2f} ms | {b:.2f} ms | {ratio:.2f} | 10 |", flush=True
        )
        for size, tokens in ((500, 3), (2000, 3), (8000, 3), (1500, 128)):
            write_problems(folder / f"in{size}", size, tokens)
            a, b, ratio = compare_pairs(
                min(pair_count, 3),
                lambda i, size=size: process_seconds(
                    attn_command("batch", folder / f"in{size}", "-o", folder / f"j2-{size}-{i}", "-j", 2)
                ),
                lambda i, size=size: process_seconds(
                    attn_command("batch", folder / f"in{size}", "-o", folder / f"j1-{size}-{i}", "-j", 1)
                ),
            )
            print(
                f"| {size:,} files of {tokens} tokens, -j 2 beside -j 1 | {a:.2f} s | {b:.2f} s | {ratio:.2f} | |",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
