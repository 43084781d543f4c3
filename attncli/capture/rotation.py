"""Read a rotation of columns (RoPE) from the numbers before and after it.

The quotient of paired columns, taken as complex numbers, must depend on the token alone. Its phase at position 1 is the
frequency, its size a factor. The exact digits then come from the buffers of the model, or from a base that gives them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass
class Rotation:
    """Which pairs of columns turn, how fast, and by what they are multiplied besides."""

    layout: str  # half or interleaved
    columns: str  # first or last
    dims: int
    frequencies: torch.Tensor  # (dims/2,), float64
    factor: float
    is_backwards: bool  # then the two columns of each pair are swapped

    def is_like(self, other: Rotation) -> bool:
        return (
            (self.layout, self.columns, self.dims, self.is_backwards)
            == (other.layout, other.columns, other.dims, other.is_backwards)
            and torch.equal(self.frequencies, other.frequencies)
            and abs(self.factor - other.factor) < 1e-6
        )

    def to_part(self, d: int, bases: Sequence[float]) -> tuple[str, dict[str, torch.Tensor]]:
        """Return the position part, and the arrays that it needs."""
        options = [f"layout={self.layout}"] if self.layout != "half" else []
        options += [f"dims={self.dims}"] if self.dims != d else []
        options += [f"columns={self.columns}"] if self.columns != "first" else []
        exponents = torch.arange(0, self.dims, 2, dtype=torch.float64) / self.dims
        for base in (*bases, _guess_base(self.frequencies, self.dims)):
            if base > 1 and self.factor == 1 and _is_close(base**-exponents, self.frequencies, 2e-7):
                return "rope:" + ",".join([f"theta={_spell(base)}", *options]), {}
        ratio = 10000.0**-exponents / self.frequencies.clamp(min=1e-200)  # 0: the pair does not turn
        options += ["scaling=longrope", "original=1000000", f"attention-factor={self.factor!r}"]
        return "rope:" + ",".join(options), {"parameters.rope_short": ratio, "parameters.rope_long": ratio}


def _spell(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


def _guess_base(frequencies: torch.Tensor, dims: int) -> float:
    """Return the base that gives the last frequency, rounded where that is a round number."""
    if len(frequencies) < 2 or not 0 < float(frequencies[-1]) < 1:
        return 0.0
    base = float(frequencies[-1]) ** (-dims / (dims - 2))
    rounded = float(f"{base:.4g}")
    return rounded if abs(rounded - base) < 1e-4 * base else base


def _is_close(a: torch.Tensor, b: torch.Tensor, rtol: float) -> bool:
    return a.shape == b.shape and bool(((a - b).abs() <= rtol * b.abs()).all())


def paired_columns(layout: str, columns: str, dims: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first and the second columns of the pairs."""
    start = d - dims if columns == "last" else 0
    if layout == "half":
        return torch.arange(start, start + dims // 2), torch.arange(start + dims // 2, start + dims)
    return torch.arange(start, start + dims, 2), torch.arange(start + 1, start + dims, 2)


def find_rotation(
    before: torch.Tensor,
    after: torch.Tensor,
    positions: torch.Tensor,
    buffers: Sequence[torch.Tensor],
    factors: Sequence[float],
    tolerance: float,
) -> Rotation | None:
    """Find the rotation between two arrays (B, H, T, d) at positions (B or 1, T); None: there is none.

    Args:
        buffers: frequencies that the model holds, the exact digits of which are taken.
        factors: that the model may multiply by besides, the same.
    """
    if before.shape[-2] < 3:
        return None
    proposals = list(_proposals(before, after, buffers, tolerance))
    for is_estimated in (False, True):  # frequencies that the model holds are believed before those that were measured
        for layout, columns, dims in proposals:
            held = None if is_estimated else buffers
            rotation = _read_pairs(before, after, positions, held, layout, columns, dims, factors, tolerance)
            if rotation is not None:
                return rotation
    return None


def _proposals(
    before: torch.Tensor, after: torch.Tensor, buffers: Sequence[torch.Tensor], tolerance: float
) -> Iterator[tuple[str, str, int]]:
    d = before.shape[-1]
    size = float(after.abs().max())
    turned = ((before - after).abs().amax((0, 1, 2)) > 10 * tolerance * size).nonzero().flatten()
    sizes = [d, *(2 * len(buffer) for buffer in buffers)]
    if len(turned):
        sizes += [2 * ((int(turned[-1]) + 2) // 2), 2 * ((d - int(turned[0]) + 1) // 2), len(turned)]
    for dims in dict.fromkeys(size for size in sizes if 2 <= size <= d and size % 2 == 0):
        for columns in ("first", "last") if dims < d else ("first",):
            start = d - dims if columns == "last" else 0
            still = torch.ones(d, dtype=torch.bool)
            still[start : start + dims] = False
            if bool(((before - after).abs()[..., still] > tolerance * size * 10).any()):
                continue
            for layout in ("half", "interleaved"):
                yield layout, columns, dims


def _read_pairs(
    before: torch.Tensor,
    after: torch.Tensor,
    positions: torch.Tensor,
    buffers: Sequence[torch.Tensor] | None,
    layout: str,
    columns: str,
    dims: int,
    factors: Sequence[float],
    tolerance: float,
) -> Rotation | None:
    """Read one way of pairing columns; None where the quotient is not the token's own. `buffers`: None to measure frequencies."""
    first, second = paired_columns(layout, columns, dims, before.shape[-1])
    x = torch.complex(before[..., first].double(), before[..., second].double())  # (B, H, T, p)
    y = torch.complex(after[..., first].double(), after[..., second].double())
    quotient = (y * x.conj()).sum(1) / (x * x.conj()).sum(1).real.clamp(min=1e-300)  # (B, T, p)
    limit = 20 * tolerance * float(y.abs().max())
    if bool(((quotient[:, None] * x - y).abs() > limit).any()):
        return None
    sizes = quotient.abs()
    factor = float(sizes.median())
    if bool(((sizes - factor).abs() > 200 * tolerance * factor).any()):
        return None
    found = _find_frequencies(quotient / sizes, positions.double(), buffers, dims, tolerance)
    if found is None:
        return None
    frequencies, is_backwards = found
    if layout == "interleaved" and columns == "first":  # pairs at the end that do not turn are none
        dims = 2 * (int((frequencies != 0).nonzero()[-1]) + 1)
        frequencies = frequencies[: dims // 2]
    factor = next((f for f in (1.0, *factors) if abs(factor - f) < 100 * tolerance), factor)
    return Rotation(layout, columns, dims, frequencies, factor, is_backwards)


def _find_frequencies(
    turns: torch.Tensor, positions: torch.Tensor, buffers: Sequence[torch.Tensor] | None, dims: int, tolerance: float
) -> tuple[torch.Tensor, bool] | None:
    """Return the frequencies (p,) that make phases proportional to positions, and whether they turn backwards."""
    positions = positions.expand(turns.shape[0], -1)
    steps = positions[:, 1:] - positions[:, :-1]
    at = (steps == 1).nonzero()
    if not len(at):
        return None
    ratios = turns[:, 1:] * turns[:, :-1].conj()
    estimate = torch.angle(ratios[at[:, 0], at[:, 1]].mean(0))  # (p,)
    sign = -1.0 if float(estimate.sum()) < 0 else 1.0
    pairs = dims // 2
    limit = max(500 * tolerance, 1e-9)
    if buffers is None:
        measured = sign * estimate
        return (measured, sign < 0) if _phase_error(turns, positions, estimate) < limit else None
    held = [b.double() for b in buffers if len(b) == pairs]
    held += [torch.cat([b.double(), b.new_zeros(pairs - len(b)).double()]) for b in buffers if pairs - len(b) > 0]
    exponents = torch.arange(0, dims, 2, dtype=torch.float64) / dims
    usual = [base**-exponents for base in (10000.0, 500000.0, 1e6)]
    guessed = [base**-exponents for base in [_guess_base((sign * estimate).clamp(min=0), dims)] if base > 1]
    for candidates in (held, usual, guessed):  # what the model holds is believed first
        errors = [_phase_error(turns, positions, sign * frequencies) for frequencies in candidates]
        best = min(range(len(errors)), key=errors.__getitem__, default=None)
        if best is not None and errors[best] < limit and bool((candidates[best] != 0).any()):
            return candidates[best], sign < 0
    return None


def _phase_error(turns: torch.Tensor, positions: torch.Tensor, frequencies: torch.Tensor) -> float:
    angles = positions[..., None] * frequencies
    return float((torch.polar(torch.ones_like(angles), angles) - turns).abs().max())
