"""Read the learned arrays of one attention layer out of a checkpoint, for `--from-state-dict FILE:PREFIX`.

Entries: `split_file_and_prefix`, `read_layer`, `add_layer`. Of a safetensors file only the header and the tensors of that
layer are read; of a checkpoint in several files, only those that hold such tensors. Nothing is executed.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import IO, NamedTuple

from attncli.errors import AttnError, InputError, Location, OptionError
from attncli.framework_arrays import (
    FRAMEWORK_ARRAYS,
    QKV_LAYOUT_OF_MODEL_TYPE,
    QUERY_NAMES,
    find_layers,
    find_missing_arrays,
)
from attncli.readers.base import check_duplicate_keys
from attncli.readers.files import open_input, read_bytes, read_error
from attncli.readers.parser_errors import translate_parser_errors
from attncli.readers.safetensors import Header, Tensor, make_array, parse_header
from attncli.text import closest, join_names, shorten
from attncli.types import Json, NumpyArray, Problem

_INDEX_NAME = "model.safetensors.index.json"
_FILE_NAMES = (_INDEX_NAME, "model.safetensors", "diffusion_pytorch_model.safetensors")
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MAX_HEADER_BYTES = 100_000_000  # as the library of safetensors has it
_MAX_CONFIG_BYTES = 2**20
_FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
_WITHOUT_EFFECT = re.compile(  # buffers that follow from positions and masks, beside the learned arrays
    r"(.*\.)?(inv_freq|original_inv_freq|cos_cached|sin_cached|rotary_(sin|cos)|embed_positions|causal_mask|mask|masked_bias|IGNORE)"
)
_QUANTISED = re.compile(
    r"(.*\.)?(qweight|qzeros|g_idx|weight_packed|weight_scale(_inv)?|scales|SCB|weight\.(absmax|quant_map|nested_absmax|quant_state\..*))"
)
_ADAPTER = re.compile(r"(.*\.)?(lora_|base_layer\.).*")


class Layer(NamedTuple):
    """The learned arrays of one attention layer, by their names after its prefix, and what there is to say about them."""

    arrays: Mapping[str, NumpyArray]
    notes: tuple[str, ...]


def split_file_and_prefix(text: str) -> tuple[str, str]:
    """Split `FILE:PREFIX` into the checkpoint's file or folder and the name of one attention layer in it.

    The prefix is empty where the file holds one layer alone.

    Raises:
        OptionError: it names no file, or no safetensors file.
    """
    path, colon, prefix = text.rpartition(":")
    if not colon or "/" in prefix or "\\" in prefix or prefix.endswith((".safetensors", ".json")):
        path, prefix = text, ""
    if not path:
        raise _misspelt_error(f"--from-state-dict takes FILE:PREFIX, not {shorten(text)!r}")
    if path == "-" or "://" in path:
        raise _misspelt_error("--from-state-dict takes a file, neither standard input nor an address")
    suffix = PurePath(path).suffix.lower()
    is_known = suffix in ("", ".safetensors", ".json", *_PICKLE_SUFFIXES) or _is_folder(path)
    if not is_known and not colon and not Path(path).exists():  # a prefix alone
        raise _misspelt_error(f"--from-state-dict takes FILE:PREFIX, but {shorten(text)!r} is not a file")
    if not is_known:
        raise OptionError(
            "unknown-format",
            f"the suffix {shorten(suffix)!r} is not that of a checkpoint that can be read",
            help=f"a .safetensors file, the {_INDEX_NAME} of several, or the folder that holds them",
        )
    if suffix in _PICKLE_SUFFIXES:
        raise OptionError(
            "unknown-format",
            f"{shorten(path)} is a pickle, which runs code when it is read",
            help='convert it: python -c "import torch; from safetensors.torch import save_file; '
            f"s = torch.load('{shorten(path)}', weights_only=True); save_file({{n: t.clone() for n, t in s.items()}}, 'model.safetensors')\"",
        )
    return path, prefix.rstrip(".")


def _misspelt_error(message: str) -> OptionError:
    return OptionError("bad-option", message, help="--from-state-dict model.safetensors:model.layers.0.self_attn")


def add_layer(problem: Problem, text: str) -> Problem:
    """Return the problem with the learned arrays that `FILE:PREFIX` names beside its own.

    Raises:
        OptionError, InputError, CannotError: as `read_layer`, or the problem has an array of the same name.
    """
    path, prefix = split_file_and_prefix(text)
    layer = read_layer(path, prefix)
    present = problem.parameters or {}
    twice = next((name for name in layer.arrays if name in present), None)
    if twice is not None:
        raise InputError(
            "two-sources",
            f"parameters.{twice} is given, and also comes from {shorten(path)}",
            help="leave it out of one of them",
        )
    notes = (*problem.notes, *layer.notes)
    return dataclasses.replace(problem, parameters={**present, **layer.arrays}, notes=notes)


def read_layer(path: str, prefix: str) -> Layer:
    """Read the learned arrays of one attention layer.

    Args:
        path: a safetensors file, the index of several (`model.safetensors.index.json`), or a folder that holds either.
        prefix: the name of the attention module in the state dict, `model.layers.0.self_attn`.

    Raises:
        InputError: the file cannot be read, has no such layer, or lacks an array of it; or its arrays are quantised.
        CannotError: it does not fit in memory.
    """
    file = _find_file(path)
    try:
        checkpoint = _open_checkpoint(file)
        names = _select_names(checkpoint, prefix, file)
        found = dict(_read_arrays({name: checkpoint.files[_join(prefix, name)] for name in names}, prefix))
        arrays = {name: found[name] for name in names}
    except AttnError as error:
        raise error.add_location(file=file) from None
    return Layer(arrays, tuple(_make_notes(file, prefix, arrays, checkpoint)))


def _find_file(path: str) -> str:
    """Return the file of a checkpoint: itself, or the one in a folder.

    Raises:
        InputError: there is none.
    """
    if not _is_folder(path):
        return path
    for name in _FILE_NAMES:
        if (Path(path) / name).is_file():
            return str(Path(path) / name)
    found = sorted(entry.name for entry in Path(path).glob("*.safetensors"))
    hint = f"name one: {Path(path) / found[0]}" if found else "name a .safetensors file"
    raise InputError("not-a-file", f"{shorten(path)} is a folder without {_INDEX_NAME} or model.safetensors", help=hint)


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # nothing can have that name
        return False


# ── which tensors there are ──────────────────────────────────────────────────────────────────────
class _Checkpoint(NamedTuple):
    """The names of a checkpoint's tensors, and the file of each."""

    files: Mapping[str, str]


def _open_checkpoint(file: str) -> _Checkpoint:
    """List the tensors of a checkpoint.

    Raises:
        InputError: it cannot be read, or is neither a safetensors file nor the index of several.
    """
    if PurePath(file).suffix.lower() == ".json":
        return _Checkpoint(_read_index(file))
    with open_input(file) as opened:
        header = _read_file_header(opened, file)
    return _Checkpoint({tensor.name: file for tensor in header.tensors})


def _read_index(file: str) -> dict[str, str]:
    """Read an index: the name of each tensor, and the file beside the index that holds it.

    Raises:
        InputError: it is no index, or names a file elsewhere.
    """
    import msgspec

    data = read_bytes(file)
    with translate_parser_errors("bad-file", "this is not an index of safetensors files"):
        weight_map = msgspec.json.decode(data, type=dict[str, object])["weight_map"]
        names = msgspec.convert(weight_map, dict[str, str])
    check_duplicate_keys(data)
    for shard in set(names.values()):
        if shard in ("", ".", "..") or any(c in shard for c in "/\\:\0"):
            raise InputError("bad-file", f"the index names {shorten(shard)!r}, but there is no such file beside it")
    return {name: str(Path(file).with_name(shard)) for name, shard in names.items()}


def _read_file_header(opened: IO[bytes], file: str) -> Header:
    """Read the header of a safetensors file, and leave the file where it ends."""
    with translate_parser_errors("bad-file", "this is not a complete safetensors file", "was the copy cut short?"):
        try:
            size = os.fstat(opened.fileno()).st_size
            length = int.from_bytes(opened.read(8), "little")
            if size < 8 or 8 + length > size:
                raise ValueError(f"a header of {length:,} bytes is declared, but the file has {size:,}")
            if length > _MAX_HEADER_BYTES:
                raise ValueError(
                    f"a header of {length:,} bytes is declared, but it may have at most {_MAX_HEADER_BYTES:,}"
                )
            return parse_header(opened.read(length), size)
        except OSError as error:
            raise read_error(file, error) from None


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _names_below(names: Iterable[str], prefix: str) -> list[str]:
    """Return the names after a prefix, of the tensors that have it."""
    start = f"{prefix}." if prefix else ""
    return [name.removeprefix(start) for name in names if name.startswith(start)]


def _select_names(checkpoint: _Checkpoint, prefix: str, file: str) -> list[str]:
    """Return the names of the layer's learned arrays, after the prefix.

    Raises:
        InputError: there is no such layer, or it is quantised, or arrays are missing.
    """
    below = _names_below(checkpoint.files, prefix)
    if any(name.startswith(_QUERY_MODULES) for name in below):
        _check_whole(below, prefix)
    names = sorted((name for name in below if _is_known(name)), key=_order_by_target)
    if not any(name in QUERY_NAMES for name in names):
        raise _no_such_layer_error(checkpoint, prefix, below)
    found = find_missing_arrays(names)
    if found:
        name, missing = found
        is_shard = re.search(r"-\d+-of-\d+\.safetensors$", file)
        hint = f"it is one of several files: name the folder, or {_INDEX_NAME}" if is_shard else "is the file whole?"
        message = f"there is {_join(prefix, name)}, but no {join_names([_join(prefix, x) for x in missing], 'or')}"
        raise InputError("missing-parameters", shorten(message, 400), help=hint)
    return names


_QUERY_MODULES = tuple(name.removesuffix("weight") for name in QUERY_NAMES if name.endswith(".weight"))
_TARGET_ORDER = ("w_q", "w_k", "w_v", "w_qkv", "b_q", "b_k", "b_v", "b_qkv", "w_o", "b_o")


def _order_by_target(name: str) -> tuple[int, str]:
    """Return where an array stands among those of its layer: in order of computation."""
    target = FRAMEWORK_ARRAYS[name].target if name in FRAMEWORK_ARRAYS else name
    return _TARGET_ORDER.index(target) if target in _TARGET_ORDER else len(_TARGET_ORDER), name


def _is_known(name: str) -> bool:
    """Whether a name after the prefix is that of a learned array, by a framework's name or ours."""
    from attncli.validation.fields import known_parameters

    return name in FRAMEWORK_ARRAYS or name in known_parameters()


def _check_whole(below: Collection[str], prefix: str) -> None:
    """Check that the weights stand as they are: neither quantised, nor beside adapters that are not merged.

    Raises:
        InputError: they do not.
    """
    quantised = next((name for name in below if _QUANTISED.fullmatch(name)), None)
    if quantised is not None:
        raise _quantised_error(f"{_join(prefix, quantised)} shows that this layer is quantised")
    adapter = next((name for name in below if _ADAPTER.fullmatch(name)), None)
    if adapter is not None:
        raise InputError(
            "wrong-type",
            f"{shorten(_join(prefix, adapter))} is an adapter that is not merged into its matrix",
            help="merge it, in peft with model.merge_and_unload(), and save the model with save_pretrained",
        )


def _quantised_error(message: str) -> InputError:
    return InputError(
        "wrong-type",
        f"{shorten(message, 300)}, and its numbers are not the weights themselves",
        help="save it in float32 or bfloat16, in transformers with model.dequantize() and save_pretrained, and name that file",
    )


def _no_such_layer_error(checkpoint: _Checkpoint, prefix: str, below: list[str]) -> InputError:
    """Make the error for a prefix under which no attention layer stands; it names those that do."""
    layers = list(dict.fromkeys(find_layers(checkpoint.files)))
    if not layers:
        return InputError(
            "unknown-layer",
            "it has no attention layer whose arrays have names that attn knows",
            help="docs/file-format.md lists these names; give other arrays one by one: --with parameters.w_q=FILE",
        )
    listed = join_names(map(repr, map(shorten, layers)), "or", max_names=8)
    if not prefix:
        return InputError("unknown-layer", "the name of the layer is missing", help=f"add it after a colon: {listed}")
    message = f"it has no attention layer {shorten(prefix)!r}"
    if below:
        message += f", where there are {join_names(map(shorten, below), max_names=6)}"
    nearest = next((layer for layer in layers if layer.startswith(f"{prefix}.")), None) or closest(prefix, layers)
    return InputError("unknown-layer", message, help=f"did you mean {nearest!r}?" if nearest else f"it can be {listed}")


# ── their numbers ────────────────────────────────────────────────────────────────────────────────
def _read_arrays(files: Mapping[str, str], prefix: str) -> Iterator[tuple[str, NumpyArray]]:
    """Read arrays, by their names after the prefix, from the files that hold them.

    Raises:
        InputError: one is not there, is not of floating-point numbers, or is malformed.
    """
    from attncli.validation.fields import validate_field

    for file in dict.fromkeys(files.values()):
        with open_input(file) as opened:
            header = _read_file_header(opened, file)
            tensors = {tensor.name: tensor for tensor in header.tensors}
            for name in [name for name, holder in files.items() if holder == file]:
                full_name = _join(prefix, name)
                if full_name not in tensors:
                    raise InputError(
                        "bad-file", f"the index says that {shorten(full_name)} is in {shorten(file)}, but it is not"
                    )
                tensor = tensors[full_name]
                if tensor.dtype not in _FLOAT_DTYPES:
                    raise _quantised_error(f"{full_name} is {tensor.dtype}")
                try:
                    yield name, validate_field(f"parameters.{name}", _read_array(opened, tensor, file))
                except AttnError as error:
                    error.location = Location(path=shorten(full_name))
                    raise error.add_location(file=file) from None


def _read_array(opened: IO[bytes], tensor: Tensor, file: str) -> NumpyArray:
    """Read one tensor, whose bytes the header has been checked to lie in the file."""
    from attncli.readers.files import check_free_memory

    size = tensor.end - tensor.start
    check_free_memory(size, file)
    try:
        opened.seek(tensor.start)
        data = opened.read(size)
    except OSError as error:
        raise read_error(file, error) from None
    if len(data) != size:
        raise InputError("cannot-read", f"{shorten(file)} has changed while it was read", help="wait until it is whole")
    return make_array(tensor, bytearray(data))


# ── what there is to say ─────────────────────────────────────────────────────────────────────────
def _make_notes(file: str, prefix: str, arrays: Mapping[str, NumpyArray], checkpoint: _Checkpoint) -> Iterator[str]:
    """Yield what was found, what was left out, and what the model's configuration says beside it."""
    found = [_describe_array(name, array) for name, array in arrays.items()]
    yield f"{f'{shorten(prefix)} of ' if prefix else ''}{shorten(file)}: {'; '.join(found)}"
    names = [name for name in _names_below(checkpoint.files, prefix) if name not in arrays] if prefix else []
    others = [name for name in names if not _WITHOUT_EFFECT.fullmatch(name) and not _is_gpt2_mask(name, arrays)]
    if others:
        yield f"not read, as attn knows no such array: {join_names(map(shorten, others), max_names=8)}"
    if "q_norm.weight" in arrays or "k_norm.weight" in arrays:
        yield "q_norm.weight and k_norm.weight are taken as the gains; those of a Gemma are 1 more: --with parameters.q_norm.weight=FILE"
    has_open_layout = any(
        FRAMEWORK_ARRAYS[x].is_packed and FRAMEWORK_ARRAYS[x].qkv_layout is None
        for x in arrays
        if x in FRAMEWORK_ARRAYS
    )
    yield from _describe_config(Path(file).with_name("config.json"), has_open_layout)


def _is_gpt2_mask(name: str, arrays: Collection[str]) -> bool:
    """Whether a name is that of GPT-2's mask, a buffer called bias."""
    return name in ("bias", "attention.bias") and any(
        known in arrays for known in ("c_attn.weight", "query_key_value.weight")
    )


def _describe_array(name: str, array: NumpyArray) -> str:
    """Return what an array is: "w_q is q_proj.weight, (24, 40), out × in"."""
    shape = f"({', '.join(map(str, array.shape))})"
    declared = FRAMEWORK_ARRAYS.get(name)
    if declared is None:
        return f"{name} {shape}"
    target = declared.target
    if declared.is_packed:
        target = ", ".join(f"{target[0]}_{letter}" for letter in "qkv")
    orientation = {"out-in": "out × in", "heads": "one for each head"}.get(declared.orientation, "")
    if name == "c_attn.weight":
        orientation = "in × out" if array.shape[0] < array.shape[1] else "out × in"
    details = ", ".join(detail for detail in (orientation, declared.qkv_layout or "") if detail and array.ndim > 1)
    verb = "are" if declared.is_packed else "is"
    return f"{target} {verb} {name} {shape}{f', {details}' if details else ''}"


_CONFIG_KEYS = {  # what models call how many heads they have
    "heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "kv-heads": ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "multi_query_group_num"),
}


def _describe_config(file: Path, has_open_layout: bool) -> Iterator[str]:
    """Yield what a model's configuration says of heads and packing, where there is one; if anything is amiss with it, nothing."""
    import msgspec

    try:
        if file.stat().st_size > _MAX_CONFIG_BYTES:
            return
        config: Json = msgspec.json.decode(read_bytes(str(file)), type=dict[str, object])
    except (OSError, ValueError, AttnError, RecursionError):
        return
    options = []
    for option, keys in _CONFIG_KEYS.items():
        value = next((config[key] for key in keys if key in config), None)
        if type(value) is int and 0 < value < 2**20:
            options.append(f"--{option} {value}")
    model_type = config.get("model_type")
    if has_open_layout and isinstance(model_type, str) and model_type in QKV_LAYOUT_OF_MODEL_TYPE:
        options.append(f"--projection given:qkv={QKV_LAYOUT_OF_MODEL_TYPE[model_type]}")
    if options:
        owner = f" (model_type {shorten(model_type)})" if isinstance(model_type, str) else ""
        yield f"config.json beside it{owner} says {' '.join(options)}"
