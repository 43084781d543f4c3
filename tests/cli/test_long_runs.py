"""Long runs: matrices go straight to the file, and a bar tells how far it is."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest

from attncli.plan import memory, schedule
from attncli.readers.results import read_result
from tests.helpers import TIMEOUT, draw_normal


# ── matrices of a long run go straight to the file ───────────────────────────────────────────────
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_matrices_of_a_long_run_are_computed_in_the_file(attn, tmp_path, monkeypatch, dtype):
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    np.save(tmp_path / "x.npy", draw_normal(1, 13, 4))
    words = (
        "compute",
        "x.npy",
        "--heads",
        2,
        "--only",
        "weights,mask,context,scores",
        "--mask",
        "causal and not prefix:length=1",
    )
    whole = attn(*words, "--dtype", dtype, "-o", "whole.safetensors")
    monkeypatch.setattr(schedule, "MAX_DENSE_SCORES", 0)
    monkeypatch.setattr(schedule, "MAX_TILE_SCORES", 40)
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 0)  # it does not matter there, but for the vectors
    monkeypatch.setattr(memory, "MEMORY_CHECK_THRESHOLD_BYTES", 2**20)

    long = attn(*words, "--dtype", dtype, "-o", "long.safetensors")

    assert (whole.status, long.status) == (0, 0)
    assert long.err == whole.err
    one, other = load_file("whole.safetensors"), load_file("long.safetensors")
    assert one.keys() == other.keys()
    for name, x in one.items():
        assert x.dtype == other[name].dtype
        torch.testing.assert_close(other[name], x, rtol=1e-2 if dtype == "bfloat16" else 1e-5, atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long.safetensors", "whole.safetensors", "x.npy"]
    assert read_result("long.safetensors").variant["schedule"] == "tiled"
    with safe_open("long.safetensors", "np") as file:
        assert file.offset_keys()[:3] == ["scores", "mask", "weights"]  # the order of the steps, whichever came first


def test_a_run_that_fails_leaves_no_file(attn, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", draw_normal(1, 13, 4))
    monkeypatch.setattr(schedule, "MAX_DENSE_SCORES", 0)
    monkeypatch.setattr("attncli.core.attention.merge", lambda z: 1 / 0)

    done = attn("compute", "x.npy", "--only", "weights,context", "-o", "o.safetensors")

    assert done.status == 70
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]


def test_chosen_rows_of_a_long_run_are_labelled(attn, tmp_path, monkeypatch):
    (tmp_path / "x.csv").write_text("".join(f"w{i},{i},{i * i % 7}\n" for i in range(13)))
    words = ("compute", "x.csv", "--causal", "--at", "query=w11", "--at", "query=2", "--only", "weights", "--json")
    whole = attn(*words).json
    monkeypatch.setattr(schedule, "MAX_DENSE_SCORES", 0)

    long = attn(*words).json

    assert long["tokens"] == whole["tokens"] == ["w11", "w2"]
    assert long["at"] == whole["at"] == {"query": [11, 2]}
    np.testing.assert_allclose(long["weights"], whole["weights"], rtol=1e-12)


# ── the bar ──────────────────────────────────────────────────────────────────────────────────────
_SLOW = """
import sys, time
from attncli.plan import schedule
import attncli.core.attention as attend
schedule.MAX_DENSE_SCORES, schedule.CPU_BLOCK_SIZE = 0, schedule.BlockSize(1, 1024)
was = attend.iter_tiles
def slow(plan):
    for tile in was(plan):
        time.sleep(0.2)
        yield tile
attend.iter_tiles = slow
from attncli.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(("more", "seen"), [([], True), (["--no-progress"], False), (["--quiet"], False)])
def test_a_bar_tells_how_far_a_long_run_is_on_a_terminal(warm, tmp_path, more, seen):
    import pty
    import subprocess

    np.save(tmp_path / "x.npy", draw_normal(1, 10, 3))
    ours, theirs = pty.openpty()
    words = [warm.bin / "python", "-c", _SLOW, "compute", "x.npy", "--only", "entropy", "--json", *more]
    done = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += (more_said := os.read(ours, 2**16))
        except OSError:  # the other end is closed
            break
        if not more_said:
            break
    out = done.communicate(timeout=TIMEOUT)[0]
    os.close(ours)

    assert done.returncode == 0, said
    assert len(json.loads(out)["entropy"]) == 10
    assert (b"attending" in said) is seen
    assert (b"rows/s" in said) is seen
