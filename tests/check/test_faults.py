"""Every planted fault is named first."""

from __future__ import annotations

import pytest

from tests.check.faulty import FAULTS, case_of

pytestmark = pytest.mark.slow

TRIALS = [(name, i % 3) for i, name in enumerate(FAULTS)]


@pytest.mark.parametrize(("name", "seed"), TRIALS)
def test_a_fault_is_named_first(name, seed):
    case, function = case_of(name, seed)

    said = case.verdict(function(case))

    assert said.verdict == "wrong"
    assert said.identified, [(s.names[0], s.max_abs_error) for s in said.nearest_candidates]
    assert set(FAULTS[name][1]) & set(said.identified[0].names), [s.names for s in said.identified]
