"""Fields and shapes that errors propose: of masks and biases, of q, k and v, of parameters, and of their spelling."""

from __future__ import annotations

import numpy as np

from tests.helpers import draw_normal, softmax
from tests.proposals.figures import (
    ADDED,
    BATCH,
    CAUSAL,
    HEADED,
    HIDDEN_LATER,
    KEYS_SEEN,
    LABELLED,
    PLAIN,
    PROJECTED,
    SEEN,
    SLOPED,
    SQUARE,
    TURNED,
    TWO_HEADS,
    W_K,
    W_Q,
    W_V,
    K,
    Proposal,
    Q,
    V,
    X,
    attend,
    turn,
)

_RUN = "compute p.json"


def propose(says, gives, fields, mended, command=_RUN, followed="") -> Proposal:
    """Return the proposal of other fields, for a command that stays as it is unless `followed` says otherwise."""
    return Proposal(command, says, gives, {"p.json": fields}, followed or command, {"p.json": mended})


def reshape(says, gives, fields, name, shape, command=_RUN) -> Proposal:
    """Return the proposal of another shape for one field, which stands in the error as a tuple."""
    assert str(shape) in says
    return propose(says, gives, fields, fields | {name: np.reshape(fields[name], shape)}, command)


def two_readings(name, array, keyword, more=None) -> list[Proposal]:
    """Return both readings of (2, 3, 3) with two items and two heads, and of (3, 3) with three items of three queries."""
    command = f"{_RUN} --heads 2{more or ''}"
    items = {"embeddings": BATCH, name: array}
    keys = {"embeddings": SQUARE, name: array[0] if name == "bias" else KEYS_SEEN}
    flat = keys[name]
    factor = 2.0 if name == "dropout_mask" else 1  # survivors of a half
    return [
        reshape("(B, 1, Tq, Tk) = (2, 1, 3, 3)", attend(BATCH, heads=2, **{keyword: array[:, None] * factor}), items, name, (2, 1, 3, 3), command),
        reshape("(1, H, Tq, Tk) = (1, 2, 3, 3)", attend(BATCH, heads=2, **{keyword: array[None] * factor}), items, name, (1, 2, 3, 3), command),
        reshape("(B, 1, 1, Tk) = (3, 1, 1, 3)", attend(SQUARE, **{keyword: flat[:, None] * factor}), keys, name, (3, 1, 1, 3), f"{_RUN}{more or ''}"),
        reshape("(1, 1, Tq, Tk) = (1, 1, 3, 3)", attend(SQUARE, **{keyword: flat[None] * factor}), keys, name, (1, 1, 3, 3), f"{_RUN}{more or ''}"),
    ]  # fmt: skip


_FOUR = np.stack([SEEN[0], SEEN[1], CAUSAL, KEYS_SEEN | np.eye(3, dtype=bool)])  # (B·H, Tq, Tk)
_QKV = {"q": X, "k": W_K[:3], "v": W_V[:3]}
_GIVEN = _QKV | {"parameters": {"w_q": W_Q}}
_SINKS = np.array([0.5])
_SUNK = {"weights": np.exp(X @ X.T / 2) / (np.exp(0.5) + np.exp(X @ X.T / 2).sum(-1, keepdims=True))}
_TABLE = draw_normal(21, 32, 1)
_BY_DISTANCE = attend(
    X,
    scale=0.5,
    added=_TABLE[:, 0][
        np.where(np.arange(3) > np.arange(3)[:, None], 16, 0) + np.abs(np.arange(3) - np.arange(3)[:, None])
    ],
)
_WIDER = draw_normal(22, 3, 6)
_W_A, _V_A = draw_normal(23, 6, 4), np.ones(4)
_ADDITIVE = {"weights": softmax(np.tanh(X[:, None] + _WIDER @ _W_A) @ _V_A)}
_W_OUT_IN = draw_normal(24, 6, 4)  # (d_out, d_in)
_SEGMENTS = [0, 0, 1]
_SAME_DOCUMENT = np.equal.outer(_SEGMENTS, _SEGMENTS)
_SAME_AS_KEY = np.equal.outer([0, 1], [0, 0, 0, 1, 1])
_CACHE = {"k": draw_normal(25, 1, 1, 2, 4), "v": draw_normal(26, 1, 1, 2, 4)}
_CACHED = attend(X, np.vstack([_CACHE["k"][0, 0], X]), np.vstack([_CACHE["v"][0, 0], X]))
_CACHED_KEYS = {"weights": _CACHED["weights"]}
_OPEN = np.where(CAUSAL, 0.0, -np.inf)

_GROUPED = {"q": X, "k": X[:, :2], "v": X[:, :2]}
_UNEQUAL = {"q": HEADED, "k": HEADED[:2], "v": HEADED[:2]}  # (3, H, d) and (2, H, d)
_FIRST_TOKENS = {"weights": attend(*(x.swapaxes(0, 1) for x in _UNEQUAL.values()))["weights"]}
_BY_INDEX = {"q": Q, "k": K, "v": V, "positions": [7, 7]}
_PADDED = {"q": Q, "k": K, "v": V, "mask": [[True] * 4 + [False]] * 2}

PROPOSALS = [
    # ── masks, biases and kept weights
    *two_readings("mask", SEEN, "visible"),
    *two_readings("bias", ADDED, "added"),
    *two_readings("dropout_mask", SEEN, "kept", " --dropout 0.5"),
    reshape("reshape it to (2, 2, 3, 3)", attend(BATCH, heads=2, visible=_FOUR.reshape(2, 2, 3, 3)), {"embeddings": BATCH, "mask": _FOUR}, "mask", (2, 2, 3, 3), f"{_RUN} --heads 2"),
    propose("one mask for it has two axes, (3, 3)", attend(X, visible=SEEN[1]), LABELLED | {"mask": SEEN}, LABELLED | {"mask": SEEN[1]}),
    propose("give one mask per head, (2, 3, 3)", attend(X, heads=2, visible=SEEN), LABELLED | {"mask": _FOUR[:3]}, LABELLED | {"mask": SEEN}, f"{_RUN} --heads 2"),
    propose("or one for all, of two axes", attend(X, heads=2, visible=SEEN[0]), LABELLED | {"mask": _FOUR[:3]}, LABELLED | {"mask": SEEN[0]}, f"{_RUN} --heads 2"),
    propose("one per item is (2, 1, 3, 3)", attend(BATCH, visible=SEEN), {"embeddings": BATCH, "bias": ADDED[:1].repeat(3, 0)}, {"embeddings": BATCH, "mask": SEEN[:, None]}),
    propose("one per head (1, 2, 3, 3)", attend(BATCH, heads=2, visible=SEEN), {"embeddings": BATCH, "mask": _FOUR[:3]}, {"embeddings": BATCH, "mask": SEEN[None]}, f"{_RUN} --heads 2"),
    propose("the problem has no batch: give one mask", attend(X, visible=SEEN[0]), LABELLED | {"mask": SEEN[:, None]}, LABELLED | {"mask": SEEN[:1, None]}),
    propose("or a batch of 2 problems", attend(BATCH, visible=SEEN), LABELLED | {"mask": SEEN[:, None]}, {"embeddings": BATCH, "mask": SEEN[:, None]}),
    propose("each axis must be as long as the problem's, or 1", attend(X, visible=KEYS_SEEN[:1]), LABELLED | {"mask": KEYS_SEEN[:2]}, LABELLED | {"mask": KEYS_SEEN[:1]}),
    propose("write true where a key is visible and false", HIDDEN_LATER, LABELLED | {"mask": CAUSAL * 1}, LABELLED | {"mask": CAUSAL}),
    propose("to add numbers to the scores use bias", attend(X, added=CAUSAL * 1), LABELLED | {"mask": CAUSAL * 1}, LABELLED | {"bias": CAUSAL * 1}),
    propose("fill with −∞ instead", HIDDEN_LATER, LABELLED | {"bias": [["NaN"] * 3] * 3}, LABELLED | {"bias": [[0, "-Infinity", "-Infinity"], [0, 0, "-Infinity"], [0, 0, 0]]}),
    propose("or give a boolean mask", HIDDEN_LATER, LABELLED | {"bias": [["NaN"] * 3] * 3}, LABELLED | {"mask": CAUSAL}),
    propose("-Infinity to hide a key", attend(X, visible=[True, True, False]), LABELLED | {"bias": [0, 0, "Infinity"]}, LABELLED | {"bias": [0, 0, "-Infinity"]}),
    # ── q, k and v
    propose("bhtd and bthd are for arrays with a batch", {"weights": attend(HEADED)["weights"][None]}, {"q": HEADED[None], "k": HEADED[None], "layout": "htd"}, {"q": HEADED[None], "k": HEADED[None], "layout": "bhtd"}),
    propose("htd and thd for arrays without", {"weights": attend(HEADED.swapaxes(0, 1))["weights"]}, {"q": HEADED, "k": HEADED, "layout": "bthd"}, {"q": HEADED, "k": HEADED, "layout": "thd"}),
    propose("(T, d) needs no layout", PLAIN, {"q": X, "k": X, "v": X, "layout": "thd"}, {"q": X, "k": X, "v": X}),
    propose('give "embeddings": [[…], …]', PLAIN, {"tokens": ["the"]}, {"embeddings": X}),
    propose("or q, k and v", attend(Q, K, V), {"tokens": ["the", "cat"]}, {"tokens": ["the", "cat"], "q": Q, "k": K, "v": V}),
    propose("give either embeddings", PLAIN, LABELLED | {"q": Q}, LABELLED),
    propose("or q, k and v that are already projected", attend(*_QKV.values()), LABELLED | _QKV, _QKV),
    propose("leave memory out", attend(X, K), {"q": X, "k": K, "memory": {"embeddings": K}}, {"embeddings": X, "memory": {"embeddings": K}}),
    propose("k and v are already made from it", attend(X, K), {"q": X, "k": K, "memory": {"embeddings": K}}, {"q": X, "k": K, "v": K}),
    propose("give k too; only v may be left out", {"weights": attend(Q, K)["weights"]}, {"q": Q, "v": V}, {"q": Q, "k": K}),
    propose("give v", _CACHED, {"q": X, "k": X, "past": _CACHE}, {"q": X, "k": X, "v": X, "past": _CACHE}),
    propose("or leave past.v out", _CACHED_KEYS, {"q": X, "k": X, "past": _CACHE}, {"q": X, "k": X, "past": {"k": _CACHE["k"]}}),
    propose("past holds k and v, each (B, Hkv, P, d)", _CACHED, {"embeddings": X, "past": {"k": _CACHE["k"]}}, {"embeddings": X, "past": _CACHE}),
    # ── the projection and other parameters
    propose("give embeddings (and memory) instead of q, k and v", PROJECTED, _GIVEN, {"embeddings": X, "parameters": {"w_q": W_Q}}, f"{_RUN} --projection given"),
    propose("or leave the projection out", attend(*_QKV.values()), _GIVEN, _GIVEN, f"{_RUN} --projection given", _RUN),
    propose("or leave the projection out", attend(*_QKV.values()), _QKV, _QKV, f"{_RUN} --projection linear:dim=2", _RUN),
    propose("give embeddings", {"weights": (3, 3), "context": (3, 2)}, _QKV, LABELLED, f"{_RUN} --projection linear:dim=2,seed=1"),
    propose("a position that acts on q and k: rope", TURNED, {"q": X, "k": X, "v": X}, {"q": X, "k": X, "v": X}, f"{_RUN} --position sinusoidal", f"{_RUN} --position rope"),
    propose("rope, alibi, t5", SLOPED, {"q": X, "k": X, "v": X}, {"q": X, "k": X, "v": X}, f"{_RUN} --position sinusoidal", f"{_RUN} --position alibi"),
    propose("rope, alibi, t5", "missing-parameters", {"q": X, "k": X, "v": X}, {"q": X, "k": X, "v": X}, f"{_RUN} --position sinusoidal", f"{_RUN} --position t5"),
    propose("an even dims= of at most 2, such as dims=2", attend(turn(X[:, :3], 2), turn(X[:, :3], 2), X[:, :3]), {"embeddings": X[:, :3]}, {"embeddings": X[:, :3]}, f"{_RUN} --position rope", f"{_RUN} --position rope:dims=2"),
    propose('"parameters": {"sinks": …}, (H)', _SUNK, LABELLED, LABELLED | {"parameters": {"sinks": _SINKS}}, f"{_RUN} --sink given"),
    propose('"parameters": {"bias_table": …}, (buckets, H)', _BY_DISTANCE, LABELLED, LABELLED | {"parameters": {"bias_table": _TABLE}}, f"{_RUN} --position t5"),
    propose("add score_w_k, (6, 4)", _ADDITIVE, {"q": X, "k": _WIDER, "v": X}, {"q": X, "k": _WIDER, "v": X, "parameters": {"score_w_k": _W_A}}, f"{_RUN} --score additive"),
    propose('with "w_layout": "out-in" it would be', attend(X @ _W_OUT_IN.T, X @ _W_OUT_IN.T, X), LABELLED | {"parameters": {"w_q": _W_OUT_IN, "w_k": _W_OUT_IN}}, LABELLED | {"parameters": {"w_q": _W_OUT_IN, "w_k": _W_OUT_IN}, "w_layout": "out-in"}),
    propose('learned arrays go under parameters: "parameters": {"w_q": …}', PROJECTED, LABELLED | {"W_query": W_Q}, LABELLED | {"parameters": {"w_q": W_Q}}),
    # ── segments and positions
    propose('add "segments"', attend(X, visible=_SAME_DOCUMENT), LABELLED, LABELLED | {"segments": _SEGMENTS}, f"{_RUN} --mask document"),
    propose("add k_segments: one for each key", attend(Q, K, V, visible=_SAME_AS_KEY), {"q": Q, "k": K, "v": V, "segments": [0, 1]}, {"q": Q, "k": K, "v": V, "segments": [0, 1], "k_segments": [0, 0, 0, 1, 1]}, f"{_RUN} --mask document"),
    propose("add positions, one for each query", attend(Q, K, V, visible=np.tri(2, 5, 1, dtype=bool)), {"q": Q, "k": K, "v": V, "k_positions": [0, 1, 2, 3, 4]}, {"q": Q, "k": K, "v": V, "k_positions": [0, 1, 2, 3, 4], "positions": [1, 2]}, f"{_RUN} --causal"),
    # ── what others call it
    propose("give its opposite, as (B, 1, 1, Tk)", attend(BATCH, visible=KEYS_SEEN[:2, None]), {"embeddings": BATCH, "key_padding_mask": ~KEYS_SEEN[:2]}, {"embeddings": BATCH, "mask": KEYS_SEEN[:2, None, None]}),
    propose("or `lengths`", attend(BATCH, visible=[[[True, True, False]], [[True] * 3]]), {"embeddings": BATCH, "key_padding_mask": [[False, False, True], [False] * 3]}, {"embeddings": BATCH, "lengths": [2, 3]}),
    propose("with --mask document", attend(X, visible=_SAME_DOCUMENT), LABELLED | {"cu_seqlens": [0, 2, 3]}, LABELLED | {"segments": [0, 0, 1]}, _RUN, f"{_RUN} --mask document"),
    propose("--dropout 0.1", {"weights": PLAIN["weights"]}, LABELLED | {"dropout_p": 0.1}, LABELLED, _RUN, f"{_RUN} --dropout 0.1"),
    propose('"variant": {"mask": "causal"}', HIDDEN_LATER, LABELLED | {"is_causal": True}, LABELLED | {"variant": {"mask": "causal"}}),
    propose("or --causal", HIDDEN_LATER, LABELLED | {"causal": True}, LABELLED, _RUN, f"{_RUN} --causal"),
    propose('"variant": {"heads": …}', TWO_HEADS, LABELLED | {"n_heads": 2}, LABELLED | {"variant": {"heads": 2}}),
    propose('"expected": {"weights": …}', PLAIN, LABELLED | {"attn_probs": PLAIN["weights"]}, LABELLED | {"expected": {"weights": PLAIN["weights"]}}),
    propose("true for what may be seen, as in SDPA, are `mask`", HIDDEN_LATER, LABELLED | {"attn_mask": ~CAUSAL}, LABELLED | {"mask": CAUSAL}),
    propose("numbers that are added to the scores are `bias`", attend(X, added=ADDED[0]), LABELLED | {"attn_mask": ADDED[0]}, LABELLED | {"bias": ADDED[0]}),
    propose("append them to k and v", attend(X, np.vstack([X, W_K[:1]]), np.vstack([X, W_V[:1]])), {"q": X, "k": X, "v": X, "bias_k": W_K[0], "bias_v": W_V[0]}, {"q": X, "k": np.vstack([X, W_K[:1]]), "v": np.vstack([X, W_V[:1]])}),
    propose("--scale 0.0625 for 256", attend(X, scale=1 / 16), LABELLED | {"query_pre_attn_scalar": 256}, LABELLED, _RUN, f"{_RUN} --scale 0.0625"),
    propose("--projection linear:bias=qkv draws biases", {"weights": (3, 3)}, LABELLED | {"qkv_bias": True}, LABELLED, _RUN, f"{_RUN} --projection linear:bias=qkv,seed=1"),
    propose("the parameters b_q, b_k and b_v", attend(X @ W_Q + W_K[0], X), LABELLED | {"qkv_bias": W_K[0]}, LABELLED | {"parameters": {"w_q": W_Q, "b_q": W_K[0]}}),
    propose("--kv-heads G", attend(X, np.tile(X[:, :2], 2), np.tile(X[:, :2], 2), heads=2), _GROUPED | {"enable_gqa": True}, _GROUPED, f"{_RUN} --heads 2", f"{_RUN} --heads 2 --kv-heads 1"),
    propose("a window of W keys that ends at the query is --window W−1,0", attend(X, visible=CAUSAL & ~np.tri(3, k=-2, dtype=bool)), LABELLED | {"sliding_window": 2}, LABELLED, _RUN, f"{_RUN} --window 1,0"),
    propose("--position rope:theta=10000", TURNED, LABELLED | {"rope_theta": 10000}, LABELLED, _RUN, f"{_RUN} --position rope:theta=10000"),
    propose("--position rope:dims=N turns", attend(turn(X, 2), turn(X, 2), X), LABELLED | {"partial_rotary_factor": 0.5}, LABELLED, _RUN, f"{_RUN} --position rope:dims=2"),
    propose("--position rope turns", TURNED, LABELLED | {"cos": X}, LABELLED, _RUN, f"{_RUN} --position rope"),
    propose("--alibi computes", SLOPED, LABELLED | {"alibi_slopes": [0.00390625]}, LABELLED, _RUN, f"{_RUN} --alibi"),
    propose("--projection linear:dim=N draws", {"weights": (3, 3), "context": (3, 2)}, LABELLED | {"embed_dim": 2}, LABELLED, _RUN, f"{_RUN} --projection linear:dim=2,seed=1"),
    propose("as in --heads 2 --projection linear:dim=8", {"weights": (2, 3, 3), "context": (3, 8)}, LABELLED | {"head_dim": 4}, LABELLED, _RUN, f"{_RUN} --heads 2 --projection linear:dim=8,seed=1"),
    propose("--only weights shows them", {"weights": PLAIN["weights"]}, LABELLED | {"need_weights": True}, LABELLED, _RUN, f"{_RUN} --only weights"),
    # ── layouts and alignment
    propose('"layout": "thd" reads (T, H, d)', _FIRST_TOKENS, _UNEQUAL, _UNEQUAL | {"layout": "thd"}),
    propose('"layout": "bthd" reads (B, T, H, d)', {"weights": _FIRST_TOKENS["weights"][None]}, {n: x[None] for n, x in _UNEQUAL.items()}, {n: x[None] for n, x in _UNEQUAL.items()} | {"layout": "bthd"}, f"{_RUN} --heads 2"),
    propose("--align bottom-right the last next to the last", attend(Q, K, V, visible=np.tri(2, 5, 3, dtype=bool)), _BY_INDEX, _BY_INDEX, f"{_RUN} --causal --mask-by index", f"{_RUN} --causal --mask-by index --align bottom-right"),
    propose('"lengths": [4] puts it next to the last key that is filled', attend(Q, K, V, visible=np.tri(2, 5, 2, dtype=bool)), _PADDED, _PADDED | {"lengths": [4]}, f"{_RUN} --causal --align bottom-right"),
    # ── spelling
    propose('"variant": {"mask": "causal"}', HIDDEN_LATER, LABELLED | {"mask": "causal"}, LABELLED | {"variant": {"mask": "causal"}}),
    propose('write "variant": {"name": "causal"}', HIDDEN_LATER, LABELLED | {"variant": "causal"}, LABELLED | {"variant": {"name": "causal"}}),
    propose('write "-Infinity"', attend(X, visible=[True, True, False]), LABELLED | {"bias": [0, 0, "-inf"]}, LABELLED | {"bias": [0, 0, "-Infinity"]}),
    propose("one more pair of brackets makes it (1, 4)", attend(X[:1]), {"embeddings": X[0]}, {"embeddings": X[:1]}),
    propose("put it in quotes", PLAIN, {"tokens": [1, 2, 3], "embeddings": X}, {"tokens": ["1", "2", "3"], "embeddings": X}),
    propose("leave it out, or give its value", PLAIN, LABELLED | {"mask": None}, LABELLED),
    propose("leave it out", PLAIN, LABELLED | {"variant": {"mask": None}}, LABELLED | {"variant": {}}),
    propose("leave mask out, or write full", PLAIN, LABELLED | {"variant": {"mask": []}}, LABELLED | {"variant": {"mask": "full"}}),
    propose('an item is {"token": "cat", "embedding": [0.1, 0.2]}', PLAIN, [{}], [{"token": t, "embedding": x} for t, x in zip("abc", X, strict=True)]),
]  # fmt: skip
