"""The algebra of attention, to be read beside the paper (Vaswani et al. 2017, §3.2).

b batch · h query heads (h' once they are mixed) · g kv heads · n queries · s new keys
m keys, past and new · d width of one head of q and k · c of one head of v
Where there is no batch, or no heads are named, b or h is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor

from attncli.core.inputs import Inputs
from attncli.core.recorder import Recorder, StepAllocator, all_finite
from attncli.core.sdpa import try_sdpa
from attncli.core.tiles import ProgressCallback, Tile, assemble_tiles, iter_tiles
from attncli.derivation import record_intermediate
from attncli.plan import Plan, make_plan
from attncli.plan.head_shapes import kv_head_of
from attncli.types import Array, Attention, Problem
from attncli.variant import Variant

TileResults = Iterator[tuple[Tile, Tensor | None]]  # tiles, and what they make of v: (b, h', n, c)
TileExecutor = Callable[
    [Tensor, Tensor, Tensor | None, Inputs, Recorder], TileResults
]  # who attends, tile by tile: `attend_locally`, or `attend_remotely`


def attend(
    problem: Problem,
    variant: Variant | None = None,
    keep: Collection[str] | None = None,
    *,
    top: int | None = None,
) -> Attention:  # fmt: skip
    """Attention of a problem, step by step.

    Args:
        problem: embeddings (T, d) or (B, T, d), or q, k, v; lists, numpy arrays or tensors.
        variant: what to compute; the problem's own choices if left out.
        keep: names of the steps to hold; None holds every one, "shown" those of a first look.
        top: also the so many largest weights of each query, as `top_keys` and `top_weights`.

    Returns:
        The steps kept, in order, as arrays of the kind that came in.

    Raises:
        OptionError, InputError: as `make_plan`, before any tensor is made.
        CannotError: it does not fit in memory, or the device is not there.
    """
    return run_plan(make_plan(problem, variant, keep, top=top))


def run_plan(
    plan: Plan,
    progress: ProgressCallback | None = None,
    allocate_step: StepAllocator | None = None,
    tile_executor: TileExecutor | None = None,
) -> Attention:
    """The steps of a plan that it keeps.

    `progress` is told how much of a long run is done; `allocate_step` gives room to steps that memory shall not hold; another
    `tile_executor` takes the tiles, where there is more than one.
    """
    return forward(plan, progress, allocate_step, tile_executor if plan.tile_size else None).make_attention()


def forward(
    plan: Plan,
    progress: ProgressCallback | None = None,
    allocate_step: StepAllocator | None = None,
    tile_executor: TileExecutor | None = None,
    *,
    track_gradients: bool = False,
) -> Recorder:
    """Project, split, norm, position, past, share kv heads; attend, tile by tile; merge, W_o."""
    given, heads = Inputs(plan, track_gradients=track_gradients, device="cpu" if tile_executor else None), plan.shapes
    note = Recorder(plan, given, allocate_step)

    with torch.set_grad_enabled(torch.is_grad_enabled() and plan.schedule == "dense"):
        x = given.projection_inputs(note)  # (b, n, x), (b, s, y); nothing where q, k, v are given
        q = note("q", split(given("q", x), heads.heads), given.projection_formula("q"))  # (b, h, n, d)
        k = note("k", split(given("k", x), heads.kv_heads), given.projection_formula("k"))  # (b, g, s, d)
        v = note("v", split(given("v", x), heads.v_heads), given.projection_formula("v"))  # (b, g, s, c)
        for act in (
            given.normalize_qk_before_position,
            given.rotate,
            given.normalize_qk_after_position,
        ):  # most do nothing
            q, k = act(q, k, note)  # (b, h, n, d), (b, g, s, d)
        k = note("present_k", append_to_past(given.past_tensor("k"), k), "past, then k")  # (b, g, m, d)
        v = note("present_v", append_to_past(given.past_tensor("v"), v), "past, then v")  # (b, g, m, c)

        z = assemble_tiles(plan, (tile_executor or attend_locally)(q, k, v, given, note), progress)  # (b, h', n, c)
        note.end_tiles()

        note("head_context", z, "weights · v")  # (b, h', n, c)
        formula = plan.variant.head_mixing.traits.context_formula
        z = note("normed_context", given.sub_norm(z), formula)  # (b, h', n, c)
        side_by_side = "weights · v" + ", heads side by side" * heads.has_head_axis
        z = note("context", merge(z), side_by_side)  # (b, n, h'·c)
        note("output", given.output_projection(z), given.projection_formula("o"))  # (b, n, ·)
    return note


def attend_locally(q: Tensor, k: Tensor, v: Tensor | None, inputs: Inputs, recorder: Recorder) -> TileResults:
    """Every query: by one kernel that says the same, or tile by tile. q (b, h, n, d), k, v (b, g, m, ·) → (b, h', ·, c)"""
    chosen, heads = inputs.plan.variant, inputs.plan.shapes
    k = repeat_kv(k, heads.heads, chosen.kv_map)  # (b, h, m, d)
    v = repeat_kv(v, heads.mixed_heads, chosen.kv_map)  # (b, h', m, c); h' is h/2 where heads pair

    z = try_sdpa(q, k, v, inputs, recorder) if inputs.plan.schedule == "fused" else None  # (b, h, n, c)
    if z is not None:
        yield Tile(), z
        return
    odd = nonfinite_mask(v)  # (b, h', m, c), or None where all of v is finite
    for tile in iter_tiles(recorder.plan):
        yield tile, attend_tile(tile.select(q, has_key_axis=False), k, v, odd, inputs, recorder, tile)


def attend_tile(
    q: Tensor, k: Tensor, v: Tensor | None, nonfinite: Tensor | None, inputs: Inputs, recorder: Recorder, tile: Tile
) -> Tensor | None:
    """One tile: score, chain, normalise, drop, mix, V. Here n are the tile's rows, which q holds; m the keys they can reach."""
    chosen, at = inputs.plan.variant, inputs.grid_of(tile)  # what `at` holds broadcasts to (b, h, n, m)
    recorder.begin_tile(tile)

    s = chosen.score(q, tile.select_kv(k), at.parameters)  # (b, h, n, m)
    recorder("scores", s, chosen.score.member.formula)
    hidden = False  # whether the mask has been met: from there on, what is masked stays so
    for link in inputs.plan.chain:
        s = link.run(s, at)  # (b, h, n, m)
        s = s.where(at.visible, -torch.inf) if hidden else s
        hidden = hidden or link.is_mask
        recorder("mask", at.visible if link.grid_field == "visible" else None, "may attend")
        recorder(link.step, s, link.formula)

    sink = chosen.sink(at.parameters, s)  # (1, h, 1, 1), or None
    seen = at.visible if inputs.plan.is_masked else None  # None: every key
    s, seen = append_sink(s, sink), append_sink(seen, None if sink is None else sink == sink)  # m + 1
    record_intermediate("sink", sink, is_input=True)
    w = chosen.normalizer(upcast_half(s), seen)  # (b, h, n, m), + 1 with a sink
    recorder.record_row_statistics(s, w, at.visible)  # (b, h, n)
    w, w_sink = recorder.fill_empty_rows(w, at.visible)  # (b, h, n, m), (b, h, n) or None
    recorder("weights", w, chosen.normalizer.member.formula + ", Σ with the sink" * (w_sink is not None))
    recorder("sink_weights", w_sink, chosen.sink.member.formula)
    recorder.record_entropy(w)  # (b, h, n)
    w = recorder("dropout_weights", inputs.apply_dropout(w, tile), chosen.dropout.member.formula)
    mixing = chosen.head_mixing
    w = recorder("mixed_weights", mixing(w, at.parameters), mixing.member.formula)  # (b, h', n, m)
    recorder.record_top_weights(w)  # (b, h', n, top)
    if v is None:
        return None
    return weighted_sum(
        w,
        tile.select_kv(v),
        nonfinite if nonfinite is None else tile.select_kv(nonfinite),
        inputs.visible_after_mixing(at),
    )  # (b, h', n, c)


def append_sink(x: Array, column: Tensor | None) -> Array:
    """(b, h, n, m), (1, h, 1, 1) → (b, h, n, m + 1): a sink as one more key, of no value."""
    if x is None or column is None:
        return x
    b, h, n, _ = shape = torch.broadcast_tensors(x[..., :1], column)[0].shape
    return torch.cat([x.expand(b, h, n, -1), column.expand(shape)], -1)


def split(x: Tensor | None, heads: int) -> Array:
    """(b, t, h·d) → (b, h, t, d): head i takes the columns from i·d up to (i + 1)·d."""
    return None if x is None else x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge(z: Tensor | None) -> Tensor | None:
    """(b, h, n, c) → (b, n, h·c)"""
    return None if z is None else z.transpose(1, 2).flatten(2)


def append_to_past(past: Tensor | None, new: Tensor | None) -> Tensor | None:
    """(b, g, p, ·), (b, g, s, ·) → (b, g, p + s, ·)"""
    return new if past is None or new is None else torch.cat([past, new], 2)


def repeat_kv(x: Array, heads: int, kv_map: str) -> Array:
    """(b, g, m, ·) → (b, h, m, ·): query head i reads kv head ⌊i / (h/g)⌋, or i mod g under `tile`."""
    if x is None or x.shape[1] == heads:
        return x
    return x[:, [kv_head_of(head, heads, x.shape[1], kv_map) for head in range(heads)]]


def upcast_half(x: Tensor) -> Tensor:
    """Half precision → float32, in which weights are made and summed; what is kept is rounded once."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def nonfinite_mask(v: Tensor | None) -> Tensor | None:
    """Where v holds NaN or ∞, (b, h, m, c); None where it holds neither."""
    return None if v is None or all_finite(v) else ~v.isfinite()


def weighted_sum(w: Tensor, v: Tensor, nonfinite: Tensor | None, visible: Tensor) -> Tensor:
    """w (b, h, n, m) · v (b, h, m, c) → (b, h, n, c); of a key that is not visible not even a NaN arrives."""
    half, v = v.dtype, upcast_half(v)
    if nonfinite is None:
        return (w @ v).to(half)
    z = w @ v.masked_fill(nonfinite, 0)  # (b, h, n, c)
    for j in (
        nonfinite.any(-1).flatten(0, 1).any(0).nonzero()[:, 0].tolist()
    ):  # the keys that hold such values, one by one
        odd, w_j = nonfinite[:, :, j, None], w[..., j, None]  # (b, h, 1, c), (b, h, n, 1)
        arrives = odd & (visible[..., j, None] | (w_j != 0))  # (b, h, n, c)
        z = z + (w_j * v[:, :, j, None]).masked_fill(~arrives, 0)
    return z.to(half)
