"""The Rich console that every view prints on: `console_for`."""

from __future__ import annotations

import io
import sys

from rich.console import Console

from attncli.output_formats import RenderOptions


def console_for(stream: io.TextIOBase | io.StringIO, render_options: RenderOptions) -> Console:
    """Make a console that prints text as it is: no markup, no emoji codes, no guessing of colours."""
    return Console(
        file=stream,  # type: ignore[arg-type]  # a StringIO is a text stream
        width=render_options.width or sys.maxsize >> 32,
        force_terminal=render_options.color,
        no_color=not render_options.color,
        color_system="auto" if render_options.color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        force_jupyter=False,  # in a notebook Rich would show what it prints, and not write it
    )
