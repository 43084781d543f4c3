"""Whatever is given to the Python interface, it computes or raises an `AttnError`: never what Python raises inside."""

from __future__ import annotations

import datetime
import decimal
import fractions
import inspect

import numpy as np
import pandas as pd
import pytest
import torch

import attncli
from attncli import AttnError
from attncli.api.types import Options
from tests.helpers import SAMPLES

pytestmark = pytest.mark.slow  # what one call loads is loaded for each argument

X = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
VALUES = {
    "an integer": 5,
    "a negative integer": -1,
    "a large integer": 10**400,
    "a boolean": True,
    "NaN": float("nan"),
    "an infinity": float("inf"),
    "a text": "x",
    "an empty text": "",
    "a NUL": "a\0b.csv",
    "half a character": "\ud800",
    "bytes": b"x",
    "an object": object(),
    "a class": dict,
    "a function": len,
    "a generator": iter([1]),
    "an empty list": [],
    "an empty dict": {},
    "a list of None": [None, None],
    "a list of texts": ["a", "b"],
    "a list of lists of texts": [["a"], ["b"], ["c"]],
    "a set": {1, 2},
    "a dict": {"a": 1},
    "a dict of itself": (lambda d: d.update(a=d) or d)({}),
    "a list of itself": (lambda x: x.append(x) or x)([]),
    "a complex number": 1j,
    "a fraction": fractions.Fraction(1, 3),
    "a decimal": decimal.Decimal("0.1"),
    "a date": datetime.date(2026, 1, 1),
    "an array of one": np.array([1.0]),
    "an array without axes": np.array(1.0),
    "an array of nothing": np.zeros((0, 2)),
    "an array of objects": np.array([[object()]]),
    "an array of dates": np.array([["2026-01-01"]], "datetime64[D]"),
    "an array of complex numbers": np.ones((2, 2), complex),
    "a tensor without axes": torch.tensor(1.0),
    "a tensor of booleans": torch.ones(3, 3, dtype=torch.bool),
    "a tensor of the wrong shape": torch.ones(2, 7),
    "a frame of nothing": pd.DataFrame(),
    "a frame of texts": pd.DataFrame({"a": ["x"]}),
    "a frame of lists": pd.DataFrame({"a": [[1.0], [2.0, 3.0]]}),
    "a series of nothing": pd.Series([], dtype=float),
    "a slice": slice(None),
    "Ellipsis": ...,
    "a result": attncli.attend(X),
    "a step": attncli.attend(X)["weights"],
    "a report": attncli.check(X, {"q": X}),
    "a variant": attncli.Variant(),
    "a problem": attncli.Problem(embeddings=X),
    "an error": AttnError("x", "y"),
}  # fmt: skip


def raises_nothing_else(call):
    """Check that a call returns, or says what is wrong in a sentence of its own."""
    error = None
    try:
        call()
    except AttnError as caught:
        error = caught
    assert error is None or (error.code != "bug" and len(error.message) < 1200 and str(error))


@pytest.mark.parametrize("value", VALUES.values(), ids=list(VALUES))
def test_any_input(value):
    raises_nothing_else(lambda: attncli.attend(value))
    raises_nothing_else(lambda: attncli.attend([value, value]))
    raises_nothing_else(lambda: attncli.attend({"embeddings": value}))
    raises_nothing_else(lambda: attncli.attend(attncli.Problem(embeddings=value)))
    raises_nothing_else(lambda: attncli.read(value))
    raises_nothing_else(lambda: attncli.explain(value))
    raises_nothing_else(lambda: attncli.check(value, {"weights": X}))


@pytest.mark.parametrize("name", sorted({*Options.__annotations__, "variant", "keep", "only", "at", "top", "nonsense"}))
def test_any_value_of_any_keyword(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in VALUES.values():
        if isinstance(value, int) and not isinstance(value, bool) and name == "top":
            continue  # of these some are right
        raises_nothing_else(lambda value=value: attncli.attend(X, **{name: value}))
        raises_nothing_else(lambda value=value: attncli.attend(SAMPLES / "tokens.csv", **{name: value}))


METHODS = {
    "check": lambda name, value: attncli.check(**{"problem": X, "figures": {"weights": X}, "identify": False, name: value}),
    "explain": lambda name, value: attncli.explain(**{"problem": X, name: value}),
    "write": lambda name, value: attncli.write(**{"result": attncli.attend(X), "path": "x.json", "force": True, name: value}),
    "Result.to_text": lambda name, value: attncli.attend(X).to_text(**{name: value}),
    "Result.to_pandas": lambda name, value: attncli.attend(X).to_pandas(**{name: value}),
    "Result.to_polars": lambda name, value: attncli.attend(X).to_polars(**{name: value}),
    "Result.save": lambda name, value: attncli.attend(X).save(**{"path": "x.json", "force": True, name: value}),
    "Result.explain": lambda name, value: attncli.attend(X).explain(**{name: value}),
    "Report.to_text": lambda name, value: attncli.check(X, {"q": X}).to_text(**{name: value}),
}  # fmt: skip


def parameters_of(path):
    subject = attncli
    for name in path.split("."):
        subject = getattr(subject, name)
    parameters = inspect.signature(inspect.unwrap(subject)).parameters.values()
    return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]


@pytest.mark.parametrize(("path", "name"), [(path, name) for path in METHODS for name in parameters_of(path)])
def test_any_value_of_any_argument(path, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in VALUES.values():
        raises_nothing_else(lambda value=value: METHODS[path](name, value))


def test_any_item_of_a_result():
    result = attncli.attend(X)
    for value in VALUES.values():
        raises_nothing_else(lambda value=value: result[value])
