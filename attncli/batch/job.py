"""What is done to every input of a batch, and what one input is before it is computed: `Job`, `plan_input`, `dry_run_input`."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

from attncli import __version__
from attncli.batch.address_limits import AddressLimits
from attncli.batch.addresses import absolute_path, path_part
from attncli.batch.inputs import Input, reader_for
from attncli.batch.manifest import ResultRecord
from attncli.batch.result_paths import figure_path
from attncli.batch.sources import open_source, read_source
from attncli.errors import AttnError, InputError
from attncli.output_formats import Format, RenderOptions, choose_output_format
from attncli.pipeline import count_written_numbers, plan_request, planned_shapes
from attncli.plan.estimate import Calibration, RunEstimate, estimate_run
from attncli.readers.compression import ArrivingLines, unpack_lines
from attncli.readers.state_dict import read_layer, split_file_and_prefix
from attncli.readers.with_field import parse_assignment
from attncli.request import OutputOptions, ReadOptions, VariantRequest
from attncli.text import join_names
from attncli.types import Json

if TYPE_CHECKING:
    from attncli.plan import Plan
    from attncli.select import Selection

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
    thread_count: int = 1  # of a worker
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


def estimate_input(job: Job, input: Input, data: bytes, calibration: Calibration) -> RunEstimate:
    """Plan an input, and estimate what computing it will take.

    Raises:
        AttnError: it is refused.
    """
    plan, selection = plan_input(job, input, data)
    is_text = reader_for(input.path, job.read_options.input_format).is_text
    return estimate_run(
        plan,
        calibration,
        read_bytes=len(data) if is_text else 0,
        written_numbers=count_written_numbers(plan, selection, job.result_format),
    )


def dry_run_input(
    job: Job, input: Input, recorded: ResultRecord | None, calibration: Calibration
) -> RunEstimate | None:
    """Plan an input, without torch, and estimate what it will take; None: it is done already.

    Raises:
        AttnError: it would fail.
    """
    if not input.is_stream:
        data = read_content(job, input)
        if is_up_to_date(job, input, recorded, hashlib.sha256(data).hexdigest()):
            return None
        return estimate_input(job, input, data, calibration)
    if recorded is not None and is_up_to_date(job, input, recorded, hash_input(job, input)):
        return None
    from attncli.readers.json import read_json_lines

    error_counts: Counter[str] = Counter()  # by error code
    line_count = 0
    estimates: list[RunEstimate] = []
    with open_source(job.source_path(input), input.display_name, job.address_limits) as file:
        lines = ArrivingLines(unpack_lines(file, path_part(input.path)))
        for _, problem in read_json_lines(lines, input.display_name):
            line_count += 1
            try:
                if isinstance(problem, AttnError):
                    raise problem
                plan, selection = plan_request(problem, job.variant_request, job.output_options, job.seed)
                number_count = count_written_numbers(plan, selection, job.result_format)
                estimates.append(estimate_run(plan, calibration, written_numbers=number_count))
            except AttnError as error:
                error_counts[error.code] += 1
        byte_count = file.total_bytes
    if error_counts:
        raise lines_failed_error(error_counts, line_count)
    return RunEstimate(
        join_names(sorted({estimate.schedule for estimate in estimates}), "and"),
        sum(estimate.score_count for estimate in estimates),
        max((estimate.memory_bytes for estimate in estimates), default=0),
        sum(estimate.seconds for estimate in estimates) + byte_count * calibration.byte,
    )


def lines_failed_error(error_counts: Counter[str], line_count: int) -> InputError:
    """The error of a file of JSON lines some of which failed; `error_counts` by error code."""
    codes = join_names(f"{count} {code}" for code, count in error_counts.most_common())
    return InputError("lines-failed", f"{error_counts.total()} of {line_count} lines failed: {codes}")


def hash_input(job: Job, input: Input) -> str:
    """The SHA-256 of an input's content, read in chunks."""
    return hash_content(job.source_path(input), input.display_name, job.address_limits)


def read_content(job: Job, input: Input) -> bytes:
    """Read all bytes of an input.

    Raises:
        InputError: it cannot be read.
    """
    return read_source(job.source_path(input), input.display_name, job.address_limits)
