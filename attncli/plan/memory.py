"""Check that a plan fits in memory before it is run. Entry: `check_memory`."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from attncli.errors import CannotError
from attncli.parts.projections import projection_shapes
from attncli.plan.plan import Plan

MEMORY_CHECK_THRESHOLD_BYTES = 2**24  # a plan that needs no more is not checked
_NUMBERS_PER_SCORE = 4  # numbers that the algebra holds for each score at a time
_BYTES_PER_DRAWN_NUMBER = 12  # float32 as it is drawn, and float64 as it is computed with
_FEWER_NUMBERS = "use fewer tokens or a narrower projection"


class _NeededBytes(NamedTuple):
    """What a plan needs, by what needs it."""

    scores: int  # of a tile, and the matrices that are kept
    vectors: int  # q, k, v and the like, and the other steps that are kept
    projections: int  # that are drawn


def check_memory(plan: Plan, streamed: bool) -> None:
    """Check that what is kept, and what the algebra needs beside it, fits in the memory that is available.

    Args:
        plan: with its schedule.
        streamed: whether matrices go to a file as they are computed, and not to memory.

    Raises:
        CannotError: it does not fit.
    """
    needed = _count_needed_bytes(plan, streamed)
    if sum(needed) <= MEMORY_CHECK_THRESHOLD_BYTES or plan.variant.device != "cpu":
        return
    available = available_memory_bytes()
    if available is None or sum(needed) <= available:
        return
    are_scores_most = needed.scores >= max(needed.vectors, needed.projections)
    if are_scores_most:
        what = _describe_scores(plan, streamed)
    else:
        what = "the vectors" if needed.vectors > needed.projections else "the drawn projections"
    raise CannotError(
        "out-of-memory",
        f"{what} need about {sum(needed) / 2**30:,.1f} GiB, but only {available / 2**30:,.1f} GiB are free",
        help=_suggest_smaller_run(plan) if are_scores_most else _FEWER_NUMBERS,
    )


def count_needed_bytes(plan: Plan, streamed: bool) -> int:
    """Return how many bytes a plan needs beside its inputs, with its schedule; arguments are those of `check_memory`."""
    return sum(_count_needed_bytes(plan, streamed))


def _count_needed_bytes(plan: Plan, streamed: bool) -> _NeededBytes:
    size, shapes = plan.size, plan.shapes
    scores_at_once = {"dense": plan.score_count, "tiled": min(plan.score_count, plan.tile_size), "fused": 0}
    kept = {name: math.prod(plan.axis_length(name, axis) for axis in plan.steps[name]) for name in plan.keep}
    kept_in_matrices = sum(kept[name] for name in plan.matrix_steps)
    in_scores = scores_at_once[plan.schedule] * (_NUMBERS_PER_SCORE + extra_numbers_per_score(plan))
    if not streamed:
        in_scores += kept_in_matrices
    width = max(shapes.d, shapes.d_k, shapes.c or 0)
    tokens = plan.axis_length("scores", "query") + size.keys
    in_vectors = 3 * (size.batch or 1) * shapes.heads * tokens * width + sum(kept.values()) - kept_in_matrices
    projection = plan.variant.projection
    drawn_shapes = (
        projection_shapes(
            plan.projection_sizes(), projection.option_value("dim"), projection.option_value("v-dim")
        ).values()
        if projection.traits.is_drawn
        else ()
    )
    return _NeededBytes(
        scores=in_scores * plan.item_size,
        vectors=in_vectors * plan.item_size,
        projections=sum(rows * columns for rows, columns in drawn_shapes) * _BYTES_PER_DRAWN_NUMBER,
    )


def extra_numbers_per_score(plan: Plan) -> int:
    """Return how many numbers are made for each score beside it."""
    return 2 * plan.shapes.d if plan.variant.score.traits.has_vector_per_score else 0


def _describe_scores(plan: Plan, streamed: bool) -> str:
    heads = (plan.size.batch or 1) * plan.shapes.heads
    scores = f"{plan.axis_length('scores', 'query'):,} × {plan.size.keys:,} scores in {heads:,} {'head' if heads == 1 else 'heads'}"
    return f"{scores}, {', '.join(plan.matrix_steps)} kept," if plan.matrix_steps and not streamed else scores


def _suggest_smaller_run(plan: Plan) -> str:
    if plan.matrix_steps:
        return "--only context,log_sum_exp or --top 8 keep less; --at query=… keeps one row; a .safetensors file is written piece by piece"
    if plan.schedule != "dense":
        return _FEWER_NUMBERS
    if plan.requires_grad:
        return "without requires_grad it can be computed in tiles"
    return "--schedule tiled computes it piece by piece"


# ── what the machine has ─────────────────────────────────────────────────────────────────────────
_CONTROL_GROUP_FILES = (  # limit and use, in version 2 and version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory_bytes() -> int | None:
    """Return how many bytes of memory are free, by the system and by the control group; None where neither says."""
    limits = []
    with suppress(OSError, ValueError, IndexError):
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    for limit, used in _CONTROL_GROUP_FILES:
        with suppress(OSError, ValueError):  # "max" is no limit
            free = int(Path(limit).read_text()) - int(Path(used).read_text())
            limits.append(free + _reclaimable_bytes(Path(limit).parent))
    if not limits and hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def _reclaimable_bytes(control_group: Path) -> int:
    """Return how many bytes of a control group cache files, which it gives back when asked."""
    fields: dict[str, str] = dict(line.split() for line in (control_group / "memory.stat").read_text().splitlines())
    return int(fields.get("inactive_file", 0)) + int(fields.get("active_file", 0))
