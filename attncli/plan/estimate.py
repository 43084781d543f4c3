"""What a plan will take, before it is run: its memory, and about how long. Entry: `estimate_run`.

Seconds are counts times what this machine takes for one of each, a `Calibration`: multiplications of matrix products,
passes over scores, numbers that are written, bytes that are read. They are good to a factor of about two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from attncli.plan.memory import count_needed_bytes
from attncli.plan.plan import Plan

# Passes over a tile of scores: the largest of a row, its exponentials, their sum, the quotients, and a look for what is unusual.
_PASSES_OF_NORMALIZER = 5
_ROWS_OF_TILE = 256  # where a mask lets each query reach few keys
_PASSES_OF_STATISTIC = {"log_sum_exp": 1, "entropy": 3, "top_keys": 4, "max_score": 0, "visible_keys": 1}


@dataclass(frozen=True)
class Calibration:
    """The seconds that this machine takes, with the threads it computes with."""

    load: float  # to load torch
    problem: float  # for the calls that compute one problem, however small
    product: float  # for a multiplication and an addition of a product of matrices, in float32
    kernel: float  # for the same in PyTorch's kernel for attention
    score: float  # for one pass over a score, in float32
    number: float  # to write a number as text
    byte: float  # to read a byte of text


# Of an ordinary machine, where nothing has been measured.
TYPICAL_CALIBRATION = Calibration(
    load=1.0, problem=2.5e-4, product=1.2e-11, kernel=1.5e-11, score=6e-10, number=5e-8, byte=1.5e-8
)


@dataclass(frozen=True)
class RunEstimate:
    """What a run will take."""

    schedule: str
    score_count: int  # that are computed
    memory_bytes: int  # beside the inputs
    seconds: float  # without loading torch


def estimate_run(
    plan: Plan, calibration: Calibration, *, read_bytes: int = 0, written_numbers: int = 0, streamed: bool = False
) -> RunEstimate:
    """Estimate what a plan takes.

    Args:
        plan: with its schedule.
        calibration: of this machine.
        read_bytes: of the input, where it is text.
        written_numbers: how many numbers are written as text.
        streamed: whether matrices go to a file as they are computed, and not to memory.
    """
    scores = count_computed_scores(plan)
    width = plan.shapes.d + (plan.shapes.c or 0)
    slower = 2 if plan.item_size == 8 else 1  # float64
    if plan.schedule == "fused":
        in_scores = scores * width * calibration.kernel * slower
    else:
        passes = _PASSES_OF_NORMALIZER + len(plan.chain) + len(plan.matrix_steps)
        passes += sum(_PASSES_OF_STATISTIC.get(name, 0) for name in plan.keep)
        in_scores = scores * (width * calibration.product + passes * calibration.score) * slower
        if scores < plan.score_count:  # tiles of few rows, each of which is as many calls as a problem
            in_scores += plan.axis_length("scores", "query") / _ROWS_OF_TILE * calibration.problem
    return RunEstimate(
        plan.schedule,
        scores,
        count_needed_bytes(plan, streamed),
        calibration.problem
        + in_scores
        + _count_projection_products(plan) * calibration.product * slower
        + read_bytes * calibration.byte
        + written_numbers * calibration.number,
    )


def count_computed_scores(plan: Plan) -> int:
    """Return how many scores are computed: of a long run, those that the mask lets each query reach."""
    ranges = None if plan.schedule == "dense" else plan.find_key_ranges()
    if ranges is None:
        return plan.score_count
    reached = sum(float((last - first).clip(min=0).mean()) for first, last in ranges)  # keys of a query
    return round(plan.score_count * min(1.0, reached / plan.size.keys))


def _count_projection_products(plan: Plan) -> int:
    """Return how many multiplications the projections take."""
    shapes, batch = plan.shapes, plan.size.batch or 1
    tokens = plan.size.queries + plan.size.new_keys
    return batch * tokens * sum(math.prod(shape) for shape in shapes.parameters.values() if len(shape) == 2)


def seconds_left(elapsed: float, fraction: float, expected: float) -> float:
    """Return the seconds until a run ends: by its speed, and before a fifth is done also by what was expected of it.

    Args:
        elapsed: seconds since its start.
        fraction: how much of it is done, 0 … 1.
        expected: seconds that all of it was expected to take; 0: nobody has said.
    """
    if not fraction:
        return max(0.0, expected - elapsed)
    by_speed = elapsed / fraction
    trust = min(1.0, 5 * fraction) if expected else 1.0
    return max(0.0, trust * by_speed + (1 - trust) * expected - elapsed)


def describe_seconds(seconds: float) -> str:
    """Return about how long that is, in words."""
    if seconds < 0.1:
        return "less than 0.1 s"
    if seconds < 100:
        return f"about {seconds:.1g} s" if seconds < 10 else f"about {round(seconds, -1):.0f} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} min" if minutes < 100 else f"about {minutes / 60:.0f} h"


def describe_bytes(count: int) -> str:
    """Return about how much memory that is, in words."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"
