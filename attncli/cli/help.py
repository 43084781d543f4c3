"""The two helps of a command: `--help` fits a screen and shows what is used every day, `--help-all` shows every option."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:  # Typer's own copy of Click, whose classes have no other name
    from typer._click.core import Context, Parameter
    from typer._click.formatting import HelpFormatter

ParameterT = TypeVar("ParameterT", bound="Parameter")

# Options that `--help` shows, by the names of their parameters, with a shorter text where that of `--help-all` is long.
_EVERYDAY_OPTIONS: dict[str, str | None] = {
    "variant": "a named variant: attn list variants",
    "projection": "how q, k, v are made: attn list projections",
    "heads": "number of query heads",
    "mask": "which keys a query sees: attn list masks",
    "causal": "also hide later tokens",
    "dropout": "drop weights with probability P",
    "seed": "seed for all random numbers",
    "only": "show only these steps: attn list steps",
    "at": "show part of an axis: query=shiny, key=2:5",
    "format": "table, json, csv, …: attn list formats",
    "json": None,
    "output": "write to this file, as its suffix says",
    "precision": "digits after the decimal point",
    "color": None,
    "error_format": None,
    # explain
    "why": None,
    "blank": None,
    "answers": None,
    "seeds": None,
    "grad": None,
    # plot
    "kind": "heat, flow (one query) or heads (two heads)",
    "width": "with its unit: 8.5cm, 3.4in; else as the cells need it",
    "dpi": None,
    "style": "light or dark",
    "cmap": None,
    "title": None,
    # check
    "figures": "your figures; if left out, INPUT holds `expected`",
    "step": "the step that the figures belong to",
    "rule": "how close they must be: digits, close or flash",
    "identify": "look for what they are instead (or --no-identify)",
    "no_reveal": "do not print the right figures",
    # batch
    "jobs": None,
    "retry_failed": "compute only what failed before",
    "max_failures": "stop when more inputs than this failed",
    "plot": "also draw a figure beside each result: png, svg, pdf",
    "dry_run": "say what would be computed or refused",
    # demo
    "save": None,
    # capture
    "text": None,
    "texts": None,
    "ids": None,
    "image": None,
    "decode": None,
    "layer": None,
    "depth": None,
    "list_layers": "list the layers; write no problems",
}
_TEXTS_OF_COMMANDS = {  # where an option means something else in one command; None: it is not shown there
    ("batch", "output"): "the folder for results; - for JSON lines",
    ("batch", "projection"): None,
    ("check", "only"): None,
    ("plot", "only"): "draw these steps: attn list steps",
    ("plot", "format"): "png, svg, pdf or html",
    ("plot", "dropout"): None,
    ("capture", "output"): "a file for one layer, a folder for several, or -",
    ("capture", "format"): "safetensors, npz or json; of --list table or json",
    ("capture", "only"): "write only these steps of each layer: weights",
    ("capture", "json"): None,
    ("explain", "title"): None,
    ("explain", "only"): None,
    ("explain", "dropout"): None,
}
_HIDDEN_WHERE_OPTIONS_ARE_MANY = ("color", "error_format")  # everyday options of the commands that have few
_FEW_OPTIONS = 8
_MAX_EXAMPLES = 4  # in the shorter help
_SHOWS_ALL = "attncli.shows_all_options"  # in the state of a command line


class CommandWithTwoHelps(TyperCommand):
    """A command whose `--help` shows the options of `_EVERYDAY_OPTIONS`, and whose `--help-all` shows all, in groups."""

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the help that was asked for. Only what is shown differs: every option is parsed and completed."""
        shown = copy.copy(self)
        shown.params = [_without_type_of_flag(parameter) for parameter in self._shown_parameters(ctx)]
        if len(shown.params) < len(self.params):
            examples = "\n".join(str(self.epilog).splitlines()[: _MAX_EXAMPLES + 1])
            shown.epilog = f"{ctx.command_path} --help-all shows every option.\n\n{examples}"
        TyperCommand.format_help(shown, ctx, formatter)

    def get_help_option(self, ctx: Context) -> TyperOption | None:
        """Return the option `--help`, whose type is not shown."""
        option = super().get_help_option(ctx)
        return None if option is None else _without_type_of_flag(option)

    def _shown_parameters(self, ctx: Context) -> list[Parameter]:
        if ctx.meta.get(_SHOWS_ALL) or len(self.params) <= _FEW_OPTIONS:
            return self.params
        shown: list[Parameter] = []
        for parameter in self.params:
            if parameter.param_type_name == "argument":
                shown.append(parameter)
            elif (
                isinstance(parameter, TyperOption)
                and parameter.name in _EVERYDAY_OPTIONS
                and parameter.name not in _HIDDEN_WHERE_OPTIONS_ARE_MANY
            ):
                everyday = copy.copy(parameter)
                default_text = _EVERYDAY_OPTIONS[parameter.name] or everyday.help
                everyday.help = _TEXTS_OF_COMMANDS.get((str(self.name), parameter.name), default_text)
                everyday.rich_help_panel = None  # one list, in the order of declaration
                everyday.secondary_opts = []  # --no-identify, which would take a column
                everyday.metavar = everyday.metavar or str(parameter.name).upper()
                if everyday.help is not None:
                    shown.append(everyday)
        return shown


class GroupOfCommands(TyperGroup):
    """The program itself: its own options are flags, whose type is not shown."""

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the help of the program: its options and its commands."""
        shown = copy.copy(self)
        shown.params = [_without_type_of_flag(parameter) for parameter in self.params]
        TyperGroup.format_help(shown, ctx, formatter)

    def get_help_option(self, ctx: Context) -> TyperOption | None:
        """Return the option `--help`, whose type is not shown."""
        option = super().get_help_option(ctx)
        return None if option is None else _without_type_of_flag(option)


def _without_type_of_flag(parameter: ParameterT) -> ParameterT:
    """Return an option that takes no value as one whose type is not shown."""
    if not getattr(parameter, "is_flag", False):
        return parameter
    shown = copy.copy(parameter)
    shown.metavar = ""
    return shown


def _print_full_help(context: typer.Context, is_asked_for: bool) -> None:
    if is_asked_for:
        context.meta[_SHOWS_ALL] = True
        print(context.get_help())
        raise typer.Exit


HelpAllOption = Annotated[
    bool,
    typer.Option("--help-all", help="show every option", is_eager=True, expose_value=False, callback=_print_full_help),
]
