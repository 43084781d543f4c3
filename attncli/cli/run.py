"""From a path to a result on a stream or in a file: parse, check, compute, show; torch last. Every command that computes comes here."""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from attncli.atomic_file import atomic_write, to_bytes
from attncli.cli.messages import Messages, should_use_color
from attncli.errors import AttnError, CannotError, ExitStatus, OptionError, join_names
from attncli.output_formats import Content, Format, RenderOptions, choose_output_format
from attncli.pipeline import apply_selection, compute_stream, plan_request
from attncli.request import OutputOptions, ReadOptions, VariantRequest

if TYPE_CHECKING:
    from attncli.plan import Plan
    from attncli.select import Selection
    from attncli.types import Attention, Problem


def run_compute(
    path: str,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    output_options: OutputOptions,
    scheduler: str | None = None,
) -> ExitStatus:
    """One input, or a stream of them, through to its output; the tiles of a long one on a cluster, if one is named."""
    from attncli.plan.schedule import matrix_steps
    from attncli.plan.steps import require_step_name
    from attncli.readers import find_reader

    talk = Messages(error_format=output_options.error_format, color=output_options.color, quiet=output_options.quiet)
    for name in output_options.only:
        if name != "all":
            require_step_name(name)
    check_output_path(output_options)
    source = find_reader(path, read_options.input_format)
    if source.is_stream and scheduler:
        way = "attn batch computes many problems on a cluster"
        raise OptionError("bad-option", "--scheduler is for one long problem, not for a stream of them", help=way)
    if source.is_stream:
        return _run_stream(path, variant_request, read_options, output_options, talk)
    format = choose_output_format(output_options.output, output_options.format)
    problem = read_problem(path, read_options, talk)
    made, at = plan_request(problem, variant_request, output_options, streamed=format.stream_writer is not None)
    if format.stream_writer and made.tile_size and matrix_steps(made) and not {*at} - {"query"}:
        if scheduler is None:
            load_engine_with_message(talk)  # what may be refused is, before a file is begun
        with open_output_file(output_options) as file:
            attention = format.stream_writer(
                file, made, lambda place: compute_plan(made, at, output_options, talk, place, scheduler)
            )
    else:
        attention = format.widen_dtype(compute_plan(made, at, output_options, talk, scheduler=scheduler))
        write_output(format.write(attention, render_options_for(output_options)), output_options, format)
    for warning in attention.warnings:
        talk.warning(warning)
    return ExitStatus.OK


def read_problem(path: str, read_options: ReadOptions, messages: Messages) -> Problem:
    """One input, as it was asked to be read; what a reader had to find out is said."""
    from attncli.readers import read

    problem = read(
        path,
        read_options.input_format,
        replacing=read_options.replacing,
        token_column=read_options.token_column,
        header=read_options.header,
    )
    for note in problem.notes:
        messages.note(note)
    return problem


def compute_plan(
    plan: Plan,
    selection: Selection,
    output_options: OutputOptions,
    messages: Messages,
    allocate: object = None,
    scheduler: str | None = None,
) -> Attention:
    """A plan followed, with a bar where it is long, and the part that was chosen of what it makes."""
    with _open_tile_executor(scheduler, plan, messages) as hands:
        follow = load_engine_with_message(messages)
        with show_progress(output_options, messages, plan.axis_length("scores", "query")) as tell:
            result = follow(plan, tell, allocate, hands)
    return apply_selection(result, plan, selection)


@contextmanager
def _open_tile_executor(scheduler: str | None, plan: Plan, messages: Messages) -> Iterator[object]:
    """Who takes the tiles: the workers of a cluster, if one is named; None: this process."""
    if scheduler is None:
        yield None
        return
    from attncli.batch.dask_cluster import TaskPool, connect_to_scheduler
    from attncli.batch.remote_tiles import DaskWorkerPool

    with connect_to_scheduler(scheduler) as client:
        if not plan.tile_size:
            messages.note("this is one tile: it is computed here, and not on the cluster")
            yield None
            return
        load_engine_with_message(messages)
        from attncli.core.remote import attend_remotely

        tasks = TaskPool(
            client, plan.variant.device, lambda: messages.note("the cluster has no workers; waiting for some")
        )
        yield functools.partial(attend_remotely, DaskWorkerPool(tasks))


def run_explain(
    path: str,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    output_options: OutputOptions,
    *,
    blank_steps: tuple[str, ...],
    show_answers: bool,
    gradient_source: str | None,
) -> ExitStatus:
    """One query of one input, worked on a page."""
    from attncli.derivation import recording_intermediates
    from attncli.plan import finish_plan, outline_plan
    from attncli.plan.steps import require_step_name, resolve_keep
    from attncli.select import resolve_selection
    from attncli.views.board import RENDERERS, Worksheet, render_page
    from attncli.views.explain import Focus, explain_query

    talk = Messages(error_format=output_options.error_format, color=output_options.color, quiet=output_options.quiet)
    for name in blank_steps:
        if name not in ("all", "shown"):
            require_step_name(name)
    if output_options.only or output_options.top:
        said = "--only" if output_options.only else "--top"
        raise OptionError(
            "bad-option", f"explain goes through every step, and has no {said}", help="attn compute has it"
        )
    check_output_path(output_options)
    format = choose_output_format(output_options.output, output_options.format)
    if format.name not in RENDERERS:
        raise OptionError("bad-option", f"explain writes {join_names(RENDERERS)}, not {format.name}")
    problem = read_problem(path, read_options, talk)
    try:
        made = outline_plan(problem, variant_request.resolve_variant(problem.variant).replace(schedule="dense"))
        batch = (
            ["batch=0"]
            if made.size.batch is not None and not any(w.startswith("batch=") for w in output_options.at)
            else []
        )
        at = resolve_selection(dataclasses.replace(made, keep=frozenset({"weights"})), (*batch, *output_options.at))
        gaps = frozenset(resolve_keep(blank_steps, made.steps, None))
        upstream = _read_upstream_gradient(gradient_source, made)
        last = (made.size.queries - 1,)
        made = finish_plan(made, {"query": at.get("query", last)} if upstream is None else None)
    except AttnError as error:
        raise error.add_location(file=problem.source) if error.status == ExitStatus.INPUT else error from None
    for axis in ("query", "batch"):
        if len(at.get(axis, (0,))) != 1:
            raise OptionError("bad-option", f"one {axis} is explained at a time", help=f"--at {axis}={at[axis][0]}")
    merged = {"head_context", "normed_context", "context"}
    gaps |= merged & set(made.steps) if gaps & merged else set()  # they say the same
    heads = (
        tuple(range(made.shapes.heads)) if gaps & merged else (0,)
    )  # so that the working of every gap is on the sheet
    place = Focus(
        query=at.get("query", last)[0],
        batch=at.get("batch", (0,))[0],
        heads=at.get("head", heads),
        keys=at.get("key"),
        blank_steps=gaps,
        full=output_options.full,
    )
    run = load_engine_with_message(talk)
    with recording_intermediates():
        attention, gradients = (run(made), None) if upstream is None else _compute_gradients(made, upstream)
    for warning in attention.warnings:
        talk.warning(warning)
    board = explain_query(made, attention, place, gradients)
    page = render_page(
        board,
        render_options_for(output_options),
        Worksheet(gaps, show_answers),
        attention.dtype,
        full=output_options.full,
    )
    if gaps and not page.formatter.gap_numbers:
        raise OptionError(
            "bad-option", f"this page shows no number of {join_names(gaps)}, so there is nothing to leave blank"
        )
    write_output(RENDERERS[format.name](page, render_options_for(output_options)), output_options, format)
    return ExitStatus.OK


def _read_upstream_gradient(gradient_source: str | None, plan: Plan) -> object:
    """The gradient that arrives at the context: ones, or what a file holds.

    Raises:
        InputError: there is no context, or the file holds another shape.
    """
    from attncli.errors import InputError
    from attncli.readers.with_field import read_single_array

    if gradient_source is None:
        return None
    if "context" not in plan.steps:
        raise InputError("absent-step", "without values there is no context, and nothing to go back from")
    if gradient_source == "ones":
        return 1.0
    if not Path(gradient_source).suffix and not Path(gradient_source).exists():
        raise OptionError("bad-option", f"--grad takes ones or a file, not {gradient_source!r}")
    shape = tuple(plan.axis_length("context", axis) for axis in plan.steps["context"])
    found = read_single_array(gradient_source)
    if tuple(found.shape) != shape:
        message = f"the gradient is {tuple(found.shape)}, and the context {shape}"
        raise InputError(
            "shape-mismatch", message, help="--grad ones, or a gradient of the context's shape"
        ).add_location(file=gradient_source)
    return found


def _compute_gradients(plan: Plan, upstream_gradient: object) -> Any:
    from attncli.core.gradients import run_plan_with_gradients

    return run_plan_with_gradients(plan, upstream_gradient)


def load_engine_with_message(messages: Messages) -> Callable[..., Attention]:
    """The algebra, and on a terminal a word while it loads."""
    import attncli.pipeline

    waiting = attncli.pipeline._loaded_engine is None and sys.stderr.isatty() and not messages.quiet
    if waiting:
        print("loading torch…", end="\r", file=sys.stderr, flush=True)
    try:
        return attncli.pipeline.load_engine()
    finally:
        if waiting:
            print("\x1b[2K", end="\r", file=sys.stderr, flush=True)


@contextmanager
def show_progress(
    output_options: OutputOptions, messages: Messages, row_count: int = 0
) -> Iterator[Callable[..., None] | None]:
    """Something to tell how much is done, on a terminal; what takes less than a second shows nothing."""
    if messages.quiet or not output_options.progress or messages.error_format != "full" or not sys.stderr.isatty():
        yield None
        return
    started, bar = time.monotonic(), None

    def report_progress(fraction: float, activity: str = "attending") -> None:
        nonlocal bar
        if bar is None and time.monotonic() - started > 1 and fraction < 1:
            from attncli.views.progress import ComputeProgressBar

            bar = ComputeProgressBar(messages.color, started, row_count)
        if bar is not None:
            bar.update(fraction, activity)

    try:
        yield report_progress
    finally:
        if bar is not None:
            bar.close()


# ── streams ──────────────────────────────────────────────────────────────────────────────────────
def _run_stream(
    path: str,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    output_options: OutputOptions,
    messages: Messages,
) -> ExitStatus:
    """A problem a line in, a result or an error a line out, each at once; a bad line does not stop the others."""
    from attncli.readers import read_lines
    from attncli.readers.json import read_json_lines

    format = choose_output_format(output_options.output, output_options.format, default="ndjson")
    if format.name not in ("ndjson", "json"):
        raise OptionError(
            "bad-option", f"a stream of problems is answered with JSON lines, not {format.name}", help="--format ndjson"
        )
    if read_options.replacing or read_options.token_column or read_options.header:
        raise OptionError("bad-option", "--with, --token-column and --header do not go with a stream of problems")
    status = ExitStatus.OK
    incoming = read_json_lines(read_lines(path), "<stdin>" if path == "-" else path)
    with open_output(output_options, format) as out:
        for line, wrong in compute_stream(incoming, variant_request, output_options):
            status = ExitStatus.NO if wrong else status
            out(line)
    return status


# ── output ───────────────────────────────────────────────────────────────────────────────────────
def render_options_for(output_options: OutputOptions) -> RenderOptions:
    """How standard output, or a file, is to be written to."""
    here = output_options.output is None and sys.stdout is not None
    screen = here and sys.stdout.isatty()
    color = here and should_use_color(sys.stdout, output_options.color)
    width = None
    if screen and not output_options.full:
        import shutil

        width = shutil.get_terminal_size().columns
    unicode = output_options.output is not None or (
        getattr(sys.stdout, "encoding", None) or "utf-8"
    ).lower().startswith("utf")
    return RenderOptions(
        is_terminal=screen,
        precision=output_options.precision,
        width=width,
        color=color,
        heat=output_options.heat == "on" or (output_options.heat == "auto" and color),
        has_unicode=unicode,
    )


def check_output_path(output_options: OutputOptions) -> None:
    """What is wrong with the output whatever is computed: it exists, or cannot be made.

    Raises:
        OptionError: the file exists, and --force was not said; or its suffix says no format.
        CannotError: its folder does not exist.
    """
    choose_output_format(output_options.output, output_options.format)
    if output_options.output is None:
        return
    path = Path(output_options.output)
    try:
        exists, folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise CannotError(
            "cannot-write", f"{path} cannot be written: {getattr(error, 'strerror', None) or error}"
        ) from None
    if folder:
        raise OptionError("output-exists", f"{path} is a folder", help="name a file")
    if exists and path.is_file() and not output_options.force:
        raise OptionError("output-exists", f"{path} exists", help="--force replaces it")
    if not path.parent.is_dir():
        raise CannotError("cannot-write", f"there is no folder {path.parent}", help=f"mkdir -p {path.parent}")


def write_output(content: Content, output_options: OutputOptions, format: Format) -> None:
    """A whole result, to standard output or to its file."""
    if (
        isinstance(content, str)
        and output_options.output is None
        and format.name == "json"
        and render_options_for(output_options).color
        and render_options_for(output_options).width
    ):
        from attncli.views.json_color import colorize_json

        content = colorize_json(content)
    with open_output(output_options, format) as out:
        for piece in [content] if isinstance(content, str | bytes) else content:
            out(piece)


@contextmanager
def open_output(output_options: OutputOptions, format: Format) -> Iterator[Callable[[str | bytes | memoryview], None]]:
    """Where output goes: standard output, flushed at each call; or a file that appears whole or not at all.

    Raises:
        CannotError: the disk is full, or may not be written to.
    """
    if output_options.output is None:
        yield standard_output_writer(format)
        return
    with open_output_file(output_options) as file:
        yield _content_writer(file)


@contextmanager
def open_output_file(output_options: OutputOptions) -> Iterator[IO[bytes]]:
    """The output file while it is being made: it appears whole or not at all.

    Raises:
        CannotError: the disk is full, or may not be written to.
    """
    path = Path(str(output_options.output))
    there = path if path.exists() and not path.is_file() else path.resolve()  # a link stays a link
    with atomic_write(there, str(output_options.output)) as file:
        yield file


def standard_output_writer(format: Format) -> Callable[[str | bytes | memoryview], None]:
    """Flushed at each call. Data is UTF-8, or JSON in escapes, whatever the console; what people read is spelled for it."""
    if sys.stdout is None:
        raise CannotError("cannot-write", "standard output is closed")
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    raw = (
        None
        if encoding.lower().startswith("utf") or format.console_errors == "attn"
        else getattr(sys.stdout, "buffer", None)
    )

    def write(content: str | bytes | memoryview) -> None:
        if raw is None:
            sys.stdout.write(str(content))
        else:
            utf8 = format.console_errors == "utf-8"
            raw.write(
                str(content).encode("utf-8" if utf8 else encoding, "surrogatepass" if utf8 else format.console_errors)
            )
        sys.stdout.flush()

    return write


def _content_writer(file: IO[bytes]) -> Callable[[str | bytes | memoryview], None]:
    def write(content: str | bytes | memoryview) -> None:
        file.write(content if isinstance(content, memoryview) else to_bytes(content))

    return write
