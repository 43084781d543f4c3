"""What attn costs, as ratios to peers measured beside it: `python benchmarks [WORD…]`; words choose among rows.

    python benchmarks            every row
    python benchmarks --quick    fewer pairs
    python benchmarks window     the rows that have the word in them

A row is the median of interleaved pairs (ours, the peer's, ours, …) on the same tensors and files, because machines are
shared and seconds drift: the ratio of each pair is what is compared. In-process rows run in a process of their own, and
so does the measuring of peak memory (`ru_maxrss`, above what `import torch` takes and, where said, above the inputs).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCHMARKS_FOLDER = Path(__file__).parent
sys.path.insert(0, str(BENCHMARKS_FOLDER.parent))


@dataclass(frozen=True)
class BenchmarkRow:
    """One line of the table: what is measured, against what, and what it may cost at most."""

    name: str
    peer: str
    max_ratio: float
    measure_attn: Callable[[], float]  # each runs once and says its seconds
    measure_peer: Callable[[], float]


# ── in one process ───────────────────────────────────────────────────────────────────────────────
WINDOW_CHOICES = {"mask": "window:left=255,right=0"}
ATTN_RUNS = {  # name → (tokens, choices, steps, top)
    "context": (16384, {}, ["context"], None),
    "softcap": (16384, {"softcap": 30, "position": "alibi"}, ["context"], None),
    "statistics": (16384, {}, ["context", "log_sum_exp", "top_keys", "top_weights"], 8),
    "window": (131072, WINDOW_CHOICES, ["context"], None),
    "causal": (16384, {"mask": "causal"}, ["context", "top_keys", "top_weights"], 8),
}


def make_qkv(token_count: int) -> dict:
    """q, k and v, the same whenever they are asked for."""
    import torch

    stream = torch.Generator().manual_seed(token_count)
    return {name: torch.randn(token_count, 64, generator=stream) for name in "qkv"}


def attn_run(token_count: int, choices: dict, keep: list[str], top: int | None) -> Callable[[], object]:
    """Ours."""
    import attncli

    problem, variant = attncli.Problem(**make_qkv(token_count)), attncli.Variant(**choices)
    return lambda: attncli.attend(problem, variant, keep, top=top)


def sdpa_run(token_count: int, causal: bool = False) -> Callable[[], object]:
    """PyTorch's kernel."""
    from torch.nn.functional import scaled_dot_product_attention

    q, k, v = (x[None, None] for x in make_qkv(token_count).values())
    return lambda: scaled_dot_product_attention(q, k, v, is_causal=causal)


def naive_run(token_count: int) -> Callable[[], object]:
    """What everyone writes first: dense, all at once."""
    q, k, v = make_qkv(token_count).values()
    return lambda: (q @ k.T / 8).softmax(-1) @ v


def block_loop_run(token_count: int) -> Callable[[], object]:
    """What a user would write for a window: in blocks of queries, each with the keys it needs."""
    import torch

    q, k, v = make_qkv(token_count).values()

    def attend_in_blocks() -> object:
        out = torch.empty_like(q)
        for i in range(0, token_count, 256):
            first = max(0, i - 255)
            s = q[i : i + 256] @ k[first : i + 256].T / 8
            back = torch.arange(i, i + 256)[:, None] - torch.arange(first, i + 256)
            out[i : i + 256] = s.masked_fill((back < 0) | (back > 255), -torch.inf).softmax(-1) @ v[first : i + 256]
        return out

    return attend_in_blocks


def flex_attention_run(token_count: int) -> Callable[[], object]:
    """PyTorch's own programmable attention, compiled: softcap and ALiBi."""
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention)
    q, k, v = (x[None, None] for x in make_qkv(token_count).values())

    def softcap_and_alibi(s, b, h, i, j):
        return 30 * torch.tanh(s / 30) - (i - j).abs() * 2.0**-8

    return lambda: compiled(q, k, v, score_mod=softcap_and_alibi)


PEER_RUNS: dict[str, Callable[[], Callable[[], object]]] = {
    "sdpa": lambda: sdpa_run(16384),
    "sdpa-causal": lambda: sdpa_run(16384, causal=True),
    "naive": lambda: naive_run(16384),
    "by-hand": lambda: block_loop_run(131072),
    "flex": lambda: flex_attention_run(16384),
    "json": lambda: read_json_with_msgspec,
    "csv": lambda: read_csv_with_polars,
}


def read_json_with_msgspec() -> object:
    """As fast as msgspec goes."""
    import msgspec
    import numpy as np

    held = msgspec.defstruct("Held", [("embeddings", list[list[float]])])
    return np.array(
        msgspec.json.decode(Path(os.environ["BENCH_FILES"], "large.json").read_bytes(), type=held).embeddings
    )


def read_csv_with_polars() -> object:
    """As fast as Polars goes."""
    import polars

    return polars.read_csv(Path(os.environ["BENCH_FILES"], "large.csv")).drop("token").to_numpy()


def attn_read(file_name: str) -> Callable[[], object]:
    """Ours."""
    import attncli

    return lambda: attncli.read(Path(os.environ["BENCH_FILES"], file_name))


def find_run(name: str) -> Callable[[], object]:
    """Something to be timed, by its name."""
    if name in PEER_RUNS:
        return PEER_RUNS[name]()
    return attn_read(name) if name.startswith("large") else attn_run(*ATTN_RUNS[name])


def measure_seconds(run: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def run_child() -> None:
    """In a process of its own: `pair OURS THEIRS N` prints seconds, `peak RUN TOKENS` seconds and megabytes,
    `files FOLDER` makes the inputs."""
    what, *rest = sys.argv[2:]
    if what == "files":
        print(json.dumps(make_input_files(Path(rest[0]))))
        return
    if what == "pair":
        ours, theirs = find_run(rest[0]), find_run(rest[1])
        ours(), theirs()
        print(json.dumps([[measure_seconds(ours), measure_seconds(theirs)] for _ in range(int(rest[2]))]))
        return
    _, choices, keep, top = ATTN_RUNS[rest[0]]
    run = attn_run(int(rest[1]), choices, keep, top)
    import attncli.core.attention  # noqa: F401  loading is not the run's

    before = _memory_in_use_mb()
    seconds = measure_seconds(run)
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before]))


def _memory_in_use_mb() -> float:
    """Megabytes of memory in use."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ask_child(*arguments: object) -> Any:
    """What a process of its own measures."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS_FOLDER), "--child", *map(str, arguments)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it failed")
    return json.loads(done.stdout.splitlines()[-1])


IN_PROCESS_ROWS = [
    ("context, T = 16 384, float32", "context", "SDPA", "sdpa", 1.10),
    ("the same", "context", "a naive dense script", "naive", None),
    ("the same with softcap and ALiBi", "softcap", "SDPA without them", "sdpa", 4),
    ("the same", "softcap", "flex_attention, compiled", "flex", None),
    ("context, log-sum-exp, 8 largest weights", "statistics", "SDPA", "sdpa", 2.5),
    ("causal window of 256, T = 131 072", "window", "SDPA at T = 16 384, full", "sdpa", 1.0),
    ("the same", "window", "blocks written by hand", "by-hand", None),
    ("causal, context and 8 largest weights", "causal", "SDPA, is_causal", "sdpa-causal", 3),
    ("reading 80 MB of JSON", "large.json", "msgspec into a float array", "json", 1.25),
    ("reading 80 MB of CSV", "large.csv", "polars into a float array", "csv", 1.25),
]


# ── whole processes ──────────────────────────────────────────────────────────────────────────────
START_UP_ROWS = [
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
LONG_RUN_ROWS = [  # name, words, (input and output in MB, more that it may take), seconds that it may take
    (
        "causal window of 256, T = 1 000 000, from and to safetensors",
        ["compute", "{million}", "--window", "255,0", "--only", "context", "-o", "{out}", "--force"],
        (1000 + 250, 512),
        60,
    ),
    (
        "causal, T = 16 384, top 8 and context, from and to safetensors",
        [
            "compute",
            "{long}",
            "--causal",
            "--top",
            "8",
            "--only",
            "top_keys,top_weights,context",
            "-o",
            "{out}",
            "--force",
        ],
        (0, 1024),
        60,
    ),
]


def run_process(command: list[str], expected_status: int = 0) -> tuple[float, float]:
    """(wall time, peak megabytes) of one process, which must end as it should."""
    start = time.perf_counter()
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, code, usage = os.wait4(running.pid, 0)
    taken = time.perf_counter() - start
    running.returncode = os.waitstatus_to_exitcode(code)
    assert running.returncode == expected_status, (command, running.returncode)
    return taken, usage.ru_maxrss / 1024


def make_input_files(folder: Path) -> dict[str, str]:
    """The inputs, made anew."""
    import numpy as np
    from safetensors.numpy import save_file

    (folder / "good.csv").write_text("token,d0,d1,d2,d3\nthe,1,0,1,0\ncat,0,1,1,2\nsat,2,1,0,1\n")
    (folder / "ragged.csv").write_text("token,d0,d1\nthe,1,0\ncat,0\n")
    (folder / "wrong.json").write_text('{"embeddings": [[1, 2], [3]]}')
    stream = np.random.default_rng(0)
    for name, tokens in (("million", 1_000_000), ("long", 16_384)):
        held = {letter: stream.standard_normal((tokens, 64), dtype=np.float32) for letter in "qkv"}
        save_file(held, folder / f"{name}.safetensors")
    rows = stream.standard_normal((32_768, 128)).tolist()
    (folder / "large.json").write_text(json.dumps({"embeddings": rows}))
    with (folder / "large.csv").open("w") as file:
        file.write("token," + ",".join(f"d{i}" for i in range(128)) + "\n")
        file.writelines(f"t{i}," + ",".join(map(repr, row)) + "\n" for i, row in enumerate(rows))
    places = {path.stem: str(path) for path in folder.iterdir() if path.stem != "large"}
    return places | {"out": str(folder / "out.safetensors")}


def print_ratio_row(label: str, peer: str, pairs: list, max_ratio: float | None) -> None:
    """One row."""
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    limit = "" if max_ratio is None else f"{max_ratio:.2f}"
    held = "" if max_ratio is None else "yes" if ratio <= max_ratio else "**no**"
    print(f"| {label} | {ours:.2f} s | {peer}: {theirs:.2f} s | {ratio:.2f} | {limit} | {held} |", flush=True)


def main(row_words: list[str], pair_count: int) -> None:
    """Measure every row that was chosen, and print the tables."""
    attn = shutil.which("attn", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    program = [attn] if attn and "PYTHONPATH" not in os.environ else [sys.executable, "-m", "attncli"]
    torch = [sys.executable, "-c", "import torch"]

    def is_chosen(*texts: str) -> bool:
        return not row_words or any(word.lower() in " ".join(texts).lower() for word in row_words)

    with tempfile.TemporaryDirectory() as name:
        places = ask_child("files", name)  # in a process of its own: a child begins with its parent's peak
        os.environ["BENCH_FILES"] = name
        run_process(torch)
        _, base = run_process(torch)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        print(
            f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, Python "
            f"{platform.python_version()}, torch {package_version('torch')}; medians of {pair_count} interleaved pairs\n"
        )
        print("| what | attn | against | ratio | at most | holds |\n|---|---:|---|---:|---:|---|")
        for label, command, status, most in START_UP_ROWS:
            if is_chosen(label, "starting"):
                full = [*program, *(word.format(**places) for word in command)]
                run_process(full, status)
                print_ratio_row(
                    label,
                    "`import torch`",
                    [(run_process(full, status)[0], run_process(torch)[0]) for _ in range(pair_count)],
                    most,
                )
        for label, ours, peer, theirs, most in IN_PROCESS_ROWS:
            if is_chosen(label, peer, ours):
                try:
                    print_ratio_row(label, peer, ask_child("pair", ours, theirs, pair_count), most)
                except RuntimeError as error:
                    print(f"| {label} | | {peer} does not run here: {str(error)[:60]} | | | |", flush=True)

        print("\n| long run | time | peak above the inputs | at most | holds |\n|---|---:|---:|---:|---|")
        for label, run, most in (
            ("context, log-sum-exp, 8 largest weights", "statistics", 512),
            ("causal window of 256", "window", 1024),
        ):
            if is_chosen(label, "memory"):
                seconds, peak = ask_child("peak", run, ATTN_RUNS[run][0])
                print(
                    f"| {label}, T = {ATTN_RUNS[run][0]:,} | {seconds:.2f} s | {peak:.0f} MB | {most} MB | {yes_or_no(peak, most)} |",
                    flush=True,
                )
        for label, command, (files_mb, more), most in LONG_RUN_ROWS:
            if is_chosen(label, "memory"):
                seconds, peak = run_process([*program, *(word.format(**places) for word in command)])
                above = peak - base - (_total_megabytes(places["million"], places["out"]) if files_mb else 0)
                good = "yes" if above <= more and seconds <= most else "**no**"
                told = "above import torch" + ", input and output" * bool(files_mb)
                print(
                    f"| {label} | {seconds:.1f} s (≤ {most}) | {above:.0f} MB {told} | {more} MB | {good} |", flush=True
                )

        if is_chosen("growth"):
            print("\n| T | full | causal | window of 256 |\n|---:|---:|---:|---:|")
            RUNS_OF = {"full": "statistics", "causal": "causal", "window": "window"}
            for tokens in (4096, 8192, 16384, 32768, 65536):
                cells = (ask_child("peak", run, tokens) for run in RUNS_OF.values())
                print(f"| {tokens:,} | " + " | ".join(f"{s:.2f} s, {mb:.0f} MB" for s, mb in cells) + " |", flush=True)


def yes_or_no(value: float, limit: float) -> str:
    """Whether it holds."""
    return "yes" if value <= limit else "**no**"


def _total_megabytes(*paths: str) -> float:
    return sum(Path(path).stat().st_size for path in paths) / 2**20


def package_version(package: str) -> str:
    """Of a package."""
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child()
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("words", nargs="*", help="rows that have one of these words")
        parser.add_argument("--pairs", type=int, default=7)
        parser.add_argument("--quick", action="store_true", help="three pairs a row")
        said = parser.parse_args()
        main(said.words, 3 if said.quick else said.pairs)
