"""Random tensors for the oracles, and parameters drawn a second time."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def floats(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def coins(g: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=g) < 0.6


def merged(x: Tensor) -> Tensor:
    """(B, H, T, d) → (B, T, H·d)"""
    return x.transpose(1, 2).flatten(2)


def redrawn(
    kind: str,
    seed: int,
    turns: str,
    sizes: dict[str, tuple[int, int]],
    biased: str = "",
    *,
    parts: int = 1,
    out_in: bool = False,
) -> dict[str, Tensor]:
    """What PyTorch's global stream gives, matrix by matrix: letter → (d_in, d_out) in `sizes`; `parts` heads are drawn apart."""
    torch.manual_seed(seed)
    found: dict[str, list[Tensor]] = {}
    for letter in turns:
        d_in, d_out = sizes[letter][0], sizes[letter][1] // (1 if letter == "o" else parts)
        bias = letter in biased
        if kind == "linear":
            layer = nn.Linear(d_in, d_out, bias=bias)
            w, b = layer.weight.detach().T, layer.bias.detach() if bias else None
        elif kind == "xavier":
            w, b = nn.init.xavier_uniform_(torch.empty(d_out, d_in)).T, torch.zeros(d_out)
        else:
            draw = torch.rand if kind == "rand" else torch.randn
            w = draw(d_out, d_in).T if out_in else draw(d_in, d_out)
            b = draw(d_out) if bias else None
        found.setdefault(f"w_{letter}", []).append(w)
        if bias:
            found.setdefault(f"b_{letter}", []).append(b)
    return {name: torch.cat(arrays, -1) for name, arrays in found.items()}
