"""Figures of another step or on their side, and arrays whose axes are taken for others: heads, items or columns for tokens."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from attncli.check.claims import step_shape
from attncli.check.faults.base import Hypothesis, fault
from attncli.check.figures import kind_of_step
from attncli.check.plan_edits import with_head_context, with_normalizer, with_score
from attncli.check.trials import StepArrays, Trials, finish_edited_plan, merge_heads
from attncli.plan import Plan, outline_plan
from attncli.registry import AnyPart
from attncli.step_names import GRADIENT_NAMES
from attncli.types import Json, NumpyArray, Tensor

_FIELDS_OF_TOKENS = (  # of a problem: they do not go with other axes
    "tokens", "k_tokens", "positions", "k_positions", "segments", "k_segments", "lengths", "mask", "bias", "past", "layout",
)  # fmt: skip


# ── figures of another step, and on their side ───────────────────────────────────────────────────
@fault
def another_step(trials: Trials) -> Iterator[Hypothesis]:
    """The figures of a step are another step's, or two of its axes are exchanged."""
    steps = {name: axes for name, axes in trials.plan.steps.items() if _has_figures(name)}
    shapes = {name: step_shape(trials.plan, name) for name in steps}
    laid_out = {name: _as_one_row_a_token(steps[name], shape) for name, shape in shapes.items()}
    get_steps = functools.cache(partial(_compute_all_steps, trials, tuple(steps)))
    for claimed in sorted(trials.reference.keys() & steps.keys()):
        for other in steps:
            if other != claimed and laid_out[other] == laid_out[claimed]:
                yield Hypothesis(
                    f"{other} for {claimed}",
                    f"at another step, the one called {other}",
                    partial(_take_other_step, trials, get_steps, claimed, other),
                    mixes_queries="query" not in steps[other],
                )
        for one, two in itertools.combinations(range(len(shapes[claimed])), 2):
            names = [steps[claimed][axis] for axis in (one, two)]
            if shapes[claimed][one] == shapes[claimed][two] > 1:
                yield Hypothesis(
                    f"{claimed} with {names[0]} and {names[1]} exchanged",
                    f"with the axes {names[0]} and {names[1]} exchanged: the order is {', '.join(steps[claimed])}",
                    partial(_exchange_axes, trials, claimed, one, two),
                    mixes_queries="query" in names,
                    is_of_reference=True,
                )


def _has_figures(step: str) -> bool:
    return kind_of_step(step) == "floats" and step not in GRADIENT_NAMES and not step.startswith("top_")


def _compute_all_steps(trials: Trials, steps: tuple[str, ...]) -> StepArrays:
    plan = dataclasses.replace(trials.plan, keep=frozenset(steps))
    return trials.collect_steps(plan, trials.run_plan(plan))


def _as_one_row_a_token(axes: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a step whose heads are put side by side, where each has a vector of its own; no axes of length 1."""
    if axes[-1] == "dim" and axes[-3:-2] in (("head",), ("kv_head",)):
        shape = (*shape[:-3], shape[-2], shape[-3] * shape[-1])
    return tuple(n for n in shape if n > 1)


def _take_other_step(
    trials: Trials, get_steps: Callable[[], StepArrays], claimed: str, other: str
) -> StepArrays | None:
    values, own = get_steps().get(other), trials.reference[claimed]
    if values is None:
        return None
    if values.size == own.size and values.shape[-1] != own.shape[-1]:
        values = merge_heads(trials.plan, values)
    return {**trials.reference, claimed: values.reshape(own.shape)}


def _exchange_axes(trials: Trials, claimed: str, one: int, two: int) -> StepArrays:
    return {**trials.reference, claimed: trials.reference[claimed].swapaxes(one, two)}


# ── axes of arrays ───────────────────────────────────────────────────────────────────────────────
@fault
def axes_taken_for_others(trials: Trials) -> Iterator[Hypothesis]:
    """Heads or items of the batch attend to each other, tokens are columns, k is not transposed."""
    plan = trials.plan
    if plan.size.keys == plan.shapes.d:
        yield Hypothesis(
            "k not transposed",
            "with q k for q kᵀ: transpose the last two axes of k",
            lambda: with_score(plan, lambda _, q, k, parameters: q @ k),
            0,
        )
    yield Hypothesis(
        "softmax over one cell",
        "with every weight 1, as a softmax over an axis of length 1 gives: normalise over the keys, the last axis",
        partial(with_normalizer, plan, _weigh_by_one),
        explains_constant=True,
    )
    yield from _embeddings_as_columns(trials)
    if plan.shapes.c is None or plan.size.queries != plan.size.keys or not _has_tokens_alone(plan):
        return
    if plan.shapes.heads > 1 and {plan.shapes.kv_heads, plan.shapes.v_heads} == {plan.shapes.heads}:
        text = "with heads taken for tokens: (B, T, H, d) is handed to what takes (B, H, T, d); transpose axes 1 and 2"
        yield Hypothesis("heads for tokens", text, partial(_attend_to_heads, trials), 0)
        yield Hypothesis(
            "heads for tokens, transposed after", text, partial(_attend_to_heads, trials, is_transposed_after=True), 0
        )
    if (plan.size.batch or 1) > 1:
        text = "with items of the batch taken for tokens: (B, T, …) is handed to what takes (T, B, …), as without batch_first"
        yield Hypothesis("items for tokens", text, partial(_attend_to_items, trials), 0)


def _weigh_by_one(_: AnyPart, s: Tensor, visible: Tensor) -> Tensor:
    return visible.expand(s.shape).to(s.dtype)


def _embeddings_as_columns(trials: Trials) -> Iterator[Hypothesis]:
    x = trials.plan.problem.embeddings
    if x is None or x.shape[-1] != x.shape[-2]:
        return
    text = "with rows and columns of the embeddings exchanged: rows are tokens"
    plan = partial(trials.with_fields, embeddings=np.asarray(x).swapaxes(-1, -2))
    yield Hypothesis("embeddings transposed", text, plan, 0, mixes_queries=True)

    def compute_transposed() -> StepArrays:
        figures = trials.compute_steps(plan())
        return figures | {step: figures[step].swapaxes(-1, -2) for step in ("context", "output") if step in figures}

    description = "with tokens as columns, those of the context, too: rows are tokens"
    yield Hypothesis("embeddings and context transposed", description, compute_transposed, mixes_queries=True)


def _has_tokens_alone(plan: Plan) -> bool:
    """Whether nothing but q, k and v says what a token is: no position, lengths, mask or bias of the file."""
    problem = plan.problem
    given = (problem.lengths, problem.mask, problem.bias, problem.past, problem.segments)
    return plan.variant.position.is_none and all(x is None for x in given)


def _attend_to_heads(trials: Trials, *, is_transposed_after: bool = False) -> StepArrays | None:
    """Compute what comes of heads that attend to each other within a token."""
    shapes = trials.plan.shapes

    def exchange(x: NumpyArray, width: int) -> NumpyArray:
        return x.reshape(*x.shape[:-1], shapes.heads, width).swapaxes(-2, -3).reshape(len(x), shapes.heads, -1)

    z = _attend(trials, exchange, heads=trials.plan.size.keys)  # (b, t, h, c)
    if z is None:
        return None
    z = np.ascontiguousarray(z.swapaxes(1, 2))  # (b, h, t, c)
    if is_transposed_after:
        z = z.reshape(len(z), z.shape[2], z.shape[1], -1).swapaxes(1, 2)
    return _compute_after(trials, z)


def _attend_to_items(trials: Trials) -> StepArrays | None:
    """Compute what comes of items that attend to each other at the same index."""
    z = _attend(trials, lambda x, _: x.swapaxes(0, 1), heads=trials.plan.shapes.heads)  # (t, h, b, c)
    return None if z is None else _compute_after(trials, z.transpose(2, 1, 0, 3))


def _attend(trials: Trials, change: Callable[[NumpyArray, int], NumpyArray], *, heads: int) -> NumpyArray | None:
    """Compute the context of each head from q, k and v, whose axes are changed while their heads are side by side."""
    base, shapes = trials.projected_plan, trials.plan.shapes
    if base is None:
        return None
    fields: Json = dict.fromkeys(_FIELDS_OF_TOKENS)
    for x, width in (("q", shapes.d), ("k", shapes.d), ("v", shapes.c or 0)):
        array = np.asarray(getattr(base.problem, x), np.float64)
        fields[x] = np.ascontiguousarray(change(array if trials.plan.size.batch else array[None], width))
    problem = dataclasses.replace(base.problem, **fields)
    outline = outline_plan(problem, base.variant.replace(heads=heads, kv_heads=heads), ())
    plan = dataclasses.replace(finish_edited_plan(outline), keep=frozenset({"head_context"}))
    return np.asarray(trials.run_plan(plan)["head_context"].values, np.float64)


def _compute_after(trials: Trials, z: NumpyArray) -> StepArrays | None:
    """Compute the steps after the contexts of the heads, from these of all queries: (b, h, t, c)"""
    import torch

    queries = trials.plan.computed_queries
    z = np.ascontiguousarray(z if queries is None else z[:, :, queries])
    plan = with_head_context(trials.plan, lambda *_: torch.as_tensor(z))
    if plan is None:
        return None
    own = {"head_context": z if trials.plan.size.batch else z[0]}
    figures = trials.compute_steps(plan)
    return figures | {step: x for step, x in own.items() if step in figures}
