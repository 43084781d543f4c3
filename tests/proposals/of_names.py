"""Names that are not known: the one that is offered takes the place of the slip."""

from __future__ import annotations

from tests.proposals.figures import (
    ADDED,
    BATCH,
    CAUSAL,
    FILE,
    HIDDEN_LATER,
    PLAIN,
    PROJECTED,
    SLOPED,
    TOKENS,
    TURNED,
    TWO_HEADS,
    W_Q,
    K,
    Proposal,
    Written,
    X,
    attend,
    csv_text,
    select_rows,
)

_COMMANDS = [
    ("compute x.json --msk causal", "--msk", "--mask", HIDDEN_LATER),
    ("compute x.json --num-heads 2", "--num-heads", "--heads", TWO_HEADS),
    ("compute x.json --mask casual", "casual", "causal", HIDDEN_LATER),
    ("compute x.json --mask triu", "triu", "causal", HIDDEN_LATER),
    ("compute x.json --mask 'causal and ful'", "ful", "full", HIDDEN_LATER),
    ("compute x.json --score scaled_dot_product", "scaled_dot_product", "dot", PLAIN),
    ("compute x.json --normalizer sofmax", "sofmax", "softmax", PLAIN),
    ("compute x.json --position rotary", "rotary", "rope", TURNED),
    ("compute x.json --position alibbi", "alibbi", "alibi", SLOPED),
    ("compute x.json --position rope:layout=hlf", "hlf", "half", TURNED),
    ("compute x.json --position rope:base=10000", "base", "theta", TURNED),
    ("compute x.json --mask window:lef=2,right=0", "lef", "left", HIDDEN_LATER),
    ("compute x.json --variant cauzal", "cauzal", "causal", HIDDEN_LATER),
    ("compute x.json --chain scale,maks --causal", "maks", "mask", HIDDEN_LATER),
    ("compute x.json --only attention_weights", "attention_weights", "weights", {"weights": PLAIN["weights"]}),
    ("compute x.json --only contxt", "contxt", "context", {"context": PLAIN["context"]}),
    ("compute x.json --at quer=0", "quer", "query", select_rows(PLAIN, slice(1))),
    ("compute x.json --at query=caat", "caat", "cat", select_rows(PLAIN, slice(1, 2))),
    ("compute x.json --format jsn", "jsn", "json", PLAIN),
    ("compute x.json --input-format jsonn", "jsonn", "json", PLAIN),
    ("compute X.json", "X.json", "x.json", PLAIN),
    ("compute e.csv --drop freqs", "freqs", "freq", PLAIN),
    ("list maskz", "maskz", "masks", ("causal",)),
    ("list masks cauzal", "cauzal", "causal", ("j ≤ i",)),
    ("demo cat_sta", "cat_sta", "cat_sat", ("0.7662",)),
    ("comput x.json", "comput", "compute", PLAIN),
]  # fmt: skip
_FIELDS = [
    ({"embeddngs": X}, "embeddngs", "embeddings", PLAIN),
    ({"inputs": X}, "inputs", "embeddings", PLAIN),
    ({"embeddings": X, "words": TOKENS}, "words", "tokens", PLAIN),
    ({"queries": X, "k": X, "v": X}, "queries", "q", PLAIN),
    ({"embeddings": X, "attention_mask": CAUSAL}, "attention_mask", "mask", HIDDEN_LATER),
    ({"embeddings": X, "attn_bias": ADDED[0]}, "attn_bias", "bias", attend(X, added=ADDED[0])),
    ({"embeddings": BATCH, "seqlens": [1, 3]}, "seqlens", "lengths", attend(BATCH, visible=[[[True, False, False]], [[True] * 3]])),
    ({"embeddings": X, "parmeters": {"w_q": W_Q}}, "parmeters", "parameters", PROJECTED),
    ({"embeddings": X, "parameters": {"w_q": W_Q}, "w_layout": "out_in"}, "out_in", "out-in", attend(X @ W_Q.T, X)),
    ({"embeddings": X, "memory": {"emb": K}}, "emb", "embeddings", attend(X, K)),
    ({"embeddings": X, "variant": {"num_heads": 2}}, "num_heads", "heads", TWO_HEADS),
    ({"embeddings": X, "variant": {"mask": "tril"}}, "tril", "causal", HIDDEN_LATER),
    ({"embeddings": X, "expected": {"attn_probs": X}}, "attn_probs", "weights", PLAIN),
]  # fmt: skip
_FILES = FILE | {"w.csv": csv_text(W_Q), "e.csv": csv_text(X, "token,d0,d1,d2,d3,freq", TOKENS, "7")}


def offered(slip: str, name: str) -> str:
    return f"did you mean '{name}'?"


PROPOSALS = [
    *(Proposal(command, offered(slip, name), gives, _FILES, slip=slip) for command, slip, name, gives in _COMMANDS),
    *(Proposal("compute p.json", offered(slip, name), gives, {"p.json": fields}, slip=slip) for fields, slip, name, gives in _FIELDS),
    Proposal("check x.json --figures w.json", offered("attn_probs", "weights"), ("right",), FILE | {"w.json": {"attn_probs": PLAIN["weights"]}}, slip="attn_probs"),
    Proposal("check x.json --figures w.json --step attn_probs", offered("attn_probs", "weights"), ("right",), FILE | {"w.json": PLAIN["weights"]}, slip="attn_probs"),
    Proposal("compute x.json -o o.json --ony weights", offered("--ony", "--only"), Written("o.json", {"weights": PLAIN["weights"]}), FILE, slip="--ony"),
]  # fmt: skip
