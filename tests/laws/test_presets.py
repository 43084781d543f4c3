"""Presets: their names, entries and expansions."""

from __future__ import annotations

import numpy as np
import pytest

import attncli
from attncli.errors import OptionError
from attncli.plan import make_plan
from attncli.presets import PRESETS, parse_preset_name, preset_choices
from attncli.variant import CHOICES, Variant
from tests.helpers import draw_normal
from tests.laws.problems import ANSWERS, WIDE, parameters_for, preset_name

LAYERS = range(8)  # more than the longest period, 6
EVERY = [
    pytest.param(p, n, id=p.name if n is None else f"{p.name}:layer={n}")
    for p in PRESETS.values()
    for n in (LAYERS if p.layer_choices else (None,))
]
N, M, D, H, B = 7, 5, 30, 3, 2  # queries, keys of a memory, width, heads, batch; 30 = 3 heads of 10


@pytest.mark.parametrize(
    "preset", [p for p in PRESETS.values() if p.choices.get("kv_heads") != 1], ids=lambda p: p.name
)
def test_a_preset_is_its_expansion(preset):
    answers = {k: v for ask in preset.required_choices for k, v in ANSWERS[ask].items()} | {"heads": 2}
    chosen = preset_choices(preset, 3 if preset.layer_choices else None) | answers
    memory = {"embeddings": draw_normal(7, M, WIDE)} if "memory" in preset.required_choices else None
    mask = np.tri(N, dtype=bool) if "given" in str(chosen.get("mask")) else None
    learned = parameters_for(Variant(**chosen), WIDE)
    problem = attncli.Problem(embeddings=draw_normal(6, N, WIDE), memory=memory, mask=mask, parameters=learned)
    align = {"align": "top-left"}

    called = attncli.attend(problem, Variant(name=preset_name(preset), **answers, **align))
    spelled = attncli.attend(problem, Variant(**chosen, **align))

    assert called.variant["name"] == preset_name(preset)
    assert {k: v for k, v in called.variant.items() if k != "name"} == spelled.variant
    for one, other in zip(called, spelled, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize(
    "preset", [p for p in PRESETS.values() if p.choices.get("kv_heads") == 1], ids=lambda p: p.name
)
def test_a_preset_of_one_kv_head(preset):
    w = {"w_k": draw_normal(8, WIDE, 66), "w_v": draw_normal(9, WIDE, 66)}

    result = attncli.attend(
        attncli.Problem(embeddings=draw_normal(6, N, WIDE), parameters=w), Variant(name=preset.name, heads=2)
    )

    assert result["k"].values.shape == (1, N, 66)
    assert result["weights"].values.shape == (2, N, N)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda p: p.name)
def test_a_preset_asks_for_what_it_cannot_know(preset):
    from attncli.errors import InputError

    for ask in preset.required_choices:
        answers = {k: v for other in preset.required_choices if other != ask for k, v in ANSWERS[other].items()}
        with pytest.raises(InputError, match=f"needs a .*{ask.partition('_')[0]}"):
            make_plan(attncli.Problem(embeddings=draw_normal(6, N, WIDE)), Variant(name=preset_name(preset), **answers))


def test_every_choice_is_described():
    for choice in CHOICES.values():
        assert choice.help
        assert choice.metavar


# ── names ────────────────────────────────────────────────────────────────────────────────────────
def test_a_name_may_carry_a_layer():
    assert parse_preset_name("bert") == (PRESETS["bert"], None)
    assert parse_preset_name("gemma2") == (PRESETS["gemma2"], None)
    assert parse_preset_name("gemma2:layer=3") == (PRESETS["gemma2"], 3)
    assert parse_preset_name("gemma2: layer = 0") == (PRESETS["gemma2"], 0)


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("gema2", "unknown-variant", "did you mean 'gemma2'?"),
        ("gema2:layer=3", "unknown-variant", "did you mean 'gemma2'?"),
        ("", "unknown-variant", ""),
        ("gemma2:", "bad-option", "gemma2:layer=0"),
        ("gemma2:3", "bad-option", "gemma2:layer=0"),
        ("gemma2:layr=3", "unknown-option", "did you mean 'layer'?"),
        ("gemma2:layer=", "bad-option", ""),
        ("gemma2:layer=x", "bad-option", ""),
        ("gemma2:layer=1.5", "bad-option", ""),
        ("gemma2:layer=1,layer=2", "bad-option", ""),
        ("gemma2:layer=-1", "out-of-range", ""),
        (f"gemma2:layer={'9' * 5000}", None, ""),
    ],
)
def test_what_is_no_name(text, code, says):
    with pytest.raises(OptionError) as caught:
        parse_preset_name(text)

    assert code in (None, caught.value.code)
    assert says in caught.value.help


def test_a_layer_is_asked_for_where_layers_differ_and_only_there():
    with pytest.raises(OptionError, match="'gemma2' differ") as missing:
        preset_choices(*parse_preset_name("gemma2"))
    with pytest.raises(OptionError, match="'bert' are all alike") as needless:
        preset_choices(*parse_preset_name("bert:layer=0"))

    assert (missing.value.code, needless.value.code) == ("missing-layer", "bad-option")
    assert "gemma2:layer=0" in missing.value.help


def test_a_layer_adds_to_what_all_layers_share():
    even, odd = (preset_choices(*parse_preset_name(f"gemma2:layer={n}")) for n in (0, 1))

    assert even == {"position": "rope:theta=10000", "softcap": 50, "mask": "causal and window:left=4095"}
    assert odd == {"position": "rope:theta=10000", "softcap": 50, "mask": "causal"}


def test_choices_are_a_copy():
    preset_choices(PRESETS["bert"], None)["mask"] = "causal"

    assert preset_choices(PRESETS["bert"], None) == {}


# ── entries ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda p: p.name)
def test_an_entry_reads_well_and_holds_no_sizes(preset):
    assert preset.name == preset.name.lower()
    assert preset.source
    assert not preset.summary.endswith(".")
    assert "\n" not in preset.summary + preset.source
    assert set(preset.required_choices) <= {"heads", "kv_heads", "memory", "window"}
    for n in LAYERS if preset.layer_choices else (None,):
        choices = preset_choices(preset, n)
        assert "heads" not in choices
        assert choices.get("kv_heads", 1) == 1  # multi-query is a mechanism, eight key heads are a size
        assert not set(preset.required_choices) & set(choices)


@pytest.mark.parametrize(("preset", "layer"), EVERY)
def test_every_preset_builds_a_variant_that_reads_back(preset, layer):
    variant = Variant(**preset_choices(preset, layer))

    assert Variant(**variant.describe()) == variant
