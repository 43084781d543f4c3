"""What a check of large figures costs beside computing them in float64, in processor time and memory: `measure_checks`.

Both run in one process, interleaved: `attncli.check(…, identify=False)`, and `attncli.attend` of the same step in float64.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable

import numpy as np

MAX_RATIO = 3  # of a verdict to the computation
MAX_MEGABYTES = 1024  # beside twice the inputs
CASES = {  # label → heads, kv heads, tokens, dtype, whether the figures are wrong
    "B1 H8 T1024, float32, right": (8, 8, 1024, "float32", False),
    "B1 H32 (8 kv) T2048, float32, right": (32, 8, 2048, "float32", False),
    "the same, wrong in one head": (32, 8, 2048, "float32", True),
    "the same, bfloat16, right": (32, 8, 2048, "bfloat16", False),
}
WIDTH = 64
Row = tuple[
    str, float, float, float
]  # label, seconds of a check and of the computation, megabytes beyond twice the inputs


def measure_case(label: str, pair_count: int) -> Row:
    """Measure one case in this process: its peak of memory is that of all cases so far, so each has a process of its own."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    import attncli
    import attncli.check.verdicts
    import attncli.core.attention

    heads, kv_heads, tokens, dtype, is_wrong = CASES[label]
    stream = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, h, tokens, WIDTH, generator=stream) for h in (heads, kv_heads, kv_heads))
    q, k, v = (x.to(getattr(torch, dtype)) for x in (q, k, v))
    context = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    if is_wrong:
        context[:, -1, 128:] *= 0.5
    problem = attncli.Problem(q=q, k=k, v=v)
    inputs = sum(x.nbytes for x in (q, k, v, context)) / 2**20

    def check() -> None:
        report = attncli.check(
            problem, {"head_context": context}, mask="causal", kv_heads=kv_heads, layout="bhtd", identify=False
        )
        assert report.right is not is_wrong

    def compute() -> None:
        attncli.attend(problem, mask="causal", kv_heads=kv_heads, dtype="float64", only="head_context")

    before = _peak_megabytes()
    check()
    megabytes = _peak_megabytes() - before - 2 * inputs
    compute()
    pairs = [(_seconds(check), _seconds(compute)) for _ in range(pair_count)]
    checking, computing = (statistics.median(column) for column in zip(*pairs, strict=True))
    return label, checking, computing, megabytes


def _seconds(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_reports(count: int) -> float:
    """Return the milliseconds that one of so many small cases takes, each a kernel's context of its own shape and mask."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    import attncli

    stream = np.random.default_rng(0)
    start = time.process_time()
    for i in range(count):
        tokens, heads = 3 + i % 40, 1 + i % 4
        q, k, v = torch.from_numpy(stream.normal(size=(3, 2, heads, tokens, 8))).float()
        context = scaled_dot_product_attention(q, k, v, is_causal=True)
        attncli.check(
            attncli.Problem(q=q, k=k, v=v), {"head_context": context}, mask="causal", layout="bhtd"
        ).assert_right()
    return (time.process_time() - start) / count * 1e3
