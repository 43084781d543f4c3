"""Read what was done to the scores: scale, soft cap, sinks, mask and bias, from what entered the softmax.

Names propose, numbers decide: what a module calls its soft cap or window is tried, and believed where it gives the logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from attncli.capture.recorder import AttentionCall
from attncli.types import Json

_HIDDEN = -5000.0  # what is added to hide a key is far below, and no score or bias is
_SAMPLED_QUERIES = 16
_SOFTCAP_NAMES = ("softcap", "attn_logit_softcapping", "attn_logits_soft_cap", "attention_logits_soft_cap", "logit_cap")
_SINK_NAMES = ("s_aux", "sinks", "sink", "attention_sink_bias")
_WINDOW_NAMES = ("sliding_window", "window_size", "local_attention", "attention_window")
_CHUNK_NAMES = ("attention_chunk_size", "chunk_size")


@dataclass
class ScoreReading:
    """What stands between q · k and the weights, in our parts."""

    choices: Json = field(default_factory=dict)  # of the variant
    arrays: dict[str, torch.Tensor] = field(default_factory=dict)  # of the problem, by dotted name
    bias: torch.Tensor | None = None  # (B or 1, H or 1, Tq, Tk), where something is added to the scores
    visible: torch.Tensor | None = None  # the same, booleans; None: every key


def repeat_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Let each kv head serve its group: (B, G, T, d) → (B, H, T, d)."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def read_scores(call: AttentionCall, *, is_thorough: bool = True) -> ScoreReading:
    """Read the scale, the soft cap, the sinks, the mask and the bias of a call.

    Args:
        call: the call.
        is_thorough: look at every query; else, where nothing is added to the scores of some, believe it of all. The proof tells.
    """
    reading = ScoreReading()
    logits = call.logits
    sinks = _find_sinks(call)
    if logits is not None and logits.shape[-1] == call.key.shape[-2] + 1:
        sinks = logits[..., -1] if sinks is None else sinks  # (B, H, Tq), or (H)
        logits = logits[..., :-1]
    visible = _find_visible(call, logits)
    if is_thorough or sinks is not None or not _is_plain_in_sample(call, logits, visible):
        _read_additions(call, reading, logits, visible, sinks)
    if visible is not None:
        visible = _shrink(visible)
        if bool((~visible.any(-1)).any()):
            reading.choices["empty_rows"] = "uniform"
    reading.visible = visible
    scale = float(call.scale)
    if abs(scale - call.query.shape[-1] ** -0.5) > 1e-12 * abs(scale):
        reading.choices["scale"] = scale
    return reading


def _multiply(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return q · k of every head: (B, H, Tq, Tk)."""
    return query @ repeat_heads(key, query.shape[1]).transpose(-1, -2)


def _is_plain_in_sample(call: AttentionCall, logits: torch.Tensor | None, visible: torch.Tensor | None) -> bool:
    """Whether the logits of some queries are their scaled products; their number does not grow with the text."""
    if logits is None or not call.scale:
        return False
    n = call.query.shape[-2]
    rows = torch.linspace(0, n - 1, min(n, _SAMPLED_QUERIES)).long()
    scaled = _multiply(call.query[:, :, rows], call.key) * call.scale
    if visible is not None and visible.shape[-2] == n:
        visible = visible[..., rows, :]
    return _is_nothing(_where_visible(logits[:, :, rows] - scaled, visible), visible, scaled)


def _read_additions(
    call: AttentionCall,
    reading: ScoreReading,
    logits: torch.Tensor | None,
    visible: torch.Tensor | None,
    sinks: torch.Tensor | None,
) -> None:
    """Read what is done to the products: their scale where it is not known, the soft cap, the bias and the sinks."""
    products = _multiply(call.query, call.key)
    if not call.scale:
        call.scale = _estimate_scale(products, logits, visible, call.query.shape[-1])
    scaled = products * call.scale
    added = None
    if (
        sinks is not None
        or logits is None
        or not _is_nothing(_where_visible(logits - scaled, visible), visible, scaled)
    ):
        if logits is not None:
            scaled = _read_softcap(call, reading, logits, scaled, visible)
        added = _read_added(call, reading, logits, scaled, visible, sinks)
    if added is not None and not _is_nothing(added, visible, scaled):
        reading.bias = _shrink(added)
    if sinks is not None and "sink" not in reading.choices:
        if sinks.dim() == 3:
            shift = 0.0 if logits is None else _row_shift(logits - scaled, visible)
            sinks = (sinks - shift)[0, :, 0]
        reading.choices["sink"] = "given"
        reading.arrays["parameters.sinks"] = sinks.reshape(-1)


def _read_softcap(
    call: AttentionCall, reading: ScoreReading, logits: torch.Tensor, scaled: torch.Tensor, visible: torch.Tensor | None
) -> torch.Tensor:
    """Return the scaled scores, capped if that gives the logits."""
    if _explains(logits, scaled, visible):
        return scaled
    for cap in _named_numbers(call, _SOFTCAP_NAMES):
        capped = cap * torch.tanh(scaled / cap)
        if _explains(logits, capped, visible):
            reading.choices["softcap"] = cap
            return capped
    return scaled


def _read_added(
    call: AttentionCall,
    reading: ScoreReading,
    logits: torch.Tensor | None,
    scaled: torch.Tensor,
    visible: torch.Tensor | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor | None:
    """Return what is added to the visible scores; None: nothing is known of it."""
    added = None
    if logits is not None:
        if sinks is not None and sinks.dim() == 3 and not _is_same_in_rows(sinks, logits - scaled, visible):
            reading.choices["sink"] = "zero"  # which a row has, less its own sink
            return _where_visible(logits - scaled - sinks[..., None], visible)
        added = _bias_of_rows(logits - scaled, visible)
    if call.mask is not None and call.mask.dtype != torch.bool and call.mask.dim() == 4:
        passed = _where_visible(call.mask[..., : scaled.shape[-1]], visible)
        if added is None or _is_same_bias(added, passed, visible, scaled):
            return passed  # without the rounding of the sum
    return added


# ── what is hidden ───────────────────────────────────────────────────────────────────────────────
def _find_visible(call: AttentionCall, logits: torch.Tensor | None) -> torch.Tensor | None:
    """Return which keys each query sees; None: all."""
    mask = call.mask
    if mask is not None and mask.dim() == 4:
        mask = mask[..., : call.weights.shape[-1]]
        visible = mask if mask.dtype == torch.bool else mask > _HIDDEN
        if logits is not None and mask.dtype == torch.bool:
            visible = (
                visible
                if bool(((logits > _HIDDEN) | ~visible).all()) and not bool((logits > _HIDDEN).all())
                else logits > _HIDDEN
            )
    elif logits is not None:
        visible = logits > _HIDDEN
    else:
        return None
    return None if bool(visible.all()) else visible


def _shrink(x: torch.Tensor) -> torch.Tensor:
    """Keep one item of batch and head where all are the same."""
    for axis in (0, 1):
        first = x.narrow(axis, 0, 1)
        if x.shape[axis] > 1 and bool((x == first).all()):
            x = first
    return x


def propose_masks(call: AttentionCall, reading: ScoreReading) -> Iterator[tuple[Json, dict[str, torch.Tensor]]]:
    """Propose (choices, arrays) that hide what is hidden, the plainest first; the last is the mask itself."""
    visible = reading.visible
    n, m = call.weights.shape[-2:]
    if visible is None:
        yield {}, {}
        return
    first = call.past_length - call.past_count  # of the keys
    i, j = torch.arange(call.past_length, call.past_length + n)[:, None], torch.arange(first, first + m)[None]
    lengths = _find_lengths(visible)
    if lengths is not None and bool((visible == (j < lengths[:, None, None, None])).all()):
        yield {}, {"lengths": lengths}
    if n == m or call.past_count:
        for expression, pattern in _patterns(call, visible, i, j):
            if bool((visible == pattern).all()):
                yield {"mask": expression}, {}
            elif lengths is not None and bool((visible == (pattern & (j < lengths[:, None, None, None]))).all()):
                yield {"mask": expression}, {"lengths": lengths}
    yield {}, {"mask": visible}


def _patterns(
    call: AttentionCall, visible: torch.Tensor, i: torch.Tensor, j: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """Masks by name, as our parts spell them, with the booleans that they give."""
    causal = j <= i
    seen = visible.any(0).any(0)
    distance = (i - j)[seen]
    if not distance.numel():
        return
    left, right = int(distance.max()), int(-distance.min())
    for window in _named_numbers(call, _WINDOW_NAMES):
        w = int(window)
        if w > 0 and left < w:
            yield f"causal and window:left={w - 1}", causal & (i - j < w)
    for chunk in _named_numbers(call, _CHUNK_NAMES):
        c = int(chunk)
        if c > 0 and bool((visible == (causal & (i // c == j // c))).all()) and c < j.shape[1]:
            yield f"causal and chunk:size={c}", causal & (i // c == j // c)
    yield "causal", causal
    if left < j.shape[1] - 1:
        yield f"causal and window:left={left}", causal & (i - j <= left)
    if max(left, right) < j.shape[1] - 1:
        yield f"window:left={left},right={right}", (i - j <= left) & (j - i <= right)


def _find_lengths(visible: torch.Tensor) -> torch.Tensor | None:
    """Return the lengths of batch items that are padded at the end; None where they are padded otherwise or not at all."""
    used = visible.any(-2).any(1)  # (B, Tk)
    lengths = used.sum(-1)
    if visible.shape[0] == 1 or bool((lengths == used.shape[-1]).all()):
        return None
    return lengths if bool((used == (torch.arange(used.shape[-1]) < lengths[:, None])).all()) else None


# ── what is added ────────────────────────────────────────────────────────────────────────────────
def _where_visible(x: torch.Tensor, visible: torch.Tensor | None) -> torch.Tensor:
    return x if visible is None else torch.where(visible, x, torch.zeros_like(x))


def _row_shift(difference: torch.Tensor, visible: torch.Tensor | None) -> torch.Tensor:
    """Return what was subtracted from a whole row, which a softmax does not notice: (B, H, Tq)."""
    seen = torch.ones_like(difference, dtype=torch.bool) if visible is None else visible.expand_as(difference)
    total = torch.where(seen, difference, 0).sum(-1)
    return total / seen.sum(-1).clamp(min=1)


def _bias_of_rows(difference: torch.Tensor, visible: torch.Tensor | None) -> torch.Tensor:
    """Return what was added to the visible scores; without what is the same in a row that has nothing else."""
    shift = _row_shift(difference, visible)[..., None]
    rest = _where_visible(difference - shift, visible)
    size = float(_where_visible(difference, visible).abs().max()) if difference.numel() else 0.0
    if float(rest.abs().max()) <= 1e-5 * max(size, 1.0):
        return torch.zeros_like(rest)
    return _where_visible(difference, visible)


def _tolerance(x: torch.Tensor) -> float:
    return 1e-5 if x.dtype == torch.float32 else 1e-10


def _is_nothing(added: torch.Tensor, visible: torch.Tensor | None, scaled: torch.Tensor) -> bool:
    size = max(float(_where_visible(scaled, visible).abs().max()), 1.0)
    return float(added.abs().max()) <= _tolerance(scaled) * size


def _is_same_in_rows(sinks: torch.Tensor, difference: torch.Tensor, visible: torch.Tensor | None) -> bool:
    """Whether each head has one sink, but for what was subtracted from a whole row."""
    own = sinks - _row_shift(difference, visible)
    return bool(((own - own[:1, :, :1]).abs() <= 1e-4 * own.abs().max().clamp(min=1)).all())


def _is_same_bias(
    added: torch.Tensor, passed: torch.Tensor, visible: torch.Tensor | None, scaled: torch.Tensor
) -> bool:
    return _is_nothing(_bias_of_rows(_where_visible(added - passed, visible), visible), visible, scaled)


def _explains(logits: torch.Tensor, scores: torch.Tensor, visible: torch.Tensor | None) -> bool:
    return _is_nothing(_bias_of_rows(logits - scores, visible), visible, scores)


def _estimate_scale(products: torch.Tensor, logits: torch.Tensor | None, visible: torch.Tensor | None, d: int) -> float:
    """Return the factor that makes logits of products: 1 or 1/√d where that is near, else by least squares over what is visible."""
    if logits is None:
        return 1.0
    p, s = (_where_visible(x - _row_shift(x, visible)[..., None], visible).double() for x in (products, logits))
    estimate = float((p * s).sum() / (p * p).sum()) if float((p * p).sum()) else 1.0
    usual = min((1.0, d**-0.5), key=lambda c: abs(c - estimate))
    return usual if abs(usual - estimate) < 0.3 * usual else estimate


# ── names ────────────────────────────────────────────────────────────────────────────────────────
def _named_numbers(call: AttentionCall, names: tuple[str, ...]) -> list[float]:
    """Return the numbers above 0 that a call, its module or its configuration has under some names."""
    found = []
    for owner in (call.options, vars(call.module), getattr(getattr(call.module, "config", None), "__dict__", {})):
        for name in names:
            value = owner.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                found.append(float(value))
    return list(dict.fromkeys(found))


def _find_sinks(call: AttentionCall) -> torch.Tensor | None:
    """Return the learned sinks (H), where they are passed or the module has them."""
    heads = call.query.shape[1]
    for name in _SINK_NAMES:
        value = call.options.get(name)
        value = getattr(call.module, name, None) if value is None else value
        if isinstance(value, torch.Tensor) and value.numel() == heads:
            return value.detach().reshape(-1)
    return None
