"""Give settings to a command: check each as its option is checked, and let it hold where the command line says nothing.

`attncli.cli.options` imports this only where a command may have settings; `settings` finds and parses them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

import typer

from attncli.cli.environment import Environment
from attncli.cli.messages import Messages, usage_sentence
from attncli.cli.settings import SWITCHES, VARIANT_SETTINGS, VERDICT_SETTINGS, Setting, load_settings
from attncli.errors import AttnError, ExitStatus, OptionError
from attncli.output_formats import FORMAT_MODULES
from attncli.request import VariantRequest
from attncli.text import join_names, shorten

if TYPE_CHECKING:
    from typer._click.core import Context, Parameter

Values: TypeAlias = dict[str, Any]  # of options, by the names of their parameters
CheckValue: TypeAlias = Callable[[str, object], None]  # (name of an option, its value); raises OptionError


def apply_settings(
    context: typer.Context, values: Values, check_value: CheckValue
) -> tuple[Mapping[str, Setting], Values]:
    """Find the settings that hold for a command, where the command line has not chosen otherwise.

    Args:
        context: of the command.
        values: as the command line gives them, or by default.
        check_value: refuses a value that an option cannot have.

    Returns:
        The settings by name, and the values with those that choose no variant in them.

    Raises:
        OptionError: a setting does not exist or cannot be.
    """
    environment: Environment = context.obj
    settings = load_settings(environment.variables)
    if not settings.settings:
        return {}, values
    parameters = {str(parameter.name): parameter for parameter in context.command.params}
    chosen = settings.for_command(str(context.info_name), parameters)
    checked = {name: check_setting(one, parameters[name], context, check_value) for name, one in chosen.items()}
    held = {name: one for name, one in chosen.items() if not _is_typed(context, name)}
    for name in _overruled_settings(context, values):
        held.pop(name, None)
    return held, values | {name: checked[name] for name in held if name not in VARIANT_SETTINGS}


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _overruled_settings(context: typer.Context, values: Values) -> Iterator[str]:
    """Yield the settings that give way to another option of the command line: a rule to a tolerance, and so on."""
    if _has_format(values):
        yield "format"
    if _is_typed(context, "rule") and values["rule"] != "close":
        yield from ("rtol", "atol")
    if _is_typed(context, "rtol") or _is_typed(context, "atol"):
        yield "rule"


def _has_format(values: Values) -> bool:
    """Whether the command line chooses the format, if not by `--format`: by `--json`, or by the suffix of its output."""
    suffix = PurePath(str(values["output"] or "")).suffix.lower()
    return bool(values.get("json")) or any(suffix in suffixes for suffixes, _ in FORMAT_MODULES.values() if suffix)


def check_setting(setting: Setting, parameter: Parameter, context: Context, check_value: CheckValue) -> object:
    """Return the value of a setting as the command line would give it.

    Args:
        setting: what was set.
        parameter: the option.
        context: of a command that has it.
        check_value: refuses a value that an option cannot have.

    Raises:
        OptionError: the option cannot have that value; with the place where it was set.
    """
    try:
        value: object = setting.value
        if parameter.multiple:
            value = value if isinstance(value, list) else [str(value)]
        elif setting.name not in SWITCHES:
            value = setting.as_text()
        value = parameter.process_value(context, value)
        check_value(setting.name, value)
        return value
    except typer.TyperException as error:
        raise OptionError("usage", usage_sentence(error), location=setting.location) from None
    except AttnError as error:
        raise _add_location(error, setting) from None


def _add_location(error: AttnError, setting: Setting) -> AttnError:
    """Add to an error where the setting was made that it is about; one that has a place of its own keeps it."""
    place = error.location
    if not (place.file or place.path or place.line):
        error.location = setting.location
    elif setting.place not in f"{place} {error.help}":
        hint = f"{setting.place} sets {setting.name}, and --no-config leaves settings out"
        error.help = f"{error.help}; {hint}" if error.help else hint
    return error


def name_setting(error: AttnError, settings: Mapping[str, Setting]) -> None:
    """Add to an error of the command where the setting was made that its sentence speaks of, if there is one."""
    if error.status not in (ExitStatus.USAGE, ExitStatus.INPUT):
        return
    for name, setting in settings.items():
        words = [name.replace("_", "[_-]"), *map(re.escape, re.findall(r"[a-z][\w-]+", setting.as_text()))]
        if re.search(rf"\b({'|'.join(words)})\b", f"{error.code} {error.message}"):
            _add_location(error, setting)
            return


def note_settings(
    context: typer.Context, values: Values, settings: Mapping[str, Setting], request: VariantRequest
) -> None:
    """Say on standard error which settings choose what is computed, and where they were made.

    Only `--quiet` on the command line silences this: a file shall not change numbers without a word.
    """
    used = request.used_settings({})
    told = [
        f"{name} {shorten(setting.as_text(), 60)} ({setting.origin})"
        for name, setting in settings.items()
        if name in used or name in VERDICT_SETTINGS
    ]
    if told:
        quiet = bool(values["quiet"]) and _is_typed(context, "quiet")
        messages = Messages(context.obj, error_format=values["error_format"], color=values["color"], quiet=quiet)
        messages.note(f"settings: {join_names(told)}")
