"""Draw the figures of the README and of `docs/figures.md`: `python -m tests.pictures.figure` writes `docs/images/`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from attncli.cli import main
from tests.helpers import ROOT

IMAGES = ROOT / "docs" / "images"
_INPUT = ROOT / "sample_inputs" / "journey_self_attention.json"
_VARIANT = "--projection randn:dim=16 --seed 3 --heads 4 --scale none --causal"
COMMANDS = {  # file in docs/images → the options that draw it
    "figure.png": "--title 'Where six tokens look, in four heads'",
    "figure-flow.png": "--at query=step",
    "figure-scores.png": "--only scores,mask --style dark",
    "figure-entropy.png": "--only entropy",
}


def draw(name: str, path: Path) -> None:
    """Draw one of `COMMANDS` into a file."""
    words = shlex.split(f"{_VARIANT} {COMMANDS[name]}")
    assert (
        main(["plot", str(_INPUT), *words, "--precision", "2", "--dpi", "144", "-q", "-o", str(path), "--force"]) == 0
    )


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for image_name in sys.argv[1:] or COMMANDS:
        draw(image_name, IMAGES / image_name)
