"""Which steps there are, and which of them a first look shows."""

from __future__ import annotations

import pytest

from attncli.errors import OptionError
from attncli.plan.steps import default_steps
from attncli.step_names import require_step_name


@pytest.mark.parametrize(
    ("steps", "top", "shown"),
    [
        (["scores", "weights", "context"], None, ["weights", "context"]),
        (["top_keys", "top_weights"], None, []),
        (["top_keys", "top_weights"], 3, ["top_keys", "top_weights"]),
        (["weights", "weights_2", "weights_10", "weights_x", "q_2"], None, ["weights", "weights_2", "weights_10"]),
        (["q", "k", "v", "weights", "w_o", "output"], None, ["weights", "output"]),
        (["w_k", "q", "k", "v", "normed_q", "weights"], None, ["q", "k", "v", "weights"]),
        (["b_v", "q", "k", "v"], None, ["q", "k", "v"]),
    ],
)
def test_a_first_look_shows_the_steps_that_exist_and_links_that_are_repeated(steps, top, shown):
    assert [step for step in default_steps(steps, top) if step != "scores"] == shown


@pytest.mark.parametrize("name", ["weights", "scaled_scores_2", "top_keys"])
def test_a_step_that_some_variant_has_has_a_name(name):
    require_step_name(name)


@pytest.mark.parametrize("name", ["weight", "weights_two", "nothing_2"])
def test_other_names_are_refused(name):
    with pytest.raises(OptionError, match=f"there is no step called '{name}'"):
        require_step_name(name)
