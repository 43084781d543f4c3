"""How a token knows where it is. Each member acts on one of three things, and says which:

embeddings  (x: b t d, positions: b t 1) → b t d
qk          (x: b h t d, positions: b 1 t 1, length: 1 + the largest position, parameters) → b h t d
scores      (s: b h n m, Grid) → b h n m
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from attncli.derivation import Equation, Number, RowDerivation, Vector, derive_per_key, record_intermediate
from attncli.parts.traits import PositionTraits
from attncli.registry import AnyPart, Family, OptionValue, Parameter, Range
from attncli.types import Grid, Tensor

position = Family("position", "how positions enter", PositionTraits)

_POSITION_LAWS = ("prefix", "decode")
Theta = Annotated[float, Range(above=1)]


@position(
    "none",
    "x",
    why="Nothing is added: the order of the tokens plays no part.",
    laws=("prefix", "decode", "permutation"),
)
def none(x: Tensor) -> Tensor:
    """Positions are not used."""
    return x


# ── on embeddings ────────────────────────────────────────────────────────────────────────────────
def _derive_sinusoids(row: RowDerivation) -> Iterator[Equation]:
    """Each column and its wave."""
    for c, (x, out) in enumerate(zip(row.q, row.output_vector, strict=True)):
        half = len(row.q) // 2
        pair, cosine = (c // 2, c % 2) if row.part.option_value("layout") == "interleaved" else (c % half, c >= half)
        yield Equation(
            f"x[{c}]", ([x, " + cos(" if cosine else " + sin(", row["p"], " × ", row["ω"][pair], ")"], [out])
        )


@position(
    "sinusoidal",
    "x + [sin(p ω), cos(p ω)], ω_i = theta^(−2i/d)",
    why="Waves of different lengths give every position a pattern of its own.",
    source="Vaswani et al. 2017, §3.5",
    laws=_POSITION_LAWS,
    acts_on="embeddings",
    paired_columns=lambda part, d: d,
    derivation=_derive_sinusoids,
)
def sinusoidal(
    x: Tensor, positions: Tensor, *, layout: Literal["interleaved", "halves"] = "interleaved", theta: Theta = 10000.0
) -> Tensor:
    """Sines and cosines of the position added to the embeddings: in turn, or (halves) all sines first."""
    import torch

    d = x.shape[-1]
    omega = theta ** (-torch.arange(0, d, 2, dtype=torch.float64, device=x.device) / d)  # (d/2,)
    angle = record_intermediate("p", positions, "bn1", is_input=True) * record_intermediate(
        "ω", omega, "w", is_input=True
    )  # (b, t, d/2)
    waves = (angle.sin(), angle.cos())
    code = torch.stack(waves, -1).flatten(-2) if layout == "interleaved" else torch.cat(waves, -1)  # (b, t, d)
    return x + code.to(x.dtype)


# ── on queries and keys ──────────────────────────────────────────────────────────────────────────
Scaling = Literal["none", "linear", "ntk", "dynamic", "yarn", "llama3", "longrope", "proportional"]
_OPTIONS_SCALING_NEEDS = {
    "linear": ("factor",), "ntk": ("factor",), "dynamic": ("factor", "original"), "yarn": ("factor", "original"),
    "llama3": ("factor", "original"), "longrope": ("original",),
}  # fmt: skip


def _rope_option_conflict(o: Mapping[str, OptionValue]) -> str:
    """What rope's options cannot be together."""
    missing = [name for name in _OPTIONS_SCALING_NEEDS.get(o["scaling"], ()) if o[name] is None]
    if missing:
        return f"scaling={o['scaling']} needs {' and '.join(missing)}"
    if o["scaling"] == "proportional" and o["dims"] is not None:
        return "proportional pairs every column: fraction says how many of them turn"
    if o["dims"] is not None and o["fraction"] is not None:
        return "dims and fraction both say how much is turned"
    for name in ("factor", "original"):
        if o["scaling"] == "none" and o[name] is not None:
            return f"{name} needs a scaling"
    if o["beta-fast"] <= o["beta-slow"]:
        return "beta-fast must be above beta-slow"
    if o["high"] <= o["low"]:
        return "high must be above low"
    return ""


_ROTATION = "(x, y) → (x cos pω − y sin pω, x sin pω + y cos pω)"


def _spell_rotation(o: Mapping[str, OptionValue]) -> str:
    """The rotation, and where its frequencies come from; YaRN and LongRoPE lengthen what they turn."""
    if o["scaling"] == "none":
        return f"{_ROTATION}, ω_i = theta^(−2i/dims)"
    is_lengthened = o["scaling"] in ("yarn", "longrope")
    return f"{_ROTATION}{' × attention factor' if is_lengthened else ''}, ω of scaling {o['scaling']}"


def _count_rotated_columns(d: int, scaling: str, dims: int | None, fraction: float | None) -> int:
    """How many of d columns rope turns: `dims`, or `fraction` of them; proportional pairs them all."""
    return d if scaling == "proportional" else dims or int(d * (fraction or 1))


def rotated_columns(part: AnyPart, d: int) -> int:
    """The same, of a part's options; for NTK, whose exponent is r/(r − 2), two are too few."""
    r = _count_rotated_columns(
        d, part.option_value("scaling"), part.option_value("dims"), part.option_value("fraction")
    )
    return 0 if r == 2 and part.option_value("scaling") in ("ntk", "dynamic") else r


def _derive_rotation(row: RowDerivation) -> Iterator[Equation]:
    """The angles, then each pair of columns turned by its own."""
    cos, sin = row["cos"], row["sin"]
    yield Equation("angle p × ω", ([row["p"], " × ", row["ω"]], [row["angle"]]))
    yield Equation("cos", ([cos],))
    yield Equation("sin", ([sin],))
    r = 2 * len(cos)
    start = len(row.q) - r if row.part.option_value("columns") == "last" else 0
    for pair, (c, s) in enumerate(zip(cos, sin, strict=True)):
        first, second = (
            (2 * pair, 2 * pair + 1) if row.part.option_value("layout") == "interleaved" else (pair, pair + r // 2)
        )
        i, j = start + first, start + second
        a, b = row.q[i], row.q[j]
        yield Equation(f"{row.label}[{i}]", ([a, "·", c, " − ", b, "·", s], [row.output_vector[i]]))
        yield Equation(f"{row.label}[{j}]", ([a, "·", s, " + ", b, "·", c], [row.output_vector[j]]))
    if r < len(row.q):
        label, others = (
            (f"{row.label}[0…{start - 1}]", slice(start)) if start else (f"{row.label}[{r}…]", slice(r, None))
        )
        yield Equation(label, ([Vector(row.q[others])], [Vector(row.output_vector[others])]), "not turned")


@position(
    "rope",
    f"{_ROTATION}, ω_i = theta^(−2i/dims)",
    why="Turning q and k by their positions makes the score depend on the distance between them.",
    source="Su et al. 2021, §3.4.2; scalings: Chen et al. 2023 (linear), bloc97 2023 (ntk, dynamic), Peng et al. 2023 (yarn), "
    "Llama Team 2024 §3.4.2 and its code (llama3), Ding et al. 2024 (longrope), Gemma 4's configuration (proportional)",
    laws=_POSITION_LAWS,
    acts_on="qk",
    paired_columns=rotated_columns,
    axis_lengths=lambda part, d: {"r": rotated_columns(part, d) // 2},
    option_conflict=_rope_option_conflict,
    formula_of_options=_spell_rotation,
    parameters=(
        Parameter("rope_short", ("r",), "longrope: divides each frequency up to the original length"),
        Parameter("rope_long", ("r",), "longrope: beyond it"),
    ),
    law_exceptions="scalings dynamic and longrope depend on the length of the text",
    required_parameters=lambda part: ("rope_short", "rope_long") if part.option_value("scaling") == "longrope" else (),
    derivation=_derive_rotation,
)
def rope(
    x: Tensor,
    positions: Tensor,
    length: int,
    parameters: Mapping[str, Tensor],
    *,
    theta: Theta = 10000.0,
    layout: Literal["half", "interleaved"] = "half",
    dims: Annotated[int, Range(low=2)] | None = None,
    fraction: Annotated[float, Range(above=0, high=1)] | None = None,
    columns: Literal["first", "last"] = "first",
    scaling: Scaling = "none",
    factor: Annotated[float, Range(above=0)] | None = None,
    original: Annotated[int, Range(low=2)] | None = None,
    low: float = 1.0,
    high: float = 4.0,
    beta_fast: Annotated[float, Range(above=0)] = 32.0,
    beta_slow: Annotated[float, Range(above=0)] = 1.0,
    attention_factor: Annotated[float, Range(above=0)] | None = None,
    mscale: Annotated[float, Range(above=0)] | None = None,
    mscale_all_dim: Annotated[float, Range(above=0)] | None = None,
    truncate: bool = True,
) -> Tensor:
    """Pairs of columns turned by an angle that grows with the position; pairs are halves apart unless interleaved.

    Of more columns than `dims`, the first turn, or (columns=last, as in DeepSeek's MLA) the last.
    """
    import torch

    d = x.shape[-1]
    r = _count_rotated_columns(d, scaling, dims, fraction)
    i = torch.arange(0, r, 2, dtype=torch.float64, device=x.device)  # (r/2,)
    base, attention = theta, 1.0
    if scaling == "ntk" and factor:
        base = theta * factor ** (r / (r - 2))
    if scaling == "dynamic" and factor and original:
        base = theta * (factor * max(length, original) / original - (factor - 1)) ** (r / (r - 2))
    omega = base ** (-i / r)  # (r/2,)
    if scaling == "linear":
        omega = omega / (factor or 1)
    if scaling == "proportional":
        share = int((fraction or 1) * d // 2)
        omega = torch.where(i < 2 * share, omega, 0) / (factor or 1)
    if scaling == "llama3" and factor and original:
        turns = original * omega / (2 * math.pi)  # turns within the original length
        blend = ((turns - low) / (high - low)).clamp(0, 1)
        omega = omega * (blend + (1 - blend) / factor)
    if scaling == "yarn" and factor and original:
        ramp = _yarn_ramp(r, theta, original, beta_fast, beta_slow, truncate).to(x.device)
        omega = omega * (1 - ramp) + omega / factor * ramp
        both = (
            _yarn_mscale(factor, mscale) / _yarn_mscale(factor, mscale_all_dim)
            if mscale and mscale_all_dim
            else _yarn_mscale(factor, 1)
        )
        attention = attention_factor or both
    if scaling == "longrope" and original:
        omega = omega / parameters["rope_long" if length > original else "rope_short"].double()
        grown = factor or 1.0
        attention = attention_factor or (math.sqrt(1 + math.log(grown) / math.log(original)) if grown > 1 else 1.0)
    angle = record_intermediate("p", positions, "bhn1", is_input=True) * record_intermediate(
        "ω", omega, "w", is_input=True
    )  # (b, 1, t, r/2)
    record_intermediate("angle", angle, "bhnw", is_input=True)
    cos, sin = ((attention * wave).to(x.dtype) for wave in (angle.cos(), angle.sin()))
    record_intermediate("cos", cos, "bhnw", is_input=True)
    record_intermediate("sin", sin, "bhnw", is_input=True)
    start = d - r if columns == "last" else 0
    before, turned, after = x[..., :start], x[..., start : start + r], x[..., start + r :]
    a, b = (turned[..., ::2], turned[..., 1::2]) if layout == "interleaved" else turned.chunk(2, -1)  # (b, h, t, r/2)
    pair = (a * cos - b * sin, a * sin + b * cos)
    turned = torch.stack(pair, -1).flatten(-2) if layout == "interleaved" else torch.cat(pair, -1)  # (b, h, t, r)
    return torch.cat([before, turned, after], -1)


def _yarn_mscale(factor: float, m: float | None) -> float:
    """0.1 m ln(factor) + 1 (Peng et al. 2023, §3.4)."""
    return 0.1 * (m or 0) * math.log(factor) + 1 if factor > 1 else 1.0


def _yarn_ramp(r: int, theta: float, original: int, fast: float, slow: float, truncate: bool) -> Tensor:
    """0 for pairs that turn more than `fast` times within the original length, 1 below `slow`, a ramp between. (r/2,)"""
    import torch

    def column(turns: float) -> float:
        return r * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = column(fast), column(slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, r - 1)
    high = high + 0.001 if low == high else high
    return ((torch.arange(r // 2, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)


# ── on scores ────────────────────────────────────────────────────────────────────────────────────
def alibi_slopes(heads: int, bias_max: float) -> list[float]:
    """2^(−max·h/H) for a power of two; else those of the next lower one, then every other of the next higher."""
    power = 2 ** math.floor(math.log2(heads))
    own = [2.0 ** (-bias_max * (h + 1) / power) for h in range(power)]
    return (
        own
        if power == heads
        else own + [2.0 ** (-bias_max * (h + 1) / (2 * power)) for h in range(2 * power)][::2][: heads - power]
    )


@position(
    "alibi",
    "s − m_h |i − j|",
    why="Distant keys lose some of their score, so that near ones are preferred, even in texts longer than those of training.",
    source="Press et al. 2022, §3; slopes for any number of heads as in its code",
    laws=_POSITION_LAWS,
    has_head_slopes=True,
    acts_on="scores",
    derivation=derive_per_key(
        lambda row, cell: (
            [
                cell.value_before,
                " − ",
                row["m"],
                "·|",
                Number(cell.query_position or 0),
                " − ",
                Number(cell.key_position or 0),
                "|",
            ],
        )
    ),
)
def alibi(s: Tensor, grid: Grid, *, max: Annotated[float, Range(above=0)] = 8.0) -> Tensor:
    """A penalty that grows with the distance, with a slope of its own for each head."""
    m = record_intermediate(
        "m", s.new_tensor(alibi_slopes(grid.head_count, max))[grid.head_idx], is_input=True
    )  # (1, h, 1, 1)
    return s - m * (grid.q_pos - grid.k_pos).abs_()  # (b, h, n, m)


def _add_table_bias(s: Tensor, grid: Grid, rows: Tensor) -> Tensor:
    """Row by row of bias_table: (b, 1, n, m) → (b, h, n, m)"""
    record_intermediate("row", rows, is_input=True)
    return s + record_intermediate("bias", grid.parameters["bias_table"][rows.squeeze(1)].movedim(-1, 1), is_input=True)


def _derive_table_bias(row: RowDerivation) -> Iterator[Equation]:
    """Each score and what its distance adds."""
    for cell in row.unhidden_cells:
        yield Equation(
            cell.label,
            ([cell.value_before, " + ", cell["bias"]], [cell.value_after]),
            f"row {cell['row'].value:.0f} of the table",
        )


def _t5_option_conflict(o: Mapping[str, OptionValue]) -> str:
    exact = o["buckets"] // (4 if o["bidirectional"] else 2)
    return (
        ""
        if o["max-distance"] > exact
        else f"max-distance must be larger than the {exact} distances that have a bucket each"
    )


@position(
    "t5",
    "s + table[bucket(j − i), h]",
    why="A learned bias for each range of distances says how much near and distant keys count.",
    source="Raffel et al. 2020, §2.1; buckets as in its code",
    laws=_POSITION_LAWS,
    acts_on="scores",
    parameters=(
        Parameter("bias_table", ("buckets", "H"), "a bias for each bucket of distances and each head", required=True),
    ),
    axis_lengths=lambda part, d: {"buckets": part.option_value("buckets")},
    option_conflict=_t5_option_conflict,
    derivation=_derive_table_bias,
)
def t5(
    s: Tensor,
    grid: Grid,
    *,
    buckets: Annotated[int, Range(low=4)] = 32,
    max_distance: Annotated[int, Range(low=2)] = 128,
    bidirectional: bool = True,
) -> Tensor:
    """A learned bias for each distance: one each for near keys, shared buckets of growing width further away."""
    import torch

    ahead = grid.k_pos - grid.q_pos  # (b, 1, n, m)
    half = buckets // 2 if bidirectional else buckets
    first = half * (ahead > 0) if bidirectional else 0
    far = ahead.abs() if bidirectional else (-ahead).clamp(min=0)
    exact = half // 2
    ratio = torch.log(far.clamp(min=1).float() / exact) / math.log(
        max_distance / exact
    )  # float32, as published code has it
    wide = (exact + (ratio * (half - exact)).long()).clamp(max=half - 1)
    return _add_table_bias(s, grid, first + torch.where(far < exact, far, wide))


@position(
    "relative",
    "s + table[clip(j − i, −m, m) + m, h]",
    why="A learned bias for each distance says how much near and distant keys count.",
    source="Shaw et al. 2018, §3.2, as a bias: Liu et al. 2021, §3.2",
    laws=_POSITION_LAWS,
    acts_on="scores",
    parameters=(
        Parameter("bias_table", ("2m+1", "H"), "a bias for each distance −m … m and each head", required=True),
    ),
    axis_lengths=lambda part, d: {"2m+1": 2 * part.option_value("max-distance") + 1},
    derivation=_derive_table_bias,
)
def relative(s: Tensor, grid: Grid, *, max_distance: Annotated[int, Range(low=0)]) -> Tensor:
    """A learned bias for each distance; all distances beyond the largest share one."""
    return _add_table_bias(s, grid, (grid.k_pos - grid.q_pos).clamp(-max_distance, max_distance) + max_distance)
