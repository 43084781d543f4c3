"""What errors propose for tables with typed columns, Parquet and records in JSON: which columns are the tokens and the vectors."""

from __future__ import annotations

import io
import json

import numpy as np
import polars

from tests.proposals.figures import FILE, PLAIN, TOKENS, Proposal, X, attend

_RUN = "compute t.json"
_NAMES = ["d0", "d1", "d2", "d3"]
_ROWS = [dict(zip(_NAMES, x, strict=True)) for x in X.tolist()]  # a token each
_OTHER = X[::-1] / 2
_WITH_ID = attend(np.hstack([[[5], [6], [7]], X]))
_WITH_FREQUENCY = attend(np.hstack([X, np.full((3, 1), 7)]))


def records(**columns) -> dict[str, list[dict]]:
    """Return a file of records, a token each."""
    return {"t.json": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def parquet(**columns) -> dict[str, bytes]:
    file = io.BytesIO()
    polars.DataFrame(columns).write_parquet(file)
    return {"t.parquet": file.getvalue()}


_VECTORS = {"token": TOKENS, "embedding": X.tolist()}
_COLUMNS = dict(zip(_NAMES, X.T.tolist(), strict=True))
_FREQUENT = records(token=TOKENS, **_COLUMNS, freq=[7] * 3)
_INDEXED = parquet(id=[5, 6, 7], **_COLUMNS)
_LABELLED = parquet(token=TOKENS, **_COLUMNS)
_MARKED = records(token=TOKENS, **_COLUMNS, **{f"mark{i}": [True] * 3 for i in range(65)})  # more than an option spells
_WIDE = records(
    token=TOKENS, **_COLUMNS, **{f"x{i}": [i] * 3 for i in range(61)}, **{f"mark{i}": [True] * 3 for i in range(65)}
)  # both are more
_TOKEN_LINES = {"-": "".join(json.dumps({"token": t, "embedding": x}) + "\n" for t, x in zip(TOKENS, X.tolist(), strict=True))}  # fmt: skip

PROPOSALS = [
    # ── the vectors
    Proposal(_RUN, "--vector-field embeding", PLAIN, records(token=TOKENS, embeding=X.tolist())),
    Proposal(_RUN, "--vector-field embedding leaves it out", PLAIN, records(**_VECTORS, x=[1] * 3), f"{_RUN} --vector-field embedding"),
    Proposal(_RUN, "--vector-field embedding", PLAIN, records(**_VECTORS, vector=_OTHER.tolist())),
    Proposal(_RUN, "or --vector-field vector", attend(_OTHER), records(**_VECTORS, vector=_OTHER.tolist()), f"{_RUN} --vector-field vector"),
    Proposal(_RUN, "--drop freq", PLAIN, _FREQUENT),
    Proposal(_RUN, "--columns d0,d1,d2,d3,freq", _WITH_FREQUENCY, _FREQUENT),
    Proposal(_RUN, "--columns d0,d1,d2,d3", PLAIN, {"t.json": _COLUMNS}),
    Proposal(_RUN, "--drop place:5:70", PLAIN, _MARKED),
    Proposal(f"{_RUN} --drop mark0", "--drop place:5:70", PLAIN, _MARKED, f"{_RUN} --drop place:5:70"),
    Proposal(_RUN, "--drop place:66:131 leaves them out", "unclear-columns", _WIDE, f"{_RUN} --drop place:66:131"),
    Proposal("compute t.parquet --columns token,d0", "--columns COLUMN,… names those that are dimensions", attend(X[:, :1]), _LABELLED, "compute t.parquet --columns d0"),
    # ── the tokens
    Proposal(_RUN, "--token-field text", PLAIN, records(text=TOKENS, title=["x"] * 3, embedding=X.tolist())),
    Proposal(_RUN, "or --token-field title", PLAIN, records(text=TOKENS, title=["x"] * 3, embedding=X.tolist()), f"{_RUN} --token-field title"),
    Proposal("compute t.parquet", "--token-column id", PLAIN, _INDEXED),
    Proposal("compute t.parquet", "--drop id", PLAIN, _INDEXED),
    Proposal("compute t.parquet", "--columns id,d0,d1,d2,d3", _WITH_ID, _INDEXED),
    Proposal("compute t.parquet --token-column d0", "or says none", PLAIN, _LABELLED, "compute t.parquet --token-column none"),
    # ── the format
    Proposal("compute - --input-format ndjson", "--input-format ndjson-tokens reads one token per line", PLAIN, _TOKEN_LINES, "compute - --input-format ndjson-tokens"),
    Proposal("compute - --input-format ndjson", 'a problem has embeddings: {"embeddings": [[0.1, 0.2]]}', PLAIN, _TOKEN_LINES, "compute x.ndjson", {"x.ndjson": json.dumps({"embeddings": X.tolist()}) + "\n"}),
    Proposal("compute x.parquet", "name its format with --input-format", PLAIN, {"x.parquet": json.dumps(FILE["x.json"], default=lambda x: x.tolist())}, "compute x.parquet --input-format json"),
]  # fmt: skip
