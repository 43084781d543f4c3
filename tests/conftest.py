"""One way to run the program in a test, and one rule for when a figure agrees."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "sample_inputs"
GOLDEN = Path(__file__).parent / "golden"

settings.register_profile("attn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("attn")


@pytest.fixture(scope="module")
def one_thread():
    """Arrays as small as a test's cost more to share between threads than to compute."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def own_stream():
    """Oracles seed PyTorch's global stream; no other test shall notice."""
    import torch

    with torch.random.fork_rng(devices=[]):
        yield


def compute(fields, *, top=None, **choices):
    """Attention of a problem by its fields and a variant by its choices."""
    import attncli

    return attncli.attend(attncli.Problem(**fields), attncli.Variant(**choices), top=top)


@dataclass(frozen=True)
class Run:
    """What one command line did."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def attn(monkeypatch, capfd, tmp_path):
    """Run a command line in this process, from a folder of its own: attn("compute", "x.csv", stdin=b"…") → Run."""
    from attncli.cli import main

    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: object, stdin: bytes = b"") -> Run:
        capfd.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = main([str(w) for w in words])
        captured = capfd.readouterr()
        return Run(status, captured.out, captured.err)

    return run


def process(*words: object, stdin: bytes | None = None, env: dict[str, str] | None = None, cwd: Path | None = None):
    """Run the program as a process of its own; bytes in and out."""
    import os

    return subprocess.run(
        [sys.executable, "-m", "attncli", *map(str, words)],
        input=stdin,
        capture_output=True,
        timeout=60,
        cwd=cwd or ROOT,
        env={**os.environ, **(env or {})},
        check=False,
    )


def agrees(figure, have) -> bool:
    """Whether computed values are the published figure, by the figure's own rule."""
    want, have = np.asarray(figure["values"]), np.asarray(have)
    if "rows" in figure:
        have = have[..., list(figure["rows"]), :]
    if "columns" in figure:
        have = have[..., list(figure["columns"])]
    if want.shape != have.shape:
        return False
    if want.dtype == bool:
        return np.array_equal(want, have)
    if "decimals" in figure:
        rtol, atol = 0.0, 0.5 * 10.0 ** -figure["decimals"] * (1 + 1e-9)  # a printed tie agrees too
    else:
        rtol, atol = figure.get("rtol", 0.0), figure.get("atol", 0.0)
    strange = ~np.isfinite(want)
    same = np.array_equal(want[strange], have[strange], equal_nan=True)
    want, have = want[~strange], have[~strange]
    return same and bool((np.abs(want - have) <= atol + rtol * np.abs(want)).all())
