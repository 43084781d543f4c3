"""Every planted fault is named first."""

from __future__ import annotations

import pytest

from tests.check.faulty import FAULTS, case_of

pytestmark = [pytest.mark.slow, pytest.mark.uncounted]

OTHERS_OF_A_KIND = {  # what is like them is tried anyway
    *("one_over_d", "base_two", "softmax_twice", "no_diagonal", "narrow_window", "mask_added", "lowered"),
    *("rope_interleaved", "no_transpose", "merged_flat", "q_transposed", "o_transposed", "scores_transposed"),
    *("q_for_v", "no_bias", "no_sink", "no_offsets", "early_residual", "no_cap", "weights_transposed"),
    *("rounded_weights", "rounded_products", "rounded_scaled", "cut_projections", "half_sums"),
}
TRIALS = [
    pytest.param(name, i % 3, marks=[pytest.mark.full] if name in OTHERS_OF_A_KIND else [])
    for i, name in enumerate(FAULTS)
]


def test_what_is_left_for_the_full_run_are_faults():
    assert FAULTS.keys() >= OTHERS_OF_A_KIND


@pytest.mark.parametrize(("name", "seed"), TRIALS)
def test_a_fault_is_named_first(name, seed):
    case, function = case_of(name, seed)

    said = case.verdict(function(case))

    assert said.verdict == "wrong"
    assert said.identified, [(s.names[0], s.max_abs_error) for s in said.nearest_candidates]
    assert set(FAULTS[name][1]) & set(said.identified[0].names), [s.names for s in said.identified]
