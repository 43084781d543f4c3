"""Fixtures of every test: the program in this process, and what is shared or put back."""

from __future__ import annotations

import io
import os
import sys

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers import Run

# Arrays as small as a test's cost more to share between threads than to compute, here and in every child process.
os.environ["OMP_NUM_THREADS"] = "1"

settings.register_profile("attn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("attn")


def pytest_xdist_auto_num_workers(config):
    """Files that are named run in this process: two workers take longer to import than a file takes to run."""
    return 0 if any(".py" in word for word in config.args) else None


@pytest.fixture
def own_stream():
    """Oracles seed PyTorch's global stream; no other test shall notice."""
    import torch

    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture(scope="module")
def small_stretches():
    """Keys that nobody reaches are left out even where that does not pay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attncli.core.tiles._MIN_SKIPPED_KEYS", 1)
        patch.setattr("attncli.core.tiles._MIN_TILE_SCORES", 1)
        yield


@pytest.fixture(scope="session")
def warm(tmp_path_factory):
    """Run command lines in forks of a process that has everything loaded: warm.run("batch", "in", "-o", "out")."""
    from tests.warm import WarmProgram

    with WarmProgram(tmp_path_factory.mktemp("warm")) as program:
        yield program


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
