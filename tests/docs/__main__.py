"""Write what the documentation's commands print today into its pages: `just docs`, or `python -m tests.docs [PAGE…]`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.docs.pages import Shell, pages, rewritten

if not shutil.which("jq"):
    sys.exit("the pages' commands need jq: https://jqlang.org/download/")
shell = Shell()
try:
    for page in [Path(name).resolve() for name in sys.argv[1:]] or pages():
        before, after = page.read_text(encoding="utf-8"), rewritten(page, shell)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print("rewritten:", page)
finally:
    shell.close()
