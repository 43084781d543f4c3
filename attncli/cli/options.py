"""Options that commands share, declared once: what to compute (made from `CHOICES`), how to read, how to show."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from attncli.errors import OptionError
from attncli.registry import integer
from attncli.request import Choosing, Reading, Showing
from attncli.variant import CHOICES

Words = list[str] | None


Declared = tuple[str, Any, object]  # the name of a parameter, its annotation as Typer reads it, its default


def _option(
    name: str, kind: object, help: str, metavar: str | None = None, *, flags: str = "", default: object = None
) -> Declared:
    """One option; its flag is its name unless others are given."""
    words = flags.split() or ["--" + name.replace("_", "-")]
    return name, Annotated[kind, typer.Option(*words, help=help, metavar=metavar)], default


def _panel(title: str, *options: Declared) -> list[Declared]:
    """Options that stand together in the help."""
    for _, annotation, _ in options:
        annotation.__metadata__[0].rich_help_panel = title
    return list(options)


def _variant_options() -> list[Declared]:
    """One for every choice there is, and what everyone types."""
    out = [_option("variant", str | None, "a named variant: attn list variants", "NAME")]
    for choice in CHOICES.values():
        kind = Words if choice.name == "mask" else str | None
        out.append(_option(choice.name, kind, choice.help, choice.metavar, flags=choice.option))
        if choice.name == "mask":
            out.append(_option("causal", bool, "and the mask causal", default=False))
            out.append(_option("window", str | None, "and the mask window:left=L,right=R; -1 is no bound", "L,R"))
        if choice.name == "position":
            out.append(_option("rope", bool, "the same as --position rope", default=False))
            out.append(_option("alibi", bool, "the same as --position alibi", default=False))
    return _panel("Variant", *out)


_READING = _panel(
    "Input",
    _option(
        "input_format",
        str | None,
        "what the suffix does not say: json, ndjson, csv, tsv, npz, npy, safetensors",
        "FORMAT",
    ),
    _option("token_column", str | None, "CSV: the column of the tokens, by name or number, or none", "COLUMN"),
    _option("header", Literal["yes", "no"] | None, "CSV: whether the first row is a header"),
    _option(
        "with_", Words, "take one field from another file: --with parameters.w_q=w_q.csv", "NAME=PATH", flags="--with"
    ),
)
_FORMATS = "table, plain, json, ndjson, csv, tsv, markdown, latex; npz and safetensors to a file"
_SHOWING = _panel(
    "Output",
    _option("format", str | None, _FORMATS, "FORMAT", flags="--format -f"),
    _option("json", bool, "the same as --format json", default=False),
    _option(
        "output", str | None, "a file, whole or not at all; its suffix says the format", "FILE", flags="--output -o"
    ),
    _option("force", bool, "replace the file if it exists", default=False),
    _option("only", Words, "these steps alone: weights,context; all for every one", "STEP,…"),
    _option("at", Words, "part of an axis: query=shiny, head=0, key=2:5", "AXIS=WHICH"),
    _option("top", str | None, "also the N largest weights of each query", "N"),
    _option("precision", str, "digits after the point, in tables", "N", default="4"),
    _option("heat", Literal["auto", "on", "off"], "shade the weights", default="auto"),
    _option("full", bool, "leave nothing out on a terminal", default=False),
    _option("color", Literal["auto", "always", "never"], "colour; NO_COLOR and FORCE_COLOR are heeded", default="auto"),
    _option("quiet", bool, "only warnings and errors on standard error", flags="--quiet -q", default=False),
    _option("no_progress", bool, "no bar while something long runs", default=False),
    _option("error_format", Literal["full", "json", "concise"], "how errors are written", default="full"),
    _option("debug", bool, "the traceback of a bug", default=False),
)
_TOLD = ("output", "force", "color", "quiet", "no_progress", "error_format", "debug")
_TELLING = _panel(  # a verdict has no steps to choose among
    "Output",
    _option("format", str | None, "table, plain, markdown, json", "FORMAT", flags="--format -f"),
    _option("json", bool, "the same as --format json", default=False),
    *(option for option in _SHOWING if option[0] in _TOLD),
)


def _count(name: str, value: str | None, low: int, high: int) -> int | None:
    return None if value is None else whole_number(name, value, low, high)


def whole_number(name: str, value: str, low: int, high: int) -> int:
    """The integer that an option was given.

    Raises:
        OptionError: it is none, or out of range.
    """
    try:
        n = integer(value)
    except (ValueError, OverflowError):
        n = low - 1
    if not low <= n <= high:
        raise OptionError("bad-option", f"--{name} is an integer from {low} to {high}, not {value}")
    return n


def _told(v: dict[str, object]) -> Showing:
    """What of `Showing` goes with a verdict."""
    absent = {"only": None, "at": None, "top": None, "precision": "4", "heat": "off", "full": False}
    return _showing({**v, **absent})


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
        progress=not v["no_progress"],
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
    said = [name for name in ("rope", "alibi") if v[name]]
    if len(said) + (v["position"] is not None) > 1:
        raise OptionError("bad-option", f"--{said[0]} and another position say two things", help="say one of them")
    if said:
        choices["position"] = said[0]
    if v["variant"] is not None:
        choices["name"] = v["variant"]
    Choosing(choices, tuple(also)).variant({})  # what is wrong whatever the file holds is refused before it is read
    return Choosing(choices, tuple(also))


def takes(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command the shared options; it receives `choosing`, `reading` and `showing` (or `telling`) in their place."""
    own = [
        p
        for p in inspect.signature(command, eval_str=True).parameters.values()
        if p.name not in ("choosing", "reading", "showing", "telling")
    ]
    wanted = set(inspect.signature(command).parameters)
    groups = {"reading": _READING, "choosing": _variant_options(), "showing": _SHOWING, "telling": _TELLING}
    shared = [o for name, group in groups.items() if name in wanted for o in group if o[0] not in wanted]

    def run(**values: Any) -> object:
        made: dict[str, object] = {}
        if "showing" in wanted:
            made["showing"] = _showing(values)
        if "telling" in wanted:
            made["telling"] = _told(values)
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
