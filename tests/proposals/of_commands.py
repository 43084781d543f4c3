"""What check, explain and batch propose."""

from __future__ import annotations

import json

import numpy as np

from tests.proposals.figures import (
    BATCH,
    FILE,
    HEADED,
    HIDDEN_LATER,
    LABELLED,
    PLAIN,
    STEPS_BACK,
    TOKENS,
    Proposal,
    Written,
    X,
    attend,
    csv_text,
    select_rows,
)

_RIGHT = ("right",)
_CHECK = "check x.json --figures w.json"
_SENT_BACK = {"dv": PLAIN["weights"].T @ np.ones((3, 4))}
_MINE = FILE | {"w.json": PLAIN["weights"]}
_STEPS = FILE | {"w.json": {"weights": PLAIN["weights"], "output": X}}
_AS_HEADS = {"q": HEADED[None, :2], "k": HEADED[None, :2], "v": HEADED[None, :2]}  # (B, H, T, d): two of two
_HEADED_CONTEXT = attend(HEADED[:2])["context"]  # (H, T, d)
_SQUARE_HEADS = {"p.json": _AS_HEADS, "w.json": {"context": _HEADED_CONTEXT[None]}}
_BTHD = {"p.json": _AS_HEADS, "w.json": {"context": _HEADED_CONTEXT.swapaxes(0, 1)[None]}}
_EXPECTING = {"w.json": {"weights": {"values": PLAIN["weights"][:2], "rows": [0, 1]}}}
_CELLS = "step,query,key,value\n" + "".join(
    f"weights,{i},{j},{float(PLAIN['weights'][i, j])!r}\n" for i in range(2) for j in range(3)
)
_TABLE = csv_text(PLAIN["weights"], ",the,cat,sat", TOKENS)
_SHEET = (f"{PLAIN['weights'][0, 0]:.4f}",)
_GRADIENT = (f"{PLAIN['weights'].sum(0)[0]:.4f}",)  # of v, where that of the context is all ones
_PUPIL = FILE | {"w.json": {"weights": PLAIN["weights"]}}
_BATCH = {"b.json": {"embeddings": BATCH}}
_DRAWN = ("seed 2",)
_MIXED = {"x.json": LABELLED | {"parameters": {"talking_post": np.eye(2)[::-1]}}}
_LINE = json.dumps({"embeddings": X.tolist()}) + "\n"

_WINDOWED = attend(X, visible=STEPS_BACK <= 1)
_CHUNKED = attend(X, visible=np.arange(3)[:, None] // 2 == np.arange(3) // 2)

PROPOSALS = [
    # ── settings
    Proposal("compute x.json", "and --no-config leaves settings out", PLAIN, FILE | {"attn.toml": "heads = 3\n"}, "compute x.json --no-config"),
    Proposal("compute x.json", "--no-config goes without it", PLAIN, FILE | {"attn.toml": "#" * 300_000}, "compute x.json --no-config"),
    Proposal("compute x.json", "did you mean 'precision'?", PLAIN, FILE | {"attn.toml": "presision = 3\n"}, "compute x.json", FILE | {"attn.toml": "precision = 3\n"}),
    # ── check
    Proposal(_CHECK, "--step weights", _RIGHT, _MINE, f"{_CHECK} --step weights"),
    Proposal(_CHECK, "--step checks only one of yours", _RIGHT, _STEPS, f"{_CHECK} --step weights"),
    Proposal(f"{_CHECK} --step context", "it has weights", _RIGHT, FILE | {"w.json": {"weights": PLAIN["weights"]}}, f"{_CHECK} --step weights"),
    Proposal(f"{_CHECK} --step all", "leave --step out to check all of them", _RIGHT, FILE | {"w.json": PLAIN}, _CHECK),
    Proposal("check x.json", "--figures MINE", _RIGHT, FILE | {"w.json": {"weights": PLAIN["weights"]}}, _CHECK),
    Proposal("check x.json", '"expected": {"weights": [[…]]}', _RIGHT, FILE, "check x.json", {"x.json": LABELLED | {"expected": {"weights": PLAIN["weights"]}}}),
    Proposal("check x.json --figures w.json", '"dout": 1 if the loss is the sum of the context', _RIGHT, FILE | {"w.json": _SENT_BACK}, _CHECK, {"w.json": _SENT_BACK | {"dout": 1}}),
    Proposal("check x.json --figures w.json", 'add "dout", the gradient of the loss', _RIGHT, FILE | {"w.json": _SENT_BACK}, _CHECK, {"w.json": _SENT_BACK | {"dout": np.ones((3, 4))}}),
    Proposal("check x.json --figures w.json", "call it dcontext", _RIGHT, FILE | {"w.json": _SENT_BACK | {"doutput": 1}}, _CHECK, {"w.json": _SENT_BACK | {"dcontext": 1}}),
    Proposal("check x.json --figures -", "--figures FILE", _RIGHT, FILE | {"w.json": {"weights": PLAIN["weights"]}}, _CHECK),
    Proposal(f"{_CHECK} --rule digits --rtol 1e-3", "they go with --rule close", _RIGHT, FILE | {"w.json": {"weights": PLAIN["weights"]}}, f"{_CHECK} --rule close --rtol 1e-3"),
    Proposal("check there --figures w.json", "each problem in a folder holds what it expects, under `expected`", _RIGHT, {"there/x.json": LABELLED | {"expected": {"weights": PLAIN["weights"]}}, "w.json": "[[1]]"}, "check there"),
    Proposal("check p.json --figures w.json", "--layout bhtd", _RIGHT, _SQUARE_HEADS, "check p.json --figures w.json --layout bhtd"),
    Proposal("check p.json --figures w.json", "or --layout bthd", _RIGHT, _BTHD, "check p.json --figures w.json --layout bthd"),
    Proposal("check p.json --figures w.json --layout bthd", "leave --layout out", _RIGHT, {"p.json": {"q": HEADED[None], "k": HEADED[None], "v": HEADED[None]}, "w.json": {"context": attend(HEADED)["context"][None]}}, "check p.json --figures w.json"),
    Proposal(_CHECK, '{"weights": {"values": …, "rows": [0, 1]}}', _RIGHT, FILE | {"w.json": {"weights": PLAIN["weights"][:2]}}, _CHECK, _EXPECTING),
    Proposal(_CHECK, "one figure per row under step,query,key,value in CSV", _RIGHT, FILE | {"w.json": {"weights": PLAIN["weights"][:2]}}, "check x.json --figures w.csv", {"w.csv": _CELLS}),
    Proposal("check x.json --figures w.csv --step weights", "did you mean 'sat'?", _RIGHT, FILE | {"w.csv": _TABLE.replace("sat,", "saat,")}, "check x.json --figures w.csv --step weights", {"w.csv": _TABLE}),
    Proposal("check x.json --figures w.csv --step context", "call them d0 … d3", _RIGHT, FILE | {"w.csv": csv_text(PLAIN["context"], ",a,b,e,f", TOKENS)}, "check x.json --figures w.csv --step context", {"w.csv": csv_text(PLAIN["context"], ",d0,d1,d2,d3", TOKENS)}),
    Proposal("check x.json --figures w.csv --step context", "or leave their names out", _RIGHT, FILE | {"w.csv": csv_text(PLAIN["context"], ",a,b,e,f", TOKENS)}, "check x.json --figures w.csv --step context", {"w.csv": csv_text(PLAIN["context"])}),
    Proposal("check x.json --figures w.csv", "all rows must have the same length", _RIGHT, FILE | {"w.csv": "1,2\n3\n"}, "check x.json --figures w.csv --step weights", {"w.csv": csv_text(PLAIN["weights"])}),
    Proposal("check x.json --figures w.json", "write numbers", _RIGHT, FILE | {"w.json": {"weights": [[True] * 3] * 3}}, _CHECK, {"w.json": {"weights": PLAIN["weights"]}}),
    Proposal("check x.json --figures w.tex", "attn explain … --blank STEP --format markdown writes a worksheet that can be read", ("weights[1][0:3]",), FILE | {"w.tex": "x"}, "explain x.json cat --blank weights --format markdown"),
    Proposal("check x.json --figures w.json", '{"weights": [[…], …]}', _RIGHT, FILE | {"w.json": "3"}, _CHECK, {"w.json": {"weights": PLAIN["weights"]}}),
    Proposal("check x.json --figures w.json --format csv", "it can be table, plain, markdown, html, json or npz", ('"right"',), FILE | {"w.json": {"weights": PLAIN["weights"]}}, f"{_CHECK} --format json"),
    Proposal("check x.json --figures w.txt", "attn explain … --blank STEP writes a worksheet", ("weights[1][0:3]",), FILE | {"w.txt": "nothing"}, "explain x.json cat --blank weights"),
    Proposal(_CHECK, "attn compute … -o result.json writes whole results", _RIGHT, FILE | {"w.json": {"schema": "attn.result/1"}}, "compute x.json -o result.json && check x.json --figures result.json"),
    Proposal(_CHECK, "transpose them: rows are query, columns dim", _RIGHT, FILE | {"w.json": {"context": PLAIN["context"].T}}, _CHECK, {"w.json": {"context": PLAIN["context"]}}),
    Proposal(f"{_CHECK} --no-reveal --identify", "leave --identify out", _RIGHT, _PUPIL, f"{_CHECK} --no-reveal"),
    Proposal(f"{_CHECK} --no-reveal --identify", "or --no-reveal", _RIGHT, _PUPIL, f"{_CHECK} --identify"),
    Proposal("compute x.json --bare -o b.json && check x.json --figures b.json", "write it again without --bare", _RIGHT, FILE, "compute x.json -o b.json --force && check x.json --figures b.json"),
    # ── explain
    Proposal("explain x.json the --answers", "add --blank STEP,…", _SHEET, FILE, "explain x.json the --answers --blank weights"),
    Proposal("explain x.json the --blank weights --grad ones", "leave --grad out", ("weights[0][0:3]",), FILE, "explain x.json the --blank weights"),
    Proposal("explain x.json the --blank weights --grad ones", "or --blank", _GRADIENT, FILE, "explain x.json the --grad ones"),
    Proposal("explain x.json --at query=1:3", "--at query=1", ("cat",), FILE, "explain x.json --at query=1"),
    Proposal("explain x.json --at query=1:3", "or a page for each of them: -o FOLDER", Written("out/query-2.md", (f"{PLAIN['weights'][2, 0]:.4f}",)), FILE, "explain x.json --at query=1:3 -o out"),
    Proposal("explain x.json the --seeds 1,2 --projection randn", "-o FOLDER", Written("out/seed-2.md", _DRAWN), FILE, "explain x.json the --seeds 1,2 --projection randn -o out"),
    Proposal("explain x.json the --seeds 1,2 -o out", "--projection randn", Written("out/seed-2.md", _DRAWN), FILE),
    Proposal("explain x.json the --seeds 1,2 --projection randn --blank weights --answers -o out", "leave --answers out", Written("out/keys/seed-2.md", _DRAWN), FILE, "explain x.json the --seeds 1,2 --projection randn --blank weights -o out"),
    Proposal("explain b.json 1 --at batch=0:2", "--at batch=0", (f"{attend(BATCH)['weights'][0, 1, 0]:.4f}",), _BATCH, "explain b.json 1 --at batch=0"),
    Proposal("explain x.json the --blank exponentials", "--blank exponentials,weights", ("weights[0][0:3]",), FILE, "explain x.json the --blank exponentials,weights"),
    Proposal("explain x.json the --blank weights,context --at key=0:2", "leave --at key out", ("context[0][0:4]",), FILE, "explain x.json the --blank weights,context"),
    Proposal("explain x.json the --heads 2 --head-mixing talking-heads --blank weights --at head=0", "leave --at head out", ("weights[0][0][0:3]", "weights[1][0][0:3]"), _MIXED, "explain x.json the --heads 2 --head-mixing talking-heads --blank weights"),
    Proposal("explain p.json 0 --blank q", "leave a later step blank, such as scores", ("scores[0][0:3]",), {"p.json": {"q": X, "k": X, "v": X}}, "explain p.json 0 --blank scores"),
    Proposal("explain x.json the --only weights", "attn compute has it", {"weights": PLAIN["weights"]}, FILE, "compute x.json --only weights"),
    Proposal("explain x.json the --grad g.json", "--grad ones", _GRADIENT, FILE | {"g.json": "[[1]]"}, "explain x.json the --grad ones"),
    Proposal("explain x.json the --grad g.json", "or a gradient of the context's shape", _GRADIENT, FILE | {"g.json": "[[1]]"}, "explain x.json the --grad g.json", {"g.json": np.ones((3, 4))}),
    # ── batch
    Proposal("batch x.json", "-o DIR", Written("out/x.json", PLAIN), FILE, "batch x.json -o out"),
    Proposal("batch x.json", "or -o - for JSON lines", PLAIN, FILE, "batch x.json -o -"),
    Proposal("batch x.json -o ''", "-o DIR", Written("out/x.json", PLAIN), FILE, "batch x.json -o out"),
    Proposal("batch x.json -o w.txt", "results go to a folder: -o DIR", Written("out/x.json", PLAIN), FILE | {"w.txt": ""}, "batch x.json -o out"),
    Proposal("batch x.json -o - --format npz", "-o DIR", Written("out/x.npz", PLAIN), FILE, "batch x.json -o out --format npz"),
    Proposal("batch x.json -o - --retry-failed", "-o DIR", "bad-option", FILE, "batch x.json -o out --retry-failed"),
    Proposal("batch x.json -o out --retry-failed", "leave --retry-failed out", Written("out/x.json", PLAIN), FILE, "batch x.json -o out"),
    Proposal("batch x.json -o - --dry-run", "-o DIR", ("x.json", "out/x.json"), FILE, "batch x.json -o out --dry-run"),
    Proposal("compute x.ndjson --dry-run", "attn batch x.ndjson -o DIR --dry-run", ("x.ndjson", "out/x.ndjson"), {"x.ndjson": _LINE}, "batch x.ndjson -o out --dry-run"),
    Proposal("batch manifest.csv -o out --format ndjson", "--keep-suffix", Written("out/manifest.csv.ndjson", PLAIN), {"manifest.csv": csv_text(X)}, "batch manifest.csv -o out --format ndjson --keep-suffix"),
    Proposal("batch x.json x.csv -o out", "--keep-suffix tells them apart", Written("out/x.csv.json", PLAIN), FILE | {"x.csv": csv_text(X)}, "batch x.json x.csv -o out --keep-suffix"),
    Proposal("batch a/x.json b/x.json -o out", "give a folder above both", Written("out/b/x.json", HIDDEN_LATER), {"in/a/x.json": LABELLED, "in/b/x.json": LABELLED, "a/x.json": LABELLED, "b/x.json": LABELLED}, "batch in -o out --causal"),
    Proposal("batch x.json -o .", "another folder for the results: -o DIR", Written("out/x.json", PLAIN), FILE, "batch x.json -o out"),
    Proposal("batch x.json -o out", "--force to replace it", Written("out/x.json", PLAIN), FILE | {"out/x.json": "mine"}, "batch x.json -o out --force"),
    Proposal("batch x.json -o out", "another folder", Written("more/x.json", PLAIN), FILE | {"out/x.json": "mine"}, "batch x.json -o more"),
    Proposal("batch x.json -o out && batch x.json -o out --causal", "another folder", Written("more/x.json", HIDDEN_LATER), FILE, "batch x.json -o more --causal"),
    Proposal("batch x.json -o out && batch x.json -o out --causal", "--force to compute everything again", Written("out/x.json", HIDDEN_LATER), FILE, "batch x.json -o out --causal --force"),
    Proposal("batch x.json -o x.parquet && batch x.parquet -o x.parquet --force", "another name for the table: -o FILE", Written("other.parquet", PLAIN), FILE, "batch x.json -o other.parquet"),
    Proposal("batch x.json -o out --fail-fast --max-failures 2", "give only one of them", Written("out/x.json", PLAIN), FILE, "batch x.json -o out --max-failures 2"),
    Proposal("batch x.json -o out --max-failures x", "such as 10 or 5%", Written("out/x.json", PLAIN), FILE, "batch x.json -o out --max-failures 5%"),
    Proposal("batch p.ndjson -o out --format csv", "--format ndjson", Written("out/p.ndjson", PLAIN), {"p.ndjson": _LINE}, "batch p.ndjson -o out --format ndjson"),
    Proposal("batch - -o out", "attn compute - --input-format ndjson", PLAIN, {"-": _LINE}, "compute - --input-format ndjson"),
    Proposal("batch x.json -o out --max-size lots", "such as 500MB, 2GiB, or a number of bytes", Written("out/x.json", PLAIN), FILE, "batch x.json -o out --max-size 500MB"),
    Proposal("batch x.json -o out --max-time ages", "such as 90 (seconds), 10m or 2h", Written("out/x.json", PLAIN), FILE, "batch x.json -o out --max-time 10m"),
    Proposal("", "attn demo shows an example", ("0.7662",), {}, "demo"),
    Proposal("help", "attn --help", ("Commands",), {}, "--help"),
    Proposal("help", "or attn COMMAND --help", ("INPUT",), {}, "compute --help"),
    Proposal("help compute", "attn compute --help", ("INPUT",), {}, "compute --help"),
    Proposal("version", "attn --version", ("attn ",), {}, "--version"),
    Proposal("x.json", "attn compute x.json", PLAIN, FILE, "compute x.json"),
    Proposal("in", "attn batch in -o DIR", Written("out/x.json", PLAIN), {"in/x.json": LABELLED}, "batch in -o out"),
    Proposal("--json x.json", "attn compute INPUT --json", PLAIN, FILE, "compute x.json --json"),
    Proposal("compute x.json --verbose", "attn compute --help-all lists every option", ("--chain",), FILE, "compute --help-all"),
    Proposal("compute x.json --size 2", "--mask chunk:size=…", _CHUNKED, FILE, "compute x.json --mask chunk:size=2"),
    Proposal("check x.json --at query=1 --figures x.json", "attn compute, explain, plot, batch and demo have it", select_rows(PLAIN, slice(1, 2)), FILE, "compute x.json --at query=1"),
    Proposal("compute x.json --mask left=1", "window:left=1", _WINDOWED, FILE, "compute x.json --mask window:left=1"),
    Proposal("compute x.json --mask size=2", "chunk:size=2", _CHUNKED, FILE, "compute x.json --mask chunk:size=2"),
    Proposal("compute x.json --dropout 0.5,seed=3", "dropout:p=0.5,seed=3", {"dropout_weights": (3, 3)}, FILE, "compute x.json --dropout dropout:p=0.5,seed=3 --only dropout_weights"),
    Proposal("compute", "attn compute --help explains it", ("INPUT",), {}, "compute --help"),
]  # fmt: skip
