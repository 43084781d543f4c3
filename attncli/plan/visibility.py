"""Where scores sit: positions of queries and keys, the mask as it will run, and what it lets through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from attncli import mask_expression as expression
from attncli.errors import InputError, listed, wrong
from attncli.mask_expression import Expression
from attncli.parts.masks import mask
from attncli.parts.traits import MaskTraits
from attncli.registry import Part
from attncli.types import Array, Grid, NumpyArray, Problem
from attncli.validation import Extent, extent
from attncli.validation.fields import as_numpy, shape_of
from attncli.variant import Variant


def masks(p: Problem, v: Variant) -> Expression | None:
    """The expression as it will run, or None where it hides nothing: the file's mask is and-ed in unless it is named.

    Raises:
        InputError: a mask looks at what the problem lacks.
    """
    expr: Expression = v.mask
    looked = reads(expr)
    if "given" in looked and p.mask is None:
        raise wrong("missing-field", f"mask {expr} looks at the file's mask, and it has none", "mask")
    if p.mask is not None and "given" not in looked:
        expr = expression.both(expr, expression.parse("given", mask))
    if "q_seg" in looked and p.segments is None:
        way = 'add "segments": the document of each token, as in [0, 0, 1]'
        raise wrong("missing-field", f"mask {expr} looks at segments, and the file has none", "segments", help=way)
    keys = p.segments if p.k_segments is None else p.k_segments
    if "k_seg" in looked and shape_of(keys)[-1] != extent(p).keys:
        message = f"mask {expr} looks at segments, and the {extent(p).keys} keys have none of their own"
        raise wrong("missing-field", message, "k_segments", help="add k_segments, one for each key, past and new")
    return None if str(expr) == "full" else expr


class _Watch:
    """A grid of one cell that remembers which of its fields a mask looked at."""

    keys = heads = longest = 1

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __getattr__(self, name: str) -> Array:
        self.seen.add(name)
        return np.zeros((1, 1, 1, 1), bool if name == "given" else np.int64)


def reads(expr: Expression | None) -> set[str]:
    """Which fields of the grid the masks of an expression look at: found by letting them look."""
    watch = _Watch()
    for part in expr.parts() if expr else ():
        part(watch)
    return watch.seen


def alone(part: Part[MaskTraits]) -> Expression:
    """A part as an expression."""
    return Expression("part", part)


def follows(p: Problem, size: Extent) -> bool:
    """Whether the new keys are the queries' own tokens, so that positions of one are positions of the other."""
    return p.memory is None and size.queries == size.new_keys


def positions(p: Problem, v: Variant, size: Extent, mask: Expression | None) -> tuple[NumpyArray | None, NumpyArray]:
    """Positions of queries and keys (DESIGN §3.1): given, or counted on from the past, or by --align.

    Raises:
        InputError: a mask reads positions, and they cannot be known.
    """
    q, k = p.positions, p.k_positions
    if q is None and k is not None and follows(p, size):
        q = k[..., size.past :]
    if k is None and q is not None and follows(p, size):
        past = np.broadcast_to(np.arange(size.past), (*shape_of(q)[:-1], size.past))
        k = np.concatenate([past, q], -1)
    aligned = v.align if k is None else None
    k = np.arange(size.keys) if k is None else k
    if q is not None:
        return q, k
    if p.past is not None or size.queries == size.new_keys:
        return np.arange(size.past, size.past + size.queries), k
    if aligned:
        return np.arange(size.queries) + (size.keys - size.queries if aligned == "bottom-right" else 0), k
    readers = [str(part) for part in mask.parts() if "q_pos" in reads(alone(part))] if mask else []
    readers += [] if v.position.is_none else [str(v.position)]
    if readers:
        raise _unaligned(p, size, listed(readers))
    return None, k


def _unaligned(p: Problem, size: Extent, readers: str) -> InputError:
    if p.k_positions is not None:
        message = f"{readers} needs positions, and only those of the keys are given"
        return wrong("missing-positions", message, "positions", help="add positions, one for each query")
    return wrong(
        "align-needed",
        f"{size.queries} queries meet {size.keys} keys, and {readers} must know which stand side by side",
        help="--align top-left: the first query beside the first key, as in PyTorch SDPA; "
        "--align bottom-right: the last beside the last, as in FlashAttention; or give positions",
    )


def rows(x: Array) -> Array:
    """(n,) or (b, n) → (b, 1, n, 1)"""
    return x if x is None else x.reshape(-1, 1, x.shape[-1], 1)


def columns(x: Array) -> Array:
    """(m,) or (b, m) → (b, 1, 1, m)"""
    return x if x is None else x.reshape(-1, 1, 1, x.shape[-1])


def full_rank(x: Array) -> Array:
    """(…, n, m) → (b, h, n, m), with 1 where an axis is absent"""
    return x if x is None else x.reshape((1,) * (4 - x.ndim) + shape_of(x))


def arrays(at: Grid) -> dict[str, Array]:
    """What the grid holds by cell: everything of four axes."""
    return {name: x for name, x in vars(at).items() if getattr(x, "ndim", 0) == 4}


def seen_shape(at: Grid, mask: Expression | None) -> tuple[int, int]:
    """How many batch items and heads differ in what they may see: 1 where all see the same."""
    corner: dict[str, Array] = {name: as_numpy(x[..., :1, :1]) for name, x in arrays(at).items()}
    b, h, *_ = np.shape(visible(replace(at, **corner), mask))
    return b, h


def visible(at: Grid, mask: Expression | None) -> Array:
    """What mask, lengths and bias together let through: booleans that broadcast to (b, h, n, m)."""
    seen = at.k_idx >= 0 if mask is None else mask(at)
    if at.lengths is not None:
        seen = seen & (at.k_idx < at.lengths)
    if at.bias is not None:
        seen = seen & (at.bias > float("-inf"))
    return seen
