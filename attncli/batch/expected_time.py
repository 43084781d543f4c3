"""About how long a batch will take, and by how many processes it is done soonest: from a few of its inputs.

Entries: `expect_seconds`, `choose_process_count`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from attncli.batch.addresses import is_address
from attncli.batch.inputs import Input
from attncli.batch.job import Job, estimate_input, read_content
from attncli.calibration import count_cores
from attncli.plan.estimate import Calibration

_SAMPLE_SIZE = 6  # inputs that are planned
_MAX_SAMPLED_BYTES = 2**20  # larger ones are not read for this
_SECONDS_PER_LARGE_BYTE = 1e-7  # of an input that is not read
# How often torch could be loaded in the time that is expected, before other processes are worth loading it too.
WORTH_LOADS = 2.0  # where they were asked for
_WORTH_LOADS_UNASKED = 4.0


def expect_seconds(job: Job, inputs: Sequence[Input], calibration: Calibration) -> float:
    """Estimate the seconds of processor time that inputs take, from some of them; whatever is wrong with one passes for nothing.

    Of files of JSON lines and of large ones their size is all that counts; an address or a pipe is taken for a large file.
    """
    small: list[Input] = []
    seconds = 0.0
    for input in inputs:
        size = _readable_size(job, input)
        if input.is_stream or size > _MAX_SAMPLED_BYTES:
            seconds += size * _SECONDS_PER_LARGE_BYTE
        else:
            small.append(input)
    step = max(1, len(small) // _SAMPLE_SIZE)
    sample = [_expect_input(job, input, calibration) for input in small[::step][:_SAMPLE_SIZE]]
    return seconds + sum(sample) / max(1, len(sample)) * len(small)


def _readable_size(job: Job, input: Input) -> int:
    """How many bytes an input has; of what can be read once, as a pipe, or over a network: more than are read for this."""
    if is_address(input.path):
        return _MAX_SAMPLED_BYTES + 1
    try:
        status = os.stat(job.source_path(input))  # noqa: PTH116  a Path takes its time to be made
    except (OSError, ValueError):
        return 0  # it fails at once
    return status.st_size if stat.S_ISREG(status.st_mode) else _MAX_SAMPLED_BYTES + 1


def _expect_input(job: Job, input: Input, calibration: Calibration) -> float:
    try:
        return estimate_input(job, input, read_content(job, input), calibration).seconds
    except Exception:  # it is refused when its turn comes
        return 0.0


def share_threads(process_count: int) -> int:
    """Return how many threads each of some processes computes with: its share of the cores, or what OMP_NUM_THREADS says."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    share = max(1, count_cores() // process_count)
    return min(share, int(asked)) if asked.isascii() and asked.isdecimal() and int(asked) else share


def choose_process_count(limit: int, expected_seconds: float, calibration: Calibration, *, is_asked: bool) -> int:
    """Return how many processes to use, at most `limit`: one where the others would not be worth their start."""
    worth_loads = WORTH_LOADS if is_asked else _WORTH_LOADS_UNASKED
    return 1 if expected_seconds < worth_loads * calibration.load else limit
