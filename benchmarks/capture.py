"""What a capture costs: beside a script that imports transformers and torch and runs the model with `output_attentions=True`.

    python benchmarks/capture.py [PAIRS] [FOLDER]

FOLDER is a model; else one of random numbers is made, of the size of all-MiniLM-L6-v2. Every ratio is the median of
interleaved pairs, in processor time, as machines are shared: whole processes first, where all layers are written; then the pass alone in one process, reading
and proof of all layers included, with and without the bytes of their files.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.helpers import ROOT

PLAIN_SCRIPT = """
import sys
import torch
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], attn_implementation="eager").eval()
with torch.no_grad():
    output = model(torch.tensor([[int(i) for i in sys.argv[2].split(",")]]), output_attentions=True)
assert len(output.attentions)
"""
TOKEN_COUNTS = (10, 240)
MAX_RATIO = 2.0  # of whole processes
PROCESS_ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def make_model(folder: Path) -> None:
    """Write a BERT of random numbers, of the size of all-MiniLM-L6-v2."""
    from transformers import BertConfig, BertModel

    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    BertModel(config).save_pretrained(folder)


def process_seconds(*arguments: object) -> float:
    """Seconds of the processor that a process of Python takes."""
    null = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
    command = [sys.executable, *map(str, arguments)]
    pid = os.posix_spawn(sys.executable, command, PROCESS_ENVIRONMENT, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    os.close(null)
    assert status == 0, command
    return usage.ru_utime + usage.ru_stime


def measure_processes(model: Path, ids: str, pair_count: int, folder: Path) -> tuple[float, float, float]:
    """Return the median of the ratios of whole processes, and the medians of ours and of the peer's."""
    capture = ["-m", "attncli", "capture", model, "--ids", ids, "-o", folder, "--force"]
    pairs = [(process_seconds(*capture), process_seconds("-c", PLAIN_SCRIPT, model, ids)) for _ in range(pair_count)]
    return _medians(pairs)


def measure_passes(folder: Path, ids: list[int], pair_count: int, *, writes: bool) -> tuple[float, float, float]:
    """The same of the pass alone, with the model loaded."""
    import torch

    from attncli.capture.model import Tokens, load_model
    from attncli.capture.model_folder import find_model
    from attncli.capture.problems import CapturedLayer
    from attncli.capture.request import CaptureRequest
    from attncli.capture.run import CaptureCallbacks, capture_model, make_inputs
    from attncli.writers.problem import write_problem

    torch.set_num_threads(1)
    request = CaptureRequest(ids=tuple(ids))
    model = load_model(find_model(str(folder)), request)
    tokens = Tokens([ids], [[1] * len(ids)], [[str(i) for i in ids]])
    inputs = make_inputs(model, "model", tokens)

    def take(layer: CapturedLayer) -> None:
        if writes:
            write_problem(layer.problem, "safetensors")

    def ours() -> None:
        capture_model(model, "model", request, tokens, CaptureCallbacks(take), inputs)

    def plain() -> None:
        with torch.no_grad():
            model(**inputs, output_attentions=True)

    def seconds(run: Callable[[], None]) -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    ours(), plain()
    return _medians([(seconds(ours), seconds(plain)) for _ in range(5 * pair_count)])


def _medians(pairs: list[tuple[float, float]]) -> tuple[float, float, float]:
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    return ratio, statistics.median(ours for ours, _ in pairs), statistics.median(theirs for _, theirs in pairs)


def main() -> None:
    """Measure, and print a table of Markdown."""
    pair_count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        model = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(folder) / "model"
        if len(sys.argv) <= 2:
            make_model(model)
        print("| what | attn | plain | ratio | at most |\n|---|---:|---:|---:|---:|")
        for count in TOKEN_COUNTS:
            ids = [1000 + 7 * i for i in range(count)]
            joined = ",".join(map(str, ids))
            ratio, ours, plain = measure_processes(model, joined, pair_count, Path(folder) / "layers")
            cells = f"{ours:.2f} s | {plain:.2f} s | {ratio:.2f} | {MAX_RATIO:.0f}"
            print(f"| all layers, {count} tokens, whole processes | {cells} |", flush=True)
            for writes, what in ((False, "the pass alone"), (True, "the same with the bytes of the files")):
                ratio, ours, plain = measure_passes(model, ids, pair_count, writes=writes)
                print(f"| {what} | {1e3 * ours:.0f} ms | {1e3 * plain:.0f} ms | {ratio:.2f} | |", flush=True)


if __name__ == "__main__":
    main()
