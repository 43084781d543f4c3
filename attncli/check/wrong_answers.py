"""Wrong answers that a test should notice: work that is plainly wrong, choices that are left out, mistakes that kernels make.

`wrong_answers` yields them. All but the first few are faults of `check/faults`, by their names, and neighbouring variants.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from attncli.check.alternatives import one_choice_alternatives
from attncli.check.faults import fault_hypotheses
from attncli.check.faults.tiles import mistakes_of_merging, mistakes_with_blocks
from attncli.check.score_rows import with_weights_of_scores
from attncli.check.sensitivity import WrongComputation, plainly_wrong_computations
from attncli.check.trials import StepArrays, Trials
from attncli.plan import Plan

_BLOCKS = (128, 64, 32, 16, 8)  # of keys and of queries: the largest that does not hold all of them
# faults by name, in the order in which one of several with the same figures is named; {block}: keys in a block
FAULTS = (
    "uniform weights over all keys",
    "scale applied twice",
    "softmax base 2",
    "exponentials not divided",
    "lengths ignored",
    "mask forgotten",
    "0/1 mask added",
    "mask after softmax, not renormalised",
    "mask off by one: one key too many",
    "mask off by one: one key too few",
    "mask by tiles of {block}",
    "window one too wide",
    "window one too narrow",
    "lengths off by +1",
    "lengths off by -1",
    "lengths of the next item",
    "k and v of the next item",
    "kv heads tiled instead of interleaved",
    "all heads on kv head 0",
    "top-left for bottom-right",
    "bottom-right for top-left",
    "query positions off by +1",
    "rope: positions of queries off by +1",
    "rope: angles of the other layout",
    "rope: keys only",
    "slopes of the next head",
)
ONLINE_MISTAKES = ("context not rescaled", "sum not rescaled", "context rescaled in base 2", "each block's own maximum")


def wrong_answers(trials: Trials, reference: StepArrays) -> Iterator[WrongComputation]:
    """Yield the wrong computations that this problem can have; two of them may give the same figures.

    Args:
        trials: of the problem.
        reference: the values of the steps that are judged.
    """
    yield WrongComputation("all zeros", "", lambda: {step: x * 0 for step, x in _finite(reference).items()})
    yield from plainly_wrong_computations(trials, reference)
    for alternative in one_choice_alternatives(trials.plan):
        is_left_out = alternative.option_text.endswith(" none") and alternative.choice_name != "normalizer"
        if is_left_out:
            make = partial(trials.with_choices, **{alternative.choice_name: alternative.value})
            yield WrongComputation(alternative.option_text, "", partial(_compute_plan, trials, make))
    block = _block_size(trials.plan.size.keys)
    hypotheses = {hypothesis.name: hypothesis for hypothesis in fault_hypotheses(trials)}
    for name in (name.format(block=block) for name in FAULTS):
        if name in hypotheses:
            yield WrongComputation(name, "", partial(_compute_plan, trials, hypotheses[name].compute))
    yield from _wrong_blocks(trials, block)
    yield from _rows_not_written(trials, reference)


def _compute_plan(trials: Trials, make: object) -> StepArrays | None:
    plan = make()  # type: ignore[operator]  # of several kinds
    return trials.compute_steps(plan) if isinstance(plan, Plan) else plan


def _finite(reference: StepArrays) -> StepArrays:
    return {step: np.where(np.isfinite(x), x, 0.0) for step, x in reference.items()}


def _block_size(length: int) -> int:
    """Return the largest usual block that does not hold everything; 0 where there is none."""
    return next((block for block in _BLOCKS if block < length), 0)


# ── blocks ───────────────────────────────────────────────────────────────────────────────────────
def _wrong_blocks(trials: Trials, block: int) -> Iterator[WrongComputation]:
    """Yield blocks of keys that are lost, counted twice, padded or stale, and an online softmax that goes wrong."""
    plan, keys = trials.plan, trials.plan.size.keys
    if not block or not plan.variant.normalizer.traits.is_exponential or not plan.variant.sink.is_none:
        return
    last = (keys - 1) // block * block
    wanted = (
        (f"keys 0 to {block - 1} ", " skipped"),
        (f"keys {last} to {keys - 1} ", " skipped"),
        (f"keys {last} to {keys - 1} ", " counted twice"),
        (f"keys {last} to {keys - 1} ", ": v of the block before"),
        ("the last key of each block of ", " lost"),
        ("padding of the last block counted", ""),
        *((f"blocks of {block} keys: ", f" {mistake}") for mistake in ONLINE_MISTAKES),
    )
    for name, _, weigh in (*mistakes_with_blocks(keys, block), *mistakes_of_merging(keys, (2,))):
        is_wanted = any(name.startswith(start) and name.endswith(end) for start, end in wanted)
        if is_wanted or name == "2 parts merged: averaged":
            make = partial(with_weights_of_scores, plan, weigh)
            yield WrongComputation(name, "weights", partial(_compute_plan, trials, make))


def _rows_not_written(trials: Trials, reference: StepArrays) -> Iterator[WrongComputation]:
    """Yield the last block of queries left at 0."""
    plan = trials.plan
    block = _block_size(plan.size.queries)
    if not block:
        return
    first = (plan.size.queries - 1) // block * block
    queries = np.arange(plan.size.queries) if plan.computed_queries is None else plan.computed_queries
    is_written = queries < first

    def compute() -> StepArrays:
        figures = {}
        for step, values in _finite(reference).items():
            axes = plan.steps[step]
            if "query" in axes:
                shape = [len(queries) if axis == "query" else 1 for axis in axes]
                figures[step] = np.where(is_written.reshape(shape), reference[step], 0.0)
            else:
                figures[step] = values
        return figures

    yield WrongComputation(f"queries {first} to {plan.size.queries - 1} not written", "", compute)
