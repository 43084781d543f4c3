"""Text in figures: how wide it is, which labels of an axis have room, and how they are cut. Lengths are in points."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

from attncli.text import to_ascii
from attncli.views.figures.theme import HEADER_SIZE, LABEL_SIZE, LINE_HEIGHT

_STRIDES = (2, 5, 10, 20, 25, 50, 100, 200, 250, 500)  # every so many labels are shown
_MEASURED_LABELS = 8  # of one axis: those with the most characters
_MAX_CROWDED_LABELS = 16  # of an axis on which not every label has room
_GAP = 6.0  # between two labels that stand side by side
_ROW_PITCH = 9.0  # from one label to the next below it
_SLANTED_PITCH = 11.5  # and to the next beside it, where they are slanted
_MEASURED_CHARACTERS = 1000  # of a text
_MEASURING_SCALE = 8.0  # text is measured larger than it is drawn: in whole pixels, widths would be rounded
SLANT = 45.0  # degrees


@cache
def _renderer() -> RendererAgg:
    return RendererAgg(1, 1, 72)  # type: ignore[no-untyped-call]


@cache
def _font(size: float, weight: str) -> FontProperties:
    return FontProperties(size=size, weight=weight)


@lru_cache(4096)
def text_width(text: str, size: float = LABEL_SIZE, weight: str = "normal") -> float:
    """Return the width of a line of text; of one that is longer than any figure is wide, as its beginning has it."""
    if len(text) > _MEASURED_CHARACTERS:
        return text_width(text[:_MEASURED_CHARACTERS], size, weight) * (len(text) / _MEASURED_CHARACTERS)
    measure: Any = _renderer().get_text_width_height_descent  # which has no types
    width, _, _ = measure(text, _font(size * _MEASURING_SCALE, weight), ismath=False)
    return float(width) / _MEASURING_SCALE


def widest(texts: Sequence[str], size: float = LABEL_SIZE) -> float:
    """Return the width of the widest of some texts; only those with the most characters are measured."""
    longest = sorted(set(texts), key=len, reverse=True)[:_MEASURED_LABELS]
    return max((text_width(text, size) for text in longest), default=0.0)


def fit_text(text: str, width: float, size: float = LABEL_SIZE, weight: str = "normal") -> str:
    """Return a text that is no wider: the end of a longer one is cut off, and … says so."""
    if not text or text_width(text, size, weight) <= width:
        return text
    low, high = 0, len(text) - 1  # how many characters stay
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(text[:middle] + "…", size, weight) <= width:
            low = middle
        else:
            high = middle - 1
    while low > 0 and unicodedata.combining(text[low]):  # a mark does not lose its letter
        low -= 1
    return text[:low] + "…"


def spell_label(text: str) -> str:
    """Return a label as it is drawn: pictures of control characters, which fonts lack, are spelled as escapes."""
    return "".join(to_ascii(c) if "\u2400" <= c <= "\u2426" else c for c in text) if not text.isascii() else text


def wrap_text(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Break a text into lines at its spaces; a word that is wider than a line is cut."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, weight) <= width:
            lines[-1] = longer
        else:
            lines.append(fit_text(word, width, size, weight))
    return lines


@dataclass(frozen=True)
class Header:
    """The name of a band in bold, and the formula of its step: beside it, or below where there is no room."""

    name: str
    formula: str

    @property
    def formula_indent(self) -> float:
        return text_width(self.name, HEADER_SIZE, "bold") + 10

    def natural_width(self) -> float:
        """Return the width of one line."""
        return self.formula_indent + text_width(self.formula, HEADER_SIZE)

    def formula_lines(self, width: float) -> list[str]:
        """Return the lines of the formula below the name; none: it stands beside the name, or there is none."""
        return [] if self.natural_width() <= width else wrap_text(self.formula, width, HEADER_SIZE)

    def height(self, width: float) -> float:
        """Return how much it takes, with the space below it."""
        return (1 + len(self.formula_lines(width))) * HEADER_SIZE * LINE_HEIGHT + 4


@dataclass(frozen=True)
class ShownLabels:
    """The labels of one axis that have room."""

    places: tuple[int, ...]
    texts: tuple[str, ...]
    extent: float  # how far they reach away from the axis
    is_slanted: bool = False


def _choose_places(count: int, pitch: float, minimum: float) -> tuple[int, ...]:
    """Choose which of so many labels are shown, `pitch` apart and each with a minimum of room: all, or every so many."""
    if pitch >= minimum:
        return tuple(range(count))
    least = max(minimum / pitch, count / _MAX_CROWDED_LABELS)
    stride = next((n for n in _STRIDES if n >= least), math.ceil(least / 1000) * 1000)
    return tuple(range(0, count, stride))


def row_labels(texts: Sequence[str], pitch: float, max_width: float) -> ShownLabels:
    """Choose the labels beside rows that are `pitch` apart."""
    places = _choose_places(len(texts), pitch, _ROW_PITCH)
    shown = tuple(fit_text(texts[i], max_width) for i in places)
    return ShownLabels(places, shown, widest(shown))


def column_labels(texts: Sequence[str], pitch: float, max_width: float) -> ShownLabels:
    """Choose the labels below columns that are `pitch` apart: upright where they have room or are indices, else slanted."""
    widest_label = widest(texts)
    is_index = all(text == str(i) for i, text in enumerate(texts))
    if is_index or widest_label + _GAP <= pitch:
        places = _choose_places(len(texts), pitch, widest_label + _GAP)
        return ShownLabels(places, tuple(texts[i] for i in places), LABEL_SIZE)
    places = _choose_places(len(texts), pitch, _SLANTED_PITCH)
    shown = tuple(fit_text(texts[i], max_width) for i in places)
    return ShownLabels(places, shown, 0.71 * (widest(shown) + LABEL_SIZE), is_slanted=True)
