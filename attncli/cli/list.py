"""`attn list`: every part, step, variant and format, with formulas and sources; and a search among them."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from attncli.catalogue import build_catalogue, describe_named_variant, describe_output_formats, search_catalogue
from attncli.cli.environment import Environment
from attncli.cli.output import standard_output_writer
from attncli.errors import ExitStatus, OptionError
from attncli.output_formats import RenderOptions
from attncli.text import escape_json_controls, suggestion
from attncli.types import Json

EXAMPLES = """
    attn list
    attn list masks
    attn list masks window
    attn list steps
    attn list softmax
    attn list variants sliding-window
    attn list --json
"""


def list_catalogue(
    family: Annotated[
        str,
        typer.Argument(
            help="a family (masks, scores, steps, variants, …), or a word to search for",
            metavar="FAMILY|WORD",
            show_default=False,
        ),
    ] = "",
    name: Annotated[str, typer.Argument(help="one member of it", metavar="NAME", show_default=False)] = "",
    json: Annotated[bool, typer.Option("--json", help="print JSON, for programs")] = False,
    color: Annotated[
        Literal["auto", "always", "never"],
        typer.Option("--color", help="use colours; auto follows NO_COLOR and FORCE_COLOR"),
    ] = "auto",
    error_format: Annotated[
        Literal["full", "json", "concise"], typer.Option("--error-format", help="the form of error messages")
    ] = "full",
    *,
    environment: Environment,
) -> ExitStatus:
    """List parts, steps, named variants, choices and formats, with formulas, options and sources; or search them."""
    chosen = _select_from_catalogue(family, name)
    if json:
        import msgspec

        text = escape_json_controls(msgspec.json.encode(chosen).decode()) + "\n"
    else:
        from attncli.views.catalogue import render_catalogue

        render_options = RenderOptions(
            width=environment.stdout_columns if environment.stdout_is_terminal else None,
            color=environment.should_use_color(environment.stdout, color),
        )
        text = render_catalogue(chosen, render_options, detail=len(chosen) == 1)
    standard_output_writer(environment)(text)
    return ExitStatus.OK


def _select_from_catalogue(family: str, name: str) -> dict[str, Json]:
    """The families and members that are asked for: all of them, one family, one member of it, or those that hold a word.

    Raises:
        OptionError: there is no such family or member, and nothing holds the word.
    """
    catalogue: dict[str, Json] = build_catalogue()
    if family in ("format", "formats"):
        catalogue["formats"] = describe_output_formats()
    if not family:
        return catalogue
    singular = {key.removesuffix("s"): key for key in catalogue}
    families = {key: key for key in catalogue} | singular | {"chain": "links"}
    if family not in families:
        if not name and (found := search_catalogue(catalogue, family)):
            return found
        hint = suggestion(family, [*catalogue, "formats"])
        if family in ("example", "examples", "demos", "samples"):
            hint = "attn demo computes the first, and lists the others"
        raise OptionError("unknown-family", f"nothing is called {family!r}", help=hint)
    family = families[family]
    if not name:
        return {family: catalogue[family]}
    return {family: {name: _describe_member(family, name, catalogue[family])}}


def _describe_member(family: str, name: str, members: Json) -> object:
    if family == "variants":
        return describe_named_variant(name)
    if name not in members:
        noun = family.removesuffix("s")
        raise OptionError(f"unknown-{noun}", f"there is no {noun} called {name!r}", help=suggestion(name, members))
    return members[name]
