"""The output formats PNG, SVG and PDF. Loading this module does not load matplotlib: writing a figure does."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from attncli.output_formats import RenderOptions, StepShape, output_format
from attncli.text import join_names, pluralize
from attncli.types import Attention
from attncli.views.figures.library import load_matplotlib, require_matplotlib

_METADATA: dict[str, dict[str, None]] = {  # without times and versions, so that the same input gives the same bytes
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}
_MAX_NAMED_CHARACTERS = 8


def check_figure(shapes: Sequence[StepShape], options: RenderOptions) -> None:
    """Refuse what no figure can show of a result, before it is computed.

    Raises:
        OptionError, InputError: as `shapes.check_shapes`.
    """
    from attncli.views.figures.shapes import check_shapes

    check_shapes(shapes, options.figure)


def find_figure_warnings(attention: Attention, options: RenderOptions) -> tuple[str, ...]:
    """Return what a figure cannot show of a result: characters that no font has."""
    load_matplotlib()
    from attncli.views.figures.fonts import find_missing_characters

    missing = find_missing_characters(attention, options.figure.title)
    if not missing:
        return ()
    names = [f"{c} (U+{ord(c):04X})" for c in missing]
    count = pluralize(len(missing), "character")
    return (
        f"missing-glyphs: no font that matplotlib finds has {count}, which the figure shows as boxes: "
        f"{join_names(names, max_names=_MAX_NAMED_CHARACTERS)}",
    )


def _write_figure(attention: Attention, options: RenderOptions, format_name: str) -> bytes:
    load_matplotlib()
    from attncli.views.figures.drawing import draw_figure, drawing_settings

    file = io.BytesIO()
    with drawing_settings(attention, options.figure.title):
        figure = draw_figure(attention, options)
        figure.savefig(file, format=format_name, dpi=options.figure.dpi, metadata=_METADATA[format_name])
    return file.getvalue()


_TRAITS: dict[str, Any] = {  # fields of `Format`, each of its own type
    "default_steps": ("weights",),
    "require": require_matplotlib,
    "check_shapes": check_figure,
    "find_warnings": find_figure_warnings,
}


@output_format("png", ".png", is_binary=True, **_TRAITS)
def write_png(attention: Attention, options: RenderOptions) -> bytes:
    """Write a figure of pixels."""
    return _write_figure(attention, options, "png")


@output_format("svg", ".svg", console_errors="utf-8", **_TRAITS)
def write_svg(attention: Attention, options: RenderOptions) -> str:
    """Write a figure that scales; its text is drawn as outlines, so that it looks alike everywhere."""
    return _write_figure(attention, options, "svg").decode()


@output_format("pdf", ".pdf", is_binary=True, **_TRAITS)
def write_pdf(attention: Attention, options: RenderOptions) -> bytes:
    """Write a figure for a paper; its fonts are embedded as TrueType."""
    return _write_figure(attention, options, "pdf")
