"""The small language of parts: names, options, ranges, and how values are spelled."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attncli.errors import OptionError
from attncli.registry import Family, Range, Traits, format_value
from attncli.variant import Variant

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
        ("bx:width=3", "there is no shape called 'bx'", "did you mean 'box'?"),
        ("zzz", "there is no shape called 'zzz'", "it can be box or dot"),
        ("box", "shape 'box' needs width=integer ≥ 1 and ≤ 9", "write box:width=…"),
        ("box:width=0", "shape 'box' takes width ≥ 1 and ≤ 9, not 0", ""),
        ("box:width=1.5", "shape 'box' takes width=integer ≥ 1 and ≤ 9, required, not width=1.5", ""),
        ("box:width=1,width=2", "shape 'box': option 'width' is given twice", ""),
        ("box:width", "shape 'box': option 'width' has no value", "write width=…: width=integer ≥ 1 and ≤ 9, required"),
        ("box:width=1,kind=brass", "shape 'box' has no kind=brass", "it can be tin or wood"),
        ("box:width=1,lid=maybe", "shape 'box' takes lid=yes|no, default yes, not lid=maybe", ""),
        ("box:width=1,tall=nan", "shape 'box' takes tall=number, default 0.5, not tall=nan", ""),
        ("box:width=1_0", "shape 'box' takes width=integer ≥ 1 and ≤ 9, required, not width=1_0", ""),
        ("box:width=٣", "shape 'box' takes width=integer ≥ 1 and ≤ 9, required, not width=٣", ""),
        ("box:holes=0+x,width=1", "shape 'box' takes holes=integers joined by +, default , not holes=0+x", ""),
        ("box:widht=1", "shape 'box' has no option 'widht'", "did you mean 'width'?; it takes width"),
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

    assert option.parse(format_value(value), "this") == value


@pytest.mark.slow
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
