"""Options that several commands have, declared once: what to compute (made from `CHOICES`), how to read, how to show.

`with_shared_options` gives them to a command, which receives them parsed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from attncli.cli.help import HelpAllOption
from attncli.errors import AttnError, OptionError
from attncli.registry import parse_integer
from attncli.request import OutputOptions, ReadOptions, VariantRequest, make_variant_request
from attncli.text import shorten
from attncli.variant import CHOICES

if TYPE_CHECKING:
    from attncli.cli.settings import Setting

OptionalStrings = list[str] | None
DeclaredOption = tuple[str, Any, object]  # the name of a parameter, its annotation as Typer reads it, its default
OptionValues: TypeAlias = dict[str, Any]  # by the names of parameters, as Typer has parsed them


def _declare_option(
    name: str, value_type: object, help: str, metavar: str | None = None, *, flags: str = "", default: object = None
) -> DeclaredOption:
    """Declare one option; its flag is its name unless others are given."""
    declarations = flags.split() or ["--" + name.replace("_", "-")]
    return name, Annotated[value_type, typer.Option(*declarations, help=help, metavar=metavar)], default


def _group_in_panel(title: str, *options: DeclaredOption) -> list[DeclaredOption]:
    """Put options under one title in the help."""
    for _, annotation, _ in options:
        annotation.__metadata__[0].rich_help_panel = title
    return list(options)


def _declare_variant_options() -> list[DeclaredOption]:
    """Declare an option for every choice, and the short forms of those that are typed most."""
    options = [
        _declare_option("variant", str | None, "a named variant, such as multi-head (attn list variants)", "NAME")
    ]
    for choice in CHOICES.values():
        value_type = OptionalStrings if choice.name == "mask" else str | None
        options.append(_declare_option(choice.name, value_type, choice.help, choice.metavar, flags=choice.flag))
        if choice.name == "mask":
            options.append(_declare_option("causal", bool, "also hide later tokens: the mask causal", default=False))
            options.append(
                _declare_option(
                    "window", str | None, "also hide what is further than L before and R after; -1: no bound", "L,R"
                )
            )
        if choice.name == "position":
            options.append(_declare_option("rope", bool, "the same as --position rope", default=False))
            options.append(_declare_option("alibi", bool, "the same as --position alibi", default=False))
    return _group_in_panel("Variant", *options)


_INPUT_OPTIONS = _group_in_panel(
    "Input",
    _declare_option(
        "input_format",
        str | None,
        "the format, where the suffix does not name it: json, ndjson, ndjson-tokens, csv, tsv, txt, npz, npy, safetensors, parquet, arrow",
        "FORMAT",
    ),
    _declare_option(
        "token_column",
        str | None,
        "tables: the column, or the field of records, that holds the tokens: a name, a place from 0 or none",
        "COLUMN",
        flags="--token-column --token-field",
    ),
    _declare_option(
        "columns",
        str | None,
        "tables: the columns of the dimensions, d0,d1,d2; or the one column or field that holds whole vectors",
        "COLUMN,…",
        flags="--columns --vector-field",
    ),
    _declare_option("drop", str | None, "tables: columns to leave out: id,freq", "COLUMN,…"),
    _declare_option("header", Literal["yes", "no"] | None, "CSV: whether the first row is a header"),
    _declare_option(
        "separator", Literal["comma", "semicolon", "tab", "pipe", "space"] | None, "CSV: what separates the columns"
    ),
    _declare_option(
        "with_",
        OptionalStrings,
        "take one field from another file: --with parameters.w_q=w_q.csv, or w_q.csv:header=no",
        "NAME=PATH",
        flags="--with",
    ),
    _declare_option(
        "from_state_dict",
        str | None,
        "take the learned arrays of one layer of a checkpoint: model.safetensors:h.0.attn",
        "FILE:PREFIX",
    ),
)
_FORMATS_HELP = "table, plain, json, ndjson, csv, tsv, markdown, latex, svg or html; to a file also npz, safetensors, parquet, feather, png or pdf"
_OUTPUT_OPTIONS = _group_in_panel(
    "Output",
    _declare_option("format", str | None, _FORMATS_HELP, "FORMAT", flags="--format -f"),
    _declare_option("json", bool, "the same as --format json", default=False),
    _declare_option(
        "output", str | None, "write to this file; the suffix chooses the format", "FILE", flags="--output -o"
    ),
    _declare_option("force", bool, "replace the output if it exists", default=False),
    _declare_option("only", OptionalStrings, "show only these steps: weights,context; all: every step", "STEP,…"),
    _declare_option("at", OptionalStrings, "show part of an axis: query=shiny, head=0, key=2:5", "AXIS=WHICH"),
    _declare_option("bare", bool, "JSON without the fields that are the same in every record", default=False),
    _declare_option("tidy", bool, "CSV or Parquet with one row for each number, even of a single step", default=False),
    _declare_option("standalone", bool, "LaTeX as a whole document, which compiles as it is", default=False),
    _declare_option(
        "shared_js", bool, "HTML whose script is in a file beside it, once for all pages of a folder", default=False
    ),
    _declare_option("top", str | None, "also show the N largest weights of each query", "N"),
    _declare_option("precision", str, "digits after the decimal point in tables", "N", default="4"),
    _declare_option(
        "heat",
        Literal["auto", "on", "off", "map"],
        "shade numbers by size: auto, the weights where there are colours; on, every step; map, a picture of each head",
        default="auto",
    ),
    _declare_option(
        "normalize",
        Literal["full", "row"] | None,
        "the scale of the shades: one for the whole step, or one for each row",
    ),
    _declare_option("full", bool, "show every row and column on a terminal", default=False),
    _declare_option(
        "color",
        Literal["auto", "always", "never"],
        "use colours; auto follows NO_COLOR and FORCE_COLOR",
        default="auto",
    ),
    _declare_option(
        "quiet", bool, "write only warnings and errors to standard error", flags="--quiet -q", default=False
    ),
    _declare_option("no_progress", bool, "show no progress bar", default=False),
    _declare_option("error_format", Literal["full", "json", "concise"], "the form of error messages", default="full"),
    _declare_option("debug", bool, "show the traceback of a bug", default=False),
)
_OPTIONS_SHARED_WITH_VERDICTS = ("output", "force", "color", "quiet", "no_progress", "error_format", "debug")
_VERDICT_OUTPUT_OPTIONS = _group_in_panel(  # a verdict has no steps to choose among
    "Output",
    _declare_option("format", str | None, "table, plain, markdown, json or html", "FORMAT", flags="--format -f"),
    _declare_option("json", bool, "the same as --format json", default=False),
    *(option for option in _OUTPUT_OPTIONS if option[0] in _OPTIONS_SHARED_WITH_VERDICTS),
)

_OPTIONS_SHARED_WITH_FIGURES = (
    *("output", "force", "only", "at", "top", "precision", "color", "quiet", "no_progress", "error_format", "debug"),
)
_FIGURE_OUTPUT_OPTIONS = _group_in_panel(
    "Output",
    _declare_option("format", str | None, "png, svg, pdf or html", "FORMAT", flags="--format -f"),
    *(option for option in _OUTPUT_OPTIONS if option[0] in _OPTIONS_SHARED_WITH_FIGURES),
)


def parse_whole_number(name: str, value: str, minimum: int, maximum: int) -> int:
    """Parse the integer of an option.

    Raises:
        OptionError: it is none, or out of range.
    """
    try:
        number = parse_integer(value)
    except (ValueError, OverflowError):
        number = minimum - 1
    if not minimum <= number <= maximum:
        raise OptionError("bad-option", f"--{name} takes an integer from {minimum} to {maximum}, not {shorten(value)}")
    return number


def _make_read_options(values: OptionValues) -> ReadOptions:
    return ReadOptions(
        values["input_format"],
        values["token_column"],
        values["columns"],
        values["drop"],
        values["header"],
        values["separator"],
        replacing=tuple(values["with_"] or ()),
        state_dict=values["from_state_dict"],
    )


def _make_output_options(values: OptionValues) -> OutputOptions:
    if values["json"] and values["format"] not in (None, "json"):
        raise OptionError(
            "bad-option", f"--json and --format {values['format']} contradict each other", help="give only one of them"
        )
    steps = tuple(step.strip() for text in values["only"] or () for step in text.split(",") if step.strip())
    if values["only"] and not steps:
        raise OptionError("bad-option", "--only is empty", help="--only weights,context, or --only all")
    for request in values["at"] or ():
        _check_selection(request)
    return OutputOptions(
        format="json" if values["json"] else values["format"],
        output=None if values["output"] == "-" else values["output"],
        force=values["force"],
        only=steps,
        at=tuple(values["at"] or ()),
        bare=values["bare"],
        tidy=values["tidy"],
        standalone=values["standalone"],
        shared_js=values["shared_js"],
        top=None if values["top"] is None else parse_whole_number("top", values["top"], 1, 2**31),
        precision=parse_whole_number("precision", values["precision"], 0, 17),
        heat=values["heat"],
        normalize=values["normalize"],
        full=values["full"],
        color=values["color"],
        quiet=values["quiet"],
        progress=not values["no_progress"],
        error_format=values["error_format"],
    )


def _check_selection(request: str) -> None:
    """Refuse an `--at` that no result can answer, before an input is read."""
    from attncli.select import parse_request

    parse_request(request)


def _make_verdict_output_options(values: OptionValues) -> OutputOptions:
    """The output options of a verdict, which has no steps, numbers or weights to choose."""
    absent = {
        "only": None,
        "at": None,
        "bare": False,
        "tidy": False,
        "standalone": False,
        "shared_js": False,
        "top": None,
        "precision": "4",
        "heat": "off",
        "normalize": None,
        "full": False,
    }
    return _make_output_options(values | absent)


def _make_figure_output_options(values: OptionValues) -> OutputOptions:
    """The output options of a figure, which is no table and no JSON."""
    absent = {
        "json": False,
        "bare": False,
        "tidy": False,
        "standalone": False,
        "shared_js": False,
        "heat": "off",
        "normalize": None,
        "full": False,
    }
    return _make_output_options(values | absent)


@dataclass(frozen=True)
class _SharedParameter:
    """What a command may receive: the options that are its source, and how they are parsed."""

    options: list[DeclaredOption]
    parse: Callable[[OptionValues], object]


_SHARED_PARAMETERS = {  # in the order in which errors are found
    "output_options": _SharedParameter(_OUTPUT_OPTIONS, _make_output_options),
    "verdict_options": _SharedParameter(_VERDICT_OUTPUT_OPTIONS, _make_verdict_output_options),
    "figure_output_options": _SharedParameter(_FIGURE_OUTPUT_OPTIONS, _make_figure_output_options),
    "variant_request": _SharedParameter(_declare_variant_options(), make_variant_request),
    "read_options": _SharedParameter(_INPUT_OPTIONS, _make_read_options),
}
_HELP_ORDER = ("read_options", "variant_request", "output_options", "verdict_options", "figure_output_options")


_NO_CONFIG_OPTION = Annotated[
    bool, typer.Option("--no-config", help="use no settings, from files or from variables: attn config")
]


def check_option_value(name: str, value: object) -> None:
    """Check the value of an option that several commands share, as it is checked on the command line.

    Raises:
        OptionError: it is none that the option may have.
    """
    for group in _SHARED_PARAMETERS.values():
        defaults = {option: default for option, _, default in group.options}
        if name in defaults:
            group.parse({**defaults, name: value})
            return


def _add_settings(request: VariantRequest, settings: Mapping[str, Setting]) -> VariantRequest:
    """Return a request whose open choices settings make; what cannot be, whatever the file holds, is refused.

    Raises:
        OptionError: a choice cannot be, or contradicts another.
    """
    from attncli.cli.settings import VERDICT_SETTINGS

    names = {name: name for name in settings if name in CHOICES} | (
        {"variant": "name"} if "variant" in settings else {}
    )
    added = replace(
        request,
        settings={choice: settings[name].value for name, choice in names.items()},
        origins={
            names.get(name, name): setting.origin
            for name, setting in settings.items()
            if name in names or name in VERDICT_SETTINGS
        },
    )
    added.resolve_variant({})
    return added


def with_shared_options(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command the options that it shares with others.

    For each parameter of the names in `_SHARED_PARAMETERS` the command line has the options declared there, and the
    command receives them parsed; an option that the command declares itself is left to it. A parameter `environment`
    receives the `Environment`, and a parameter `context` the command line as Typer has parsed it.
    """
    parameters = inspect.signature(command, eval_str=True).parameters
    own = [p for p in parameters.values() if p.name not in (*_SHARED_PARAMETERS, "environment", "context")]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for group in _HELP_ORDER
        if group in parameters
        for name, annotation, default in _SHARED_PARAMETERS[group].options
        if name not in parameters
    ]

    has_settings = any(name in parameters for name in _HELP_ORDER)

    def run_command(context: typer.Context, **values: object) -> object:
        settings: Mapping[str, Setting] = {}
        if has_settings and not values.pop("no_config"):
            from attncli.cli.setting_values import apply_settings

            settings, values = apply_settings(context, values, check_option_value)
        try:
            return command(**parse_arguments(context, values, settings))  # no frame more: see decisions/input-output.md
        except AttnError as error:
            if settings:
                from attncli.cli.setting_values import name_setting

                name_setting(error, settings)
            raise

    def parse_arguments(
        context: typer.Context, values: OptionValues, settings: Mapping[str, Setting]
    ) -> dict[str, object]:
        arguments = {p.name: values[p.name] for p in own}
        for name, parameter in _SHARED_PARAMETERS.items():
            if name in parameters:
                arguments[name] = parameter.parse(values)
        if settings:
            from attncli.cli.setting_values import note_settings

            request = _add_settings(arguments["variant_request"], settings)
            note_settings(context, values, settings, request)
            arguments["variant_request"] = request
        if "environment" in parameters:
            arguments["environment"] = context.obj
        if "context" in parameters:
            arguments["context"] = context
        return arguments

    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    help_all = inspect.Parameter("help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=HelpAllOption)
    general = [help_all]
    if has_settings:
        no_config = inspect.Parameter(
            "no_config", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_NO_CONFIG_OPTION
        )
        general.append(no_config)
    signature = inspect.Signature([*own, *shared, *general, context])
    run_command.__signature__ = signature  # type: ignore[attr-defined]  # this is what Typer reads
    run_command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    run_command.__doc__, run_command.__name__ = command.__doc__, command.__name__
    return run_command
