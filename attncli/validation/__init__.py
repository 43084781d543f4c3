"""The one gate: what a reader or a caller hands over → a Problem in which nothing is malformed.

After it, every array is rectangular, of its kind, finite where it must be, and goes together with the others;
what depends on the variant (heads, parameters, positions) is checked by `plan`. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from attncli.errors import AttnError, as_input_error, input_error, join_names, json_path, pluralize
from attncli.types import FIELDS, NESTED_FIELDS, Json, Problem
from attncli.validation.fields import shape_of, validate_field
from attncli.variant import Variant


def validate(problem: Problem, source: str = "") -> Problem:
    """The gate itself: a problem of lists, arrays or tensors → one in which nothing is malformed, which knows its source.

    Raises:
        InputError: what is wrong, and its path.
    """
    if problem.validated:
        return problem
    values: Json = {"source": source} if source else {}
    for item in dataclasses.fields(problem):
        value = getattr(problem, item.name)
        nothing = item.default_factory is dict and isinstance(value, Mapping) and not value
        if value is None or nothing:
            continue
        if item.name in NESTED_FIELDS:
            if not isinstance(value, Mapping):
                raise input_error("wrong-type", f"{item.name} is an object", item.name)
            values[item.name] = {k: validate_field(f"{item.name}.{k}", v) for k, v in value.items() if v is not None}
        elif item.name in FIELDS:
            values[item.name] = validate_field(item.name, value)
    admitted = dataclasses.replace(problem, **values, validated=True)
    for check in (_check_sources, _check_sizes, _check_broadcasts, _check_variant):
        check(admitted)
    return admitted


@dataclasses.dataclass(frozen=True)
class ProblemSize:
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


def problem_size(problem: Problem) -> ProblemSize:
    """Read off an admitted problem's arrays."""
    past = shape_of(problem.past["k"])[2] if problem.past else 0
    if problem.embeddings is not None:
        *batch, t, _ = shape_of(problem.embeddings)
        keys = shape_of(problem.memory["embeddings"])[-2] if problem.memory else t
        return ProblemSize(batch[0] if batch else None, t, keys, past)
    q, k = shape_of(problem.q), shape_of(problem.k)
    if len(q) == 2:
        return ProblemSize(None, q[0], k[0], past)
    if problem.layout == "htd":
        return ProblemSize(None, q[1], k[1], past, q[0], k[0])
    if len(q) == 3:
        return ProblemSize(q[0], q[1], k[1], past)
    t, h = (1, 2) if problem.layout == "bthd" else (2, 1)
    return ProblemSize(q[0], q[t], k[t], past, q[h], k[h])


def _check_sources(problem: Problem) -> None:
    """Exactly one place where queries, keys and values come from."""
    direct = [n for n in ("q", "k", "v") if getattr(problem, n) is not None]
    if problem.embeddings is None and not direct:
        raise input_error(
            "missing-field",
            "there is nothing to attend to: no embeddings, and no q and k",
            help='give "embeddings": [[…], …], or q, k and v',
        )
    if problem.embeddings is not None and direct:
        raise input_error(
            "two-sources",
            f"embeddings and {join_names(direct)} are both there",
            direct[0],
            help="give embeddings, or q, k and v that are already projected",
        )
    if direct and problem.memory is not None:
        raise input_error(
            "two-sources",
            f"memory and {join_names(direct)} are both there",
            "memory",
            help="memory goes with embeddings; k and v are what it would have become",
        )
    for name in ("q", "k"):
        if direct and name not in direct:
            raise input_error(
                "missing-field", f"{join_names(direct)} without {name}", help=f"give {name} too; only v may be left out"
            )
    if problem.memory is not None and "embeddings" not in problem.memory:
        raise input_error("missing-field", "memory has no embeddings", "memory")
    if problem.past is not None and "v" in problem.past and direct and problem.v is None:
        raise input_error(
            "missing-field", "past has v, but there is no v", "past.v", help="give v, or leave past.v out"
        )
    if problem.past is not None and (
        "k" not in problem.past
        or ("v" not in problem.past and (problem.v is not None or problem.embeddings is not None))
    ):
        raise input_error(
            "missing-field",
            f"past has no {'v' if 'k' in problem.past else 'k'}",
            "past",
            help="past holds k and v, each (B, Hkv, P, d)",
        )
    ranks = {n: getattr(problem, n).ndim for n in direct}
    if len(set(ranks.values())) > 1:
        raise input_error(
            "wrong-shape",
            f"q, k and v differ in rank: {', '.join(f'{n} {shape_of(getattr(problem, n))}' for n in direct)}",
            direct[0],
        )
    if problem.layout and direct and ranks["q"] != (3 if problem.layout == "htd" else 4):
        raise input_error(
            "wrong-shape",
            f"layout {problem.layout} is for rank {3 if problem.layout == 'htd' else 4}, but q has shape {shape_of(problem.q)}",
            "layout",
        )


def _check_sizes(problem: Problem) -> None:
    """Batches agree, and everything that is counted by tokens has as many as there are."""
    size = problem_size(problem)

    def same_batch(name: str, value: Any, rank_with_batch: int) -> None:
        if value.ndim == rank_with_batch and shape_of(value)[0] != (size.batch or 1):
            has = f"a batch of {size.batch}" if size.batch else "no batch"
            raise input_error(
                "batch-mismatch", f"{name} has a batch of {shape_of(value)[0]}, but the problem has {has}", name
            )

    if problem.memory and shape_of(problem.memory["embeddings"])[:-2] != shape_of(problem.embeddings)[:-2]:
        shapes = f"{shape_of(problem.memory['embeddings'])} and embeddings {shape_of(problem.embeddings)}"
        raise input_error("batch-mismatch", f"memory.embeddings {shapes} differ in their batch", "memory.embeddings")
    for name in ("k", "v"):
        value = getattr(problem, name)
        if value is None:
            continue
        if problem.layout != "htd":
            same_batch(name, value, max(problem.q.ndim, 3))
        keys_axis = {2: 0, 3: 1, 4: 1 if problem.layout == "bthd" else 2}[problem.q.ndim]
        if shape_of(value)[keys_axis] != size.new_keys:
            raise input_error("shape-mismatch", f"k has {size.new_keys} keys and v {shape_of(value)[keys_axis]}", name)
    if problem.past:
        for name, value in problem.past.items():
            if name == "tokens":
                continue
            same_batch(f"past.{name}", value, 4)
            if shape_of(value)[2] != shape_of(problem.past["k"])[2]:
                raise input_error(
                    "shape-mismatch",
                    f"past.k {shape_of(problem.past['k'])} and past.v {shape_of(value)} differ",
                    "past.v",
                )
    counts = {
        "tokens": (size.queries, problem.tokens),
        "k_tokens": (size.keys, problem.k_tokens if problem.q is not None else None),
        "memory.tokens": (size.new_keys, (problem.memory or {}).get("tokens")),
        "past.tokens": (size.past, (problem.past or {}).get("tokens")),
    }
    for name, (n, labels) in counts.items():
        for item in () if labels is None else labels if isinstance(labels[0], tuple) else (labels,):
            if len(item) != n and not (name == "k_tokens" and len(item) == size.new_keys):
                raise input_error(
                    "count-mismatch", f"{name} has {pluralize(len(item), 'label')}, but there are {n} vectors", name
                )
        if labels is not None and isinstance(labels[0], tuple) and len(labels) != (size.batch or 1):
            raise input_error(
                "batch-mismatch", f"{name} has {len(labels)} lists, but the batch has {size.batch or 1}", name
            )
    for name, n in {
        "positions": size.queries,
        "k_positions": size.keys,
        "segments": size.queries,
        "k_segments": size.keys,
    }.items():
        value = getattr(problem, name)
        if value is not None:
            same_batch(name, value, 2)
            if shape_of(value)[-1] != n:
                raise input_error(
                    "count-mismatch",
                    f"{name} has {shape_of(value)[-1]} entries, but there are {n} {'keys' if name.startswith('k_') else 'queries'}",
                    name,
                )
    if problem.lengths is not None:
        same_batch("lengths", problem.lengths, 1)
        for b, n in enumerate(problem.lengths.tolist()):
            if not 0 <= n <= size.keys:
                raise input_error(
                    "out-of-range", f"lengths[{b}] is {n}, but there are {size.keys} keys", "lengths", (b,)
                )


def _check_broadcasts(problem: Problem) -> None:
    size = problem_size(problem)
    grid = {"B": size.batch or 1, "H": size.heads, "Tq": size.queries, "Tk": size.keys}
    for name in ("mask", "bias", "dropout_mask"):
        value = getattr(problem, name)
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
            raise input_error("shape-mismatch", f"{message}: axis {axis} is {have}, not {want}", name, help=way)


def _check_variant(problem: Problem) -> None:
    """The file's own choices, spelled right; the file is wrong where they are not."""
    for key in problem.variant:
        if problem.variant[key] is None:
            raise input_error("bad-option", f"variant.{key} is null", f"variant.{key}", help="leave it out")
        try:
            Variant(**{key: problem.variant[key]})
        except AttnError as error:
            raise as_input_error(error, path=json_path(f"variant.{key}")) from None
    try:
        if problem.variant:
            Variant(**problem.variant)
    except AttnError as error:
        raise as_input_error(error, path=json_path("variant")) from None
