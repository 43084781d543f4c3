"""What becomes of a token before it is compared: (Sizes, what the file has, generator) → parameters.

`given` takes them from the file, `identity` has none, the others draw them as PyTorch would, float32 on the CPU,
so that a published seed gives the published figures. All come back as x @ W wants them, (d_in, d_out).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from attncli.derivation import Equation, RowDerivation
from attncli.parts.traits import ProjectionTraits
from attncli.registry import Family, Parameter, Part, Range
from attncli.types import Array, Generator, Tensor

projection = Family("projection", "how q, k and v are made from the embeddings", ProjectionTraits)

PROJECTION_PARAMETERS = (
    Parameter("w_q", ("d", "d_q"), "queries: x W_q"),
    Parameter("w_k", ("e", "d_k"), "keys"),
    Parameter("w_v", ("e", "d_v"), "values"),
    Parameter("b_q", ("d_q",), "added to the queries"),
    Parameter("b_k", ("d_k",), "added to the keys"),
    Parameter("b_v", ("d_v",), "added to the values"),
    Parameter("w_o", ("d_c", "d_o"), "output: context W_o"),
    Parameter("b_o", ("d_o",), "added to the output"),
)
_ALL_LAWS = ("prefix", "decode", "permutation")


def derive_linear(row: RowDerivation) -> Iterator[Equation]:
    """x W + b, column by column: every projection works alike, wherever its arrays come from."""
    matrix = row.get("W")
    offset = row.get("b")
    for c, out in enumerate(row.output_vector, start=row.first_column):
        terms = row.write_dot_product(row.q, [weights[c] for weights in matrix]) if matrix else [row.q[c]]
        yield Equation(f"{row.label}[{c - row.first_column}]", ([*terms, " + ", offset[c]] if offset else terms, [out]))


@dataclass(frozen=True)
class ProjectionSizes:
    """What a projection must know of the problem: widths of the embeddings and the memory, and the heads."""

    d: int  # width of what queries are made of
    e: int  # width of what keys and values are made of
    heads: int = 1
    kv_heads: int = 1
    out_in: bool = False  # the file's w_layout


@projection(
    "given",
    "q = x W_q + b_q, k = m W_k + b_k, v = m W_v + b_v",
    why="The learned matrices W_q, W_k and W_v choose what a token looks for, what it is found by, and what it passes on.",
    source="Vaswani et al. 2017, §3.2.2",
    parameters=PROJECTION_PARAMETERS,
    laws=_ALL_LAWS,
    is_from_file=True,
    input_options=("qkv",),
)
def given(
    sizes: ProjectionSizes,
    parameters: Mapping[str, Array],
    generator: Generator | None,
    *,
    qkv: Literal["3hd", "h3d"] | None = None,
) -> Mapping[str, Array]:
    """The file's own w_q, w_k, w_v, w_o and biases; a matrix that is missing is the identity. qkv= is the layout of packed arrays."""
    return parameters  # packed ones are cut where shapes are checked, in `plan.packed_arrays`


@projection(
    "identity",
    "q = x, k = v = m",
    why="There are no projections: the embeddings themselves are compared and summed.",
    laws=_ALL_LAWS,
    is_identity=True,
)
def identity(
    sizes: ProjectionSizes, parameters: Mapping[str, Array], generator: Generator | None
) -> Mapping[str, Array]:
    """No projections: the embeddings themselves are the queries, keys and values."""
    return {}


def default_projection(has_parameters: bool) -> Part[ProjectionTraits]:
    """Where q, k and v come from when nobody said: from the file where it has them."""
    return projection.parse("given" if has_parameters else "identity")


# ── drawn ones ───────────────────────────────────────────────────────────────────────────────────
_WHY_DRAWN = "W_q, W_k and W_v would be learned; here they are random numbers, as they are before training."
Draw = Callable[..., "Tensor"]  # (shape, generator, letter, …) → one array
Bias = Literal["none", "qkv", "o", "all"]
Order = Literal["qkvo", "kqvo", "oqkv", "per-head"]
Width = Annotated[int, Range(low=1, high=2**31)]
Seed = Annotated[int, Range(low=0, below=2**64)]


def projection_shapes(sizes: ProjectionSizes, dim: int | None, v_dim: int | None) -> dict[str, tuple[int, int]]:
    """(d_in, d_out) of W_q, W_k, W_v and W_o for drawn projections, before heads are checked to divide them."""
    q = dim or sizes.d
    v = v_dim or q
    return {
        "q": (sizes.d, q),
        "k": (sizes.e, q * sizes.kv_heads // sizes.heads),
        "v": (sizes.e, v * sizes.kv_heads // sizes.heads),
        "o": (v, v),
    }


def _draw_order(order: str, sizes: ProjectionSizes) -> Iterator[tuple[str, int]]:
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


def register_drawn(
    name: str,
    formula: str,
    source: str,
    draw_weight: Draw,
    draw_bias: Draw,
    *,
    rows_first: bool = True,
    order: Order = "qkvo",
    bias: Bias = "none",
    out: Literal["yes", "no"] = "no",
) -> None:
    """Register a projection that draws its parameters, by turns: `draw_weight` one matrix, `draw_bias` one bias.

    `order`, `bias` and `out` are the defaults of its options.

    `rows_first`: the matrix is drawn as nn.Linear stores it, (d_out, d_in), whatever the file's w_layout.
    """

    def draw(
        sizes: ProjectionSizes,
        parameters: Mapping[str, Array],
        generator: Generator | None,
        *,
        dim: Width | None = None,
        v_dim: Width | None = None,
        bias: Bias = bias,
        out: Literal["yes", "no"] = out,
        order: Order = order,
        seed: Seed | None = None,
    ) -> Mapping[str, Array]:
        import torch

        shapes = projection_shapes(sizes, dim, v_dim)
        turned = rows_first or sizes.out_in
        found: dict[str, list[Tensor]] = {}
        for letter, parts in _draw_order(order, sizes):
            if letter == "o" and out == "no" and order != "oqkv":  # a layer that draws W_o first draws it in any case
                continue
            d_in, d_out = shapes[letter][0], shapes[letter][1] // parts
            w = draw_weight((d_out, d_in) if turned else (d_in, d_out), generator, letter, shapes)
            found.setdefault(f"w_{letter}", []).append(w.T if turned else w)  # (d_in, d_out)
            if bias == "all" or bias == ("o" if letter == "o" else "qkv"):
                found.setdefault(f"b_{letter}", []).append(draw_bias((d_out,), generator, letter, d_in))  # (d_out,)
        return {k: torch.cat(v, -1) for k, v in found.items() if out == "yes" or not k.endswith("_o")}

    draw.__doc__ = f"Drawn from a seed, as {source} draws them."
    projection(name, formula, why=_WHY_DRAWN, source=source, laws=_ALL_LAWS, is_drawn=True)(draw)


def _draw_uniform(shape: tuple[int, ...], generator: Generator | None, *_: object) -> Tensor:
    import torch

    return torch.rand(shape, generator=generator)


def _draw_normal(shape: tuple[int, ...], generator: Generator | None, *_: object) -> Tensor:
    import torch

    return torch.randn(shape, generator=generator)


def _draw_linear_weight(shape: tuple[int, ...], generator: Generator | None, *_: object) -> Tensor:
    import torch

    return torch.nn.init.kaiming_uniform_(torch.empty(shape), a=5**0.5, generator=generator)


def _draw_linear_bias(shape: tuple[int, ...], generator: Generator | None, letter: str, d_in: int) -> Tensor:
    import torch

    return torch.nn.init.uniform_(torch.empty(shape), -(d_in**-0.5), d_in**-0.5, generator=generator)


def _draw_xavier(shape: tuple[int, ...], generator: Generator | None, *_: object) -> Tensor:
    import torch

    return torch.nn.init.xavier_uniform_(torch.empty(shape), generator=generator)


def _make_zeros(shape: tuple[int, ...], *_: object) -> Tensor:
    import torch

    return torch.zeros(shape)


def _draw_mha_weight(
    shape: tuple[int, ...], generator: Generator | None, letter: str, shapes: Mapping[str, tuple[int, int]]
) -> Tensor:
    """nn.MultiheadAttention: W_o as a linear layer; q, k, v as one packed Xavier matrix where they share d_in."""
    import torch

    if letter == "o":
        return _draw_linear_weight(shape, generator)
    if shapes["q"][0] != shapes["k"][0]:
        return _draw_xavier(shape, generator)
    fans = shapes["q"][0] + sum(shapes[x][1] for x in "qkv")  # fan in + fan out of the packed matrix
    a = 3**0.5 * (2 / fans) ** 0.5
    return torch.nn.init.uniform_(torch.empty(shape), -a, a, generator=generator)


def _draw_mha_bias(shape: tuple[int, ...], generator: Generator | None, letter: str, d_in: int) -> Tensor:
    """All zero, but that of W_o is drawn before it is zeroed, which moves the stream on."""
    return _draw_linear_bias(shape, generator, letter, d_in) * 0 if letter == "o" else _make_zeros(shape)


register_drawn("rand", "W ~ U(0, 1)", "torch.rand", _draw_uniform, _draw_uniform, rows_first=False)
register_drawn("randn", "W ~ N(0, 1)", "torch.randn", _draw_normal, _draw_normal, rows_first=False)
register_drawn("linear", "W, b ~ U(−1/√d_in, 1/√d_in)", "torch.nn.Linear", _draw_linear_weight, _draw_linear_bias)
register_drawn(
    "xavier", "W ~ U(−a, a), a = √(6/(d_in + d_out)), b = 0", "torch.nn.init.xavier_uniform_", _draw_xavier, _make_zeros
)
register_drawn(
    "torch-mha",
    "W_o as linear, W_q W_k W_v packed as xavier, b = 0",
    "torch.nn.MultiheadAttention",
    _draw_mha_weight,
    _draw_mha_bias,
    order="oqkv",
    bias="all",
    out="yes",
)
