"""Look at the folder of a model before anything is loaded: is it one, can it be run safely, does the request fit it.

Only `config.json` and the headers of safetensors files are read. What could run code is refused, and the way to convert it said.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from attncli.capture.request import RANDOM_IMAGE, CaptureRequest
from attncli.errors import CannotError, InputError, Location, OptionError
from attncli.readers.files import read_bytes
from attncli.text import join_names, pluralize, shorten
from attncli.types import Json

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_OTHER_WEIGHTS = (".h5", ".msgpack", ".onnx")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_IMAGE_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
_ARCHITECTURE_TABLES = ("auto_mappings.py", "configuration_auto.py")  # of transformers; the first since version 5
_VISION_FIELDS = ("vision_config", "image_size", "patch_size", "num_channels", "backbone_config", "in_channels")
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers")
_POSITION_COUNTS = ("max_position_embeddings", "n_positions", "n_ctx")
_LEARNED_POSITIONS = {  # models whose positions are a table, which ends
    "bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "albert", "gpt2", "gpt_neo", "opt", "mpnet", "bart", "mbart",
}  # fmt: skip


@dataclass(frozen=True)
class ModelSource:
    """Where a model is, and what its configuration says."""

    path: str  # of its folder, or its name on the hub
    is_on_hub: bool = False
    gguf_file: str = ""  # in the folder
    config: Json = field(default_factory=dict)

    @property
    def model_name(self) -> str:
        return self.path if self.is_on_hub else Path(self.path).resolve().name

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type", ""))

    @property
    def named_kernel(self) -> str:
        """The attention that config.json asks for, where it is not the model's own code; empty: none."""
        names = [self.config.get(name) for name in ("_attn_implementation", "attn_implementation")]
        return next((name for name in names if isinstance(name, str) and name != "eager"), "")

    @property
    def is_encoder_decoder(self) -> bool:
        return bool(self.config.get("is_encoder_decoder"))


def find_model(name: str) -> ModelSource:
    """Find a model by the path of its folder or GGUF file, or by its name on the hub, and read its configuration.

    Raises:
        InputError: there is nothing of that name, or no model, or one that could only be loaded by running code.
    """
    path = Path(name)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError):
        is_folder = is_file = False
    if is_file and path.suffix == ".gguf":
        return ModelSource(str(path.parent), gguf_file=path.name)
    if is_file:
        raise InputError(
            "no-model",
            f"{shorten(name)} is a file, and a model is a folder or a .gguf file",
            help=f"name the folder that holds config.json: attn capture {shorten(str(path.parent))} …",
        )
    if not is_folder:
        return _find_on_hub(name, path)
    config = _read_config(path)
    _check_safe(path, config)
    _check_weights(path, config)
    return ModelSource(name, config=config)


def _find_on_hub(name: str, path: Path) -> ModelSource:
    if _HUB_NAME.fullmatch(name) and not path.parent.exists():
        return ModelSource(name, is_on_hub=True)
    raise InputError(
        "no-model",
        f"there is no folder {shorten(name)}",
        help="name a folder that holds config.json and model.safetensors, or a model of the hub as OWNER/NAME",
    )


def _read_config(folder: Path) -> Json:
    import msgspec

    path = folder / "config.json"
    if not path.is_file():
        found = sorted(child.name for child in folder.glob("*.gguf"))
        if found:
            raise InputError(
                "no-model",
                f"{folder} holds no config.json",
                help=f"a GGUF file is a model by itself: attn capture {folder / found[0]} …",
            )
        if (folder / "adapter_config.json").is_file():
            raise InputError(
                "no-model",
                f"{folder} holds an adapter, and not a whole model",
                help="merge it into its base model, and save that",
            )
        raise InputError(
            "no-model",
            f"{folder} holds no config.json, so it is not the folder of a model",
            help="model.save_pretrained('FOLDER') of transformers writes it",
        )
    try:
        config = msgspec.json.decode(read_bytes(str(path)))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            "bad-json", f"config.json is not valid JSON: {error}", location=Location(file=str(path))
        ) from None
    if not isinstance(config, dict):
        raise InputError("bad-json", "config.json is not an object", location=Location(file=str(path)))
    return config


def _check_safe(folder: Path, config: Json) -> None:
    location = Location(file=str(folder / "config.json"))
    if not isinstance(config.get("model_type"), str):
        raise InputError(
            "unknown-architecture",
            "config.json has no model_type, so it is not known which model this is",
            location=location,
            help="transformers writes it when it saves a model",
        )
    if config.get("quantization_config"):
        raise InputError(
            "unknown-architecture",
            "the weights are quantised by a library whose kernels hide the numbers",
            location=location,
            help="capture the model that they were made of, or a GGUF file of it",
        )


def pickled_error(folder: str, name: str) -> InputError:
    """Return the error of weights that could only be loaded by running code, with the way to convert them."""
    return InputError(
        "pickled",
        f"{shorten(name)} is a pickle, which runs code when it is read",
        location=Location(file=folder),
        help='convert it where you trust it: python -c "import sys; from transformers import AutoModel; '
        f'AutoModel.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])" {folder}',
    )


def _find_named_weights(folder: Path, config: Json) -> list[str]:
    """Return the files of weights that the configuration or an index of several files names."""
    import msgspec

    named = [config.get("transformers_weights")]
    for path in sorted(folder.glob("*.safetensors.index.json")):
        try:
            index = msgspec.json.decode(read_bytes(str(path)))
            named += index["weight_map"].values()
        except (msgspec.DecodeError, AttributeError, KeyError, TypeError, UnicodeDecodeError):
            raise InputError("bad-json", "it is no index of weights", location=Location(file=str(path))) from None
    return [name for name in named if isinstance(name, str)]


def _check_weights(folder: Path, config: Json) -> None:
    """Check that the weights are there in a format that is only data."""
    names = sorted(child.name for child in folder.iterdir() if child.is_file())
    if any(name.endswith(".safetensors") for name in names):
        pickles = [name for name in _find_named_weights(folder, config) if name.endswith(_PICKLES)]
        if pickles:
            raise pickled_error(str(folder), pickles[0])
        return
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        raise pickled_error(str(folder), pickles[0])
    others = [name for name in names if name.endswith(_OTHER_WEIGHTS)]
    what = f"only {others[0]}" if others else "no weights"
    raise InputError(
        "no-model",
        f"{folder} holds {what}, and no safetensors file",
        help="save the model with transformers: model.save_pretrained('FOLDER')",
    )


def check_request(source: ModelSource, request: CaptureRequest) -> None:
    """Check what a request asks of a model, as far as its configuration tells.

    Raises:
        OptionError: a layer or a token that the model does not have; or a layer that may be one of several.
        InputError: no tokenizer, for a text.
        CannotError: the model does not fit in memory.
    """
    _check_architecture(source, trusts_code=request.trusts_remote_code)
    config = source.config
    layers = request.layers
    if source.is_encoder_decoder and layers.names_numbers and layers.tower is None:
        spelled = [f"--layer {tower}.{layers.text}" for tower in ("encoder", "decoder", "cross")]
        raise OptionError(
            "ambiguous-layer",
            f"--layer {layers.text} may be of the encoder, of the decoder, or of its attention to the encoder",
            help=join_names(spelled, "or"),
        )
    count = next((config[name] for name in _LAYER_COUNTS if isinstance(config.get(name), int)), None)
    if count is not None and not source.is_encoder_decoder and layers.low >= count:
        raise OptionError(
            "no-such-layer",
            f"there is no layer {layers.low}: the model has {pluralize(count, 'layer')}, 0 to {count - 1}",
            help=f"--layer {count - 1} is the last one; attn capture MODEL --list shows them",
        )
    vocabulary = config.get("vocab_size")
    if isinstance(vocabulary, int) and request.ids and max(request.ids) >= vocabulary:
        raise OptionError(
            "bad-option",
            f"--ids has {max(request.ids)}, and the model's vocabulary has {vocabulary:,} tokens, 0 to {vocabulary - 1}",
        )
    check_length(source, len(request.ids) + request.generated_count * bool(request.ids))
    _check_image(source, request)
    if request.texts and not source.is_on_hub and not source.gguf_file:
        folder = Path(source.path)
        if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
            if "patch_size" in config and not {"vocab_size", "text_config"} & config.keys():
                message = f"{source.model_name} reads images, and no text"
                raise InputError("other-input", message, help="--image FILE, or --image random")
            raise InputError(
                "no-tokenizer",
                f"{folder} holds no tokenizer, so a text cannot be cut into tokens",
                help="give the numbers of the tokens, --ids 1,5,7, or save the tokenizer there: tokenizer.save_pretrained('FOLDER')",
            )
    if not source.is_on_hub:
        _check_memory(source, request.dtype)


def _check_architecture(source: ModelSource, *, trusts_code: bool) -> None:
    """Check that transformers knows the architecture, by the text of its tables: to import them would import torch."""
    package = find_spec("transformers") if source.model_type else None
    if package is None or package.origin is None:
        return
    tables = [Path(package.origin).parent / "models" / "auto" / name for name in _ARCHITECTURE_TABLES]
    texts = [path.read_text(encoding="utf-8") for path in tables if path.is_file()]
    if not texts or any(f'"{source.model_type}"' in text for text in texts):
        return
    has_code = bool(source.config.get("auto_map"))
    if has_code and trusts_code:
        return
    raise InputError(
        "unknown-architecture",
        f"transformers does not know the architecture {shorten(source.model_type)}"
        + (", and code in the folder is not run" if has_code else ""),
        location=Location(file=f"{source.path}/config.json"),
        help="--trust-remote-code runs the code in the folder: read it first"
        if has_code
        else "a newer transformers may know it: pip install --upgrade transformers",
    )


def _check_image(source: ModelSource, request: CaptureRequest) -> None:
    """Check that an image file can be made ready for the model."""
    if not request.image or request.image == RANDOM_IMAGE or source.is_on_hub:
        return
    folder = Path(source.path)
    if source.config and not any(name in source.config for name in _VISION_FIELDS):
        raise InputError("other-input", f"{source.model_name} reads no images", help="--text 'Hello shiny sun!'")
    if source.gguf_file or not any((folder / name).is_file() for name in _IMAGE_PROCESSOR_FILES):
        raise InputError(
            "no-image-processor",
            f"{folder} holds no preprocessor_config.json, so it is not known how an image is made ready",
            help="--image random, or save it there: image_processor.save_pretrained('FOLDER')",
        )


def describe_source(source: ModelSource, request: CaptureRequest) -> Json:
    """Return what decides the layers that are captured: versions, the model by its files, and the request."""
    from attncli import __version__

    files: Json = {}
    if not source.is_on_hub:
        folder = Path(source.path)
        paths = [folder / source.gguf_file] if source.gguf_file else sorted(folder.glob("*"))
        for path in paths:
            if path.suffix in (".gguf", ".safetensors", ".json", ".py"):
                status = path.stat()
                files[path.name] = [status.st_size, status.st_mtime_ns]
    asked = {
        "texts": request.texts,
        "ids": request.ids,
        "from": request.depth,
        "dtype": request.dtype,
        "decode": request.generated_count,
        "image": request.image,
    }
    if request.image not in ("", RANDOM_IMAGE):
        asked["image_sha256"] = hashlib.sha256(read_bytes(request.image)).hexdigest()
    decided = {name: value for name, value in asked.items() if value}
    return {"attn_version": __version__, "model": source.model_name, "files": files, "request": decided}


def check_length(source: ModelSource, token_count: int) -> None:
    """Check that a model whose positions are a table has one for each token.

    Raises:
        InputError: it has not.
    """
    if source.model_type not in _LEARNED_POSITIONS:
        return
    most = next((source.config[name] for name in _POSITION_COUNTS if isinstance(source.config.get(name), int)), None)
    if most is not None and token_count > most:
        raise InputError(
            "too-long", f"the text has {token_count:,} tokens, and the model has {most:,} positions", help="shorten it"
        )


def _check_memory(source: ModelSource, dtype: str) -> None:
    from attncli.plan.memory import available_memory_bytes

    folder, number_size = Path(source.path), 8 if dtype == "float64" else 4
    if source.gguf_file:
        needed = (folder / source.gguf_file).stat().st_size * 2 * number_size  # about four bits a weight, and more
    else:
        needed = sum(_count_numbers(path) for path in folder.glob("*.safetensors")) * number_size
    available = available_memory_bytes()
    if available is not None and needed > available:
        raise CannotError(
            "out-of-memory",
            f"the model needs about {needed / 2**30:,.1f} GiB in {dtype}, but only {available / 2**30:,.1f} GiB are free",
            help="a smaller model of its family has the same kinds of layers"
            if dtype == "float32"
            else "--dtype float32",
        )


def _count_numbers(path: Path) -> int:
    """Count the numbers of a safetensors file, by its header.

    Raises:
        InputError: it is none.
    """
    import math

    from attncli.readers.parser_errors import translate_parser_errors
    from attncli.readers.safetensors import parse_header

    with (
        path.open("rb") as file,
        translate_parser_errors(
            "bad-file", f"{path.name} is not a complete safetensors file", "was the copy cut short?"
        ),
    ):
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError("its header is longer than the file")
        header = parse_header(file.read(size), path.stat().st_size)
    return sum(math.prod(tensor.shape) for tensor in header.tensors)
