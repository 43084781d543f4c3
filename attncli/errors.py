"""Define the errors that users see, each with its code, place, way out and exit status, and no traceback. Base: `AttnError`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum, unique
from typing import Self


@unique
class ExitStatus(IntEnum):
    """Exit status of the process."""

    OK = 0  # done
    NO = 1  # done, and the answer is no: figures are wrong, or a stream had a failed input
    USAGE = 2  # the command line is wrong, whatever the file holds
    INPUT = 3  # the input cannot be read, makes no sense, or does not go with the command line
    CANNOT = 4  # cannot compute or write here: torch, memory, device, disk
    BUG = 70  # a bug in attn (EX_SOFTWARE of sysexits.h)
    INTERRUPTED = 130  # 128 + SIGINT
    BROKEN_PIPE = 141  # 128 + SIGPIPE


@dataclass(frozen=True)
class Location:
    """Place of an error: a file, then either a line and column or a path inside it."""

    file: str = ""
    line: int | None = None  # counted from 1
    column: int | None = None  # counted from 1, in characters
    path: str = ""  # a JSON path or the name of an array
    source_lines: tuple[tuple[int, str], ...] = ()  # source lines worth showing, with their numbers
    caret_label: str = ""  # what stands beside the caret
    caret_width: int = 1  # how many characters the caret underlines

    def __str__(self) -> str:
        parts = [str(part) for part in (self.file or None, self.line, self.column) if part is not None]
        if not parts or not self.path:
            return ":".join(parts) + self.path
        return f"{':'.join(parts)} at {self.path}"


class AttnError(Exception):
    """Base of every error that is shown to the user: a code to look up, a sentence, a location and a way out."""

    status = ExitStatus.CANNOT

    def __init__(self, code: str, message: str, *, location: Location | None = None, help: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.location = location or Location()
        self.help = help
        self.identity: dict[str, object] = {}  # `id` and `meta` of the problem that it is about, where they are known

    def __str__(self) -> str:
        """Sentence, place and way out, each on a line of its own, as tracebacks and notebooks show them."""
        place = f"\n  --> {self.location}" if str(self.location) else ""
        return f"{self.message}{place}" + (f"\n  = help: {self.help}" if self.help else "")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.code, self.message), vars(self)  # so that it travels from a worker

    def add_location(self, *, file: str = "", line: int | None = None, path: str = "") -> Self:
        """Fill in the parts of the location that are still unknown, and return the error."""
        known = self.location
        self.location = replace(known, file=known.file or file, line=known.line or line, path=known.path or path)
        return self

    def to_record(self) -> dict[str, object]:
        """Return the error for programs: one JSON object."""
        out: dict[str, object] = {"type": "error", "code": self.code, "message": self.message}
        if self.location.file:
            out["file"] = self.location.file
        if self.location.line is not None:
            out["location"] = {"row": self.location.line, "column": self.location.column or 1}
        if self.location.path:
            out["path"] = self.location.path
        if self.help:
            out["help"] = self.help
        return out


class OptionError(AttnError):
    """Raised where an option names something that does not exist or cannot be."""

    status = ExitStatus.USAGE


class InputError(AttnError):
    """Raised where a file cannot be read, makes no sense, or does not go with the request."""

    status = ExitStatus.INPUT


class AbsentStepError(InputError, KeyError):
    """Raised where a result is asked for a step that it does not hold: `result["scores"]`."""


class UnknownAttributeError(OptionError, AttributeError):
    """Raised where an object is asked for an attribute that it does not have; Python's protocols know it as AttributeError."""


class CannotError(AttnError):
    """Raised where nothing is wrong with the request, but this machine cannot compute or write it."""

    status = ExitStatus.CANNOT


def as_input_error(error: AttnError, *, file: str = "", path: str = "") -> InputError:
    """Turn the error of an option into one of the file that holds the option, with the same sentence."""
    return InputError(error.code, error.message, location=error.location, help=error.help).add_location(
        file=file, path=path
    )


def json_path(name: str, index: tuple[int, ...] = ()) -> str:
    """Return the JSON path of a dotted name: `$.parameters.w_q[1][2]`."""
    return f"$.{name}" + "".join(f"[{i}]" for i in index)


def input_error(code: str, message: str, name: str = "", index: tuple[int, ...] = (), *, help: str = "") -> InputError:
    """Make the error of one field of a problem, or of several that do not go together."""
    return InputError(code, message, location=Location(path=json_path(name, index) if name else ""), help=help)
