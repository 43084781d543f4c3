"""Gradients equal central differences, of every registered part that has any."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.check.claims import step_shape
from attncli.check.trials import Trials, finish_edited_plan
from attncli.plan import outline_plan
from attncli.plan.gradients import with_gradients
from attncli.variant import Variant
from tests.laws.problems import ONE_CHOICE, problem_for

STEP = 1e-6
# The gradient of what is chosen by rank, or is the same everywhere between jumps, is that of the chosen alone.
FIELDS = {"dembeddings": "embeddings", "dbias": "bias"}


def gradients_of(problem, variant, names=None, seed=5):
    """The gradients of Σ context · upstream, their names, the upstream, and the plan."""
    plan = finish_edited_plan(outline_plan(problem, variant))
    upstream = np.random.default_rng(seed).normal(size=step_shape(plan, "context"))
    plan = with_gradients(plan, "context", upstream)
    claimed = [name for name in plan.gradients.axes if names is None or name in names]
    plan = with_keep(plan, claimed)
    return Trials(plan, None).compute_steps(plan), upstream


def with_keep(plan, names):
    import dataclasses

    return dataclasses.replace(plan, keep=frozenset(names))


def loss_of(problem, variant, upstream):
    return float((attncli.attend(problem, variant, keep=["context"])["context"].values * upstream).sum())


def moved(problem, name, direction):
    import dataclasses

    if name == "embeddings":
        return dataclasses.replace(problem, embeddings=np.asarray(problem.embeddings) + direction)
    if name in ("q", "k", "v", "bias"):
        return dataclasses.replace(problem, **{name: np.asarray(getattr(problem, name)) + direction})
    return dataclasses.replace(problem, parameters={**problem.parameters, name: problem.parameters[name] + direction})


def central_difference(problem, variant, name, direction, upstream):
    ahead, behind = (loss_of(moved(problem, name, s * STEP * direction), variant, upstream) for s in (1, -1))
    return (ahead - behind) / (2 * STEP)


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=lambda choices: " ".join(f"{k}={v}" for k, v in choices.items()))
def test_gradients_equal_central_differences(choices):
    variant = Variant(**{"heads": 3, **choices})
    text = " ".join(map(str, choices.values()))
    problem = problem_for(text, variant=variant)
    gradients, upstream = gradients_of(problem, variant)
    rng = np.random.default_rng(8)
    names = ["embeddings", *problem.parameters]
    for name in names:
        if f"d{name}" not in gradients:
            continue
        gradient = gradients[f"d{name}"]
        for _ in range(2):
            direction = rng.normal(size=gradient.shape)
            expected = central_difference(problem, variant, name, direction, upstream)
            assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-6, abs=1e-6), name
