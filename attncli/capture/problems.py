"""Turn a recorded call into a problem, and prove it: what we compute from it is what the model computed.

Depth `hidden` is tried first: from what enters the projections. Where it cannot be read, or does not give the model's own
figures, the layer is written from q, k and v as they enter the attention function, and says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from attncli.capture.biases import propose_biases
from attncli.capture.projections import (
    Columns,
    ProjectionTable,
    Side,
    SideReader,
    norm_choice,
    paired_order,
    tokens_first,
)
from attncli.capture.recorder import AttentionCall, ModuleRecord
from attncli.capture.scores import ScoreReading, propose_masks, read_scores
from attncli.errors import AttnError
from attncli.types import Json, NumpyArray, Problem

Depth = Literal["hidden", "qkv"]


@dataclass
class ModelFacts:
    """What is the same for all layers of a model."""

    name: str
    frequencies: list[torch.Tensor]  # of rotations, from the model's buffers
    bases: list[float]  # of rotations, from its configuration
    factors: list[float]  # that something may have been multiplied by
    tables: list[tuple[str, torch.Tensor]]  # learned (rows, heads), which may be biases by distance
    columns: list[Columns] = field(default_factory=list)  # where q, k and v stood in the layers that have been read


@dataclass
class CapturedLayer:
    """One layer as a problem."""

    name: str  # 5, encoder.5, decoder.5, cross.5
    path: str  # of its module in the model
    heads: int
    kv_heads: int
    kind: str  # self or cross
    depth: Depth
    problem: Problem
    choices: Json  # of the variant
    proven: tuple[str, ...]  # the steps that we compute as the model did: weights, and context or output
    largest_difference: float  # between our figures and the model's, of the largest figure
    unread: str = ""  # what could not be read, and why the depth is not hidden, or not in full
    is_bias_given: bool = False  # the bias is written as numbers, not as a part

    def to_record(self) -> Json:
        """Return what is told of the layer, without its arrays."""
        return {
            "layer": self.name,
            "module": self.path,
            "kind": self.kind,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "depth": self.depth,
            "line": describe_choices(self.choices),
            "proven": list(self.proven),
            "largest_difference": self.largest_difference,
            "bias_is_given": self.is_bias_given,
            "unread": self.unread,
        }


_NO_WEIGHTS = "the weights that the model returns leave the sink out, so they are not written"


class NotReadError(Exception):
    """Raised where a layer cannot be read at a depth; its text says which step."""


def tolerance_of_dtype(dtype: torch.dtype) -> float:
    """Return how far figures may differ from the model's, relative to the largest of a step."""
    return 1e-10 if dtype == torch.float64 else 1e-5


def build_layer(
    call: AttentionCall, facts: ModelFacts, name: str, tokens: list[list[str]], wanted: Depth = "hidden"
) -> CapturedLayer:
    """Read a call as deep as is wanted and can be proven.

    Raises:
        NotReadError: not even q, k and v give the model's weights.
    """
    scores = read_scores(call)
    unread = ""
    if wanted == "hidden":
        try:
            source = _read_deepest(call, facts)
        except NotReadError as error:
            unread = str(error)
        else:
            layer = _first_proven(call, scores, facts, source, name, tokens, "hidden")
            if layer is not None:
                return layer
            unread = "the reading did not give the model's weights when it was computed again"
    layer = _first_proven(call, scores, facts, _given_qkv(call), name, tokens, "qkv")
    if layer is None:
        raise NotReadError("q, k and v, with all that is known to be added to their scores, do not give the weights")
    layer.unread = unread
    return layer


@dataclass
class _Source:
    """Where q, k and v come from: the fields of a problem, and the choices that go with them."""

    arrays: dict[str, torch.Tensor]  # by dotted name
    choices: Json
    has_output: bool
    unread: str = ""


def _given_qkv(call: AttentionCall) -> _Source:
    arrays = {"q": call.query, "k": call.key, "v": call.value}
    source = _Source(arrays, {}, False)
    _add_output_projection(call, source)
    return source


# ── from what enters the module ──────────────────────────────────────────────────────────────────
def _read_deepest(call: AttentionCall, facts: ModelFacts) -> _Source:
    """Read a call by the projections of its own module, or else by all that ran since the call before.

    Raises:
        NotReadError: some step cannot be read.
    """
    own = [record for record in call.projections if record.path.startswith(f"{call.path}.")]
    if own and len(own) < len(call.projections):
        with suppress(NotReadError):
            return _read_hidden(call, facts, own)
    return _read_hidden(call, facts, call.projections)


def _read_hidden(call: AttentionCall, facts: ModelFacts, projections: Sequence[ModuleRecord]) -> _Source:
    batch, _, n, d = call.query.shape
    m = call.key.shape[-2]
    q_table = ProjectionTable(projections, batch, n)
    k_table = q_table if n == m else ProjectionTable(projections, batch, m)
    positions = _positions_of(call)
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
    source = _Source({}, {}, False)
    _choose_norms(q, k, source)
    _choose_rotation(q, k, source, facts, d)
    _add_inputs(call, {"q": (q, q_table), "k": (k, k_table), "v": (v, k_table)}, source)
    if source.choices.get("position") and bool((positions != torch.arange(n)).any()):
        source.arrays["positions"] = positions
    _add_output_projection(call, source)
    return source


def _positions_of(call: AttentionCall) -> torch.Tensor:
    """Return the positions of the tokens, (B or 1, T), as they were passed; else 0 … T−1."""
    n = call.query.shape[-2]
    given = call.options.get("position_ids")
    if isinstance(given, torch.Tensor) and given.shape[-1] == n:
        if given.dim() == 3:
            given = given[0]
        if given.dim() == 2 and given.shape[0] in (1, call.query.shape[0]):
            return given if given.shape[0] == 1 or bool((given != given[:1]).any()) else given[:1]
    return torch.arange(n)[None]


def _choose_norms(q: Side, k: Side, source: _Source) -> None:
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


def _choose_rotation(q: Side, k: Side, source: _Source, facts: ModelFacts, d: int) -> None:
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


def _add_inputs(call: AttentionCall, sides: dict[str, tuple[Side, ProjectionTable]], source: _Source) -> None:
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
    if call.query.shape[-2] != call.key.shape[-2]:
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


def _add_output_projection(call: AttentionCall, source: _Source) -> None:
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


# ── proof ────────────────────────────────────────────────────────────────────────────────────────
def _first_proven(
    call: AttentionCall,
    scores: ScoreReading,
    facts: ModelFacts,
    source: _Source,
    name: str,
    tokens: list[list[str]],
    depth: Depth,
) -> CapturedLayer | None:
    """Return the first way of writing a layer that gives the model's own figures."""
    for choices, arrays, is_bias_given in _propose_scores(call, scores, facts, source):
        for steps in _steps_to_prove(call, choices, source):
            problem = _make_problem(call, source, choices, arrays, tokens, steps)
            difference = _largest_difference(problem)
            if difference <= tolerance_of_dtype(call.weights.dtype):
                return _describe(call, facts, source, problem, name, depth, steps, difference, is_bias_given)
    return None


def _steps_to_prove(call: AttentionCall, choices: Json, source: _Source) -> Iterator[tuple[str, ...]]:
    """Yield which of the model's figures must be ours: the weights, and the output or else the context."""
    last = ("output", "context") if source.has_output else ("context",)
    for step in last:
        yield "weights", step
    if choices.get("sink", "none") != "none" and bool(((call.weights.sum(-1) - 1).abs() < 1e-5).all()):
        for step in last:  # the weights that are returned leave the sink out, and are not those that multiply v
            yield (step,)


def _propose_scores(
    call: AttentionCall, scores: ScoreReading, facts: ModelFacts, source: _Source
) -> Iterator[tuple[Json, dict[str, torch.Tensor], bool]]:
    """Yield the ways to write what is done to the scores, the plainest first."""
    for bias_choices, bias_arrays, is_given in propose_biases(call, scores, facts.tables):
        if "position" in source.choices and "position" in bias_choices:
            continue
        seen: list[Json] = []
        for mask_choices, mask_arrays in propose_masks(call, scores):
            choices = {**scores.choices, **source.choices, **mask_choices, **bias_choices}
            if choices in seen and not mask_arrays:
                continue
            seen.append(choices)
            yield choices, {**scores.arrays, **mask_arrays, **bias_arrays}, is_given


def _make_problem(
    call: AttentionCall,
    source: _Source,
    choices: Json,
    arrays: dict[str, torch.Tensor],
    tokens: list[list[str]],
    steps: tuple[str, ...],
) -> Problem:
    batch, heads = call.query.shape[:2]
    is_single = batch == 1
    has_output = "output" in steps
    fields: Json = {}

    def put(name: str, value: torch.Tensor) -> None:
        group, dot, key = name.partition(".")
        array = _as_numpy(value)
        if dot:
            fields.setdefault(group, {})[key] = array
        else:
            fields[group] = array

    for name, value in {**source.arrays, **arrays}.items():
        if name.startswith("parameters.") and name[-2:] == "_o" and not has_output:
            continue
        put(name, _without_batch(name, value) if is_single else value)
    variant = {"heads": heads, **choices}
    if "q" in source.arrays:
        fields["layout"] = "htd" if is_single else "bhtd"
        variant.pop("heads")
    elif call.key.shape[1] != heads:
        variant["kv_heads"] = call.key.shape[1]
    if tokens and len(tokens) == batch:
        n, m = call.query.shape[-2], call.key.shape[-2]
        labels = tokens[0] if is_single else tokens
        if len(tokens[0]) == n:
            fields["tokens"] = labels
        if len(tokens[0]) == m and "q" in source.arrays:
            fields["k_tokens"] = labels
    expected = {"weights": call.weights} if "weights" in steps else {}
    if has_output and call.output_projection is not None:
        output = tokens_first(call.output_projection.output, batch, call.query.shape[-2])
        if output is not None:
            expected["output"] = output
    else:
        expected["context"] = call.context.flatten(2)
    rtol = tolerance_of_dtype(call.weights.dtype)
    fields["expected"] = {
        step: {
            "values": _as_numpy(x[0] if is_single else x),
            "rtol": rtol,
            "atol": rtol * max(float(x.abs().max()), 1e-30),
        }
        for step, x in expected.items()
    }
    fields["variant"] = variant
    return Problem(**fields)


def _without_batch(name: str, x: torch.Tensor) -> torch.Tensor:
    """Return an array of a single text without its batch axis; a mask or bias that is the same for all heads without theirs."""
    if name not in ("embeddings", "memory.embeddings", "q", "k", "v", "positions", "mask", "bias"):
        return x
    return x[0, 0] if name in ("mask", "bias") and x.shape[1] == 1 else x[0]


def _as_numpy(x: torch.Tensor) -> NumpyArray:
    return x.detach().numpy()


def _largest_difference(problem: Problem) -> float:
    """Compute a problem, and return how far the result is from what is expected, of the largest figure of each step."""
    import numpy as np

    from attncli.pipeline import compute
    from attncli.request import OutputOptions, VariantRequest

    expected = problem.expected
    try:
        result = compute(problem, VariantRequest(), OutputOptions(only=tuple(expected)))
    except AttnError:
        return float("inf")
    largest = 0.0
    for step, entry in expected.items():
        ours, theirs = np.asarray(result[step].values), entry["values"]
        if ours.shape != theirs.shape or not np.isfinite(ours).all():
            return float("inf")
        largest = max(largest, float(np.abs(ours - theirs).max()) / max(float(np.abs(theirs).max()), 1e-30))
    return largest


def describe_choices(choices: Json) -> str:
    """Spell choices as the command line has them: --heads 4 --position rope:theta=10000."""
    import shlex

    return " ".join(f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in choices.items())


def _describe(
    call: AttentionCall,
    facts: ModelFacts,
    source: _Source,
    problem: Problem,
    name: str,
    depth: Depth,
    steps: tuple[str, ...],
    difference: float,
    is_bias_given: bool,
) -> CapturedLayer:
    is_self = call.query.shape[-2] == call.key.shape[-2] and "memory.embeddings" not in source.arrays
    layer = CapturedLayer(
        name,
        call.path,
        call.query.shape[1],
        call.key.shape[1],
        "self" if is_self else "cross",
        depth,
        problem,
        dict(problem.variant),
        steps,
        difference,
        "; ".join(filter(None, [source.unread, _NO_WEIGHTS if "weights" not in steps else ""])),
        is_bias_given,
    )
    about = {"captured_by": "attn capture", "model": facts.name, **layer.to_record()}
    told = {name: value for name, value in about.items() if value not in ("", False)}
    layer.problem = replace(problem, id=f"layer {name}", about=told)
    return layer
