"""`attn explain`: one query, every multiplication."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attncli.cli.environment import Environment
from attncli.cli.input import read_problem
from attncli.cli.messages import Messages
from attncli.cli.output import check_output_path, render_options_for, write_output
from attncli.cli.progress import load_engine_with_message
from attncli.errors import AttnError, ExitStatus, OptionError
from attncli.output_formats import choose_output_format
from attncli.registry import parse_index
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.text import join_names, shorten

if TYPE_CHECKING:
    from attncli.explanation_pages import PageRequest

EXAMPLES = """
    attn explain tokens.csv cat
    attn explain tokens.csv cat --why
    attn explain tokens.csv cat --causal --at key=sat
    attn explain tokens.json 1 --variant multi-head --heads 2 --at head=1
    attn explain tokens.csv cat --blank weights,context -o worksheet.md
    attn explain tokens.csv cat --projection randn --blank weights --seeds 1..30 -o sheets
    attn explain tokens.csv cat --grad ones
"""
_MAX_SEEDS = 1000  # pages in one folder, and their keys


def explain(
    input: Annotated[
        str,
        typer.Argument(
            help="a file of embeddings, or of q, k and v; - is standard input", metavar="INPUT", show_default=False
        ),
    ],
    query: Annotated[
        str,
        typer.Argument(
            help="which query, by its token or its index; without one, the last", metavar="[QUERY]", show_default=False
        ),
    ] = "",
    *,
    why: Annotated[bool, typer.Option("--why", help="say why each step is taken")] = False,
    title: Annotated[
        str,
        typer.Option(
            "--title", help="the title of the page; without it, the query", metavar="TEXT", show_default=False
        ),
    ] = "",
    blank: Annotated[
        list[str] | None,
        typer.Option(
            "--blank",
            help="leave these steps blank, for a worksheet; exponentials: those of the softmax, too",
            metavar="STEP,…",
            rich_help_panel="Worksheet",
        ),
    ] = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="the same sheet with its gaps filled in", rich_help_panel="Worksheet")
    ] = False,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            help="a page for each seed, and its key, into the folder that -o names: 1..30, or 1,5,9",
            metavar="SEEDS",
            rich_help_panel="Worksheet",
        ),
    ] = None,
    grad: Annotated[
        str | None,
        typer.Option(
            "--grad",
            help="also go backwards: the gradient that arrives at the context is all ones, or a file's",
            metavar="ones|FILE",
            rich_help_panel="Gradient",
        ),
    ] = None,
    environment: Environment,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    output_options: OutputOptions,
) -> ExitStatus:
    """Explain one query: every multiplication from its vector to its context, step by step."""
    from attncli.explanation_pages import PageRequest

    blank_steps = tuple(step.strip() for text in blank or () for step in text.split(",") if step.strip())
    if answers and not blank_steps:
        raise OptionError("bad-option", "--answers prints the key of a worksheet", help="add --blank STEP,…")
    if blank_steps and grad is not None:
        raise OptionError("bad-option", "a worksheet covers the forward pass only", help="leave --grad out, or --blank")
    if seeds is not None and "seed" in variant_request.choices:
        raise OptionError("bad-option", "--seed and --seeds both name the seed", help="leave one of them out")
    if query:
        output_options = dataclasses.replace(output_options, at=(*output_options.at, f"query={query}"))
    request = PageRequest(blank_steps, answers, grad, _parse_seeds(seeds), has_reasons=why, title=title)
    return run_explain(environment, input, variant_request, read_options, output_options, request)


def _parse_seeds(text: str | None) -> tuple[int, ...]:
    """Parse `1..30`, the second included, or `1,5,9`.

    Raises:
        OptionError: they are no seeds, or too many.
    """
    if text is None:
        return ()
    first, dots, last = text.partition("..")
    numbers = [parse_index(word.strip()) for word in ((first, last) if dots else text.split(","))]
    seeds = [number for number in numbers if number is not None and 0 <= number < 2**64]
    if len(seeds) < len(numbers) or (dots and seeds[0] > seeds[1]):
        raise OptionError("bad-option", f"--seeds takes 1..30 or 1,5,9, not {shorten(text)!r}")
    count = seeds[1] - seeds[0] + 1 if dots else len(seeds)
    if count > _MAX_SEEDS:
        raise OptionError("bad-option", f"--seeds makes at most {_MAX_SEEDS} pages, not {count}")
    return tuple(range(seeds[0], seeds[1] + 1) if dots else dict.fromkeys(seeds))


def run_explain(
    environment: Environment,
    path: str,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    output_options: OutputOptions,
    request: PageRequest,
) -> ExitStatus:
    """Explain one query of one input and write the page, or a folder of pages: one for each seed and query.

    Args:
        environment: its streams.
        path: the input; `-` is standard input.
        variant_request: what to compute.
        read_options: how to read.
        output_options: which queries (`at`), and where and how to show them.
        request: what is left blank, gradients, and seeds.

    Raises:
        AttnError: anything that a user can put right.
    """
    from attncli.explanation_pages import plan_pages
    from attncli.step_names import require_step_name
    from attncli.views.explain import EXPONENTIALS, RENDERERS

    messages = Messages.from_options(environment, output_options)
    request = dataclasses.replace(request, check_words=_find_check_words(path, read_options, output_options, request))
    for name in request.blank_steps:
        if name not in ("all", "shown", EXPONENTIALS):
            require_step_name(name)
    if output_options.only or output_options.top:
        option = "--only" if output_options.only else "--top"
        raise OptionError(
            "bad-option", f"explain goes through every step, so it has no {option}", help="attn compute has it"
        )
    if output_options.bare or output_options.tidy:
        option = "--bare" if output_options.bare else "--tidy"
        raise OptionError(
            "bad-option", f"{option} is for results, but explain writes a page", help="attn compute has it"
        )
    if output_options.heat in ("on", "map") or output_options.normalize:
        option = "--normalize" if output_options.normalize else f"--heat {output_options.heat}"
        raise OptionError(
            "bad-option", f"{option} is for tables, but explain writes a page", help="attn compute has it"
        )
    folder = _choose_folder(output_options, request)
    if folder is None:
        check_output_path(output_options)
        format = choose_output_format(output_options.output, output_options.format)
    else:
        format = choose_output_format(None, output_options.format or "markdown")
    if format.name not in RENDERERS:
        raise OptionError("bad-option", f"explain writes {join_names(RENDERERS)}, not {format.name}")
    problem = read_problem(path, read_options, messages)
    try:
        pages = [
            plan_pages(problem, variant_request, output_options, request, seed) for seed in request.seeds or (None,)
        ]
    except AttnError as error:
        raise error.add_location(file=problem.source) if error.status == ExitStatus.INPUT else error from None
    if folder is not None:
        from attncli.cli.explanation_folder import write_page_folder

        return write_page_folder(environment, folder, pages, format, output_options, has_gaps=bool(request.blank_steps))
    [planned] = pages
    if len(planned.scopes) != 1:
        hint = f"--at query={planned.scopes[0].query}; or a page for each of them: -o FOLDER"
        raise OptionError("bad-option", "one query is explained at a time", help=hint)
    run_plan = load_engine_with_message(messages)
    render_options = render_options_for(environment, output_options)
    [[page]] = planned.render(
        run_plan, messages.warning, render_options, answers=(request.show_answers,), told_warnings=set()
    )
    write_output(environment, RENDERERS[format.name](page, render_options), output_options, format)
    query_count = planned.plan.size.queries
    if query_count > 1 and not any(which.startswith("query=") for which in output_options.at):
        choice = f"to choose another, add its token or index: attn explain {shorten(path)} 0"
        messages.note(f"this is the last of {query_count} queries; {choice}")
    return ExitStatus.OK


def _find_check_words(
    path: str, read_options: ReadOptions, output_options: OutputOptions, request: PageRequest
) -> tuple[str, ...]:
    """Return what stands in the command that marks a worksheet before what is computed: the input, how it is read, the sheet."""
    words = ["INPUT" if path == "-" else path]
    for name in ("input_format", "token_column", "columns", "drop", "header", "separator"):
        if (value := getattr(read_options, name)) is not None:
            words += [f"--{name.replace('_', '-')}", value]
    for pair in read_options.replacing:
        words += ["--with", pair]
    if read_options.state_dict is not None:
        words += ["--from-state-dict", read_options.state_dict]
    sheet = output_options.output if output_options.output and _choose_folder(output_options, request) is None else None
    return (*words, "--figures", sheet or "SHEET")


def _choose_folder(output_options: OutputOptions, request: PageRequest) -> Path | None:
    """Choose the folder of the pages, where there are to be several: for seeds, or for a range of queries.

    Raises:
        OptionError: there is none, or the keys are asked for beside it.
    """
    queries = [which.partition("=")[2] for which in output_options.at if which.startswith("query=")]
    has_several = bool(request.seeds) or len(queries) > 1 or any(":" in which for which in queries)
    if request.seeds and output_options.output is None:
        raise OptionError("bad-option", "the pages of several seeds go into a folder", help="-o FOLDER")
    if not has_several or output_options.output is None:
        return None
    if request.show_answers:
        raise OptionError("bad-option", "a folder of worksheets always gets their keys", help="leave --answers out")
    return Path(output_options.output)
