"""`id` and `meta`: what is carried along unchanged, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import attncli
from attncli.errors import InputError


def problem(**fields) -> attncli.Attention:
    return attncli.attend(attncli.Problem(embeddings=[[1.0]], **fields), keep={"scores"})


@pytest.mark.parametrize(
    "value", ["", "a\n\x1b", "é" * 1024, 0, -(2**63) - 1, 10**4200, 0.5, 1e300], ids=lambda value: repr(value)[:12]
)
def test_an_id_is_a_text_or_a_number(value):
    found = problem(id=value).id

    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("x" * 1025, "too-long"),
        ("\ud800", "wrong-encoding"),
        (float("nan"), "not-finite"),
        (10**4300, "too-long"),
        (True, "wrong-type"),
        ([1], "wrong-type"),
        ({"a": 1}, "wrong-type"),
    ],
    ids=lambda value: repr(type(value)) if not isinstance(value, str) else value[:12].encode("unicode_escape").decode(),
)
def test_another_id_is_refused(value, code):
    with pytest.raises(InputError) as refused:
        problem(id=value)

    assert (refused.value.code, refused.value.location.path) == (code, "$.id")


def test_meta_is_any_object():
    meta = {"": None, "a": [True, 2**80, 1.25, "\u202e", {"b": []}]}

    assert problem(meta=meta).meta == meta
    assert problem(meta={}).meta == {}


def nested(depth: int) -> dict:
    inner: dict = {}
    for _ in range(depth - 1):
        inner = {"a": inner}
    return inner


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([1], "wrong-type"),
        ({1: 2}, "wrong-type"),
        ({"a": np.zeros(2)}, "wrong-type"),
        ({"a": b"x"}, "wrong-type"),
        ({"a": [float("inf")]}, "not-finite"),
        ({"a": {"\udc80": 1}}, "wrong-encoding"),
        ({"a": 10**4300}, "too-long"),
        ({"a": [0] * 2**16}, "too-long"),
        ({"a": "x" * 2**20}, "too-long"),
        (nested(65), "too-deep"),
    ],
    ids=[
        "list",
        "number as key",
        "array",
        "bytes",
        "infinity",
        "half a character",
        "digits",
        "values",
        "text",
        "depth",
    ],
)
def test_what_json_cannot_hold_or_is_too_much_is_refused(value, code):
    with pytest.raises(InputError) as refused:
        problem(meta=value)

    assert (refused.value.code, refused.value.location.path[:6]) == (code, "$.meta")


def test_the_deepest_meta_that_is_taken_can_be_written(attn, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"embeddings": [[1]], "meta": nested(64)}))

    assert attn("compute", "x.json", "--json").json["meta"] == nested(64)
    assert attn("compute", "x.json", "--json", "--color", "never", columns=80).json["meta"] == nested(64)


def test_a_key_that_stands_twice_in_meta_is_refused(attn):
    done = attn("compute", "-", "--input-format", "json", stdin=b'{"embeddings": [[1]], "meta": {"a": 1, "a": 2}}')

    assert (done.status, "error[two-sources]: 'a' occurs twice in one object" in done.err) == (3, True)
