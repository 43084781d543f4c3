"""What tests share: where things lie, ways to run the program, drawn arrays, and how figures are compared."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# How long a test waits for a process, in seconds: how fast a machine is, is nothing that a test asserts.
TIMEOUT = float(os.environ.get("ATTN_TEST_TIMEOUT", "300"))

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "sample_inputs"
GOLDEN = Path(__file__).parent / "golden"
GOLDEN_PROBLEMS = sorted(p for p in GOLDEN.glob("*/*") if p.suffix in (".json", ".npz"))


# ── ways to run the program ──────────────────────────────────────────────────────────────────────
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


def pack_gzip(data: bytes) -> bytes:
    """Pack by gzip without the time, so that the same bytes come out in every process that collects tests."""
    return gzip.compress(data, mtime=0)


def run_process(*words: object, stdin: bytes | None = None, env: dict[str, str] | None = None, cwd: Path | None = None):
    """Run the program as a process of its own; bytes in and out."""
    return subprocess.run(
        [sys.executable, "-m", "attncli", *map(str, words)],
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT,
        cwd=cwd or ROOT,
        env={**os.environ, **(env or {})},
        check=False,
    )


WITHOUT_TORCH = """
import contextlib, io, json, sys
import polars  # as it is imported it looks whether torch is installed, and does not load it
assert "torch" not in sys.modules

class Refuse:
    asked = False
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            Refuse.asked = True
            raise ImportError("torch is refused")

sys.meta_path.insert(0, Refuse())
{planted}
from attncli.cli import main
out = []
for words in json.loads(sys.argv[1]):
    Refuse.asked = False
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        status = main(words)
    out.append([status, Refuse.asked, len(stdout.getvalue()), stderr.getvalue()])
print(json.dumps(out))
"""


def run_without_torch(commands: list[list[str]], planted: str = "") -> list[tuple[int, bool, int, str]]:
    """Run command lines in one process that refuses torch: (status, whether torch was asked for, output, errors)."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.replace("{planted}", planted), json.dumps(commands)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=TIMEOUT,
        check=True,
    )
    return [tuple(r) for r in json.loads(done.stdout)]


def forking_context(*modules: str) -> multiprocessing.context.ForkServerContext:
    """Processes that are forks of a server, which has imported these modules and everything else, and does nothing but import.

    A fork of the tests' own process would not do: whatever threads a library has begun there, Polars its own with the first
    file, are not in the fork, which then waits for them without end.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.everything", "polars", *modules])  # heeded until the first process starts
    return context


# ── arrays ───────────────────────────────────────────────────────────────────────────────────────
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def draw_normal(seed: int, *shape: int) -> np.ndarray:
    return rng(seed).normal(size=shape)


def softmax(s: np.ndarray, axis: int = -1) -> np.ndarray:
    """Softmax of an axis; where all scores are −∞, all weights are 0."""
    s = s - np.max(s, axis=axis, keepdims=True, initial=-1e30)
    e = np.exp(s)
    total = e.sum(axis, keepdims=True)
    return e / np.where(total == 0, 1, total)


def step_values(result: Any, step: str) -> np.ndarray:
    return as_array(result[step].values)


def step_names(result: Any) -> list[str]:
    return [step.name for step in result]


# ── comparisons ──────────────────────────────────────────────────────────────────────────────────
def as_array(x: Any) -> np.ndarray:
    """An array of a tensor, whether it requires a gradient or not, or of anything that NumPy takes."""
    return np.asarray(x.detach() if hasattr(x, "detach") else x)


def assert_close(actual: Any, expected: Any, rtol: float = 1e-12, atol: float = 1e-14) -> None:
    actual, expected = as_array(actual), as_array(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def assert_identical(actual: Any, expected: Any) -> None:
    actual, expected = as_array(actual), as_array(expected)
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)


def one_of_each_kind(value: Any) -> Any:
    """JSON with the items of each array once that a schema cannot tell apart; every number with a fraction is 0.5.

    A schema is tried on every item, and takes as much time for each number as everything else takes for a whole row.
    """
    if isinstance(value, dict):
        return {name: one_of_each_kind(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return list({repr(item): item for item in map(one_of_each_kind, value)}.values())
    return 0.5 if isinstance(value, float) and np.isfinite(value) else value


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
