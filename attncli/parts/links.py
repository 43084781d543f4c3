"""What is done to scores before the normaliser, in the chain's order: (scores: b h n m, Grid) → b h n m.

A link that takes a value has one keyword-only argument, and that argument is a choice of its own on the
command line and in files, under the link's name. A link without one takes what the grid carries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

from attncli.derivation import Line, Num, Work, finer, per_key
from attncli.parts.traits import LinkTraits, MixingTraits, PositionTraits
from attncli.registry import Family, Part, Range
from attncli.types import Grid, Tensor

link = Family("link", "what is done to scores before the normaliser; --chain is their order", LinkTraits)

_PER_CELL = ("prefix", "decode", "permutation")


@link(
    "scale",
    "s × {factor}",
    source="Vaswani et al. 2017, §3.2.1",
    step="scaled_scores",
    laws=_PER_CELL,
    default_value="auto",
    value_words=("auto",),
    neutral_value=1,
    is_scale=True,
    is_fused=True,
    derivation=per_key(lambda w, c: ([c.before, " × ", Num(w.value)],)),
    gradient_factor=lambda w, c: [Num(w.value)],
)
def scale(s: Tensor, at: Grid, *, factor: float) -> Tensor:
    """The factor of the scores; auto is 1/√d_k of one head for `dot`, else 1."""
    return s * factor  # (b, h, n, m)


@link(
    "mix",
    "what --head-mixing does to scores",
    source="Shazeer et al. 2020, §3",
    step="mixed_scores",
    part_choice="head_mixing",
    laws=_PER_CELL,
)
def mix(s: Tensor, at: Grid, part: Part[MixingTraits]) -> Tensor:
    """The scores mixed across heads, by `--head-mixing`."""
    act = part.traits.mix_scores
    return s if act is None else act(s, at.parameters)  # (b, h, n, m)


@link(
    "softcap",
    "{cap} · tanh(s / {cap})",
    source="Gemma Team 2024, §2 (logit soft-capping)",
    step="softcapped_scores",
    laws=_PER_CELL,
    derivation=per_key(lambda w, c: ([Num(w.value), "·tanh(", c.before, " / ", Num(w.value), ")"],)),
    gradient_factor=lambda w, c: ["(1 − (", c.after, " / ", Num(w.value), ")²)"],
)
def softcap(s: Tensor, at: Grid, *, cap: Annotated[float, Range(above=0)]) -> Tensor:
    """Scores bent smoothly into ±cap."""
    return cap * (s / cap).tanh()  # (b, h, n, m)


@link(
    "temperature",
    "s / {t}",
    source="Hinton et al. 2015, §2",
    step="tempered_scores",
    laws=_PER_CELL,
    neutral_value=1,
    derivation=per_key(lambda w, c: ([c.before, " / ", Num(w.value)],)),
    gradient_factor=lambda w, c: ["(1 / ", Num(w.value), ")"],
)
def temperature(s: Tensor, at: Grid, *, t: Annotated[float, Range(above=0)]) -> Tensor:
    """Scores divided by a temperature: below 1 sharpens, above 1 flattens."""
    return s / t  # (b, h, n, m)


def _work_log_n(w: Work) -> Iterator[Line]:
    """The factor of the row, then each score times it."""
    yield Line("factor", (["max(1, ln ", w("n"), " / ln ", Num(w.value), ")"], [w("factor")]))
    yield from w.each(lambda c: ([c.before, " × ", w("factor")],))


@link(
    "log-n",
    "s × max(1, ln n / ln {base})",
    source="Chiang and Cholak 2022, §5.3; Bai et al. 2023 (Qwen), §2.3",
    step="length_scaled_scores",
    laws=_PER_CELL,
    derivation=_work_log_n,
    gradient_factor=lambda w, c: [w("factor")],
)
def log_n(s: Tensor, at: Grid, *, base: Annotated[float, Range(above=1)]) -> Tensor:
    """Scores grow with the logarithm of how many keys the query may see, beyond a base."""
    n = finer("n", at.visible.sum(-1, keepdim=True), "bhn1", given=True)  # (b, h, n, 1)
    factor = (n.clamp(min=1).to(s.dtype).log() / math.log(base)).clamp(min=1)  # (b, h, n, 1)
    return s * finer("factor", factor, "bhn1")  # (b, h, n, m)


@link(
    "position",
    "what --position does to scores",
    source="Press et al. 2022 (alibi); Raffel et al. 2020 (t5)",
    step="positioned_scores",
    part_choice="position",
    lawless="its law is that of the position",
)
def position(s: Tensor, at: Grid, part: Part[PositionTraits]) -> Tensor:
    """The position's bias, by `--position`."""
    return part(s, at)  # (b, h, n, m)


@link(
    "bias",
    "s + bias",
    source="Raffel et al. 2020, §2.1; ONNX Attention's attn_mask",
    step="biased_scores",
    grid_field="bias",
    lawless="its cells belong to indices of one problem",
    derivation=per_key(lambda w, c: ([c.before, " + ", c("bias")],)),
)
def bias(s: Tensor, at: Grid) -> Tensor:
    """The file's `bias`, added."""
    return s + finer("bias", at.bias, given=True)  # (b, h, n, m)


@link(
    "mask",
    "s where visible, else −∞",
    source="Vaswani et al. 2017, §3.2.3",
    step="masked_scores",
    grid_field="visible",
    is_mask=True,
    is_fused=True,
    laws=_PER_CELL,
)
def mask(s: Tensor, at: Grid) -> Tensor:
    """−∞ where the query may not look: mask, lengths, and a bias of −∞."""
    return s.where(at.visible, float("-inf"))  # (b, h, n, m)
