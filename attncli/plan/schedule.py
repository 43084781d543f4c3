"""How a plan is run: dense, in tiles or by one kernel; what a long run keeps; and whether it fits in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attncli.errors import CannotError, input_error
from attncli.parts.projections import projection_shapes
from attncli.plan.key_ranges import find_key_ranges
from attncli.plan.visibility import mask_batch_heads
from attncli.validation.fields import is_tensor

if TYPE_CHECKING:
    from attncli.plan import Plan

MAX_DENSE_SCORES = 2**21  # cells of a grid that is computed whole
MAX_TILE_SCORES = 2**20  # cells of a tile: a few of them lie in a processor's cache
MAX_FIRST_LOOK_SCORES = 2**24  # cells beyond which a first look shows no matrix
MEMORY_CHECK_THRESHOLD_BYTES = 2**24  # bytes that nobody asks for
MAX_SDPA_MASK_BYTES = 2**28  # bytes of a mask that a kernel may be handed
_STEPS_OUTSIDE_TILES = {  # steps that no tile makes: they are of tokens, or of what the tiles have left
    "positioned_embeddings", "q", "k", "v", "normed_q", "normed_k", "positioned_q", "positioned_k", "present_k", "present_v",
    "head_context", "normed_context", "context", "output",
}  # fmt: skip


def choose_schedule(
    plan: Plan, selection: Mapping[str, tuple[int, ...]] | None = None, *, streamed: bool = False
) -> Plan:
    """The plan with its schedule. Of a long run only the queries `selection` names are computed; `streamed`: matrices go to a file.

    Raises:
        InputError: the schedule that was asked for cannot run this.
        CannotError: it does not fit in memory.
    """
    selection = selection or {}
    if "query" in selection and score_count(plan) > MAX_DENSE_SCORES:
        plan = replace(plan, computed_queries=np.array(selection["query"]))
    if plan.is_first_look and score_count(plan) > MAX_FIRST_LOOK_SCORES and "key" not in selection:
        plan = _drop_matrix_steps(plan)
    asked, graph = plan.variant.schedule, _requires_grad(plan)
    if graph and asked in ("tiled", "fused"):
        raise input_error(
            "no-graph", f"a tensor requires grad, and the {asked} schedule keeps no graph", help="schedule dense"
        )
    why = why_not_sdpa(plan, asked == "fused")
    if asked == "fused" and why:
        raise input_error(
            "not-fused", f"no fused kernel says this: {why}", help="leave --schedule out: what runs is found"
        )
    name = asked or ("dense" if graph or score_count(plan) <= MAX_DENSE_SCORES else "tiled" if why else "fused")
    made = replace(
        plan,
        schedule=name,
        tile_size=_choose_tile_size(plan) if name != "dense" else 0,
        variant=plan.variant.replace(schedule=name),
    )
    _check_memory(made, streamed)
    return made


def score_count(plan: Plan) -> int:
    """How many scores there are."""
    return (plan.size.batch or 1) * plan.shapes.heads * plan.axis_length("scores", "query") * plan.size.keys


def matrix_steps(plan: Plan) -> list[str]:
    """The steps kept that have a number for each query and key."""
    return [name for name, axes in plan.steps.items() if name in plan.keep and axes[-2:] == ("query", "key")]


def _drop_matrix_steps(plan: Plan) -> Plan:
    """A first look at a long run: what grows with queries times keys is left out, and said to be."""
    left = matrix_steps(plan)
    keep = plan.keep - {*left}
    if not left:
        return plan
    n, m = plan.axis_length("scores", "query"), plan.size.keys
    if not keep:
        way = "--only log_sum_exp,entropy; --top 8; --at query=0; or --only weights --output FILE.safetensors"
        raise input_error(
            "too-long", f"there is no v, and {n:,} × {m:,} scores are not shown unless asked for", help=way
        )
    names = " and ".join([", ".join(left[:-1]), left[-1]] if len(left) > 1 else left)
    says = (
        f"left-out: {names} of {n:,} × {m:,}: --only names them, --at query=… shows a row, --top 8 the largest weights"
    )
    return replace(plan, keep=keep, warnings=(*plan.warnings, says))


def _requires_grad(plan: Plan) -> bool:
    p = plan.problem
    held = (p.embeddings, p.q, p.k, p.v, p.bias, *(p.memory or {}).values(), *(p.past or {}).values())
    return any(is_tensor(x) and x.requires_grad for x in (*held, *p.parameters.values()))


# ── one kernel ───────────────────────────────────────────────────────────────────────────────────
def why_not_sdpa(plan: Plan, requested: bool) -> str:
    """Why PyTorch's scaled_dot_product_attention is not called; nothing where it says exactly this variant.

    With a mask it must be handed the whole of it, so that tiles are faster where the mask bounds what is reached.
    """
    v, shapes = plan.variant, plan.shapes
    inside = sorted(plan.keep - _STEPS_OUTSIDE_TILES)
    odd = [f"{name} {v[name]}" for name in ("sink", "dropout", "head_mixing") if not v[name].is_none]
    odd += [str(v[name]) for name in ("score", "normalizer") if not v[name].traits.is_fused]
    odd += [f"the link {link.name}" for link in plan.chain if not link.is_fused]
    if shapes.c is None:
        return "there is no v"
    if odd:
        return f"{odd[0]} is not in it"
    if inside:
        return f"it does not tell {inside[0]}"
    if shapes.c != shapes.d:
        return f"values are {shapes.c} wide, and keys {shapes.d}"
    if not v.device.startswith("cpu") and v.dtype == "float64":
        return "on this device it has no float64"
    if not plan.is_masked or is_causal(plan):
        return ""
    if v.empty_rows == "uniform":
        return "it has no uniform weights for a query that sees no key"
    size = (
        math.prod(mask_batch_heads(plan.make_grid(), plan.mask))
        * plan.axis_length("scores", "query")
        * plan.size.keys
        * (1 + item_size(plan))
    )
    if size > MAX_SDPA_MASK_BYTES:
        return f"its mask would take {size / 2**20:,.0f} MiB"
    return (
        "" if requested or find_key_ranges(plan.make_grid(), plan.mask) is None else "the mask bounds what is reached"
    )


def is_causal(plan: Plan) -> bool:
    """Whether the mask is causal over indices and nothing else hides a key: what kernels call `is_causal`."""
    part, p = plan.mask.part if plan.mask else None, plan.problem
    if part is None or not part.traits.is_causal or p.lengths is not None or p.bias is not None:
        return False
    n, m = plan.size.queries, plan.size.keys
    counted = plan.q_pos is not None and (plan.q_pos == np.arange(n)).all() and (plan.k_pos == np.arange(m)).all()
    return bool(counted) and n == m and plan.computed_queries is None


# ── memory ───────────────────────────────────────────────────────────────────────────────────────
def item_size(plan: Plan) -> int:
    """Bytes of a number while it is computed with: half precision is widened."""
    return 8 if plan.variant.dtype == "float64" else 4


def _extra_per_score(plan: Plan) -> int:
    """How many numbers a cell needs beside its score."""
    return 2 * plan.shapes.d if plan.variant.score.traits.has_vector_per_score else 0


def _choose_tile_size(plan: Plan) -> int:
    """How many cells a tile may have; at least a row of each head that must be computed together."""
    together = plan.shapes.heads if not plan.variant.head_mixing.is_none else 1
    return max(MAX_TILE_SCORES // (1 + _extra_per_score(plan)), together * plan.size.keys)


def _check_memory(plan: Plan, streamed: bool) -> None:
    """What cannot fit is refused before it is tried.

    Raises:
        CannotError: the steps kept and what the algebra needs beside them exceed the memory that is to be had.
    """
    size, shapes, number = plan.size, plan.shapes, item_size(plan)
    whole = score_count(plan)
    at_once = {"dense": whole, "tiled": min(whole, plan.tile_size), "fused": 0}[plan.schedule]
    kept = {name: math.prod(plan.axis_length(name, axis) for axis in plan.steps[name]) for name in plan.keep}
    big = sum(kept[name] for name in matrix_steps(plan))
    grids = at_once * (4 + _extra_per_score(plan)) * number + (0 if streamed else big * number)
    width = max(shapes.d, shapes.d_k, shapes.c or 0)
    vectors = 3 * (size.batch or 1) * shapes.heads * (plan.axis_length("scores", "query") + size.keys) * width * number
    vectors += (sum(kept.values()) - big) * number
    part = plan.variant.projection
    drawn = (
        projection_shapes(plan.projection_sizes(), part.option_value("dim"), part.option_value("v-dim"))
        if part.traits.is_drawn
        else {}
    )
    projections = sum(a * b for a, b in drawn.values()) * 12
    all_of_it = grids + vectors + projections
    have = (
        None if all_of_it <= MEMORY_CHECK_THRESHOLD_BYTES or plan.variant.device != "cpu" else available_memory_bytes()
    )
    if have is None or all_of_it <= have:
        return
    heads = (size.batch or 1) * shapes.heads
    grid = f"{plan.axis_length('scores', 'query'):,} × {size.keys:,} scores in {heads:,} {'head' if heads == 1 else 'heads'}"
    steps = f", {', '.join(matrix_steps(plan))} kept," if big and not streamed else ""
    what = (
        f"{grid}{steps}"
        if grids >= max(vectors, projections)
        else "the vectors"
        if vectors > projections
        else "the drawn projections"
    )
    need = all_of_it / 2**30
    message = f"{what} need about {need:,.1f} GiB, and {have / 2**30:,.1f} are to be had"
    way = "fewer tokens, or a narrower projection"
    if plan.schedule == "dense" and not big:
        way = (
            "--schedule tiled computes it piece by piece"
            if not _requires_grad(plan)
            else "without requires_grad it is tiled"
        )
    elif big:
        way = "--only context,log_sum_exp or --top 8 keep less; --at query=… a row; to a .safetensors file steps go as they are made"
    raise CannotError("out-of-memory", message, help=way)


def available_memory_bytes() -> int | None:
    """Bytes of memory that may still be used here, by the system and by the control group; None where nobody says."""
    said = []
    with suppress(OSError, ValueError, IndexError):
        told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        said.append(int(told["MemAvailable"].split()[0]) * 1024)
    for most, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # "max" is no limit
            said.append(
                int(Path(most).read_text()) - int(Path(used).read_text()) + _reclaimable_bytes(Path(most).parent)
            )
    if not said and hasattr(os, "sysconf"):
        said.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(said, default=None)


def _reclaimable_bytes(control_group: Path) -> int:
    """What a control group holds of files, which it gives back when asked."""
    told: dict[str, str] = dict(line.split() for line in (control_group / "memory.stat").read_text().splitlines())
    return int(told.get("inactive_file", 0)) + int(told.get("active_file", 0))
