"""Presets say what the configurations of transformers say."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from attncli.mask_expression import parse_expression
from attncli.parts.masks import mask
from attncli.presets import PRESETS, preset_choices
from attncli.types import Grid

LAYERS = range(8)  # more than the longest period, 6
CONFIGS = {
    "bert": "BertConfig", "vit": "ViTConfig", "gpt2": "GPT2Config", "gpt-neo": "GPTNeoConfig", "t5": "T5Config",
    "bloom": "BloomConfig", "mpt": "MptConfig", "falcon": "FalconConfig", "gptj": "GPTJConfig",
    "gpt-neox": "GPTNeoXConfig", "llama2": "LlamaConfig", "mistral": "MistralConfig", "mixtral": "MixtralConfig",
    "phi3": "Phi3Config", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config", "olmo2": "Olmo2Config",
    "deepseek-v3": "DeepseekV3Config", "modernbert": "ModernBertConfig", "gemma2": "Gemma2Config",
    "gemma3": "Gemma3TextConfig", "olmo3": "Olmo3Config", "cohere2": "Cohere2Config", "smollm3": "SmolLM3Config",
    "gpt-oss": "GptOssConfig", "diffllama": "DiffLlamaConfig",
}  # fmt: skip


LLAMA3_1 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}


LLAMA3_1 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # the released config.json


DEEPSEEK = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "original_max_position_embeddings": 4096}


DEEPSEEK |= {"beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}  # likewise


SPELLED = {
    "rope_theta": "theta", "rope_type": "scaling", "factor": "factor", "low_freq_factor": "low", "beta_fast": "beta-fast",
    "high_freq_factor": "high", "original_max_position_embeddings": "original", "beta_slow": "beta-slow",
    "mscale": "mscale", "mscale_all_dim": "mscale-all-dim", "truncate": "truncate", "partial_rotary_factor": "fraction",
}  # fmt: skip


NEUTRAL = {"scaling": "default", "fraction": 1.0}


@pytest.fixture
def config():
    """The configuration of a model with its defaults: config("gemma2"), config("falcon", alibi=True)."""
    transformers = pytest.importorskip("transformers")
    return lambda name, **options: getattr(transformers, CONFIGS[name])(**options)


def layers_of(name):
    """(n, choices) of the first layers; n is 0 where they do not differ."""
    preset = PRESETS[name]
    return [
        (n, preset_choices(preset, n if preset.layer_choices else None))
        for n in (LAYERS if preset.layer_choices else (0,))
    ]


def options(part: str) -> dict[str, object]:
    """`rope:theta=10000,layout=half` → {"theta": 10000.0, "layout": "half"}."""
    pairs = (pair.split("=") for pair in part.partition(":")[2].split(",") if pair)
    return {k: float(v) if v.replace(".", "").isdigit() else v == "yes" if v in ("yes", "no") else v for k, v in pairs}


def rotation(part: str) -> dict[str, object]:
    """Our RoPE, without the layout and the number of columns, which configurations say elsewhere or not at all."""
    assert part.partition(":")[0] == "rope"
    return {k: v for k, v in options(part).items() if k not in ("layout", "dims")}


def in_our_words(parameters) -> dict[str, object]:
    """transformers' `rope_parameters`."""
    told = {SPELLED[k]: v for k, v in parameters.items() if v is not None}
    return {k: v for k, v in told.items() if NEUTRAL.get(k) != v}


def reaches(text: str, queries, keys):
    """Who sees whom under one of our masks: (queries, keys)."""
    i, j = np.array(queries).reshape(1, 1, -1, 1), np.array(keys).reshape(1, 1, 1, -1)
    at = Grid(q_pos=i, k_pos=j, q_idx=i, k_idx=j, key_count=len(keys))
    return np.broadcast_to(parse_expression(text, mask)(at), (1, 1, len(queries), len(keys)))[0, 0]


def theirs(function, queries, keys):
    """The same under one of transformers' mask functions."""
    import torch

    i, j = torch.tensor(queries).reshape(-1, 1), torch.tensor(keys).reshape(1, -1)
    return function(0, 0, i, j).expand(len(queries), len(keys)).numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("falcon", "gpt-neox", "llama2", "mistral", "mixtral", "phi3", "qwen2", "qwen3", "olmo2", "gemma2", "gpt-oss"),
        "diffllama",
    ],
)
def test_rope_is_that_of_the_configuration(name, config):
    expected = in_our_words(config(name).rope_parameters)

    for _, choices in layers_of(name):
        assert rotation(choices["position"]) == expected


@pytest.mark.parametrize("name", ["modernbert", "gemma3", "olmo3"])
def test_rope_of_each_kind_of_layer(name, config):
    c = config(name)

    for n, choices in layers_of(name):
        assert rotation(choices["position"]) == in_our_words(c.rope_parameters[c.layer_types[n]])


def test_layers_without_position(config):
    smollm3, cohere2 = config("smollm3"), config("cohere2")

    for n, choices in layers_of("smollm3"):
        assert (choices["position"] == "none") == (not smollm3.no_rope_layers[n])
        assert choices["position"] == "none" or rotation(choices["position"]) == in_our_words(smollm3.rope_parameters)
        assert smollm3.layer_types[n] == "full_attention"
    for n, choices in layers_of("cohere2"):
        assert (choices["position"] == "none") == (cohere2.layer_types[n] == "full_attention")
        assert choices["position"] == "none" or rotation(choices["position"]) == in_our_words(cohere2.rope_parameters)


def test_rope_of_released_llamas(config):
    assert config("llama2", rope_parameters=LLAMA3_1).rope_parameters == LLAMA3_1  # it knows all these names
    assert rotation(PRESETS["llama3.1"].choices["position"]) == in_our_words(LLAMA3_1)
    assert rotation(PRESETS["llama3"].choices["position"]) == {"theta": LLAMA3_1["rope_theta"]}


def test_deepseek_is_the_released_model(config):
    module = import_module("transformers.models.deepseek_v3.modeling_deepseek_v3")
    c = config("deepseek-v3", rope_parameters=dict(DEEPSEEK))
    choices = PRESETS["deepseek-v3"].choices

    assert choices["scale"] == pytest.approx(
        module.yarn_apply_mscale(c.rope_parameters, c.qk_head_dim**-0.5), rel=1e-15
    )
    assert rotation(choices["position"]) == in_our_words(DEEPSEEK)
    assert options(choices["position"])["dims"] == c.qk_rope_head_dim
    assert c.rope_interleave
    assert options(choices["position"])["layout"] == "interleaved"


@pytest.mark.parametrize(
    ("name", "module"),
    [(n, n) for n in ("falcon", "mistral", "mixtral", "phi3", "qwen2", "qwen3", "olmo2", "olmo3", "gemma2", "gemma3")]
    + [("llama2", "llama"), ("gpt-neox", "gpt_neox"), ("gpt-oss", "gpt_oss"), ("gptj", "gptj"), ("cohere2", "cohere2")]
    + [("smollm3", "smollm3"), ("modernbert", "modernbert"), ("diffllama", "diffllama")],
)  # fmt: skip
def test_which_columns_rope_pairs(name, module, config):
    import torch

    modeling = import_module(f"transformers.models.{module}.modeling_{module}")
    x = torch.arange(1.0, 9).reshape(1, 1, 1, 8)
    if name == "gpt-oss":  # at a quarter turn: cos = 0, sin = 1
        turned = modeling._apply_rotary_emb(x, torch.zeros(4), torch.ones(4))
    else:
        turned = modeling.rotate_every_two(x) if name == "gptj" else modeling.rotate_half(x)
    partner = int(abs(turned.flatten()[0])) - 1  # the column that column 0 is turned with

    layouts = {options(c["position"]).get("layout", "half") for _, c in layers_of(name) if c["position"] != "none"}
    assert layouts == {"interleaved" if partner == 1 else "half"}


def test_partial_rotation(config):
    assert options(PRESETS["gptj"].choices["position"])["dims"] == config("gptj").rotary_dim
    assert options(PRESETS["gpt-neox"].choices["position"])["fraction"] == 0.25


# The queries and keys of these grids lie on both sides of every bound there is, the widest being 4096.
QUERIES = [0, 1, 63, 64, 127, 128, 300, 4095, 4096, 4097, 5000]
KEYS = list(range(5200))


@pytest.mark.parametrize(
    "name",
    [n for n in CONFIGS if n not in ("bert", "vit", "t5", "gpt-neo")],  # those see all, or have another way to say it
)
def test_masks_of_every_layer(name, config):
    masking = pytest.importorskip("transformers.masking_utils")
    c = config(name)
    everything, windowed = masking.causal_mask_function, masking.sliding_window_causal_mask_function
    if name == "modernbert":
        everything, windowed = masking.bidirectional_mask_function, masking.sliding_window_bidirectional_mask_function
    window = getattr(c, "sliding_window", None)
    kinds = getattr(c, "layer_types", None) or ["sliding_attention" if window else "full_attention"] * len(LAYERS)

    for n, choices in layers_of(name):
        expected = windowed(window) if kinds[n] == "sliding_attention" else everything
        np.testing.assert_array_equal(reaches(choices["mask"], QUERIES, KEYS), theirs(expected, QUERIES, KEYS))


@pytest.mark.parametrize("name", ["modernbert", "gemma2", "gemma3", "olmo3", "cohere2", "gpt-oss"])
def test_the_pattern_of_layers_holds_to_the_last(name, config):
    kinds = config(name).layer_types
    masks = [preset_choices(PRESETS[name], n)["mask"] for n in range(len(kinds))]

    assert ["window" in text for text in masks] == [kind == "sliding_attention" for kind in kinds]


@pytest.mark.parametrize("name", ["qwen2", "qwen3"])
def test_layers_that_do_not_differ(name, config):
    assert set(config(name).layer_types) == {"full_attention"}
    assert PRESETS[name].layer_choices is None


def test_gpt_neo(config):
    c = config("gpt-neo")

    for n, choices in layers_of("gpt-neo"):
        assert choices["scale"] == "none"
        assert choices["mask"] == {
            "global": "causal", "local": f"causal and window:left={c.window_size - 1}"
        }[c.attention_layers[n]]  # fmt: skip


def test_t5(config):
    c = config("t5")
    expected = {"buckets": c.relative_attention_num_buckets, "max-distance": c.relative_attention_max_distance}

    for name, both_ways in (("t5", True), ("t5-encoder", True), ("t5-decoder", False)):
        choices = PRESETS[name].choices
        assert options(choices["position"]) == {**expected, "bidirectional": both_ways}
        assert choices["scale"] == "none"
        assert choices.get("mask", "full") == ("full" if both_ways else "causal")


def test_alibi(config):
    assert options(PRESETS["mpt"].choices["position"])["max"] == config("mpt").attn_config.alibi_bias_max
    assert config("mpt").attn_config.alibi
    assert config("mpt").attn_config.softmax_scale is None  # 1/√d
    assert config("mpt").attn_config.clip_qkv is None
    assert config("falcon", alibi=True).rotary is False
    assert "kv_heads" not in PRESETS["falcon-alibi"].choices  # Falcon RW has all of them
    assert PRESETS["falcon-alibi"].choices["chain"].split(",") == ["position", "scale", "mask"]


def test_falcon_has_one_key_head(config):
    assert config("falcon").multi_query
    assert not config("falcon").new_decoder_architecture
    assert not config("falcon").alibi
    assert PRESETS["falcon"].choices["kv_heads"] == 1


@pytest.mark.parametrize(
    ("name", "scope"), [("qwen3", "head"), ("gemma3", "head"), ("olmo2", "full"), ("olmo3", "full")]
)
def test_norms_of_q_and_k(name, scope, config):
    for _, choices in layers_of(name):
        part, _, _ = choices["qk_norm"].partition(":")
        told = dict(pair.split("=") for pair in choices["qk_norm"].partition(":")[2].split(","))
        assert (part, told["scope"], told["at"]) == ("rms", scope, "before")
        assert float(told["eps"]) == config(name).rms_norm_eps


@pytest.mark.parametrize("name", CONFIGS)
def test_only_those_with_norms_have_norms(name):
    normed = name in ("qwen3", "gemma3", "olmo2", "olmo3")

    assert all(("qk_norm" in choices) == normed for _, choices in layers_of(name))


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_scale_and_cap_of_gemma(name, config):
    c = config(name)

    assert c.query_pre_attn_scalar == c.head_dim  # so 1/√d of a head is its scale
    for _, choices in layers_of(name):
        assert "scale" not in choices
        assert choices.get("softcap") == c.attn_logit_softcapping


def test_gpt2_is_scaled_by_its_width_alone(config):
    c = config("gpt2")

    assert c.scale_attn_weights
    assert not c.scale_attn_by_inverse_layer_idx


def test_sinks_are_given_to_gpt_oss_alone():
    assert {n for n in CONFIGS for _, choices in layers_of(n) if "sink" in choices} == {"gpt-oss"}


@pytest.mark.parametrize(("name", "pairing"), [("differential", "adjacent"), ("diffllama", "halves")])
def test_differential_attention_knows_its_depth(name, pairing):
    for n, choices in layers_of(name):
        assert choices["head_mixing"] == f"differential:pairing={pairing},depth={n}"


def test_sparse_masks_have_the_settings_of_their_models():
    transformers = pytest.importorskip("transformers")
    longformer, bigbird = transformers.LongformerConfig(), transformers.BigBirdConfig()

    half = longformer.attention_window // 2
    assert PRESETS["longformer-like"].choices["mask"] == f"window:left={half},right={half} or global:tokens=0"
    assert options(PRESETS["bigbird"].choices["mask"]) == {
        "block": bigbird.block_size, "window": 3, "global": 2, "random": bigbird.num_random_blocks, "seed": 0
    }  # fmt: skip
    assert options(PRESETS["natten"].choices["mask"]) == {"kernel": transformers.DinatConfig().kernel_size}
