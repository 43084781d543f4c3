"""Write what the documentation's commands print today into its pages: `just docs`, or `python -m tests.docs [PAGE…]`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.docs.notebook import NOTEBOOKS, execute, write
from tests.docs.pages import Shell, pages, rewritten
from tests.pictures.terminal import write_pictures
from tests.warm import WarmProgram, serving

if not shutil.which("jq"):
    sys.exit("the pages' commands need jq: https://jqlang.org/download/")
with tempfile.TemporaryDirectory() as folder, serving(Path(folder)):
    shell = Shell(WarmProgram(Path(folder)))
    write_pictures()
    named = [Path(name).resolve() for name in sys.argv[1:]]
    for notebook in [path for path in named if path.suffix == ".ipynb"] or (NOTEBOOKS if not named else ()):
        write(notebook, execute(notebook, Path(folder) / notebook.stem))
    for page in [path for path in named if path.suffix == ".md"] or (pages() if not named else ()):
        before, after = page.read_text(encoding="utf-8"), rewritten(page, shell)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print("rewritten:", page)
