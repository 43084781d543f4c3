"""A whole batch, from its inputs to its results: `BatchRun`, for the command line and for Python programs alike.

inputs, _ = gather_inputs(["data/"], result_suffix=".json", results_folder=Path("results"))
stats = BatchRun(inputs, VariantRequest({"mask": "causal"})).run_to_folder(Path("results"))
"""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Literal, NamedTuple, TypeAlias

from attncli import __version__
from attncli.atomic_file import refuse_link
from attncli.batch.address_limits import AddressLimits
from attncli.batch.addresses import hide_secrets
from attncli.batch.dask_cluster import DaskTaskPool, connect_to_scheduler
from attncli.batch.executors import Executor, LocalExecutor, PoolExecutor
from attncli.batch.expected_time import expect_seconds, share_threads
from attncli.batch.inputs import Input, real_path
from attncli.batch.job import Job, dry_run_input
from attncli.batch.manifest import Manifest, Receipt
from attncli.batch.process import BytesWriter, PendingInput
from attncli.batch.result_paths import figure_path
from attncli.batch.result_table import ROWS_FORMAT, merge_rows
from attncli.batch.runner import BatchStats, order_receipts, parse_max_failures, recorded_result, run_batch
from attncli.batch.task_pool import TaskPool
from attncli.batch.worker_processes import open_process_pool
from attncli.errors import AttnError, CannotError, ExitStatus, OptionError
from attncli.pipeline import error_record_line, internal_error
from attncli.plan.estimate import TYPICAL_CALIBRATION, Calibration, RunEstimate
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.text import shorten
from attncli.types import Json

_InputPool: TypeAlias = TaskPool[list[PendingInput], list[Receipt]]
_INPUTS_AHEAD_PER_PROCESS = 64  # inputs begun before the first whose result is still missing, where the order counts


def _ignore(*_: object) -> None:
    """The callback of whoever wants to know nothing."""


@dataclass(frozen=True)
class BatchCallbacks:
    """What a batch tells whoever started it, while it runs."""

    on_progress: Callable[[BatchStats], None] = _ignore  # after each input, and after each line of JSON lines
    on_no_workers: Callable[[], None] = _ignore  # the cluster has no workers yet: the batch waits for one
    # Ctrl-C came for the first time: what runs is finished, a second one stops at once. None: Ctrl-C is not handled.
    on_interrupt: Callable[[], None] | None = None


class DryRunEntry(NamedTuple):
    """What a run would do with an input."""

    input: Input
    action: Literal["compute", "skip", "fail"]
    error: AttnError | None = None  # why it would fail
    estimate: RunEstimate | None = None  # what it would take, where it is computed


@dataclass(frozen=True)
class BatchRun:
    """A batch: the inputs, what to compute of each, and by how many processes."""

    inputs: Sequence[Input]
    variant_request: VariantRequest
    read_options: ReadOptions = field(default_factory=ReadOptions)
    output_options: OutputOptions = field(
        default_factory=OutputOptions
    )  # `only`, `at`, `top`, `precision`, `heat`, `force`
    format_name: str = "json"
    process_count: int = 1
    scheduler: str | None = None  # the address or the file of a Dask scheduler, whose workers compute
    max_failures: str | None = None  # how many inputs may fail before the batch stops: "10", or "5%"; None: all
    address_limits: AddressLimits = field(default_factory=AddressLimits)
    callbacks: BatchCallbacks = field(default_factory=BatchCallbacks)
    calibration: Calibration = TYPICAL_CALIBRATION  # what this machine takes, for estimates
    expected_seconds: float = 0.0  # until the end, for whoever shows progress; 0: nobody has estimated it

    def run_to_folder(self, results_folder: Path, *, retry_failed: bool = False) -> BatchStats:
        """Compute the inputs into files of a folder, with a manifest and the list of what failed.

        What the manifest says is done already, and of the same content by the same choices, is skipped.

        Args:
            results_folder: it is made if it does not exist.
            retry_failed: compute only the inputs that failed before.

        Raises:
            AttnError: nothing can be computed or written, whatever the input. One that fails by itself raises nothing.
        """
        manifest = Manifest(results_folder)
        self._refuse_foreign_results(results_folder, manifest)
        if retry_failed and not manifest.exists:
            message = f"{results_folder} holds no batch, so nothing has failed there"
            raise OptionError("bad-option", message, help="leave --retry-failed out")
        job = self.make_job(results_folder, manifest.header.get("seed"))
        header = job.manifest_header()
        variant_hash = header["variant"]
        inputs = self._select_inputs(manifest, retry_failed)
        self._refuse_other_options(results_folder, manifest, header, inputs)
        result_paths = [input.result_path for input in self.inputs]
        earlier_receipts = dict(manifest.receipts)
        stats = self._new_stats(inputs)

        def record_receipt(input: Input, receipt: Receipt) -> None:
            if receipt.status != "skipped":
                if earlier := earlier_receipts.get(receipt.result):
                    receipt = replace(receipt, attempts=earlier.attempts + receipt.attempts)
                manifest.add_receipt(receipt)
            self.callbacks.on_progress(stats)

        with ExitStack() as stack:
            task_pool = stack.enter_context(self._open_task_pool())
            stack.callback(manifest.close)
            manifest.open(header)
            file_paths = [path for input in self.inputs for path in self._file_paths(input)]
            manifest.remove_leftovers(file_paths)
            if self.scheduler is not None:
                job = job.for_workers().for_run(manifest.publish_run_id())
            executor = self._make_executor(task_pool, job, variant_hash, stats)
            is_interrupted = stack.enter_context(_interrupts_watched(self.callbacks.on_interrupt))
            try:
                run_batch(
                    inputs,
                    executor,
                    stats,
                    lambda input: recorded_result(manifest, input, variant_hash, self.output_options.force),
                    record_receipt,
                    max_failures=parse_max_failures(self.max_failures, len(inputs)),
                    is_interrupted=is_interrupted,
                )
            except BaseException:
                with suppress(AttnError, OSError):  # the first error is the one to be told
                    if task_pool is not None:
                        task_pool.cancel_all()
                    manifest.remove_leftovers(file_paths)
                    manifest.finalize(result_paths)
                raise
            manifest.remove_leftovers(file_paths)  # of workers that died
            manifest.finalize(result_paths)
        return stats

    def run_to_lines(self, write: Callable[[str], object]) -> BatchStats:
        """Compute the inputs into JSON lines, a result or an error for each, in the order of the inputs; nothing is kept.

        Args:
            write: called with each line, line feed included.

        Raises:
            AttnError: nothing can be computed, whatever the input.
        """
        inputs = [replace(input, result_path=f"{i}.ndjson") for i, input in enumerate(self.inputs)]
        stats = self._new_stats(inputs)
        may_begin, release_in_order = order_receipts(inputs, _INPUTS_AHEAD_PER_PROCESS * self.process_count)

        def write_bytes(data: bytes) -> None:
            write(data.decode("utf-8", "surrogatepass"))

        with ExitStack() as stack:
            is_interrupted = stack.enter_context(_interrupts_watched(self.callbacks.on_interrupt))
            spool_folder = ""  # where other processes write their results, to be copied in order
            if self.process_count > 1:
                spool_folder = stack.enter_context(_temporary_folder())
            job = self.make_job(spool_folder, None)
            task_pool = stack.enter_context(self._open_task_pool())
            executor = self._make_executor(task_pool, job, "", stats, None if spool_folder else write_bytes)

            def write_receipts(input: Input, receipt: Receipt) -> None:
                for ready_input, ready_receipt in release_in_order(input, receipt):
                    spooled = Path(spool_folder, ready_input.result_path)
                    if spool_folder and spooled.exists():
                        with spooled.open(encoding="utf-8", errors="surrogatepass", newline="") as lines:
                            for line in lines:
                                write(line)
                        spooled.unlink()
                    elif ready_receipt.status == "failed" and ready_receipt.bytes is None:  # no line is written yet
                        write(error_record_line(ready_receipt.error or {}, ready_input.display_name))
                self.callbacks.on_progress(stats)

            run_batch(
                inputs,
                executor,
                stats,
                lambda input: None,
                write_receipts,
                max_failures=parse_max_failures(self.max_failures, len(inputs)),
                is_interrupted=is_interrupted,
                may_begin=may_begin,
            )
        return stats

    def run_to_table(self, path: Path, format_name: str) -> tuple[BatchStats, bool]:
        """Compute the inputs into one table; return the counts, and whether the table is written.

        It appears whole or not at all: not where the batch stops before its end, or where no input can be computed.

        Args:
            path: the table.
            format_name: a format of which `is_table` is true.

        Raises:
            AttnError: nothing can be computed or written, whatever the input.
        """
        inputs = [replace(input, result_path=f"{i}.{ROWS_FORMAT}") for i, input in enumerate(self.inputs)]
        stats = self._new_stats(inputs)
        with ExitStack() as stack:
            is_interrupted = stack.enter_context(_interrupts_watched(self.callbacks.on_interrupt))
            rows_folder = stack.enter_context(_temporary_folder())
            job = replace(self.make_job(rows_folder, None), is_for_table=True)
            task_pool = stack.enter_context(self._open_task_pool())
            run_batch(
                inputs,
                self._make_executor(task_pool, job, "", stats),
                stats,
                lambda input: None,
                lambda input, receipt: self.callbacks.on_progress(stats),
                max_failures=parse_max_failures(self.max_failures, len(inputs)),
                is_interrupted=is_interrupted,
            )
            row_files = [file for input in inputs if (file := Path(rows_folder, input.result_path)).exists()]
            is_whole = not stats.left_count and bool(row_files)
            if is_whole:
                merge_rows(path, format_name, row_files)
        return stats, is_whole

    def dry_run(self, results_folder: Path, *, retry_failed: bool = False) -> Iterator[DryRunEntry]:
        """Find out what `run_to_folder` would do with each input, and what it would take, without torch and without writing.

        Raises:
            OptionError: the choices are wrong, or results of others would be replaced.
        """
        manifest = Manifest(results_folder)
        self._refuse_foreign_results(results_folder, manifest)
        job = self.make_job(results_folder, manifest.header.get("seed"))
        header = job.manifest_header()
        variant_hash = header["variant"]
        inputs = self._select_inputs(manifest, retry_failed)
        self._refuse_other_options(results_folder, manifest, header, inputs)

        def entries() -> Iterator[DryRunEntry]:
            for input in inputs:
                recorded = recorded_result(manifest, input, variant_hash, self.output_options.force)
                try:
                    estimate = dry_run_input(job, input, recorded, self.calibration)
                except AttnError as error:
                    if error.status == ExitStatus.USAGE:
                        raise
                    error.message = hide_secrets(error.message, input.path)
                    yield DryRunEntry(input, "fail", error)
                except Exception as error:  # a bug costs one input, here too
                    yield DryRunEntry(input, "fail", internal_error(error))
                else:
                    yield DryRunEntry(input, "skip" if estimate is None else "compute", estimate=estimate)

        return entries()

    def expect_seconds(self, results_folder: Path | None) -> float:
        """Estimate the seconds of processor time that the inputs take which are not done, from some of them, without torch."""
        done: set[str] = set()
        if results_folder is not None and not self.output_options.force:
            receipts = Manifest(results_folder).receipts
            done = {name for name, receipt in receipts.items() if receipt.status == "done"}
        inputs = [input for input in self.inputs if input.result_path not in done]
        return expect_seconds(self.make_job(results_folder or "", 0), inputs, self.calibration)

    def make_job(self, results_folder: Path | str, drawn_seed: int | None) -> Job:
        """Make what is sent to whoever computes; `drawn_seed` is the seed that an earlier run of the folder drew."""
        chosen_seed = self.variant_request.choices.get("seed")
        if chosen_seed is None and drawn_seed is None:
            drawn_seed = secrets.randbelow(2**31)
        return Job(
            self.variant_request,
            self.read_options,
            self.output_options,
            self.format_name,
            seed=int(str(drawn_seed if chosen_seed is None else chosen_seed)),
            results_folder=str(results_folder),
            drawn_seed=drawn_seed,
            address_limits=self.address_limits,
        )

    def _refuse_foreign_results(self, results_folder: Path, manifest: Manifest) -> None:
        """Refuse to replace what this batch did not make, unless `force` is chosen, and to write through links.

        Raises:
            OptionError: a file of the folder is in the way.
            CannotError: a link is.
        """
        for input in self.inputs:
            for name in self._file_paths(input):
                refuse_link(results_folder, name)
        if self.output_options.force:
            return
        hint = "use another folder, or --force to replace it"
        if (foreign := manifest.foreign_file) is not None:
            what = (
                f"{foreign}: {why}"
                if (why := manifest.header_error)
                else f"{foreign} exists, but was not made by attn batch"
            )
            raise OptionError("output-exists", what, help=hint)
        for input in self.inputs:
            receipt = manifest.receipts.get(input.result_path)
            if receipt is not None and not _is_same_file(receipt.input, input.display_name):
                message = f"{results_folder / input.result_path} is the result of {receipt.input}, not of {input.display_name}"
                raise OptionError("output-exists", message, help=hint)
            for name in () if manifest.exists else self._file_paths(input):
                if os.path.lexists(os.path.join(results_folder, name)):
                    message = f"{results_folder / name} exists, but was not made by attn batch in this folder"
                    raise OptionError("output-exists", message, help=hint)

    def _file_paths(self, input: Input) -> list[str]:
        """The files that are written for an input, below the folder of results: its result, and the figure beside it."""
        name = self.output_options.figure_format
        return [input.result_path, *([] if name is None else [figure_path(input.result_path, name)])]

    def _refuse_other_options(
        self, results_folder: Path, manifest: Manifest, header: Json, inputs: Sequence[Input]
    ) -> None:
        """Refuse to replace results that were made with other options, unless `force` is chosen.

        Those of a file that has changed, an input or one of `--with`, are replaced.

        Raises:
            OptionError: one would be.
        """
        recorded = manifest.header
        is_same = any(recorded.get(name) == header[name] for name in ("options", "variant"))
        if self.output_options.force or is_same:
            return
        for input in inputs:
            receipt = manifest.receipts.get(input.result_path)
            if receipt is None or receipt.bytes is None or receipt.variant == header["variant"]:
                continue
            path = results_folder / input.result_path
            if os.path.lexists(path):
                version = recorded.get("attn_version")
                made = "with other options" if version == __version__ else f"by attn {shorten(str(version))}"
                hint = "use another folder, or --force to compute everything again"
                raise OptionError("output-exists", f"{path} was made {made}", help=hint)

    def _select_inputs(self, manifest: Manifest, retry_failed: bool) -> Sequence[Input]:
        if not retry_failed:
            return self.inputs
        failed = {result for result, receipt in manifest.receipts.items() if receipt.status == "failed"}
        return [input for input in self.inputs if input.result_path in failed]

    def _new_stats(self, inputs: Sequence[Input]) -> BatchStats:
        has_streams = any(input.is_stream for input in inputs)
        return BatchStats(len(inputs), has_streams=has_streams, expected_seconds=self.expected_seconds)

    @contextmanager
    def _open_task_pool(self) -> Iterator[_InputPool | None]:
        """Make the pool of workers that compute; None: this process does."""
        if self.scheduler is not None:
            with connect_to_scheduler(self.scheduler) as client:
                device = str(self.variant_request.choices.get("device", ""))
                task_pool: DaskTaskPool[list[PendingInput], list[Receipt]] = DaskTaskPool(
                    client, device, self.callbacks.on_no_workers
                )
                task_pool.wait_for_workers()
                yield task_pool
        elif self.process_count > 1:
            with open_process_pool(self.process_count) as process_pool:
                yield process_pool
        else:
            yield None

    def _make_executor(
        self,
        task_pool: _InputPool | None,
        job: Job,
        variant_hash: str,
        stats: BatchStats,
        write_bytes: BytesWriter | None = None,
    ) -> Executor:
        if task_pool is not None:
            if self.scheduler is None:
                job = replace(job, thread_count=share_threads(self.process_count))
            return PoolExecutor(task_pool, job, variant_hash)

        def report_lines(line_count: int, failed_count: int, fraction: float) -> None:
            stats.current_lines, stats.current_failed_lines, stats.current_fraction = line_count, failed_count, fraction
            self.callbacks.on_progress(stats)

        return LocalExecutor(job, variant_hash, write_bytes, report_lines)


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """Make a folder for the results of other processes, and remove it after the block.

    Raises:
        CannotError: there is no place for it.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="attn-", ignore_cleanup_errors=True)
    except OSError as error:
        message = f"there is no folder for temporary files: {error.strerror or error}"
        raise CannotError("cannot-write", message, help="name one with TMPDIR=DIR, or leave -j out") from error
    with folder as path:
        yield path


def _is_same_file(name: str, other_name: str) -> bool:
    """Whether two names, neither of them an address, are of the same file; or the same name."""
    if name == other_name:
        return True
    return "://" not in name + other_name and real_path(name) == real_path(other_name)


@contextmanager
def _interrupts_watched(on_interrupt: Callable[[], None] | None) -> Iterator[Callable[[], bool]]:
    """Handle Ctrl-C while the block runs; it yields a function that tells whether there was one.

    The first calls `on_interrupt` and lets what runs be finished; the second raises KeyboardInterrupt.
    """
    is_interrupted = False

    def handle_sigint(signal_number: int, frame: FrameType | None) -> None:
        nonlocal is_interrupted
        if is_interrupted:
            raise KeyboardInterrupt
        is_interrupted = True
        if on_interrupt is not None:
            on_interrupt()

    handler_before = None
    if on_interrupt is not None:
        with suppress(ValueError):  # only the main thread may handle signals
            handler_before = signal.signal(signal.SIGINT, handle_sigint)
    try:
        yield lambda: is_interrupted
    finally:
        if handler_before is not None:
            signal.signal(signal.SIGINT, handler_before)
