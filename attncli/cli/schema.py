"""`attn schema`: JSON Schema of what is read and what is written."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from attncli.errors import ExitStatus

EXAMPLES = """
    attn schema problem > problem.schema.json
    attn schema result
"""


def schema(
    what: Annotated[
        Literal["problem", "result"], typer.Argument(help="of what goes in, or of what comes out", show_default=False)
    ],
    error_format: Annotated[
        Literal["full", "json", "concise"], typer.Option("--error-format", help="how errors are written")
    ] = "full",
) -> ExitStatus:
    """Print the JSON Schema of a problem or of a result."""
    import json

    from attncli.schema import problem_schema, result_schema

    made = problem_schema() if what == "problem" else result_schema()
    sys.stdout.write(json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    return ExitStatus.OK
