"""`attn plot`: a figure of a problem or of a saved result."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from attncli.cli.compute import run_problem
from attncli.cli.environment import Environment
from attncli.cli.input import read_problem
from attncli.cli.messages import Messages
from attncli.cli.options import parse_whole_number
from attncli.cli.output import check_output_path, render_options_for, write_output
from attncli.errors import ExitStatus, InputError, OptionError
from attncli.output_formats import (
    FIGURE_FORMATS,
    FigureKind,
    FigureOptions,
    FigureStyle,
    Format,
    StepShape,
    choose_output_format,
)
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.text import join_names, shorten

if TYPE_CHECKING:
    from attncli.readers import InputFile

EXAMPLES = """
    attn plot tokens.csv --causal -o weights.png
    attn plot result.json -o weights.svg --title 'Layer 3'
    attn plot tokens.csv --at query=cat -o cat.pdf
    attn plot tokens.json --heads 2 --kind heads -o heads.png
    attn plot tokens.csv --only entropy -o entropy.svg --width 8.5cm
    attn plot tokens.csv --only scores,weights -o steps.png --style dark --dpi 300
    attn plot result.json -o page.html
    attn compute tokens.csv --json | attn plot - -o weights.png
"""
_FORMATS = (*FIGURE_FORMATS, "html")


def plot(
    input: Annotated[
        str,
        typer.Argument(
            help="a file of embeddings, or of q, k and v; or a saved result, which is not computed again; - is standard input",
            metavar="INPUT|RESULT",
            show_default=False,
        ),
    ],
    *,
    kind: Annotated[
        FigureKind | None,
        typer.Option(
            "--kind",
            help="heat maps; flow: bars of where one query looks; heads: two heads against each other; without it flow for a single query, else heat",
            show_default=False,
            rich_help_panel="Figure",
        ),
    ] = None,
    width: Annotated[
        str | None,
        typer.Option(
            "--width",
            help="with its unit: 8.5cm, 85mm, 3.4in, 240pt; without it as the cells need it",
            metavar="WIDTH",
            rich_help_panel="Figure",
        ),
    ] = None,
    dpi: Annotated[str, typer.Option("--dpi", help="pixels per inch", metavar="N", rich_help_panel="Figure")] = "200",
    style: Annotated[
        FigureStyle, typer.Option("--style", help="the ground: white or nearly black", rich_help_panel="Figure")
    ] = "light",
    cmap: Annotated[
        str | None,
        typer.Option(
            "--cmap", help="a colour map of matplotlib: viridis, PuOr_r, …", metavar="NAME", rich_help_panel="Figure"
        ),
    ] = None,
    title: Annotated[
        str, typer.Option("--title", help="a title above the figure", metavar="TEXT", rich_help_panel="Figure")
    ] = "",
    environment: Environment,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    figure_output_options: OutputOptions,
) -> ExitStatus:
    """Draw a figure: heat maps of any step, where a query looks, entropies, two heads; PNG, SVG or PDF, or an HTML page."""
    from attncli.readers import find_input, read_bytes
    from attncli.readers.results import RESULT_SUFFIXES
    from attncli.step_names import require_step_name
    from attncli.views.figures.options import MAX_DPI, MIN_DPI, make_figure_options

    resolution = parse_whole_number("dpi", dpi, MIN_DPI, MAX_DPI)
    figure = make_figure_options(kind, width, resolution, style, cmap, title)
    output_options = replace(figure_output_options, figure=figure)
    messages = Messages.from_options(environment, output_options)
    for name in output_options.only:
        if name != "all":
            require_step_name(name)
    format = _choose_figure_format(output_options)
    input_file = find_input(input, read_options.input_format)
    if input_file.reader.is_stream:
        message = f"{shorten(input_file.display_name)} holds one problem per line, but one is drawn at a time"
        hint = "sed -n 1p problems.ndjson | attn plot - --input-format json -o x.png draws the first"
        raise OptionError("many-problems", message, help=hint)
    check_output_path(output_options)
    if format.name == "html":
        _check_options_of_page(output_options.figure)
    if format.require is not None:
        format.require()
    if output_options.figure.cmap is not None:
        _check_colormap(output_options.figure.cmap)
    if input == "-" and input_file.data is None:
        input_file = replace(input_file, data=read_bytes(input))
    try:
        problem = read_problem(input_file, read_options, messages)
    except InputError as error:
        if error.code != "not-a-problem" or f".{input_file.reader.name}" not in RESULT_SUFFIXES:
            raise
        _check_options_of_result(variant_request, read_options, output_options)
        try:
            return _plot_result(environment, input_file, format, output_options, messages)
        except InputError as result_error:  # rows of a result are neither
            raise error if result_error.code == "not-a-result" else result_error from None
    return run_problem(environment, problem, format, variant_request, output_options)


# ── options ──────────────────────────────────────────────────────────────────────────────────────
def _choose_figure_format(output_options: OutputOptions) -> Format:
    """Choose the format of a figure.

    Raises:
        OptionError: there is neither a file nor a format, or it is none of a figure.
    """
    if output_options.output is None and output_options.format is None:
        hint = "-o FILE.png, .svg, .pdf or .html; or --format svg for standard output"
        raise OptionError("missing-option", "no file was given for the figure", help=hint)
    format = choose_output_format(output_options.output, output_options.format, offered=_FORMATS)
    if format.name not in _FORMATS:
        message = f"attn plot draws {join_names(_FORMATS, 'or')}, not {format.name}"
        raise OptionError("bad-option", message, help="attn compute writes results in the other formats")
    return format


def _check_options_of_page(figure: FigureOptions) -> None:
    """Refuse what says how a figure looks, where a page is made: there its reader chooses.

    Raises:
        OptionError: one is given.
    """
    plain = FigureOptions()
    names = ("kind", "width", "dpi", "style", "cmap", "title")
    given = [f"--{name}" for name in names if getattr(figure, name) != getattr(plain, name)]
    if given:
        message = f"{join_names(given)} {'is' if len(given) == 1 else 'are'} for figures, but this is a page"
        raise OptionError("bad-option", message, help="leave them out, or draw a figure: -o FILE.svg")


def _check_colormap(name: str) -> None:
    """Refuse a colour map that does not exist.

    Raises:
        OptionError: it does not.
    """
    from attncli.views.figures.theme import require_colormap

    require_colormap(name)


def _check_options_of_result(
    variant_request: VariantRequest, read_options: ReadOptions, output_options: OutputOptions
) -> None:
    """Refuse the options that say how to read or compute, where the input is a result.

    Raises:
        OptionError: one is given.
    """
    if variant_request.choices or variant_request.extra_masks or output_options.top:
        option = "--top changes" if output_options.top else "options of the variant change"
        message = f"this is a result, which is already computed, so {option} nothing"
        raise OptionError("bad-option", message, help="leave them out, or name the problem instead of its result")
    if read_options.is_for_one_problem:
        message = "--with, --from-state-dict and the options of tables are for problems, but this is a result"
        raise OptionError("bad-option", message, help="leave them out")


# ── saved results ────────────────────────────────────────────────────────────────────────────────
def _plot_result(
    environment: Environment, input_file: InputFile, format: Format, output_options: OutputOptions, messages: Messages
) -> ExitStatus:
    """Draw a result as it was saved; nothing is computed.

    Raises:
        OptionError, InputError: it lacks what is asked for, or no figure can show it.
    """
    from attncli.readers.results import read_saved_result
    from attncli.select import select_from_result
    from attncli.views.figures.shapes import keep_drawn_steps

    attention = read_saved_result(input_file)
    try:
        kept = (
            attention
            if format.name == "html" and not output_options.only
            else keep_drawn_steps(attention, output_options.only)
        )
        attention = select_from_result(kept, output_options.at)
        render_options = render_options_for(environment, output_options)
        if format.check_shapes is not None:
            format.check_shapes([StepShape.of_step(step) for step in attention], render_options)
    except InputError as error:
        raise error.add_location(file=input_file.display_name) from None
    if attention.hidden_keys is None and attention.variant.get("mask", "full") != "full":
        messages.note("the result holds neither mask nor masked_scores, so hidden keys look like weights of 0")
    attention = format.prepare_result(attention, render_options)
    write_output(environment, format.write(attention, render_options), output_options, format)
    for warning in attention.warnings:
        messages.warning(warning)
    return ExitStatus.OK
