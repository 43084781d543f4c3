"""Who may attend to whom: Grid → booleans that broadcast to (b, h, n, m); true = may attend.

A mask is a predicate on two places: positions i, j (`q_pos`, `k_pos`) or indices I, J (`q_idx`, `k_idx`).
It speaks in operators only, so it runs on plain integers, numpy arrays and tensors alike.

A mask may say how far it reaches: (Grid, part) → a few triples, each the field of the keys that it goes by, its lowest and its
highest value for each query, None being no bound. What lies outside all of them is hidden for certain, so that long runs never
compute it; a mask that declares no `reachable_keys` may see every key.
"""

from __future__ import annotations

import functools
from typing import Annotated

from attncli.parts.traits import KeyBounds, MaskTraits
from attncli.registry import AnyPart, Family, Range
from attncli.types import Array, Grid, Tensor

mask = Family("mask", "who may attend to whom", MaskTraits)


@mask("full", "always", laws=("prefix", "decode", "permutation"))
def full(at: Grid) -> Tensor:
    """Every query sees every key."""
    return at.k_idx >= 0


@mask(
    "causal",
    "j ≤ i",
    source="Vaswani et al. 2017, §3.2.3",
    laws=("prefix", "decode"),
    reachable_keys=lambda at, part: [("k_pos", None, at.q_pos)],
    is_causal=True,
    why_hidden=lambda at, part: f"{at.k_pos} > {at.q_pos}",
)
def causal(at: Grid) -> Tensor:
    """A query sees itself and what came before it."""
    return at.k_pos <= at.q_pos


def _beyond(at: Grid, part: AnyPart) -> str:
    left, far = part.get("left"), at.k_pos - at.q_pos
    return f"{at.k_pos} − {at.q_pos} {f'< {-left}' if 0 <= left < -far else '> ' + str(part.get('right'))}"


@mask(
    "window",
    "−left ≤ j − i ≤ right",
    source="Beltagy et al. 2020, §3.1",
    laws=("prefix", "decode"),
    reachable_keys=lambda at, part: [
        (
            "k_pos",
            at.q_pos - part.get("left") if part.get("left") >= 0 else None,
            at.q_pos + part.get("right") if part.get("right") >= 0 else None,
        )
    ],
    why_hidden=_beyond,
    is_window=True,
)
def window(at: Grid, *, left: Annotated[int, Range(low=-1)] = -1, right: Annotated[int, Range(low=-1)] = -1) -> Tensor:
    """A query sees so many neighbours on each side, and itself; −1, or left out, is no bound."""
    near = at.k_pos >= at.q_pos - left if left >= 0 else at.k_idx >= 0
    return near & (at.k_pos <= at.q_pos + right) if right >= 0 else near


@mask(
    "prefix",
    "j < length",
    source="Raffel et al. 2020, §3.2.1",
    laws=("prefix", "decode"),
    reachable_keys=lambda at, part: [("k_pos", None, 0 * at.q_pos + part.get("length") - 1)],
    why_hidden=lambda at, part: f"{at.k_pos} ≥ {part.get('length')}",
)
def prefix(at: Grid, *, length: Annotated[int, Range(low=0)]) -> Tensor:
    """Every query sees the first so many positions (prefix-LM is `causal or prefix:length=…`)."""
    return at.k_pos < length


@mask(
    "document",
    "segment of I = segment of J",
    source="Raffel et al. 2020, §2.2 (packing)",
    lawless="its segments belong to indices of one problem",
    reachable_keys=lambda at, part: [("k_seg", at.q_seg, at.q_seg)],
    why_hidden=lambda at, part: f"segment {at.k_seg} ≠ {at.q_seg}",
)
def document(at: Grid) -> Tensor:
    """A query sees the keys of its own document, by the problem's segments."""
    return at.q_seg == at.k_seg


@mask(
    "chunk",
    "⌊i/size⌋ = ⌊j/size⌋",
    source="Llama 4's attention_chunk_size; Child et al. 2019, §4.3",
    laws=("prefix", "decode"),
    reachable_keys=lambda at, part: [
        (
            "k_pos",
            at.q_pos // part.get("size") * part.get("size"),
            at.q_pos // part.get("size") * part.get("size") + part.get("size") - 1,
        )
    ],
    why_hidden=lambda at, part: f"⌊{at.q_pos}/{part.get('size')}⌋ ≠ ⌊{at.k_pos}/{part.get('size')}⌋",
)
def chunk(at: Grid, *, size: Annotated[int, Range(low=1)]) -> Tensor:
    """A query sees the keys of its own chunk of so many positions."""
    return at.q_pos // size == at.k_pos // size


@mask(
    "dilated",
    "(i − j) mod rate = 0",
    source="Beltagy et al. 2020, §3.1",
    laws=("prefix", "decode"),
    why_hidden=lambda at, part: f"({at.q_pos} − {at.k_pos}) mod {part.get('rate')} ≠ 0",
)
def dilated(at: Grid, *, rate: Annotated[int, Range(low=1)]) -> Tensor:
    """A query sees every so many positions, itself among them."""
    return (at.q_pos - at.k_pos) % rate == 0


@mask(
    "strided",
    "j ≤ i and (i − j < stride or (i − j) mod stride = 0)",
    source="Child et al. 2019, §4.2",
    laws=("prefix", "decode"),
    reachable_keys=lambda at, part: [("k_pos", None, at.q_pos)],
    why_hidden=lambda at, part: (
        f"{at.k_pos} > {at.q_pos}"
        if at.k_pos > at.q_pos
        else f"{at.q_pos} − {at.k_pos} ≥ {part.get('stride')}, and no multiple of it"
    ),
)
def strided(at: Grid, *, stride: Annotated[int, Range(low=1)]) -> Tensor:
    """A query sees the last so many positions, and before them every so many (Sparse Transformer)."""
    back = at.q_pos - at.k_pos
    return (back >= 0) & ((back < stride) | (back % stride == 0))


@mask(
    "fixed",
    "j ≤ i and (⌊i/stride⌋ = ⌊j/stride⌋ or j mod stride ≥ stride − summary)",
    source="Child et al. 2019, §4.2",
    laws=("prefix", "decode"),
    option_conflict=lambda o: "summary is at most stride" if o["summary"] > o["stride"] else "",
    reachable_keys=lambda at, part: [("k_pos", None, at.q_pos)],
    why_hidden=lambda at, part: (
        f"{at.k_pos} > {at.q_pos}"
        if at.k_pos > at.q_pos
        else f"{at.k_pos} stands in an earlier block, and not at its end"
    ),
)
def fixed(at: Grid, *, stride: Annotated[int, Range(low=1)], summary: Annotated[int, Range(low=1)] = 1) -> Tensor:
    """A query sees its own block so far, and the last positions of every block before it (Sparse Transformer)."""
    own = at.q_pos // stride == at.k_pos // stride
    return (at.k_pos <= at.q_pos) & (own | (at.k_pos % stride >= stride - summary))


def _reach_global(at: Grid, part: AnyPart) -> list[KeyBounds]:
    """Runs of tokens that follow each other; every key for a query that is one of them."""
    tokens = sorted({t for t in part.get("tokens") if t < at.longest})
    ends = [t for t in tokens if t + 1 not in tokens]
    starts = [t for t in tokens if t - 1 not in tokens]
    one = sum(at.q_idx == t for t in tokens)  # (1, 1, n, 1)
    return [("k_idx", a - a * one, z + (at.keys - 1 - z) * one) for a, z in zip(starts, ends, strict=True)]


@mask(
    "global",
    "I or J among the tokens",
    source="Beltagy et al. 2020, §3.1",
    laws=("prefix", "decode"),
    reachable_keys=_reach_global,
    why_hidden=lambda at, part: f"neither {at.q_idx} nor {at.k_idx} is among the tokens",
)
def global_(at: Grid, *, tokens: Annotated[tuple[int, ...], Range(low=0)]) -> Tensor:
    """Some tokens see every key, and every query sees them (Longformer is a window or these)."""
    seen = at.k_idx < 0
    for token in tokens:
        seen = seen | (at.q_idx == token) | (at.k_idx == token)
    return seen


@mask(
    "natten",
    "s ≤ J < s + K, s = clamp(I − ⌊K/2⌋, 0, T − K)",
    source="Hassani et al. 2023, §3.1",
    lawless="its window moves inward at the end, so that what is seen depends on how many keys there are",
    reachable_keys=lambda at, part: [
        ("k_idx", _first(at, part.get("kernel")), _first(at, part.get("kernel")) + part.get("kernel") - 1)
    ],
    why_hidden=lambda at, part: f"{at.k_idx} is outside the {part.get('kernel')} keys around {at.q_idx}",
)
def natten(at: Grid, *, kernel: Annotated[int, Range(low=1)]) -> Tensor:
    """A query sees K keys around it; at the ends the window moves inward, so that there are always K."""
    start = _first(at, kernel)
    return (at.k_idx >= start) & (at.k_idx < start + kernel)


def _first(at: Grid, kernel: int) -> Array:
    """The first key of each query's window."""
    start = at.q_idx - kernel // 2
    last = max(at.keys - kernel, 0)
    start = start * (start > 0)  # max(start, 0)
    return start - (start - last) * (start > last)  # min(start, last)


@mask(
    "bigbird",
    "blocks: |⌊I/b⌋ − ⌊J/b⌋| ≤ ⌊w/2⌋, or one of the first g, or one of r drawn",
    source="Zaheer et al. 2020, §2 and App. D (ITC)",
    lawless="its random blocks are drawn over all the blocks there are",
    option_conflict=lambda o: "" if o["window"] % 2 else "window counts blocks around its own, and is odd",
    why_hidden=lambda at, part: (
        f"block {at.k_idx // part.get('block')} is not near, first or drawn for block {at.q_idx // part.get('block')}"
    ),
)
def bigbird(
    at: Grid,
    *,
    block: Annotated[int, Range(low=1)] = 64,
    window: Annotated[int, Range(low=1)] = 3,
    global_: Annotated[int, Range(low=0)] = 2,
    random: Annotated[int, Range(low=0)] = 3,
    seed: Annotated[int, Range(low=0, high=2**32 - 1)] = 0,
) -> Tensor:
    """A query's block sees its neighbours, the first blocks (which see all), and some that are drawn from a seed."""
    i, j = at.q_idx // block, at.k_idx // block
    seen = (abs(i - j) <= window // 2) | (i < global_) | (j < global_)
    table = _drawn_blocks((at.longest - 1) // block + 1, window // 2, global_, random, seed)
    chosen = (i.new_tensor(table) if hasattr(i, "new_tensor") else table)[i, j]  # 1 for a pair that was drawn
    return seen | (chosen > 0)


@functools.cache
def _drawn_blocks(blocks: int, reach: int, first: int, drawn: int, seed: int) -> Array:
    """For each block in turn, so many of those that it does not see yet, by a permutation drawn from the seed."""
    import numpy as np

    stream = np.random.RandomState(seed)  # the legacy generator, whose stream is frozen
    table = np.zeros((blocks, blocks), int)
    for a in range(first, blocks):
        unseen = [b for b in range(first, blocks) if abs(a - b) > reach]
        table[a, stream.permutation(unseen)[:drawn].astype(int)] = 1
    return table


@mask(
    "given",
    "the problem's mask",
    lawless="its cells belong to indices of one problem",
    why_hidden=lambda at, part: "the file says false",
)
def given(at: Grid) -> Tensor:
    """The file's `mask`; and-ed in whenever the file has one and the expression does not name it."""
    return at.given
