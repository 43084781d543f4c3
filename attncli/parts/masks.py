"""Who may attend to whom: Grid → booleans that broadcast to (b, h, n, m); true = may attend.

A mask is a predicate on a query and a key, by their positions i, j (`q_pos`, `k_pos`) or their indices I, J (`q_idx`, `k_idx`).
It is written with operators only, so that it runs on plain integers, numpy arrays and tensors alike.

A mask may declare which keys it can reach, `reachable_keys`: (Grid, part) → a few triples, each of a field of the keys and the
lowest and highest value that a query can see, None being no bound. What lies outside all of them is hidden for certain and is
never computed in long runs; a mask that declares nothing may see every key.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Annotated

from attncli.errors import InputError
from attncli.parts.traits import KeyBounds, MaskTraits
from attncli.registry import AnyPart, Family, Range
from attncli.types import Array, Grid, Tensor

mask = Family("mask", "which keys a query may see", MaskTraits)


@mask(
    "full",
    "always",
    why="Nothing is hidden, so that every token can use the whole text.",
    laws=("prefix", "decode", "permutation"),
)
def full(grid: Grid) -> Tensor:
    """Every query sees every key."""
    return grid.k_idx >= 0


@mask(
    "causal",
    "j ≤ i",
    why="A model that writes word by word must not look at the words that come later.",
    source="Vaswani et al. 2017, §3.2.3",
    laws=("prefix", "decode"),
    reachable_keys=lambda grid, part: [("k_pos", None, grid.q_pos)],
    is_causal=True,
    why_hidden=lambda grid, part: f"{grid.k_pos} > {grid.q_pos}",
)
def causal(grid: Grid) -> Tensor:
    """A query sees itself and what came before it."""
    return grid.k_pos <= grid.q_pos


def _why_outside_window(grid: Grid, part: AnyPart) -> str:
    left, far = part.option_value("left"), grid.k_pos - grid.q_pos
    return f"{grid.k_pos} − {grid.q_pos} {f'< {-left}' if 0 <= left < -far else '> ' + str(part.option_value('right'))}"


@mask(
    "window",
    "−left ≤ j − i ≤ right",
    why="Near words matter most, and a window keeps long texts affordable.",
    source="Beltagy et al. 2020, §3.1",
    laws=("prefix", "decode"),
    reachable_keys=lambda grid, part: [
        (
            "k_pos",
            grid.q_pos - part.option_value("left") if part.option_value("left") >= 0 else None,
            grid.q_pos + part.option_value("right") if part.option_value("right") >= 0 else None,
        )
    ],
    why_hidden=_why_outside_window,
    is_window=True,
)
def window(
    grid: Grid, *, left: Annotated[int, Range(low=-1)] = -1, right: Annotated[int, Range(low=-1)] = -1
) -> Tensor:
    """A query sees itself and this many neighbours on each side; −1, or left out, means no bound."""
    near = grid.k_pos >= grid.q_pos - left if left >= 0 else grid.k_idx >= 0
    return near & (grid.k_pos <= grid.q_pos + right) if right >= 0 else near


@mask(
    "prefix",
    "j < length",
    why="The beginning of the text, such as a prompt, is known from the start, so that every query may see it.",
    source="Raffel et al. 2020, §3.2.1",
    laws=("prefix", "decode"),
    reachable_keys=lambda grid, part: [("k_pos", None, 0 * grid.q_pos + part.option_value("length") - 1)],
    why_hidden=lambda grid, part: f"{grid.k_pos} ≥ {part.option_value('length')}",
)
def prefix(grid: Grid, *, length: Annotated[int, Range(low=0)]) -> Tensor:
    """Every query sees the first `length` positions (prefix-LM is `causal or prefix:length=…`)."""
    return grid.k_pos < length


@mask(
    "document",
    "segment of I = segment of J",
    why="Texts that are packed into one sequence must not see each other.",
    source="Raffel et al. 2020, §2.2 (packing)",
    law_exceptions="segments are numbered for the tokens of one problem",
    reachable_keys=lambda grid, part: [("k_seg", grid.q_seg, grid.q_seg)],
    why_hidden=lambda grid, part: f"segment {grid.k_seg} ≠ {grid.q_seg}",
)
def document(grid: Grid) -> Tensor:
    """A query sees the keys of its own document, by the problem's segments."""
    return grid.q_seg == grid.k_seg


@mask(
    "chunk",
    "⌊i/size⌋ = ⌊j/size⌋",
    why="Within a chunk every pair is compared, and the cost of a long text stays bounded.",
    source="Llama 4's attention_chunk_size; Child et al. 2019, §4.3",
    laws=("prefix", "decode"),
    reachable_keys=lambda grid, part: [
        (
            "k_pos",
            grid.q_pos // part.option_value("size") * part.option_value("size"),
            grid.q_pos // part.option_value("size") * part.option_value("size") + part.option_value("size") - 1,
        )
    ],
    why_hidden=lambda grid, part: (
        f"⌊{grid.q_pos}/{part.option_value('size')}⌋ ≠ ⌊{grid.k_pos}/{part.option_value('size')}⌋"
    ),
)
def chunk(grid: Grid, *, size: Annotated[int, Range(low=1)]) -> Tensor:
    """A query sees the keys of its own chunk of `size` positions."""
    return grid.q_pos // size == grid.k_pos // size


@mask(
    "dilated",
    "(i − j) mod rate = 0",
    why="With gaps between them, the same number of keys reaches further.",
    source="Beltagy et al. 2020, §3.1",
    laws=("prefix", "decode"),
    why_hidden=lambda grid, part: f"({grid.q_pos} − {grid.k_pos}) mod {part.option_value('rate')} ≠ 0",
)
def dilated(grid: Grid, *, rate: Annotated[int, Range(low=1)]) -> Tensor:
    """A query sees every `rate`-th position, counted from itself."""
    return (grid.q_pos - grid.k_pos) % rate == 0


@mask(
    "strided",
    "j ≤ i and (i − j < stride or (i − j) mod stride = 0)",
    why="The nearest keys and some at regular distances reach every part of a long text in two layers.",
    source="Child et al. 2019, §4.2",
    laws=("prefix", "decode"),
    reachable_keys=lambda grid, part: [("k_pos", None, grid.q_pos)],
    why_hidden=lambda grid, part: (
        f"{grid.k_pos} > {grid.q_pos}"
        if grid.k_pos > grid.q_pos
        else f"{grid.q_pos} − {grid.k_pos} ≥ {part.option_value('stride')}, and not a multiple of it"
    ),
)
def strided(grid: Grid, *, stride: Annotated[int, Range(low=1)]) -> Tensor:
    """A query sees the last `stride` positions, and before them every `stride`-th (Sparse Transformer)."""
    back = grid.q_pos - grid.k_pos
    return (back >= 0) & ((back < stride) | (back % stride == 0))


@mask(
    "fixed",
    "j ≤ i and (⌊i/stride⌋ = ⌊j/stride⌋ or j mod stride ≥ stride − summary)",
    why="The last positions of each block stand for the whole block, so that distant text costs little.",
    source="Child et al. 2019, §4.2",
    laws=("prefix", "decode"),
    option_conflict=lambda o: "summary is at most stride" if o["summary"] > o["stride"] else "",
    reachable_keys=lambda grid, part: [("k_pos", None, grid.q_pos)],
    why_hidden=lambda grid, part: (
        f"{grid.k_pos} > {grid.q_pos}"
        if grid.k_pos > grid.q_pos
        else f"{grid.k_pos} is in an earlier block, but not at its end"
    ),
)
def fixed(grid: Grid, *, stride: Annotated[int, Range(low=1)], summary: Annotated[int, Range(low=1)] = 1) -> Tensor:
    """A query sees its own block up to itself, and the last positions of every earlier block (Sparse Transformer)."""
    own = grid.q_pos // stride == grid.k_pos // stride
    return (grid.k_pos <= grid.q_pos) & (own | (grid.k_pos % stride >= stride - summary))


_MAX_TOKEN_RUNS = 4  # ranges that global tokens declare; of more runs, one around them all


def _global_key_ranges(grid: Grid, part: AnyPart) -> list[KeyBounds]:
    """Return the runs of consecutive tokens; for a query that is one of the tokens, each run reaches over every key."""
    tokens = {token for token in part.option_value("tokens") if token < grid.max_length}
    starts = sorted(token for token in tokens if token - 1 not in tokens)
    ends = sorted(token for token in tokens if token + 1 not in tokens)
    if len(starts) > _MAX_TOKEN_RUNS:
        starts, ends = starts[:1], ends[-1:]
    is_global = _is_among(grid.q_idx, tokens, grid) + 0  # (1, 1, n, 1)
    last_key = grid.key_count - 1
    return [
        ("k_idx", start - start * is_global, end + (last_key - end) * is_global)
        for start, end in zip(starts, ends, strict=True)
    ]


def _is_among(indices: Array, tokens: Collection[int], grid: Grid) -> Array:
    """Whether each index, of a query or a key of the grid, is one of some tokens: booleans of the shape of the indices."""
    found = indices < 0
    if len(tokens) <= _MAX_COMPARED_TOKENS:
        for token in tokens:
            found = found | (indices == token)
        return found
    import numpy as np

    table = np.zeros(grid.max_length, bool)
    table[[token for token in tokens if token < grid.max_length]] = True
    return (indices.new_tensor(table, dtype=found.dtype) if hasattr(indices, "new_tensor") else table)[indices]


_MAX_COMPARED_TOKENS = 32  # one by one; more of them are looked up in a table


@mask(
    "global",
    "I or J among the tokens",
    why="A few tokens pass on what the others, which see only their neighbours, cannot exchange.",
    source="Beltagy et al. 2020, §3.1",
    laws=("prefix", "decode"),
    reachable_keys=_global_key_ranges,
    named_tokens=lambda part: part.option_value("tokens"),
    why_hidden=lambda grid, part: f"neither {grid.q_idx} nor {grid.k_idx} is one of the tokens",
)
def global_(grid: Grid, *, tokens: Annotated[tuple[int, ...], Range(low=0)]) -> Tensor:
    """These tokens see every key, and every query sees them (Longformer combines them with a window)."""
    return _is_among(grid.q_idx, tokens, grid) | _is_among(grid.k_idx, tokens, grid)


@mask(
    "natten",
    "s ≤ J < s + K, s = clamp(I − ⌊K/2⌋, 0, T − K)",
    why="Every query sees equally many neighbours, at the ends of the text too.",
    source="Hassani et al. 2023, §3.1",
    law_exceptions="the window moves inward at the ends, so what is seen depends on the number of keys",
    reachable_keys=lambda grid, part: [
        (
            "k_idx",
            _window_start(grid, part.option_value("kernel")),
            _window_start(grid, part.option_value("kernel")) + part.option_value("kernel") - 1,
        )
    ],
    why_hidden=lambda grid, part: f"{grid.k_idx} is outside the {part.option_value('kernel')} keys around {grid.q_idx}",
)
def natten(grid: Grid, *, kernel: Annotated[int, Range(low=1)]) -> Tensor:
    """A query sees `kernel` keys around it; at the ends the window moves inward, so that it is always full."""
    start = _window_start(grid, kernel)
    return (grid.k_idx >= start) & (grid.k_idx < start + kernel)


def _window_start(grid: Grid, kernel: int) -> Array:
    """The first key of each query's window."""
    start = grid.q_idx - kernel // 2
    last = max(grid.key_count - kernel, 0)
    start = start * (start > 0)  # max(start, 0)
    return start - (start - last) * (start > last)  # min(start, last)


@mask(
    "bigbird",
    "blocks: |⌊I/b⌋ − ⌊J/b⌋| ≤ ⌊w/2⌋, or one of the first g, or one of r drawn",
    why="Neighbours, a few global blocks and some random ones connect any two tokens in a few layers.",
    source="Zaheer et al. 2020, §2 and App. D (ITC)",
    law_exceptions="the random blocks are drawn for all blocks at once",
    option_conflict=lambda o: "" if o["window"] % 2 else "window counts blocks around its own, and is odd",
    why_hidden=lambda grid, part: (
        f"block {grid.k_idx // part.option_value('block')} is not a neighbour, first or random block of block {grid.q_idx // part.option_value('block')}"
    ),
)
def bigbird(
    grid: Grid,
    *,
    block: Annotated[int, Range(low=1)] = 64,
    window: Annotated[int, Range(low=1)] = 3,
    global_: Annotated[int, Range(low=0)] = 2,
    random: Annotated[int, Range(low=0)] = 3,
    seed: Annotated[int, Range(low=0, high=2**32 - 1)] = 0,
) -> Tensor:
    """A block of queries sees its neighbours, the first blocks (which see everything), and some random ones."""
    i, j = grid.q_idx // block, grid.k_idx // block
    seen = (abs(i - j) <= window // 2) | (i < global_) | (j < global_)
    if not random:
        return seen
    table = _draw_random_blocks((grid.max_length - 1) // block + 1, window // 2, global_, random, seed)
    chosen = (i.new_tensor(table) if hasattr(i, "new_tensor") else table)[i, j]  # 1 for a pair that was drawn
    return seen | (chosen > 0)


_MAX_BLOCKS = 6000  # for each of them all are shuffled


@functools.cache
def _draw_random_blocks(blocks: int, reach: int, first: int, drawn_per_block: int, seed: int) -> Array:
    """For each block in turn, so many of those that it does not see yet, by a permutation drawn from the seed.

    Raises:
        InputError: there are so many blocks that drawing among them would take minutes.
    """
    import numpy as np

    if blocks > _MAX_BLOCKS:
        raise InputError(
            "too-long",
            f"bigbird draws random blocks for each of {blocks:,} blocks, but the limit is {_MAX_BLOCKS:,}",
            help="use a larger block=, or random=0",
        )

    stream = np.random.RandomState(seed)  # the legacy generator, whose stream is frozen
    table = np.zeros((blocks, blocks), np.uint8)
    later = np.arange(first, blocks)
    for a in range(first, blocks):
        unseen = np.concatenate([later[: max(a - reach - first, 0)], later[a + reach + 1 - first :]])
        table[a, stream.permutation(unseen)[:drawn_per_block]] = 1
    return table


@mask(
    "given",
    "the problem's mask",
    why="The file says which keys each query may see.",
    law_exceptions="its cells belong to indices of one problem",
    why_hidden=lambda grid, part: "the file says false",
)
def given(grid: Grid) -> Tensor:
    """The file's `mask`; and-ed in whenever the file has one and the expression does not name it."""
    return grid.problem_mask
