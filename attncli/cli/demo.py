"""`attn demo`: worked examples that need no file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from attncli.cli.compute import run_compute
from attncli.cli.environment import Environment
from attncli.cli.messages import Messages
from attncli.errors import ExitStatus, OptionError
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.text import suggestion

EXAMPLES = """
    attn demo
    attn demo hello_shiny_sun
    attn demo journey_causal_batch --only weights
    attn demo cat_sat --causal --heat on
"""
FIRST_EXAMPLE = "cat_sat"


def find_samples() -> dict[str, Path]:
    """Find the sample inputs, by name: inside the installed package, or beside it in a checkout."""
    installed, in_checkout = Path(__file__).parents[1] / "samples", Path(__file__).parents[2] / "sample_inputs"
    folder = installed if installed.is_dir() else in_checkout
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def demo(
    name: Annotated[
        str, typer.Argument(help="which example; without one, the first", metavar="[NAME]", show_default=False)
    ] = "",
    *,
    environment: Environment,
    variant_request: VariantRequest,
    output_options: OutputOptions,
) -> ExitStatus:
    """Show a worked example: all of the options of compute apply."""
    samples = find_samples()
    if name and name not in samples:
        raise OptionError("unknown-example", f"no example is called {name!r}", help=suggestion(name, samples))
    path = str(samples[name or FIRST_EXAMPLE])
    status = run_compute(
        environment,
        path,
        variant_request,
        ReadOptions(),
        replace(output_options, quiet=True),
        source=name or FIRST_EXAMPLE,
    )
    is_quiet = output_options.quiet or not environment.stderr_is_terminal
    messages = Messages.from_options(environment, replace(output_options, quiet=is_quiet))
    messages.note("")
    messages.note("Your own file   attn compute tokens.csv --causal   (a row a token: cat,0.1,0.2,0.3)")
    messages.note("Other examples  attn demo NAME:")
    for sample in samples:
        messages.note(f"    {sample}")
    return status
