"""What errors propose for the form of a file: its columns, quotes, encoding, format and name."""

from __future__ import annotations

import json

import numpy as np
import safetensors.numpy

from tests.proposals.figures import FILE, LABELLED, PLAIN, TOKENS, Proposal, X, attend, csv_text
from tests.validation.bad_files import npy

_RUN = "compute e.csv"
_COUNTED = {"e.csv": csv_text(X, "0,1,2,3")}  # a header, or a token's vector
_COUNTED_ROWS = attend(np.vstack([np.arange(4.0), X]))
_INDEXED = {"e.csv": csv_text(np.hstack([[[5], [6], [7]], X]), "id,d0,d1,d2,d3")}
_WITH_ID = attend(np.hstack([[[5], [6], [7]], X]))
_FREQUENT = {"e.csv": csv_text(X, "token,d0,d1,d2,d3,freq", TOKENS, "7")}
_WITH_FREQUENCY = attend(np.hstack([X, np.full((3, 1), 7)]))
_NUMBERED = {"e.csv": csv_text(X, ",0,1,2,3", ["0", "1", "2"])}  # as pandas writes it, with an index
_TWICE = {"e.csv": csv_text(np.hstack([X, [[9]] * 3]), "d0,d1,d2,d3,d3")}
_NPY = npy(X)
_JSON = json.dumps({"embeddings": X.tolist()})
_EIGHTHS = np.array([[0.5, 1.25, -2], [1.5, -0.125, 3]])
_BLANKS = csv_text(X, labels=TOKENS).replace(",", " ")
_WORDS = csv_text(X, labels=["thé", "cat", "sat"])


def rewrite(says, text, mended, gives=PLAIN, followed="") -> Proposal:
    return Proposal(_RUN, says, gives, {"e.csv": text}, followed or _RUN, {"e.csv": mended})


PROPOSALS = [
    # ── the header and the columns
    Proposal(_RUN, "--header yes", PLAIN, _COUNTED, f"{_RUN} --header yes"),
    Proposal(_RUN, "--header no", _COUNTED_ROWS, _COUNTED, f"{_RUN} --header no"),
    Proposal(_RUN, "--header yes", PLAIN, {"e.csv": csv_text(X, "token,0,1,2,3", TOKENS)}, f"{_RUN} --header yes"),
    Proposal(_RUN, "--token-column id", PLAIN, _INDEXED, f"{_RUN} --token-column id"),
    Proposal(_RUN, "--drop id", PLAIN, _INDEXED, f"{_RUN} --drop id"),
    Proposal(_RUN, "--columns id,d0,d1,d2,d3 takes all as dimensions", _WITH_ID, _INDEXED, f"{_RUN} --columns id,d0,d1,d2,d3"),
    Proposal(_RUN, "--drop freq", PLAIN, _FREQUENT, f"{_RUN} --drop freq"),
    Proposal(_RUN, "--columns d0,d1,d2,d3,freq", _WITH_FREQUENCY, _FREQUENT, f"{_RUN} --columns d0,d1,d2,d3,freq"),
    Proposal(f"{_RUN} --drop d3", "their places tell them apart: 3 or 4", PLAIN, _TWICE, f"{_RUN} --drop 4"),
    Proposal(f"{_RUN} --header no --token-column 9", "there are 5 columns, 0 … 4", PLAIN, {"e.csv": csv_text(X, labels=TOKENS)}, f"{_RUN} --header no --token-column 0"),
    # an index without a name, as pandas writes it: its number names it
    Proposal(f"{_RUN} --header yes", "--token-column place:0", PLAIN, _NUMBERED),
    Proposal(f"{_RUN} --header yes", "--drop place:0", PLAIN, _NUMBERED),
    Proposal(f"{_RUN} --header yes", "--columns place:0,name:0,name:1,name:2,name:3", attend(np.column_stack([[0, 1, 2], X])), _NUMBERED),
    Proposal(f"{_RUN} --header yes --columns 0,1,2,3", "by names: --columns name:0,name:1,name:2,name:3", PLAIN, _NUMBERED, f"{_RUN} --header yes --columns name:0,name:1,name:2,name:3"),
    Proposal(f"{_RUN} --header yes --columns 0,1,2,3", "by places, counted from 0: --columns place:0,place:1,place:2,place:3", attend(np.column_stack([[0, 1, 2], X[:, :3]])), _NUMBERED, f"{_RUN} --header yes --columns place:0,place:1,place:2,place:3"),
    Proposal(f"{_RUN} --header yes --drop 0", "by places, counted from 0: --drop place:0", PLAIN, _NUMBERED, f"{_RUN} --header yes --drop place:0"),
    Proposal(f"{_RUN} --header yes --drop 0", "by names: --drop name:0", "unclear-tokens", _NUMBERED, f"{_RUN} --header yes --drop name:0"),
    Proposal(f"{_RUN} --header yes --token-column 0", "by places, counted from 0: --token-column place:0", PLAIN, _NUMBERED, f"{_RUN} --header yes --token-column place:0"),
    Proposal(f"{_RUN} --header yes --token-column 0", "by names: --token-column name:0", "unclear-columns", _NUMBERED, f"{_RUN} --header yes --token-column name:0"),
    Proposal(_RUN, "--drop 0", PLAIN, {"e.csv": csv_text(X, ",d0,d1,d2,d3", ["0", "1", "2"])}, f"{_RUN} --drop 0"),
    Proposal(_RUN, "--token-column token", PLAIN, {"e.csv": csv_text(X, "token,d0,d1,d2,d3", ["1", "nan", "3"])}, f"{_RUN} --token-column token"),
    # ── rows and cells
    rewrite("add the missing value", csv_text(X, labels=TOKENS).replace(repr(float(X[1, 3])), "").replace(",\n", "\n"), csv_text(X, labels=TOKENS)),
    rewrite("remove the extra values", csv_text(X, labels=TOKENS) + "on,1,2,3,4,5\n", csv_text(np.vstack([X, [1, 2, 3, 4]]), labels=[*TOKENS, "on"]), attend(np.vstack([X, [1, 2, 3, 4]]))),
    rewrite("remove it; blank lines may only follow the last row", csv_text(X[:1]) + "\n" + csv_text(X[1:]), csv_text(X)),
    rewrite("write the number", "a,1,\nb,2,3\n", "a,1,4\nb,2,3\n", attend(np.array([[1.0, 4], [2, 3]]))),
    rewrite("write digits without underscores", "a,1_0,2\nb,1,1\n", "a,10,2\nb,1,1\n", attend(np.array([[10.0, 2], [1, 1]]))),
    rewrite("write a decimal point", 'a,"1,5",2\nb,1,1\n', "a,1.5,2\nb,1,1\n", attend(np.array([[1.5, 2], [1, 1]]))),
    rewrite("or separate columns with ;", 'a,"1,5",2\nb,1,1\n', "a;1,5;2\nb;1;1\n", attend(np.array([[1.5, 2], [1, 1]]))),
    rewrite("write one row per token: cat,0.1,0.2", "", "cat,0.1,0.2\n", attend(np.array([[0.1, 0.2]]))),
    rewrite("a token that is a quotation mark is written \"\"\"\" in CSV", '",1,0\nHello,0,1\n",1,1\n', '"""",1,0\nHello,0,1\n"""",1,1\n', attend(np.array([[1.0, 0], [0, 1], [1, 1]]))),
    # ── matrices as programs print them, and lines with counts
    rewrite("or tr -d '[]'", str(_EIGHTHS), str(_EIGHTHS).replace("[", "").replace("]", ""), attend(_EIGHTHS)),
    rewrite("put each row on a line of its own: tr -d '[]' | tr ';' '\\n'", "[0.5 1.25 -2; 1.5 -0.125 3]", "0.5 1.25 -2\n 1.5 -0.125 3\n", attend(_EIGHTHS)),
    Proposal("compute v.txt", "remove the first line: tail -n +2", PLAIN, {"v.txt": f"9 4\n{_BLANKS}"}, "compute v.txt", {"v.txt": _BLANKS}),
    rewrite("separate columns with a comma, a semicolon, a tab or spaces", "the_1_2\ncat_3_4\n", "the,1,2\ncat,3,4\n", attend(np.array([[1.0, 2], [3, 4]]))),
    Proposal("compute t.csv", "labels alone go beside vectors: --with tokens=FILE", PLAIN, {"t.csv": "\n".join(TOKENS), "e.csv": csv_text(X)}, "compute e.csv --with tokens=t.csv"),
    # ── the encoding
    rewrite("save it as UTF-8", _WORDS.encode("latin1"), _WORDS.encode()),
    rewrite("save it as UTF-8", _WORDS.encode("utf-16") + b"x", _WORDS.encode()),
    Proposal("compute x.json", "iconv -f UTF-16 -t UTF-8", PLAIN, {"x.json": _JSON.encode("utf-16")}, "compute x.json", {"x.json": _JSON}),
    # ── the format and the name
    Proposal("compute x.dat", "add --input-format csv, tsv, txt, json", PLAIN, {"x.dat": _JSON}, "compute x.dat --input-format json"),
    Proposal("compute x", "add --input-format", PLAIN, {"x": csv_text(X)}, "compute x --input-format csv"),
    Proposal("compute x.json", "name its format with --input-format", attend(2 * np.eye(2)), {"x.json": safetensors.numpy.save({"embeddings": 2 * np.eye(2)})}, "compute x.json --input-format safetensors"),
    Proposal("compute x.json", "--input-format npy", PLAIN, {"x.json": _NPY}),
    Proposal("compute there", "name one file in it", PLAIN, {"there/x.json": _JSON}, "compute there/x.json"),
    Proposal("compute there", "or give the folder to attn batch", ("weights",), {"there/x.json": _JSON}, "batch there -o -"),
    Proposal("compute x.json", 'a problem is {"embeddings": [[1, 0], [0, 1]]}', attend(np.eye(2)), {"x.json": ""}, "compute x.json", {"x.json": '{"embeddings": [[1, 0], [0, 1]]}'}),
    Proposal("compute r.json", "a problem holds embeddings, or q, k and v", PLAIN, {"r.json": {"schema": "attn.result/1", "weights": [[1]]}}, "compute r.json", {"r.json": LABELLED}),
    Proposal("explain x.ndjson 0", "attn compute reads it line by line", PLAIN, {"x.ndjson": _JSON + "\n"}, "compute x.ndjson --json"),
    Proposal("explain x.json the --grad g.npz", "a matrix: .npy, .csv or .json", (f"{PLAIN['weights'].sum(0)[0]:.4f}",), FILE | {"g.npz": {"q": X, "k": X}}, "explain x.json the --grad g.csv", {"g.csv": csv_text(np.ones((3, 4)))}),
]  # fmt: skip
