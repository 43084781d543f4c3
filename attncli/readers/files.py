"""Open and read input files and standard input, with an error that says why it cannot be done. Entries: `read_bytes`, `read_into_memory`, `open_input`."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from attncli.errors import CannotError, InputError
from attncli.text import closest, shorten

Data = TypeVar("Data", bound=bytes | bytearray | memoryview)
_LARGE_FILE_BYTES = 2**26  # the size from which a file is held against the memory that is free


def read_bytes(path: str) -> bytes:
    """Return the bytes of a file, or of standard input for `-`.

    Raises:
        InputError: it cannot be read, or it has changed while it was read.
        CannotError: it is larger than the memory that is free.
    """
    return bytes(_read_whole(path, lambda file, size: file.read()))


def read_into_memory(path: str) -> memoryview:
    """Return the bytes of a file, or of standard input for `-`, in memory that arrays may share and write to.

    A large file is not mapped: the process would be killed where someone cuts the file short, and numbers would change
    midway where someone writes to it.

    Raises:
        InputError, CannotError: as `read_bytes`.
    """
    import numpy  # noqa: F401  # here, where what it raises is no error of the file

    return memoryview(_read_whole(path, _fill_buffer))


def _fill_buffer(file: IO[bytes], size: int) -> memoryview | bytearray:
    """Read a file of a known size into a buffer; one whose size is not known, or that has more, as bytes."""
    import numpy as np

    buffer = memoryview(np.empty(size, np.uint8).data)
    filled = 0
    while filled < size:
        count = file.readinto(buffer[filled:])  # type: ignore[attr-defined]  # every binary file has it
        if not count:
            return buffer[:filled]
        filled += count
    rest = file.read()
    return bytearray(bytes(buffer) + rest) if rest else buffer


def _read_whole(path: str, read: Callable[[IO[bytes], int], Data]) -> Data:
    """Read a file from start to end with a function of the file and its size; the size of what is no file is 0."""
    with open_input(path) as file:
        try:
            before = _file_version(file)
            if before is not None:
                check_free_memory(before.size, path)
            data = read(file, 0 if before is None else before.size)
            is_whole = before is None or path == "-" or not before.size or len(data) == before.size  # /proc says 0
            if before != _file_version(file) or not is_whole:
                raise InputError(
                    "cannot-read",
                    f"{shorten(path)} has changed while it was read",
                    help="wait until whatever writes it has finished, or give a copy of it",
                )
        except OSError as error:
            raise read_error(path, error) from None
        except MemoryError:
            raise _too_large_error(path) from None
    return data


class _FileVersion(NamedTuple):
    """What differs between two versions of one file."""

    size: int  # in bytes
    modified: int  # in nanoseconds


def _file_version(file: IO[bytes]) -> _FileVersion | None:
    """Return the version of a file that is open; None of pipes, devices and the like."""
    try:
        status = os.fstat(file.fileno())
    except (OSError, AttributeError):
        return None
    return _FileVersion(status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def check_free_memory(size: int, path: str) -> None:
    """Check that so many bytes, where they are many, fit in the memory that is free.

    Raises:
        CannotError: they do not.
    """
    from attncli.plan.memory import available_memory_bytes

    available = available_memory_bytes() if size >= _LARGE_FILE_BYTES else None
    if available is not None and size > available:
        raise _too_large_error(path, f": {size / 2**30:,.1f} GiB, but only {available / 2**30:,.1f} GiB are free")


def _too_large_error(path: str, sizes: str = "") -> CannotError:
    return CannotError(
        "out-of-memory",
        f"{shorten(path)} is larger than memory{sizes}",
        help="split it, or read it where there is more memory",
    )


@contextmanager
def open_input(path: str, display_name: str = "") -> Iterator[IO[bytes]]:
    """Open a file for reading, or standard input for `-`.

    Args:
        path: the file, or `-`.
        display_name: what to call it in messages, in place of the path.

    Raises:
        InputError: it cannot be opened.
    """
    if path == "-":
        if sys.stdin is None:
            raise InputError("cannot-read", "standard input is closed")
        yield sys.stdin.buffer
        return
    try:
        file = open(path or os.curdir, "rb")  # noqa: PTH123, SIM115  closed below; a Path takes its time to be made
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise read_error(path, error, display_name) from None
    with file:
        yield file


def _closest_file(name: str, siblings: Sequence[str]) -> str | None:
    """Return the file that a misspelt name is like: by what stands before the suffix, or in the suffix alone."""
    stem, suffix = Path(name).stem, Path(name).suffix
    paths = [Path(sibling) for sibling in sorted(siblings)]
    others = {path.stem: path.name for path in paths if path.suffix.lower() == suffix.lower()}
    match = next((path.name for path in paths if path.stem == stem), None)
    return match or others.get(closest(stem, others) or "")


def read_error(path: str, error: Exception, display_name: str = "") -> InputError:
    """Make the error for a file that the system does not let be read."""
    name = shorten(display_name or path)
    if isinstance(error, FileNotFoundError):
        if re.match(r"[a-z][a-z0-9+.-]+://", path):
            hint = "download it first; only files of this computer are read"
            return InputError("no-such-file", f"{name} is an address, not a file", help=hint)
        siblings: list[str] = []
        with suppress(OSError), os.scandir(Path(path).parent) as entries:  # links are not followed: some lead nowhere
            siblings = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
        match = _closest_file(Path(path).name, siblings)
        hint = f"did you mean {match!r}?" if match else "check the path, which counts from the current folder"
        if not match and (folder := Path(path).parent) and not folder.is_dir():
            hint = f"there is no folder {shorten(str(folder))} either: check the path"
        return InputError("no-such-file", f"there is no file {name}", help=hint)
    if isinstance(error, IsADirectoryError):
        return InputError("not-a-file", f"{name} is a folder", help="name one file in it")
    return InputError("cannot-read", f"{name} cannot be read: {getattr(error, 'strerror', None) or error}")
