"""A package of others that is missing or damaged: it is named, with the command that installs it, whichever command meets it first."""

from __future__ import annotations

import sys

import numpy as np
import polars
import pytest

FILES = {"x.json": '{"embeddings": [[1, 2], [3, 4]]}', "x.csv": "a,1,2\nb,3,4\n", "x.ndjson": "[[1, 2]]\n[[3, 4]]\n"}


@pytest.fixture
def inputs(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    polars.DataFrame({"d0": np.arange(2.0), "d1": np.arange(2.0)}).write_parquet(tmp_path / "x.parquet")


NEEDED_BY = [
    ("msgspec", ("compute", "x.json")),
    ("msgspec", ("compute", "x.ndjson")),
    ("msgspec", ("check", "x.json", "--figures", "x.json")),
    ("msgspec", ("batch", "x.json", "-o", "out")),
    ("numpy", ("compute", "x.csv")),
    ("polars", ("compute", "x.parquet")),
    ("polars", ("compute", "x.json", "-o", "r.parquet")),
    ("polars", ("batch", "x.csv", "-o", "all.parquet", "-q")),
]


@pytest.mark.parametrize(
    ("package", "words"), NEEDED_BY, ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_a_missing_package_is_named(attn, inputs, monkeypatch, tmp_path, package, words):
    before = {path.name for path in tmp_path.iterdir()}
    monkeypatch.setitem(sys.modules, package, None)

    done = attn(*words)

    error, hint = done.err.splitlines()[-2:]
    assert (done.status, done.out) == (4, "")
    assert error == f"error[cannot-load]: attn needs the package {package}, which is not installed"
    assert hint.split(";")[0] == f"  = help: python -m pip install {package}"
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} <= before


@pytest.mark.parametrize(
    ("code", "reason", "option"),
    [
        ("raise OSError('libfoo.so.1: cannot open shared object file')", "libfoo.so.1: cannot open shared object file", "--force-reinstall "),
        ("raise ImportError('\\n\\nIMPORTANT: PLEASE READ THIS\\n\\nmore')", "IMPORTANT: PLEASE READ THIS", "--force-reinstall "),
        ("import os; os.nope", "module 'os' has no attribute 'nope'", "--force-reinstall "),
        ("raise RuntimeError", "RuntimeError", "--force-reinstall "),
        ("import no_such_dependency", "No module named 'no_such_dependency'", ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("words", [("compute", "x.parquet"), ("compute", "x.json", "-o", "r.feather")])
def test_a_damaged_package_is_named_with_what_it_says(attn, inputs, monkeypatch, tmp_path, words, code, reason, option):
    planted = tmp_path / "planted" / "polars"
    planted.mkdir(parents=True)
    (planted / "__init__.py").write_text(code)
    monkeypatch.delitem(sys.modules, "polars")
    monkeypatch.syspath_prepend(planted.parent)

    done = attn(*words)

    said = f"error[cannot-load]: the package polars does not load: {reason}\n  = help: python -m pip install {option}polars\n"
    assert (done.status, done.err) == (4, said)
