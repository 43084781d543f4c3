"""What is done to scores before the normaliser, in the chain's order: (scores: b h n m, Grid) → b h n m.

A link that takes a value has one keyword-only argument, and that argument is a choice of its own on the
command line and in files, under the link's name. A link without one takes what the grid carries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

from attncli.derivation import Equation, Number, RowDerivation, derive_per_key, record_intermediate
from attncli.parts.traits import LinkTraits, MixingTraits, PositionTraits
from attncli.registry import Family, Part, Range
from attncli.types import Grid, Tensor

link = Family("link", "what is done to scores before the normaliser, in the order of --chain", LinkTraits)

_ALL_LAWS = ("prefix", "decode", "permutation")


@link(
    "scale",
    "s × {factor}",
    why="Dot products grow with the width of the vectors; scaled scores stay in a range in which softmax does not give nearly all the weight to one key.",
    source="Vaswani et al. 2017, §3.2.1",
    step="scaled_scores",
    laws=_ALL_LAWS,
    default_value="auto",
    value_words=("auto",),
    neutral_value=1,
    is_scale=True,
    is_fused=True,
    derivation=derive_per_key(lambda row, cell: ([cell.value_before, " × ", Number(row.link_value)],)),
    gradient_factor=lambda row, cell: [Number(row.link_value)],
)
def scale(s: Tensor, grid: Grid, *, factor: float) -> Tensor:
    """Scores times a factor; auto is 1/√d_k (d_k: the width of one head) with --score dot, else 1."""
    return s * factor  # (b, h, n, m)


@link(
    "mix",
    "mix(s)",
    why="Before the weights are made, heads see each other's scores.",
    source="Shazeer et al. 2020, §3",
    step="mixed_scores",
    part_choice="head_mixing",
    laws=_ALL_LAWS,
)
def mix(s: Tensor, grid: Grid, part: Part[MixingTraits]) -> Tensor:
    """The scores mixed across heads (--head-mixing)."""
    act = part.traits.mix_scores
    return s if act is None else act(s, grid.parameters)  # (b, h, n, m)


@link(
    "softcap",
    "{cap} · tanh(s / {cap})",
    why="No score can grow without bound, so that no key takes everything.",
    source="Gemma Team 2024, §2 (logit soft-capping)",
    step="softcapped_scores",
    laws=_ALL_LAWS,
    derivation=derive_per_key(
        lambda row, cell: ([Number(row.link_value), "·tanh(", cell.value_before, " / ", Number(row.link_value), ")"],)
    ),
    gradient_factor=lambda row, cell: ["(1 − (", cell.value_after, " / ", Number(row.link_value), ")²)"],
)
def softcap(s: Tensor, grid: Grid, *, cap: Annotated[float, Range(above=0)]) -> Tensor:
    """Scores limited smoothly to ±cap."""
    x = s / cap  # (b, h, n, m)
    return cap * x.tanh() if x.requires_grad else x.tanh_().mul_(cap)


@link(
    "temperature",
    "s / {t}",
    why="A temperature below 1 sharpens the weights, and one above 1 evens them out.",
    source="Hinton et al. 2015, §2",
    step="tempered_scores",
    laws=_ALL_LAWS,
    neutral_value=1,
    derivation=derive_per_key(lambda row, cell: ([cell.value_before, " / ", Number(row.link_value)],)),
    gradient_factor=lambda row, cell: ["(1 / ", Number(row.link_value), ")"],
)
def temperature(s: Tensor, grid: Grid, *, t: Annotated[float, Range(above=0)]) -> Tensor:
    """Scores divided by a temperature: below 1 sharpens, above 1 flattens."""
    return s / t  # (b, h, n, m)


def _derive_log_n(row: RowDerivation) -> Iterator[Equation]:
    """The factor of the row, then each score times it."""
    yield Equation("factor", (["max(1, ln ", row["n"], " / ln ", Number(row.link_value), ")"], [row["factor"]]))
    yield from row.equation_per_key(lambda cell: ([cell.value_before, " × ", row["factor"]],))


@link(
    "log-n",
    "s × max(1, ln n / ln {base})",
    why="Among many keys softmax spreads the weight thinly; larger scores make up for that.",
    source="Chiang and Cholak 2022, §5.3; Bai et al. 2023 (Qwen), §2.3",
    step="length_scaled_scores",
    reads_whole_row=True,
    laws=_ALL_LAWS,
    derivation=_derive_log_n,
    gradient_factor=lambda row, cell: [row["factor"]],
)
def log_n(s: Tensor, grid: Grid, *, base: Annotated[float, Range(above=1)]) -> Tensor:
    """Scores times ln n / ln base where n, the number of visible keys, exceeds the base."""
    n = record_intermediate("n", grid.visible.sum(-1, keepdim=True), "bhn1", is_input=True)  # (b, h, n, 1)
    factor = (n.clamp(min=1).to(s.dtype).log() / math.log(base)).clamp(min=1)  # (b, h, n, 1)
    return s * record_intermediate("factor", factor, "bhn1", is_input=True)  # (b, h, n, m)


@link(
    "position",
    "s + bias of the positions",
    why="The score changes with the distance between the query and the key.",
    source="Press et al. 2022 (alibi); Raffel et al. 2020 (t5)",
    step="positioned_scores",
    part_choice="position",
    law_exceptions="as for the position that is chosen",
)
def position(s: Tensor, grid: Grid, part: Part[PositionTraits]) -> Tensor:
    """The bias of the position added (--position)."""
    return part(s, grid)  # (b, h, n, m)


@link(
    "bias",
    "s + bias",
    why="Numbers from the file raise or lower single scores.",
    source="Raffel et al. 2020, §2.1; ONNX Attention's attn_mask",
    step="biased_scores",
    grid_field="bias",
    law_exceptions="its cells belong to indices of one problem",
    derivation=derive_per_key(lambda row, cell: ([cell.value_before, " + ", cell["bias"]],)),
)
def bias(s: Tensor, grid: Grid) -> Tensor:
    """The file's `bias` added."""
    return s + record_intermediate("bias", grid.bias, is_input=True)  # (b, h, n, m)


@link(
    "mask",
    "s where visible, else −∞",
    why="A score of −∞ becomes a weight of 0: the query takes nothing from a hidden key.",
    source="Vaswani et al. 2017, §3.2.3",
    step="masked_scores",
    grid_field="visible",
    is_mask=True,
    is_fused=True,
    laws=_ALL_LAWS,
)
def mask(s: Tensor, grid: Grid) -> Tensor:
    """−∞ where a key is hidden from the query: by the mask, lengths or a bias of −∞."""
    return s.where(grid.visible, float("-inf"))  # (b, h, n, m)
