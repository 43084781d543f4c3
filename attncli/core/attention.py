"""The algebra of attention, to be read beside the paper (Vaswani et al. 2017, §3.2).

b batch · h query heads (h' once they are mixed) · g kv heads · n queries · s new keys
m keys, past and new · d width of one head of q and k · c of one head of v
Where there is no batch, or no heads are named, b or h is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor

from attncli.core.inputs import Given
from attncli.core.recorder import Notes, Place, finite
from attncli.core.sdpa import fused
from attncli.core.tiles import Progress, Tile, joined, tiles
from attncli.derivation import finer
from attncli.plan import Plan
from attncli.plan import plan as make_plan
from attncli.plan.head_shapes import kv_head
from attncli.types import Array, Attention, Problem
from attncli.variant import Variant

Parts = Iterator[tuple[Tile, Tensor | None]]  # tiles, and what they make of v: (b, h', n, c)
Hands = Callable[[Tensor, Tensor, Tensor | None, Given, Notes], Parts]  # who attends, tile by tile: `here`, or `away`


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
        OptionError, InputError: as `plan`, before any tensor is made.
        CannotError: it does not fit in memory, or the device is not there.
    """
    return follow(make_plan(problem, variant, keep, top=top))


def follow(
    plan: Plan, progress: Progress | None = None, place: Place | None = None, hands: Hands | None = None
) -> Attention:
    """The steps of a plan that it keeps.

    `progress` is told how much of a long run is done; `place` gives room to steps that memory shall not hold; other
    `hands` than these take the tiles, where there is more than one.
    """
    return work(plan, progress, place, hands if plan.tile else None).attention()


def work(
    plan: Plan,
    progress: Progress | None = None,
    place: Place | None = None,
    hands: Hands | None = None,
    *,
    traced: bool = False,
) -> Notes:
    """Project, split, norm, position, past, share kv heads; attend, tile by tile; merge, W_o."""
    given, heads = Given(plan, traced=traced, device="cpu" if hands else None), plan.shapes
    note = Notes(plan, given, place)

    with torch.set_grad_enabled(torch.is_grad_enabled() and plan.schedule == "dense"):
        x = given.positioned(note)  # (b, n, x), (b, s, y); nothing where q, k, v are given
        q = note("q", split(given("q", x), heads.heads), given.formula("q"))  # (b, h, n, d)
        k = note("k", split(given("k", x), heads.kv_heads), given.formula("k"))  # (b, g, s, d)
        v = note("v", split(given("v", x), heads.v_heads), given.formula("v"))  # (b, g, s, c)
        for act in (given.norm_before, given.turn, given.norm_after):  # most do nothing
            q, k = act(q, k, note)  # (b, h, n, d), (b, g, s, d)
        k = note("present_k", append(given.past("k"), k), "past, then k")  # (b, g, m, d)
        v = note("present_v", append(given.past("v"), v), "past, then v")  # (b, g, m, c)

        z = joined(plan, (hands or here)(q, k, v, given, note), progress)  # (b, h', n, c)
        note.off()

        note("head_context", z, "weights · v")  # (b, h', n, c)
        formula = plan.variant.head_mixing.traits.context_formula
        z = note("normed_context", given.sub_norm(z), formula)  # (b, h', n, c)
        side_by_side = "weights · v" + ", heads side by side" * heads.headed
        z = note("context", merge(z), side_by_side)  # (b, n, h'·c)
        note("output", given.output(z), given.formula("o"))  # (b, n, ·)
    return note


def here(q: Tensor, k: Tensor, v: Tensor | None, given: Given, note: Notes) -> Parts:
    """Every query: by one kernel that says the same, or tile by tile. q (b, h, n, d), k, v (b, g, m, ·) → (b, h', ·, c)"""
    chosen, heads = given.plan.variant, given.plan.shapes
    k = share(k, heads.heads, chosen.kv_map)  # (b, h, m, d)
    v = share(v, heads.mixed_heads, chosen.kv_map)  # (b, h', m, c); h' is h/2 where heads pair

    z = fused(q, k, v, given, note) if given.plan.schedule == "fused" else None  # (b, h, n, c)
    if z is not None:
        yield Tile(), z
        return
    odd = strange(v)  # (b, h', m, c), or None where all of v is finite
    for tile in tiles(note.plan):
        yield tile, attended(tile.of(q, columns=False), k, v, odd, given, note, tile)


def attended(
    q: Tensor, k: Tensor, v: Tensor | None, odd: Tensor | None, given: Given, note: Notes, tile: Tile
) -> Tensor | None:
    """One tile: score, chain, normalise, drop, mix, V. Here n are the tile's rows, which q holds; m the keys they can reach."""
    chosen, at = given.plan.variant, given.on(tile)  # what `at` holds broadcasts to (b, h, n, m)
    note.on(tile)

    s = chosen.score(q, tile.of_keys(k), at.parameters)  # (b, h, n, m)
    note("scores", s, chosen.score.member.formula)
    hidden = False  # whether the mask has been met: from there on, what is masked stays so
    for link in given.plan.chain:
        s = link.run(s, at)  # (b, h, n, m)
        s = s.where(at.visible, -torch.inf) if hidden else s
        hidden = hidden or link.is_mask
        note("mask", at.visible if link.grid_field == "visible" else None, "may attend")
        note(link.step, s, link.formula)

    sink = chosen.sink(at.parameters, s)  # (1, h, 1, 1), or None
    seen = at.visible if given.plan.masked else None  # None: every key
    s, seen = beside(s, sink), beside(seen, None if sink is None else sink == sink)  # m + 1
    finer("sink", sink, given=True)
    w = chosen.normalizer(wide(s), seen)  # (b, h, n, m), + 1 with a sink
    note.row_statistics(s, w, at.visible)  # (b, h, n)
    w, w_sink = note.checked(w, at.visible)  # (b, h, n, m), (b, h, n) or None
    note("weights", w, chosen.normalizer.member.formula + ", Σ with the sink" * (w_sink is not None))
    note("sink_weights", w_sink, chosen.sink.member.formula)
    note.entropy(w)  # (b, h, n)
    w = note("dropout_weights", given.drop(w, tile), chosen.dropout.member.formula)
    mixing = chosen.head_mixing
    w = note("mixed_weights", mixing(w, at.parameters), mixing.member.formula)  # (b, h', n, m)
    note.largest(w)  # (b, h', n, top)
    if v is None:
        return None
    return weigh(w, tile.of_keys(v), odd if odd is None else tile.of_keys(odd), given.seen_mixed(at))  # (b, h', n, c)


def beside(x: Array, column: Tensor | None) -> Array:
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


def append(past: Tensor | None, new: Tensor | None) -> Tensor | None:
    """(b, g, p, ·), (b, g, s, ·) → (b, g, p + s, ·)"""
    return new if past is None or new is None else torch.cat([past, new], 2)


def share(x: Array, heads: int, how: str) -> Array:
    """(b, g, m, ·) → (b, h, m, ·): query head i reads kv head ⌊i / (h/g)⌋, or i mod g under `tile`."""
    if x is None or x.shape[1] == heads:
        return x
    return x[:, [kv_head(head, heads, x.shape[1], how) for head in range(heads)]]


def wide(x: Tensor) -> Tensor:
    """Half precision → float32, in which weights are made and summed; what is kept is rounded once."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def strange(v: Tensor | None) -> Tensor | None:
    """Where v holds NaN or ∞, (b, h, m, c); None where it holds neither."""
    return None if v is None or finite(v) else ~v.isfinite()


def weigh(w: Tensor, v: Tensor, strange: Tensor | None, visible: Tensor) -> Tensor:
    """w (b, h, n, m) · v (b, h, m, c) → (b, h, n, c); of a key that is not visible not even a NaN arrives."""
    half, v = v.dtype, wide(v)
    if strange is None:
        return (w @ v).to(half)
    z = w @ v.masked_fill(strange, 0)  # (b, h, n, c)
    for j in (
        strange.any(-1).flatten(0, 1).any(0).nonzero()[:, 0].tolist()
    ):  # the keys that hold such values, one by one
        odd, w_j = strange[:, :, j, None], w[..., j, None]  # (b, h, 1, c), (b, h, n, 1)
        arrives = odd & (visible[..., j, None] | (w_j != 0))  # (b, h, n, c)
        z = z + (w_j * v[:, :, j, None]).masked_fill(~arrives, 0)
    return z.to(half)
