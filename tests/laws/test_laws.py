"""Laws that every part keeps by being registered, those that parts declare, and random products of parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attncli
from attncli.parts.dropout import dropout
from attncli.parts.links import link
from attncli.parts.masks import mask
from attncli.parts.mixing import mixing
from attncli.parts.normalizers import normalizer
from attncli.parts.norms import norm
from attncli.parts.positions import position
from attncli.parts.projections import projection
from attncli.parts.scores import score
from attncli.parts.sinks import sink
from attncli.plan import make_plan
from attncli.registry import Family
from attncli.variant import FAMILIES, Variant
from tests.helpers import draw_normal
from tests.laws.problems import ONE_CHOICE, mask_expressions, parameters_for, parts, problem_for, some_value, spellings

pytestmark = pytest.mark.uncounted

N, M, D, H, B = 7, 5, 30, 3, 2  # queries, keys of a memory, width, heads, batch; 30 = 3 heads of 10


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
@pytest.mark.parametrize("heads", [None, H])
def test_every_step_has_the_shape_and_order_that_were_planned(choices, heads):
    variant = Variant(**{"heads": heads} | choices)
    problem = problem_for(str(choices.get("mask")), variant=variant)

    made = make_plan(problem, variant, top=4)
    result = attncli.attend(problem, variant, top=4)

    assert [step.name for step in result] == list(made.steps)
    for step in result:
        lengths = tuple(made.axis_length(step.name, axis) for axis in step.axes)
        assert step.values.shape == lengths, step.name
        assert step.name == "mask" or step.axes == made.steps[step.name]
        assert step.formula


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
def test_weights_are_weights(choices):
    variant = Variant(**{"mask": "causal and not prefix:length=1"} | choices)
    result = attncli.attend(problem_for(str(choices.get("mask")), variant=variant), variant)
    weights, seen = result["weights"].values, result["mask"].values if "mask" in result else np.ones((N, N), bool)

    assert np.isfinite(weights).all()
    assert (weights >= 0).all() or variant["normalizer"].name in (
        "sum",
        "none",
    )  # shares of scores, which may be negative
    assert (weights[..., ~seen] == 0).all()
    if variant.normalizer.traits.is_distribution:
        sinks = result["sink_weights"].values if "sink_weights" in result else 0
        sees = seen.any(-1) if variant["sink"].name == "none" else np.ones(N)
        np.testing.assert_allclose(
            weights.sum(-1) + sinks, np.broadcast_to(sees, weights.shape[:-1]), rtol=1e-12, atol=1e-13
        )


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
def test_what_is_printed_parses_back_to_the_same_result(choices):
    variant = Variant(**choices)
    problem = problem_for(str(choices.get("mask")), variant=variant)
    first = attncli.attend(problem, variant)

    again = Variant(**first.variant)
    second = attncli.attend(problem, again)

    assert again.describe() == first.variant
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda f: f.name)
def test_every_part_says_what_it_is(family):
    for member in family:
        assert member.formula, member.name
        assert member.summary.endswith("."), member.name
        assert member.laws or member.law_exceptions, member.name
        assert all(option.describe() for option in member.options)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda f: f.name)
def test_every_part_prints_and_parses_back(family):
    for text in parts(family):
        part = family.parse(text)
        assert str(part) == text
        assert str(family.parse(str(part))) == str(part)


def keeping(family: Family, law: str) -> list[str]:
    return [text for member in family if law in member.laws for text in spellings(member) if not by_length(text)]


def by_length(text: str) -> bool:
    """These follow the length of the text, and so cannot keep a prefix as it was: dynamic NTK, LongRoPE."""
    return "scaling=dynamic" in text or "scaling=longrope" in text


CHOSEN = {
    "score": score, "mask": mask, "normalizer": normalizer, "dropout": dropout, "projection": projection, "qk_norm": norm,
    "position": position, "sink": sink, "head_mixing": mixing,
}  # fmt: skip


def declared(law: str) -> list[dict[str, object]]:
    of_parts = [{name: text} for name, family in CHOSEN.items() for text in keeping(family, law)]
    of_links = [{m.name.replace("-", "_"): some_value(m.options[0])} for m in link if law in m.laws and m.options]
    also = {"head_mixing": {"heads": 2}, "projection": {"seed": 2}}
    return [
        c | also.get(next(iter(c)), {}) for c in of_parts + of_links if not c.get("projection", "").startswith("given")
    ]


def causally(choices: dict[str, object]) -> dict[str, object]:
    return choices | {"mask": f"causal and ({choices.get('mask', 'full')})"}


@pytest.mark.parametrize("choices", declared("prefix"), ids=str)
def test_a_prefix_does_not_change_when_tokens_follow(choices):
    x, variant = draw_normal(3, N, D), Variant(**causally(choices))
    learned = parameters_for(variant, D)
    whole = attncli.attend(attncli.Problem(embeddings=x, parameters=learned), variant)["context"].values

    part = attncli.attend(attncli.Problem(embeddings=x[:4], parameters=learned), variant)["context"].values

    np.testing.assert_allclose(part, whole[:4], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("choices", declared("decode"), ids=str)
def test_decoding_through_the_past_equals_the_full_run(choices):
    x, variant = draw_normal(4, 1, N, D), Variant(**causally(choices))
    learned = parameters_for(variant, D)
    whole = attncli.attend(attncli.Problem(embeddings=x, parameters=learned), variant)
    kv = {"k": whole["k"].values, "v": whole["v"].values}
    past = {name: np.zeros((1, a.shape[1] if a.ndim == 4 else 1, 0, a.shape[-1])) for name, a in kv.items()}

    for t in range(N):
        step = attncli.attend(attncli.Problem(embeddings=x[:, t : t + 1], past=past, parameters=learned), variant)
        past = {"k": step["present_k"].values, "v": step["present_v"].values}
        np.testing.assert_allclose(step["context"].values[:, 0], whole["context"].values[:, t], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("choices", declared("permutation"), ids=str)
def test_permuting_tokens_permutes_results(choices):
    x, order = draw_normal(5, N, D), np.array([3, 0, 6, 1, 5, 2, 4])
    variant = Variant(**choices)
    learned = parameters_for(variant, D)

    straight = attncli.attend(attncli.Problem(embeddings=x, parameters=learned), variant)
    shuffled = attncli.attend(attncli.Problem(embeddings=x[order], parameters=learned), variant)

    moved = straight["weights"].values[..., order, :][..., order]
    np.testing.assert_allclose(shuffled["weights"].values, moved, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(shuffled["context"].values, straight["context"].values[order], rtol=1e-11, atol=1e-12)


def test_a_law_that_is_not_kept_would_be_noticed():
    x, order = draw_normal(5, N, D), np.array([3, 0, 6, 1, 5, 2, 4])
    straight, shuffled = (attncli.attend(attncli.Problem(embeddings=e), Variant(mask="causal")) for e in (x, x[order]))

    assert not np.allclose(shuffled["context"].values, straight["context"].values[order])


@given(
    n=st.integers(1, 6),
    m=st.integers(1, 6),
    heads=st.sampled_from([None, 1, 2]),
    text=mask_expressions(),
    softcap=st.sampled_from(["none", 0.5, 30]),
    temperature=st.sampled_from(["none", 0.1, 4]),
    scale=st.sampled_from(["auto", "none", -1.5]),
    chain=st.permutations(list(link.members)),
    normalize=st.sampled_from(parts(normalizer)),
    empty_rows=st.sampled_from(["zero", "uniform"]),
    size=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 99),
)
@settings(max_examples=100)
@pytest.mark.slow
def test_random_products(n, m, heads, text, softcap, temperature, scale, chain, normalize, empty_rows, size, seed):
    rng = np.random.default_rng(seed)
    q, k, v = (rng.uniform(-size, size, (rows, 4)) for rows in (n, m, m))
    variant = Variant(
        mask=text,
        heads=heads,
        softcap=softcap,
        temperature=temperature,
        scale=scale,
        chain=chain,
        normalizer=normalize,
        empty_rows=empty_rows,
        align="bottom-right",
    )

    result = attncli.attend(attncli.Problem(q=q, k=k, v=v), variant)

    weights = result["weights"].values
    seen = np.broadcast_to(result["mask"].values if "mask" in result else True, weights.shape)
    blind = ~seen.any(-1)
    assert np.isfinite(weights).all()
    assert np.isfinite(result["context"].values).all()
    assert (weights[~seen & ~blind[..., None]] == 0).all()
    np.testing.assert_allclose(weights[blind], 1 / m if empty_rows == "uniform" else 0)
    assert Variant(**result.variant).describe() == result.variant
    if variant.normalizer.traits.is_distribution:
        np.testing.assert_allclose(weights[~blind].sum(-1), 1, rtol=1e-12)


@given(
    n=st.integers(1, 7),
    heads=st.sampled_from([2, 4]),
    text=mask_expressions(),
    choices=st.fixed_dictionaries(
        {
            "score": st.sampled_from(parts(score)),
            "position": st.sampled_from(parts(position)),
            "qk_norm": st.sampled_from(parts(norm)),
            "head_mixing": st.sampled_from(parts(mixing)),
            "softcap": st.sampled_from(["none", 30]),
            "log_n": st.sampled_from(["none", 3]),
        }
    ),
    ending=st.one_of(
        st.tuples(st.just("softmax"), st.sampled_from(parts(sink))),
        st.tuples(st.sampled_from(parts(normalizer)), st.just("none")),
    ),
    chain=st.permutations(list(link.members)),
    size=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 99),
)
@settings(max_examples=100)
@pytest.mark.slow
def test_random_products_of_every_family(n, heads, text, choices, ending, chain, size, seed):
    size = 1.0 if "phi=exp" in choices["score"] else size  # e^1000 is no float64
    variant = Variant(mask=text, heads=heads, chain=chain, normalizer=ending[0], sink=ending[1], **choices)
    x = np.random.default_rng(seed).uniform(-size, size, (n, 10 * heads))
    problem = attncli.Problem(embeddings=x, parameters=parameters_for(variant, 10 * heads))

    made, result = make_plan(problem, variant), attncli.attend(problem, variant)

    for step in result:
        assert step.values.shape == tuple(made.axis_length(step.name, axis) for axis in step.axes), step.name
        assert not np.isnan(step.values).any() or (step.name == "entropy" and (result["weights"].values < 0).any()), (
            step.name
        )
    weights = result["weights"].values
    seen = np.broadcast_to(result["mask"].values if "mask" in result else True, weights.shape)
    assert (weights[~seen] == 0).all()
    assert (weights >= 0).all() or ending[0] in ("sum", "none")
    assert Variant(**result.variant).describe() == result.variant
    if variant.normalizer.traits.is_distribution:
        total = weights.sum(-1) + (result["sink_weights"].values if ending[1] != "none" else 0)
        np.testing.assert_allclose(total, 1.0 if ending[1] != "none" else seen.any(-1), rtol=1e-9)
