"""What attn costs, as ratios to peers measured beside it: `python benchmarks [WORD…]`; words choose among rows.

    python benchmarks            every row
    python benchmarks --quick    fewer pairs
    python benchmarks window     the rows that have the word in them

A row is the median of interleaved pairs (ours, the peer's, ours, …) on the same tensors and files, because machines are
shared and seconds drift: the ratio of each pair is what is compared. In-process rows run in a process of their own, and
peak memory is measured in one too (`ru_maxrss`, above what `import torch` takes and, where the row says so, above the
inputs).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.calls import measure_calls
from benchmarks.check import (
    CASES,
    GRADIENTS,
    MAX_MEGABYTES,
    MAX_PYTEST_SECONDS,
    MAX_RATIO,
    SEARCHES,
    make_reports,
    measure_case,
    measure_gradients,
    measure_pytest_file,
    measure_search,
)
from benchmarks.formats import (
    read_json_with_msgspec,
    read_with_attn,
    read_with_polars,
    write_large_files,
    write_with_attn,
    write_with_polars,
)
from benchmarks.pictures import draw_with_attn, draw_with_imshow

BENCHMARKS_FOLDER = Path(__file__).parent
IMPORT_TORCH = [sys.executable, "-c", "import torch"]  # what start-up is measured against

# ── in one process ───────────────────────────────────────────────────────────────────────────────
WINDOW_CHOICES = {"mask": "window:left=255,right=0"}
ATTN_RUNS = {  # name → (tokens, choices, steps, top)
    "context": (16384, {}, ["context"], None),
    "softcap": (16384, {"softcap": 30, "position": "alibi"}, ["context"], None),
    "statistics": (16384, {}, ["context", "log_sum_exp", "top_keys", "top_weights"], 8),
    "statistics-65536": (65536, {}, ["context", "log_sum_exp", "top_keys", "top_weights"], 8),
    "window": (131072, WINDOW_CHOICES, ["context"], None),
    "window-million": (2**20, WINDOW_CHOICES, ["context"], None),
    "causal": (16384, {"mask": "causal"}, ["context", "top_keys", "top_weights"], 8),
    "causal-context": (16384, {"mask": "causal"}, ["context"], None),
    "lse": (16384, {}, ["context", "log_sum_exp"], None),
    "causal-lse": (16384, {"mask": "causal"}, ["context", "log_sum_exp"], None),
    "sinks": (16384, {"sink": "zero"}, ["context"], None),
    "gemma2": (16384, {"mask": "window:left=4095,right=0", "softcap": 50}, ["context"], None),
}


def make_qkv(token_count: int) -> dict:
    """Draw q, k and v, of 64 dimensions each; the same at every call."""
    import torch

    stream = torch.Generator().manual_seed(token_count)
    return {name: torch.randn(token_count, 64, generator=stream) for name in "qkv"}


def attn_run(token_count: int, choices: dict, keep: list[str], top: int | None) -> Callable[[], object]:
    """A run of attn."""
    import attncli

    problem, variant = attncli.Problem(**make_qkv(token_count)), attncli.Variant(**choices)
    return lambda: attncli.attend(problem, variant, keep, top=top)


def sdpa_run(token_count: int, causal: bool = False) -> Callable[[], object]:
    """A run of PyTorch's kernel."""
    from torch.nn.functional import scaled_dot_product_attention

    q, k, v = (x[None, None] for x in make_qkv(token_count).values())
    return lambda: scaled_dot_product_attention(q, k, v, is_causal=causal)


def naive_run(token_count: int) -> Callable[[], object]:
    """What everyone writes first: dense attention, all at once."""
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
    "sdpa-65536": lambda: sdpa_run(65536),
    "sdpa-causal": lambda: sdpa_run(16384, causal=True),
    "window-131072": lambda: attn_run(*ATTN_RUNS["window"]),
    "naive": lambda: naive_run(16384),
    "by-hand": lambda: block_loop_run(131072),
    "flex": lambda: flex_attention_run(16384),
    "msgspec": lambda: read_json_with_msgspec,
    "imshow": draw_with_imshow,
}


def write_heads(format_name: str) -> Callable[[], object]:
    """Writing by attn, as to a pipe: 100 tokens of 768 dims in 12 heads, with the steps that are shown."""
    import numpy as np

    import attncli
    from attncli.output_formats import RenderOptions, load_output_format

    problem = attncli.Problem(embeddings=np.random.default_rng(0).normal(size=(100, 768)))
    attention = attncli.attend(problem, attncli.Variant(heads=12), "shown")
    format = load_output_format(format_name)

    def write() -> int:
        content = format.write(attention, RenderOptions())
        return sum(map(len, [content] if isinstance(content, str) else content))

    return write


def find_run(name: str) -> Callable[[], object]:
    """The run of a name: a peer's, one of `ATTN_RUNS`, or `read .csv`, `heads table` and the like of a format, by
    `polars` or by attn.
    """
    if name in PEER_RUNS:
        return PEER_RUNS[name]()
    program, _, rest = name.rpartition(":")
    task, _, format_name = rest.partition(" ")
    if task == "pictures":
        return draw_with_attn()
    if task == "heads":
        return write_heads(format_name)
    if task == "read":
        return (read_with_polars if program else read_with_attn)(format_name)
    if task == "write":
        return (write_with_polars if program else write_with_attn)(format_name)
    return attn_run(*ATTN_RUNS[name])


def measure_seconds(run: Callable[[], object]) -> float:
    """Run, and return the seconds that it took."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def run_child() -> None:
    """Measure in this process, which is one of its own, and print JSON.

    `pair RUN PEER_RUN N` prints pairs of seconds, `calls N` and `reports` milliseconds, `check CASE N` and `search CASE` a case of `benchmarks.check`, `pytest` seconds, `peak RUN TOKENS` seconds and megabytes, `files FOLDER` makes the inputs
    and prints their paths.
    """
    task, *arguments = sys.argv[2:]
    if task == "files":
        print(json.dumps(make_input_files(Path(arguments[0]))))
        return
    if task == "calls":
        print(json.dumps(measure_calls(int(arguments[0]))))
        return
    if task == "check":
        label, pair_count = arguments[0], int(arguments[1])
        print(json.dumps(measure_gradients(pair_count) if label == GRADIENTS else measure_case(label, pair_count)))
        return
    if task == "search":
        print(json.dumps(measure_search(arguments[0])))
        return
    if task == "pytest":
        print(json.dumps(measure_pytest_file()))
        return
    if task == "reports":
        make_reports(5)
        print(json.dumps(make_reports(300)))
        return
    if task == "pair":
        ours, theirs = find_run(arguments[0]), find_run(arguments[1])
        ours(), theirs()
        print(json.dumps([[measure_seconds(ours), measure_seconds(theirs)] for _ in range(int(arguments[2]))]))
        return
    _, choices, keep, top = ATTN_RUNS[arguments[0]]
    run = attn_run(int(arguments[1]), choices, keep, top)
    import attncli.core.attention  # noqa: F401  loading it is no part of the run

    before = _memory_in_use_mb()
    seconds = measure_seconds(run)
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before]))


def _memory_in_use_mb() -> float:
    """Megabytes of memory in use; its peak where the system does not tell."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ask_child(*arguments: object) -> Any:
    """Start a process of its own for `run_child`, and return what it prints.

    Raises:
        RuntimeError: it failed, with the last line that it wrote.
    """
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS_FOLDER), "--child", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it failed")
    return json.loads(done.stdout.splitlines()[-1])


@dataclass(frozen=True)
class RunPair:
    """A row of the table of ratios, measured in one process: a run of ours beside one of a peer."""

    label: str
    run: str  # a name of `find_run`
    peer: str
    peer_run: str
    max_ratio: float | None  # what the ratio may be at most; None: it is only shown


IN_PROCESS_ROWS = (
    RunPair("context, T = 16 384, float32", "context", "SDPA", "sdpa", 1.05),
    RunPair("the same, causal", "causal-context", "SDPA, is_causal", "sdpa-causal", 1.05),
    RunPair("context and log-sum-exp", "lse", "SDPA", "sdpa", 1.05),
    RunPair("the same, causal", "causal-lse", "SDPA, is_causal", "sdpa-causal", 1.05),
    RunPair("the same", "context", "a naive dense script", "naive", None),
    RunPair("the same with softcap and ALiBi", "softcap", "SDPA without them", "sdpa", 3),
    RunPair("the same with a sink", "sinks", "SDPA without it", "sdpa", 2),
    RunPair("causal window of 4096 and softcap (Gemma 2)", "gemma2", "SDPA, is_causal", "sdpa-causal", 2),
    RunPair("the same", "softcap", "flex_attention, compiled", "flex", None),
    RunPair("context, log-sum-exp, 8 largest weights", "statistics", "SDPA", "sdpa", 2.5),
    RunPair("causal window of 256, T = 131 072", "window", "SDPA at T = 16 384, full", "sdpa", 0.5),
    RunPair("the same, T = 1 048 576", "window-million", "T = 131 072", "window-131072", 8),
    RunPair("the same", "window", "blocks written by hand", "by-hand", None),
    RunPair("context, log-sum-exp, 8 largest weights, T = 65 536", "statistics-65536", "SDPA", "sdpa-65536", 2.2),
    RunPair("causal, context and 8 largest weights", "causal", "SDPA, is_causal", "sdpa-causal", 2.5),
    RunPair("reading 80 MB of JSON", "read .json", "msgspec into a float array", "msgspec", 1.25),
    *(
        RunPair(
            f"reading {what}", f"read {suffix}", "polars into tokens and a float array", f"polars:read {suffix}", 1.25
        )
        for what, suffix in (
            ("80 MB of CSV", ".csv"),
            ("the same, .gz", ".csv.gz"),
            ("the same, .zst", ".csv.zst"),
            ("the same numbers in Parquet", ".parquet"),
            ("the same in Feather", ".feather"),
        )
    ),
    RunPair(
        "writing a million weights, Parquet", "write parquet", "polars, the same rows", "polars:write parquet", 1.25
    ),
    RunPair(
        "writing a million weights, Feather", "write feather", "polars, the same rows", "polars:write feather", 1.25
    ),
    RunPair("1024 × 1024 weights as PNG", "pictures png", "a bare imshow", "imshow", 1.5),
    RunPair("100 tokens in 12 heads as tables in a pipe", "heads table", "the same as JSON", "heads json", 2),
    RunPair("the same as Markdown", "heads markdown", "the same as JSON", "heads json", 2),
    RunPair("the same as plain text", "heads plain", "the same as JSON", "heads json", 2),
    RunPair("the same as CSV", "heads csv", "the same as JSON", "heads json", 2),
)


# ── whole processes ──────────────────────────────────────────────────────────────────────────────
START_UP_ROWS = [  # label, arguments, exit status, what the ratio to `import torch` may be at most
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


@dataclass(frozen=True)
class LongRun:
    """A row of the table of long runs, each a process of its own."""

    label: str
    arguments: str
    includes_files: bool  # whether the sizes of input and output are taken off its memory
    max_megabytes: int
    max_seconds: int


LONG_RUN_ROWS = (
    LongRun(
        "causal window of 256, T = 1 000 000, from and to safetensors",
        "compute {million} --window 255,0 --only context -o {out} --force",
        includes_files=True,
        max_megabytes=512,
        max_seconds=60,
    ),
    LongRun(
        "causal, T = 16 384, top 8 and context, from and to safetensors",
        "compute {long} --causal --top 8 --only top_keys,top_weights,context -o {out} --force",
        includes_files=False,
        max_megabytes=1024,
        max_seconds=60,
    ),
)
MEMORY_ROWS = (  # label, a run of `ATTN_RUNS`, megabytes that it may take at most
    ("context, log-sum-exp, 8 largest weights", "statistics", 512),
    ("causal window of 256", "window", 1024),
)
GROWTH_RUNS = ("statistics", "causal", "window")  # the columns of the table of growth


def run_process(command: list[str], expected_status: int = 0) -> tuple[float, float]:
    """(seconds, peak megabytes) of one process, which must end with the status that is expected."""
    start = time.perf_counter()
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, code, usage = os.wait4(running.pid, 0)
    seconds = time.perf_counter() - start
    running.returncode = os.waitstatus_to_exitcode(code)
    assert running.returncode == expected_status, (command, running.returncode)
    return seconds, usage.ru_maxrss / 1024


def make_input_files(folder: Path) -> dict[str, str]:
    """Write the inputs, and return their paths by name, with that of an output."""
    import numpy as np
    from safetensors.numpy import save_file

    (folder / "good.csv").write_text("token,d0,d1,d2,d3\nthe,1,0,1,0\ncat,0,1,1,2\nsat,2,1,0,1\n")
    (folder / "ragged.csv").write_text("token,d0,d1\nthe,1,0\ncat,0\n")
    (folder / "wrong.json").write_text('{"embeddings": [[1, 2], [3]]}')
    stream = np.random.default_rng(0)
    for name, tokens in (("million", 1_000_000), ("long", 16_384)):
        arrays = {letter: stream.standard_normal((tokens, 64), dtype=np.float32) for letter in "qkv"}
        save_file(arrays, folder / f"{name}.safetensors")
    write_large_files(folder)
    paths = {path.stem: str(path) for path in folder.iterdir() if not path.name.startswith("large")}
    return paths | {"out": str(folder / "out.safetensors")}


# ── tables ───────────────────────────────────────────────────────────────────────────────────────
class Tables:
    """Measures the rows that were chosen, and prints them as tables of Markdown."""

    def __init__(self, row_words: list[str], pair_count: int, folder: str) -> None:
        self.row_words, self.pair_count = row_words, pair_count
        self.paths = ask_child("files", folder)  # in a process of its own: a child begins with its parent's peak
        attn = shutil.which("attn", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        is_installed = attn and "PYTHONPATH" not in os.environ
        self.program = [attn] if is_installed else [sys.executable, "-m", "attncli"]

    def is_chosen(self, *texts: str) -> bool:
        """Whether a row that has these texts was chosen."""
        return not self.row_words or any(word.lower() in " ".join(texts).lower() for word in self.row_words)

    def command(self, arguments: list[str]) -> list[str]:
        """A command line of attn, with the paths of the inputs filled in."""
        return [*self.program, *(argument.format(**self.paths) for argument in arguments)]

    def print_machine(self) -> None:
        """Print what is measured on, and how often."""
        gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        print(
            f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {gibibytes:.0f} GiB, Python "
            f"{platform.python_version()}, torch {version('torch')}; medians of {self.pair_count} interleaved pairs\n"
        )

    def print_ratios(self) -> None:
        """Print the table of ratios: starting up, and runs in one process."""
        print("| what | attn | against | ratio | at most | holds |\n|---|---:|---|---:|---:|---|")
        for label, arguments, status, max_ratio in START_UP_ROWS:
            if self.is_chosen(label, "starting"):
                command = self.command(arguments)
                run_process(command, status)
                pairs = [
                    (run_process(command, status)[0], run_process(IMPORT_TORCH)[0]) for _ in range(self.pair_count)
                ]
                print_ratio_row(label, "`import torch`", pairs, max_ratio)
        for row in IN_PROCESS_ROWS:
            if self.is_chosen(row.label, row.peer, row.run):
                try:
                    pairs = ask_child("pair", row.run, row.peer_run, self.pair_count)
                except RuntimeError as error:
                    print(f"| {row.label} | | does not run here: {str(error)[:60]} | | | |", flush=True)
                else:
                    print_ratio_row(row.label, row.peer, pairs, row.max_ratio)

    def print_calls(self) -> None:
        """Print what one small call from Python costs beyond the algebra."""
        if not self.is_chosen("calls from Python"):
            return
        print(
            "\n| one call, warm, 16 tokens | attn | the algebra by torch | beyond it, at most | holds |\n|---|---:|---:|---:|---|"
        )
        for label, ours, theirs, limit in ask_child("calls", self.pair_count):
            holds = yes_or_no(ours - theirs <= limit)
            print(f"| `{label}` | {ours:.3f} ms | {theirs:.3f} ms | {limit} ms | {holds} |", flush=True)

    def print_checks(self) -> None:
        """Print what a verdict on large figures costs, without a search, beside the computation in float64."""
        if not self.is_chosen("checks of large figures"):
            return
        print(
            "\n| check, without a search | check | float64 | ratio | at most | peak beyond 2 × inputs | at most | holds |"
            "\n|---|---:|---:|---:|---:|---:|---:|---|"
        )
        for case in (*CASES, GRADIENTS):
            label, checking, computing, megabytes = ask_child("check", case, self.pair_count)
            ratio, max_ratio = checking / computing, MAX_RATIO
            holds = yes_or_no(ratio <= max_ratio and megabytes <= MAX_MEGABYTES)
            cells = f"{checking:.2f} s | {computing:.2f} s | {ratio:.2f} | {max_ratio}"
            print(f"| {label} | {cells} | {megabytes:.0f} MB | {MAX_MEGABYTES} MB | {holds} |", flush=True)
        print(
            "\n| check with its search | verdict and where | at most | with the cause | at most | cause | holds |"
            "\n|---|---:|---:|---:|---:|---|---|"
        )
        for label, (_, max_verdict, max_cause, words) in SEARCHES.items():
            verdict, seconds, cause = ask_child("search", label)
            holds = yes_or_no(verdict <= max_verdict and seconds <= max_cause and words in cause)
            cells = f"{verdict:.1f} s | {max_verdict} s | {seconds:.1f} s | {max_cause} s"
            print(f"| {label} | {cells} | {cause.partition(':')[0]} | {holds} |", flush=True)
        milliseconds = ask_child("reports")
        print(f"\n300 small cases against a kernel in one process: {milliseconds:.1f} ms each, at most 50 ms")
        seconds = ask_child("pytest")
        print(f"a pytest file of 300 cases: {seconds:.1f} s beyond its imports, at most {MAX_PYTEST_SECONDS} s")

    def print_long_runs(self) -> None:
        """Print the table of long runs: time and peak memory."""
        print("\n| long run | time | peak above the inputs | at most | holds |\n|---|---:|---:|---:|---|")
        for label, run, max_megabytes in MEMORY_ROWS:
            if self.is_chosen(label, "memory"):
                token_count = ATTN_RUNS[run][0]
                seconds, peak = ask_child("peak", run, token_count)
                holds = yes_or_no(peak <= max_megabytes)
                print(
                    f"| {label}, T = {token_count:,} | {seconds:.2f} s | {peak:.0f} MB | {max_megabytes} MB | {holds} |",
                    flush=True,
                )
        rows = [row for row in LONG_RUN_ROWS if self.is_chosen(row.label, "memory")]
        if not rows:
            return
        run_process(IMPORT_TORCH)
        _, torch_megabytes = run_process(IMPORT_TORCH)
        for row in rows:
            seconds, peak = run_process(self.command(row.arguments.split()))
            megabytes, above = peak - torch_megabytes, "above import torch"
            if row.includes_files:
                megabytes -= _total_megabytes(self.paths["million"], self.paths["out"])
                above += ", input and output"
            holds = yes_or_no(megabytes <= row.max_megabytes and seconds <= row.max_seconds)
            print(
                f"| {row.label} | {seconds:.1f} s (≤ {row.max_seconds}) | {megabytes:.0f} MB {above} | {row.max_megabytes} MB | {holds} |",
                flush=True,
            )

    def print_growth(self) -> None:
        """Print how time and memory grow with the number of tokens."""
        if not self.is_chosen("growth"):
            return
        print("\n| T | full | causal | window of 256 |\n|---:|---:|---:|---:|")
        token_counts = (4096, 8192, 16384, 32768, 65536)
        seconds_of_runs: list[list[float]] = []  # for each number of tokens
        for token_count in token_counts:
            measured = [ask_child("peak", run, token_count) for run in GROWTH_RUNS]
            seconds_of_runs.append([seconds for seconds, _ in measured])
            cells = [f"{seconds:.2f} s, {megabytes:.0f} MB" for seconds, megabytes in measured]
            print(f"| {token_count:,} | {' | '.join(cells)} |", flush=True)
        exponents = [fit_exponent(token_counts, seconds) for seconds in zip(*seconds_of_runs, strict=True)]
        print(f"| time grows with T to the power | {' | '.join(f'{x:.2f}' for x in exponents)} |", flush=True)


def fit_exponent(token_counts: Sequence[int], seconds: Sequence[float]) -> float:
    """Fit the power of the number of tokens with which time grows, by least squares of the logarithms."""
    return statistics.linear_regression([*map(math.log, token_counts)], [*map(math.log, seconds)]).slope


def print_ratio_row(label: str, peer: str, pairs: list[tuple[float, float]], max_ratio: float | None) -> None:
    """Print one row of the table of ratios, from pairs of seconds: ours and the peer's."""
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    limit = "" if max_ratio is None else f"{max_ratio:.2f}"
    holds = "" if max_ratio is None else yes_or_no(ratio <= max_ratio)
    print(f"| {label} | {ours:.2f} s | {peer}: {theirs:.2f} s | {ratio:.2f} | {limit} | {holds} |", flush=True)


def yes_or_no(holds: bool) -> str:
    """The last cell of a row: whether the limit holds."""
    return "yes" if holds else "**no**"


def _total_megabytes(*paths: str) -> float:
    return sum(Path(path).stat().st_size for path in paths) / 2**20


def main(row_words: list[str], pair_count: int) -> None:
    """Measure every row that was chosen, and print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BENCH_FILES"] = folder
        tables = Tables(row_words, pair_count, folder)
        run_process(IMPORT_TORCH)
        tables.print_machine()
        tables.print_ratios()
        tables.print_calls()
        tables.print_checks()
        tables.print_long_runs()
        tables.print_growth()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child()
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("words", nargs="*", help="rows that have one of these words")
        parser.add_argument("--pairs", type=int, default=7)
        parser.add_argument("--quick", action="store_true", help="three pairs a row")
        arguments = parser.parse_args()
        main(arguments.words, 3 if arguments.quick else arguments.pairs)
