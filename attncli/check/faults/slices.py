"""Items of a batch, heads and rows in each other's place: whole contexts, or what belongs to an item or a head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import with_chain, with_head_context
from attncli.check.trials import Trials
from attncli.plan import Plan
from attncli.plan.chain import Link
from attncli.plan.visibility import to_4d
from attncli.types import Array, Grid, NumpyArray, Tensor

Rearrange = Callable[[int], NumpyArray]  # how many there are → which stands in the place of each
_REARRANGEMENTS: dict[str, Rearrange] = {
    "the next": lambda n: (np.arange(n) + 1) % n,
    "the previous": lambda n: (np.arange(n) - 1) % n,
    "the first": lambda n: np.zeros(n, int),
    "the last": lambda n: np.full(n, n - 1),
    "the one opposite, in reverse order,": lambda n: np.arange(n)[::-1].copy(),
    "its neighbour, in pairs,": lambda n: np.minimum(np.arange(n) ^ 1, n - 1),
}


def _rearrangements(count: int) -> Iterator[tuple[str, NumpyArray]]:
    """Yield different ways of taking another of so many, in words, and which."""
    seen = {tuple(range(count))}
    for which, rearrange in _REARRANGEMENTS.items():
        order = rearrange(count)
        if tuple(order) not in seen:
            seen.add(tuple(order))
            yield which, order


def _implausibility(which: str) -> int:
    return 1 if which in ("the next", "the first") else 3


# ── what belongs to an item of the batch, or to a head ───────────────────────────────────────────
@fault
def fields_of_another_item(trials: Trials) -> Iterator[Hypothesis]:
    """A mask, bias, lengths or the past is that of another item of the batch."""
    problem = trials.plan.problem
    batch = trials.plan.size.batch or 1
    for which, order in _rearrangements(batch):
        if problem.lengths is not None:
            yield _field_hypothesis(trials, "lengths", which, "item", lengths=np.asarray(problem.lengths)[order])
        for name in ("mask", "bias"):
            x = to_4d(getattr(problem, name))
            if x is not None and x.shape[0] == batch:
                yield _field_hypothesis(trials, name, which, "item", **{name: np.asarray(x)[order]})
        if problem.past is not None:
            past = {letter: np.asarray(x)[order] for letter, x in problem.past.items()}
            yield _field_hypothesis(trials, "past", which, "item", past=past)


@fault
def fields_of_another_head(trials: Trials) -> Iterator[Hypothesis]:
    """A mask, bias, sink, slope or the past is that of another head."""
    problem, shapes = trials.plan.problem, trials.plan.shapes
    heads = shapes.heads if shapes.has_head_axis else 1
    for which, order in _rearrangements(heads):
        for name in ("mask", "bias"):
            x = to_4d(getattr(problem, name))
            if x is not None and x.shape[1] == heads:
                yield _field_hypothesis(trials, name, which, "head", **{name: np.asarray(x)[:, order]})
        for name, text in (("sinks", "sinks"), ("bias_table", "bias table")):
            if name in problem.parameters:
                parameters = {**problem.parameters, name: np.asarray(problem.parameters[name])[..., order]}
                yield _field_hypothesis(trials, text, which, "head", parameters=parameters)
        if trials.plan.variant.position.traits.has_head_slopes:
            yield Hypothesis(
                f"slopes of {which} head",
                f"with the ALiBi slope of {which} head for each head: slope h belongs to head h",
                partial(_with_heads_of_position, trials.plan, order),
                _implausibility(which),
            )
    if problem.past is not None:
        for which, order in _rearrangements(shapes.kv_heads if shapes.has_head_axis else 1):
            past = {letter: np.take(np.asarray(x), order, -3) for letter, x in problem.past.items()}
            yield _field_hypothesis(trials, "past", which, "head", past=past)


def _field_hypothesis(trials: Trials, field: str, which: str, kind: str, **fields: object) -> Hypothesis:
    where = "by the index of the batch" if kind == "item" else "by the index of the head"
    return Hypothesis(
        f"{field} of {which.rstrip(',')} {kind}",
        f"with the {field} of {which} {kind} for each {kind}: select it {where}",
        partial(trials.with_fields, **fields),
        _implausibility(which),
    )


def _with_heads_of_position(plan: Plan, order: NumpyArray) -> Plan:
    """Make the plan whose position bias takes each head for another."""

    def of_other_heads(link: Link) -> Link:
        def run(s: Tensor, grid: Grid) -> Tensor:
            return link.run(s, dataclasses.replace(grid, head_idx=grid.head_idx.new_tensor(order)[grid.head_idx]))

        return dataclasses.replace(link, run=run) if link.name == "position" else link

    return with_chain(plan, map(of_other_heads, plan.chain))


# ── keys, values and queries of another ──────────────────────────────────────────────────────────
@fault
def projections_of_another_head(trials: Trials) -> Iterator[Hypothesis]:
    """q, k or v is that of another head or of another item."""
    plan, shapes = trials.plan, trials.plan.shapes
    if plan.shapes.has_paired_heads:
        return
    counts = {"q": shapes.heads, "k": shapes.kv_heads, "v": shapes.v_heads}
    letters = ("q", "k", "v") if shapes.c is not None else ("q", "k")
    for letters_text, changed in (*((x, (x,)) for x in letters), ("k and v", ("k", "v"))):
        if not set(changed) <= set(letters):
            continue
        if shapes.has_head_axis:
            for which, order in _rearrangements(counts[changed[0]]):
                yield Hypothesis(
                    f"{letters_text} of {which.rstrip(',')} head",
                    f"with {letters_text} of {which} head for each head of {letters_text}",
                    partial(_with_other_slices, trials, changed, "head", order),
                    _implausibility(which),
                )
        for which, order in _rearrangements(plan.size.batch or 1):
            yield Hypothesis(
                f"{letters_text} of {which.rstrip(',')} item",
                f"with {letters_text} of {which} item of the batch for each item",
                partial(_with_other_slices, trials, changed, "item", order),
                _implausibility(which),
            )
        if len(changed) > 1 or changed[0] in "kv":
            for offset, where in ((1, "before"), (-1, "after")):
                yield Hypothesis(
                    f"{letters_text} of the token {where}",
                    f"with {letters_text} of the token {where}: row j belongs to key j",
                    partial(_with_shifted_rows, trials, changed, offset),
                )
        if shapes.has_head_axis and shapes.kv_heads < shapes.heads and len(changed) == 1 and changed[0] in "kv":
            map_name = "interleaved" if plan.variant.kv_map == "tile" else "tiled"
            yield Hypothesis(
                f"{letters_text} alone {map_name}",
                f"with the kv heads of {letters_text} alone {map_name}: k and v are repeated alike",
                partial(_with_heads_repeated_otherwise, trials, changed[0]),
            )


def _split(x: Array, heads: int) -> NumpyArray:
    """(…, t, h·d) → (…, t, h, d)"""
    x = np.asarray(x)
    return x.reshape(*x.shape[:-1], heads, -1)


def _with_other_slices(trials: Trials, letters: tuple[str, ...], kind: str, order: NumpyArray) -> Plan | None:
    base, shapes = trials.projected_plan, trials.plan.shapes
    if base is None:
        return None
    counts = {"q": shapes.heads, "k": shapes.kv_heads, "v": shapes.v_heads}
    arrays = {}
    for letter in letters:
        x = np.asarray(getattr(base.problem, letter))
        arrays[letter] = x[order] if kind == "item" else _split(x, counts[letter])[..., order, :].reshape(x.shape)
    return trials.with_qkv(**arrays)


def _with_shifted_rows(trials: Trials, letters: tuple[str, ...], offset: int) -> Plan | None:
    base = trials.projected_plan
    if base is None:
        return None
    return trials.with_qkv(**{x: np.roll(np.asarray(getattr(base.problem, x)), offset, -2) for x in letters})


def _with_heads_repeated_otherwise(trials: Trials, letter: str) -> Plan | None:
    """Repeat the heads of k and v for all query heads, those of one of them by the other map."""
    base, shapes, plan = trials.projected_plan, trials.plan.shapes, trials.plan
    if base is None or plan.problem.past is not None:
        return None
    heads, kv_heads = shapes.heads, shapes.kv_heads
    maps = {"interleave": np.arange(heads) // (heads // kv_heads), "tile": np.arange(heads) % kv_heads}
    own = "tile" if plan.variant.kv_map == "tile" else "interleave"
    other = "interleave" if own == "tile" else "tile"
    arrays = {}
    for x in ("k", "v"):
        array = np.asarray(getattr(base.problem, x))
        repeated = _split(array, kv_heads)[..., maps[other if x == letter else own], :]
        arrays[x] = repeated.reshape(*array.shape[:-1], -1)
    variant = base.variant.replace(kv_heads=heads)
    return trials.replan(dataclasses.replace(base.problem, k=arrays["k"], v=arrays["v"]), variant)


# ── the context ──────────────────────────────────────────────────────────────────────────────────
@fault
def context_of_another(trials: Trials) -> Iterator[Hypothesis]:
    """The context of a head, an item, a row or a dim stands in the place of another."""
    plan, shapes = trials.plan, trials.plan.shapes
    if shapes.c is None:
        return

    def hypothesis(name: str, text: str, change: Callable[[Tensor], Tensor], implausibility: int = 3) -> Hypothesis:
        return Hypothesis(name, text, lambda: with_head_context(plan, lambda z, *_: change(z)), implausibility)

    if shapes.has_head_axis and not shapes.has_paired_heads:
        for which, order in _rearrangements(shapes.heads):
            yield hypothesis(
                f"context of {which.rstrip(',')} head",
                f"with the context of {which} head in the place of each head's",
                partial(_select, order, 1),
                _implausibility(which),
            )
        for head in sorted({0, shapes.heads - 1}) if shapes.heads > 1 else ():
            yield hypothesis(
                f"head {head} not written",
                f"with 0 for head {head}: the loop over heads leaves it out",
                partial(_clear_slice, head, 1),
            )
    batch = plan.size.batch or 1
    for which, order in _rearrangements(batch):
        yield hypothesis(
            f"context of {which.rstrip(',')} item",
            f"with the context of {which} item of the batch in the place of each item's",
            partial(_select, order, 0),
            _implausibility(which),
        )
    if batch > 1:
        yield hypothesis(
            f"item {batch - 1} not written",
            f"with 0 for the last item of the batch, {batch - 1}",
            partial(_clear_slice, -1, 0),
        )
    for offset, where in ((1, "before"), (-1, "after")):
        for suffix, clears, text in (
            ("", False, ": rows are off by one"),
            (", 0 at the end", True, ", and 0 where there is none"),
        ):
            shifted = hypothesis(
                f"context of the query {where}{suffix}",
                f"with the context of the query {where} in the place of each query's{text}",
                partial(_shift_slices, offset, clears),
            )
            yield dataclasses.replace(shifted, mixes_queries=True)
    yield hypothesis("dims in reverse", "with the dims of each head's context in reverse order", lambda z: z.flip(-1))


def _select(order: NumpyArray, axis: int, z: Tensor) -> Tensor:
    return z.index_select(axis, z.new_tensor(order).long())


def _clear_slice(index: int, axis: int, z: Tensor) -> Tensor:
    z = z.clone()
    z.select(axis, index).zero_()
    return z


def _shift_slices(offset: int, clears: bool, z: Tensor) -> Tensor:
    z = z.roll(offset, 2)
    if clears:
        z[:, :, 0 if offset > 0 else -1] = 0
    return z
