"""Open and read input files and standard input, with an error that says why it cannot be done. Entries: `read_bytes`, `read_lines`, `open_input`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from attncli.errors import InputError
from attncli.text import closest, shorten

_MMAP_MIN_BYTES = 2**20  # a file of so many bytes is mapped rather than read


def read_bytes(path: str, may_map: bool = False) -> Any:
    """Return the bytes of a file, or of standard input for `-`.

    Args:
        path: the file, or `-`.
        may_map: whether a large file may be mapped into memory; the map may be written to without changing the file.

    Raises:
        InputError: it cannot be read.
    """
    with open_input(path) as file:
        try:
            if may_map and path != "-" and Path(path).is_file() and Path(path).stat().st_size >= _MMAP_MIN_BYTES:
                import mmap

                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            return file.read()
        except OSError as error:
            raise read_error(path, error) from None
        except MemoryError:
            raise InputError("cannot-read", f"{path} is larger than memory") from None


def read_lines(path: str) -> Iterator[bytes]:
    """Yield the lines of a file, or of standard input for `-`, as they come in.

    Raises:
        InputError: it cannot be read.
    """
    with open_input(path) as file:
        while True:
            try:
                line = file.readline()
            except OSError as error:
                raise read_error(path, error) from None
            if not line:
                return
            yield line


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
        file = Path(path).open("rb")  # noqa: SIM115  closed below
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise read_error(path, error, display_name) from None
    with file:
        yield file


def read_error(path: str, error: Exception, display_name: str = "") -> InputError:
    """Make the error for a file that the system does not let be read."""
    name = shorten(display_name or path)
    if isinstance(error, FileNotFoundError):
        siblings: list[str] = []
        with suppress(OSError), os.scandir(Path(path).parent) as entries:  # links are not followed: some lead nowhere
            siblings = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
        match = closest(Path(path).name, siblings)
        return InputError("no-such-file", f"there is no file {name}", help=f"did you mean {match!r}?" if match else "")
    if isinstance(error, IsADirectoryError):
        return InputError("not-a-file", f"{name} is a folder", help="name one file in it")
    return InputError("cannot-read", f"{name} cannot be read: {getattr(error, 'strerror', None) or error}")
