"""The small language that names parts: what it reads, prints and refuses."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attncli.errors import OptionError
from attncli.registry import Family, Range, Traits, spelled
from attncli.variant import Variant, combine

shape = Family("shape", "parts for this test alone", Traits)


@shape("box", "a × b")
def box(
    x,
    *,
    width: Annotated[int, Range(low=1, high=9)],
    tall: float = 0.5,
    kind: Literal["wood", "tin"] = "wood",
    lid: bool = True,
    holes: tuple[int, ...] = (),
    far_off: int | None = None,
):
    """A box."""
    return (x, width, tall, kind, lid, holes, far_off)


@shape("dot", "·")
def dot(x):
    """A dot."""
    return x


def test_a_misspelt_trait_fails_where_it_is_declared():
    message = r"shape 'cone': Traits has no 'option_conflit' \(did you mean 'option_conflict'\?\)"

    with pytest.raises(TypeError, match=message):
        shape("cone", option_conflit=lambda options: "")


def test_traits_have_defaults_and_are_frozen():
    traits = shape["dot"].traits

    assert traits.option_conflict is None
    with pytest.raises(AttributeError, match="frozen"):
        traits.option_conflict = str


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("box:width=3", (0, 3, 0.5, "wood", True, (), None)),
        (" box : width = 3 , tall = 1e-3 ", (0, 3, 0.001, "wood", True, (), None)),
        ("box:width=3,kind=tin,lid=no,holes=0+5,far-off=-2", (0, 3, 0.5, "tin", False, (0, 5), -2)),
        ("box:width=3,far_off=7", (0, 3, 0.5, "wood", True, (), 7)),
        ("dot", 0),
    ],
)
def test_parts_are_parsed_and_called(text, made):
    part = shape.parse(text)

    assert part(0) == made
    assert shape.parse(str(part)) == part


@pytest.mark.parametrize(
    ("text", "message", "help"),
    [
        ("bx:width=3", "no shape is called 'bx'", "did you mean 'box'?"),
        ("zzz", "no shape is called 'zzz'", "it can be box or dot"),
        ("box", "shape 'box' needs width=integer ≥ 1 and ≤ 9", "write box:width=…"),
        ("box:width=0", "shape 'box' takes width ≥ 1 and ≤ 9, not 0", ""),
        ("box:width=1.5", "shape 'box' takes width=integer ≥ 1 and ≤ 9, required, not width=1.5", ""),
        ("box:width=1,width=2", "shape 'box': option 'width' stands twice", ""),
        ("box:width", "shape 'box': option 'width' has no value", "write width=…: width=integer ≥ 1 and ≤ 9, required"),
        ("box:width=1,kind=brass", "shape 'box' has no kind=brass", "it can be tin or wood"),
        ("box:width=1,lid=maybe", "shape 'box' takes lid=yes|no, default yes, not lid=maybe", ""),
        ("box:width=1,tall=nan", "shape 'box' takes tall=number, default 0.5, not tall=nan", ""),
        ("box:width=1_0", "shape 'box' takes width=integer ≥ 1 and ≤ 9, required, not width=1_0", ""),
        ("box:width=٣", "shape 'box' takes width=integer ≥ 1 and ≤ 9, required, not width=٣", ""),
        ("box:holes=0+x,width=1", "shape 'box' takes holes=integers joined by +, default , not holes=0+x", ""),
        ("box:depth=1", "shape 'box' has no option 'depth'", "did you mean 'width'?; it takes width"),
        ("dot:width=1", "shape 'dot' has no option 'width'", "it takes no options"),
    ],
)
def test_what_is_refused_says_why(text, message, help):
    with pytest.raises(OptionError) as caught:
        shape.parse(text)

    assert caught.value.message == message
    assert caught.value.help.startswith(help)


@given(st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_values_are_spelled_so_that_they_read_back(value):
    option = shape.parse("box:width=1").member.options[
        3 if isinstance(value, bool) else 5 if isinstance(value, int) else 1
    ]

    assert option.parse(spelled(value), "this") == value


@given(st.text(max_size=30))
def test_no_text_breaks_the_parser(text):
    for read in (
        shape.parse,
        lambda t: Variant(mask=t),
        lambda t: Variant(chain=t),
        lambda t: Variant(dropout=t),
        lambda t: Variant(scale=t),
    ):
        with suppress(OptionError):  # anything else fails
            read(text)


# ── precedence ───────────────────────────────────────────────────────────────────────────────────
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
    made = combine(file, command, also).describe()

    assert {k: v for k, v in made.items() if k != "name"} == Variant(**expected).describe()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"hedas": 2}, "a variant has no 'hedas'"),
        ({"heads": True}, "heads is H, not true"),
        ({"mask": {"name": "causal"}}, "mask is EXPR, not {'name': 'causal'}"),
        ({"mask": []}, "mask is an empty list"),
        ({"scale": "inf"}, "scale is none, auto or a number, not inf"),
        ({"temperature": 0}, "temperature is none or a number > 0, not 0"),
        ({"name": "casual"}, "no variant is called 'casual'"),
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
