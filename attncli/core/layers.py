"""What surrounds the scores: projections, norms, rotation, the past, heads, sinks and the weighted sum. Tensors in, tensors out.

b batch · h query heads · g kv heads · t tokens · n queries · s new keys · m keys · d, c widths of one head
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from attncli.core.inputs import Inputs
from attncli.core.statistics import all_finite
from attncli.derivation import record_intermediate
from attncli.plan import Plan
from attncli.plan.head_shapes import kv_head_of
from attncli.types import Array, Grid

QueryOrKey = Literal["q", "k"]
QkTransform = Callable[[QueryOrKey, Tensor], Tensor]


# ── what q, k and v are made of ──────────────────────────────────────────────────────────────────
def query_embeddings(inputs: Inputs) -> Tensor | None:
    """Return what queries are projected from, (b, n, x), with a position that acts there; None where q is given."""
    x, position = inputs.embeddings, inputs.plan.variant.position
    if x is None:
        return None
    x = select_queries(inputs.plan, x)  # (b, n, x)
    return position(x, inputs.grid.q_pos[:, 0]) if position.traits.acts_on == "embeddings" else x  # (b, n, 1)


def key_embeddings(inputs: Inputs, x: Tensor | None) -> Tensor | None:
    """Return what keys and values are projected from, (b, s, y): the memory, or x, (b, n, x), if these are all tokens."""
    plan, position = inputs.plan, inputs.plan.variant.position
    has_memory = bool(plan.problem.memory)
    y = inputs.memory_embeddings if has_memory else inputs.embeddings  # (b, s, y)
    if y is None or position.traits.acts_on != "embeddings":
        return y
    if not has_memory and plan.computed_queries is None:
        return x
    return position(y, inputs.grid.k_pos[:, 0, 0, plan.size.past :, None])  # (b, s, 1)


def project(inputs: Inputs, letter: Literal["q", "k", "v"], x: Tensor | None) -> Tensor | None:
    """Return q, k or v before it is split into heads, (b, t, h·d): x W + b, or as it was given where x is None."""
    if x is not None:
        return apply_linear(inputs, letter, x)
    given = getattr(inputs.problem, letter)
    if given is None:
        return None
    flat = flatten_heads(inputs.to_tensor(given), inputs.problem.layout)  # (b, t, h·d)
    return select_queries(inputs.plan, flat) if letter == "q" else flat


def output_projection(inputs: Inputs, z: Tensor | None) -> Tensor | None:
    """Multiply the context by W_o, where there is one: (b, n, h·c) → (b, n, ·)."""
    return apply_linear(inputs, "o", z) if z is not None and "w_o" in inputs.projection_parameters else None


def apply_linear(inputs: Inputs, letter: str, x: Tensor) -> Tensor:
    """Compute x W + b, either of which may be absent: (b, t, ·) → (b, t, ·)."""
    w, b = inputs.projection_parameters.get(f"w_{letter}"), inputs.projection_parameters.get(f"b_{letter}")
    record_intermediate("x", x, "bni", is_input=True)
    x = x if w is None else x @ record_intermediate("W", w, "io", is_input=True)
    return x if b is None else x + record_intermediate("b", b, "o", is_input=True)


def projection_formula(inputs: Inputs, letter: str) -> str:
    """Return how q, k, v or the output (`o`) came to be: "x W_q + b_q"."""
    if letter != "o" and inputs.problem.embeddings is None:
        return "as given"
    source = "context" if letter == "o" else "memory" if inputs.problem.memory and letter != "q" else "x"
    w = f" W_{letter}" if f"w_{letter}" in inputs.projection_parameters else ""
    b = f" + b_{letter}" if f"b_{letter}" in inputs.projection_parameters else ""
    return source + w + b


def select_queries(plan: Plan, x: Tensor) -> Tensor:
    """Select the queries that are computed: (b, t, ·) → (b, n, ·)."""
    queries = plan.computed_queries
    return x if queries is None else x[:, torch.from_numpy(queries).to(x.device)]


def flatten_heads(x: Tensor, layout: str | None) -> Tensor:
    """Bring q, k or v to (b, t, h·d), however it is laid out."""
    if x.ndim == 2:  # (t, h·d)
        return x[None]
    if layout in ("htd", "thd"):
        return (x.transpose(0, 1) if layout == "htd" else x).flatten(1)[None]
    if x.ndim == 3:  # (b, t, h·d)
        return x
    return (x if layout == "bthd" else x.transpose(1, 2)).flatten(2)


# ── norms and rotation of queries and keys ───────────────────────────────────────────────────────
def qk_transforms(inputs: Inputs) -> Iterator[tuple[str, QkTransform, Callable[[QueryOrKey], str]]]:
    """Yield what is done to q and k, in the variant's order: the prefix of its steps, the function, its formula."""
    norm, position = inputs.plan.variant.qk_norm, inputs.plan.variant.position
    is_after_position = norm.traits.is_after_position

    def normalize(letter: QueryOrKey, x: Tensor) -> Tensor:
        return normalize_qk(inputs, letter, x)

    def rotate(letter: QueryOrKey, x: Tensor) -> Tensor:
        return rotate_qk(inputs, letter, x)

    def norm_formula(letter: QueryOrKey) -> str:
        return norm.formula + (" × gain" if f"{letter}_norm" in inputs.part_parameters else "")

    normalization = ("normed", normalize, norm_formula)
    is_late = is_after_position is not None and is_after_position(norm)
    if not norm.is_none and not is_late:
        yield normalization
    if position.traits.acts_on == "qk":
        yield "positioned", rotate, lambda letter: position.formula
    if not norm.is_none and is_late:
        yield normalization


def normalize_qk(inputs: Inputs, letter: QueryOrKey, x: Tensor) -> Tensor:
    """Normalize q or k, head by head or across all heads, and multiply by the gain: (b, h, t, d) → (b, h, t, d)."""
    norm = inputs.plan.variant.qk_norm
    is_across_heads = norm.traits.is_across_heads is not None and norm.traits.is_across_heads(norm)
    x = split(norm(merge(x)), x.shape[1]) if is_across_heads else norm(x)  # (b, h, t, d); across heads as (b, t, h·d)
    gain = inputs.part_parameters.get(f"{letter}_norm")  # (d,), (h, d) or (h·d,)
    if gain is None:
        return x
    gain = record_intermediate("gain", gain.reshape(-1, x.shape[-1]), "hd", is_input=True)  # (1 or h, d)
    return record_intermediate("normed", x, "bhnd") * gain[:, None]  # (b, h, t, d)


def rotate_qk(inputs: Inputs, letter: QueryOrKey, x: Tensor) -> Tensor:
    """Apply the position to q, or to the new k; what is in the past was rotated when it was new. (b, h, t, d) → the same."""
    plan, grid = inputs.plan, inputs.grid
    assert plan.q_pos is not None  # a position that acts on q and k reads them
    length = int(max(plan.q_pos.max(), plan.k_pos.max())) + 1  # of the whole problem, whichever queries are computed
    positions = grid.q_pos if letter == "q" else grid.k_pos[..., plan.size.past :].mT  # (b, 1, t, 1)
    return plan.variant.position(x, positions, length, inputs.part_parameters)


# ── heads ────────────────────────────────────────────────────────────────────────────────────────
def split(x: Tensor | None, heads: int) -> Array:
    """Split into heads: (b, t, h·d) → (b, h, t, d); head i takes the columns from i·d up to (i + 1)·d."""
    return None if x is None else x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge(z: Tensor | None) -> Array:
    """Merge heads: (b, h, n, c) → (b, n, h·c)."""
    return None if z is None else z.transpose(1, 2).flatten(2)


def repeat_kv(x: Array, heads: int, kv_map: str) -> Array:
    """Repeat kv heads: (b, g, m, ·) → (b, h, m, ·); query head i reads kv head ⌊i / (h/g)⌋, or i mod g under `tile`."""
    if x is None or x.shape[1] == heads:
        return x
    return x[:, [kv_head_of(head, heads, x.shape[1], kv_map) for head in range(heads)]]


def append_to_past(past: Tensor | None, new: Tensor | None) -> Tensor | None:
    """Append new keys or values to those of the past: (b, g, p, ·), (b, g, s, ·) → (b, g, p + s, ·)."""
    return new if past is None or new is None else torch.cat([past, new], 2)


def sub_norm(inputs: Inputs, z: Tensor | None) -> Tensor | None:
    """Apply what head mixing does to each head's context, if anything: (b, h', n, c) → the same."""
    mixing = inputs.plan.variant.head_mixing
    transform = mixing.traits.transform_context
    return z if z is None or transform is None else transform(z, inputs.part_parameters, mixing)


def visible_after_mixing(plan: Plan, grid: Grid) -> Tensor:
    """Return what each head may see once heads are mixed: (b or 1, h' or 1, n, m)."""
    mixing = plan.variant.head_mixing
    mix_visible = mixing.traits.mix_visible
    return mix_visible(grid.visible, mixing) if mix_visible else grid.visible


# ── sinks and the weighted sum ───────────────────────────────────────────────────────────────────
def append_sink(s: Tensor, sink: Tensor | None) -> Tensor:
    """Append a sink's scores as one more key, which has no value: (b, h, n, m), (1, h, 1, 1) → (b, h, n, m + 1)."""
    if sink is None:
        return s
    b, h, n, _ = shape = torch.broadcast_tensors(s[..., :1], sink)[0].shape
    return torch.cat([s.expand(b, h, n, -1), sink.expand(shape)], -1)


def append_sink_visibility(visible: Tensor, sink: Tensor | None) -> Tensor:
    """Append a sink to what is visible; every query sees it: (b, h, n, m) → (b, h, n, m + 1)."""
    return visible if sink is None else append_sink(visible, torch.ones_like(sink, dtype=torch.bool))


def split_sink(w: Tensor, key_count: int) -> tuple[Tensor, Tensor | None]:
    """Split weights, (b, h, n, m or m + 1), into those of the keys, (b, h, n, m), and of the sink, (b, h, n), if any."""
    return w[..., :key_count], w[..., key_count] if w.shape[-1] > key_count else None


def upcast_half(x: Tensor) -> Tensor:
    """Widen half precision to float32, in which weights are made and summed; what is kept is rounded once."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def nonfinite_mask(v: Tensor | None) -> Tensor | None:
    """Return where v holds NaN or ∞, (b, h, m, c); None where it holds neither."""
    return None if v is None or all_finite(v) else ~v.isfinite()


def weighted_sum(w: Tensor, v: Tensor, nonfinite: Tensor | None, visible: Tensor) -> Tensor:
    """Compute w · v, (b, h, n, m), (b, h, m, c) → (b, h, n, c); of a key that is not visible not even a NaN arrives.

    Args:
        nonfinite: where v holds NaN or ∞, (b, h, m, c); None where it holds neither.
        visible: (b or 1, h or 1, n, m).
    """
    dtype, v = v.dtype, upcast_half(v)
    if nonfinite is None:
        return (w @ v).to(dtype)
    z = w @ v.masked_fill(nonfinite, 0)  # (b, h, n, c)
    for j in nonfinite.any(-1).flatten(0, 1).any(0).nonzero()[:, 0].tolist():  # the keys that hold such values
        w_j, nonfinite_j = w[..., j, None], nonfinite[:, :, j, None]  # (b, h, n, 1), (b, h, 1, c)
        arrives = nonfinite_j & (visible[..., j, None] | (w_j != 0))  # (b, h, n, c)
        z = z + (w_j * v[:, :, j, None]).masked_fill(~arrives, 0)
    return z.to(dtype)
