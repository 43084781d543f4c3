"""Kernels whose way back is wrong, and whose way forward is right: gradients that the algebra names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial

from attncli.check.backward_routes import Gradients, Routes, query_indices
from attncli.check.faults.base import Hypothesis, fault
from attncli.check.trials import StepArrays, Trials
from attncli.plan import Plan
from attncli.plan.gradients import with_gradients
from attncli.plan.head_shapes import kv_head_of
from attncli.types import Tensor

_BLOCKS = (4, 8, 16, 32, 64, 128)
_MAX_HEADS = 16  # whose shares are told apart
WrongBackward = Callable[[Routes], Gradients]


def _hypothesis(
    trials: Trials, name: str, description: str, wrong: WrongBackward, implausibility: int = 1
) -> Hypothesis:
    """Make the hypothesis of a kernel that goes back so."""

    def compute() -> Plan | None:
        gradients = trials.plan.gradients
        if gradients is None:
            return None
        backward = lambda forward_pass: wrong(Routes(forward_pass))  # noqa: E731
        plan = with_gradients(trials.plan, gradients.upstream_step, gradients.upstream, backward)
        return dataclasses.replace(plan, keep=trials.plan.keep)

    return Hypothesis(name, description, compute, implausibility, is_backward=True)


def _has_softmax(trials: Trials) -> bool:
    variant = trials.plan.variant
    return variant.normalizer.name == "softmax" and variant.head_mixing.is_none


def _claimed(trials: Trials) -> set[str]:
    gradients = trials.plan.gradients
    return set() if gradients is None else {name for name in gradients.axes if name in trials.claimed_steps}


# ── softmax ──────────────────────────────────────────────────────────────────────────────────────
@fault
def wrong_jacobian(trials: Trials) -> Iterator[Hypothesis]:
    """The derivative of softmax, dS = P ∘ (dP − Σ P ∘ dP), without one of its terms."""
    if not _claimed(trials) or not _has_softmax(trials):
        return
    formula = "softmax's derivative is dS = P ∘ (dP − D), D = Σ P ∘ dP of each row"

    def wrong(gradient_of_scores: Callable[[Routes], Tensor]) -> WrongBackward:
        return lambda r: r.with_scores(r.by_scores(r.last_scores, gradient_of_scores(r)))

    cases: tuple[tuple[str, str, Callable[[Routes], Tensor]], ...] = (
        (
            "no row term in softmax's derivative",
            f"without the row term of softmax's derivative, dS = P ∘ dP: {formula}",
            lambda r: r.weights * r.weights_gradient,
        ),
        (
            "dP not multiplied by P",
            f"with dP − D not multiplied by P: {formula}",
            lambda r: r.weights_gradient - r.row_term,
        ),
        ("dP in the place of dS", f"with dP in the place of dS: {formula}", lambda r: r.weights_gradient),
        (
            "row term added",
            f"with the row term added, dS = P ∘ (dP + D): {formula}",
            lambda r: r.weights * (r.weights_gradient + r.row_term),
        ),
        (
            "row term of dP alone",
            f"with Σ dP of each row in the place of D = Σ P ∘ dP: {formula}",
            lambda r: r.weights * (r.weights_gradient - r.weights_gradient.sum(-1, keepdim=True)),
        ),
    )
    for name, description, gradient_of_scores in cases:
        yield _hypothesis(trials, name, description, wrong(gradient_of_scores))
        if trials.plan.is_masked and "dP" in name:  # P is 0 where a key is hidden, and dP is not

            def with_hidden(r: Routes, of: Callable[[Routes], Tensor] = gradient_of_scores) -> Gradients:
                return r.with_scores(r.by_scores(r.unmasked_scores, of(r)))

            yield _hypothesis(trials, f"{name}, of hidden keys either", f"{description}; nor is it masked", with_hidden)


# ── factors, and names that were exchanged ───────────────────────────────────────────────────────
def _of_reference(
    trials: Trials, name: str, description: str, edit: Callable[[StepArrays], StepArrays], implausibility: int = 1
) -> Hypothesis:
    """Make the hypothesis of figures that are the reference's, edited."""

    def compute() -> StepArrays:
        reference = trials.reference or trials.compute_steps(trials.plan)
        return reference | edit(reference)

    return Hypothesis(name, description, compute, implausibility, is_backward=True, is_of_reference=True)


def _multiplied(names: tuple[str, ...], factor: float) -> Callable[[StepArrays], StepArrays]:
    return lambda reference: {name: reference[name] * factor for name in names}


@fault
def factors(trials: Trials) -> Iterator[Hypothesis]:
    """A factor that dq or dk lacks, or has twice: the scale, or ln 2 of a kernel that works with powers of 2."""
    claimed = _claimed(trials) & {"dq", "dk", "dbias", "dsinks"}
    link = next((link for link in trials.plan.chain if link.is_scale and link.value), None)
    cases: list[tuple[str, str, float]] = []
    if link is not None and link.value is not None:
        text = link.value_formula or f"{link.value:.6g}"
        cases += [
            ("no scale", f"without the scale {text}: what multiplies the scores multiplies their gradient, too", 1 / link.value),
            ("scale twice", f"with the scale {text} twice", link.value),
        ]  # fmt: skip
    cases += [
        ("ln 2 missing", "× log₂ e = 1.4427: the kernel takes powers of 2, and the derivative of 2^x is ln 2 · 2^x", 1 / math.log(2)),
        ("ln 2 too much", "× ln 2 = 0.693147: a factor of powers of 2 that does not belong here", math.log(2)),
        ("sign", "× −1", -1.0),
    ]  # fmt: skip
    for names in (("dq", "dk"), ("dq",), ("dk",)):
        if set(names) <= claimed:
            for name, description, factor in cases:
                yield _of_reference(trials, f"{name} in {' and '.join(names)}", description, _multiplied(names, factor))
    if link is not None and link.value is not None and "dbias" in claimed:
        description = f"× the scale {link.value:.6g}: a bias is added to scores that are scaled already"
        yield _of_reference(trials, "scale in dbias", description, _multiplied(("dbias",), link.value))
    if "dsinks" in claimed:
        description = "× −1: a sink takes weight from the keys, dsink = −Σ p_sink · D"
        yield _of_reference(trials, "sign of dsinks", description, _multiplied(("dsinks",), -1.0))


@fault
def exchanged(trials: Trials) -> Iterator[Hypothesis]:
    """Two gradients of one shape, each under the other's name."""
    plan, claimed = trials.plan, _claimed(trials)
    for one, other in (("dk", "dv"), ("dq", "dk"), ("dq", "dv")):
        if not {one, other} <= claimed:
            continue
        shapes = [[plan.axis_length(name, axis) for axis in plan.steps[name]] for name in (one, other)]
        if shapes[0] == shapes[1]:

            def edit(reference: StepArrays, one: str = one, other: str = other) -> StepArrays:
                return {one: reference[other], other: reference[one]}

            yield _of_reference(trials, f"{one} and {other} exchanged", f"with {one} and {other} exchanged", edit, 0)


# ── the mask ─────────────────────────────────────────────────────────────────────────────────────
@fault
def mask_of_the_way_back(trials: Trials) -> Iterator[Hypothesis]:
    """The weights are computed again on the way back, without the mask, or with another one."""
    plan = trials.plan
    if not _claimed(trials) or not _has_softmax(trials) or not plan.is_masked:
        return
    cases: list[tuple[str, str, Callable[[Routes], Tensor] | None]] = [
        ("mask not applied on the way back", "without the mask on the way back", None)
    ]
    n, m = plan.size.queries, plan.size.keys
    aligned = (
        ("top-left", 0, "with a causal mask aligned top-left on the way back, j ≤ i counted from the first query and key"),
        ("bottom-right", m - n, "with a causal mask aligned bottom-right on the way back, the last query seeing the last key"),
        ("one key more", m - n + 1, "with a causal mask on the way back that lets one key more through"),
        ("one key fewer", m - n - 1, "with a causal mask on the way back that hides each query's own key"),
        ("one key more", 1, "with a causal mask on the way back that lets one key more through"),
        ("one key fewer", -1, "with a causal mask on the way back that hides each query's own key"),
    )  # fmt: skip
    seen = set()
    for name, offset, description in aligned:
        if offset not in seen:
            seen.add(offset)
            cases.append((f"{name} on the way back", description, partial(_sees, offset)))
    for name, description, visible in cases:
        for way, where in (("both", ""), ("scores", " of dS"), ("values", " of dv")):

            def wrong(r: Routes, way: str = way, visible: Callable[[Routes], Tensor] | None = visible) -> Gradients:
                p = r.unmasked_weights()
                if visible is not None:
                    p = p.masked_fill(~visible(r), 0)
                scores = values = None
                if way != "values":
                    scores = r.by_scores(r.unmasked_scores, p * (r.weights_gradient - r.row_term))
                if way != "scores":
                    values = r.by_values(p * r.dropout_factor if r.plan.summed_weights != "weights" else p)
                if scores is not None and values is not None:
                    return r.with_both(scores, values)
                return r.with_scores(scores) if scores is not None else r.with_values(values or {})

            yield _hypothesis(
                trials,
                f"{name}{where}",
                f"{description}{where and f', {where[1:]} alone'.replace('of ', 'for ')}",
                wrong,
            )


def _sees(offset: int, r: Routes) -> Tensor:
    import torch

    visible: Tensor = torch.arange(r.plan.size.keys)[None] <= query_indices(r.plan) + offset
    return visible


# ── links, rotation and norms that are not differentiated ────────────────────────────────────────
@fault
def links_left_out(trials: Trials) -> Iterator[Hypothesis]:
    """The derivative of a link is left out: what arrives behind it is handed on as it is."""
    if not _claimed(trials):
        return
    chain = trials.plan.chain
    for i, link in enumerate(chain):
        if link.is_mask or link.is_scale or link.name == "bias":
            continue
        before = chain[i - 1].step if i else "scores"

        def wrong(r: Routes, step: str = link.step, before: str = before) -> Gradients:
            return r.with_scores(r.by_scores(before, r.gradient_of(step)))

        yield _hypothesis(
            trials, f"{link.name} not differentiated", f"without the derivative of {link.name}: {link.formula}", wrong
        )


@fault
def not_turned_back(trials: Trials) -> Iterator[Hypothesis]:
    """The gradient of rotated or normed q and k, in the place of that of q and k as they came in."""
    claimed = _claimed(trials) & {"dq", "dk"}
    for kind, what in (("positioned", "rotated back"), ("normed", "taken back through the norm")):
        if f"{kind}_q" not in trials.plan.steps:
            continue
        for names in (("dq", "dk"), ("dq",), ("dk",)):
            if set(names) <= claimed:

                def wrong(r: Routes, names: tuple[str, ...] = names, kind: str = kind) -> Gradients:
                    return r.right | {n: r.gradient_of(f"{kind}_{n[1:]}") for n in names}

                listed = " and ".join(names)
                yield _hypothesis(
                    trials,
                    f"{listed} not {what}",
                    f"not {what}: it is that of {kind}_{'q' if names[0] == 'dq' else 'k'}"
                    if len(names) == 1
                    else f"not {what}: they are those of {kind}_q and {kind}_k",
                    wrong,
                )


# ── heads ────────────────────────────────────────────────────────────────────────────────────────
@fault
def groups_not_summed(trials: Trials) -> Iterator[Hypothesis]:
    """Several query heads read one head of k and v, whose gradients are the sum of what each of them sends back."""
    shapes, variant = trials.plan.shapes, trials.plan.variant
    claimed = _claimed(trials) & {"dk", "dv"}
    h, g = shapes.heads, shapes.kv_heads
    if not claimed or h == g or h > _MAX_HEADS or not variant.head_mixing.is_none:
        return
    groups = {kv: [i for i in range(h) if kv_head_of(i, h, g, variant.kv_map) == kv] for kv in range(g)}
    other_map = "tile" if variant.kv_map == "interleave" else "interleave"
    both: list[tuple[str, ...]] = [("dk", "dv"), ("dk",), ("dv",)]
    for names in both:
        if not set(names) <= claimed:
            continue
        listed = " and ".join(names)
        for which, index in (("first", 0), ("last", -1)):

            def of_one(r: Routes, names: tuple[str, ...] = names, index: int = index) -> Gradients:
                share = r.of_heads(heads[index] for heads in groups.values())
                return r.right | {n: share[n] for n in names}

            yield _hypothesis(
                trials,
                f"only the {which} query head of each group in {listed}",
                f"with the {which} query head of each group alone: the gradients of all {h // g} heads that read a head of k and v are added up",
                of_one,
            )

        def averaged(r: Routes, names: tuple[str, ...] = names) -> Gradients:
            return r.right | {n: r.right[n] * g / h for n in names}

        yield _hypothesis(
            trials,
            f"averaged over groups in {listed}",
            f"averaged over the {h // g} query heads of each group, and not added up",
            averaged,
        )

        def mapped(r: Routes, names: tuple[str, ...] = names) -> Gradients:
            wrong = {n: r.right[n] * 0 for n in names}
            for head in range(h):
                share = r.of_heads([head])
                own, other = (kv_head_of(head, h, g, kv_map) for kv_map in (variant.kv_map, other_map))
                for n in names:
                    wrong[n][:, other] += share[n][:, own]
            return r.right | wrong

        yield _hypothesis(
            trials,
            f"groups of {other_map} in {listed}",
            f"added up over other query heads: those of kv_map {other_map}, and here it is {variant.kv_map}",
            mapped,
        )


# ── dropout and sinks ────────────────────────────────────────────────────────────────────────────
@fault
def dropout_of_the_way_back(trials: Trials) -> Iterator[Hypothesis]:
    """What dropout did to the weights is not done to their gradient."""
    if not _claimed(trials) or not _has_softmax(trials) or trials.plan.variant.dropout.is_none:
        return

    def go_back(r: Routes, factor: Callable[[Tensor], Tensor], way: str) -> Gradients:
        kept = factor(r.dropout_factor)
        arriving = r.gradient_of("dropout_weights")
        scores = r.by_scores(r.last_scores, r.weights * (arriving * kept - r.row_term))
        values = r.by_values(r.weights * kept)
        if way == "both":
            return r.with_both(scores, values)
        return r.with_scores(scores) if way == "scores" else r.with_values(values)

    cases: tuple[tuple[str, str, Callable[[Tensor], Tensor]], ...] = (
        ("dropout missing", "without dropout on the way back", lambda x: x * 0 + 1),
        ("dropout not rescaled", "with what dropout kept not divided by 1 − p on the way back", lambda x: (x != 0).to(x.dtype)),
    )  # fmt: skip
    for name, description, factor in cases:
        for way, where in (("both", ""), ("scores", ", for dS alone"), ("values", ", for dv alone")):
            wrong = partial(go_back, factor=factor, way=way)
            yield _hypothesis(trials, f"{name} on the way back{where}", f"{description}{where}", wrong)


@fault
def sink_of_the_way_back(trials: Trials) -> Iterator[Hypothesis]:
    """The weights are computed again without the sink's share."""
    claimed = _claimed(trials)
    if not claimed or not _has_softmax(trials) or trials.plan.variant.sink.is_none:
        return

    def without_sink(r: Routes) -> Gradients:
        p = r.weights / r.weights.sum(-1, keepdim=True)
        return r.with_both(r.by_scores(r.last_scores, p * (r.weights_gradient - r.row_term)), r.by_values(p))

    yield _hypothesis(trials, "no sink on the way back", "without the sink in the sums of the way back", without_sink)


# ── blocks ───────────────────────────────────────────────────────────────────────────────────────
@fault
def blocks_overwritten(trials: Trials) -> Iterator[Hypothesis]:
    """What blocks of keys add to dq, or blocks of queries to dk and dv, is overwritten, or one of them is left out."""
    plan, claimed = trials.plan, _claimed(trials)
    if not plan.variant.head_mixing.is_none:
        return
    cases = (("dq", "keys", plan.size.keys), ("dk", "queries", plan.size.queries), ("dv", "queries", plan.size.queries))
    pairs = [(("dk", "dv"), "queries", plan.size.queries)] if {"dk", "dv"} <= claimed else []
    for names, noun, length in [*pairs, *(((name,), noun, n) for name, noun, n in cases if name in claimed)]:
        for size in _BLOCKS:
            if size >= length:
                continue
            for which, description, chosen in _chosen_blocks(size, length, noun):
                wrong = partial(_with_block, names=names, noun=noun, chosen=chosen)
                listed = " and ".join(names)
                yield _hypothesis(trials, f"{which} in {listed}", description, wrong, 2)


def _chosen_blocks(size: int, length: int, noun: str) -> Iterator[tuple[str, str, Callable[[Tensor], Tensor]]]:
    last = (length - 1) // size * size
    yield f"only the last block of {size} {noun}", f"with the last block of {size} {noun} alone: blocks overwrite each other, and should be added up", lambda i: i >= last  # fmt: skip
    yield f"only the first block of {size} {noun}", f"with the first block of {size} {noun} alone", lambda i: i < size
    yield f"without the last block of {size} {noun}", f"without the last block of {size} {noun}", lambda i: i < last
    if last > size:
        yield (
            f"without the first block of {size} {noun}",
            f"without the first block of {size} {noun}",
            lambda i: i >= size,
        )


def _with_block(r: Routes, names: tuple[str, ...], noun: str, chosen: Callable[[Tensor], Tensor]) -> Gradients:
    """Take some keys' or queries' share alone."""
    import torch

    indices = query_indices(r.plan) if noun == "queries" else torch.arange(r.plan.size.keys)[None]
    kept = chosen(indices).to(r.weights.dtype)  # (n, 1) or (1, m)
    wrong = dict(r.right)
    if "dq" in names or "dk" in names:
        share = r.by_scores(r.last_scores, r.gradient_of(r.last_scores) * kept)
        wrong |= {n: share[n] for n in names if n != "dv"}
    if "dv" in names:
        wrong["dv"] = r.by_values(r.kept_weights * kept)["dv"]
    return wrong
