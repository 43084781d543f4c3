"""The one console that every view prints on."""

from __future__ import annotations

import io
import sys

from rich.console import Console

from attncli.output_formats import Look


def console_for(out: io.TextIOBase | io.StringIO, look: Look) -> Console:
    """A console that takes text as it is: no markup, no emoji codes, no guessing of colours."""
    return Console(
        file=out,  # type: ignore[arg-type]  # a StringIO is a text stream
        width=look.width or sys.maxsize >> 32,
        force_terminal=look.color,
        no_color=not look.color,
        color_system="auto" if look.color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
