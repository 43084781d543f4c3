"""What errors propose for learned arrays under the names of frameworks, and for the layers of a checkpoint."""

from __future__ import annotations

import numpy as np
import safetensors.numpy

from tests.helpers import draw_normal
from tests.proposals.figures import LABELLED, PROJECTED, W_K, W_Q, W_V, Figures, Proposal, X, attend, csv_text

_RUN = "compute p.json"
_ONE_HEAD = f"{_RUN} --heads 1"
_IN_PROJ = {"w_q": W_Q, "w_k": W_K, "w_v": W_V}
_IN_PROJ_BIAS = draw_normal(27, 12)
_PACKED = np.vstack([W_Q.T, W_K.T, W_V.T])  # (3·d, d): nn.Linear's, queries first


def with_head(figures: Figures) -> Figures:
    """Return the figures of one head that is named, whose weights have an axis for it."""
    return {"weights": figures["weights"][None], "context": figures["context"]}


def propose(says, gives, parameters, mended=None, command=_ONE_HEAD, followed="") -> Proposal:
    """Return the proposal of other parameters, for a command that stays as it is unless `followed` says otherwise."""
    files = {"p.json": LABELLED | {"parameters": parameters}}
    changed = {} if mended is None else {"p.json": LABELLED | {"parameters": mended}}
    return Proposal(command, says, gives, files, followed or command, changed)


_PROJECTED_THREE = attend(X @ W_Q, X @ W_K, X @ W_V)
_ALL_PROJECTED = with_head(_PROJECTED_THREE)
_OFFSET = with_head(attend(*(X @ w + b for w, b in zip((W_Q, W_K, W_V), np.split(_IN_PROJ_BIAS, 3), strict=True))))
_BY_HEAD = _PACKED.reshape(2, 3, 2, 4)  # of each head its query, its key, its value
_CUT_BY_HEAD = attend(*(X @ _BY_HEAD[:, i].reshape(4, 4).T for i in range(3)), heads=2)
_CUT_IN_THREE = attend(X @ W_Q, X @ W_K, X @ W_V, heads=2)
_WIDE_W_Q = draw_normal(28, 4, 8)
_SHARED_KEYS = attend(X @ _WIDE_W_Q, np.tile(X @ W_K, 2), np.tile(X @ W_V, 2), heads=2)
_W_O = draw_normal(29, 4, 5)
_BOOK = {"W_query": W_Q.T, "W_key.weight": W_K.T, "W_value.weight": W_V.T}

_NAMED_BOOK = {f"W_{name}.weight": w.T for name, w in zip(("query", "key", "value"), (W_Q, W_K, W_V), strict=True)}

_LAYER = "model.layers.0.self_attn"
_TENSORS = {f"{_LAYER}.{x}_proj.weight": np.ascontiguousarray(w.T) for x, w in zip("qkv", (W_Q, W_K, W_V), strict=True)}
_CHECKPOINT = {"x.json": LABELLED, "model.safetensors": safetensors.numpy.save(_TENSORS)}
_OTHER = {"x.json": LABELLED, "model.safetensors": safetensors.numpy.save({"mixer.in": _PACKED})}
_LOAD = "compute x.json --heads 1 --from-state-dict"

PROPOSALS = [
    # ── names
    Proposal(_ONE_HEAD, 'learned arrays go under parameters: "parameters": {"in_proj_weight": …}', _ALL_PROJECTED, {"p.json": LABELLED | {"in_proj_weight": _PACKED}}, _ONE_HEAD, {"p.json": LABELLED | {"parameters": {"in_proj_weight": _PACKED}}}),
    propose("did you mean 'c_attn.weight'?", _ALL_PROJECTED, {"c_attn": _PACKED.T}, {"c_attn.weight": _PACKED.T}),
    propose("did you mean 'qkv.weight'?", _ALL_PROJECTED, {"qkv": _PACKED}, {"qkv.weight": _PACKED}),
    propose("did you mean 'w_q', which is laid out as w_layout says", PROJECTED, {"W_query": W_Q}, {"w_q": W_Q}, _RUN),
    Proposal("compute x.json --with parameters.W_query=w.csv", "did you mean 'w_q', which is laid out as w_layout says", PROJECTED, {"x.json": LABELLED, "w.csv": csv_text(W_Q)}, "compute x.json --with parameters.w_q=w.csv"),
    propose("or 'W_query.weight', as its framework stores it?", _ALL_PROJECTED, _BOOK, _NAMED_BOOK),
    propose("or use the names w_q, w_k and w_v", PROJECTED, {"q_proj.weight": W_Q.T}, {"w_q": W_Q}, _RUN),
    # ── heads, and how arrays are packed
    propose("--heads 1 for a single head", _OFFSET, _IN_PROJ | {"in_proj_bias": _IN_PROJ_BIAS}, command=_RUN, followed=_ONE_HEAD),
    propose("add --heads H", _CUT_IN_THREE, {"in_proj_weight": _PACKED}, command=_RUN, followed=f"{_RUN} --heads 2"),
    propose("--projection given:qkv=3hd", _CUT_IN_THREE, {"qkv.weight": _PACKED}, command=f"{_RUN} --heads 2", followed=f"{_RUN} --heads 2 --projection given:qkv=3hd"),
    propose("--projection given:qkv=h3d", _CUT_BY_HEAD, {"qkv.weight": _PACKED}, command=f"{_RUN} --heads 2", followed=f"{_RUN} --heads 2 --projection given:qkv=h3d"),
    propose("with as many kv heads as heads, --heads 1, 2 or 4", _CUT_IN_THREE, {"in_proj_weight": _PACKED}, command=f"{_RUN} --heads 3", followed=f"{_RUN} --heads 2"),
    propose("with 2 heads, --kv-heads 1", _SHARED_KEYS, {"in_proj_weight": np.vstack([_WIDE_W_Q.T, W_K.T, W_V.T])}, command=f"{_RUN} --heads 2", followed=f"{_RUN} --heads 2 --kv-heads 1"),
    propose("give it as w_o, laid out as w_layout says", {"output": _PROJECTED_THREE["context"] @ _W_O}, _IN_PROJ | {"c_proj.weight": _W_O}, _IN_PROJ | {"w_o": _W_O}, followed=f"{_RUN} --only output"),
    # ── a checkpoint
    Proposal(f"{_LOAD} {_LAYER}", "--from-state-dict model.safetensors:model.layers.0.self_attn", _ALL_PROJECTED, _CHECKPOINT, f"{_LOAD} model.safetensors:{_LAYER}"),
    Proposal(f"{_LOAD} model.safetensors", f"add it after a colon: '{_LAYER}'", _ALL_PROJECTED, _CHECKPOINT, f"{_LOAD} model.safetensors:{_LAYER}"),
    Proposal(f"{_LOAD} model.safetensors:model.layers.0", f"did you mean '{_LAYER}'?", _ALL_PROJECTED, _CHECKPOINT, f"{_LOAD} model.safetensors:{_LAYER}"),
    Proposal("compute model.safetensors", f"attn compute INPUT --from-state-dict model.safetensors:{_LAYER}", _ALL_PROJECTED, _CHECKPOINT, f"{_LOAD} model.safetensors:{_LAYER}"),
    Proposal(f"{_LOAD} model.safetensors", "give other arrays one by one: --with parameters.w_q=FILE", PROJECTED, _OTHER | {"w_q.csv": csv_text(W_Q)}, "compute x.json --with parameters.w_q=w_q.csv"),
    Proposal(f"{_LOAD} model.safetensors:{_LAYER}", "leave it out of one of them", _ALL_PROJECTED, _CHECKPOINT | {"x.json": LABELLED | {"parameters": {"q_proj.weight": W_Q}}}, f"{_LOAD} model.safetensors:{_LAYER}", {"x.json": LABELLED}),
]  # fmt: skip
