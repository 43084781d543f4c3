"""Masks, biases and dropout masks of fewer axes than the scores: one reading is computed, two are refused, and none is guessed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attncli
from attncli.errors import InputError
from tests.helpers import draw_normal

LENGTH = st.integers(1, 5)
FIELD = st.sampled_from(["mask", "bias", "dropout_mask"])


def draw_problem(batch, heads, queries, keys, name, x):
    d = 3
    lead = () if batch is None else (batch,)
    fields = {"q": draw_normal(1, *lead, queries, heads * d), "k": draw_normal(2, *lead, keys, heads * d)}
    return attncli.Problem(**fields, v=draw_normal(3, *lead, keys, heads * d), **{name: x})


def run(problem, heads, name):
    choices = {"dropout": 0.5} if name == "dropout_mask" else {}
    return attncli.attend(problem, attncli.Variant(heads=heads, **choices), {"weights", "context"})


def array_of(name, shape):
    x = draw_normal(7, *shape)
    return x if name == "bias" else x > -0.3


def wanted_shapes(batch, heads, queries, keys, shape):
    """Every rank-4 shape that the array may have meant, by the three conventions of the field."""
    placed = set()
    if len(shape) == 1:
        placed.add((1, 1, 1, *shape))
    if len(shape) == 2:
        placed.add((1, 1, *shape))
        placed.add((shape[0], 1, 1, shape[1]))
    if len(shape) == 3:
        placed.add((1, *shape))
        placed.add((shape[0], 1, *shape[1:]))
    if len(shape) == 4:
        placed.add(shape)
    grid = (batch or 1, heads, queries, keys)
    return {p for p in placed if all(n in (1, m) for n, m in zip(p, grid, strict=True))}


@pytest.mark.slow
@settings(max_examples=400)
@given(st.one_of(st.none(), LENGTH), LENGTH, LENGTH, LENGTH, FIELD, st.data())
def test_one_reading_equals_four_axes_and_two_are_refused(batch, heads, queries, keys, name, data):
    rank = data.draw(st.integers(1, 4))
    likely = st.sampled_from(sorted({1, batch or 1, heads, queries, keys}))
    shape = tuple(data.draw(likely) for _ in range(rank))
    x = array_of(name, shape)
    wanted = wanted_shapes(batch, heads, queries, keys, shape)

    if len(wanted) == 1:
        got = run(draw_problem(batch, heads, queries, keys, name, x), heads, name)
        right = run(draw_problem(batch, heads, queries, keys, name, x.reshape(wanted.pop())), heads, name)
        for step in right:
            np.testing.assert_array_equal(got[step.name].values, step.values)
        return
    with pytest.raises(InputError) as raised:
        run(draw_problem(batch, heads, queries, keys, name, x), heads, name)
    assert raised.value.code == ("two-readings" if wanted else "shape-mismatch")
    for whole in wanted:
        assert str(whole) in raised.value.help


@pytest.mark.parametrize("name", ["mask", "bias", "dropout_mask"])
def test_items_and_heads_in_one_axis_are_to_be_reshaped(name):
    batch, heads, n = 2, 3, 4
    x = array_of(name, (batch * heads, n, n))

    with pytest.raises(InputError) as raised:
        run(draw_problem(batch, heads, n, n, name, x), heads, name)

    assert raised.value.help == "items and heads share one axis: reshape it to (2, 3, 4, 4)"
    got = run(draw_problem(batch, heads, n, n, name, x.reshape(2, 3, 4, 4)), heads, name)
    assert got["weights"].values.shape == (2, 3, 4, 4)


def test_a_mask_an_item_is_not_read_one_a_head():
    """B = H = 2: item 1 must not see what item 0 may."""
    x = draw_normal(4, 2, 3, 4)
    mask = np.stack([np.tri(3, dtype=bool), np.eye(3, dtype=bool)])

    with pytest.raises(InputError, match=r"mask has shape \(2, 3, 3\), which can be read in two ways") as raised:
        attncli.attend(attncli.Problem(embeddings=x, mask=mask), attncli.Variant(heads=2))
    an_item = attncli.attend(attncli.Problem(embeddings=x, mask=mask[:, None]), attncli.Variant(heads=2))

    assert raised.value.help == (
        "give it four axes: (1, H, Tq, Tk) = (1, 2, 3, 3): one per head; (B, 1, Tq, Tk) = (2, 1, 3, 3): one per item"
    )
    assert (an_item["weights"].values[1] > 0).tolist() == [np.eye(3, dtype=bool).tolist()] * 2


def test_padding_an_item_is_not_read_a_query():
    """B = Tq = 3, (B, Tk): which keys of each item are padding."""
    x = draw_normal(5, 3, 3, 4)
    padding = np.array([[True, True, True], [True, True, False], [True, False, False]])

    with pytest.raises(InputError) as raised:
        attncli.attend(attncli.Problem(embeddings=x, mask=padding))
    right = attncli.attend(attncli.Problem(embeddings=x, mask=padding[:, None, None]))

    assert "(1, 1, Tq, Tk) = (1, 1, 3, 3): the same for each item" in raised.value.help
    assert "(B, 1, 1, Tk) = (3, 1, 1, 3): keys of each item" in raised.value.help
    assert (right["weights"].values[2] > 0).tolist() == [[True, False, False]] * 3


@pytest.mark.parametrize(
    ("batch", "heads", "shape", "said"),
    [
        (None, 2, (4, 3, 5), "there are 2 heads: give one mask per head, (2, 3, 5), or one for all, of two axes"),
        (None, 1, (4, 3, 5), "there is one head: one mask for it has two axes, (3, 5)"),
        (None, 2, (2, 2, 3, 5), "the problem has no batch: give one mask, or a batch of 2 problems"),
        (None, 2, (1, 2, 4, 5), "Tq is 4, not 3"),
        (2, 2, (4, 3, 5), "items and heads share one axis: reshape it to (2, 2, 3, 5)"),
        (2, 2, (7, 3, 5), "one per item is (2, 1, 3, 5), one per head (1, 2, 3, 5)"),
        (2, 2, (7, 4, 5), "H is 7, not 2"),
        (2, 2, (3, 2, 3, 5), "B is 3, not 2"),
    ],
)
def test_an_array_that_fits_in_no_way_is_told_what_would(batch, heads, shape, said):
    lead = () if batch is None else (batch,)
    q, k, v = (draw_normal(1, *lead, n, 4) for n in (3, 5, 5))

    with pytest.raises(InputError) as raised:
        attncli.attend(attncli.Problem(q=q, k=k, v=v, mask=np.ones(shape, bool)), heads=heads)

    assert raised.value.code == "shape-mismatch"
    assert said in f"{raised.value.message} {raised.value.help}"
