"""Recognise what is added to the scores: a penalty by distance (ALiBi), a table by distance (T5), or numbers as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from attncli.capture.recorder import AttentionCall
from attncli.capture.scores import ScoreReading
from attncli.types import Json


def propose_biases(
    call: AttentionCall, scores: ScoreReading, tables: Sequence[tuple[str, torch.Tensor]]
) -> Iterator[tuple[Json, dict[str, torch.Tensor], bool]]:
    """Propose (choices, arrays, whether the bias is given as numbers), the plainest first."""
    bias = scores.bias
    if bias is None:
        yield {}, {}, False
        return
    heads = call.query.shape[1]
    if bias.shape[1] == heads:
        if _is_alibi(bias, scores.visible):
            yield {"position": "alibi"}, {}, False
        for _, table in tables:
            if table.shape[1] == heads and _takes_from(bias, table):
                for part in _spell_t5(call, table.shape[0], scores.visible):
                    yield {"position": part}, {"parameters.bias_table": table}, False
    yield {}, {"bias": bias.expand(*bias.shape[:2], *call.weights.shape[-2:])}, True


def _spell_t5(call: AttentionCall, buckets: int, visible: torch.Tensor | None) -> Iterator[str]:
    """Spell T5's buckets; in a short causal text both kinds give the same numbers, and the causal one is meant."""
    n, m = call.weights.shape[-2:]
    is_causal = visible is not None and not bool((visible & (torch.arange(m) > torch.arange(n)[:, None])).any())
    distance = getattr(call.module, "relative_attention_max_distance", 128)
    far = f",max-distance={distance}" if distance != 128 else ""
    for bidirectional in (not is_causal, is_causal):
        yield f"t5:buckets={buckets}{far},bidirectional={str(bidirectional).lower()}"


def _is_alibi(bias: torch.Tensor, visible: torch.Tensor | None) -> bool:
    """Whether a bias (B, H, Tq, Tk) is, but for a constant a row, a slope times the distance; which slopes, the proof tells."""
    n, m = bias.shape[-2:]
    distance = -(torch.arange(n)[:, None] - torch.arange(m)[None]).abs().to(bias.dtype)
    seen = torch.ones(n, m, dtype=torch.bool) if visible is None else visible.expand_as(bias)[0, 0]
    if visible is None or n != m:
        return False
    x = torch.where(seen, distance, 0)
    count = seen.sum(-1, keepdim=True).clamp(min=1)
    x = torch.where(seen, distance - x.sum(-1, keepdim=True) / count, 0)
    y = torch.where(seen, bias, 0)
    y = torch.where(seen, y - y.sum(-1, keepdim=True) / count, 0)
    slope = (x * y).sum((-1, -2), keepdim=True) / (x * x).sum()
    return bool(((slope * x - y).abs() < 1e-4 * y.abs().max()).all()) and bool((slope > 0).all())


def _takes_from(bias: torch.Tensor, table: torch.Tensor) -> bool:
    """Whether the numbers of a bias, of its last query, are rows of a learned table."""
    rows = bias[0, :, -1, :3].T.to(table.dtype)  # (3, H)
    return bool((rows[:, None] - table[None]).abs().amax(-1).amin(-1).max() < 1e-4)
