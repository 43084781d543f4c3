"""What somebody at a notebook types first: each call does what is expected, or raises the documented error with its way out."""

from __future__ import annotations

import io
import json
from collections import OrderedDict

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import attncli
from attncli import AttnError, CannotError, InputError, OptionError, Problem, Variant, pipeline
from tests.helpers import assert_close
from tests.python.three_tokens import CAUSAL, CROSS, CSV, LATER, NAMES, TOKENS, Handed, K, Q, V, W, X, weigh


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files as people have them."""
    made = tmp_path_factory.mktemp("first")
    (made / "x.csv").write_text(CSV, encoding="utf-8")
    (made / "k.csv").write_text(CSV, encoding="utf-8")
    (made / "no_suffix").write_text(CSV, encoding="utf-8")
    (made / "numbers.csv").write_text("1,0\n0,1\n", encoding="utf-8")
    np.save(made / "x.npy", X)
    np.save(made / "mask.npy", ~LATER)
    np.savez(made / "q.npz", q=Q, k=K, v=V)
    pl.DataFrame({"token": TOKENS, **dict(zip(NAMES, X.T, strict=True))}).write_parquet(made / "x.parquet")
    return made


def opened(path, mode):
    with path.open(mode, encoding=None if "b" in mode else "utf-8") as file:
        return attncli.attend(file)


def pandas_frame(**options):
    return pd.DataFrame(X, **options)


# ── calls that compute ───────────────────────────────────────────────────────────────────────────
# name → the call, given a folder; the weights; the tokens, where there are any
COMPUTED = {
    "a NumPy array": (lambda f: attncli.attend(X), W, None),
    "of float32": (lambda f: attncli.attend(X.astype(np.float32)), W, None),
    "of integers": (lambda f: attncli.attend(X.astype(int)), W, None),
    "of float16": (lambda f: attncli.attend(X.astype(np.float16)), W, None),
    "a view that is not contiguous": (lambda f: attncli.attend(np.asfortranarray(X)[:, ::1]), W, None),
    "a structured array": (lambda f: attncli.attend(np.array(list(map(tuple, X)), [(n, float) for n in NAMES])), W, None),
    "a tensor": (lambda f: attncli.attend(torch.tensor(X)), W, None),
    "a list of lists": (lambda f: attncli.attend(X.tolist()), W, None),
    "a tuple of tuples": (lambda f: attncli.attend(tuple(map(tuple, X.tolist()))), W, None),
    "a list of arrays": (lambda f: attncli.attend(list(X)), W, None),
    "a list of tensors": (lambda f: attncli.attend(list(torch.tensor(X))), W, None),
    "an array of another library": (lambda f: attncli.attend(Handed(X)), W, None),
    "a memoryview's array": (lambda f: attncli.attend(np.asarray(memoryview(X))), W, None),
    "a frame of pandas": (lambda f: attncli.attend(pandas_frame()), W, None),
    "with the tokens as its index": (lambda f: attncli.attend(pandas_frame(index=list(TOKENS))), W, TOKENS),
    "with names and a column of tokens": (lambda f: attncli.attend(pandas_frame(columns=NAMES).assign(token=TOKENS)), W, TOKENS),
    "with some rows taken out": (lambda f: attncli.attend(pandas_frame().iloc[::-1].iloc[::-1]), W, None),
    "of whole vectors": (lambda f: attncli.attend(pd.DataFrame({"word": TOKENS, "embedding": list(X)})), W, TOKENS),
    "a series of vectors": (lambda f: attncli.attend(pd.Series(list(X), index=list(TOKENS))), W, TOKENS),
    "a frame of Polars": (lambda f: attncli.attend(pl.DataFrame(X, NAMES)), W, None),
    "of Polars, with tokens": (lambda f: attncli.attend(pl.DataFrame({"token": TOKENS, "embedding": X.tolist()})), W, TOKENS),
    "a frame and some of its columns": (
        lambda f: attncli.attend(pandas_frame(columns=NAMES).assign(id=[7, 8, 9]), columns=NAMES),
        W,
        None,
    ),
    "a file name": (lambda f: attncli.attend(f"{f}/x.csv"), W, TOKENS),
    "a Path": (lambda f: attncli.attend(f / "x.csv"), W, TOKENS),
    "a file of arrays": (lambda f: attncli.attend(f / "x.npy"), W, None),
    "a file of a frame": (lambda f: attncli.attend(f / "x.parquet"), W, TOKENS),
    "a file and its format": (lambda f: attncli.attend(f / "no_suffix", input_format="csv"), W, TOKENS),
    "a file without a header": (lambda f: attncli.attend(f / "numbers.csv", header="no"), weigh(np.eye(2), np.eye(2), scale=2**-0.5), None),
    "an open file": (lambda f: opened(f / "x.csv", "rb"), W, TOKENS),
    "an open text file": (lambda f: opened(f / "x.csv", "r"), W, TOKENS),
    "bytes in memory": (lambda f: attncli.attend(io.BytesIO(CSV.encode())), W, TOKENS),
    "text in memory": (lambda f: attncli.attend(io.StringIO(json.dumps({"embeddings": X.tolist()}))), W, None),
    "a Problem": (lambda f: attncli.attend(Problem(embeddings=X, tokens=TOKENS)), W, TOKENS),
    "a Problem of a frame": (lambda f: attncli.attend(Problem(embeddings=pandas_frame())), W, None),
    "what read returns": (lambda f: attncli.attend(attncli.read(f / "x.csv")), W, TOKENS),
    "a dict of fields": (lambda f: attncli.attend({"embeddings": X, "tokens": list(TOKENS)}), W, TOKENS),
    "a dict of words": (lambda f: attncli.attend(dict(zip(TOKENS, X, strict=True))), W, TOKENS),
    "a list of records": (
        lambda f: attncli.attend([{"token": t, "embedding": x} for t, x in zip(TOKENS, X.tolist(), strict=True)]),
        W,
        TOKENS,
    ),
    "an archive of NumPy": (lambda f: attncli.attend(np.load(f / "q.npz")), CROSS, None),
    "q, k and v": (lambda f: attncli.attend(q=Q, k=K, v=V), CROSS, None),
    "q, k and v in a dict": (lambda f: attncli.attend(OrderedDict(q=Q, k=K, v=V)), CROSS, None),
    "q, and k and v as keywords": (lambda f: attncli.attend(Q, k=K, v=V), CROSS, None),
    "q, and k from a file": (lambda f: attncli.attend(Q, k=f"{f}/k.csv"), CROSS, None),
    "tokens": (lambda f: attncli.attend(X, tokens=["the", "cat", "sat"]), W, TOKENS),
    "tokens of a series": (lambda f: attncli.attend(X, tokens=pd.Series(TOKENS)), W, TOKENS),
    "tokens of an array": (lambda f: attncli.attend(X, tokens=np.array(TOKENS)), W, TOKENS),
    "a mask by name": (lambda f: attncli.attend(X, mask="causal"), CAUSAL, None),
    "causal=True": (lambda f: attncli.attend(X, causal=True), CAUSAL, None),
    "a mask of booleans": (lambda f: attncli.attend(X, mask=~LATER), CAUSAL, None),
    "a mask of torch": (lambda f: attncli.attend(X, mask=torch.tensor(~LATER)), CAUSAL, None),
    "a mask of two names": (lambda f: attncli.attend(X, mask=["causal", "window:left=5"]), CAUSAL, None),
    "a mask of a file": (lambda f: attncli.attend(X, mask=f / "mask.npy"), CAUSAL, None),
    "a window": (lambda f: attncli.attend(X, window=(-1, 0)), CAUSAL, None),
    "a bias": (lambda f: attncli.attend(X, bias=np.where(LATER, -np.inf, 0.0)), CAUSAL, None),
    "a Variant": (lambda f: attncli.attend(X, Variant(mask="causal")), CAUSAL, None),
    "a Variant and a choice": (lambda f: attncli.attend(X, Variant(mask="causal"), scale=2), weigh(X, X, LATER, 2), None),
    "the name of a variant": (lambda f: attncli.attend(X, "causal"), CAUSAL, None),
    "the name as a keyword": (lambda f: attncli.attend(X, variant="causal"), CAUSAL, None),
    "a variant of choices": (lambda f: attncli.attend(X, {"mask": "causal", "scale": 0.5}), CAUSAL, None),
    "a choice over the problem's": (
        lambda f: attncli.attend(Problem(embeddings=X, variant={"mask": "causal", "scale": 2}), scale=0.5),
        CAUSAL,
        None,
    ),
    "a scale": (lambda f: attncli.attend(X, scale=0.25), weigh(X, X, scale=0.25), None),
    "a number of NumPy": (lambda f: attncli.attend(X, scale=np.float64(0.25)), weigh(X, X, scale=0.25), None),
    "a dtype of NumPy": (lambda f: attncli.attend(X, dtype=np.float32), W, None),
    "a dtype of torch": (lambda f: attncli.attend(X, dtype=torch.float32), W, None),
    "the steps that are kept": (lambda f: attncli.attend(X, keep={"weights"}), W, None),
    "only one step": (lambda f: attncli.attend(X, only="weights"), W, None),
    "only two steps": (lambda f: attncli.attend(X, only=["weights", "context"]), W, None),
    "one query": (lambda f: attncli.attend(X, tokens=TOKENS, at={"query": "cat"}), W[1:2], ("cat",)),
    "some keys": (lambda f: attncli.attend(X, at={"key": slice(0, 2)}), W[:, :2], None),
    "what the command line writes": (lambda f: attncli.attend(X, at="query=1"), W[1:2], None),
    "a step of another result": (lambda f: attncli.attend(attncli.attend(X, scale=2)["q"]), W, None),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPUTED)
def test_a_first_call_computes_what_is_meant(folder, name):
    call, weights, tokens = COMPUTED[name]

    result = call(folder)

    rtol = {"float32": 1e-6}.get(result.dtype, 1e-12)
    assert_close(result["weights"].values, weights, rtol=rtol)
    if tokens is not None:
        assert result.tokens == tokens


# ── errors ───────────────────────────────────────────────────────────────────────────────────────
REFUSED = {
    "nothing": (lambda f: attncli.attend(), InputError, "missing-field", "or q, k and v"),
    "a number": (lambda f: attncli.attend(5), InputError, "wrong-type", "an input is an array"),
    "a word": (lambda f: attncli.attend("hello"), InputError, "no-such-file", "check the path"),
    "a file that is not there": (lambda f: attncli.attend("nosuch.csv"), InputError, "no-such-file", ""),
    "JSON as a text": (lambda f: attncli.attend('{"embeddings": [[1]]}'), InputError, "no-such-file", "io.StringIO"),
    "bytes": (lambda f: attncli.attend(b"1,2"), InputError, "wrong-type", "io.BytesIO"),
    "a file that was read before": (lambda f: attncli.attend(io.BytesIO()), InputError, "empty", "file.seek(0)"),
    "a generator": (lambda f: attncli.attend(x for x in X), InputError, "wrong-type", "list(…)"),
    "a class": (lambda f: attncli.attend(np.ndarray), InputError, "wrong-type", "an input is an array"),
    "a list of words": (lambda f: attncli.attend(["the", "cat"]), InputError, "not-a-number", "tokens=tokens"),
    "one vector": (lambda f: attncli.attend(X[0]), InputError, "wrong-shape", "brackets"),
    "an array of five axes": (lambda f: attncli.attend(np.ones((2, 2, 2, 2, 2))), InputError, "wrong-shape", "axes too many"),
    "ragged lists": (lambda f: attncli.attend([[1.0, 2.0], [3.0]]), InputError, "ragged", "same length"),
    "ragged tensors": (lambda f: attncli.attend([torch.ones(2), torch.ones(3)]), InputError, "ragged", "same shape"),
    "NaN": (lambda f: attncli.attend(np.full((2, 2), np.nan)), InputError, "not-finite", ""),
    "an array of texts": (lambda f: attncli.attend(np.array([["a"]])), InputError, "wrong-type", ""),
    "a masked array": (lambda f: attncli.attend(np.ma.masked_less(X, 1)), InputError, "wrong-type", "fill them"),
    "a sparse tensor": (lambda f: attncli.attend(torch.tensor(X).to_sparse()), InputError, "wrong-type", "to_dense"),
    "a frame with a gap": (lambda f: attncli.attend(pandas_frame().replace(2.0, None)), InputError, "empty-cell", "never read as 0"),
    "a frame with an index of numbers": (lambda f: attncli.attend(pandas_frame(columns=NAMES).assign(id=[7, 8, 9])), InputError, "unclear-columns", "drop='id'"),
    "a frame of two levels": (lambda f: attncli.attend(pandas_frame().set_index([0, 1])), InputError, "wrong-type", "reset_index"),
    "a frame that is lazy": (lambda f: attncli.attend(pl.LazyFrame({"a": [1.0]})), InputError, "wrong-type", "collect()"),
    "a result": (lambda f: attncli.attend(attncli.attend(X)), InputError, "not-a-problem", "result['context']"),
    "q, k, v by place": (lambda f: attncli.attend(Q, K, V), OptionError, "bad-option", "attend(q=q, k=k, v=v)"),
    "a tuple of q, k, v": (lambda f: attncli.attend((Q, K, V)), InputError, "two-readings", "attend(q=q, k=k, v=v)"),
    "q alone": (lambda f: attncli.attend(q=Q), InputError, "missing-field", "only v may be left out"),
    "a misspelt keyword": (lambda f: attncli.attend(X, msak="causal"), OptionError, "unknown-choice", "'mask'"),
    "a keyword of torch": (lambda f: attncli.attend(X, is_causal=True), OptionError, "unknown-choice", "'causal'"),
    "a keyword of transformers": (lambda f: attncli.attend(X, num_heads=2), OptionError, "unknown-choice", "'heads'"),
    "dropout_p": (lambda f: attncli.attend(X, dropout_p=0.1), OptionError, "unknown-choice", "dropout"),
    "an option of a projection": (lambda f: attncli.attend(X, projection="linear:bias=qkv", d_out=2), OptionError, "unknown-choice", "projection='linear:bias=qkv,dim=2'"),
    "an option of a position": (lambda f: attncli.attend(X, theta=500, position="rope"), OptionError, "unknown-choice", "position='rope:theta=500'"),
    "a flag of a part": (lambda f: attncli.attend(X, projection="linear", out=True), OptionError, "unknown-choice", "projection='linear:out=yes'"),
    "weights asked for": (lambda f: attncli.attend(X, return_weights=True), OptionError, "unknown-choice", "--only weights"),
    "to overwrite": (lambda f: attncli.attend(X).save("x.csv", overwrite=True), OptionError, "unknown-choice", "'force'"),
    "a variant by another keyword": (lambda f: attncli.Variant(variant="llama3"), OptionError, "unknown-choice", "name='llama3'"),
    "the version": (lambda f: attncli.version, OptionError, "unknown-attribute", "__version__"),
    "a learned matrix": (lambda f: attncli.attend(X, w_q=X), OptionError, "unknown-choice", "parameters={'w_q': w_q}"),
    "an option of output": (lambda f: attncli.attend(X, precision=6), OptionError, "unknown-choice", "to_text(precision=6)"),
    "a mask called none": (lambda f: attncli.attend(X, mask="none"), OptionError, "unknown-mask", "'full'"),
    "a series of numbers": (lambda f: attncli.attend(pd.Series([1, 2, 3])), InputError, "wrong-shape", "one more pair of brackets"),
    "a series of Polars": (lambda f: attncli.attend(pl.Series([1, 2, 3])), InputError, "wrong-shape", "one more pair of brackets"),
    "an array of objects": (lambda f: attncli.attend(X.astype(object)), InputError, "wrong-type", "embeddings.astype(float)"),
    "an array of numbers as texts": (lambda f: attncli.attend(X.astype(str)), InputError, "wrong-type", "embeddings.astype(float)"),
    "an array of complex numbers": (lambda f: attncli.attend(X * 1j), InputError, "wrong-type", "embeddings.real"),
    "nothing but NaN": (lambda f: attncli.attend(X * np.nan), InputError, "not-finite", "replace it with a number"),
    "too few labels": (lambda f: attncli.attend(X, tokens=["a"]), InputError, "count-mismatch", f"{len(X)} in all"),
    "a scale in words": (lambda f: attncli.attend(X, scale="abc"), OptionError, "bad-option", "attn list links scale"),
    "a file that is nowhere": (lambda f: attncli.attend(f / "qqqqqq.npy"), InputError, "no-such-file", "check the path"),
    "to_xarray without a step": (lambda f: attncli.attend(X).to_xarray(), OptionError, "bad-option", "to_xarray('weights')"),
    "figures as a keyword": (lambda f: attncli.check(X, weights=W), OptionError, "unknown-choice", "{'weights': weights}"),
    "misspelt figures as a keyword": (lambda f: attncli.check(X, wieghts=W), OptionError, "unknown-choice", "did you mean 'weights'?"),
    "figures by another name": (lambda f: attncli.check(X, attn_weights=W), OptionError, "unknown-choice", "{'weights': weights}"),
    "a misspelt learned matrix": (lambda f: attncli.attend(X, wq=X), OptionError, "unknown-choice", "parameters={'w_q': w_q}"),
    "a function of the package that there is not": (lambda f: attncli.compute(X), OptionError, "unknown-attribute", "attncli.attend(x"),
    "to load": (lambda f: attncli.load("x.csv"), OptionError, "unknown-attribute", "attncli.read("),
    "a misspelt function": (lambda f: attncli.atend(X), OptionError, "unknown-attribute", "'attend'"),
    "a command as a function": (lambda f: attncli.demo(), OptionError, "unknown-attribute", "attn demo"),
    "query as a keyword": (lambda f: attncli.attend(X, query=1), OptionError, "unknown-choice", "at={'query': 1}"),
    "q by another name": (lambda f: attncli.attend(query=Q, key=K, value=V), OptionError, "unknown-choice", "did you mean 'q'?"),
    "a mask that is a function": (lambda f: attncli.attend(X, mask=lambda i, j: j <= i), InputError, "wrong-type", "mask='causal'"),
    "tokens that are numbers": (lambda f: attncli.attend(X, tokens=[7, 8, 9]), InputError, "wrong-type", "list(map(str, tokens))"),
    "tokens of a generator": (lambda f: attncli.attend(X, tokens=(t for t in TOKENS)), InputError, "wrong-type", "tokens=list("),
    "a layer as a matrix": (lambda f: attncli.attend(X, parameters={"w_q": torch.nn.Linear(4, 4)}), InputError, "wrong-type", "layer.weight.T"),
    "parameters in a list": (lambda f: attncli.attend(X, parameters=[X]), InputError, "wrong-type", "w_q"),
    "an array of no axis": (lambda f: attncli.attend(np.array(5.0)), InputError, "wrong-shape", "rows of numbers"),
    "dropout=1": (lambda f: attncli.attend(X, dropout=1), OptionError, "out-of-range", "a tenth"),
    "heads=0": (lambda f: attncli.attend(X, heads=0), OptionError, "bad-option", "number of"),
    "half precision": (lambda f: attncli.attend(X, dtype="fp16"), OptionError, "bad-option", "'float16'"),
    "step.shape": (lambda f: attncli.attend(X)["weights"].shape, OptionError, "unknown-attribute", "result['weights'].values"),
    "step[0]": (lambda f: attncli.attend(X)["weights"][0], OptionError, "bad-option", "result['weights'].values[0]"),
    "result.items()": (lambda f: attncli.attend(X).items(), OptionError, "unknown-attribute", "for step in result"),
    "result.numpy()": (lambda f: attncli.attend(X).numpy(), OptionError, "unknown-attribute", "result['weights'].values"),
    "result.to_csv": (lambda f: attncli.attend(X).to_csv("x.csv"), OptionError, "unknown-attribute", "save('x.csv')"),
    "result.to_dataframe": (lambda f: attncli.attend(X).to_dataframe(), OptionError, "unknown-attribute", "to_pandas"),
    "a misspelt keyword of plot": (lambda f: attncli.attend(X).plot(stlye="dark"), OptionError, "unknown-choice", "'style'"),
    "head as a keyword of explain": (lambda f: attncli.attend(X).explain(1, head=0), OptionError, "unknown-choice", "at={'head': 0}"),
    "a list of queries": (lambda f: attncli.explain(X, [0, 1]), OptionError, "bad-option", "query=2"),
    "a result to explain": (lambda f: attncli.explain(attncli.attend(X)), InputError, "not-a-problem", "result.explain("),
    "an address": (lambda f: attncli.read("https://example.org/x.csv"), InputError, "no-such-file", "download"),
    "a variant by place": (lambda f: Variant("llama3"), OptionError, "bad-option", "Variant(name='llama3')"),
    "a problem by place": (lambda f: Problem(X), InputError, "wrong-type", "Problem(embeddings=x)"),
    "a suffix of no format": (lambda f: attncli.attend(X).save(f / "x.foo"), OptionError, "unknown-format", "format="),
    "a misspelt mask": (lambda f: attncli.attend(X, mask="casual"), OptionError, "unknown-mask", "'causal'"),
    "mask=True": (lambda f: attncli.attend(X, mask=True), OptionError, "bad-option", "causal=True"),
    "a mask in a file": (lambda f: attncli.attend(X, mask="mask.npy"), OptionError, "bad-option", "pathlib.Path('mask.npy')"),
    "a mask of numbers": (lambda f: attncli.attend(X, mask=np.tril(np.ones((3, 3)))), InputError, "numeric-mask", "true where a key is visible"),
    "causal='yes'": (lambda f: attncli.attend(X, causal="yes"), OptionError, "bad-option", ""),
    "a window of one": (lambda f: attncli.attend(X, window=2), OptionError, "bad-option", "window=(2, 0)"),
    "too many heads": (lambda f: attncli.attend(X, heads=3), InputError, "heads-mismatch", "1, 2 or 4"),
    "heads='two'": (lambda f: attncli.attend(X, heads="two"), OptionError, "bad-option", ""),
    "heads=True": (lambda f: attncli.attend(X, heads=True), OptionError, "bad-option", ""),
    "a misspelt variant": (lambda f: attncli.attend(X, variant="lama3"), OptionError, "unknown-variant", "'llama3'"),
    "a misspelt choice of a variant": (lambda f: attncli.attend(X, {"msk": "causal"}), OptionError, "unknown-choice", "'mask'"),
    "a misspelt choice of Variant": (lambda f: Variant(msk="causal"), OptionError, "unknown-choice", "'mask'"),
    "a variant that is a number": (lambda f: attncli.attend(X, 3), OptionError, "bad-option", "'llama3'"),
    "a misspelt field": (lambda f: Problem(embedings=X), InputError, "unknown-field", "'embeddings'"),
    "a misspelt field of a dict": (lambda f: attncli.attend({"embedings": X, "tokens": ["a"]}), InputError, "unknown-field", "'embeddings'"),
    "keys that are numbers": (lambda f: attncli.attend({0: [1.0]}), InputError, "wrong-type", "embeddings"),
    "tokens in one text": (lambda f: attncli.attend(X, tokens="the cat sat"), OptionError, "bad-option", ".split()"),
    "two tokens for three": (lambda f: attncli.attend(X, tokens=["the", "cat"]), InputError, "count-mismatch", ""),
    "a misspelt step": (lambda f: attncli.attend(X, only="wieghts"), OptionError, "unknown-step", "'weights'"),
    "only=3": (lambda f: attncli.attend(X, only=3), OptionError, "bad-option", "only=['weights', 'context']"),
    "only=[]": (lambda f: attncli.attend(X, only=[]), OptionError, "bad-option", "only='all'"),
    "a step that is absent": (lambda f: attncli.attend(X, only="output"), InputError, "absent-step", "its steps are"),
    "keep and only": (lambda f: attncli.attend(X, keep="weights", only="weights"), OptionError, "bad-option", "leave one"),
    "a query that is absent": (lambda f: attncli.attend(X, tokens=TOKENS, at={"query": "dog"}), InputError, "unknown-token", ""),
    "an axis that is absent": (lambda f: attncli.attend(X, at={"row": 0}), OptionError, "unknown-axis", "query"),
    "top='a'": (lambda f: attncli.attend(X, top="a"), OptionError, "bad-option", ""),
    "options of reading and an array": (lambda f: attncli.attend(X, header="no"), OptionError, "bad-option", "leave"),
    "header='maybe'": (lambda f: attncli.attend(f / "x.csv", header="maybe"), OptionError, "bad-option", "no or yes"),
    "an array to read": (lambda f: attncli.read(X), InputError, "wrong-type", "attend takes arrays"),
    "choices to read": (lambda f: attncli.read(f / "x.csv", mask="causal"), OptionError, "bad-option", "attend takes it"),
    "result.weights": (lambda f: attncli.attend(X).weights, OptionError, "unknown-attribute", "result['weights']"),
    "result.to_jsn": (lambda f: attncli.attend(X).to_jsn, OptionError, "unknown-attribute", "'to_json'"),
    "result['wieghts']": (lambda f: attncli.attend(X)["wieghts"], InputError, "absent-step", "'weights'"),
    "to_pandas of another step": (lambda f: attncli.attend(X).to_pandas("output"), InputError, "absent-step", "it holds"),
    "a format that there is not": (lambda f: attncli.attend(X).to_text("docx"), OptionError, "unknown-format", "it can be"),
    "a suffix that there is not": (lambda f: attncli.attend(X).save(f / "x.docx"), OptionError, "unknown-format", "json"),
    "a file that is there": (lambda f: attncli.attend(X).save(f / "x.csv"), OptionError, "output-exists", "force=True"),
    "a folder that is not there": (lambda f: attncli.attend(X).save(f / "no/x.json"), CannotError, "cannot-write", "mkdir"),
    "an array to write": (lambda f: attncli.write(X, "x.json"), InputError, "wrong-type", "attncli.attend(x)"),
    "a query to explain that is absent": (lambda f: attncli.explain(X, "dog", tokens=TOKENS), InputError, "unknown-token", ""),
    "a page in CSV": (lambda f: attncli.attend(X).explain(format="csv"), OptionError, "unknown-format", "markdown"),
    "no figures": (lambda f: attncli.check(X), InputError, "no-figures", "check(problem"),
    "an array of no step": (lambda f: attncli.check(X, W), InputError, "no-figures", 'step="context"'),
    "figures of a misspelt step": (lambda f: attncli.check(X, {"wieghts": W}), InputError, "unknown-step", "'weights'"),
    "figures of another shape": (lambda f: attncli.check(X, {"weights": W[:2]}), InputError, "wrong-shape", "rows"),
    "a misspelt rule": (lambda f: attncli.check(X, {"weights": W}, rule="close-to"), OptionError, "bad-option", "close"),
    "report.causse": (lambda f: attncli.check(X, {"weights": W}).causse, OptionError, "unknown-attribute", "'causes'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_first_call_that_cannot_be_says_why_and_what_to_do(folder, name):
    call, kind, code, way_out = REFUSED[name]

    with pytest.raises(AttnError) as caught:
        call(folder)

    error = caught.value
    assert isinstance(error, kind), str(error)
    assert error.code == code, str(error)
    assert way_out in error.help, str(error)
    assert error.message in str(error)
    assert error.help in str(error)


def test_options_of_the_command_line_are_spelled_for_python():
    with pytest.raises(AttnError) as caught:
        attncli.attend(X, Variant(name="multi-head"))

    assert caught.value.__notes__ == ["  = in Python: heads="]


def test_dir_shows_what_is_public():
    assert [name for name in dir(attncli) if not name.startswith("__")] == sorted(attncli.__all__)


def test_the_garbage_collector_is_left_as_it_is():
    import gc

    before = gc.get_freeze_count()
    gc.disable()
    try:
        pipeline.load_engine.cache_clear()
        attncli.attend(X)
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert gc.get_freeze_count() <= before  # those that were frozen may have gone since
