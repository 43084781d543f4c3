"""Put a plan into words: a summary of what is computed, and which queries see no key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from attncli.plan.chain import Link
from attncli.plan.head_shapes import HeadShapes, projection_sizes
from attncli.plan.plan import Plan
from attncli.text import join_names, pluralize, shorten
from attncli.types import NumpyArray, Problem
from attncli.validation import ProblemSize
from attncli.variant import CHOICES, Variant

_PART_LABELS = {"qk_norm": "qk-norm", "position": "position", "score": "score"}


def summarize_plan(
    problem: Problem, variant: Variant, size: ProblemSize, shapes: HeadShapes, chain: tuple[Link, ...], is_masked: bool
) -> tuple[str, ...]:
    """Say what will be computed, in words, for the head of a page."""
    return tuple(
        filter(
            None,
            (
                _describe_kind(problem, variant),
                _describe_size(problem, size, shapes),
                _describe_heads(shapes),
                _describe_projection(problem, variant),
                *(f"{label} {variant[name]}" for name, label in _PART_LABELS.items() if not variant[name].is_none),
                *_describe_links(chain, variant, shapes.d),
                _describe_mask(problem, variant, is_masked),
                str(variant.normalizer) if variant.normalizer != CHOICES["normalizer"].default else "",
                "" if variant.sink.is_none else f"sink {variant.sink}",
                "" if variant.dropout.is_none else str(variant.dropout),
                "" if variant.head_mixing.is_none else str(variant.head_mixing),
                f"seed {variant.seed}" if variant.seed is not None else "",
                str(variant.dtype),
            ),
        )
    )


def _describe_mask(problem: Problem, variant: Variant, is_masked: bool) -> str:
    """Name the mask, or what else hides keys."""
    if str(variant.mask) != "full":
        return f"mask {variant.mask}"
    if not is_masked:
        return "no mask"
    return "mask by " + " and ".join(name for name in ("lengths", "bias") if getattr(problem, name) is not None)


def _describe_kind(problem: Problem, variant: Variant) -> str:
    if variant.name:
        return variant.name
    if problem.memory:
        return "cross-attention"
    return "self-attention" if problem.q is None else "attention of given q and k"


def _describe_size(problem: Problem, size: ProblemSize, shapes: HeadShapes) -> str:
    is_square = size.queries == size.keys and problem.memory is None
    text = pluralize(size.queries, "token")
    if not is_square:
        text = f"{pluralize(size.queries, 'query', 'queries')} × {pluralize(size.keys, 'key')}"
    if size.batch is not None:
        text = f"{size.batch} × {text}"
    if problem.embeddings is not None:
        text += f" × {pluralize(projection_sizes(problem, shapes.heads, shapes.kv_heads).d, 'dim')}"
    return text


def _describe_heads(shapes: HeadShapes) -> str:
    if not shapes.has_head_axis:
        return ""
    heads = pluralize(shapes.heads, "head")
    return heads if shapes.kv_heads == shapes.heads else f"{heads}, {shapes.kv_heads} kv"


def _describe_projection(problem: Problem, variant: Variant) -> str:
    if problem.q is not None:
        return ""
    if variant.projection.traits.is_identity:
        return "q = x, k = v = memory" if problem.memory else "q = k = v = x"
    return f"projection {variant.projection}"


def _describe_links(chain: tuple[Link, ...], variant: Variant, head_dim: int) -> Iterator[str]:
    """Yield `scale 0.5 = 1/√4`, and the value of every other link that has one."""
    if not any(link.is_scale for link in chain):
        yield "no scale" if variant.scale != "auto" or head_dim != 1 else "scale 1 = 1/√1"
    for link in chain:
        if link.value is not None:
            yield f"{link.name} {link.value:.6g}" + (f" = {link.value_formula}" if link.value_formula else "")


# ── queries that see no key ──────────────────────────────────────────────────────────────────────
_MAX_LABEL_LENGTH = 24
_MAX_NAMED_ROWS = 8


def describe_rows(marked: NumpyArray, plan: Plan) -> str:
    """Name the rows that are marked, with their verb ("queries 0 (the) and 2 (sat) see"); empty where none is.

    Args:
        marked: booleans (b, h, n), of the queries that are computed.
        plan: theirs.
    """
    if not marked.any():
        return ""
    queries = np.arange(plan.size.queries) if plan.computed_queries is None else plan.computed_queries  # (n,)
    if (marked == marked[:1, :1]).all():  # the same in every batch item and head: name the queries alone
        indices, count = queries[marked[0, 0]][: _MAX_NAMED_ROWS + 1].tolist(), int(marked[0, 0].sum())
        names = [_name_query(i, None, plan) for i in indices]
        return f"query {names[0]} sees" if count == 1 else f"queries {_join_first_names(names, count)} see"
    rows = []
    for b, h, i in np.argwhere(marked)[: _MAX_NAMED_ROWS + 1].tolist():
        batch = f"batch {b}" if plan.size.batch is not None else ""
        head = f"head {h}" if plan.shapes.has_head_axis else ""
        rows.append(" ".join(filter(None, (batch, head, f"query {_name_query(int(queries[i]), b, plan)}"))))
    return f"{_join_first_names(rows, int(marked.sum()))} {'sees' if len(rows) == 1 else 'see'}"


def _name_query(index: int, item: int | None, plan: Plan) -> str:
    """Return the index of a query, with its token if that is the same in every item or the item is known."""
    tokens = plan.problem.tokens
    if tokens is None:
        return str(index)
    if isinstance(tokens[0], tuple):  # of each item
        if item is None:
            return str(index)
        tokens = tokens[item]
    return f"{index} ({shorten(str(tokens[index]), _MAX_LABEL_LENGTH)})"


def _join_first_names(names: Sequence[object], count: int) -> str:
    """Join the first eight of `count` names, of which no more than nine need be there."""
    if count <= _MAX_NAMED_ROWS:
        return join_names(names)
    return f"{', '.join(map(str, names[:_MAX_NAMED_ROWS]))} and {count - _MAX_NAMED_ROWS} more"
