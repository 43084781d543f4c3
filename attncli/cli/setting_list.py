"""List settings for `attn config`. Entries: `write_settings`, `write_files`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup

from attncli.cli.environment import Environment
from attncli.cli.messages import Messages
from attncli.cli.options import check_option_value
from attncli.cli.output import standard_output_writer
from attncli.cli.setting_values import check_setting
from attncli.cli.settings import (
    COMMANDS,
    SETTING_NAMES,
    SWITCHES,
    Setting,
    Settings,
    load_settings,
    settings_of_command,
    user_file_path,
)
from attncli.errors import OptionError
from attncli.registry import format_value
from attncli.text import escape_json_controls, printable, replace_undecodable, shorten, suggestion
from attncli.types import Json
from attncli.variant import CHOICES, DEFAULT_CHAIN

if TYPE_CHECKING:
    from typer._click.core import Command

_DEFAULTS = {"precision": "4", "heat": "auto", "color": "auto", "jobs": "1"}  # of settings that are no choices
_MAX_VALUE_CHARACTERS = 60


def write_files(environment: Environment) -> None:
    """Write the paths of the files that settings are read from, one on each line.

    Raises:
        OptionError: one of them holds what is no setting.
    """
    settings = load_settings(environment.variables)
    standard_output_writer(environment)("".join(f"{printable(file)}\n" for file in settings.files))
    if not settings.files:
        user_file = user_file_path(environment.variables)
        own = f", or {user_file} for all that you do" if user_file else ""
        Messages(environment).note(f"there is no file of settings; it can be attn.toml in this folder{own}")


def write_settings(environment: Environment, context: typer.Context, command: str, *, as_json: bool) -> None:
    """Write a table of the settings, those of one command or of all.

    Raises:
        OptionError: there is no such command, or a setting cannot be.
    """
    if command and command not in COMMANDS:
        message = f"no command with settings is called {shorten(command)!r}"
        raise OptionError("usage", message, help=suggestion(command, COMMANDS))
    settings = load_settings(environment.variables)
    _check_settings(context, settings)
    rows = _list_settings(context, settings, command)
    write = standard_output_writer(environment)
    if as_json:
        import msgspec

        record = {"files": [*map(replace_undecodable, settings.files)], "settings": rows}
        write(escape_json_controls(msgspec.json.encode(record).decode()) + "\n")
    else:
        write(_format_settings(rows))


def _commands_of_program(context: typer.Context) -> Mapping[str, Command]:
    program = context.find_root().command
    return program.commands if isinstance(program, TyperGroup) else {}


def _check_settings(context: typer.Context, settings: Settings) -> None:
    """Refuse what the commands would refuse.

    Raises:
        OptionError: a setting has a value that its option cannot have.
    """
    commands = _commands_of_program(context)
    for name in COMMANDS:
        command = commands[name]
        parameters = {str(parameter.name): parameter for parameter in command.params}
        held = settings.for_command(name, parameters)
        with typer.Context(command, info_name=name, resilient_parsing=True) as of_command:
            for setting in held.values():
                check_setting(setting, parameters[setting.name], of_command, check_option_value)


def _list_settings(context: typer.Context, settings: Settings, command: str) -> list[Json]:
    """Return a row for every setting that a command has; with no command, the rows of all, and those set for one alone."""
    commands = _commands_of_program(context)
    if command:
        options = [str(parameter.name) for parameter in commands[command].params]
        held = settings.for_command(command, options)
        return [_make_row(name, held.get(name)) for name in settings_of_command(command, options)]
    held = {one.name: one for one in settings.settings if not one.command}
    rows = [_make_row(name, held.get(name)) for name in SETTING_NAMES]
    return rows + [_make_row(one.name, one, one.command) for one in settings.settings if one.command]


def _make_row(name: str, setting: Setting | None, command: str = "") -> Json:
    if setting is None:
        return {"setting": name, "value": _default_text(name), "from": "default"}
    shown = f"{command}.{name}" if command else name
    return {"setting": shown, "value": setting.as_text(), "from": setting.place}


def _default_text(name: str) -> str | None:
    """Return the default of an option as text; None: it depends on the input, or nothing is chosen."""
    if name in SWITCHES:
        return "no"
    default = CHOICES[name].default if name in CHOICES else _DEFAULTS.get(name)
    if name == "chain":
        return ",".join(DEFAULT_CHAIN)
    return None if default is None else format_value(default)


def _format_settings(rows: list[Json]) -> str:
    cells = [("setting", "value", "from")]
    cells += [(row["setting"], row["value"] or "–", row["from"]) for row in rows]
    shown = [tuple(printable(shorten(cell, _MAX_VALUE_CHARACTERS)) for cell in row) for row in cells]
    widths = [max(len(row[i]) for row in shown) for i in range(2)]
    lines = [f"{name:<{widths[0]}}   {value:<{widths[1]}}   {origin}".rstrip() for name, value, origin in shown]
    return "\n".join((lines[0], "─" * max(map(len, lines)), *lines[1:])) + "\n"
