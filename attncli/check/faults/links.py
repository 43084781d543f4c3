"""The other links between scores and weights, the wrong way: a bias that is subtracted or left out, a softcap half done."""

from __future__ import annotations

from collections.abc import Iterator

from attncli.check.faults.base import Suspicion, fault
from attncli.check.faults.masks import bias_forgotten, hides
from attncli.check.plan_edits import relinked
from attncli.check.trials import Bench


@fault
def bias(b: Bench) -> Iterator[Suspicion]:
    """What is added to the scores, the wrong way."""
    if b.plan.problem.bias is None:
        return
    yield Suspicion(
        "bias subtracted",
        "with the bias subtracted instead of added",
        lambda: relinked(b.plan, "bias", lambda own, s, at: 2 * s - own.run(s, at)),
    )
    if not hides(b):
        yield bias_forgotten(b)


@fault
def softcap(b: Bench) -> Iterator[Suspicion]:
    """The cap half done."""
    cap = b.plan.variant.softcap
    if not isinstance(cap, int | float):
        return
    yield Suspicion(
        "softcap without multiplying back",
        "with tanh(s / cap) not multiplied by the cap again",
        lambda: relinked(b.plan, "softcap", lambda own, s, at: own.run(s, at) / cap),
    )
    yield Suspicion(
        "softcap by clipping",
        "with the scores cut off at ±cap instead of bent by tanh",
        lambda: relinked(b.plan, "softcap", lambda own, s, at: s.clamp(-cap, cap)),
    )
    yield Suspicion(
        "softcap without dividing",
        "with cap · tanh(s), not tanh(s / cap)",
        lambda: relinked(b.plan, "softcap", lambda own, s, at: cap * s.tanh()),
    )
