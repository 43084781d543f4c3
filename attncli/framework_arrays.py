"""Name the learned arrays of attention modules as frameworks keep them, and say what each holds. Entry: `FRAMEWORK_ARRAYS`.

A name is what stands in a state dict after the name of the attention module: `q_proj.weight` of
`model.layers.0.self_attn.q_proj.weight`. Each has the layout of its framework, whatever a problem's `w_layout` says.
`plan.framework_arrays` makes w_q, w_k, w_v, w_o and their biases of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Orientation = Literal["out-in", "either", "heads", "as-is"]


@dataclass(frozen=True)
class FrameworkArray:
    """A learned array by the name that a framework gives it."""

    name: str
    target: str  # the parameter that it becomes; w_qkv and b_qkv: three of them, packed
    orientation: (
        Orientation  # of a matrix: nn.Linear's, Conv1D's, found by its sizes, with a head axis; of others as-is
    )
    axes: tuple[str, ...]
    used_by: str
    qkv_layout: Literal["3hd", "h3d"] | None = None  # of a packed array; None: models that use the name differ

    @property
    def is_packed(self) -> bool:
        """Whether it holds queries, keys and values together."""
        return self.target.endswith("_qkv")

    @property
    def help(self) -> str:
        """What it is, in one line."""
        what = "w_q, w_k, w_v in one" if self.target == "w_qkv" else "b_q, b_k, b_v in one" if self.is_packed else ""
        return f"{what or self.target}, as {self.used_by} {'keeps' if ',' not in self.used_by else 'keep'} it"


_MATRIX_AXES = {
    "w_q": ("d_q", "d"), "w_k": ("d_k", "e"), "w_v": ("d_v", "e"), "w_o": ("d_o", "d_c"), "w_qkv": ("d_qkv", "d"),
}  # fmt: skip
_BIAS_AXES = {"b_q": ("d_q",), "b_k": ("d_k",), "b_v": ("d_v",), "b_o": ("d_o",), "b_qkv": ("d_qkv",)}
_HEAD_AXES = {
    "W_Q": ("H", "d", "d_h"), "W_K": ("G", "e", "d_h"), "W_V": ("G", "e", "d_h"), "W_O": ("H", "d_h", "d_o"),
    "b_Q": ("H", "d_h"), "b_K": ("G", "d_h"), "b_V": ("G", "d_h"),
}  # fmt: skip


def _layer(
    module: str,
    letters: str,
    used_by: str,
    orientation: Orientation = "out-in",
    qkv_layout: Literal["3hd", "h3d"] | None = None,
) -> Iterator[FrameworkArray]:
    """Yield weight and bias of one linear layer, whose module has this name; `letters` is q, k, v, o or qkv."""
    weight, bias = f"w_{letters}", f"b_{letters}"
    axes = _MATRIX_AXES[weight]
    yield FrameworkArray(f"{module}.weight", weight, orientation, axes, used_by, qkv_layout)
    yield FrameworkArray(f"{module}.bias", bias, "as-is", _BIAS_AXES[bias], used_by, qkv_layout)


_SEPARATE_LAYERS = (  # the modules of q, k and v, and who calls them so
    ("q_proj k_proj v_proj", "Llama, Mistral, Qwen, OPT, Whisper"),
    ("query key value", "BERT, RoBERTa, ELECTRA"),
    ("self.query self.key self.value", "BERT, RoBERTa, ELECTRA"),
    ("attention.query attention.key attention.value", "ViT, DeiT"),
    ("q_lin k_lin v_lin", "DistilBERT, XLM"),
    ("q k v", "T5"),
    ("wq wk wv", "Llama as Meta releases it"),
    ("to_q to_k to_v", "diffusers, x-transformers"),
    ("W_query W_key W_value", "Raschka's book"),
)
_OUTPUT_LAYERS = (
    ("o_proj", "Llama, Mistral, Qwen"),
    ("out_proj", "nn.MultiheadAttention, OPT, Whisper"),
    ("output.dense", "BERT, ViT"),
    ("dense", "GPT-NeoX, BLOOM, Falcon"),
    ("out_lin", "DistilBERT, XLM"),
    ("o", "T5"),
    ("wo", "Llama as Meta releases it"),
    ("Wo", "ModernBERT"),
    ("to_out", "x-transformers"),
    ("to_out.0", "diffusers"),
    ("proj", "timm"),
    ("linear_proj", "Megatron Core"),
)
_PACKED_LAYERS: tuple[tuple[str, str, Literal["3hd", "h3d"] | None], ...] = (
    ("qkv_proj", "Phi-3, vLLM", "3hd"),
    ("Wqkv", "MPT, ModernBERT, flash-attn", "3hd"),
    ("W_pack", "Baichuan", "3hd"),
    ("to_qkv", "vit-pytorch", "3hd"),
    ("linear_qkv", "Megatron Core", "h3d"),
    ("query_key_value", "GPT-NeoX, BLOOM, Falcon (h3d), ChatGLM 2 and 3 (3hd)", None),
    ("wqkv", "gpt-fast (3hd), InternLM2 (h3d)", None),
    ("qkv", "timm, SAM (3hd), guided diffusion (h3d)", None),
)


def _declare_arrays() -> Iterator[FrameworkArray]:
    for modules, used_by in _SEPARATE_LAYERS:
        for module, letter in zip(modules.split(), "qkv", strict=True):
            yield from _layer(module, letter, used_by)
    for module, used_by in _OUTPUT_LAYERS:
        yield from _layer(module, "o", used_by)
    for module, used_by, qkv_layout in _PACKED_LAYERS:
        yield from _layer(module, "qkv", used_by, qkv_layout=qkv_layout)
    mha = "nn.MultiheadAttention"
    yield FrameworkArray("in_proj_weight", "w_qkv", "out-in", _MATRIX_AXES["w_qkv"], mha, "3hd")
    yield FrameworkArray("in_proj_bias", "b_qkv", "as-is", _BIAS_AXES["b_qkv"], mha, "3hd")
    for letter in "qkv":
        weight = f"w_{letter}"
        yield FrameworkArray(
            f"{letter}_proj_weight", weight, "out-in", _MATRIX_AXES[weight], f"{mha} with kdim or vdim"
        )
    yield from _layer("c_attn", "qkv", "GPT-2 (in × 3 out), nanoGPT (3 out × in)", "either", "3hd")
    yield from _layer("c_proj", "o", "GPT-2 (in × out), nanoGPT (out × in)", "either")
    for name, axes in _HEAD_AXES.items():
        yield FrameworkArray(name, name.lower(), "heads", axes, "TransformerLens")
        if axes[0] == "G":
            yield FrameworkArray(f"_{name}", name.lower(), "heads", axes, "TransformerLens with grouped heads")
    yield FrameworkArray("b_O", "b_o", "as-is", ("d_o",), "TransformerLens")
    for letter in "qk":
        yield FrameworkArray(f"{letter}_norm.weight", f"{letter}_norm", "as-is", ("d",), "Qwen 3, OLMo 2")
    yield FrameworkArray("relative_attention_bias.weight", "bias_table", "as-is", ("buckets", "H"), "T5")


FRAMEWORK_ARRAYS: Mapping[str, FrameworkArray] = {array.name: array for array in _declare_arrays()}

QKV_LAYOUTS: Mapping[str, str] = {  # of a packed array: what lies where, from the first row to the last
    "3hd": "the queries of all heads, then all keys, then all values: [3, head, d]",
    "h3d": "head by head its queries, its key and its value: [head, 3, d]",
}


# Models of transformers whose packed array has a name that others use otherwise: model_type → how it lies there.
QKV_LAYOUT_OF_MODEL_TYPE: Mapping[str, Literal["3hd", "h3d"]] = dict.fromkeys(
    ("gpt_neox", "gpt_neox_japanese", "bloom", "falcon", "persimmon", "internlm2"), "h3d"
)

_MATRIX_TRIPLES = (  # the names of w_q, w_k and w_v that stand together
    *(tuple(f"{module}.weight" for module in modules.split()) for modules, _ in _SEPARATE_LAYERS),
    tuple(f"{letter}_proj_weight" for letter in "qkv"),
    ("W_Q", "W_K", "W_V"),
)


_INPUT_TARGETS = frozenset(f"{letter}_{x}" for letter in "wb" for x in ("q", "k", "v", "qkv"))


def makes_inputs(name: str) -> bool:
    """Whether a learned array of this name, ours or a framework's, is applied to make q, k or v."""
    return (FRAMEWORK_ARRAYS[name].target if name in FRAMEWORK_ARRAYS else name) in _INPUT_TARGETS


def find_missing_arrays(names: Collection[str]) -> tuple[str, list[str]] | None:
    """Return one of the names, and those that must stand beside it and do not; None where nothing is missing.

    A module of these has all three of w_q, w_k and w_v, or none of them.
    """
    targets = {FRAMEWORK_ARRAYS[name].target if name in FRAMEWORK_ARRAYS else name for name in names}
    for triple in _MATRIX_TRIPLES:
        present = next((name for name in triple if name in names), None)
        missing = [name for name in triple if FRAMEWORK_ARRAYS[name].target not in targets]
        if present and missing:
            return present, missing
    return None


# The names that the learned array of the queries has, after the prefix of its layer.
QUERY_NAMES = frozenset(
    name for name, array in FRAMEWORK_ARRAYS.items() if array.target in ("w_q", "w_qkv") and not name.startswith("_")
)


def find_layers(names: Iterable[str]) -> Iterator[str]:
    """Yield the prefixes under which the queries of an attention layer stand."""
    for name in names:
        parts = name.split(".")
        for count in (4, 3, 2, 1):  # the longest name is the whole one: `self.query.weight`
            if count < len(parts) and ".".join(parts[-count:]) in QUERY_NAMES:
                yield ".".join(parts[:-count])
                break
