"""Named variants: lists of choices, printed by `attn list variants NAME`. Entries: `PRESETS`, `parse_preset_name`, `preset_choices`.

A number in a preset belongs to the mechanism or to the released model: a window, a base, a cap. How many heads there are,
and how wide, is the problem's; a preset only requires that it is chosen. Layers are counted from 0, as in transformers'
`layer_types`; where the layers of a model differ, the name takes one: `gemma2:layer=3`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from attncli.errors import OptionError
from attncli.registry import Option, Range
from attncli.text import closest, shorten, suggestion
from attncli.types import Json

Choices = Json


@dataclass(frozen=True)
class Preset:
    """A named variant: choices by name, and the names of those that it leaves to the user."""

    name: str
    summary: str
    source: str
    choices: Choices = field(default_factory=dict)  # what all layers share
    required_choices: tuple[str, ...] = ()  # choices (or, for window, a mask) that the user must make
    layer_choices: Callable[[int], Choices] | None = None  # the choices of layer n, where layers differ
    cross_attention: str = ""  # of a decoder: the options of the second attention of its layers, over a memory


def _sliding_window_mask(keys: int) -> str:
    """Return a causal window of so many keys, the query's own among them."""
    return f"causal and window:left={keys - 1}"


def _alternate_layers(period: int, remainder: int, matching: Choices, other: Choices) -> Callable[[int], Choices]:
    """Return the choices of layer n: those of `matching` where n mod period = remainder, else those of `other`."""
    return lambda n: matching if n % period == remainder else other


def _mask_choice(text: str) -> Choices:
    return {"mask": text}


_NEEDS_HEADS = ("heads",)
_NEEDS_HEADS_AND_KV_HEADS = ("heads", "kv_heads")
_CAUSAL_MASK = _mask_choice("causal")
_TRANSFORMERS = "transformers 5.23.0"
_T5_CHOICES = {"scale": "none", "position": "t5:buckets=32,max-distance=128,bidirectional=yes"}
_T5_SOURCE = f"Raffel et al. 2020, §2.1; {_TRANSFORMERS} T5Config"

_PRESETS = (
    # one step at a time: the mechanism and its head counts
    Preset(
        "simplified",
        "no projections, no scale: weights = softmax(x xᵀ)",
        "Raschka 2024, §3.3",
        {"projection": "identity", "scale": "none"},
    ),
    Preset(
        "self-attention",
        "every token attends to every token, scaled by 1/√d_k",
        "Vaswani et al. 2017, §3.2.1",
        {"score": "dot", "scale": "auto"},
    ),
    Preset(
        "causal",
        "self-attention where no token sees what follows it",
        "Vaswani et al. 2017, §3.2.3",
        {"mask": "causal"},
    ),
    Preset(
        "multi-head",
        "several heads side by side on slices of the width",
        "Vaswani et al. 2017, §3.2.2",
        required_choices=("heads",),
    ),
    Preset(
        "multi-query",
        "many query heads, one key and value head",
        "Shazeer 2019",
        {"kv_heads": 1},
        required_choices=("heads",),
    ),
    Preset(
        "grouped-query",
        "groups of query heads share a key and value head",
        "Ainslie et al. 2023",
        required_choices=("heads", "kv_heads"),
    ),
    Preset(
        "cross",
        "queries of one sequence attend to another, the memory",
        "Vaswani et al. 2017, §3.2.3",
        required_choices=("memory",),
    ),
    Preset(
        "sliding-window",
        "causal, and no further back than a window",
        "Beltagy et al. 2020, §3.1; Jiang et al. 2023, §2",
        {"mask": "causal"},
        required_choices=("window",),
    ),
    # the score and the normaliser: what else can be made of q and k
    Preset(
        "bahdanau",
        "a small network scores query and key: v · tanh(W q + U k)",
        "Bahdanau et al. 2015, §3.1",
        {"score": "additive"},
        required_choices=("memory",),
    ),
    Preset(
        "luong-dot",
        "q · k as it is, without a scale",
        "Luong et al. 2015, §3.1",
        {"score": "dot", "scale": "none"},
        required_choices=("memory",),
    ),
    Preset(
        "luong-general",
        "q · k with a learned matrix between them",
        "Luong et al. 2015, §3.1",
        {"score": "general"},
        required_choices=("memory",),
    ),
    Preset(
        "luong-concat",
        "query and key side by side through one layer: v · tanh(W [q; k])",
        "Luong et al. 2015, §3.1",
        {"score": "concat"},
        required_choices=("memory",),
    ),
    Preset(
        "linear",
        "φ(q) · φ(k) with φ = elu + 1, divided by its sum",
        "Katharopoulos et al. 2020, §3.2",
        {"score": "kernel:phi=elu", "normalizer": "sum"},
    ),
    Preset(
        "sigmoid",
        "each weight for itself, σ(s − ln n): rows need not sum to 1",
        "Ramapuram et al. 2024",
        {"normalizer": "sigmoid:bias=auto"},
    ),
    Preset(
        "softmax1",
        "softmax with 1 more in the denominator: a query may attend to nothing",
        "Miller 2023",
        {"sink": "zero"},
    ),
    Preset(
        "sparsemax",
        "the nearest point of the simplex: weak keys get exactly 0",
        "Martins and Astudillo 2016, §2",
        {"normalizer": "sparsemax"},
    ),
    Preset("entmax15", "halfway between softmax and sparsemax", "Peters et al. 2019, §3", {"normalizer": "entmax15"}),
    # heads that speak to each other
    Preset(
        "talking-heads",
        "heads mix their scores before the softmax and their weights after it",
        "Shazeer et al. 2020, §3",
        {"head_mixing": "talking-heads"},
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "differential",
        "two heads a pair, (0, 1), (2, 3), …: the second's weights are subtracted λ times; λ starts by its layer",
        "Ye et al. 2024, §2; microsoft/unilm Diff-Transformer",
        {"mask": "causal", "position": "rope:theta=10000,layout=interleaved"},
        required_choices=_NEEDS_HEADS,
        layer_choices=lambda n: {"head_mixing": f"differential:pairing=adjacent,depth={n}"},
    ),
    # sparse masks, with the settings of their papers
    Preset(
        "prefix-lm",
        "causal, but every token sees the prefix: the keys where the file's mask is true",
        "Raffel et al. 2020, §3.2.1",
        _mask_choice("causal or given"),
    ),
    Preset(
        "streaming-llm",
        "the latest 1020 tokens and the first 4 (the sinks); the paper counts positions inside its cache",
        "Xiao et al. 2024, §3.2; its cache of 4 + 1020",
        _mask_choice("causal and (window:left=1019 or prefix:length=4)"),
    ),
    Preset(
        "longformer-like",
        "256 neighbours on each side, and one global token, the first; Longformer projects its global tokens apart",
        f"Beltagy et al. 2020, §3.1; {_TRANSFORMERS} LongformerConfig",
        _mask_choice("window:left=256,right=256 or global:tokens=0"),
    ),
    Preset(
        "bigbird",
        "blocks of 64: the query's own and its 2 neighbours, the first 2 (which see all), and 3 at random",
        f"Zaheer et al. 2020, §2; {_TRANSFORMERS} BigBirdConfig (whose global blocks are the first and the last)",
        _mask_choice("bigbird:block=64,window=3,global=2,random=3,seed=0"),
    ),
    Preset(
        "sparse-strided",
        "the latest 128 tokens, and every 128th before",
        "Child et al. 2019, §4.3; stride of §7.3 (ImageNet 64 × 64)",
        _mask_choice("strided:stride=128"),
    ),
    Preset(
        "sparse-fixed",
        "one's own block of 128, and the last 32 of each block before",
        "Child et al. 2019, §4.3; stride and c of §7.2 (enwik8)",
        _mask_choice("fixed:stride=128,summary=32"),
    ),
    Preset(
        "natten",
        "the 7 keys around the query, the window moved inward at the ends; here along one axis",
        f"Hassani et al. 2023, §3.1; {_TRANSFORMERS} DinatConfig",
        _mask_choice("natten:kernel=7"),
    ),
    # models: the first transformer, and those that learn their positions (with the embeddings, before attention)
    Preset(
        "vaswani-encoder",
        "sinusoids added to the embeddings of the first layer",
        "Vaswani et al. 2017, §3",
        {"position": "sinusoidal:layout=interleaved,theta=10000"},
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "vaswani-decoder",
        "the same, causal; its second attention is `cross`",
        "Vaswani et al. 2017, §3",
        {"position": "sinusoidal:layout=interleaved,theta=10000", "mask": "causal"},
        required_choices=_NEEDS_HEADS,
        cross_attention="--variant cross",
    ),
    Preset(
        "bert",
        "every token sees every token; positions are in the embeddings",
        f"Devlin et al. 2019, §3; {_TRANSFORMERS} BertConfig",
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "vit",
        "every patch sees every patch; positions are in the embeddings",
        f"Dosovitskiy et al. 2021, §3.1; {_TRANSFORMERS} ViTConfig",
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "gpt2",
        "causal; positions are in the embeddings",
        f"Radford et al. 2019, §2.3; {_TRANSFORMERS} GPT2Config",
        _CAUSAL_MASK,
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "gpt-neo",
        "no scale; even layers see everything before, odd ones the latest 256",
        f"{_TRANSFORMERS} GPTNeoConfig",
        {"scale": "none"},
        required_choices=_NEEDS_HEADS,
        layer_choices=_alternate_layers(2, 1, _mask_choice(_sliding_window_mask(256)), _CAUSAL_MASK),
    ),
    # models that add a bias by distance
    Preset(
        "t5",
        "the encoder of T5, as t5-encoder: no scale, a learned bias by distance, both ways",
        _T5_SOURCE,
        _T5_CHOICES,
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "t5-encoder",
        "no scale, a learned bias by distance, both ways",
        _T5_SOURCE,
        _T5_CHOICES,
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "t5-decoder",
        "no scale, a learned bias by distance, backwards only; its second attention has no bias",
        _T5_SOURCE,
        {"scale": "none", "position": "t5:buckets=32,max-distance=128,bidirectional=no", "mask": "causal"},
        required_choices=_NEEDS_HEADS,
        cross_attention="--variant cross --scale none",
    ),
    Preset(
        "bloom",
        "causal, with ALiBi",
        f"BigScience 2022, §3.2; {_TRANSFORMERS} BloomConfig",
        {"position": "alibi:max=8", "mask": "causal"},
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "mpt",
        "causal, with ALiBi",
        f"MosaicML 2023; {_TRANSFORMERS} MptConfig",
        {"position": "alibi:max=8", "mask": "causal"},
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "falcon-alibi",
        "causal, with ALiBi that is scaled along with the scores (Falcon RW; transformers rounds it to bfloat16)",
        f"Almazrouei et al. 2023; {_TRANSFORMERS} FalconConfig(alibi=True)",
        {"position": "alibi:max=8", "chain": "position,scale,mask", "mask": "causal"},
        required_choices=_NEEDS_HEADS,
    ),
    # models that rotate q and k: one rule for all layers
    Preset(
        "falcon",
        "causal, with RoPE and one key and value head (7B)",
        f"Almazrouei et al. 2023; {_TRANSFORMERS} FalconConfig",
        {"position": "rope:theta=10000", "kv_heads": 1, "mask": "causal"},
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "gptj",
        "causal; RoPE turns neighbours, the first 64 columns of a head only",
        f"Wang and Komatsuzaki 2021; {_TRANSFORMERS} GPTJConfig",
        {"position": "rope:theta=10000,layout=interleaved,dims=64", "mask": "causal"},
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "gpt-neox",
        "causal; RoPE on the first quarter of a head",
        f"Black et al. 2022, §2.1; {_TRANSFORMERS} GPTNeoXConfig",
        {"position": "rope:theta=10000,fraction=0.25", "mask": "causal"},
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "llama2",
        "causal, with RoPE; 70B groups its heads: add --kv-heads",
        f"Touvron et al. 2023, §2.2; {_TRANSFORMERS} LlamaConfig (half-split; Meta's own weights are interleaved)",
        {"position": "rope:theta=10000", "mask": "causal"},
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "llama3",
        "causal, RoPE with base 500 000, grouped heads",
        f"Dubey et al. 2024, §3.2; half-split as {_TRANSFORMERS} LlamaConfig, whose default base is 10 000",
        {"position": "rope:theta=500000", "mask": "causal"},
        required_choices=_NEEDS_HEADS_AND_KV_HEADS,
    ),
    Preset(
        "llama3.1",
        "llama3 with low frequencies slowed down 8 times, for long texts (3.2: factor=32)",
        f"meta-llama/Llama-3.1-8B's rope_scaling, read by {_TRANSFORMERS} LlamaConfig",
        {"position": "rope:theta=500000,scaling=llama3,factor=8,original=8192,low=1,high=4", "mask": "causal"},
        required_choices=_NEEDS_HEADS_AND_KV_HEADS,
    ),
    Preset(
        "mistral",
        "RoPE, and a window of 4096 keys (v0.1; later ones have none, and base 1 000 000)",
        f"Jiang et al. 2023, §2; {_TRANSFORMERS} MistralConfig",
        {"position": "rope:theta=10000", "mask": _sliding_window_mask(4096)},
        required_choices=_NEEDS_HEADS_AND_KV_HEADS,
    ),
    Preset(
        "mixtral",
        "causal, RoPE with base 1 000 000, grouped heads",
        f"Jiang et al. 2024, §2; {_TRANSFORMERS} MixtralConfig",
        {"position": "rope:theta=1000000", "mask": "causal"},
        required_choices=_NEEDS_HEADS_AND_KV_HEADS,
    ),
    Preset(
        "phi3",
        "causal, with RoPE",
        f"Abdin et al. 2024, §2; {_TRANSFORMERS} Phi3Config (the long-context ones add longrope, some a window)",
        {"position": "rope:theta=10000", "mask": "causal"},
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "qwen2",
        "causal, with RoPE; biases on q, k and v only",
        f"Yang et al. 2024, §2.2; {_TRANSFORMERS} Qwen2Config (base 10 000; the released ones have 1 000 000)",
        {"position": "rope:theta=10000", "mask": "causal"},
        required_choices=_NEEDS_HEADS_AND_KV_HEADS,
    ),
    Preset(
        "qwen3",
        "causal; each head of q and k normed, then RoPE",
        f"Yang et al. 2025, §2; {_TRANSFORMERS} Qwen3Config (base 10 000; the released ones have 1 000 000)",
        {"qk_norm": "rms:eps=1e-6,scope=head,at=before", "position": "rope:theta=10000", "mask": "causal"},
        required_choices=_NEEDS_HEADS_AND_KV_HEADS,
    ),
    Preset(
        "olmo2",
        "causal; q and k normed over all heads at once, then RoPE",
        f"OLMo Team 2024; {_TRANSFORMERS} Olmo2Config (base 10 000, eps 1e-5; the released ones have 500 000, 1e-6)",
        {"qk_norm": "rms:eps=1e-5,scope=full,at=before", "position": "rope:theta=10000", "mask": "causal"},
        required_choices=_NEEDS_HEADS,
    ),
    Preset(
        "deepseek-v3",
        "multi-head latent attention, q and k given: 192^−½ · 1.3689² for YaRN; the 64 rotated columns first in each head",
        f"DeepSeek-AI 2024, §2.1.1; DeepSeek-V3's config.json, read by {_TRANSFORMERS} DeepseekV3Config",
        {
            "scale": 0.1352337788608801,
            "position": "rope:theta=10000,layout=interleaved,dims=64,scaling=yarn,factor=40,original=4096,"
            "beta-fast=32,beta-slow=1,mscale=1,mscale-all-dim=1",
            "mask": "causal",
        },
        required_choices=_NEEDS_HEADS,
    ),
    # models whose layers differ
    Preset(
        "modernbert",
        "every third layer sees all, base 160 000; the others 64 neighbours on each side, base 10 000",
        f"Warner et al. 2024, §2.1; {_TRANSFORMERS} ModernBertConfig",
        required_choices=_NEEDS_HEADS,
        layer_choices=_alternate_layers(
            3,
            0,
            {"position": "rope:theta=160000", "mask": "full"},
            {"position": "rope:theta=10000", "mask": "window:left=64,right=64"},
        ),
    ),
    Preset(
        "gemma2",
        "scores capped at ±50; even layers see 4096 keys, odd ones all before (27B: scale 144^−½)",
        f"Gemma Team 2024, §2; {_TRANSFORMERS} Gemma2Config",
        {"position": "rope:theta=10000", "softcap": 50},
        required_choices=_NEEDS_HEADS_AND_KV_HEADS,
        layer_choices=_alternate_layers(2, 1, _CAUSAL_MASK, _mask_choice(_sliding_window_mask(4096))),
    ),
    Preset(
        "gemma3",
        "each head of q and k normed (gains are 1 + its weights); 5 layers of 4096 keys, then one of all, base 1 000 000",
        f"Gemma Team 2025, §2; {_TRANSFORMERS} Gemma3TextConfig (the released ones: 512 or 1024 keys, from 4B linear scaling by 8"
        " in the full layers, 27B scale 168^−½)",
        {"qk_norm": "rms:eps=1e-6,scope=head,at=before"},
        required_choices=_NEEDS_HEADS_AND_KV_HEADS,
        layer_choices=_alternate_layers(
            6,
            5,
            {"position": "rope:theta=1000000", "mask": "causal"},
            {"position": "rope:theta=10000", "mask": _sliding_window_mask(4096)},
        ),
    ),
    Preset(
        "olmo3",
        "q and k normed over all heads at once; 3 layers of 4096 keys, then one of all",
        f"Olmo Team 2025; {_TRANSFORMERS} Olmo3Config (the released ones add YaRN in the full layers)",
        {"qk_norm": "rms:eps=1e-5,scope=full,at=before", "position": "rope:theta=500000"},
        required_choices=_NEEDS_HEADS,
        layer_choices=_alternate_layers(4, 3, _CAUSAL_MASK, _mask_choice(_sliding_window_mask(4096))),
    ),
    Preset(
        "cohere2",
        "3 layers of 4096 keys with RoPE on neighbours, then one of all without position",
        f"Cohere 2025; {_TRANSFORMERS} Cohere2Config",
        required_choices=_NEEDS_HEADS_AND_KV_HEADS,
        layer_choices=_alternate_layers(
            4,
            3,
            {"position": "none", "mask": "causal"},
            {"position": "rope:theta=10000,layout=interleaved", "mask": _sliding_window_mask(4096)},
        ),
    ),
    Preset(
        "smollm3",
        "causal; every fourth layer without position, the others RoPE with base 2 000 000",
        f"Hugging Face 2025 (SmolLM3); {_TRANSFORMERS} SmolLM3Config",
        _CAUSAL_MASK,
        required_choices=_NEEDS_HEADS_AND_KV_HEADS,
        layer_choices=_alternate_layers(4, 3, {"position": "none"}, {"position": "rope:theta=2000000"}),
    ),
    Preset(
        "gpt-oss",
        "a learned sink in every head, RoPE with YaRN; even layers see 128 keys, odd ones all before",
        f"OpenAI 2025 (gpt-oss model card); {_TRANSFORMERS} GptOssConfig",
        {
            "position": "rope:theta=150000,scaling=yarn,factor=32,original=4096,beta-fast=32,beta-slow=1,truncate=no",
            "sink": "given",
        },
        required_choices=_NEEDS_HEADS_AND_KV_HEADS,
        layer_choices=_alternate_layers(2, 1, _CAUSAL_MASK, _mask_choice(_sliding_window_mask(128))),
    ),
    Preset(
        "diffllama",
        "differential attention on Llama: head h and head h + H/2 are a pair, RoPE is half-split",
        f"Ye et al. 2024, §2; {_TRANSFORMERS} DiffLlamaConfig",
        {"mask": "causal", "position": "rope:theta=10000"},
        required_choices=_NEEDS_HEADS,
        layer_choices=lambda n: {"head_mixing": f"differential:pairing=halves,depth={n}"},
    ),
)
PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _PRESETS}

_LAYER_OPTION = Option("layer", "layer", int, None, Range(low=0, high=9999))


def find_preset(name: str) -> Preset:
    """Return the preset of a name.

    Raises:
        OptionError: there is none; the nearest name is offered.
    """
    if name not in PRESETS:
        raise OptionError(
            "unknown-variant", f"there is no variant called {shorten(name)!r}", help=_suggest_preset(name)
        )
    return PRESETS[name]


def _suggest_preset(name: str) -> str:
    """Offer the preset that a misspelt name is like; else some of them, and where all are listed."""
    match = closest(name, PRESETS)
    examples = "such as self-attention, causal, multi-head, gpt2 or llama3; attn list variants lists them all"
    return examples if match is None else f"did you mean {match!r}?"


def parse_preset_name(text: str) -> tuple[Preset, int | None]:
    """Parse `gemma2` or `gemma2:layer=3` as the preset, and the layer where one is named.

    Raises:
        OptionError: there is no such preset, or what follows its name is not one layer.
    """
    name, colon, rest = text.partition(":")
    preset = find_preset(name.strip())
    if not colon:
        return preset, None
    key, equals, value = (part.strip() for part in rest.partition("="))
    if not equals:
        raise OptionError("bad-option", f"a variant takes layer=N, not {rest!r}", help=f"write {preset.name}:layer=0")
    if key != "layer":
        raise OptionError(
            "unknown-option", f"a variant has no option {shorten(key)!r}", help=suggestion(key, ["layer"])
        )
    return preset, _LAYER_OPTION.parse(value, f"variant {preset.name!r}")


def find_cross_attention(variant_name: str | None) -> str:
    """Return the options of the attention over a memory in the layers that a named variant is of; "" where they have none."""
    return PRESETS[variant_name.partition(":")[0]].cross_attention if variant_name else ""


def preset_choices(preset: Preset, layer: int | None) -> Json:
    """Return the choices of one layer: those that the layers share, and those that it has for itself.

    Raises:
        OptionError: the layers differ and none is named, or they do not and one is.
    """
    name = preset.name
    if preset.layer_choices is None:
        if layer is not None:
            raise OptionError(
                "bad-option", f"the layers of {name!r} are all alike, so it takes no layer", help=f"write {name}"
            )
        return dict(preset.choices)
    if layer is None:
        raise OptionError(
            "missing-layer",
            f"the layers of {name!r} differ, so it needs a layer",
            help=f"name one, counted from 0: {name}:layer=0",
        )
    return {**preset.choices, **preset.layer_choices(layer)}
