"""What one small call from Python costs beyond the algebra, in milliseconds of processor time, warm: `measure_calls`.

The peer computes the same steps of the same numbers with torch, and nothing else. Pairs of blocks of calls are interleaved.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

CALLS_PER_BLOCK = 50
# label → calls of ours and of the peer, and the milliseconds that ours may take beyond it
Row = tuple[str, Callable[[], object], Callable[[], object], float]


def rows() -> list[Row]:
    """Make the calls that are measured: 16 tokens of 8 dimensions."""
    import torch

    import attncli

    x = np.random.default_rng(0).normal(size=(16, 8))
    tokens = [f"token {i}" for i in range(16)]
    earlier = torch.ones(16, 16, dtype=torch.bool).tril()
    weights = {"weights": attncli.attend(x, only="weights")["weights"].values}

    def every_step() -> list[np.ndarray]:
        q = torch.from_numpy(x)
        scores = q @ q.T
        scaled = scores * 8**-0.5
        largest, total = scaled.amax(-1), scaled.logsumexp(-1)
        w = torch.softmax(scaled, -1)
        entropy = -torch.special.xlogy(w, w).sum(-1) / 0.6931471805599453
        visible = torch.full((16,), 16)
        return [
            step.numpy()
            for step in (q.clone(), q.clone(), q.clone(), scores, scaled, largest, total, entropy, visible, w, w @ q)
        ]

    def every_masked_step() -> list[np.ndarray]:
        q = torch.from_numpy(x)
        scores = q @ q.T
        scaled = scores * 8**-0.5
        masked = scaled.where(earlier, -torch.inf)
        largest, total = masked.amax(-1), masked.logsumexp(-1)
        w = torch.softmax(masked, -1)
        entropy = -torch.special.xlogy(w, w).sum(-1) / 0.6931471805599453
        visible = earlier.sum(-1)
        steps = (q.clone(), q.clone(), q.clone(), scores, scaled, earlier.clone(), masked)
        return [step.numpy() for step in (*steps, largest, total, entropy, visible, w, w @ q)]

    def two_steps() -> list[np.ndarray]:
        q = torch.from_numpy(x)
        w = torch.softmax((q @ q.T * 8**-0.5).where(earlier, -torch.inf), -1)
        return [w.numpy(), (w @ q).numpy()]

    return [
        ("attend(x), every step", lambda: attncli.attend(x), every_step, 0.5),
        ("attend(x, mask='causal')", lambda: attncli.attend(x, mask="causal"), every_masked_step, 0.5),
        (
            "attend(x, mask='causal', heads=2, tokens=[…])",
            lambda: attncli.attend(x, mask="causal", heads=2, tokens=tokens),
            every_masked_step,
            0.5,
        ),
        (
            "attend(x, mask='causal', only=['weights', 'context'])",
            lambda: attncli.attend(x, mask="causal", only=["weights", "context"]),
            two_steps,
            0.5,
        ),
        ("check(x, {'weights': w}), right", lambda: attncli.check(x, weights), two_steps, 50.0),
    ]


def measure_calls(pair_count: int) -> list[tuple[str, float, float, float]]:
    """Return for each row its label, the median milliseconds of ours and of the peer, and what ours may take beyond it."""
    measured = []
    for label, ours, theirs, limit in rows():
        count = CALLS_PER_BLOCK if limit < 1 else 3
        for _ in range(count):
            ours(), theirs()
        pairs = [(_milliseconds(ours, count), _milliseconds(theirs, count)) for _ in range(3 * pair_count)]
        mine, peer = (statistics.median(column) for column in zip(*pairs, strict=True))
        measured.append((label, mine, peer, limit))
    return measured


def _milliseconds(call: Callable[[], object], count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - start) / count * 1e3
