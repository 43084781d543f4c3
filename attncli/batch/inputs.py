"""Finding the inputs of a batch: `gather_inputs` turns files, folders, globs, lists and addresses into `Input`s, in order.

`os.path` is used rather than `Path`, which raises an error for names that no file can have.
"""
# ruff: noqa: PTH110, PTH112, PTH113, PTH114, PTH117

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from glob import glob, has_magic
from itertools import accumulate
from pathlib import Path, PurePosixPath

from attncli.batch.addresses import is_address, is_web_address, path_part, without_secrets
from attncli.batch.manifest import LAYERS_SCHEMA, MANIFEST_SCHEMA
from attncli.batch.name_lists import read_name_list
from attncli.batch.result_paths import is_result_path, safe_name, valid_file_name
from attncli.batch.sources import resolve_file_system, unreadable_error
from attncli.errors import AttnError, InputError, OptionError, as_input_error
from attncli.readers import Reader, detect_reader, find_reader, is_input_name
from attncli.readers.compression import strip_packed_suffix
from attncli.text import shorten

RESERVED_FILE_NAMES = ("manifest.ndjson", "failed.txt")  # those that a batch writes beside its results


@dataclass(frozen=True)
class Input:
    """One input: a file or an address, and where its result goes."""

    path: str  # as the command line, a list or a folder names it
    result_path: str  # relative to the folder of results: x/y.json
    is_stream: bool = False  # whether it is JSON lines, a problem a line

    @property
    def display_name(self) -> str:
        """Its name for messages and manifests: an address without the secrets it may hold."""
        return without_secrets(self.path)


@dataclass(frozen=True)
class FoundFile:
    """A file that an argument stands for."""

    path: str
    relative_name: str  # below the folder that the argument names
    is_explicit: bool = True  # named itself or by a glob; False: found in a folder, where its suffix decides
    is_from_list: bool = False


def gather_inputs(
    arguments: Iterable[str],
    *,
    result_suffix: str,
    results_folder: Path | None = None,
    keep_suffix: bool = False,
    input_format: str | None = None,
    known_results: Mapping[str, str] | None = None,
) -> tuple[list[Input], int]:
    """Find every input once, in the order of the arguments, and count what is left out of folders and globs.

    What is left out is in no format we read, no regular file, or a folder that cannot be read.

    Args:
        arguments: files, folders, globs, addresses, and @lists of them.
        result_suffix: the suffix of results.
        results_folder: the folder of results, whose files are no inputs even where it lies in a folder of inputs.
        keep_suffix: whether the result of x.csv is called x.csv.json.
        input_format: the format where suffixes do not tell.
        known_results: results that the folder holds already, by the names of their inputs. An input that a list names
            keeps the result it has, in whatever way it was found then.

    Raises:
        InputError: there is no input.
        OptionError: two would write the same result, or one would write over an input.
    """
    search = _InputSearch(results_folder)
    found: dict[str, FoundFile] = {}
    for argument in arguments:
        for file in search.expand_argument(argument):
            if not file.is_explicit and input_format is None and not is_input_name(path_part(file.path)):
                search.left_out_count += 1
                continue
            found.setdefault(file.path if is_address(file.path) else os.path.abspath(file.path), file)
    inputs = [
        _make_input(file, result_suffix, keep_suffix, input_format, known_results or {}) for file in found.values()
    ]
    if not any(file.is_from_list or is_address(path) or os.path.exists(path) for path, file in found.items()):
        hint = "name files, folders, globs or @list.txt"
        if inputs:
            raise InputError("no-such-file", f"there is no file {shorten(inputs[0].display_name)}", help=hint)
        raise InputError("no-inputs", "no readable input was found", help=hint)
    if results_folder is not None:
        _refuse_name_clashes(inputs, results_folder)
    return inputs, search.left_out_count


def _make_input(
    file: FoundFile, result_suffix: str, keep_suffix: bool, input_format: str | None, known_results: Mapping[str, str]
) -> Input:
    """The input that a file is, with the name of its result; arguments as those of `gather_inputs`."""
    try:
        is_stream = reader_for(file.path, input_format).is_stream
        if is_stream and not is_address(file.path):
            is_stream = detect_reader(file.path, input_format).is_stream
    except AttnError:
        is_stream = False  # it is refused when its turn comes
    name = file.relative_name
    if not keep_suffix:
        name = _without_suffix(strip_packed_suffix(name))
    known_result = known_results.get(without_secrets(file.path)) if file.is_from_list else None
    if known_result and is_result_path(known_result):
        name = _without_suffix(known_result)
    return Input(file.path, valid_file_name(name, ".ndjson" if is_stream else result_suffix), is_stream)


def _without_suffix(name: str) -> str:
    """The name of a result or an input without its suffix, if it has one."""
    folder, slash, last = name.rpartition("/")
    dot = last.rfind(".")
    return folder + slash + last[:dot] if 0 < dot < len(last) - 1 else name


def reader_for(path: str, input_format: str | None) -> Reader:
    """The reader of an input.

    Raises:
        InputError: its suffix says no format.
    """
    try:
        return find_reader(path_part(path), input_format)
    except OptionError as error:
        raise as_input_error(error, file=without_secrets(path)) from None


def _refuse_name_clashes(inputs: list[Input], results_folder: Path) -> None:
    """Refuse results that would have the name of another result, of an input, or of the manifest.

    Raises:
        OptionError: some would.
    """
    by_result: dict[str, Input] = {}
    cached_real_path = cache(real_path)

    def resolved_location(path: str) -> str:
        folder, name = os.path.split(os.path.abspath(path))
        return os.path.join(cached_real_path(folder), name)

    sources = {resolved_location(input.path): input for input in inputs if not is_address(input.path)}
    for input in inputs:
        if input.result_path.partition("/")[0] in RESERVED_FILE_NAMES:
            message = f"the result of {input.display_name} would be called {input.result_path}"
            raise OptionError("name-clash", message, help="--keep-suffix, or rename the input")
        if (other := by_result.setdefault(input.result_path, input)) is not input:
            if PurePosixPath(input.path).suffix != PurePosixPath(other.path).suffix:
                hint = "--keep-suffix tells them apart"
            else:
                hint = "give a folder above both: results keep the names below it"
            names = f"{other.display_name} and {input.display_name}"
            raise OptionError(
                "name-clash", f"the results of {names} would both be called {input.result_path}", help=hint
            )
        if source := sources.get(resolved_location(os.path.join(results_folder, input.result_path))):
            message = f"the result of {input.display_name} would replace the input {source.display_name}"
            raise OptionError("name-clash", message, help="another folder for the results: -o DIR")
    for input in inputs:
        if "/" not in input.result_path:
            continue
        for folder in map(str, PurePosixPath(input.result_path).parents):
            if other_input := by_result.get(folder):
                name = other_input.display_name
                message = f"the result of {name} would take the name of the folder for {input.result_path}"
                raise OptionError("name-clash", message, help="--keep-suffix tells them apart")


# ── files, folders and globs ─────────────────────────────────────────────────────────────────────
class _InputSearch:
    """Finds the files that arguments stand for.

    Folders and globs pass over the folder of results and over those of other batches, unless an argument names one
    itself. What is left out besides is counted.
    """

    def __init__(self, results_folder: Path | None) -> None:
        self.left_out_count = 0
        self.real_path = cache(real_path)
        self.results_folder = None if results_folder is None else self.real_path(str(results_folder))
        self.manifest_schema: Callable[[str], str] = cache(_read_manifest_schema)  # by real path

    def is_results_folder(self, folder: str) -> bool:
        """Whether a folder holds the results of a batch, by its manifest."""
        return self.manifest_schema(folder) == MANIFEST_SCHEMA

    def expand_argument(self, argument: str) -> Iterator[FoundFile]:
        """Find the files of an argument: a file, a folder, a glob, an address, or a list of names.

        Raises:
            OptionError: it is standard input.
            InputError: a list cannot be read, or nothing matches a glob.
        """
        if not argument:
            raise OptionError(
                "bad-option", "the name of an input is empty", help="name files, folders, globs or @list.txt"
            )
        if argument == "-":
            hint = "attn compute - --input-format ndjson reads standard input line by line; @- reads names from it"
            raise OptionError("bad-option", "standard input cannot be an input of a batch", help=hint)
        if argument == "@":
            raise OptionError("bad-option", "the name of a list is empty", help="@list.txt, or @- for standard input")
        if argument.startswith("@"):
            for name in read_name_list(argument[1:]):
                yield from (replace(file, is_from_list=True) for file in self.expand_list_entry(name))
        elif is_address(argument):
            yield from _find_at_address(argument, None)
        elif os.path.isdir(argument):
            yield from self.find_in_folder(argument, argument)
        elif has_magic(argument) and not os.path.lexists(argument):
            yield from self.match_glob(argument)
        else:
            yield FoundFile(argument, _name_below(argument, str(Path(argument).parent)))

    def expand_list_entry(self, name: str) -> Iterator[FoundFile]:
        """Find the files of a line of a list: it is a name, never a pattern. What does not exist fails when its turn comes."""
        root = "" if is_address(name) or not _is_inside_working_folder(name) else "."
        if is_address(name):
            try:
                yield from _find_at_address(name, "")
            except InputError:
                yield FoundFile(name, safe_name(without_secrets(name).partition("://")[2]))
        elif os.path.isdir(name):
            yield from self.find_in_folder(name, root)
        else:
            yield FoundFile(_escape_dash(name), _name_below(name, root))

    def find_in_folder(self, folder: str, root: str) -> Iterator[FoundFile]:
        """Find every file below a folder that is not hidden; their names are relative to `root`."""
        if not os.access(folder, os.R_OK | os.X_OK):
            yield FoundFile(folder, _name_below(folder, root))  # it fails when its turn comes
        elif self.real_path(folder) != self.results_folder:
            for path in self.walk_paths(folder):
                if self._accept_file(path):
                    yield FoundFile(path, _name_below(path, root), is_explicit=False)

    def match_glob(self, pattern: str) -> Iterator[FoundFile]:
        """Find every file that a glob matches.

        Raises:
            InputError: there is none.
        """
        start = _glob_root(pattern)
        pattern_parts = Path(pattern).parts[len(Path(start).parts) :]
        paths: list[str] = []
        if "**" in pattern_parts:  # `glob` would follow links in circles
            paths = [
                path.removeprefix("./")
                for path in self.walk_paths(start)
                if _matches_pattern(Path(os.path.relpath(path, start)).parts, pattern_parts)
            ]
        else:
            with suppress(ValueError):  # nothing has a name with a NUL
                paths = [
                    path for path in glob(pattern) if not os.path.isdir(path) and not self._is_in_results(path, start)
                ]
        if not paths:
            raise InputError(
                "no-such-file", f"nothing matches {shorten(pattern)}", help="** matches folders at any depth"
            )
        yield from (
            FoundFile(_escape_dash(path), _name_below(path, start)) for path in sorted(paths) if self._accept_file(path)
        )

    def walk_paths(self, folder: str) -> Iterator[str]:
        """Every path below a folder, in order, without hidden files and the results of batches.

        Links to folders are followed last, so that a folder below this one is found by its own name and not by a link.
        """
        to_walk, visited = deque([folder]), set[str]()
        while to_walk:
            for parent, folders, files in os.walk(to_walk.popleft(), onerror=self._count_unreadable):
                real = self.real_path(parent)
                holds_results = parent != folder and (real == self.results_folder or self.is_results_folder(real))
                if real in visited or holds_results:
                    folders.clear()
                    continue
                visited.add(real)
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                subfolders = (os.path.join(parent, name) for name in folders)
                to_walk.extend(path for path in subfolders if os.path.islink(path))
                yield from (os.path.join(parent, name) for name in sorted(files) if not name.startswith("."))

    def _is_in_results(self, path: str, start: str) -> bool:
        """Whether a path below a folder lies in a folder of results below it."""
        parts = Path(os.path.relpath(path, start)).parts[:-1]
        folders = [self.real_path(folder) for folder in accumulate(parts, os.path.join, initial=start)][1:]
        return any(folder == self.results_folder or self.is_results_folder(folder) for folder in folders)

    def _accept_file(self, path: str) -> bool:
        """Whether a path that was found is a file, or a link to one that is gone. A pipe is not: it might never end."""
        folder, name = os.path.split(path)
        if name in RESERVED_FILE_NAMES and self.manifest_schema(self.real_path(folder or ".")):
            return False
        is_file = os.path.isfile(path) or not os.path.exists(path)
        if not is_file:
            self.left_out_count += 1
        return is_file

    def _count_unreadable(self, error: OSError) -> None:
        self.left_out_count += 1


def _matches_pattern(parts: tuple[str, ...], pattern_parts: tuple[str, ...]) -> bool:
    """Whether the parts of a path match those of a glob; ** stands for any number of folders."""
    if not pattern_parts or not parts:
        return not parts and all(part == "**" for part in pattern_parts)
    if pattern_parts[0] == "**":
        return _matches_pattern(parts, pattern_parts[1:]) or _matches_pattern(parts[1:], pattern_parts)
    return fnmatchcase(parts[0], pattern_parts[0]) and _matches_pattern(parts[1:], pattern_parts[1:])


def _read_manifest_schema(folder: str) -> str:
    """Return the schema of the manifest of a folder, of results or of layers; empty: it has none of ours."""
    path = os.path.join(folder, "manifest.ndjson")
    try:
        if not os.path.isfile(path):
            return ""
        with Path(path).open("rb") as file:
            schema = json.loads(file.readline(1 << 20))["schema"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # whatever it holds, it is none of ours
        return ""
    return schema if schema in (MANIFEST_SCHEMA, LAYERS_SCHEMA) else ""


def real_path(path: str) -> str:
    """The path of a folder with all links resolved."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # nothing can have that name
        return os.path.abspath(path)


def _escape_dash(path: str) -> str:
    return "./-" if path == "-" else path  # `-` is standard input elsewhere


def _is_inside_working_folder(path: str) -> bool:
    return not os.path.isabs(path) and not os.path.normpath(path).startswith("..")


def _name_below(path: str, root: str) -> str:
    """The path of a file relative to a folder, with slashes; it never leads out of it."""
    relative = os.path.relpath(path, root) if root else os.path.abspath(path)
    return safe_name(Path(relative).as_posix())


def _glob_root(pattern: str) -> str:
    """The folders of a glob before its first wild card."""
    parts = Path(pattern).parts
    first_wild = next(i for i, part in enumerate(parts) if has_magic(part))
    return str(Path(*parts[:first_wild])) if first_wild else "."


# ── addresses ────────────────────────────────────────────────────────────────────────────────────
def _find_at_address(address: str, root: str | None) -> Iterator[FoundFile]:
    """Find the files of an address: a file, a folder or a glob of a remote file system.

    Args:
        address: what to find.
        root: names are relative to it, and it allows no glob; None: they are relative to what the address names.

    Raises:
        InputError: nobody answers there, or nothing matches.
        CannotError: it needs a package that is not installed.
    """
    if is_web_address(address):
        path = path_part(address)
        name = path.rpartition("/")[2] if root is None else path
        host = re.split("[/?#]", without_secrets(address).partition("://")[2])[0]
        yield FoundFile(address, safe_name(name or host))
        return
    file_system, path = resolve_file_system(address)
    paths = [path]
    try:
        is_glob = root is None and has_magic(path) and not file_system.exists(path)
        is_folder = not is_glob and file_system.isdir(path)
        if is_glob:
            paths = sorted(file_system.glob(path))
        elif is_folder:
            paths = sorted(file_system.find(path))
    except Exception as error:  # each file system has its own
        raise unreadable_error(address, error) from None
    if is_glob and not paths:
        raise InputError("no-such-file", f"nothing matches {shorten(without_secrets(address))}")
    if root is not None:
        start = ""
    elif is_glob:
        start = _glob_root(path).strip("/")
    else:
        start = (path if is_folder else str(PurePosixPath(path).parent)).strip("/")
    for found in paths:
        name = found.strip("/").removeprefix(start)
        file_address = file_system.unstrip_protocol(found) if is_glob or is_folder else address
        yield FoundFile(file_address, safe_name(name), is_explicit=not is_folder)
