"""`attn schema`: JSON Schema of what is read and what is written."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from attncli.cli.environment import Environment
from attncli.cli.output import standard_output_writer
from attncli.errors import ExitStatus

EXAMPLES = """
    attn schema problem > problem.schema.json
    attn schema result
    attn schema check
"""


def schema(
    what: Annotated[
        Literal["problem", "result", "check"],
        typer.Argument(help="of an input, of a result, or of what check reports", show_default=False),
    ],
    error_format: Annotated[
        Literal["full", "json", "concise"], typer.Option("--error-format", help="the form of error messages")
    ] = "full",
    *,
    environment: Environment,
) -> ExitStatus:
    """Print the JSON Schema of a problem, of a result or of a verdict."""
    import json

    from attncli.schema import check_schema, problem_schema, result_schema

    make_schema = {"problem": problem_schema, "result": result_schema, "check": check_schema}[what]
    write = standard_output_writer(environment)
    write(json.dumps(make_schema(), indent=2, ensure_ascii=False) + "\n")
    return ExitStatus.OK
