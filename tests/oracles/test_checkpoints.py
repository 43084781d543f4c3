"""transformers and nn.MultiheadAttention: one layer out of a whole checkpoint gives the model's own attention."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers import assert_close, draw_normal

save_file = pytest.importorskip("safetensors.torch").save_file
B, T, H, G, D, LAYERS = 2, 7, 6, 3, 8, 3  # batch, tokens, heads, kv heads, width of one, layers
HIDDEN = H * D
WIDE = 10  # of a head, where it is not HIDDEN / H
pytestmark = [
    pytest.mark.uncounted,
    pytest.mark.slow,
    pytest.mark.usefixtures("own_stream"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

SMALL = {"hidden_size": HIDDEN, "num_attention_heads": H, "vocab_size": 11, "intermediate_size": 13, "pad_token_id": 0}
SMALL |= {"num_hidden_layers": LAYERS}
GROUPED = SMALL | {"num_key_value_heads": G}
FALCON = {
    "hidden_size": HIDDEN,
    "num_attention_heads": H,
    "num_hidden_layers": LAYERS,
    "vocab_size": 11,
    "alibi": False,
}
GPT2 = {"n_embd": HIDDEN, "n_head": H, "n_layer": LAYERS, "vocab_size": 11, "n_positions": 16}


class Case(NamedTuple):
    """A model, the name of its second layer's attention in its state dict, and the options that compute it."""

    architecture: str
    config: dict[str, Any]
    prefix: str
    options: str
    module: str = ""  # where the model calls it otherwise than its file does


CASES = {
    "llama": Case(
        "LlamaForCausalLM",
        GROUPED | {"head_dim": WIDE, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        "model.layers.1.self_attn",
        "--variant llama3",
    ),
    "llama with biases": Case(
        "LlamaForCausalLM",
        GROUPED | {"attention_bias": True},
        "model.layers.1.self_attn",
        "--variant llama2 --kv-heads 3",
    ),
    "qwen3": Case("Qwen3ForCausalLM", GROUPED | {"head_dim": WIDE}, "model.layers.1.self_attn", "--variant qwen3"),
    "gpt2": Case("GPT2LMHeadModel", GPT2, "transformer.h.1.attn", "--variant gpt2"),
    "bert": Case("BertForMaskedLM", SMALL, "bert.encoder.layer.1.attention", "--variant bert"),
    "gpt-oss": Case(
        "GptOssForCausalLM",
        GROUPED | {"head_dim": WIDE, "num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size": 16},
        "model.layers.1.self_attn",
        "--variant gpt-oss:layer=1",
    ),
    "olmo2": Case("Olmo2ForCausalLM", SMALL, "model.layers.1.self_attn", "--variant olmo2"),
    "opt": Case(
        "OPTForCausalLM",
        {"hidden_size": HIDDEN, "num_attention_heads": H, "num_hidden_layers": LAYERS, "vocab_size": 11, "ffn_dim": 13}
        | {"word_embed_proj_dim": HIDDEN, "max_position_embeddings": 16},
        "model.decoder.layers.1.self_attn",
        "--causal",
    ),
    "mpt": Case(
        "MptForCausalLM",
        {"d_model": HIDDEN, "n_heads": H, "n_layers": LAYERS, "vocab_size": 11, "max_seq_len": 16},
        "transformer.blocks.1.attn",
        "--variant mpt",
    ),
    "vit": Case(
        "ViTModel",
        SMALL | {"image_size": 4, "patch_size": 2},
        "encoder.layer.1.attention",
        "--variant vit",
        "layers.1.attention",
    ),
    "distilbert": Case(
        "DistilBertModel",
        {"dim": HIDDEN, "n_heads": H, "n_layers": LAYERS, "vocab_size": 11, "hidden_dim": 13},
        "transformer.layer.1.attention",
        "",
    ),
    "gpt-neox": Case(
        "GPTNeoXForCausalLM", SMALL, "gpt_neox.layers.1.attention", "--variant gpt-neox --projection given:qkv=h3d"
    ),
    "bloom": Case(
        "BloomForCausalLM",
        {"hidden_size": HIDDEN, "n_head": H, "n_layer": LAYERS, "vocab_size": 11},
        "transformer.h.1.self_attention",
        "--variant bloom --projection given:qkv=h3d",
    ),
    "falcon 7b": Case("FalconForCausalLM", FALCON, "transformer.h.1.self_attention", "--variant falcon"),
    "falcon 40b": Case(
        "FalconForCausalLM",
        FALCON | {"new_decoder_architecture": True, "num_kv_heads": G},
        "transformer.h.1.self_attention",
        "--variant llama2 --projection given:qkv=h3d",
    ),
    "phi3": Case("Phi3ForCausalLM", GROUPED, "model.layers.1.self_attn", "--variant phi3"),
    "modernbert": Case(
        "ModernBertModel",
        SMALL | {"local_attention": 4},
        "layers.1.attn",
        "--variant modernbert:layer=1 --mask window:left=2,right=2",
    ),
    "t5": Case(
        "T5Model",
        {"d_model": HIDDEN, "d_kv": WIDE, "num_heads": H, "d_ff": 13, "num_layers": LAYERS, "vocab_size": 11},
        "encoder.block.0.layer.0.SelfAttention",
        "--variant t5-encoder",
    ),
}


def draw_model(architecture: str, config: dict[str, Any]) -> Any:
    """A model of transformers in float64, with random weights that make uneven attention."""
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, architecture)
    made = kind.config_class(**config)
    made._attn_implementation = made._experts_implementation = "eager"
    torch.manual_seed(6)
    model = kind(made).eval().double()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.3 if p.ndim == 1 else 0.23)
    return model


def watch(model: Any, name: str) -> tuple[Tensor, Tensor]:
    """What goes into the attention module of that name, and what comes out, as the model runs."""
    seen: dict[str, Any] = {}

    def note(module: Any, arguments: Any, named: Any, out: Any) -> None:
        seen["x"] = arguments[0] if arguments else named["hidden_states"]
        seen["out"] = out[0] if isinstance(out, tuple) else out
        seen["residual"] = arguments[1] if len(arguments) > 1 else named.get("residual")

    module = model.get_submodule(name)
    outputs = [] if not hasattr(module, "output") else [module.output.dense]  # what follows is a residual and a norm
    hooks = [module.register_forward_hook(note, with_kwargs=True)]
    hooks += [m.register_forward_hook(lambda m, given, out: seen.update(dense=out)) for m in outputs]
    inputs = torch.as_tensor(draw_normal(120, B, T, HIDDEN))
    with torch.no_grad():
        if type(model).__name__ == "ViTModel":
            model(torch.as_tensor(draw_normal(121, B, 3, 4, 4)))
        elif type(model).__name__ == "T5Model":
            model(inputs_embeds=inputs, decoder_inputs_embeds=inputs)
        else:
            model(inputs_embeds=inputs)
    for hook in hooks:
        hook.remove()
    out = seen.get("dense", seen["out"])
    return seen["x"], out - seen["residual"] if type(module).__name__ == "BloomAttention" else out


@pytest.mark.parametrize("name", CASES)
def test_a_layer_of_a_whole_checkpoint_is_the_models(attn: Any, tmp_path: Any, name: str) -> None:
    case = CASES[name]
    model = draw_model(case.architecture, case.config)
    x, expected = watch(model, case.module or case.prefix)
    model.save_pretrained(tmp_path)
    np.save(tmp_path / "x.npy", x.numpy())

    layer = f"model.safetensors:{case.prefix}"
    done = attn(
        "compute",
        "x.npy",
        "--from-state-dict",
        layer,
        "--heads",
        H,
        *case.options.split(),
        "--only",
        "output",
        "--json",
    )
    assert done.status == 0, done.err
    assert done.err.startswith(f"{case.prefix} of model.safetensors: w_q")
    assert not done.json["warnings"]
    assert float(expected.std()) > 0.1
    assert_close(done.json["output"], expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


LLAMA = CASES["llama"]


def test_a_checkpoint_in_many_files(attn: Any, tmp_path: Any, monkeypatch: Any) -> None:
    """The folder or its index is named; of the other files none is opened, so that they need not be there."""
    model = draw_model(LLAMA.architecture, LLAMA.config)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "split", max_shard_size="20KB")
    index = json.loads((tmp_path / "split/model.safetensors.index.json").read_text())["weight_map"]
    needed = {file for name, file in index.items() if name.startswith(LLAMA.prefix)}
    shards = list((tmp_path / "split").glob("model-*"))
    assert 1 < len(needed) < len(shards)
    for shard in shards:
        if shard.name not in needed:
            shard.unlink()
    np.save(tmp_path / "x.npy", draw_normal(122, T, HIDDEN))

    def output(path: str) -> Any:
        done = attn("compute", "x.npy", "--from-state-dict", f"{path}:{LLAMA.prefix}", "--heads", H, "--rope", "--json")
        assert done.status == 0, done.err
        return done.json["output"]

    whole = output("whole")
    assert output("split") == whole
    assert output("split/model.safetensors.index.json") == whole


def test_what_is_read_is_said_beside_the_heads_of_the_configuration(attn: Any, tmp_path: Any) -> None:
    model = draw_model(LLAMA.architecture, LLAMA.config)
    model.save_pretrained(tmp_path)
    np.save(tmp_path / "x.npy", draw_normal(122, T, HIDDEN))
    done = attn("compute", "x.npy", "--from-state-dict", f"model.safetensors:{LLAMA.prefix}", "--heads", H)
    assert done.err.splitlines() == [
        "model.layers.1.self_attn of model.safetensors: w_q is q_proj.weight (60, 48), out × in; w_k is k_proj.weight (30, 48),"
        " out × in; w_v is v_proj.weight (30, 48), out × in; w_o is o_proj.weight (48, 60), out × in",
        "config.json beside it (model_type llama) says --heads 6 --kv-heads 3",
    ]
    assert "6 heads, 3 kv" in done.out


def test_the_configuration_says_how_an_open_name_is_packed(attn: Any, tmp_path: Any) -> None:
    """What it says is what makes the refused command right."""
    case = CASES["gpt-neox"]
    draw_model(case.architecture, case.config).save_pretrained(tmp_path)
    np.save(tmp_path / "x.npy", draw_normal(122, T, HIDDEN))
    command = ("compute", "x.npy", "--from-state-dict", f"model.safetensors:{case.prefix}")
    refused = attn(*command, "--heads", H)
    assert "error[two-readings]" in refused.err
    said = refused.err.partition("config.json beside it (model_type gpt_neox) says ")[2].splitlines()[0]
    assert said == f"--heads {H} --projection given:qkv=h3d"
    assert attn(*command, *said.split()).status == 0


def test_bfloat16_and_float16_are_widened(attn: Any, tmp_path: Any) -> None:
    """What the file holds is what is computed with: the model rounded, in float32."""
    np.save(tmp_path / "x.npy", draw_normal(122, T, HIDDEN).astype(np.float32))
    for dtype in (torch.bfloat16, torch.float16):
        model = draw_model(LLAMA.architecture, LLAMA.config).to(dtype)
        model.save_pretrained(tmp_path / "narrow")
        model.float().save_pretrained(tmp_path / "wide")
        narrow, wide = (
            attn("compute", "x.npy", "--from-state-dict", f"{name}:{LLAMA.prefix}", "--heads", H, "--json").json
            for name in ("narrow", "wide")
        )
        assert narrow["dtype"] == "float32"
        assert narrow["output"] == wide["output"]
