"""Options that commands share, declared once: what to compute (made from `CHOICES`), how to read, how to show."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import typer

from attncli.errors import OptionError
from attncli.registry import integer
from attncli.variant import CHOICES, Variant, combine

Words = list[str] | None


@dataclass(frozen=True)
class Reading:
    """How the input is to be read."""

    input_format: str | None = None
    token_column: str | None = None
    header: str | None = None
    replacing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Showing:
    """How the result is to be shown."""

    format: str | None = None
    output: str | None = None
    force: bool = False
    only: tuple[str, ...] = ()
    at: tuple[str, ...] = ()
    top: int | None = None
    precision: int = 4
    heat: str = "auto"
    full: bool = False
    color: str = "auto"
    quiet: bool = False
    error_format: str = "full"


@dataclass(frozen=True)
class Choosing:
    """What the command line chose, to be combined with what the file says."""

    choices: dict[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()  # masks that sugar adds

    def variant(self, file: Any) -> Variant:
        return combine(file, self.choices, self.also)


def _sugar(name: str, help: str, kind: Any, metavar: str | None = None) -> tuple[str, Any, Any]:
    return (
        name,
        Annotated[kind, typer.Option(f"--{name}", help=help, metavar=metavar, rich_help_panel="Variant")],
        False if kind is bool else None,
    )


def _variant_options() -> list[tuple[str, Any, Any]]:
    """(parameter, annotation, default) for every choice there is."""
    panel = "Variant"
    out = [
        (
            "variant",
            Annotated[
                str | None,
                typer.Option(
                    "--variant", help="a named variant: attn list variants", metavar="NAME", rich_help_panel=panel
                ),
            ],
            None,
        )
    ]
    for choice in CHOICES.values():
        many = choice.name == "mask"
        kind = list[str] | None if many else str | None
        out.append(
            (
                choice.name,
                Annotated[
                    kind, typer.Option(choice.option, help=choice.help, metavar=choice.metavar, rich_help_panel=panel)
                ],
                None,
            )
        )
        if many:
            out.append(_sugar("causal", "and the mask causal", bool))
            out.append(_sugar("window", "and the mask window:left=L,right=R; -1 is no bound", str | None, "L,R"))
    return out


_READING: list[tuple[str, Any, Any]] = [
    (
        "input_format",
        Annotated[
            str | None,
            typer.Option(
                "--input-format",
                help="what the suffix does not say: json, ndjson, csv, tsv, npz, npy, safetensors",
                metavar="FORMAT",
                rich_help_panel="Input",
            ),
        ],
        None,
    ),
    (
        "token_column",
        Annotated[
            str | None,
            typer.Option(
                "--token-column",
                help="CSV: the column of the tokens, by name or number, or none",
                metavar="COLUMN",
                rich_help_panel="Input",
            ),
        ],
        None,
    ),
    (
        "header",
        Annotated[
            Literal["yes", "no"] | None,
            typer.Option("--header", help="CSV: whether the first row is a header", rich_help_panel="Input"),
        ],
        None,
    ),
    (
        "with_",
        Annotated[
            Words,
            typer.Option(
                "--with",
                help="take one field from another file: --with parameters.w_q=w_q.csv",
                metavar="NAME=PATH",
                rich_help_panel="Input",
            ),
        ],
        None,
    ),
]
_SHOWING: list[tuple[str, Any, Any]] = [
    (
        "format",
        Annotated[
            str | None,
            typer.Option(
                "--format",
                "-f",
                help="table, plain, json, ndjson, csv, tsv, markdown, latex; npz and safetensors to a file",
                metavar="FORMAT",
                rich_help_panel="Output",
            ),
        ],
        None,
    ),
    (
        "json",
        Annotated[bool, typer.Option("--json", help="the same as --format json", rich_help_panel="Output")],
        False,
    ),
    (
        "output",
        Annotated[
            str | None,
            typer.Option(
                "--output",
                "-o",
                help="a file, whole or not at all; its suffix says the format",
                metavar="FILE",
                rich_help_panel="Output",
            ),
        ],
        None,
    ),
    (
        "force",
        Annotated[bool, typer.Option("--force", help="replace the file if it exists", rich_help_panel="Output")],
        False,
    ),
    (
        "only",
        Annotated[
            Words,
            typer.Option(
                "--only",
                help="these steps alone: weights,context; all for every one",
                metavar="STEP,…",
                rich_help_panel="Output",
            ),
        ],
        None,
    ),
    (
        "at",
        Annotated[
            Words,
            typer.Option(
                "--at",
                help="part of an axis: query=shiny, head=0, key=2:5",
                metavar="AXIS=WHICH",
                rich_help_panel="Output",
            ),
        ],
        None,
    ),
    (
        "top",
        Annotated[
            str | None,
            typer.Option(
                "--top", help="also the N largest weights of each query", metavar="N", rich_help_panel="Output"
            ),
        ],
        None,
    ),
    (
        "precision",
        Annotated[
            str,
            typer.Option(
                "--precision", help="digits after the point, in tables", metavar="N", rich_help_panel="Output"
            ),
        ],
        "4",
    ),
    (
        "heat",
        Annotated[
            Literal["auto", "on", "off"], typer.Option("--heat", help="shade the weights", rich_help_panel="Output")
        ],
        "auto",
    ),
    (
        "full",
        Annotated[bool, typer.Option("--full", help="leave nothing out on a terminal", rich_help_panel="Output")],
        False,
    ),
    (
        "color",
        Annotated[
            Literal["auto", "always", "never"],
            typer.Option("--color", help="colour; NO_COLOR and FORCE_COLOR are heeded", rich_help_panel="Output"),
        ],
        "auto",
    ),
    (
        "quiet",
        Annotated[
            bool,
            typer.Option("--quiet", "-q", help="only warnings and errors on standard error", rich_help_panel="Output"),
        ],
        False,
    ),
    (
        "error_format",
        Annotated[
            Literal["full", "json", "concise"],
            typer.Option("--error-format", help="how errors are written", rich_help_panel="Output"),
        ],
        "full",
    ),
    ("debug", Annotated[bool, typer.Option("--debug", help="the traceback of a bug", rich_help_panel="Output")], False),
]


def _count(name: str, value: str | None, low: int, high: int) -> int | None:
    if value is None:
        return None
    try:
        n = integer(value)
    except (ValueError, OverflowError):
        n = low - 1
    if not low <= n <= high:
        raise OptionError("bad-option", f"--{name} is an integer from {low} to {high}, not {value}")
    return n


def _showing(v: dict[str, Any]) -> Showing:
    if v["json"] and v["format"] not in (None, "json"):
        raise OptionError("bad-option", f"--json and --format {v['format']} say two things", help="say one of them")
    steps = tuple(s.strip() for text in v["only"] or () for s in text.split(",") if s.strip())
    if v["only"] and not steps:
        raise OptionError("bad-option", "--only names no step", help="--only weights,context, or --only all")
    return Showing(
        format="json" if v["json"] else v["format"],
        output=None if v["output"] == "-" else v["output"],
        force=v["force"],
        only=steps,
        at=tuple(v["at"] or ()),
        top=_count("top", v["top"], 1, 2**31),
        precision=_count("precision", v["precision"], 0, 17) or 0,
        heat=v["heat"],
        full=v["full"],
        color=v["color"],
        quiet=v["quiet"],
        error_format=v["error_format"],
    )


def _choosing(v: dict[str, Any]) -> Choosing:
    also = ["causal"] if v["causal"] else []
    if v["window"] is not None:
        left, comma, right = v["window"].partition(",")
        if not comma:
            raise OptionError(
                "bad-option",
                f"--window takes L,R, not {v['window']}",
                help="--window 2,0: two neighbours before, none after; -1 is no bound",
            )
        also.append(f"window:left={left.strip()},right={right.strip()}")
    choices = {name: v[name] for name in CHOICES if v[name] not in (None, [])}
    if v["variant"] is not None:
        choices["name"] = v["variant"]
    Choosing(choices, tuple(also)).variant({})  # what is wrong whatever the file holds is refused before it is read
    return Choosing(choices, tuple(also))


def takes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the shared options; it receives `choosing`, `reading` and `showing` in their place."""
    own = [
        p
        for p in inspect.signature(command, eval_str=True).parameters.values()
        if p.name not in ("choosing", "reading", "showing")
    ]
    wanted = set(inspect.signature(command).parameters)
    groups = {"reading": _READING, "choosing": _variant_options(), "showing": _SHOWING}
    shared = [option for name, group in groups.items() if name in wanted for option in group]

    def run(**values: Any) -> Any:
        made: dict[str, Any] = {}
        if "showing" in wanted:
            made["showing"] = _showing(values)
        if "choosing" in wanted:
            made["choosing"] = _choosing(values)
        if "reading" in wanted:
            made["reading"] = Reading(
                values["input_format"], values["token_column"], values["header"], tuple(values["with_"] or ())
            )
        return command(**{p.name: values[p.name] for p in own}, **made)

    parameters = own + [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, kind, default in shared
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # this is what Typer reads
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    return run
