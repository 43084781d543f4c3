"""Layers: imports point down and never in a circle, heavy libraries are imported where they are allowed, torch only when it is needed.

And what else is looked up in the source of the package: names that mean one thing, and types that say something.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers import ROOT, SAMPLES, run_without_torch
from tests.validation.bad_files import cases

# From the bottom up. A package or module may import from layers below its own, and from itself.
LAYERS = (
    {"symbols", "synonyms", "arrays"},
    {"errors", "text"},
    {"types", "derivation", "registry", "verdict", "tolerance", "atomic_file", "package_errors"},
    {"framework_arrays", "mask_expression", "output_formats", "parts", "presets"},
    {"variant", "step_names"},
    {"catalogue", "validation", "request"},
    {"plan", "schema"},
    {"select", "readers", "writers", "views"},
    {"core"},
    {"pipeline", "output_files"},
    {"explanation_pages", "calibration"},
    {"api"},
    {"check", "batch", "capture"},
    {"cli"},
)
# Which packages may import a library at module level; inside a function any may.
MODULE_LEVEL_IMPORTS = {
    "torch": {"capture", "core"},
    "rich": {"views"},
    "typer": {"cli"},
    "safetensors": set(),
    "polars": set(),
    "msgspec": {"writers"},
    "numpy": {"check", "core", "validation", "plan", "views", "writers"},
    "dask": set(),
    "distributed": set(),
    "fsspec": set(),
    "zstandard": set(),
    "matplotlib": {"views"},
}


# ── imports point down ───────────────────────────────────────────────────────────────────────────
def violations(package: Path) -> list[str]:
    """Find every import that points up or sideways, and every library imported at module level where it may not be."""
    layer = {name: i for i, names in enumerate(LAYERS) for name in names}
    everything = {path.name.removesuffix(".py") for path in package.iterdir()}
    wrong = []
    for path in sorted(package.rglob("*.py")):
        here = path.relative_to(package).parts[0].removesuffix(".py")
        if here.startswith("__"):
            continue  # the lazy public names, and the entry of the program
        for imported in imports_of(path.read_text(encoding="utf-8")):
            for name in imported.names() if imported.when != "typing" else ():
                library, _, rest = name.partition(".")
                if library == "attncli":
                    other = rest.split(".")[0]
                    if other in everything and other != here and layer[other] >= layer[here]:
                        wrong.append(f"{path.name}: {here} imports {other}, which is not below it")
                elif imported.when == "module" and here not in MODULE_LEVEL_IMPORTS.get(library, {here}):
                    wrong.append(f"{path.name}: {library} at module level in {here}")
    return wrong


class Import(NamedTuple):
    node: ast.Import | ast.ImportFrom
    when: str  # "module": as the module is imported; "function": when one is called; "typing": never

    def names(self) -> list[str]:
        """What may be a module: `from a import b` imports a, and a.b where that is one."""
        if isinstance(self.node, ast.Import):
            return [alias.name for alias in self.node.names]
        assert not self.node.level, "imports are absolute here"
        return [f"{self.node.module}.{alias.name}" for alias in self.node.names]


@cache
def imports_of(source: str) -> tuple[Import, ...]:
    """Every import of a module, wherever it stands."""

    def visit(node: ast.AST, when: str):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield Import(child, when)
            elif isinstance(child, ast.FunctionDef):
                yield from visit(child, "function" if when == "module" else when)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from visit(child, "typing")
            elif isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                yield from visit(child, when)

    return tuple(visit(ast.parse(source), "module"))


def test_imports_point_down():
    assert violations(ROOT / "attncli") == []


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("parts/masks.py", "from attncli.core.attention import attend", "parts imports core"),
        ("readers/json.py", "from attncli.writers.json import write_json", "readers imports writers"),
        ("errors.py", "def f():\n    import attncli.types", "errors imports types"),
        ("parts/masks.py", "import torch", "torch at module level in parts"),
        ("validation/fields.py", "from rich.text import Text", "rich at module level in validation"),
    ],
)
def test_a_planted_import_is_found(tmp_path, file, line, said):
    package = tmp_path / "attncli"
    shutil.copytree(ROOT / "attncli", package)
    planted = package / file
    planted.write_text(planted.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")

    assert [v for v in violations(package) if said in v]


# ── no circles ───────────────────────────────────────────────────────────────────────────────────
def sources_of(package: Path) -> dict[str, str]:
    """Every module of a package, by its name below the package."""
    out = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts if parts[-1] != "__init__" else parts[:-1])
        out[name] = path.read_text(encoding="utf-8")
    return out


def import_circles(package: Path) -> list[set[str]]:
    """Find modules that import each other: at module level, in functions, and for type checkers alike."""
    sources = sources_of(package)

    def module(name: str) -> str:
        """attncli.plan.schedule.choose_schedule → plan.schedule"""
        name = name.removeprefix("attncli.")
        return name if name in sources else name.rpartition(".")[0]

    reached = {}
    for name, source in sources.items():
        imported = (one for i in imports_of(source) for one in i.names() if one.startswith("attncli."))
        reached[name] = {module(one) for one in imported} - {name, ""}
    for middle in sources:  # Warshall: what a module reaches through others
        for name in sources:
            if middle in reached[name]:
                reached[name] |= reached[middle]
    circles = [
        {other for other in reached[name] if name in reached[other]} for name in sources if name in reached[name]
    ]
    return [circle for i, circle in enumerate(circles) if circle not in circles[:i]]


def test_no_modules_import_each_other():
    assert [sorted(circle) for circle in import_circles(ROOT / "attncli")] == []


@pytest.mark.parametrize(
    "line",
    [
        "import attncli.parts.masks",
        "def f():\n    from attncli.parts import masks",
        "if TYPE_CHECKING:\n    from attncli.parts.masks import mask",
    ],
)
def test_a_planted_circle_is_found(tmp_path, line):
    package = tmp_path / "attncli"
    shutil.copytree(ROOT / "attncli", package)
    with (package / "registry.py").open("a", encoding="utf-8") as file:  # parts.masks imports registry
        file.write(f"\n{line}\n")

    assert any({"registry", "parts.masks"} <= circle for circle in import_circles(package))


# ── one name, one meaning ────────────────────────────────────────────────────────────────────────
# Names that stand in three modules or more, with the one meaning that each has there.
SHARED_NAMES = {
    "cancel_all": "end the tasks that a pool of workers has",
    "cancel_unstarted": "take back what a pool of workers has not begun",
    "completed": "the tasks of a pool of workers that are over",
    "draw": "draw what has been laid out onto a page",
    "explain": "work out one query on paper",
    "find": "which keys are hidden from some queries",
    "given": "the part of its family that takes what the problem's file gives",
    "has_capacity": "whether a pool of workers takes another task now",
    "header": "what stands above a band of a figure",
    "in_flight": "the tasks that a pool of workers has",
    "is_marked": "whether a hidden key has no number of its own in a step",
    "lay_out": "decide the sizes of a band of a figure, for a width",
    "legend": "what the colours of a band of a figure mean",
    "natural_width": "the width of a band of a figure where none is asked for",
    "none": "the part of its family that does nothing",
    "read": "return what a file holds",
    "submit": "give a task to a pool of workers",
    "to_record": "an object as plain values, as JSON holds it",
    "write": "write a text to a stream, or a result to a file",
    "worker_count": "how many tasks a pool of workers computes at a time",
}


def public_names(package: Path) -> dict[str, set[str]]:
    """Every function, class and method that has no underscore before it, and the modules that define it."""
    found = defaultdict(set)
    for module, source in sources_of(package).items():
        body = ast.parse(source).body
        methods = [node for owner in body if isinstance(owner, ast.ClassDef) for node in owner.body]
        for node in (*body, *methods):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].add(module)
    return found


@pytest.mark.slow
def test_no_public_name_means_three_things():
    found = {name: sorted(modules) for name, modules in public_names(ROOT / "attncli").items() if len(modules) > 2}

    assert {name: modules for name, modules in found.items() if name not in SHARED_NAMES} == {}


# ── what type checkers are not told ──────────────────────────────────────────────────────────────
MAX_UNTOLD = 95  # a bound, never a goal: lower it where a type takes the place of an `Any`


def untold_types(source: str) -> list[int]:
    """The lines on which a module says `Any`, or `Callable[..., x]`, which is a function of any arguments."""
    found = []
    for node in ast.walk(ast.parse(source)):
        is_any = isinstance(node, ast.Name) and node.id == "Any"
        is_of_any_arguments = isinstance(node, ast.Subscript) and ast.unparse(node).startswith("Callable[...,")
        if is_any or is_of_any_arguments:
            found.append(node.lineno)
    return found


@pytest.mark.slow
def test_few_types_are_any():
    untold = {name: untold_types(source) for name, source in sources_of(ROOT / "attncli").items()}

    assert sum(map(len, untold.values())) <= MAX_UNTOLD, untold


def test_no_type_of_what_python_calls_is_any():
    sources = sources_of(ROOT / "attncli")

    assert {name for name in sources if name.split(".")[0] in ("", "api") and untold_types(sources[name])} == set()


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("from typing import Any", 0),
        ("x: Any", 1),
        ("def f(x: dict[str, Any], y: Callable[..., object]) -> Any: ...", 3),
        ("Alias: TypeAlias = Any", 1),
        ("def f(x: AnyPart, y: Callable[[int], str]) -> None: ...", 0),
    ],
)
def test_a_planted_any_is_counted(line, count):
    assert len(untold_types(line)) == count


# ── what is found by being there ─────────────────────────────────────────────────────────────────
def test_a_group_of_faults_is_found_by_being_a_file(tmp_path):
    shutil.copytree(ROOT / "attncli", tmp_path / "attncli")
    planted = "from attncli.check.faults.base import fault\n\n@fault\ndef another(b):\n    yield from ()\n"
    (tmp_path / "attncli/check/faults/another.py").write_text(planted, encoding="utf-8")
    code = "from attncli.check.faults.rounding import fault; import attncli.check.faults.base as s; print(*(f.__module__ for f in s.FAULTS))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)

    groups = list(dict.fromkeys(name.rpartition(".")[2] for name in done.stdout.split()))
    assert groups[:3] == ["scale", "normalizers", "masks"]  # the order that is written down, whatever is imported first
    assert groups[-2:] == ["rounding", "another"]


# ── a process that has no torch ──────────────────────────────────────────────────────────────────
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


@pytest.mark.slow
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
    planted = "import attncli.readers.files as f; was = f.open_input\ndef open_input(path):\n    import torch\n    return was(path)\nf.open_input = open_input"

    [(status, asked, _, err)] = run_without_torch([["compute", "/nowhere.json"]], planted)

    assert asked
    assert (status, err.startswith("error[cannot-load]: ")) == (4, True)


def test_importing_the_package_imports_no_library():
    code = "import sys, attncli, attncli.types, attncli.variant; print([m for m in ('torch', 'numpy', 'rich', 'typer', 'msgspec') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)

    assert done.stdout.strip() == "[]"
