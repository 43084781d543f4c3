"""The other links between scores and weights, the wrong way: a bias that is subtracted or left out, a softcap half done."""

from __future__ import annotations

from collections.abc import Iterator

from attncli.check.faults.base import Hypothesis, fault
from attncli.check.faults.masks import bias_forgotten_hypothesis, has_mask_or_lengths
from attncli.check.plan_edits import with_link
from attncli.check.trials import Trials


@fault
def wrong_bias(trials: Trials) -> Iterator[Hypothesis]:
    """What is added to the scores, the wrong way."""
    if trials.plan.problem.bias is None:
        return
    yield Hypothesis(
        "bias subtracted",
        "with the bias subtracted instead of added",
        lambda: with_link(trials.plan, "bias", lambda own, s, at: 2 * s - own.run(s, at)),
    )
    if not has_mask_or_lengths(trials):
        yield bias_forgotten_hypothesis(trials)


@fault
def wrong_softcap(trials: Trials) -> Iterator[Hypothesis]:
    """The cap half done."""
    cap = trials.plan.variant.softcap
    if not isinstance(cap, int | float):
        return
    yield Hypothesis(
        "softcap without multiplying back",
        "with tanh(s / cap) not multiplied by the cap again",
        lambda: with_link(trials.plan, "softcap", lambda own, s, at: own.run(s, at) / cap),
    )
    yield Hypothesis(
        "softcap by clipping",
        "with the scores cut off at ±cap instead of bent by tanh",
        lambda: with_link(trials.plan, "softcap", lambda own, s, at: s.clamp(-cap, cap)),
    )
    yield Hypothesis(
        "softcap without dividing",
        "with cap · tanh(s), not tanh(s / cap)",
        lambda: with_link(trials.plan, "softcap", lambda own, s, at: cap * s.tanh()),
    )
