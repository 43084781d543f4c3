"""Run a model, and hand on each of its attention layers as a problem. Entry: `capture_layers`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attncli.capture.images import draw_image, is_random, label_patches
from attncli.capture.model import Tokens, dtype_throughout, find_start, import_transformers, load_model
from attncli.capture.model_folder import ModelSource
from attncli.capture.request import CaptureRequest, LayerSelection
from attncli.errors import CannotError, InputError, OptionError
from attncli.text import join_names, shorten
from attncli.types import Json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

    from attncli.capture.problems import CapturedLayer, Labels
    from attncli.capture.recorder import AttentionCall
    from attncli.capture.sources import ModelFacts

_TOWERS = ("encoder", "decoder")
_RUN_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_SOME_TOKENS = range(3, 15)  # that are read where nothing is said


class _Finished(Exception):  # noqa: N818  # nothing is wrong: no later layer is wanted
    """Raised to end a pass when the last layer that is wanted has been handed on."""


def _ignore(*_: object) -> None:
    """The callback of whoever wants to know nothing."""


@dataclass(frozen=True)
class CaptureCallbacks:
    """What a capture tells whoever started it, while the model runs."""

    on_layer: Callable[[CapturedLayer], None]  # each, in the order in which they run; one is held at a time
    on_unread: Callable[[str, str], None] = _ignore  # the name of a layer that could not be captured, and why
    is_done: Callable[[str], bool] = lambda name: (
        False
    )  # whether a layer is there already, so that it is not captured again
    on_progress: Callable[[int, int, str], None] = _ignore  # layers that have run, of how many, and the last one's name
    on_generated: Callable[[list[str]], None] = _ignore  # the tokens before a decode step


def capture_layers(
    source: ModelSource,
    request: CaptureRequest,
    tokens: Tokens | None,
    pixels: Json | None,
    callbacks: CaptureCallbacks,
) -> int:
    """Load a model, run it over what it reads, and hand on each selected layer; return how many there were.

    Args:
        source: the model.
        request: which layers, how deep, in which dtype.
        tokens: of the text that it reads.
        pixels: of the image file that it reads, by the names of its inputs.
        callbacks: what is told meanwhile.

    Raises:
        OptionError: the model has no such layer.
        InputError, CannotError: as `load_model`; or the model cannot be run on this.
    """
    import_transformers()  # before torch
    with dtype_throughout(request.dtype):
        model = load_model(source, request)
        if request.generated_count and tokens is not None:
            return capture_decode_step(model, source.model_name, request, tokens, callbacks)
        if tokens is None and not request.image:  # --list, where nothing is said
            tokens, pixels = choose_input(model)
        elif is_random(request):
            pixels = draw_image(model.config)
        inputs = make_inputs(model, source.model_name, tokens, pixels)
        return capture_model(model, source.model_name, request, tokens, callbacks, inputs)


def capture_model(
    model: PreTrainedModel,
    name: str,
    request: CaptureRequest,
    tokens: Tokens | None,
    callbacks: CaptureCallbacks,
    inputs: Json,
) -> int:
    """As `capture_layers`, of a model that is loaded already; `inputs`: what it is called with."""
    labels = ([], []) if tokens is None else (tokens.labels, _label_decoder(model, tokens))
    return _run_reader(_LayerReader(model, model, find_facts(model, name), request, labels, callbacks), inputs)


def _label_decoder(model: PreTrainedModel, tokens: Tokens) -> list[list[str]]:
    """Return the labels of what a decoder reads: a start token, and all but the last."""
    start = tokens.label_ids([find_start(model)])
    return [[*start, *row[:-1]] for row in tokens.labels]


def capture_decode_step(
    model: PreTrainedModel, name: str, request: CaptureRequest, tokens: Tokens, callbacks: CaptureCallbacks
) -> int:
    """Capture the step that reads the last of the generated tokens; a pass over the whole text tells how to read it."""
    from attncli.capture.decoding import continue_text

    base = model.base_model  # without the head
    facts = find_facts(base, name)
    facts.readings = {}
    with _translate_run_errors(model, {"input_ids": tokens.ids}):
        step = continue_text(model, name, tokens, request.generated_count)
    callbacks.on_generated(step.generated)
    nothing = CaptureCallbacks(_ignore)
    _run_reader(_LayerReader(model, base, facts, request, ([], []), nothing), step.whole_inputs)
    labels = (tokens.labels, [step.labels]) if model.config.is_encoder_decoder else ([step.labels], [])
    reader = _LayerReader(model, base, facts, request, labels, callbacks, step.past_length)
    return _run_reader(reader, step.inputs)


def _run_reader(reader: _LayerReader, inputs: Json) -> int:
    """Run a model, a second time where its modules must be seen from below; return how many layers were taken.

    Raises:
        InputError: it has no attention.
        OptionError: it has no such layer.
    """
    from attncli.capture.recorder import computes_its_own_softmax

    for traced in (True,) if computes_its_own_softmax(reader.recorded) else (False, True):
        if reader.run(inputs, traced=traced) or reader.found:
            break
    if not reader.found:
        message = f"{reader.facts.name} has no layer with softmax attention"
        raise InputError("no-attention", message, help="attn capture reads attention only")
    if not reader.taken:
        raise _no_such_layer(reader.request.layers, reader.found, is_step=reader.past_length > 0)
    return len(reader.taken)


@contextmanager
def _translate_run_errors(model: PreTrainedModel, inputs: Json) -> Iterator[None]:
    """Turn what a model raises while it runs on some inputs into an error of the input."""
    try:
        yield
    except _RUN_ERRORS as error:
        if "memory" in str(error):
            message = "the model's pass does not fit in memory"
            raise CannotError("out-of-memory", message, help="fewer or shorter texts") from error
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        message = f"the model cannot be run on this input: {shorten(reason, 300)}"
        hint = ""
        if isinstance(error, IndexError):
            hint = "a token is outside of its vocabulary, or there are more tokens than it has positions"
        elif _reads_both(model) and not {"input_ids", "pixel_values"} <= inputs.keys():
            hint = "a model of images and texts takes both: --image FILE --text 'Hello shiny sun!'"
        raise InputError("no-model", message, help=hint) from error


def _reads_both(model: PreTrainedModel) -> bool:
    return {"input_ids", "pixel_values"} <= inspect.signature(model.forward).parameters.keys()


class _LayerReader:
    """Builds the problem of each layer that is wanted, while the model runs."""

    def __init__(
        self,
        model: PreTrainedModel,
        recorded: PreTrainedModel,
        facts: ModelFacts,
        request: CaptureRequest,
        labels: tuple[list[list[str]], list[list[str]]],  # of the text, and of what a decoder reads
        callbacks: CaptureCallbacks,
        past_length: int = 0,
    ) -> None:
        self.model, self.recorded, self.facts, self.request = model, recorded, facts, request
        self.labels, self.callbacks, self.past_length = labels, callbacks, past_length
        self.is_encoder_decoder = bool(getattr(model.config, "is_encoder_decoder", False))
        self.names = _LayerNames(self.is_encoder_decoder)
        self.layer_count = _count_layers(recorded)
        self.pixels: torch.Tensor | None = None
        self.found: list[str] = []
        self.taken: list[str] = []
        self._own_error: BaseException | None = None

    def run(self, inputs: Json, *, traced: bool) -> bool:
        """Run the model once; return whether it was ended early, as no later layer is wanted."""
        import torch

        from attncli.capture.recorder import Recorder

        batch_size = next(iter(x.shape[0] for x in inputs.values() if isinstance(x, torch.Tensor)))
        self.pixels = inputs.get("pixel_values")
        recorder = Recorder(self.recorded, self._on_call)
        try:
            with (
                torch.no_grad(),
                _translate_run_errors(self.model, inputs),
                recorder.recording(batch_size=batch_size, traced=traced),
            ):
                self.model(**inputs)
        except _Finished:
            if self._own_error is not None:
                raise self._own_error from None
            return True
        return False

    def _on_call(self, call: AttentionCall) -> None:
        try:
            self._read_layer(call)
        except _Finished:
            raise
        except BaseException as error:  # ours, and not the model's: it is raised again when the model has stopped
            self._own_error = error
            raise _Finished from None

    def _read_layer(self, call: AttentionCall) -> None:
        from attncli.capture.problems import build_layer
        from attncli.capture.sources import NotReadError

        is_cross = _is_cross_call(call, self.is_encoder_decoder)
        tower, number = self.names.name_layer(call.path, is_cross)
        name = f"{tower}.{number}" if tower else str(number)
        self.found.append(name)
        selection = self.request.layers
        if selection.selects(tower, number):
            self.taken.append(name)
            if self.past_length:
                call.is_decode_step, call.past_length = True, self.past_length
                call.past_count = 0 if is_cross else call.key.shape[-2] - call.query.shape[-2]
            if not self.callbacks.is_done(name):
                try:
                    layer = build_layer(call, self.facts, name, self._label_tokens(call, tower), self.request.depth)
                except NotReadError as error:
                    self.callbacks.on_unread(name, str(error))
                else:
                    self.callbacks.on_layer(layer)
        self.callbacks.on_progress(len(self.found), max(self.layer_count, len(self.found)), name)
        is_last = selection.high is not None and number == selection.high - 1
        if is_last and self.taken and not self.is_encoder_decoder and not tower:
            raise _Finished

    def _label_tokens(self, call: AttentionCall, tower: str) -> Labels:
        """Return the labels of the tokens: those of the text, or else of the patches of an image."""
        from attncli.capture.problems import Labels

        text, of_decoder = self.labels
        if self.is_encoder_decoder and tower in ("decoder", "cross"):
            return Labels(of_decoder, text if tower == "cross" else [])
        count = call.query.shape[-2]
        if self.pixels is None or (text and len(text[0]) == count):
            return Labels(text)
        patches = label_patches(self.model.config, self.pixels, count)
        return Labels([patches] if patches else text)


def _no_such_layer(selection: LayerSelection, found: list[str], *, is_step: bool) -> OptionError:
    shown = [*found[:3], "…", found[-1]] if len(found) > 4 else found
    return OptionError(
        "no-such-layer",
        f"a decode step runs no layer {selection.text}" if is_step else f"the model has no layer {selection.text}",
        help=f"{'its layers are' if len(found) > 1 else 'its only layer is'} {join_names(shown)}; --list shows them",
    )


def _is_cross_call(call: AttentionCall, is_encoder_decoder: bool) -> bool:
    words = call.path.lower()
    return is_encoder_decoder and any(word in words for word in ("cross", "encoder_attn", "encdec"))


class _LayerNames:
    """Names layers by the numbers in their modules' paths: (tower, number); the tower is empty where there is one."""

    def __init__(self, is_encoder_decoder: bool) -> None:
        self.is_encoder_decoder = is_encoder_decoder
        self.seen: set[tuple[str, int]] = set()

    def name_layer(self, path: str, is_cross: bool) -> tuple[str, int]:
        words = path.split(".")
        at = next((i for i, word in enumerate(words) if word.isdigit()), None)
        number = int(words[at]) if at is not None else 0
        before = words[:at] if at is not None else words
        tower = "cross" if is_cross else ""
        if self.is_encoder_decoder and not is_cross:
            tower = next((word for word in _TOWERS if word in before), before[0] if before else "")
        if (tower, number) in self.seen:  # another tower, or several layers that share their number
            rest = [word for word in words if not word.isdigit()]
            base = tower or "_".join(rest[:-1] or rest)
            tower, count = base, 1
            while (tower, number) in self.seen:
                count += 1
                tower = f"{base}_{count}"
        self.seen.add((tower, number))
        return tower, number


def _count_layers(model: PreTrainedModel) -> int:
    """Count the modules of attention, by their names: about as many calls as there will be."""
    paths = [path for path, module in model.named_modules() if re.search("Attention|Attn", type(module).__name__)]
    holders = {path.rpartition(".")[0] for path in paths}
    return sum(path not in holders for path in paths)


def choose_input(model: PreTrainedModel) -> tuple[Tokens | None, Json | None]:
    """Return something to read where nothing is said: some tokens, or random numbers for an image."""
    accepted = inspect.signature(model.forward).parameters
    if "input_ids" not in accepted and "pixel_values" in accepted:
        return None, draw_image(model.config)
    vocabulary = getattr(model.config, "vocab_size", None) or _SOME_TOKENS.stop
    ids = [i for i in _SOME_TOKENS if i < vocabulary] or [0]
    return Tokens([ids], [[1] * len(ids)], [[str(i) for i in ids]]), None


def make_inputs(model: PreTrainedModel, name: str, tokens: Tokens | None, pixels: Json | None = None) -> Json:
    """Return what a model is called with: ids, the mask of padding, for a decoder the same ids behind its start; and an image.

    Raises:
        InputError: it reads no text, or no image.
    """
    import torch

    accepted = inspect.signature(model.forward).parameters
    if tokens is not None and "input_ids" not in accepted and "pixel_values" in accepted and pixels is None:
        raise InputError("other-input", f"{name} reads images, and no text", help="--image FILE, or --image random")
    if pixels is not None and "pixel_values" not in accepted:
        raise InputError("other-input", f"{name} reads no images", help="--text 'Hello shiny sun!'")
    inputs: Json = {}
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    if tokens is not None and "input_ids" in accepted:
        ids = torch.tensor(tokens.ids)
        inputs["input_ids"] = ids
        if tokens.is_padded or "attention_mask" in accepted:
            inputs["attention_mask"] = torch.tensor(tokens.visible)
        if "decoder_input_ids" in accepted:
            first = torch.full_like(ids[:, :1], find_start(model))
            inputs["decoder_input_ids"] = torch.cat([first, ids[:, :-1]], -1)
    for key, value in (pixels or {}).items():
        if key in accepted:
            inputs[key] = value.to(model.dtype) if value.is_floating_point() else value
    if not any(isinstance(value, torch.Tensor) for value in inputs.values()):
        message = f"{name} reads neither text nor images, but {model.main_input_name}"
        raise InputError("other-input", message, help="attn capture gives a model text, or an image")
    return inputs


def find_facts(model: PreTrainedModel, name: str) -> ModelFacts:
    """Find what layers share: frequencies, bases and factors of rotations, and learned tables by distance."""
    from attncli.capture.sources import ModelFacts

    frequencies = [b for path, b in model.named_buffers() if path.endswith("inv_freq") and b.dim() == 1]
    factors = {float(f) for m in model.modules() if isinstance(f := getattr(m, "attention_scaling", None), int | float)}
    tables = [
        (path, p.detach()) for path, p in model.named_parameters() if "relative_attention_bias" in path and p.dim() == 2
    ]
    return ModelFacts(name, frequencies, sorted(_find_bases(model.config)), sorted(factors - {1.0}), tables)


def _find_bases(config: PreTrainedConfig) -> set[float]:
    found = {10000.0}
    for holder in (config, *(v for v in vars(config).values() if hasattr(v, "model_type"))):
        for parameters in _dictionaries(vars(holder).get("rope_parameters")):
            base = parameters.get("rope_theta")
            if isinstance(base, int | float) and base > 1:
                found.add(float(base))
    return found


def _dictionaries(value: object) -> list[Json]:
    if not isinstance(value, dict):
        return []
    return [value, *(inner for one in value.values() for inner in _dictionaries(one))]
