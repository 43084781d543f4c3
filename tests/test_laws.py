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
from attncli.parts.mixing import mixing
from attncli.parts.normalizers import normalizer
from attncli.parts.norms import norm
from attncli.parts.positions import position
from attncli.parts.projections import projection
from attncli.parts.scores import score
from attncli.parts.sinks import sink
from attncli.plan import plan
from attncli.presets import PRESETS, Preset, choices_of
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
        return "no"
    if option.name in ("dim", "v-dim", "window"):
        return {"window": "5"}.get(option.name, "6")
    if option.kind is int:
        return "4"
    return {"low": "0.5", "fraction": "0.6", "theta": "50"}.get(
        option.name, "0.5" if option.range.below < math.inf else "2.5"
    )


WITH = {  # options that need others beside them
    "factor": "scaling=linear",
    "original": "scaling=linear,factor=2",
    "beta-fast": "beta-slow=0.5",
    "scaling": "fraction=0.6",
    "max-distance": "buckets=8",
}


def spellings(member: Member) -> list[str]:
    """The part with its required options, and with each of the others beside them."""
    required = [f"{o.name}={some_value(o)}" for o in member.options if o.required]
    others = [
        [f"{o.name}={some_value(o)}"] + ([WITH[o.name]] if o.name in WITH else [])
        for o in member.options
        if not o.required
    ]
    made = [member.name + (":" + ",".join(o) if o else "") for o in (required, *(required + other for other in others))]
    scalings = [
        f"rope:scaling={s},factor=4,original=8"
        for s in ("ntk", "dynamic", "yarn", "llama3", "longrope", "proportional")
    ]
    return [
        str(FAMILIES[member.family].parse(text))
        for text in dict.fromkeys(made + (scalings if member.name == "rope" else []))
    ]


def parts(family: Family) -> list[str]:
    return [text for member in family for text in spellings(member)]


def parameters_for(variant: Variant, width: int, seed: int = 11) -> dict[str, np.ndarray]:
    """Every array that the chosen parts take, in the shapes that they declare."""
    heads = variant["heads"] or 1
    d = width // heads
    out = {}
    for name in ("qk_norm", "position", "score", "sink", "head_mixing"):
        part = variant[name]
        lengths = part.traits.axis_lengths
        sizes = {"H": heads, "G": heads, "d": d, "d_k": d, "2d": 2 * d, "a": 11}
        sizes |= lengths(part, d) if lengths else {}
        if name == "qk_norm" and part.name != "none" and part.get("scope") == "full":
            sizes["d"] = width
        rng = np.random.default_rng(seed)
        out |= {p.name: rng.uniform(0.5, 1.5, [sizes[a] for a in p.axes]) for p in part.member.parameters}
    return out


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def problem_for(text: str, seed: int = 0, n: int = N, variant: Variant | None = None, **more) -> attncli.Problem:
    fields = {"embeddings": draws(seed, n, D)}
    if variant is not None:
        fields["parameters"] = parameters_for(variant, D)
    if "document" in text:
        fields["segments"] = EXTRAS["segments"][:n]
    if "given" in text and not text.startswith("given:"):
        fields["mask"] = np.array(EXTRAS["mask"])[:n, :n]
    return attncli.Problem(**(fields | more))


ONE_CHOICE = [
    *[{"score": s} for s in parts(score)],
    *[{"qk_norm": n} for n in parts(norm)],
    *[{"position": p} for p in parts(position)],
    *[{"sink": s} for s in parts(sink)],
    *[{"head_mixing": m, "heads": 2} for m in parts(mixing)],
    *[{"mask": m} for m in parts(mask)],
    *[{"normalizer": n} for n in parts(normalizer)],
    *[{"dropout": d, "seed": 1} for d in parts(dropout)],
    *[{"projection": p, "seed": 2} for p in parts(projection) if p != "given"],
    *[{m.name.replace("-", "_"): some_value(m.options[0])} for m in link if m.options],
]


@pytest.mark.parametrize("choices", ONE_CHOICE, ids=str)
@pytest.mark.parametrize("heads", [None, H])
def test_every_step_has_the_shape_and_order_that_were_planned(choices, heads):
    variant = Variant(**{"heads": heads} | choices)
    problem = problem_for(str(choices.get("mask")), variant=variant)

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
    return [c | also.get(next(iter(c)), {}) for c in of_parts + of_links if c != {"projection": "given"}]


def causally(choices: dict[str, object]) -> dict[str, object]:
    return choices | {"mask": f"causal and ({choices.get('mask', 'full')})"}


@pytest.mark.parametrize("choices", declared("prefix"), ids=str)
def test_a_prefix_does_not_change_when_tokens_follow(choices):
    x, variant = draws(3, N, D), Variant(**causally(choices))
    learned = parameters_for(variant, D)
    whole = attncli.attend(attncli.Problem(embeddings=x, parameters=learned), variant)["context"].values

    part = attncli.attend(attncli.Problem(embeddings=x[:4], parameters=learned), variant)["context"].values

    np.testing.assert_allclose(part, whole[:4], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("choices", declared("decode"), ids=str)
def test_decoding_through_the_past_equals_the_full_run(choices):
    x, variant = draws(4, 1, N, D), Variant(**causally(choices))
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
    x, order = draws(5, N, D), np.array([3, 0, 6, 1, 5, 2, 4])
    variant = Variant(**choices)
    learned = parameters_for(variant, D)

    straight = attncli.attend(attncli.Problem(embeddings=x, parameters=learned), variant)
    shuffled = attncli.attend(attncli.Problem(embeddings=x[order], parameters=learned), variant)

    moved = straight["weights"].values[..., order, :][..., order]
    np.testing.assert_allclose(shuffled["weights"].values, moved, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(shuffled["context"].values, straight["context"].values[order], rtol=1e-11, atol=1e-12)


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
    assert Variant(**result.variant).describe() == result.variant
    if variant.normalizer.traits.is_distribution:
        np.testing.assert_allclose(weights[~blind].sum(-1), 1, rtol=1e-12)


@given(
    n=st.integers(1, 7),
    heads=st.sampled_from([2, 4]),
    text=_mask_texts(),
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
@settings(max_examples=150)
def test_random_products_of_every_family(n, heads, text, choices, ending, chain, size, seed):
    size = 1.0 if "phi=exp" in choices["score"] else size  # e^1000 is no float64
    variant = Variant(mask=text, heads=heads, chain=chain, normalizer=ending[0], sink=ending[1], **choices)
    x = np.random.default_rng(seed).uniform(-size, size, (n, 10 * heads))
    problem = attncli.Problem(embeddings=x, parameters=parameters_for(variant, 10 * heads))

    made, result = plan(problem, variant), attncli.attend(problem, variant)

    for step in result:
        assert step.values.shape == tuple(made.length(step.name, axis) for axis in step.axes), step.name
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


# ── named variants ───────────────────────────────────────────────────────────────────────────────
ANSWERS = {
    "heads": {"heads": 2},
    "kv_heads": {"kv_heads": 2},
    "memory": {},
    "window": {"mask": "causal and window:left=1"},
}
WIDE = 2 * 66  # two heads of 66: some models turn 64 columns of each


def named(preset: Preset) -> str:
    return preset.name if preset.layers is None else f"{preset.name}:layer=3"


@pytest.mark.parametrize(
    "preset", [p for p in PRESETS.values() if p.choices.get("kv_heads") != 1], ids=lambda p: p.name
)
def test_a_preset_is_its_expansion(preset):
    answers = {k: v for ask in preset.asks for k, v in ANSWERS[ask].items()} | {"heads": 2}
    chosen = choices_of(preset, 3 if preset.layers else None) | answers
    memory = {"embeddings": draws(7, M, WIDE)} if "memory" in preset.asks else None
    mask = np.tri(N, dtype=bool) if "given" in str(chosen.get("mask")) else None
    learned = parameters_for(Variant(**chosen), WIDE)
    problem = attncli.Problem(embeddings=draws(6, N, WIDE), memory=memory, mask=mask, parameters=learned)
    align = {"align": "top-left"}

    called = attncli.attend(problem, Variant(name=named(preset), **answers, **align))
    spelled = attncli.attend(problem, Variant(**chosen, **align))

    assert called.variant["name"] == named(preset)
    assert {k: v for k, v in called.variant.items() if k != "name"} == spelled.variant
    for one, other in zip(called, spelled, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize(
    "preset", [p for p in PRESETS.values() if p.choices.get("kv_heads") == 1], ids=lambda p: p.name
)
def test_a_preset_of_one_kv_head(preset):
    w = {"w_k": draws(8, WIDE, 66), "w_v": draws(9, WIDE, 66)}

    result = attncli.attend(
        attncli.Problem(embeddings=draws(6, N, WIDE), parameters=w), Variant(name=preset.name, heads=2)
    )

    assert result["k"].values.shape == (1, N, 66)
    assert result["weights"].values.shape == (2, N, N)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda p: p.name)
def test_a_preset_asks_for_what_it_cannot_know(preset):
    from attncli.errors import InputError

    for ask in preset.asks:
        answers = {k: v for other in preset.asks if other != ask for k, v in ANSWERS[other].items()}
        with pytest.raises(InputError, match=f"cannot know its {ask}"):
            plan(attncli.Problem(embeddings=draws(6, N, WIDE)), Variant(name=named(preset), **answers))


def test_every_choice_is_described():
    for choice in CHOICES.values():
        assert choice.help
        assert choice.metavar


# ── problems that are met again ──────────────────────────────────────────────────────────────────
def test_an_outline_that_is_remembered_is_the_one_that_would_be_made():
    from attncli.plan import _REMEMBERED, _outlined, outline
    from attncli.validation import admit

    _REMEMBERED.clear()
    variant = Variant(mask="causal", heads=2, softcap=20)
    for n, seed in ((5, 1), (5, 2), (4, 3), (5, 4)):
        tokens = [f"t{seed}{i}" for i in range(n)]
        problem = attncli.Problem(embeddings=draws(seed, n, 6), tokens=tokens, parameters={"w_o": draws(seed, 6, 3)})
        made, anew = outline(problem, variant), _outlined(admit(problem), variant, None, None)

        assert made.tokens == tuple(tokens)
        assert (made.steps, made.keep, made.shapes, made.size) == (anew.steps, anew.keep, anew.shapes, anew.size)
        assert (made.variant, made.summary, made.warnings) == (anew.variant, anew.summary, anew.warnings)
        np.testing.assert_array_equal(made.problem.embeddings, draws(seed, n, 6))
        np.testing.assert_array_equal(made.q_pos, anew.q_pos)
    assert len(_REMEMBERED) == 2


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
            plan(attncli.Problem(embeddings=draws(0, N, 12)), again)
        except attncli.errors.AttnError:
            continue  # it needs something beside
        for seed in (1, 2, 3):
            problem = attncli.Problem(embeddings=draws(seed, N, 12))
            made, anew = attncli.attend(problem, again), attncli.attend(problem, Variant(**choices))
            assert made.variant == anew.variant
            assert [step.name for step in made] == [step.name for step in anew]
            for step in made:
                np.testing.assert_array_equal(step.values, anew[step.name].values, err_msg=str(choices))
            for step in made:
                step.values[:] = 1  # whoever has a result may write on it


def test_what_is_drawn_is_drawn_anew_for_each_problem():
    variant = Variant(projection="linear:dim=4")
    problems = [attncli.Problem(embeddings=draws(1, 5, 6)) for _ in range(3)]

    seeds = {plan(problem, variant).variant["seed"] for problem in problems}

    assert len(seeds) == 3
    masked = attncli.Problem(embeddings=draws(1, 5, 6), mask=np.tri(5, dtype=bool))
    assert plan(masked, Variant()).masked
    assert not plan(problems[0], Variant()).masked
