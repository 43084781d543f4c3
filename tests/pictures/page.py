"""Draw `docs/images/page.png`: a page of attn in a browser, as a reader finds it.

`python -m tests.pictures.page`; it needs Chromium.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.browser import Browser
from tests.helpers import ROOT, SAMPLES, run_process

PICTURE = ROOT / "docs/images/page.png"
_WIDTH, _HEIGHT = 1200, 960


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        path = Path(folder, "page.html")
        run_process("compute", SAMPLES / "journey_self_attention.json", "--causal", "-o", path)
        browser.open(path, width=_WIDTH, height=_HEIGHT)
        browser.click(".numbers tbody tr:nth-child(5) td:nth-of-type(2)")
        PICTURE.parent.mkdir(exist_ok=True)
        browser.screenshot(PICTURE, full=False)


if __name__ == "__main__":
    main()
