"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from attncli.errors import CannotError


@contextmanager
def atomic_write(path: Path, display_name: str = "", *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file while it is being made: beside its place, and renamed into it once all is written.

    Args:
        path: where it shall appear.
        said: what to call it in messages.
        durable: it outlives a loss of power too. Without, a process may die at any moment, but not the machine.

    Raises:
        CannotError: the disk is full, or may not be written to.
    """
    before = None
    try:
        before = _file_mode(path)
        if before is not None and not stat.S_ISREG(before):  # a device or a pipe is written to, not replaced
            with path.open("wb") as file:
                yield file
            return
        temporary = path.parent / (temporary_prefix(path.name) + secrets.token_hex(4))
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            with os.fdopen(handle, "wb+") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(handle)
                if before is not None:
                    os.fchmod(handle, stat.S_IMODE(before))
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        raise write_error(
            error, display_name or str(path), may_remain=before is not None and not stat.S_ISREG(before)
        ) from error


def temporary_prefix(name: str) -> str:
    """How the name of a file that is being made begins; eight letters or digits follow."""
    return f".{os.fsdecode(os.fsencode(name)[:200])}."


def _file_mode(path: Path) -> int | None:
    """What stands there already, and who may do what with it."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def write_error(error: OSError, display_name: str, *, may_remain: bool = False) -> CannotError:
    """What to say where the system does not let a file be written."""
    why = error.strerror or str(error)
    return CannotError(
        "cannot-write", f"{display_name} cannot be written: {why}", help="" if may_remain else "nothing was left behind"
    )


def to_bytes(content: str | bytes | Sequence[bytes | memoryview]) -> bytes:
    """What a writer made, as a file holds it."""
    if isinstance(content, str):
        return content.encode("utf-8", "surrogatepass")
    return content if isinstance(content, bytes) else b"".join(content)
