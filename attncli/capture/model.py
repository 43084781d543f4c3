"""Load a model and its tokenizer through transformers: as data alone, computing eagerly, in the dtype that is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from attncli.capture.model_folder import ModelSource, check_length, pickled_error
from attncli.capture.request import CaptureRequest
from attncli.errors import CannotError, InputError, Location, OptionError
from attncli.text import join_names, printable, shorten
from attncli.types import Json

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def loading_arguments(source: ModelSource, request: CaptureRequest) -> Json:
    """Return the arguments of every loading function: where to look, and whether code may run."""
    where: Json = {"local_files_only": not source.is_on_hub, "trust_remote_code": request.trusts_remote_code}
    return where | ({"gguf_file": source.gguf_file} if source.gguf_file else {})


def _spell_ids(ids: Sequence[int]) -> list[str]:
    return [str(i) for i in ids]


@dataclass
class Tokens:
    """Texts as a model receives them."""

    ids: list[list[int]]  # (B, T)
    visible: list[list[int]]  # (B, T) 0: padding
    labels: list[list[str]]
    label_ids: Callable[[Sequence[int]], list[str]] = _spell_ids  # of other tokens of the vocabulary

    @property
    def is_padded(self) -> bool:
        return any(0 in row for row in self.visible)


def import_transformers() -> ModuleType:
    """Import transformers, and let it say nothing.

    Raises:
        CannotError: it is missing, or too old.
    """
    try:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # of a hub that is asked again
        os.environ.setdefault(
            "TQDM_DISABLE", "1"
        )  # of GGUF files; it is heeded where torch, which loads tqdm, is not loaded yet
        import transformers
        from transformers.utils import logging
    except ImportError as error:
        raise CannotError(
            "missing-extra",
            f"attn capture needs the package transformers: {error}",
            help="pip install 'attncli[models]'",
        ) from None
    if int(transformers.__version__.partition(".")[0]) < 5:
        raise CannotError(
            "missing-extra",
            f"attn capture needs transformers 5 or newer, and {transformers.__version__} is installed",
            help="pip install 'attncli[models]'",
        )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return transformers


@contextmanager
def translate_errors(source: ModelSource, what: str) -> Iterator[None]:
    """Turn whatever transformers raises while it loads into an error of the input."""
    try:
        yield
    except (CannotError, InputError, OptionError):
        raise
    except ImportError as error:
        message = next(iter(str(error).strip().splitlines()), "")
        raise CannotError(
            "missing-extra",
            f"{what} needs a package that is not here: {shorten(message, 200)}",
            help=_packages_for(source),
        ) from error
    except Exception as error:
        message = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        if "torchvision" in str(error):
            raise CannotError(
                "cannot-load",
                f"the installed torchvision does not go with torch: {shorten(message, 200)}",
                help="install the torchvision of your torch, or pip uninstall torchvision",
            ) from error
        raise InputError(
            "no-model", f"{what} cannot be loaded: {shorten(message, 300)}", location=Location(file=source.path)
        ) from error


def _packages_for(source: ModelSource) -> str:
    return "pip install 'attncli[models]' gguf accelerate" if source.gguf_file else "pip install 'attncli[models]'"


def load_tokens(source: ModelSource, request: CaptureRequest) -> Tokens:
    """Cut texts into tokens, padded to one length; or take the ids that were given.

    Raises:
        InputError: there is no tokenizer, or it cannot be loaded; or a text is too long.
    """
    if request.ids:
        return Tokens([list(request.ids)], [[1] * len(request.ids)], [_spell_ids(request.ids)])
    transformers = import_transformers()
    with translate_errors(source, "the tokenizer"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.path, **loading_arguments(source, request))
        if len(request.texts) > 1 and tokenizer.pad_token_id is None:
            tokenizer.pad_token_id = tokenizer.eos_token_id or 0
        encoded = tokenizer([*request.texts], padding=len(request.texts) > 1)
        ids = [list(map(int, row)) for row in encoded["input_ids"]]
        label_ids = partial(_label_tokens, tokenizer)
        labels = [label_ids(row) for row in ids]
    if not ids or not ids[0]:
        raise InputError("empty", "the text has no tokens", help="--text 'Hello shiny sun!'")
    check_length(source, len(ids[0]) + request.generated_count)
    return Tokens(ids, [list(map(int, row)) for row in encoded["attention_mask"]], labels, label_ids)


def _label_tokens(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Return what each token says, without the marks of its vocabulary (Ġ, ▁) and the blanks around it."""
    names = tokenizer.convert_ids_to_tokens(list(ids))
    return [str(tokenizer.decode([i])).strip() or str(name) for i, name in zip(ids, names, strict=True)]


@contextmanager
def _refuse_pickles(source: ModelSource) -> Iterator[None]:
    """Let torch read no pickle in the block, whatever names it: transformers reads those that an index names.

    Raises:
        InputError: one was to be read.
    """
    import torch

    def refuse(file: object, *_: object, **__: object) -> None:
        raise pickled_error(source.path, Path(str(file)).name)

    own = torch.load
    torch.load = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.load = own


def load_model(source: ModelSource, request: CaptureRequest) -> PreTrainedModel:
    """Load a model in evaluation mode, with the attention of its own code and no kernel that hides weights.

    Raises:
        InputError: its weights are not there, or do not go with its configuration; or it is unknown.
        CannotError: a package is missing.
    """
    transformers = import_transformers()
    import torch

    where = loading_arguments(source, request)
    with translate_errors(source, "the model"), _refuse_pickles(source):
        config = transformers.AutoConfig.from_pretrained(source.path, **where)
        use_eager(config)
        loader = _name_loader_of_generators(config, source) if request.generated_count else "AutoModel"
        model, info = getattr(transformers, loader).from_pretrained(
            source.path,
            config=config,
            attn_implementation="eager",
            dtype=torch.float64 if request.dtype == "float64" else torch.float32,
            output_loading_info=True,
            **({} if source.gguf_file else {"use_safetensors": True}),
            **where,
        )
    if request.generated_count:
        _check_head(model, info["missing_keys"], source)
    missing = sorted(name for name in info["missing_keys"] if _is_of_attention(name))
    if missing:
        raise InputError(
            "missing-parameters",
            f"the folder lacks learned arrays of attention: {join_names([printable(name) for name in missing[:3]])}",
            location=Location(file=source.path),
            help="is config.json that of these weights?",
        )
    return model.eval()


def _is_of_attention(name: str) -> bool:
    return any(word in name.lower() for word in ("attn", "attention", "query", "key", "q_proj", "k_proj"))


def _name_loader_of_generators(config: PreTrainedConfig, source: ModelSource) -> str:
    """Return the name of the class of transformers that loads a model with the head that says the next token.

    Raises:
        InputError: the model has no such head.
    """
    from transformers.models.auto import modeling_auto

    is_pair = bool(getattr(config, "is_encoder_decoder", False))
    name = "AutoModelForSeq2SeqLM" if is_pair else "AutoModelForCausalLM"
    known = vars(modeling_auto)[f"MODEL_FOR_{'SEQ_TO_SEQ_' if is_pair else ''}CAUSAL_LM_MAPPING_NAMES"]
    if config.model_type not in known and name not in source.config.get("auto_map", {}):
        message = f"{source.model_name} generates no text, so it has no decode step"
        raise InputError("no-decode-step", message, help="leave --decode out")
    return name


def _check_head(model: PreTrainedModel, missing: Collection[str], source: ModelSource) -> None:
    """Check that the head which says the next token was in the folder.

    Raises:
        InputError: it was not, and transformers has drawn it at random.
    """
    head = model.get_output_embeddings()
    named = model.named_parameters(remove_duplicate=False)
    lacking = [name for name, parameter in named if head is not None and parameter is head.weight and name in missing]
    if lacking:
        raise InputError(
            "missing-parameters",
            f"the folder lacks the head that says the next token: {printable(lacking[0])}",
            location=Location(file=source.path),
            help=f"save the whole model, {type(model).__name__}; or leave --decode out",
        )


def use_eager(config: PreTrainedConfig) -> None:
    """Let a configuration and those in it name the eager attention, and no kernel that would be looked up."""
    for name in ("_attn_implementation", "_experts_implementation"):
        if hasattr(config, name) or name == "_attn_implementation":
            setattr(config, name, "eager")
    for value in list(vars(config).values()):
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            use_eager(value)


def find_start(model: PreTrainedModel) -> int:
    """Return the token with which a decoder begins."""
    start = getattr(model.config, "decoder_start_token_id", None)
    return 0 if start is None else int(start)


@contextmanager
def dtype_throughout(dtype: str) -> Iterator[None]:
    """Let all that runs in the block be of a dtype, from the construction of a model to the end of its pass."""
    if dtype != "float64":
        yield
        return
    from attncli.capture.float64_mode import float64_throughout

    with float64_throughout():
        yield
