"""Wrong q, k and v: learned matrices transposed, exchanged, forgotten or cut otherwise, one letter in the place of another, a past left out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.plan_edits import with_score
from attncli.check.trials import Trials
from attncli.plan import Plan
from attncli.plan.packed_arrays import cut_packed
from attncli.types import Array


@fault
def wrong_projection_parameters(trials: Trials) -> Iterator[Hypothesis]:
    """Learned matrices are transposed, exchanged or forgotten."""
    parameters = trials.plan.problem.parameters
    matrices = _applied_matrices(trials.plan)
    labels = {name: "W_" + name[2:] for name in matrices}
    square = [name for name in matrices if _is_square(parameters[name])]

    def transpose(names: Iterable[str]) -> Callable[[], Plan]:
        transposed = {name: np.ascontiguousarray(np.asarray(parameters[name]).T) for name in names}
        return _with_parameters(trials, **transposed)

    hint = "x @ W, or x @ W.T for what nn.Linear stores (w_layout out-in)"
    for group in dict.fromkeys((tuple(square), tuple(name for name in square if name != "w_o"))):
        if len(group) > 1:
            group_text = ", ".join(labels[name] for name in group)
            yield Hypothesis(f"{group_text} transposed", f"with {group_text} transposed: {hint}", transpose(group), 0)
    for name in square:
        label = labels[name]
        yield Hypothesis(
            f"{label} transposed", f"with {label} transposed: {hint}", transpose([name]), 0, combinable=True
        )
    for name in matrices:
        x = name[2:]
        compute = _with_parameters(trials, **{name: None, f"b_{x}": None})
        if x == "o":
            yield Hypothesis("W_o forgotten", "without W_o: the output is the context itself", compute, 0)
        else:
            description = f"with {x} not projected: it is x itself, not x {labels[name]}"
            yield Hypothesis(f"{x} not projected", description, compute, 0)
    biases = [f"b_{x}" for x in "qkvo" if f"b_{x}" in parameters]
    if len(biases) > 1:
        compute = _with_parameters(trials, **dict.fromkeys(biases))
        yield Hypothesis("biases forgotten", "without the projections' biases", compute, 0)
    for name in biases:
        yield Hypothesis(f"{name} forgotten", f"without the bias {name}", _with_parameters(trials, **{name: None}), 0)
    for first, second in itertools.combinations([name for name in matrices if name != "w_o"], 2):
        exchanged = {
            first: parameters[second],
            second: parameters[first],
            f"b_{first[2:]}": parameters.get(f"b_{second[2:]}"),
            f"b_{second[2:]}": parameters.get(f"b_{first[2:]}"),
        }
        pair_text = f"{labels[first]} and {labels[second]} exchanged"
        yield Hypothesis(pair_text, f"with {pair_text}", _with_parameters(trials, **exchanged))
    for name in ("score_w_q", "score_w_k"):
        if name in parameters and _is_square(parameters[name]):
            yield Hypothesis(f"{name} transposed", f"with {name} transposed", transpose([name]))


def _applied_matrices(plan: Plan) -> list[str]:
    """Return the names of the file's matrices that the plan applies: W_o alone, where q, k and v are given."""
    if not plan.variant.projection.traits.is_from_file:
        return []
    letters = "qkvo" if plan.problem.embeddings is not None else "o"
    return [f"w_{x}" for x in letters if f"w_{x}" in plan.problem.parameters]


def _is_square(matrix: Array) -> bool:
    shape = np.asarray(matrix).shape
    return bool(shape[0] == shape[-1])


def _with_parameters(trials: Trials, **arrays: Array) -> Callable[[], Plan]:
    """Make the plan with other learned arrays, and without those that are None."""
    parameters = {**trials.plan.problem.parameters, **arrays}
    return partial(trials.with_fields, parameters={name: x for name, x in parameters.items() if x is not None})


@fault
def packed_qkv_cut_otherwise(trials: Trials) -> Iterator[Hypothesis]:
    """q, k and v are cut out of one packed matrix as they do not lie in it."""
    plan, shapes = trials.plan, trials.plan.shapes
    is_packable = plan.problem.embeddings is not None and not plan.problem.memory and shapes.d == shapes.d_k == shapes.c
    if not is_packable or plan.variant.projection.traits.is_identity or 1 in (shapes.heads, shapes.kv_heads):
        return
    numbers = np.arange((shapes.heads + 2 * shapes.kv_heads) * shapes.d)  # of the packed columns
    columns = {layout: cut_packed(numbers, layout, shapes.heads, shapes.kv_heads) for layout in ("3hd", "h3d")}

    def cut(lies_as: str, cut_as: str) -> Plan | None:
        base = trials.projected_plan
        if base is None or shapes.has_paired_heads:
            return None
        separate = np.concatenate([base.problem.q, base.problem.k, base.problem.v], -1)
        packed = np.empty_like(separate)
        packed[..., np.concatenate(columns[lies_as])] = separate
        return trials.with_qkv(**{x: packed[..., where] for x, where in zip("qkv", columns[cut_as], strict=True)})

    start = "with q, k and v cut out of their packed matrix"
    yield Hypothesis(
        "packed qkv cut by head",
        f"{start} head by head, [head, 3, d], where they lie one after the other, [3, head, d]",
        partial(cut, "3hd", "h3d"),
    )
    yield Hypothesis(
        "packed qkv cut in three",
        f"{start} one after the other, [3, head, d], where they lie head by head, [head, 3, d]",
        partial(cut, "h3d", "3hd"),
    )


@fault
def sinks_scaled(trials: Trials) -> Iterator[Hypothesis]:
    """A sink's logit is scaled like a score."""
    plan = trials.plan
    if "sinks" not in plan.problem.parameters:
        return
    given_scale = plan.variant.scale if isinstance(plan.variant.scale, float) else None
    scale = next((link.value for link in plan.chain if link.is_scale), given_scale)
    if scale:
        scaled = np.asarray(plan.problem.parameters["sinks"]) * scale
        yield Hypothesis(
            "sinks scaled",
            "with the sinks scaled like the scores: a sink's logit is taken as it is",
            _with_parameters(trials, sinks=scaled),
        )


@fault
def past_forgotten(trials: Trials) -> Iterator[Hypothesis]:
    """Only the new keys and values are attended to."""
    if trials.plan.problem.past is not None:
        yield Hypothesis(
            "past forgotten",
            "without the past: only the new keys are attended to",
            partial(trials.with_fields, past=None),
            0,
        )


@fault
def qkv_exchanged(trials: Trials) -> Iterator[Hypothesis]:
    """One of q, k and v stands in the place of another."""

    def exchange(**sources: str) -> Plan | None:
        base = trials.projected_plan
        if base is None:
            return None
        return trials.with_qkv(**{x: getattr(base.problem, source) for x, source in sources.items()})

    yield Hypothesis(
        "q and k swapped", "with q and k exchanged: rows are queries, q kᵀ", lambda: exchange(q="k", k="q"), 0
    )
    yield Hypothesis(
        "scores transposed",
        "with k qᵀ for q kᵀ: rows are queries",
        lambda: with_score(trials.plan, lambda score, q, k, parameters: score(q, k, parameters).mT),
        0,
        mixes_queries=True,
    )
    yield Hypothesis("keys for queries", "with q made from the same as k: q = k", lambda: exchange(q="k"))
    yield Hypothesis("queries for keys", "with k made from the same as q: k = q", lambda: exchange(k="q"))
    if trials.plan.shapes.c is None:
        return
    yield Hypothesis("keys for values", "with k in place of v: the context is weights · v", lambda: exchange(v="k"))
    yield Hypothesis("queries for values", "with q in place of v", lambda: exchange(v="q"))
    yield Hypothesis("k and v swapped", "with k and v exchanged", lambda: exchange(v="k", k="v"))
    yield Hypothesis("q and v swapped", "with q and v exchanged", lambda: exchange(v="q", q="v"))
    problem = trials.plan.problem
    embeddings = problem.embeddings
    if embeddings is not None and problem.memory is None and "w_v" not in problem.parameters:  # which is drawn
        yield Hypothesis(
            "v not projected",
            "with v not projected: it is x itself, not x W_v",
            partial(trials.with_qkv, v=np.asarray(embeddings, np.float64)),
            0,
        )
