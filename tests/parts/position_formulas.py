"""Rotations and slopes as their papers write them, for the tests of positions, norms and models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


# ── rope: the paper's formula, pair by pair ──────────────────────────────────────────────────────
def rotated(x: np.ndarray, positions: Any, omega: Any, layout: str = "half", attention: float = 1.0) -> np.ndarray:
    """Su et al. 2021, eq. 15: pairs of the first 2·len(omega) columns of (…, t, d) turned by p·ω_i."""
    out, r = x.copy(), 2 * len(omega)
    for i, w in enumerate(omega):
        a, b = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, r // 2 + i)
        for t, p in enumerate(positions):
            turn = attention * np.exp(1j * p * w)  # e^(ipω)
            z = (x[..., t, a] + 1j * x[..., t, b]) * turn
            out[..., t, a], out[..., t, b] = z.real, z.imag
    return out


def omegas(r: int, theta: float = 10000.0) -> np.ndarray:
    return np.array([theta ** (-2 * i / r) for i in range(r // 2)])


# ── positions on scores ──────────────────────────────────────────────────────────────────────────
def paper_slopes(n: int) -> list[float]:
    """Press et al.'s own get_slopes, retyped from their repository."""
    if math.log2(n).is_integer():
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]
    closest = 2 ** math.floor(math.log2(n))
    return paper_slopes(closest) + paper_slopes(2 * closest)[0::2][: n - closest]
