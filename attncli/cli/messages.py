"""What is said on standard error: errors with their place, warnings, notes. Standard output is never touched here."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TextIO

from attncli.errors import AttnError, json_escape, printable, to_ascii


def replace_with_ascii(error: UnicodeError) -> tuple[str, int]:
    """A codec's error handler: what a console cannot show, in ASCII."""
    assert isinstance(error, UnicodeEncodeError)
    return to_ascii(error.object[error.start : error.end]), error.end


def replace_with_json_escape(error: UnicodeError) -> tuple[str, int]:
    """The same for JSON, where only an escape is the same text."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(json_escape, error.object[error.start : error.end])), error.end


def should_use_color(stream: TextIO, color_option: str) -> bool:
    """--color, then NO_COLOR (no-color.org), then FORCE_COLOR (force-color.org), then whether it is a terminal."""
    if color_option != "auto":
        return color_option == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class Messages:
    """Standard error, in the form that was asked for."""

    def __init__(self, *, error_format: str = "full", color: str = "auto", quiet: bool = False) -> None:
        self.error_format = error_format
        self.quiet = quiet
        self.color = should_use_color(sys.stderr, color)

    def apply_style(self, text: str, ansi_code: str) -> str:
        return f"\x1b[{ansi_code}m{text}\x1b[0m" if self.color else text

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # nobody listens: the exit status still speaks
            print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """What had to be found out; silent with --quiet."""
        if not self.quiet and self.error_format == "full":
            self.write(self.apply_style(printable(text), "2"))

    def warning(self, text: str) -> None:
        """A warning of a result, "code: sentence"."""
        code, _, message = text.partition(": ")
        if self.error_format == "json":
            self.write(json.dumps({"type": "warning", "code": code, "message": message}, ensure_ascii=False))
        else:
            self.write(f"{self.apply_style(f'warning[{code}]', '33;1')}: {printable(message)}")

    def error(self, error: AttnError) -> None:
        """An error in the form of DESIGN §5."""
        if self.error_format == "json":
            self.write(json.dumps(error.to_record(), ensure_ascii=False))
            return
        if self.error_format == "concise":
            where = f"{printable(str(error.location))}: " if str(error.location) else ""
            self.write(f"{where}{error.code} {printable(error.message)}")
            return
        self.write(f"{self.apply_style(f'error[{error.code}]', '31;1')}: {printable(error.message)}")
        place = error.location
        margin = " " * len(str(max((n for n, _ in place.source_lines), default=1)))
        if str(place) and (place.file or place.path):
            self.write(f"{margin}{self.apply_style('-->', '34;1')} {printable(str(place))}")
        if place.source_lines:
            self.write(f"{margin} {self.apply_style('|', '34;1')}")
            for number, text in place.source_lines:
                self._write_source_line(number, text, margin, error)
            self.write(f"{margin} {self.apply_style('|', '34;1')}")
        if error.help:
            self.write(f"{margin} {self.apply_style('=', '34;1')} help: {printable(error.help)}")

    def _write_source_line(self, line_number: int, text: str, margin: str, error: AttnError) -> None:
        place = error.location
        column = (place.column or 1) - 1
        start = max(0, column - 60) if line_number == place.line and len(text) > 100 else 0
        shown = text[start : start + 100]
        bar = self.apply_style("|", "34;1")
        self.write(f"{line_number:>{len(margin)}} {bar} {printable(shown)}")
        if line_number == place.line and place.column:
            before = len(printable(text[start:column]))
            width = max(1, min(place.caret_width, 100 - before))
            self.write(
                f"{margin} {bar} {' ' * before}{self.apply_style('^' * width, '31;1')}{' ' + printable(place.caret_label) if place.caret_label else ''}"
            )
