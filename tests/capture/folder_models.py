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
                and any(mark in inspect.getsource(cls).lower() for mark in _ATTENTION_MARKS)
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
        declared = getattr(cls, name, None)
        if name.startswith("_") or (isinstance(declared, property) and not declared.fset):
            continue
        value = _get(config, name, _SAME)
        if value is _SAME:
            continue
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            changed[name] = (
                _shrink_backbone(value) if name == "backbone_config" else _shrunk(value, strategy, depth + 1)
            )
        else:
            small = _shrink_value(name, value, config, strategy)
            if small is not _SAME:
                changed[name] = small
    layer_types = _get(config, "layer_types", None)
    if layer_types is None and strategy == "filled" and "layer_types" in names:
        changed["layer_types"] = layer_types = _layer_kinds(cls)
    is_set = "attn_layer_indices" not in names and not isinstance(getattr(cls, "layer_types", None), property)
    if is_set and isinstance(layer_types, list | tuple) and layer_types and strategy != "eight":
        kinds = list(dict.fromkeys(layer_types))
        kinds = kinds if len(kinds) > 1 and strategy != "filled" else kinds * 2
        changed[getattr(cls, "attribute_map", {}).get("layer_types", "layer_types")] = kinds
        for name in names:
            if re.fullmatch(r"num_hidden_layers|n_layer|num_layers", name):
                changed[name] = len(kinds)
    rope = _get(config, "rope_parameters", None)
    if isinstance(rope, dict) and "mrope_section" in rope:
        changed["rope_parameters"] = rope | {"mrope_section": _sections(changed, config, rope)}
    if strategy == "cross":
        changed |= {"is_decoder": True, "add_cross_attention": True}
    made = cls(**changed)
    _set_sections(made)
    use_eager(made)
    return made


def _sections(changed: dict[str, Any], config: Any, rope: dict[str, Any]) -> list[int]:
    """Return sections of a rotation on three axes that add up to half of what turns of a head."""

    def of(name: str) -> Any:
        return changed[name] if name in changed else _get(config, name, None)

    width = of("head_dim") or (of("hidden_size") or 64) // (of("num_attention_heads") or 4)
    half = int(width * rope.get("partial_rotary_factor", 1.0)) // 2
    return [half - 2 * (half // 3), half // 3, half // 3]


def _set_sections(config: Any) -> None:
    """Let the sections of rotations on three axes add up to half a head."""
    parameters, heads = (_get(config, name, None) for name in ("rope_parameters", "num_attention_heads"))
    if not isinstance(parameters, dict) or not isinstance(heads, int) or "layer_types" in parameters:
        return
    width = _get(config, "head_dim", None) or _get(config, "hidden_size", 64) // heads
    if not isinstance(width, int):
        return
    half = int(width * parameters.get("partial_rotary_factor", 1.0)) // 2
    if half >= 3:
        parameters["mrope_section"] = [half - 2 * (half // 3), half // 3, half // 3]


_SAME = object()


def _get(config: Any, name: str, default: Any) -> Any:
    """Return a value of a configuration; some raise where it differs by layer."""
    try:
        return getattr(config, name, default)
    except Exception:
        return vars(config).get(name, default)


def _layer_kinds(cls: type) -> list[str]:
    """Return the kinds of layers that a modeling file compares with."""
    module = importlib.import_module(cls.__module__.replace("configuration_", "modeling_"))
    found = re.findall(r"layer_types?(?:\[\w+\])? (?:==|!=) \"(\w+)\"", inspect.getsource(module))
    return list(dict.fromkeys([*found, "full_attention"]))


def _shrink_backbone(config: Any) -> Any:
    """Return the configuration of a backbone: as it is, or a small ResNet where it would be one of timm."""
    if "timm" not in type(config).__name__.lower():
        return config
    from transformers import ResNetConfig

    sizes = {"embedding_size": 16, "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]}
    return ResNetConfig(**sizes, out_features=["stage2", "stage3", "stage4"])


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


_FILLED = {  # what stands in for None where a model cannot be built without
    "num_experts": 4, "n_routed_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 64, "n_group": 1, "topk_group": 1,
    "head_dim": 16, "prediction_length": 4, "attn_layer_indices": [1], "vocab_size": 128, "num_key_value_heads": 2, "vocabulary_map": {"<image>": 4}, "top_k_experts": 2, "default_language": "en_XX", "clip_qkv": 8.0, "context_length": 16,
}  # fmt: skip
_RULES: tuple[tuple[str, Any], ...] = (  # names of integers → what they become
    (r"attn_layer_period", lambda v: 2),
    (r"attn_layer_offset", lambda v: 1),
    (r"num_kv_shared_layers", lambda v: 0),
    (r".*lora_rank", lambda v: min(v, 16)),
    (r"(.*_)?vocab_size.*", lambda v: min(v, 128)),
    (r"sliding_window|local_attention|attention_window", lambda v: 5),
    (r"attention_chunk_size", lambda v: 8),
    (r".*(num_experts_per_tok|top_k|moe_k|num_selected_experts|moe_topk)", lambda v: min(v, 2)),
    (r".*(n_groups?|topk_group|num_expert_group)", lambda v: 1),
    (r".*(num_experts|num_local_experts|n_routed_experts|moe_num_experts)", lambda v: min(v, 4)),
    (r"max_position.*|n_ctx|n_positions|max_source_positions|max_target_positions", lambda v: min(v, 512)),
)
_LISTS: dict[str, Any] = {"attn_layer_indices": [1], "attention_types": [[["global", "local"], 1]]}
_KEPT = r".*(mel_bins|kernel|stride|num_channels|in_channels|feature_size|patch_size|image_size|img_size|prompt_size|window_size).*"


def _shrink_special(name: str, value: Any, config: Any, strategy: str) -> Any:
    if value is None and strategy == "filled":
        return _FILLED.get(name, _SAME)
    if name in _LISTS and value is not None:
        return _LISTS[name]
    if not isinstance(value, int) or isinstance(value, bool):
        return _SAME
    if name in _SMALL and value > 1:
        return _SMALL[name]
    if name.endswith("token_id") and value >= 128:
        return 100 + sum(map(ord, name)) % 20
    if name == "image_size" and hasattr(config, "patch_size") and not hasattr(config, "window_size"):
        patch = _as_list(config.patch_size)[0]
        return 4 * patch if isinstance(patch, int) else value
    for pattern, change in _RULES:
        if re.fullmatch(pattern, name):
            return change(value)
    return value if re.fullmatch(_KEPT, name) else _SAME


def _shrink_width(name: str, value: Any, config: Any, strategy: str) -> Any:
    if (
        name.endswith("hidden_size")
        and name != "hidden_size"
        and value == 2 * (_get(config, "hidden_size", None) or 0) > 128
    ):
        return 128  # twice the width stays so
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and value > 64
        and re.search(
            r"(hidden_size|d_model|n_embd|embed_dim|_dim|_size|_channels|^dim|^width|ffn_dim|d_ff|d_inner|d_latents)$",
            name,
        )
    ):
        return 64
    return _SAME


def _shrink_depth(name: str, value: Any, depth: int) -> Any:
    if name == "depths" and isinstance(value, list | tuple):
        return [1] * (len(value) - 1) + [2]
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > depth
    is_depth = re.fullmatch(r".*(hidden_layers|n_layers?|_layers|num_blocks|self_attends_per_block)|depth", name)
    return depth if is_count and is_depth else _SAME


# ── models and what they are called with ─────────────────────────────────────────────────────────
def build_model(cls: type, strategy: str) -> torch.nn.Module:
    """Build a tiny model; one that would be large is refused before its arrays are made.

    Raises:
        ValueError: it has too many parameters.
    """
    config = shrink_config(cls.config_class, strategy)
    with torch.device("meta"):
        count = sum(p.numel() for p in _make(cls, config).parameters())
    if count > MAX_PARAMETERS:
        raise ValueError(f"{count:,} parameters")
    torch.manual_seed(0)
    model = _make(cls, shrink_config(cls.config_class, strategy)).eval()
    draw_parameters(model)
    return model


_USUAL_VALUES = {"rope_theta": 10000.0, "initializer_range": 0.02}  # which a model reads, and its configuration lacks


def _make(cls: type, config: Any) -> torch.nn.Module:
    """Make a model; what it reads from its configuration and is not there has its usual value."""
    for _ in _USUAL_VALUES:
        try:
            return cls(config)
        except AttributeError as error:
            missing = re.search(r"'(\w+)' object has no attribute '(\w+)'", str(error))
            if missing is None or missing[2] not in _USUAL_VALUES:
                raise
            for holder in (config, *(value for value in vars(config).values() if hasattr(value, "model_type"))):
                if type(holder).__name__ == missing[1]:
                    setattr(holder, missing[2], _USUAL_VALUES[missing[2]])
    return cls(config)


def propose_inputs(model: torch.nn.Module) -> Iterator[dict[str, Any]]:
    """Propose what a model is called with, by the names of its arguments."""
    proposals = _Proposals(model)
    for propose in (
        proposals.of_text,
        proposals.of_pixels,
        proposals.of_sound,
        proposals.of_vectors,
        proposals.of_series,
        proposals.of_codebooks,
    ):
        for inputs in propose():
            yield proposals.complete(inputs)


_WIDTHS = (  # what is said of an input that is too narrow or too wide: its width here, the width that is wanted
    r"shapes cannot be multiplied \(\d+x(?P<here>\d+) and (?P<wanted>\d+)x\d+\)",
    r"size of tensor a \((?P<here>\d+)\) must match the size of tensor b \((?P<wanted>\d+)\) at non-singleton dimension 2",
    r"expected input with shape \[\*, (?P<wanted>\d+)\], but got input of size\[.*?(?P<here>\d+)\]",
)


def mend_inputs(inputs: dict[str, Any], error: Exception) -> dict[str, Any] | None:
    """Return inputs as wide as a model wants them, with a mask, or without negative indices, by what it said; else None."""
    if isinstance(error, IndexError) and any((x < 0).any() for x in inputs.values() if isinstance(x, torch.Tensor)):
        return {name: x.abs() if isinstance(x, torch.Tensor) else x for name, x in inputs.items()}
    if isinstance(error, AttributeError) and "NoneType" in str(error) and "input_ids" in inputs:
        return None if "attention_mask" in inputs else inputs | {"attention_mask": torch.ones_like(inputs["input_ids"])}
    said = next(filter(None, (re.search(pattern, str(error)) for pattern in _WIDTHS)), None)
    vectors = {name: x for name, x in inputs.items() if isinstance(x, torch.Tensor) and x.is_floating_point()}
    if said is None or not vectors:
        return None
    here, wanted = int(said["here"]), int(said["wanted"])
    name = next((name for name, x in reversed(vectors.items()) if x.shape[-1] == here), next(iter(vectors)))
    width = vectors[name].shape[-1] + wanted - here
    if width < 1:
        return None
    generator = torch.Generator().manual_seed(6)
    return inputs | {name: torch.randn(*vectors[name].shape[:-1], width, generator=generator)}


class _Proposals:
    """Inputs of one model, all of which its `forward` names."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.parameters = inspect.signature(model.forward).parameters
        self.names = list(self.parameters)
        self.generator = torch.Generator().manual_seed(5)
        self.config: Any = model.config
        self.main = getattr(model, "main_input_name", "input_ids")
        self.ids = self.draw_ids(2, TOKENS)
        self.width = int(_first(self.config, "hidden_size", "d_model", "embed_dim", "n_embd", default=64))
        self.rest = self._find_rest(type(model).__name__)

    def draw(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def draw_ids(self, *shape: int) -> torch.Tensor:
        vocabulary = _first(self.config, "vocab_size", default=90)
        high = min(90, vocabulary) if isinstance(vocabulary, int) and vocabulary > 8 else 90
        return torch.randint(3, high, shape, generator=self.generator)

    def _find_rest(self, class_name: str) -> dict[str, Any]:
        """What goes with any main input."""
        rest: dict[str, Any] = {}
        if "use_cache" in self.names:
            rest["use_cache"] = False
        if "decoder_input_ids" in self.names:
            rest["decoder_input_ids"] = self.ids[:, :7]
        is_decoder = getattr(self.config, "add_cross_attention", False) or re.search("[Cc]ross|Decoder", class_name)
        if "encoder_hidden_states" in self.names and is_decoder:
            sizes = ("encoder_hidden_size", "cross_attention_hidden_size", "hidden_size", "d_model")
            rest["encoder_hidden_states"] = self.draw(2, 9, int(_first(self.config, *sizes, default=64)))
        if "bbox" in self.names:
            corners = torch.randint(0, 60, (2, TOKENS, 2), generator=self.generator)
            rest["bbox"] = torch.cat([corners, corners + 1], -1)
        size = int(_first(self.config, "visual_feat_dim", default=64))
        others = {
            "visual_feats": lambda: self.draw(2, 4, size),
            "visual_pos": lambda: self.draw(2, 4, 4),
            "context_hidden_states": lambda: self.draw(2, 9, self.width),
            "attention_mask": lambda: torch.ones(2, TOKENS + 9),
            "image_attention_mask": lambda: torch.ones(2, TOKENS, 1),
            "task_inputs": lambda: self.draw_ids(2, 77),
            "image_encoder_embeddings": lambda: self.draw(2, 1, 5, int(_first(vision, "embed_dim", default=64))),
        }
        vision = _first(self.config, "vision_config", default=None)
        wanted = set(self.names) - ({"attention_mask"} if "context_hidden_states" not in self.names else set())
        return rest | {name: make() for name, make in others.items() if name in wanted}

    def complete(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Add what else a model's `forward` requires: of the shape of what it stands beside, or drawn by its name."""
        pixels = inputs.get("pixel_values")
        if "prompt_pixel_values" in self.names and pixels is not None:  # which stand below one another
            inputs = inputs | {"pixel_values": pixels[..., : pixels.shape[-2] // 2, :]}
            pixels = inputs["pixel_values"]
        makers = {
            "prompt_pixel_values": lambda: torch.zeros_like(pixels) if pixels is not None else None,
            "prompt_masks": lambda: torch.zeros_like(pixels) if pixels is not None else None,
            "input_values": lambda: self.draw(2, 1, 320 * inputs["input_features"].shape[1]),
            "input_features_mask": lambda: torch.ones(inputs["input_features"].shape[:2], dtype=torch.long),
        }
        missing = [
            name
            for name, parameter in self.parameters.items()
            if parameter.default is parameter.empty and name in makers and name not in inputs
        ]
        is_sound = "input_features" in inputs
        return inputs | {name: makers[name]() for name in missing if is_sound or not name.startswith("input_")}

    def of_text(self) -> Iterator[dict[str, Any]]:
        if "input_ids" in self.names:
            yield {"input_ids": self.ids, **self.rest}

    def of_pixels(self) -> Iterator[dict[str, Any]]:
        for pixels in _propose_pixels(self.config, self.draw):
            for name in ("pixel_values", "pixel_values_videos", "x"):
                if name in self.names:
                    both = {"input_ids": self.ids} if "input_ids" in self.names else {}
                    yield {name: pixels, **both, **self.rest}
                    if both:
                        yield {name: pixels}

    def of_sound(self) -> Iterator[dict[str, Any]]:
        for features in _propose_features(self.config, self.draw):
            for name in ("input_features", "input_values", "audio_values", "features"):
                if name in self.names:
                    yield {name: features, **self.rest}

    def of_vectors(self) -> Iterator[dict[str, Any]]:
        if "hidden_states" in self.names:
            yield {"hidden_states": self.draw(2, TOKENS, self.width), **self.rest}
            for width in (_patch_width(self.config), self.width):
                yield {"hidden_states": self.draw(16, width), "grid_thw": torch.tensor([[1, 4, 4]])}
        if "inputs_embeds" in self.names:
            yield {"inputs_embeds": self.draw(2, TOKENS, self.width), **self.rest}
        if "query_embeds" in self.names:
            width = int(_first(self.config, "encoder_hidden_size", default=self.width))
            yield {"query_embeds": self.draw(2, TOKENS, self.width), "encoder_hidden_states": self.draw(2, 9, width)}
        if self.main in self.names and self.main != "input_ids":
            yield {self.main: self.draw(2, TOKENS, self.width), **self.rest}

    def of_series(self) -> Iterator[dict[str, Any]]:
        if "past_values" not in self.names:
            return
        lags = _as_list(_first(self.config, "lags_sequence", default=[0])) or [0]
        length = int(_first(self.config, "context_length", "prediction_length", default=24) or 24) + max(lags)
        channels = int(_first(self.config, "num_input_channels", "input_size", default=1))
        is_patched = "patch" in type(self.config).__name__.lower()
        values = self.draw(2, length, channels) if channels > 1 or is_patched else self.draw(2, length)
        yield {"past_values": values}
        count = int(_first(self.config, "num_time_features", default=0))
        future = int(_first(self.config, "prediction_length", default=4) or 4)
        yield {
            "past_values": values,
            "past_time_features": self.draw(2, length, count),
            "past_observed_mask": torch.ones_like(values),
            "future_values": self.draw(2, future),
            "future_time_features": self.draw(2, future, count),
        }

    def of_codebooks(self) -> Iterator[dict[str, Any]]:
        if "input_ids" not in self.names:
            return
        for count in (int(_first(self.config, "num_codebooks", "num_quantizers", default=4)), 8):
            for shape in ((2, TOKENS, count), (2, count, TOKENS), (2 * count, TOKENS)):
                yield {"input_ids": self.draw_ids(*shape), **self.rest}


def _propose_pixels(config: Any, draw: Any) -> Iterator[torch.Tensor]:
    holders = [config, *(v for v in vars(config).values() if hasattr(v, "model_type"))]
    for holder in holders:
        size = getattr(holder, "image_size", None)
        size = size if isinstance(size, list | tuple) else [size, size]
        channels = int(_first(holder, "num_channels", "in_channels", default=3))
        frames = _first(holder, "num_frames", "frames_per_clip", default=None)
        sizes = [(64, 64), (224, 224)]
        if isinstance(size[0], int):
            sizes.insert(2 if max(size) > 512 else 0, size)  # large images, which are slow, come last
        for height, width in sizes:
            if isinstance(frames, int):
                yield draw(2, frames, channels, height, width)
            yield draw(2, channels, height, width)
            yield draw(2, 2, channels, height, width)


def _propose_features(config: Any, draw: Any) -> Iterator[torch.Tensor]:
    for holder in [config, *(v for v in vars(config).values() if hasattr(v, "model_type"))]:
        mel = int(
            _first(
                holder, "num_mel_bins", "feature_size", "input_feat_per_channel", "mel_bins", "input_dim", default=80
            )
        )
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
    return (
        int(_first(config, "in_channels", "in_chans", "num_channels", default=3))
        * patch**2
        * int(_first(config, "temporal_patch_size", default=1))
    )


def _as_list(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _first(config: Any, *names: str, default: Any) -> Any:
    """Return the first value that a configuration has; of a list of sizes the first one, but of lags all."""
    value = next((v for name in names if (v := _get(config, name, None)) is not None), default)
    return value[0] if isinstance(value, list | tuple) and value and "lags_sequence" not in names else value
