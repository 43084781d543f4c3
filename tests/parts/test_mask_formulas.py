"""Masks against brute force, where positions are not indices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import attncli
from attncli.errors import InputError
from attncli.mask_expression import parse_expression
from attncli.parts.masks import _draw_random_blocks, mask
from attncli.plan import make_plan
from attncli.types import Grid
from tests.helpers import assert_identical, step_values

pytestmark = pytest.mark.usefixtures("own_stream")
T, S = 17, 23  # queries, keys of the larger grids


I_POS = [30, 2, 7, 5, 19, 0, 8, 8, 21, 3, 12, 40, 16, 1, 9, 25, 6]
J_POS = [4, 30, 0, 8, 9, 17, 1, 25, 33, 2, 12, 6, 7, 40, 5, 16, 3, 11, 20, 24, 8, 10, 31]


def seen(text: str, *, queries: int = T, keys: int = S, placed: bool = True) -> np.ndarray:
    """Who sees whom: (queries, keys)"""
    fields: dict[str, Any] = {"q": np.zeros((queries, 2)), "k": np.zeros((keys, 2))}
    fields |= {"positions": I_POS[:queries], "k_positions": J_POS[:keys]} if placed else {}
    result = attncli.attend(attncli.Problem(**fields), attncli.Variant(mask=text), keep={"mask"})
    return np.broadcast_to(step_values(result, "mask"), (queries, keys))


def brute(rule: Any, queries: Any = I_POS, keys: Any = J_POS) -> np.ndarray:
    return np.array([[bool(rule(i, j)) for j in keys] for i in queries])


@pytest.mark.parametrize("stride", [1, 2, 5, 8, 100])
def test_strided_is_the_union_of_childs_two_heads(stride: int) -> None:
    """Child et al. 2019, §4.2: A1 = {t … i}, t = max(0, i − l); A2 = {j : (i − j) mod l = 0}; both up to i."""

    def rule(i: int, j: int) -> bool:
        one = set(range(max(0, i - stride), i + 1))
        two = {a for a in range(i + 1) if (i - a) % stride == 0}
        return j in one | two

    assert_identical(seen(f"strided:stride={stride}"), brute(rule))


@pytest.mark.parametrize(("stride", "summary"), [(1, 1), (4, 1), (5, 2), (8, 3), (8, 8), (100, 7)])
def test_fixed_is_the_union_of_childs_two_heads(stride: int, summary: int) -> None:
    """Child et al. 2019, §4.2: A1 = {j : ⌊j/l⌋ = ⌊i/l⌋}; A2 = {j : j mod l ∈ {t … l}}, t = l − c; both up to i."""

    def rule(i: int, j: int) -> bool:
        one = {a for a in range(i + 1) if a // stride == i // stride}
        two = {a for a in range(i + 1) if a % stride in range(stride - summary, stride + 1)}
        return j in one | two

    assert_identical(seen(f"fixed:stride={stride},summary={summary}"), brute(rule))


@pytest.mark.parametrize(
    "tokens",
    [(0,), (3, 11), (16, 0, 22), (*range(0, 16, 3), *range(100, 150)), (5, 2**53, *[7] * 40, 22), tuple(range(23))],
)
def test_global_tokens_are_indices_both_ways(tokens: tuple[int, ...]) -> None:
    """Beltagy et al. 2020, §3.1: symmetric, whatever the positions."""
    text = f"global:tokens={'+'.join(map(str, tokens))}"

    assert_identical(seen(text), brute(lambda i, j: i in tokens or j in tokens, range(T), range(S)))


@pytest.mark.parametrize("index", [0, 4, 6, 30])
def test_many_global_tokens_are_found_one_index_at_a_time_too(index: int) -> None:
    tokens = tuple(range(0, 200, 2))
    grid = Grid(q_pos=index, k_pos=1, q_idx=index, k_idx=1, max_length=31)

    assert bool(parse_expression(f"global:tokens={'+'.join(map(str, tokens))}", mask)(grid)) == (index in tokens)


@pytest.mark.parametrize(("blocks", "reach", "first", "drawn", "seed"), [(9, 1, 2, 3, 0), (6, 0, 0, 1, 7), (5, 9, 1, 2, 3), (4, 1, 9, 1, 1)])  # fmt: skip
def test_the_random_blocks_are_drawn_as_by_a_loop(blocks: int, reach: int, first: int, drawn: int, seed: int) -> None:
    stream = np.random.RandomState(seed)
    table = np.zeros((blocks, blocks), int)
    for a in range(first, blocks):
        unseen = [b for b in range(first, blocks) if abs(a - b) > reach]
        table[a, stream.permutation(unseen)[:drawn].astype(int)] = 1

    assert_identical(_draw_random_blocks(blocks, reach, first, drawn, seed).astype(int), table)


def test_longformer_is_a_window_or_global_tokens() -> None:
    got = seen("window:left=3,right=3 or global:tokens=0+9", queries=T, keys=T, placed=False)

    assert_identical(got, brute(lambda i, j: abs(i - j) <= 3 or i in (0, 9) or j in (0, 9), range(T), range(T)))


@pytest.mark.parametrize("size", [7, 16, 17, 23])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 7, 8, 16, 17, 40])
def test_natten_is_its_papers_neighbourhood(kernel: int, size: int) -> None:
    """Hassani et al. 2023, §3.1: as many keys for each query, the nearest; NATTEN's get_window_start for odd kernels."""
    got = seen(f"natten:kernel={kernel}", queries=size, keys=size, placed=False)
    assert (got.sum(-1) == min(kernel, size)).all()
    for i in range(size):
        reach = kernel // 2
        start = max(i - reach, 0) + (size - i - reach - 1 if i + reach >= size else 0)  # natten's own line, odd kernels
        if kernel % 2 == 0:  # one neighbour fewer to the right
            start = min(max(i - reach, 0), size - kernel)
        start = max(start, 0)
        assert_identical(np.flatnonzero(got[i]), np.arange(start, min(start + kernel, size)))


def test_natten_knows_indices_not_positions() -> None:
    assert_identical(
        seen("natten:kernel=5", queries=T, keys=T), seen("natten:kernel=5", queries=T, keys=T, placed=False)
    )


BIGBIRDS = [(4, 3, 2, 3, 0), (4, 3, 1, 0, 5), (5, 5, 0, 2, 1), (3, 1, 2, 1, 7), (1, 3, 2, 3, 0), (8, 3, 2, 3, 9)]


@pytest.mark.parametrize(("block", "window", "first", "random", "seed"), BIGBIRDS)
def test_bigbird_is_itc(block: int, window: int, first: int, random: int, seed: int) -> None:
    """Zaheer et al. 2020, §2 and App. D: neighbours, global blocks both ways, and r random blocks of those unseen."""
    size = 50
    text = f"bigbird:block={block},window={window},global={first},random={random},seed={seed}"
    got = seen(text, queries=size, keys=size, placed=False)
    blocks = -(-size // block)
    must = brute(
        lambda i, j: abs(i // block - j // block) <= window // 2 or i // block < first or j // block < first,
        range(size),
        range(size),
    )

    assert got[must].all()
    assert_identical(got, seen(text, queries=size, keys=size, placed=False))  # a seed is a pattern
    for a in range(blocks):
        rows = got[a * block : (a + 1) * block]
        assert (rows == rows[0]).all()  # blocks see as one
        drawn = {b for b in range(blocks) if (rows[0] & ~must[a * block])[b * block : (b + 1) * block].any()}
        unseen = {b for b in range(blocks) if not must[a * block, b * block]}
        assert drawn <= unseen
        assert len(drawn) == (min(random, len(unseen)) if a >= first else 0)
        for b in drawn:
            assert rows[:, b * block : (b + 1) * block].all()
    if random and blocks > 2 * first + window + random:
        others = [
            seen(text.replace(f"seed={seed}", f"seed={n}"), queries=size, keys=size, placed=False) for n in (91, 92)
        ]
        assert any((other != got).any() for other in others)


def test_bigbird_draws_the_same_blocks_for_new_queries_behind_a_cache() -> None:
    x, variant = np.zeros((1, 1, 9, 2)), attncli.Variant(mask="bigbird:block=1,window=1,global=0,random=2")
    whole = attncli.attend(attncli.Problem(q=x, k=x), variant, keep={"mask"})
    new = dict.fromkeys("qkv", x[:, :, 5:])
    behind = attncli.attend(attncli.Problem(**new, past=dict.fromkeys("kv", x[:, :, :5])), variant, keep={"mask"})

    assert_identical(step_values(behind, "mask"), step_values(whole, "mask")[..., 5:, :])


@pytest.mark.parametrize("rate", [1, 3, 4])
def test_dilated_and_chunk_and_prefix_read_positions(rate: int) -> None:
    assert_identical(seen(f"dilated:rate={rate}"), brute(lambda i, j: (i - j) % rate == 0))
    assert_identical(seen(f"chunk:size={rate}"), brute(lambda i, j: math.floor(i / rate) == math.floor(j / rate)))
    assert_identical(seen(f"prefix:length={rate}"), brute(lambda i, j: j < rate))
    assert_identical(seen(f"window:left={rate},right=2"), brute(lambda i, j: j in range(i - rate, i + 3)))


def test_more_blocks_than_are_drawn_for_are_refused_unless_none_is_drawn() -> None:
    fields = {"q": np.zeros((6001, 1)), "k": np.zeros((6001, 1)), "v": np.zeros((6001, 1))}

    with pytest.raises(InputError, match="random blocks for each of 6,001 blocks, but the limit is 6,000") as caught:
        attncli.attend(attncli.Problem(**fields), attncli.Variant(mask="bigbird:block=1"), keep={"context"})
    drawn = make_plan(attncli.Problem(**fields), attncli.Variant(mask="bigbird:block=2"), keep={"context"})
    undrawn = make_plan(attncli.Problem(**fields), attncli.Variant(mask="bigbird:block=1,random=0"), keep={"context"})

    assert caught.value.help == "use a larger block=, or random=0"
    assert drawn.schedule == undrawn.schedule == "tiled"
