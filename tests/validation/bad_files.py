"""Inputs that are refused: file, content, options, exit status and error code."""

from __future__ import annotations

import bz2
import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np

from tests.helpers import SAMPLES, pack_gzip

X = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]


def npy(array) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def npz(**arrays) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def safetensors(header: dict, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def huge_npy(shape) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return out.getvalue() + b"\0" * 64


def zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr(name, content)
    return out.getvalue()


# file name, content (JSON where it is a dict or a list), more words, status, code
FILES = [
    # text that is no problem
    ("a.json", b"", [], 3, "empty"),
    ("a.json", b"  \n ", [], 3, "empty"),
    ("a.json", b"3", [], 3, "wrong-type"),
    ("a.json", b'"text"', [], 3, "wrong-type"),
    ("a.json", b"[[1, 2], [3", [], 3, "bad-json"),
    ("a.json", b'{"embeddings": [[1, NaN]]}', [], 3, "not-finite"),
    ("a.json", b'{"embeddings": [[1, -Infinity]]}', [], 3, "not-finite"),
    ("a.json", b'{"embeddings": [[1, 2],]}', [], 3, "bad-json"),
    ("a.json", b"[" * 100_000, [], 3, "too-deep"),
    ("a.json", b'{"about": ' + b"[" * 100_000 + b"]" * 100_000 + b', "embeddings": [[1]]}', [], 3, "too-deep"),
    ("a.json", b"[[[[[[[[1]]]]]]]]", [], 3, "wrong-shape"),
    ("a.json", json.dumps({"embeddings": X}).encode("utf-16"), [], 3, "wrong-encoding"),
    ("a.json", '{"tokens": ["é"], "embeddings": [[1]]}'.encode("latin-1"), [], 3, "wrong-encoding"),
    # arrays that are none
    ("a.json", {"embeddings": [[1, 2], [3]]}, [], 3, "ragged"),
    ("a.json", {"embeddings": [[1, 2], 3]}, [], 3, "ragged"),
    ("a.json", {"embeddings": [[[1, 2]], [[1, 2], [3, 4]]]}, [], 3, "ragged"),
    ("a.json", {"embeddings": []}, [], 3, "wrong-shape"),
    ("a.json", {"embeddings": [[]]}, [], 3, "empty"),
    ("a.json", {"embeddings": [1, 2]}, [], 3, "wrong-shape"),
    ("a.json", {"embeddings": 5}, [], 3, "wrong-shape"),
    ("a.json", {"embeddings": [["1", 2]]}, [], 3, "not-a-number"),
    ("a.json", {"embeddings": [[True, 2]]}, [], 3, "not-a-number"),
    ("a.json", {"embeddings": [[None, 2]]}, [], 3, "not-a-number"),
    ("a.json", {"embeddings": [[{}, 2]]}, [], 3, "not-a-number"),
    ("a.json", {"embeddings": [["NaN", 2]]}, [], 3, "not-finite"),
    ("a.json", {"embeddings": [["-Infinity", 2]]}, [], 3, "not-finite"),
    ("a.json", b'{"embeddings": [[1e999, 2]]}', [], 3, "not-finite"),
    ("a.json", {"embeddings": X, "parameters": {"w_q": [["NaN"]]}}, [], 3, "not-finite"),
    ("a.json", ('{"embeddings": ' + "[" * 900 + "1" + "]" * 900 + "}").encode(), [], 3, "too-deep"),
    ("a.json", b'{"embeddings": [[1]], "embeddings": [[2]]}', [], 3, "two-sources"),
    ("a.json", {"embeddings": X, "mask": [[True, False], [True]]}, [], 3, "ragged"),
    ("a.json", {"embeddings": X, "positions": [0, 1, 2**60]}, [], 3, "out-of-range"),
    *[("a.json", {"embeddings": X, name: None}, [], 3, "wrong-type") for name in ("memory", "past", "tokens", "layout", "parameters", "variant", "expected")],
    ("a.json", {"embeddings": X, "parameters": {"w_q": None}}, [], 3, "wrong-type"),
    ("a.json", {"embeddings": X, "variant": {"softcap": None}}, [], 3, "bad-option"),
    # fields
    ("a.json", {"embedings": X}, [], 3, "unknown-field"),
    ("a.json", {"embeddings": X, "parameters": {"wq": X}}, [], 3, "unknown-field"),
    ("a.json", {"embeddings": X, "memory": {"embedding": X}}, [], 3, "unknown-field"),
    ("a.json", {"embeddings": X, "expected": {"weigths": X}}, [], 3, "unknown-step"),
    ("a.json", {"embeddings": X, "expected": {"weights": {"values": X, "digits": 4}}}, [], 3, "unknown-field"),
    ("a.json", {"tokens": ["a"]}, [], 3, "missing-field"),
    ("a.json", {"q": X}, [], 3, "missing-field"),
    ("a.json", {"q": X, "v": X}, [], 3, "missing-field"),
    ("a.json", {"embeddings": X, "q": X, "k": X}, [], 3, "two-sources"),
    ("a.json", {"q": X, "k": X, "memory": {"embeddings": X}}, [], 3, "two-sources"),
    ("a.json", {"embeddings": X, "memory": {"tokens": ["a"]}}, [], 3, "missing-field"),
    ("a.json", {"embeddings": X, "memory": 5}, [], 3, "wrong-type"),
    ("a.json", {"embeddings": X, "tokens": ["a", "b"]}, [], 3, "count-mismatch"),
    ("a.json", {"embeddings": X, "tokens": ["a", "b", 3]}, [], 3, "wrong-type"),
    ("a.json", {"embeddings": X, "tokens": "abc"}, [], 3, "wrong-type"),
    ("a.json", {"embeddings": X, "layout": "dht"}, [], 3, "wrong-type"),
    ("a.json", {"q": X, "k": X, "layout": "htd"}, [], 3, "wrong-shape"),
    ("a.json", [{"token": "a", "embedding": [1]}, {"token": "b"}], [], 3, "missing-field"),
    ("a.json", [{"token": "a", "embeding": [1]}], [], 3, "missing-field"),
    ("a.json", [{"token": "a", "embedding": [1], "x": 1}], [], 3, "unclear-columns"),
    ("a.json", {"d0": [1, 2], "d1": [3, 4]}, [], 3, "two-readings"),
    ("a.parquet", b"PAR1" + bytes(20) + b"PAR1", [], 3, "bad-file"),
    ("a.feather", b"ARROW1\0\0" + bytes(20), [], 3, "bad-file"),
    ("a.pt", b"PK\x03\x04", [], 3, "foreign-format"),
    ("a.csv", b"\x89HDF\r\n\x1a\n" + bytes(20), [], 3, "foreign-format"),
    ("a.json", [{"token": "a", "embedding": [1]}, {"embedding": [2]}], [], 3, "missing-field"),
    # shapes that do not go together
    ("a.json", {"q": X, "k": [[1, 2, 3]]}, [], 3, "shape-mismatch"),
    ("a.json", {"q": X, "k": [X]}, [], 3, "wrong-shape"),
    ("a.json", {"q": X, "k": X, "v": X[:2]}, [], 3, "shape-mismatch"),
    ("a.json", {"q": [X, X], "k": [X]}, [], 3, "batch-mismatch"),
    ("a.json", {"embeddings": [X], "memory": {"embeddings": X}}, [], 3, "batch-mismatch"),
    ("a.json", {"embeddings": X, "parameters": {"w_q": [[1, 2, 3]]}}, [], 3, "shape-mismatch"),
    ("a.json", {"embeddings": X, "parameters": {"w_q": [[1], [2]]}}, [], 3, "shape-mismatch"),
    ("a.json", {"embeddings": X, "parameters": {"w_q": X[:2], "b_q": [1]}}, [], 3, "shape-mismatch"),
    ("a.json", {"embeddings": X, "parameters": {"w_o": [[1]]}}, [], 3, "shape-mismatch"),
    ("a.json", {"embeddings": X, "mask": [[True, False]]}, [], 3, "shape-mismatch"),
    ("a.json", {"embeddings": X, "mask": [[[[True]]], [[[True]]]]}, [], 3, "shape-mismatch"),
    ("a.json", {"embeddings": X, "mask": [[[True]], [[True]]]}, [], 3, "shape-mismatch"),
    ("a.json", {"embeddings": X, "mask": [[1, 0, 0]]}, [], 3, "numeric-mask"),
    ("a.json", {"embeddings": X, "bias": [["NaN", 0, 0]]}, [], 3, "nan-bias"),
    ("a.json", {"embeddings": X, "bias": [["Infinity", 0, 0]]}, [], 3, "not-finite"),
    ("a.json", {"embeddings": X, "lengths": [4]}, [], 3, "out-of-range"),
    ("a.json", {"embeddings": X, "lengths": [1, 2]}, [], 3, "batch-mismatch"),
    ("a.json", {"embeddings": X, "lengths": [1.5]}, [], 3, "wrong-type"),
    ("a.json", {"embeddings": X, "positions": [0, 1]}, [], 3, "count-mismatch"),
    ("a.json", {"embeddings": X, "past": {"k": [[[[1, 2]]]]}}, [], 3, "missing-field"),
    ("a.json", {"embeddings": X, "past": {"k": [[[[1]]]], "v": [[[[1]]]]}}, [], 3, "shape-mismatch"),
    ("a.json", {"embeddings": X, "past": {"k": [[[[1, 2]]] * 2], "v": [[[[1, 2]]] * 2]}}, [], 3, "heads-mismatch"),
    ("a.json", {"q": X, "k": X, "past": {"k": [[[[1, 2]]]], "v": [[[[1, 2]]]]}}, [], 3, "missing-field"),
    # what the variant needs and the file lacks, or the other way round
    ("a.json", {"embeddings": X}, ["--heads", "3"], 3, "heads-mismatch"),
    ("a.json", {"embeddings": X}, ["--heads", "2", "--kv-heads", "1"], 3, "shape-mismatch"),
    ("a.json", {"embeddings": X}, ["--kv-heads", "2"], 3, "missing-heads"),
    ("a.json", {"embeddings": X}, ["--mask", "document"], 3, "missing-field"),
    ("a.json", {"embeddings": X}, ["--mask", "given"], 3, "missing-field"),
    ("a.json", {"embeddings": X}, ["--projection", "given"], 3, "missing-parameters"),
    ("a.json", {"q": X, "k": X}, ["--projection", "randn"], 3, "already-projected"),
    ("a.json", {"q": X, "k": X[:2]}, ["--causal"], 3, "align-needed"),
    ("a.json", {"embeddings": X, "bias": [[1, 2, 3]]}, ["--chain", "scale,mask"], 3, "left-out"),
    ("a.json", {"embeddings": X}, ["--chain", "mask"], 3, "left-out"),
    ("a.json", {"embeddings": X}, ["--variant", "multi-head"], 3, "missing-choice"),
    ("a.json", {"embeddings": X}, ["--variant", "grouped-query", "--heads", "2"], 3, "missing-choice"),
    ("a.json", {"embeddings": X}, ["--variant", "cross"], 3, "missing-choice"),
    ("a.json", {"embeddings": X}, ["--variant", "sliding-window"], 3, "missing-choice"),
    ("a.json", {"embeddings": X, "variant": {"mask": "cusal"}}, [], 3, "unknown-mask"),
    ("a.json", {"embeddings": X, "variant": {"head": 2}}, [], 3, "unknown-choice"),
    ("a.json", {"embeddings": X, "variant": {"mask": True}}, [], 3, "bad-option"),
    ("a.json", {"embeddings": X, "variant": {"softcap": 5, "chain": "scale"}}, [], 3, "left-out"),
    ("a.json", {"embeddings": X}, ["--only", "output"], 3, "absent-step"),
    ("a.json", {"embeddings": X}, ["--at", "query=dog"], 3, "unknown-token"),
    ("a.json", {"embeddings": X, "tokens": ["a", "b", "a"]}, ["--at", "query=a"], 3, "ambiguous-token"),
    ("a.json", {"embeddings": X}, ["--at", "query=3"], 3, "out-of-range"),
    ("a.json", {"embeddings": X}, ["--at", "head=0"], 3, "absent-axis"),
    ("a.json", {"embeddings": X, "mask": [[False, False, False]]}, ["--empty-rows", "error"], 3, "empty-rows"),
    ("a.json", {"embeddings": [[1, 2, 3]]}, ["--rope"], 3, "odd-width"),
    ("a.json", {"embeddings": [[1, 2, 3, 4]]}, ["--position", "rope:dims=6"], 3, "odd-width"),
    ("a.json", {"embeddings": [[1, 2, 3]]}, ["--position", "sinusoidal"], 3, "odd-width"),
    ("a.json", {"q": X, "k": X}, ["--position", "sinusoidal"], 3, "already-projected"),
    ("a.json", {"q": X, "k": X[:2]}, ["--alibi"], 3, "align-needed"),
    ("a.json", {"embeddings": X}, ["--position", "t5"], 3, "missing-parameters"),
    ("a.json", {"embeddings": X, "parameters": {"bias_table": [[1], [2]]}}, ["--position", "t5"], 3, "shape-mismatch"),
    ("a.json", {"embeddings": X}, ["--position", "rope:scaling=longrope,original=8"], 3, "missing-parameters"),
    ("a.json", {"embeddings": X}, ["--score", "general"], 3, "missing-parameters"),
    ("a.json", {"embeddings": X, "parameters": {"score_w_q": [[1, 2, 3]]}}, ["--score", "general"], 3, "shape-mismatch"),
    ("a.json", {"embeddings": X, "parameters": {"score_v": [1, 2, 3]}}, ["--score", "additive"], 3, "shape-mismatch"),
    ("a.json", {"embeddings": X}, ["--sink", "given"], 3, "missing-parameters"),
    ("a.json", {"embeddings": X, "parameters": {"sinks": [1, 2, 3]}}, ["--sink", "given"], 3, "shape-mismatch"),
    ("a.json", {"embeddings": X, "parameters": {"q_norm": [1, 2, 3]}}, ["--qk-norm", "rms"], 3, "shape-mismatch"),
    ("a.json", {"embeddings": X}, ["--head-mixing", "talking-heads"], 3, "missing-parameters"),
    ("a.json", {"embeddings": X}, ["--head-mixing", "differential"], 3, "heads-mismatch"),
    ("a.json", {"embeddings": X, "parameters": {"lambda_q1": [1]}}, ["--head-mixing", "differential", "--heads", "2"], 3, "missing-parameters"),
    ("a.json", {"embeddings": X}, ["--alibi", "--chain", "scale,mask"], 3, "left-out"),
    ("a.json", {"embeddings": X, "variant": {"sink": "zero", "normalizer": "sparsemax"}}, [], 3, "parts-disagree"),
    # the command line, whatever the file holds
    ("a.json", {"embeddings": X}, ["--sink", "zero", "--normalizer", "sparsemax"], 2, "parts-disagree"),
    ("a.json", {"embeddings": X}, ["--position", "rope:scaling=yarn"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--position", "rope:dims=2,fraction=0.5"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--position", "rope:factor=2"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--position", "ropes"], 2, "unknown-position"),
    ("a.json", {"embeddings": X}, ["--rope", "--alibi"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--normalizer", "topk"], 2, "missing-option"),
    ("a.json", {"embeddings": X}, ["--normalizer", "entmax:alpha=0.5"], 2, "out-of-range"),
    ("a.json", {"embeddings": X}, ["--log-n", "1"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--variant", "gemma2"], 2, "missing-layer"),
    ("a.json", {"embeddings": X}, ["--variant", "bert:layer=1"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--variant", "gemma2:layer=x"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--mask", "cusal"], 2, "unknown-mask"),
    ("a.json", {"embeddings": X}, ["--mask", "window:left=x"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--mask", "window:left=-2"], 2, "out-of-range"),
    ("a.json", {"embeddings": X}, ["--mask", "window:size=2"], 2, "unknown-option"),
    ("a.json", {"embeddings": X}, ["--mask", "prefix"], 2, "missing-option"),
    ("a.json", {"embeddings": X}, ["--mask", "causal and"], 2, "bad-expression"),
    ("a.json", {"embeddings": X}, ["--variant", "casual"], 2, "unknown-variant"),
    ("a.json", {"embeddings": X}, ["--scale", "big"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--scale", "nan"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--softcap", "0"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--softcap", "5", "--chain", "scale"], 2, "left-out"),
    ("a.json", {"embeddings": X}, ["--dropout", "1"], 2, "out-of-range"),
    ("a.json", {"embeddings": X}, ["--heads", "0"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--seed", "-1"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--window", "2"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--chain", "scale,softcp"], 2, "unknown-link"),
    ("a.json", {"embeddings": X}, ["--device", "tpu"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--dtype", "float8"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--chain", ""], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--mask", "window:right=99999999999999999999"], 2, "out-of-range"),
    ("a.json", {"embeddings": X}, ["--projection", "linear:dim=1180591620717411303424"], 2, "out-of-range"),
    ("a.json", {"embeddings": X}, ["--projection", "linear:dim=2000000000", "--seed", "1"], 4, "out-of-memory"),
    ("a.json", {"embeddings": X}, ["--dropout", "nan"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--output", "x" * 300 + ".json"], 4, "cannot-write"),
    ("a.json", {"embeddings": X}, ["--with", "mask=-"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--seed", "18446744073709551616"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--only", "weigths"], 2, "unknown-step"),
    ("a.json", {"embeddings": X}, ["--only", "top_keys"], 2, "missing-option"),
    ("a.json", {"embeddings": X}, ["--at", "qeury=0"], 2, "unknown-axis"),
    ("a.json", {"embeddings": X}, ["--at", "query"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--top", "0"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--precision", "99"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--format", "jsn"], 2, "unknown-format"),
    ("a.json", {"embeddings": X}, ["--format", "npz"], 2, "binary-output"),
    ("a.json", {"embeddings": X}, ["--json", "--format", "csv"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--output", "x.foo"], 2, "unknown-format"),
    ("a.json", {"embeddings": X}, ["--output", str(SAMPLES / "cat_sat.json")], 2, "output-exists"),
    ("a.json", {"embeddings": X}, ["--output", "/no/such/folder/x.json"], 4, "cannot-write"),
    ("a.json", {"embeddings": X}, ["--input-format", "jsn"], 2, "unknown-format"),
    ("a.dat", b"1,2\n", [], 2, "unknown-format"),
    ("a.json", {"embeddings": X}, ["--with", "mask"], 2, "bad-option"),
    ("a.json", {"embeddings": X}, ["--with", "maks=x.json"], 2, "unknown-field"),
    ("a.json", {"embeddings": X}, ["--with", "mask=nope.json"], 3, "no-such-file"),
    # learned arrays under a framework's names, and out of a checkpoint
    ("a.json", {"embeddings": X, "parameters": {"in_proj_weight": [[1, 0]] * 6}}, [], 3, "missing-heads"),
    ("a.json", {"embeddings": X, "parameters": {"qkv.weight": [[1, 0]] * 6}}, ["--heads", "2"], 3, "two-readings"),
    ("a.json", {"embeddings": X}, ["--from-state-dict", "nope.safetensors:h.0.attn"], 3, "no-such-file"),
    ("a.json", {"embeddings": X}, ["--from-state-dict", "model.pt:h.0.attn"], 2, "unknown-format"),
    ("a.json", {"embeddings": X}, ["--from-state-dict", ":h.0.attn"], 2, "bad-option"),
    ("a.ndjson", {"embeddings": X}, ["--from-state-dict", "m.safetensors:h.0.attn"], 2, "bad-option"),
    ("a.npy", npy(X), ["--from-state-dict", "README.md:h.0.attn"], 2, "unknown-format"),
    ("a.json", {"embeddings": X}, ["--frmat", "json"], 2, "usage"),
    ("a.json", {"embeddings": X}, ["--heat", "maybe"], 2, "usage"),
    ("a.json", {"embeddings": X}, ["extra"], 2, "usage"),
    # CSV
    ("a.csv", b"", [], 3, "empty"),
    ("a.csv", b"\n\n", [], 3, "empty"),
    ("a.csv", b"token,d0,d1\n", [], 3, "empty"),
    ("a.csv", b"token,d0,d1\na,1,2\nb,3\n", [], 3, "ragged-row"),
    ("a.csv", b"a,1,2\nb,3,4,5\n", [], 3, "ragged-row"),
    ("a.csv", b"a,1,2\nb,3,\n", [], 3, "empty-cell"),
    ("a.csv", b"a,1,2\nb,3,nan\n", [], 3, "not-finite"),
    ("a.csv", b"a,1,2\nb,3,-inf\n", [], 3, "not-finite"),
    ("a.csv", b"a,1,2\nb,3,1e999\n", [], 3, "not-finite"),
    ("a.csv", b"a,1,2\nb,3,1_0\n", [], 3, "not-a-number"),
    ("a.csv", "a,1,2\nb,3,٣\n".encode(), [], 3, "not-a-number"),
    ("a.csv", b"a,1,2\nb,x,4\n", [], 3, "not-a-number"),
    ("a.csv", b"1,2\nnan,4\n3,4\n", [], 3, "not-finite"),
    ("a.csv", b"1,2\n1_0,4\n", [], 3, "not-a-number"),
    ("a.csv", b"the\ncat\n", [], 3, "not-a-number"),
    ("a.csv", b"0,1,2\n5,6,7\n8,9,1\n", [], 3, "unclear-header"),
    ("a.csv", b"token,0,1\na,6,7\nb,9,1\n", [], 3, "unclear-header"),
    ("a.csv", b"id,d0,d1\n5,6,7\n8,9,1\n", [], 3, "unclear-tokens"),
    ("a.csv", b"year,d0,d1\n5,6,7\n8,9,1\n", [], 3, "unclear-tokens"),
    ("a.csv", b"a,1,2\n\nb,3,4\n", [], 3, "blank-line"),
    ("a.csv", b'a,1,2\n"b,3,4\n', [], 3, "bad-csv"),
    ("a.csv", b"a,1,2\nb,3,4\n", ["--token-column", "9"], 3, "no-such-column"),
    ("a.csv", b"token,d0\na,1\nb,3\n", ["--token-column", "tokn"], 3, "no-such-column"),
    ("a.csv", "é,1\n".encode("latin-1"), [], 3, "wrong-encoding"),
    ("a.csv", "a,1\n".encode("utf-16")[:-1], [], 3, "wrong-encoding"),
    ("a.csv", b"a,1\0\n", [], 3, "wrong-encoding"),
    ("a.csv", b"0.1,O.2\n0.3,0.4\n", [], 3, "not-a-number"),
    ("a.csv", "1,−2\n3,4\n".encode(), [], 3, "not-a-number"),
    ("a.csv", b"1,2\n,\n3,4\n", [], 3, "empty-cell"),
    ("a.csv", b"1,0x10\n", [], 3, "not-a-number"),
    ("a.tsv", b"a,1,2\n", [], 3, "not-a-number"),
    # text between blanks, vectors in a cell
    ("a.vec", b"3 2\nthe 1 2\nto 3 4\n", [], 3, "count-mismatch"),
    ("a.vec", b"2 1\nthe 1\nto 3\n", [], 3, "unclear-header"),
    ("a.txt", b"the 1 2\nto 3\nof 5 6\n", [], 3, "ragged-row"),
    ("a.txt", b"the 1 2\nto 3 4 5\nof 5 6\n", [], 3, "ragged-row"),
    ("a.txt", b"the 1 x\nto 3 4\n", [], 3, "not-a-number"),
    ("a.txt", b"1 2 3; 4 5 6\n", [], 3, "two-readings"),
    ("a.txt", b"0.1D+00 0.2D+00\n0.3D+00 0.4D+00\n", [], 3, "not-a-number"),
    ("a.csv", b"a,[1 2 ... 3 4]\nb,[1 2 ... 3 4]\n", [], 3, "truncated"),
    ("a.csv", b'a,"[1, 2]"\nb,"[1, 2, 3]"\n', [], 3, "ragged-row"),
    ("a.csv", b'a,"[1, 2]"\nb,"[1, nan]"\n', [], 3, "not-finite"),
    ("a.csv", b'a,"[1, 2]"\nb,"[1, 1e999]"\n', [], 3, "not-finite"),
    ("a.csv", b'a,"[1, 2]","[3, 4]"\n', [], 3, "unclear-columns"),
    ("a.csv", b'name,text,embedding\na,b,"[1, 2]"\n', [], 3, "unclear-tokens"),
    # packed text
    ("a.csv.gz", pack_gzip(b"a,1,2\nb,3,4\n")[:-4], [], 3, "bad-file"),
    ("a.csv.gz", b"a,1,2\nb,3,4\n", [], 3, "bad-file"),
    ("a.csv.gz", pack_gzip(bytes(10**7)), [], 3, "too-compressed"),
    ("a.csv", bz2.compress(b"a,1,2\n"), [], 3, "packed"),
    ("a.csv.bz2", bz2.compress(b"a,1,2\n"), [], 2, "unknown-format"),
    ("a.npy.gz", pack_gzip(npy(np.eye(2))), [], 2, "unknown-format"),
    ("a.gz", pack_gzip(b"a,1,2\n"), [], 2, "unknown-format"),
    # binary
    ("a.npy", b"", [], 3, "bad-file"),
    ("a.npy", b"\x93NUMPY\x01\x00", [], 3, "bad-file"),
    ("a.npy", npy(np.ones((3, 4)))[:-8], [], 3, "truncated"),
    ("a.npy", huge_npy((10**9, 10**9)), [], 3, "truncated"),
    ("a.npy", npy(np.array([{}], dtype=object)), [], 3, "pickled"),
    ("a.npy", npy(np.ones((2, 2), complex)), [], 3, "wrong-type"),
    ("a.npy", npy(np.array([["a"]])), [], 3, "wrong-type"),
    ("a.npy", npy(np.full((2, 2), np.nan)), [], 3, "not-finite"),
    ("a.npy", huge_npy((True, 4)), [], 3, "bad-file"),
    ("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000, [], 3, "bad-file"),
    ("a.npz", npz(parameters=np.ones((3, 4)), embeddings=np.ones((3, 4))), [], 3, "wrong-type"),
    ("a.npz", npz(embeddings=np.ones((3, 4)), attn=np.array("[" * 100_000)), [], 3, "too-deep"),
    ("a.npz", b"PK", [], 3, "bad-file"),
    ("a.npz", npz(embeddings=np.ones((30, 40)))[:-200], [], 3, "bad-file"),
    ("a.npz", zipped("embeddings.npy", huge_npy((10**12,))), [], 3, "truncated"),
    ("a.npz", npz(embedings=np.ones((3, 4))), [], 3, "unknown-field"),
    ("a.npz", npz(embeddings=np.ones((3, 4)), attn=np.array("{")), [], 3, "bad-json"),
    ("a.npz", npz(embeddings=np.ones((3, 4)), attn=np.array('{"embeddings": [[1]]}')), [], 3, "two-sources"),
    ("a.npz", npz(embeddings=np.ones((3, 4)), mask=np.ones((3, 3))), [], 3, "numeric-mask"),
    ("a.safetensors", b"", [], 3, "bad-file"),
    ("a.safetensors", safetensors({"embeddings": {"dtype": "F64", "shape": [10**9, 10**9], "data_offsets": [0, 8 * 10**18]}}), [], 3, "bad-file"),
    ("a.safetensors", struct.pack("<Q", 2**60) + b"{}", [], 3, "bad-file"),
    ("a.safetensors", safetensors({"embeddings": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}, b"\0" * 8), [], 3, "bad-file"),
]  # fmt: skip


def cases(folder: Path) -> list[tuple[list[str], int, str]]:
    """(command line, status, code) for every case; the files are written below the folder."""
    table = []
    for i, (name, content, words, status, code) in enumerate(FILES):
        path = folder / str(i) / name
        path.parent.mkdir()
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        table.append((["compute", str(path), *words], status, code))
    table += [
        (["compute", str(folder / "nothing.json")], 3, "no-such-file"),
        (["compute", str(folder), "--input-format", "json"], 3, "not-a-file"),
        (["compute", str(folder / "a\0b.json")], 3, "cannot-read"),
        (["compute"], 2, "usage"),
        (["compute", "-"], 3, "empty"),
        (["compote"], 2, "usage"),
        (["demo", "cat-sat"], 2, "unknown-example"),
        (["list", "maks"], 2, "unknown-family"),
        (["list", "masks", "cusal"], 2, "unknown-mask"),
        (["schema", "thing"], 2, "usage"),
        (["schema"], 2, "usage"),
    ]
    return table
