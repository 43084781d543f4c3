"""Files that appear whole or not at all: `atomic_write` writes to a temporary file, and gives it its name at the end.

`refuse_link` is asked before a file is written into a folder that somebody else may have filled.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from attncli.errors import CannotError
from attncli.text import shorten


@contextmanager
def atomic_write(path: Path, display_name: str = "", *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file; when the block ends without an error, it is at the path, in place of what was there.

    Whatever ends the process meanwhile leaves nothing on a file system that has files without a name (`O_TMPFILE`: most of
    Linux); elsewhere SIGKILL leaves the temporary file, which is hidden and stands beside the path.

    Args:
        path: the file that is to appear; a device or a pipe is written to directly.
        display_name: its name in messages; empty: the path.
        durable: whether it outlives a loss of power, with its name where the folder can be synchronised. Without, only the
            death of the process leaves no half file.

    Raises:
        CannotError: the disk is full, or may not be written to.
    """
    with _open_descriptor(path, display_name, durable=durable) as descriptor:
        is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        with os.fdopen(descriptor, "wb+" if is_regular else "wb", closefd=False) as file:
            yield file


def atomic_write_bytes(
    path: Path,
    content: bytes,
    display_name: str = "",
    *,
    durable: bool = True,
    before_it_appears: Callable[[], object] = lambda: None,
) -> None:
    """Write a file as `atomic_write` does, all at once: many small ones in a third less time.

    Args:
        path: the file that is to appear.
        content: what it will hold.
        display_name: its name in messages; empty: the path.
        durable: as in `atomic_write`.
        before_it_appears: called once all is written; whatever it raises, there will be no file.

    Raises:
        CannotError: the disk is full, or may not be written to.
    """
    with _open_descriptor(path, display_name, durable=durable) as descriptor:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        before_it_appears()


@contextmanager
def _open_descriptor(path: Path, display_name: str, *, durable: bool) -> Iterator[int]:
    """Open a file as `atomic_write` does, and yield its descriptor."""
    is_special, mode = False, None
    try:
        mode = _file_mode(path)
        is_special = mode is not None and not stat.S_ISREG(mode)
        if is_special:
            descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_CLOEXEC", 0))
            try:
                yield descriptor
            finally:
                os.close(descriptor)
            return
        descriptor, temporary = _open_temporary(path)
        try:
            try:
                yield descriptor
                if durable:
                    os.fsync(descriptor)
                if mode is not None:
                    os.fchmod(descriptor, stat.S_IMODE(mode))
                if temporary is None:
                    _give_name(descriptor, path)
            finally:
                os.close(descriptor)
            if temporary is not None:
                temporary.replace(path)
            if durable:
                _sync_folder(path.parent)
        except BaseException:
            if temporary is not None:
                with suppress(OSError):
                    temporary.unlink()
            raise
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        raise write_error(error, display_name or str(path), may_remain=is_special) from error


def _open_temporary(path: Path) -> tuple[int, Path | None]:
    """Open a file for what is to appear at a path: (its descriptor, where it is until then; None: it has no name yet).

    A file without a name is gone when the process ends, however it ends. Where the file system has none, it stands beside
    the path.
    """
    flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
    nameless = getattr(os, "O_TMPFILE", 0)
    if nameless and _has_descriptors_folder():  # by which `_give_name` finds it
        with suppress(OSError):
            return os.open(path.parent, flags | nameless, 0o666), None
    temporary = _temporary_path(path)
    return os.open(temporary, flags | os.O_CREAT | os.O_EXCL, 0o666), temporary


def _temporary_path(path: Path) -> Path:
    """A hidden name beside a path that no other file has."""
    return path.parent / (temporary_prefix(path.name) + secrets.token_hex(4))


@cache
def _has_descriptors_folder() -> bool:
    return Path("/proc/self/fd").is_dir()


def _give_name(descriptor: int, path: Path) -> None:
    """Let a file without a name appear at `path`, in place of what is there: by way of another, as only renaming replaces."""
    source = f"/proc/self/fd/{descriptor}"
    # O_PATH asks for no permission to list the folder; where there is O_TMPFILE, there is O_PATH
    folder = os.open(path.parent, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
    try:  # Python follows the link in /proc only if a folder is given, too
        try:
            os.link(source, path.name, dst_dir_fd=folder, follow_symlinks=True)
        except FileExistsError:
            temporary = _temporary_path(path)
            try:
                os.link(source, temporary.name, dst_dir_fd=folder, follow_symlinks=True)
                os.replace(temporary.name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
    finally:
        os.close(folder)


def _sync_folder(folder: Path) -> None:
    """Let the names in a folder outlive a loss of power, where it may be opened and its file system can do so."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def temporary_prefix(name: str) -> str:
    """How the name of the temporary file of `name` begins; eight hexadecimal digits follow."""
    return f".{os.fsdecode(os.fsencode(name)[:200])}."


def _file_mode(path: Path) -> int | None:
    """Kind and permissions of the file at a path; None: there is none."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def write_error(error: OSError, display_name: str, *, may_remain: bool = False) -> CannotError:
    """The error to raise where the system does not let a file be written; `may_remain`: half of it may be there."""
    message = f"{display_name} cannot be written: {error.strerror or str(error)}"
    return CannotError("cannot-write", message, help="" if may_remain else "nothing was left behind")


def to_bytes(content: str | bytes | Iterable[str | bytes | memoryview]) -> bytes:
    """The content that a writer made, whole or in pieces, as the bytes of a file."""
    if isinstance(content, str):
        return content.encode("utf-8", "surrogatepass")
    if isinstance(content, bytes):
        return content
    return b"".join(piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else piece for piece in content)


def refuse_link(folder: str | os.PathLike[str], path: str) -> None:
    """Refuse to write a file below a folder where a link or a device would be written through. The folder may be a link.

    Args:
        folder: the folder that is named for results.
        path: of the file below it, with slashes.

    Raises:
        CannotError: the file, or a folder above it, is a link; or the file is neither a file nor a folder.
    """
    location, mode = os.fspath(folder), 0
    for part in path.split("/"):
        location = os.path.join(location, part)  # noqa: PTH118  a name may hold what Path would simplify
        try:
            mode = os.lstat(location).st_mode
        except (OSError, ValueError):
            return  # there is none; or it cannot be written, and whoever writes it says so
        if stat.S_ISLNK(mode):
            message = f"{shorten(location)} is a link, but results are not written through links"
            hint = "remove the link, or name another folder: -o DIR (which may itself be a link)"
            raise CannotError("link-in-results", message, help=hint)
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        message = f"{shorten(location)} is neither a file nor a folder, so no result is written to it"
        raise CannotError("link-in-results", message, help="remove it, or name another folder: -o DIR")
