"""Options of a figure as they are given, checked before anything is drawn. Entry: `make_figure_options`. It loads no matplotlib."""

from __future__ import annotations

import re

from attncli.errors import OptionError
from attncli.output_formats import FigureKind, FigureOptions, FigureStyle
from attncli.text import shorten

MIN_DPI, MAX_DPI = 20, 2400
_INCHES = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72}
_MIN_INCHES, _MAX_INCHES = 1.0, 60.0
_MAX_PIXELS = 20_000  # of the width


def make_figure_options(
    kind: FigureKind | None, width: str | None, dpi: int, style: FigureStyle, cmap: str | None, title: str
) -> FigureOptions:
    """Parse the width, and return the options of a figure.

    Raises:
        OptionError: the width is none, or it and the resolution make too many pixels.
    """
    inches = None if width is None else parse_width(width)
    if inches is not None and inches * dpi > _MAX_PIXELS:
        message = f"--width {width} and --dpi {dpi} make a figure of {inches * dpi:.0f} pixels"
        raise OptionError("bad-option", message, help=f"at most {_MAX_PIXELS} are drawn: a smaller --dpi")
    return FigureOptions((), kind, inches, dpi, style, cmap, title)


def parse_width(text: str) -> float:
    """Parse a length with its unit, and return it in inches.

    Raises:
        OptionError: it is none, has no unit, or is too small or too large.
    """
    units = "|".join(_INCHES)
    match = re.fullmatch(rf"([0-9]{{1,5}}(?:\.[0-9]{{1,5}})?) ?({units})?", text.strip())
    if match is None:
        raise OptionError(
            "bad-option", f"--width takes a length such as 8.5cm, not {shorten(text)!r}", help="--width 8.5cm"
        )
    number, unit = match.groups()
    if unit is None:
        message = f"--width {number} has no unit"
        raise OptionError("bad-option", message, help=f"--width {number}cm, or --width {number}in")
    inches = float(number) * _INCHES[unit]
    if not _MIN_INCHES <= inches <= _MAX_INCHES:
        message = f"--width takes lengths from {_MIN_INCHES:g}in to {_MAX_INCHES:g}in, not {shorten(text)}"
        raise OptionError("bad-option", message, help="--width 8.5cm")
    return inches
