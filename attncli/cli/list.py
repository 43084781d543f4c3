"""`attn list`: what there is, with formulas and sources: the manual of parts."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import typer

from attncli.catalogue import build_catalogue, describe_named_variant, describe_output_formats
from attncli.cli.messages import should_use_color
from attncli.errors import ExitStatus, OptionError, suggestion
from attncli.output_formats import RenderOptions
from attncli.types import Json

EXAMPLES = """
    attn list
    attn list masks
    attn list masks window
    attn list variants sliding-window
    attn list --json
"""


def list_(
    family: Annotated[
        str, typer.Argument(help="projections, scores, links, masks, …", metavar="[FAMILY]", show_default=False)
    ] = "",
    name: Annotated[str, typer.Argument(help="one member of it", metavar="[NAME]", show_default=False)] = "",
    json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    color: Annotated[
        Literal["auto", "always", "never"], typer.Option("--color", help="colour; NO_COLOR and FORCE_COLOR are heeded")
    ] = "auto",
    error_format: Annotated[
        Literal["full", "json", "concise"], typer.Option("--error-format", help="how errors are written")
    ] = "full",
) -> ExitStatus:
    """List what there is: parts with formulas, options and sources; named variants; steps; choices; formats."""
    chosen: dict[str, Json] = build_catalogue()
    if family in ("format", "formats"):
        chosen["formats"] = describe_output_formats()
    if family:
        known = {**{key: key for key in chosen}, **{key.removesuffix("s"): key for key in chosen}, "chain": "links"}
        if family not in known:
            raise OptionError(
                "unknown-family", f"there is no family {family!r}", help=suggestion(family, [*chosen, "formats"])
            )
        chosen = {known[family]: chosen[known[family]]}
        members = chosen[known[family]]
        if name:
            chosen = {known[family]: {name: _select_member(known[family], name, members)}}
    if json:
        import msgspec

        text = msgspec.json.encode(chosen).decode() + "\n"
    else:
        from attncli.views.listing import render_catalogue

        screen = sys.stdout.isatty()
        import shutil

        width = shutil.get_terminal_size().columns if screen else None
        text = render_catalogue(
            chosen, RenderOptions(width=width, color=should_use_color(sys.stdout, color)), detail=bool(family)
        )
    sys.stdout.write(text)
    return ExitStatus.OK


def _select_member(family: str, name: str, members: Json) -> Any:
    if family == "variants":
        return describe_named_variant(name)
    if name not in members:
        one = family.removesuffix("s")
        raise OptionError(f"unknown-{one}", f"no {one} is called {name!r}", help=suggestion(name, members))
    return members[name]
