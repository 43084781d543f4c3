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

from attncli.batch.manifest import MANIFEST_SCHEMA
from attncli.batch.name_lists import read_name_list
from attncli.batch.sources import (
    is_address,
    is_web_address,
    path_part,
    resolve_file_system,
    unreadable_error,
    without_password,
)
from attncli.errors import AttnError, InputError, OptionError, as_input_error, shorten
from attncli.readers import Reader, find_reader, load_readers

RESERVED_FILE_NAMES = ("manifest.ndjson", "failed.txt")  # what a batch leaves beside its results


@dataclass(frozen=True)
class Input:
    """One input: a file or an address, and where its result goes."""

    path: str  # as it was named
    result_path: str  # below the folder of results: x/y.json
    is_stream: bool = False  # JSON lines: a problem a line

    @property
    def display_name(self) -> str:
        """Its name where it is said or kept: an address without the password it may hold."""
        return without_password(self.path)


@dataclass(frozen=True)
class FoundFile:
    """A file that some word stands for, and its name below what the word named."""

    path: str
    relative_name: str
    is_explicit: bool = True  # itself, or by a glob; else it was met in a folder, and its suffix decides
    is_from_list: bool = False  # by a list


def gather_inputs(
    arguments: Iterable[str],
    *,
    result_suffix: str,
    results_folder: Path | None = None,
    keep_suffix: bool = False,
    input_format: str | None = None,
    known_results: Mapping[str, str] | None = None,
) -> tuple[list[Input], int]:
    """Every input once, in the order of the arguments, and how much was left out of folders and globs.

    What is left out is in no format we read, no regular file, or a folder that cannot be read.

    Args:
        arguments: files, folders, globs, addresses, and @lists of them.
        result_suffix: of a result.
        results_folder: the folder of results, which is no input even where it lies in one.
        keep_suffix: the result of x.csv is x.csv.json.
        input_format: what the suffixes do not say.
        known_results: results that the folder holds already, by the names of their inputs: a list that names one of those
            means that result, whatever the input was named below at the time.

    Raises:
        InputError: there is no input.
        OptionError: two would write the same result, or one would write over an input.
    """
    suffixes = {suffix for reader in load_readers().values() for suffix in reader.suffixes}
    search = _InputSearch(results_folder)
    found: dict[str, FoundFile] = {}
    for word in arguments:
        for one in search.expand_argument(word):
            if not one.is_explicit and input_format is None and _lowercase_suffix(one.path) not in suffixes:
                search.left_out_count += 1
                continue
            found.setdefault(one.path if is_address(one.path) else os.path.abspath(one.path), one)
    inputs = [_make_input(one, result_suffix, keep_suffix, input_format, known_results or {}) for one in found.values()]
    if not any(one.is_from_list or is_address(path) or os.path.exists(path) for path, one in found.items()):
        what = (
            f"there is no file {shorten(inputs[0].display_name)}"
            if inputs
            else "nothing that was named holds a file we read"
        )
        raise InputError(
            "no-such-file" if inputs else "no-inputs", what, help="name files, folders, globs or @list.txt"
        )
    if results_folder is not None:
        _refuse_name_clashes(inputs, results_folder)
    return inputs, search.left_out_count


def _make_input(
    found: FoundFile, result_suffix: str, keep_suffix: bool, input_format: str | None, known_results: Mapping[str, str]
) -> Input:
    try:
        stream = reader_for(found.path, input_format).is_stream
    except AttnError:
        stream = False  # it is refused when its turn comes
    name = found.relative_name if keep_suffix else str(PurePosixPath(found.relative_name).with_suffix(""))
    if found.is_from_list and (before := known_results.get(without_password(found.path))):
        name = str(PurePosixPath(before).with_suffix(""))
    return Input(found.path, _valid_file_name(name) + (".ndjson" if stream else result_suffix), stream)


def _valid_file_name(name: str) -> str:
    """The name itself; of what no file can be called, something that one can, so that it fails by itself."""
    data = name.encode("utf-8", "surrogatepass")
    if len(data) < 3000 and all(len(part) < 256 for part in data.split(b"/")):
        return name
    return f"{name[:40].replace('/', '_')}~{hashlib.sha256(data).hexdigest()[:8]}"


def reader_for(path: str, input_format: str | None) -> Reader:
    """The reader of an input.

    Raises:
        InputError: its suffix says no format.
    """
    try:
        return find_reader(path_part(path), input_format)
    except OptionError as error:
        raise as_input_error(error, file=without_password(path)) from None


def _lowercase_suffix(path: str) -> str:
    return PurePosixPath(path_part(path)).suffix.lower()


def _refuse_name_clashes(inputs: list[Input], results_folder: Path) -> None:
    """No result would stand where another does, where an input does, or where the manifest does."""
    taken: dict[str, Input] = {}
    real = cache(_real_path)

    def resolved_location(path: str) -> str:
        above, name = os.path.split(os.path.abspath(path))
        return os.path.join(real(above), name)

    sources = {resolved_location(one.path): one for one in inputs if not is_address(one.path)}
    for one in inputs:
        if one.result_path.partition("/")[0] in RESERVED_FILE_NAMES:
            way = "--keep-suffix, or another name"
            raise OptionError(
                "name-clash", f"the result of {one.display_name} would be called {one.result_path}", help=way
            )
        if (other := taken.setdefault(one.result_path, one)) is not one:
            told = PurePosixPath(one.path).suffix != PurePosixPath(other.path).suffix
            way = "--keep-suffix tells them apart" if told else "name a folder above both: names go on below it"
            message = (
                f"the results of {other.display_name} and {one.display_name} would both be called {one.result_path}"
            )
            raise OptionError("name-clash", message, help=way)
        if source := sources.get(resolved_location(os.path.join(results_folder, one.result_path))):
            message = f"the result of {one.display_name} would replace the input {source.display_name}"
            raise OptionError("name-clash", message, help="another folder for the results: -o DIR")
    for one in inputs:
        for folder in map(str, PurePosixPath(one.result_path).parents):
            if folder in taken:
                message = f"the result of {taken[folder].display_name} would stand where the folder of {one.result_path} must be"
                raise OptionError("name-clash", message, help="--keep-suffix tells them apart")


# ── words ────────────────────────────────────────────────────────────────────────────────────────
class _InputSearch:
    """What words stand for.

    Folders and globs pass over the folder of results and whatever another batch wrote, unless that is what was named;
    what they leave out besides is counted.
    """

    def __init__(self, results_folder: Path | None) -> None:
        self.left_out_count = 0
        self.real_path = cache(_real_path)
        self.results_folder = None if results_folder is None else self.real_path(str(results_folder))
        self.is_results_folder: Callable[[str], bool] = cache(_is_results_folder)  # by real path

    def expand_argument(self, argument: str) -> Iterator[FoundFile]:
        """What a word of the command line stands for: a file, a folder, a glob, an address, or a list of names."""
        if argument == "-":
            way = "attn compute - --input-format ndjson reads standard input line by line; @- reads names from it"
            raise OptionError("bad-option", "standard input is no file of a batch", help=way)
        if argument.startswith("@"):
            for name in read_name_list(argument[1:]):
                yield from (replace(one, is_from_list=True) for one in self.expand_list_entry(name))
        elif is_address(argument):
            yield from _find_at_address(argument, None)
        elif os.path.isdir(argument):
            yield from self.find_in_folder(argument, argument)
        elif has_magic(argument) and not os.path.lexists(argument):
            yield from self.match_glob(argument)
        else:
            yield FoundFile(argument, _name_below(argument, str(Path(argument).parent)))

    def expand_list_entry(self, name: str) -> Iterator[FoundFile]:
        """What a line of a list stands for: a name and no pattern. What cannot be found fails when its turn comes."""
        root = "" if is_address(name) or not _is_inside_working_folder(name) else "."
        if is_address(name):
            try:
                yield from _find_at_address(name, "")
            except InputError:
                yield FoundFile(name, _safe_name(name.partition("://")[2]))
        elif os.path.isdir(name):
            yield from self.find_in_folder(name, root)
        else:
            yield FoundFile(_escape_dash(name), _name_below(name, root))

    def find_in_folder(self, folder: str, root: str) -> Iterator[FoundFile]:
        """Every file below a folder, and nothing hidden."""
        if not os.access(folder, os.R_OK | os.X_OK):
            yield FoundFile(folder, _name_below(folder, root))  # which says so when its turn comes
        elif self.real_path(folder) != self.results_folder:
            for path in self.walk_paths(folder):
                if self._accept_file(path):
                    yield FoundFile(path, _name_below(path, root), is_explicit=False)

    def match_glob(self, pattern: str) -> Iterator[FoundFile]:
        """Every file that a glob matches.

        Raises:
            InputError: there is none.
        """
        start = _glob_root(pattern)
        if "**" in (wanted := Path(pattern).parts[len(Path(start).parts) :]):  # which `glob` would follow in circles
            fitting = (
                path
                for path in self.walk_paths(start)
                if _matches_pattern(Path(os.path.relpath(path, start)).parts, wanted)
            )
            paths = [path.removeprefix("./") for path in fitting]
        else:
            paths = [path for path in glob(pattern) if not os.path.isdir(path) and not self._is_in_results(path, start)]
        if not paths:
            raise InputError(
                "no-such-file", f"nothing matches {shorten(pattern)}", help="** matches folders at any depth"
            )
        yield from (
            FoundFile(_escape_dash(path), _name_below(path, start)) for path in sorted(paths) if self._accept_file(path)
        )

    def walk_paths(self, folder: str) -> Iterator[str]:
        """Every path below a folder, in order, but for what is hidden and what batches wrote.

        Links to folders are followed last, so that a folder that lies below this one goes by its own name.
        """
        tops, seen = deque([folder]), set[str]()
        while tops:
            for here, folders, files in os.walk(tops.popleft(), onerror=self._count_unreadable):
                real = self.real_path(here)
                if real in seen or (here != folder and (real == self.results_folder or self.is_results_folder(real))):
                    folders.clear()
                    continue
                seen.add(real)
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                tops.extend(path for path in (os.path.join(here, name) for name in folders) if os.path.islink(path))
                yield from (os.path.join(here, name) for name in sorted(files) if not name.startswith("."))

    def _is_in_results(self, path: str, start: str) -> bool:
        """Whether a path below a folder lies in what a batch wrote there."""
        parts = Path(os.path.relpath(path, start)).parts[:-1]
        folders = [self.real_path(folder) for folder in accumulate(parts, os.path.join, initial=start)][1:]
        return any(folder == self.results_folder or self.is_results_folder(folder) for folder in folders)

    def _accept_file(self, path: str) -> bool:
        """Whether what was met is a file, or a link to one that is gone; nobody meant a pipe, which might never end."""
        folder, name = os.path.split(path)
        if name in RESERVED_FILE_NAMES and self.is_results_folder(self.real_path(folder or ".")):
            return False
        fit = os.path.isfile(path) or not os.path.exists(path)
        self.left_out_count += not fit
        return fit

    def _count_unreadable(self, error: OSError) -> None:
        self.left_out_count += 1


def _matches_pattern(parts: tuple[str, ...], pattern_parts: tuple[str, ...]) -> bool:
    """Whether a path is what a glob wants; ** stands for any folders, or none."""
    if not pattern_parts or not parts:
        return not parts and all(part == "**" for part in pattern_parts)
    if pattern_parts[0] == "**":
        return _matches_pattern(parts, pattern_parts[1:]) or _matches_pattern(parts[1:], pattern_parts)
    return fnmatchcase(parts[0], pattern_parts[0]) and _matches_pattern(parts[1:], pattern_parts[1:])


def _is_results_folder(folder: str) -> bool:
    """Whether a batch wrote there: its manifest says so."""
    path = os.path.join(folder, "manifest.ndjson")
    try:
        if not os.path.isfile(path):
            return False
        with Path(path).open("rb") as file:
            return bool(json.loads(file.readline(1 << 20))["schema"] == MANIFEST_SCHEMA)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _real_path(path: str) -> str:
    """The one path of a folder, whatever links lead there."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # nothing is called so
        return os.path.abspath(path)


def _escape_dash(path: str) -> str:
    return "./-" if path == "-" else path  # which is standard input elsewhere


def _is_inside_working_folder(path: str) -> bool:
    return not os.path.isabs(path) and not os.path.normpath(path).startswith("..")


def _name_below(path: str, root: str) -> str:
    """The path of a file below a folder, with slashes; it never leads out of it."""
    below = os.path.relpath(path, root) if root else os.path.abspath(path)
    return _safe_name(Path(below).as_posix())


def _safe_name(path: str) -> str:
    parts = [re.sub(r"^[A-Za-z]:$", lambda m: m.group()[0], part) for part in path.split("/")]
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "index"


def _glob_root(pattern: str) -> str:
    """The folders of a glob before its first wild card."""
    parts = Path(pattern).parts
    wild = next(i for i, part in enumerate(parts) if has_magic(part))
    return str(Path(*parts[:wild])) if wild else "."


# ── addresses ────────────────────────────────────────────────────────────────────────────────────
def _find_at_address(address: str, root: str | None) -> Iterator[FoundFile]:
    """What an address names: a file, a folder or a glob of a remote file system. Names are those below `root`; None: below what it names.

    Raises:
        InputError: nobody answers there, or nothing matches.
        CannotError: it needs a package that is not there.
    """
    if is_web_address(address):
        below = path_part(address)
        below = below.rpartition("/")[2] if root is None else below
        yield FoundFile(address, _safe_name(below or address.partition("://")[2].partition("/")[0].rpartition("@")[2]))
        return
    its, path = resolve_file_system(address)
    try:
        wild = root is None and has_magic(path) and not its.exists(path)
        folder = not wild and its.isdir(path)
        paths = sorted(its.glob(path) if wild else its.find(path) if folder else [path])
    except Exception as error:  # each file system has its own
        raise unreadable_error(address, error) from None
    if wild and not paths:
        raise InputError("no-such-file", f"nothing matches {shorten(without_password(address))}")
    start = _glob_root(path) if wild else path if folder else str(PurePosixPath(path).parent)
    start = start.strip("/") if root is None else ""
    for one in paths:
        below = one.strip("/")
        below = below[len(start) :] if below.startswith(start) else below
        yield FoundFile(
            its.unstrip_protocol(one) if wild or folder else address, _safe_name(below), is_explicit=not folder
        )
