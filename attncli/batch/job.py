"""One input of a batch, in this process or on a worker: read, compute, write the result, return a receipt.

`Job` is what is done to every input, and `process_input` does it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

from attncli import __version__
from attncli.atomic_file import atomic_write, refuse_link, to_bytes, write_error
from attncli.batch.address_limits import AddressLimits
from attncli.batch.addresses import absolute_path, hide_secrets, path_part
from attncli.batch.inputs import Input, reader_for
from attncli.batch.manifest import RUN_ID_FILE, Receipt, ResultRecord
from attncli.batch.result_paths import figure_path
from attncli.batch.sources import open_source
from attncli.errors import AttnError, CannotError, ExitStatus, InputError
from attncli.output_formats import Format, RenderOptions, choose_output_format, write_shared_file
from attncli.package_errors import INSTALLATION_CODES
from attncli.pipeline import (
    add_workings,
    apply_selection,
    compute_each,
    compute_stream,
    internal_error,
    load_engine,
    plan_request,
    planned_shapes,
    refuse_too_many_numbers,
)
from attncli.readers.compression import CountedReader, unpack_lines
from attncli.readers.state_dict import read_layer, split_file_and_prefix
from attncli.readers.with_field import parse_assignment
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.text import join_names
from attncli.types import Json

if TYPE_CHECKING:
    from attncli.plan import Plan
    from attncli.select import Selection
    from attncli.types import Attention

BytesWriter = Callable[[bytes], None]
# Called while a file of JSON lines is computed: how many lines are done, how many of them failed, how much of the file, 0 … 1
LineProgressCallback = Callable[[int, int, float], None]
_FATAL_ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
)  # those stop the batch: every input would meet them
_FATAL_CODES = (*INSTALLATION_CODES, "no-device", "worker-differs")  # of errors that stop the batch
_CHUNK_BYTES = 1 << 20  # of a file, read at a time where it is hashed


@dataclass(frozen=True)
class Job:
    """What is done to every input of a batch. It is sent to the workers."""

    variant_request: VariantRequest
    read_options: ReadOptions
    output_options: OutputOptions
    format_name: str
    seed: int  # where a variant draws and names none
    results_folder: str
    is_for_table: bool = False  # results are rows of one table, which are merged afterwards
    drawn_seed: int | None = None  # the seed that was drawn for the folder, used or not
    run_id: str = ""  # of the run that sends this to workers on other machines (`Manifest.publish_run_id`)
    address_limits: AddressLimits = field(default_factory=AddressLimits)
    working_folder: str | None = None  # the folder that inputs are relative to, where workers run in another
    attn_version: str = __version__

    def manifest_header(self) -> Json:
        """What decides a result, beside the content of its input: the seed, and a hash of all choices (`variant`).

        A seed that was given is one of the choices; one that was drawn is kept for the folder. `options` is the hash of
        what the command line says, whatever the files of `--with` hold.
        """
        choices = {name: str(value) for name, value in self.variant_request.choices.items()}
        recorded_choices: Json = choices | {"also": self.variant_request.extra_masks}
        replacing = [_assignment_with_hash(assignment) for assignment in self.read_options.replacing]
        deciding = {
            "attn_version": self.attn_version,
            "format": self.format_name,
            "heat": self.output_options.heat == "on",
            **({"heat_map": True} if self.output_options.heat == "map" else {}),
            **({"normalize": self.output_options.normalize} if self.output_options.normalize else {}),
            **({"bare": True} if self.output_options.bare else {}),  # so that folders made without it go on
            **({"tidy": True} if self.output_options.tidy else {}),
            **({"standalone": True} if self.output_options.standalone else {}),
            **({"shared_js": True} if self.output_options.shared_js else {}),
            "choices": recorded_choices,
            **({"settings": self._recorded_settings} if self.variant_request.settings else {}),
            "reading": asdict(self.read_options) | {"with": replacing, "state_dict": self._state_dict_hash()},
            "only": self.output_options.only,
            "at": self.output_options.at,
            "top": self.output_options.top,
            "precision": self.output_options.precision,
        }
        names = [assignment.partition("=")[0] for assignment in self.read_options.replacing]
        said = deciding | {"reading": asdict(self.read_options) | {"with": names, "replacing": ()}}
        return {
            "attn_version": self.attn_version,
            "variant": _short_hash(deciding),
            "options": _short_hash(said),
            "seed": self.drawn_seed,
            "choices": recorded_choices,
            **({"settings": self._recorded_settings} if self.variant_request.settings else {}),
        }

    @property
    def _recorded_settings(self) -> Json:
        """The choices that settings make, with where they were set, which stands in the results."""
        request = self.variant_request
        return {name: [str(value), request.origins[name]] for name, value in request.settings.items()}

    def _state_dict_hash(self) -> str | None:
        """A hash of the learned arrays that come from a checkpoint: its other layers decide nothing."""
        if self.read_options.state_dict is None:
            return None
        layer = read_layer(*split_file_and_prefix(self.read_options.state_dict))
        digest = hashlib.sha256()
        for name, array in sorted(layer.arrays.items()):
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def for_workers(self) -> Job:
        """The job for workers that run in another folder."""
        assignments = map(parse_assignment, self.read_options.replacing)
        replacing = tuple(assignment.spell(absolute_path(assignment.path)) for assignment in assignments)
        state_dict = self.read_options.state_dict
        if state_dict is not None:
            path, prefix = split_file_and_prefix(state_dict)
            state_dict = f"{absolute_path(path)}:{prefix}"
        return replace(
            self,
            read_options=replace(self.read_options, replacing=replacing, state_dict=state_dict),
            results_folder=os.path.abspath(self.results_folder),
            working_folder=str(Path.cwd()),
        )

    def for_run(self, run_id: str) -> Job:
        """The job as one run sends it: its tasks write no result once the run has ended."""
        return replace(self, run_id=run_id)

    def source_path(self, input: Input) -> str:
        """The path by which a worker opens an input."""
        if self.working_folder is None or "://" in input.path:
            return input.path
        return os.path.join(self.working_folder, input.path)

    @cached_property
    def result_format(self) -> Format:
        """The output format of the results."""
        return choose_output_format("x", self.format_name)

    @cached_property
    def figure_format(self) -> Format | None:
        """The output format of the figures beside the results; None: there are none."""
        name = self.output_options.figure_format
        return None if name is None else choose_output_format("x", name)

    @cached_property
    def render_options(self) -> RenderOptions:
        """How results are shown: as `attn compute` writes a file."""
        options = self.output_options
        return RenderOptions(
            precision=options.precision,
            heat=options.shades(has_color=False),
            normalize=options.normalize,
            bare=options.bare,
            tidy=options.tidy,
            standalone=options.standalone,
            figure=replace(options.figure, steps=options.only),
            shared_js=options.shared_js,
        )


def _short_hash(fields: Json) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def _assignment_with_hash(assignment: str) -> str:
    """NAME=HASH for the NAME=PATH of a `--with`: the content of the file decides, not its path."""
    parsed = parse_assignment(assignment)
    return parsed.spell(hash_content(parsed.path))


def hash_content(path: str, display_name: str = "", limits: AddressLimits | None = None) -> str:
    """The SHA-256 of an input's content, read in chunks; arguments are those of `open_source`."""
    with open_source(path, display_name, limits) as file:
        return _hash_file(file)


def _hash_file(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def process_input(
    job: Job,
    variant_hash: str,
    input: Input,
    recorded: ResultRecord | None = None,
    write_bytes: BytesWriter | None = None,
    report_progress: LineProgressCallback = lambda line_count, failed_count, fraction: None,
) -> Receipt:
    """Compute one input and write its result. Whatever goes wrong is in the receipt; nothing is raised.

    Args:
        job: what to do.
        variant_hash: the hash of all choices, for the receipt.
        input: what to compute.
        recorded: what the manifest says of its result; if that still holds, the input is skipped.
        write_bytes: called with the bytes of the result, instead of writing a file.
        report_progress: called after each line of a file of JSON lines.
    """
    started = time.perf_counter()
    receipt = Receipt(input.display_name, input.result_path, "done", variant=variant_hash)
    try:
        if job.attn_version != __version__:
            raise CannotError(
                "worker-differs", f"a worker has attn {__version__}, but this command is {job.attn_version}"
            )
        if job.is_for_table:
            receipt = _compute_rows(job, input, receipt, report_progress)
        elif input.is_stream:
            receipt = _compute_lines(job, input, receipt, recorded, write_bytes, report_progress)
        else:
            data = read_content(job, input)
            receipt = replace(receipt, sha256=hashlib.sha256(data).hexdigest())  # a failure has it too
            receipt = _compute_single(job, input, receipt, recorded, write_bytes, data)
    except AttnError as error:
        receipt = _record_failure(receipt, error)
    except MemoryError:
        receipt = _record_failure(receipt, CannotError("out-of-memory", "the computation does not fit in memory"))
    except Exception as error:  # a bug costs one input, not the batch
        receipt = _record_failure(receipt, internal_error(error))
    if receipt.error is not None:
        receipt = replace(receipt, error=_hide_secrets_in_record(receipt.error, input.path))
    return replace(receipt, seconds=round(time.perf_counter() - started, 6))


def _hide_secrets_in_record(record: Json, address: str) -> Json:
    """The record of an error without the secrets of the address that it is about: libraries repeat whole addresses."""
    return {name: hide_secrets(text, address) if isinstance(text, str) else text for name, text in record.items()}


def _record_failure(receipt: Receipt, error: AttnError) -> Receipt:
    """The receipt of an input that failed; of status `stopped` where every other input would meet the same error."""
    cause = error.__cause__
    is_of_disk = isinstance(cause, OSError) and cause.errno in _FATAL_ERRNOS and error.code == "cannot-write"
    if is_of_disk or error.status == ExitStatus.USAGE or error.code in _FATAL_CODES:
        return replace(receipt, status="stopped", error=error.to_record() | {"status": int(error.status)})
    return replace(receipt, status="failed", error=error.to_record())


def plan_input(job: Job, input: Input, data: bytes) -> tuple[Plan, Selection]:
    """Parse an input and plan what will be computed of it: everything that can be refused without torch.

    Raises:
        AttnError: it is refused.
    """
    from attncli.readers import load_reader, parse_problem

    options = job.read_options
    reader = reader_for(input.path, options.input_format)
    problem = parse_problem(
        data,
        input.display_name,
        load_reader("ndjson-tokens") if reader.is_stream else reader,  # a stream of problems is not read here
        **options.reader_keywords,
    )
    plan, selection = plan_request(problem, job.variant_request, job.output_options, job.seed)
    for format in (job.result_format, job.figure_format):
        if format is not None and format.check_shapes is not None:
            format.check_shapes(planned_shapes(plan, selection), job.render_options)
    return plan, selection


def _compute_single(
    job: Job,
    input: Input,
    receipt: Receipt,
    recorded: ResultRecord | None,
    write_bytes: BytesWriter | None,
    data: bytes,
) -> Receipt:
    """Compute an input that is one problem."""
    if is_up_to_date(job, input, recorded, receipt.sha256):
        return replace(receipt, status="skipped")
    plan, selection = plan_input(job, input, data)
    refuse_too_many_numbers(plan, selection, job.result_format)
    run_plan = load_engine()
    computed = apply_selection(run_plan(plan), plan, selection)
    attention = job.result_format.prepare_result(computed, job.render_options)
    if job.result_format.shows_workings:
        attention = add_workings(attention, plan, run_plan)
    result = to_bytes(job.result_format.write(attention, job.render_options))
    with _open_result(job, input.result_path, write_bytes) as write:
        write(result)
    if job.output_options.shared_js:
        write_shared_file(job.result_format, Path(job.results_folder, input.result_path).parent)
    if job.figure_format is not None:  # after the result: a figure that is older is of an earlier one
        drawn = job.figure_format.prepare_result(computed, job.render_options)
        attention = replace(attention, warnings=tuple(dict.fromkeys((*attention.warnings, *drawn.warnings))))
        with _open_result(job, figure_path(input.result_path, job.figure_format.name), None) as write:
            write(to_bytes(job.figure_format.write(drawn, job.render_options)))
    result_sha256 = hashlib.sha256(result).hexdigest() if write_bytes is None else None
    return replace(receipt, bytes=len(result), result_sha256=result_sha256, warnings=attention.warnings)


def _compute_rows(job: Job, input: Input, receipt: Receipt, report_progress: LineProgressCallback) -> Receipt:
    """Compute an input into rows of a table; of a file of JSON lines, the rows of each line that can be computed."""
    from attncli.batch.result_table import write_rows

    path = Path(job.results_folder, input.result_path)
    if not input.is_stream:
        plan, selection = plan_input(job, input, read_content(job, input))
        attention = apply_selection(load_engine()(plan), plan, selection)
        return replace(receipt, bytes=write_rows(path, [attention]), warnings=attention.warnings)
    from attncli.readers.json import read_json_lines

    error_counts: Counter[str] = Counter()  # by error code
    line_count = 0
    with open_source(job.source_path(input), input.display_name, job.address_limits) as file:
        counted = CountedReader(file)

        def results() -> Iterator[Attention]:
            nonlocal line_count
            problems = read_json_lines(unpack_lines(counted, path_part(input.path)), input.display_name)
            for answer in compute_each(problems, job.variant_request, job.output_options, job.seed):
                line_count += 1
                if isinstance(answer, AttnError):
                    error_counts[answer.code] += 1
                else:
                    yield answer
                fraction = counted.bytes_read / file.total_bytes if file.total_bytes else 0.0
                report_progress(line_count, error_counts.total(), fraction)

        receipt = replace(receipt, bytes=write_rows(path, results()), problems=line_count)
    return _with_failed_lines(receipt, error_counts, line_count)


def is_up_to_date(job: Job, input: Input, recorded: ResultRecord | None, sha256: str | None) -> bool:
    """Whether an input has the content that its result was made of, and the result is what it was then.

    Args:
        job: in which folder the result is.
        input: which input.
        recorded: what the manifest says of the result; None: there is none.
        sha256: of the content of the input.
    """
    if recorded is None or sha256 != recorded.sha256:
        return False
    path = Path(job.results_folder, input.result_path)
    try:
        state = path.stat()
        if state.st_size != recorded.bytes or not _has_figure(job, input, state.st_mtime_ns):
            return False
        with path.open("rb") as file:
            return _hash_file(file) == recorded.result_sha256
    except OSError:
        return False


def _has_figure(job: Job, input: Input, result_time: int) -> bool:
    """Whether the figure of a result is there, if there is to be one: not older than the result, in nanoseconds."""
    if job.figure_format is None:
        return True
    path = Path(job.results_folder, figure_path(input.result_path, job.figure_format.name))
    return path.stat().st_mtime_ns >= result_time


def dry_run_input(job: Job, input: Input, recorded: ResultRecord | None) -> bool:
    """Whether an input is done already; if it is not, plan it, without torch.

    Raises:
        AttnError: it would fail.
    """
    if not input.is_stream:
        data = read_content(job, input)
        if is_up_to_date(job, input, recorded, hashlib.sha256(data).hexdigest()):
            return True
        plan_input(job, input, data)
        return False
    if recorded is not None and is_up_to_date(job, input, recorded, _hash_input(job, input)):
        return True
    from attncli.readers.json import read_json_lines

    error_counts: Counter[str] = Counter()  # by error code
    line_count = 0
    with open_source(job.source_path(input), input.display_name, job.address_limits) as file:
        for _, problem in read_json_lines(unpack_lines(file, path_part(input.path)), input.display_name):
            line_count += 1
            try:
                if isinstance(problem, AttnError):
                    raise problem
                plan_request(problem, job.variant_request, job.output_options, job.seed)
            except AttnError as error:
                error_counts[error.code] += 1
    if error_counts:
        raise _lines_failed_error(error_counts, line_count)
    return False


def _lines_failed_error(error_counts: Counter[str], line_count: int) -> InputError:
    """The error of a file of JSON lines some of which failed; `error_counts` by error code."""
    codes = join_names(f"{count} {code}" for code, count in error_counts.most_common())
    return InputError("lines-failed", f"{error_counts.total()} of {line_count} lines failed: {codes}")


def _hash_input(job: Job, input: Input) -> str:
    return hash_content(job.source_path(input), input.display_name, job.address_limits)


def read_content(job: Job, input: Input) -> bytes:
    """Read all bytes of an input.

    Raises:
        InputError: it cannot be read.
    """
    with open_source(job.source_path(input), input.display_name, job.address_limits) as file:
        return file.read()


def _compute_lines(
    job: Job,
    input: Input,
    receipt: Receipt,
    recorded: ResultRecord | None,
    write_bytes: BytesWriter | None,
    report_progress: LineProgressCallback,
) -> Receipt:
    """Compute a file of JSON lines, line by line: a result or an error for each, in the same memory however many there are."""
    from attncli.readers.json import read_json_lines

    if recorded is not None and is_up_to_date(job, input, recorded, _hash_input(job, input)):
        return replace(receipt, status="skipped", sha256=recorded.sha256)
    input_digest, result_digest = hashlib.sha256(), hashlib.sha256()
    bytes_written = line_count = 0
    error_counts: Counter[str] = Counter()  # by error code
    with (
        open_source(job.source_path(input), input.display_name, job.address_limits) as file,
        _open_result(job, input.result_path, write_bytes) as write,
    ):
        hashed = CountedReader(file, input_digest)
        problems = read_json_lines(unpack_lines(hashed, path_part(input.path)), input.display_name)
        for text, error in compute_stream(problems, job.variant_request, job.output_options, job.seed):
            encoded = to_bytes(text)
            write(encoded)
            result_digest.update(encoded)
            bytes_written += len(encoded)
            line_count += 1
            if error is not None:
                error_counts[error.code] += 1
            fraction = hashed.bytes_read / file.total_bytes if file.total_bytes else 0.0
            report_progress(line_count, error_counts.total(), fraction)
    receipt = replace(
        receipt,
        sha256=input_digest.hexdigest(),
        bytes=bytes_written,
        result_sha256=result_digest.hexdigest(),
        problems=line_count,
    )
    return _with_failed_lines(receipt, error_counts, line_count)


def _with_failed_lines(receipt: Receipt, error_counts: Counter[str], line_count: int) -> Receipt:
    """The receipt of a file of JSON lines: it has failed where some lines have."""
    if not error_counts:
        return receipt
    lines_failed = _lines_failed_error(error_counts, line_count).add_location(file=receipt.input)
    return replace(receipt, status="failed", error=lines_failed.to_record())


@contextmanager
def _open_result(job: Job, result_path: str, write_bytes: BytesWriter | None) -> Iterator[BytesWriter]:
    """Open the file of a result or of its figure, which appears whole or not at all, and yield a function that writes to it.

    Raises:
        CannotError: it cannot be written, or the run that sent the job has ended.
    """
    if write_bytes is not None:
        yield write_bytes
        return
    path = Path(job.results_folder, result_path)
    refuse_link(job.results_folder, result_path)
    if "/" in result_path:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(error, str(path)) from error
    with atomic_write(path, durable=False) as file:

        def write(data: bytes) -> None:
            file.write(data)

        yield write
        _refuse_ended_run(job)


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
