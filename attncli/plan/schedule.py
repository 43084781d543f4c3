"""Choose how a plan is run: dense, in tiles or by PyTorch's kernel; and what a long run keeps. Entry: `choose_schedule`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from attncli.errors import input_error
from attncli.plan.key_ranges import find_key_ranges
from attncli.plan.memory import check_memory, extra_numbers_per_score
from attncli.plan.plan import Plan
from attncli.plan.visibility import mask_batch_heads
from attncli.types import PARAMETER_STEPS

MAX_DENSE_SCORES = 2**21  # scores of a run that is computed whole
MIN_SDPA_SCORES = 2**16  # scores from which PyTorch's kernel pays off where it may be called
MAX_TILE_SCORES = 2**20  # scores of a tile of whole rows: a few of them lie in a processor's cache
MAX_SORTED_KEYS = 2**13  # keys of a row whose largest weights are found at once, where no mask hides any
MAX_SORTED_MASKED_KEYS = 2**15  # the same under a mask, where rows see fewer: measured, causal
MAX_FIRST_LOOK_SCORES = 2**24  # scores beyond which a first look shows no matrix
MAX_SDPA_MASK_BYTES = 2**28  # bytes of a mask that PyTorch's kernel may be handed


class BlockSize(NamedTuple):
    """How many scores are computed at once where the keys of rows come in blocks."""

    rows: int
    keys: int


CPU_BLOCK_SIZE = BlockSize(512, 1024)  # it lies in a processor's cache
ACCELERATOR_BLOCK_SIZE = BlockSize(2048, 4096)  # each operation keeps the device busy for longer than it takes to start
STEPS_OUTSIDE_TILES = {  # steps that no tile makes: they are learned, of tokens, or of the assembled tiles
    *PARAMETER_STEPS,
    "positioned_embeddings", "q", "k", "v", "normed_q", "normed_k", "positioned_q", "positioned_k", "present_k", "present_v",
    "head_context", "normed_context", "context", "output",
}  # fmt: skip


_STEPS_OF_SOFTMAX = {"log_sum_exp", "entropy", "top_keys", "top_weights"}  # which blocks of keys merge for it alone


def choose_schedule(
    plan: Plan, selection: Mapping[str, tuple[int, ...]] | None = None, *, streamed: bool = False
) -> Plan:
    """Return the plan with its schedule; of a long run only the queries that `selection` names are computed.

    Args:
        plan: the outline.
        selection: indices by axis.
        streamed: whether matrices go to a file as they are computed, and not to memory.

    Raises:
        InputError: the schedule that was asked for cannot run this.
        CannotError: it does not fit in memory.
    """
    selection = selection or {}
    if "query" in selection and plan.score_count > MAX_DENSE_SCORES:
        plan = replace(plan, computed_queries=np.array(selection["query"]))
    if plan.is_first_look and plan.score_count > MAX_FIRST_LOOK_SCORES and "key" not in selection:
        plan = _drop_matrix_steps(plan)
    requested, requires_grad = plan.variant.schedule, plan.requires_grad
    if requires_grad and requested in ("tiled", "fused"):
        raise input_error(
            "no-graph", f"a tensor requires grad, but the {requested} schedule keeps no graph", help="schedule dense"
        )
    reason = why_not_sdpa(plan, requested == "fused")
    if requested == "fused" and reason:
        raise input_error(
            "not-fused", f"no fused kernel computes this: {reason}", help="leave --schedule out: one that can is chosen"
        )
    if requested:
        schedule = requested
    elif not (reason or requires_grad) and plan.score_count > min(MIN_SDPA_SCORES, MAX_DENSE_SCORES):
        schedule = "fused"
    elif requires_grad or plan.score_count <= MAX_DENSE_SCORES:
        schedule = "dense"
    else:
        schedule = "tiled"
    scheduled = plan.with_schedule(schedule)
    if schedule != "dense":
        is_whole = why_whole_rows(plan) or _sorts_short_rows(plan)
        scheduled = with_whole_rows(scheduled) if is_whole else _with_key_blocks(scheduled)
    check_memory(scheduled, streamed)
    return scheduled


def _sorts_short_rows(plan: Plan) -> bool:
    """Whether the largest weights are kept, of rows so short that finding them in whole rows takes less than in blocks."""
    most = MAX_SORTED_MASKED_KEYS if plan.is_masked else MAX_SORTED_KEYS
    return bool(plan.keep & {"top_keys", "top_weights"}) and plan.size.keys <= most


def with_whole_rows(plan: Plan) -> Plan:
    """Return the plan with tiles of whole rows; at least a row of each head that must be computed together."""
    heads_together = plan.shapes.heads if not plan.variant.head_mixing.is_none else 1
    tile_size = max(MAX_TILE_SCORES // (1 + extra_numbers_per_score(plan)), heads_together * plan.size.keys)
    return replace(plan, tile_size=tile_size, keys_per_block=0)


def _with_key_blocks(plan: Plan) -> Plan:
    """Return the plan with tiles whose keys come in blocks, as many at once as suits the device."""
    rows, keys = CPU_BLOCK_SIZE if plan.variant.device.startswith("cpu") else ACCELERATOR_BLOCK_SIZE
    rows = max(1, rows // (1 + extra_numbers_per_score(plan)))
    return replace(plan, tile_size=rows * min(keys, plan.size.keys), keys_per_block=keys)


def why_whole_rows(plan: Plan) -> str:
    """Say why the rows of a tile must have all their keys at once; nothing where blocks of keys can be merged."""
    variant, normalizer = plan.variant, plan.variant.normalizer
    depends_on_key_count = normalizer.traits.is_key_count_dependent
    if normalizer.traits.merging is None:
        return f"{normalizer}: {normalizer.traits.whole_row_reason}"
    if depends_on_key_count is not None and depends_on_key_count(normalizer):
        return f"{normalizer}: its weights depend on the number of keys"
    if plan.matrix_steps:
        return f"all of {plan.matrix_steps[0]} is kept"
    links = [link.name for link in plan.chain if link.reads_whole_row]
    if links:
        return f"the link {links[0]} reads whole rows"
    if not variant.dropout.is_none:
        return "dropout is drawn row by row"
    if not variant.head_mixing.is_none:
        return "heads mix their weights"
    if variant.empty_rows == "uniform":
        return "a query that sees no key weighs every key"
    if not normalizer.traits.is_exponential and plan.keep & _STEPS_OF_SOFTMAX:
        return f"{min(plan.keep & _STEPS_OF_SOFTMAX)} is merged of a softmax only"
    return ""


def _drop_matrix_steps(plan: Plan) -> Plan:
    """Leave the matrices out of a first look at a long run, and warn that they are."""
    dropped = plan.matrix_steps
    keep = plan.keep - {*dropped}
    if not dropped:
        return plan
    n, m = plan.axis_length("scores", "query"), plan.size.keys
    if not keep:
        raise input_error(
            "too-long",
            f"there is no v, and {n:,} × {m:,} scores are shown only if you ask for them",
            help="--only log_sum_exp,entropy; --top 8; --at query=0; or --only weights --output FILE.safetensors",
        )
    names = f"{', '.join(dropped[:-1])} and {dropped[-1]}" if len(dropped) > 1 else dropped[0]
    warning = f"left-out: {names} of {n:,} × {m:,} left out: --only shows them, --at query=… one row, --top 8 the largest weights"
    return replace(plan, keep=keep, warnings=(*plan.warnings, warning))


# ── PyTorch's kernel ─────────────────────────────────────────────────────────────────────────────
def why_not_sdpa(plan: Plan, requested: bool) -> str:
    """Say why PyTorch's scaled_dot_product_attention is not called; nothing where it computes exactly this variant.

    Its mask must be handed over whole, so that tiles are faster where the mask bounds the keys that are reached: then
    the kernel is used only where it was `requested`.
    """
    variant, shapes = plan.variant, plan.shapes
    if shapes.c is None:
        return "there is no v"
    unsupported = _unsupported_by_sdpa(plan)
    if unsupported:
        return f"it does not have {unsupported[0]}"
    returned_steps = {"log_sum_exp"} if variant.device.startswith("cpu") else set()
    inner_steps = sorted(plan.keep - STEPS_OUTSIDE_TILES - returned_steps)
    if inner_steps:
        return f"it does not return {inner_steps[0]}"
    if shapes.c != shapes.d:
        return f"values are {shapes.c} wide but keys {shapes.d}"
    if not variant.device.startswith("cpu") and variant.dtype == "float64":
        return "on this device it has no float64"
    if not plan.is_masked or is_causal(plan):
        return ""
    if variant.empty_rows == "uniform":
        return "it has no uniform weights for a query that sees no key"
    grid = plan.make_grid()
    n, m = plan.axis_length("scores", "query"), plan.size.keys
    mask_bytes = math.prod(mask_batch_heads(grid, plan.mask)) * n * m * (1 + plan.item_size)  # booleans, then a bias
    if mask_bytes > MAX_SDPA_MASK_BYTES:
        return f"its mask would take {mask_bytes / 2**20:,.0f} MiB"
    if not requested and find_key_ranges(grid, plan.mask) is not None:
        return "the mask limits which keys are reached"
    return ""


def _unsupported_by_sdpa(plan: Plan) -> list[str]:
    """Name the parts and links of a plan that the kernel does not have."""
    variant = plan.variant
    extra_parts = {"sink": variant.sink, "dropout": variant.dropout, "head_mixing": variant.head_mixing}
    return [
        *(f"{name} {part}" for name, part in extra_parts.items() if not part.is_none),
        *(str(part) for part in (variant.score, variant.normalizer) if not part.traits.is_fused),
        *(f"the link {link.name}" for link in plan.chain if not link.is_fused),
    ]


def is_causal(plan: Plan) -> bool:
    """Whether the mask is causal over indices and nothing else hides a key: what kernels call `is_causal`."""
    part = plan.mask.part if plan.mask else None
    if part is None or not part.traits.is_causal or plan.problem.lengths is not None or plan.problem.bias is not None:
        return False
    n, m = plan.size.queries, plan.size.keys
    if plan.q_order is not None:  # the same queries and keys stand side by side
        return n == m and plan.size.past == 0 and plan.computed_queries is None
    if plan.q_pos is None or n != m or plan.computed_queries is not None:
        return False
    return bool((plan.q_pos == np.arange(n)).all() and (plan.k_pos == np.arange(m)).all())
