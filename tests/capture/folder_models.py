"""Tiny random models of every folder of transformers that has attention, by rules that name no folder.

Configurations are shrunk by the names of their fields; models are tried from the plainest class to the rest, until every class
of softmax attention of the folder has run.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import torch

from attncli.capture.model import use_eager
from tests.capture.tiny_models import draw_parameters

MAX_PARAMETERS = 80_000_000
TOKENS = 12
_ATTENTION_MARKS = ("softmax", "attention_interface", "scaled_dot_product_attention", "multi_head_attention_forward")
_USELESS_HEADS = ("SequenceClassification", "MultipleChoice", "PreTrained")
_SMALL = {"head_dim": 16, "d_kv": 16, "v_head_dim": 16, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "rotary_dim": 16,
          "qk_head_dim": 32, "global_head_dim": 16}  # fmt: skip


def list_folders() -> list[str]:
    """Name every folder of transformers' models."""
    import transformers.models

    return sorted(module.name for module in pkgutil.iter_modules(transformers.models.__path__) if module.ispkg)


def modeling_modules(folder: str) -> list[Any]:
    import transformers.models

    root = f"transformers.models.{folder}"
    package = importlib.import_module(root)
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name.startswith("modeling_"))
    return [importlib.import_module(f"{root}.{name}") for name in names]


def attention_classes(modules: list[Any]) -> set[str]:
    """Name the classes of a folder that compute a softmax of scores themselves."""
    found = set()
    for module in modules:
        for name, cls in vars(module).items():
            if (
                isinstance(cls, type)
                and issubclass(cls, torch.nn.Module)
                and cls.__module__ == module.__name__
                and re.search(r"Attention|Attn", name)
                and "forward" in vars(cls)
                and any(mark in inspect.getsource(cls.forward) for mark in _ATTENTION_MARKS)
            ):
                found.add(name)
    return found


def candidate_models(modules: list[Any]) -> list[type]:
    """Return the classes of models, the plainest first."""
    from transformers import PreTrainedModel

    found = [
        cls
        for module in modules
        for name, cls in vars(module).items()
        if isinstance(cls, type)
        and issubclass(cls, PreTrainedModel)
        and cls.__module__ == module.__name__
        and getattr(cls, "config_class", None) is not None
        and not any(word in name for word in _USELESS_HEADS)
    ]

    def rank(cls: type) -> tuple[int, int]:
        name = cls.__name__
        kind = 0 if name.endswith("Model") else 1 if name.endswith(("ForCausalLM", "ForConditionalGeneration")) else 2
        return kind, len(name)

    return sorted(found, key=rank)


# ── configurations ───────────────────────────────────────────────────────────────────────────────
STRATEGIES = ("tiny", "kv=heads", "filled", "cross", "eight", "light")


def shrink_config(cls: type, strategy: str, depth: int = 0) -> Any:
    """Make a small configuration of a class."""
    return _shrunk(cls(), strategy, depth)


def _shrunk(config: Any, strategy: str, depth: int = 0) -> Any:
    cls = type(config)
    if depth > 5:
        return config
    changed: dict[str, Any] = {}
    names = [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else list(vars(config))
    for name in names:
        if name.startswith("_") or not hasattr(config, name):
            continue
        value = getattr(config, name)
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            changed[name] = value if name == "backbone_config" else _shrunk(value, strategy, depth + 1)
        else:
            small = _shrink_value(name, value, config, strategy)
            if small is not _SAME:
                changed[name] = small
    layer_types = getattr(config, "layer_types", None)
    if isinstance(layer_types, list | tuple) and layer_types and strategy != "eight":
        kinds = list(dict.fromkeys(layer_types))
        kinds = kinds if len(kinds) > 1 else kinds * 2
        changed["layer_types"] = kinds
        for name in names:
            if re.fullmatch(r"num_hidden_layers|n_layer|num_layers", name):
                changed[name] = len(kinds)
    if strategy == "cross":
        changed |= {"is_decoder": True, "add_cross_attention": True}
    made = cls(**changed)
    _set_sections(made)
    use_eager(made)
    return made


def _set_sections(config: Any) -> None:
    """Let the sections of rotations on three axes add up to half a head."""
    parameters = getattr(config, "rope_parameters", None)
    heads = getattr(config, "num_attention_heads", None)
    if not isinstance(parameters, dict) or not isinstance(heads, int) or "layer_types" in parameters:
        return
    width = getattr(config, "head_dim", None) or getattr(config, "hidden_size", 64) // heads
    half = int(width * parameters.get("partial_rotary_factor", 1.0)) // 2
    if half >= 3:
        parameters["mrope_section"] = [half - 2 * (half // 3), half // 3, half // 3]


_SAME = object()


def _shrink_value(name: str, value: Any, config: Any, strategy: str) -> Any:
    if strategy == "light":
        return _shrink_depth(name, value, 2)
    for rule in (_shrink_heads, _shrink_special, _shrink_width):
        small = rule(name, value, config, strategy)
        if small is not _SAME:
            return small
    return _shrink_depth(name, value, 8 if strategy == "eight" else 2)


def _shrink_heads(name: str, value: Any, config: Any, strategy: str) -> Any:
    if re.search(r"(key_value_heads|kv_heads|n_kv_heads|num_kv_heads)$", name) and isinstance(value, int) and value > 1:
        return 4 if strategy == "kv=heads" or hasattr(config, "kv_lora_rank") else 2
    if re.search(r"(attention_heads|n_head|n_heads|num_heads|nhead)$", name):
        if isinstance(value, int) and value > 1:
            return 4
        if isinstance(value, list | tuple) and value and isinstance(value[0], int):
            return [1 if x == 1 else 2 for x in value]
    return _SAME


def _shrink_special(name: str, value: Any, config: Any, strategy: str) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        if strategy == "filled" and value is None:
            return {
                "num_experts": 4, "n_routed_experts": 4, "num_local_experts": 4, "head_dim": 16, "prediction_length": 4,
                "vocab_size": 128, "num_key_value_heads": 2,
            }.get(name, _SAME)  # fmt: skip
        return _SAME
    if name in _SMALL and value > 1:
        return _SMALL[name]
    if name.endswith("lora_rank") and value > 16:
        return 16
    if name.endswith("token_id") and value >= 128:
        return 100 + sum(map(ord, name)) % 20
    if name in ("vocab_size", "text_vocab_size") or name.endswith("_vocab_size"):
        return min(value, 128)
    if name in ("sliding_window", "local_attention", "attention_window"):
        return 5
    if name == "attention_chunk_size":
        return 8
    if re.search(r"(num_experts_per_tok|top_k|num_selected_experts|moe_topk)$", name):
        return min(value, 2)
    if re.search(r"(n_group|topk_group|num_expert_group)$", name):
        return 1
    if re.search(r"(num_experts|num_local_experts|n_routed_experts|moe_num_experts)$", name):
        return min(value, 4)
    if re.search(r"(max_position.*|n_ctx|n_positions|max_source_positions|max_target_positions)$", name):
        return min(value, 512)
    if name == "image_size" and hasattr(config, "patch_size") and not hasattr(config, "window_size"):
        patch = config.patch_size
        patch = patch[0] if isinstance(patch, list | tuple) else patch
        return 4 * patch if isinstance(patch, int) else _SAME
    if re.search(r"(mel_bins|kernel|stride|num_channels|in_channels|feature_size|patch_size|image_size|window_size)", name):
        return value
    return _SAME


def _shrink_width(name: str, value: Any, config: Any, strategy: str) -> Any:
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and value > 64
        and re.search(r"(hidden_size|d_model|n_embd|embed_dim|_dim|_size|_channels|^dim|^width|ffn_dim|d_ff|d_inner)$", name)
    ):
        return 64
    return _SAME


def _shrink_depth(name: str, value: Any, depth: int) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value > depth:
        if re.search(r"(hidden_layers|n_layer|n_layers|_layers|num_blocks|^depth)$", name):
            return depth
    if name == "depths" and isinstance(value, list | tuple):
        return [1] * (len(value) - 1) + [2]
    return _SAME


# ── models and what they are called with ─────────────────────────────────────────────────────────
def build_model(cls: type, strategy: str) -> torch.nn.Module:
    """Build a tiny model; one that would be large is refused before its arrays are made.

    Raises:
        ValueError: it has too many parameters.
    """
    config = shrink_config(cls.config_class, strategy)
    with torch.device("meta"):
        count = sum(p.numel() for p in cls(config).parameters())
    if count > MAX_PARAMETERS:
        raise ValueError(f"{count:,} parameters")
    torch.manual_seed(0)
    config = shrink_config(cls.config_class, strategy)
    model = cls(config).eval()
    draw_parameters(model)
    return model


def propose_inputs(model: torch.nn.Module) -> Iterator[dict[str, Any]]:
    """Propose what a model is called with, by the names of its arguments."""
    names = list(inspect.signature(model.forward).parameters)
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 90, (2, TOKENS), generator=generator)
    config = model.config

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    text: dict[str, Any] = {}
    if "use_cache" in names:
        text["use_cache"] = False
    if "decoder_input_ids" in names:
        text["decoder_input_ids"] = ids[:, :7]
    if "encoder_hidden_states" in names and (
        getattr(config, "add_cross_attention", False) or "cross" in type(model).__name__.lower() or "Decoder" in type(model).__name__
    ):
        text["encoder_hidden_states"] = draw(2, 9, int(_first(config, "encoder_hidden_size", "cross_attention_hidden_size", "hidden_size", "d_model", default=64)))
    if "bbox" in names:
        text["bbox"] = torch.randint(0, 60, (2, TOKENS, 2), generator=generator).repeat(1, 1, 2).sort(-1).values
    main = getattr(model, "main_input_name", "input_ids")
    if "input_ids" in names:
        yield {"input_ids": ids, **text}
    for pixels in _propose_pixels(config, draw):
        for name in ("pixel_values", "pixel_values_videos", "x"):
            if name in names:
                both = {"input_ids": ids} if "input_ids" in names else {}
                yield {name: pixels, **both, **text}
                if both:
                    yield {name: pixels}
    for features in _propose_features(config, draw):
        for name in ("input_features", "input_values", "audio_values", "features"):
            if name in names:
                yield {name: features, **text}
    width = int(_first(config, "hidden_size", "d_model", "embed_dim", "n_embd", default=64))
    if "hidden_states" in names:
        yield {"hidden_states": draw(2, TOKENS, width)}
        yield {"hidden_states": draw(16, _patch_width(config)), "grid_thw": torch.tensor([[1, 4, 4]])}
        yield {"hidden_states": draw(16, width), "grid_thw": torch.tensor([[1, 4, 4]])}
    if "inputs_embeds" in names:
        yield {"inputs_embeds": draw(2, TOKENS, width), **text}
    if "query_embeds" in names:
        yield {"query_embeds": draw(2, TOKENS, width), "encoder_hidden_states": draw(2, 9, int(_first(config, "encoder_hidden_size", default=width)))}
    if "past_values" in names:
        length = int(_first(config, "context_length", default=24)) + max(_as_list(_first(config, "lags_sequence", default=[0])) or [0])
        channels = int(_first(config, "num_input_channels", "input_size", default=1))
        values = draw(2, length, channels) if channels > 1 or "patch" in type(config).__name__.lower() else draw(2, length)
        yield {"past_values": values}
        count = int(_first(config, "num_time_features", default=0))
        future = int(_first(config, "prediction_length", default=4) or 4)
        yield {
            "past_values": values,
            "past_time_features": draw(2, length, count),
            "past_observed_mask": torch.ones_like(values),
            "future_values": draw(2, future),
            "future_time_features": draw(2, future, count),
        }
    if "input_ids" in names:
        for count in (int(_first(config, "num_codebooks", "num_quantizers", default=4)), 8):
            yield {"input_ids": torch.randint(3, 90, (2, TOKENS, count), generator=generator), **text}
            yield {"input_ids": torch.randint(3, 90, (2, count, TOKENS), generator=generator), **text}
            yield {"input_ids": torch.randint(3, 90, (2 * count, TOKENS), generator=generator), **text}
    if main in names and main not in ("input_ids",):
        yield {main: draw(2, TOKENS, width)}


def _propose_pixels(config: Any, draw: Any) -> Iterator[torch.Tensor]:
    holders = [config, *(v for v in vars(config).values() if hasattr(v, "model_type"))]
    for holder in holders:
        size = getattr(holder, "image_size", None)
        size = size if isinstance(size, list | tuple) else [size, size]
        channels = int(_first(holder, "num_channels", "in_channels", default=3))
        frames = _first(holder, "num_frames", "frames_per_clip", default=None)
        for height, width in (size, (64, 64), (224, 224)) if isinstance(size[0], int) else ((64, 64), (224, 224)):
            if isinstance(frames, int):
                yield draw(2, frames, channels, height, width)
            yield draw(2, channels, height, width)
            yield draw(2, 2, channels, height, width)


def _propose_features(config: Any, draw: Any) -> Iterator[torch.Tensor]:
    for holder in [config, *(v for v in vars(config).values() if hasattr(v, "model_type"))]:
        mel = int(_first(holder, "num_mel_bins", "feature_size", "input_feat_per_channel", "mel_bins", "input_dim", default=80))
        length = 2 * int(_first(holder, "max_source_positions", default=50))
        yield draw(2, mel, length)
        yield draw(2, 64, mel)
        length = int(_first(holder, "max_length", default=64))
        yield draw(2, length, mel)
    yield draw(2, 4000)
    yield draw(2, 1, 4000)


def _patch_width(config: Any) -> int:
    patch = _first(config, "patch_size", default=14)
    patch = patch[0] if isinstance(patch, list | tuple) else patch
    return int(_first(config, "in_channels", "in_chans", "num_channels", default=3)) * patch**2 * int(_first(config, "temporal_patch_size", default=1))


def _as_list(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _first(config: Any, *names: str, default: Any) -> Any:
    return next((v for name in names if (v := getattr(config, name, None)) is not None), default)
