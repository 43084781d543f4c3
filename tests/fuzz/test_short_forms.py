"""The short form of every fuzzer: fixed seeds, some hundred inputs each. `python -m tests.fuzz SECONDS` is the long form."""

from __future__ import annotations

import pytest

from tests.fuzz.harness import MODULES, run_fuzzer

pytestmark = [pytest.mark.slow, pytest.mark.uncounted]

SEED = 1
# name → inputs, and how many of them are to be accepted and refused at least, so that the fuzzer tries what it should
COUNTS = {
    "readers": (1000, 90, 330),
    "costs": (30, 1, 12),
    "parts": (1000, 260, 260),
    "schemas": (140, 45, 25),
    "schedules": (120, 60, 4),
    "figures": (500, 7, 200),
    "verdicts": (120, 70, 2),
    "command-lines": (40, 1, 20),
    "manifests": (30, 12, 2),
    "kills": (16, 1, 5),
}


@pytest.mark.parametrize("name", MODULES)
def test_no_input_ends_as_a_bug_is_changed_hangs_or_costs_too_much(name, record_property):
    count, min_accepted, min_refused = COUNTS[name]

    tally = run_fuzzer(name, SEED, count=count)

    record_property("fuzz", f"{tally} in {tally.seconds:.0f} s")
    assert not tally.fault_counts, tally.describe_faults()
    assert tally.tried.total() == count
    assert tally.accepted.total() >= min_accepted
    assert tally.refused.total() >= min_refused
