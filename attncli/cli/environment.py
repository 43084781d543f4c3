"""The process around one command line, as one value: `Environment`. Tests make their own."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from attncli.errors import CannotError


def closed_output_error() -> CannotError:
    """Return the error of a command that has something to print and nowhere to print it."""
    return CannotError("cannot-write", "standard output is closed")


class _ClosedOutput(io.TextIOBase):
    """Stands for a standard output that was closed: to print there is an error, where Python's `print` would say nothing."""

    def write(self, text: str) -> int:
        """Refuse.

        Raises:
            CannotError: always.
        """
        raise closed_output_error()


@dataclass(frozen=True)
class Environment:
    """The standard streams and the environment variables that a command uses. `main` makes one and hands it on."""

    stdin: TextIO | None  # None: closed before the program began, as `<&-` does
    stdout: TextIO | None  # the same
    stderr: TextIO
    variables: Mapping[str, str] = field(default_factory=dict)
    columns: int | None = None  # the width of its terminals; None: ask them

    @classmethod
    def of_process(cls) -> Environment:
        """Make the environment of this process.

        A standard error that was closed is replaced by the null device: its file descriptor would otherwise be given to
        the next file that is opened, and messages would go there.
        """
        if sys.stderr is None:
            sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  it stays open as long as the process
        return cls(sys.stdin, sys.stdout, sys.stderr, os.environ)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let `sys` name these streams for a while: Typer prints help to `sys.stdout`, readers read `sys.stdin` for `-`."""
        before = sys.stdin, sys.stdout, sys.stderr
        sys.stdin, sys.stdout, sys.stderr = self.stdin, self.stdout or _ClosedOutput(), self.stderr
        try:
            yield
        finally:
            sys.stdin, sys.stdout, sys.stderr = before

    @property
    def stdout_is_terminal(self) -> bool:
        return self.stdout is not None and self.stdout.isatty()

    @property
    def stderr_is_terminal(self) -> bool:
        return self.stderr.isatty()

    @property
    def stdout_encoding(self) -> str:
        return getattr(self.stdout, "encoding", None) or "utf-8"

    @property
    def stdout_has_unicode(self) -> bool:
        return self.stdout_encoding.lower().startswith("utf")

    @property
    def stdout_columns(self) -> int:
        """The width of the terminal on standard output; COLUMNS is heeded."""
        return self.columns or shutil.get_terminal_size().columns

    @property
    def stderr_columns(self) -> int:
        """The width of the terminal on standard error."""
        return self.columns or os.get_terminal_size(self.stderr.fileno()).columns or 80  # some terminals do not tell

    def should_use_color(self, stream: TextIO | None, color_option: str) -> bool:
        """Whether to write colours to a stream.

        `--color` decides, then NO_COLOR (no-color.org), then FORCE_COLOR (force-color.org), then whether it is a terminal.
        """
        if color_option != "auto":
            return color_option == "always"
        if self.variables.get("NO_COLOR"):
            return False
        if self.variables.get("FORCE_COLOR"):
            return True
        return stream is not None and stream.isatty() and self.variables.get("TERM") != "dumb"
