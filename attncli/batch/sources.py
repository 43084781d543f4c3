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

from attncli.errors import AttnError, CannotError, InputError, brief
from attncli.readers import opened


# ── addresses ────────────────────────────────────────────────────────────────────────────────────
def remote(path: str) -> bool:
    """Whether it is an address."""
    return "://" in path


def web(path: str) -> bool:
    """Whether it is an address that the standard library reads: a file system for those would be another package."""
    return path.startswith(("http://", "https://"))


def inside(path: str) -> str:
    """A file's path; of a web address the path on its server, which is empty where the address makes no sense."""
    if not web(path):
        return path
    try:
        return urlsplit(path).path
    except ValueError:
        return ""


def shown(path: str) -> str:
    """A name where it is said or kept: an address without the password it may hold."""
    return re.sub(r"(?<=://)[^/?#]*@", "", path)


def absolute(path: str) -> str:
    """The same file for a process that runs in another folder."""
    return path if remote(path) else os.path.abspath(path)


def system(address: str) -> tuple[Any, str]:
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
        raise failing(address, error) from None


def failing(path: str, error: Exception, said: str = "") -> InputError:
    """What to say where an address, or what comes from an open file, cannot be read."""
    name = brief(said or shown(path))
    if isinstance(error, FileNotFoundError) or getattr(error, "code", None) == 404:
        return InputError("no-such-file", f"there is no file {name}")
    if isinstance(error, IncompleteRead):
        return InputError("cannot-read", f"{name} cannot be read: it ends too early", help=_AGAIN)
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputError("cannot-read", f"{name} cannot be read: {str(why).splitlines()[0]}")


_AGAIN = "the connection was lost; the same command tries again"


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────
@contextmanager
def fetched(path: str, said: str = "") -> Iterator[Incoming]:
    """A file or an address, open for reading. A file may be called `-`; standard input is none.

    Args:
        path: where it is.
        said: what to call it in messages.

    Raises:
        InputError: it cannot be opened; or, while it is read: it cannot be read, or ends before its time.
        CannotError: it needs a package that is not there.
    """
    if not remote(path):
        with opened("./-" if path == "-" else path, said) as file:
            yield Incoming(file, path, said)
        return
    try:
        if web(path):
            away = _called(path)
        else:
            its, where = system(path)
            away = its.open(where, "rb")
    except AttnError:
        raise
    except Exception as error:  # each file system has its own
        raise failing(path, error, said) from None
    with away:
        yield Incoming(away, path, said)


def _called(address: str) -> Any:
    """A web address, opened. Who may read it is told to its own server, and not to where that sends us on."""
    from base64 import b64encode
    from urllib.request import Request, urlopen

    request = Request(shown(address))
    parts = urlsplit(address)
    if parts.username is not None:
        who = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        request.add_unredirected_header("Authorization", "Basic " + b64encode(who).decode())
    return urlopen(request, timeout=60)


class Incoming(io.BufferedReader):
    """What comes in of an open file."""

    def __init__(self, file: Any, path: str, said: str) -> None:
        promised = file.length if web(path) else None  # what its server says it will send, if it does
        self.length: int = promised or _size(file)  # 0 where nobody knows
        super().__init__(_Watched(file, path, said, promised), 1 << 16)


class _Watched(io.RawIOBase):
    """Reading that fails as an InputError, also where less comes than was promised."""

    def __init__(self, file: Any, path: str, said: str, promised: int | None) -> None:
        self.file, self.path, self.said, self.promised = file, path, said, promised
        self.come = 0
        self.piece = getattr(file, "read1", file.read)  # what there is, rather than wait for more

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._watching():
            data = self.piece(len(buffer))
            buffer[: len(data)] = data
            self._count(data)
        return len(data)

    def readall(self) -> bytes:
        with self._watching():
            data: bytes = self.file.read()
            self._count(data)
            if data:
                self._count(b"")
        return data

    def _count(self, data: bytes) -> None:
        self.come += len(data)
        if not data and self.promised is not None and self.come < self.promised:
            raise IncompleteRead(b"", self.promised - self.come)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            name = brief(self.said or shown(self.path))
            raise InputError("cannot-read", f"{name} is larger than memory") from None
        except Exception as error:  # each file system has its own
            raise failing(self.path, error, self.said) from None


def _size(file: IO[bytes]) -> int:
    with suppress(OSError, AttributeError):
        return os.fstat(file.fileno()).st_size
    return int(getattr(file, "size", None) or 0)
