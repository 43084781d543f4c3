"""Run a model, and hand on each of its attention layers as a problem. Entry: `capture_layers`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from attncli.capture.model import Tokens, dtype_throughout, load_model
from attncli.capture.model_folder import ModelSource
from attncli.capture.request import CaptureRequest, LayerSelection
from attncli.errors import CannotError, InputError, OptionError
from attncli.text import join_names, shorten
from attncli.types import Json

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from attncli.capture.problems import CapturedLayer, ModelFacts
    from attncli.capture.recorder import AttentionCall

_TOWERS = ("encoder", "decoder")


class _Finished(Exception):  # noqa: N818  # nothing is wrong: no later layer is wanted
    """Raised to end a pass when the last layer that is wanted has been handed on."""


def capture_layers(
    source: ModelSource,
    request: CaptureRequest,
    tokens: Tokens,
    on_layer: Callable[[CapturedLayer], None],
    on_unread: Callable[[str, str], None],
) -> int:
    """Load a model, run it once over tokens, and hand on each selected layer; return how many there were.

    Args:
        source: the model.
        request: which layers, how deep, in which dtype.
        tokens: what it reads.
        on_layer: is given each `CapturedLayer`, in the order in which they run; one is held at a time.
        on_unread: is given the name of a layer that could not be captured, and why.

    Raises:
        OptionError: the model has no such layer.
        InputError, CannotError: as `load_model`; or the model cannot be run on these tokens.
    """
    with dtype_throughout(request.dtype):
        model = load_model(source, request)
        return capture_model(model, source.model_name, request, tokens, on_layer, on_unread)


def capture_model(
    model: PreTrainedModel,
    name: str,
    request: CaptureRequest,
    tokens: Tokens,
    on_layer: Callable[[CapturedLayer], None],
    on_unread: Callable[[str, str], None],
    inputs: Json | None = None,
) -> int:
    """As `capture_layers`, of a model that is loaded already; `inputs`: what it is called with, instead of the tokens."""
    inputs = make_inputs(model, tokens) if inputs is None else inputs
    taker = _LayerReader(model, find_facts(model, name), request, tokens, on_layer, on_unread)
    from attncli.capture.recorder import computes_its_own_softmax

    for traced in (True,) if computes_its_own_softmax(model) else (False, True):
        if taker.run(inputs, traced=traced) or taker.found:
            break
    if not taker.found:
        message = f"{name} has no layer with softmax attention"
        raise InputError("no-attention", message, help="attn capture reads attention only")
    if not taker.taken:
        raise _no_such_layer(request.layers, taker.found)
    return len(taker.taken)


class _LayerReader:
    """Builds the problem of each layer that is wanted, while the model runs."""

    def __init__(
        self,
        model: PreTrainedModel,
        facts: ModelFacts,
        request: CaptureRequest,
        tokens: Tokens,
        on_layer: Callable[[CapturedLayer], None],
        on_unread: Callable[[str, str], None],
    ) -> None:
        self.model, self.facts, self.request, self.tokens = model, facts, request, tokens
        self.on_layer, self.on_unread = on_layer, on_unread
        self.is_encoder_decoder = bool(getattr(model.config, "is_encoder_decoder", False))
        self.names = _LayerNames(self.is_encoder_decoder)
        self.found: list[str] = []
        self.taken: list[str] = []
        self._own_error: BaseException | None = None

    def run(self, inputs: Json, *, traced: bool) -> bool:
        """Run the model once; return whether it was ended early, as no later layer is wanted."""
        import torch

        from attncli.capture.recorder import Recorder

        batch_size = next(iter(x.shape[0] for x in inputs.values() if isinstance(x, torch.Tensor)))
        recorder = Recorder(self.model, self._on_call)
        try:
            with torch.no_grad(), recorder.recording(batch_size=batch_size, traced=traced):
                self.model(**inputs)
        except _Finished:
            if self._own_error is not None:
                raise self._own_error from None
            return True
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            if "memory" in str(error):
                message = "the model's pass does not fit in memory"
                raise CannotError("out-of-memory", message, help="fewer or shorter texts") from error
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            message = f"the model cannot be run on this input: {shorten(reason, 300)}"
            raise InputError("no-model", message) from error
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
        from attncli.capture.problems import NotReadError, build_layer

        tower, number = self.names.name_layer(call.path, _is_cross_call(call, self.is_encoder_decoder))
        name = f"{tower}.{number}" if tower else str(number)
        self.found.append(name)
        selection = self.request.layers
        if not selection.selects(tower, number):
            return
        self.taken.append(name)
        try:
            layer = build_layer(call, self.facts, name, self.tokens.labels, self.request.depth)
        except NotReadError as error:
            self.on_unread(name, str(error))
        else:
            self.on_layer(layer)
        if selection.high is not None and number == selection.high - 1 and not self.is_encoder_decoder and not tower:
            raise _Finished


def _no_such_layer(selection: LayerSelection, found: list[str]) -> OptionError:
    shown = [*found[:3], "…", found[-1]] if len(found) > 4 else found
    return OptionError(
        "no-such-layer",
        f"the model has no layer {selection.text}",
        help=f"it has {join_names(shown)}; --list shows them",
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


def make_inputs(model: PreTrainedModel, tokens: Tokens) -> Json:
    """Return what a model of text is called with: ids, the mask of padding, and for a decoder the same ids behind its start."""
    import torch

    accepted = inspect.signature(model.forward).parameters
    ids = torch.tensor(tokens.ids)
    inputs: Json = {"input_ids": ids}
    if tokens.is_padded or "attention_mask" in accepted:
        inputs["attention_mask"] = torch.tensor(tokens.visible)
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    if "decoder_input_ids" in accepted:
        start = getattr(model.config, "decoder_start_token_id", None)
        first = torch.full_like(ids[:, :1], 0 if start is None else start)
        inputs["decoder_input_ids"] = torch.cat([first, ids[:, :-1]], -1)
    return inputs


def find_facts(model: PreTrainedModel, name: str) -> ModelFacts:
    """Find what layers share: frequencies, bases and factors of rotations, and learned tables by distance."""
    from attncli.capture.problems import ModelFacts

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
