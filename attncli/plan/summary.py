"""What the result says of itself: labels of its rows and columns, and a line on what was computed."""

from __future__ import annotations

from collections.abc import Iterator

from attncli.errors import pluralize
from attncli.plan.chain import Link
from attncli.plan.head_shapes import HeadShapes, projection_sizes
from attncli.types import Labels, Problem
from attncli.validation import ProblemSize
from attncli.variant import CHOICES, Variant


def token_labels(problem: Problem, size: ProblemSize) -> tuple[Labels, Labels]:
    """Labels of queries and keys: the file's, or their numbers; a batch has one list an item."""
    counted = tuple(map(str, range(max(size.queries, size.keys))))
    tokens = problem.tokens if problem.tokens is not None else counted[: size.queries]
    if problem.q is not None:
        new = (
            problem.k_tokens
            if problem.k_tokens is not None
            else problem.tokens
            if size.queries == size.new_keys
            else None
        )
    else:
        new = problem.memory.get("tokens") if problem.memory else problem.tokens
    past = (problem.past or {}).get("tokens")
    batched = size.batch is not None

    def per_item(labels: Labels) -> Labels:
        nested = bool(labels) and isinstance(labels[0], tuple)
        return labels if nested == batched else (labels,) * (size.batch or 1) if batched else labels[0]

    def number_labels(first: int, n: int) -> Labels:
        return per_item(counted[first : first + n])

    if new is not None and len(new[0] if isinstance(new[0], tuple) else new) == size.keys:
        return per_item(tokens), per_item(new)
    old = number_labels(0, size.past) if past is None else per_item(past)
    fresh = number_labels(size.past, size.new_keys) if new is None else per_item(new)
    keys = tuple(a + b for a, b in zip(old, fresh, strict=True)) if batched else old + fresh
    return per_item(tokens), keys


_PART_LABELS = {"qk_norm": "qk-norm", "position": "position", "score": "score"}


def summarize_plan(
    problem: Problem, variant: Variant, size: ProblemSize, shapes: HeadShapes, chain: tuple[Link, ...], is_masked: bool
) -> tuple[str, ...]:
    """What will be computed, in words, for the head of a page."""
    return tuple(
        filter(
            None,
            (
                _describe_kind(problem, variant),
                _describe_size(problem, size, shapes),
                _describe_heads(shapes),
                _describe_projection(problem, variant),
                *(f"{what} {variant[name]}" for name, what in _PART_LABELS.items() if not variant[name].is_none),
                *_describe_links(chain, variant, shapes.d),
                f"mask {variant.mask}"
                if str(variant.mask) != "full"
                else _describe_hidden_keys(problem)
                if is_masked
                else "no mask",
                str(variant.normalizer) if variant.normalizer != CHOICES["normalizer"].default else "",
                "" if variant.sink.is_none else f"sink {variant.sink}",
                "" if variant.dropout.is_none else str(variant.dropout),
                "" if variant.head_mixing.is_none else str(variant.head_mixing),
                f"seed {variant.seed}" if variant.seed is not None else "",
                str(variant.dtype),
            ),
        )
    )


def _describe_hidden_keys(problem: Problem) -> str:
    """What hides keys where no mask does."""
    return "mask by " + " and ".join(
        ["lengths"] * (problem.lengths is not None) + ["bias"] * (problem.bias is not None)
    )


def _describe_kind(problem: Problem, variant: Variant) -> str:
    if variant.name:
        return variant.name
    return (
        "cross-attention"
        if problem.memory
        else "attention of given q and k"
        if problem.q is not None
        else "self-attention"
    )


def _describe_size(problem: Problem, size: ProblemSize, shapes: HeadShapes) -> str:
    same = size.queries == size.keys and problem.memory is None
    words = pluralize(size.queries, "token") if same else f"{size.queries} queries × {size.keys} keys"
    dims = (
        f" × {projection_sizes(problem, shapes.heads, shapes.kv_heads).d} dims"
        if problem.embeddings is not None
        else ""
    )
    return (f"{size.batch} × " if size.batch is not None else "") + words + dims


def _describe_heads(shapes: HeadShapes) -> str:
    if not shapes.has_head_axis:
        return ""
    return pluralize(shapes.heads, "head") + (f", {shapes.kv_heads} kv" if shapes.kv_heads != shapes.heads else "")


def _describe_projection(problem: Problem, variant: Variant) -> str:
    if problem.q is not None:
        return ""
    if variant.projection.traits.is_identity:
        return "q = x, k = v = memory" if problem.memory else "q = k = v = x"
    return f"projection {variant.projection}"


def _describe_links(chain: tuple[Link, ...], variant: Variant, head_dim: int) -> Iterator[str]:
    """`scale 0.5 = 1/√4`, and the value of every other link that has one."""
    if not any(link.is_scale for link in chain):
        yield "no scale" if variant.scale != "auto" or head_dim != 1 else "scale 1 = 1/√1"
    for link in chain:
        if link.value is not None:
            yield f"{link.name} {link.value:.6g}" + (f" = {link.value_formula}" if link.value_formula else "")
