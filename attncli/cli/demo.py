"""`attn demo`: worked examples that need no file."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from attncli.cli.messages import Messages
from attncli.cli.run import run_compute
from attncli.errors import ExitStatus, OptionError, suggestion
from attncli.request import OutputOptions, ReadOptions, VariantRequest

EXAMPLES = """
    attn demo
    attn demo hello_shiny_sun
    attn demo journey_causal_batch --only weights
    attn demo cat_sat --causal --heat on
"""
FIRST_EXAMPLE = "cat_sat"


def find_samples() -> dict[str, Path]:
    """The sample inputs by name: inside the installed package, or beside it in a checkout."""
    inside, beside = Path(__file__).parents[1] / "samples", Path(__file__).parents[2] / "sample_inputs"
    folder = inside if inside.is_dir() else beside
    return {p.stem: p for p in sorted(folder.glob("*.json"))}


def demo(
    name: Annotated[
        str, typer.Argument(help="which example; without one, the first", metavar="[NAME]", show_default=False)
    ] = "",
    *,
    choosing: VariantRequest,
    showing: OutputOptions,
) -> ExitStatus:
    """Show a worked example: all of the options of compute apply."""
    known = find_samples()
    if name and name not in known:
        raise OptionError("unknown-example", f"no example is called {name!r}", help=suggestion(name, known))
    status = run_compute(str(known[name or FIRST_EXAMPLE]), choosing, ReadOptions(), replace(showing, quiet=True))
    talk = Messages(
        error_format=showing.error_format, color=showing.color, quiet=showing.quiet or not sys.stderr.isatty()
    )
    for line in (
        "",
        "Your own file   attn compute tokens.csv --causal   (a row a token: cat,0.1,0.2,0.3)",
        "Other examples  attn demo NAME:",
    ):
        talk.note(line)
    for other in known:
        talk.note(f"    {other}")
    return status
