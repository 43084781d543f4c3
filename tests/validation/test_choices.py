"""Choices of a preset, a file and the command line: which one wins."""

from __future__ import annotations

import pytest

from attncli.errors import OptionError
from attncli.variant import Variant, merge_choices


@pytest.mark.parametrize(
    ("file", "command", "also", "expected"),
    [
        ({}, {}, (), {}),
        ({"heads": 2, "mask": "causal"}, {"heads": 3}, (), {"heads": 3, "mask": "causal"}),
        ({"name": "simplified"}, {"scale": "2"}, (), {"projection": "identity", "scale": 2}),
        ({"name": "simplified", "scale": 3}, {}, (), {"projection": "identity", "scale": 3}),
        ({"heads": 2, "mask": "causal"}, {"name": "simplified"}, (), {"projection": "identity", "scale": "none"}),
        ({"mask": "causal"}, {"mask": ["full"]}, (), {"mask": "full"}),
        ({"mask": "prefix:length=1"}, {"mask": ["causal", "chunk:size=2"]}, (), {"mask": "causal and chunk:size=2"}),
        ({"mask": "prefix:length=1"}, {}, ("causal",), {"mask": "prefix:length=1 and causal"}),
        ({"name": "causal"}, {}, ("window:left=2,right=0",), {"mask": "causal and window:left=2,right=0"}),
        ({"mask": "causal or prefix:length=2"}, {}, ("causal",), {"mask": "(causal or prefix:length=2) and causal"}),
        ({"dropout": 0.25}, {"dropout": "0"}, (), {"dropout": "none"}),
    ],
)
def test_preset_then_file_then_command_line(file, command, also, expected):
    made = merge_choices(file, command, also).describe()

    assert {k: v for k, v in made.items() if k != "name"} == Variant(**expected).describe()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"hedas": 2}, "a variant has no choice called 'hedas'"),
        ({"heads": True}, "heads must be H, not true"),
        ({"mask": {"name": "causal"}}, "mask must be EXPR, not an object"),
        ({"mask": []}, "mask is an empty list"),
        ({"scale": "inf"}, "scale must be none, auto or a number, not inf"),
        ({"temperature": 0}, "temperature must be none or a number > 0, not 0"),
        ({"name": "casual"}, "there is no variant called 'casual'"),
        ({"softcap": 5, "chain": "scale,mask"}, "softcap is 5, but the chain scale,mask leaves softcap out"),
    ],
)
def test_choices_that_cannot_be(choices, message):
    with pytest.raises(OptionError) as caught:
        Variant(**choices)

    assert caught.value.message == message


def test_choices_are_text_numbers_or_lists():
    assert Variant(mask=["causal", "window:left=2"], chain=["mask", "scale"], heads="2", scale="0.5") == Variant(
        mask="causal and window:left=2", chain="mask,scale", heads=2, scale=0.5
    )
    assert repr(Variant(mask="causal", heads=2)) == "Variant(heads=2, mask='causal')"
