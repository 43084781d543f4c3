"""Figures in Python: `plot_result`, and the `Figure` that it returns."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from attncli.api.keywords import optional_text, optional_word, parse_steps, require_flag, spelled_for_python
from attncli.atomic_file import to_bytes
from attncli.errors import OptionError
from attncli.output_files import check_output_path, open_output_file
from attncli.output_formats import (
    FIGURE_FORMATS,
    FigureKind,
    FigureStyle,
    RenderOptions,
    StepShape,
    choose_output_format,
    load_output_format,
)
from attncli.request import OutputOptions
from attncli.step_names import require_step_name
from attncli.text import join_names, quote_value
from attncli.types import Attention

if TYPE_CHECKING:
    from attncli.api.types import Path, Steps


class Figure:
    """A figure of a result: a notebook shows it, and `save` writes it.

        result.plot()  # in a notebook
        result.plot("scores").save("scores.pdf")

    It is drawn at once, so that a later change of arrays does not change what a notebook shows.
    """

    def __init__(self, attention: Attention, render_options: RenderOptions) -> None:
        self._attention, self._render_options = attention, render_options
        self._png = self._draw("png")

    def __repr__(self) -> str:
        """Return what is drawn."""
        return f"<Figure of {join_names([step.name for step in self._attention])}: .save('figure.png') writes it>"

    def _repr_png_(self) -> bytes:
        return self._png

    @spelled_for_python
    def save(self, path: Path, *, format: str | None = None, force: bool = False) -> None:
        """Write the figure to a file, which appears whole or not at all: `attn plot -o`.

        Args:
            path: the file; its suffix chooses the format: .png, .svg or .pdf.
            format: the name of the format, where the suffix does not say it.
            force: replace the file if it exists.

        Raises:
            OptionError: the file exists, or its suffix names no format of a figure.
            CannotError: it cannot be written.
        """
        if not isinstance(path, str | PathLike):
            raise OptionError("bad-option", f"{quote_value(path)} is not the name of a file", help="save('figure.png')")
        require_flag("force", force)
        name = str(path.__fspath__() if isinstance(path, PathLike) else path)
        chosen = choose_output_format(name, optional_text("format", format), offered=FIGURE_FORMATS)
        if chosen.name not in FIGURE_FORMATS:
            message = f"a figure is {join_names(FIGURE_FORMATS, 'or')}, not {chosen.name}"
            raise OptionError("bad-option", message, help="result.save(path) writes results in the other formats")
        options = OutputOptions(format=format, output=name, force=force)
        check_output_path(options)
        content = self._draw(chosen.name)
        with open_output_file(options) as file:
            file.write(content)

    def _draw(self, format_name: str) -> bytes:
        content = load_output_format(format_name).write(self._attention, self._render_options)
        assert isinstance(content, str | bytes)
        return to_bytes(content)


def plot_result(
    attention: Attention,
    steps: Steps | None,
    kind: FigureKind | None,
    width: str | None,
    dpi: int,
    style: FigureStyle,
    cmap: str | None,
    title: str,
) -> Figure:
    """Draw a result; arguments and errors are those of `Result.plot`."""
    from dataclasses import replace
    from typing import get_args

    from attncli.views.figures.options import MAX_DPI, MIN_DPI, make_figure_options
    from attncli.views.figures.shapes import check_shapes, keep_drawn_steps

    names = parse_steps("steps", steps)
    for name in names:
        if name != "all":
            require_step_name(name)
    optional_word("kind", kind, get_args(FigureKind))
    optional_word("style", style, get_args(FigureStyle))
    for name, text in (("width", width), ("cmap", cmap), ("title", title)):
        optional_text(name, text)
    if isinstance(dpi, bool) or not isinstance(dpi, int) or not MIN_DPI <= dpi <= MAX_DPI:
        message = f"dpi takes an integer from {MIN_DPI} to {MAX_DPI}, not {quote_value(dpi)}"
        raise OptionError("bad-option", message)
    options = replace(make_figure_options(kind, width, dpi, style or "light", cmap, title or ""), steps=names)
    format = load_output_format("png")
    if format.require is not None:
        format.require()
    if cmap is not None:
        from attncli.views.figures.theme import require_colormap

        require_colormap(cmap)
    kept = keep_drawn_steps(attention, names)
    check_shapes([StepShape.of_step(step) for step in kept], options)
    return Figure(kept, RenderOptions(figure=options))
