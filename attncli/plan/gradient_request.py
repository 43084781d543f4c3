"""What a plan says of gradients that are among its steps: `GradientRequest`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attncli.types import NumpyArray

Backward = Callable[[Any], Mapping[str, Any]]  # what the core has computed forwards → the gradient of each target


@dataclass(frozen=True)
class GradientRequest:
    """The gradients that are steps of a plan."""

    upstream_step: str  # context or output
    upstream: NumpyArray  # the gradient of the loss with respect to it, on all its axes and of all queries
    axes: Mapping[str, tuple[str, ...]]  # of each gradient, by its name
    lengths: Mapping[str, Mapping[str, int]]  # of those that are of no step
    backward: Backward | None = None  # in the place of differentiation: a fault that `attn check` tries
