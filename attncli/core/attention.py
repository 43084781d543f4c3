"""The algebra of attention, to be read beside the paper (Vaswani et al. 2017, §3.2). Entry: `run_plan`.

b batch · h query heads (h' once they are mixed) · g kv heads · n queries · s new keys
m keys, past and new · d width of one head of q and k · c of one head of v
Where there is no batch, or no heads are named, b or h is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from attncli.core.dropout import apply_dropout
from attncli.core.inputs import Inputs
from attncli.core.layers import (
    append_sink,
    append_sink_visibility,
    append_to_past,
    key_embeddings,
    merge,
    nonfinite_mask,
    output_projection,
    project,
    projection_formula,
    qk_transforms,
    query_embeddings,
    repeat_kv,
    split,
    split_sink,
    sub_norm,
    upcast_half,
    visible_after_mixing,
    weighted_sum,
)
from attncli.core.merged_rows import MergedRows
from attncli.core.recorder import Recorder, StepAllocator
from attncli.core.sdpa import try_sdpa
from attncli.core.statistics import (
    fill_empty_rows,
    find_unusual_context,
    find_unusual_output,
    find_unusual_weights,
    iter_row_statistics,
    iter_top_weights,
)
from attncli.core.tiles import WHOLE_GRID, KeysValues, ProgressCallback, Tile, assemble_tiles, iter_tiles
from attncli.derivation import record_intermediate
from attncli.plan import Plan
from attncli.plan.schedule import with_whole_rows
from attncli.types import Attention, Grid

TileResults = Iterator[tuple[Tile, Tensor | None]]  # tiles, and their weights · v: (b, h', n, c)
# Computes the tiles of a plan, in this process (`attend_locally`) or on workers (`attend_remotely`).
TileExecutor = Callable[[Plan, Tensor, Tensor, Tensor | None, Inputs, Recorder], TileResults]


def run_plan(
    plan: Plan,
    progress: ProgressCallback | None = None,
    allocate_step: StepAllocator | None = None,
    tile_executor: TileExecutor | None = None,
) -> Attention:
    """Compute a plan and return the steps that it keeps.

    Args:
        progress: called with the share of a long run that is done.
        allocate_step: provides the tensor for a step that shall not lie in memory.
        tile_executor: computes the tiles, if there are several, in place of this process.
    """
    executor = tile_executor if plan.tile_size else None
    inputs = Inputs(plan, device="cpu" if executor else None)
    recorder = Recorder(plan, inputs.caller_memory, inputs.drawn_parameters, allocate_step)
    for name in plan.shapes.parameters:
        if name in inputs.projection_parameters:  # a fault that `attn check` tries may have taken one out
            recorder.record(name, inputs.projection_parameters[name], plan.parameter_formula)
    forward(inputs, recorder, executor, progress)
    return recorder.make_attention()


def forward(
    inputs: Inputs,
    recorder: Recorder,
    tile_executor: TileExecutor | None = None,
    progress: ProgressCallback | None = None,
) -> None:
    """Project, split, normalize, rotate, append to the past; attend, tile by tile; merge heads, W_o."""
    plan, record = inputs.plan, recorder.record
    shapes, position, mixing = plan.shapes, plan.variant.position, plan.variant.head_mixing
    q_formula, k_formula, v_formula, o_formula = (projection_formula(inputs, letter) for letter in "qkvo")
    sum_formula = f"{plan.summed_weights} · v"
    z_formula = "normed_context" if "normed_context" in plan.steps else sum_formula
    z_formula += ", heads side by side" if shapes.has_head_axis else ""

    with torch.set_grad_enabled(torch.is_grad_enabled() and (plan.schedule == "dense" or inputs.track_gradients)):
        # x and y are None where q, k and v are given
        x = record("positioned_embeddings", query_embeddings(inputs), position.formula)  # (b, n, x)
        y = key_embeddings(inputs, x)  # (b, s, y)
        q = record("q", split(project(inputs, "q", x), shapes.heads), q_formula)  # (b, h, n, d)
        k = record("k", split(project(inputs, "k", y), shapes.kv_heads), k_formula)  # (b, g, s, d)
        v = record("v", split(project(inputs, "v", y), shapes.v_heads), v_formula)  # (b, g, s, c)
        for step, transform, formula in qk_transforms(inputs):  # norm and rotation, in the variant's order
            q = record(f"{step}_q", transform("q", q), formula("q"))  # (b, h, n, d)
            k = record(f"{step}_k", transform("k", k), formula("k"))  # (b, g, s, d)
        k = record("present_k", append_to_past(inputs.past("k"), k), "past, then k")  # (b, g, m, d)
        v = record("present_v", append_to_past(inputs.past("v"), v), "past, then v")  # (b, g, m, c)

        tiles = (tile_executor or attend_locally)(plan, q, k, v, inputs, recorder)
        z = assemble_tiles(plan, tiles, progress)  # (b, h', n, c)
        recorder.end_tiles()

        record("head_context", z, sum_formula)  # (b, h', n, c)
        z = record("normed_context", sub_norm(inputs, z), mixing.traits.context_formula)  # (b, h', n, c)
        z = record("context", merge(z), z_formula)  # (b, n, h'·c)
        output = record("output", output_projection(inputs, z), o_formula)  # (b, n, ·)
        recorder.warn(find_unusual_output(plan, z, output))


def attend_locally(
    plan: Plan, q: Tensor, k: Tensor, v: Tensor | None, inputs: Inputs, recorder: Recorder
) -> TileResults:
    """Attend in this process, by PyTorch's kernel or tile by tile: q (b, h, n, d), k, v (b, g, m, ·) → (b, h', ·, c)."""
    k = repeat_kv(k, plan.shapes.heads, plan.variant.kv_map)  # (b, h, m, d)
    v = repeat_kv(v, plan.shapes.mixed_heads, plan.variant.kv_map)  # (b, h', m, c); h' is h/2 where heads pair

    if plan.schedule == "fused":
        z = try_sdpa(plan, q, k, v, inputs, recorder)  # (b, h, n, c)
        if z is not None:
            yield WHOLE_GRID, z
            return
        plan = recorder.plan = plan.with_schedule("tiled")
    keys_values = KeysValues(k, v, nonfinite_mask(v))
    for tile in iter_tiles(plan):
        yield tile, attend_tile(plan, tile.select(q, has_key_axis=False), keys_values, inputs, recorder, tile)


def attend_tile(
    plan: Plan, q: Tensor, keys_values: KeysValues, inputs: Inputs, recorder: Recorder, tile: Tile
) -> Tensor | None:
    """Attend one tile, q (b, h, n, d) of its rows: with all their keys, or with blocks of keys that are merged."""
    if not (plan.keys_per_block and plan.tile_size):
        return attend_whole_rows(plan, q, keys_values, inputs, recorder, tile)
    recorder.begin_tile(tile)
    merged = MergedRows(plan)
    for block in tile.split_keys(plan.keys_per_block):
        grid, (k, v, nonfinite) = inputs.grid_of(block), keys_values.select(block)  # m are the block's keys
        is_full = inputs.is_fully_visible(grid)
        s = score_and_chain(plan, q, k, grid, recorder, is_full=is_full)  # (b, h, n, m)
        merged.merge_block(s, grid, v, nonfinite, block, is_full=is_full)
    if merged.is_ordered:
        return merged.finish_rows(recorder, plan.variant.sink(grid.parameters, s), q.dtype)  # (b, h, n, c)
    return attend_few_rows_at_a_time(with_whole_rows(plan), q, keys_values, inputs, recorder, tile)


def score_and_chain(
    plan: Plan, q: Tensor, k: Tensor, grid: Grid, recorder: Recorder, *, is_full: bool = False
) -> Tensor:
    """Score keys, and run the chain: (b, h, n, d), (b, h, m, d) → (b, h, n, m), −∞ where hidden, unless the grid `is_full`."""
    s = plan.variant.score(q, k, grid.parameters)  # (b, h, n, m)
    recorder.record("scores", s, plan.variant.score.formula)
    after_mask = False  # from the mask on, what is masked stays masked
    for link in plan.chain:
        s = s if link.is_mask and is_full else link.run(s, grid)  # (b, h, n, m)
        s = s.where(grid.visible, -torch.inf) if after_mask and not is_full else s
        recorder.record(link.step, s, link.formula)
        after_mask = after_mask or link.is_mask
    return s


def attend_few_rows_at_a_time(
    plan: Plan, q: Tensor, keys_values: KeysValues, inputs: Inputs, recorder: Recorder, tile: Tile
) -> Tensor | None:
    """Attend a tile, q (b, h, n, d), in parts of so few rows that these fit with all their keys in as much memory."""
    parts = []
    for part in tile.split_rows(max(1, plan.tile_size // tile.key_count)):
        first = part.rows.start - tile.rows.start
        rows = q[:, :, first : first + part.row_count]  # (b, h, n', d)
        parts.append(attend_whole_rows(plan, rows, keys_values, inputs, recorder, part))  # (b, h', n', c)
    return None if keys_values.v is None else torch.cat([z for z in parts if z is not None], 2)


def attend_whole_rows(
    plan: Plan, q: Tensor, keys_values: KeysValues, inputs: Inputs, recorder: Recorder, tile: Tile
) -> Tensor | None:
    """Score, chain, normalise, drop, mix and sum one tile: n are its rows, all of q; m the keys that they can reach."""
    variant, record = plan.variant, recorder.record
    grid, (k, v, nonfinite) = inputs.grid_of(tile), keys_values.select(tile)  # arrays that broadcast to (b, h, n, m)
    recorder.begin_tile(tile)
    has_mask = any(link.grid_field == "visible" for link in plan.chain)
    record("mask", grid.visible if has_mask else None, "may attend")
    s = score_and_chain(plan, q, k, grid, recorder)  # (b, h, n, m)
    sink = record_intermediate("sink", variant.sink(grid.parameters, s), is_input=True)  # (1, h, 1, 1), or None
    s = append_sink(s, sink)  # (b, h, n, m), + 1 with a sink
    visible = append_sink_visibility(grid.visible, sink) if plan.is_masked else None  # the same; None: every key
    w_all = variant.normalizer(upcast_half(s), visible)  # the same
    w, w_sink = split_sink(w_all, grid.visible.shape[-1])  # (b, h, n, m), (b, h, n) or None
    empty = inputs.find_empty_rows(grid)  # (b, h, n); None: there is none
    largest = s.amax(-1)  # (b, h, n)
    recorder.warn(find_unusual_weights(plan, largest, w, grid.visible, empty))
    w, w_sink = fill_empty_rows(plan, w, w_sink, empty)
    record("weights", w, variant.normalizer.formula + ("" if w_sink is None else ", Σ with the sink"))
    record("sink_weights", w_sink, variant.sink.formula)
    for statistic in iter_row_statistics(plan, s, largest, w_all, w, grid.visible):
        record(*statistic)  # (b, h, n)
    w = apply_dropout(inputs.dropout_source, variant.dropout, w, tile)  # (b, h, n, m)
    record("dropout_weights", w, variant.dropout.formula)
    w = variant.head_mixing(w, grid.parameters)  # (b, h', n, m)
    record("mixed_weights", w, variant.head_mixing.formula)
    for statistic in iter_top_weights(plan, w, tile):
        record(*statistic)  # (b, h', n, top)
    if v is None:
        return None
    z = weighted_sum(w, v, nonfinite, visible_after_mixing(plan, grid))  # (b, h', n, c)
    recorder.warn(find_unusual_context(plan, z, empty))
    return z
