"""Reading the one input of a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attncli.cli.messages import Messages
from attncli.request import ReadOptions

if TYPE_CHECKING:
    from attncli.readers import InputFile
    from attncli.types import Problem


def file_mode(path: str) -> int:
    """Return the kind and permissions of the file at a path; 0: there is none, or it cannot be looked at."""
    try:
        return Path(path).stat().st_mode
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return 0


def read_problem(path: str | InputFile, read_options: ReadOptions, messages: Messages) -> Problem:
    """Read one problem as the options ask, and write what the reader had to find out as notes.

    Raises:
        OptionError: the format is not known, or `--with` or `--from-state-dict` is misspelt.
        InputError: the file cannot be read or makes no sense.
    """
    from attncli.readers import read

    problem = read(path, read_options.input_format, **read_options.reader_keywords)
    for note in problem.notes:
        messages.note(note)
    return problem
