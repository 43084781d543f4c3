"""Tell that a package of others does not load, from whatever was raised over it: `package_error`."""

from __future__ import annotations

from pathlib import Path
from types import FrameType, TracebackType

from attncli.errors import CannotError
from attncli.text import printable, shorten

INSTALLATION_CODES = ("cannot-load", "torch-missing")  # of errors that every other input would meet, too
_OWN_FOLDER = str(Path(__file__).parent)
_OWN_NAME = __name__.partition(".")[0]
_MAX_CHARACTERS = 200  # of what the package says


def package_error(error: BaseException) -> CannotError | None:
    """Return the error to report where a package that attn imports is missing or damaged; None: it is about something else.

    A missing package raises ImportError. A damaged one may raise anything while its modules are run, such as OSError for a library
    of the system.
    """
    package = _package_of(error)
    if not package:
        return None
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        message = f"attn needs the package {package}, which is not installed"
        return CannotError("cannot-load", message, help=f"python -m pip install {package}")
    message = f"the package {package} does not load: {first_line_of(error)}"
    option = (
        "" if isinstance(error, ModuleNotFoundError) else "--force-reinstall "
    )  # a package that this one needs is missing
    return CannotError("cannot-load", message, help=f"python -m pip install {option}{package}")


def first_line_of(error: BaseException) -> str:
    """Return the first line of what an exception says, in which libraries have left no blank ones; or its kind, if it says nothing."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return shorten(line, _MAX_CHARACTERS) or type(error).__name__


def _package_of(error: BaseException) -> str:
    """Return the package that was being imported when something was raised; empty: none, or attn itself."""
    frames = _foreign_frames(error.__traceback__)  # Python leaves its own frames of an import out of the traceback
    modules = [
        frame for frame in frames if frame.f_code.co_name == "<module>"
    ]  # these were being run for the first time
    if not modules and not isinstance(error, ImportError):
        return ""
    names = [frame.f_globals.get("__name__") for frame in (*modules, *frames)]
    name = str(names[0] if names else getattr(error, "name", None) or "")
    package = name.partition(".")[0]
    return printable(package) if package != _OWN_NAME else ""


def _foreign_frames(trace: TracebackType | None) -> list[FrameType]:
    """Return the frames that attn's last one called; none: the error was raised in attn's own."""
    frames: list[FrameType] = []
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
            frames.clear()
        else:
            frames.append(trace.tb_frame)
        trace = trace.tb_next
    return frames
