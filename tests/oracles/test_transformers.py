"""transformers: eager attention of small random models, layer by layer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import attncli
from tests.helpers import assert_close, compute, draw_normal, step_values

pytestmark = [pytest.mark.usefixtures("own_stream"), pytest.mark.slow]
B, H, G, N, M, D, E, C = 2, 6, 3, 4, 5, 8, 7, 9  # batch, heads, kv heads, queries, keys, width of q, of another k, of v


# Everything runs through the model: its masks, positions, norms and projections. Its softmax and rotations are
# float32, so what it finds is compared within 2e-5 of the largest there is.
HIDDEN, VOCABULARY, TOKENS = H * D, 11, 7


def model_of(name: str, **options: Any) -> Any:
    """A model of transformers with random weights that make uneven attention."""
    transformers = pytest.importorskip("transformers")
    stem = name.removesuffix("Model").removesuffix("Encoder")
    config = getattr(transformers, {"Gemma3Text": "Gemma3TextConfig"}.get(stem, f"{stem}Config"))(**options)
    config._attn_implementation = "eager"
    torch.manual_seed(5)
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            spread = 0.3 if p.ndim == 1 else 1.6 / math.sqrt(HIDDEN)
            p.normal_(0, spread)
            if p.ndim == 1 and "norm" in key.lower() and not name.startswith("Gemma"):
                p += 1
    return model


def watched(model: Any, kind: str, **inputs: Any) -> list[tuple[Any, Tensor, tuple[Tensor, ...], dict[str, Any]]]:
    """(module, what goes in, what comes out, with what) of every attention of that kind."""
    found: list[tuple[Any, Tensor, tuple[Tensor, ...], dict[str, Any]]] = []

    def note(module: Any, arguments: Any, named: Any, out: Any) -> None:
        found.append((module, arguments[0] if arguments else named["hidden_states"], out, {**named, "args": arguments}))

    hooks = [m.register_forward_hook(note, with_kwargs=True) for m in model.modules() if type(m).__name__ == kind]
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    assert found
    return found


def linear(parameters: dict[str, Tensor], letter: str, weight: Tensor, bias: Tensor | None) -> None:
    parameters[f"w_{letter}"] = weight.detach().double()
    if bias is not None:
        parameters[f"b_{letter}"] = bias.detach().double()


def projections(m: Any, heads: int, kv_heads: int) -> dict[str, Tensor]:
    """The parameters of an attention module, however it packs them."""
    p: dict[str, Tensor] = {}
    out = next(
        getattr(m, n)
        for n in ("o_proj", "out_proj", "dense", "Wo", "c_proj", "o", "none")
        if hasattr(m, n) or n == "none"
    )
    packed = next((getattr(m, n) for n in ("query_key_value", "Wqkv", "qkv_proj", "c_attn") if hasattr(m, n)), None)
    if packed is None:
        for letter, named in zip("qkv", (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v")), strict=True):
            module = next(getattr(m, n) for n in named if hasattr(m, n))
            linear(p, letter, module.weight, module.bias)
    else:
        turned = type(packed).__name__ == "Conv1D"  # GPT-2's (in, out)
        weight, bias = packed.weight.T if turned else packed.weight, getattr(packed, "bias", None)
        d = weight.shape[0] // (heads + 2 * kv_heads)
        kind = type(m).__name__
        if kind in ("BloomAttention", "GPTNeoXAttention") or (kind == "FalconAttention" and kv_heads == heads):
            rows = [torch.arange(weight.shape[0]).reshape(heads, 3, d)[:, n].flatten() for n in range(3)]
        else:  # all of q, then all of k, then all of v
            rows = list(torch.arange(weight.shape[0]).split([heads * d, kv_heads * d, kv_heads * d]))
        for letter, where in zip("qkv", rows, strict=True):
            linear(p, letter, weight[where], None if bias is None else bias[where])
    linear(p, "o", out.weight.T if type(out).__name__ == "Conv1D" else out.weight, getattr(out, "bias", None))
    plus = 1 if type(m).__name__.startswith("Gemma3") else 0
    for name in ("q_norm", "k_norm"):
        if hasattr(m, name):
            p[name] = getattr(m, name).weight.detach().double() + plus
    if hasattr(m, "sinks"):
        p["sinks"] = m.sinks.detach().double()
    return p


SMALL = {
    "hidden_size": HIDDEN,
    "num_attention_heads": H,
    "vocab_size": VOCABULARY,
    "intermediate_size": 13,
    "pad_token_id": 0,
}


TWO = SMALL | {"num_hidden_layers": 2}
GROUPED = TWO | {"num_key_value_heads": G, "head_dim": D}


ROPED = {"rope_theta": 10000.0, "rope_type": "default"}


LLAMA31 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}


LLAMA31 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


WINDOWED = {"mask": "causal and window:left=2"}  # 3 keys, its own among them


MODELS: dict[
    str, tuple[str, str, dict[str, Any], Any]
] = {  # model, attention, configuration, layer → (preset, choices)
    "llama2": ("LlamaModel", "LlamaAttention", TWO, lambda n: ("llama2", {})),
    "llama3": (
        "LlamaModel",
        "LlamaAttention",
        GROUPED | {"rope_parameters": ROPED | {"rope_theta": 500000.0}, "attention_bias": True},
        lambda n: ("llama3", {}),
    ),
    "llama3.1": ("LlamaModel", "LlamaAttention", GROUPED | {"rope_parameters": LLAMA31}, lambda n: ("llama3.1", {})),
    "mistral": ("MistralModel", "MistralAttention", GROUPED | {"sliding_window": 3}, lambda n: ("mistral", WINDOWED)),
    "qwen2": ("Qwen2Model", "Qwen2Attention", TWO | {"num_key_value_heads": G}, lambda n: ("qwen2", {})),
    "qwen3": ("Qwen3Model", "Qwen3Attention", GROUPED, lambda n: ("qwen3", {})),
    "olmo2": ("Olmo2Model", "Olmo2Attention", TWO, lambda n: ("olmo2", {})),
    "gemma2": (
        "Gemma2Model",
        "Gemma2Attention",
        GROUPED | {"sliding_window": 3, "query_pre_attn_scalar": D},
        lambda n: (f"gemma2:layer={n}", WINDOWED if n == 0 else {}),
    ),
    "gemma2 with another cap": (
        "Gemma2Model",
        "Gemma2Attention",
        GROUPED | {"sliding_window": 3, "query_pre_attn_scalar": 2, "attn_logit_softcapping": 1.5},
        lambda n: (f"gemma2:layer={n}", (WINDOWED if n == 0 else {}) | {"softcap": 1.5, "scale": 2**-0.5}),
    ),
    "gemma3": (
        "Gemma3TextModel",
        "Gemma3Attention",
        GROUPED | {"sliding_window": 3, "query_pre_attn_scalar": D, "num_hidden_layers": 6},
        lambda n: (f"gemma3:layer={n}", WINDOWED if n < 5 else {}),
    ),
    "gpt-oss": (
        "GptOssModel",
        "GptOssAttention",
        GROUPED | {"sliding_window": 3, "num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size": 16},
        lambda n: (f"gpt-oss:layer={n}", WINDOWED if n == 0 else {}),
    ),
    "cohere2": (
        "Cohere2Model",
        "Cohere2Attention",
        GROUPED | {"sliding_window": 3, "num_hidden_layers": 4},
        lambda n: (f"cohere2:layer={n}", WINDOWED if n < 3 else {}),
    ),
    "smollm3": (
        "SmolLM3Model",
        "SmolLM3Attention",
        GROUPED | {"num_hidden_layers": 4},
        lambda n: (f"smollm3:layer={n}", {}),
    ),
    "phi3": ("Phi3Model", "Phi3Attention", TWO | {"num_key_value_heads": G}, lambda n: ("phi3", {})),
    "modernbert": (
        "ModernBertModel",
        "ModernBertAttention",
        SMALL | {"num_hidden_layers": 4, "local_attention": 4},
        lambda n: (f"modernbert:layer={n}", {"mask": "window:left=2,right=2"} if n % 3 else {}),
    ),
    "gpt-neox": ("GPTNeoXModel", "GPTNeoXAttention", TWO, lambda n: ("gpt-neox", {})),
    "gptj": (
        "GPTJModel",
        "GPTJAttention",
        {"n_embd": HIDDEN, "n_head": H, "n_layer": 2, "vocab_size": VOCABULARY, "rotary_dim": 4, "n_positions": 16},
        lambda n: ("gptj", {"position": "rope:theta=10000,layout=interleaved,dims=4"}),
    ),
    "gpt2": (
        "GPT2Model",
        "GPT2Attention",
        {"n_embd": HIDDEN, "n_head": H, "n_layer": 2, "vocab_size": VOCABULARY, "n_positions": 16},
        lambda n: ("gpt2", {}),
    ),
    "bloom": (
        "BloomModel",
        "BloomAttention",
        {"hidden_size": HIDDEN, "n_head": H, "n_layer": 2, "vocab_size": VOCABULARY},
        lambda n: ("bloom", {}),
    ),
    "mpt": (
        "MptModel",
        "MptAttention",
        {"d_model": HIDDEN, "n_heads": H, "n_layers": 2, "vocab_size": VOCABULARY, "max_seq_len": 16},
        lambda n: ("mpt", {}),
    ),
    "falcon": ("FalconModel", "FalconAttention", TWO, lambda n: ("falcon", {})),
    "falcon-alibi": (
        "FalconModel",
        "FalconAttention",
        TWO | {"alibi": True, "multi_query": False},
        lambda n: ("falcon-alibi", {}),
    ),
}


def held(result: attncli.Attention, weights: Tensor, output: Tensor, tolerance: float = 2e-5) -> None:
    """A model's weights and output are ours."""
    assert_close(step_values(result, "weights"), weights.double(), rtol=0, atol=tolerance)
    assert_close(step_values(result, "output"), output.double(), rtol=0, atol=tolerance * float(output.abs().max()))
    assert float(weights.std()) > 0.03  # nothing of it is uniform
    assert not [w for w in result.warnings if not w.startswith("unused-field")]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # transformers, on its own names
@pytest.mark.parametrize("name", MODELS)
def test_eager_attention_of_models(name: str) -> None:
    architecture, kind, options, choose = MODELS[name]
    model = model_of(architecture, **options)
    x = torch.as_tensor(draw_normal(110, B, TOKENS, HIDDEN), dtype=torch.float32)
    layers = watched(model, kind, inputs_embeds=x, output_attentions=True)

    for n, (module, given, out, told) in enumerate(layers):
        preset, choices = choose(n)
        kv_heads = {"falcon": 1}.get(name) or options.get("num_key_value_heads", H)
        parameters = projections(module, H, kv_heads)
        if name == "falcon-alibi":  # its model hands ALiBi to SDPA in the mask, and the eager path adds it once more
            causal = torch.full((TOKENS, TOKENS), torch.finfo(torch.float32).min).triu(1)
            with torch.no_grad():
                out = module(given, alibi=told["alibi"], attention_mask=causal, output_attentions=True)
        output = out[0]
        if name == "bloom":  # what it adds to the residual
            output = output - told["args"][1]
        fields = {"embeddings": given.double(), "parameters": parameters, "w_layout": "out-in"}
        result = compute(fields, name=preset, heads=H, kv_heads=kv_heads, **choices)
        # transformers rounds Falcon's ALiBi to bfloat16
        held(result, out[1], output, 5e-3 if name == "falcon-alibi" else 2e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_eager_attention_of_bert() -> None:
    model = model_of("BertModel", **TWO)
    x = torch.as_tensor(draw_normal(111, B, TOKENS, HIDDEN), dtype=torch.float32)
    for module, given, out, _ in watched(model, "BertSelfAttention", inputs_embeds=x, output_attentions=True):
        p: dict[str, Tensor] = {}
        for letter, one in zip("qkv", (module.query, module.key, module.value), strict=True):
            linear(p, letter, one.weight, one.bias)
        result = compute({"embeddings": given.double(), "parameters": p, "w_layout": "out-in"}, name="bert", heads=H)
        assert_close(step_values(result, "weights"), out[1].double(), rtol=0, atol=2e-5)
        assert_close(step_values(result, "context"), out[0].double(), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_eager_attention_of_t5() -> None:
    """Encoder, decoder and, as `cross`, what joins them; the table stands in the first layer of each stack."""
    options = {"d_model": HIDDEN, "d_kv": E, "num_heads": H, "d_ff": 13, "num_layers": 2, "vocab_size": VOCABULARY}
    model = model_of("T5Model", **options)
    x, y = (torch.as_tensor(draw_normal(n, B, t, HIDDEN), dtype=torch.float32) for n, t in ((112, 40), (113, 37)))
    found = watched(model, "T5Attention", inputs_embeds=x, decoder_inputs_embeds=y, output_attentions=True)

    tables = {False: model.encoder, True: model.decoder}
    kinds = []
    for module, given, out, told in found:
        p = projections(module, H, H)
        fields: dict[str, Any] = {"embeddings": given.double(), "parameters": p, "w_layout": "out-in"}
        decodes, memory = module.is_decoder, told.get("key_value_states")
        if memory is None:
            table = tables[decodes].block[0].layer[0].SelfAttention.relative_attention_bias.weight
            p["bias_table"] = table.detach().double()
            preset: dict[str, Any] = {"name": "t5-decoder" if decodes else "t5-encoder"}
        else:
            fields["memory"] = {"embeddings": memory.double()}
            preset = {"name": "cross", "scale": "none"}
        kinds.append(preset["name"])
        weights = next(o for o in out[1:] if o is not None and o.shape[:2] == (B, H) and o.min() >= 0)
        result = compute(fields, heads=H, **preset)
        assert_close(step_values(result, "weights"), weights.double(), rtol=0, atol=5e-5)
        assert_close(step_values(result, "output"), out[0].double(), rtol=0, atol=1e-4 * float(out[0].abs().max()))
    assert kinds == ["t5-encoder"] * 2 + ["t5-decoder", "cross"] * 2


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_eager_attention_of_diffllama() -> None:
    """A pair is heads h and h + H/2; the value of a pair is kv heads g and g + G/2 side by side."""
    heads, kv_heads, d = 8, 4, 6
    options = SMALL | {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": d,
        "num_hidden_layers": 2,
    }
    model = model_of("DiffLlamaModel", **options, rms_norm_eps=1e-5)
    x = torch.as_tensor(draw_normal(114, B, TOKENS, HIDDEN), dtype=torch.float32)
    for n, (module, given, out, _) in enumerate(watched(model, "DiffLlamaAttention", inputs_embeds=x)):
        p = projections(module, heads, kv_heads)
        p["w_v"] = p["w_v"].reshape(2, kv_heads // 2, d, -1).transpose(0, 1).flatten(0, 2)
        p |= {f"lambda_{v}": getattr(module, f"lambda_{v}").detach().double() for v in ("q1", "k1", "q2", "k2")}
        fields = {"embeddings": given.double(), "parameters": p, "w_layout": "out-in"}
        held(compute(fields, name=f"diffllama:layer={n}", heads=heads, kv_heads=kv_heads), out[1], out[0])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_left_padded_batch_of_llama() -> None:
    """Positions per batch item, and padding that is hidden; what padding itself attends to is nobody's."""
    model = model_of("LlamaModel", **GROUPED)
    x = torch.as_tensor(draw_normal(115, B, TOKENS, HIDDEN), dtype=torch.float32)
    there = torch.ones(B, TOKENS, dtype=torch.long)
    there[1, :3] = 0
    positions = (there.cumsum(-1) - 1).clamp(min=0)
    layers = watched(model, "LlamaAttention", inputs_embeds=x, attention_mask=there, position_ids=positions)

    for module, given, out, _ in layers:
        fields = {"embeddings": given.double(), "parameters": projections(module, H, G), "w_layout": "out-in"}
        fields |= {"positions": positions, "mask": there[:, None, None].bool()}
        result = compute(fields, name="llama2", heads=H, kv_heads=G)
        for b, start in ((0, 0), (1, 3)):
            assert_close(step_values(result, "weights")[b, :, start:], out[1][b, :, start:].double(), rtol=0, atol=2e-5)
            assert_close(step_values(result, "output")[b, start:], out[0][b, start:].double(), rtol=0, atol=1e-4)
