"""How the numbers of a step become colours: `choose_scale`. The scale is one for all panels of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, Normalize, PowerNorm

from attncli.types import NumpyArray
from attncli.views.figures.theme import Theme

_SHARES = (
    "weights",
    "dropout_weights",
    "mixed_weights",
    "top_weights",
    "sink_weights",
)  # of a whole, mostly from 0 to 1
_AMOUNTS = (*_SHARES, "entropy", "visible_keys")  # never negative, unless a variant makes them so
_MAX_KEYS_OF_LINEAR_SCALE = 16  # with more keys most weights are small, and would all look alike


@dataclass(frozen=True)
class ColorScale:
    """Numbers → colours."""

    norm: Normalize
    colormap: Colormap
    note: str = ""  # how it is not linear

    def colors_of(self, values: NumpyArray) -> NumpyArray:
        """Return the colour of each number: (…,) → (…, 4)."""
        colors: NumpyArray = self.colormap(self.norm(values))
        return colors


def choose_scale(step: str, panels: Sequence[NumpyArray], theme: Theme, colormap: str | None) -> ColorScale:
    """Choose the scale of a step: from 0 upwards for weights and other amounts, symmetric about 0 for what has a sign.

    Args:
        step: its name.
        panels: its numbers; those that are not finite decide nothing.
        theme: its colour maps.
        colormap: the name of another one.
    """
    low, high = _finite_range(panels)
    is_amount = step in _AMOUNTS and low >= 0
    colors = colormaps[colormap or (theme.sequential if is_amount else theme.diverging)]
    colors = colors.with_extremes(bad=theme.hidden)
    if not is_amount:
        limit = max(-low, high) or 1.0
        return ColorScale(Normalize(-limit, limit), colors)
    if step not in _SHARES:
        return ColorScale(Normalize(0, high or 1.0), colors)
    if max(panel.shape[-1] for panel in panels) <= _MAX_KEYS_OF_LINEAR_SCALE:
        return ColorScale(Normalize(0, max(high, 1.0)), colors)
    return ColorScale(PowerNorm(0.5, 0, high or 1.0), colors, "√ scale")


def _finite_range(panels: Sequence[NumpyArray]) -> tuple[float, float]:
    """Return the least and the largest finite number; 0 and 0 where there is none."""
    low, high = np.inf, -np.inf
    for panel in panels:
        panel_low, panel_high = panel.min(initial=np.inf), panel.max(initial=-np.inf)
        if not (np.isfinite(panel_low) and np.isfinite(panel_high)):  # rare, and dearer
            finite = panel[np.isfinite(panel)]
            panel_low, panel_high = finite.min(initial=np.inf), finite.max(initial=-np.inf)
        low, high = min(low, float(panel_low)), max(high, float(panel_high))
    return (low, high) if low <= high else (0.0, 0.0)
