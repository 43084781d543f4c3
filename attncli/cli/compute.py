"""`attn compute`: read, compute, show or write."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attncli.cli.environment import Environment
from attncli.cli.input import read_problem
from attncli.cli.messages import Messages
from attncli.cli.output import check_output_path, open_output, open_output_file, render_options_for, write_output
from attncli.cli.progress import load_engine_with_message, show_progress
from attncli.errors import AttnError, ExitStatus, InputError, OptionError
from attncli.output_formats import Format, choose_output_format
from attncli.pipeline import (
    add_workings,
    apply_selection,
    compute_each,
    compute_stream,
    plan_request,
    planned_shapes,
    refuse_too_many_numbers,
    too_many_numbers,
)
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.text import shorten

if TYPE_CHECKING:
    from attncli.core.attention import TileExecutor
    from attncli.core.recorder import StepAllocator
    from attncli.plan import Plan
    from attncli.readers import InputFile
    from attncli.select import Selection
    from attncli.types import Attention, Problem

EXAMPLES = """
    attn compute tokens.csv --causal
    attn compute tokens.json --variant multi-head --heads 2 --only weights,context
    attn compute tokens.csv --projection linear:dim=2 --seed 789 --json
    attn compute q.npz --mask 'causal and (window:left=2 or prefix:length=1)' -o out.npz
    attn compute x.npy --from-state-dict model.safetensors:model.layers.0.self_attn --variant llama2 --heads 32
    attn compute long.safetensors --causal --dry-run
    attn compute long.safetensors --causal -o context.safetensors --scheduler tcp://10.0.0.1:8786
    attn compute - --input-format ndjson < problems.ndjson
    attn compute q.csv --with k=k.csv --with v=v.csv
"""


def compute(
    input: Annotated[
        str,
        typer.Argument(
            help="a file of embeddings, or of q, k and v; - is standard input", metavar="INPUT", show_default=False
        ),
    ],
    *,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            help="compute a long problem on a Dask cluster: the address of its scheduler, or its scheduler file",
            metavar="ADDRESS|FILE",
            rich_help_panel="Cluster",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="say how it would be computed, with how much memory and in about how long",
            rich_help_panel="Output",
        ),
    ] = False,
    environment: Environment,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    output_options: OutputOptions,
) -> ExitStatus:
    """Compute attention: scores, softmax weights and context vectors, step by step."""
    return run_compute(environment, input, variant_request, read_options, output_options, scheduler, dry_run=dry_run)


def run_compute(
    environment: Environment,
    path: str,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    output_options: OutputOptions,
    scheduler: str | None = None,
    source: str | None = None,
    *,
    dry_run: bool = False,
) -> ExitStatus:
    """Compute one input, or a stream of them, and write the result.

    Args:
        environment: its streams.
        path: the input; `-` is standard input.
        variant_request: what to compute.
        read_options: how to read.
        output_options: which steps to show, and where and how.
        scheduler: the Dask scheduler whose workers compute the tiles of a long problem; None: this process does.
        source: the name of the input in the result, where it is not the path.
        dry_run: say what that would take, and compute nothing.

    Raises:
        AttnError: anything that a user can put right.
    """
    from attncli.readers import find_input
    from attncli.step_names import require_step_name

    messages = Messages.from_options(environment, output_options)
    for name in output_options.only:
        if name != "all":
            require_step_name(name)
    input_file = find_input(path, read_options.input_format)
    is_stream = input_file.reader.is_stream
    check_output_path(output_options, "ndjson" if is_stream else "table")
    if is_stream and scheduler:
        hint = "attn batch computes many problems on a cluster"
        raise OptionError("bad-option", "--scheduler is for one long problem, not for a stream of them", help=hint)
    if is_stream and dry_run:
        hint = f"attn batch {shorten(path)} -o DIR --dry-run" if path != "-" else "each line is computed as it comes in"
        raise OptionError("bad-option", "--dry-run is for one problem, not for a stream of them", help=hint)
    if is_stream:
        if input_file.note:
            messages.note(input_file.note)
        return _run_stream(environment, input_file, variant_request, read_options, output_options)
    format = choose_output_format(output_options.output, output_options.format)
    if format.require is not None:
        format.require()
    problem = read_problem(input_file, read_options, messages)
    if source is not None:
        problem = replace(problem, source=source)
    if dry_run:
        is_text = input_file.reader.is_text
        return _run_dry(environment, problem, format, variant_request, output_options, path if is_text else "")
    return run_problem(environment, problem, format, variant_request, output_options, scheduler)


def _with_default_steps(output_options: OutputOptions, format: Format) -> OutputOptions:
    """Return the options with the steps that a format writes where none are named."""
    return output_options if output_options.only else replace(output_options, only=format.default_steps)


def _plan_for_format(
    problem: Problem, variant_request: VariantRequest, output_options: OutputOptions, format: Format
) -> tuple[Plan, Selection]:
    """Plan a problem whose result is written in a format.

    Raises:
        OptionError, InputError, CannotError: what `plan_request` raises, or the format does not hold so many numbers.
    """
    plan, selection = plan_request(problem, variant_request, output_options, streamed=format.stream_writer is not None)
    refuse_too_many_numbers(plan, selection, format)
    return plan, selection


def _run_dry(
    environment: Environment,
    problem: Problem,
    format: Format,
    variant_request: VariantRequest,
    output_options: OutputOptions,
    text_path: str,
) -> ExitStatus:
    """Say what computing a problem would take; `text_path` is its file, where that is text."""
    from attncli.cli.dry_run import write_dry_run

    messages = Messages.from_options(environment, output_options)
    output_options = _with_default_steps(output_options, format)
    plan, selection = _plan_for_format(problem, variant_request, output_options, format)
    if format.check_shapes is not None:
        format.check_shapes(planned_shapes(plan, selection), render_options_for(environment, output_options))
    write_dry_run(
        environment,
        messages,
        plan,
        selection,
        format,
        read_bytes=Path(text_path).stat().st_size if text_path not in ("", "-") else 0,
        streamed=format.stream_writer is not None and bool(plan.tile_size),
        as_json=format.name in ("json", "ndjson") and output_options.output is None,
    )
    return ExitStatus.OK


def run_problem(
    environment: Environment,
    problem: Problem,
    format: Format,
    variant_request: VariantRequest,
    output_options: OutputOptions,
    scheduler: str | None = None,
) -> ExitStatus:
    """Compute a problem that has been read, and write the result; arguments and errors are those of `run_compute`."""
    from attncli.select import selects_only_queries

    messages = Messages.from_options(environment, output_options)
    output_options = _with_default_steps(output_options, format)
    plan, selection = _plan_for_format(problem, variant_request, output_options, format)
    if format.stream_writer and plan.tile_size and plan.matrix_steps and selects_only_queries(selection):
        if scheduler is None:
            load_engine_with_message(messages)  # what may be refused is refused before a file is begun
        with open_output_file(output_options) as file:
            attention = format.stream_writer(
                file,
                plan,
                lambda allocate: compute_plan(plan, selection, output_options, messages, allocate, scheduler),
            )
    else:
        render_options = render_options_for(environment, output_options)
        if format.check_shapes is not None:
            format.check_shapes(planned_shapes(plan, selection), render_options)
        attention = compute_plan(plan, selection, output_options, messages, scheduler=scheduler)
        attention = format.prepare_result(attention, render_options)
        if format.shows_workings:
            attention = add_workings(attention, plan, load_engine_with_message(messages))
        content = format.write(attention, render_options)
        write_output(environment, content, output_options, format)
    for warning in attention.warnings:
        messages.warning(warning)
    return ExitStatus.OK


def compute_plan(
    plan: Plan,
    selection: Selection,
    output_options: OutputOptions,
    messages: Messages,
    allocate: StepAllocator | None = None,
    scheduler: str | None = None,
) -> Attention:
    """Compute a plan, with a progress bar where it takes long, and select the part that was asked for.

    Args:
        plan: what to compute.
        selection: which part of it to return.
        output_options: `--no-progress`.
        messages: notes, and the terminal of the bar.
        allocate: where the values of a step are written to, if not to memory (`core.attention.run_plan`).
        scheduler: as in `run_compute`.
    """

    def expect_seconds() -> float:
        from attncli.calibration import Calibrations
        from attncli.plan.estimate import estimate_run

        calibration = None if scheduler else Calibrations(messages.environment.variables).read()
        return 0.0 if calibration is None else estimate_run(plan, calibration).seconds

    with _open_tile_executor(scheduler, plan, messages) as execute_tiles:
        run_plan = load_engine_with_message(messages)
        row_count = plan.axis_length("scores", "query")
        with show_progress(output_options, messages, row_count, expect_seconds) as report_progress:
            attention = run_plan(plan, report_progress, allocate, execute_tiles)
    return apply_selection(attention, plan, selection)


@contextmanager
def _open_tile_executor(scheduler: str | None, plan: Plan, messages: Messages) -> Iterator[TileExecutor | None]:
    """Connect to the cluster that computes the tiles, if one is named; None: this process computes them."""
    if scheduler is None:
        yield None
        return
    from attncli.batch.dask_cluster import DaskTaskPool, connect_to_scheduler
    from attncli.batch.remote_tiles import DaskWorkerPool, SentTask

    with connect_to_scheduler(scheduler) as client:
        if not plan.tile_size:
            messages.note("the problem is a single tile, so it is computed here and not on the cluster")
            yield None
            return
        load_engine_with_message(messages)
        from attncli.core.remote import BlockResult, attend_remotely

        task_pool: DaskTaskPool[SentTask, BlockResult | None] = DaskTaskPool(
            client, plan.variant.device, lambda: note_no_workers(messages)
        )
        yield functools.partial(attend_remotely, DaskWorkerPool(task_pool))


def note_no_workers(messages: Messages) -> None:
    """Note that the cluster has no workers yet."""
    messages.note("the cluster has no workers yet; waiting for one")


def _run_stream(
    environment: Environment,
    input_file: InputFile,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    output_options: OutputOptions,
) -> ExitStatus:
    """Compute a stream of JSON lines: a result or an error for each line, at once; a bad line does not stop the others."""
    from attncli.readers.json import read_json_lines

    format = choose_output_format(output_options.output, output_options.format, default="ndjson")
    if format.name not in ("ndjson", "json") and format.write_layers is None:
        hint = "--format ndjson" if output_options.output is None else "-o FILE.ndjson"
        if format.is_table and input_file.path != "-":
            hint = f"attn batch {shorten(input_file.path)} -o {shorten(str(output_options.output))} makes one table of them"
        raise OptionError(
            "bad-option", f"the results of a stream of problems are JSON lines, not {format.name}", help=hint
        )
    if read_options.is_for_one_problem:
        raise OptionError(
            "bad-option",
            "--with, --from-state-dict, --token-column, --columns, --drop, --header and --separator cannot be used with a stream of problems",
        )
    lines = input_file.read_lines()
    problems = read_json_lines(lines, input_file.display_name)
    if format.write_layers is not None:
        return _write_layers(environment, problems, variant_request, output_options, format)
    status = ExitStatus.OK
    with open_output(environment, output_options, format) as write:
        for line, error in compute_stream(problems, variant_request, output_options, has_arrived=lines.has_arrived):
            if error is not None:
                status = ExitStatus.NO
            write(line)
    return status


def _write_layers(
    environment: Environment,
    problems: Iterator[tuple[int, Problem | AttnError]],
    variant_request: VariantRequest,
    output_options: OutputOptions,
    format: Format,
) -> ExitStatus:
    """Compute a stream of problems into one document, which holds all of them or is not written.

    Raises:
        AttnError: of the first line that cannot be computed, or there is no line.
    """
    assert format.write_layers is not None
    messages = Messages.from_options(environment, output_options)
    load_engine_with_message(messages)
    layers: list[tuple[str, Attention]] = []
    number_count = 0
    for answer in compute_each(problems, variant_request, output_options, format=format):
        if isinstance(answer, AttnError):
            raise answer
        number_count += sum(math.prod(step.values.shape) for step in answer)
        if format.max_numbers is not None and number_count > format.max_numbers:
            raise too_many_numbers(format, number_count)
        layers.append((f"line {answer.line}" if answer.id is None else str(answer.id), answer))
    if not layers:
        raise InputError("empty", "there is no problem in this stream")
    content = format.write_layers(layers, render_options_for(environment, output_options))
    write_output(environment, content, output_options, format)
    for warning in dict.fromkeys(warning for _, attention in layers for warning in attention.warnings):
        messages.warning(warning)
    return ExitStatus.OK
