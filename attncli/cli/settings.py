"""Settings: defaults of options, from variables `ATTN_…`, from a project's file and from the user's. Entry: `load_settings`.

From the top down, each wins over those below it, setting by setting:

1. variables: `ATTN_MASK=causal`
2. the project's file: the nearest `attn.toml`, or `pyproject.toml` with a table `[tool.attn]`
3. the user's file: `$XDG_CONFIG_HOME/attn/attn.toml`, or `~/.config/attn/attn.toml`

The command line, and what the input says of itself, win over all of them. A project's file is anybody's: it can name
neither files nor addresses nor devices, and nothing in it is executed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from attncli.errors import Location, OptionError
from attncli.text import closest, quote_value, replace_undecodable, shorten, suggestion
from attncli.types import Json
from attncli.variant import CHOICES

PROJECT_FILE = "attn.toml"
_PROJECT_FILE_OF_PYTHON = "pyproject.toml"
_TABLE_OF_PYTHON = ("tool", "attn")
_PREFIX = "ATTN_"
_SWITCH = "ATTN_CONFIG"  # `none`: no settings
_MAX_BYTES = 2**18  # of a file
_MAX_KEY_DOTS = 32  # the parser takes time that grows with the cube of a key's parts
COMMANDS = ("compute", "explain", "check", "plot", "batch", "demo")  # those that have settings

VARIANT_SETTINGS = ("variant", *CHOICES)  # they change numbers, and so are recorded in results
VERDICT_SETTINGS = ("rule", "rtol", "atol")  # they change what is right
_SHOWING_SETTINGS = ("format", "only", "top", "precision", "heat", "normalize", "full", "color", "quiet", "no_progress")
_OTHER_SETTINGS = ("why", "jobs")
SETTING_NAMES = (*VARIANT_SETTINGS, *_SHOWING_SETTINGS, *VERDICT_SETTINGS, *_OTHER_SETTINGS)
SWITCHES = ("full", "quiet", "no_progress", "why")  # they are yes or no
_NOT_IN_PROJECTS = ("device",)  # what only the user may choose
_NOT_IN_COMMANDS = {  # options that a command has in order to refuse them, or that mean something else there
    "explain": ("only", "top"),
    "plot": ("format", "only", "top"),
}

_ONLY_TYPED = (  # options that belong to one command line: what is read and written, and what guards that
    *("input_format", "token_column", "columns", "drop", "header", "separator", "with", "from_state_dict"),
    *("output", "force", "at", "bare", "tidy", "standalone", "shared_js", "error_format", "debug"),
    *(
        "figures",
        "step",
        "layout",
        "identify",
        "junit",
        "matched",
        "no_reveal",
        "blank",
        "answers",
        "title",
        "seeds",
        "grad",
        "save",
        "scheduler",
    ),
    *("kind", "width", "dpi", "style", "cmap", "plot"),
    *("retry_failed", "keep_suffix", "fail_fast", "max_failures", "max_size", "max_time", "dry_run"),
)
_OTHER_WAYS = {  # options that are no settings, and what to do instead
    "causal": ("mask", "causal"),
    "window": ("mask", "window:left=2,right=0"),
    "rope": ("position", "rope"),
    "alibi": ("position", "alibi"),
    "json": ("format", "json"),
}


@dataclass(frozen=True)
class Setting:
    """The value of one option, and where it was set."""

    name: str  # as files spell it: kv_heads
    value: object  # text, a number, yes or no, or a list of texts
    origin: str  # attn.toml, ~/.config/attn/attn.toml, ATTN_MASK
    location: Location
    command: str = ""  # the one that it is for; empty: every command that has the option

    @property
    def place(self) -> str:
        """Where it was set, with the line."""
        return f"{self.origin}:{self.location.line}" if self.location.line else self.origin

    def as_text(self) -> str:
        """Return the value as it would be typed."""
        if isinstance(self.value, bool):
            return "yes" if self.value else "no"
        separator = "," if self.name in ("only", "chain") else " and "
        return separator.join(map(str, self.value)) if isinstance(self.value, list) else str(self.value)


@dataclass(frozen=True)
class Settings:
    """All settings, the weakest first, and the files that they come from."""

    settings: tuple[Setting, ...] = ()
    files: tuple[str, ...] = ()

    def for_command(self, command: str, options: Collection[str]) -> dict[str, Setting]:
        """Return the settings that hold for a command, by name.

        Args:
            command: its name.
            options: the names of its options; what is set for every command holds for those that have the option.

        Raises:
            OptionError: something is set for this command that it does not have.
        """
        known = settings_of_command(command, options)
        for one in self.settings:
            if one.command == command and one.name not in known:
                message = f"{command} has no setting called {one.name!r}"
                hint = f"attn config {command} lists those that it has"
                raise OptionError("unknown-setting", message, location=one.location, help=hint)
        held = {one.name: one for one in self.settings if one.command in ("", command)}
        return {name: one for name, one in held.items() if name in known}


def settings_of_command(command: str, options: Collection[str]) -> list[str]:
    """Return the names of the settings that a command with these options has."""
    missing = _NOT_IN_COMMANDS.get(command, ())
    return [name for name in SETTING_NAMES if name in options and name not in missing]


@dataclass(frozen=True)
class _File:
    """A file of settings."""

    path: str
    shown: str  # its path for people: relative to the working folder, or with ~
    is_project: bool = True

    @property
    def table(self) -> tuple[str, ...]:
        return _TABLE_OF_PYTHON if os.path.basename(self.path) == _PROJECT_FILE_OF_PYTHON else ()  # noqa: PTH119


def load_settings(variables: Mapping[str, str]) -> Settings:
    """Find and parse all settings.

    Args:
        variables: the environment variables of the process.

    Raises:
        OptionError: a file is no TOML, or something in it or among the variables is no setting.
    """
    if variables.get(_SWITCH):
        if variables[_SWITCH] != "none":
            message = f"{_SWITCH} can only be none, not {shorten(variables[_SWITCH])!r}"
            raise OptionError("bad-setting", message, help=f"settings are read from {PROJECT_FILE}: attn config")
        return Settings()
    settings: list[Setting] = []
    files = []
    for file in _find_files(variables):
        text = _read_file(file)
        if text is not None:
            files.append(file.path)
            settings += _parse_file(file, text)
    settings += _parse_variables(variables)
    return Settings(tuple(settings), tuple(files))


# ── files ────────────────────────────────────────────────────────────────────────────────────────
def _find_files(variables: Mapping[str, str]) -> Iterator[_File]:
    """Yield the user's file and the project's, those that there are."""
    home = os.path.realpath(variables.get("HOME") or os.sep)
    user_path = user_file_path(variables)
    if user_path and _is_file(user_path):
        relative = os.path.relpath(os.path.realpath(user_path), home)
        shown = user_path if relative.startswith(os.pardir) or home == os.sep else f"~/{relative}"
        yield _File(user_path, replace_undecodable(shown), is_project=False)
    try:
        here = os.getcwd()  # noqa: PTH109  a path that is joined to many names
    except OSError:  # it has been removed
        return
    for folder in _project_folders(here, home):
        for name in (PROJECT_FILE, _PROJECT_FILE_OF_PYTHON):
            path = os.path.join(folder, name)  # noqa: PTH118
            if path == user_path or not _is_file(path):
                continue
            if name == PROJECT_FILE or _has_table(path):
                yield _File(path, os.path.relpath(path, here))
                return


def user_file_path(variables: Mapping[str, str]) -> str:
    """Return where the user's file would be; nothing where the user has no home."""
    folder = variables.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(folder):  # noqa: PTH117
        home = variables.get("HOME", "")
        folder = os.path.join(home, ".config") if os.path.isabs(home) else ""  # noqa: PTH117, PTH118
    return os.path.join(folder, "attn", PROJECT_FILE) if folder else ""  # noqa: PTH118


def _project_folders(here: str, home: str) -> list[str]:
    """Return the folders in which a project's file may lie, the nearest first.

    They end at the root of a repository (it holds `.git`) or at the home folder. Outside of both there is the working
    folder alone: whoever may write to `/tmp` shall not choose for all that is below it.
    """
    folders, folder = [], here
    while True:
        folders.append(folder)
        if (folder == home and home != os.sep) or os.path.lexists(os.path.join(folder, ".git")):  # noqa: PTH118
            return folders
        parent = os.path.dirname(folder)  # noqa: PTH120
        if parent == folder:
            return folders[:1]
        folder = parent


def _is_file(path: str) -> bool:
    """Whether a regular file is there: a pipe would be waited for."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except (OSError, ValueError):
        return False


def _has_table(path: str) -> bool:
    """Whether a `pyproject.toml` may hold our table; it is parsed only then."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            data = file.read(_MAX_BYTES)
    except OSError:
        return False
    return (
        re.search(
            rb"(?m)^[ \t]*+(\[[ \t]*+tool[ \t]*+(\.[ \t]*+attn\b|\][ \t\r]*+(#.*)?$)|tool[ \t]*+\.[ \t]*+attn\b)", data
        )
        is not None
    )


def _read_file(file: _File) -> str | None:
    """Return the text of a file.

    Raises:
        OptionError: it cannot be read, is too large, or is not UTF-8.
    """
    location = Location(file=file.shown)
    try:
        with open(file.path, "rb") as opened:  # noqa: PTH123
            data = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        message = f"settings cannot be read: {error.strerror}"
        raise OptionError("bad-setting", message, location=location, help="--no-config goes without it") from None
    if len(data) > _MAX_BYTES:
        message = f"a file of settings may have at most {_MAX_BYTES // 1024} KiB"
        raise OptionError("bad-setting", message, location=location, help="--no-config goes without it")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise OptionError(
            "bad-setting", "TOML is UTF-8, but this file is not", location=location, help="save it as UTF-8"
        ) from None


def _parse_file(file: _File, text: str) -> Iterator[Setting]:
    """Yield the settings of a file: those for every command, then those of the tables of commands.

    Raises:
        OptionError: it is no TOML, or holds what is no setting.
    """
    import tomllib

    _check_keys_are_short(file, text)
    try:
        content: Json = tomllib.loads(text)
        for name in file.table:
            content = content.get(name, {})
    except (tomllib.TOMLDecodeError, RecursionError, ValueError, AttributeError) as error:
        raise _toml_error(file, text, error) from None
    if not isinstance(content, dict):
        raise OptionError("bad-setting", "[tool.attn] must be a table", location=Location(file=file.shown))
    for key, value in content.items():
        if not isinstance(value, dict) or key in SETTING_NAMES:
            yield _make_setting(file, text, key, value, "")
    for command, table in content.items():
        if not isinstance(table, dict):
            continue
        if command not in COMMANDS:
            location = _locate(file, text, command, "")
            hint = suggestion(command, (*COMMANDS, *SETTING_NAMES))
            raise OptionError(
                "unknown-setting",
                f"no command with settings is called {shorten(command)!r}",
                location=location,
                help=hint,
            )
        for key, value in table.items():
            yield _make_setting(file, text, key, value, command)


_STRING_OR_COMMENT = re.compile(r"""\"(?:[^"\\\n]|\\.)*+\"|'[^'\n]*+'|#[^\n]*+""")
_DOTTED_WORDS = re.compile(r"[\w\-. \t]*+")


def _check_keys_are_short(file: _File, text: str) -> None:
    """Check that no key has so many parts, between dots, that the parser of TOML would take long.

    Raises:
        OptionError: one has.
    """
    for number, line in enumerate(text.split("\n") if text.count(".") > _MAX_KEY_DOTS else (), 1):
        if line.count(".") <= _MAX_KEY_DOTS:
            continue
        if any(run.count(".") > _MAX_KEY_DOTS for run in _DOTTED_WORDS.findall(_STRING_OR_COMMENT.sub("", line))):
            location = Location(file=file.shown, line=number)
            raise OptionError(
                "bad-setting",
                f"a key of settings has at most {_MAX_KEY_DOTS} dots",
                location=location,
                help='a table is [compute], and a key of it mask = "causal"',
            )


def _toml_error(file: _File, text: str, error: Exception) -> OptionError:
    """Make the error of a file that is no TOML, with the line that its parser names."""
    message = str(error)
    place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    location = Location(file=file.shown)
    if place:
        line, column = int(place[1]), int(place[2])
        lines = text.split("\n")
        source = ((line, lines[line - 1]),) if line <= len(lines) else ()
        location = Location(file=file.shown, line=line, column=column, source_lines=source)
        message = message[: place.start()]
    first = message[:1].lower() + message[1:] if message else type(error).__name__
    hint = 'texts go in quotation marks: mask = "causal"'
    return OptionError("bad-setting", f"this is not valid TOML: {shorten(first)}", location=location, help=hint)


def _make_setting(file: _File, text: str, key: str, value: object, command: str) -> Setting:
    """Make the setting of one line of a file.

    Raises:
        OptionError: there is none of that name, it may not stand there, or its value is of no type that an option has.
    """
    location = _locate(file, text, key, command)
    name = key.replace("-", "_")
    if name not in SETTING_NAMES:
        raise _unknown_setting(key, location)
    if file.is_project and name in _NOT_IN_PROJECTS:
        hint = f"set {_PREFIX}{name.upper()}, or write it into your own file of settings"
        raise OptionError("bad-setting", f"a project cannot choose the {name}", location=location, help=hint)
    is_list = isinstance(value, list) and name in ("only", "mask", "chain") and all(isinstance(x, str) for x in value)
    if not isinstance(value, str | int | float) and not is_list:
        message = f"{name} cannot be {quote_value(value)}"
        raise OptionError("bad-setting", message, location=location, help=f'write it as for the option: {name} = "…"')
    if isinstance(value, bool) != (name in SWITCHES):
        meant = "true or false" if name in SWITCHES else "a text or a number"
        message = f"{name} must be {meant}, not {quote_value(value)}"
        raise OptionError("bad-setting", message, location=location)
    return Setting(name, value, file.shown, location, command)


def _unknown_setting(key: str, location: Location) -> OptionError:
    name = key.replace("-", "_")
    if name in _OTHER_WAYS:
        setting, value = _OTHER_WAYS[name]
        hint = f'write {setting} = "{value}"'
    elif name in _ONLY_TYPED:
        hint = f"--{name.replace('_', '-')} is given on the command line only; attn config lists all settings"
    else:
        hint = suggestion(name, SETTING_NAMES) if closest(name, SETTING_NAMES) else "attn config lists all settings"
    return OptionError("unknown-setting", f"there is no setting called {shorten(key)!r}", location=location, help=hint)


def _locate(file: _File, text: str, key: str, command: str) -> Location:
    """Find the line of a key, which the parser of TOML does not tell; for a command, that of its table."""
    wanted = ".".join((*file.table, *([command] if command else [])))
    is_named = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]")
    is_table = re.compile(rf"\s*\[+\s*{re.escape('.'.join((*file.table, key)))}\s*\]")
    table = ""
    for number, line in enumerate(text.split("\n"), 1):
        header = re.match(r"\s*\[+([^\[\]]+)\]", line)
        if header:
            table = re.sub(r"[\s\"']", "", header[1])
        if (table == wanted and is_named.match(line)) or (not command and is_table.match(line)):
            return Location(file=file.shown, line=number, source_lines=((number, line),))
    return Location(file=file.shown)


# ── variables ────────────────────────────────────────────────────────────────────────────────────
def _parse_variables(variables: Mapping[str, str]) -> Iterator[Setting]:
    """Yield the settings of variables; one that no setting is like is another program's.

    Raises:
        OptionError: a variable is a setting misspelt, or its value is not yes or no where it must be.
    """
    words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    for variable, text in variables.items():
        if not variable.startswith(_PREFIX) or variable == _SWITCH or not text:
            continue
        name = variable.removeprefix(_PREFIX).lower()
        location = Location(path=f"the variable {variable}")
        if name not in SETTING_NAMES:
            match = closest(name, (*SETTING_NAMES, "config"))
            if match is None and name not in _OTHER_WAYS:
                continue
            hint = f"did you mean {_PREFIX}{str(match).upper()}? --no-config leaves all settings out"
            if name in _OTHER_WAYS:
                setting, spelled = _OTHER_WAYS[name]
                hint = f"set {_PREFIX}{setting.upper()}={spelled}"
            raise OptionError("unknown-setting", f"the variable {variable} is not a setting", help=hint)
        value: str | bool = text
        if name in SWITCHES:
            if text.lower() not in words:
                raise OptionError(
                    "bad-setting", f"{variable} must be yes or no, not {shorten(text)!r}", location=location
                )
            value = words[text.lower()]
        yield Setting(name, value, variable, location)
