"""Opening inputs, files and addresses: `open_source` gives all bytes that there are, or raises an InputError."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import IncompleteRead
from typing import IO, Any, TypeAlias
from urllib.parse import unquote, urlsplit

from attncli.errors import AttnError, CannotError, InputError
from attncli.readers import open_input
from attncli.text import shorten

_RETRY_HINT = "the connection was lost; the same command tries again"
_BUFFER_BYTES = 1 << 16
FileSystem: TypeAlias = Any  # of fsspec, which has no types


# ── addresses ────────────────────────────────────────────────────────────────────────────────────
def is_address(path: str) -> bool:
    """Whether an input is named by an address, such as `s3://…`."""
    return "://" in path


def is_web_address(path: str) -> bool:
    """Whether it is an address of the web: the standard library reads those, and fsspec would need a further package."""
    return path.startswith(("http://", "https://"))


def path_part(path: str) -> str:
    """The path of a file; of a web address the path on its server, which is empty where the address makes no sense."""
    if not is_web_address(path):
        return path
    try:
        return urlsplit(path).path
    except ValueError:
        return ""


def without_password(path: str) -> str:
    """An input's name for messages and manifests: an address without the password it may hold."""
    return re.sub(r"(?<=://)[^/?#]*@", "", path)


def absolute_path(path: str) -> str:
    """The path for a process that runs in another folder; an address is the same everywhere."""
    return path if is_address(path) else os.path.abspath(path)


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
            f"{kind}:// addresses need a package that is not there: {error}",
            help=f"pip install {package}",
        ) from None
    except Exception as error:  # each file system has its own; some call their server at once
        raise unreadable_error(address, error) from None


def unreadable_error(path: str, error: Exception, display_name: str = "") -> InputError:
    """The error to raise where an input cannot be opened, or cannot be read to its end."""
    name = shorten(display_name or without_password(path))
    if isinstance(error, FileNotFoundError) or getattr(error, "code", None) == 404:
        return InputError("no-such-file", f"there is no file {name}")
    if isinstance(error, IncompleteRead):
        return InputError("cannot-read", f"{name} cannot be read: it ends too early", help=_RETRY_HINT)
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputError("cannot-read", f"{name} cannot be read: {str(why).splitlines()[0]}")


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def open_source(path: str, display_name: str = "") -> Iterator[SourceReader]:
    """Open a file or an address for reading. `-` is a file of that name, not standard input.

    Args:
        path: the file or the address.
        display_name: its name in messages; empty: the path itself, without a password.

    Raises:
        InputError: it cannot be opened; or, while it is read: it cannot be read, or ends too early.
        CannotError: it needs a package that is not installed.
    """
    if not is_address(path):
        with open_input("./-" if path == "-" else path, display_name) as file:
            yield SourceReader(file, path, display_name)
        return
    try:
        if is_web_address(path):
            remote_file = _open_web_address(path)
        else:
            file_system, path_there = resolve_file_system(path)
            remote_file = file_system.open(path_there, "rb")
    except AttnError:
        raise
    except Exception as error:  # each file system has its own
        raise unreadable_error(path, error, display_name) from None
    with remote_file:
        yield SourceReader(remote_file, path, display_name)


def _open_web_address(address: str) -> IO[bytes]:
    """Open a web address. User and password are sent to its own server, and not to one that it redirects to."""
    from base64 import b64encode
    from urllib.request import Request, urlopen

    request = Request(without_password(address))
    parts = urlsplit(address)
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        request.add_unredirected_header("Authorization", "Basic " + b64encode(credentials).decode())
    response: IO[bytes] = urlopen(request, timeout=60)
    return response


class SourceReader(io.BufferedReader):
    """A buffered reader of an open input, whose errors are InputErrors."""

    def __init__(self, file: IO[bytes], path: str, display_name: str) -> None:
        # What the server announces, if it does.
        promised_bytes: int | None = getattr(file, "length", None) if is_web_address(path) else None
        self.total_bytes: int = promised_bytes or _file_size(file)  # 0 where nobody knows
        super().__init__(_CheckedReader(file, path, display_name, promised_bytes), _BUFFER_BYTES)


class _CheckedReader(io.RawIOBase):
    """Reads a file and raises an InputError where it cannot, or where fewer bytes come than were promised."""

    def __init__(self, file: IO[bytes], path: str, display_name: str, promised_bytes: int | None) -> None:
        self.file, self.path, self.display_name, self.promised_bytes = file, path, display_name, promised_bytes
        self.bytes_read = 0
        self.read_available = getattr(file, "read1", file.read)  # returns what there is, rather than wait for more

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._errors_translated():
            data = self.read_available(len(buffer))
            buffer[: len(data)] = data
            self._count_bytes(data)
        return len(data)

    def readall(self) -> bytes:
        with self._errors_translated():
            data: bytes = self.file.read()
            self._count_bytes(data)
            if data:
                self._count_bytes(b"")
        return data

    def _count_bytes(self, data: bytes) -> None:
        self.bytes_read += len(data)
        if not data and self.promised_bytes is not None and self.bytes_read < self.promised_bytes:
            raise IncompleteRead(b"", self.promised_bytes - self.bytes_read)

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            name = shorten(self.display_name or without_password(self.path))
            raise InputError("cannot-read", f"{name} is larger than memory") from None
        except Exception as error:  # each file system has its own
            raise unreadable_error(self.path, error, self.display_name) from None


def _file_size(file: IO[bytes]) -> int:
    """The size of an open file in bytes; 0 where nobody knows."""
    with suppress(OSError, AttributeError):
        return os.fstat(file.fileno()).st_size
    return int(getattr(file, "size", None) or 0)
