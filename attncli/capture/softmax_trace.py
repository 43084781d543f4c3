"""See every softmax that runs below the level of modules, and the matrix products before and after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

_aten = torch.ops.aten
_SOFTMAXES = {_aten._softmax.default, _aten._safe_softmax.default}  # noqa: SLF001  # these are their names
_PRODUCTS = {_aten.bmm.default: 0, _aten.baddbmm.default: 1, _aten.mm.default: 0}  # → which argument is the left factor


@dataclass(eq=False)
class Product:
    """A matrix product: its factors."""

    left: torch.Tensor
    right: torch.Tensor


@dataclass(eq=False)
class TracedSoftmax:
    """What entered a softmax, what it made of that, and the products on both sides."""

    logits: torch.Tensor
    weights: torch.Tensor
    scores: Product | None = None  # q and kᵀ
    values: Product | None = None  # weights and v
    context: torch.Tensor | None = field(default=None, repr=False)

    def to_heads(self, batch_size: int) -> tuple[torch.Tensor, ...] | None:
        """Return q, k, v, logits, weights and context (B, T, H, d), with batch and head apart; None where they are not there."""
        if self.scores is None or self.values is None or self.context is None:
            return None
        n, m = self.logits.shape[-2:]
        q, kt, v = self.scores.left, self.scores.right, self.values.right
        if q.dim() != 3 or v.dim() != 3 or n * m == 0:
            return None
        if q.shape[-2] != n or kt.shape[-1] != m or v.shape[-2] != m or q.shape[0] % batch_size:
            return None
        if self.logits.numel() != q.shape[0] * n * m or self.values.left.shape != (q.shape[0], n, m):
            return None

        def apart(x: torch.Tensor) -> torch.Tensor:
            return x.reshape(batch_size, -1, *x.shape[-2:])

        logits = self.logits.reshape(q.shape[0], n, m)
        weights = self.values.left
        return (*(apart(x) for x in (q, kt.transpose(-1, -2), v, logits, weights)), apart(self.context).transpose(1, 2))


class SoftmaxTrace(TorchDispatchMode):
    """Keeps what enters and leaves each softmax of a block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.softmaxes: list[TracedSoftmax] = []

    # The signature is torch's: any operator, and whatever it takes and returns.
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _SOFTMAXES:
            self.softmaxes.append(TracedSoftmax(args[0], result))
        return result


class ModelTrace(TorchDispatchMode):
    """Follows matrix products through masks, casts and views to a softmax, and from there to the product with the values."""

    def __init__(self, on_softmax: Callable[[TracedSoftmax], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.on_softmax = on_softmax
        # tensor → the Product or the TracedSoftmax that it comes from
        self.origins: MutableMapping[torch.Tensor, Product | TracedSoftmax] = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, torch.Tensor):
            return result
        if func in _PRODUCTS:
            first = _PRODUCTS[func]
            left, right = args[first], args[first + 1]
            origin = self.origins.get(left)
            if isinstance(origin, TracedSoftmax) and origin.values is None:
                origin.values, origin.context = Product(left, right), result
                self.on_softmax(origin)
            else:
                self.origins[result] = Product(left, right)
            return result
        origin = next(
            (
                self.origins[x]
                for x in args
                if isinstance(x, torch.Tensor) and x in self.origins and x.numel() == result.numel()
            ),
            None,
        )
        if func in _SOFTMAXES:
            self.origins[result] = TracedSoftmax(args[0], result, origin if isinstance(origin, Product) else None)
        elif origin is not None:
            self.origins[result] = origin
        return result
