"""What the result says of itself: labels of its rows and columns, and a line on what was computed."""

from __future__ import annotations

from collections.abc import Iterator

from attncli.errors import counted
from attncli.plan.chain import Link
from attncli.plan.head_shapes import Shapes, sizes_of
from attncli.types import Labels, Problem
from attncli.validation import Extent
from attncli.variant import CHOICES, Variant


def labels(p: Problem, size: Extent) -> tuple[Labels, Labels]:
    """Labels of queries and keys: the file's, or their numbers; a batch has one list an item."""
    counted = tuple(map(str, range(max(size.queries, size.keys))))
    tokens = p.tokens if p.tokens is not None else counted[: size.queries]
    if p.q is not None:
        new = p.k_tokens if p.k_tokens is not None else p.tokens if size.queries == size.new_keys else None
    else:
        new = p.memory.get("tokens") if p.memory else p.tokens
    past = (p.past or {}).get("tokens")
    batched = size.batch is not None

    def per_item(labels: Labels) -> Labels:
        nested = bool(labels) and isinstance(labels[0], tuple)
        return labels if nested == batched else (labels,) * (size.batch or 1) if batched else labels[0]

    def numbered(first: int, n: int) -> Labels:
        return per_item(counted[first : first + n])

    if new is not None and len(new[0] if isinstance(new[0], tuple) else new) == size.keys:
        return per_item(tokens), per_item(new)
    old = numbered(0, size.past) if past is None else per_item(past)
    fresh = numbered(size.past, size.new_keys) if new is None else per_item(new)
    keys = tuple(a + b for a, b in zip(old, fresh, strict=True)) if batched else old + fresh
    return per_item(tokens), keys


_PARTS = {"qk_norm": "qk-norm", "position": "position", "score": "score"}


def summary(
    p: Problem, v: Variant, size: Extent, shapes: Shapes, chain: tuple[Link, ...], masked: bool
) -> tuple[str, ...]:
    """What will be computed, in words, for the head of a page."""
    return tuple(
        filter(
            None,
            (
                _what(p, v),
                _counts(p, size, shapes),
                _heads(shapes),
                _projection(p, v),
                *(f"{what} {v[name]}" for name, what in _PARTS.items() if not v[name].is_none),
                *_links(chain, v, shapes.d),
                f"mask {v.mask}" if str(v.mask) != "full" else _hidden(p) if masked else "no mask",
                str(v.normalizer) if v.normalizer != CHOICES["normalizer"].default else "",
                "" if v.sink.is_none else f"sink {v.sink}",
                "" if v.dropout.is_none else str(v.dropout),
                "" if v.head_mixing.is_none else str(v.head_mixing),
                f"seed {v.seed}" if v.seed is not None else "",
                str(v.dtype),
            ),
        )
    )


def _hidden(p: Problem) -> str:
    """What hides keys where no mask does."""
    return "mask by " + " and ".join(["lengths"] * (p.lengths is not None) + ["bias"] * (p.bias is not None))


def _what(p: Problem, v: Variant) -> str:
    if v.name:
        return v.name
    return "cross-attention" if p.memory else "attention of given q and k" if p.q is not None else "self-attention"


def _counts(p: Problem, size: Extent, shapes: Shapes) -> str:
    same = size.queries == size.keys and p.memory is None
    words = counted(size.queries, "token") if same else f"{size.queries} queries × {size.keys} keys"
    dims = f" × {sizes_of(p, shapes.heads, shapes.kv_heads).d} dims" if p.embeddings is not None else ""
    return (f"{size.batch} × " if size.batch is not None else "") + words + dims


def _heads(shapes: Shapes) -> str:
    if not shapes.headed:
        return ""
    return counted(shapes.heads, "head") + (f", {shapes.kv_heads} kv" if shapes.kv_heads != shapes.heads else "")


def _projection(p: Problem, v: Variant) -> str:
    if p.q is not None:
        return ""
    if v.projection.traits.is_identity:
        return "q = x, k = v = memory" if p.memory else "q = k = v = x"
    return f"projection {v.projection}"


def _links(chain: tuple[Link, ...], v: Variant, width: int) -> Iterator[str]:
    """`scale 0.5 = 1/√4`, and the value of every other link that has one."""
    if not any(link.is_scale for link in chain):
        yield "no scale" if v.scale != "auto" or width != 1 else "scale 1 = 1/√1"
    for link in chain:
        if link.value is not None:
            yield f"{link.name} {link.value:.6g}" + (f" = {link.why}" if link.why else "")
