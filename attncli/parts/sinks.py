"""A logit that takes part in softmax's denominator and in nothing else: (parameters, like: a score) → 1 h 1 1, or None."""

from __future__ import annotations

from collections.abc import Mapping

from attncli.parts.traits import SinkTraits
from attncli.registry import Family, Parameter
from attncli.types import Tensor

sink = Family("sink", "where weight goes that no key gets; only with softmax", SinkTraits)

_ALL_LAWS = ("prefix", "decode", "permutation")


@sink("none", "no sink", why="All the weight goes to keys.", laws=_ALL_LAWS)
def none(parameters: Mapping[str, Tensor], like: Tensor) -> None:
    """All weight goes to keys."""


@sink(
    "given",
    "e^sink / (e^sink + Σ e^s)",
    why="A learned score takes part in the sum, so that a query can leave part of its weight to no key.",
    source="Agarwal et al. 2025 (gpt-oss), §2.2",
    laws=_ALL_LAWS,
    parameters=(Parameter("sinks", ("H",), "one logit a query head; neither scaled nor capped", required=True),),
)
def given(parameters: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """The file's `sinks`, one logit for each query head."""
    return parameters["sinks"].reshape(1, -1, 1, 1)  # (1, h, 1, 1)


@sink(
    "zero",
    "1 / (1 + Σ e^s)",
    why="A score of 0 takes part in the sum, so that a query can leave part of its weight to no key.",
    source="Miller 2023 (softmax1, “off by one”)",
    laws=_ALL_LAWS,
)
def zero(parameters: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """A logit of 0: softmax1, and nn.MultiheadAttention's add_zero_attn."""
    return like.new_zeros(1, like.shape[1], 1, 1)  # (1, h, 1, 1)
