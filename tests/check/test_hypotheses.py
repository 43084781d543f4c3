"""What a fault computes is what the wrong implementation computes: figure by figure, without a search."""

from __future__ import annotations

import numpy as np
import pytest

from attncli.check.comparison import Comparison
from attncli.check.faults import fault_hypotheses
from attncli.check.figures import figures_from_arrays
from attncli.check.task import prepare
from attncli.plan import Plan
from attncli.types import Problem
from attncli.variant import Variant
from tests.check.faulty import FAULTS, case_of


def hypothesis_figures(case, claims, names):
    """The figures of hypotheses with one of these names; those that stay as the reference has them are left out."""
    task = prepare(Problem(**case.fields), Variant(**case.choices), figures_from_arrays(claims))
    trials = Comparison(task).trials
    for hypothesis in fault_hypotheses(trials):
        if hypothesis.name in names:
            computed = hypothesis.compute()
            assert computed is not None, hypothesis.name
            figures = trials.compute_steps(computed) if isinstance(computed, Plan) else computed
            yield hypothesis, {s: x for s, x in figures.items() if s not in hypothesis.unchanged_steps}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_gives_the_figures_of_the_wrong_implementation(name, seed):
    names = [n for n in FAULTS[name][1] if not n.startswith("--")]
    if not names:
        pytest.skip("another choice, and no fault")
    case, function = case_of(name, seed)
    claims = function(case)

    tried = list(hypothesis_figures(case, claims, names))

    assert {hypothesis.name for hypothesis, _ in tried} == set(names)
    agrees = [
        all(np.allclose(x, claims[step], 1e-9, 1e-12, equal_nan=True) for step, x in figures.items() if step in claims)
        for hypothesis, figures in tried
        if not hypothesis.approximate and figures.keys() & claims.keys()
    ]
    # Where a fault has several names, one of them is the implementation that is planted.
    assert sum(agrees) >= min(len(agrees), 1)
    assert agrees or all(hypothesis.approximate for hypothesis, _ in tried)
