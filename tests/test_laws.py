"""Laws over everything registered: a newcomer is tested by being there. Sizes are pairwise different."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attncli
from attncli.parts.dropout import dropout
from attncli.parts.links import link
from attncli.parts.masks import mask
from attncli.parts.normalizers import normalizer
from attncli.parts.projections import projection
from attncli.parts.scores import score
from attncli.plan import plan
from attncli.presets import PRESETS
from attncli.registry import Family, Member, Option
from attncli.variant import CHOICES, FAMILIES, Variant

N, M, D, H, B = 7, 5, 30, 3, 2  # queries, keys of a memory, width, heads, batch; 30 = 3 heads of 10
EXTRAS = {"segments": [0, 0, 1, 1, 1, 2, 2], "mask": (np.arange(49).reshape(7, 7) % 3 > 0).tolist()}


def some_value(option: Option) -> str:
    """A value that an option takes, so that every option of every part is tried."""
    if option.choices:
        return option.choices[-1]
    if option.kind is tuple:
        return "0+2"
    if option.kind is bool:
        return "yes"
    if option.name in ("dim", "v-dim"):
        return "6"
    low = max(option.range.low, option.range.above)
    return "3" if option.kind is int else str(0.5 if option.range.below < math.inf or low < 0.5 else low + 1)


def spellings(member: Member) -> list[str]:
    """The part with its required options, and with all of them."""
    required = [f"{o.name}={some_value(o)}" for o in member.options if o.required]
    every = [f"{o.name}={some_value(o)}" for o in member.options]
    return list(dict.fromkeys(member.name + (":" + ",".join(o) if o else "") for o in (required, every)))


def parts(family: Family) -> list[str]:
    return [text for member in family for text in spellings(member)]


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def problem_for(text: str, seed: int = 0, n: int = N, **more) -> attncli.Problem:
    fields = {"embeddings": draws(seed, n, D)}
    if "document" in text:
        fields["segments"] = EXTRAS["segments"][:n]
    if "given" in text and not text.startswith("given:"):
        fields["mask"] = np.array(EXTRAS["mask"])[:n, :n]
    return attncli.Problem(**(fields | more))


ONE_CHOICE = [
    *[{"score": s} for s in parts(score)],
    *[{"mask": m} for m in parts(mask)],
    *[{"normalizer": n} for n in parts(normalizer)],
    *[{"dropout": d, "seed": 1} for d in parts(dropout)],
    *[{"projection": p, "seed": 2} for p in parts(projection) if p != "given"],
    *[{m.name.replace("-", "_"): some_value(m.options[0])} for m in link if m.options],
]


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
@pytest.mark.parametrize("heads", [None, H])
def test_every_step_has_the_shape_and_order_that_were_planned(choices, heads):
    problem, variant = problem_for(str(choices.get("mask"))), Variant(**choices, heads=heads)

    made = plan(problem, variant, top=4)
    result = attncli.attend(problem, variant, top=4)

    assert [step.name for step in result] == list(made.steps)
    for step in result:
        lengths = tuple(made.length(step.name, axis) for axis in step.axes)
        assert step.values.shape == lengths, step.name
        assert step.name == "mask" or step.axes == made.steps[step.name]
        assert step.formula


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
def test_weights_are_weights(choices):
    variant = Variant(**{"mask": "causal and not prefix:length=1"} | choices)
    result = attncli.attend(problem_for(str(choices.get("mask"))), variant)
    weights, seen = result["weights"].values, result["mask"].values if "mask" in result else np.ones((N, N), bool)

    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert (weights[~seen] == 0).all()
    if variant["normalizer"].member.facts.get("sums_to_one"):
        np.testing.assert_allclose(weights.sum(-1), seen.any(-1).astype(float), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
def test_what_is_printed_parses_back_to_the_same_result(choices):
    problem = problem_for(str(choices.get("mask")))
    first = attncli.attend(problem, Variant(**choices))

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
        assert member.laws or member.lawless, member.name
        assert all(option.describe() for option in member.options)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda f: f.name)
def test_every_part_prints_and_parses_back(family):
    for text in parts(family):
        part = family.parse(text)
        assert str(part) == text
        assert str(family.parse(str(part))) == str(part)


# ── laws that parts declare ──────────────────────────────────────────────────────────────────────
def keeping(family: Family, law: str) -> list[str]:
    return [text for member in family if law in member.laws for text in spellings(member)]


def declared(law: str) -> list[dict[str, object]]:
    return [
        *[{"score": s} for s in keeping(score, law)],
        *[{"mask": m} for m in keeping(mask, law)],
        *[{"normalizer": n} for n in keeping(normalizer, law)],
        *[{"dropout": d} for d in keeping(dropout, law)],
        *[{"projection": p, "seed": 2} for p in keeping(projection, law) if p != "given"],
        *[{m.name.replace("-", "_"): some_value(m.options[0])} for m in link if law in m.laws and m.options],
    ]


def causally(choices: dict[str, object]) -> dict[str, object]:
    return choices | {"mask": f"causal and ({choices.get('mask', 'full')})"}


@pytest.mark.parametrize("choices", declared("prefix"), ids=str)
def test_a_prefix_does_not_change_when_tokens_follow(choices):
    x, variant = draws(3, N, D), Variant(**causally(choices))
    whole = attncli.attend(attncli.Problem(embeddings=x), variant)["context"].values

    part = attncli.attend(attncli.Problem(embeddings=x[:4]), variant)["context"].values

    np.testing.assert_allclose(part, whole[:4], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("choices", declared("decode"), ids=str)
def test_decoding_through_the_past_equals_the_full_run(choices):
    x = draws(4, 1, N, D)
    variant = Variant(**causally(choices))
    whole = attncli.attend(attncli.Problem(embeddings=x), variant)
    past = {name: np.zeros((1, 1, 0, whole[name].values.shape[-1])) for name in ("k", "v")}

    for t in range(N):
        step = attncli.attend(attncli.Problem(embeddings=x[:, t : t + 1], past=past), variant)
        past = {"k": step["present_k"].values, "v": step["present_v"].values}
        np.testing.assert_allclose(step["context"].values[:, 0], whole["context"].values[:, t], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("choices", declared("permutation"), ids=str)
def test_permuting_tokens_permutes_results(choices):
    x, order = draws(5, N, D), np.array([3, 0, 6, 1, 5, 2, 4])
    variant = Variant(**choices)

    straight = attncli.attend(attncli.Problem(embeddings=x), variant)
    shuffled = attncli.attend(attncli.Problem(embeddings=x[order]), variant)

    np.testing.assert_allclose(
        shuffled["weights"].values, straight["weights"].values[np.ix_(order, order)], rtol=1e-12, atol=1e-15
    )
    np.testing.assert_allclose(shuffled["context"].values, straight["context"].values[order], rtol=1e-12, atol=1e-14)


def test_a_law_that_is_not_kept_would_be_noticed():
    x, order = draws(5, N, D), np.array([3, 0, 6, 1, 5, 2, 4])
    straight, shuffled = (attncli.attend(attncli.Problem(embeddings=e), Variant(mask="causal")) for e in (x, x[order]))

    assert not np.allclose(shuffled["context"].values, straight["context"].values[order])


# ── random products ──────────────────────────────────────────────────────────────────────────────
def _mask_texts() -> st.SearchStrategy[str]:
    leaf = st.sampled_from([text for text in parts(mask) if text not in ("document", "given")])
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            inner.map(lambda a: f"not ({a})"),
            st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
        ),
        max_leaves=4,
    )


@given(
    n=st.integers(1, 6),
    m=st.integers(1, 6),
    heads=st.sampled_from([None, 1, 2]),
    text=_mask_texts(),
    softcap=st.sampled_from(["none", 0.5, 30]),
    temperature=st.sampled_from(["none", 0.1, 4]),
    scale=st.sampled_from(["auto", "none", -1.5]),
    chain=st.permutations(list(link.members)),
    normalize=st.sampled_from(parts(normalizer)),
    empty_rows=st.sampled_from(["zero", "uniform"]),
    size=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 99),
)
@settings(max_examples=150)
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
    assert Variant(**result.variant) == Variant(**Variant(**result.variant).describe())
    if variant["normalizer"].member.facts.get("sums_to_one"):
        np.testing.assert_allclose(weights[~blind].sum(-1), 1, rtol=1e-12)


# ── named variants ───────────────────────────────────────────────────────────────────────────────
ANSWERS = {
    "heads": {"heads": 2},
    "kv_heads": {"kv_heads": 1},
    "memory": {},
    "window": {"mask": "causal and window:left=1"},
}


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda p: p.name)
def test_a_preset_is_its_expansion(preset):
    answers = {k: v for ask in preset.asks for k, v in ANSWERS[ask].items()}
    heads = answers.get("heads", 1)
    kv = {**dict(preset.choices), **answers}.get("kv_heads", heads)
    parameters = {"w_k": draws(8, 6, 6 * kv // heads), "w_v": draws(9, 6, 6 * kv // heads)} if kv != heads else {}
    memory = {"embeddings": draws(7, M, 6)} if "memory" in preset.asks else None
    problem = attncli.Problem(embeddings=draws(6, N, 6), memory=memory, parameters=parameters)

    named = attncli.attend(problem, Variant(name=preset.name, **answers))
    spelled = attncli.attend(problem, Variant(**{**preset.choices, **answers}))

    for one, other in zip(named, spelled, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda p: p.name)
def test_a_preset_asks_for_what_it_cannot_know(preset):
    from attncli.errors import InputError

    for ask in preset.asks:
        answers = {k: v for other in preset.asks if other != ask for k, v in ANSWERS[other].items()}
        with pytest.raises(InputError, match=f"cannot know its {ask}"):
            plan(attncli.Problem(embeddings=draws(6, N, 6)), Variant(name=preset.name, **answers))


def test_every_choice_is_described():
    for choice in CHOICES.values():
        assert choice.help
        assert choice.metavar
