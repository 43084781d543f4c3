"""The same command gives the same bytes again; with another number of threads the same numbers, to rounding."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers import draw_normal, run_process

pytestmark = [pytest.mark.slow, pytest.mark.uncounted]

CASES = {  # what is computed, in which dtype, and how far other threads may differ
    "softmax": ("float64", 1e-14, ("--causal",)),
    "rope, rms, sigmoid": (
        "float32",
        1e-5,
        ("--position", "rope", "--qk-norm", "rms", "--normalizer", "sigmoid", "--heads", "2"),
    ),
    "cosine, entmax": ("bfloat16", 2e-2, ("--score", "cosine", "--normalizer", "entmax15", "--window", "40,0")),
    "linear attention, dropout": (
        "float64",
        1e-14,
        ("--score", "kernel", "--normalizer", "sum", "--dropout", "0.2", "--seed", "3"),
    ),
}


@pytest.mark.parametrize(
    ("dtype", "tolerance", "options"),
    [
        pytest.param(*case, marks=[pytest.mark.full] if name != "linear attention, dropout" else [], id=name)
        for name, case in CASES.items()
    ],
)
def test_a_rerun_gives_the_same_bytes_and_other_threads_the_same_numbers(tmp_path, dtype, tolerance, options):
    np.save(tmp_path / "x.npy", draw_normal(5, 301, 16))
    results, contents = {}, []
    for threads in ("1", "2", "2"):  # a matrix product may be split among threads, and then added up in another order
        done = run_process(
            *("compute", tmp_path / "x.npy", "--only", "scores,weights,context", "--dtype", dtype, *options),
            *("-o", tmp_path / "o.npz", "--force", "-q"),
            env={"OMP_NUM_THREADS": threads},
        )
        assert done.returncode == 0, done.stderr
        contents.append((tmp_path / "o.npz").read_bytes())
        results[threads] = dict(np.load(tmp_path / "o.npz"))

    assert contents[1] == contents[2]
    for step in ("scores", "weights", "context"):
        one, two = results["1"][step], results["2"][step]
        np.testing.assert_allclose(one, two, rtol=tolerance, atol=tolerance * np.nanmax(np.abs(one[np.isfinite(one)])))
