"""Gradients equal central differences, of every registered part that has any."""

from __future__ import annotations

import dataclasses

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


def gradients_of(problem, variant, names=None, seed=5):
    """The gradients of Σ context · upstream, their names, the upstream, and the plan."""
    plan = finish_edited_plan(outline_plan(problem, variant))
    upstream = np.random.default_rng(seed).normal(size=step_shape(plan, "context"))
    plan = with_gradients(plan, "context", upstream)
    claimed = [name for name in plan.gradients.axes if names is None or name in names]
    plan = with_keep(plan, claimed)
    return Trials(plan, None).compute_steps(plan), upstream


def with_keep(plan, names):
    return dataclasses.replace(plan, keep=frozenset(names))


def loss_of(problem, variant, upstream):
    return float((attncli.attend(problem, variant, keep=["context"])["context"].values * upstream).sum())


def moved(problem, name, direction):
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


B, H, G, N, M, C, P = 2, 6, 3, 5, 7, 8, 4  # P keys of a past; d is 10: no two axes are alike


def given_problem(**more):
    rng = np.random.default_rng(3)
    q, k, v = (rng.normal(size=shape) for shape in ((B, H, N, 10), (B, G, M, 10), (B, G, M, C)))
    return attncli.Problem(**({"q": q, "k": k, "v": v} | more))


RNG = np.random.default_rng(4)
GIVEN = {
    "causal": ({}, {"mask": "causal", "align": "bottom-right"}),
    "softcap, rope, qk-norm": ({"positions": list(range(2, 7)), "k_positions": list(range(7))}, {"softcap": 2.0, "position": "rope", "qk_norm": "l2"}),
    "bias of heads": ({"bias": RNG.normal(size=(1, H, 1, M))}, {}),
    "bias of queries": ({"bias": np.where(RNG.random((B, 1, N, M)) < 0.3, -np.inf, 1.0)}, {"softcap": 3.0}),
    "sinks, lengths, window": ({"parameters": {"sinks": RNG.normal(size=H)}, "lengths": [3, 7]}, {"sink": "given", "mask": "window:left=2,right=1", "align": "top-left"}),
    "dropout": ({"dropout_mask": RNG.random((B, H, N, M)) < 0.7}, {"dropout": 0.25}),
    "past": ({"past": {"k": RNG.normal(size=(B, G, P, 10)), "v": RNG.normal(size=(B, G, P, C))}}, {"kv_map": "tile"}),
    "rows that see nothing": ({"mask": np.tri(N, M, -2, dtype=bool)}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
def test_gradients_of_given_vectors_equal_central_differences_entry_by_entry(name):
    fields, choices = GIVEN[name]
    problem, variant = given_problem(**fields), Variant(**choices)
    gradients, upstream = gradients_of(problem, variant)
    rng = np.random.default_rng(9)
    for of in ("q", "k", "v", *(name for name in ("bias",) if name in fields), *problem.parameters):
        gradient, shape = gradients[f"d{of}"], np.shape(getattr(problem, of, problem.parameters.get(of)))
        assert gradient.shape[-len(shape) :] == shape
        for cell in rng.permutation(gradient.size)[:12]:
            direction = np.zeros(gradient.size)
            direction[cell] = 1
            direction = direction.reshape(shape)
            expected = central_difference(problem, variant, of, direction, upstream)
            assert gradient.ravel()[cell] == pytest.approx(expected, rel=1e-6, abs=1e-6), (of, cell)
