"""The Typer application: every command with its options, help and examples."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import CommandInfo

from attncli import __version__
from attncli.cli.batch import EXAMPLES as BATCH_EXAMPLES
from attncli.cli.batch import batch
from attncli.cli.capture import EXAMPLES as CAPTURE_EXAMPLES
from attncli.cli.capture import capture
from attncli.cli.check import EXAMPLES as CHECK_EXAMPLES
from attncli.cli.check import check
from attncli.cli.compute import EXAMPLES as COMPUTE_EXAMPLES
from attncli.cli.compute import compute
from attncli.cli.config import EXAMPLES as CONFIG_EXAMPLES
from attncli.cli.config import config
from attncli.cli.demo import EXAMPLES as DEMO_EXAMPLES
from attncli.cli.demo import CommandWithSamples, demo
from attncli.cli.environment import Environment
from attncli.cli.explain import EXAMPLES as EXPLAIN_EXAMPLES
from attncli.cli.explain import explain
from attncli.cli.help import CommandWithTwoHelps, GroupOfCommands
from attncli.cli.list import EXAMPLES as LIST_EXAMPLES
from attncli.cli.list import list_catalogue
from attncli.cli.options import with_shared_options
from attncli.cli.plot import EXAMPLES as PLOT_EXAMPLES
from attncli.cli.plot import plot
from attncli.cli.schema import EXAMPLES as SCHEMA_EXAMPLES
from attncli.cli.schema import schema
from attncli.errors import OptionError

app = typer.Typer(
    name="attn",
    cls=GroupOfCommands,
    help="The attention calculator: scores, softmax weights and context vectors, step by step, for your own numbers.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _register_command(
    function: Callable[..., object], name: str, examples: str, cls: type[TyperCommand] = CommandWithTwoHelps
) -> None:
    lines = [line.strip() for line in examples.strip().splitlines()]
    epilog = "\n".join(["Examples:", *lines])
    app.command(name, cls=cls, epilog=epilog.replace("[", "\\["))(with_shared_options(function))


_register_command(compute, "compute", COMPUTE_EXAMPLES)
_register_command(explain, "explain", EXPLAIN_EXAMPLES)
_register_command(check, "check", CHECK_EXAMPLES)
_register_command(plot, "plot", PLOT_EXAMPLES)
_register_command(batch, "batch", BATCH_EXAMPLES)
_register_command(capture, "capture", CAPTURE_EXAMPLES)
_register_command(demo, "demo", DEMO_EXAMPLES, CommandWithSamples)
_register_command(list_catalogue, "list", LIST_EXAMPLES)
_register_command(config, "config", CONFIG_EXAMPLES)
_register_command(schema, "schema", SCHEMA_EXAMPLES)


def make_program(arguments: Sequence[str] = ()) -> TyperGroup:
    """Make the program that parses a command line, with no command but the one that its first word names, if it names one.

    A command has some seventy options; to make those of every command takes longer than many a command does. The list of commands
    that `attn --help` prints needs none of them; `attn config` looks at the options of all.
    """
    command_names = {str(command.name) for command in app.registered_commands} - {"config"}
    if arguments and arguments[0] in ("--help", "-h", "--version"):
        return _make_program(None, has_options=False)
    return _make_program(next((word for word in arguments[:1] if word in command_names), None))


@functools.cache
def _make_program(command_name: str | None, *, has_options: bool = True) -> TyperGroup:
    program = copy.copy(app)
    if command_name is not None:
        program.registered_commands = [command for command in app.registered_commands if command.name == command_name]
    elif not has_options:
        program.registered_commands = [_without_options(command) for command in app.registered_commands]
    made = typer.main.get_command(program)
    assert isinstance(made, TyperGroup)
    return made


def _without_options(command: CommandInfo) -> CommandInfo:
    """Return a command as the list of commands shows it: with its name and its summary."""

    def describe() -> None:
        """Stand for the command, which is not run."""

    describe.__doc__ = command.callback.__doc__
    listed = copy.copy(command)
    listed.callback = describe
    return listed


@app.callback(invoke_without_command=True)
def _run_without_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version", metavar="")] = False,
) -> None:
    environment: Environment = context.obj
    if version:
        print(f"attn {__version__}", file=environment.stdout)
        raise typer.Exit
    if context.invoked_subcommand is None:
        with redirect_stdout(environment.stderr):
            print(context.get_help())
        raise OptionError(
            "usage", "no command was given", help="attn demo shows an example; attn COMMAND --help explains a command"
        )
