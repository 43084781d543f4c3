"""Layers: imports point down, heavy guests have their doors, and torch stays outside until it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, SAMPLES, run_without_torch
from tests.validation.bad_files import cases

# From the cellar up. A room may import from floors below its own, and from its own room.
FLOORS = (
    {"errors"},
    {"types", "derivation", "registry", "verdict", "atomic_file"},
    {"mask_expression", "output_formats", "parts", "presets"},
    {"variant"},
    {"catalogue", "validation", "request"},
    {"plan", "schema"},
    {"select", "readers", "writers", "views"},
    {"core"},
    {"pipeline"},
    {"check", "batch"},
    {"cli"},
)
# Which rooms may import a guest at module level; inside a function any room may.
DOORS = {
    "torch": {"core"},
    "rich": {"views"},
    "typer": {"cli"},
    "safetensors": set(),
    "polars": set(),
    "msgspec": {"writers"},
    "numpy": {"check", "core", "validation", "plan", "views", "writers"},
    "dask": set(),
    "distributed": set(),
    "fsspec": set(),
}


def violations(package: Path) -> list[str]:
    """Every import that points up or sideways, and every guest met outside its door."""
    floor = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
    wrong = []
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        if room.startswith("__"):
            continue  # the lazy public names, and the entry of the program
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node, outermost in _imports(tree):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for name in names:
                guest, _, rest = name.partition(".")
                if guest == "attncli" and rest:
                    other = rest.split(".")[0]
                    if other != room and floor[other] >= floor[room]:
                        wrong.append(f"{path.name}: {room} imports {other}, which is not below it")
                elif outermost and guest in DOORS and room not in DOORS[guest]:
                    wrong.append(f"{path.name}: {guest} at module level in {room}")
    return wrong


def _imports(tree: ast.Module):
    """(import, whether it runs when the module is imported)"""
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    typing = {
        id(n)
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.unparse(i.test)
        for n in ast.walk(i)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in typing:
            yield node, id(node) not in inside


def test_imports_point_down():
    assert violations(ROOT / "attncli") == []


@pytest.mark.parametrize(
    ("room", "line", "said"),
    [
        ("parts/masks.py", "from attncli.core.attention import attend", "parts imports core"),
        ("readers/json.py", "from attncli.writers.json import write_json", "readers imports writers"),
        ("errors.py", "def f():\n    import attncli.types", "errors imports types"),
        ("parts/masks.py", "import torch", "torch at module level in parts"),
        ("validation/fields.py", "from rich.text import Text", "rich at module level in validation"),
    ],
)
def test_a_planted_import_is_found(tmp_path, room, line, said):
    import shutil

    package = tmp_path / "attncli"
    shutil.copytree(ROOT / "attncli", package)
    planted = package / room
    planted.write_text(planted.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")

    assert [v for v in violations(package) if said in v]


def test_a_group_of_faults_is_found_by_being_a_file(tmp_path):
    import shutil

    shutil.copytree(ROOT / "attncli", tmp_path / "attncli")
    planted = "from attncli.check.faults.base import fault\n\n@fault\ndef another(b):\n    yield from ()\n"
    (tmp_path / "attncli/check/faults/another.py").write_text(planted, encoding="utf-8")
    code = "from attncli.check.faults.rounding import fault; import attncli.check.faults.base as s; print(*(f.__module__ for f in s.FAULTS))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)

    groups = list(dict.fromkeys(name.rpartition(".")[2] for name in done.stdout.split()))
    assert groups[:3] == ["scale", "normalizers", "masks"]  # the order that is written down, whatever is imported first
    assert groups[-2:] == ["rounding", "another"]


HARMLESS = [
    ["--help"],
    ["compute", "--help"],
    ["check", "--help"],
    ["--version"],
    ["list"],
    ["list", "masks"],
    ["list", "variants", "causal"],
    ["schema", "problem"],
    ["schema", "result"],
]


def test_help_lists_and_schemas_do_not_ask_for_torch():
    for words, (status, asked, out, err) in zip(HARMLESS, run_without_torch(HARMLESS), strict=True):
        assert (status, asked, err) == (0, False, ""), words
        assert out > 10, words


def test_bad_input_is_refused_before_torch(tmp_path):
    table = cases(tmp_path)

    for (words, status, code), (got, asked, out, err) in zip(
        table, run_without_torch([words for words, _, _ in table]), strict=True
    ):
        assert (got, asked, out) == (status, False, 0), (words, err)
        assert err.startswith(f"error[{code}]: "), (words, err)
        assert "Traceback" not in err


def test_a_torch_that_does_not_load_is_exit_4():
    [(status, asked, out, err)] = run_without_torch([["compute", str(SAMPLES / "cat_sat.json")]])

    assert (status, asked, out) == (4, True, 0)
    assert err.startswith("error[torch-missing]: torch does not load: torch is refused")


def test_the_torch_refusing_process_would_notice():
    """A planted violation: a reader that imports torch is caught by the harness above."""
    planted = "import attncli.readers as r; was = r.slurp\ndef slurp(path, mapped=False):\n    import torch\n    return was(path)\nr.slurp = slurp"

    [(status, asked, _, _)] = run_without_torch([["compute", "/nowhere.json"]], planted)

    assert asked
    assert status == 70


def test_importing_the_package_imports_no_guest():
    code = "import sys, attncli, attncli.types, attncli.variant; print([m for m in ('torch', 'numpy', 'rich', 'typer', 'msgspec') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
