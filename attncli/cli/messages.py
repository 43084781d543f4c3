"""Messages on standard error: errors with their location, warnings and notes. `Messages` never touches standard output."""

from __future__ import annotations

import json
import traceback
from contextlib import suppress

from attncli.cli.environment import Environment
from attncli.errors import AttnError
from attncli.request import OutputOptions
from attncli.text import escape_json_controls, json_escape, printable, shorten, split_warning, to_ascii
from attncli.types import Json

_MAX_SOURCE_CHARACTERS = 100  # of a line of the input that is shown with an error
_MAX_MESSAGE_CHARACTERS = 1000  # of a sentence: it may quote an argument or a name of any length
_CONTEXT_CHARACTERS = 60  # shown before the error in a line that is longer than that


def replace_with_ascii(error: UnicodeError) -> tuple[str, int]:
    """Spell in ASCII what a console cannot show: the codec error handler `attn`."""
    assert isinstance(error, UnicodeEncodeError)
    return to_ascii(error.object[error.start : error.end]), error.end


def replace_with_json_escape(error: UnicodeError) -> tuple[str, int]:
    """Escape what a console cannot show, for JSON, where only an escape is the same text: the handler `attn.json`."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(json_escape, error.object[error.start : error.end])), error.end


def usage_sentence(error: Exception) -> str:
    """Return what Typer says of a command line, as one sentence of ours: without the words of its libraries."""
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    return text.strip().partition(" (Possible")[0].replace("Value error, ", "").rstrip(".")


def _sentence(text: str) -> str:
    """Return a sentence as it can be shown: on one line, and not endless."""
    return shorten(printable(text), _MAX_MESSAGE_CHARACTERS)


class Messages:
    """Writes to standard error, in the form that `--error-format`, `--color` and `--quiet` ask for."""

    def __init__(
        self, environment: Environment, *, error_format: str = "full", color: str = "auto", quiet: bool = False
    ) -> None:
        self.environment = environment
        self.error_format = error_format
        self.quiet = quiet
        self.color = environment.should_use_color(environment.stderr, color)

    @classmethod
    def from_options(cls, environment: Environment, output_options: OutputOptions) -> Messages:
        """Messages as the options of a command ask for them."""
        return cls(
            environment,
            error_format=output_options.error_format,
            color=output_options.color,
            quiet=output_options.quiet,
        )

    def apply_style(self, text: str, ansi_code: str) -> str:
        return f"\x1b[{ansi_code}m{text}\x1b[0m" if self.color else text

    def write(self, text: str) -> None:
        """Write one line."""
        with suppress(OSError, ValueError):  # nobody listens: the exit status still tells
            print(text, file=self.environment.stderr, flush=True)

    def write_record(self, record: Json) -> None:
        """Write one line of JSON, for programs; no character in it takes effect on a terminal."""
        self.write(escape_json_controls(json.dumps(record, ensure_ascii=False)))

    def write_traceback(self, error: BaseException) -> None:
        """Write the traceback of an error, line by line, as its message may hold whatever an input holds."""
        for part in traceback.format_exception(error):
            for line in part.splitlines():
                self.write(printable(line))

    def note(self, text: str) -> None:
        """Write what a reader or a cluster had to find out; nothing with `--quiet`."""
        if not self.quiet and self.error_format == "full":
            self.write(self.apply_style(printable(text), "2"))

    def warning(self, text: str) -> None:
        """Write a warning of a result, "code: sentence"."""
        code, message = split_warning(text)
        if self.error_format == "json":
            self.write_record({"type": "warning", "code": code, "message": message})
        else:
            self.write(f"{self.apply_style(f'warning[{code}]', '33;1')}: {_sentence(message)}")

    def error(self, error: AttnError) -> None:
        """Write an error in the form of docs/errors.md: code, sentence, location with the line of the file, way out."""
        if self.error_format == "json":
            self.write_record(error.to_record())
            return
        location = error.location
        if self.error_format == "concise":
            where = f"{_sentence(str(location))}: " if str(location) else ""
            self.write(f"{where}{error.code} {_sentence(error.message)}")
            return
        self.write(f"{self.apply_style(f'error[{error.code}]', '31;1')}: {_sentence(error.message)}")
        margin = " " * len(str(max((number for number, _ in location.source_lines), default=1)))
        if str(location) and (location.file or location.path):
            self.write(f"{margin}{self.apply_style('-->', '34;1')} {_sentence(str(location))}")
        if location.source_lines:
            self.write(f"{margin} {self.apply_style('|', '34;1')}")
            for number, text in location.source_lines:
                self._write_source_line(number, text, margin, error)
            self.write(f"{margin} {self.apply_style('|', '34;1')}")
        if error.help:
            self.write(f"{margin} {self.apply_style('=', '34;1')} help: {_sentence(error.help)}")

    def _write_source_line(self, line_number: int, text: str, margin: str, error: AttnError) -> None:
        """Write one line of the input, cut where it is long, and under it the caret if the error is in it."""
        location = error.location
        has_error = line_number == location.line
        column = (location.column or 1) - 1
        start = max(0, column - _CONTEXT_CHARACTERS) if has_error and len(text) > _MAX_SOURCE_CHARACTERS else 0
        bar = self.apply_style("|", "34;1")
        self.write(f"{line_number:>{len(margin)}} {bar} {printable(text[start : start + _MAX_SOURCE_CHARACTERS])}")
        if has_error and location.column:
            indent = len(printable(text[start:column]))
            width = max(1, min(location.caret_width, _MAX_SOURCE_CHARACTERS - indent))
            caret = self.apply_style("^" * width, "31;1")
            label = f" {printable(location.caret_label)}" if location.caret_label else ""
            self.write(f"{margin} {bar} {' ' * indent}{caret}{label}")
