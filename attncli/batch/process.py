"""Inputs of a batch, in this process or on a worker: read, compute, write the results, return receipts. Entry: `process_inputs`.

Small inputs that stand next to each other are read and planned together, so that those of equal shapes are computed in one
call; their results are written one by one.
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from attncli import __version__
from attncli.atomic_file import atomic_write, atomic_write_bytes, refuse_link, write_error
from attncli.batch.addresses import hide_secrets, path_part
from attncli.batch.inputs import Input
from attncli.batch.job import Job, hash_input, is_up_to_date, lines_failed_error, plan_input, read_content
from attncli.batch.manifest import RUN_ID_FILE, Receipt, ResultRecord
from attncli.batch.result_paths import figure_path
from attncli.batch.sources import open_source
from attncli.errors import AttnError, CannotError, ExitStatus
from attncli.output_formats import write_shared_file
from attncli.package_errors import INSTALLATION_CODES
from attncli.pipeline import (
    MAX_GROUP_SCORES,
    add_workings,
    apply_selection,
    compute_each,
    compute_stream,
    internal_error,
    load_engine,
    refuse_too_many_numbers,
    run_plans,
)
from attncli.readers.compression import ArrivingLines, CountedReader, unpack_lines
from attncli.types import Json

if TYPE_CHECKING:
    from attncli.plan import Plan
    from attncli.select import Selection
    from attncli.types import Attention

PendingInput = tuple[Input, "ResultRecord | None"]  # an input, and what the manifest says of its result
BytesWriter = Callable[[bytes], None]
# Called while a file of JSON lines is computed: how many lines are done, how many of them failed, how much of the file, 0 … 1
LineProgressCallback = Callable[[int, int, float], None]
MAX_INPUTS_TOGETHER = 64  # that are read before the first of them is written
_MAX_BYTES_TOGETHER = 2**20  # of those inputs, beyond which no other is read
_FATAL_ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
)  # those stop the batch: every input would meet them
_FATAL_CODES = (*INSTALLATION_CODES, "no-device", "worker-differs")  # of errors that stop the batch


def report_no_progress(line_count: int, failed_count: int, fraction: float) -> None:
    """The callback of whoever does not want to know how far a file of JSON lines is."""


@dataclass
class _BegunInput:
    """An input on its way: what its receipt will say, and what will be computed of it."""

    input: Input
    recorded: ResultRecord | None  # what the manifest says of its result; if that still holds, the input is skipped
    outcome: Json  # fields of the receipt
    planned: tuple[Plan, Selection] | None = None  # None: it is over, or a file of JSON lines
    is_over: bool = False
    seconds: float = 0.0
    byte_count: int = 0

    @contextmanager
    def failures_recorded(self) -> Iterator[None]:
        """Count the time of the block; whatever goes wrong in it is in the receipt afterwards."""
        started = time.perf_counter()
        try:
            yield
        except AttnError as error:
            self._record_failure(error)
        except MemoryError:
            self._record_failure(CannotError("out-of-memory", "the computation does not fit in memory"))
        except Exception as error:  # a bug costs one input, not the batch
            self._record_failure(internal_error(error))
        self.seconds += time.perf_counter() - started

    def _record_failure(self, error: AttnError) -> None:
        """Record that the input failed; as `stopped` where every other input would meet the same error."""
        cause = error.__cause__
        is_of_disk = isinstance(cause, OSError) and cause.errno in _FATAL_ERRNOS and error.code == "cannot-write"
        record = _hide_secrets_in_record(error.to_record(), self.input.path)
        if is_of_disk or error.status == ExitStatus.USAGE or error.code in _FATAL_CODES:
            self.outcome |= {"status": "stopped", "error": record | {"status": int(error.status)}}
        else:
            self.outcome |= {"status": "failed", "error": record}
        self.planned, self.is_over = None, True

    def make_receipt(self) -> Receipt:
        """Return what became of it."""
        return Receipt(self.input.display_name, self.input.result_path, **self.outcome, seconds=round(self.seconds, 6))


def _hide_secrets_in_record(record: Json, address: str) -> Json:
    """The record of an error without the secrets of the address that it is about: libraries repeat whole addresses."""
    return {name: hide_secrets(text, address) if isinstance(text, str) else text for name, text in record.items()}


def process_inputs(
    job: Job,
    variant_hash: str,
    waiting: deque[PendingInput],
    write_bytes: BytesWriter | None = None,
    report_progress: LineProgressCallback = report_no_progress,
) -> Iterator[tuple[Input, Receipt]]:
    """Compute inputs and write their results. Whatever goes wrong is in their receipts; nothing is raised.

    Args:
        job: what to do.
        variant_hash: the hash of all choices, for the receipts.
        waiting: what to compute; each is taken from it as it is begun.
        write_bytes: called with the bytes of each result, instead of writing a file.
        report_progress: called after each line of a file of JSON lines.
    """
    while waiting:
        group = _begin_group(job, variant_hash, waiting)
        results = run_plans([begun.planned[0] for begun in group if begun.planned])
        for begun in group:
            with begun.failures_recorded():
                if begun.planned:
                    answer = next(results)
                    if isinstance(answer, Exception):
                        raise answer
                    _write_result(job, begun, answer, write_bytes)
                elif not begun.is_over:
                    _compute_lines(job, begun, write_bytes, report_progress)
            yield begun.input, begun.make_receipt()


def process_input(job: Job, variant_hash: str, input: Input, recorded: ResultRecord | None = None) -> Receipt:
    """Compute one input and write its result; arguments are those of `process_inputs`."""
    [(_, receipt)] = process_inputs(job, variant_hash, deque([(input, recorded)]))
    return receipt


def _begin_group(job: Job, variant_hash: str, waiting: deque[PendingInput]) -> list[_BegunInput]:
    """Begin the next inputs: one that is large or a file of JSON lines by itself, small ones together."""
    group: list[_BegunInput] = []
    byte_count = score_count = 0
    while waiting and len(group) < MAX_INPUTS_TOGETHER:
        if group and waiting[0][0].is_stream:
            break
        begun = _begin_input(job, variant_hash, *waiting.popleft())
        group.append(begun)
        byte_count += begun.byte_count
        score_count += begun.planned[0].score_count if begun.planned else 0
        is_large = byte_count >= _MAX_BYTES_TOGETHER or score_count >= MAX_GROUP_SCORES
        if is_large or begun.input.is_stream or begun.outcome["status"] == "stopped":
            break
    return group


def _begin_input(job: Job, variant_hash: str, input: Input, recorded: ResultRecord | None) -> _BegunInput:
    """Read an input and plan what will be computed of it; of a file of JSON lines, nothing yet."""
    begun = _BegunInput(input, recorded, {"status": "done", "variant": variant_hash})
    with begun.failures_recorded():
        if job.attn_version != __version__:
            raise CannotError(
                "worker-differs", f"a worker has attn {__version__}, but this command is {job.attn_version}"
            )
        if input.is_stream:
            return begun
        data = read_content(job, input)
        begun.byte_count = len(data)
        if not job.is_for_table:
            sha256 = hashlib.sha256(data).hexdigest()
            begun.outcome["sha256"] = sha256  # a failure has it too
            if is_up_to_date(job, input, recorded, sha256):
                begun.outcome["status"], begun.is_over = "skipped", True
                return begun
        plan, selection = plan_input(job, input, data)
        if not job.is_for_table:
            refuse_too_many_numbers(plan, selection, job.result_format)
        begun.planned = plan, selection
    return begun


def _write_result(job: Job, begun: _BegunInput, computed: Attention, write_bytes: BytesWriter | None) -> None:
    """Write what was computed of an input that is one problem."""
    assert begun.planned
    input, (plan, selection) = begun.input, begun.planned
    computed = apply_selection(computed, plan, selection)
    if job.is_for_table:
        from attncli.batch.result_table import write_rows

        byte_count = write_rows(Path(job.results_folder, input.result_path), [computed])
        begun.outcome |= {"bytes": byte_count, "warnings": computed.warnings}
        return
    attention = job.result_format.prepare_result(computed, job.render_options)
    if job.result_format.shows_workings:
        attention = add_workings(attention, plan, load_engine())
    result = job.result_format.make_bytes(attention, job.render_options)
    _write_file(job, input.result_path, result, write_bytes)
    if job.output_options.shared_js:
        write_shared_file(job.result_format, Path(job.results_folder, input.result_path).parent)
    if job.figure_format is not None:  # after the result: a figure that is older is of an earlier one
        drawn = job.figure_format.prepare_result(computed, job.render_options)
        attention = replace(attention, warnings=tuple(dict.fromkeys((*attention.warnings, *drawn.warnings))))
        figure = job.figure_format.make_bytes(drawn, job.render_options)
        _write_file(job, figure_path(input.result_path, job.figure_format.name), figure, None)
    result_sha256 = hashlib.sha256(result).hexdigest() if write_bytes is None else None
    begun.outcome |= {"bytes": len(result), "result_sha256": result_sha256, "warnings": attention.warnings}


# ── files of JSON lines ──────────────────────────────────────────────────────────────────────────
def _compute_lines(
    job: Job, begun: _BegunInput, write_bytes: BytesWriter | None, report_progress: LineProgressCallback
) -> None:
    """Compute a file of JSON lines: a result or an error for each, in the same memory however many there are."""
    input, recorded = begun.input, begun.recorded
    if job.is_for_table:
        _compute_rows_of_lines(job, begun, report_progress)
        return
    if recorded is not None and is_up_to_date(job, input, recorded, hash_input(job, input)):
        begun.outcome |= {"status": "skipped", "sha256": recorded.sha256}
        return
    from attncli.readers.json import read_json_lines

    input_digest, result_digest = hashlib.sha256(), hashlib.sha256()
    bytes_written = line_count = 0
    error_counts: Counter[str] = Counter()  # by error code
    with (
        open_source(job.source_path(input), input.display_name, job.address_limits) as file,
        _open_result(job, input.result_path, write_bytes) as write,
    ):
        hashed = CountedReader(file, input_digest)
        lines = ArrivingLines(unpack_lines(hashed, path_part(input.path)))
        problems = read_json_lines(lines, input.display_name)
        answers = compute_stream(problems, job.variant_request, job.output_options, job.seed, lines.has_arrived)
        for encoded, error in answers:
            write(encoded)
            result_digest.update(encoded)
            bytes_written += len(encoded)
            line_count += 1
            if error is not None:
                error_counts[error.code] += 1
            fraction = hashed.bytes_read / file.total_bytes if file.total_bytes else 0.0
            report_progress(line_count, error_counts.total(), fraction)
    begun.outcome |= {
        "sha256": input_digest.hexdigest(),
        "bytes": bytes_written,
        "result_sha256": result_digest.hexdigest(),
        "problems": line_count,
    }
    _record_failed_lines(begun, error_counts, line_count)


def _compute_rows_of_lines(job: Job, begun: _BegunInput, report_progress: LineProgressCallback) -> None:
    """Compute a file of JSON lines into rows of a table: those of each line that can be computed."""
    from attncli.batch.result_table import write_rows
    from attncli.readers.json import read_json_lines

    input = begun.input
    error_counts: Counter[str] = Counter()  # by error code
    line_count = 0
    with open_source(job.source_path(input), input.display_name, job.address_limits) as file:
        counted = CountedReader(file)

        def results() -> Iterator[Attention]:
            nonlocal line_count
            lines = ArrivingLines(unpack_lines(counted, path_part(input.path)))
            problems = read_json_lines(lines, input.display_name)
            answers = compute_each(
                problems, job.variant_request, job.output_options, job.seed, has_arrived=lines.has_arrived
            )
            for answer in answers:
                line_count += 1
                if isinstance(answer, AttnError):
                    error_counts[answer.code] += 1
                else:
                    yield answer
                fraction = counted.bytes_read / file.total_bytes if file.total_bytes else 0.0
                report_progress(line_count, error_counts.total(), fraction)

        byte_count = write_rows(Path(job.results_folder, input.result_path), results())
    begun.outcome |= {"bytes": byte_count, "problems": line_count}
    _record_failed_lines(begun, error_counts, line_count)


def _record_failed_lines(begun: _BegunInput, error_counts: Counter[str], line_count: int) -> None:
    """Record that a file of JSON lines failed, if some of its lines did."""
    if error_counts:
        lines_failed = lines_failed_error(error_counts, line_count).add_location(file=begun.input.display_name)
        record = _hide_secrets_in_record(lines_failed.to_record(), begun.input.path)
        begun.outcome |= {"status": "failed", "error": record}


# ── files of results ─────────────────────────────────────────────────────────────────────────────
def _write_file(job: Job, result_path: str, content: bytes, write_bytes: BytesWriter | None) -> None:
    """Write the file of a result or of its figure, which appears whole or not at all.

    Raises:
        CannotError: it cannot be written, or the run that sent the job has ended.
    """
    if write_bytes is not None:
        write_bytes(content)
        return
    path = _prepare_folder(job, result_path)
    atomic_write_bytes(path, content, durable=False, before_it_appears=lambda: _refuse_ended_run(job))


@contextmanager
def _open_result(job: Job, result_path: str, write_bytes: BytesWriter | None) -> Iterator[BytesWriter]:
    """Open the file of a result, which appears whole or not at all, and yield a function that writes to it.

    Raises:
        CannotError: it cannot be written, or the run that sent the job has ended.
    """
    if write_bytes is not None:
        yield write_bytes
        return
    with atomic_write(_prepare_folder(job, result_path), durable=False) as file:

        def write(data: bytes) -> None:
            file.write(data)

        yield write
        _refuse_ended_run(job)


def _prepare_folder(job: Job, result_path: str) -> Path:
    """Make the folder of a result, and return the path of the file.

    Raises:
        CannotError: a link would be written through, or the folder cannot be made.
    """
    path = Path(job.results_folder, result_path)
    refuse_link(job.results_folder, result_path)
    if "/" in result_path:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(error, str(path)) from error
    return path


def _refuse_ended_run(job: Job) -> None:
    """Refuse to write a result once the run that sent the job has ended: another may have the folder by now.

    Raises:
        CannotError: it has ended.
    """
    if not job.run_id:
        return
    try:
        current_run_id = Path(job.results_folder, RUN_ID_FILE).read_text()
    except FileNotFoundError:
        current_run_id = ""
    if current_run_id != job.run_id:
        raise CannotError("not-wanted", "the run that requested this has ended")
