"""What becomes of a token before it is compared: (Sizes, what the file has, generator) → parameters.

`given` takes them from the file, `identity` has none, the others draw them as PyTorch would, float32 on the CPU,
so that a published seed gives the published figures. All come back as x @ W wants them, (d_in, d_out).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from attncli.derivation import Line, Work
from attncli.parts.traits import ProjectionTraits
from attncli.registry import Family, Parameter, Part, Range
from attncli.types import Array, Generator, Tensor

projection = Family("projection", "what becomes of a token before it is compared", ProjectionTraits)

LEARNED = (
    Parameter("w_q", ("d", "d_q"), "queries: x W_q"),
    Parameter("w_k", ("e", "d_k"), "keys"),
    Parameter("w_v", ("e", "d_v"), "values"),
    Parameter("b_q", ("d_q",), "added to the queries"),
    Parameter("b_k", ("d_k",), "added to the keys"),
    Parameter("b_v", ("d_v",), "added to the values"),
    Parameter("w_o", ("d_c", "d_o"), "output: context W_o"),
    Parameter("b_o", ("d_o",), "added to the output"),
)
_LAWS = ("prefix", "decode", "permutation")


def work_linear(w: Work) -> Iterator[Line]:
    """x W + b, column by column: every projection works alike, wherever its arrays come from."""
    matrix = w("W") if "W" in w else None
    offset = w("b") if "b" in w else None
    for c, out in enumerate(w.out, start=w.first):
        terms = w.products(w.q, [row[c] for row in matrix]) if matrix else [w.q[c]]
        yield Line(f"{w.label}[{c - w.first}]", ([*terms, " + ", offset[c]] if offset else terms, [out]))


@dataclass(frozen=True)
class Sizes:
    """What a projection must know of the problem: widths of the embeddings and the memory, and the heads."""

    d: int  # width of what queries are made of
    e: int  # width of what keys and values are made of
    heads: int = 1
    kv_heads: int = 1
    out_in: bool = False  # the file's w_layout


@projection(
    "given",
    "q = x W_q + b_q, k = m W_k + b_k, v = m W_v + b_v",
    source="Vaswani et al. 2017, §3.2.2",
    parameters=LEARNED,
    laws=_LAWS,
    is_from_file=True,
)
def given(sizes: Sizes, parameters: Mapping[str, Array], generator: Generator | None) -> Mapping[str, Array]:
    """The file's own w_q, w_k, w_v, w_o and biases; one that it lacks is the identity."""
    return parameters


@projection("identity", "q = x, k = v = m", laws=_LAWS, is_identity=True)
def identity(sizes: Sizes, parameters: Mapping[str, Array], generator: Generator | None) -> Mapping[str, Array]:
    """No projections at all: embeddings are their own queries, keys and values."""
    return {}


def undecided(has_parameters: bool) -> Part[ProjectionTraits]:
    """Where q, k and v come from when nobody said: from the file where it has them."""
    return projection.parse("given" if has_parameters else "identity")


# ── drawn ones ───────────────────────────────────────────────────────────────────────────────────
Draw = Callable[..., "Tensor"]  # (shape, generator, letter, …) → one array
Bias = Literal["none", "qkv", "o", "all"]
Order = Literal["qkvo", "kqvo", "oqkv", "per-head"]
Width = Annotated[int, Range(low=1, high=2**31)]
Seed = Annotated[int, Range(low=0, below=2**64)]


def widths(sizes: Sizes, dim: int | None, v_dim: int | None) -> dict[str, tuple[int, int]]:
    """(d_in, d_out) of W_q, W_k, W_v and W_o for drawn projections, before heads are checked to divide them."""
    q = dim or sizes.d
    v = v_dim or q
    return {
        "q": (sizes.d, q),
        "k": (sizes.e, q * sizes.kv_heads // sizes.heads),
        "v": (sizes.e, v * sizes.kv_heads // sizes.heads),
        "o": (v, v),
    }


def _turns(order: str, sizes: Sizes) -> Iterator[tuple[str, int]]:
    """Which matrix is drawn when: (letter, in how many parts it is drawn)."""
    if order != "per-head":
        yield from ((letter, 1) for letter in order)
        return
    for h in range(sizes.heads):  # heads side by side: q, k, v of one head before the next
        yield "q", sizes.heads
        if h < sizes.kv_heads:
            yield "k", sizes.kv_heads
            yield "v", sizes.kv_heads
    yield "o", 1


def drawn(
    name: str, formula: str, source: str, weight: Draw, offset: Draw, *, rows_first: bool = True, order: Order = "qkvo"
) -> None:
    """Register a projection that draws its parameters, by turns: `weight` one matrix, `offset` one bias.

    `rows_first`: the matrix is drawn as nn.Linear stores it, (d_out, d_in), whatever the file's w_layout.
    """

    def draw(
        sizes: Sizes,
        parameters: Mapping[str, Array],
        generator: Generator | None,
        *,
        dim: Width | None = None,
        v_dim: Width | None = None,
        bias: Bias = "none",
        out: Literal["yes", "no"] = "no",
        order: Order = order,
        seed: Seed | None = None,
    ) -> Mapping[str, Array]:
        import torch

        shapes = widths(sizes, dim, v_dim)
        turned = rows_first or sizes.out_in
        found: dict[str, list[Tensor]] = {}
        for letter, parts in _turns(order, sizes):
            if letter == "o" and out == "no" and order != "oqkv":  # a layer that draws W_o first draws it in any case
                continue
            d_in, d_out = shapes[letter][0], shapes[letter][1] // parts
            w = weight((d_out, d_in) if turned else (d_in, d_out), generator, letter, shapes)
            found.setdefault(f"w_{letter}", []).append(w.T if turned else w)  # (d_in, d_out)
            if bias == "all" or bias == ("o" if letter == "o" else "qkv"):
                found.setdefault(f"b_{letter}", []).append(offset((d_out,), generator, letter, d_in))  # (d_out,)
        return {k: torch.cat(v, -1) for k, v in found.items() if out == "yes" or not k.endswith("_o")}

    draw.__doc__ = f"Drawn from a seed, as {source} draws them."
    projection(name, formula, source=source, laws=_LAWS, is_drawn=True)(draw)


def _rand(shape: tuple[int, ...], generator: Generator | None, *_: object) -> Tensor:
    import torch

    return torch.rand(shape, generator=generator)


def _randn(shape: tuple[int, ...], generator: Generator | None, *_: object) -> Tensor:
    import torch

    return torch.randn(shape, generator=generator)


def _linear(shape: tuple[int, ...], generator: Generator | None, *_: object) -> Tensor:
    import torch

    return torch.nn.init.kaiming_uniform_(torch.empty(shape), a=5**0.5, generator=generator)


def _linear_bias(shape: tuple[int, ...], generator: Generator | None, letter: str, d_in: int) -> Tensor:
    import torch

    return torch.nn.init.uniform_(torch.empty(shape), -(d_in**-0.5), d_in**-0.5, generator=generator)


def _xavier(shape: tuple[int, ...], generator: Generator | None, *_: object) -> Tensor:
    import torch

    return torch.nn.init.xavier_uniform_(torch.empty(shape), generator=generator)


def _zeros(shape: tuple[int, ...], *_: object) -> Tensor:
    import torch

    return torch.zeros(shape)


def _mha(
    shape: tuple[int, ...], generator: Generator | None, letter: str, shapes: Mapping[str, tuple[int, int]]
) -> Tensor:
    """nn.MultiheadAttention: W_o as a linear layer; q, k, v as one packed Xavier matrix where they share d_in."""
    import torch

    if letter == "o":
        return _linear(shape, generator)
    if shapes["q"][0] != shapes["k"][0]:
        return _xavier(shape, generator)
    fans = shapes["q"][0] + sum(shapes[x][1] for x in "qkv")  # fan in + fan out of the packed matrix
    a = 3**0.5 * (2 / fans) ** 0.5
    return torch.nn.init.uniform_(torch.empty(shape), -a, a, generator=generator)


def _mha_bias(shape: tuple[int, ...], generator: Generator | None, letter: str, d_in: int) -> Tensor:
    """All zero, but that of W_o is drawn before it is zeroed, which moves the stream on."""
    return _linear_bias(shape, generator, letter, d_in) * 0 if letter == "o" else _zeros(shape)


drawn("rand", "W ~ U(0, 1)", "torch.rand", _rand, _rand, rows_first=False)
drawn("randn", "W ~ N(0, 1)", "torch.randn", _randn, _randn, rows_first=False)
drawn("linear", "W, b ~ U(−1/√d_in, 1/√d_in)", "torch.nn.Linear", _linear, _linear_bias)
drawn("xavier", "W ~ U(−a, a), a = √(6/(d_in + d_out)), b = 0", "torch.nn.init.xavier_uniform_", _xavier, _zeros)
drawn(
    "torch-mha",
    "W_o as linear, W_q W_k W_v packed as xavier, b = 0",
    "torch.nn.MultiheadAttention",
    _mha,
    _mha_bias,
    order="oqkv",
)
