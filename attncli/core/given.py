"""What a plan brings to the algebra, as tensors of one dtype on one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attncli.errors import CannotError
from attncli.plan import Plan
from attncli.plan.places import visible
from attncli.registry import Part
from attncli.types import Grid


class Given:
    """The problem's arrays, and what is drawn, ready to be computed with. `given("q")` is (b, n, h·d)."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.problem = plan.problem
        self.borrowed: set[int] = set()  # where memory lies that the caller may still write to
        self.dtype: torch.dtype = getattr(torch, plan.variant["dtype"])
        self.device = device(plan.variant["device"])
        seed = plan.variant["seed"]
        self.stream = None if seed is None else torch.Generator().manual_seed(seed)  # one for all that is drawn
        self.parameters, self.drawn = self._parameters()
        self.grid = self._grid()

    def tensor(self, x: Any) -> Tensor:
        """An array of numbers → the run's dtype and device; a tensor keeps its graph."""
        return self._lent(x).to(self.device, self.dtype)

    def _lent(self, x: Any) -> Tensor:
        """An array as a tensor that may share its memory, which is remembered."""
        tensor = as_tensor(x)
        self.borrowed.add(tensor.untyped_storage().data_ptr())
        return tensor

    def __call__(self, letter: str) -> Tensor | None:
        """q, k or v before it is split into heads, (b, t, h·d): projected, or as it was given."""
        p = self.problem
        if p.embeddings is None:
            direct = getattr(p, letter)
            return None if direct is None else self._side_by_side(self.tensor(direct))
        x = self.tensor(p.memory["embeddings"] if p.memory and letter != "q" else p.embeddings)
        return self._linear(x if x.ndim == 3 else x[None], letter)

    def _side_by_side(self, x: Tensor) -> Tensor:
        """However q, k, v were laid out → (b, t, h·d)"""
        if x.ndim == 2:  # (t, h·d)
            return x[None]
        if self.problem.layout == "htd":
            return x.transpose(0, 1).flatten(1)[None]
        if x.ndim == 3:  # (b, t, h·d)
            return x
        return (x if self.problem.layout == "bthd" else x.transpose(1, 2)).flatten(2)

    def _linear(self, x: Tensor, letter: str) -> Tensor:
        """x W + b, either of which may be absent: (b, t, ·) → (b, t, ·)"""
        w, b = self.parameters.get(f"w_{letter}"), self.parameters.get(f"b_{letter}")
        x = x if w is None else x @ w
        return x if b is None else x + b

    def formula(self, letter: str) -> str:
        """How q, k, v or the output came to be, in words."""
        if letter != "o" and self.problem.embeddings is None:
            return "as given"
        of = "context" if letter == "o" else "memory" if self.problem.memory and letter != "q" else "x"
        w = f" W_{letter}" if f"w_{letter}" in self.parameters else ""
        return of + w + (f" + b_{letter}" if f"b_{letter}" in self.parameters else "")

    def past(self, letter: str) -> Tensor | None:
        """(b, g, p, ·)"""
        past = self.problem.past
        return self.tensor(past[letter]) if past and letter in past else None

    def drop(self, w: Tensor) -> Tensor:
        """Inverted dropout of (b, h, n, m), drawn on the CPU over the whole grid: one seed is one pattern."""
        part = self.plan.variant["dropout"]
        if part.name == "none":
            return w
        mask = self.problem.dropout_mask
        kept = part(tuple(w.shape), self._generator(part)) if mask is None else as_tensor(mask)  # (b, h, n, m)
        return torch.where(kept.to(w.device), w / (1 - part.get("p")), torch.zeros_like(w))

    def output(self, z: Tensor | None) -> Tensor | None:
        """(b, n, h·c) → (b, n, ·), where there is a W_o"""
        return self._linear(z, "o") if z is not None and "w_o" in self.parameters else None

    def _generator(self, part: Part) -> torch.Generator | None:
        """The part's own stream where it has a seed of its own."""
        own = part.get("seed") if part.given("seed") else None
        return self.stream if own is None else torch.Generator().manual_seed(own)

    def _parameters(self) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        """(as x @ W wants them, those that were drawn, as the file lays them out)"""
        part, sizes = self.plan.variant["projection"], self.plan.sizes()

        def turned(x: Any) -> Any:
            return x.T if sizes.out_in and x.ndim == 2 else x

        named = {p.name for p in part.member.parameters}
        held = {k: turned(x) for k, x in self.problem.parameters.items() if k in named}  # (d_in, d_out)
        chosen = part(sizes, held, self._generator(part))
        shown = (
            torch.float64 if self.dtype == torch.float64 else torch.float32
        )  # so that what is printed computes the same
        drawn = {k: turned(x).to(shown) for k, x in chosen.items()} if part.member.facts.get("drawn") else {}
        return {k: self.tensor(x) for k, x in chosen.items()}, drawn

    def _grid(self) -> Grid:
        at = self.plan.grid()
        moved = {name: None if x is None else self._lent(x).to(self.device) for name, x in vars(at).items()}
        moved["bias"] = None if at.bias is None else self.tensor(at.bias)
        grid = Grid(**moved)
        seen = visible(grid, self.plan.mask)
        whole = np.broadcast_shapes(seen.shape, (1, 1, self.plan.size.queries, self.plan.size.keys))
        return replace(grid, visible=seen.expand(whole))


def as_tensor(x: Any) -> Tensor:
    """An array, whatever its strides and flags → a tensor, sharing its memory where torch can."""
    if isinstance(x, np.ndarray) and not (x.flags.writeable and all(stride >= 0 for stride in x.strides)):
        x = x.copy()
    return torch.as_tensor(x)


def device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        CannotError: it is not to be had on this machine.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        why = str(error).partition("\n")[0].partition(". ")[0][:160] or "torch gives no reason"
        raise CannotError("no-device", f"device {name} is not to be had here: {why}", help="--device cpu") from None
