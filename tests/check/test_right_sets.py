"""A sample of right figures in every way of printing, of wrong ones, and of noise; `right_sets` and `wrong_sets` try more."""

from __future__ import annotations

import numpy as np
import pytest

from tests.check.right_sets import WAYS, accusations
from tests.check.wrong_sets import DAMAGES, noise_verdict, wrong_verdicts

pytestmark = pytest.mark.uncounted


@pytest.mark.slow
@pytest.mark.parametrize("seed", [9, 39, pytest.param(49, marks=pytest.mark.full)])
def test_right_figures_are_not_called_wrong_however_they_are_printed(seed, tmp_path):
    assert list(accusations(seed, WAYS, tmp_path)) == []


@pytest.mark.slow
def test_wrong_figures_are_called_wrong(tmp_path):
    verdicts = {
        (wrong.damage, way): verdict.verdict
        for _, wrong, way, verdict in wrong_verdicts(iter(range(3 * len(DAMAGES))), tmp_path, identify=False)
    }

    assert len(verdicts) > 30
    assert set(verdicts.values()) == {"wrong"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, pytest.param(7, marks=pytest.mark.full)])
def test_noise_is_given_no_cause(seed, tmp_path):
    verdict, size = noise_verdict(seed, tmp_path)

    assert size >= 4
    assert (verdict.verdict, verdict.identified) == ("wrong", ())


@pytest.mark.slow
def test_a_figure_that_is_off_is_noticed_in_every_way_of_printing(tmp_path):
    """What accuses nobody might see nothing."""
    from tests.check.right_sets import draw_set, judge, narrowed
    from tests.check.wrong_sets import WrongSet

    blind = []
    for name, write in WAYS.items():
        right = draw_set(9)
        if "float16" in name or name == "mixed, NPZ":
            right = narrowed(right, "bfloat16" if "bfloat16" in name else "float16")
        wrong = WrongSet(**vars(right), damage="blurred")
        verdict = judge(wrong, write(wrong, np.random.default_rng(0)), tmp_path, identify=False)
        if verdict.verdict != "wrong":
            blind.append(name)
    assert blind == []
