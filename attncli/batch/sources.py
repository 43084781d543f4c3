"""Opening inputs, files and addresses: `open_source` gives all bytes that there are, or raises an InputError."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from http.client import IncompleteRead
from typing import IO, Any, TypeAlias

from attncli.batch.address_limits import AddressLimits, TransferGuard
from attncli.batch.addresses import hide_secrets, is_address, is_web_address, lacks_secret, without_secrets
from attncli.batch.web_addresses import open_web_address
from attncli.errors import AttnError, CannotError, InputError
from attncli.readers import open_input
from attncli.text import shorten

_RETRY_HINT = "the connection was lost; run the same command to try again"
_BUFFER_BYTES = 1 << 16
_PIECE_BYTES = 1 << 20  # of an address, read at a time where all of it is wanted
FileSystem: TypeAlias = Any  # of fsspec, which has no types


# ── file systems ─────────────────────────────────────────────────────────────────────────────────
def resolve_file_system(address: str) -> tuple[FileSystem, str]:
    """The fsspec file system of an address, and the path in it.

    Raises:
        CannotError: it needs a package that is not installed.
        InputError: there is no such kind of address, or nobody answers there.
    """
    kind = address.partition("://")[0]
    try:
        import fsspec

        file_system, path = fsspec.core.url_to_fs(address)
        return file_system, path
    except ImportError as error:
        named = re.search(r"[Ii]nstall (?:the )?`?(\w+)", str(error))  # as fsspec words it
        if named and named.group(1) != "fsspec":
            package = named.group(1)
        else:
            package = str(getattr(error, "name", None) or "fsspec")
        raise CannotError(
            "missing-extra",
            f"{kind}:// addresses need a package that is not installed: {hide_secrets(str(error), address)}",
            help=f"pip install {package}",
        ) from None
    except Exception as error:  # each file system has its own; some call their server at once
        raise unreadable_error(address, error) from None


def unreadable_error(path: str, error: Exception, display_name: str = "") -> InputError:
    """The error to raise where an input cannot be opened, or cannot be read to its end."""
    name = shorten(display_name or without_secrets(path))
    if isinstance(error, FileNotFoundError) or getattr(error, "code", None) == 404:
        return InputError("no-such-file", f"there is no file {name}")
    if isinstance(error, IncompleteRead):
        return InputError("cannot-read", f"{name} cannot be read: it ends too early", help=_RETRY_HINT)
    reason = getattr(error, "reason", None)  # of what urllib raises
    cause = reason if isinstance(reason, Exception) else error
    why = str(getattr(cause, "strerror", None) or cause).strip() or type(cause).__name__
    return InputError("cannot-read", f"{name} cannot be read: {hide_secrets(why.splitlines()[0], path)}")


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def open_source(path: str, display_name: str = "", limits: AddressLimits | None = None) -> Iterator[SourceReader]:
    """Open a file or an address for reading. `-` is a file of that name, not standard input.

    Args:
        path: the file or the address.
        display_name: its name in messages; empty: the path itself, without secrets.
        limits: how much is read from an address, and for how long it is waited for.

    Raises:
        InputError: it cannot be opened; or, while it is read: it cannot be read, ends too early, or goes beyond a limit.
        CannotError: it needs a package that is not installed.
    """
    if not is_address(path):
        with open_input("./-" if path == "-" else path, display_name) as file:
            yield SourceReader(file, path, display_name, None)
        return
    name = shorten(display_name or without_secrets(path))
    if lacks_secret(path):
        message = f"{name} cannot be read: the secret that *** stands for is not stored"
        raise InputError("secret-not-kept", message, help="give the full address: its result keeps its name")
    guard = TransferGuard(name, limits or AddressLimits())
    guard.start_watching()
    try:
        try:
            with guard.waiting():
                remote_file = _open_address(path, guard)
        except AttnError:
            raise
        except Exception as error:  # each file system has its own
            raise unreadable_error(path, error, display_name) from None
        with remote_file:
            yield SourceReader(remote_file, path, display_name, guard)
    finally:
        guard.stop_watching()


def read_source(path: str, display_name: str = "", limits: AddressLimits | None = None) -> bytes:
    """Read all bytes of a file or of an address; arguments and errors are those of `open_source`."""
    if is_address(path):
        with open_source(path, display_name, limits) as source:
            return source.read()
    with open_input("./-" if path == "-" else path, display_name) as file:
        return _CheckedReader(file, path, display_name, None, None).readall()


def _open_address(address: str, guard: TransferGuard) -> IO[bytes]:
    """Open an address by the standard library, or by fsspec."""
    if is_web_address(address):
        return open_web_address(address, guard)
    file_system, path = resolve_file_system(address)
    file: IO[bytes] = file_system.open(path, "rb")
    return file


class SourceReader(io.BufferedReader):
    """A buffered reader of an open input, whose errors are InputErrors."""

    def __init__(self, file: IO[bytes], path: str, display_name: str, guard: TransferGuard | None) -> None:
        # What the server announces, if it does.
        promised_bytes: int | None = getattr(file, "length", None) if is_web_address(path) else None
        self.total_bytes: int = promised_bytes or _file_size(file)  # 0 where nobody knows
        if guard is not None:
            guard.begin_body(self.total_bytes)
        super().__init__(_CheckedReader(file, path, display_name, promised_bytes, guard), _BUFFER_BYTES)


class _CheckedReader(io.RawIOBase):
    """Reads a file and raises an InputError where it cannot, where fewer bytes come than were promised, or beyond a limit."""

    def __init__(
        self, file: IO[bytes], path: str, display_name: str, promised_bytes: int | None, guard: TransferGuard | None
    ) -> None:
        self.file, self.path, self.display_name, self.promised_bytes = file, path, display_name, promised_bytes
        self.guard = guard
        self.bytes_read = 0
        self.read_available = getattr(file, "read1", file.read)  # returns what there is, rather than wait for more

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._errors_translated():
            data = self._read_piece(len(buffer))
            buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        with self._errors_translated():
            if self.guard is None:
                data: bytes = self.file.read()
                self._count_bytes(data)
                return data
            pieces = []
            while piece := self._read_piece(_PIECE_BYTES):
                pieces.append(piece)
            return b"".join(pieces)

    def _read_piece(self, size: int) -> bytes:
        """Read so many bytes at most; none at the end."""
        with self.guard.waiting() if self.guard is not None else nullcontext():
            data: bytes = self.read_available(size)
        self._count_bytes(data)
        return data

    def _count_bytes(self, data: bytes) -> None:
        self.bytes_read += len(data)
        if self.guard is not None:
            self.guard.count_bytes(len(data))
        if not data and self.promised_bytes is not None and self.bytes_read < self.promised_bytes:
            raise IncompleteRead(b"", self.promised_bytes - self.bytes_read)

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        try:
            yield
        except AttnError:
            raise
        except MemoryError:
            name = shorten(self.display_name or without_secrets(self.path))
            raise InputError("cannot-read", f"{name} is larger than the memory") from None
        except Exception as error:  # each file system has its own
            raise unreadable_error(self.path, error, self.display_name) from None


def _file_size(file: IO[bytes]) -> int:
    """The size of an open file in bytes; 0 where nobody knows."""
    with suppress(OSError, AttributeError):
        return os.fstat(file.fileno()).st_size
    return int(getattr(file, "size", None) or 0)
