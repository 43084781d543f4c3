"""A key or a name that stands twice is refused wherever a file can hold one, however large the file is."""

from __future__ import annotations

import io
import json
import time
import warnings
import zipfile

import numpy as np
import pytest

import attncli
from attncli.errors import InputError
from attncli.readers.base import check_duplicate_keys
from tests.validation.bad_files import npy, npz, safetensors

X = '"embeddings": [[1, 0], [0, 1]]'
F64 = {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}
LONG = json.dumps([[0.125] * 1000] * 200)  # more than 1 MiB


def zipped_twice(*names: str) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")
        for name in names:
            archive.writestr(name, npy(np.eye(2)))
    return out.getvalue()


def with_header(text: str, data: bytes = bytes(8)) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode() + data


JSON_FILES = {
    "a field": '{"embeddings": [[1]], "embeddings": [[2]]}',
    "a field, escaped": '{"embeddings": [[1]], "embed\\u0064ings": [[2]]}',
    "a field of which one is null": f'{{"about": null, {X}, "about": 1}}',
    "an escaped colon beside it": f'{{{X}, "about": {{"a\\u003a": 1, "b": 1, "b": 2}}}}',
    "in a group": f'{{{X}, "parameters": {{"w_q": [[1]], "w_q": [[2]]}}}}',
    "in the memory": f'{{{X}, "memory": {{"embeddings": [[1]], "tokens": ["a"], "tokens": ["b"]}}}}',
    "a token in the embeddings": '{"embeddings": {"the": [1, 0], "cat": [0, 1], "the": [1, 1]}}',
    "a token in embeddings that are records": '{"embeddings": [{"token": "a", "embedding": [1], "token": "b"}]}',
    "in the variant": f'{{{X}, "variant": {{"mask": "full", "mask": "causal"}}}}',
    "in about": f'{{{X}, "about": {{"a": 1, "a": 1}}}}',
    "deep in about": f'{{{X}, "about": [[{{"b": {{"a": 1, "a": 1}}}}]]}}',
    "beside a text with a colon": f'{{{X}, "about": ["a:b", {{"a": 1, "a": 1}}]}}',
    "in expected": f'{{{X}, "expected": {{"weights": [[1]], "weights": [[1]]}}}}',
    "in figures of a step": f'{{{X}, "expected": {{"weights": {{"values": [[1]], "values": [[1]]}}}}}}',
    "in a token": '[{"token": "a", "embedding": [1], "embedding": [2]}]',
    "in the second token": '[{"token": "a", "embedding": [1]}, {"token": "b", "token": "c", "embedding": [2]}]',
    "in a token with a colon": '[{"token": ":", "token": "\\u003a", "embedding": [1]}]',
    "in a token that makes up for it": '[{"token": "x", "token": "\\u003a", "embedding": [1]}]',
    "a long field": f'{{"embeddings": {LONG}, "embeddings": {LONG}}}',
    "beside a long field": f'{{"embeddings": {LONG}, "about": {{"a": 1, "a": 2}}}}',
    "a field in a long group": f'{{{X}, "parameters": {{"w_q": {LONG}, "w_q": [[1]]}}}}',
}


@pytest.mark.parametrize("text", JSON_FILES.values(), ids=JSON_FILES)
def test_json(tmp_path, text):
    (tmp_path / "a.json").write_text(text)

    with pytest.raises(InputError, match="occurs twice in one object") as caught:
        attncli.read(tmp_path / "a.json")

    assert caught.value.code == "two-sources"


@pytest.mark.parametrize(
    "text",
    [
        f'{{{X}, "about": {{"a:b": "c:d", "a": {{"a": 1}}}}, "tokens": [":", "\\u003a"]}}',
        '[{"token": ":", "embedding": [1]}, {"token": "\\u003a", "embedding": [1]}]',
        f'{{{X}, "about": [{{"a": 1}}, {{"a": 1}}]}}',
    ],
)
def test_colons_and_equal_keys_of_other_objects_are_none(tmp_path, text):
    (tmp_path / "a.json").write_text(text)

    assert attncli.read(tmp_path / "a.json").embeddings.shape[0] == 2


ARRAY_FILES = {
    "a.npz: a name": zipped_twice("embeddings.npy", "embeddings.npy"),
    "a.npz: with and without suffix": zipped_twice("embeddings", "embeddings.npy"),
    "a.npz: in the text beside": npz(embeddings=np.eye(2), attn=np.array('{"about": {"a": 1, "a": 2}}')),
    "a.npz: an array and the text": npz(embeddings=np.eye(2), attn=np.array('{"embeddings": [[1]]}')),
    "a.npz: labels and the text": npz(
        embeddings=np.eye(2), tokens=np.array(["a", "b"]), attn=np.array('{"tokens": ["c", "d"]}')
    ),
    "a.npz: an array and fields in it": zipped_twice("parameters.w_q.npy", "parameters.npy"),
    "a.safetensors: a name": with_header(json.dumps({"a": F64})[:-1] + "," + json.dumps({"a": F64})[1:]),
    "a.safetensors: a property": with_header(
        '{"embeddings": {"dtype": "F64", "dtype": "F64", "shape": [1, 1], "data_offsets": [0, 8]}}'
    ),
    "a.safetensors: metadata": with_header(
        '{"__metadata__": {"attn": "{}", "attn": "{}"}, ' + json.dumps({"embeddings": F64})[1:]
    ),
    "a.safetensors: in the text": safetensors(
        {"__metadata__": {"attn": '{"tokens": ["a"], "tokens": ["b"]}'}, "embeddings": {**F64, "shape": [1, 1]}},
        bytes(8),
    ),
}


@pytest.mark.parametrize("case", ARRAY_FILES)
def test_arrays(tmp_path, case):
    path = tmp_path / case.split(":")[0]
    path.write_bytes(ARRAY_FILES[case])

    with pytest.raises(InputError) as caught:
        attncli.read(path)

    assert "twice" in caught.value.message or "are arrays too" in caught.value.message
    assert caught.value.code == "two-sources"


@pytest.mark.slow
def test_the_look_takes_time_in_proportion_to_the_text():
    def seconds(count: int) -> float:
        text = json.dumps({f"a{i}": 1 for i in range(count)})
        started = time.process_time()
        check_duplicate_keys(text)
        return time.process_time() - started

    assert min(seconds(80_000) for _ in range(3)) < 60 * min(
        seconds(5_000) for _ in range(3)
    )  # 256 if it were quadratic
