"""The one gate: what a reader or a caller hands over → a Problem in which nothing is malformed.

After it, every array is rectangular, of its kind, finite where it must be, and goes together with the others;
what depends on the variant (heads, parameters, positions) is checked by `plan`. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from attncli.errors import AttnError, as_input, counted, listed, path_of, wrong
from attncli.types import FIELDS, GROUPS, Json, Problem
from attncli.validation.fields import one_field, shape_of
from attncli.variant import Variant


def admit(problem: Problem, source: str = "") -> Problem:
    """The gate itself: a problem of lists, arrays or tensors → one in which nothing is malformed, which knows its source.

    Raises:
        InputError: what is wrong, and its path.
    """
    if problem.admitted:
        return problem
    values: Json = {"source": source} if source else {}
    for item in dataclasses.fields(problem):
        value = getattr(problem, item.name)
        nothing = item.default_factory is dict and isinstance(value, Mapping) and not value
        if value is None or nothing:
            continue
        if item.name in GROUPS:
            if not isinstance(value, Mapping):
                raise wrong("wrong-type", f"{item.name} is an object", item.name)
            values[item.name] = {k: one_field(f"{item.name}.{k}", v) for k, v in value.items() if v is not None}
        elif item.name in FIELDS:
            values[item.name] = one_field(item.name, value)
    admitted = dataclasses.replace(problem, **values, admitted=True)
    for check in (_check_sources, _check_sizes, _check_broadcasts, _check_variant):
        check(admitted)
    return admitted


@dataclasses.dataclass(frozen=True)
class Extent:
    """How large a problem is, whatever the variant: None where the problem does not say."""

    batch: int | None  # None: it has no batch
    queries: int
    new_keys: int
    past: int
    heads: int | None = None  # where q, k, v come in heads
    kv_heads: int | None = None

    @property
    def keys(self) -> int:
        return self.past + self.new_keys


def extent(p: Problem) -> Extent:
    """Read off an admitted problem's arrays."""
    past = shape_of(p.past["k"])[2] if p.past else 0
    if p.embeddings is not None:
        *batch, t, _ = shape_of(p.embeddings)
        keys = shape_of(p.memory["embeddings"])[-2] if p.memory else t
        return Extent(batch[0] if batch else None, t, keys, past)
    q, k = shape_of(p.q), shape_of(p.k)
    if len(q) == 2:
        return Extent(None, q[0], k[0], past)
    if p.layout == "htd":
        return Extent(None, q[1], k[1], past, q[0], k[0])
    if len(q) == 3:
        return Extent(q[0], q[1], k[1], past)
    t, h = (1, 2) if p.layout == "bthd" else (2, 1)
    return Extent(q[0], q[t], k[t], past, q[h], k[h])


def _check_sources(p: Problem) -> None:
    """Exactly one place where queries, keys and values come from."""
    direct = [n for n in ("q", "k", "v") if getattr(p, n) is not None]
    if p.embeddings is None and not direct:
        raise wrong(
            "missing-field",
            "there is nothing to attend to: no embeddings, and no q and k",
            help='give "embeddings": [[…], …], or q, k and v',
        )
    if p.embeddings is not None and direct:
        raise wrong(
            "two-sources",
            f"embeddings and {listed(direct)} are both there",
            direct[0],
            help="give embeddings, or q, k and v that are already projected",
        )
    if direct and p.memory is not None:
        raise wrong(
            "two-sources",
            f"memory and {listed(direct)} are both there",
            "memory",
            help="memory goes with embeddings; k and v are what it would have become",
        )
    for name in ("q", "k"):
        if direct and name not in direct:
            raise wrong(
                "missing-field", f"{listed(direct)} without {name}", help=f"give {name} too; only v may be left out"
            )
    if p.memory is not None and "embeddings" not in p.memory:
        raise wrong("missing-field", "memory has no embeddings", "memory")
    if p.past is not None and "v" in p.past and direct and p.v is None:
        raise wrong("missing-field", "past has v, but there is no v", "past.v", help="give v, or leave past.v out")
    if p.past is not None and (
        "k" not in p.past or ("v" not in p.past and (p.v is not None or p.embeddings is not None))
    ):
        raise wrong(
            "missing-field",
            f"past has no {'v' if 'k' in p.past else 'k'}",
            "past",
            help="past holds k and v, each (B, Hkv, P, d)",
        )
    ranks = {n: getattr(p, n).ndim for n in direct}
    if len(set(ranks.values())) > 1:
        raise wrong(
            "wrong-shape",
            f"q, k and v differ in rank: {', '.join(f'{n} {shape_of(getattr(p, n))}' for n in direct)}",
            direct[0],
        )
    if p.layout and direct and ranks["q"] != (3 if p.layout == "htd" else 4):
        raise wrong(
            "wrong-shape",
            f"layout {p.layout} is for rank {3 if p.layout == 'htd' else 4}, but q has shape {shape_of(p.q)}",
            "layout",
        )


def _check_sizes(p: Problem) -> None:
    """Batches agree, and everything that is counted by tokens has as many as there are."""
    size = extent(p)

    def same_batch(name: str, value: Any, rank_with_batch: int) -> None:
        if value.ndim == rank_with_batch and shape_of(value)[0] != (size.batch or 1):
            has = f"a batch of {size.batch}" if size.batch else "no batch"
            raise wrong(
                "batch-mismatch", f"{name} has a batch of {shape_of(value)[0]}, but the problem has {has}", name
            )

    if p.memory and shape_of(p.memory["embeddings"])[:-2] != shape_of(p.embeddings)[:-2]:
        shapes = f"{shape_of(p.memory['embeddings'])} and embeddings {shape_of(p.embeddings)}"
        raise wrong("batch-mismatch", f"memory.embeddings {shapes} differ in their batch", "memory.embeddings")
    for name in ("k", "v"):
        value = getattr(p, name)
        if value is None:
            continue
        if p.layout != "htd":
            same_batch(name, value, max(p.q.ndim, 3))
        keys_axis = {2: 0, 3: 1, 4: 1 if p.layout == "bthd" else 2}[p.q.ndim]
        if shape_of(value)[keys_axis] != size.new_keys:
            raise wrong("shape-mismatch", f"k has {size.new_keys} keys and v {shape_of(value)[keys_axis]}", name)
    if p.past:
        for name, value in p.past.items():
            if name == "tokens":
                continue
            same_batch(f"past.{name}", value, 4)
            if shape_of(value)[2] != shape_of(p.past["k"])[2]:
                raise wrong(
                    "shape-mismatch", f"past.k {shape_of(p.past['k'])} and past.v {shape_of(value)} differ", "past.v"
                )
    counts = {
        "tokens": (size.queries, p.tokens),
        "k_tokens": (size.keys, p.k_tokens if p.q is not None else None),
        "memory.tokens": (size.new_keys, (p.memory or {}).get("tokens")),
        "past.tokens": (size.past, (p.past or {}).get("tokens")),
    }
    for name, (n, labels) in counts.items():
        for item in () if labels is None else labels if isinstance(labels[0], tuple) else (labels,):
            if len(item) != n and not (name == "k_tokens" and len(item) == size.new_keys):
                raise wrong(
                    "count-mismatch", f"{name} has {counted(len(item), 'label')}, but there are {n} vectors", name
                )
        if labels is not None and isinstance(labels[0], tuple) and len(labels) != (size.batch or 1):
            raise wrong("batch-mismatch", f"{name} has {len(labels)} lists, but the batch has {size.batch or 1}", name)
    for name, n in {
        "positions": size.queries,
        "k_positions": size.keys,
        "segments": size.queries,
        "k_segments": size.keys,
    }.items():
        value = getattr(p, name)
        if value is not None:
            same_batch(name, value, 2)
            if shape_of(value)[-1] != n:
                raise wrong(
                    "count-mismatch",
                    f"{name} has {shape_of(value)[-1]} entries, but there are {n} {'keys' if name.startswith('k_') else 'queries'}",
                    name,
                )
    if p.lengths is not None:
        same_batch("lengths", p.lengths, 1)
        for b, n in enumerate(p.lengths.tolist()):
            if not 0 <= n <= size.keys:
                raise wrong("out-of-range", f"lengths[{b}] is {n}, but there are {size.keys} keys", "lengths", (b,))


def _check_broadcasts(p: Problem) -> None:
    size = extent(p)
    grid = {"B": size.batch or 1, "H": size.heads, "Tq": size.queries, "Tk": size.keys}
    for name in ("mask", "bias", "dropout_mask"):
        value = getattr(p, name)
        if value is None:
            continue
        for have, (axis, want) in zip(shape_of(value), list(grid.items())[4 - value.ndim :], strict=True):
            if want is None or have in (1, want):  # how many heads there are may be the variant's to say
                continue
            whole = ", ".join(str(n or axis) for axis, n in grid.items())
            message = f"{name} has shape {shape_of(value)}, which does not broadcast to (B, H, Tq, Tk) = ({whole})"
            way = (
                f"the problem has no batch; drop the first axis of {name}" if axis == "B" and size.batch is None else ""
            )
            way = way or "an axis is as long as the problem's, or 1"
            raise wrong("shape-mismatch", f"{message}: axis {axis} is {have}, not {want}", name, help=way)


def _check_variant(p: Problem) -> None:
    """The file's own choices, spelled right; the file is wrong where they are not."""
    for key in p.variant:
        if p.variant[key] is None:
            raise wrong("bad-option", f"variant.{key} is null", f"variant.{key}", help="leave it out")
        try:
            Variant(**{key: p.variant[key]})
        except AttnError as error:
            raise as_input(error, path=path_of(f"variant.{key}")) from None
    try:
        if p.variant:
            Variant(**p.variant)
    except AttnError as error:
        raise as_input(error, path=path_of("variant")) from None
