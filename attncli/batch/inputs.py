"""Files, folders, globs, lists and addresses → inputs in order, each with the name of its result; and their bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from attncli.errors import AttnError, CannotError, InputError, OptionError, as_input
from attncli.readers import Reader, format_of, formats, opened

RESERVED = ("manifest.ndjson", "failed.txt")  # what a batch leaves beside its results


@dataclass(frozen=True)
class Input:
    """One input: a file or an address, and where its result goes."""

    path: str  # as it was named
    result: str  # below the folder of results: x/y.json
    stream: bool = False  # JSON lines: a problem a line

    @property
    def shown(self) -> str:
        """Its name where it is said or kept: an address without the password it may hold."""
        return re.sub(r"(?<=://)[^/@]*@", "", self.path)


@dataclass(frozen=True)
class Found:
    """A file that some word stands for, and its name below what the word named."""

    path: str
    below: str


def gather(
    words: Iterable[str], *, suffix: str, into: Path | None = None, keep_suffix: bool = False, format: str | None = None
) -> tuple[list[Input], int]:
    """Every input once, in the order of the words, and how many files of folders are in no format we read.

    Args:
        words: files, folders, globs, addresses, and @lists of them.
        suffix: of a result.
        into: the folder of results, which is no input even where it lies in one.
        keep_suffix: the result of x.csv is x.csv.json.
        format: what the suffixes do not say.

    Raises:
        InputError: there is no input.
        OptionError: two would write the same result, or one would write over an input.
    """
    known = {suffix for reader in formats().values() for suffix in reader.suffixes}
    found: dict[str, Found] = {}
    left_out = 0
    for word in words:
        for one, named in _all(word, into):
            if not named and format is None and _suffix(one.path) not in known:
                left_out += 1
                continue
            found.setdefault(one.path if _remote(one.path) else os.path.abspath(one.path), one)
    inputs = [_input(one, suffix, keep_suffix, format) for one in found.values()]
    if not any(_remote(one.path) or Path(one.path).exists() for one in inputs):
        what = f"there is no file {inputs[0].shown}" if inputs else "nothing that was named holds a file we read"
        raise InputError(
            "no-such-file" if inputs else "no-inputs", what, help="name files, folders, globs or @list.txt"
        )
    if into is not None:
        _check_names(inputs, into)
    return inputs, left_out


def _input(one: Found, suffix: str, keep_suffix: bool, format: str | None) -> Input:
    try:
        stream = reader_of(one.path, format).stream
    except AttnError:
        stream = False  # it is refused when its turn comes
    name = one.below if keep_suffix else str(PurePosixPath(one.below).with_suffix(""))
    return Input(one.path, name + (".ndjson" if stream else suffix), stream)


def _check_names(inputs: list[Input], into: Path) -> None:
    """No result would stand where another does, where an input does, or where the manifest does."""
    taken: dict[str, Input] = {}
    sources = {os.path.abspath(one.path): one for one in inputs if not _remote(one.path)}
    for one in inputs:
        if one.result in RESERVED:
            way = "--keep-suffix, or another name"
            raise OptionError("name-clash", f"the result of {one.shown} would be called {one.result}", help=way)
        if (other := taken.setdefault(one.result, one)) is not one:
            told = PurePosixPath(one.path).suffix != PurePosixPath(other.path).suffix
            way = "--keep-suffix tells them apart" if told else "name a folder above both: names go on below it"
            message = f"the results of {other.shown} and {one.shown} would both be called {one.result}"
            raise OptionError("name-clash", message, help=way)
        if source := sources.get(os.path.abspath(into / one.result)):
            message = f"the result of {one.shown} would replace the input {source.shown}"
            raise OptionError("name-clash", message, help="another folder for the results: -o DIR")
    for one in inputs:
        for folder in map(str, PurePosixPath(one.result).parents):
            if folder in taken:
                message = f"the result of {taken[folder].shown} would stand where the folder of {one.result} must be"
                raise OptionError("name-clash", message, help="--keep-suffix tells them apart")


# ── words ────────────────────────────────────────────────────────────────────────────────────────
def _all(word: str, into: Path | None) -> Iterator[tuple[Found, bool]]:
    """What a word of the command line stands for, and whether each was named itself."""
    if word == "-":
        way = "attn compute - --input-format ndjson reads standard input line by line; @- reads names from it"
        raise OptionError("bad-option", "standard input is no file of a batch", help=way)
    if not word.startswith("@"):
        yield from _one(word, None, into)
        return
    for line in _listed(word[1:]):
        yield from _one(line, "" if _remote(line) or not _inside(line) else ".", into)


def _listed(path: str) -> Iterator[str]:
    """The names in a list, one a line; what follows a tab is left alone, so that failed.txt is one."""
    with opened(path) as file:
        try:
            lines = file.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise InputError("wrong-encoding", f"the list {path} is no UTF-8", help="a name a line, in UTF-8") from None
    yield from (name for line in lines if (name := line.partition("\t")[0].strip()))


def _inside(path: str) -> bool:
    return not Path(path).is_absolute() and not os.path.normpath(path).startswith("..")


def _one(word: str, root: str | None, into: Path | None) -> Iterator[tuple[Found, bool]]:
    """A file, folder, glob or address. Names are those below `root`; None: below what the word names."""
    if _remote(word):
        yield from _addressed(word, root)
    elif Path(word).is_dir():
        yield from ((Found(path, _below(path, word if root is None else root)), False) for path in _walk(word, into))
    elif has_magic(word) and not Path(word).exists():
        start = _plain(word)
        paths = sorted(path for path in glob(word, recursive=True) if not Path(path).is_dir())
        if not paths:
            raise InputError("no-such-file", f"nothing matches {word}", help="** matches folders at any depth")
        yield from ((Found(path, _below(path, start if root is None else root)), True) for path in paths)
    else:
        yield Found(word, _below(word, str(Path(word).parent) if root is None else root)), True


def _below(path: str, root: str) -> str:
    """The path of a file below a folder, with slashes; it never leads out of it."""
    if root:
        path = os.path.relpath(path, root)
    return _safe(Path(os.path.abspath(path) if not root else path).as_posix())


def _safe(path: str) -> str:
    parts = [re.sub(r"^[A-Za-z]:$", lambda m: m.group()[0], part) for part in path.split("/")]
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def _walk(folder: str, into: Path | None) -> Iterator[str]:
    """Every file below a folder in the order of its path; nothing hidden, and not the results."""
    results = None if into is None else os.path.abspath(into)
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and os.path.abspath(os.path.join(here, f)) != results
        )
        if os.path.abspath(here) != results:
            yield from (os.path.join(here, f) for f in sorted(files) if not f.startswith("."))


def _plain(pattern: str) -> str:
    """The folders of a glob before its first wild card."""
    parts = Path(pattern).parts
    wild = next(i for i, part in enumerate(parts) if has_magic(part))
    return str(Path(*parts[:wild])) if wild else "."


# ── addresses ────────────────────────────────────────────────────────────────────────────────────
def _remote(path: str) -> bool:
    return "://" in path


def _web(path: str) -> bool:
    return path.startswith(("http://", "https://"))


def _suffix(path: str) -> str:
    return PurePosixPath(urlsplit(path).path if _web(path) else path).suffix.lower()


def reader_of(path: str, said: str | None) -> Reader:
    """The reader of an input.

    Raises:
        InputError: its suffix says no format.
    """
    try:
        return format_of(urlsplit(path).path if _web(path) else path, said)
    except OptionError as error:
        raise as_input(error, file=path) from None


def _addressed(address: str, root: str | None) -> Iterator[tuple[Found, bool]]:
    """What an address names: a file, a folder or a glob of a remote file system."""
    if _web(address):
        below = urlsplit(address).path
        yield Found(address, _safe(below.rpartition("/")[2] if root is None else below) or "index"), True
        return
    system, path = _system(address)
    try:
        wild = has_magic(path) and not system.exists(path)
        folder = not wild and system.isdir(path)
        paths = sorted(system.glob(path) if wild else system.find(path) if folder else [path])
    except Exception as error:  # each file system has its own
        raise _unreadable(address, error) from None
    if wild and not paths:
        raise InputError("no-such-file", f"nothing matches {address}")
    start = _plain(path) if wild else path if folder else str(PurePosixPath(path).parent)
    start = start.strip("/") if root is None else ""
    for one in paths:
        below = one.strip("/")
        below = below[len(start) :] if below.startswith(start) else below
        yield Found(system.unstrip_protocol(one) if wild or folder else address, _safe(below)), not folder


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        CannotError: it needs a package that is not there.
        InputError: there is no such kind of address.
    """
    kind = address.partition("://")[0]
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(address)
        return system, path
    except ImportError as error:
        said = re.search(r"[Ii]nstall (?:the )?`?(\w+)", str(error))
        package = said.group(1) if said and said.group(1) != "fsspec" else str(getattr(error, "name", None) or "fsspec")
        raise CannotError(
            "missing-extra",
            f"{kind}:// addresses need a package that is not there: {error}",
            help=f"pip install {package}",
        ) from None
    except ValueError as error:
        raise InputError("cannot-read", f"{address} cannot be read: {error}") from None


def _unreadable(address: str, error: Exception) -> InputError:
    shown = Input(address, "").shown
    if isinstance(error, FileNotFoundError) or getattr(error, "code", None) == 404:
        return InputError("no-such-file", f"there is no file {shown}")
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError("cannot-read", f"{shown} cannot be read: {said}")


@contextmanager
def fetched(path: str) -> Iterator[IO[bytes]]:
    """A file or an address, open for reading.

    Raises:
        InputError: it cannot be opened.
        CannotError: it needs a package that is not there.
    """
    if not _remote(path):
        with opened(path) as file:
            yield file
        return
    try:
        if _web(path):  # the standard library reads these; a file system for them would be another package
            from urllib.request import urlopen

            file = urlopen(path, timeout=60)
        else:
            system, inside = _system(path)
            file = system.open(inside, "rb")
    except AttnError:
        raise
    except Exception as error:  # each file system has its own
        raise _unreadable(path, error) from None
    with file:
        yield file


def absolute(path: str) -> str:
    """The same file for a process that runs in another folder."""
    return path if _remote(path) else os.path.abspath(path)
