"""Options that errors propose: of a variant, of what is shown, and of where it goes."""

from __future__ import annotations

import numpy as np

from tests.helpers import draw_normal, softmax
from tests.proposals.figures import (
    BATCH,
    CAUSAL,
    FILE,
    HEADED,
    HIDDEN_LATER,
    PLAIN,
    PROJECTED,
    SLOPED,
    STEPS_BACK,
    TURNED,
    TWO_HEADS,
    W_K,
    W_Q,
    W_V,
    K,
    Proposal,
    Q,
    V,
    Written,
    X,
    attend,
    csv_text,
    select_rows,
    turn,
)

_QKV = {"p.json": {"q": Q, "k": K, "v": V}}
_LAST = np.arange(5) <= np.arange(2)[:, None] + 3  # the last query beside the last key
_SHARED = {"embeddings": X, "parameters": {"w_k": W_K[:, :2], "w_v": W_V[:, :2]}}
_GROUPED = attend(X, np.tile(X @ W_K[:, :2], 2), np.tile(X @ W_V[:, :2], 2), heads=2)
_EXPONENTIALS = np.exp(X @ X.T / 2)
_BESIDE_NOTHING = _EXPONENTIALS / (1 + _EXPONENTIALS.sum(-1, keepdims=True))
_CAPPED = softmax(np.where(CAUSAL, 50 * np.tanh(turn(X) @ turn(X).T / 2 / 50), -np.inf))[None]  # of one head
_WINDOW = "'causal and (window:left=2 or prefix:length=4)'"
_BLIND = "compute x.json --mask 'causal and not prefix:length=1' --empty-rows"
_SIGHTED = attend(X, visible=CAUSAL & (np.arange(3) > 0))["weights"][1:]
_TWICE = {"x.json": {"tokens": ["a", "b", "a"], "embeddings": X}}
_ITEMS = {"x.json": {"tokens": [["a", "b", "c"], ["b", "a", "c"]], "embeddings": BATCH}}
_THD, _HTD = HEADED.swapaxes(0, 1), HEADED  # as heads, tokens, columns
_REPEATED = {"x.json": {"embeddings": X, "positions": [0, 1, 0]}}
_TIDY = ("query_token", "key_token", *(repr(float(w)) for w in PLAIN["weights"][0]))
_DECODER = {
    "p.json": {"embeddings": X, "memory": {"embeddings": K}, "parameters": {"bias_table": draw_normal(31, 32, 2)}}
}
_LOWER = "1,0,0\n1,1,0\n1,1,1\n"  # the lower triangle
_STREAM = {"p.ndjson": '{"embeddings": [[1, 0], [0, 1]]}\n'}

PROPOSALS = [
    # ── the variant
    Proposal("compute p.json --causal", "--align top-left", attend(Q, K, V, visible=np.tri(2, 5, dtype=bool)), _QKV),
    Proposal("compute p.json --causal", "--align bottom-right", attend(Q, K, V, visible=_LAST), _QKV),
    Proposal("compute p.json --causal", "or give positions", attend(Q, K, V, visible=_LAST), _QKV, "compute p.json --causal", {"p.json": _QKV["p.json"] | {"positions": [3, 4]}}),
    Proposal("compute x.json --window 2", "--window 2,0", HIDDEN_LATER, FILE, "compute x.json --window 2,0"),
    Proposal("compute x.json --rope --alibi", "give only one of them", TURNED, FILE, "compute x.json --rope"),
    Proposal("compute x.json --rope --alibi", "give only one of them", SLOPED, FILE, "compute x.json --alibi"),
    Proposal("compute x.json --mask dilated", "write dilated:rate=…", attend(X, visible=STEPS_BACK % 2 == 0), FILE, "compute x.json --mask dilated:rate=2"),
    Proposal("compute x.json --mask window:left", "write left=…", attend(X, visible=STEPS_BACK <= 1), FILE, "compute x.json --mask window:left=1"),
    Proposal("compute x.json --mask '(causal'", _WINDOW, HIDDEN_LATER, FILE, f"compute x.json --mask {_WINDOW}"),
    Proposal("compute x.json --chain ,", "for a chain without links, write none", "left-out", FILE, "compute x.json --chain none"),
    Proposal("compute x.json --chain scale --causal", "add mask to --chain where it should act", HIDDEN_LATER, FILE, "compute x.json --chain scale,mask --causal"),
    Proposal("compute x.json --chain mask --causal", "or give --scale none", attend(X, visible=CAUSAL, scale=1), FILE, "compute x.json --chain mask --causal --scale none"),
    Proposal("compute x.json --chain scale --temperature 2", "add temperature to the chain where it should act", attend(X, scale=0.25), FILE, "compute x.json --chain scale,temperature --temperature 2"),
    Proposal("compute x.json --chain scale --temperature 2", "or give --temperature none", PLAIN, FILE, "compute x.json --chain scale --temperature none"),
    Proposal("compute x.json --sink zero --normalizer sigmoid", "leave the sink out", {"weights": 1 / (1 + 1 / _EXPONENTIALS)}, FILE, "compute x.json --normalizer sigmoid"),
    Proposal("compute x.json --sink zero --normalizer sigmoid", "or use --normalizer softmax", {"weights": _BESIDE_NOTHING}, FILE, "compute x.json --sink zero --normalizer softmax"),
    Proposal("compute x.json --heads 3", "use 1, 2 or 4 heads", TWO_HEADS, FILE, "compute x.json --heads 2"),
    Proposal("compute x.json --heads 4 --kv-heads 3", "with 4 heads, use 1, 2 or 4 kv heads", "shape-mismatch", FILE, "compute x.json --heads 4 --kv-heads 2"),
    Proposal("compute x.json --kv-heads 2", "--heads 4", "shape-mismatch", FILE),
    Proposal("compute x.json --heads 2 --kv-heads 1", "fewer kv heads need w_k and w_v of 2 columns", _GROUPED, FILE, "compute x.json --heads 2 --kv-heads 1", {"x.json": _SHARED}),
    Proposal("compute x.json --projection given", "--projection linear:dim=…", {"weights": (3, 3), "context": (3, 2)}, FILE, "compute x.json --projection linear:dim=2,seed=1"),
    Proposal("compute x.json --variant multi-head", "add --heads H", TWO_HEADS, FILE, "compute x.json --variant multi-head --heads 2"),
    Proposal("compute x.json --variant grouped-query --heads 2", "add --kv-heads G", _GROUPED, {"x.json": _SHARED}, "compute x.json --variant grouped-query --heads 2 --kv-heads 1"),
    Proposal("compute x.json --variant sliding-window", "--window 2,0", HIDDEN_LATER, FILE),
    Proposal("compute x.json --variant cross", "--with memory=FILE", attend(X, K), FILE | {"m.json": {"embeddings": K}}, "compute x.json --variant cross --with memory=m.json"),
    Proposal("compute p.json --variant t5-decoder --heads 2", "--variant cross --scale none", attend(X, K, heads=2, scale=1), _DECODER, "compute p.json --variant cross --scale none --heads 2"),
    Proposal("compute p.json --variant t5-decoder --heads 2 --align top-left", "--variant cross --scale none", attend(X, K, heads=2, scale=1), _DECODER, "compute p.json --variant cross --scale none --heads 2"),
    Proposal("compute x.json --variant gemma2 --heads 1", "name one, counted from 0: gemma2:layer=0", {"weights": _CAPPED}, FILE, "compute x.json --variant gemma2:layer=0 --window 9,0 --heads 1 --kv-heads 1"),
    Proposal("compute x.json --variant gemma2:0 --heads 1", "write gemma2:layer=0", {"weights": _CAPPED}, FILE, "compute x.json --variant gemma2:layer=0 --window 9,0 --heads 1 --kv-heads 1"),
    Proposal("compute x.json --variant gpt2:layer=1 --heads 2", "write gpt2", attend(X, heads=2, visible=CAUSAL), FILE, "compute x.json --variant gpt2 --heads 2"),
    Proposal("compute x.json --device gpu", "it can be cpu", PLAIN, FILE, "compute x.json --device cpu"),
    Proposal("compute x.json --device mps --dtype float64", "--device cpu", PLAIN, FILE, "compute x.json --device cpu --dtype float64"),
    Proposal("compute x.json --schedule fused --softcap 5", "leave --schedule out", {"weights": softmax(5 * np.tanh(X @ X.T / 10))}, FILE, "compute x.json --softcap 5"),
    *(Proposal(f"{_BLIND} error", "--empty-rows zero, nan or uniform", {"weights": np.vstack([np.full(3, value), _SIGHTED])}, FILE, f"{_BLIND} {word}") for word, value in (("zero", 0), ("nan", np.nan), ("uniform", 1 / 3))),
    Proposal("compute x.json --scale 1/3", "write 0.3333333333333333", attend(X, scale=1 / 3), FILE, "compute x.json --scale 0.3333333333333333"),
    # ── what a warning proposes
    Proposal("compute x.json", "--heads 1", {"weights": attend(HEADED)["weights"][:, None]}, {"x.json": {"q": HEADED, "k": HEADED, "v": HEADED}}),
    Proposal("compute x.json", 'add "layout": "thd"', {"weights": attend(_THD)["weights"]}, {"x.json": {"q": HEADED, "k": HEADED, "v": HEADED}}, "compute x.json", {"x.json": {"q": HEADED, "k": HEADED, "v": HEADED, "layout": "thd"}}),
    Proposal("compute x.json", 'or "htd"', {"weights": attend(_HTD)["weights"]}, {"x.json": {"q": HEADED, "k": HEADED, "v": HEADED}}, "compute x.json", {"x.json": {"q": HEADED, "k": HEADED, "v": HEADED, "layout": "htd"}}),
    Proposal("compute x.json --causal", "--mask-by index", HIDDEN_LATER, _REPEATED),
    # ── what is shown
    Proposal("compute x.json --only top_weights", "--top 3", {"top_weights": np.sort(PLAIN["weights"])[:, ::-1]}, FILE),
    Proposal("compute x.json --only ,", "--only weights,context", PLAIN, FILE, "compute x.json --only weights,context"),
    Proposal("compute x.json --only ,", "--only all", PLAIN, FILE, "compute x.json --only all"),
    Proposal("compute x.json --only output", "weights and context", {"context": PLAIN["context"]}, FILE, "compute x.json --only context"),
    Proposal("compute x.json --at query", "--at query=shiny", "unknown-token", FILE, "compute x.json --at query=shiny"),
    Proposal("compute x.json --at query", "--at head=0", "absent-axis", FILE, "compute x.json --at head=0"),
    Proposal("compute x.json --only weights --at query", "--at key=2:5", {"weights": PLAIN["weights"][:, 2:]}, FILE, "compute x.json --only weights --at key=2:5"),
    Proposal("compute x.json --only context --at dim=the", "--at dim=0", {"context": PLAIN["context"][:, :1]}, FILE, "compute x.json --only context --at dim=0"),
    Proposal("compute x.json --at query=7", "indices run from 0 to 2", select_rows(PLAIN, slice(2, 3)), FILE, "compute x.json --at query=2"),
    Proposal("compute p.json --only q,context --at dim=5", "--only can leave it out", {"context": attend(Q, K, V)["context"][:, 5:]}, _QKV, "compute p.json --only context --at dim=5"),
    Proposal("compute x.json --at query=a", "--at query=0", select_rows(PLAIN, slice(1)), _TWICE, "compute x.json --at query=0"),
    Proposal("compute x.json --at query=a", "--at query=0, or 2", select_rows(PLAIN, slice(2, 3)), _TWICE, "compute x.json --at query=2"),
    Proposal("compute x.json --at query=a", "--at batch=0 --at query=a", {n: y[:1, :1] for n, y in attend(BATCH).items()}, _ITEMS, "compute x.json --at batch=0 --at query=a"),
    # ── where it goes
    Proposal("compute x.json --json --format csv", "give only one of them", PLAIN, FILE, "compute x.json --json"),
    Proposal("compute x.json -o out.foo", "add --format", Written("out.foo", PLAIN), FILE, "compute x.json -o out.foo --format json"),
    Proposal("compute x.json -o out", "add --format", Written("out", PLAIN), FILE, "compute x.json -o out --format json"),
    Proposal("compute x.json --format npz", "--output result.npz", Written("result.npz", PLAIN), FILE),
    Proposal("compute x.json -o out.json", "--force", Written("out.json", PLAIN), FILE | {"out.json": "mine"}),
    Proposal("compute x.json -o there/out.json", "mkdir -p there", Written("there/out.json", PLAIN), FILE, "compute x.json -o there/out.json", {"there/other.txt": ""}),
    Proposal("compute x.json -o out.json --format npz", "--format json", Written("out.json", PLAIN), FILE, "compute x.json -o out.json --format json"),
    Proposal("compute x.json -o out.json --format npz", "or a file called out.npz", Written("out.npz", PLAIN), FILE, "compute x.json -o out.npz --format npz"),
    Proposal("compute x.json --bare --format csv", "--json", PLAIN, FILE, "compute x.json --bare --json"),
    Proposal("compute x.json --bare --format csv", "or --format ndjson", PLAIN, FILE, "compute x.json --bare --format ndjson"),
    Proposal("compute x.json --tidy --json", "--format csv", _TIDY, FILE, "compute x.json --tidy --format csv"),
    Proposal("compute x.json --tidy --json", "or --format tsv", _TIDY, FILE, "compute x.json --tidy --format tsv"),
    Proposal("compute x.json --shared-js", "-o FILE.html", Written("x.html", ('<script src="attn-',)), FILE, "compute x.json --shared-js -o x.html"),
    Proposal("compute x.json --shared-js -f html", "-o FILE.html", Written("x.html", ('<script src="attn-',)), FILE, "compute x.json --shared-js -o x.html"),
    Proposal("compute x.json --standalone", "--format latex", (r"\documentclass", r"\end{document}"), FILE, "compute x.json --standalone --format latex"),
    Proposal("compute x.json -f markdown --heat on", "--format table", ("shaded 0 ", "░"), FILE, "compute x.json --heat on --format table"),
    Proposal("compute x.json -o out.csv --heat map", "or -o FILE.txt", ("for all rows",), FILE, "compute x.json -o out.txt --heat map && compute x.json -f table --heat map"),
    Proposal("compute x.json -f table --heat off --normalize row", "--heat on", ("% of the row's largest",), FILE, "compute x.json -f table --heat on --normalize row"),
    Proposal("compute p.ndjson -o out.npz", "-o FILE.ndjson", Written("out.ndjson", attend(np.eye(2))), _STREAM, "compute p.ndjson -o out.ndjson"),
    Proposal("compute p.ndjson -o out.parquet", "attn batch p.ndjson -o out.parquet makes one table of them", Written("out.parquet", attend(np.eye(2))), _STREAM, "batch p.ndjson -o out.parquet"),
    Proposal("compute p.ndjson --format csv", "--format ndjson", {"weights": attend(np.eye(2))["weights"]}, _STREAM, "compute p.ndjson --format ndjson"),
    # ── fields from other files
    Proposal("compute x.json --with w_q.csv", "--with parameters.w_q=w_q.csv", PROJECTED, FILE | {"w_q.csv": csv_text(W_Q)}, "compute x.json --with parameters.w_q=w_q.csv"),
    Proposal("compute x.json --with w_q=w.csv", "learned arrays go under parameters: --with parameters.w_q=w.csv", PROJECTED, FILE | {"w.csv": csv_text(W_Q)}, "compute x.json --with parameters.w_q=w.csv"),
    Proposal("compute x.json --with parameters.w_q=w.csv", "--with parameters.w_q=FILE:drop=0", PROJECTED, FILE | {"w.csv": csv_text(W_Q, labels=["a", "b", "c", "d"])}, "compute x.json --with parameters.w_q=w.csv:drop=0"),
    Proposal("compute x.json --with parameters.w_q=w.csv", "a file with only the numbers is read as w_q", PROJECTED, FILE | {"w.csv": csv_text(W_Q, labels=["a", "b", "c", "d"])}, "compute x.json --with parameters.w_q=w.csv", {"w.csv": csv_text(W_Q)}),
    Proposal("compute x.json --with mask=m.csv", "--with mask=m.csv:ones=visible as in Hugging Face's attention_mask", HIDDEN_LATER, FILE | {"m.csv": _LOWER}, "compute x.json --with mask=m.csv:ones=visible"),
    Proposal("compute x.json --with mask=m.csv", "--with mask=m.csv:ones=hidden as in nn.MultiheadAttention", HIDDEN_LATER, FILE | {"m.csv": "0,1,1\n0,0,1\n0,0,0\n"}, "compute x.json --with mask=m.csv:ones=hidden"),
    Proposal("compute x.json --with mask=m.csv", "--with bias=m.csv adds the numbers to the scores", attend(X, added=np.tri(3)), FILE | {"m.csv": _LOWER}, "compute x.json --with bias=m.csv"),
    Proposal("compute x.json --with mask=m.csv", "write true or false", HIDDEN_LATER, FILE | {"m.csv": _LOWER.replace("1", "2")}, "compute x.json --with mask=m.csv", {"m.csv": _LOWER.replace("0", "false").replace("1", "true")}),
    Proposal("compute x.json --with mask=m.csv", "to add numbers to the scores, --with bias=m.csv", attend(X, added=2 * np.tri(3)), FILE | {"m.csv": _LOWER.replace("1", "2")}, "compute x.json --with bias=m.csv"),
    Proposal("compute x.json --with mask=-", "--with mask=FILE", HIDDEN_LATER, FILE | {"m.json": CAUSAL}, "compute x.json --with mask=m.json"),
    Proposal("compute x.json --with mask=https://example.org/m.csv", "--with mask=FILE", HIDDEN_LATER, FILE | {"m.json": CAUSAL}, "compute x.json --with mask=m.json"),
]  # fmt: skip
