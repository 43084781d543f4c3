"""What a proposal is, and the arrays and figures of all of them, by NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.helpers import draw_normal, softmax

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Written:
    """Figures in a file that the followed command writes."""

    path: str
    figures: Figures


@dataclass(frozen=True)
class Proposal:
    """An error or a warning, words of it that propose something, and what must come out when that is done."""

    command: str
    says: str
    gives: Figures | Written | tuple[str, ...] | str  # figures by step, words of the output, or another error's code
    files: Mapping[str, Any] = field(default_factory=dict)  # text, bytes, or fields as JSON or NPZ, by name
    followed: str = ""  # the command as proposed; without it, the proposed words stand behind the command
    mended: Mapping[str, Any] = field(default_factory=dict)  # the files as proposed, where they change
    slip: str = ""  # a “did you mean” takes the place of this word, in the command and in the files

    def __str__(self) -> str:
        return f"{self.command} → {self.says}".replace(" ", "_")[:90]


# ── arrays ───────────────────────────────────────────────────────────────────────────────────────
TOKENS = ["the", "cat", "sat"]
X = draw_normal(1, 3, 4)  # (T, d)
BATCH = draw_normal(2, 2, 3, 4)  # (B, T, d): as many items as heads, where there are two
SQUARE = draw_normal(3, 3, 3, 4)  # (B, T, d): as many items as queries
Q, K, V = draw_normal(4, 2, 4), draw_normal(5, 5, 4), draw_normal(6, 5, 6)  # (Tq, d), (Tk, d), (Tk, c)
HEADED = draw_normal(7, 3, 2, 4)  # (T, H, d), or (H, T, d), or (B, T, d)
W_Q, W_K, W_V = draw_normal(8, 4, 4), draw_normal(9, 4, 4), draw_normal(10, 4, 4)
SEEN = draw_normal(11, 2, 3, 3) > -0.3  # (B or H, Tq, Tk)
SEEN[:, range(3), range(3)] = True
KEYS_SEEN = np.array([[True, True, False], [True, False, True], [False, True, True]])  # (B, Tk) or (Tq, Tk)
ADDED = draw_normal(12, 2, 3, 3)  # (B or H, Tq, Tk)
CAUSAL = np.tri(3, dtype=bool)
LABELLED = {"tokens": TOKENS, "embeddings": X}
FILE = {"x.json": LABELLED}


def attend(q, k=None, v=None, heads=1, visible=True, scale=None, added=0.0, kept=1.0) -> dict[str, np.ndarray]:
    """Return weights and context of q (…, Tq, H·d), k and v; with heads, weights have an axis for them."""
    k = q if k is None else k
    v = k if v is None else v
    if heads > 1:
        q, k, v = (x.reshape(*x.shape[:-1], heads, -1).swapaxes(-2, -3) for x in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale) + added
    weights = softmax(np.where(visible, scores, -np.inf))
    context = (weights * kept) @ v
    if heads > 1:
        context = context.swapaxes(-2, -3)
        context = context.reshape(*context.shape[:-2], -1)
    return {"weights": weights, "context": context}


def turn(x: np.ndarray, columns: int = 4) -> np.ndarray:
    """Rotate the first half of some columns against their second half, token by token: RoPE of (T, d)."""
    half = columns // 2
    angles = np.arange(len(x))[:, None] * 10000.0 ** (-np.arange(half) / half)
    a, b, rest = x[:, :half], x[:, half:columns], x[:, columns:]
    return np.hstack([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles), rest])


def select_rows(figures: Figures, rows: slice) -> Figures:
    return {name: x[rows] for name, x in figures.items()}


STEPS_BACK = np.arange(3)[:, None] - np.arange(3)  # i − j
PLAIN, HIDDEN_LATER, TWO_HEADS = attend(X), attend(X, visible=CAUSAL), attend(X, heads=2)
TURNED = attend(turn(X), turn(X), X)
SLOPED = attend(X, added=-np.abs(STEPS_BACK) / 256)
PROJECTED = attend(X @ W_Q, X)


def csv_text(rows: np.ndarray, header: str = "", labels: list[str] | None = None, extra: str = "") -> str:
    """Return rows as CSV, below a header, each behind its label and before one cell more."""
    lines = [header] if header else []
    for i, row in enumerate(rows):
        cells = [
            *(labels[i : i + 1] if labels else []),
            *(repr(float(cell)) for cell in row),
            *([extra] if extra else []),
        ]
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"
