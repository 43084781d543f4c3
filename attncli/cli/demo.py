"""`attn demo`: worked examples that need no file."""

from __future__ import annotations

import copy
import re
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attncli.atomic_file import atomic_write
from attncli.cli.compute import run_compute
from attncli.cli.environment import Environment
from attncli.cli.help import CommandWithTwoHelps
from attncli.cli.messages import Messages
from attncli.cli.output import check_output_path
from attncli.errors import ExitStatus, OptionError
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.text import closest, join_names

if TYPE_CHECKING:
    from typer._click.core import Context
    from typer._click.formatting import HelpFormatter

EXAMPLES = """
    attn demo journey_causal_batch --only weights
    attn demo cat_sat --causal --heat on
    attn demo cat_sat --save
"""
FIRST_EXAMPLE = "cat_sat"


def find_samples() -> dict[str, Path]:
    """Find the sample inputs, by name: inside the installed package, or beside it in a checkout."""
    installed, in_checkout = Path(__file__).parents[1] / "samples", Path(__file__).parents[2] / "sample_inputs"
    folder = installed if installed.is_dir() else in_checkout
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def read_title(sample: Path) -> str:
    """Return what a sample input is, in one line: the title that it has in `about`, or that text as far as its first stop."""
    import msgspec

    about = msgspec.json.decode(sample.read_bytes())["about"]
    return str(about["title"]) if isinstance(about, dict) else re.split("[:;,.]", about, maxsplit=1)[0]


class CommandWithSamples(CommandWithTwoHelps):
    """`attn demo`, whose help lists the worked examples with their titles."""

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the help, with the examples that are installed."""
        shown = copy.copy(self)
        lines = _list_samples(find_samples(), max_width=formatter.width)
        shown.help = "\n".join([f"{self.help}\n\n\b", *lines])  # \b: lines stay lines
        CommandWithTwoHelps.format_help(shown, ctx, formatter)


def demo(
    name: Annotated[
        str, typer.Argument(help="the example to compute; if left out, cat_sat", metavar="NAME", show_default=False)
    ] = "",
    *,
    save: Annotated[
        bool, typer.Option("--save", help="write the example's file, NAME.json, here instead of computing it")
    ] = False,
    environment: Environment,
    variant_request: VariantRequest,
    output_options: OutputOptions,
) -> ExitStatus:
    """Compute a worked example; every option of compute can be used."""
    samples = find_samples()
    if name and name not in samples:
        hint = f"did you mean {closest(name, samples)!r}?" if closest(name, samples) else _describe_samples(samples)
        raise OptionError("unknown-example", f"there is no example called {name!r}", help=hint)
    name = name or FIRST_EXAMPLE
    if save:
        return _save_sample(environment, samples[name], output_options)
    status = run_compute(
        environment,
        str(samples[name]),
        variant_request,
        ReadOptions(),
        replace(output_options, quiet=True),
        source=name,
    )
    is_quiet = output_options.quiet or not environment.stderr_is_terminal
    messages = Messages.from_options(environment, replace(output_options, quiet=is_quiet))
    messages.note("")
    messages.note("Your own numbers: attn compute tokens.csv, one token per row: cat,0.1,0.2,0.3")
    messages.note(f"This example as a file: attn demo {name} --save")
    messages.note("Other examples: attn demo NAME")
    for line in _list_samples(samples):
        messages.note(f"    {line}")
    return status


def _list_samples(samples: dict[str, Path], max_width: int | None = None) -> list[str]:
    """`cat_sat  Three tokens of four numbers`: the name of each example, and its title, which may need several lines."""
    name_width = max(map(len, samples)) + 2
    lines = []
    for name, path in samples.items():
        title = read_title(path)
        rows = [title] if max_width is None else textwrap.wrap(title, max(max_width - name_width, 20))
        lines += [f"{name if i == 0 else '':<{name_width}}{row}" for i, row in enumerate(rows)]
    return lines


def _describe_samples(samples: dict[str, Path]) -> str:
    """`it can be cat_sat (…), … or …`: every example with its title."""
    return f"it can be {join_names([f'{name} ({read_title(path)})' for name, path in samples.items()], 'or')}"


def _save_sample(environment: Environment, sample: Path, output_options: OutputOptions) -> ExitStatus:
    """Write the file of a sample to the current folder, or where `-o` says.

    Raises:
        OptionError: the file exists, and `--force` was not given.
        CannotError: it cannot be written.
    """
    target = replace(output_options, output=output_options.output or sample.name, format="json")
    check_output_path(target)
    path = str(target.output)
    with atomic_write(Path(path), path) as file:
        file.write(sample.read_bytes())
    Messages.from_options(environment, output_options).note(f"wrote {path}; attn compute {path} computes it")
    return ExitStatus.OK
