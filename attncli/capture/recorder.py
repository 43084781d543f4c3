"""Record what a model's attention does while it runs: one layer at a time, handed on as soon as its output is known.

Two doors lead in. Most modules call a function that transformers looks up (`AttentionInterface.get_interface`); it is wrapped,
and each model keeps its own arithmetic. The others are seen from below, by their softmax: `softmax_trace`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from types import CodeType, FunctionType
from typing import Any, ParamSpec, TypeAlias

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from attncli.capture.softmax_trace import ModelTrace, SoftmaxTrace, TracedSoftmax

_no_function_modes = torch._C.DisableTorchFunction  # noqa: SLF001  # there is no public name
_Arguments = ParamSpec("_Arguments")
_Returned: TypeAlias = tuple[
    torch.Tensor, torch.Tensor | None
]  # by an attention function: the context, and the weights


@dataclass(eq=False)
class ModuleRecord:
    """What went into a projection or a norm, and what came out."""

    path: str
    module: Any  # its weights and options are looked at by name
    input: torch.Tensor
    output: torch.Tensor


@dataclass(eq=False)
class AttentionCall:
    """One call of an attention function: what entered it, what it returned, and the modules that ran around it."""

    path: str
    module: nn.Module
    query: torch.Tensor  # (B, H, Tq, d)
    key: torch.Tensor  # (B, G, Tk, d)
    value: torch.Tensor  # (B, G, Tk, dv)
    scale: float
    weights: torch.Tensor  # (B, H, Tq, Tk)
    context: torch.Tensor  # (B, Tq, H, dv)
    mask: torch.Tensor | None = None  # as it was passed
    options: dict[str, object] = field(default_factory=dict)  # what else was passed, by name
    logits: torch.Tensor | None = None  # (B, H, Tq, Tk or Tk + 1): what entered the softmax
    projections: list[ModuleRecord] = field(default_factory=list)  # since the call before, in order
    norms: list[ModuleRecord] = field(default_factory=list)
    output_projection: ModuleRecord | None = None  # the first whose input is the context
    is_decode_step: bool = False  # a single token, behind a cache
    past_length: int = 0  # how many tokens came before, in a decode step
    past_count: int = 0  # of keys that come from the cache; a sliding one has dropped others

    @property
    def new_key(self) -> torch.Tensor:
        return self.key[:, :, self.past_count :]

    @property
    def new_value(self) -> torch.Tensor:
        return self.value[:, :, self.past_count :]


class Recorder:
    """Records the attention of a model, and calls `on_layer` once for each call of an attention function."""

    def __init__(self, model: nn.Module, on_layer: Callable[[AttentionCall], None]) -> None:
        self.model = model
        self.on_layer = on_layer
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.batch_size = 1
        self.interface_call_count = 0
        self._projections: list[ModuleRecord] = []
        self._norms: list[ModuleRecord] = []
        self._pending: AttentionCall | None = None
        self._stack: list[nn.Module] = []  # the modules that are running
        self._is_in_interface = False

    @contextmanager
    def recording(self, *, batch_size: int, traced: bool) -> Iterator[None]:
        """Record the passes of the block; `traced`: also those modules that call no attention function."""
        from transformers.modeling_utils import AttentionInterface

        self.batch_size = batch_size
        original = AttentionInterface.get_interface
        recorder = self

        def get_interface(
            self: AttentionInterface, attn_implementation: str, default: Callable[_Arguments, _Returned]
        ) -> Callable[_Arguments, _Returned]:
            return recorder._wrap(original(self, attn_implementation, default))

        with ExitStack() as stack:
            for module in self.model.modules():
                kind = kind_of_module(module)
                if kind:
                    handle = module.register_forward_hook(self._hook_of(kind))
                    stack.callback(handle.remove)
            AttentionInterface.get_interface = get_interface
            stack.callback(setattr, AttentionInterface, "get_interface", original)
            if traced:
                was_fast = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
                stack.callback(torch.backends.mha.set_fastpath_enabled, was_fast)
                for module in self.model.modules():
                    stack.callback(module.register_forward_pre_hook(self._enter).remove)
                    stack.callback(module.register_forward_hook(self._leave, always_call=True).remove)
                fused = torch.nn.functional.scaled_dot_product_attention
                torch.nn.functional.scaled_dot_product_attention = attend_in_steps
                stack.callback(setattr, torch.nn.functional, "scaled_dot_product_attention", fused)
                stack.enter_context(ModelTrace(self._on_traced_softmax))
            yield
        self.finish()

    def finish(self) -> None:
        """Hand on the last call, whose output projection may not have come."""
        self._pass_on_pending_call()
        self._projections, self._norms, self._stack = [], [], []

    # ── modules ──────────────────────────────────────────────────────────────────────────────────
    def _enter(self, module: nn.Module, inputs: tuple[object, ...]) -> None:
        self._stack.append(module)

    def _leave(self, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        while self._stack and self._stack.pop() is not module:
            pass

    def _hook_of(self, kind: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def record(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            x = inputs[0] if inputs else None
            output = output[0] if isinstance(output, tuple) and output else output
            if not isinstance(x, torch.Tensor) or not isinstance(output, torch.Tensor):
                return
            item = ModuleRecord(self.paths.get(id(module), ""), module, x, output)
            if kind == "norm":
                self._norms.append(item)
                return
            if self._pending is not None and _is_context(x, self._pending.context):
                self._pending.output_projection = item
                self._pass_on_pending_call()
            self._projections.append(item)

        return record

    def _pass_on_pending_call(self) -> None:
        call, self._pending = self._pending, None
        if call is not None:
            with _disable_current_modes(), _no_function_modes():  # what is computed here is not the model's
                self.on_layer(call)

    # ── attention functions ──────────────────────────────────────────────────────────────────────
    def _wrap(self, function: Callable[_Arguments, _Returned]) -> Callable[_Arguments, _Returned]:
        signature = inspect.signature(function)

        @wraps(function)
        def attend(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Returned:
            self._is_in_interface = True
            try:
                with SoftmaxTrace() as trace:
                    result = function(*args, **kwargs)
            finally:
                self._is_in_interface = False
            self._on_interface_call(signature, args, kwargs, result, trace.softmaxes)
            return result

        return attend

    def _on_interface_call(
        self,
        signature: inspect.Signature,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        result: _Returned,
        softmaxes: list[TracedSoftmax],
    ) -> None:
        self.interface_call_count += 1
        bound = list(signature.bind(*args, **kwargs).arguments.items())
        values = [value for name, value in bound if name != "kwargs"]
        named = dict(bound) | dict(bound[-1][1] if bound[-1][0] == "kwargs" else {})
        named = {**named, **kwargs}
        module, query, key, value = values[:4]
        mask = values[4] if len(values) > 4 and isinstance(values[4], torch.Tensor) else named.get("attention_mask")
        context, weights = result[0], result[1]
        if query.dim() != 4 or not isinstance(weights, torch.Tensor) or weights.shape[:3] != query.shape[:3]:
            return
        scale = next(
            (float(named[name]) for name in ("scaling", "scale", "softmax_scale") if _is_number(named.get(name))), None
        )
        logits = next(
            (one.logits for one in softmaxes if one.logits.numel() in (weights.numel(), _with_sink(weights))), None
        )
        if logits is not None:
            logits = logits.reshape(*weights.shape[:3], -1)
        if context.shape[1] == query.shape[1] and context.shape[2] == query.shape[2] != query.shape[1]:
            context = context.transpose(1, 2)
        self._begin(
            AttentionCall(
                self.paths.get(id(module), ""),
                module,
                query,
                key,
                value,
                query.shape[-1] ** -0.5 if scale is None else scale,
                weights,
                context.reshape(*context.shape[:2], query.shape[1], -1),
                mask if isinstance(mask, torch.Tensor) else None,
                named,
                logits,
            )
        )

    def _on_traced_softmax(self, traced: TracedSoftmax) -> None:
        """A softmax with its score product and its value product, of a module that called no attention function."""
        if self._is_in_interface:
            return
        module = next((one for one in reversed(self._stack) if any(True for _ in one.children())), self.model)
        call = traced.to_heads(self._count_batch_items(self.paths.get(id(module), ""), traced))
        if call is None:
            return
        query, key, value, logits, weights, context = call
        self._begin(
            AttentionCall(
                self.paths.get(id(module), ""), module, query, key, value, 0.0, weights, context, None, {}, logits
            )
        )

    def _count_batch_items(self, path: str, traced: TracedSoftmax) -> int:
        """Count what stands in the batch of a softmax: texts or images, or their windows, as the module's own projections have it."""
        if traced.scores is None or traced.scores.left.dim() != 3 or not traced.logits.numel():
            return self.batch_size
        groups = traced.scores.left.shape[0]  # of batch and heads
        counts = [
            record.output.numel() / record.output.shape[-1] / tokens
            for record in self._projections
            for tokens in traced.logits.shape[-2:]  # of queries, of keys
            if record.path.startswith(f"{path}.") and record.output.numel()
        ]
        possible = [int(count) for count in counts if count >= 1 and count.is_integer() and groups % count == 0]
        return possible[0] if possible and self.batch_size not in possible else self.batch_size

    def _begin(self, call: AttentionCall) -> None:
        self._pass_on_pending_call()
        call.projections, self._projections = self._projections, []
        call.norms, self._norms = self._norms, []
        self._pending = call


def computes_its_own_softmax(model: nn.Module) -> bool:
    """Whether some module computes attention itself, instead of calling a function that transformers looks up."""
    for cls in {type(module) for module in model.modules()}:
        if re.search(r"Attention|Attn", cls.__name__):
            names = _names_in(cls)
            if "get_interface" not in names and any(
                re.search("softmax|scaled_dot_product_attention", n) for n in names
            ):
                return True
    return False


def _names_in(cls: type) -> set[str]:
    """Return the names that the methods of a class use, in small letters."""
    found: set[str] = set()
    codes = [
        function.__code__ for value in vars(cls).values() if isinstance(function := _function_of(value), FunctionType)
    ]
    while codes:
        code = codes.pop()
        found.update(map(str.lower, code.co_names))
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return found


def _function_of(method: object) -> object:
    return inspect.unwrap(method) if callable(method) else getattr(method, "__func__", None)


def attend_in_steps(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Compute what the fused function of PyTorch does, with a softmax that can be seen."""
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(repeats, dim=-3) for x in (key, value))
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores.masked_fill(~seen, float("-inf"))
    if attn_mask is not None:
        is_boolean = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, float("-inf")) if is_boolean else scores + attn_mask
    return torch.softmax(scores, -1) @ value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) or (isinstance(value, torch.Tensor) and value.numel() == 1)


def _with_sink(weights: torch.Tensor) -> int:
    """How many logits there are where each row has a sink as well."""
    return weights.numel() // max(weights.shape[-1], 1) * (weights.shape[-1] + 1)


def _is_context(x: torch.Tensor, context: torch.Tensor) -> bool:
    """Whether a projection's input is the context with its heads merged."""
    if x.numel() != context.numel() or x.shape[-1] != context.shape[-1] * context.shape[-2]:
        return False
    is_tokens_first = x.dim() == 3 and x.shape[:2] == context.shape[1::-1] and x.shape[0] != x.shape[1]
    merged = (x.transpose(0, 1) if is_tokens_first else x).reshape(-1)
    return torch.equal(merged, context.reshape(-1))


def kind_of_module(module: nn.Module) -> str:
    """ "projection" for a module with a matrix, "norm" for one that normalises, and "" for any other."""
    weight = getattr(module, "weight", None)
    if isinstance(weight, torch.Tensor) and weight.dim() == 2 and not isinstance(module, nn.Embedding):
        return "projection"
    name = type(module).__name__.lower()
    if "norm" in name and not any(True for _ in module.children()):
        return "norm"
    return ""
