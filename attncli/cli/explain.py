"""`attn explain`: one query, every multiplication."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attncli.cli.environment import Environment
from attncli.cli.input import file_mode, read_problem
from attncli.cli.messages import Messages
from attncli.cli.output import check_output_path, render_options_for, write_output
from attncli.cli.progress import load_engine_with_message
from attncli.errors import AttnError, ExitStatus, InputError, OptionError
from attncli.output_formats import choose_output_format
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.text import join_names

if TYPE_CHECKING:
    from attncli.plan import Plan
    from attncli.select import Selection
    from attncli.types import Problem

EXAMPLES = """
    attn explain tokens.csv cat
    attn explain tokens.csv cat --causal --at key=sat
    attn explain tokens.json 1 --variant multi-head --heads 2 --at head=1
    attn explain tokens.csv cat --blank weights,context -o worksheet.md
    attn explain tokens.csv cat --grad ones
"""
_MERGED_STEPS = {"head_context", "normed_context", "context"}  # they hold the same numbers: blank together


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
    blank: Annotated[
        list[str] | None,
        typer.Option(
            "--blank", help="leave these steps blank, for a worksheet", metavar="STEP,…", rich_help_panel="Worksheet"
        ),
    ] = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="the same sheet with its gaps filled in", rich_help_panel="Worksheet")
    ] = False,
    grad: Annotated[
        str | None,
        typer.Option(
            "--grad",
            help="go back too: the gradient that arrives at the context is all ones, or a file's",
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
    blank_steps = tuple(step.strip() for text in blank or () for step in text.split(",") if step.strip())
    if answers and not blank_steps:
        raise OptionError("bad-option", "--answers prints the key of a worksheet", help="add --blank STEP,…")
    if blank_steps and grad is not None:
        raise OptionError("bad-option", "a worksheet goes forwards only", help="leave --grad out, or --blank")
    if query:
        output_options = dataclasses.replace(output_options, at=(*output_options.at, f"query={query}"))
    return run_explain(
        environment,
        input,
        variant_request,
        read_options,
        output_options,
        blank_steps=blank_steps,
        show_answers=answers,
        gradient_source=grad,
    )


def run_explain(
    environment: Environment,
    path: str,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    output_options: OutputOptions,
    *,
    blank_steps: tuple[str, ...],
    show_answers: bool,
    gradient_source: str | None,
) -> ExitStatus:
    """Explain one query of one input, and write the page.

    Args:
        environment: its streams.
        path: the input; `-` is standard input.
        variant_request: what to compute.
        read_options: how to read.
        output_options: which query (`at`), and where and how to show it.
        blank_steps: steps whose numbers are gaps of a worksheet; `all` and `shown` stand for several.
        show_answers: whether the gaps are filled in.
        gradient_source: the gradient of the context: `ones` or a file; None: there is no way back.

    Raises:
        AttnError: anything that a user can put right.
    """
    from attncli.derivation import recording_intermediates
    from attncli.plan.steps import require_step_name
    from attncli.views.explain import RENDERERS, ExplanationScope, Worksheet, explain_query, render_page

    messages = Messages.from_options(environment, output_options)
    for name in blank_steps:
        if name not in ("all", "shown"):
            require_step_name(name)
    if output_options.only or output_options.top:
        option = "--only" if output_options.only else "--top"
        raise OptionError(
            "bad-option", f"explain goes through every step, and has no {option}", help="attn compute has it"
        )
    if output_options.bare or output_options.tidy:
        option = "--bare" if output_options.bare else "--tidy"
        raise OptionError(
            "bad-option", f"{option} is for results, and explain writes a page", help="attn compute has it"
        )
    check_output_path(output_options)
    format = choose_output_format(output_options.output, output_options.format)
    if format.name not in RENDERERS:
        raise OptionError("bad-option", f"explain writes {join_names(RENDERERS)}, not {format.name}")
    problem = read_problem(path, read_options, messages)
    try:
        plan, selection, gaps, upstream_gradient = _plan_explanation(
            problem, variant_request, output_options, blank_steps, gradient_source
        )
    except AttnError as error:
        raise error.add_location(file=problem.source) if error.status == ExitStatus.INPUT else error from None
    for axis in ("query", "batch"):
        indices = selection.get(axis, (0,))
        if len(indices) != 1:
            raise OptionError("bad-option", f"one {axis} is explained at a time", help=f"--at {axis}={indices[0]}")
    if gaps & _MERGED_STEPS:
        gaps |= _MERGED_STEPS & set(plan.steps)
    heads = range(plan.shapes.heads) if gaps & _MERGED_STEPS else (0,)  # the working of every gap is on the sheet
    focus = ExplanationScope(
        query=selection.get("query", (plan.size.queries - 1,))[0],
        batch=selection.get("batch", (0,))[0],
        heads=selection.get("head", tuple(heads)),
        keys=selection.get("key"),
        blank_steps=gaps,
        full=output_options.full,
    )
    run_plan = load_engine_with_message(messages)
    with recording_intermediates():
        if upstream_gradient is None:
            attention, gradients = run_plan(plan), None
        else:
            from attncli.core.gradients import run_plan_with_gradients

            attention, gradients = run_plan_with_gradients(plan, upstream_gradient)
    for warning in attention.warnings:
        messages.warning(warning)
    render_options = render_options_for(environment, output_options)
    page = render_page(
        explain_query(plan, attention, focus, gradients),
        render_options,
        Worksheet(gaps, show_answers),
        attention.dtype,
        full=output_options.full,
    )
    if gaps and not page.formatter.gap_numbers:
        raise OptionError(
            "bad-option", f"this page shows no number of {join_names(gaps)}, so there is nothing to leave blank"
        )
    write_output(environment, RENDERERS[format.name](page, render_options), output_options, format)
    return ExitStatus.OK


def _plan_explanation(
    problem: Problem,
    variant_request: VariantRequest,
    output_options: OutputOptions,
    blank_steps: tuple[str, ...],
    gradient_source: str | None,
) -> tuple[Plan, Selection, frozenset[str], object]:
    """Plan the run that a page needs: (plan, what `--at` selects, steps to leave blank, gradient of the context).

    Without gradients only the query that is explained is computed.
    """
    from attncli.plan import finish_plan, outline_plan
    from attncli.plan.steps import resolve_keep
    from attncli.select import resolve_selection

    variant = variant_request.resolve_variant(problem.variant).replace(schedule="dense")
    plan = outline_plan(problem, variant)
    requests = output_options.at
    if plan.size.batch is not None and not any(request.startswith("batch=") for request in requests):
        requests = ("batch=0", *requests)
    selection = resolve_selection(dataclasses.replace(plan, keep=frozenset({"weights"})), requests)
    gaps = frozenset(resolve_keep(blank_steps, plan.steps, None))
    upstream_gradient = _read_upstream_gradient(gradient_source, plan)
    query = selection.get("query", (plan.size.queries - 1,))
    plan = finish_plan(plan, {"query": query} if upstream_gradient is None else None)
    return plan, selection, gaps, upstream_gradient


def _read_upstream_gradient(gradient_source: str | None, plan: Plan) -> object:
    """Read the gradient that arrives at the context: 1.0 for `ones`, or the array of a file.

    Raises:
        OptionError: it is neither `ones` nor a file.
        InputError: there is no context, or the file holds another shape.
    """
    from attncli.readers.with_field import read_single_array

    if gradient_source is None:
        return None
    if "context" not in plan.steps:
        raise InputError("absent-step", "without values there is no context, and nothing to go back from")
    if gradient_source == "ones":
        return 1.0
    if not Path(gradient_source).suffix and not file_mode(gradient_source):
        raise OptionError("bad-option", f"--grad takes ones or a file, not {gradient_source!r}")
    shape = tuple(plan.axis_length("context", axis) for axis in plan.steps["context"])
    gradient = read_single_array(gradient_source)
    if tuple(gradient.shape) != shape:
        message = f"the gradient is {tuple(gradient.shape)}, and the context {shape}"
        hint = "--grad ones, or a gradient of the context's shape"
        raise InputError("shape-mismatch", message, help=hint).add_location(file=gradient_source)
    return gradient
