"""`attn demo` and `attn list`; every preset prints a command line that runs."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import attncli
from tests.helpers import SAMPLES


def test_demo_names_its_examples(attn):
    from attncli.cli.demo import find_samples

    assert set(find_samples()) == {p.stem for p in SAMPLES.glob("*.json")}
    assert "1 cat         0.0629   0.7662   0.1710   1.0000" in attn("demo").out
    assert attn("demo", "cross_attention", "--only", "context", "--json").json["shapes"] == {"context": [2, 2]}


def test_demo_says_what_each_example_is(attn):
    from attncli.cli.demo import find_samples, read_title

    titles = {name: read_title(path) for name, path in find_samples().items()}

    assert titles["cat_sat"] == "Three tokens of four numbers"
    assert titles["journey_two_heads"] == "Two heads with a causal mask and an output projection"
    assert len(set(titles.values())) == len(titles)
    assert all(10 < len(title) < 80 for title in titles.values())
    lines = [line.strip() for line in attn("demo", "--help").out.splitlines()]
    assert "cat_sat                 Three tokens of four numbers" in lines


def test_demo_saves_its_file_once(attn, tmp_path):
    first, second = attn("demo", "cross_attention", "--save"), attn("demo", "cross_attention", "--save")
    elsewhere = attn("demo", "--save", "-o", "mine.json")

    assert (first.status, first.out) == (0, "")
    assert "attn compute cross_attention.json computes it" in first.err
    assert (tmp_path / "cross_attention.json").read_bytes() == (SAMPLES / "cross_attention.json").read_bytes()
    assert (second.status, "error[output-exists]" in second.err) == (2, True)
    assert elsewhere.status == 0
    assert (tmp_path / "mine.json").read_bytes() == (SAMPLES / "cat_sat.json").read_bytes()


def test_every_step_has_a_formula_and_a_sentence_in_order_of_computation(attn):
    from attncli.step_names import STEP_NAMES

    steps = attn("list", "steps", "--json").json["steps"]

    assert set(steps) == set(STEP_NAMES)
    for name, step in steps.items():
        assert step["formula"], name
        assert re.fullmatch("[A-Z−].*[.]", step["summary"]), name
    assert steps["weights"]["axes"] == "batch, head, query, key"
    computed = attn("compute", SAMPLES / "journey_two_heads.json", "--only", "all", "--json").json["axes"]
    in_order = [name for name in steps if name in computed]
    assert in_order == [name for name in computed if name in steps]


@pytest.mark.parametrize(
    ("word", "found", "absent"),
    [
        ("softmax", [("normalizers", "softmax"), ("sinks", "zero"), ("variants", "softmax1")], "masks"),
        ("Beltagy", [("masks", "window"), ("variants", "sliding-window")], "scores"),
        ("mha", [("projections", "torch-mha")], "masks"),
        ("rotary", [("positions", "rope")], "sinks"),
        ("log₂", [("steps", "entropy")], "masks"),
    ],
)
def test_a_word_is_searched_in_names_formulas_and_synonyms(attn, word, found, absent):
    listed = attn("list", word, "--json").json

    assert all(name in listed[family] for family, name in found)
    assert absent not in listed
    unknown = attn("list", "maks")
    assert (unknown.status, "did you mean 'masks'?" in unknown.err) == (2, True)


def test_every_example_of_a_part_can_be_chosen():
    import shlex

    from attncli.catalogue import build_catalogue
    from attncli.variant import FAMILIES

    examples = 0
    for family in FAMILIES.values():
        for name, member in build_catalogue()[family.plural].items():
            if "example" not in member:
                assert family.name == "link", name
                continue
            flag, text = shlex.split(member["example"])
            choice = flag.removeprefix("--").replace("-", "_")
            variant = attncli.Variant(**{choice: text})
            assert name in str(variant[choice]) or family.name == "link", name
            examples += 1
    assert examples > 50


def test_list_is_the_manual(attn):
    from attncli.catalogue import build_catalogue

    whole, masks, window, machine = (
        attn("list"),
        attn("list", "masks"),
        attn("list", "mask", "window"),
        attn("list", "--json"),
    )

    for family, members in build_catalogue().items():
        assert family in whole.out
        for name in members:
            assert re.search(rf"^  {re.escape(name)} ", whole.out, re.MULTILINE), name
    assert "−left ≤ j − i ≤ right" in masks.out
    assert "option: left=integer ≥ -1, default -1" in window.out
    assert "source: Beltagy et al. 2020, §3.1" in window.out
    assert "causal" not in window.out
    assert machine.json == build_catalogue()
    assert "  safetensors  .safetensors, only to a file\n" in attn("list", "formats").out


@pytest.mark.parametrize("name", ["simplified", "self-attention", "causal"])
def test_a_preset_prints_a_command_line_that_runs(attn, name):
    import shlex

    [line] = [line for line in attn("list", "variants", name).out.splitlines() if "attn compute" in line]
    words = shlex.split(line.partition("attn ")[2].replace("INPUT", str(SAMPLES / "tokens.csv")))

    typed, named = (
        attn(*words, "--json").json,
        attn("compute", SAMPLES / "tokens.csv", "--variant", name, "--json").json,
    )

    assert {k: v for k, v in typed.items() if k != "variant"} == {k: v for k, v in named.items() if k != "variant"}


def test_sugar_adds_to_the_mask(attn):
    done = attn("compute", SAMPLES / "journey_two_heads.json", "--window", "1,0", "--json").json

    assert done["variant"]["mask"] == "causal and window:left=1,right=0"
    assert done["weights"][0][3][:2] == [0.0, 0.0]


def _presets():
    from attncli.presets import PRESETS

    return PRESETS.values()


@pytest.mark.parametrize("preset", _presets(), ids=lambda p: p.name)
def test_every_preset_prints_a_command_line_that_pastes(attn, tmp_path, preset):
    import shlex

    from attncli.presets import preset_choices
    from tests.laws.problems import WIDE, parameters_for

    layer = 2 if preset.layer_choices else None
    chosen = attncli.Variant(**preset_choices(preset, layer) | {"heads": 2})
    learned = parameters_for(chosen, WIDE)
    if chosen["kv_heads"] == 1:
        learned |= {"w_k": np.ones((WIDE, WIDE // 2)), "w_v": np.ones((WIDE, WIDE // 2))}
    problem = {
        "embeddings": np.random.default_rng(0).normal(size=(4, WIDE)).tolist(),
        "parameters": {k: v.tolist() for k, v in learned.items()},
    }
    if "given" in str(chosen["mask"]):
        problem["mask"] = np.tri(4, dtype=bool).tolist()
    (tmp_path / "p.json").write_text(json.dumps(problem))
    (tmp_path / "memory.json").write_text(json.dumps({"memory": {"embeddings": np.ones((3, WIDE)).tolist()}}))
    name = preset.name if layer is None else f"{preset.name}:layer={layer}"

    [line] = [line for line in attn("list", "variants", name).out.splitlines() if "attn compute" in line]
    line = (
        line.partition("attn ")[2]
        .replace("LEFT,RIGHT", "1,0")
        .replace("--kv-heads G", "--kv-heads 2")
        .replace("--heads H", "--heads 2")
    )
    words = shlex.split(line.replace("INPUT", "p.json").replace("=FILE", "=memory.json"))
    pasted = attn(*words, *([] if "--heads" in words else ["--heads", "2"]), "--json", "--only", "weights")

    assert pasted.status == 0, pasted.err
    assert np.isfinite(pasted.json["weights"]).all()


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        (["list", "examples"], "attn demo computes the first"),
        (["demo", "qqqq"], "cat_sat (Three tokens of four numbers)"),
        (["demo", "cat_sat", "--at", "query=0,2"], "one --at for each: --at query=0 --at query=2"),
        (["demo", "cat_sat", "--at", "head=0,1"], "one --at for each: --at head=0 --at head=1"),
        (["demo", "cat_sat", "--mask", "none"], "did you mean 'full'?"),
        (["plot", "x.csv", "--kind", "entropy"], "--only entropy draws that step"),
    ],
)
def test_what_is_asked_for_by_another_way_is_shown_its_own(attn, words, way_out):
    refused = attn(*words)

    assert refused.status == 2 or "query=0,2" in words
    assert way_out in refused.err
