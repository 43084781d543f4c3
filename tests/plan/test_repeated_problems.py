"""Problems that are met again: outlines are remembered, and answers are those of the first time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import attncli
from attncli.core.inputs import _find_shared_grid
from attncli.derivation import recording_intermediates
from attncli.mask_expression import MaskExpression
from attncli.parts.masks import mask
from attncli.parts.mixing import mixing
from attncli.parts.normalizers import normalizer
from attncli.parts.norms import norm
from attncli.parts.positions import position
from attncli.parts.scores import score
from attncli.parts.sinks import sink
from attncli.plan import finish_plan, make_plan, outline_plan
from attncli.registry import Part
from attncli.variant import Variant
from tests.helpers import draw_normal
from tests.laws.problems import spellings

N, M, D, H, B = 7, 5, 30, 3, 2  # queries, keys of a memory, width, heads, batch; 30 = 3 heads of 10


def test_an_outline_that_is_remembered_is_the_one_that_would_be_made():
    from attncli.plan.build import OUTLINE_CACHE, build_outline
    from attncli.validation import validate

    OUTLINE_CACHE.clear()
    variant = Variant(mask="causal", heads=2, softcap=20)
    for n, seed in ((5, 1), (5, 2), (4, 3), (5, 4)):
        tokens = [f"t{seed}{i}" for i in range(n)]
        problem = attncli.Problem(
            embeddings=draw_normal(seed, n, 6), tokens=tokens, parameters={"w_o": draw_normal(seed, 6, 3)}
        )
        made, anew = outline_plan(problem, variant), build_outline(validate(problem), variant, None, None)

        assert made.tokens == tuple(tokens)
        assert (made.steps, made.keep, made.shapes, made.size) == (anew.steps, anew.keep, anew.shapes, anew.size)
        assert (made.variant, made.summary, made.warnings) == (anew.variant, anew.summary, anew.warnings)
        np.testing.assert_array_equal(made.problem.embeddings, draw_normal(seed, n, 6))
        np.testing.assert_array_equal(made.q_pos, anew.q_pos)
    assert len(OUTLINE_CACHE) == 2


def test_problems_alike_share_their_grid_unless_one_was_changed_or_its_making_is_shown():
    variant = Variant(mask="causal")
    _, one, other = (
        finish_plan(outline_plan(attncli.Problem(embeddings=draw_normal(i, 4, 2)), variant)) for i in range(3)
    )

    shared = _find_shared_grid(one)

    assert shared is _find_shared_grid(other)
    assert shared.visible_grid.visible[0, 0].tolist() == np.tri(4, dtype=bool).tolist()
    assert _find_shared_grid(dataclasses.replace(one, q_pos=one.q_pos + 1)) is None
    with recording_intermediates():
        assert _find_shared_grid(one) is None


@pytest.mark.parametrize(
    "family", [mask, position, score, normalizer, mixing, norm, sink], ids=lambda family: family.name
)
def test_problems_alike_are_answered_as_if_each_were_the_first(family):
    """What the first has found is used again by the others, and no result that is written on reaches it."""
    choice = {"norm": "qk_norm", "mixing": "head_mixing"}.get(family.name, family.name.replace("-", "_"))
    for member in family:
        if member.parameters or member.name in ("given", "document", "kernel"):
            continue
        choices = {choice: spellings(member)[0], "heads": 2, "dtype": "float64"}
        try:
            again = Variant(**choices)
            make_plan(attncli.Problem(embeddings=draw_normal(0, N, 12)), again)
        except attncli.errors.AttnError:
            continue  # it needs something beside
        for seed in (1, 2, 3):
            problem = attncli.Problem(embeddings=draw_normal(seed, N, 12))
            made, anew = attncli.attend(problem, again), attncli.attend(problem, Variant(**choices))
            assert made.variant == anew.variant
            assert [step.name for step in made] == [step.name for step in anew]
            for step in made:
                np.testing.assert_array_equal(step.values, anew[step.name].values, err_msg=str(choices))
            for step in made:
                step.values[:] = 1  # whoever has a result may write on it


def test_variants_that_are_spelled_alike_have_outlines_of_their_own():
    """A mask that is not registered has a name of nobody's: two of them are two variants to the cache."""
    problem = attncli.Problem(embeddings=np.eye(3))
    plain = Variant(mask="causal")

    def with_predicate(predicate):
        member = dataclasses.replace(plain.mask.part.member, name="rewritten", function=predicate)
        return plain.replace(mask=MaskExpression("part", Part(member)))

    for predicate, weights in (
        (lambda grid: grid.k_idx == grid.q_idx, np.eye(3)),
        (lambda grid: grid.k_idx + grid.q_idx == 2, np.eye(3)[::-1]),
    ):
        result = attncli.attend(problem, with_predicate(predicate), keep={"weights"})
        np.testing.assert_array_equal(result["weights"].values, weights)


def test_what_is_drawn_is_drawn_anew_for_each_problem():
    variant = Variant(projection="linear:dim=4")
    problems = [attncli.Problem(embeddings=draw_normal(1, 5, 6)) for _ in range(3)]

    seeds = {make_plan(problem, variant).variant["seed"] for problem in problems}

    assert len(seeds) == 3
    masked = attncli.Problem(embeddings=draw_normal(1, 5, 6), mask=np.tri(5, dtype=bool))
    assert make_plan(masked, Variant()).is_masked
    assert not make_plan(problems[0], Variant()).is_masked
