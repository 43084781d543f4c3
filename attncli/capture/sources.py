"""Where q, k and v of a call come from: from what enters the projections of its module, or as they enter the attention function.

Entries: `read_hidden_source`, `given_source`. What they return is read, and not yet proven.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from attncli.capture.projections import Columns, ProjectionTable, Side, SideReader, norm_choice, paired_order
from attncli.capture.recorder import AttentionCall, ModuleRecord
from attncli.types import Json


@dataclass
class ModelFacts:
    """What is the same for all layers of a model."""

    name: str
    frequencies: list[torch.Tensor]  # of rotations, from the model's buffers
    bases: list[float]  # of rotations, from its configuration
    factors: list[float]  # that something may have been multiplied by
    tables: list[tuple[str, torch.Tensor]]  # learned (rows, heads), which may be biases by distance
    columns: list[Columns] = field(default_factory=list)  # where q, k and v stood in the layers that have been read
    readings: dict[str, LayerReading] | None = (
        None  # of the whole text, by layer, for the step after it; None: not kept
    )


@dataclass
class Sides:
    """How q, k and v of a call were made, and whether its own module's projections told it."""

    q: Side
    k: Side
    v: Side
    is_own: bool


@dataclass
class LayerReading:
    """What a layer was read as: a decode step is too short to be read by itself."""

    sides: Sides | None  # None: it was not read from hidden states
    scale: float
    position: tuple[Json, dict[str, torch.Tensor]] | None  # a bias by distance: choices and arrays


class NotReadError(Exception):
    """Raised where a layer cannot be read at a depth; its text says which step."""


@dataclass
class Source:
    """Where q, k and v come from: the fields of a problem, and the choices that go with them."""

    arrays: dict[str, torch.Tensor]  # by dotted name
    choices: Json
    has_output: bool
    unread: str = ""
    sides: Sides | None = None  # as they were found


def given_source(call: AttentionCall) -> Source:
    """Return q, k and v as they enter the attention function."""
    source = Source({"q": call.query, "k": call.new_key, "v": call.new_value}, {}, False)
    _add_past(call, source)
    _add_output_projection(call, source)
    return source


def _add_past(call: AttentionCall, source: Source) -> None:
    """Write the cache of a decode step; and the positions, where it has dropped keys."""
    if not call.past_count:
        return
    source.arrays["past.k"] = call.key[:, :, : call.past_count]
    source.arrays["past.v"] = call.value[:, :, : call.past_count]
    if call.past_length != call.past_count:
        source.arrays["positions"] = _positions_of(call)
        first = call.past_length - call.past_count
        source.arrays["k_positions"] = torch.arange(first, first + call.key.shape[-2])[None]


# ── from what enters the module ──────────────────────────────────────────────────────────────────
def read_hidden_source(call: AttentionCall, facts: ModelFacts, known: LayerReading | None = None) -> Source:
    """Read a call by the projections of its own module, or else by all that ran since the call before.

    Args:
        call: the call.
        facts: what is the same for all layers.
        known: what the layer was read as before, for a decode step.

    Raises:
        NotReadError: some step cannot be read.
    """
    own = [record for record in call.projections if record.path.startswith(f"{call.path}.")]
    if call.is_decode_step:
        if known is None or known.sides is None:
            raise NotReadError("the pass over the whole text was not read from hidden states")
        return _make_source(call, facts, own if known.sides.is_own else call.projections, known.sides)
    if own and len(own) < len(call.projections):
        with suppress(NotReadError):
            return _make_source(call, facts, own, None)
    return _make_source(call, facts, call.projections, None)


def _make_source(
    call: AttentionCall, facts: ModelFacts, projections: Sequence[ModuleRecord], known: Sides | None
) -> Source:
    batch, _, n, d = call.query.shape
    m = call.new_key.shape[-2]
    q_table = ProjectionTable(projections, batch, n)
    k_table = q_table if n == m else ProjectionTable(projections, batch, m)
    positions = _positions_of(call)
    if known is None:
        sides = _find_sides(call, facts, q_table, k_table, positions)
        sides.is_own = projections is not call.projections
    else:
        sides = copy.deepcopy(known)
        for side, table, target in (
            (sides.q, q_table, call.query),
            (sides.k, k_table, call.new_key),
            (sides.v, k_table, call.new_value),
        ):
            if not table.has(side.columns, target):
                raise NotReadError("its projections do not run in a decode step: k and v come from the cache")
    source = Source({}, {}, False, sides=None if facts.readings is None else copy.deepcopy(sides))
    q, k, v = sides.q, sides.k, sides.v
    _choose_norms(q, k, source)
    _choose_rotation(q, k, source, facts, d)
    _add_inputs(call, {"q": (q, q_table), "k": (k, k_table), "v": (v, k_table)}, source)
    if source.choices.get("position") and bool((positions != torch.arange(n) + call.past_length).any()):
        source.arrays["positions"] = positions
    _add_past(call, source)
    _add_output_projection(call, source)
    return source


def _find_sides(
    call: AttentionCall, facts: ModelFacts, q_table: ProjectionTable, k_table: ProjectionTable, positions: torch.Tensor
) -> Sides:
    n, d = call.query.shape[-2:]
    m = call.key.shape[-2]
    factors = [1.0, *dict.fromkeys(f for f in (d**-0.5, call.scale, d**-0.25, *facts.factors) if f and f != 1)]
    q_reader, k_reader = (
        SideReader(
            table, call.norms, positions if n == m else torch.arange(t)[None], facts.frequencies, factors, facts.columns
        )
        for table, t in ((q_table, n), (k_table, m))
    )
    if (q := q_reader.read(call.query, has_position=True)) is None:
        raise NotReadError("q: no projection, norm and rotation gives it")
    if (k := k_reader.read(call.key, has_position=True)) is None:
        raise NotReadError("k: no projection, norm and rotation gives it")
    if (v := k_reader.read(call.value, has_position=False)) is None:
        raise NotReadError("v: no projection gives it")
    return Sides(q, k, v, False)


def _positions_of(call: AttentionCall) -> torch.Tensor:
    """Return the positions of the tokens, (B or 1, T), as they were passed; else they are counted."""
    n = call.query.shape[-2]
    given = call.options.get("position_ids")
    if isinstance(given, torch.Tensor) and given.shape[-1] == n:
        if given.dim() == 3:
            given = given[0]
        if given.dim() == 2 and given.shape[0] in (1, call.query.shape[0]):
            return given if given.shape[0] == 1 or bool((given != given[:1]).any()) else given[:1]
    return torch.arange(call.past_length, call.past_length + n)[None]


def _choose_norms(q: Side, k: Side, source: Source) -> None:
    if q.norm is None and k.norm is None:
        return
    if q.norm is None or k.norm is None:
        raise NotReadError("one of q and k is normed and the other is not")
    if norm_choice(q.norm, q.is_normed_after) != norm_choice(k.norm, k.is_normed_after):
        raise NotReadError("q and k are normed in different ways")
    source.choices["qk_norm"] = norm_choice(q.norm, q.is_normed_after)
    for name, side in (("q_norm", q), ("k_norm", k)):
        assert side.norm is not None
        gain = side.norm.gain
        if side.norm.scope == "full":
            gain = gain.reshape(-1)
        if bool((gain != 1).any()):
            source.arrays[f"parameters.{name}"] = gain
        else:
            source.arrays[f"parameters.{name}"] = torch.ones_like(gain)
    if all(bool((source.arrays[f"parameters.{name}"] == 1).all()) for name in ("q_norm", "k_norm")):
        del source.arrays["parameters.q_norm"], source.arrays["parameters.k_norm"]


def _choose_rotation(q: Side, k: Side, source: Source, facts: ModelFacts, d: int) -> None:
    if q.rotation is None and k.rotation is None:
        return
    if q.rotation is None or k.rotation is None:
        raise NotReadError("one of q and k is rotated and the other is not")
    if abs(q.rotation.factor - k.rotation.factor) > 1e-6 or q.norm is not None:
        for side in (q, k):
            assert side.rotation is not None
            if side.rotation.dims == d and side.norm is None:
                side.columns.factor *= side.rotation.factor
                side.rotation.factor = 1.0
    if not q.rotation.is_like(k.rotation):
        raise NotReadError("q and k are rotated in different ways")
    for side in (q, k):
        assert side.rotation is not None
        if side.rotation.is_backwards:
            order = paired_order(side.rotation, d)
            side.columns.indices = side.columns.indices[:, order]
            if side.norm is not None:
                side.norm.gain = side.norm.gain[..., order]
    q.rotation.is_backwards = k.rotation.is_backwards = False
    source.choices["position"], arrays = q.rotation.to_part(d, facts.bases)
    source.arrays |= arrays


def _add_inputs(call: AttentionCall, sides: dict[str, tuple[Side, ProjectionTable]], source: Source) -> None:
    """Write the vectors that enter the projections, and the matrices; several inputs are stacked side by side."""
    used = {name: _used_records(side, table) for name, (side, table) in sides.items()}
    q_inputs, k_inputs = (_distinct_inputs(used, names, sides) for names in (("q",), ("k", "v")))
    is_cross = _is_cross(call, q_inputs, k_inputs)
    if is_cross:
        source.arrays["embeddings"] = torch.cat(q_inputs, -1)
        source.arrays["memory.embeddings"] = torch.cat(k_inputs, -1)
        inputs = {"q": q_inputs, "k": k_inputs, "v": k_inputs}
    else:
        both = list(q_inputs)
        both += [x for x in k_inputs if not any(_is_same(x, y) for y in both)]
        source.arrays["embeddings"] = torch.cat(both, -1)
        inputs = {"q": both, "k": both, "v": both}
        if len(both) > 1:
            source.unread = f"{len(both)} inputs of the projections stand side by side in the embeddings"
    for name, (side, table) in sides.items():
        weight, bias = _gather_weights(side, table, inputs[name])
        source.arrays[f"parameters.w_{name}"] = weight
        if bias is not None:
            source.arrays[f"parameters.b_{name}"] = bias


def _used_records(side: Side, table: ProjectionTable) -> list[int]:
    return sorted(set(table.owners[side.columns.indices.reshape(-1)].tolist()))


def _distinct_inputs(
    used: dict[str, list[int]], names: Sequence[str], sides: dict[str, tuple[Side, ProjectionTable]]
) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for name in names:
        for index in used[name]:
            x = sides[name][1].inputs[index]
            if not any(_is_same(x, y) for y in found):
                found.append(x)
    return found


def _is_same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and (a.data_ptr() == b.data_ptr() or torch.equal(a, b))


def _is_cross(call: AttentionCall, q_inputs: list[torch.Tensor], k_inputs: list[torch.Tensor]) -> bool:
    """Whether keys and values come from a memory: names propose, sizes and inputs decide."""
    if any(_is_same(x, y) for x in q_inputs for y in k_inputs):
        return False
    if call.query.shape[-2] != call.new_key.shape[-2]:
        return True
    words = f"{call.path} {type(call.module).__name__}".lower()
    return any(word in words for word in ("cross", "encoder_attn", "encdec", "encoder_decoder", "multi_modal"))


def _gather_weights(
    side: Side, table: ProjectionTable, inputs: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return W (d_in, H·d) and b (H·d) of the columns of one side."""
    flat = side.columns.indices.reshape(-1)
    owners = table.owners[flat]
    dtype = table.outputs.dtype if table.outputs is not None else torch.float32
    used = sorted(set(owners.tolist()))
    bias = torch.zeros(len(flat), dtype=dtype)
    if len(used) == len(inputs) == 1 and bool(
        (flat[1:] - flat[:-1] == 1).all()
    ):  # columns side by side, as in most models
        matrix, shift = matrix_of(table.records[used[0]])
        columns = slice(int(flat[0]) - table.starts[used[0]], int(flat[-1]) + 1 - table.starts[used[0]])
        weight, bias = matrix[:, columns], bias if shift is None else shift[columns]
    else:
        weight = torch.zeros(sum(x.shape[-1] for x in inputs), len(flat), dtype=dtype)
        starts = [sum(x.shape[-1] for x in inputs[:i]) for i in range(len(inputs))]
        for index in used:
            place = next(i for i, x in enumerate(inputs) if _is_same(x, table.inputs[index]))
            matrix, shift = matrix_of(table.records[index])
            here = owners == index
            local = flat[here] - table.starts[index]
            rows = slice(starts[place], starts[place] + inputs[place].shape[-1])
            weight[rows, here] = matrix[:, local].to(dtype)
            if shift is not None:
                bias[here] = shift[local].to(dtype)
    if side.columns.factor != 1:
        weight, bias = weight * side.columns.factor, bias * side.columns.factor
    if side.columns.offset is not None:
        bias = bias + side.columns.offset.reshape(-1)
    return weight, bias if bool((bias != 0).any()) else None


def matrix_of(record: ModuleRecord) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the matrix (d_in, d_out) and the bias of a projection; numbers decide how the matrix lies.

    Raises:
        NotReadError: neither way gives what the module gave.
    """
    weight = record.module.weight.detach()
    bias = getattr(record.module, "bias", None)
    x, y = (a.reshape(-1, a.shape[-1])[:2] for a in (record.input, record.output))
    shift = bias.detach() if isinstance(bias, torch.Tensor) else None
    for matrix in (weight.T, weight):
        if matrix.shape == (x.shape[-1], y.shape[-1]):
            made = x.to(matrix.dtype) @ matrix + (0 if shift is None else shift)
            if bool(((made - y).abs() <= 1e-4 * max(float(y.abs().max()), 1e-30)).all()):
                return matrix, shift
    raise NotReadError(f"{record.path} is not a product with its matrix")


def _add_output_projection(call: AttentionCall, source: Source) -> None:
    record = call.output_projection
    if record is None:
        source.unread = "what enters the output projection is not the context" if not source.unread else source.unread
        return
    try:
        matrix, bias = matrix_of(record)
    except NotReadError:
        return
    source.arrays["parameters.w_o"] = matrix
    if bias is not None:
        source.arrays["parameters.b_o"] = bias
    source.has_output = True
