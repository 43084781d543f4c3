"""What is said on standard error: errors with their place, warnings, notes. Standard output is never touched here."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TextIO

from attncli.errors import AttnError, escaped, in_ascii, printable


def spell(error: UnicodeError) -> tuple[str, int]:
    """A codec's error handler: what a console cannot show, in ASCII."""
    assert isinstance(error, UnicodeEncodeError)
    return in_ascii(error.object[error.start : error.end]), error.end


def escape(error: UnicodeError) -> tuple[str, int]:
    """The same for JSON, where only an escape is the same text."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(escaped, error.object[error.start : error.end])), error.end


def wants_color(stream: TextIO, said: str) -> bool:
    """--color, then NO_COLOR (no-color.org), then FORCE_COLOR (force-color.org), then whether it is a terminal."""
    if said != "auto":
        return said == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class Talk:
    """Standard error, in the form that was asked for."""

    def __init__(self, *, form: str = "full", color: str = "auto", quiet: bool = False) -> None:
        self.form = form
        self.quiet = quiet
        self.color = wants_color(sys.stderr, color)

    def paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.color else text

    def say(self, text: str) -> None:
        with suppress(OSError, ValueError):  # nobody listens: the exit status still speaks
            print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """What had to be found out; silent with --quiet."""
        if not self.quiet and self.form == "full":
            self.say(self.paint(printable(text), "2"))

    def warning(self, text: str) -> None:
        """A warning of a result, "code: sentence"."""
        code, _, message = text.partition(": ")
        if self.form == "json":
            self.say(json.dumps({"type": "warning", "code": code, "message": message}, ensure_ascii=False))
        else:
            self.say(f"{self.paint(f'warning[{code}]', '33;1')}: {printable(message)}")

    def error(self, error: AttnError) -> None:
        """An error in the form of DESIGN §5."""
        if self.form == "json":
            self.say(json.dumps(error.record(), ensure_ascii=False))
            return
        if self.form == "concise":
            where = f"{printable(str(error.place))}: " if str(error.place) else ""
            self.say(f"{where}{error.code} {printable(error.message)}")
            return
        self.say(f"{self.paint(f'error[{error.code}]', '31;1')}: {printable(error.message)}")
        place = error.place
        margin = " " * len(str(max((n for n, _ in place.lines), default=1)))
        if str(place) and (place.file or place.path):
            self.say(f"{margin}{self.paint('-->', '34;1')} {printable(str(place))}")
        if place.lines:
            self.say(f"{margin} {self.paint('|', '34;1')}")
            for number, text in place.lines:
                self._source(number, text, margin, error)
            self.say(f"{margin} {self.paint('|', '34;1')}")
        if error.help:
            self.say(f"{margin} {self.paint('=', '34;1')} help: {printable(error.help)}")

    def _source(self, number: int, text: str, margin: str, error: AttnError) -> None:
        place = error.place
        column = (place.column or 1) - 1
        start = max(0, column - 60) if number == place.line and len(text) > 100 else 0
        shown = text[start : start + 100]
        bar = self.paint("|", "34;1")
        self.say(f"{number:>{len(margin)}} {bar} {printable(shown)}")
        if number == place.line and place.column:
            before = len(printable(text[start:column]))
            width = max(1, min(place.width, 100 - before))
            self.say(
                f"{margin} {bar} {' ' * before}{self.paint('^' * width, '31;1')}{' ' + printable(place.label) if place.label else ''}"
            )
