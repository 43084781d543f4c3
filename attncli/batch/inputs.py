"""Files, folders, globs, lists and addresses → inputs in order, each with the name of its result.

Here `os.path` is asked rather than `Path`, which raises of names that no file can have.
"""
# ruff: noqa: PTH110, PTH112, PTH113, PTH114, PTH117

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from glob import glob, has_magic
from itertools import accumulate
from pathlib import Path, PurePosixPath

from attncli.batch.manifest import SCHEMA
from attncli.batch.name_lists import listed
from attncli.batch.sources import failing, inside, remote, shown, system, web
from attncli.errors import AttnError, InputError, OptionError, as_input, brief
from attncli.readers import Reader, format_of, formats

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
        return shown(self.path)


@dataclass(frozen=True)
class Found:
    """A file that some word stands for, and its name below what the word named."""

    path: str
    below: str
    named: bool = True  # itself, or by a glob; else it was met in a folder, and its suffix decides
    listed: bool = False  # by a list


def gather(
    words: Iterable[str],
    *,
    suffix: str,
    into: Path | None = None,
    keep_suffix: bool = False,
    format: str | None = None,
    known: Mapping[str, str] | None = None,
) -> tuple[list[Input], int]:
    """Every input once, in the order of the words, and how much was left out of folders and globs.

    What is left out is in no format we read, no regular file, or a folder that cannot be read.

    Args:
        words: files, folders, globs, addresses, and @lists of them.
        suffix: of a result.
        into: the folder of results, which is no input even where it lies in one.
        keep_suffix: the result of x.csv is x.csv.json.
        format: what the suffixes do not say.
        known: results that the folder holds already, by the names of their inputs: a list that names one of those
            means that result, whatever the input was named below at the time.

    Raises:
        InputError: there is no input.
        OptionError: two would write the same result, or one would write over an input.
    """
    suffixes = {suffix for reader in formats().values() for suffix in reader.suffixes}
    search = _Search(into)
    found: dict[str, Found] = {}
    for word in words:
        for one in search.word(word):
            if not one.named and format is None and _suffix(one.path) not in suffixes:
                search.left_out += 1
                continue
            found.setdefault(one.path if remote(one.path) else os.path.abspath(one.path), one)
    inputs = [_input(one, suffix, keep_suffix, format, known or {}) for one in found.values()]
    if not any(one.listed or remote(path) or os.path.exists(path) for path, one in found.items()):
        what = f"there is no file {brief(inputs[0].shown)}" if inputs else "nothing that was named holds a file we read"
        raise InputError(
            "no-such-file" if inputs else "no-inputs", what, help="name files, folders, globs or @list.txt"
        )
    if into is not None:
        _check_names(inputs, into)
    return inputs, search.left_out


def _input(one: Found, suffix: str, keep_suffix: bool, format: str | None, known: Mapping[str, str]) -> Input:
    try:
        stream = reader_of(one.path, format).stream
    except AttnError:
        stream = False  # it is refused when its turn comes
    name = one.below if keep_suffix else str(PurePosixPath(one.below).with_suffix(""))
    if one.listed and (before := known.get(shown(one.path))):
        name = str(PurePosixPath(before).with_suffix(""))
    return Input(one.path, _possible(name) + (".ndjson" if stream else suffix), stream)


def _possible(name: str) -> str:
    """The name itself; of what no file can be called, something that one can, so that it fails by itself."""
    data = name.encode("utf-8", "surrogatepass")
    if len(data) < 3000 and all(len(part) < 256 for part in data.split(b"/")):
        return name
    return f"{name[:40].replace('/', '_')}~{hashlib.sha256(data).hexdigest()[:8]}"


def reader_of(path: str, said: str | None) -> Reader:
    """The reader of an input.

    Raises:
        InputError: its suffix says no format.
    """
    try:
        return format_of(inside(path), said)
    except OptionError as error:
        raise as_input(error, file=shown(path)) from None


def _suffix(path: str) -> str:
    return PurePosixPath(inside(path)).suffix.lower()


def _check_names(inputs: list[Input], into: Path) -> None:
    """No result would stand where another does, where an input does, or where the manifest does."""
    taken: dict[str, Input] = {}
    real = cache(_real)

    def spot(path: str) -> str:
        above, name = os.path.split(os.path.abspath(path))
        return os.path.join(real(above), name)

    sources = {spot(one.path): one for one in inputs if not remote(one.path)}
    for one in inputs:
        if one.result.partition("/")[0] in RESERVED:
            way = "--keep-suffix, or another name"
            raise OptionError("name-clash", f"the result of {one.shown} would be called {one.result}", help=way)
        if (other := taken.setdefault(one.result, one)) is not one:
            told = PurePosixPath(one.path).suffix != PurePosixPath(other.path).suffix
            way = "--keep-suffix tells them apart" if told else "name a folder above both: names go on below it"
            message = f"the results of {other.shown} and {one.shown} would both be called {one.result}"
            raise OptionError("name-clash", message, help=way)
        if source := sources.get(spot(os.path.join(into, one.result))):
            message = f"the result of {one.shown} would replace the input {source.shown}"
            raise OptionError("name-clash", message, help="another folder for the results: -o DIR")
    for one in inputs:
        for folder in map(str, PurePosixPath(one.result).parents):
            if folder in taken:
                message = f"the result of {taken[folder].shown} would stand where the folder of {one.result} must be"
                raise OptionError("name-clash", message, help="--keep-suffix tells them apart")


# ── words ────────────────────────────────────────────────────────────────────────────────────────
class _Search:
    """What words stand for.

    Folders and globs pass over the folder of results and whatever another batch wrote, unless that is what was named;
    what they leave out besides is counted.
    """

    def __init__(self, into: Path | None) -> None:
        self.left_out = 0
        self.real = cache(_real)
        self.into = None if into is None else self.real(str(into))
        self.results: Callable[[str], bool] = cache(_results)  # by real path

    def word(self, word: str) -> Iterator[Found]:
        """What a word of the command line stands for: a file, a folder, a glob, an address, or a list of names."""
        if word == "-":
            way = "attn compute - --input-format ndjson reads standard input line by line; @- reads names from it"
            raise OptionError("bad-option", "standard input is no file of a batch", help=way)
        if word.startswith("@"):
            for name in listed(word[1:]):
                yield from (replace(one, listed=True) for one in self.name(name))
        elif remote(word):
            yield from _addressed(word, None)
        elif os.path.isdir(word):
            yield from self.folder(word, word)
        elif has_magic(word) and not os.path.lexists(word):
            yield from self.matches(word)
        else:
            yield Found(word, _below(word, str(Path(word).parent)))

    def name(self, name: str) -> Iterator[Found]:
        """What a line of a list stands for: a name and no pattern. What cannot be found fails when its turn comes."""
        root = "" if remote(name) or not _inward(name) else "."
        if remote(name):
            try:
                yield from _addressed(name, "")
            except InputError:
                yield Found(name, _safe(name.partition("://")[2]))
        elif os.path.isdir(name):
            yield from self.folder(name, root)
        else:
            yield Found(_as_file(name), _below(name, root))

    def folder(self, folder: str, root: str) -> Iterator[Found]:
        """Every file below a folder, and nothing hidden."""
        if not os.access(folder, os.R_OK | os.X_OK):
            yield Found(folder, _below(folder, root))  # which says so when its turn comes
        elif self.real(folder) != self.into:
            for path in self.walk(folder):
                if self._fit(path):
                    yield Found(path, _below(path, root), named=False)

    def matches(self, pattern: str) -> Iterator[Found]:
        """Every file that a glob matches.

        Raises:
            InputError: there is none.
        """
        start = _plain(pattern)
        if "**" in (wanted := Path(pattern).parts[len(Path(start).parts) :]):  # which `glob` would follow in circles
            fitting = (path for path in self.walk(start) if _fits(Path(os.path.relpath(path, start)).parts, wanted))
            paths = [path.removeprefix("./") for path in fitting]
        else:
            paths = [path for path in glob(pattern) if not os.path.isdir(path) and not self._passed_over(path, start)]
        if not paths:
            raise InputError(
                "no-such-file", f"nothing matches {brief(pattern)}", help="** matches folders at any depth"
            )
        yield from (Found(_as_file(path), _below(path, start)) for path in sorted(paths) if self._fit(path))

    def walk(self, folder: str) -> Iterator[str]:
        """Every path below a folder, in order, but for what is hidden and what batches wrote.

        Links to folders are followed last, so that a folder that lies below this one goes by its own name.
        """
        tops, seen = deque([folder]), set[str]()
        while tops:
            for here, folders, files in os.walk(tops.popleft(), onerror=self._locked):
                real = self.real(here)
                if real in seen or (here != folder and (real == self.into or self.results(real))):
                    folders.clear()
                    continue
                seen.add(real)
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                tops.extend(path for path in (os.path.join(here, name) for name in folders) if os.path.islink(path))
                yield from (os.path.join(here, name) for name in sorted(files) if not name.startswith("."))

    def _passed_over(self, path: str, start: str) -> bool:
        """Whether a path below a folder lies in what a batch wrote there."""
        parts = Path(os.path.relpath(path, start)).parts[:-1]
        folders = [self.real(folder) for folder in accumulate(parts, os.path.join, initial=start)][1:]
        return any(folder == self.into or self.results(folder) for folder in folders)

    def _fit(self, path: str) -> bool:
        """Whether what was met is a file, or a link to one that is gone; nobody meant a pipe, which might never end."""
        folder, name = os.path.split(path)
        if name in RESERVED and self.results(self.real(folder or ".")):
            return False
        fit = os.path.isfile(path) or not os.path.exists(path)
        self.left_out += not fit
        return fit

    def _locked(self, error: OSError) -> None:
        self.left_out += 1


def _fits(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether a path is what a glob wants; ** stands for any folders, or none."""
    if not wanted or not parts:
        return not parts and all(part == "**" for part in wanted)
    if wanted[0] == "**":
        return _fits(parts, wanted[1:]) or _fits(parts[1:], wanted)
    return fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])


def _results(folder: str) -> bool:
    """Whether a batch wrote there: its manifest says so."""
    path = os.path.join(folder, "manifest.ndjson")
    try:
        if not os.path.isfile(path):
            return False
        with Path(path).open("rb") as file:
            return bool(json.loads(file.readline(1 << 20))["schema"] == SCHEMA)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _real(path: str) -> str:
    """The one path of a folder, whatever links lead there."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # nothing is called so
        return os.path.abspath(path)


def _as_file(path: str) -> str:
    return "./-" if path == "-" else path  # which is standard input elsewhere


def _inward(path: str) -> bool:
    return not os.path.isabs(path) and not os.path.normpath(path).startswith("..")


def _below(path: str, root: str) -> str:
    """The path of a file below a folder, with slashes; it never leads out of it."""
    below = os.path.relpath(path, root) if root else os.path.abspath(path)
    return _safe(Path(below).as_posix())


def _safe(path: str) -> str:
    parts = [re.sub(r"^[A-Za-z]:$", lambda m: m.group()[0], part) for part in path.split("/")]
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "index"


def _plain(pattern: str) -> str:
    """The folders of a glob before its first wild card."""
    parts = Path(pattern).parts
    wild = next(i for i, part in enumerate(parts) if has_magic(part))
    return str(Path(*parts[:wild])) if wild else "."


# ── addresses ────────────────────────────────────────────────────────────────────────────────────
def _addressed(address: str, root: str | None) -> Iterator[Found]:
    """What an address names: a file, a folder or a glob of a remote file system. Names are those below `root`; None: below what it names.

    Raises:
        InputError: nobody answers there, or nothing matches.
        CannotError: it needs a package that is not there.
    """
    if web(address):
        below = inside(address)
        below = below.rpartition("/")[2] if root is None else below
        yield Found(address, _safe(below or address.partition("://")[2].partition("/")[0].rpartition("@")[2]))
        return
    its, path = system(address)
    try:
        wild = root is None and has_magic(path) and not its.exists(path)
        folder = not wild and its.isdir(path)
        paths = sorted(its.glob(path) if wild else its.find(path) if folder else [path])
    except Exception as error:  # each file system has its own
        raise failing(address, error) from None
    if wild and not paths:
        raise InputError("no-such-file", f"nothing matches {brief(shown(address))}")
    start = _plain(path) if wild else path if folder else str(PurePosixPath(path).parent)
    start = start.strip("/") if root is None else ""
    for one in paths:
        below = one.strip("/")
        below = below[len(start) :] if below.startswith(start) else below
        yield Found(its.unstrip_protocol(one) if wild or folder else address, _safe(below), named=not folder)
