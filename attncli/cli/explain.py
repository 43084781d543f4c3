"""`attn explain`: one query, every multiplication."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from attncli.cli.run import run_explain
from attncli.errors import ExitStatus, OptionError
from attncli.request import OutputOptions, ReadOptions, VariantRequest

EXAMPLES = """
    attn explain tokens.csv cat
    attn explain tokens.csv cat --causal --at key=sat
    attn explain tokens.json 1 --variant multi-head --heads 2 --at head=1
    attn explain tokens.csv cat --blank weights,context -o worksheet.md
    attn explain tokens.csv cat --grad ones
"""


def explain(
    input: Annotated[
        str,
        typer.Argument(
            help="a file of embeddings, or of q, k and v; - is standard input", metavar="INPUT", show_default=False
        ),
    ],
    query: Annotated[
        str,
        typer.Argument(
            help="which query, by its token or its index; without one, the last", metavar="[QUERY]", show_default=False
        ),
    ] = "",
    *,
    blank: Annotated[
        list[str] | None,
        typer.Option(
            "--blank", help="leave these steps blank, for a worksheet", metavar="STEP,…", rich_help_panel="Worksheet"
        ),
    ] = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="the same sheet with its gaps filled in", rich_help_panel="Worksheet")
    ] = False,
    grad: Annotated[
        str | None,
        typer.Option(
            "--grad",
            help="go back too: the gradient that arrives at the context is all ones, or a file's",
            metavar="ones|FILE",
            rich_help_panel="Gradient",
        ),
    ] = None,
    choosing: VariantRequest,
    reading: ReadOptions,
    showing: OutputOptions,
) -> ExitStatus:
    """Explain one query: every multiplication from its vector to its context, step by step."""
    steps = tuple(s.strip() for text in blank or () for s in text.split(",") if s.strip())
    if answers and not steps:
        raise OptionError("bad-option", "--answers prints the key of a worksheet", help="add --blank STEP,…")
    if steps and grad is not None:
        raise OptionError("bad-option", "a worksheet goes forwards only", help="leave --grad out, or --blank")
    if query:
        showing = replace(showing, at=(*showing.at, f"query={query}"))
    return run_explain(input, choosing, reading, showing, blank_steps=steps, show_answers=answers, gradient_source=grad)
