"""`attn batch`: many inputs, resumable, here or on a cluster."""

from __future__ import annotations

import dataclasses
import json
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from attncli.cli.messages import Messages
from attncli.cli.run import standard_output_writer
from attncli.errors import AttnError, ExitStatus, OptionError, pluralize, printable, shorten
from attncli.output_formats import Format, choose_output_format
from attncli.request import OutputOptions, ReadOptions, VariantRequest

if TYPE_CHECKING:
    from attncli.batch.executors import Executor
    from attncli.batch.inputs import Input
    from attncli.batch.job import BytesWriter, Job
    from attncli.batch.manifest import Manifest, Receipt
    from attncli.batch.runner import BatchStats
    from attncli.views.tally import BatchProgressBar

EXAMPLES = """
    attn batch data/ -o results --causal
    attn batch 'data/**/*.csv' -o results --variant multi-head --heads 2 -j 4
    attn batch @list.txt problems.ndjson -o results --max-failures 5%
    attn batch data/*.csv -o - | jq .weights
    attn batch s3://bucket/embeddings/ -o results --scheduler tcp://10.0.0.1:8786
"""
_LineProgressCallback = Callable[..., None]  # of the file at hand: lines done, of which wrong; how much of it
_PROGRESS_LINE_SECONDS = 10.0  # seconds between two lines of progress, where there is no terminal


def batch(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="files, folders, 'globs', @lists of them, addresses as s3://… or https://…; .ndjson holds a problem a line",
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
            help="the folder of the results, manifest.ndjson and failed.txt; - is standard output, as JSON lines",
            metavar="DIR",
            rich_help_panel="Batch",
        ),
    ] = None,
    jobs: Annotated[
        str, typer.Option("--jobs", "-j", help="how many processes compute", metavar="N", rich_help_panel="Batch")
    ] = "1",
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            help="the workers of a Dask cluster compute: its address, or its scheduler file",
            metavar="ADDRESS|FILE",
            rich_help_panel="Batch",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="only those that failed before", rich_help_panel="Batch")
    ] = False,
    keep_suffix: Annotated[
        bool, typer.Option("--keep-suffix", help="the result of x.csv is x.csv.json", rich_help_panel="Batch")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="stop at the first failure", rich_help_panel="Batch")
    ] = False,
    max_failures: Annotated[
        str | None,
        typer.Option(
            "--max-failures", help="stop when more than so many have failed", metavar="N|P%", rich_help_panel="Batch"
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="say what would be done, and what would be refused", rich_help_panel="Batch"),
    ] = False,
    choosing: VariantRequest,
    reading: ReadOptions,
    showing: OutputOptions,
) -> ExitStatus:
    """Compute many inputs, each into its own file; the same command again goes on where it stopped."""
    from attncli.batch.inputs import gather_inputs
    from attncli.batch.manifest import Manifest
    from attncli.batch.runner import parse_max_failures

    talk = Messages(error_format=showing.error_format, color=showing.color, quiet=showing.quiet)
    folder = _parse_results_folder(output)
    count = _parse_jobs(jobs, scheduler)
    format = _choose_format(showing, folder)
    _check_options(showing, scheduler, folder, fail_fast, max_failures, retry_failed, dry_run)
    parse_max_failures(max_failures, 1)
    suffix = ("." + format.name) if not format.suffixes else format.suffixes[0]
    known: dict[str, str] = {}
    if folder is not None and any(
        word.startswith("@") for word in inputs
    ):  # what a list names may have its result there
        receipts = sorted(Manifest(folder).receipts.values(), key=lambda receipt: receipt.status == "failed")
        known = {receipt.input: receipt.result for receipt in receipts}
    found, left_out = gather_inputs(
        inputs,
        result_suffix=suffix,
        results_folder=folder,
        keep_suffix=keep_suffix,
        input_format=reading.input_format,
        known_results=known,
    )
    if left_out:
        what = pluralize(left_out, "file or folder", "files and folders")
        talk.note(f"{what} left out: in no format we read, no regular file, or not to be read")
    streams = next((one for one in found if one.is_stream), None)
    if streams and format.name not in ("json", "ndjson"):
        message = f"{streams.display_name} is answered with JSON lines, not {format.name}"
        raise OptionError("bad-option", message, help="--format ndjson, or leave it out of this batch")
    if streams and (reading.replacing or reading.token_column or reading.header):
        message = f"--with, --token-column and --header do not go with {streams.display_name}, a stream of problems"
        raise OptionError("bad-option", message)
    batch = BatchRun(
        variant_request=choosing,
        read_options=reading,
        output_options=showing,
        format_name=format.name,
        messages=talk,
        inputs=found,
        jobs=min(count, len(found)),
        scheduler=scheduler,
        max_failures="0" if fail_fast else max_failures,
    )
    if folder is None:
        return batch.compute_to_standard_output()
    return batch.dry_run(folder, retry_failed) if dry_run else batch.compute_to_folder(folder, retry_failed)


# ── what the command line says ───────────────────────────────────────────────────────────────────
def _parse_results_folder(output: str | None) -> Path | None:
    if output is None:
        raise OptionError("missing-option", "where shall the results go?", help="-o DIR, or -o - for JSON lines")
    if output == "-":
        return None
    if not output:
        raise OptionError("bad-option", "-o is empty", help="-o DIR, or -o - for JSON lines")
    if "://" in output:
        raise OptionError("bad-option", f"results go to a folder of this machine, not to {output}")
    if Path(output).exists() and not Path(output).is_dir():
        raise OptionError("output-exists", f"{output} is a file", help="results go to a folder: -o DIR")
    return Path(output)


def _parse_jobs(text: str, scheduler: str | None) -> int:
    from attncli.cli.options import parse_whole_number

    count = parse_whole_number("jobs", text, 1, 4096)
    if scheduler is not None and count != 1:
        raise OptionError("bad-option", "--jobs and --scheduler say two things", help="the cluster has its own workers")
    return count


def _choose_format(output_options: OutputOptions, results_folder: Path | None) -> Format:
    format = choose_output_format("x", output_options.format or ("ndjson" if results_folder is None else "json"))
    if results_folder is None and format.name not in ("json", "ndjson"):
        raise OptionError("bad-option", f"standard output gets JSON lines, not {format.name}", help="-o DIR")
    return choose_output_format("x", "ndjson") if results_folder is None else format


def _check_options(
    output_options: OutputOptions,
    scheduler: str | None,
    results_folder: Path | None,
    fail_fast: bool,
    max_failures: str | None,
    retry_failed: bool,
    dry_run: bool,
) -> None:
    from attncli.plan.steps import require_step_name

    for name in output_options.only:
        if name not in ("all", "shown"):
            require_step_name(name)
    if fail_fast and max_failures is not None:
        raise OptionError("bad-option", "--fail-fast and --max-failures say two things", help="say one of them")
    if results_folder is None and scheduler:
        raise OptionError("bad-option", "the workers of a cluster write files, and no standard output", help="-o DIR")
    if results_folder is None and retry_failed:
        raise OptionError("bad-option", "standard output has no manifest of what failed", help="-o DIR")
    if results_folder is None and dry_run:
        raise OptionError("bad-option", "--dry-run says what would be done to a folder", help="-o DIR")


# ── the batch ────────────────────────────────────────────────────────────────────────────────────
@dataclasses.dataclass(frozen=True)
class BatchRun:
    """One run of the command, once its words are understood."""

    variant_request: VariantRequest
    read_options: ReadOptions
    output_options: OutputOptions
    format_name: str
    messages: Messages
    inputs: Sequence[Input]
    jobs: int
    scheduler: str | None
    max_failures: str | None  # how many may fail

    def make_job(self, results_folder: Path | str, drawn_seed: int | None) -> Job:
        """What is done; `drawn_seed` is the seed that the folder has from before."""
        from attncli.batch.job import Job

        said = self.variant_request.choices.get("seed")
        if said is None and drawn_seed is None:
            drawn_seed = secrets.randbelow(2**31)
        seed = int(str(drawn_seed if said is None else said))
        return Job(
            self.variant_request,
            self.read_options,
            self.output_options,
            self.format_name,
            seed,
            str(results_folder),
            drawn_seed,
        )

    def compute_to_folder(self, results_folder: Path, retry_failed: bool) -> ExitStatus:
        """Results, a manifest, and the list of what failed."""
        from attncli.batch.manifest import Manifest
        from attncli.batch.runner import BatchStats, parse_max_failures, recorded_result, run_batch

        manifest = Manifest(results_folder)
        self._refuse_foreign_results(results_folder, manifest)
        if retry_failed and not manifest.exists:
            raise OptionError(
                "bad-option",
                f"{results_folder} holds no batch, and nothing that failed",
                help="leave --retry-failed out",
            )
        job = self.make_job(results_folder, manifest.header.get("seed"))
        head = job.manifest_header()
        variant, again = head["variant"], self.output_options.force
        chosen = self._select_inputs(manifest, retry_failed)
        before = dict(manifest.receipts)
        tally = BatchStats(len(chosen), has_streams=any(one.is_stream for one in chosen))
        with ExitStack() as stack:
            tell = stack.enter_context(_show_batch_progress(tally, self.messages, self.output_options))
            made = stack.enter_context(self._open_executor_factory(tell))
            stack.callback(manifest.close)
            manifest.open(head)
            manifest.remove_leftovers(one.result_path for one in self.inputs)
            job = job.for_workers().for_run(manifest.publish_run_id()) if self.scheduler is not None else job
            engine = made(job, variant)
            interrupted = stack.enter_context(_watch_interrupts(self.messages))

            def record_receipt(input: Input, receipt: Receipt) -> None:
                if receipt.status != "skipped":
                    earlier = before.get(receipt.result)
                    attempts = receipt.attempts + (earlier.attempts if earlier else 0)
                    manifest.add_receipt(dataclasses.replace(receipt, attempts=attempts) if earlier else receipt)
                tell()

            try:
                run_batch(
                    chosen, engine, tally, lambda one: recorded_result(manifest, one, variant, again), record_receipt,
                    max_failures=parse_max_failures(self.max_failures, len(chosen)), is_interrupted=interrupted,
                )  # fmt: skip
            except BaseException:
                with suppress(AttnError, OSError):  # that it ended early is said already
                    manifest.finalize(one.result_path for one in self.inputs)
                raise
            manifest.finalize(one.result_path for one in self.inputs)
        failed = results_folder / "failed.txt"
        return self._report_summary(tally, f"they are listed in {failed}; the same command tries them again")

    def compute_to_standard_output(self) -> ExitStatus:
        """A result or an error a line, in the order of the inputs; nothing is kept."""
        from attncli.batch.runner import BatchStats, order_receipts, parse_max_failures, run_batch

        tally = BatchStats(len(self.inputs), has_streams=any(one.is_stream for one in self.inputs))
        write = standard_output_writer(choose_output_format(None, "ndjson"))
        with ExitStack() as stack:
            interrupted = stack.enter_context(_watch_interrupts(self.messages))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="attn-")) if self.jobs > 1 else ""
            inputs = [dataclasses.replace(one, result_path=f"{i}.ndjson") for i, one in enumerate(self.inputs)]
            job = self.make_job(folder, None)
            out = None if folder else (lambda line: write(line.decode("utf-8", "surrogatepass")))
            tell = stack.enter_context(_show_batch_progress(tally, self.messages, self.output_options))
            engine = stack.enter_context(self._open_executor_factory(tell, out))(job, "")
            ahead, in_turn = order_receipts(inputs, 64 * self.jobs)

            def record_receipt(input: Input, receipt: Receipt) -> None:
                for one, its in in_turn(input, receipt):
                    spooled = Path(folder, one.result_path)
                    if folder and spooled.exists():
                        with spooled.open(encoding="utf-8", errors="surrogatepass", newline="") as file:
                            for line in file:
                                write(line)
                        spooled.unlink()
                    elif its.status == "failed" and its.bytes is None:
                        write(json.dumps({"error": its.error}, ensure_ascii=False, separators=(",", ":")) + "\n")
                tell()

            most = parse_max_failures(self.max_failures, len(inputs))
            run_batch(
                inputs,
                engine,
                tally,
                lambda one: None,
                record_receipt,
                max_failures=most,
                is_interrupted=interrupted,
                may_begin=ahead,
            )
        return self._report_summary(tally, "their places hold the errors")

    def dry_run(self, results_folder: Path, retry_failed: bool) -> ExitStatus:
        """What would be done, and what would be refused before anything is computed."""
        from attncli.batch.job import dry_run_input
        from attncli.batch.manifest import Manifest
        from attncli.batch.runner import recorded_result

        manifest = Manifest(results_folder)
        self._refuse_foreign_results(results_folder, manifest)
        job = self.make_job(results_folder, manifest.header.get("seed"))
        variant = job.manifest_header()["variant"]
        write = standard_output_writer(choose_output_format(None, "plain"))
        status = ExitStatus.OK
        for one in self._select_inputs(manifest, retry_failed):
            try:
                skip = dry_run_input(job, one, recorded_result(manifest, one, variant, self.output_options.force))
                says = "skip" if skip else "compute"
                write(printable(f"{says:<8}{one.display_name} → {results_folder / one.result_path}") + "\n")
            except AttnError as error:
                if error.status == ExitStatus.USAGE:
                    raise
                status = ExitStatus.NO
                write(printable(f"fail    {one.display_name}: {error.code}: {error.message}") + "\n")
        return status

    # ── its parts ────────────────────────────────────────────────────────────────────────────────
    def _refuse_foreign_results(self, results_folder: Path, manifest: Manifest) -> None:
        """Nothing that is there and not this batch's is replaced unless that is said."""
        if self.output_options.force:
            return
        if (strange := manifest.foreign_file) is not None:
            message = f"{strange} exists, and no batch made it"
            raise OptionError("output-exists", message, help="another folder, or --force to replace it")
        for one in self.inputs:
            known = manifest.receipts.get(one.result_path)
            if known is not None and not _is_same_file(known.input, one.display_name):
                message = (
                    f"{results_folder / one.result_path} is the result of {known.input}, not of {one.display_name}"
                )
                raise OptionError("output-exists", message, help="another folder, or --force to replace it")
            if not manifest.exists and (results_folder / one.result_path).exists():
                message = f"{results_folder / one.result_path} exists, and no manifest says that a batch made it"
                raise OptionError("output-exists", message, help="another folder, or --force to replace it")

    def _select_inputs(self, manifest: Manifest, retry_failed: bool) -> Sequence[Input]:
        if not retry_failed:
            return self.inputs
        failed = {result for result, receipt in manifest.receipts.items() if receipt.status == "failed"}
        return [one for one in self.inputs if one.result_path in failed]

    @contextmanager
    def _open_executor_factory(
        self, report_progress: _LineProgressCallback, write_bytes: BytesWriter | None = None
    ) -> Iterator[Callable[[Job, str], Executor]]:
        """Who computes, once it is told what (the job, and the hash of it)."""
        from attncli.batch import dask_cluster as clusters
        from attncli.batch import executors as engines

        if self.scheduler is None and self.jobs == 1:
            yield lambda job, variant: engines.LocalExecutor(job, variant, write_bytes, report_progress)
            return
        reached = (
            clusters.local_client(self.jobs)
            if self.scheduler is None
            else clusters.connect_to_scheduler(self.scheduler)
        )
        with reached as client:
            device = str(self.variant_request.choices.get("device", ""))
            waits = lambda: self.messages.note("the cluster has no workers; waiting for some")  # noqa: E731
            tasks = clusters.TaskPool(client, device, waits)
            tasks.wait_for_workers()
            yield lambda job, variant: engines.DaskExecutor(tasks, job, variant)

    def _report_summary(self, stats: BatchStats, failures_hint: str) -> ExitStatus:
        """What it came to, and the status that says so."""
        talk, left = self.messages, stats.total - stats.finished_count
        if talk.error_format == "json":
            counts = {"done": stats.done, "failed": stats.failed, "skipped": stats.skipped, "left": left}
            for cause in stats.causes.values():
                talk.write(
                    json.dumps(
                        {
                            **(cause.first_receipt.error or {}),
                            "input": cause.first_receipt.input,
                            "count": cause.input_count,
                        }
                    )
                )
            causes = {code: cause.input_count for code, cause in stats.causes.items()}
            stopped = {"stopped": stats.stop_reason} if stats.stop_reason else {}
            rate = {"per_second": round(stats.problems_per_second, 3)}
            talk.write(
                json.dumps(
                    {"type": "summary", **counts, "causes": causes, "warnings": stats.warning_counts, **rate, **stopped}
                )
            )
        else:
            self._write_summary(stats, left, failures_hint)
        if stats.stop_reason == "interrupted" and left:
            return ExitStatus.INTERRUPTED
        return ExitStatus.NO if stats.failed else ExitStatus.OK

    def _write_summary(self, stats: BatchStats, left_count: int, failures_hint: str) -> None:
        talk = self.messages
        for code, count in stats.warning_counts.items():
            talk.warning(f"{code}: in {pluralize(count, 'result')}")
        for code, (first, count) in sorted(stats.causes.items(), key=lambda cause: -cause[1].input_count):
            also = f", and {count - 1} more" if count > 1 else ""
            head = talk.apply_style(f"failed[{code}]", "31;1")
            talk.write(
                f"{head}: {printable(shorten(first.input))}{also}: {printable(str((first.error or {}).get('message')))}"
            )
        if stats.stop_reason and left_count:
            talk.write(f"stopped: {stats.stop_reason}; {pluralize(left_count, 'input')} left")
        if not talk.quiet:
            counts = [f"{stats.done} done", f"{stats.failed} failed"] + [f"{stats.skipped} skipped"] * bool(
                stats.skipped
            )
            speed = f"; {stats.rate_text}" if stats.done + stats.failed else ""
            talk.write(", ".join(counts) + speed)
        if stats.failed and not talk.quiet:
            talk.write(talk.apply_style(f"  = help: {printable(failures_hint)}", "2"))


def _is_same_file(name: str, other_name: str) -> bool:
    """Whether two names are of the same file."""
    return name == other_name or ("://" not in name + other_name and Path(name).resolve() == Path(other_name).resolve())


# ── while it runs ────────────────────────────────────────────────────────────────────────────────
@contextmanager
def _watch_interrupts(messages: Messages) -> Iterator[Callable[[], bool]]:
    """Ctrl-C once: what runs is finished. Twice: it is not."""
    heard = False

    def handle_sigint(signal_number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if heard:
            raise KeyboardInterrupt
        heard = True
        messages.write("finishing what runs; Ctrl-C again stops at once")

    try:
        before = signal.signal(signal.SIGINT, handle_sigint)
    except ValueError:  # not the main thread
        yield lambda: False
        return
    try:
        yield lambda: heard
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _show_batch_progress(
    stats: BatchStats, messages: Messages, output_options: OutputOptions
) -> Iterator[_LineProgressCallback]:
    """How far it is, on standard error: a bar on a terminal, elsewhere a line every so often."""
    if messages.quiet or not output_options.progress or messages.error_format != "full":
        yield lambda *_: None
        return
    bar: BatchProgressBar | None = None
    said = stats.started_at

    def report_progress(lines: int = 0, failed_lines: int = 0, fraction: float = 0.0) -> None:
        nonlocal bar, said
        stats.current_lines, stats.current_failed_lines, stats.current_fraction = lines, failed_lines, fraction
        now = time.monotonic()
        if sys.stderr.isatty():
            if bar is None and now - stats.started_at > 1:
                from attncli.views.tally import BatchProgressBar

                bar = BatchProgressBar(stats.total, messages.color)
            if bar is not None:
                bar.update(stats.finished_count + fraction, stats.describe())
        elif now - said >= _PROGRESS_LINE_SECONDS and stats.finished_count < stats.total:
            said = now
            messages.write(f"{stats.finished_count} of {stats.total}; {stats.describe()}")

    try:
        yield report_progress
    finally:
        if bar is not None:
            bar.close()
