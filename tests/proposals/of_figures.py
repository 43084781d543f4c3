"""What plot and `batch --plot` propose."""

from __future__ import annotations

import json

import numpy as np

from tests.proposals.figures import FILE, HEADED, LABELLED, Proposal, Written, X

_DRAWN = Written("a.svg", ("<svg",))
_PLOT = "plot x.json -o a.svg"
_LINES = {"problems.ndjson": (json.dumps({"embeddings": X.tolist()}) + "\n") * 2}
_SAVED = "compute x.json -o result.json -q && plot result.json -o a.svg"
_RUN = "batch x.json -o out"

PROPOSALS = [
    Proposal("plot x.json", "-o FILE.png, .svg, .pdf or .html", _DRAWN, FILE, _PLOT),
    Proposal("plot x.json", "or --format svg for standard output", ("<svg",), FILE, "plot x.json --format svg"),
    Proposal("plot problems.ndjson -o a.svg", "attn plot - --input-format json", _DRAWN, _LINES | {"-": json.dumps(LABELLED, default=np.ndarray.tolist)}, "plot - --input-format json -o a.svg"),
    Proposal(f"{_PLOT} --width wide", "--width 8.5cm", _DRAWN, FILE, f"{_PLOT} --width 8.5cm"),
    Proposal(f"{_PLOT} --width 1cm", "--width 8.5cm", _DRAWN, FILE, f"{_PLOT} --width 8.5cm"),
    Proposal(f"{_PLOT} --width 8", "--width 8cm, or --width 8in", _DRAWN, FILE, f"{_PLOT} --width 8cm"),
    Proposal(f"{_PLOT} --width 8", "--width 8cm, or --width 8in", _DRAWN, FILE, f"{_PLOT} --width 8in"),
    Proposal(f"{_PLOT} --width 50in --dpi 2400", "a smaller --dpi", _DRAWN, FILE, f"{_PLOT} --width 50in --dpi 20"),
    Proposal(f"{_PLOT} --only top_keys --top 2", "--only top_weights", _DRAWN, FILE, f"{_PLOT} --only top_weights --top 2"),
    Proposal(f"{_PLOT} --only context --kind heads", "--only weights, or --kind heat", _DRAWN, FILE, f"{_PLOT} --only context --kind heat"),
    Proposal(f"{_PLOT} --only context --kind flow --at query=0", "--only weights, or --kind heat", _DRAWN, FILE, f"{_PLOT} --only weights --kind flow --at query=0"),
    Proposal(f"{_PLOT} --kind flow", "--at query=0 chooses the first", _DRAWN, FILE, f"{_PLOT} --kind flow --at query=0"),
    Proposal(f"{_PLOT} --kind heads", "--heads 2 makes two of one", _DRAWN, FILE, f"{_PLOT} --kind heads --heads 2"),
    Proposal(f"{_PLOT} --kind heads --heads 4", "--at head=0 --at head=1 chooses two of them", _DRAWN, FILE, f"{_PLOT} --kind heads --heads 4 --at head=0 --at head=1"),
    Proposal("plot b.json -o a.svg --heads 4", "--at batch=0:4 or --at head=0:4", _DRAWN, {"b.json": {"embeddings": np.tile(HEADED[:1], (37, 1, 1))}}, "plot b.json -o a.svg --heads 4 --at batch=0:4"),
    Proposal(f"{_SAVED} --only entropy", "attn compute INPUT --only entropy -o result.json", _DRAWN, FILE, "compute x.json --only entropy -o result.json --force && plot result.json -o a.svg"),
    Proposal(f"{_SAVED} --causal", "name the problem instead of its result", _DRAWN, FILE, f"{_PLOT} --causal"),
    Proposal(f"{_PLOT} --kind scores", "--only scores draws that step", _DRAWN, FILE, f"{_PLOT} --only scores"),
    Proposal("plot x.json -o a.html --title T", "draw a figure: -o FILE.svg", _DRAWN, FILE, f"{_PLOT} --title T"),
    Proposal("batch x.json -o - --plot svg", "-o DIR", Written("out/x.svg", ("<svg",)), FILE, f"{_RUN} --plot svg"),
    Proposal(f"{_RUN} --plot svg --format pdf", "leave --plot out, or --format", Written("out/x.svg", ("<svg",)), FILE, f"{_RUN} --plot svg"),
    Proposal("batch problems.ndjson -o out --plot svg", "leave --plot out", Written("out/problems.ndjson", ("weights",)), _LINES, "batch problems.ndjson -o out"),
]  # fmt: skip
