"""Tensors that require a gradient, and other devices."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.errors import InputError
from attncli.plan import make_plan, schedule
from attncli.variant import Variant
from tests.helpers import draw_normal

pytestmark = pytest.mark.usefixtures("small_stretches")


def test_a_tensor_that_requires_grad_keeps_its_graph_in_a_dense_run(monkeypatch):
    import torch

    monkeypatch.setattr(schedule, "MAX_DENSE_SCORES", 0)
    x = torch.tensor(draw_normal(1, 5, 3), requires_grad=True)

    result = attncli.attend(attncli.Problem(embeddings=x), Variant(mask="causal"), ["context"])
    result["context"].values.sum().backward()

    assert result.variant["schedule"] == "dense"
    assert x.grad is not None
    with pytest.raises(InputError, match="requires grad"):
        make_plan(attncli.Problem(embeddings=x), Variant(schedule="tiled"))


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("ran", ["dense", "tiled", "fused"])
def test_other_devices_say_the_same(device, ran):
    import torch

    there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if not there:
        pytest.skip(f"no {device} device on this machine")
    problem = attncli.Problem(embeddings=draw_normal(1, 300, 8).astype(np.float32))
    choices = {"mask": "causal", "heads": 2, "dtype": "float32"}

    here = attncli.attend(problem, Variant(**choices), ["context"])
    other = attncli.attend(problem, Variant(**choices, device=device, schedule=ran), ["context"])

    np.testing.assert_allclose(other["context"].values, here["context"].values, rtol=1e-4, atol=1e-5)
