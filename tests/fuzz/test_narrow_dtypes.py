"""Float32, float16 and bfloat16 on ordinary data: every variant within a few units of roundoff of float64 on the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import attncli
from attncli.variant import Variant
from tests.laws.problems import ONE_CHOICE, H, problem_for

UNITS = 4
UNIT = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}

pytestmark = [pytest.mark.slow, pytest.mark.uncounted]


@pytest.mark.parametrize("dtype", UNIT)
@pytest.mark.parametrize("choices", [c for c in ONE_CHOICE if not {"projection", "dropout"} & c.keys()], ids=str)
def test_steps_are_within_four_units_of_their_conditioning(choices, dtype):
    variant = Variant(**{"heads": H} | choices)
    problem = problem_for(str(choices.get("mask")), variant=variant)
    rounded = torch.tensor(np.asarray(problem.embeddings)).to(getattr(torch, dtype)).double().numpy()
    fields = {name: x for name, x in vars(problem).items() if x is not None and name != "embeddings"}
    fields["parameters"] = {
        name: x * 0.25 if name.startswith("lambda") else x for name, x in problem.parameters.items()
    }  # e^(λ_q1 · λ_k1) is to be ordinary

    narrow = attncli.attend(attncli.Problem(embeddings=rounded, **fields), variant.replace(dtype=dtype))
    exact = attncli.attend(attncli.Problem(embeddings=rounded, **fields), variant.replace(dtype="float64"))

    largest = {step.name: np.abs(np.where(np.isfinite(step.values), step.values, 0)).max() for step in exact}
    last_q = next(name for name in ("normed_q", "rotated_q", "q") if name in largest)
    before_weights = list(largest)[list(largest).index("weights") - 1]
    amplification = 1 + largest[before_weights]  # what a unit of the scores does to a weight
    conditioning = {
        "scores": max(largest["scores"], np.linalg.norm(exact[last_q].values, axis=-1).max() ** 2),
        "weights": amplification * largest["weights"],
        "context": amplification * max(largest["context"], largest["v"]),
    }
    for name, size in conditioning.items():
        got = torch.as_tensor(np.asarray(narrow[name].values)).double().numpy()
        assert np.abs(got - exact[name].values).max() <= UNITS * UNIT[dtype] * size, name
