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
