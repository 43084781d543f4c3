"""Measure what this machine takes for what runs are made of. Entry: `measure_calibration`."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from attncli.core.attention import run_plan
from attncli.plan import make_plan
from attncli.plan.estimate import Calibration
from attncli.types import Problem

_PRODUCT_SIZE = 512  # rows and columns
_KERNEL_TOKENS, _KERNEL_WIDTH = 1024, 64
_SCORE_ROWS = 1024  # of a tile, and its keys
_NUMBER_COUNT = 10_000
_MIN_RUNS, _SECONDS_OF_RUNS = 15, 0.03  # of each thing that is measured


def measure_calibration(load_seconds: float) -> Calibration:
    """Measure for about a fifth of a second; `load_seconds` is what loading torch took."""
    import msgspec

    stream = torch.Generator().manual_seed(0)
    square = torch.randn(_PRODUCT_SIZE, _PRODUCT_SIZE, generator=stream)
    q = torch.randn(1, 1, _KERNEL_TOKENS, _KERNEL_WIDTH, generator=stream)
    scores = torch.randn(_SCORE_ROWS, _SCORE_ROWS, generator=stream)
    out = torch.empty_like(scores)
    numbers = torch.randn(_NUMBER_COUNT, generator=stream, dtype=torch.float64)
    text = msgspec.json.encode(numbers.tolist())
    plan = make_plan(Problem(embeddings=[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    with torch.no_grad():
        return Calibration(
            load=load_seconds,
            problem=_best_seconds(lambda: run_plan(plan)),
            product=_best_seconds(lambda: square @ square) / _PRODUCT_SIZE**3,
            kernel=_best_seconds(lambda: F.scaled_dot_product_attention(q, q, q))
            / (2 * _KERNEL_TOKENS**2 * _KERNEL_WIDTH),
            score=_best_seconds(lambda: torch.exp(scores, out=out)) / _SCORE_ROWS**2,
            number=_best_seconds(lambda: msgspec.json.encode(numbers.numpy().tolist())) / _NUMBER_COUNT,
            byte=_best_seconds(lambda: msgspec.json.decode(text, type=list[float])) / len(text),
        )


def _best_seconds(run: Callable[[], object]) -> float:
    """Return the least seconds of some runs: what disturbs them only adds."""
    run()
    seconds: list[float] = []
    while len(seconds) < _MIN_RUNS or sum(seconds) < _SECONDS_OF_RUNS:
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
