"""Turn a recorded call into a problem, and prove it: what we compute from it is what the model computed.

Depth `hidden` is tried first: from what enters the projections. Where it cannot be read, or does not give the model's own
figures, the layer is written from q, k and v as they enter the attention function, and says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

import torch

from attncli.capture.biases import propose_biases
from attncli.capture.projections import tokens_first
from attncli.capture.recorder import AttentionCall
from attncli.capture.scores import ScoreReading, propose_masks, read_scores
from attncli.capture.sources import LayerReading, ModelFacts, NotReadError, Source, given_source, read_hidden_source
from attncli.errors import AttnError
from attncli.types import Json, NumpyArray, Problem

Depth = Literal["hidden", "qkv"]


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


def tolerance_of_dtype(dtype: torch.dtype) -> float:
    """Return how far figures may differ from the model's, relative to the largest of a step."""
    return 1e-10 if dtype == torch.float64 else 1e-5


@dataclass(frozen=True)
class Labels:
    """The labels of tokens, a list for each text."""

    tokens: list[list[str]] = field(default_factory=list)  # that attend, those of the cache before them
    memory: list[list[str]] = field(default_factory=list)  # that are attended to, where these are others


def build_layer(
    call: AttentionCall, facts: ModelFacts, name: str, labels: Labels, wanted: Depth = "hidden"
) -> CapturedLayer:
    """Read a call as deep as is wanted and can be proven.

    Args:
        call: the call.
        facts: what is the same for all layers. Where it keeps readings, that of this layer is added, or used by a decode step.
        name: of the layer.
        labels: of the tokens; they are left out where there are not as many as tokens.
        wanted: how deep.

    Raises:
        NotReadError: not even q, k and v give the model's weights.
    """
    known = None if facts.readings is None or not call.is_decode_step else facts.readings.get(name)
    if known is not None and not call.scale:
        call.scale = known.scale
    hidden, given = None, None
    unread = ""
    if wanted == "hidden":
        try:
            hidden = read_hidden_source(call, facts, known)
        except NotReadError as error:
            unread = str(error)
        else:
            unread = "the reading did not give the model's weights when it was computed again"
    for is_thorough in (False, True):
        scores = read_scores(call, is_thorough=is_thorough)
        if hidden is not None:
            layer = _first_proven(call, scores, facts, hidden, name, labels, "hidden", known)
            if layer is not None:
                return layer
        given = given or given_source(call)
        layer = _first_proven(call, scores, facts, given, name, labels, "qkv", known)
        if layer is not None:
            layer.unread = unread
            return layer
    raise NotReadError("q, k and v, with all that is known to be added to their scores, do not give the weights")


# ── proof ────────────────────────────────────────────────────────────────────────────────────────
def _first_proven(
    call: AttentionCall,
    scores: ScoreReading,
    facts: ModelFacts,
    source: Source,
    name: str,
    labels: Labels,
    depth: Depth,
    known: LayerReading | None,
) -> CapturedLayer | None:
    """Return the first way of writing a layer that gives the model's own figures."""
    for proposal in _propose_scores(call, scores, facts, source, known):
        for steps in _steps_to_prove(call, proposal.choices, source):
            problem = _make_problem(call, source, proposal.choices, proposal.arrays, labels, steps)
            difference = _largest_difference(problem)
            if difference <= tolerance_of_dtype(call.weights.dtype):
                if facts.readings is not None and not call.is_decode_step:
                    facts.readings[name] = LayerReading(source.sides, call.scale, proposal.position)
                return _describe(call, facts, source, problem, name, depth, steps, difference, proposal.is_bias_given)
    return None


def _steps_to_prove(call: AttentionCall, choices: Json, source: Source) -> Iterator[tuple[str, ...]]:
    """Yield which of the model's figures must be ours: the weights, and the output or else the context."""
    last = ("output", "context") if source.has_output else ("context",)
    for step in last:
        yield "weights", step
    if choices.get("sink", "none") != "none" and bool(((call.weights.sum(-1) - 1).abs() < 1e-5).all()):
        for step in last:  # the weights that are returned leave the sink out, and are not those that multiply v
            yield (step,)


@dataclass
class _ScoreProposal:
    """A way to write what is done to the scores."""

    choices: Json
    arrays: dict[str, torch.Tensor]
    position: tuple[Json, dict[str, torch.Tensor]] | None  # the part of them that is a bias by distance
    is_bias_given: bool


def _propose_scores(
    call: AttentionCall, scores: ScoreReading, facts: ModelFacts, source: Source, known: LayerReading | None
) -> Iterator[_ScoreProposal]:
    """Yield the ways to write what is done to the scores, the plainest first."""
    biases = propose_biases(call, scores, facts.tables)
    if known is not None and known.position is not None:
        biases = chain([(*known.position, False)], biases)
    for bias_choices, bias_arrays, is_given in biases:
        if "position" in source.choices and "position" in bias_choices:
            continue
        position = (bias_choices, bias_arrays) if "position" in bias_choices else None
        seen: list[Json] = []
        for mask_choices, mask_arrays in propose_masks(call, scores):
            choices = {**scores.choices, **source.choices, **mask_choices, **bias_choices}
            if choices in seen and not mask_arrays:
                continue
            seen.append(choices)
            arrays = {**scores.arrays, **mask_arrays, **bias_arrays}
            yield _ScoreProposal(choices, arrays, position, is_given)


def _make_problem(
    call: AttentionCall,
    source: Source,
    choices: Json,
    arrays: dict[str, torch.Tensor],
    labels: Labels,
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
    _label_tokens(call, labels, fields)
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


def _label_tokens(call: AttentionCall, labels: Labels, fields: Json) -> None:
    """Add labels to the fields of a problem, where there are as many as tokens."""
    batch, _, n, _ = call.query.shape
    m = call.new_key.shape[-2]

    def spell(rows: list[list[str]], count: int) -> object:
        if len(rows) != batch or len(rows[0]) != count:
            return None
        return rows[0] if batch == 1 else rows

    tokens = [row[call.past_length :] for row in labels.tokens]
    if (spelled := spell(tokens, n)) is not None:
        fields["tokens"] = spelled
        if call.past_count:
            fields["past"]["tokens"] = labels.tokens[0][call.past_length - call.past_count : call.past_length]
    if (spelled := spell(labels.memory or tokens, m)) is not None:
        if "memory" in fields:
            fields["memory"]["tokens"] = spelled
        elif "q" in fields:
            fields["k_tokens"] = spelled


def _without_batch(name: str, x: torch.Tensor) -> torch.Tensor:
    """Return an array of a single text without its batch axis; a mask or bias that is the same for all heads without theirs."""
    if name not in ("embeddings", "memory.embeddings", "q", "k", "v", "positions", "k_positions", "mask", "bias"):
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
        if ours.shape != theirs.shape:
            return float("inf")
        apart = ours - theirs
        size = max(float(theirs.max()), -float(theirs.min()), 1e-30)
        difference = max(float(apart.max()), -float(apart.min())) / size
        if not math.isfinite(difference):
            return float("inf")
        largest = max(largest, difference)
    return largest


def describe_choices(choices: Json) -> str:
    """Spell choices as the command line has them: --heads 4 --position rope:theta=10000."""
    import shlex

    return " ".join(f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in choices.items())


def _describe(
    call: AttentionCall,
    facts: ModelFacts,
    source: Source,
    problem: Problem,
    name: str,
    depth: Depth,
    steps: tuple[str, ...],
    difference: float,
    is_bias_given: bool,
) -> CapturedLayer:
    is_self = call.query.shape[-2] == call.new_key.shape[-2] and "memory.embeddings" not in source.arrays
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
