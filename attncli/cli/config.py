"""`attn config`: which settings hold, and where each was made. What it shows is made in `setting_list`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from attncli.cli.environment import Environment
from attncli.errors import ExitStatus

EXAMPLES = """
    attn config
    attn config compute
    attn config --path
    ATTN_PRECISION=2 attn config --json
"""


def config(
    context: typer.Context,
    command: Annotated[
        str,
        typer.Argument(
            help="only the settings of this command: compute, explain, check, batch or demo",
            metavar="[COMMAND]",
            show_default=False,
        ),
    ] = "",
    path: Annotated[bool, typer.Option("--path", help="print the files that settings are read from")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON, for programs")] = False,
    error_format: Annotated[
        Literal["full", "json", "concise"], typer.Option("--error-format", help="the form of error messages")
    ] = "full",
    *,
    environment: Environment,
) -> ExitStatus:
    """Show every setting with its value and where it was set: in attn.toml, pyproject.toml or a variable ATTN_…."""
    from attncli.cli.setting_list import write_files, write_settings

    if path:
        write_files(environment)
    else:
        write_settings(environment, context, command, as_json=json)
    return ExitStatus.OK
