"""Types for editors: no `Any` in a public signature, every keyword is declared once, and a user's file type-checks."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module

import pytest

import attncli
from attncli.api.keywords import FIELD_NAMES, READING_NAMES
from attncli.api.types import ChoiceOptions, FieldOptions, Options, ReadingOptions, SharedOptions
from attncli.request import SHORT_FORMS
from attncli.types import INPUT_NAMES
from attncli.variant import CHOICES
from tests.helpers import ROOT, TIMEOUT

UNTYPED = {"Any", "Array", "Json", "Labels"}  # the aliases of the package that stand for Any


def signatures(names=attncli.__all__):
    """Every public function and method, with its annotations as they are written."""
    for name in names:
        subject = getattr(attncli, name)
        if inspect.ismodule(subject):  # `check`, the package that can be called
            subject = import_module("attncli.check.call").check_figures
        if not inspect.isclass(subject):
            yield name, annotations_of(subject)
            continue
        for member, value in vars(subject).items():
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if inspect.isfunction(function) and not member.startswith("_"):
                yield f"{name}.{member}", annotations_of(function)


def annotations_of(function):
    function = inspect.unwrap(function)
    expected = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
    annotations = dict(function.__annotations__)
    assert {*expected, "return"} <= annotations.keys(), function
    return annotations


def test_no_public_signature_has_any():
    found = dict(signatures())

    assert len(found) > 40
    assert {
        "attend",
        "check",
        "Result.save",
        "Report.assert_right",
        "Variant.replace",
        "AttnError.to_record",
    } <= found.keys()
    for name, annotated in found.items():
        for parameter, annotation in annotated.items():
            assert not UNTYPED & set(re.findall(r"\w+", str(annotation))), (name, parameter, annotation)


def test_help_teaches():
    import pydoc

    tour = pydoc.plain(pydoc.render_doc(attncli))

    assert 'attncli.attend("tokens.csv", mask="causal")' in tour
    for name in attncli.__all__:
        subject = getattr(attncli, name)
        assert len(inspect.getdoc(subject)) > 40, name
        for member, value in vars(subject).items() if inspect.isclass(subject) and name != "Variant" else ():
            if not member.startswith("_") and callable(value):
                assert inspect.getdoc(value), (name, member)
    assert "embeddings" in inspect.signature(attncli.Problem).parameters
    attend = inspect.getdoc(attncli.attend)
    assert all(word in attend for word in ("Args:", "Returns:", "Raises:", "Source:", "(B, T, d)"))


def test_the_types_that_signatures_name_have_no_any():
    for module in ("api/types.py", "arrays.py"):
        tree = ast.parse((ROOT / "attncli" / module).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id != "NumpyArray":
                assert not UNTYPED & set(re.findall(r"\w+", ast.unparse(node))), ast.unparse(node)


def test_an_any_would_be_found():
    assert UNTYPED & set(re.findall(r"\w+", "Mapping[str, Any] | None"))


def test_the_constructor_that_type_checkers_see_has_every_field_of_a_problem():
    tree = ast.parse((ROOT / "attncli/types.py").read_text(encoding="utf-8"))
    [problem] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Problem"]
    [init] = [node for node in ast.walk(problem) if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    names = [argument.arg for argument in init.args.args[1:]]

    assert names == [field.name for field in attncli.Problem.__dataclass_fields__.values()]
    assert not UNTYPED & set(re.findall(r"\w+", ast.unparse(init.args)))


def test_every_keyword_is_declared():
    def keys(options):
        return {*options.__annotations__}

    assert keys(ChoiceOptions) == {*CHOICES, *SHORT_FORMS}
    assert keys(FieldOptions) == FIELD_NAMES - {"mask", "layout"}  # a mask is a choice or a field
    assert keys(ReadingOptions) == {*READING_NAMES}
    assert keys(Options) == keys(SharedOptions) | {"layout"}
    assert INPUT_NAMES - {"variant"} == FIELD_NAMES


USER = """
import numpy as np
import attncli

x = np.eye(3)
result = attncli.attend(x, mask="causal", heads=1, tokens=["a", "b", "c"], only=["weights"])
reveal_type(result)
shape: tuple[int, ...] = result["weights"].values.shape
result.save("x.json", force=True)
reveal_type(result.explain("a"))
report = attncli.check(attncli.Problem(q=x, k=x), {"weights": x}, causal=True, layout="bthd")
reveal_type(report.right)
attncli.attend(x, maks="causal")
attncli.attend(x, heads="two")
attncli.Problem(embedings=x)
"""


@pytest.mark.slow
def test_a_file_of_a_user_is_checked(tmp_path):
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    skipped = "".join(
        f"[mypy-{library}.*]\nfollow_imports = skip\n" for library in ("torch", "polars", "pandas", "rich", "dask")
    )
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nmypy_path = {ROOT}\nfollow_imports = silent\n{skipped}", encoding="utf-8"
    )

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini", "user.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=TIMEOUT,
        check=False,
    )

    said = [
        line.partition(": ")[2]
        for line in done.stdout.splitlines()
        if line.startswith("user.py:") and " defined in " not in line
    ]
    assert [re.sub(r"attncli\.[a-z_.]*", "", line.partition("  [")[0]) for line in said] == [
        'note: Revealed type is "Result"',
        'note: Revealed type is "Explanation"',
        'note: Revealed type is "bool"',
        'error: Unexpected keyword argument "maks" for "attend"',
        'error: Argument "heads" to "attend" has incompatible type "str"; expected "int"',
        'error: Unexpected keyword argument "embedings" for "Problem"; did you mean "embeddings"?',
    ]
