"""Notebooks of the documentation as something that is executed: `execute`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tests.helpers import ROOT, TIMEOUT

NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))


def execute(path: Path, folder: Path) -> dict[str, Any]:
    """The notebook with what its cells show today; they run in a folder that holds `sample_inputs/`."""
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    shutil.copytree(ROOT / "sample_inputs", folder / "sample_inputs")
    notebook = nbformat.read(path, as_version=4)
    environment = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": str(folder / ".ipython"),
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        options = {"timeout": TIMEOUT, "kernel_name": "python3", "resources": {"metadata": {"path": str(folder)}}}
        settings = Config({"KernelManager": {"transport": "ipc", "ip": str(folder / "kernel")}})  # no port is opened
        NotebookClient(notebook, config=settings, **options).execute()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    executed = json.loads(nbformat.writes(notebook))
    for cell in executed["cells"]:
        cell["metadata"] = {}  # when it was executed
    return executed


def outputs(notebook: dict[str, Any]) -> list[Any]:
    """What the cells show, one after another."""
    return [[_shown(output) for output in cell.get("outputs", ())] for cell in notebook["cells"]]


def _shown(output: dict[str, Any]) -> object:
    data = output.get("data") or {"text": output.get("text", output.get("ename"))}
    shown = {kind: "".join(text) if isinstance(text, list) else text for kind, text in data.items()}
    return shown | ({"image/png": "a picture"} if "image/png" in shown else {})  # its bytes are those of one matplotlib


def write(path: Path, notebook: dict[str, Any]) -> None:
    """Write a notebook as text that changes little."""
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
