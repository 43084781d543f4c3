"""What a check of large figures costs beside computing them in float64, and until it names a cause, in processor time and memory.

`measure_case` runs both in one process, interleaved: `attncli.check(…, identify=False)`, and `attncli.attend` of the same step
in float64; of gradients, PyTorch's own in float64. `measure_search` times a check with its search, `measure_pytest_file` a file of
300 cases.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

MAX_RATIO = 3  # of a verdict to the computation
MAX_MEGABYTES = 1024  # beside twice the inputs
CASES = {  # label → heads, kv heads, tokens, dtype, whether the figures are wrong
    "B1 H8 T1024, float32, right": (8, 8, 1024, "float32", False),
    "B1 H32 (8 kv) T2048, float32, right": (32, 8, 2048, "float32", False),
    "the same, wrong in one head": (32, 8, 2048, "float32", True),
    "the same, bfloat16, right": (32, 8, 2048, "bfloat16", False),
}
GRADIENTS = "B1 H8 T1024, float32, dq, dk and dv, right"
SEARCHES = {  # label → the case that it is of, the most seconds until the verdict and until the cause, words of the cause
    "B1 H32 (8 kv) T2048, float32, a block of 128 keys left out": (32, 20, 60, "without keys 128 to 255"),
    "B1 H8 T1024, float32, a block of 128 keys left out": (8, 20, 60, "without keys 128 to 255"),
    "B1 H8 T1024, float32, dk without the scale": (0, 20, 60, "without the scale"),
}
MAX_PYTEST_SECONDS = 15  # of 300 cases beyond the imports
_PYTEST_FILE = """
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import attncli
import attncli.check.verdicts


@pytest.mark.parametrize("case", range({count}))
def test_kernel(case):
    generator = torch.Generator().manual_seed(case)
    tokens, heads = 3 + case % 40, 1 + case % 4
    q, k, v = torch.randn(3, 2, heads, tokens, 8, generator=generator)
    context = scaled_dot_product_attention(q, k, v, is_causal=True)
    problem = attncli.Problem(q=q, k=k, v=v)
    attncli.check(problem, {{"head_context": context}}, mask="causal", layout="bhtd").assert_right()
"""
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

    return label, *_measure_pair(check, compute, inputs, pair_count)


def _measure_pair(
    check: Callable[[], object], compute: Callable[[], object], inputs: float, pair_count: int
) -> tuple[float, float, float]:
    """Return the median seconds of a check and of a computation, and the check's megabytes beyond twice its inputs."""
    before = _peak_megabytes()
    check()
    megabytes = _peak_megabytes() - before - 2 * inputs
    compute()
    pairs = [(_seconds(check), _seconds(compute)) for _ in range(pair_count)]
    checking, computing = (statistics.median(column) for column in zip(*pairs, strict=True))
    return checking, computing, megabytes


def measure_gradients(pair_count: int) -> Row:
    """Measure a check of gradients beside PyTorch's own in float64; as `measure_case`."""
    import torch

    import attncli
    import attncli.check.verdicts
    import attncli.core.gradient_steps

    problem, claims = _make_gradients()
    inputs = sum(x.nbytes for x in claims.values()) * 7 / 4 / 2**20  # q, k and v are as large as dq, dk and dv
    doubles = [x.double().requires_grad_() for x in (problem.q, problem.k, problem.v)]

    def check() -> None:
        assert attncli.check(problem, claims, mask="causal", layout="bhtd", identify=False).right

    def compute() -> None:
        out = torch.nn.functional.scaled_dot_product_attention(*doubles, is_causal=True)
        torch.autograd.grad(out, doubles, claims["dout"].double())

    return GRADIENTS, *_measure_pair(check, compute, inputs, pair_count)


def _make_gradients():
    """Return a problem of B1 H8 T1024, and dout, dq, dk and dv of a causal mask."""
    import torch

    import attncli

    stream = torch.Generator().manual_seed(0)
    q, k, v, dout = torch.randn(4, 1, 8, 1024, WIDTH, generator=stream)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=True)
    names = ("dout", "dq", "dk", "dv")
    gradients = dict(zip(names, (dout, *torch.autograd.grad(out, leaves, dout)), strict=True))
    return attncli.Problem(q=q, k=k, v=v), gradients


def measure_search(label: str) -> tuple[float, float, str]:
    """Return the seconds of a verdict without a search and with it, and the first cause."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    import attncli
    import attncli.check.verdicts
    import attncli.core.attention

    heads = SEARCHES[label][0]
    if heads:
        tokens, kv_heads = (2048, 8) if heads == 32 else (1024, heads)
        stream = torch.Generator().manual_seed(0)
        q, k, v = (torch.randn(1, h, tokens, WIDTH, generator=stream) for h in (heads, kv_heads, kv_heads))
        seen = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        seen[:, 128:256] = False
        context = scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
        problem, claims = attncli.Problem(q=q, k=k, v=v), {"head_context": context}
    else:
        problem, claims = _make_gradients()
        claims["dk"] = claims["dk"] * WIDTH**0.5
        kv_heads = None
    reports = []

    def check(*, identify: bool | None) -> float:
        choices = {"kv_heads": kv_heads} if kv_heads else {}
        start = time.process_time()
        reports.append(attncli.check(problem, claims, mask="causal", layout="bhtd", identify=identify, **choices))
        return time.process_time() - start

    seconds = check(identify=False), check(identify=None)
    return (*seconds, next(iter(reports[-1].causes), ""))


def measure_pytest_file(count: int = 300) -> float:
    """Return the seconds, of all processors, that a file of so many cases takes beyond one of no case."""
    with tempfile.TemporaryDirectory() as folder:
        path, seconds = Path(folder, "test_kernel.py"), []
        for cases in (1, count + 1):  # the first case loads what is imported late
            path.write_text(_PYTEST_FILE.format(count=cases))
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", str(path)]
            subprocess.run(words, check=True, capture_output=True, cwd=folder)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return seconds[1] - seconds[0]


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
