"""Options that commands share, declared once: what to compute (made from `CHOICES`), how to read, how to show."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from attncli.errors import OptionError
from attncli.registry import parse_integer
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.variant import CHOICES

OptionalStrings = list[str] | None


DeclaredOption = tuple[str, Any, object]  # the name of a parameter, its annotation as Typer reads it, its default


def _declare_option(
    name: str, value_type: object, help: str, metavar: str | None = None, *, flags: str = "", default: object = None
) -> DeclaredOption:
    """One option; its flag is its name unless others are given."""
    words = flags.split() or ["--" + name.replace("_", "-")]
    return name, Annotated[value_type, typer.Option(*words, help=help, metavar=metavar)], default


def _group_in_panel(title: str, *options: DeclaredOption) -> list[DeclaredOption]:
    """Options that stand together in the help."""
    for _, annotation, _ in options:
        annotation.__metadata__[0].rich_help_panel = title
    return list(options)


def _declare_variant_options() -> list[DeclaredOption]:
    """One for every choice there is, and what everyone types."""
    out = [_declare_option("variant", str | None, "a named variant: attn list variants", "NAME")]
    for choice in CHOICES.values():
        kind = OptionalStrings if choice.name == "mask" else str | None
        out.append(_declare_option(choice.name, kind, choice.help, choice.metavar, flags=choice.flag))
        if choice.name == "mask":
            out.append(_declare_option("causal", bool, "and the mask causal", default=False))
            out.append(
                _declare_option("window", str | None, "and the mask window:left=L,right=R; -1 is no bound", "L,R")
            )
        if choice.name == "position":
            out.append(_declare_option("rope", bool, "the same as --position rope", default=False))
            out.append(_declare_option("alibi", bool, "the same as --position alibi", default=False))
    return _group_in_panel("Variant", *out)


_INPUT_OPTIONS = _group_in_panel(
    "Input",
    _declare_option(
        "input_format",
        str | None,
        "what the suffix does not say: json, ndjson, csv, tsv, npz, npy, safetensors",
        "FORMAT",
    ),
    _declare_option("token_column", str | None, "CSV: the column of the tokens, by name or number, or none", "COLUMN"),
    _declare_option("header", Literal["yes", "no"] | None, "CSV: whether the first row is a header"),
    _declare_option(
        "with_",
        OptionalStrings,
        "take one field from another file: --with parameters.w_q=w_q.csv",
        "NAME=PATH",
        flags="--with",
    ),
)
_FORMATS_HELP = "table, plain, json, ndjson, csv, tsv, markdown, latex; npz and safetensors to a file"
_OUTPUT_OPTIONS = _group_in_panel(
    "Output",
    _declare_option("format", str | None, _FORMATS_HELP, "FORMAT", flags="--format -f"),
    _declare_option("json", bool, "the same as --format json", default=False),
    _declare_option(
        "output", str | None, "a file, whole or not at all; its suffix says the format", "FILE", flags="--output -o"
    ),
    _declare_option("force", bool, "replace the file if it exists", default=False),
    _declare_option("only", OptionalStrings, "these steps alone: weights,context; all for every one", "STEP,…"),
    _declare_option("at", OptionalStrings, "part of an axis: query=shiny, head=0, key=2:5", "AXIS=WHICH"),
    _declare_option("top", str | None, "also the N largest weights of each query", "N"),
    _declare_option("precision", str, "digits after the point, in tables", "N", default="4"),
    _declare_option("heat", Literal["auto", "on", "off"], "shade the weights", default="auto"),
    _declare_option("full", bool, "leave nothing out on a terminal", default=False),
    _declare_option(
        "color", Literal["auto", "always", "never"], "colour; NO_COLOR and FORCE_COLOR are heeded", default="auto"
    ),
    _declare_option("quiet", bool, "only warnings and errors on standard error", flags="--quiet -q", default=False),
    _declare_option("no_progress", bool, "no bar while something long runs", default=False),
    _declare_option("error_format", Literal["full", "json", "concise"], "how errors are written", default="full"),
    _declare_option("debug", bool, "the traceback of a bug", default=False),
)
_VERDICT_OUTPUT_NAMES = ("output", "force", "color", "quiet", "no_progress", "error_format", "debug")
_VERDICT_OUTPUT_OPTIONS = _group_in_panel(  # a verdict has no steps to choose among
    "Output",
    _declare_option("format", str | None, "table, plain, markdown, json", "FORMAT", flags="--format -f"),
    _declare_option("json", bool, "the same as --format json", default=False),
    *(option for option in _OUTPUT_OPTIONS if option[0] in _VERDICT_OUTPUT_NAMES),
)


def _parse_optional_whole_number(name: str, value: str | None, minimum: int, maximum: int) -> int | None:
    return None if value is None else parse_whole_number(name, value, minimum, maximum)


def parse_whole_number(name: str, value: str, minimum: int, maximum: int) -> int:
    """The integer that an option was given.

    Raises:
        OptionError: it is none, or out of range.
    """
    try:
        n = parse_integer(value)
    except (ValueError, OverflowError):
        n = minimum - 1
    if not minimum <= n <= maximum:
        raise OptionError("bad-option", f"--{name} is an integer from {minimum} to {maximum}, not {value}")
    return n


def _make_verdict_output_options(values: dict[str, object]) -> OutputOptions:
    """What of `OutputOptions` goes with a verdict."""
    absent = {"only": None, "at": None, "top": None, "precision": "4", "heat": "off", "full": False}
    return _make_output_options({**values, **absent})


def _make_output_options(values: dict[str, Any]) -> OutputOptions:
    if values["json"] and values["format"] not in (None, "json"):
        raise OptionError(
            "bad-option", f"--json and --format {values['format']} say two things", help="say one of them"
        )
    steps = tuple(s.strip() for text in values["only"] or () for s in text.split(",") if s.strip())
    if values["only"] and not steps:
        raise OptionError("bad-option", "--only names no step", help="--only weights,context, or --only all")
    return OutputOptions(
        format="json" if values["json"] else values["format"],
        output=None if values["output"] == "-" else values["output"],
        force=values["force"],
        only=steps,
        at=tuple(values["at"] or ()),
        top=_parse_optional_whole_number("top", values["top"], 1, 2**31),
        precision=_parse_optional_whole_number("precision", values["precision"], 0, 17) or 0,
        heat=values["heat"],
        full=values["full"],
        color=values["color"],
        quiet=values["quiet"],
        progress=not values["no_progress"],
        error_format=values["error_format"],
    )


def _make_variant_request(values: dict[str, Any]) -> VariantRequest:
    also = ["causal"] if values["causal"] else []
    if values["window"] is not None:
        left, comma, right = values["window"].partition(",")
        if not comma:
            raise OptionError(
                "bad-option",
                f"--window takes L,R, not {values['window']}",
                help="--window 2,0: two neighbours before, none after; -1 is no bound",
            )
        also.append(f"window:left={left.strip()},right={right.strip()}")
    choices = {name: values[name] for name in CHOICES if values[name] not in (None, [])}
    said = [name for name in ("rope", "alibi") if values[name]]
    if len(said) + (values["position"] is not None) > 1:
        raise OptionError("bad-option", f"--{said[0]} and another position say two things", help="say one of them")
    if said:
        choices["position"] = said[0]
    if values["variant"] is not None:
        choices["name"] = values["variant"]
    VariantRequest(choices, tuple(also)).resolve_variant(
        {}
    )  # what is wrong whatever the file holds is refused before it is read
    return VariantRequest(choices, tuple(also))


def with_shared_options(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command the shared options; it receives `choosing`, `reading` and `showing` (or `telling`) in their place."""
    own = [
        p
        for p in inspect.signature(command, eval_str=True).parameters.values()
        if p.name not in ("choosing", "reading", "showing", "telling")
    ]
    wanted = set(inspect.signature(command).parameters)
    groups = {
        "reading": _INPUT_OPTIONS,
        "choosing": _declare_variant_options(),
        "showing": _OUTPUT_OPTIONS,
        "telling": _VERDICT_OUTPUT_OPTIONS,
    }
    shared = [o for name, group in groups.items() if name in wanted for o in group if o[0] not in wanted]

    def run_command(**values: Any) -> object:
        made: dict[str, object] = {}
        if "showing" in wanted:
            made["showing"] = _make_output_options(values)
        if "telling" in wanted:
            made["telling"] = _make_verdict_output_options(values)
        if "choosing" in wanted:
            made["choosing"] = _make_variant_request(values)
        if "reading" in wanted:
            made["reading"] = ReadOptions(
                values["input_format"], values["token_column"], values["header"], tuple(values["with_"] or ())
            )
        return command(**{p.name: values[p.name] for p in own}, **made)

    parameters = own + [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, kind, default in shared
    ]
    run_command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # this is what Typer reads
    run_command.__annotations__ = {p.name: p.annotation for p in parameters}
    run_command.__doc__, run_command.__name__ = command.__doc__, command.__name__
    return run_command
