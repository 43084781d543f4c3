"""The bytes of an input, of a file or an address: all that there are, or an InputError."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import IncompleteRead
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from attncli.errors import AttnError, CannotError, InputError, shorten
from attncli.readers import open_input


# ── addresses ────────────────────────────────────────────────────────────────────────────────────
def is_address(path: str) -> bool:
    """Whether it is an address."""
    return "://" in path


def is_web_address(path: str) -> bool:
    """Whether it is an address that the standard library reads: a file system for those would be another package."""
    return path.startswith(("http://", "https://"))


def path_part(path: str) -> str:
    """A file's path; of a web address the path on its server, which is empty where the address makes no sense."""
    if not is_web_address(path):
        return path
    try:
        return urlsplit(path).path
    except ValueError:
        return ""


def without_password(path: str) -> str:
    """A name where it is said or kept: an address without the password it may hold."""
    return re.sub(r"(?<=://)[^/?#]*@", "", path)


def absolute_path(path: str) -> str:
    """The same file for a process that runs in another folder."""
    return path if is_address(path) else os.path.abspath(path)


def resolve_file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        CannotError: it needs a package that is not there.
        InputError: there is no such kind of address, or nobody answers there.
    """
    kind = address.partition("://")[0]
    try:
        import fsspec

        found, path = fsspec.core.url_to_fs(address)
        return found, path
    except ImportError as error:
        said = re.search(r"[Ii]nstall (?:the )?`?(\w+)", str(error))
        package = said.group(1) if said and said.group(1) != "fsspec" else str(getattr(error, "name", None) or "fsspec")
        raise CannotError(
            "missing-extra",
            f"{kind}:// addresses need a package that is not there: {error}",
            help=f"pip install {package}",
        ) from None
    except Exception as error:  # each file system has its own; some call their server at once
        raise unreadable_error(address, error) from None


def unreadable_error(path: str, error: Exception, display_name: str = "") -> InputError:
    """What to say where an address, or what comes from an open file, cannot be read."""
    name = shorten(display_name or without_password(path))
    if isinstance(error, FileNotFoundError) or getattr(error, "code", None) == 404:
        return InputError("no-such-file", f"there is no file {name}")
    if isinstance(error, IncompleteRead):
        return InputError("cannot-read", f"{name} cannot be read: it ends too early", help=_RETRY_HINT)
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputError("cannot-read", f"{name} cannot be read: {str(why).splitlines()[0]}")


_RETRY_HINT = "the connection was lost; the same command tries again"


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def open_source(path: str, display_name: str = "") -> Iterator[SourceReader]:
    """A file or an address, open for reading. A file may be called `-`; standard input is none.

    Args:
        path: where it is.
        display_name: what to call it in messages.

    Raises:
        InputError: it cannot be opened; or, while it is read: it cannot be read, or ends before its time.
        CannotError: it needs a package that is not there.
    """
    if not is_address(path):
        with open_input("./-" if path == "-" else path, display_name) as file:
            yield SourceReader(file, path, display_name)
        return
    try:
        if is_web_address(path):
            away = _open_web_address(path)
        else:
            its, where = resolve_file_system(path)
            away = its.open(where, "rb")
    except AttnError:
        raise
    except Exception as error:  # each file system has its own
        raise unreadable_error(path, error, display_name) from None
    with away:
        yield SourceReader(away, path, display_name)


def _open_web_address(address: str) -> Any:
    """A web address, opened. Who may read it is told to its own server, and not to where that sends us on."""
    from base64 import b64encode
    from urllib.request import Request, urlopen

    request = Request(without_password(address))
    parts = urlsplit(address)
    if parts.username is not None:
        who = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        request.add_unredirected_header("Authorization", "Basic " + b64encode(who).decode())
    return urlopen(request, timeout=60)


class SourceReader(io.BufferedReader):
    """What comes in of an open file."""

    def __init__(self, file: Any, path: str, display_name: str) -> None:
        promised = file.length if is_web_address(path) else None  # what its server says it will send, if it does
        self.total_bytes: int = promised or _file_size(file)  # 0 where nobody knows
        super().__init__(_CheckedReader(file, path, display_name, promised), 1 << 16)


class _CheckedReader(io.RawIOBase):
    """Reading that fails as an InputError, also where less comes than was promised."""

    def __init__(self, file: Any, path: str, display_name: str, promised_bytes: int | None) -> None:
        self.file, self.path, self.display_name, self.promised_bytes = file, path, display_name, promised_bytes
        self.bytes_read = 0
        self.read_available = getattr(file, "read1", file.read)  # what there is, rather than wait for more

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
    with suppress(OSError, AttributeError):
        return os.fstat(file.fileno()).st_size
    return int(getattr(file, "size", None) or 0)
