"""Named variants: lists of choices, printed by `attn list variants NAME`. Rules, never sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attncli.errors import OptionError, nearest


@dataclass(frozen=True)
class Preset:
    """Choices by name, and what it cannot know and asks for."""

    name: str
    summary: str
    source: str
    choices: Mapping[str, Any] = field(default_factory=dict)
    asks: tuple[str, ...] = ()  # choices (or, for window, a mask) that the user must make


_PRESETS = (
    Preset(
        "simplified",
        "no projections, no scale: weights = softmax(x xᵀ)",
        "Raschka 2024, §3.3",
        {"projection": "identity", "scale": "none"},
    ),
    Preset(
        "self-attention",
        "every token attends to every token, scaled by 1/√d_k",
        "Vaswani et al. 2017, §3.2.1",
        {"score": "dot", "scale": "auto"},
    ),
    Preset(
        "causal",
        "self-attention where no token sees what follows it",
        "Vaswani et al. 2017, §3.2.3",
        {"mask": "causal"},
    ),
    Preset(
        "multi-head",
        "several heads side by side on slices of the width",
        "Vaswani et al. 2017, §3.2.2",
        asks=("heads",),
    ),
    Preset("multi-query", "many query heads, one key and value head", "Shazeer 2019", {"kv_heads": 1}, asks=("heads",)),
    Preset(
        "grouped-query",
        "groups of query heads share a key and value head",
        "Ainslie et al. 2023",
        asks=("heads", "kv_heads"),
    ),
    Preset(
        "cross",
        "queries of one sequence attend to another, the memory",
        "Vaswani et al. 2017, §3.2.3",
        asks=("memory",),
    ),
    Preset(
        "sliding-window",
        "causal, and no further back than a window",
        "Beltagy et al. 2020, §3.1; Jiang et al. 2023, §2",
        {"mask": "causal"},
        asks=("window",),
    ),
)
PRESETS: Mapping[str, Preset] = {p.name: p for p in _PRESETS}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        OptionError: there is none; the nearest name is offered.
    """
    if name not in PRESETS:
        raise OptionError("unknown-variant", f"no variant is called {name!r}", help=nearest(name, PRESETS))
    return PRESETS[name]
