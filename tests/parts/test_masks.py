"""Each mask as a picture: the test is the documentation, and a mask without one fails."""

from __future__ import annotations

from textwrap import dedent

import numpy as np
import pytest

import attncli
from attncli.errors import OptionError
from attncli.mask_expression import conjunction, parse_expression
from attncli.parts.masks import mask
from attncli.types import Grid
from tests.helpers import assert_identical, compute, draw_normal, step_values

PICTURES = {
    "full": """
        xxxxx
        xxxxx
        xxxxx
        xxxxx
        xxxxx""",
    "causal": """
        x....
        xx...
        xxx..
        xxxx.
        xxxxx""",
    "window:left=1,right=0": """
        x....
        xx...
        .xx..
        ..xx.
        ...xx""",
    "window:left=1,right=2": """
        xxx..
        xxxx.
        .xxxx
        ..xxx
        ...xx""",
    "window:right=0": """
        x....
        xx...
        xxx..
        xxxx.
        xxxxx""",
    "window": """
        xxxxx
        xxxxx
        xxxxx
        xxxxx
        xxxxx""",
    "prefix:length=2": """
        xx...
        xx...
        xx...
        xx...
        xx...""",
    "causal or prefix:length=3": """
        xxx..
        xxx..
        xxx..
        xxxx.
        xxxxx""",
    "causal and (window:left=1 or prefix:length=1)": """
        x....
        xx...
        xxx..
        x.xx.
        x..xx""",
    "document": """
        xx...
        xx...
        ..xxx
        ..xxx
        ..xxx""",
    "causal and document": """
        x....
        xx...
        ..x..
        ..xx.
        ..xxx""",
    "chunk:size=2": """
        xx...
        xx...
        ..xx.
        ..xx.
        ....x""",
    "dilated:rate=2": """
        x.x.x
        .x.x.
        x.x.x
        .x.x.
        x.x.x""",
    "strided:stride=2": """
        x....
        xx...
        xxx..
        .xxx.
        x.xxx""",
    "fixed:stride=2,summary=1": """
        x....
        xx...
        .xx..
        .xxx.
        .x.xx""",
    "global:tokens=1+4": """
        .x..x
        xxxxx
        .x..x
        .x..x
        xxxxx""",
    "natten:kernel=3": """
        xxx..
        xxx..
        .xxx.
        ..xxx
        ..xxx""",
    "natten:kernel=4": """
        xxxx.
        xxxx.
        xxxx.
        .xxxx
        .xxxx""",
    "natten:kernel=9": """
        xxxxx
        xxxxx
        xxxxx
        xxxxx
        xxxxx""",
    "bigbird:block=1,window=1,global=1,random=1,seed=0": """
        xxxxx
        xx..x
        x.x.x
        xx.x.
        x..xx""",
    "bigbird:block=2,window=1,global=0,random=0": """
        xx...
        xx...
        ..xx.
        ..xx.
        ....x""",
    "given": """
        x...x
        .x..x
        ..x.x
        ...xx
        xxxxx""",
    "not causal": """
        .xxxx
        ..xxx
        ...xx
        ....x
        .....""",
    "not (causal or chunk:size=3) and not prefix:length=4": """
        ....x
        ....x
        ....x
        .....
        .....""",
}


def grid(n: int = 5) -> Grid:
    i, j = np.arange(n).reshape(1, 1, n, 1), np.arange(n).reshape(1, 1, 1, n)
    segments = np.array([0, 0, 1, 1, 1])[:n]
    given = np.eye(n, dtype=bool)
    given[-1, :] = given[:, -1] = True
    return Grid(
        q_pos=i,
        k_pos=j,
        q_idx=i,
        k_idx=j,
        q_seg=segments.reshape(1, 1, n, 1),
        k_seg=segments.reshape(1, 1, 1, n),
        key_count=n,
        max_length=n,
        problem_mask=given[None, None],
    )


def draw(seen: np.ndarray) -> str:
    return "\n".join("".join("x" if cell else "." for cell in row) for row in np.broadcast_to(seen, (1, 1, 5, 5))[0, 0])


@pytest.mark.parametrize(("text", "picture"), PICTURES.items(), ids=PICTURES)
def test_picture(text, picture):
    seen = parse_expression(text, mask)(grid())

    assert draw(seen) == dedent(picture).strip()


@pytest.mark.parametrize("text", PICTURES)
def test_the_core_draws_the_same_picture(text):
    at = grid()
    problem = attncli.Problem(
        embeddings=np.ones((5, 2)).tolist(),
        segments=at.q_seg.ravel().tolist(),
        mask=at.problem_mask[0, 0].tolist() if "given" in text else None,
    )

    result = attncli.attend(problem, attncli.Variant(mask=text))

    seen = result["mask"].values if "mask" in result else np.ones((5, 5), bool)
    assert draw(seen) == dedent(PICTURES[text]).strip()


def test_every_mask_has_a_picture():
    drawn = {part.name for text in PICTURES for part in parse_expression(text, mask).iter_parts()}

    assert drawn == set(mask.members)


def test_both_leaves_out_what_lets_everything_through():
    assert str(conjunction(parse_expression("full", mask), parse_expression("causal", mask))) == "causal"
    assert str(conjunction(parse_expression("full", mask), parse_expression("full", mask))) == "full"
    assert (
        str(conjunction(parse_expression("causal", mask), parse_expression("causal and chunk:size=2", mask)))
        == "causal and chunk:size=2"
    )


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("causal and", "mask expression: a name is missing at the end", 11),
        ("not", "mask expression: a name is missing at the end", 4),
        ("(causal", "mask expression: a closing parenthesis is missing", 8),
        ("causal causal", "mask expression: 'and' or 'or' is missing before 'causal'", 8),
        ("causal) or full", "mask expression: this closing parenthesis has no opening one", 7),
        ("and causal", "mask expression: a name is missing before 'and'", 1),
        ("", "mask expression: a name is missing at the end", 1),
        ("not " * 60 + "causal", "mask expression: it is nested deeper than 50 levels", 205),
    ],
)
def test_a_broken_expression_is_pointed_at(text, message, column):
    with pytest.raises(OptionError) as caught:
        parse_expression(text, mask)

    assert (caught.value.message, caught.value.location.column) == (message, column)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (" and ".join(["causal"] * 257), "more than 256 masks"),
        ("(" + " or ".join(["window:left=1"] * 257) + ")", "more than 256 masks"),
        (["causal"] * 257, "more than 256 masks"),
        (["causal or full"] * 129, "more than 256 masks"),
        ("(" * 5000, "4,096 words or more"),
        ("not " * 5000 + "causal", "4,096 words or more"),
    ],
)
def test_an_expression_is_bounded(value, message):
    with pytest.raises(OptionError, match=message) as caught:
        attncli.Variant(mask=value)

    assert caught.value.code == "bad-expression"


def test_256_masks_are_an_expression():
    causal = attncli.attend(attncli.Problem(embeddings=np.eye(3)), attncli.Variant(mask="causal"))
    joined = " or ".join(["causal", *["window:left=0,right=0"] * 255])
    result = attncli.attend(attncli.Problem(embeddings=np.eye(3)), attncli.Variant(mask=joined))

    np.testing.assert_array_equal(result["weights"].values, causal["weights"].values)


@pytest.mark.parametrize("size", [2**29, 2**31, 2**40])
def test_an_option_may_be_larger_than_any_sequence(size):
    fields = {"embeddings": draw_normal(1, 5, 4)}

    assert_identical(
        step_values(compute(fields, mask=f"chunk:size={size}"), "weights"), step_values(compute(fields), "weights")
    )
