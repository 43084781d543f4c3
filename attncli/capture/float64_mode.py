"""Make a model compute in float64 where its code says float32: softmax, rotary embeddings and norms of most models do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _Float32IsFloat64(TorchFunctionMode):
    # The signature is torch's: any function, and whatever it takes and returns.
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args = tuple(torch.float64 if x is torch.float32 else x for x in args)
        kwargs = {name: torch.float64 if x is torch.float32 else x for name, x in (kwargs or {}).items()}
        return func(*args, **kwargs)


@contextmanager
def float64_throughout() -> Iterator[None]:
    """Read float32 as float64 in the block. It must hold from the construction of a model to the end of its pass."""
    was = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Float32IsFloat64():
            yield
    finally:
        torch.set_default_dtype(was)
