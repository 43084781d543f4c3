"""Draw a result: bands of panels below each other, a title above, a legend below. Entry: `draw_figure`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import matplotlib
from matplotlib.figure import Figure

from attncli.output_formats import RenderOptions, StepShape
from attncli.text import printable
from attncli.types import Attention
from attncli.views.figures.bars import KeyBars
from attncli.views.figures.fonts import font_families
from attncli.views.figures.head_scatter import HeadScatter
from attncli.views.figures.heat_maps import HeatMaps, share_scale
from attncli.views.figures.labels import Header, text_width, wrap_text
from attncli.views.figures.library import quiet_matplotlib
from attncli.views.figures.lines import QueryLines
from attncli.views.figures.page import POINTS_PER_INCH, Page
from attncli.views.figures.panels import Band, make_bands
from attncli.views.figures.shapes import choose_kind, choose_steps
from attncli.views.figures.theme import LINE_HEIGHT, NUMBER_SIZE, THEMES, TITLE_SIZE, Theme

_MARGIN = 9.0
_BETWEEN_BANDS = 16.0
_LEGEND = NUMBER_SIZE + 12
_LARGEST_NATURAL_WIDTH = 468.0  # 6.5 inches: the text of a letter or A4 page
_HASH_SALT = "attn"  # of the names in an SVG, which would differ in every file otherwise


class _Drawable(Protocol):
    """The panels of one band, as one kind of figure draws them."""

    @property
    def header(self) -> Header: ...
    def natural_width(self) -> float: ...
    def lay_out(self, width: float, *, is_fixed: bool) -> float: ...
    def legend(self) -> list[tuple[str, str, str]]: ...
    def draw(self, page: Page, left: float, top: float) -> None: ...


@contextmanager
def drawing_settings(attention: Attention, title: str = "") -> Iterator[None]:
    """Set up matplotlib for as long as a figure is drawn and written: by its defaults, whatever the user's own file says.

    What no font has is said once, by `fonts.find_missing_characters`, and not for each character.
    """
    settings: dict[Any, Any] = {  # to a type checker, matplotlib's keys are literals
        "font.family": font_families(attention, title),
        "svg.hashsalt": _HASH_SALT,
        "svg.fonttype": "path",
        "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
        "text.parse_math": False,  # a token such as $x$ is no mathematics
    }
    with warnings.catch_warnings(), quiet_matplotlib(), matplotlib.rc_context():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def draw_figure(attention: Attention, render_options: RenderOptions) -> Figure:
    """Draw a result as the options say; `drawing_settings` are around it."""
    options = render_options.figure
    theme = THEMES[options.style]
    shapes = [StepShape.of_step(step) for step in attention]
    kind = choose_kind(shapes, options)
    bands = make_bands(attention, choose_steps(shapes, options), render_options.precision)
    drawables = _make_drawables(bands, kind, theme, options.cmap)
    if options.width is None:
        widths = [max(drawable.natural_width(), drawable.header.natural_width()) for drawable in drawables]
        title_width = text_width(printable(options.title), TITLE_SIZE, "bold")
        width = min(max(title_width, *widths), _LARGEST_NATURAL_WIDTH - 2 * _MARGIN)
    else:
        width = options.width * POINTS_PER_INCH - 2 * _MARGIN
    title_lines = wrap_text(printable(options.title), width, TITLE_SIZE, "bold")
    title_height = len(title_lines) * TITLE_SIZE * LINE_HEIGHT + (8 if title_lines else 0)
    heights = [drawable.lay_out(width, is_fixed=options.width is not None) for drawable in drawables]
    legend = list(dict.fromkeys(entry for drawable in drawables for entry in drawable.legend()))
    height = 2 * _MARGIN + title_height + sum(heights) + _BETWEEN_BANDS * (len(heights) - 1)
    page = Page(width + 2 * _MARGIN, height + (_LEGEND if legend else 0), options.dpi, theme)
    top = _MARGIN
    for line in title_lines:
        page.write_line(_MARGIN, top, line, TITLE_SIZE, weight="bold")
        top += TITLE_SIZE * LINE_HEIGHT
    top = _MARGIN + title_height
    for drawable, band_height in zip(drawables, heights, strict=True):
        drawable.draw(page, _MARGIN, top)
        top += band_height + _BETWEEN_BANDS
    page.draw_legend(_MARGIN, height - _MARGIN + 8, legend)
    return page.figure


def _make_drawables(bands: Sequence[Band], kind: str, theme: Theme, colormap: str | None) -> list[_Drawable]:
    drawables: list[_Drawable] = []
    heat_maps: dict[str, list[HeatMaps]] = {}  # by step
    for band in bands:
        if band.axes == ("query",):
            drawables.append(QueryLines(band, theme, colormap))
        elif kind == "flow":
            drawables.append(KeyBars(band, theme))
        else:
            maps = HeatMaps(band, theme, colormap)
            heat_maps.setdefault(band.step, []).append(maps)
            drawables.append(maps)
            if kind == "heads":
                drawables.append(HeadScatter(band, theme))
    for maps_of_step in heat_maps.values():
        if len(maps_of_step) > 1:
            share_scale(maps_of_step)
    return drawables
