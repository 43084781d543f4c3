"""Which other choices are tried, and how far-fetched each is said to be."""

from __future__ import annotations

import pytest

import attncli
from attncli.check.alternatives import one_choice_alternatives, preset_values
from attncli.plan import make_plan
from attncli.variant import Variant
from tests.helpers import draw_normal

KEYS = 7


@pytest.fixture
def implausibility():
    """What is tried instead of a variant with a mask of two terms and a rotation: option → how far-fetched it is."""
    variant = Variant(
        heads=6,
        mask="causal and not window:left=2",
        position="rope:layout=half,theta=500",
        dropout="dropout:p=0.5,seed=3",
    )
    plan = make_plan(attncli.Problem(embeddings=draw_normal(0, KEYS, 12)), variant)
    return {tried.option_text: tried.implausibility for tried in one_choice_alternatives(plan)}


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        # one word of the same part, or its number one more or one less
        ("--position rope:theta=500,layout=interleaved", 1),
        ("--mask 'causal and not window:left=3'", 1),
        ("--mask 'causal and not window:left=1'", 1),
        # a part left out
        ("--position none", 1),
        ("--mask full", 1),
        ("--mask causal", 1),
        ("--mask 'not window:left=2'", 1),
        ("--dropout none", 1),
        ("--scale none", 1),
        # a mask that needs no numbers, alone or besides
        ("--mask document", 1),
        ("--mask 'causal and not window:left=2 and document'", 1),
        # a number further off, and numbers that are published
        ("--mask 'causal and not window:left=4'", 2),
        ("--mask 'causal and not window:left=4095'", 2),
        ("--position rope:theta=250,layout=half", 2),
        ("--position rope:theta=10000,layout=half", 2),
        # another part, and other numbers of heads
        ("--position alibi", 2),
        ("--normalizer sparsemax", 2),
        ("--heads 12", 2),
        ("--kv-heads 3", 2),
        # another part with an option, required or not
        ("--position sinusoidal:layout=halves", 3),
        ("--normalizer topk:k=1", 3),
        ("--position relative:max-distance=2", 3),
        ("--mask window", 3),
        ("--mask window:left=1", 3),
        ("--mask 'causal and not window:left=2 and window:left=1'", 3),
        (f"--normalizer topk:k={KEYS - 1}", 3),
        ("--softcap 50", 3),
    ],
)
def test_a_choice_is_the_more_far_fetched_the_more_it_changes(implausibility, option, expected):
    assert implausibility[option] == expected


@pytest.mark.parametrize(
    "option",
    [
        "--heads 6",  # what it is
        "--heads 5",  # 12 columns are no 5 heads
        "--kv-heads 4",  # 6 heads do not share 4
        f"--normalizer topk:k={KEYS}",  # every key
        "--normalizer softmax",
        "--mask 'causal and not window:left=2'",
        "--mask 'causal and not window:left=2 and full'",
        "--dtype float32",
        "--empty-rows error",  # it computes nothing
    ],
)
def test_what_is_so_or_cannot_be_is_not_tried(implausibility, option):
    assert option not in implausibility


def test_the_orders_of_a_few_links_are_all_tried(implausibility):
    # scale and mask alone do something here, besides them nothing of the chain
    assert [option for option in implausibility if option.startswith("--chain")] == ["--chain mask,scale"]


def test_published_numbers_are_those_of_named_variants():
    values = preset_values.__wrapped__()

    assert {255, 4095} <= {*values["mask", "window", "left"]}
    assert {10000.0, 500000.0, 1000000.0} <= {*values["position", "rope", "theta"]}
    assert 50 in values["softcap", "", ""]
    assert ("heads", "", "") not in values
