"""What is done to one input, here or on a worker: read, compute, write the result, hand back a receipt."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

from attncli import __version__
from attncli.atomic_file import atomic_write, to_bytes, write_error
from attncli.batch.inputs import Input, reader_for
from attncli.batch.manifest import RUN_ID_FILE, Receipt, ResultRecord
from attncli.batch.sources import absolute_path, open_source
from attncli.errors import AttnError, CannotError, ExitStatus, InputError, join_names
from attncli.output_formats import Format, RenderOptions, choose_output_format
from attncli.pipeline import apply_selection, compute_stream, internal_error, load_engine, plan_request
from attncli.readers.with_field import split_name_and_path
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.types import Json

if TYPE_CHECKING:
    from attncli.plan import Plan
    from attncli.select import Selection

BytesWriter = Callable[[bytes], None]
LineProgressCallback = Callable[
    [int, int, float], None
]  # of a file of many problems: lines done, of which wrong; how much of it, 0 … 1
_FATAL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # the next input would meet the same


@dataclass(frozen=True)
class Job:
    """What is done to every input of a batch. It travels to the workers."""

    variant_request: VariantRequest
    read_options: ReadOptions
    output_options: OutputOptions
    format_name: str
    seed: int  # wherever one would be drawn
    results_folder: str  # of the results
    drawn_seed: int | None = None  # the seed that is the folder's, said or not
    run_id: str = ""  # by which the folder knows that this is wanted, where workers are elsewhere
    working_folder: str | None = None  # the folder that the inputs were named in, where workers may run in another
    attn_version: str = __version__

    def manifest_header(self) -> Json:
        """What decides a result beside the content of its input, as the manifest keeps it: the seed, and a hash of the rest.

        A seed that was said is a choice; one that was drawn stays the folder's.
        """
        showing = {k: getattr(self.output_options, k) for k in ("only", "at", "top", "precision")}
        said = {
            "attn_version": self.attn_version,
            "format": self.format_name,
            "heat": self.output_options.heat == "on",
            "choices": {k: str(v) for k, v in self.variant_request.choices.items()}
            | {"also": self.variant_request.extra_masks},
            "reading": asdict(self.read_options)
            | {"with": [_assignment_with_hash(pair) for pair in self.read_options.replacing]},
            **showing,
        }
        text = json.dumps(said, sort_keys=True)
        return {
            "attn_version": self.attn_version,
            "variant": hashlib.sha256(text.encode()).hexdigest()[:16],
            "seed": self.drawn_seed,
            "choices": said["choices"],
        }

    def for_workers(self) -> Job:
        """The same for workers that run in another folder."""
        pairs = tuple(
            name + "=" + absolute_path(path) for name, path in map(split_name_and_path, self.read_options.replacing)
        )
        reading = replace(self.read_options, replacing=pairs)
        return replace(
            self,
            read_options=reading,
            results_folder=os.path.abspath(self.results_folder),
            working_folder=str(Path.cwd()),
        )

    def for_run(self, run_id: str) -> Job:
        """The same as a task of a run."""
        return replace(self, run_id=run_id)

    def source_path(self, input: Input) -> str:
        """How a worker opens an input."""
        if self.working_folder is None or "://" in input.path:
            return input.path
        return os.path.join(self.working_folder, input.path)

    @cached_property
    def result_format(self) -> Format:
        """The format of the results."""
        return choose_output_format("x", self.format_name)

    @cached_property
    def render_options(self) -> RenderOptions:
        """A file's, as `attn compute` writes it."""
        return RenderOptions(precision=self.output_options.precision, heat=self.output_options.heat == "on")


def _assignment_with_hash(assignment: str) -> str:
    """What a `--with` takes, by its content."""
    name, path = split_name_and_path(assignment)
    return name + "=" + hash_content(path)


def hash_content(path: str, display_name: str = "") -> str:
    """The hash of a file's content, whatever its length in the same memory. `display_name`: what to call it in messages."""
    digest = hashlib.sha256()
    with open_source(path, display_name) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def process_input(
    job: Job,
    variant_hash: str,
    input: Input,
    recorded: ResultRecord | None = None,
    write_bytes: BytesWriter | None = None,
    report_progress: LineProgressCallback = lambda lines, wrong, share: None,
) -> Receipt:
    """One input through to its result.

    Args:
        job: what is done.
        variant_hash: the hash of it.
        input: what to.
        recorded: what its result was made of, if there is one.
        write_bytes: where the result goes instead of its file.
        report_progress: how far a file of many problems is.
    """
    started = time.perf_counter()
    receipt = Receipt(input.display_name, input.result_path, "done", variant=variant_hash)
    try:
        if job.attn_version != __version__:
            raise CannotError(
                "worker-differs", f"a worker has attn {__version__}, and this command is {job.attn_version}"
            )
        if input.is_stream:
            made = _compute_lines(job, input, receipt, recorded, write_bytes, report_progress)
        else:
            data = read_content(job, input)
            receipt = replace(
                receipt, sha256=hashlib.sha256(data).hexdigest()
            )  # what fails is known by its content too
            made = _compute_single(job, input, receipt, recorded, write_bytes, data)
    except AttnError as error:
        made = _record_failure(receipt, error)
    except MemoryError:
        made = _record_failure(receipt, CannotError("out-of-memory", "this does not fit in memory"))
    except Exception as error:  # costs one input, not the batch
        made = _record_failure(receipt, internal_error(error))
    return replace(made, seconds=round(time.perf_counter() - started, 6))


def _record_failure(receipt: Receipt, error: AttnError) -> Receipt:
    """What is wrong with one input; or with all of them, and then the batch stops."""
    cause = error.__cause__
    everyones = isinstance(cause, OSError) and cause.errno in _FATAL_ERRNOS and error.code == "cannot-write"
    if everyones or error.status == ExitStatus.USAGE or error.code in ("torch-missing", "no-device", "worker-differs"):
        return replace(receipt, status="stopped", error=error.to_record() | {"status": int(error.status)})
    return replace(receipt, status="failed", error=error.to_record())


def plan_input(job: Job, input: Input, data: bytes) -> tuple[Plan, Selection]:
    """What will be computed of an input's bytes: everything that can be refused without torch."""
    from attncli.readers import parse_problem

    said, reader = job.read_options, reader_for(input.path, job.read_options.input_format)
    more = {"token_column": said.token_column, "header": said.header}
    problem = parse_problem(data, input.display_name, reader, replacing=said.replacing, **more)
    return plan_request(problem, job.variant_request, job.output_options, job.seed)


def _compute_single(
    job: Job,
    input: Input,
    receipt: Receipt,
    recorded: ResultRecord | None,
    write_bytes: BytesWriter | None,
    data: bytes,
) -> Receipt:
    if is_up_to_date(job, input, recorded, receipt.sha256):
        return replace(receipt, status="skipped")
    made, at = plan_input(job, input, data)
    attention = job.result_format.widen_dtype(apply_selection(load_engine()(made), made, at))
    result = to_bytes(job.result_format.write(attention, job.render_options))
    with _open_result(job, input, write_bytes) as write:
        write(result)
    its = hashlib.sha256(result).hexdigest() if write_bytes is None else None
    return replace(receipt, bytes=len(result), result_sha256=its, warnings=attention.warnings)


def is_up_to_date(job: Job, input: Input, recorded: ResultRecord | None, sha256: str | None) -> bool:
    """Whether the result of a content is there, and is what it was when it was made."""
    if recorded is None or sha256 != recorded.sha256:
        return False
    path, digest = Path(job.results_folder, input.result_path), hashlib.sha256()
    try:
        if path.stat().st_size != recorded.bytes:
            return False
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError:
        return False
    return digest.hexdigest() == recorded.result_sha256


def dry_run_input(job: Job, input: Input, recorded: ResultRecord | None) -> bool:
    """Whether an input is done already, found out without torch.

    Raises:
        InputError: it would fail.
    """
    if not input.is_stream:
        data = read_content(job, input)
        if is_up_to_date(job, input, recorded, hashlib.sha256(data).hexdigest()):
            return True
        plan_input(job, input, data)
        return False
    if recorded is not None and is_up_to_date(
        job, input, recorded, hash_content(job.source_path(input), input.display_name)
    ):
        return True
    from attncli.readers.json import read_json_lines

    causes: Counter[str] = Counter()
    count = 0
    with open_source(job.source_path(input), input.display_name) as file:
        for _, problem in read_json_lines(iter(file.readline, b""), input.display_name):
            count += 1
            try:
                if isinstance(problem, AttnError):
                    raise problem
                plan_request(problem, job.variant_request, job.output_options, job.seed)
            except AttnError as error:
                causes[error.code] += 1
    if causes:
        raise _lines_failed_error(causes, count)
    return False


def _lines_failed_error(error_counts: Counter[str], line_count: int) -> InputError:
    which = join_names(f"{n} {code}" for code, n in error_counts.most_common())
    return InputError("lines-failed", f"{error_counts.total()} of {line_count} lines failed: {which}")


def read_content(job: Job, input: Input) -> bytes:
    """All bytes of an input.

    Raises:
        InputError: it cannot be read.
    """
    with open_source(job.source_path(input), input.display_name) as file:
        return file.read()


def _compute_lines(
    job: Job,
    input: Input,
    receipt: Receipt,
    recorded: ResultRecord | None,
    write_bytes: BytesWriter | None,
    report_progress: LineProgressCallback,
) -> Receipt:
    """JSON lines: a result or an error a line, whatever their number in the same memory."""
    from attncli.readers.json import read_json_lines

    if recorded is not None and is_up_to_date(
        job, input, recorded, hash_content(job.source_path(input), input.display_name)
    ):
        return replace(receipt, status="skipped", sha256=recorded.sha256)
    its, digest, size, count, read = hashlib.sha256(), hashlib.sha256(), 0, 0, 0
    causes: Counter[str] = Counter()
    with (
        open_source(job.source_path(input), input.display_name) as file,
        _open_result(job, input, write_bytes) as write,
    ):

        def hashed_lines() -> Iterator[bytes]:
            nonlocal read
            for line in iter(file.readline, b""):
                digest.update(line)
                read += len(line)
                yield line

        problems = read_json_lines(hashed_lines(), input.display_name)
        for text, wrong in compute_stream(problems, job.variant_request, job.output_options, job.seed):
            encoded = to_bytes(text)
            write(encoded)
            its.update(encoded)
            size, count = size + len(encoded), count + 1
            if wrong:
                causes[wrong.code] += 1
            report_progress(count, causes.total(), read / file.total_bytes if file.total_bytes else 0.0)
    made = replace(receipt, sha256=digest.hexdigest(), bytes=size, result_sha256=its.hexdigest(), problems=count)
    if not causes:
        return made
    return replace(
        made,
        status="failed",
        error=_lines_failed_error(causes, count).add_location(file=input.display_name).to_record(),
    )


@contextmanager
def _open_result(job: Job, input: Input, write_bytes: BytesWriter | None) -> Iterator[BytesWriter]:
    """Where the result is written: its file, which appears whole or not at all."""
    if write_bytes is not None:
        yield write_bytes
        return
    path = Path(job.results_folder, input.result_path)
    if "/" in input.result_path:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(error, str(path)) from error
    with atomic_write(path, durable=False) as file:
        yield _bytes_writer(file)
        _refuse_ended_run(job)


def _refuse_ended_run(job: Job) -> None:
    """Whether the run that sent this task still goes on, or another has the folder now.

    Raises:
        CannotError: it does not; its result is not wanted.
    """
    if not job.run_id:
        return
    try:
        now = Path(job.results_folder, RUN_ID_FILE).read_text()
    except FileNotFoundError:
        now = ""
    if now != job.run_id:
        raise CannotError("not-wanted", "the run that asked for this has ended")


def _bytes_writer(file: IO[bytes]) -> BytesWriter:
    def write(data: bytes) -> None:
        file.write(data)

    return write
