"""Who may attend to whom: Grid → booleans that broadcast to (b, h, n, m); true = may attend.

A mask is a predicate on two places: positions i, j (`q_pos`, `k_pos`) or indices I, J (`q_idx`, `k_idx`).
It speaks in operators only, so it runs on plain integers, numpy arrays and tensors alike.
"""

from __future__ import annotations

from typing import Annotated

from attncli.registry import Family, Range
from attncli.types import Grid, Tensor

mask = Family("mask", "who may attend to whom")


@mask("full", "always", laws=("prefix", "decode", "permutation"))
def full(at: Grid) -> Tensor:
    """Every query sees every key."""
    return at.k_idx >= 0


@mask("causal", "j ≤ i", source="Vaswani et al. 2017, §3.2.3", laws=("prefix", "decode"))
def causal(at: Grid) -> Tensor:
    """A query sees itself and what came before it."""
    return at.k_pos <= at.q_pos


@mask("window", "−left ≤ j − i ≤ right", source="Beltagy et al. 2020, §3.1", laws=("prefix", "decode"))
def window(at: Grid, *, left: Annotated[int, Range(low=-1)] = -1, right: Annotated[int, Range(low=-1)] = -1) -> Tensor:
    """A query sees so many neighbours on each side, and itself; −1, or left out, is no bound."""
    seen = at.k_idx >= 0
    if left >= 0:
        seen = seen & (at.k_pos - at.q_pos >= -left)
    if right >= 0:
        seen = seen & (at.k_pos - at.q_pos <= right)
    return seen


@mask("prefix", "j < length", source="Raffel et al. 2020, §3.2.1", laws=("prefix", "decode"))
def prefix(at: Grid, *, length: Annotated[int, Range(low=0)]) -> Tensor:
    """Every query sees the first so many positions (prefix-LM is `causal or prefix:length=…`)."""
    return at.k_pos < length


@mask(
    "document",
    "segment of I = segment of J",
    source="Raffel et al. 2020, §2.2 (packing)",
    lawless="its segments belong to indices of one problem",
)
def document(at: Grid) -> Tensor:
    """A query sees the keys of its own document, by the problem's segments."""
    return at.q_seg == at.k_seg


@mask(
    "chunk",
    "⌊i/size⌋ = ⌊j/size⌋",
    source="Llama 4's attention_chunk_size; Child et al. 2019, §4.3",
    laws=("prefix", "decode"),
)
def chunk(at: Grid, *, size: Annotated[int, Range(low=1)]) -> Tensor:
    """A query sees the keys of its own chunk of so many positions."""
    return at.q_pos // size == at.k_pos // size


@mask("dilated", "(i − j) mod rate = 0", source="Beltagy et al. 2020, §3.1", laws=("prefix", "decode"))
def dilated(at: Grid, *, rate: Annotated[int, Range(low=1)]) -> Tensor:
    """A query sees every so many positions, itself among them."""
    return (at.q_pos - at.k_pos) % rate == 0


@mask("given", "the problem's mask", lawless="its cells belong to indices of one problem")
def given(at: Grid) -> Tensor:
    """The file's `mask`; and-ed in whenever the file has one and the expression does not name it."""
    return at.given
