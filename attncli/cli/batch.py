"""`attn batch`: many inputs, resumable, here or on a cluster."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attncli.cli.compute import note_no_workers
from attncli.cli.environment import Environment
from attncli.cli.messages import Messages
from attncli.cli.options import parse_whole_number
from attncli.cli.output import check_output_path, standard_output_writer
from attncli.cli.progress import SECONDS_WITHOUT_BAR, has_progress
from attncli.errors import CannotError, ExitStatus, OptionError
from attncli.output_formats import (
    FIGURE_FORMATS,
    FORMAT_MODULES,
    FigureFormat,
    Format,
    choose_output_format,
    load_output_format,
    refuse_unused_shape,
)
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.text import pluralize, printable, shorten
from attncli.types import Json

if TYPE_CHECKING:
    from attncli.batch.inputs import Input
    from attncli.batch.run import BatchRun
    from attncli.batch.runner import BatchStats
    from attncli.views.progress import ProgressBar

EXAMPLES = """
    attn batch data/ -o results --causal
    attn batch 'data/**/*.csv' -o results --variant multi-head --heads 2 -j 4
    attn batch @list.txt problems.ndjson -o results --max-failures 5%
    attn batch data/*.csv -o - | jq .weights
    attn batch data/ -o all.parquet --only weights
    attn batch data/ -o results --plot svg
    attn batch s3://bucket/embeddings/ -o results --scheduler tcp://10.0.0.1:8786
"""
_PROGRESS_LINE_SECONDS = 10.0  # between two lines of progress, where there is no terminal


def batch(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="files, folders, 'globs', @lists of them, addresses such as s3://… or https://…; .ndjson holds one problem per line",
            metavar="INPUT...",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="the folder for results; - for JSON lines on standard output; all.parquet or .feather for one table",
            metavar="DIR|FILE",
            rich_help_panel="Batch",
        ),
    ] = None,
    jobs: Annotated[
        str | None,
        typer.Option(
            "--jobs",
            "-j",
            help="how many processes to use at most; as many as cores, where there is enough to do",
            metavar="N",
            rich_help_panel="Batch",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            help="compute on a Dask cluster: the address of its scheduler, or its scheduler file",
            metavar="ADDRESS|FILE",
            rich_help_panel="Batch",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="compute only the inputs that failed before", rich_help_panel="Batch")
    ] = False,
    keep_suffix: Annotated[
        bool, typer.Option("--keep-suffix", help="call the result of x.csv x.csv.json", rich_help_panel="Batch")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="stop at the first failure", rich_help_panel="Batch")
    ] = False,
    max_failures: Annotated[
        str | None,
        typer.Option(
            "--max-failures",
            help="stop when more inputs than this have failed",
            metavar="N|P%",
            rich_help_panel="Batch",
        ),
    ] = None,
    max_size: Annotated[
        str,
        typer.Option("--max-size", help="the most to read from one address", metavar="SIZE", rich_help_panel="Batch"),
    ] = "2GiB",
    max_time: Annotated[
        str,
        typer.Option("--max-time", help="the longest to wait for one address", metavar="TIME", rich_help_panel="Batch"),
    ] = "10m",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="say what would be computed, in about how long, and what would be refused",
            rich_help_panel="Batch",
        ),
    ] = False,
    plot: Annotated[
        FigureFormat | None,
        typer.Option(
            "--plot", help="also draw a figure beside each result, as attn plot does", rich_help_panel="Batch"
        ),
    ] = None,
    environment: Environment,
    variant_request: VariantRequest,
    read_options: ReadOptions,
    output_options: OutputOptions,
) -> ExitStatus:
    """Compute many inputs, each into its own file; run the same command again to resume."""
    from attncli.batch.address_limits import AddressLimits, parse_max_size, parse_max_time
    from attncli.batch.inputs import gather_inputs
    from attncli.batch.run import BatchCallbacks, BatchRun
    from attncli.batch.runner import parse_max_failures

    messages = Messages.from_options(environment, output_options)
    table_path = _parse_table_path(output, output_options)
    results_folder = _parse_results_folder(output) if table_path is None else None
    process_limit = _parse_jobs(jobs, scheduler)
    format = _choose_format(output_options, results_folder, table_path)
    refuse_unused_shape(
        format,
        bare=output_options.bare,
        tidy=output_options.tidy,
        standalone=output_options.standalone,
        heat=output_options.heat,
        normalize=output_options.normalize,
        shared_js=output_options.shared_js,
    )
    if plot is not None:
        _check_plot(plot, format, results_folder)
        output_options = replace(output_options, figure_format=plot)
    if format.require is not None:
        format.require()
    if not output_options.only:
        output_options = replace(output_options, only=format.default_steps)
    _check_options(output_options, fail_fast, max_failures)
    if results_folder is None:
        _check_options_without_folder(table_path, scheduler, retry_failed, dry_run)
    parse_max_failures(max_failures, 1)
    address_limits = AddressLimits(parse_max_size(max_size), parse_max_time(max_time))
    found, left_out_count = gather_inputs(
        inputs,
        result_suffix=format.suffixes[0] if format.suffixes else f".{format.name}",
        results_folder=results_folder,
        keep_suffix=keep_suffix,
        input_format=read_options.input_format,
        known_results=_find_known_results(inputs, results_folder),
    )
    if left_out_count:
        what = pluralize(left_out_count, "file or folder", "files and folders")
        messages.note(f"{what} left out: not in a readable format, not a regular file, or not readable")
    if table_path is not None:
        found = _leave_out_table(found, inputs, table_path)
    _check_streams(found, read_options, format, table_path, plot)
    from attncli.cli.dry_run import find_calibration, require_calibration, write_batch_dry_run

    calibration = require_calibration(environment, messages) if dry_run else find_calibration(environment)
    with _show_batch_progress(messages, output_options) as report_progress:
        batch_run = BatchRun(
            found,
            variant_request,
            read_options,
            output_options,
            format.name,
            process_count=min(process_limit, len(found)),
            scheduler=scheduler,
            max_failures="0" if fail_fast else max_failures,
            address_limits=address_limits,
            callbacks=BatchCallbacks(
                on_progress=report_progress,
                on_no_workers=lambda: note_no_workers(messages),
                on_interrupt=lambda: messages.write("finishing what is running; Ctrl-C again stops at once"),
            ),
            calibration=calibration,
        )
        if scheduler is None:
            batch_run = _choose_processes(batch_run, results_folder, is_asked=jobs is not None)
        if table_path is not None:
            stats, is_written = batch_run.run_to_table(table_path, format.name)
            rest = "the table holds the others" if is_written else f"{table_path} was not written"
            failures_hint = f"{rest}; correct them, and run the command again{' with --force' * is_written}"
        elif results_folder is None:
            stats = batch_run.run_to_lines(standard_output_writer(environment, format.console_errors))
            failures_hint = "their places hold the errors"
        elif dry_run:
            entries = batch_run.dry_run(results_folder, retry_failed=retry_failed)
            return write_batch_dry_run(
                environment,
                messages,
                entries,
                results_folder,
                calibration,
                process_count=batch_run.process_count,
                as_json=output_options.format == "json",
            )
        else:
            stats = batch_run.run_to_folder(results_folder, retry_failed=retry_failed)
            failures_hint = f"they are listed in {results_folder / 'failed.txt'}; the same command tries them again"
    _write_summary(messages, stats, failures_hint)
    if table_path is not None and not is_written and not stats.failed:
        messages.write(f"{printable(str(table_path))} was not written: a table is written whole or not at all")
    if stats.stop_reason == "interrupted" and stats.left_count:
        return ExitStatus.INTERRUPTED
    return ExitStatus.NO if stats.failed else ExitStatus.OK


# ── options ──────────────────────────────────────────────────────────────────────────────────────
def _parse_table_path(output: str | None, output_options: OutputOptions) -> Path | None:
    """The file of one table for all results: `-o all.parquet`; None: the output is a folder, or standard output.

    Raises:
        OptionError: the file exists, and `--force` was not given; or `--format` says another format.
        CannotError: its folder does not exist.
    """
    if output in (None, "", "-") or "://" in str(output) or str(output).endswith(("/", os.sep)):
        return None
    suffix = Path(str(output)).suffix.lower()
    named = next((name for name, (suffixes, _) in FORMAT_MODULES.items() if suffix in suffixes), None)
    if named is None or not load_output_format(named).is_table or Path(str(output)).is_dir():
        return None
    check_output_path(output_options)
    return Path(str(output))


def _leave_out_table(found: list[Input], arguments: Sequence[str], table_path: Path) -> list[Input]:
    """The inputs without the table itself, which may lie in a folder of inputs.

    Raises:
        OptionError: it is named as an input; or nothing else is found.
    """
    location = os.path.realpath(table_path)
    left = [input for input in found if "://" in input.path or os.path.realpath(input.path) != location]
    if len(left) < len(found) and (not left or any(os.path.realpath(name) == location for name in arguments)):
        message = f"the table would replace the input {table_path}"
        raise OptionError("name-clash", message, help="another name for the table: -o FILE")
    return left


def _parse_results_folder(output: str | None) -> Path | None:
    if output is None:
        raise OptionError("missing-option", "no output folder was given", help="-o DIR, or -o - for JSON lines")
    if output == "-":
        return None
    if not output:
        raise OptionError("bad-option", "-o is empty", help="-o DIR, or -o - for JSON lines")
    if "://" in output:
        raise OptionError("bad-option", f"results are written to a folder of this machine, not to {output}")
    folder = Path(output)
    try:
        folder.lstat()
    except FileNotFoundError:
        return folder  # it is made
    except (OSError, ValueError) as error:  # nothing can have that name, or it may not be looked at
        why = getattr(error, "strerror", None) or error
        raise CannotError("cannot-write", f"{shorten(output)} cannot be written: {why}", help="-o DIR") from None
    if not folder.exists():
        raise OptionError("bad-option", f"{output} is a broken link", help="results go to a folder: -o DIR")
    if not folder.is_dir():
        raise OptionError("output-exists", f"{output} is a file", help="results go to a folder: -o DIR")
    return folder


def _parse_jobs(text: str | None, scheduler: str | None) -> int:
    """How many processes may be used."""
    if text is None:
        from attncli.calibration import count_cores

        return 1 if scheduler is not None else count_cores()
    count = parse_whole_number("jobs", text, 1, 4096)
    if scheduler is not None and count != 1:
        raise OptionError(
            "bad-option",
            "--jobs and --scheduler contradict each other",
            help="leave --jobs out: the cluster has its own workers",
        )
    return count


def _choose_processes(batch_run: BatchRun, results_folder: Path | None, *, is_asked: bool) -> BatchRun:
    """Return the batch with as many processes as are worth their start, and the seconds that it is expected to take."""
    from attncli.batch.expected_time import choose_process_count

    calibration = batch_run.calibration
    seconds = batch_run.expect_seconds(results_folder)
    process_count = choose_process_count(batch_run.process_count, seconds, calibration, is_asked=is_asked)
    return replace(batch_run, process_count=process_count, expected_seconds=seconds / process_count + calibration.load)


def _choose_format(output_options: OutputOptions, results_folder: Path | None, table_path: Path | None) -> Format:
    if table_path is not None:
        return choose_output_format(str(table_path), output_options.format)
    format = choose_output_format("x", output_options.format or ("ndjson" if results_folder is None else "json"))
    if results_folder is None and format.name not in ("json", "ndjson"):
        raise OptionError(
            "bad-option", f"only JSON lines can be written to standard output, not {format.name}", help="-o DIR"
        )
    return choose_output_format("x", "ndjson") if results_folder is None else format


def _check_options(output_options: OutputOptions, fail_fast: bool, max_failures: str | None) -> None:
    from attncli.step_names import require_step_name

    for name in output_options.only:
        if name not in ("all", "shown"):
            require_step_name(name)
    if fail_fast and max_failures is not None:
        raise OptionError(
            "bad-option", "--fail-fast and --max-failures contradict each other", help="give only one of them"
        )


def _check_plot(name: str, format: Format, results_folder: Path | None) -> None:
    """Refuse `--plot` where there is no folder, results are figures themselves, or matplotlib is missing.

    Raises:
        OptionError, CannotError: so it is.
    """
    if results_folder is None:
        raise OptionError("bad-option", "--plot draws a figure beside each result, in a folder", help="-o DIR")
    if format.name in FIGURE_FORMATS:
        message = f"--plot {name} draws a figure beside each result, but here the results are figures themselves"
        raise OptionError("bad-option", message, help="leave --plot out, or --format")
    figure_format = load_output_format(name)
    assert figure_format.require is not None
    figure_format.require()


def _check_options_without_folder(
    table_path: Path | None, scheduler: str | None, retry_failed: bool, dry_run: bool
) -> None:
    """Refuse the options that need a folder of results, where there is standard output or one table."""
    target = "standard output" if table_path is None else "one table"
    if scheduler:
        message = f"the workers of a cluster write files into a folder that all of them see, not {target}"
        raise OptionError("bad-option", message, help="-o DIR")
    if retry_failed:
        raise OptionError("bad-option", f"{target} keeps no list of what failed", help="-o DIR")
    if dry_run:
        raise OptionError("bad-option", "--dry-run needs a folder for the results", help="-o DIR")


def _find_known_results(arguments: Sequence[str], results_folder: Path | None) -> Mapping[str, str]:
    """The results that the folder holds already, by input: a list may name inputs that were first found in another way."""
    from attncli.batch.manifest import Manifest

    if results_folder is None or not any(argument.startswith("@") for argument in arguments):
        return {}
    receipts = Manifest(results_folder).receipts.values()
    failed_last = sorted(receipts, key=lambda receipt: receipt.status == "failed")  # and so preferred
    return {receipt.input: receipt.result for receipt in failed_last}


def _check_streams(
    inputs: Sequence[Input], read_options: ReadOptions, format: Format, table_path: Path | None, plot: str | None
) -> None:
    """Refuse what does not go with JSON lines, if some input is of them."""
    stream = next((input for input in inputs if input.is_stream), None)
    if stream is None:
        return
    if format.name not in ("json", "ndjson") and table_path is None:
        message = f"the results of {stream.display_name} are JSON lines, not {format.name}"
        hint = "--format ndjson, or one table of all results: -o all.parquet"
        raise OptionError("bad-option", message, help=hint)
    if plot is not None:
        message = f"{stream.display_name} holds one problem per line, but --plot draws one figure per file"
        raise OptionError("bad-option", message, help="leave --plot out, or write each problem to its own file")
    if read_options.is_for_one_problem:
        message = f"--with, --from-state-dict, --token-column, --columns, --drop and --header cannot be used with {stream.display_name}, a stream of problems"
        raise OptionError("bad-option", message)


# ── what is shown ────────────────────────────────────────────────────────────────────────────────
def _write_summary(messages: Messages, stats: BatchStats, failures_hint: str) -> None:
    """Write what the batch came to, for people or for programs."""
    if messages.error_format == "json":
        _write_json_summary(messages, stats)
        return
    for code, count in stats.warning_counts.items():
        messages.warning(f"{code}: in {pluralize(count, 'result')}")
    for code, (first, count) in sorted(stats.causes.items(), key=lambda cause: -cause[1].input_count):
        code_text = messages.apply_style(f"failed[{code}]", "31;1")
        more = f", and {count - 1} more" if count > 1 else ""
        message = str((first.error or {}).get("message"))
        where = printable(shorten(first.input) + _format_location(first.error or {}))
        messages.write(f"{code_text}: {where}{more}: {printable(message)}")
    if stats.stop_reason and stats.left_count:
        messages.write(f"stopped: {stats.stop_reason}; {pluralize(stats.left_count, 'input')} left")
    if messages.quiet:
        return
    counts = [f"{stats.done} done", f"{stats.failed} failed"]
    if stats.skipped:
        counts.append(f"{stats.skipped} skipped")
    speed = f"; {stats.rate_text}" if stats.done + stats.failed else ""
    messages.write(", ".join(counts) + speed)
    if stats.failed:
        messages.write(messages.apply_style(f"  = help: {printable(failures_hint)}", "2"))


def _format_location(error: Json) -> str:
    """`:6:8`, line and column of an error in its file, as far as they are known."""
    place = error.get("location") or {}
    return "".join(f":{place[name]}" for name in ("row", "column") if name in place)


def _write_json_summary(messages: Messages, stats: BatchStats) -> None:
    """Write each cause of failures, then the summary, each as a line of JSON."""
    for first, count in stats.causes.values():
        messages.write(json.dumps({**(first.error or {}), "input": first.input, "count": count}))
    summary = {
        "type": "summary",
        "done": stats.done,
        "failed": stats.failed,
        "skipped": stats.skipped,
        "left": stats.left_count,
        "causes": {code: cause.input_count for code, cause in stats.causes.items()},
        "warnings": stats.warning_counts,
        "per_second": round(stats.problems_per_second, 3),
    }
    if stats.stop_reason:
        summary["stopped"] = stats.stop_reason
    messages.write(json.dumps(summary))


@contextmanager
def _show_batch_progress(messages: Messages, output_options: OutputOptions) -> Iterator[Callable[[BatchStats], None]]:
    """Show progress on standard error while the block runs: a bar on a terminal, elsewhere a line every so often."""
    if not has_progress(messages, output_options):
        yield lambda stats: None
        return
    environment = messages.environment
    is_terminal = environment.stderr_is_terminal
    bar: ProgressBar | None = None
    last_line_at: float | None = None

    def report_progress(stats: BatchStats) -> None:
        nonlocal bar, last_line_at
        now = time.monotonic()
        if is_terminal:
            if bar is None and now - stats.started_at > SECONDS_WITHOUT_BAR:
                from attncli.views.progress import open_batch_progress

                bar = open_batch_progress(
                    environment.stderr, environment.stderr_columns, stats.total, color=messages.color
                )
            if bar is not None:
                bar.update(stats.finished_count + stats.current_fraction, stats.progress_text())
        elif now - (last_line_at or stats.started_at) >= _PROGRESS_LINE_SECONDS and stats.left_count:
            last_line_at = now
            messages.write(f"{stats.finished_count} of {stats.total}; {stats.progress_text()}")

    try:
        yield report_progress
    finally:
        if bar is not None:
            bar.close()
