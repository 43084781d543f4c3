"""The looks of figures: `Theme`, light or dark, and the sizes of text. Lengths are in points, 72 to an inch."""

from __future__ import annotations

from dataclasses import dataclass

from attncli.errors import OptionError
from attncli.text import shorten, suggestion
from attncli.views.figures.library import load_matplotlib

TITLE_SIZE = 11.0
HEADER_SIZE = 9.0
LABEL_SIZE = 8.0
NUMBER_SIZE = 7.5
LINE_HEIGHT = 1.35  # of a line of text, in its size


@dataclass(frozen=True)
class Theme:
    """The colours of a figure. Each mark in place of a number differs from the others and from the colour maps, for every eye."""

    ground: str
    text_color: str
    faint_text_color: str
    frame: str
    sequential: str  # matplotlib's names of colour maps
    diverging: str
    bar: str
    negative_bar: str
    hidden: str
    dropped: str
    nan: str
    minus_infinity: str
    infinity: str
    series: tuple[str, ...]  # of heads, in order


_OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito 2008, for every eye
THEMES = {
    "light": Theme(
        ground="#ffffff",
        text_color="#1a1a1f",
        faint_text_color="#5c5c66",
        frame="#8a8a94",
        sequential="cividis",
        diverging="RdBu_r",
        bar="#35588f",
        negative_bar="#b1442f",
        hidden="#c4c4ca",
        dropped="#ffffff",
        nan="#ee2200",
        minus_infinity="#5500aa",
        infinity="#aa00ff",
        series=_OKABE_ITO,
    ),
    "dark": Theme(
        ground="#15161a",
        text_color="#ececf1",
        faint_text_color="#a3a3ad",
        frame="#6a6a74",
        sequential="cividis",
        diverging="berlin",
        bar="#7fa7e0",
        negative_bar="#e58a74",
        hidden="#3e3e42",
        dropped="#15161a",
        nan="#cc4400",
        minus_infinity="#5500aa",
        infinity="#aa00ff",
        series=(*_OKABE_ITO[1:], "#7fa7e0"),
    ),
}


def require_colormap(name: str) -> None:
    """Check that matplotlib has a colour map.

    Raises:
        OptionError: it has none; the nearest name is offered.
    """
    load_matplotlib()
    from matplotlib import colormaps

    if name not in colormaps:
        message = f"matplotlib has no colour map called {shorten(name)!r}"
        names = [known for known in colormaps if not known.endswith("_r") or name.endswith("_r")]
        raise OptionError("bad-option", message, help=suggestion(name, names))


def relative_luminance(color: tuple[float, float, float]) -> float:
    """Return the luminance of an sRGB colour, from 0 for black to 1 for white (WCAG 2.2)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def text_color_on(color: tuple[float, float, float]) -> str:
    """Return black or white, whichever has the larger contrast on a colour; that is always 4.5 or more."""
    luminance = relative_luminance(color)
    return "#000000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#ffffff"
