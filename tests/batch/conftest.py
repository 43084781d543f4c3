"""Inputs that are computed once for the whole run, and the cluster that all tests share."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.batch.helpers import LONG, Cluster, write_problems


@pytest.fixture(autouse=True)
def all_processes(monkeypatch):
    """With `-j` as many processes are started as it says, however little there is to do."""
    monkeypatch.setattr("attncli.batch.expected_time.WORTH_LOADS", 0)


@pytest.fixture(scope="session")
def many(warm, tmp_path_factory):
    """Two hundred and forty inputs, and what an undisturbed run leaves of them."""
    folder = tmp_path_factory.mktemp("many")
    write_problems(folder / "in", 240)
    done = warm.run("batch", folder / "in", "-o", folder / "whole", "-q")
    assert (done.returncode, done.stderr) == (0, b"")
    return folder


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def big(warm, tmp_path_factory):
    """One long problem, and what this process makes of it in three ways."""
    folder = tmp_path_factory.mktemp("big")
    draws = np.random.default_rng(3)
    save_file({name: draws.normal(size=(1, 2, 5000, 8)) for name in "qkv"}, str(folder / "big.safetensors"))
    for name, words in LONG.items():
        done = warm.run("compute", folder / "big.safetensors", *words, "-o", folder / f"{name}.safetensors")
        assert done.returncode == 0, done.stderr
    return folder
