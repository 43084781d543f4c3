"""Which weights survive training: (the grid's shape, generator) → b h n m booleans; survivors are divided by 1 − p."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from attncli.derivation import Equation, Number, RowDerivation
from attncli.parts.traits import DropoutTraits
from attncli.registry import AnyPart, Family, Range
from attncli.types import Generator, Tensor

dropout = Family("dropout", "weights dropped at random", DropoutTraits, plural="dropouts")


@dropout("none", "w", why="No weight is dropped.", laws=("prefix", "decode", "permutation"))
def none(shape: tuple[int, ...], generator: Generator | None) -> None:
    """No weight is dropped."""


def _derive_dropout(row: RowDerivation) -> Iterator[Equation]:
    """Survivors divided by what share survives."""
    keep = Number(1 - row.part.option_value("p"))
    for cell in row.unhidden_cells:
        if cell["kept"].value:
            yield Equation(cell.label, ([cell.value_before, " / ", keep], [cell.value_after]))
        else:
            yield Equation(cell.label, ([cell.value_after],), "dropped")


def rescale_survivors(w: Tensor, kept: Tensor, part: AnyPart) -> Tensor:
    """Survivors divided by 1 − p, so that the mean stays; the others 0. (b, h, n, m) each → (b, h, n, m)"""
    return (w / (1 - part.option_value("p"))).where(kept, 0)


@dropout(
    "dropout",
    "w / (1 − p) where kept, else 0",
    why="In training, weights are dropped at random so that the model does not rely on single keys; dividing the others by 1 − p keeps the mean.",
    source="Srivastava et al. 2014, inverted; Vaswani et al. 2017, §5.4",
    law_exceptions="the random draw is made for the whole matrix",
    drop=rescale_survivors,
    derivation=_derive_dropout,
    gradient_factor=lambda row, cell: ["(", cell["kept"], " / ", Number(1 - row.part.option_value("p")), ")"],
)
def inverted(
    shape: tuple[int, ...],
    generator: Generator | None,
    *,
    p: Annotated[float, Range(low=0, below=1)],
    seed: Annotated[int, Range(low=0, below=2**64)] | None = None,
) -> Tensor:
    """Kept where a uniform draw over the whole (batch, head, query, key) grid is below 1 − p."""
    import torch

    return torch.rand(shape, dtype=torch.float64, generator=generator) < 1 - p  # (b, h, n, m)
