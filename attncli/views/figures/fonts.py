"""The fonts of figures: matplotlib's own, and those of this machine for what it lacks. Entries: `font_families`, `find_missing_characters`."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache

from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.ft2font import FT2Font

from attncli.text import printable
from attncli.types import Attention
from attncli.views.figures.labels import spell_label

_OWN_FAMILY = "DejaVu Sans"  # it comes with matplotlib: Latin, Greek, Cyrillic, Hebrew, Arabic, mathematics
# For other characters, those that are installed, in this order.
_FURTHER_FAMILIES = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK TC", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR"),
    *("Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAexGothic", "NanumGothic", "UnDotum"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "SimHei", "Arial Unicode MS"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Telugu", "Noto Sans Thai", "Noto Sans Khmer"),
    *("Noto Sans Armenian", "Noto Sans Georgian", "Noto Sans Ethiopic", "Noto Sans Symbols2", "Noto Sans Symbols", "Noto Emoji"),
    *("Symbola", "Segoe UI Symbol", "Segoe UI Emoji", "FreeSans", "Unifont"),
)  # fmt: skip


def shown_characters(attention: Attention, title: str) -> set[str]:
    """Return the characters beyond ASCII of all tokens of a result and of a title, as figures show them."""
    characters = set(printable(title))
    for labels in (attention.tokens, attention.k_tokens):
        for item in labels if labels and isinstance(labels[0], tuple) else (labels,):
            characters.update(*(spell_label(printable(token)) for token in set(map(str, item)) if not token.isascii()))
    return {c for c in characters if not c.isascii() and not c.isspace()}


@cache
def _characters_of(family: str) -> frozenset[int]:
    """Return which characters a font has; none, where it is not installed or cannot be drawn."""
    if family not in _installed_families():
        return frozenset()
    try:
        path = fontManager.findfont(FontProperties(family=family), fallback_to_default=False)
        return frozenset(FT2Font(path).get_charmap())
    except (ValueError, RuntimeError, OSError):  # RuntimeError: a font of colour bitmaps
        return frozenset()


@cache
def _installed_families() -> frozenset[str]:
    return frozenset(font.name for font in fontManager.ttflist)


def _choose_families(characters: Iterable[str]) -> tuple[list[str], set[str]]:
    """Return the fonts for some characters, and the characters that none of them has."""
    missing = {c for c in characters if ord(c) not in _characters_of(_OWN_FAMILY)}
    families = [_OWN_FAMILY]
    for family in _FURTHER_FAMILIES:
        if not missing:
            break
        found = {c for c in missing if ord(c) in _characters_of(family)}
        if found:
            families.append(family)
            missing -= found
    return families, missing


def font_families(attention: Attention, title: str) -> list[str]:
    """Return the fonts that the tokens of a result and a title need, in the order in which they are asked for a character."""
    return _choose_families(shown_characters(attention, title))[0]


def find_missing_characters(attention: Attention, title: str = "") -> list[str]:
    """Return the characters of the tokens and of a title that no font here has, in the order of their numbers."""
    _, missing = _choose_families(shown_characters(attention, title))
    return sorted(c for c in missing if unicodedata.category(c) not in ("Mn", "Me", "Cf"))
