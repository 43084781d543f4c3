"""The short forms of the fuzzers of figures: fixed seeds, a few hundred files each."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.fuzz import figure_files, verdicts

pytestmark = pytest.mark.slow


def test_changed_figures_are_never_right_and_right_ones_never_wrong(tmp_path):
    failed, seen = [], Counter()
    for trial in verdicts.trials(seed=13, count=500):
        verdict = verdicts.outcome(trial, tmp_path)
        seen[trial.wanted, verdict.partition(":")[0]] += 1
        if not verdicts.is_as_wanted(trial, verdict):
            failed.append(f"{verdict}: {trial.describe()}")

    assert failed == []
    assert seen["right", "right"] > 100
    assert seen["not right", "wrong"] > 100
    assert seen["refused", "refused"] > 20


def test_a_verdict_that_is_not_as_wanted_is_noticed(tmp_path):
    trial = next(trial for trial in verdicts.trials(seed=13, count=50) if trial.wanted == "right")

    assert verdicts.is_as_wanted(trial, verdicts.outcome(trial, tmp_path))
    assert not verdicts.is_as_wanted(trial, "wrong")


def test_damaged_files_of_figures_end_in_a_verdict_or_an_error_of_the_input():
    failures: list[str] = []

    seen = figure_files.run(13, 800, lambda message, content: failures.append(f"{message}{content[:300]!r}"))

    assert failures == []
    assert len(seen) > 12
    assert seen["bad-file"] > 50
