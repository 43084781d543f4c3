"""What starting costs: whole processes, as ratios to `python -c "import torch"` measured beside them.

    python benchmarks/startup.py [PAIRS]

Each row is the median of interleaved pairs (the command, then the import, and so on), because machines are shared
and seconds drift; the ratio of each pair is what is compared.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = [
    ("attn --help", ["--help"], 0, 0.25),
    ("attn compute --help", ["compute", "--help"], 0, 0.25),
    ("attn --version", ["--version"], 0, 0.25),
    ("attn list", ["list"], 0, 0.25),
    ("an unknown mask", ["compute", "{good}", "--mask", "cusal"], 2, 0.25),
    ("a ragged CSV", ["compute", "{ragged}"], 3, 0.25),
    ("a JSON of the wrong shape", ["compute", "{wrong}"], 3, 0.25),
    ("three tokens, as tables", ["compute", "{good}"], 0, 0.90),
    ("three tokens, --json", ["compute", "{good}", "--json"], 0, 0.90),
]


def seconds(command: list[str], status: int) -> float:
    """Wall time of one process, which must end as it should."""
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    taken = time.perf_counter() - start
    assert done.returncode == status, (command, done.returncode)
    return taken


def main(pairs: int) -> None:
    """Measure every row and print a table."""
    attn = shutil.which("attn", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert attn, "install attn first: pip install ."
    torch = [sys.executable, "-c", "import torch"]
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / name) for name in ("good.csv", "ragged.csv", "wrong.json")}
        Path(files["good.csv"]).write_text("token,d0,d1,d2,d3\nthe,1,0,1,0\ncat,0,1,1,2\nsat,2,1,0,1\n")
        Path(files["ragged.csv"]).write_text("token,d0,d1\nthe,1,0\ncat,0\n")
        Path(files["wrong.json"]).write_text('{"embeddings": [[1, 2], [3]]}')
        places = {name.partition(".")[0]: path for name, path in files.items()}
        seconds(torch, 0)  # warm the file cache
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {pairs} pairs a row\n"
        )
        print("| command | median | `import torch` | ratio | at most |")
        print("|---|---:|---:|---:|---:|")
        for name, words, status, most in ROWS:
            command = [attn, *(word.format(**places) for word in words)]
            seconds(command, status)
            measured = [(seconds(command, status), seconds(torch, 0)) for _ in range(pairs)]
            own, other = (statistics.median(column) for column in zip(*measured, strict=True))
            ratio = statistics.median(a / b for a, b in measured)
            print(f"| {name} | {own:.2f} s | {other:.2f} s | {ratio:.2f} | {most:.2f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
