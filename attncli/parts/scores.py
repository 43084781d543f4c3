"""How alike a query and a key are: (q: b h n d, k: b h m d) → b h n m. The scale is a link of the chain."""

from __future__ import annotations

from attncli.registry import Family
from attncli.types import Tensor

score = Family("score", "how alike a query and a key are")


def one_over_root(d: int) -> float:
    """1/√d: keeps the scores' variance at 1 when q and k have unit variance (Vaswani et al. 2017, §3.2.1)."""
    return float(1 / d**0.5)


@score(
    "dot",
    "q·k",
    source="Luong et al. 2015, §3.1; Vaswani et al. 2017, §3.2.1",
    laws=("prefix", "decode", "permutation"),
    scale=one_over_root,  # what `--scale auto` means for this score
)
def dot(q: Tensor, k: Tensor) -> Tensor:
    """How far two vectors point the same way, times their lengths."""
    return q @ k.mT  # (b, h, n, m)
