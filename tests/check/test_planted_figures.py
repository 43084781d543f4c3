"""What is said of a wrong kernel of `planted` computes its figures: one kernel of each kind, without a search."""

from __future__ import annotations

import re

import numpy as np
import pytest

from attncli.check.comparison import Comparison
from attncli.check.faults import fault_hypotheses
from attncli.check.figures import figures_from_arrays
from attncli.check.task import prepare
from attncli.plan import Plan
from attncli.types import Problem
from attncli.variant import Variant
from tests.check import planted_inputs  # noqa: F401  registers the second part
from tests.check.planted import PLANTED

_CHOICES = {
    "rope: queries one later",
    "cache: v a slot later",
}  # another reading of the problem gives these, and no fault


def one_of_each_kind():
    """The first kernel of each sentence, numbers apart."""
    kinds = {}
    for name, planted in PLANTED.items():
        kinds.setdefault(re.sub(r"\d+", "", " ".join(planted.says)), name)
    return [name for name in kinds.values() if name not in _CHOICES]


@pytest.mark.parametrize("name", one_of_each_kind())
def test_the_sentence_about_a_wrong_kernel_computes_its_figures(name):
    fields, choices, claims = PLANTED[name].make(np.random.default_rng(3))
    trials = Comparison(prepare(Problem(**fields), Variant(**choices), figures_from_arrays(claims))).trials

    def gives_the_figures(hypothesis):
        computed = hypothesis.compute()  # which completes the sentence, where a number is solved for
        if computed is None or not any(words in hypothesis.description for words in PLANTED[name].says):
            return False
        steps = trials.compute_steps(computed) if isinstance(computed, Plan) else computed
        shared = (steps.keys() & claims.keys()) - {*hypothesis.unchanged_steps}
        return bool(shared) and all(np.allclose(steps[s], claims[s], 1e-9, 1e-12, equal_nan=True) for s in shared)

    hypotheses = [*fault_hypotheses(trials)]
    named = [h for h in hypotheses if not h.is_solved and any(words in h.description for words in PLANTED[name].says)]
    assert any(map(gives_the_figures, [*named, *(h for h in hypotheses if h.is_solved)]))
